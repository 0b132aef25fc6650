"""The ledger: what groups have committed, as records of one internal topic.

    record key     b"o" and the group's name (UTF-8)
    record value   per partition 28 bytes: topic id 16s, partition u32, offset i64 (-1: forgotten);
                   null when the group was deleted

Its state is what replaying these records gives, so a commit is as durable as any record. When the
log has grown, a snapshot of the state is appended as one atomic batch and what stands before it
is deleted: opening takes time in proportion to the groups, not to their commits. Offsets are kept
by topic *id*: a topic that is deleted and made again starts clean.

This module refuses to know members, consumers and where a group reads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from struct import Struct
from typing import NamedTuple, Protocol

from minilog.errors import OffsetOutOfRangeError, StorageError
from minilog.partition import Partition
from minilog.storage import Problem
from minilog.topic import Topic

LEDGER = "__ledger"
SEGMENT_BYTES = 1 << 20
SNAPSHOT_BYTES = 1 << 20  # so much is appended, at least, before the state is written anew
OFFSETS = b"o"
ENTRY = Struct("<16sIq")
FORGOTTEN = -1


class Place(NamedTuple):
    """A partition, by the id of its topic."""

    topic_id: bytes
    partition: int


Offsets = dict[Place, int]


class Keeper(Protocol):
    """What a ledger needs of its broker."""

    @property
    def is_read_only(self) -> bool: ...
    def ledger_partition(self, *, is_writing: bool) -> Partition | None: ...
    def topic_by_id(self, topic_id: bytes) -> Topic | None: ...


class Ledger:
    """The committed offsets of every group of one broker."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._lock = threading.Lock()
        self._groups: dict[str, Offsets] = {}
        self._partition: Partition | None = None
        self._position = 0
        self._is_behind = True  # there may be records that were not taken in
        self._grown_bytes = 0
        self._snapshot_bytes = 0

    # ------------------------------------------------------------ read

    def group_names(self) -> list[str]:
        """Return the groups that have committed something, sorted."""
        with self._lock:
            self._follow()
            return sorted(group for group, offsets in self._groups.items() if offsets)

    def committed(self, group: str) -> Offsets:
        """Return what a group has committed."""
        with self._lock:
            self._follow()
            return dict(self._groups.get(group, {}))

    def _follow(self) -> None:
        """Take in what is there and was not yet: all of it at first, then what another process
        has appended, or what an interrupt kept from being taken in."""
        if not self._is_behind:
            return
        partition = self._partition
        if partition is None:
            partition = self._partition = self._keeper.ledger_partition(is_writing=False)
        if partition is None:
            return
        if not self._keeper.is_read_only:
            partition.flush()  # with sync="always" nothing is read before
        while True:
            if self._position < partition.start_offset:
                self._groups.clear()  # a snapshot follows, and it is all there is to know
                self._position = partition.start_offset
            try:
                records = partition.read(self._position, max_records=5000)
            except OffsetOutOfRangeError:
                continue  # deleted by another process since the look above
            if not records:
                break
            for key, value in zip(records.keys, records.values):
                self._apply(key or b"", value)
            self._position = records.next_offset
        self._is_behind = self._keeper.is_read_only

    def _apply(self, key: bytes, value: bytes | None) -> None:
        group = key[1:].decode()
        if value is None:
            self._groups.pop(group, None)
            return
        offsets = self._groups.setdefault(group, {})
        for topic_id, partition, offset in ENTRY.iter_unpack(value):
            if offset == FORGOTTEN:
                offsets.pop(Place(topic_id, partition), None)
            else:
                offsets[Place(topic_id, partition)] = offset

    def recover(self) -> list[Problem]:
        """After a crash: take back commits of offsets that have not survived, durably, and report
        them. Else what is appended at those offsets now would never be read."""
        problems: list[Problem] = []
        for group in self.group_names():
            taken_back: Offsets = {}
            for place, offset in self.committed(group).items():
                topic = self._keeper.topic_by_id(place.topic_id)
                if topic is None or place.partition >= len(topic):
                    continue
                partition = topic[place.partition]
                end = _end_offset(partition)
                if end is not None and offset > end:
                    taken_back[place] = end
                    reason = (
                        f"group {group!r} had committed {offset}, and the partition ends at {end} "
                        "after the crash; that is what is committed now"
                    )
                    problems.append(Problem(partition.path, 0, offset, reason))
            if taken_back:
                self.commit(group, taken_back)
        if problems and self._partition is not None:
            self._partition.flush()  # before anything is appended there
        return problems

    # ------------------------------------------------------------ write

    def commit(self, group: str, offsets: Mapping[Place, int]) -> int:
        """Write a group's offsets as one record, and return what to ``wait_until_kept``."""
        return self._write(group, packed(offsets))

    def forget(self, group: str) -> int:
        """Forget all that a group has committed; return what to ``wait_until_kept``."""
        return self._write(group, None)

    def wait_until_kept(self, end: int) -> None:
        """Return when all below ``end`` is as durable as the broker's records are."""
        assert self._partition is not None
        self._partition.wait_until_kept(end)

    def _write(self, group: str, value: bytes | None) -> int:
        key = OFFSETS + group.encode()
        with self._lock:
            self._follow()
            partition = self._partition
            if partition is None:
                partition = self._partition = self._keeper.ledger_partition(is_writing=True)
                assert partition is not None
            self._is_behind = True  # until it is applied: an interrupt may come between
            end = partition.append_unkept(value, key) + 1
            self._apply(key, value)
            self._position = end
            self._is_behind = False
            self._grown_bytes += len(key) + len(value or b"") + 40
            if self._grown_bytes > max(SNAPSHOT_BYTES, 2 * self._snapshot_bytes):
                with contextlib.suppress(OSError):  # no room for it: tried again by the next
                    self._rewrite(partition)
        return end

    def _rewrite(self, partition: Partition) -> None:
        """Append the whole state as one batch, and delete what stands before it."""
        known: dict[str, Offsets] = {}
        for group, offsets in self._groups.items():
            known[group] = {
                place: offset
                for place, offset in offsets.items()
                if self._keeper.topic_by_id(place.topic_id) is not None
            }
        keys = [OFFSETS + group.encode() for group in known]
        values = [packed(offsets) for offsets in known.values()]
        written = partition.append_many(values, keys=keys)
        self._groups = known
        self._position = written.stop
        self._grown_bytes = 0
        self._snapshot_bytes = sum(map(len, keys)) + sum(map(len, values))
        partition.delete_before(written.start)


def _end_offset(partition: Partition) -> int | None:
    try:
        return partition.end_offset
    except StorageError:
        return None  # it cannot be opened, and has been reported


def packed(offsets: Mapping[Place, int]) -> bytes:
    """Return offsets as a record's value."""
    return b"".join(ENTRY.pack(*place, offset) for place, offset in offsets.items())
