"""What this machine asks for the smallest things a log is made of, in the same run.

No log can be faster than the sum of what it does; these are the terms of that sum.
"""

import mmap
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from timeit import Timer
from typing import Any

from benchmarks.data import Scale
from benchmarks.machine import optional
from benchmarks.measures import hand_over
from benchmarks.peers.by_hand import BareCondition, fdatasync
from benchmarks.runner import Sample

crc32c = getattr(optional("crc32c"), "crc32c", None)
VALUE = bytes(range(100))
REGION_BYTES = 1 << 20
TIMED_CALLS = 50_000
TIMED_SYNCS = 100

# In the names of `_namespace`, by what the table calls them.
STATEMENTS = {
    "function call": "call()",
    "with lock": "with lock: pass",
    "store 100 B into a map": "region[512:612] = value",
    "slice 100 B out of bytes": "page[512:612]",
    "crc32c of 100 B": "crc32c(value)",
}


def measure_floors(directory: Path, scale: Scale, rounds: int) -> dict[str, Sample | None]:
    """Nanoseconds by name; None for what is not installed."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        names = _namespace(Path(scratch))
        floors: dict[str, Sample | None] = {
            label: _repeat(rounds, _statement_ns, statement, names)
            for label, statement in STATEMENTS.items()
            if crc32c or "crc32c" not in label
        }
        names["region"].close()
        for label, is_written in (
            ("write + fdatasync, growing file", False),
            ("write + fdatasync, written file", True),
        ):
            floors[label] = _repeat(rounds, _sync_ns, Path(scratch) / "synced", is_written)
        floors["hand-over by a bare Condition"] = _repeat(
            rounds, _hand_over_ns, Path(scratch), scale
        )
    return {label: floors.get(label) for label in [*STATEMENTS, *floors]}


def _repeat(rounds: int, measure: Callable[..., float], *arguments: Any) -> Sample:
    return Sample(tuple(measure(*arguments) for _ in range(rounds)))


def _namespace(scratch: Path) -> dict[str, Any]:
    def call() -> None:
        pass

    with open(scratch / "region", "w+b") as file:
        file.write(bytes(REGION_BYTES))
        file.flush()
        region = mmap.mmap(file.fileno(), REGION_BYTES)
    return {
        "call": call,
        "lock": threading.Lock(),
        "region": region,
        "page": bytes(4_096),
        "value": VALUE,
        "crc32c": crc32c,
    }


def _statement_ns(statement: str, names: dict[str, Any]) -> float:
    seconds = Timer(statement, globals=names).timeit(TIMED_CALLS)
    empty = Timer("pass", globals=names).timeit(TIMED_CALLS)
    return max(seconds - empty, 0.0) / TIMED_CALLS * 1e9


def _hand_over_ns(directory: Path, scale: Scale) -> float:
    return hand_over(BareCondition, directory, scale, verb="hand_over_ends")["p50"] * 1e3


def _sync_ns(path: Path, is_written: bool) -> float:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        if is_written:
            os.write(descriptor, bytes(TIMED_SYNCS * len(VALUE)))
            os.lseek(descriptor, 0, os.SEEK_SET)
        os.fsync(descriptor)
        started = perf_counter()
        for _ in range(TIMED_SYNCS):
            os.write(descriptor, VALUE)
            fdatasync(descriptor)
        return (perf_counter() - started) / TIMED_SYNCS * 1e9
    finally:
        os.close(descriptor)
        path.unlink()
