"""Members of a group as its tests use them: settled, owning, their callbacks written down.

Knows only the public face: what ``broker.groups`` shows, and what consumers say of themselves.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

from minilog import Broker, Consumer, Topic, TopicPartition

GROUP = "billing"


def filled(broker: Broker, name: str, *counts: int) -> Topic:
    """A topic with as many records in each partition, their values `name/partition/number`."""
    topic = broker.create_topic(name, partitions=len(counts))
    for partition, count in enumerate(counts):
        stem = f"{name}/{partition}"
        topic[partition].append_many([f"{stem}/{n}".encode() for n in range(count)])
    return topic


def partitions(topic: str, *numbers: int) -> set[TopicPartition]:
    return {TopicPartition(topic, number) for number in numbers}


def places(records: Iterable[Any]) -> list[tuple[str, int, int]]:
    """Where each record is: topic, partition, offset."""
    return [(record.topic, record.partition, record.offset) for record in records]


def offsets(records: Iterable[Any], partition: int = 0) -> list[int]:
    return [record.offset for record in records if record.partition == partition]


def settle(*consumers: Consumer) -> None:
    """Have every member poll until all have what is theirs; there must be nothing to read."""
    for _ in range(3):
        for consumer in consumers:
            assert not consumer.poll(0)


def owners(broker: Broker, group: str = GROUP) -> dict[TopicPartition, str]:
    """Who owns each partition, as the group says; none may have two owners."""
    found: dict[TopicPartition, str] = {}
    for member, assignment in broker.groups[group].members.items():
        for tp in assignment:
            assert tp not in found, f"{tp} belongs to {found[tp]} and to {member}"
            found[tp] = member
    return found


def assert_shared(broker: Broker, *consumers: Consumer, group: str = GROUP) -> None:
    """Every partition of the consumers' topics has one owner, who knows it, and no two."""
    assigned = [tp for consumer in consumers for tp in consumer.assignment()]
    assert len(assigned) == len(set(assigned)), assigned
    wanted = {
        TopicPartition(name, partition.index)
        for consumer in consumers
        for name in consumer.subscription()
        for partition in broker.topic(name)
    }
    assert set(assigned) == wanted
    assert set(owners(broker, group)) == wanted
    seen = sorted(sorted(assignment) for assignment in broker.groups[group].members.values())
    assert seen == sorted(sorted(consumer.assignment()) for consumer in consumers)


def read_all(*consumers: Consumer) -> list[tuple[str, int, int]]:
    """Poll the members in turn until none has anything any more; what each poll gave."""
    seen: list[tuple[str, int, int]] = []
    idle = 0
    while idle < 3:
        given = [places(consumer.poll(0)) for consumer in consumers]
        idle = 0 if any(given) else idle + 1
        seen += [place for records in given for place in records]
    return seen


class Call(NamedTuple):
    """One call of a callback."""

    member: str
    what: str
    partitions: list[TopicPartition]
    thread: int


class Diary:
    """What the callbacks of several members were called with, in order."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def subscribe(
        self, consumer: Consumer, name: str, topics: str | list[str] | re.Pattern[str]
    ) -> Consumer:
        """Subscribe with callbacks that write down what they were called with."""

        def written(what: str) -> Any:
            def callback(given: list[TopicPartition]) -> None:
                self.calls.append(Call(name, what, list(given), threading.get_ident()))

            return callback

        consumer.subscribe(
            topics,
            on_assigned=written("assigned"),
            on_revoked=written("revoked"),
            on_lost=written("lost"),
        )
        return consumer

    def told(self, name: str, what: str) -> set[TopicPartition]:
        """All that a member was told of one kind."""
        return {
            tp
            for call in self.calls
            if (call.member, call.what) == (name, what)
            for tp in call.partitions
        }

    def clear(self) -> None:
        self.calls.clear()
