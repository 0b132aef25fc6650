"""The exception tree, split by what the caller does next.

    MinilogError                             .retriable = False
    ├── ConfigError (ValueError)             fix the call: unknown or contradictory setting
    ├── InvalidTopicError (ValueError)       fix the name
    ├── InvalidPartitionsError (ValueError)  fix the number of partitions
    ├── RecordTooLargeError (ValueError)     .size .limit
    ├── InvalidRecordError (ValueError)      a negative timestamp, a naive datetime, ...
    ├── ClosedError                          open it again
    ├── ReadOnlyError                        open it for writing
    ├── ForkedError                          open it anew in the child
    ├── LockedError                          .pid .path: another writer holds the directory
    ├── UnknownTopicError (LookupError)      no such topic, or it was deleted
    ├── TopicExistsError                     choose another name, or exist_ok=True
    ├── UnknownPartitionError (LookupError)  no partition of that number
    ├── OffsetOutOfRangeError (LookupError)  .topic .partition .requested .start_offset .end_offset
    ├── StorageError                         stop and look at the disk
    │   ├── CorruptionError                  .path .position .offset .next_offset .reason
    │   ├── UnsupportedFormatError           .found .supported (newer is not damaged)
    │   └── SyncFailedError                  what was not synced has an unknown fate; reopen
    ├── GroupError
    │   ├── RebalanceError                   retriable: poll again
    │   ├── UnknownMemberError
    │   ├── CommitError
    │   ├── NoOffsetError
    │   └── NotAssignedError
    ├── OffsetConflictError                  .expected .actual: another writer was first
    ├── SequenceGapError
    └── TransactionError
        └── FencedError

An ``OSError`` (no space, too many open files) passes through as itself: nothing was appended and
the log goes on when the cause is gone. This module refuses to know what raises what.
"""

from __future__ import annotations

from typing import Any


class MinilogError(Exception):
    """The root of everything minilog raises on purpose."""

    retriable = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, self.__dict__)  # attributes survive a process


def _rebuilt(kind: type[MinilogError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigError(MinilogError, ValueError):
    """A setting or argument is unknown, out of range or contradicts another."""


class InvalidTopicError(MinilogError, ValueError):
    """A topic name is not 1 to 249 characters of ``[a-zA-Z0-9._-]``, or is reserved."""


class InvalidPartitionsError(MinilogError, ValueError):
    """A number of partitions is below one, or below what the topic already has."""


class RecordTooLargeError(MinilogError, ValueError):
    """A record is larger than ``max_record_bytes``, or a batch than one frame can hold.

    ``size`` and ``limit`` are bytes of key, value and headers together.
    """

    def __init__(self, message: str, *, size: int, limit: int) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class InvalidRecordError(MinilogError, ValueError):
    """A record cannot be what it says: a negative timestamp, a naive datetime, a missing key."""


class ClosedError(MinilogError):
    """The broker, producer or consumer was closed before this call."""


class ReadOnlyError(MinilogError):
    """A write was asked of a broker that was opened with ``read_only=True``."""


class ForkedError(MinilogError):
    """A broker was used in a child of ``fork``; only the process that opened it may."""


class LockedError(MinilogError):
    """Another broker has the directory open for writing.

    ``pid`` is the process that holds it (0 when it could not be told), ``path`` the directory.
    """

    def __init__(self, message: str, *, pid: int, path: str) -> None:
        super().__init__(message)
        self.pid = pid
        self.path = path


class UnknownTopicError(MinilogError, LookupError):
    """No topic has this name, or the topic was deleted since."""


class TopicExistsError(MinilogError):
    """A topic of this name is already there."""


class UnknownPartitionError(MinilogError, LookupError):
    """The topic has no partition of this number."""


class OffsetOutOfRangeError(MinilogError, LookupError):
    """An offset lies outside ``[start_offset, end_offset]`` of its partition."""

    def __init__(
        self, topic: str, partition: int, requested: int, start_offset: int, end_offset: int
    ) -> None:
        super().__init__(
            f"offset {requested} of {topic}-{partition} is out of range: "
            f"it holds {start_offset} to {end_offset} (end exclusive)"
        )
        self.topic = topic
        self.partition = partition
        self.requested = requested
        self.start_offset = start_offset
        self.end_offset = end_offset


class StorageError(MinilogError):
    """The files are not as minilog left them; stop and look at the disk."""


class CorruptionError(StorageError):
    """Bytes that were on the disk have changed.

    ``path`` and ``position`` (bytes) say where, ``offset`` is the first record that cannot be
    read and ``next_offset`` the first after it that can (None where that is not known).
    """

    def __init__(
        self,
        reason: str,
        *,
        path: str,
        position: int = 0,
        offset: int | None = None,
        next_offset: int | None = None,
    ) -> None:
        where = f"{path} at byte {position}"
        if offset is not None and next_offset is not None:
            where += f", offsets {offset} to {next_offset} (end exclusive)"
        elif offset is not None:
            where += f", offset {offset}"
        super().__init__(f"{where}: {reason}")
        self.reason = reason
        self.path = path
        self.position = position
        self.offset = offset
        self.next_offset = next_offset


class UnsupportedFormatError(StorageError):
    """The files are of a format this version does not read; a newer one is not damage.

    ``found`` is the version met, ``supported`` the newest one read here.
    """

    def __init__(self, message: str, *, found: int, supported: int) -> None:
        super().__init__(message)
        self.found = found
        self.supported = supported


class SyncFailedError(StorageError):
    """A sync failed, so what was not synced has an unknown fate; reopen the broker to go on."""


class GroupError(MinilogError):
    """Something about a consumer group, or a consumer's place, is not as asked."""


class RebalanceError(GroupError):
    """The group is sharing its partitions out anew; poll again."""

    retriable = True


class UnknownMemberError(GroupError):
    """The group does not know this member (any more)."""


class CommitError(GroupError):
    """A commit was refused: the partition is not this member's."""


class NoOffsetError(GroupError):
    """There is no committed offset and ``auto_offset_reset`` is ``"none"``."""


class NotAssignedError(GroupError):
    """The partition is not assigned to this consumer."""


class OffsetConflictError(MinilogError):
    """``expected_offset`` was not the next one: another writer was first."""

    def __init__(self, message: str, *, expected: int, actual: int) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class SequenceGapError(MinilogError):
    """A producer's sequence number skipped one or more."""


class TransactionError(MinilogError):
    """A transaction cannot go on."""


class FencedError(TransactionError):
    """A newer producer of the same name has taken over."""
