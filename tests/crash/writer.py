"""The process that is killed: it appends until it dies and tells by a pipe what was acknowledged.

What a record holds follows from its partition and offset alone, so whoever opens the log
afterwards knows what must be there, and also how many records at most were on their way. Run as
``writer.py PATH WORKLOAD SYNC PARTITIONS [STEPS]``; without a number of steps it never ends. It
refuses to know when it is killed.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from struct import Struct

from minilog import Broker, Partition

ACK = Struct("<IQQ")  # what of, how far it has come, and when that was known (monotonic, ns)
IMPORTED = 2**32 - 1  # in the place of a partition: what the process has come to
OPENED = 2**32 - 2
TOPICS = 2**32 - 3  # how many steps of making and deleting topics are done
SYNC_BEGAN = 2**32 - 4  # a round of housekeeping, by number
SYNC_ENDED = 2**32 - 5
STARTS = 1_000_000  # added to a partition: its start offset
TOPIC = "t"
TIMESTAMP = 1_700_000_000_000
SYNC_INTERVAL_MS = 20

Content = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]


def number_of(*words: object) -> int:
    """Return a number that looks random and is always the same for the same words."""
    return zlib.crc32(repr(words).encode())


def content_of(partition: int, offset: int) -> Content:
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
    if workload in ("mixed", "deleting", "reopening"):
        return 1 if offset % 3 else size
    return 1


def start_after(end: int) -> int:
    """Return what the workload that deletes deletes before, when the end has come so far."""
    if number_of("delete", end) % 4:
        return 0
    return max(end - number_of("kept", end) % 30, 0)


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


def topics_after(steps: int) -> dict[str, tuple[int, int]]:
    """Return the topics there are after so many steps: of how many partitions and records."""
    made: dict[str, tuple[int, int]] = {}
    for step in range(steps):
        number, part = divmod(step, 4)
        if part == 0:
            made[f"made-{number}"] = (2, 0)
        elif part == 1:
            made[f"made-{number}"] = (2, 5)
        elif part == 2:
            made[f"made-{number}"] = (3, 5)
        elif number:
            del made[f"made-{number - 1}"]
    return made


def made_topics(broker: Broker) -> dict[str, tuple[int, int]]:
    """Return the topics that such steps made, of how many partitions and records."""
    return {
        name: (len(topic), len(topic[0]))
        for name, topic in broker.topics.items()
        if name.startswith("made-")
    }


def topic_steps(broker: Broker) -> int:
    """Return after how many steps the topics are as they are."""
    made = made_topics(broker)
    return next(steps for steps in range(10_000) if topics_after(steps) == made)


def topic_step(broker: Broker, step: int) -> None:
    """Do one step of making, filling, growing and deleting topics."""
    number, part = divmod(step, 4)
    name = f"made-{number}"
    if part == 0:
        broker.create_topic(name, 2)
    elif part == 1:
        broker.topic(name)[0].append_many([content_of(0, offset)[1] for offset in range(5)])
    elif part == 2:
        broker.topic(name).add_partitions(3)
    elif number:
        broker.delete_topic(f"made-{number - 1}")


def tell(what: int, number: int) -> None:
    """Tell the parent, at once."""
    os.write(1, ACK.pack(what, number, time.monotonic_ns()))


class TellingBroker(Broker):
    """A broker that tells when a round of housekeeping, which syncs, begins and ends."""

    rounds = itertools.count()

    def keep_house(self) -> None:
        number = next(self.rounds)
        tell(SYNC_BEGAN, number)
        super().keep_house()
        if not self.housekeeping_errors:
            tell(SYNC_ENDED, number)


def append_and_tell(partition: Partition, workload: str) -> None:
    """Do one step of a workload on a partition, and acknowledge."""
    end = append_step(partition, workload)
    tell(partition.index, end)
    start = start_after(end)
    if workload == "deleting" and start > partition.start_offset:
        partition.delete_before(start)
        tell(STARTS + partition.index, start)


def append_for_ever(partition: Partition, workload: str) -> None:
    """Append and acknowledge, until killed."""
    while True:
        append_and_tell(partition, workload)


def run(path: str, workload: str, sync: str, numbers: Iterator[int]) -> None:
    """Open the log and work on it in one of several ways."""
    if workload == "reopening":  # so that many kills come while it opens or closes
        for number in numbers:
            with Broker(path, sync=sync) as broker:  # type: ignore[arg-type]
                tell(OPENED, 0)
                for partition in broker.topic(TOPIC):
                    append_and_tell(partition, workload)
                    if number % 2:
                        append_and_tell(partition, workload)
        return
    kind = TellingBroker if sync == "interval" else Broker
    broker = kind(path, sync=sync, sync_interval_ms=SYNC_INTERVAL_MS)  # type: ignore[arg-type]
    tell(OPENED, 0)
    if workload == "topics":
        done = topic_steps(broker)
        for step in numbers:
            topic_step(broker, done + step)
            tell(TOPICS, done + step + 1)
        broker.close()
        return
    topic = broker.topic(TOPIC)
    if workload == "mixed":  # a thread each
        for partition in topic:
            threading.Thread(target=append_for_ever, args=(partition, workload)).start()
        return
    for _ in numbers:
        for partition in topic:
            append_and_tell(partition, workload)
    broker.close()


def main(path: str, workload: str, sync: str, partitions: str, steps: str = "") -> None:
    """Run until killed, or for a number of steps."""
    tell(IMPORTED, 0)
    run(path, workload, sync, iter(range(int(steps))) if steps else itertools.count())


if __name__ == "__main__":
    main(*sys.argv[1:])
