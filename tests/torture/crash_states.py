"""Crash states for as long as one likes: every workload, seed after seed, more of each moment.

``run`` is called by the torture runner; by hand: ``python -m tests.torture.crash_states MINUTES
[SEED [STATES]]``, which ends earlier when so many distinct states were tried. A crash that breaks
a promise ends it with an error that tells all of it.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "crash"))

from crash_explorer import Effort, Figures, explore
from crash_workloads import WORKLOADS

from tests.torture.rounds import TELLING_S

PER_MOMENT = 60


def run(minutes: float, seed: int, most_states: int = 2**62) -> dict[str, int | float]:
    """Try crash states for so many minutes, or until so many distinct ones were tried."""
    began = time.monotonic()
    effort = Effort(
        PER_MOMENT,
        nested_share=0.15,
        nested_count=4,
        deadline=began + minutes * 60,
        most_states=most_states,
    )
    figures = Figures()
    tells = began + TELLING_S
    gc.set_threshold(20_000, 20, 20)  # short-lived brokers by the thousand: an eighth of the time
    while not effort.is_over(figures):
        for told in WORKLOADS:
            if effort.is_over(figures):
                break
            explore(told, seed, effort, figures)
            if time.monotonic() >= tells:
                tells += TELLING_S
                print(f"crash_states so far: {figures.as_dict()}", file=sys.stderr, flush=True)
        seed += 1
    minutes_taken = round((time.monotonic() - began) / 60, 1)
    return {**figures.as_dict(), "violations": 0, "minutes": minutes_taken, "next_seed": seed}


if __name__ == "__main__":
    numbers = [int(each) for each in sys.argv[2:]]
    print(json.dumps(run(float(sys.argv[1]), *(numbers or [1])), indent=1))
