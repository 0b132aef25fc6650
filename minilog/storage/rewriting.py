"""Writing a segment that is to be put for others: frames of the records that are kept.

Records are gathered into columns frames; each covers the offsets from the end of the frame before
it to its last record, so that frames tile (I8), and where a stretch has no record left at all,
frames without records cover it. The file has an unfinished one's name: until it is renamed, it is
nobody's. This module refuses to know why a record is kept, and who renames.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from minilog.records import Headers
from minilog.storage import format as f
from minilog.storage.batch import EMPTY_BATCH, Batch, encode_batch, encode_frame
from minilog.storage.files import UNFINISHED, Directory
from minilog.storage.index import Index
from minilog.storage.memory import MemoryDirectory
from minilog.storage.runs import NOT_SEEN, Columns, Make
from minilog.storage.segment import Segment

FRAME_BYTES = 64 * 1024
LARGEST_EXTENT = 2**31 - 1
NO_LIMIT = 2**62


class Written(NamedTuple):
    """How far a segment has been written, and what is in it."""

    position: int
    next_offset: int
    record_count: int
    largest_timestamp: int
    tombstones_since: int
    index_due: int


class Rewriting:
    """A segment on its way: ``add`` records in order, then ``finish``, or ``discard``."""

    def __init__(
        self, segment: Segment, directory: Directory, interval_bytes: int, compression: str
    ) -> None:
        self.segment = segment
        self._directory = directory
        self._name = f"{segment.name}.log{UNFINISHED}"
        self._interval_bytes = interval_bytes
        self._compression = compression
        self._index = Index(MemoryDirectory(), segment.name, segment.seed)
        self._written = Written(
            f.HEADER_SIZE, segment.base_offset, 0, f.NO_TIMESTAMP, NOT_SEEN, f.HEADER_SIZE
        )
        self._make: Make | None = None
        self._tombstones_since = NOT_SEEN
        self._forget_gathered()
        with contextlib.suppress(FileNotFoundError):  # left by one that was interrupted
            directory.unlink(self._name)
        self._file = directory.create(self._name)

    def _forget_gathered(self) -> None:
        self._gathered = Columns([], [], [], [], None)
        self._gathered_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the file if it were finished now, or a little more."""
        count = len(self._gathered.offsets)
        overhead = 200 + 28 * count if count else 0
        return self._written.position + self._gathered_bytes + overhead + f.SEAL_SIZE

    # ------------------------------------------------------------ adding

    def add(self, records: Columns, make: Make, tombstones_since: int = NOT_SEEN) -> None:
        """Add records of one make; ``tombstones_since``, where there are tombstones among them
        that a cleaning has seen."""
        gathered = self._gathered
        if gathered.offsets:
            span = records.offsets[-1] - gathered.offsets[0]
            is_other = make != self._make or tombstones_since != self._tombstones_since
            if is_other or span >= LARGEST_EXTENT:
                self._write_gathered()
                gathered = self._gathered
        self._make = make
        self._tombstones_since = tombstones_since
        headers = gathered.headers
        if records.headers is not None or headers is not None:
            before: list[Headers] = [()] * len(gathered.offsets) if headers is None else headers
            own: list[Headers] = [()] * len(records.offsets)
            headers = before + (records.headers or own)
        gathered.offsets.extend(records.offsets)
        gathered.timestamps.extend(records.timestamps)
        gathered.keys.extend(records.keys)
        gathered.values.extend(records.values)
        self._gathered = gathered._replace(headers=headers)
        self._gathered_bytes += sum(map(len, filter(None, records.values)))
        self._gathered_bytes += sum(map(len, filter(None, records.keys)))
        if self._gathered_bytes >= FRAME_BYTES:
            self._write_gathered()

    def _write_gathered(self, until: int | None = None) -> None:
        """Write what was gathered as a frame, which covers the offsets to ``until``."""
        offsets, stamps, keys, values, headers = self._gathered
        if not offsets:
            return
        make, since = self._make, self._tombstones_since
        assert make is not None
        stop = offsets[-1] + 1 if until is None else until
        if make.producer_id >= 0 or stop - self._written.next_offset > LARGEST_EXTENT:
            self._cover(offsets[0])  # a sequence of the batch is counted from its first offset
        if stop - self._written.next_offset > LARGEST_EXTENT:
            stop = offsets[-1] + 1
        due = self._written.next_offset
        is_dense = offsets[-1] - due == len(offsets) - 1
        batch = encode_batch(
            values,
            keys,
            headers,
            None if min(stamps) == max(stamps) else stamps,
            NO_LIMIT,
            None if is_dense else [offset - due for offset in offsets],
            self._compression,
        )
        self._forget_gathered()
        self._write_batch(batch, stop, max(stamps), make, since)

    def _write_batch(
        self, batch: Batch, stop: int, timestamp: int, make: Make | None, since: int
    ) -> None:
        position, due = self._written[:2]
        origin = f.NOBODY if make is None else make.origin(due)
        flags = batch.flags | (0 if make is None else make.flags)
        # All before it will be on the disk when this file becomes part of the log.
        context = f.context_of(0 if make is None else make.epoch, position, flags, batch.codec)
        frame = encode_frame(
            batch,
            due,
            timestamp,
            context,
            self.segment.seed,
            position,
            extent=stop - due,
            origin=origin,
            tombstones_since=since,
        )
        if since != NOT_SEEN:
            before = self._written.tombstones_since
            oldest = since if before == NOT_SEEN else min(since, before)
            self._written = self._written._replace(tombstones_since=oldest)
        self._write(frame, stop, batch.record_count, timestamp)

    def _cover(self, offset: int) -> None:
        """Cover the offsets below one of which no record is left."""
        while self._written.next_offset < offset:
            stop = min(offset, self._written.next_offset + LARGEST_EXTENT)
            self._write_batch(EMPTY_BATCH, stop, f.NO_TIMESTAMP, None, NOT_SEEN)

    def _write(self, frame: bytes, next_offset: int, count: int, timestamp: int) -> None:
        position, offset, before, largest, since, index_due = self._written
        end = position + f.aligned(len(frame))
        if end > index_due:
            if position > f.HEADER_SIZE:
                relative = offset - self.segment.base_offset
                self._index.append(relative, position, max(largest, 0))
            index_due = max(end, position + self._interval_bytes)
        self._file.write(position, frame + bytes(-len(frame) & 7))
        largest = max(largest, timestamp)
        self._written = Written(end, next_offset, before + count, largest, since, index_due)

    # ------------------------------------------------------------ going back, and the end

    def save(self) -> Written:
        """Return what ``restore`` goes back to: all that was added so far."""
        self._write_gathered()
        return self._written

    def restore(self, saved: Written) -> None:
        """Take back what was added since."""
        self._forget_gathered()
        self._written = saved
        self._index.cut_behind(saved.position - 1)
        self._file.trim(saved.position)

    def finish(self, header: f.SegmentHeader, end_offset: int, last_append_ms: int) -> Segment:
        """End the segment at an offset and return it, sealed and synced."""
        self._write_gathered(end_offset)
        self._cover(end_offset)
        position, _, count, largest, since, _ = self._written
        header = header._replace(tombstones_since=since)
        seal = f.Seal(end_offset, largest, last_append_ms, count)
        segment, file = self.segment, self._file
        file.write(position, f.encode_seal(seal, header.epoch, position, segment.seed, position))
        file.write(0, f.encode_header(header))
        file.sync()
        file.close()
        cleaning = (header.cleaned_to, since)
        segment.take_over(position, seal, cleaning, self._index if len(self._index) else None)
        return segment

    def discard(self) -> None:
        """Remove the file."""
        self._file.close()
        self._directory.unlink(self._name)

    def write_index(self) -> None:
        """Write the index of the segment, which is part of the log now; a crash leaves none."""
        name = self.segment.name
        index = Index(self._directory, name + UNFINISHED, self.segment.seed)
        try:
            for entry in self._index.entries():
                index.append(*entry)
            index.trim()
            if len(index):
                for ending in (".index", ".timeindex"):
                    self._directory.rename(f"{name}{UNFINISHED}{ending}", f"{name}{ending}")
        except OSError:  # without it, one is made from the log when it is read
            index.remove()
            self.segment.forget_index(unlink=True)  # one of the two may have its name already
        self.segment.forget_index()
