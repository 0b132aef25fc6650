"""Regions that are no map, and how many maps there may be.

A region without a map reads and writes through its file, where mapping is not safe or not wanted.
This module refuses to know how a file is mapped, and what is in it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from minilog.storage.seam import File, Region


class FileRegion:
    """The same face by pread and pwrite: where mapping is not safe or not wanted."""

    def __init__(self, file: File, size: int) -> None:
        self._file = file
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, where: slice) -> bytes:
        start, stop, _ = where.indices(self._size)
        return self._file.read(start, max(stop - start, 0))

    def __setitem__(self, where: slice, data: bytes) -> None:
        self._file.write(where.start, data)

    def view(self, start: int, stop: int) -> bytes:
        """Return bytes to look at once."""
        return self[start:stop]

    def words(self) -> Sequence[int]:
        """Return the bytes as little-endian 64-bit numbers, read one at a time."""
        return RegionWords(self)


class RegionWords(Sequence[int]):
    """A region as little-endian 64-bit numbers, for regions that give no buffer."""

    def __init__(self, region: Region) -> None:
        self._region = region

    def __len__(self) -> int:
        return len(self._region) // 8

    def __getitem__(self, number: int | slice) -> int:  # type: ignore[override]
        assert isinstance(number, int)
        return int.from_bytes(self._region[number * 8 : number * 8 + 8], "little")


class MapLimit:
    """Bounds how many files are mapped at once: the first mapped is the first let go.

    A map holds a descriptor (mmap dups it) and may be let go at any moment, also while a thread
    uses it: that thread's own reference keeps it alive until it is done.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._holders: deque[MapHolder] = deque()

    def admit(self, holder: MapHolder) -> None:
        """Note that ``holder`` has mapped its files, and let go of the oldest beyond the limit."""
        self._holders.append(holder)
        while len(self._holders) > self._limit:
            self._let_go()

    def relieve(self) -> bool:
        """Let go of half of what is mapped, when descriptors ran out; False if nothing is."""
        half = (len(self._holders) + 1) // 2
        for _ in range(half):
            self._let_go()
        return half > 0

    def _let_go(self) -> None:
        with contextlib.suppress(IndexError):  # another thread was faster
            self._holders.popleft().unmap()


class MapHolder(Protocol):
    """Whoever maps files and can do without them for a while."""

    def unmap(self) -> None: ...
