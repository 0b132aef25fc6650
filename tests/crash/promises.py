"""What a broker has promised at a moment, and what is found after a crash: plain values.

A promise is never changed, only replaced, so that every moment of a story keeps its own. This
module refuses to know how the two are held against each other.
"""

from __future__ import annotations

import uuid
from typing import NamedTuple

from minilog import TopicConfig


class Row(NamedTuple):
    """A record, as it was given and as it must be found."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class PartitionPromise(NamedTuple):
    """What was appended, where its batches end, and how far it is on the disk.

    ``rows`` are those from ``first`` on; markers of transactions use up offsets and are none.
    """

    start: int = 0
    durable: int = 0
    end: int = 0
    rows: tuple[Row, ...] = ()
    boundaries: tuple[int, ...] = (0,)

    def after(self, rows: list[Row]) -> PartitionPromise:
        """Return the promise once a batch was appended."""
        return self.to_end(rows[-1].offset + 1)._replace(rows=(*self.rows, *rows))

    def to_end(self, end: int) -> PartitionPromise:
        """Return the promise once something was appended that is no record."""
        return self._replace(end=end, boundaries=(*self.boundaries, end))

    def as_found(self, found: FoundPartition, *, is_durable: bool) -> PartitionPromise:
        """Return the promise of what a crash has left."""
        return PartitionPromise(
            start=found.start,
            durable=found.end if is_durable else min(self.durable, found.end),
            end=found.end,
            rows=tuple(found.rows),
            boundaries=(*(b for b in self.boundaries if b < found.end), found.end),
        )


class TopicPromise(NamedTuple):
    """A topic and its partitions."""

    id: uuid.UUID
    settings: TopicConfig
    partitions: tuple[PartitionPromise, ...]


Place = tuple[str, int]


class GroupPromise(NamedTuple):
    """What a group has committed in a partition, in order; from ``durable`` on it may be lost."""

    offsets: tuple[int, ...] = ()
    durable: int = 0

    @property
    def last(self) -> int | None:
        """What was committed last."""
        return self.offsets[-1] if self.offsets else None


class TransactionPromise(NamedTuple):
    """The records of a transaction, and how it has ended."""

    rows: tuple[tuple[Place, int], ...] = ()
    outcome: str = "open"  # or "committed" or "aborted"
    is_durable: bool = False


class Promise(NamedTuple):
    """All that was promised at a moment."""

    topics: dict[str, TopicPromise]
    groups: dict[tuple[str, Place], GroupPromise]
    transactions: tuple[TransactionPromise, ...] = ()

    def with_topic(self, name: str, topic: TopicPromise) -> Promise:
        """Return it with a topic made or changed."""
        return self._replace(topics={**self.topics, name: topic})

    def without_topic(self, name: str) -> Promise:
        """Return it with a topic gone, and what groups have committed there."""
        topics = {other: topic for other, topic in self.topics.items() if other != name}
        groups = {key: group for key, group in self.groups.items() if key[1][0] != name}
        return self._replace(topics=topics, groups=groups)

    def with_partition(self, place: Place, promise: PartitionPromise) -> Promise:
        """Return it with one partition changed."""
        name, number = place
        topic = self.topics[name]
        parts = (*topic.partitions[:number], promise, *topic.partitions[number + 1 :])
        return self.with_topic(name, topic._replace(partitions=parts))

    def partition(self, place: Place) -> PartitionPromise:
        """Return what is promised of one partition."""
        return self.topics[place[0]].partitions[place[1]]

    def with_commit(self, group: str, place: Place, offset: int, *, is_durable: bool) -> Promise:
        """Return it once a group has committed an offset."""
        before = self.groups.get((group, place), GroupPromise())
        offsets = (*before.offsets, offset)
        durable = len(offsets) if is_durable else before.durable
        return self._replace(groups={**self.groups, (group, place): GroupPromise(offsets, durable)})

    def all_durable(self) -> Promise:
        """Return it once everything was synced."""
        topics = {
            name: topic._replace(
                partitions=tuple(part._replace(durable=part.end) for part in topic.partitions)
            )
            for name, topic in self.topics.items()
        }
        groups = {
            key: group._replace(durable=len(group.offsets)) for key, group in self.groups.items()
        }
        transactions = tuple(each._replace(is_durable=True) for each in self.transactions)
        return Promise(topics, groups, transactions)

    def as_found(self, found: Found, *, is_durable: bool) -> Promise:
        """Return what is promised of what a crash has left; its transactions are over."""
        topics = {}
        for name, topic in found.topics.items():
            known = self.topics[name].partitions
            known += (PartitionPromise(),) * (len(topic.partitions) - len(known))
            parts = tuple(
                promise.as_found(part, is_durable=is_durable)
                for promise, part in zip(known, topic.partitions)
            )
            topics[name] = TopicPromise(topic.id, topic.settings, parts)
        groups = {
            key: GroupPromise((offset,), int(is_durable)) for key, offset in found.groups.items()
        }
        if not is_durable:  # an older one may come back, if the power goes before a sync
            groups = {
                key: GroupPromise(
                    (*self.groups[key].offsets[:-1], *group.offsets), self.groups[key].durable
                )
                for key, group in groups.items()
            }
        return Promise(topics, groups)


class FoundPartition(NamedTuple):
    """What a partition holds."""

    start: int
    end: int
    rows: list[Row]


class FoundTopic(NamedTuple):
    """What a topic is."""

    id: uuid.UUID
    settings: TopicConfig
    partitions: list[FoundPartition]


class Found(NamedTuple):
    """All that a broker holds."""

    topics: dict[str, FoundTopic]
    groups: dict[tuple[str, Place], int]
