"""What a broker does for its topics: opens their logs, and tells them what is decided elsewhere.

Topics see their broker through this alone. Whatever changes a byte passes ``before_write``, which
takes the clean mark away first. This module refuses to know which topics there are, who uses them,
and when the broker opens and closes.
"""

from __future__ import annotations

from typing import Protocol

from minilog.clock import Clock
from minilog.coordination import Coordination
from minilog.marks import CleanMarks
from minilog.storage import Log, Opening, Problem
from minilog.storage.files import Lock, MapLimit, map_limit
from minilog.topic import Lockable, Topic
from minilog.upkeep import Upkeep


class House(Protocol):
    """What hosting topics needs of a broker."""

    @property
    def clock(self) -> Clock: ...
    @property
    def is_read_only(self) -> bool: ...
    @property
    def is_sync_always(self) -> bool: ...
    @property
    def guard(self) -> Lockable: ...
    def check_writable(self) -> None: ...
    def topic_changed(self) -> None: ...
    def flush_all(self) -> None: ...


class Hosting:
    """A broker, as its topics see it."""

    def __init__(
        self,
        house: House,
        marks: CleanMarks,
        upkeep: Upkeep,
        coordination: Coordination,
        problems: list[Problem],
    ) -> None:
        self._house = house
        self._marks = marks
        self._upkeep = upkeep
        self._coordination = coordination
        self._problems = problems
        self._maps = MapLimit(map_limit())
        self.lock: Lock | None = None  # of the directory, once it is held
        self.clock = house.clock
        self.is_read_only = house.is_read_only
        self.is_sync_always = house.is_sync_always
        self.check_writable = house.check_writable
        self.topic_changed = house.topic_changed
        self.flush_all = house.flush_all
        self.have_house_kept = upkeep.have_kept
        self.note = upkeep.note
        self.partitions_made = marks.made
        self.first_open_offset = coordination.first_open_offset
        self.hides = coordination.ledger.hides
        self.is_aborted = coordination.ledger.is_aborted

    @property
    def guard(self) -> Lockable:
        """The lock over which topics there are and how they are set; another after a fork."""
        return self._house.guard

    def open_log(self, topic: Topic, partition: int) -> Log:
        """Open a partition's files."""
        lock = self.lock
        opening = Opening(
            is_writable=not self.is_read_only,
            mark=self._marks.of(topic, partition),
            is_each_synced=self.is_sync_always,
            same_boot=lock is not None and lock.is_same_boot,
            now_ms=self.clock.now_ms(),
            start_offset=topic.start_offset(partition),
        )
        directory = topic.partition_directory(partition)
        log = Log(directory, topic.identity(partition), topic.config, self._maps, opening)
        if opening.is_writable:  # from here on it says less than the files do
            self._marks.forget(topic, partition)
        self._problems += log.problems
        return log

    def before_write(self) -> None:
        """Take the clean mark away before the first byte changes, and have the house kept."""
        self._marks.take_away()
        self._upkeep.before_write()

    @property
    def has_transactions(self) -> bool:
        """Whether there ever was a transaction."""
        return self._coordination.ledger.has_transactions

    def committed_floor(
        self, topic: Topic, partition: int, group_names: tuple[str, ...]
    ) -> int | None:
        """Return the smallest offset that these groups have committed of a partition, or None."""
        return self._coordination.committed_floor(topic.id.bytes, partition, group_names)
