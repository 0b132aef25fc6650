"""Two ways to have a workload's actors at work: threads as they come, and a schedule of a seed's.

It refuses to know what the actors do.
"""

from __future__ import annotations

import gc
import importlib
import pkgutil
import threading
from collections.abc import Callable
from typing import Any

import minilog
from tests.history.disk import SteppedDisk
from tests.history.operations import History
from tests.history.scheduler import FILE, LINE, LOCK, STEP, Scheduler, scheduled
from tests.history.workload import Workload

# How likely an actor is interrupted: between its steps, at a lock, in a file, at a line.
CHANCES = {
    "steps": {STEP: 1.0},
    "locks": {STEP: 0.5, LOCK: 0.1, FILE: 0.02},
    "lines": {STEP: 0.2, LOCK: 0.02, FILE: 0.01, LINE: 0.003},
}
STEPS_EACH = 12
LOOK_AGAIN_S = 0.05
HEAD_START = 100

# What is imported when it is first needed would be lines of the first schedule alone.
for found in pkgutil.walk_packages(minilog.__path__, "minilog."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)


class Outcome:
    """What a run leaves behind."""

    def __init__(self, history: History, trace: list[int], workload: Workload) -> None:
        self.history = history
        self.trace = trace
        self.workload = workload


def run_threads(workload: Workload, operations: int) -> History:
    """Have every actor in a thread of its own until so many operations were recorded."""
    history = workload.setting.history
    failures: list[BaseException] = []
    # Who sends is faster than who reads: for each step of a reader there is one of a sender, or
    # after a while without: all who read may be waiting for records, or for the clock to be turned.
    turns = threading.Semaphore(HEAD_START)

    def live(name: str, step: Callable[[], None]) -> None:
        is_reading = name.startswith("reader")
        try:
            while len(history) < operations and not failures:
                if is_reading:
                    turns.release()
                else:
                    turns.acquire(timeout=LOOK_AGAIN_S)
                step()
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=live, args=(name, step), name=name)
        for name, step in workload.actors.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(LOOK_AGAIN_S)
            if len(history) >= operations or failures:
                workload.release()
    if failures:
        raise failures[0]
    return workload.finish()


def run_scheduled(
    seed: int, chances: dict[str, float], *, steps: int = STEPS_EACH, **options: Any
) -> Outcome:
    """Have the actors take so many steps each, one at a time, as a seed says."""
    scheduler = Scheduler(seed, chances)
    is_collecting = gc.isenabled()
    gc.disable()  # or it would be left to chance when a dropped consumer is noticed
    try:
        with scheduled(scheduler, seed):
            disk = SteppedDisk(lambda: scheduler.point(FILE))
            workload = Workload(disk, seed, **options)

            def work(step: Callable[[], None]) -> Callable[[], None]:
                def repeat() -> None:
                    for _ in range(steps):
                        scheduler.point(STEP)
                        step()

                return repeat

            works = {name: work(step) for name, step in workload.actors.items()}
            scheduler.run(works, lambda: workload.clock.advance(100))
            history = workload.finish()
    finally:
        if is_collecting:
            gc.enable()
    return Outcome(history, scheduler.trace, workload)
