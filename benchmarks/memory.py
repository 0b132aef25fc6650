"""What a process that only reads gains in anonymous memory: the child that w9 starts.

Prints bytes. The kernel keeps no high-water mark of it, so it is looked at every few hundred
records, at a step that falls on other places in every batch; in smaps_rollup, which counts pages
(RssAnon in status is an estimate, some hundred KiB off).
"""

import re
import sys
from collections import deque
from itertools import islice
from pathlib import Path

from benchmarks.peers import PEERS

ROLLUP = Path("/proc/self/smaps_rollup")
STEP_RECORDS = 997


def anonymous_bytes() -> int:
    found = re.search(r"^Anonymous:\s+(\d+) kB$", ROLLUP.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"no line Anonymous in {ROLLUP}")
    return int(found[1]) * 1024


def growth_while_reading(name: str, verb: str, directory: Path) -> int:
    peer = next(peer for peer in PEERS if peer.name == name)
    log = peer(directory)
    before = highest = anonymous_bytes()
    records = iter(getattr(log, verb)())
    while deque(islice(records, STEP_RECORDS), maxlen=1):
        highest = max(highest, anonymous_bytes())
    log.close()
    return highest - before


if __name__ == "__main__":
    print(growth_while_reading(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
