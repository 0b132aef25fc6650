"""A partition: one ordered, numbered sequence of records; what is appended, read and deleted.

It checks what it is given and turns it into what the log takes; the thread-safety underneath is
``shared_log.py``'s. This module refuses to know files, frames, a topic's settings on disk, and
which key goes where.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from minilog.arguments import check_whole
from minilog.clock import Deadline, check_timeout
from minilog.errors import (
    CorruptionError,
    OffsetOutOfRangeError,
)
from minilog.records import (
    OneRecord,
    Record,
    Records,
    Rows,
    TimestampLike,
    timestamp_of,
)
from minilog.short_append import ShortAppend
from minilog.storage import End, Log

Hides = Callable[[int], bool]

NO_LIMIT = 2**62
READ_AHEAD = 2048  # records that iteration reads at once
READ_AHEAD_BYTES = 256 * 1024


class Partition(ShortAppend):
    """One ordered, numbered sequence of records; made by its topic."""

    # ------------------------------------------------------------ what it is

    @property
    def topic(self) -> str:
        """The name of its topic."""
        return self._host.name

    @property
    def index(self) -> int:
        """Its number in the topic, from 0."""
        return self._index

    @property
    def start_offset(self) -> int:
        """The first offset that is kept."""
        self._opened()
        return self._start

    @property
    def end_offset(self) -> int:
        """One past the last offset that can be read."""
        return self._end(self._opened()).next_offset

    @property
    def stable_offset(self) -> int:
        """Up to here ``read_committed`` readers read: the first offset that is kept of the oldest
        open transaction, else the end."""
        stable: int = self._host.stable_offset(self._index, self.end_offset)
        return max(stable, self._start)  # where the log is deleted into it, nobody reads below

    def __len__(self) -> int:
        """Return the number of records that can be read."""
        if self._host.has_transactions:
            parts = self.read_up_to(self.start_offset, self.end_offset)
            return sum(len(records) for records in parts)
        return self._look(lambda log, end: log.record_count(self._start, end))

    def __bool__(self) -> bool:
        return True  # an empty partition is a partition

    def __repr__(self) -> str:
        return f"<Partition {self.topic}-{self._index}>"

    # ------------------------------------------------------------ read

    def read(
        self,
        offset: int,
        *,
        max_records: int = 500,
        max_bytes: int | None = None,
        timeout: float | None = 0,
    ) -> Records:
        """Return records from the first at or after ``offset``.

        At ``end_offset`` it waits up to ``timeout`` seconds (None: for ever) and returns what
        came. ``max_bytes`` counts keys, values and headers; the first record is always given.
        OffsetOutOfRangeError outside ``[start_offset, end_offset]``.
        """
        if (
            max_records == 1
            and max_bytes is None
            and timeout == 0
            and offset.__class__ is max_records.__class__ is timeout.__class__ is int
        ):
            record = self._plain_at(offset)
            if record is not None:
                return record
        if offset.__class__ is not int:
            check_whole("offset", offset, low=None)
        if max_records.__class__ is not int or max_records < 1:
            check_whole("max_records", max_records, low=1)
        if timeout != 0 or timeout.__class__ is bool:
            check_timeout(timeout)
        if max_bytes is None:
            max_bytes = NO_LIMIT
        else:
            check_whole("max_bytes", max_bytes)
        hides = self._host.is_aborted
        records = self._read_now(offset, max_records, max_bytes, hides)
        if records or timeout == 0:
            return records
        deadline = Deadline(self._host.clock, timeout)
        while not records and not deadline.is_over:
            self._wait_beyond(records.next_offset, deadline)
            if self._refusal is not None:
                return records
            records = self._read_now(records.next_offset, max_records, max_bytes, hides)
        return records

    def _plain_at(self, offset: int) -> Records | None:
        """Return a record of the commonest kind by a short way, 1.6 us where everything else takes
        20; None where somebody has to look."""
        log, published = self._log, self._published
        if (
            log is None
            or offset < self._start
            or (published is not None and offset >= published[2])
            or self._refusal is not None
            or self._is_read_only
        ):
            return None
        found = log.record_at(offset)
        if found is None:
            return None
        timestamp, key, value = found
        # Both made in C: a third of what Record(...) and OneRecord(...) cost.
        record = (self._name, self._index, offset, timestamp, key, value, ())
        records = object.__new__(OneRecord)
        records.record = tuple.__new__(Record, record)
        return records

    def _read_now(
        self, offset: int, max_records: int, max_bytes: int, hides: Hides | None
    ) -> Records:
        log = self._opened()
        end = self._end(log)
        start = self._start
        if not start <= offset <= end.next_offset:
            raise OffsetOutOfRangeError(self.topic, self._index, offset, start, end.next_offset)
        if offset == end.next_offset:
            return Records((), offset)
        name, index = self._host.name, self._index
        try:
            found, following = log.read(offset, end, max_records, max_bytes, hides)
        except (FileNotFoundError, CorruptionError):
            found, following = self._read_again(offset, max_records, max_bytes, hides)
        return Records([(name, index, rows) for rows in found], following)

    def _read_again(
        self, offset: int, max_records: int, max_bytes: int, hides: Hides | None
    ) -> tuple[list[Rows], int]:
        """Return what ``Log.read`` does, when it has not: what was to be read may have been
        deleted meanwhile, or its files replaced."""

        def read(log: Log, end: End) -> tuple[list[Rows], int]:
            start = self._start
            if offset < start:
                name, index = self._host.name, self._index
                raise OffsetOutOfRangeError(name, index, offset, start, end.next_offset)
            return log.read(offset, end, max_records, max_bytes, hides)

        return self._look(read)

    def newest(self, offset: int) -> Records | None:
        """Return the record at an offset if it is the last and of the commonest kind; None where
        somebody has to look."""
        log = self._log
        return self._plain_at(offset) if log is not None and log.end_offset == offset + 1 else None

    def read_all(self, offset: int, max_records: int) -> Records:
        """Return records as ``read`` does, those of aborted transactions too."""
        return self._read_now(offset, max_records, NO_LIMIT, None)

    def read_committed(self, offset: int, max_records: int, stable_offset: int) -> Records:
        """Return records as ``read`` does, without those of open and of aborted transactions;
        ``stable_offset`` is up to where."""
        if stable_offset <= offset <= self.end_offset:
            return Records((), offset)
        records = self._read_now(offset, max_records, NO_LIMIT, self._host.hides)
        if records.next_offset <= stable_offset:
            return records
        before = records[: bisect_left(records.offsets, stable_offset)]
        return Records(before.parts, max(stable_offset, offset))

    def __iter__(self) -> Iterator[Record]:
        """Yield the records that are there now, and stop."""
        for records in self.read_up_to(self.start_offset, self.end_offset):
            yield from records

    def read_up_to(
        self,
        offset: int,
        end: int,
        max_records: int = READ_AHEAD,
        max_bytes: int = READ_AHEAD_BYTES,
    ) -> Iterator[Records]:
        """Yield the records from ``offset`` to ``end`` (exclusive), some at a time.

        What is done with a whole partition is done through here: iterating, tables, replays.
        """
        while offset < end:
            records = self._read_now(offset, max_records, max_bytes, self._host.is_aborted)
            offset = records.next_offset
            if offset > end:
                records = records[: bisect_left(records.offsets, end)]
            if records:
                yield records

    def offset_at(self, timestamp: TimestampLike) -> int | None:
        """Return the earliest offset whose timestamp is at or after ``timestamp``; None if none."""
        wanted = timestamp_of(timestamp)
        hides = self._host.is_aborted
        return self._look(lambda log, end: log.offset_at(wanted, self._start, end, hides))

    # ------------------------------------------------------------ what goes

    def delete_before(self, offset: int) -> None:
        """Raise ``start_offset`` to ``offset``; nothing happens when it is there already.

        ``end_offset`` itself empties the partition. It persists, and offsets never come again.
        """
        check_whole("offset", offset, low=None)
        with self._lock:
            log = self._writable_log()
        end = self._end(log).next_offset
        if offset > end:
            start = self._start
            raise OffsetOutOfRangeError(self.topic, self._index, offset, start, end)
        if offset <= self._start:
            return
        self._raise_start(offset, self._now_ms())

    # ------------------------------------------------------------ for producers and consumers

    @property
    def max_record_bytes(self) -> int:
        """How large a record may be."""
        return self._host.config.max_record_bytes

    def now_ms(self) -> int:
        """Return the time by the broker's clock."""
        return self._now_ms()

    def check(self) -> None:
        """Assert every invariant of it."""
        log = self._opened()
        with self._lock:
            start, end = self._start, self._end(log)
            assert log.first_base <= start <= end.next_offset <= log.end_offset
            log.check()
