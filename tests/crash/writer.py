"""The process that is killed: it appends until it dies and tells by a pipe what was acknowledged.

What a record holds follows from its partition and offset alone, so whoever opens the log
afterwards knows what must be there, and also how many records at most were on their way. Run as
``writer.py PATH WORKLOAD SYNC PARTITIONS``. It refuses to know when it ends.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import zlib
from struct import Struct

from minilog import Broker, Partition

ACK = Struct("<IQ")  # partition, one past the last acknowledged offset
IMPORTED = 2**32 - 1  # in the place of a partition: what the process has come to
OPENED = 2**32 - 2
TOPIC = "t"
TIMESTAMP = 1_700_000_000_000

Content = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]


def number_of(*words: object) -> int:
    """Return a number that looks random and is always the same for the same words."""
    return zlib.crc32(repr(words).encode())


def content_of(partition: int, offset: int, *, in_batch: bool = False) -> Content:
    """Return key, value and headers of the record at an offset."""
    number = number_of(partition, offset)
    key = None if number % 3 == 0 else b"key %d" % number
    text = b"%d/%d " % (partition, offset)
    size = 5000 if number % 199 == 0 else number % 180
    value = None if number % 11 == 0 else (text * (size // len(text) + 1))[:size]
    headers: tuple[tuple[str, bytes | None], ...] = ()
    if number % 7 == 0:
        headers = (("n", b"%d" % number), ("null", None), ("n", b""))
    return key, value, headers


def step_of(workload: str, offset: int) -> int:
    """Return how many records a workload appends at once from an offset on."""
    size = 1 + number_of("batch", offset) % 40
    if workload == "batches":
        return size
    if workload == "mixed":
        return 1 if offset % 3 else size
    return 1


def append_step(partition: Partition, workload: str) -> int:
    """Append what the workload appends next; return one past the last offset."""
    first = partition.end_offset
    size = step_of(workload, first)
    records = [content_of(partition.index, first + number) for number in range(size)]
    if size > 1 or workload == "batches":
        keys, values, headers = zip(*records)
        return partition.append_many(values, keys=keys, headers=headers).stop
    key, value, headers = records[0]
    if headers:
        return partition.append(value, key=key, headers=headers) + 1
    return partition.append(value, key=key) + 1


def tell(partition: int, offset: int) -> None:
    """Tell the parent, at once."""
    os.write(1, ACK.pack(partition, offset))


def append_for_ever(partition: Partition, workload: str) -> None:
    """Append and acknowledge, until killed."""
    while True:
        tell(partition.index, append_step(partition, workload))


def main(path: str, workload: str, sync: str, partitions: str) -> None:
    """Open the log and append to it in one of several ways."""
    tell(IMPORTED, 0)
    if workload == "reopening":  # so that many kills come while it opens or closes
        for number in itertools.count():
            with Broker(path, sync=sync) as broker:  # type: ignore[arg-type]
                tell(OPENED, 0)
                for partition in broker.topic(TOPIC):
                    tell(partition.index, append_step(partition, workload))
                    if number % 2:
                        tell(partition.index, append_step(partition, workload))
    broker = Broker(path, sync=sync, sync_interval_ms=1)  # type: ignore[arg-type]
    tell(OPENED, 0)
    topic = broker.topic(TOPIC)
    if workload == "mixed":  # a thread each
        for partition in topic:
            threading.Thread(target=append_for_ever, args=(partition, workload)).start()
        return
    while True:
        for partition in topic:
            tell(partition.index, append_step(partition, workload))


if __name__ == "__main__":
    main(*sys.argv[1:])
