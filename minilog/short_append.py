"""The short path of an append: one function from the lock to the map.

Four rooms lie between an argument and the map: partition, shared log, log, segment. The commonest
record does not go through them one by one, but through one function that does what each of them
promises, in their order: the lock (I1), a look whether there is room, the bytes and then the tail
in one assignment (I2), a wake-up. Of 1,570 ns for an append that is 350. Whatever is not the
commonest goes through the rooms: no room, another segment, a header, a timestamp.

This module refuses to know what is checked before, and anything rare.
"""

from __future__ import annotations

from minilog.appending import Appending
from minilog.records import BytesLike, HeadersLike, TimestampLike
from minilog.sources import Source
from minilog.storage import Log
from minilog.storage.checksum import crc32c
from minilog.storage.format import (
    CRC,
    EXTENSION_SIZE,
    NUMBERED_PREFIX,
    SHORT_PREFIX,
    TRANSACTION,
)

PACK = SHORT_PREFIX.pack
PACK_NUMBERED = NUMBERED_PREFIX.pack
PACK_TRANSACTION = TRANSACTION.pack
PACK_CRC = CRC.pack
OVERHEAD = SHORT_PREFIX.size + CRC.size
NUMBERED_OVERHEAD = NUMBERED_PREFIX.size + CRC.size


class ShortAppend(Appending):
    """A shared log with a short way for the commonest records."""

    _log: Log

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
        if not (
            value.__class__ is bytes
            and (key.__class__ is bytes or key is self.no_key)
            and timestamp is None
            and expected_offset is None
            and not headers
            and self.is_plain
        ):
            return self.append_any(value, key, headers, timestamp, expected_offset)[0]
        # What follows is append_plain once more, as calling it costs 110 of 1,400 ns.
        while True:
            with self._lock:
                tail = self._log.writing
                now_ms = self._now_ns() // 1_000_000
                position, offset = tail.tail
                if key is None:
                    size = len(value) + OVERHEAD
                    frame = PACK(size, -1, offset, now_ms, tail.context) + value
                else:
                    size = len(key) + len(value) + OVERHEAD
                    frame = PACK(size, len(key), offset, now_ms, tail.context) + key + value
                end = position + size
                region = tail.mapped  # before the limit, which goes first when a map is let go
                if end <= tail.limit:
                    if end > tail.index_due:
                        tail.add_index_entry(position, offset, end)
                    if now_ms > tail.largest_timestamp:  # before it is seen: too large is harmless
                        tail.largest_timestamp = now_ms
                    tail.last_append_ms = now_ms
                    try:
                        crc = PACK_CRC(crc32c(frame, tail.seed ^ position))
                        region[position:end] = frame + crc  # type: ignore[index]
                        tail.tail = ((end + 7) & -8, offset + 1)
                    except BaseException as error:
                        tail.settle(position, offset, error)
                        raise
                    break
            self._make_room(size)
        if self._is_sync_always:
            self._sync_until(offset + 1)
        if self._waiters:
            self._wake()
        return offset

    def append_plain(self, key: bytes | None, value: bytes) -> tuple[int, int]:
        """Append a record without headers, timed now; return its offset and timestamp. The caller
        has looked whether it ``is_plain``."""
        # One pack, one checksum, one store, one assignment; no calls of our own.
        while True:
            with self._lock:
                tail = self._log.writing
                now_ms = self._now_ns() // 1_000_000
                position, offset = tail.tail
                if key is None:
                    size = len(value) + OVERHEAD
                    frame = PACK(size, -1, offset, now_ms, tail.context) + value
                else:
                    size = len(key) + len(value) + OVERHEAD
                    frame = PACK(size, len(key), offset, now_ms, tail.context) + key + value
                end = position + size
                region = tail.mapped  # before the limit, which goes first when a map is let go
                if end <= tail.limit:
                    if end > tail.index_due:
                        tail.add_index_entry(position, offset, end)
                    if now_ms > tail.largest_timestamp:  # before it is seen: too large is harmless
                        tail.largest_timestamp = now_ms
                    tail.last_append_ms = now_ms
                    try:
                        crc = PACK_CRC(crc32c(frame, tail.seed ^ position))
                        region[position:end] = frame + crc  # type: ignore[index]
                        tail.tail = ((end + 7) & -8, offset + 1)
                    except BaseException as error:
                        tail.settle(position, offset, error)
                        raise
                    break
            self._make_room(size)
        if self._is_sync_always:
            self._sync_until(offset + 1)
        if self._waiters:
            self._wake()
        return offset, now_ms

    def append_numbered(
        self, source: Source, sequence: int | None, key: bytes | None, value: bytes
    ) -> tuple[int, int] | None:
        """Append such a record of a named producer or a transaction; None where ``append_from`` has
        to look. It stands here again as a call would cost both; of 11 us in a transaction it saves
        8."""
        producer_id, transaction = source.producer_id, source.transaction
        if self._is_sync_always and not transaction:
            return None
        run, due = None, -1
        with self._lock:
            tail = self._log.writing
            position, offset = tail.tail
            if producer_id >= 0:
                identity, sequences = source.identity, self._sequences
                is_busy = identity.is_in_transaction and not transaction  # type: ignore[union-attr]
                if sequences is None or is_busy or identity.is_fenced:  # type: ignore[union-attr]
                    return None
                run = sequences.latest(producer_id)
                if run is None or self._sequences is not sequences:
                    return None
                first, start, count = run
                due = first + count
                if offset != start + count or (sequence is not None and sequence != due):
                    return None
            now_ms = self._now_ns() // 1_000_000
            length = -1 if key is None else len(key)
            size = len(value) + NUMBERED_OVERHEAD + (0 if key is None else length)
            context, epoch = tail.numbered_context, source.epoch
            if transaction:
                size += TRANSACTION.size
                context = tail.transactional_context
            frame = PACK_NUMBERED(size, length, offset, now_ms, context, producer_id, due, epoch, 0)
            if transaction:
                frame += PACK_TRANSACTION(transaction)
            end = position + size
            region = tail.mapped
            if end > tail.limit:
                return None
            if end > tail.index_due:
                tail.add_index_entry(position, offset, end)
            frame += value if key is None else key + value
            if now_ms > tail.largest_timestamp:
                tail.largest_timestamp = now_ms
            tail.last_append_ms = now_ms
            try:
                crc = PACK_CRC(crc32c(frame, tail.seed ^ position))
                region[position:end] = frame + crc  # type: ignore[index]
                tail.tail = ((end + 7) & -8, offset + 1)
                if run is not None:
                    run[2] = count + 1
            except BaseException as error:
                self._sequences = None  # the log says whether it is in, when asked again
                tail.settle(position, offset, error)
                raise
        if self._is_sync_always:
            self._has_hidden = True
        if self._waiters:
            self._wake()
        return offset, now_ms

    def append_unkept(self, key: bytes, value: bytes | None) -> int:
        """Append one record and return its offset, without waiting until it is kept as the sync
        level has it: ``wait_until_kept`` does that."""
        if self.is_plain and value is not None and not self._is_sync_always:
            return self.append_plain(key, value)[0]
        offset, _ = self._append_checked(value, key, (), None, None)
        if self._waiters:
            self._wake()
        return offset

    def _make_room(self, size: int) -> None:
        """Have room for a frame of ``size`` bytes, with all that is due then."""
        with self._lock:
            log = self._writable_log()
            self.check_size(size - OVERHEAD)
            # With an extension's room: segments end at the same place whatever records are in them.
            log.make_room(size + EXTENSION_SIZE, self._now_ms())
