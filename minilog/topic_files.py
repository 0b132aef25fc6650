"""A topic on the disk: ``topic.json``, and the directories of its partitions.

Its settings, its id and where its partitions start are one small file, replaced whole. A partition
is made before that file counts it, so one that is there and not counted was left by a crash. This
module refuses to know who uses a topic, and what is in its partitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from minilog.clock import Clock
from minilog.config import TopicConfig
from minilog.errors import CorruptionError, InvalidPartitionsError
from minilog.storage import Log
from minilog.storage.files import Directory
from minilog.storage.format import decode_document, encode_document

if TYPE_CHECKING:
    import uuid

TOPIC_FILE = "topic.json"
MOST_PARTITIONS = 100_000


class TopicState(NamedTuple):
    """What ``topic.json`` holds."""

    name: str
    id: uuid.UUID
    partition_count: int
    config: TopicConfig
    start_offsets: dict[int, int]

    def save(self, directory: Directory) -> None:
        """Replace the file, durably."""
        content = {
            "name": self.name,
            "id": str(self.id),
            "partitions": self.partition_count,
            "settings": self.config._asdict(),
            "start_offsets": {str(n): offset for n, offset in self.start_offsets.items()},
        }
        directory.replace(TOPIC_FILE, encode_document(content))

    @classmethod
    def load(cls, directory: Directory) -> TopicState:
        """Return what the file holds; CorruptionError, UnsupportedFormatError."""
        from uuid import UUID  # imported where needed: 6 ms, of which importing minilog has 30

        path = f"{directory.path}/{TOPIC_FILE}"
        try:
            content = decode_document(directory.read(TOPIC_FILE), path)
        except FileNotFoundError:
            raise CorruptionError("it is missing; restore it from a copy", path=path) from None
        try:
            check_partition_count(content["partitions"])
            if not isinstance(content["name"], str):
                raise TypeError("its name is no text")
            starts = {int(n): offset for n, offset in content["start_offsets"].items()}
            if any(
                type(offset) is not int or not 0 <= offset < 2**63 for offset in starts.values()
            ):
                raise TypeError("a start offset is no offset")
            return cls(
                content["name"],
                UUID(content["id"]),
                content["partitions"],
                TopicConfig.of(content["settings"]),
                starts,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptionError(f"it lacks what a topic has ({error})", path=path) from None


def random_id() -> uuid.UUID:
    """Return an id that nothing else has."""
    from uuid import uuid4  # as above

    return uuid4()


def log_identity(topic_id: uuid.UUID, partition: int) -> bytes:
    """Return what the checksums of a partition's records are seeded with."""
    return topic_id.bytes + partition.to_bytes(4, "little")


def make_partitions(
    directory: Directory, topic_id: uuid.UUID, numbers: range, clock: Clock
) -> None:
    """Make the directories and first segments of partitions, durably."""
    for number in numbers:
        child = directory.child(str(number))
        if child.exists():
            child.remove()  # left by a crash before topic.json knew of it
        Log.create(child, log_identity(topic_id, number), 0, clock.now_ms())
        child.sync()
    directory.sync()


def check_partition_count(count: object) -> None:
    """Raise InvalidPartitionsError unless ``count`` may be a number of partitions."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise InvalidPartitionsError(f"partitions is {count!r}; it must be a whole number")
    if not 1 <= count <= MOST_PARTITIONS:
        raise InvalidPartitionsError(f"partitions is {count}; it must be 1 to {MOST_PARTITIONS}")
