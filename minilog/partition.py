"""A partition: one ordered, numbered sequence of records; what is appended, read and deleted.

It checks what it is given and turns it into what the log takes; the thread-safety underneath is
``shared_log.py``'s. This module refuses to know files, frames, a topic's settings on disk, and
which key goes where.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from minilog.arguments import as_list, check_whole, timestamps_of
from minilog.clock import Deadline, check_timeout
from minilog.errors import InvalidRecordError, OffsetConflictError, OffsetOutOfRangeError
from minilog.records import (
    BytesLike,
    HeadersLike,
    Record,
    Records,
    TimestampLike,
    bytes_of,
    headers_of,
    timestamp_of,
)
from minilog.shared_log import SharedLog
from minilog.storage import Log, encode_batch, encode_headers, too_large

NO_LIMIT = 2**62
READ_AHEAD = 2048  # records that iteration reads at once
READ_AHEAD_BYTES = 256 * 1024
EMPTY = Records()


class Partition(SharedLog):
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

    def __len__(self) -> int:
        """Return the number of records that can be read."""
        log = self._opened()
        start = self._start
        return log.record_count(start, self._end(log).next_offset)

    def __bool__(self) -> bool:
        return True  # an empty partition is a partition

    def __repr__(self) -> str:
        return f"<Partition {self.topic}-{self._index}>"

    # ------------------------------------------------------------ append

    def append(
        self,
        value: BytesLike | None,
        *,
        key: BytesLike | None = None,
        headers: HeadersLike | None = (),
        timestamp: TimestampLike | None = None,
        expected_offset: int | None = None,
    ) -> int:
        """Append one record and return its offset; every reader sees it then.

        ``timestamp`` is milliseconds since the epoch or an aware datetime, by default now. With
        ``expected_offset`` it is appended only if it gets that offset (OffsetConflictError).
        """
        if (
            value.__class__ is bytes
            and (key is None or key.__class__ is bytes)
            and timestamp is None
            and expected_offset is None
            and not headers
            and self._is_plain
        ):
            # The commonest of appends: nothing to check or to convert, one call downstairs.
            with self._lock:
                now_ms = self._now_ms()
                offset = self._log.append_one(key, value, now_ms, now_ms)  # type: ignore
                if offset is None:
                    offset = self._append_with_room(key, value, now_ms)
        else:
            offset, _ = self._append_checked(value, key, headers, timestamp, expected_offset)
        if self._is_sync_always:
            self._sync_until(offset + 1)
        if self._waiters:
            self._wake()
        return offset

    def append_stamped(
        self,
        value: BytesLike | None,
        key: BytesLike | None,
        headers: HeadersLike | None,
        timestamp: TimestampLike | None,
    ) -> tuple[int, int]:
        """Append one record and return its offset and timestamp: what a producer answers with.

        The short path stands here again, as one more call would cost each append 40 ns.
        """
        if (
            value.__class__ is bytes
            and (key is None or key.__class__ is bytes)
            and timestamp is None
            and not headers
            and self._is_plain
        ):
            with self._lock:
                stamp = self._now_ms()
                offset = self._log.append_one(key, value, stamp, stamp)  # type: ignore
                if offset is None:
                    offset = self._append_with_room(key, value, stamp)
        else:
            offset, stamp = self._append_checked(value, key, headers, timestamp, None)
        if self._is_sync_always:
            self._sync_until(offset + 1)
        if self._waiters:
            self._wake()
        return offset, stamp

    def _append_with_room(self, key: bytes | None, value: bytes, now_ms: int) -> int:
        log = self._writable_log()
        size = len(value) + len(key or b"")
        self._check_size(size)
        while True:  # the map may be let go at any moment, also between these two
            log.make_room(size + 64, now_ms)
            offset = log.append_one(key, value, now_ms, now_ms)
            if offset is not None:
                return offset

    def _append_checked(
        self,
        value: object,
        key: object,
        headers: HeadersLike | None,
        timestamp: TimestampLike | None,
        expected_offset: int | None,
    ) -> tuple[int, int]:
        value, key = bytes_of("value", value), bytes_of("key", key)
        encoded = encode_headers(headers_of(headers))
        self._check_size(len(value or b"") + len(key or b"") + len(encoded))
        given = None if timestamp is None else timestamp_of(timestamp)
        if expected_offset is not None:
            check_whole("expected_offset", expected_offset)
        with self._lock:
            log = self._writable_log()
            if expected_offset is not None and expected_offset != log.end_offset:
                raise OffsetConflictError(
                    f"expected_offset is {expected_offset}, but the next record of "
                    f"{self.topic}-{self._index} gets offset {log.end_offset}",
                    expected=expected_offset,
                    actual=log.end_offset,
                )
            now_ms = self._now_ms()
            stamp = self._stamp(log, given, now_ms)
            return log.append_single(key, value, encoded, stamp, now_ms), stamp

    def append_many(
        self,
        values: Iterable[BytesLike | None],
        *,
        keys: Iterable[BytesLike | None] | None = None,
        headers: Iterable[HeadersLike | None] | None = None,
        timestamps: TimestampLike | Iterable[TimestampLike] | None = None,
    ) -> range:
        """Append records as one atomic batch and return their offsets.

        ``keys``, ``headers`` and ``timestamps``, where given, have one entry per value (another
        length is ConfigError, a ValueError); one timestamp may stand for all.
        """
        listed = as_list("values", values)
        columns = {"keys": keys, "headers": headers}
        listed_columns = {
            name: None if column is None else as_list(name, column, len(listed))
            for name, column in columns.items()
        }
        given = timestamps_of(timestamps, len(listed))
        if not listed:
            with self._lock:
                end = self._writable_log().end_offset
            return range(end, end)
        each = given if isinstance(given, list) else None
        batch = encode_batch(
            listed,
            listed_columns["keys"],
            listed_columns["headers"],
            each if self._host.config.timestamp_type == "create" else None,
            self._host.config.max_record_bytes,
        )
        with self._lock:
            log = self._writable_log()
            now_ms = self._now_ms()
            stamp = self._stamp(log, max(each) if each else given, now_ms)  # type: ignore
            first = log.append_batch(batch, stamp, now_ms)
        offsets = range(first, first + batch.record_count)
        if self._is_sync_always:
            self._sync_until(offsets.stop)
        if self._waiters:
            self._wake()
        return offsets

    def _check_size(self, size: int) -> None:
        limit = self._host.config.max_record_bytes
        if size > limit:
            raise too_large(size, limit)

    def _stamp(self, log: Log, given: int | None, now_ms: int) -> int:
        """Return the timestamp to write: as given or now, as the topic's settings have it."""
        config = self._host.config
        if config.timestamp_type == "append":
            return max(now_ms, log.largest_timestamp)  # the wall may step back; this does not
        if given is None:
            return now_ms
        ahead = config.timestamp_after_max_ms
        if 0 <= ahead < given - now_ms:
            raise InvalidRecordError(
                f"timestamp {given} is {given - now_ms} ms ahead of the clock; "
                f"timestamp_after_max_ms is {ahead}"
            )
        return given

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
        records = self._read_now(offset, max_records, max_bytes)
        if records or timeout == 0:
            return records
        deadline = Deadline(self._host.clock, timeout)
        while not records and not deadline.is_over:
            self._wait_beyond(offset, deadline)
            if self._refusal is not None:
                return EMPTY
            records = self._read_now(offset, max_records, max_bytes)
        return records

    def _read_now(self, offset: int, max_records: int, max_bytes: int) -> Records:
        log = self._opened()
        end = self._end(log)
        start = self._start
        if not start <= offset <= end.next_offset:
            raise OffsetOutOfRangeError(self.topic, self._index, offset, start, end.next_offset)
        if offset == end.next_offset:
            return EMPTY
        name, index = self._host.name, self._index
        try:
            found = log.read(offset, end, max_records, max_bytes)
        except FileNotFoundError:
            if self._refusal is not None:
                raise self._refusal() from None
            # Dropped meanwhile, by this process or, for a read-only broker, by another.
            if self._is_read_only:
                log.forget_missing()
                self._opened()
            start = self._start
            if offset < start:
                raise OffsetOutOfRangeError(name, index, offset, start, end.next_offset) from None
            raise
        return Records([(name, index, rows) for rows in found])

    def __iter__(self) -> Iterator[Record]:
        """Yield the records that are there now, and stop."""
        end = self.end_offset
        offset = self.start_offset
        while offset < end:
            records = self._read_now(offset, READ_AHEAD, READ_AHEAD_BYTES)
            following = records.next_offset
            yield from records[: end - offset] if following > end else records
            offset = following

    def offset_at(self, timestamp: TimestampLike) -> int | None:
        """Return the earliest offset whose timestamp is at or after ``timestamp``; None if none."""
        wanted = timestamp_of(timestamp)
        log = self._opened()
        return log.offset_at(wanted, self._start, self._end(log))

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
        with self._lock:
            self._check_writable()
            log.leave_behind(offset, self._now_ms())
        # A crash must not bring the end below the new start, nor may what is dropped go first.
        self.flush()
        self._host.raise_start_offset(self._index, offset)
        with self._lock:
            log.drop_before(offset)

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
