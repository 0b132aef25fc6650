"""A consumer's places: a position in each of its partitions, and what can be read there.

Where a position is not known yet, or no longer in the log, the reset policy says where to go on.
This module refuses to know subscriptions, waiting and threads: its caller holds the lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from minilog.config import some_of
from minilog.errors import (
    ClosedError,
    MinilogError,
    NoOffsetError,
    NotAssignedError,
    OffsetOutOfRangeError,
    UnknownTopicError,
)
from minilog.partition import Partition
from minilog.records import Part, Records, Rows, TopicPartition

Deserializer = Callable[[bytes], Any]
Bounds = dict[TopicPartition, int]


class Place:
    """A consumer's place in one partition."""

    __slots__ = (
        "committed",
        "delivered",
        "done",
        "is_given_up",
        "is_paused",
        "is_told",
        "partition",
        "position",
        "term",
    )

    def __init__(self, partition: Partition, position: int | None) -> None:
        self.partition = partition
        self.position = position  # None until the reset policy is asked
        self.delivered: int | None = None  # up to here records were returned or yielded
        self.done: int | None = None  # up to here they were processed too, as far as is known
        self.committed: int | None = None  # what this consumer knows its group to have committed
        self.is_paused = False
        self.is_told = False  # on_assigned was called with it: only then is its going told
        self.is_given_up = False  # what was fetched before is not delivered after
        self.term = 0  # another number when somebody else had the partition in between

    def deliver(self, position: int) -> None:
        """Note that the records before ``position`` have been handed out."""
        self.position = self.delivered = position

    def step_over(self, position: int) -> None:
        """Go on behind what is not for readers; it counts with what was before it."""
        if self.delivered == self.position:
            self.delivered = position
        if self.done == self.position:
            self.done = position
        self.position = position

    def seek(self, position: int) -> None:
        """Go elsewhere; what is read again was not done after all."""
        self.position = position
        if self.delivered is not None and position < self.delivered:
            self.delivered = position
        if self.done is not None and position < self.done:
            self.done = position


Maker = Callable[[TopicPartition, Partition], Place]


class Fetched(NamedTuple):
    """Records of one partition, not delivered yet: where they were read, and where to go on."""

    place: Place
    position: int
    next_offset: int
    part: Part


