"""A partition: one ordered, numbered sequence of records; what is appended, read and deleted.

It checks what it is given and turns it into what the log takes; the thread-safety underneath is
``shared_log.py``'s. This module refuses to know files, frames, a topic's settings on disk, and
which key goes where.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from minilog.arguments import as_list, check_whole, timestamps_of
from minilog.clock import Deadline, check_timeout
from minilog.errors import (
    CorruptionError,
    InvalidRecordError,
    OffsetConflictError,
    OffsetOutOfRangeError,
    SequenceGapError,
)
from minilog.records import (
    BytesLike,
    HeadersLike,
    Record,
    Records,
    Rows,
    TimestampLike,
    bytes_of,
    headers_of,
    timestamp_of,
)
from minilog.shared_log import SharedLog
from minilog.sources import Identity, Source
from minilog.storage import NOBODY, End, Log, Origin, encode_batch, encode_headers, too_large

Hides = Callable[[int], bool]

NO_LIMIT = 2**62
READ_AHEAD = 2048  # records that iteration reads at once
READ_AHEAD_BYTES = 256 * 1024


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

    @property
    def stable_offset(self) -> int:
        """Up to here ``read_committed`` readers read: the first offset of the oldest open
        transaction, else the end."""
        return self._host.stable_offset(self._index, self.end_offset)

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
            and (key.__class__ is bytes or key is self._no_key)
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
                    offset = self._append_with_room(key, value, now_ms)  # type: ignore[arg-type]
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
            and (key.__class__ is bytes or key is self._no_key)
            and timestamp is None
            and not headers
            and self._is_plain
        ):
            with self._lock:
                stamp = self._now_ms()
                offset = self._log.append_one(key, value, stamp, stamp)  # type: ignore
                if offset is None:
                    offset = self._append_with_room(key, value, stamp)  # type: ignore[arg-type]
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
        if key is None:
            self.check_keys(None)
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

    def append_numbered(
        self, identity: Identity, sequence: int | None, value: Any, key: Any
    ) -> tuple[int, int] | None:
        """Append the commonest record of a named producer, with nothing to check or to convert;
        None where somebody has to look, which is ``append_from``'s."""
        sequences = self._sequences
        if (
            value.__class__ is not bytes
            or (key.__class__ is not bytes and key is not self._no_key)
            or sequences is None
            or not self._is_plain
            or self._is_sync_always
        ):
            return None
        with self._lock:
            run = sequences.latest(identity.producer_id)
            is_refused = identity.is_fenced or identity.is_in_transaction
            if run is None or is_refused or self._sequences is not sequences:
                return None
            first, start, count = run
            due = first + count
            if sequence is not None and sequence != due:
                return None
            stamp = self._now_ms()
            try:
                offset = self._log.append_numbered(  # type: ignore[union-attr]
                    key,  # type: ignore[arg-type]
                    value,
                    stamp,
                    identity.producer_id,
                    due,
                    identity.epoch,
                )
                if offset == start + count:
                    run[2] = count + 1
                elif offset is not None:
                    sequences.take(identity.producer_id, due, offset, 1)
            except BaseException:
                self._sequences = None  # it may be in or not: the log says it, when asked again
                raise
        if offset is None:
            return None
        if self._waiters:
            self._wake()
        return offset, stamp

    def append_from(
        self,
        source: Source,
        sequence: int | None,
        value: BytesLike | None,
        key: BytesLike | None,
        headers: HeadersLike | None,
        timestamp: TimestampLike | None,
    ) -> tuple[int, int]:
        """Append one record of a named producer or a transaction; return offset and timestamp.

        One that the producer has written before, by its sequence, is not written again.
        SequenceGapError for a sequence that is not the next, FencedError.
        """
        value, key = bytes_of("value", value), bytes_of("key", key)
        encoded = encode_headers(headers_of(headers))
        self._check_size(len(value or b"") + len(key or b"") + len(encoded))
        given = None if timestamp is None else timestamp_of(timestamp)
        if key is None:
            self.check_keys(None)
        with self._lock:
            log = self._writable_log()
            now_ms = self._now_ms()
            stamp = self._stamp(log, given, now_ms)
            origin, before = self._origin(log, source, sequence)
            offset = before if before is not None else -1
            if before is None:
                with self._numbering(origin):
                    offset = log.append_single(key, value, encoded, stamp, now_ms, origin)
                    self._note_sequence(origin, offset, 1)
        if self._is_sync_always and not source.transaction:
            self._sync_until(offset + 1)
        if before is not None:
            return offset, self._timestamp_of(log, offset, stamp)
        if self._waiters:
            self._wake()
        return offset, stamp

    def _origin(self, log: Log, source: Source, sequence: int | None) -> tuple[Origin, int | None]:
        """Return what a frame says of its source, or the offset that its sequence got before."""
        identity = source.identity
        if identity is None:
            return Origin(transaction=source.transaction), None
        if source is identity:
            identity.check_alone()  # here: one may have begun since the producer looked
        else:
            identity.check()
        number = source.producer_id
        sequences = self._sequences or self.known_sequences(log)
        due = sequences.last(number) + 1
        if sequence is None:
            sequence = due
        if sequence < due:
            before = sequences.offset_of(number, sequence)
            if before is None:
                raise SequenceGapError(
                    f"sequence {sequence} of producer {identity.name!r} was written to "
                    f"{self.topic}-{self._index} too long ago to tell its offset; the next is {due}"
                )
            return NOBODY, before
        if sequence > due:
            raise SequenceGapError(
                f"sequence {sequence} of producer {identity.name!r} leaves a gap in "
                f"{self.topic}-{self._index}: the next is {due}"
            )
        return Origin(number, sequence, source.epoch, source.transaction), None

    @contextlib.contextmanager
    def _numbering(self, origin: Origin) -> Iterator[None]:
        """Have the log asked again for sequences when an interrupt leaves it open whether a
        record is in; after an error of the disk it is not."""
        try:
            yield
        except OSError:
            raise
        except BaseException:
            self._sequences = None
            raise

    def _note_sequence(self, origin: Origin, offset: int, count: int) -> None:
        if origin.producer_id >= 0:
            assert self._sequences is not None
            self._sequences.take(origin.producer_id, origin.sequence, offset, count)

    def _timestamp_of(self, log: Log, offset: int, otherwise: int) -> int:
        """Return the timestamp of a record that readers may not see yet, or that may have been
        deleted or compacted away since it was written."""
        if offset < self._start:
            return otherwise
        try:
            found, _ = log.read(offset, log.end(), 1, NO_LIMIT)
        except FileNotFoundError:
            return otherwise
        if not found or found[0].offsets[0] != offset:
            return otherwise
        return found[0].timestamps[0]

    def append_many_from(
        self,
        source: Source,
        values: Iterable[BytesLike | None],
        *,
        keys: Iterable[BytesLike | None] | None = None,
        headers: Iterable[HeadersLike | None] | None = None,
        timestamps: TimestampLike | Iterable[TimestampLike] | None = None,
    ) -> range:
        """Append records of a named producer or a transaction, as ``append_many`` does."""
        return self._append_many(values, keys, headers, timestamps, source)

    def last_sequence(self, producer_id: int) -> int | None:
        """Return the last sequence a named producer has written; None if none."""
        with self._lock:
            log = self._writable_log()
            last = self.known_sequences(log).last(producer_id)
        return None if last < 0 else last

    def take_back(self, producer_id: int, offset: int) -> None:
        """Have what a named producer wrote from an offset on as if it were not: it was aborted."""
        with self._lock:
            if self._sequences is not None:
                self._sequences.take_back(producer_id, offset)

    def append_marker(self, transaction: int, *, is_commit: bool) -> None:
        """Append what says, to nobody who reads, that a transaction has ended."""
        with self._lock:
            log = self._writable_log()
            log.append_marker(transaction, is_commit=is_commit, now_ms=self._now_ms())
            end = log.end_offset
        self.wait_until_kept(end)

    def offset_to_write(self) -> int:
        """Return the offset that the next record gets."""
        with self._lock:
            return self._writable_log().end_offset

    @property
    def topic_id(self) -> bytes:
        """The id of its topic."""
        return self._host.id.bytes

    def append_unkept(self, value: bytes | None, key: bytes | None) -> int:
        """Append one record and return its offset, without waiting until it is kept as the sync
        level has it: ``wait_until_kept`` does that."""
        offset, _ = self._append_checked(value, key, (), None, None)
        if self._waiters:
            self._wake()
        return offset

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
        return self._append_many(values, keys, headers, timestamps, None)

    def _append_many(
        self,
        values: Iterable[BytesLike | None],
        keys: Iterable[BytesLike | None] | None,
        headers: Iterable[HeadersLike | None] | None,
        timestamps: TimestampLike | Iterable[TimestampLike] | None,
        source: Source | None,
    ) -> range:
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
        self.check_keys(listed_columns["keys"])
        each = given if isinstance(given, list) else None
        batch = encode_batch(
            listed,
            listed_columns["keys"],
            listed_columns["headers"],
            each if self._host.config.timestamp_type == "create" else None,
            self._host.config.max_record_bytes,
            compression=self._host.config.compression,
        )
        with self._lock:
            log = self._writable_log()
            now_ms = self._now_ms()
            stamp = self._stamp(log, max(each) if each else given, now_ms)  # type: ignore
            if source is None:
                first = log.append_batch(batch, stamp, now_ms)
            else:
                origin, _ = self._origin(log, source, None)
                with self._numbering(origin):
                    first = log.append_batch(batch, stamp, now_ms, origin)
                    self._note_sequence(origin, first, batch.record_count)
        offsets = range(first, first + batch.record_count)
        if self._is_sync_always and not (source and source.transaction):
            self._sync_until(offsets.stop)
        if self._waiters:
            self._wake()
        return offsets

    def check_keys(self, keys: Sequence[object] | None) -> None:
        """Raise InvalidRecordError where a record lacks the key that compaction goes by."""
        if self._no_key is None and not self._host.config.is_compacted:
            return
        if keys is None or None in keys:
            which = "the record" if not keys else f"record {keys.index(None)} of them"
            raise InvalidRecordError(
                f"{which} has no key; {self.topic} is compacted (cleanup_policy="
                f"{self._host.config.cleanup_policy!r}), so every record needs one"
            )

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
        # In C: a third of what Record(...) costs.
        record = (self._name, self._index, offset, timestamp, key, value, ())
        return Records.of_one(tuple.__new__(Record, record))

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

    def read_all(self, offset: int, max_records: int) -> Records:
        """Return records as ``read`` does, those of aborted transactions too."""
        if self._log is not None and self._log.end_offset == offset + 1:
            record = self._plain_at(offset)  # the newest: what one waits for is
            if record is not None:
                return record
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
