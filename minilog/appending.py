"""What is appended, checked: arguments on their way into the log.

One record of any kind, many as one batch, those of named producers and transactions, and the
markers that end these. Bad input is refused here, before anything is locked or written. This module
refuses to know how a record is stored, and the short path of those that need no look.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from minilog.arguments import as_list, check_whole, timestamps_of
from minilog.cleaning import CleanedLog
from minilog.errors import InvalidRecordError, OffsetConflictError, SequenceGapError
from minilog.records import (
    BytesLike,
    HeadersLike,
    TimestampLike,
    bytes_of,
    headers_of,
    timestamp_of,
)
from minilog.sources import Source
from minilog.storage import NOBODY, Log, Origin, encode_batch, encode_headers, too_large

NO_LIMIT = 2**62


class Appending(CleanedLog):
    """A shared log that takes records of every kind."""

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
        self.check_size(len(value or b"") + len(key or b"") + len(encoded))
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
                    f"{self._name}-{self._index} gets offset {log.end_offset}",
                    expected=expected_offset,
                    actual=log.end_offset,
                )
            now_ms = self._now_ms()
            stamp = self._stamp(log, given, now_ms)
            return log.append_single(key, value, encoded, stamp, now_ms), stamp

    def append_any(
        self,
        value: object,
        key: object,
        headers: HeadersLike | None,
        timestamp: TimestampLike | None,
        expected_offset: int | None = None,
    ) -> tuple[int, int]:
        """Append one record of any kind, as ``append`` does; return its offset and timestamp."""
        offset, stamp = self._append_checked(value, key, headers, timestamp, expected_offset)
        if self._is_sync_always:
            self._sync_until(offset + 1)
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
        self.check_size(len(value or b"") + len(key or b"") + len(encoded))
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
        self._wait_unless_open(source, offset + 1)
        if before is not None:
            return offset, self._timestamp_of(log, offset, stamp)
        if self._waiters:
            self._wake()
        return offset, stamp

    def _wait_unless_open(self, source: Source | None, end: int) -> None:
        """Return when all below ``end`` is kept; what a transaction writes is kept at its end."""
        if self._is_sync_always:
            if source is not None and source.transaction:
                self._has_hidden = True
            else:
                self._sync_until(end)

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
                    f"{self._name}-{self._index} too long ago to tell its offset; the next is {due}"
                )
            return NOBODY, before
        if sequence > due:
            raise SequenceGapError(
                f"sequence {sequence} of producer {identity.name!r} leaves a gap in "
                f"{self._name}-{self._index}: the next is {due}"
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
        count = len(listed)
        listed_keys = None if keys is None else as_list("keys", keys, count)
        listed_headers = None if headers is None else as_list("headers", headers, count)
        given = timestamps_of(timestamps, count)
        if not listed:
            with self._lock:
                end = self._writable_log().end_offset
            return range(end, end)
        self.check_keys(listed_keys)
        each = given if isinstance(given, list) else None
        batch = encode_batch(
            listed,
            listed_keys,
            listed_headers,
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
        self._wait_unless_open(source, offsets.stop)
        if self._waiters:
            self._wake()
        return offsets

    def check_size(self, size: int) -> None:
        """Raise RecordTooLargeError for a record of so many bytes, where that is too large."""
        limit = self._host.config.max_record_bytes
        if size > limit:
            raise too_large(size, limit)

    def check_keys(self, keys: Sequence[object] | None) -> None:
        """Raise InvalidRecordError where a record lacks the key that compaction goes by."""
        if self.no_key is None and not self._host.config.is_compacted:
            return
        if keys is None or None in keys:
            which = "the record" if not keys else f"record {keys.index(None)} of them"
            raise InvalidRecordError(
                f"{which} has no key; {self._name} is compacted (cleanup_policy="
                f"{self._host.config.cleanup_policy!r}), so every record needs one"
            )

    def _stamp(self, log: Log, given: int | None, now_ms: int) -> int:
        """Return the timestamp to write: as given or now, as the topic's settings have it."""
        config = self._host.config
        if config.timestamp_type == "append":
            return max(now_ms, log.largest_timestamp)  # the wall may step back; this does not
        if given is None:
            return now_ms
        self.check_timestamp(given, now_ms)
        return given

    def check_timestamp(self, given: int, now_ms: int) -> None:
        """Raise InvalidRecordError for one that is further ahead of the clock than is allowed."""
        config = self._host.config
        ahead = config.timestamp_after_max_ms
        if config.timestamp_type == "create" and 0 <= ahead < given - now_ms:
            raise InvalidRecordError(
                f"timestamp {given} is {given - now_ms} ms ahead of the clock; "
                f"timestamp_after_max_ms is {ahead}"
            )
