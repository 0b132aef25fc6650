"""What forgetting costs: ``python -m benchmarks.cleaning [--records N] [--keys N] [--segments N]``.

Compaction of a log of many records with few keys, alone and beside a thread that appends; a table
of what is left; and retention over many segments, beside such a thread at last. Each part runs in
a process of its own, so that its memory is its own; it prints figures and asserts no speed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.machine import directory_there
from minilog import Broker, Partition

SEED = 20_240_229
BATCH_RECORDS = 10_000
VALUE = b"v" * 100
STATUS = Path("/proc/self/status")
HOUR_MS = 3_600_000

Figures = dict[str, float]


def memory_bytes(field: str) -> int:
    """Return a figure of this process's memory: VmHWM is the most it ever was."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"no line {field} in {STATUS}")
    return int(found[1]) * 1024


def batches(records: int, keys: int) -> Iterator[list[bytes]]:
    """Yield the keys of batches: drawn at random, so that some are old and some new."""
    chance = random.Random(SEED)
    for start in range(0, records, BATCH_RECORDS):
        count = min(BATCH_RECORDS, records - start)
        yield [b"%08d" % number for number in chance.choices(range(keys), k=count)]


def write(directory: Path, records: int, keys: int) -> Figures:
    with Broker(directory, sync="never", maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t", cleanup_policy="compact")[0]
        start = time.perf_counter()
        for batch in batches(records, keys):
            partition.append_many([VALUE] * len(batch), keys=batch)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "records_per_s": records / seconds}


def append_until(partition: Partition, is_over: Callable[[], bool]) -> tuple[int, array[float]]:
    """Append one by one; return how many, and how long each of some took."""
    took = array("d")  # millions: objects would be most of the memory that is told
    count = 0
    clock = time.perf_counter
    while not is_over():
        for _ in range(100):
            before = clock()
            partition.append(VALUE, key=b"%08d" % (count % 1000))
            took.append(clock() - before)
            count += 1
    return count, took


