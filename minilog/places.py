"""A consumer's places: a position in each of its partitions, and what can be read there.

Where a position is not known yet, or no longer in the log, the reset policy says where to go on.
This module refuses to know subscriptions, waiting and threads: its caller holds the lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from minilog.errors import (
    MinilogError,
    NoOffsetError,
    NotAssignedError,
    OffsetOutOfRangeError,
)
from minilog.partition import Partition
from minilog.records import Part, Records, Rows, TopicPartition

Deserializer = Callable[[bytes], Any]
Bounds = dict[TopicPartition, int]

EMPTY = Records()


class Place:
    """A consumer's place in one partition."""

    __slots__ = ("is_given_up", "is_paused", "partition", "position")

    def __init__(self, partition: Partition, position: int | None) -> None:
        self.partition = partition
        self.position = position  # None until the reset policy is asked
        self.is_paused = False
        self.is_given_up = False  # what was fetched before is not delivered after


class Fetched(NamedTuple):
    """Records of one partition, not delivered yet; ``position`` is where they were read."""

    place: Place
    position: int
    part: Part


class Places:
    """The places of one consumer, by partition."""

    def __init__(
        self,
        reset: str,
        key_deserializer: Deserializer | None,
        value_deserializer: Deserializer | None,
    ) -> None:
        self._reset = reset
        self._key_deserializer = key_deserializer
        self._value_deserializer = value_deserializer
        self._places: dict[TopicPartition, Place] = {}
        self._turn = 0
        self._error: MinilogError | None = None

    def items(self) -> list[tuple[TopicPartition, Place]]:
        """Return the places with their names."""
        return list(self._places.items())

    def running(self) -> list[tuple[TopicPartition, Place]]:
        """Return those that are not paused."""
        return [(tp, place) for tp, place in self._places.items() if not place.is_paused]

    def __getitem__(self, tp: TopicPartition) -> Place:
        place = self._places.get(tp)
        if place is None:
            have = ", ".join(f"{topic}-{number}" for topic, number in self._places) or "none"
            raise NotAssignedError(
                f"{tp.topic}-{tp.partition} is not assigned to this consumer; it has {have}"
            )
        return place

    def replace(
        self, found: dict[TopicPartition, Partition], *, is_first: bool
    ) -> list[TopicPartition]:
        """Take these partitions for the present ones, keeping the places of those that stay;
        return those that are new."""
        places: dict[TopicPartition, Place] = {}
        added = []
        for tp, partition in found.items():
            place = self._places.get(tp)
            if place is None or place.partition is not partition:
                place = Place(partition, self._first_position(partition, is_first=is_first))
                added.append(tp)
            places[tp] = place
        for tp, place in self._places.items():
            place.is_given_up = places.get(tp) is not place
        self._places = places
        return added

    def _first_position(self, partition: Partition, *, is_first: bool) -> int | None:
        """Return where to begin: ``latest`` is pinned now, and is the start of what came later."""
        if self._reset == "latest":
            return partition.end_offset if is_first else partition.start_offset
        return None

    def clear(self) -> list[TopicPartition]:
        """Give all places up; return what they were."""
        given_up = list(self._places)
        self.replace({}, is_first=False)
        self._error = None
        return given_up

    def forget_error(self) -> None:
        """Forget an error that was not told yet: the position it was met at has moved."""
        self._error = None

    # ------------------------------------------------------------ positions

    def position(self, tp: TopicPartition) -> int:
        """Return where a partition is read next; NoOffsetError when nothing says."""
        place = self[tp]
        if place.position is None:
            if self._reset == "none":
                raise NoOffsetError(
                    f"{tp.topic}-{tp.partition} has no committed offset and auto_offset_reset is "
                    '"none"; seek to where to begin'
                )
            place.position = self._reset_position(place)
        return place.position

    def _reset_position(self, place: Place) -> int:
        partition = place.partition
        return partition.end_offset if self._reset == "latest" else partition.start_offset

    def lag(self, tp: TopicPartition) -> int:
        """Return how far a position is behind the end."""
        return max(self[tp].partition.end_offset - self.position(tp), 0)

    # ------------------------------------------------------------ reading

    def fetch(self, limit: int, bounds: Bounds | None = None) -> list[Fetched]:
        """Return what there is at the positions, a fair share of each partition; none moves, but
        over offsets whose records are gone.

        An error of one partition waits until what the others gave was returned.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error
        ready = [(tp, place) for tp, place in self.running() if bounds is None or tp in bounds]
        if not ready:
            return []
        self._turn = (self._turn + 1) % len(ready)
        ready = ready[self._turn :] + ready[: self._turn]
        found: list[Fetched] = []
        reached: dict[TopicPartition, int] = {}
        left = limit
        for quota in (max(limit // len(ready), 1), limit):  # a share each, then the rest
            for tp, place in ready:
                if left <= 0:
                    break
                try:
                    position = reached[tp] if tp in reached else self.position(tp)
                    records = self._read(tp, place, position, min(quota, left), bounds)
                except MinilogError as failure:
                    if not found:
                        raise
                    self._error = failure
                    return found
                if records:
                    left -= len(records)
                    position = reached.get(tp, self.position(tp))
                    for part in records.parts:
                        found.append(Fetched(place, position, self._deserialized(part)))
                        position = part[2].offsets[-1] + 1
                    reached[tp] = position
                elif tp not in reached and records is not EMPTY:
                    place.position = records.next_offset  # those in between are gone
        return found

    def _read(
        self, tp: TopicPartition, place: Place, position: int, limit: int, bounds: Bounds | None
    ) -> Records:
        bound = None if bounds is None else bounds[tp]
        if bound is not None and position >= bound:
            return EMPTY
        try:
            records = place.partition.read(position, max_records=limit)
        except OffsetOutOfRangeError:
            if self._reset == "none":
                raise
            place.position = self._reset_position(place)
            records = place.partition.read(place.position, max_records=limit)
        if bound is not None and records and records.next_offset > bound:
            kept = sum(offset < bound for offset in records.offsets)
            records = records[:kept] if kept else Records((), bound)
        return records

    def _deserialized(self, part: Part) -> Part:
        if self._key_deserializer is None and self._value_deserializer is None:
            return part
        topic, partition, rows = part
        return (
            topic,
            partition,
            DeserializedRows(rows, self._key_deserializer, self._value_deserializer),
        )


class DeserializedRows:
    """Rows whose keys and values were turned into the application's own objects."""

    __slots__ = ("_rows", "keys", "values")

    def __init__(
        self,
        rows: Rows,
        key_deserializer: Deserializer | None,
        value_deserializer: Deserializer | None,
    ) -> None:
        self._rows = rows
        self.keys: Any = _mapped(key_deserializer, rows.keys)
        self.values: Any = _mapped(value_deserializer, rows.values)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def offsets(self) -> Any:
        """The offsets."""
        return self._rows.offsets

    @property
    def timestamps(self) -> Any:
        """The timestamps."""
        return self._rows.timestamps

    @property
    def headers(self) -> Any:
        """The headers of each record."""
        return self._rows.headers

    def cut(self, start: int, stop: int) -> DeserializedRows:
        """Return the records from ``start`` to ``stop``."""
        cut = DeserializedRows(self._rows.cut(start, stop), None, None)
        cut.keys, cut.values = self.keys[start:stop], self.values[start:stop]
        return cut


def _mapped(function: Deserializer | None, column: Any) -> Any:
    if function is None:
        return column
    return [None if item is None else function(item) for item in column]
