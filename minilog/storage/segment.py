"""A segment: append to it, seal it, sync it, follow it.

Appends are the business of one caller at a time (I1). Until it is sealed, its file has zeros
reserved behind the tail. This module refuses to know its neighbours, and what to do about damage:
it raises.
"""

from __future__ import annotations

import contextlib

from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.batch import Batch, encode_frame
from minilog.storage.columns import record_count
from minilog.storage.files import ZEROS
from minilog.storage.index import LARGEST_RELATIVE
from minilog.storage.indexed_segment import IndexedSegment
from minilog.storage.segment_files import CLOSED

FIRST_RESERVE = 64 * 1024
LARGE_WRITE = 64 * 1024  # from here one pwrite beats a store: it need not fault pages in


class Segment(IndexedSegment):
    """One segment of a log."""

    def append_frame(
        self, frame: bytes, position: int, next_offset: int, timestamp: int, now_ms: int
    ) -> None:
        """Store a whole frame at the tail, where ``make_room`` has made room for it."""
        offset = self.tail[1]
        end = position + len(frame)
        self.largest_timestamp = max(timestamp, self.largest_timestamp)
        self.last_append_ms = now_ms
        try:
            if len(frame) >= LARGE_WRITE and self._file is not None:
                self._file.write(position, frame)
            else:
                self.region()[position:end] = frame
            self.tail = (f.aligned(end), next_offset)
        except BaseException as error:
            self.settle(position, offset, error)
            raise

    def append_batch(
        self, batch: Batch, timestamp: int, now_ms: int, origin: f.Origin = f.NOBODY
    ) -> None:
        """Append a batch, where ``make_room`` has made room for it."""
        position, offset = self.tail
        flags = batch.flags | self._flags | (f.TRANSACTIONAL if origin.transaction else 0)
        context = f.context_of(self._epoch, self.durable, flags, batch.codec)
        frame = encode_frame(batch, offset, timestamp, context, self.seed, position, origin)
        self.append_frame(frame, position, offset + batch.record_count, timestamp, now_ms)

    def append_single(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: bytes,
        timestamp: int,
        now_ms: int,
        origin: f.Origin = f.NOBODY,
        flags: int = 0,
    ) -> None:
        """Append one record of any shape, where ``make_room`` has made room for it."""
        position, offset = self.tail
        flags |= self._flags
        frame = f.encode_single(
            key, value, headers, offset, timestamp, self._epoch, self.durable, flags, origin
        )
        frame += f.checksum(frame, self.seed, position)
        self.append_frame(frame, position, offset + 1, timestamp, now_ms)

    def settle(self, position: int, offset: int, error: BaseException) -> None:
        """After an interrupt in the middle of an append: the frame is in if all of it is; after
        an error of the disk it never is, as the caller is told that nothing was appended."""
        if self.tail[0] != position:
            return
        if isinstance(error, OSError):
            self._wipe(position)
            return
        region = self.region()
        prefix = scan.prefix_at(region, position, len(region))
        is_ours = prefix is not None and prefix.offset == offset and not prefix.flags & f.SEAL
        if is_ours and prefix is not None and scan.is_whole(region, prefix, position, self.seed):
            self.tail = (position + f.aligned(prefix.size), prefix.next_offset)

    def _wipe(self, position: int) -> None:
        """Zero what a failed write has left behind the tail (I5); a shorter frame would not cover
        it. Where that fails too, it is told as torn when the log is opened after a crash."""
        with contextlib.suppress(OSError):
            region = self.region()
            used = scan.last_used(region, position, len(region))
            if used > position:
                region[position:used] = bytes(used - position)

    def has_room(self, size: int) -> bool:
        """Say whether a frame of ``size`` bytes belongs here; a lone one always does."""
        position, offset = self.tail
        if self.is_sealed or offset - self.base_offset >= LARGEST_RELATIVE:
            return False
        fits = position + f.aligned(size) + f.SEAL_SIZE <= self._config.segment_bytes
        return fits or position == f.HEADER_SIZE

    def make_room(self, size: int, now_ms: int) -> None:
        """Have space reserved and pages touched for a frame of ``size`` bytes, and an index entry
        where one is due; OSError when there is no room, and then nothing has changed."""
        position, offset = self.tail
        end = position + f.aligned(size)
        if position == f.HEADER_SIZE:
            self._began_ms = now_ms
        self._reserve(end + f.SEAL_SIZE)
        if end > self.index_due:
            self.add_index_entry(position, offset, end)
        if self._place.is_each_synced:
            self._filled = len(self.region())
        elif end > self._filled and size < LARGE_WRITE:
            self._touch(end)
        self._filled = max(end, self._filled)
        most = (self._config.segment_bytes - f.SEAL_SIZE - f.EXTENSION_SIZE) & -8
        self.limit = min(self._filled, max(most, end))  # beyond it ``has_room`` is to be asked

    def _reserve(self, needed: int) -> None:
        """Have at least ``needed`` bytes reserved: in steps that double, as most logs are small."""
        region = self.region()
        if needed <= len(region):
            return
        step = min(max(2 * len(region), FIRST_RESERVE), self._config.segment_bytes)
        size = max(needed, step)
        file = self.writable_file()
        file.reserve(size)
        self.mapped = file.map(size)
        self.layout += 1  # behind the map: who has looked between the two looks again
        self._file = file
        self.look = None

    def _touch(self, end: int) -> None:
        """Write zeros ahead: 0.4 us a page, where a store's own page fault costs 2.7."""
        start = max(self._filled, self.tail[0])
        ahead = min(start + len(ZEROS), self._config.segment_bytes)  # memory comes in whole pages
        stop = min(len(self.region()), max(end, ahead))
        self.writable_file().write(start, ZEROS[: stop - start])
        self._filled = stop

    def seal(self) -> None:
        """End the segment for good: a last frame says what is in it, the reserve goes."""
        position, next_offset = self.tail
        end = position + f.SEAL_SIZE
        self._reserve(end)
        count = next_offset - self.base_offset
        seal = f.Seal(next_offset, self.largest_timestamp, self.last_append_ms, count)
        frame = f.encode_seal(seal, self._epoch, self.durable, self.seed, position)
        try:
            self.region()[position:end] = frame
            self._give_back(end)
            self.trim_index(position)
        except OSError:
            self._wipe(position)
            raise
        self._sealed_count = count
        self.is_sealed = True

    def finish_seal(self) -> None:
        """Do what a crash has left undone after the seal was written: cut the files."""
        end = self.tail[0] + f.SEAL_SIZE
        self.writable_file().trim(end)
        self.reindex()
        assert self._index is not None
        self._index.trim()
        self.unmap()

    def trim(self) -> None:
        """Give the reserve back, before the log is closed."""
        if not self.is_sealed:
            self._give_back(self.tail[0])
            self.trim_index(self.tail[0])

    def _give_back(self, end: int) -> None:
        # The map goes first: nobody may store behind what the file still has.
        file = self.writable_file()
        self.limit = CLOSED
        self.mapped = None
        self._filled = 0
        size = file.size()
        if size > end:
            file.trim(end)
        elif size < end:  # nothing could be reserved, so the last frame lacks its padding
            file.write(size, ZEROS[: end - size])
        self.layout += 1

    def sync(self) -> None:
        """Return when everything up to the present tail is on the disk."""
        position = self._end_position()
        self.writable_file().sync()
        self.durable = max(position, self.durable)
        self._set_context()

    def follow(self) -> bool:
        """Take in what another process has appended since; True when the segment was sealed."""
        region = self.region()
        position, due = self.tail
        for start, prefix in scan.walk(region, position, due, self.file_size(), self.seed):
            if prefix.flags & f.SEAL:
                self.accept_seal(start, prefix, region)
                return True
            self.largest_timestamp = max(self.largest_timestamp, prefix.timestamp)
            self.tail = (start + f.aligned(prefix.size), prefix.next_offset)
        return False

    def skip_to_last_entry(self) -> None:
        """Take the last index entry for the tail of a live segment; ``follow`` goes on there."""
        start = self.trusted_start(same_boot=True)
        self.tail = (start.position, start.offset)
        self.largest_timestamp = start.largest_timestamp

    def check(self) -> None:
        """Assert that every frame up to the tail is whole and that they tile the offsets."""
        position, due = f.HEADER_SIZE, self.base_offset
        largest, count = f.NO_TIMESTAMP, 0
        region = self.region()
        for start, prefix in scan.walk(region, position, due, self.tail[0], self.seed):
            position, due = start + f.aligned(prefix.size), prefix.next_offset
            largest = max(largest, prefix.timestamp)
            count += record_count(prefix, region, start)
        assert (position, due) == self.tail, f"{self.path}: {(position, due)}, not {self.tail}"
        is_counted = not self.is_sealed or count == self.record_count
        assert is_counted, f"{self.path}: {count} records, not {self.record_count}"
        assert largest <= self.largest_timestamp, f"{self.path}: a timestamp beyond the largest"

    def is_dirty(self) -> bool:
        """Say whether there is something that was not synced."""
        return self.durable < self._end_position()