def spread(took: array[float], name: str) -> Figures:
    ordered = sorted(took)
    return {
        f"{name}_p50_us": ordered[len(ordered) // 2] * 1e6,
        f"{name}_p99_us": ordered[len(ordered) * 99 // 100] * 1e6,
        f"{name}_worst_ms": ordered[-1] * 1e3,
    }


def compact(directory: Path, *, is_alone: bool) -> Figures:
    with Broker(directory, sync="never", maintenance_interval_ms=0) as broker:
        topic = broker.topic("t")
        partition = topic[0]
        figures: Figures = {}
        end = time.perf_counter() + 1.0
        if not is_alone:
            start = time.perf_counter()
            count, took = append_until(partition, lambda: time.perf_counter() > end)
            figures["alone_appends_per_s"] = count / (time.perf_counter() - start)
            figures |= spread(took, "alone")
        before = memory_bytes("VmRSS")
        done = threading.Event()
        counted: list[tuple[int, array[float]]] = []
        appender = threading.Thread(
            target=lambda: counted.append(append_until(partition, done.is_set))
        )
        start = time.perf_counter()
        if not is_alone:
            appender.start()
        report = topic.compact()
        seconds = time.perf_counter() - start
        done.set()
        if not is_alone:
            appender.join()
        peak = memory_bytes("VmHWM")  # before the times are sorted, which takes more than all else
        if not is_alone:
            figures["appends_per_s"] = counted[0][0] / seconds
            figures |= spread(counted[0][1], "append")
        figures |= {
            "seconds": seconds,
            "records_per_s": report.records_before / seconds,
            "records_before": report.records_before,
            "records_after": report.records_after,
            "mb_before": report.bytes_before / 1e6,
            "mb_after": report.bytes_after / 1e6,
            "memory_before_mb": before / 1e6,
            "peak_memory_mb": peak / 1e6,
        }
    return figures


def restore(directory: Path) -> Figures:
    """Time a table of a compacted topic, by the wall and by what this process had of its core."""
    with Broker(directory, sync="never", maintenance_interval_ms=0) as broker:
        topic = broker.topic("t")
        start, used = time.perf_counter(), time.process_time()
        table = topic.table()
        seconds, used_seconds = time.perf_counter() - start, time.process_time() - used
        return {
            "keys": len(table),
            "seconds": seconds,
            "keys_per_s": len(table) / seconds,
            "keys_per_cpu_s": len(table) / used_seconds,
            "peak_memory_mb": memory_bytes("VmHWM") / 1e6,
        }


def write_segments(directory: Path, segments: int) -> Figures:
    with Broker(directory, sync="never", maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t", segment_bytes=256)[0]
        start = time.perf_counter()
        for _ in range(segments):
            partition.append(VALUE, timestamp=0)
        seconds = time.perf_counter() - start
    return {"segments": segments, "seconds": seconds}


def retain(directory: Path) -> Figures:
    def timed(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) * 1e3

    with Broker(directory, sync="never", maintenance_interval_ms=0) as broker:
        topic = broker.topic("t")
        end = topic[0].end_offset
        before = memory_bytes("VmRSS")
        topic.configure(retention_ms=2**62, retention_bytes=2**62)
        figures: Figures = {
            "first_look_ms": timed(broker.maintain),
            "next_look_ms": timed(broker.maintain),
        }
        topic.configure(retention_bytes=topic[0].end_offset * 100)
        figures["expire_some_by_size_ms"] = timed(broker.maintain)
        figures["of_segments"] = topic[0].start_offset
        topic.configure(retention_ms=HOUR_MS, retention_bytes=2**62, segment_bytes=2**26)
        limit = time.perf_counter() + 1.0
        count, took = append_until(topic[0], lambda: time.perf_counter() > limit)
        figures["alone_appends_per_s"] = count
        figures |= spread(took, "alone")
        done = threading.Event()
        counted: list[tuple[int, array[float]]] = []
        appender = threading.Thread(
            target=lambda: counted.append(append_until(topic[0], done.is_set))
        )
        appender.start()
        figures["expire_the_rest_by_age_ms"] = timed(broker.maintain)
        done.set()
        appender.join()
        figures["appends_per_s"] = counted[0][0] / figures["expire_the_rest_by_age_ms"] * 1e3
        figures |= spread(counted[0][1], "append")
        figures["start_offset"] = topic[0].start_offset
        figures["memory_grown_mb"] = (memory_bytes("VmHWM") - before) / 1e6
        if topic[0].start_offset < end - 1:  # the last one was appended to
            raise RuntimeError("not all of it expired")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cleaning", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--segments", type=int, default=1_000)
    parser.add_argument("--directory", type=directory_there, default=Path.cwd())
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    parts: dict[str, Callable[[Path], Figures]] = {
        "write": lambda path: write(path / "log", options.records, options.keys),
        "compact alone": lambda path: compact(path / "log", is_alone=True),
        "restore a table": lambda path: restore(path / "log"),
        "write again": lambda path: write(path / "again", options.records, options.keys),
        "compact beside appends": lambda path: compact(path / "again", is_alone=False),
        "write segments": lambda path: write_segments(path / "segments", options.segments),
        "retention": lambda path: retain(path / "segments"),
    }
    if options.part:
        print(json.dumps(parts[options.part](options.directory)))
        return
    with tempfile.TemporaryDirectory(prefix=".cleaning-", dir=options.directory) as scratch:
        for part in parts:
            command = [sys.executable, "-m", "benchmarks.cleaning", "--part", part]
            for name in ("records", "keys", "segments"):
                command += [f"--{name}", str(getattr(options, name))]
            command += ["--directory", scratch]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(part)
            for name, figure in json.loads(printed).items():
                print(f"    {name:28}{figure:>16,.1f}", flush=True)


if __name__ == "__main__":
    main()
