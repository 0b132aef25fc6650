"""A partition: a Log made safe for threads; its lock, its visible end and its wake-ups.

Writers take the lock, readers do not. What readers see is the *end*: with ``sync="always"`` it
moves when the records are on the disk, else as soon as they are stored. Whoever waits for it to
move leaves a lock to be released; an appender looks there only when somebody waits.

This module refuses to know files, frames, topics' settings on disk, and which key goes where.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from minilog.arguments import as_list, check_whole, timestamps_of
from minilog.clock import Clock, Deadline, check_timeout, release_once
from minilog.config import MIB, TopicConfig
from minilog.errors import (
    InvalidRecordError,
    OffsetConflictError,
    OffsetOutOfRangeError,
    ReadOnlyError,
    SyncFailedError,
)
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
from minilog.storage import CleanMark, End, Log, encode_batch, encode_headers, too_large

NO_LIMIT = 2**62
READ_AHEAD = 2048  # records that iteration reads at once
READ_AHEAD_BYTES = 256 * 1024
LOOK_AGAIN_S = 0.02  # how often a read-only waiter looks at the files
EMPTY = Records()


class Host(Protocol):
    """What a partition needs of the topic and broker it belongs to."""

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> TopicConfig: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def is_read_only(self) -> bool: ...
    @property
    def is_sync_always(self) -> bool: ...
    def open_log(self, partition: int) -> Log: ...
    def before_write(self) -> None: ...
    def start_offset(self, partition: int) -> int: ...
    def raise_start_offset(self, partition: int, offset: int) -> None: ...


class Partition:
    """One ordered, numbered sequence of records; made by its topic."""

    def __init__(self, host: Host, index: int) -> None:
        self._host = host
        self._index = index
        self._log: Log | None = None
        self._published: End | None = None  # the end that readers see, with sync="always"
        self._refusal: Callable[[], Exception] | None = None  # closed, forked or deleted
        self._failure: BaseException | None = None  # of a sync: nothing may be written any more
        self._has_written = False
        self._is_plain = False  # the short path of append will do
        self._is_sync_always = host.is_sync_always
        self._now_ms = host.clock.now_ms
        self._waiters: list[threading.Lock] = []
        self._make_locks()

    def _make_locks(self) -> None:
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()

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
        return self._host.start_offset(self._index)

    @property
    def end_offset(self) -> int:
        """One past the last offset that can be read."""
        return self._end(self._opened()).next_offset

    def __len__(self) -> int:
        """Return the number of records that can be read."""
        log = self._opened()
        start = self._host.start_offset(self._index)
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
        check_whole("offset", offset)
        check_whole("max_records", max_records, low=1)
        check_timeout(timeout)
        if max_bytes is not None:
            check_whole("max_bytes", max_bytes)
        records = self._read_now(offset, max_records, NO_LIMIT if max_bytes is None else max_bytes)
        if records or timeout == 0:
            return records
        deadline = Deadline(self._host.clock, timeout)
        while not records and not deadline.is_over:
            self._wait_beyond(offset, deadline)
            if self._refusal is not None:
                return EMPTY
            records = self._read_now(
                offset, max_records, NO_LIMIT if max_bytes is None else max_bytes
            )
        return records

    def _read_now(self, offset: int, max_records: int, max_bytes: int) -> Records:
        log = self._opened()
        end = self._end(log)
        start = self._host.start_offset(self._index)
        if not start <= offset <= end.next_offset:
            raise OffsetOutOfRangeError(self.topic, self._index, offset, start, end.next_offset)
        if offset == end.next_offset:
            return EMPTY
        name, index = self.topic, self._index
        try:
            found = log.read(offset, end, max_records, max_bytes)
        except FileNotFoundError:
            if self._refusal is not None:
                raise self._refusal() from None
            # Dropped meanwhile, by this process or, for a read-only broker, by another.
            if self._host.is_read_only:
                log.forget_missing()
            start = self._host.start_offset(self._index)
            if offset < start:
                raise OffsetOutOfRangeError(name, index, offset, start, end.next_offset) from None
            raise
        return Records((name, index, rows) for rows in found)

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
        return log.offset_at(wanted, self._host.start_offset(self._index), self._end(log))

    # ------------------------------------------------------------ what goes

    def delete_before(self, offset: int) -> None:
        """Raise ``start_offset`` to ``offset``; nothing happens when it is there already.

        ``end_offset`` itself empties the partition. It persists, and offsets never come again.
        """
        check_whole("offset", offset)
        with self._lock:
            log = self._writable_log()
        end = self._end(log).next_offset
        if offset > end:
            start = self._host.start_offset(self._index)
            raise OffsetOutOfRangeError(self.topic, self._index, offset, start, end)
        if offset <= self._host.start_offset(self._index):
            return
        self.flush()  # a crash must not bring the end below the new start
        self._host.raise_start_offset(self._index, offset)
        with self._lock:
            log.drop_before(offset, self._now_ms())
            if self._published is not None:
                self._published = log.end()

    # ------------------------------------------------------------ for producers and consumers

    @property
    def max_record_bytes(self) -> int:
        """How large a record may be."""
        return self._host.config.max_record_bytes

    def now_ms(self) -> int:
        """Return the time by the broker's clock."""
        return self._now_ms()

    def add_waiter(self, waiter: threading.Lock) -> None:
        """Have ``waiter`` released when records come or the partition closes."""
        self._waiters.append(waiter)

    def remove_waiter(self, waiter: threading.Lock) -> None:
        """Forget ``waiter``."""
        self._waiters.remove(waiter)

    def _wake(self) -> None:
        for waiter in list(self._waiters):
            release_once(waiter)

    def _wait_beyond(self, offset: int, deadline: Deadline) -> None:
        waiter = threading.Lock()
        waiter.acquire()
        self.add_waiter(waiter)
        try:
            # Looked at after the waiter was left: an append before it is seen here, one after
            # it finds the waiter.
            if self._refusal is None and self._end(self._opened()).next_offset <= offset:
                deadline.wait(waiter, LOOK_AGAIN_S if self._host.is_read_only else None)
        finally:
            self.remove_waiter(waiter)

    # ------------------------------------------------------------ durability

    def flush(self) -> None:
        """Return when everything appended so far is on the disk."""
        log = self._log
        if log is not None and log.is_dirty():
            self._sync_until(NO_LIMIT)

    def _sync_until(self, next_offset: int) -> None:
        """Return when all below ``next_offset`` is synced; one sync serves all who wait here."""
        with self._sync_lock:
            self._check_writable()
            log, published = self._log, self._published
            assert log is not None
            if published is not None and published.next_offset >= next_offset:
                return
            end = log.end()
            try:
                log.sync()
            except OSError as error:
                self._fail(error)
                raise SyncFailedError(self._failure_text()) from error
            if self._is_sync_always:
                self._published = end
        if self._waiters:
            self._wake()

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._is_plain = False

    def _failure_text(self) -> str:
        return (
            f"a sync of {self.topic}-{self._index} failed ({self._failure}): what was not synced "
            "has an unknown fate; look at the disk, then close and reopen the broker"
        )

    # ------------------------------------------------------------ for the broker

    @property
    def is_open(self) -> bool:
        """Whether its files were looked at."""
        return self._log is not None

    def open(self) -> None:
        """Open its files now; StorageError when they cannot be."""
        self._opened()

    def _opened(self) -> Log:
        if self._refusal is not None:
            raise self._refusal()
        log = self._log
        if log is None:
            with self._lock:
                log = self._log or self._open()
        if self._host.is_read_only:
            with self._lock:
                log.follow()
        return log

    def _open(self) -> Log:
        log = self._host.open_log(self._index)
        if self._is_sync_always:
            self._published = log.end()
        self._log = log
        self.reconfigure()
        return log

    def _end(self, log: Log) -> End:
        published = self._published
        return log.end() if published is None else published

    def _writable_log(self) -> Log:
        """Return the log for writing; whoever appends holds the lock."""
        self._check_writable()
        if not self._has_written:
            self._host.before_write()
            log = self._log or self._open()
            self._has_written = True
            self.reconfigure()
            return log
        assert self._log is not None
        return self._log

    def _check_writable(self) -> None:
        if self._refusal is not None:
            raise self._refusal()
        if self._host.is_read_only:
            raise ReadOnlyError(
                f"{self.topic} cannot be written: its broker was opened with read_only=True"
            )
        if self._failure is not None:
            raise SyncFailedError(self._failure_text())

    def reconfigure(self) -> None:
        """Take the topic's present settings; the caller keeps appends out."""
        config = self._host.config
        if self._log is not None:
            self._log.reconfigure(config)
        # The short path never appends as much as MIB at once, so larger limits need no look.
        self._is_plain = (
            self._log is not None
            and self._has_written
            and self._failure is None
            and config.timestamp_type == "create"
            and config.max_record_bytes >= MIB
        )

    def configure(self) -> None:
        """Take the topic's present settings."""
        with self._lock:
            self.reconfigure()

    def maintain(self, now_ms: int, *, sync: bool) -> None:
        """Do what is due: sync, roll by age."""
        if self._log is None or self._refusal is not None or self._failure is not None:
            return
        with self._lock:
            if self._has_written and self._log.is_older_than(self._host.config.segment_ms, now_ms):
                self._log.roll(now_ms)
        if sync:
            self.flush()

    def close(self, refusal: Callable[[], Exception]) -> CleanMark | None:
        """Refuse every later call and end every wait; return a mark where all was synced."""
        with self._lock, self._sync_lock:
            self._refusal = refusal
            self._is_plain = False
            self._wake()
            log = self._log
            if log is None or self._failure is not None or self._host.is_read_only:
                if log is not None:
                    log.unmap()
                return None
            try:
                log.trim()
                log.sync()
            except OSError as error:
                self._fail(error)
                raise SyncFailedError(self._failure_text()) from error
            finally:
                log.unmap()
            return log.mark()

    def abandon(self, refusal: Callable[[], Exception]) -> None:
        """Refuse every later call, end every wait and let go of the files as they are."""
        with self._lock:
            self._refusal = refusal
            self._is_plain = False
            self._wake()
            if self._log is not None:
                self._log.unmap()

    def refuse_in_child(self, refusal: Callable[[], Exception]) -> None:
        """Refuse every call in a child of fork; its locks are new, as others' owners are gone."""
        self._make_locks()
        self._refusal = refusal
        self._is_plain = False
        if self._log is not None:
            self._log.unmap()

    def check(self) -> None:
        """Assert every invariant of it."""
        log = self._opened()
        with self._lock:
            start, end = self._host.start_offset(self._index), self._end(log)
            assert log.first_base <= start <= end.next_offset <= log.end_offset
            log.check()
