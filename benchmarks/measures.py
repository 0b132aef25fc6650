"""How each thing is measured: one function per kind of work, each in a fresh directory.

A measure builds what it needs, starts the clock on a collected heap and a settled disk, and checks
afterwards that the work was done. The collector is on throughout, as it is in a user's program.
A log that is read was closed and opened again first, so nothing is known of it but what is on disk.
"""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from threading import Barrier, Semaphore
from time import perf_counter, sleep
from typing import Any, TypeVar

from benchmarks.contents import WrongResult, check_contents, check_read, check_reads, kept_prefix
from benchmarks.crash_image import copy_sparse
from benchmarks.data import LARGE, SMALL, Dataset, Kind, Scale, dataset, random_offsets
from benchmarks.peers import Peer, Sync

Figures = Mapping[str, float]  # by metric
Measure = Callable[..., Figures]
Result = TypeVar("Result")

UNFLUSHED_TAIL = 1_000  # records appended singly between the last flush and a crash
KILLED_AFTER = 10_000  # records appended singly
HAND_OVER_PAUSE = 0.0005  # seconds for the consumer to fall asleep
REPOSITORY = Path(__file__).parents[1]


def write_singly(peer: type[Peer], directory: Path, scale: Scale, *, verb: str) -> Figures:
    data = dataset(scale.records, SMALL)
    with _opened(peer, directory) as log:
        seconds, _ = _timed(scale, getattr(log, verb), data)
        check_contents(log, data)
    return _rates(data, seconds)


def write_batches(
    peer: type[Peer], directory: Path, scale: Scale, *, verb: str, kind: Kind
) -> Figures:
    data = _data(scale, kind)
    batches = data.batches()
    with _opened(peer, directory) as log:
        seconds, _ = _timed(scale, getattr(log, verb), batches)
        check_contents(log, data)
    return _rates(data, seconds)


def write_transactions(
    peer: type[Peer], directory: Path, scale: Scale, *, verb: str, size: int
) -> Figures:
    data = dataset(min(scale.records, size * scale.reads), SMALL)
    batches = [data.between(start, start + size) for start in range(0, len(data), size)]
    with _opened(peer, directory) as log:
        seconds, _ = _timed(scale, getattr(log, verb), batches)
        check_contents(log, data)
    return _rates(data, seconds)


def write_durably(
    peer: type[Peer], directory: Path, scale: Scale, *, verb: str, threads: int
) -> Figures:
    data = dataset(scale.durable, SMALL)
    hands = data.dealt(threads)
    start = Barrier(threads + 1)
    with _opened(peer, directory, sync="always") as log, ThreadPoolExecutor(threads) as pool:

        def append(hand: Dataset) -> None:
            start.wait()
            getattr(log, verb)(hand)

        writers = [pool.submit(append, hand) for hand in hands]
        _settle(scale)
        start.wait()
        started = perf_counter()
        for writer in writers:
            writer.result()
        seconds = perf_counter() - started
        check_contents(log, data, is_ordered=threads == 1)
    return _rates(data, seconds)


def read_all(
    peer: type[Peer], directory: Path, scale: Scale, *, verb: str, fill: str, kind: Kind
) -> Figures:
    data = _data(scale, kind)
    with _filled(peer, directory, data, fill) as log:
        seconds, _ = _timed(scale, _exhaust, getattr(log, verb)())
        if peer.is_used_up:
            _write(log, data, fill)
        check_read(log, getattr(log, verb)(), data)
    return _rates(data, seconds)


def read_at_random(
    peer: type[Peer], directory: Path, scale: Scale, *, verb: str, fill: str
) -> Figures:
    data = dataset(scale.records, SMALL)
    offsets = random_offsets(scale.reads, scale.records)
    with _filled(peer, directory, data, fill) as log:
        seconds, _ = _timed(scale, getattr(log, verb), offsets)
        check_reads(log, getattr(log, verb), offsets, data)
    return {"rate": len(offsets) / seconds}


