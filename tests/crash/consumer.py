"""The process that is killed while it consumes: it reads as members of a group until it dies, and
tells by a pipe what it was given and what it has committed.

Run as ``consumer.py PATH MODE SYNC SEED``. It appends what it reads itself, now and then, so there
is always more. What it tells is told at the moment that matters: before a call that may commit,
and after one that has. It refuses to know when it ends.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import Iterator
from struct import Struct
from typing import Any

from minilog import Broker, Consumer, Producer, Record

TOLD = Struct("<BIIQ")  # what, to which member, of which partition, up to where
IMPORTED, OPENED, ASKING, ANSWERED, GIVEN, YIELDED, COMMITTING, COMMITTED = range(8)
TOPIC = "t"
OUTPUT = "out"
GROUP = "g"
PARTITIONS = 3
OUTPUTS = 2


def content_of(partition: int, offset: int) -> bytes:
    """Return the value of the record at an offset."""
    return b"%d/%d" % (partition, offset)


def tell(what: int, member: int = 0, partition: int = 0, offset: int = 0) -> None:
    """Tell the parent, at once."""
    os.write(1, TOLD.pack(what, member, partition, offset))


class Reading:
    """One or two members of a group in one process, one after the other."""

    def __init__(self, broker: Broker, chance: random.Random, settings: dict[str, Any]) -> None:
        self._broker = broker
        self._chance = chance
        self._settings = settings
        self._numbers = itertools.count()
        self._members = [self._joined()]
        self.topic = broker.topic(TOPIC)

    def _joined(self) -> tuple[int, Consumer]:
        member = Consumer(self._broker, TOPIC, group=GROUP, **self._settings)
        return next(self._numbers), member

    def next_member(self) -> tuple[int, Consumer]:
        """Append a little, sometimes let a member come or go, and return one with its number."""
        for _ in range(self._chance.randrange(3)):
            partition = self.topic[self._chance.randrange(len(self.topic))]
            first = partition.end_offset
            count = self._chance.randint(1, 20)
            partition.append_many(
                [content_of(partition.index, first + number) for number in range(count)]
            )
        if self._chance.random() < 0.1:
            if len(self._members) < 2:
                self._members.append(self._joined())
            else:
                number, member = self._members.pop(self._chance.randrange(2))
                tell(ASKING, number)
                member.close()
                tell(ANSWERED, number)
        return self._chance.choice(self._members)

    def polls(self) -> Iterator[tuple[Consumer, list[Record]]]:
        """Poll for ever; a poll commits what earlier ones gave, so it is told before and after."""
        while True:
            number, member = self.next_member()
            tell(ASKING, number)
            records = list(member.poll(0, max_records=self._chance.choice((1, 5, 50))))
            tell(ANSWERED, number)
            for record in records:
                assert record.value == content_of(record.partition, record.offset)
                tell(GIVEN, number, record.partition, record.next_offset)
            yield member, records


def read_by_polls(reading: Reading) -> None:
    """Leave it to each poll to commit what the one before has given."""
    for _ in reading.polls():
        pass


def read_by_iteration(reading: Reading) -> None:
    """Iterate; a record is done when the next one is asked for."""
    while True:
        number, member = reading.next_member()
        iteration = member.drain()
        while True:
            tell(ASKING, number)
            record = next(iteration, None)
            if record is None:
                break
            assert record.value == content_of(record.partition, record.offset)
            tell(YIELDED, number, record.partition, record.offset)


def read_and_commit(reading: Reading) -> None:
    """Commit by hand: by partition, everything polled, or record by record."""
    polled: dict[Consumer, dict[int, int]] = {}
    for number, (member, records) in enumerate(reading.polls()):
        last = {record.partition: record.next_offset for record in records}
        polled.setdefault(member, {}).update(last)
        way = number % 4
        if way == 1:
            tell_all(COMMITTING, last)
            member.commit({(TOPIC, partition): offset for partition, offset in last.items()})
            tell_all(COMMITTED, last)
        elif way == 2:
            tell_all(COMMITTING, polled[member])
            member.commit()
            tell_all(COMMITTED, last)  # what it polled earlier may be another's by now
        elif way == 3:
            for record in records:
                tell(COMMITTING, 0, record.partition, record.next_offset)
                member.commit(record)
                tell(COMMITTED, 0, record.partition, record.next_offset)


def tell_all(what: int, offsets: dict[int, int]) -> None:
    """Tell the same of several partitions."""
    for partition, offset in offsets.items():
        tell(what, 0, partition, offset)


def read_and_transform(reading: Reading, producer: Producer) -> None:
    """Write something for each record, and commit where it was read, in one transaction."""
    for member, records in reading.polls():
        offsets = {record.partition: record.next_offset for record in records}
        if not offsets:
            continue
        tell_all(COMMITTING, offsets)
        with producer.transaction() as transaction:
            for record in records:
                where = record.offset % OUTPUTS
                transaction.send(OUTPUT, record.value, partition=where)
            transaction.commit_offsets(member)
        tell_all(COMMITTED, offsets)


def main(path: str, mode: str, sync: str, seed: str) -> None:
    """Open the log and consume it in one of several ways."""
    tell(IMPORTED)
    chance = random.Random(int(seed))
    broker = Broker(path, sync=sync, sync_interval_ms=1)  # type: ignore[arg-type]
    tell(OPENED)
    settings: dict[str, Any] = {"auto_commit": mode in ("polls", "iteration")}
    if mode == "transform":
        settings["isolation"] = "read_committed"
    reading = Reading(broker, chance, settings)
    if mode == "polls":
        read_by_polls(reading)
    elif mode == "iteration":
        read_by_iteration(reading)
    elif mode == "commits":
        read_and_commit(reading)
    else:
        read_and_transform(reading, Producer(broker, producer_id="transformer"))


if __name__ == "__main__":
    main(*sys.argv[1:])