class Places:
    """The places of one consumer, by partition."""

    def __init__(
        self,
        reset: str,
        key_deserializer: Deserializer | None,
        value_deserializer: Deserializer | None,
        stable_offsets: Callable[[list[Partition]], list[int]] | None,
    ) -> None:
        self._reset = reset
        self._stable_offsets = stable_offsets  # for read_committed
        self._key_deserializer = key_deserializer
        self._value_deserializer = value_deserializer
        self._needs_fetch = bool(stable_offsets or key_deserializer or value_deserializer)
        self._places: dict[TopicPartition, Place] = {}
        self._turn = 0
        self._error: tuple[Place, Exception] | None = None

    def items(self) -> list[tuple[TopicPartition, Place]]:
        """Return the places with their names."""
        return list(self._places.items())

    def partitions(self) -> dict[TopicPartition, Partition]:
        """Return what is read."""
        return {tp: place.partition for tp, place in self._places.items()}

    def running(self) -> list[tuple[TopicPartition, Place]]:
        """Return those that are not paused."""
        return [
            (tp, place)
            for tp, place in self._places.items()
            if not (place.is_paused or place.is_given_up)
        ]

    def __contains__(self, tp: TopicPartition) -> bool:
        return tp in self._places

    def __getitem__(self, tp: TopicPartition) -> Place:
        place = self._places.get(tp)
        if place is None:
            have = some_of([f"{topic}-{number}" for topic, number in self._places]) or "none"
            raise NotAssignedError(
                f"{tp.topic}-{tp.partition} is not assigned to this consumer; it has {have}"
            )
        return place

    @property
    def begins_at_end(self) -> bool:
        """Whether one begins at the end where nothing says otherwise."""
        return self._reset == "latest"

    @property
    def reads_committed(self) -> bool:
        """Whether it reads only what was committed."""
        return self._stable_offsets is not None

    def replace(
        self,
        found: dict[TopicPartition, Partition],
        make: Maker,
        terms: Mapping[TopicPartition, int] | None = None,
    ) -> list[TopicPartition]:
        """Take these partitions for the present ones, keeping the places of those that stay;
        return those that are new, or were somebody else's in between: their term has changed."""
        places: dict[TopicPartition, Place] = {}
        added = []
        for tp, partition in found.items():
            place = self._places.get(tp)
            term = 0 if terms is None else terms[tp]
            is_same = place is not None and place.partition is partition and place.term == term
            if place is None or not is_same or place.is_given_up:
                place = make(tp, partition)
                place.term = term
                added.append(tp)
            places[tp] = place
        for tp, place in self._places.items():
            place.is_given_up = places.get(tp) is not place
        self._places = places
        return added

    def first_place(self, tp: TopicPartition, partition: Partition) -> Place:
        """Return a place for a partition that was there at first: ``latest`` is pinned now."""
        return Place(partition, self.end_of(partition) if self.begins_at_end else None)

    def later_place(self, tp: TopicPartition, partition: Partition) -> Place:
        """Return a place for a partition that came later: ``latest`` is its start, too."""
        return Place(partition, partition.start_offset if self.begins_at_end else None)

    def give_up(self, tp: TopicPartition) -> bool:
        """Deliver nothing more of a partition; False when it is not there."""
        place = self._places.get(tp)
        if place is not None:
            place.is_given_up = True
        return place is not None

    def told(self) -> list[TopicPartition]:
        """Return, in order, what the callback knows of."""
        return sorted(tp for tp, place in self._places.items() if place.is_told)

    def tell(self, tps: list[TopicPartition]) -> list[TopicPartition]:
        """Count these as told of; return those that are there, each once."""
        present = [tp for tp in dict.fromkeys(tps) if tp in self._places]
        for tp in present:
            self._places[tp].is_told = True
        return present

    def clear(self) -> list[TopicPartition]:
        """Give all places up; return those the callback knows of."""
        told = self.told()
        self.replace({}, self.later_place)
        self._error = None
        return told

    def forget_error(self) -> None:
        """Forget an error that was not told yet: the position it was met at has moved."""
        self._error = None

    # ------------------------------------------------------------ what is done

    def finish(self) -> None:
        """Count all that was delivered as done, as more is asked for."""
        for place in self._places.values():
            place.done = place.delivered

    def delivered(self) -> dict[TopicPartition, int]:
        """Return up to where records were delivered, of each partition of which any were."""
        ends = {tp: place.delivered for tp, place in self._places.items()}
        return {tp: end for tp, end in ends.items() if end is not None}

    def uncommitted(self) -> dict[TopicPartition, int]:
        """Return what is done and was not committed yet; never less than what was."""
        return {
            tp: place.done
            for tp, place in self._places.items()
            if place.done is not None and (place.committed is None or place.done > place.committed)
        }

    def note_committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Note what was committed."""
        for tp, offset in offsets.items():
            if tp in self._places:
                self._places[tp].committed = offset

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
        return self.end_of(partition) if self._reset == "latest" else partition.start_offset

    def end_of(self, partition: Partition) -> int:
        """Return up to where this consumer reads a partition."""
        return partition.end_offset if self._stable_offsets is None else partition.stable_offset

    def lag(self, tp: TopicPartition) -> int:
        """Return how far a position is behind the end."""
        return max(self.end_of(self[tp].partition) - self.position(tp), 0)

    def is_left(self, tp: TopicPartition, bound: int) -> bool:
        """Say whether a fetch up to ``bound`` would find anything: a place out of range, too."""
        position = self.position(tp)
        if position < bound:
            return True
        with suppress(ClosedError, UnknownTopicError):
            return position > self[tp].partition.end_offset
        return False

    def has_news(self) -> bool:
        """Say whether a fetch would return or find anything."""
        for tp, place in self.running():
            position, partition = self.position(tp), place.partition
            if self.end_of(partition) > position or position > partition.end_offset:
                return True
        return False

    # ------------------------------------------------------------ reading

    def newest(self) -> tuple[Place, Records] | None:
        """Return the only record there is, where one partition alone is read and it is of the
        commonest kind: most hand-overs are that. None where ``fetch`` has to look, which takes four
        times as long, and all of it is cold after a wait."""
        if len(self._places) != 1 or self._needs_fetch or self._error is not None:
            return None
        (place,) = self._places.values()
        if place.position is None or place.is_paused or place.is_given_up:
            return None
        records = place.partition.newest(place.position)
        return None if records is None else (place, records)

    def fetch(self, limit: int, bounds: Bounds | None = None) -> list[Fetched]:
        """Return what there is at the positions, a fair share of each partition; none moves, but
        over what is not for readers where nothing else is before it.

        An error waits until what came before it, of any partition, was returned.
        """
        waiting, self._error = self._error, None
        if waiting is not None and not (waiting[0].is_given_up or waiting[0].is_paused):
            raise waiting[1]
        ready = [(tp, place) for tp, place in self.running() if bounds is None or tp in bounds]
        if not ready:
            return []
        self._turn = (self._turn + 1) % len(ready)
        ready = ready[self._turn :] + ready[: self._turn]
        stops: list[int | None] = [None] * len(ready)
        if self._stable_offsets is not None:
            stops = [*self._stable_offsets([place.partition for _, place in ready])]
        found: list[Fetched] = []
        reached: dict[TopicPartition, int] = {}
        drained: set[TopicPartition] = set()
        left = limit
        for quota in (max(limit // len(ready), 1), limit):  # a share each, then the rest
            for (tp, place), stop in zip(ready, stops):
                if left <= 0:
                    break
                if tp in drained:
                    continue
                try:
                    position = reached[tp] if tp in reached else self.position(tp)
                    bound = None if bounds is None else bounds[tp]
                    records = self._read(place, position, min(quota, left), bound, stop)
                except MinilogError as failure:
                    if not found:
                        raise
                    self._error = (place, failure)
                    return found
                if len(records) < min(quota, left):
                    drained.add(tp)
                if records:
                    left -= len(records)
                    position = reached.get(tp, self.position(tp))
                    self._take(found, place, position, records)
                    if self._error is not None:
                        return found
                    reached[tp] = records.next_offset
                elif tp not in reached:
                    place.step_over(records.next_offset)
        return found

    def _take(self, found: list[Fetched], place: Place, position: int, records: Records) -> None:
        """Add records of one partition to what was found, up to the first of which a deserializer
        raises: that is told next, or now where nothing is before it."""
        for part in records.parts:
            offsets = part[2].offsets
            given, error = self._deserialized(part)
            if given is not None:
                stop = offsets[-1] + 1 if error is None else offsets[len(given[2])]
                if part is records.parts[-1] and error is None:
                    stop = records.next_offset
                found.append(Fetched(place, position, stop, given))
                position = stop
            if error is not None:
                if not found:
                    place.step_over(offsets[0])
                    raise error
                self._error = (place, error)
                return

    def _read(
        self, place: Place, position: int, limit: int, bound: int | None, stop: int | None
    ) -> Records:
        """Return records up to ``bound``, and for ``read_committed`` to ``stop``."""
        if bound is not None and bound <= position <= place.partition.end_offset:
            return Records((), position)
        try:
            records = _read_at(place.partition, position, limit, stop)
        except OffsetOutOfRangeError:
            if self._reset == "none":
                raise
            place.position = self._reset_position(place)
            records = _read_at(place.partition, place.position, limit, stop)
        if bound is None or records.next_offset <= bound:
            return records
        return Records(records[: bisect_left(records.offsets, bound)].parts, bound)

    def _deserialized(self, part: Part) -> tuple[Part | None, Exception | None]:
        """Return the records before the first of which a deserializer raises, and that error."""
        if self._key_deserializer is None and self._value_deserializer is None:
            return part, None
        topic, partition, rows = part
        keys, key_error = _mapped(self._key_deserializer, rows.keys)
        values, value_error = _mapped(self._value_deserializer, rows.values)
        count = min(len(keys), len(values))
        error = key_error if len(keys) == count and key_error is not None else value_error
        if not count:
            return None, error
        given = rows if error is None else rows.cut(0, count)
        return (topic, partition, DeserializedRows(given, keys[:count], values[:count])), error


class DeserializedRows:
    """Rows whose keys and values were turned into the application's own objects."""

    __slots__ = ("_rows", "keys", "values")

    def __init__(self, rows: Rows, keys: Any, values: Any) -> None:
        self._rows = rows
        self.keys = keys
        self.values = values

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
        keys, values = self.keys[start:stop], self.values[start:stop]
        return DeserializedRows(self._rows.cut(start, stop), keys, values)


def _read_at(partition: Partition, position: int, limit: int, stop: int | None) -> Records:
    if stop is None:
        return partition.read_all(position, limit)
    return partition.read_committed(position, limit, stop)


def _mapped(function: Deserializer | None, column: Any) -> tuple[Any, Exception | None]:
    """Return what a function makes of a column, up to where it raises, and what it raised."""
    if function is None:
        return column, None
    made: list[Any] = []
    try:
        for item in column:
            made.append(None if item is None else function(item))
    except Exception as error:
        return made, error
    return made, None
