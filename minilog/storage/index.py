"""Sparse indexes of a segment: by offset and by time, in mapped files, searched by bisection.

One entry about every ``index_interval_bytes`` of log, at the start of a frame:

    .index      u64: offset relative to the segment's base << 32 | position of the frame
    .timeindex  i64: the largest timestamp of all records before that frame
                u64: crc32c of that timestamp and the .index entry, seeded as the segment is

Both grow together, some entries at a time: those that wait are looked up in memory, and after a
kill made again from the log. The entries are only hints: the reader checks that a frame of that
offset begins where an entry points to, and a time entry proves itself by its checksum (a running
maximum that is too small would hide records). A zero is no entry, as a frame is never at 0.

This module refuses to know frames; whoever appends says where they are.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from minilog.storage.checksum import crc32c
from minilog.storage.files import Directory, File, Region

ENTRY = Struct("<Q")
TIME_ENTRY = Struct("<qQ")
TIMED = Struct("<QQ")
FIRST_ENTRIES = 512
WRITTEN_AT_ONCE = 16
LARGEST_RELATIVE = 2**32 - 1


class Maps(NamedTuple):
    """Both files of an index, mapped."""

    region: Region
    time_region: Region
    words: Sequence[int]
    times: Sequence[int]

    @classmethod
    def of(cls, files: list[File], entries: int) -> Maps:
        """Map the files, with room for so many entries, or as they are.

        A file nobody refers to closes itself; a region that needs it refers to it.
        """
        regions = []
        for file, size in zip(files, (ENTRY.size, TIME_ENTRY.size)):
            if entries:
                file.reserve(entries * size)
            regions.append(file.map(max(entries * size, file.size()) if entries else 0))
        return cls(regions[0], regions[1], regions[0].words(), regions[1].words())


class Index:
    """The index files of one segment."""

    def __init__(self, directory: Directory, name: str, seed: int) -> None:
        self._directory = directory
        self._names = (f"{name}.index", f"{name}.timeindex")
        self._seed = seed
        self._count = 0
        self._waiting: list[tuple[int, int]] = []  # entries that are not in the files yet
        self._maps: Maps | None = None  # the writer's
        self._looks: Maps | None = None  # readers' own, where those are not there

    @classmethod
    def open(cls, directory: Directory, name: str, seed: int) -> Index | None:
        """Return the index that is on the disk; None when its files are missing."""
        index = cls(directory, name, seed)
        try:
            files = [directory.open(file_name) for file_name in index._names]
        except FileNotFoundError:
            return None
        # A crash may have left one with more reserve than the other.
        index._count = min(files[0].size() // ENTRY.size, files[1].size() // TIME_ENTRY.size)
        if index._count:
            index._looks = Maps.of(files, 0)
            index._skip_reserve()
        return index

    def _skip_reserve(self) -> None:
        """Leave out the zeros a writer has reserved behind its entries."""
        words = self._readable(self._count).words
        if not words[self._count - 1]:
            self._count = bisect_left(range(self._count), True, key=lambda n: not words[n])

    def __len__(self) -> int:
        return self._count + len(self._waiting)

    def is_in(self, directory: Directory) -> bool:
        """Say whether its files are, or would be, in a directory."""
        return self._directory is directory

    def append(self, relative_offset: int, position: int, timestamp: int) -> None:
        """Add an entry; ``timestamp`` is the largest of all records before it.

        It waits for others, to be written with them: one by one, entries are a sixth of what an
        append takes.
        """
        if len(self._waiting) >= WRITTEN_AT_ONCE:
            self.flush()
        self._waiting.append((relative_offset << 32 | position, timestamp))

    def flush(self) -> None:
        """Write the entries that wait."""
        waiting, count = self._waiting, self._count
        if not waiting:
            return
        stop = count + len(waiting)
        region, time_region, _, _ = self._writable(stop)
        words = [ENTRY.pack(entry) for entry, _ in waiting]
        region[count * 8 : stop * 8] = b"".join(words)
        timed = [TIME_ENTRY.pack(time, self._check(time, entry)) for entry, time in waiting]
        time_region[count * 16 : stop * 16] = b"".join(timed)
        self._count = stop  # a reader takes those that wait first, then the count, then the maps
        self._waiting = []

    def floor(self, relative_offset: int) -> tuple[int, int] | None:
        """Return (relative offset, position) of the last entry at or before an offset."""
        key = relative_offset << 32 | 0xFFFFFFFF
        waiting = self._waiting
        if waiting and waiting[0][0] <= key:
            entry = waiting[bisect_right(waiting, (key,)) - 1][0]
            return entry >> 32, entry & 0xFFFFFFFF
        count = self._count
        if not count:
            return None
        words = self._readable(count).words
        found = bisect_right(words, key, 0, count)
        if not found:
            return None
        entry = words[found - 1]
        return entry >> 32, entry & 0xFFFFFFFF

    def floor_time(self, timestamp: int) -> tuple[int, int] | None:
        """Return (relative offset, position) of the last entry with only older records before."""
        for entry, largest in reversed(self._waiting):
            if largest < timestamp:
                return entry >> 32, entry & 0xFFFFFFFF
        count = self._count
        if not count:
            return None
        _, _, words, times = self._readable(count)
        found = bisect_left(range(count), timestamp, key=lambda number: times[2 * number])
        while found:
            found -= 1
            entry, largest = words[found], times[2 * found]
            if times[2 * found + 1] == self._check(largest, entry) and largest < timestamp:
                return entry >> 32, entry & 0xFFFFFFFF
        return None

    def entries(self) -> Iterator[tuple[int, int, int]]:
        """Yield (relative offset, position, largest timestamp before) of every entry that proves
        itself; of one that does not, a timestamp that none has."""
        self.flush()
        if self._count:
            _, _, words, times = self._readable(self._count)
            for number in range(self._count):
                entry, largest = words[number], times[2 * number]
                is_right = times[2 * number + 1] == self._check(largest, entry)
                yield entry >> 32, entry & 0xFFFFFFFF, largest if is_right else -2

    def floor_below(self, position: int) -> tuple[int, int, int] | None:
        """Return (relative offset, position, largest timestamp before) of the last entry whose
        frame begins below a position and that proves itself."""
        self.flush()
        count = self._count
        if not count:
            return None
        _, _, words, times = self._readable(count)
        found = bisect_left(range(count), position, key=lambda n: words[n] & 0xFFFFFFFF)
        while found:
            found -= 1
            entry, largest = words[found], times[2 * found]
            # After a crash the entries may be out of order: what was bisected to may be beyond.
            is_below = entry & 0xFFFFFFFF < position
            if is_below and times[2 * found + 1] == self._check(largest, entry):
                return entry >> 32, entry & 0xFFFFFFFF, largest
        return None

    def cut_behind(self, position: int) -> None:
        """Forget the entries behind a position, and zero them."""
        self.flush()
        if not self._count:
            return
        words = self._readable(self._count).words
        self._cut(bisect_right(range(self._count), position, key=lambda n: words[n] & 0xFFFFFFFF))

    def keep_through(self, position: int) -> bool:
        """Keep the entries up to that of the frame at a position, and none behind; False unless
        all of them ascend and prove themselves, and that one is there."""
        before = 0
        for number, (relative, entry_position, largest) in enumerate(self.entries()):
            entry = relative << 32 | entry_position
            if entry <= before or largest < 0:
                return False
            if entry_position == position:
                self._cut(number + 1)
                return True
            before = entry
        return False

    def _cut(self, count: int) -> None:
        if count < self._count:
            region, time_region, _, _ = self._writable(self._count)
            region[count * 8 : self._count * 8] = bytes((self._count - count) * 8)
            time_region[count * 16 : self._count * 16] = bytes((self._count - count) * 16)
            self._count = count

    def trim(self) -> None:
        """Cut the files to the entries there are."""
        self.flush()
        self._maps = self._looks = None
        if not self._count:
            self.remove()  # space may have been reserved for a first entry that never came
            return
        for name, size in zip(self._names, (ENTRY.size, TIME_ENTRY.size)):
            self._directory.open(name, writable=True).trim(self._count * size)

    def sync(self) -> None:
        """Return when the bytes of the files, where they are there, are on the disk."""
        for name in self._names:
            with contextlib.suppress(FileNotFoundError):
                self._directory.open(name, writable=True).sync()

    def remove(self) -> None:
        """Unlink the files; whoever maps them keeps them."""
        self._maps = self._looks = None
        self._count = 0
        self._waiting = []
        for name in self._names:
            if self._directory.stamp(name):  # asked first: a read may be asking on a full disk
                with contextlib.suppress(FileNotFoundError):
                    self._directory.unlink(name)

    def unmap(self) -> None:
        """Let go of the maps until the next use."""
        self._maps = self._looks = None

    def _check(self, timestamp: int, entry: int) -> int:
        return crc32c(TIMED.pack(timestamp, entry), self._seed)

    def _writable(self, entries: int) -> Maps:
        """Return maps with room for so many entries; only the log's writer asks."""
        maps = self._maps
        if maps is None or entries * ENTRY.size > len(maps.region):
            room = max(FIRST_ENTRIES, 2 * (entries - 1))
            maps = self._maps = Maps.of([self._file(name) for name in self._names], room)
        return maps

    def _readable(self, count: int) -> Maps:
        """Return maps that hold at least so many entries; any reader asks."""
        for maps in (self._maps, self._looks):
            if maps is not None and len(maps.region) >= count * ENTRY.size:
                return maps
        maps = self._looks = Maps.of([self._directory.open(name) for name in self._names], 0)
        return maps

    def _file(self, name: str) -> File:
        try:
            return self._directory.open(name, writable=True)
        except FileNotFoundError:
            return self._directory.create(name)
