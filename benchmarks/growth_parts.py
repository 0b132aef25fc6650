"""What a log costs at one size: the parts of `growth`, each in a process of its own.

So its memory, descriptors and maps are its own, and nothing is known of a log that is read but what
is on disk. A part prints its figures as JSON. Refuses to know which sizes are worth a look.
"""

import json
import random
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.data import SEED, SMALL, dataset
from benchmarks.memory import ROLLUP, anonymous_bytes
from minilog import Broker, Partition

TOPIC = "growth"
RANDOM_READS = 20_000
DURABLE_APPENDS = 256
DESCRIPTORS = Path("/proc/self/fd")
MAPS = Path("/proc/self/maps")

Figures = dict[str, float]


def write(
    directory: Path, how: str, records: int, partitions: int, batch: int, segment_bytes: int
) -> Figures:
    """Nanoseconds for each record, `how` being "bulk" or "singly"; the partitions in turn."""
    settings: dict[str, Any] = {"segment_bytes": segment_bytes} if segment_bytes else {}
    data = dataset(batch, SMALL)
    batches = records // batch
    with Broker(directory, sync="never") as broker:
        topic = broker.create_topic(TOPIC, partitions=partitions, **settings)
        before = _anonymous()
        if how == "bulk":
            seconds = _timed(_append_batches, list(topic), data, batches)
        else:
            seconds = _timed(_append_singly, list(topic), data, batches)
        grown = _anonymous() - before
        if sum(map(len, topic)) != batch * batches:
            raise RuntimeError("not every record is there")
    return {"append ns": seconds * 1e9 / (batch * batches), "writing MiB": grown / 2**20}


def _append_batches(partitions: list[Partition], data: Any, batches: int) -> None:
    for number in range(batches):
        partition = partitions[number % len(partitions)]
        partition.append_many(data.values, keys=data.keys)


def _append_singly(partitions: list[Partition], data: Any, batches: int) -> None:
    """Every next record to the next partition, as keys would spread them."""
    appends = [partition.append for partition in partitions]
    count = len(appends)
    number = 0
    for _ in range(batches):
        for key, value in zip(data.keys, data.values):
            appends[number % count](value, key=key)
            number += 1


def read(directory: Path) -> Figures:
    """Open, the last record, everything, and some at random; then what the process holds."""
    before = _anonymous()
    started = perf_counter()
    broker = Broker(directory, sync="never")
    topic = broker.topic(TOPIC)
    newest = topic[len(topic) - 1]
    last = newest.read(newest.end_offset - 1, max_records=1)
    opened = perf_counter() - started
    if len(last) != 1:
        raise RuntimeError("the last record is not there")
    records = sum(map(len, topic))
    seconds = _timed(_read_everything, list(topic))
    memory = _anonymous() - before
    chooser = random.Random(SEED)
    wanted = [
        (partition, chooser.randrange(partition.start_offset, partition.end_offset))
        for partition in chooser.choices(list(topic), k=min(RANDOM_READS, records))
    ]
    at_random = _timed(_read_at, wanted)
    memory = max(memory, _anonymous() - before)
    figures = {
        "open ms": opened * 1e3,
        "read ns": seconds * 1e9 / records,
        "random ns": at_random * 1e9 / len(wanted),
        "memory MiB": memory / 2**20,
        "descriptors": float(_count(DESCRIPTORS)),
        "maps": float(_lines_of_maps(directory)),
    }
    broker.close()
    return figures


def _read_everything(partitions: list[Partition]) -> None:
    for partition in partitions:
        deque(partition, maxlen=0)


def _read_at(wanted: list[tuple[Partition, int]]) -> None:
    for partition, offset in wanted:
        record = partition.read(offset, max_records=1)[0]
        if record.offset != offset:
            raise RuntimeError(f"{record.offset} was read for {offset}")


def append_durably(directory: Path) -> Figures:
    """Microseconds for an append that is on the disk when it returns, to a log of that size."""
    data = dataset(DURABLE_APPENDS, SMALL)
    with Broker(directory, sync="always") as broker:
        partitions = list(broker.topic(TOPIC))[:1]
        seconds = _timed(_append_singly, partitions, data, 1)
    return {"durable us": seconds * 1e6 / DURABLE_APPENDS}


def _timed(work: Callable[..., None], *arguments: Any) -> float:
    started = perf_counter()
    work(*arguments)
    return perf_counter() - started


def _anonymous() -> int:
    return anonymous_bytes() if ROLLUP.exists() else 0


def _count(directory: Path) -> int:
    return len(list(directory.iterdir())) if directory.exists() else 0


def _lines_of_maps(directory: Path) -> int:
    """Maps of the log's own files."""
    if not MAPS.exists():
        return 0
    return sum(str(directory.resolve()) in line for line in MAPS.read_text().splitlines())


if __name__ == "__main__":
    part, path, *rest = sys.argv[1:]
    if part == "write":
        figures = write(Path(path), rest[0], *map(int, rest[1:]))
    else:
        figures = {"read": read, "durable": append_durably}[part](Path(path))
    print(json.dumps(figures))
