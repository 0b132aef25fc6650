"""After a crash: which commits and transactions are about records that have survived.

The ledger may have survived better than what it is about. A group that committed beyond a
partition's end is taken back to that end, else what is appended there would never be read; a
transaction of which a record is missing was not committed. Of a partition that was deleted, or
cannot be opened, nothing can be said, and what was decided stands.

This module refuses to know where decisions are kept, and how they are made.
"""

from __future__ import annotations

from collections.abc import Callable

from minilog.errors import StorageError
from minilog.partition import Partition
from minilog.registers import Ending, Offsets, Place
from minilog.storage import Problem
from minilog.topic import Topic


class Survival:
    """Judges decisions by where the partitions end now, and notes what it had to take back."""

    def __init__(self, topic_by_id: Callable[[bytes], Topic | None]) -> None:
        self._topic_by_id = topic_by_id
        self.problems: list[Problem] = []

    def is_whole(self, ending: Ending) -> bool:
        """Say whether every record of a transaction has survived."""
        for place, offset in ending.ends.items():
            partition, end = self._end_of(place)
            if partition is not None and end is not None and offset > end:
                reason = (
                    f"a transaction had committed records to offset {offset}, and the "
                    f"partition ends at {end} after the crash: it is aborted"
                )
                self.problems.append(Problem(partition.path, 0, end, reason))
                return False
        return True

    def take_back(self, group: str, offsets: Offsets) -> bool:
        """Take a group's commits beyond the end back to it; False when there are none."""
        has_changed = False
        for place, offset in offsets.items():
            partition, end = self._end_of(place)
            if partition is not None and end is not None and offset > end:
                offsets[place] = end
                has_changed = True
                reason = (
                    f"group {group!r} had committed {offset}, and the partition ends at {end} "
                    "after the crash; that is what is committed now"
                )
                self.problems.append(Problem(partition.path, 0, offset, reason))
        return has_changed

    def _end_of(self, place: Place) -> tuple[Partition | None, int | None]:
        topic = self._topic_by_id(place.topic_id)
        if topic is None or place.partition >= len(topic):
            return None, None
        partition = topic[place.partition]
        try:
            return partition, partition.end_offset
        except StorageError:
            return partition, None  # it cannot be opened, and has been reported
