"""The crash states as a layer that is quick to catch: few of every workload, then more.

``python -m tests.planted_bugs.crash_layer [SECONDS]`` exits with 1 and says what it has caught, or
with 0 after so many seconds of the processor's.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "crash"))

import crash_explorer
from crash_explorer import Effort, Failure, Figures, explore
from crash_workloads import WORKLOADS

from minilog.testing.directories import BusError

HANGS_S = 300
ROUNDS = ((1, 1), (4, 2), (10, 4), (25, 3), (60, 5))  # states of every moment, and the seed
SECONDS = 150.0


def main(seconds: float) -> int:
    """Try rounds of crash states; return 1 when a promise was broken."""
    crash_explorer.SHRINKING_S = 0.0  # caught is caught
    figures = Figures()
    for per_moment, seed in ROUNDS:
        for told in WORKLOADS:
            if time.process_time() > seconds:
                break
            faulthandler.dump_traceback_later(HANGS_S, exit=True)
            try:
                explore(told, seed, Effort(per_moment, nested_share=0.3), figures)
            except (Failure, BusError) as failure:
                lines = [line for line in str(failure).splitlines() if line.strip()]
                print(f"caught in {told.name}: {lines[-1][:160]}")
                return 1
    print(f"nothing in {len(figures.seen):,} states")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if sys.argv[1:] else SECONDS))
