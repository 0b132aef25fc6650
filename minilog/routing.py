"""Which record goes where, and as which bytes: topics by name, partitioner, serializers.

One router serves everything a producer gives out: single sends, bulk, batches, transactions. This
module refuses to know what is done with a record in its partition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minilog.arguments import check_whole
from minilog.batching import Sticky
from minilog.broker import Broker
from minilog.errors import ClosedError, ConfigError, UnknownPartitionError, UnknownTopicError
from minilog.partition import Partition
from minilog.partitioners import NAMED, Partitioner, all_by_crc32, crc32, partitioner_of
from minilog.records import bytes_of
from minilog.topic import Topic

Serializer = Callable[[Any], bytes]


class Router:
    """Finds a record's partition; one producer's own, in any thread."""

    def __init__(
        self,
        broker: Broker,
        partitioner: str | Partitioner,
        key_serializer: Serializer | None,
        value_serializer: Serializer | None,
    ) -> None:
        for name, given in (
            ("key_serializer", key_serializer),
            ("value_serializer", value_serializer),
        ):
            if given is not None and not callable(given):
                raise ConfigError(f"{name} is {given!r}; it must be a callable or None")
        self.broker = broker
        self.partition_of = partitioner_of(partitioner)
        has_serializer = key_serializer is not None or value_serializer is not None
        # A partitioner of ours gives a right number for any bytes; another's is checked.
        self.has_plain_keys = not has_serializer and self.partition_of in NAMED.values()
        self.serialize_key = key_serializer
        self.serialize_value = value_serializer
        self.is_closed = False
        self._topics: dict[str, Topic] = {}
        self._sticky: dict[str, Sticky] = {}

    def check_open(self) -> None:
        """Raise ClosedError when its producer or the broker was closed, or ForkedError."""
        if self.is_closed:
            raise ClosedError("the producer was closed")
        self.broker.check_open()

    def serialized(self, value: Any, key: Any) -> tuple[bytes | None, bytes | None]:
        """Return value and key as the serializers make them, as bytes; null stays null."""
        if self.serialize_value is not None and value is not None:
            value = self.serialize_value(value)
        if self.serialize_key is not None and key is not None:
            key = self.serialize_key(key)
        return bytes_of("value", value), bytes_of("key", key)

    def target(self, topic: str, key: Any, partition: int | None, size: int) -> Partition:
        """Return the partition for a record: as asked, by its key, or the sticky one."""
        partitions = self.partitions(topic)
        if partition is not None:
            check_whole("partition", partition)
            if partition >= len(partitions):
                raise UnknownPartitionError(
                    f"{topic} has no partition {partition}; it has 0 to {len(partitions) - 1}"
                )
            return partitions[partition]
        if key is not None:
            return partitions[self.number_for(key, len(partitions))]
        return partitions[self.sticky_of(topic).number_for(size, len(partitions))]

    def partitions(self, topic: str) -> tuple[Partition, ...]:
        """Return a topic's partitions, as many as there are now."""
        self.check_open()
        known = self._topics.get(topic) if topic.__class__ is str else None
        if known is not None:
            try:
                return known.partitions
            except UnknownTopicError:
                del self._topics[topic]  # deleted; one of the same name may have been made since
        found = self.broker.topic_to_use(topic)
        self._topics[topic] = found
        return found.partitions

    def number_for(self, key: Any, count: int) -> int:
        """Return the partition for a key, of ``count`` there are."""
        if key.__class__ is not bytes:
            key = bytes_of("key", key)
        number = self.partition_of(key, count)
        if number.__class__ is not int or not 0 <= number < count:
            raise UnknownPartitionError(
                f"the partitioner returned {number!r} for a key; there are partitions 0 to "
                f"{count - 1}"
            )
        return number

    def numbers_for(self, keys: Sequence[Any], count: int) -> list[int] | None:
        """Return the partitions for many keys; None where one of them needs a look."""
        if not self.has_plain_keys or set(map(type, keys)) != {bytes}:
            return None
        if self.partition_of is crc32:
            return all_by_crc32(keys, count)
        return [self.partition_of(key, count) for key in keys]

    def sticky_of(self, topic: str) -> Sticky:
        """Return where records without a key go now."""
        sticky = self._sticky.get(topic)
        if sticky is None:
            sticky = self._sticky.setdefault(topic, Sticky())
        return sticky
