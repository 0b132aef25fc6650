"""Who appends one by one and is killed by SIGKILL after the last: a child of the benchmarks."""

import os
import signal
import sys
from pathlib import Path

from benchmarks.data import SMALL, dataset
from benchmarks.peers import PEERS


def append_and_die(name: str, verb: str, directory: Path, count: int) -> None:
    peer = next(peer for peer in PEERS if peer.name == name)
    log = peer(directory)
    getattr(log, verb)(dataset(count, SMALL))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    append_and_die(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