def open_and_read_last(
    peer: type[Peer], directory: Path, scale: Scale, *, verb: str, image: str
) -> Figures:
    """Milliseconds from a path to the last record, after a clean close or on a crash's image."""
    data = dataset(scale.records, SMALL)
    clean, crashed = directory / "clean", directory / "crashed"
    clean.mkdir()
    with _opened(peer, clean) as log:
        tail = min(UNFLUSHED_TAIL, len(data) // 2)
        log.append_batches(data.between(0, -tail).batches())
        if hasattr(log, "flush"):
            log.flush()
        log.append_singly(data.between(-tail))
        if image == "crashed":
            copy_sparse(clean, crashed)
    # A crash is recovered from by the first to open what it left; a clean log opens alike again.
    opens = 1 if image == "crashed" else scale.opens
    path = directory / image
    return {"open": median(_open_ms(peer, path, scale, data, verb) for _ in range(opens))}


def hand_over(peer: type[Peer], directory: Path, scale: Scale, *, verb: str) -> Figures:
    """Microseconds from before an append to after the waiting call that returns its record."""
    data = dataset(scale.hand_overs, SMALL)
    asleep = Semaphore(0)
    given: list[float] = []
    taken: list[float] = []
    with _opened(peer, directory) as log, ThreadPoolExecutor(1) as pool:
        put, take = getattr(log, verb)()

        def consume() -> None:
            for _ in data.values:
                asleep.release()
                take()
                taken.append(perf_counter())

        _settle(scale)
        consumer = pool.submit(consume)
        for key, value in zip(data.keys, data.values, strict=True):
            if not asleep.acquire(timeout=30):
                break
            sleep(HAND_OVER_PAUSE)
            given.append(perf_counter())
            put(key, value)
        consumer.result()
    latencies = [(end - start) * 1e6 for start, end in zip(given, taken, strict=True)]
    return {"p50": median(latencies), "p99": quantiles(latencies, n=100, method="inclusive")[98]}


def pass_through_group(peer: type[Peer], directory: Path, scale: Scale, *, verb: str) -> Figures:
    """Records a second from producers to a group's consumers, and how long a batch took, in ms."""
    data = dataset(scale.records, SMALL)
    with _opened(peer, directory) as log:
        passage = getattr(log, verb)(data)  # every member has its share
        seconds, latencies = _timed(scale, lambda run: run(), passage)
    if len(latencies) < 2:
        raise WrongResult(f"{peer.name} polled {len(latencies)} times")
    rate = len(data.values) / seconds
    return {"rate": rate, "p99": quantiles(latencies, n=100, method="inclusive")[98]}


def memory_while_reading(
    peer: type[Peer], directory: Path, scale: Scale, *, verb: str, fill: str
) -> Figures:
    """MiB of anonymous memory gained by reading everything, in a process that only reads."""
    with _opened(peer, directory) as log:
        _write(log, dataset(scale.records, SMALL), fill)
    child = _child("benchmarks.memory", peer.name, verb, str(directory))
    if child.returncode:
        raise WrongResult(f"{peer.name} could not be read in a process: {child.stderr[-200:]}")
    return {"memory": int(child.stdout) / 2**20}


def disk_per_record(peer: type[Peer], directory: Path, scale: Scale, *, verb: str) -> Figures:
    """Bytes that the file system has given to the directory, after a clean close."""
    data = dataset(scale.records, SMALL)
    with _opened(peer, directory) as log:
        _write(log, data, verb)
    _settle(scale)
    files = (path.stat() for path in directory.rglob("*") if path.is_file())
    size = sum(
        stat.st_blocks * 512 if hasattr(stat, "st_blocks") else stat.st_size for stat in files
    )
    with _opened(peer, directory) as log:
        check_contents(log, data)
    return {"disk": size / len(data)}


def survive_kill(peer: type[Peer], directory: Path, scale: Scale, *, verb: str) -> Figures:
    """Percent of the records that are there, in order, after kill -9 of who had appended them."""
    data = dataset(min(scale.records, KILLED_AFTER), SMALL)
    child = _child("benchmarks.killed", peer.name, verb, str(directory), str(len(data)))
    if child.returncode != -signal.SIGKILL:
        raise WrongResult(f"{peer.name} was not killed: {child.stderr[-200:]}")
    with _opened(peer, directory) as log:
        return {"kept": kept_prefix(log, data) / len(data) * 100}


def _data(scale: Scale, kind: Kind) -> Dataset:
    return dataset(scale.large if kind is LARGE else scale.records, kind)


@contextmanager
def _opened(peer: type[Peer], directory: Path, *, sync: Sync = "never") -> Iterator[Any]:
    log = peer(directory, sync=sync)
    try:
        yield log
    finally:
        log.close()


def _write(log: Any, data: Dataset, verb: str) -> None:
    getattr(log, verb)(data.batches() if verb == "append_batches" else data)


@contextmanager
def _filled(peer: type[Peer], directory: Path, data: Dataset, verb: str) -> Iterator[Any]:
    """A log with everything in it, closed and opened again where it keeps what it has."""
    log = peer(directory)
    try:
        _write(log, data, verb)
        if peer.is_persistent:
            log.close()
            log = peer(directory)
        yield log
    finally:
        log.close()


def _child(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def _settle(scale: Scale) -> None:
    gc.collect()
    if scale.is_settled and hasattr(os, "sync"):
        os.sync()


def _timed(scale: Scale, function: Callable[..., Result], argument: Any) -> tuple[float, Result]:
    _settle(scale)
    started = perf_counter()
    result = function(argument)
    return perf_counter() - started, result


def _exhaust(records: Iterable[Any]) -> None:
    for _ in records:  # a user's loop
        pass


def _rates(data: Dataset, seconds: float) -> Figures:
    return {
        "rate": len(data) / seconds,
        "throughput": data.value_bytes / seconds / 1e6,
    }


def _open_ms(peer: type[Peer], directory: Path, scale: Scale, data: Dataset, verb: str) -> float:
    _settle(scale)
    started = perf_counter()
    log = peer(directory, sync="interval")
    _, value = getattr(log, verb)()
    seconds = perf_counter() - started
    log.close()
    if value != data.values[-1]:
        raise WrongResult(f"{peer.name} lost the end of a log")
    return seconds * 1e3
