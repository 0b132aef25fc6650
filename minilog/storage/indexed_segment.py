"""A segment's index: made as frames are appended, opened, mended, made anew from the log (I3).

The index is a hint, and a reader checks where it leads to; so what is missing of it is made from
the log whenever somebody asks, in memory where a reader does. This module refuses to know how a
frame is looked for, and how frames are made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.columns import ColumnsFrame
from minilog.storage.index import Index
from minilog.storage.memory import MemoryDirectory
from minilog.storage.segment_files import LARGEST_FILE, SegmentFiles
from minilog.storage.view import View


class Start(NamedTuple):
    """Where a scan may begin, and what is known of all before."""

    position: int
    offset: int
    largest_timestamp: int
    durable: int


class IndexedSegment(SegmentFiles):
    """A segment that is read by its index."""

    # ------------------------------------------------------------ read

    def origins(self, lowest: int) -> Iterator[tuple[f.Origin, int, int]]:
        """Yield who wrote each frame, its first offset and how many records it was written with,
        from the frame at ``lowest`` on, for those that say who."""
        region = self._mapped(self._map_to_read)
        frames = scan.walk(region, f.HEADER_SIZE, self.base_offset, self.tail[0], self.seed)
        for position, prefix in frames:
            if prefix.offset < lowest or prefix.flags & (f.SEAL | f.CONTROL):
                continue
            if prefix.flags & f.COLUMNS:
                frame = ColumnsFrame(prefix, region, position)
                is_whole = not prefix.flags & f.DELTAS  # else compaction has made it
                if is_whole and frame.is_sound and frame.origin != f.NOBODY:
                    yield frame.origin, prefix.offset, frame.count
            elif prefix.flags & f.EXTENDED:
                stop = position + f.PREFIX_SIZE + f.extension_size(prefix.flags)
                yield f.decode_origin(prefix, region[position:stop]), prefix.offset, 1

    def view(self, end: int) -> View:
        """Return a look at the segment that reaches at least to position ``end``.

        Any thread may ask; what the writer maps is looked at where it is there, else the file is
        mapped anew, which the writer never sees.
        """
        layout = self.layout  # before the region
        view, region = self.look, self.mapped
        is_mapped = region is not None and len(region) >= end
        if view is not None and (
            view.region is region
            if is_mapped
            else view.layout == layout and len(view.region) >= end
        ):
            return view  # not an older map though it is large enough: memory grows by copying
        if not is_mapped:
            region = self._mapped(self._map_to_read)
        assert region is not None
        index = self._index
        if index is None:
            index = self._index = self._open_index()
        view = self.look = View(region, index, self.base_offset, self.seed, self.path, layout)
        return view

    # ------------------------------------------------------------ index

    def _open_index(self) -> Index:
        """Return the index on the disk; where it is missing, one made from the log (I3).

        What readers make stays in memory: they take no lock, so they write no files.
        """
        place = self._place
        index = Index.open(place.directory, self.name, self.seed)
        return self._index_in_memory() if index is None else index

    def _index_in_memory(self) -> Index:
        index = Index(MemoryDirectory(), self.name, self.seed)
        self.index_frames(index, Start(f.HEADER_SIZE, self.base_offset, f.NO_TIMESTAMP, 0))
        return index

    def forget_index(self, *, unlink: bool = False) -> None:
        """Look for the index anew at the next use; ``unlink``: there is to be none until then."""
        self.look = None
        self._index = None
        if unlink:
            Index(self._place.directory, self.name, self.seed).remove()

    def sync_index(self) -> None:
        """Return when the index is on the disk, if there is one."""
        Index(self._place.directory, self.name, self.seed).sync()

    def add_index_entry(self, position: int, offset: int, end: int) -> None:
        """Add the entry that is due for a frame that will end at ``end``."""
        if offset != self.base_offset:  # the start needs none
            assert self._index is not None
            largest = max(self.largest_timestamp, 0)
            self._index.append(offset - self.base_offset, position, largest)
        self.index_due = max(end, position + self._config.index_interval_bytes)

    def ensure_index(self) -> None:
        """Have the index that appends go on with; made anew if it is missing."""
        directory = self._place.directory
        index = Index.open(directory, self.name, self.seed)
        if index is None and self.tail[0] > f.HEADER_SIZE + self._config.index_interval_bytes:
            try:
                self.reindex()
            except OSError:
                self._go_without_index()
            return
        self._index = index or Index(directory, self.name, self.seed)
        last = self._index.floor_below(LARGEST_FILE)
        last_position = f.HEADER_SIZE if last is None else last[1]
        self.index_due = last_position + self._config.index_interval_bytes

    def trusted_start(self, same_boot: bool, below: int = LARGEST_FILE) -> Start:
        """Return from where recovery must scan, looking at what lies ``below`` a position.

        That is the last index entry below what is known to be synced, or, when only the process
        died, simply the last entry; either is believed only if its frame is whole.
        """
        region, size = self.region(), self.file_size()
        index = Index.open(self._place.directory, self.name, self.seed)
        durable = f.HEADER_SIZE
        while index is not None:
            entry = index.floor_below(below)
            if entry is None:
                break
            relative, position, largest = entry
            prefix = scan.prefix_at(region, position, size)
            if (
                prefix is not None
                and prefix.offset == self.base_offset + relative
                and scan.is_whole(region, prefix, position, self.seed)
            ):
                durable = max(durable, prefix.durable_position)
                if same_boot or position <= durable:
                    return Start(position, prefix.offset, largest, durable)
                below = durable + 1
            else:
                below = position
        return Start(f.HEADER_SIZE, self.base_offset, f.NO_TIMESTAMP, durable)

    def mend_index(self) -> None:
        """Have the index that appends go on with, after a close that did not sync it."""
        try:
            self.reindex()
            assert self._index is not None
            self._index.trim()
        except OSError:
            self._go_without_index()

    def _go_without_index(self) -> None:
        """Have one in memory where there is no room for it: a read may have asked (I3). Half of
        one, which is all there may be of it on the disk, would look like damage; where it cannot
        be unlinked now, ``trim_index`` does it."""
        with contextlib.suppress(OSError):
            self.forget_index(unlink=True)
        self.look = None
        self._index = self._index_in_memory()

    def trim_index(self, end: int) -> None:
        """Cut the index to the frames before ``end``, where the segment is sealed or closed."""
        index, directory = self._index, self._place.directory
        assert index is not None
        index.cut_behind(end - 1)  # an interrupted append left its entry
        index.trim()
        if not index.is_in(directory):
            Index(directory, self.name, self.seed).remove()

    def reindex(self) -> None:
        """Make the index on the disk agree with a log that ends at the present tail.

        After a crash any of its entries may be missing or garbage: then it is made anew.
        """
        directory = self._place.directory
        start = self.trusted_start(same_boot=True, below=self.tail[0])
        index = Index.open(directory, self.name, self.seed)
        if index is None or not index.keep_through(start.position):
            index = Index(directory, self.name, self.seed)
            index.remove()
            start = Start(f.HEADER_SIZE, self.base_offset, f.NO_TIMESTAMP, 0)
        self._index = index
        self.index_frames(index, start)
        index.flush()

    def index_frames(self, index: Index, start: Start) -> None:
        """Add entries for the frames from ``start`` on, as appending them would have."""
        interval = self._config.index_interval_bytes
        self.index_due = start.position + interval
        largest = start.largest_timestamp
        frames = scan.walk(self.region(), start.position, start.offset, self.tail[0], self.seed)
        for position, prefix in frames:
            end = position + f.aligned(prefix.size)
            if end > self.index_due and position > start.position:
                index.append(prefix.offset - self.base_offset, position, max(largest, 0))
                self.index_due = max(end, position + interval)
            largest = max(largest, prefix.timestamp)
