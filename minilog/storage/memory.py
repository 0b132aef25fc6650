"""Directories and files that live as long as their objects do: the same engine, and no disk.

This module refuses to know what is in a file, and that there are disks.
"""

from __future__ import annotations

import errno

from minilog.storage.files import File, Lock, MappedRegion, Region


class MemoryFile:
    """A file that is an anonymous map, exactly as large: the same engine as on disk, no disk."""

    def __init__(self, path: str) -> None:
        self.path = path
        # Both by one assignment, as an interrupt may come between two; there is no map of nothing.
        self._bytes = (MappedRegion(-1, 1), 0)

    def size(self) -> int:
        """Return the size, reserve included."""
        return self._bytes[1]

    def read(self, position: int, size: int) -> bytes:
        """Return up to ``size`` bytes; fewer only at the end of the file."""
        region, end = self._bytes
        return region[position : min(position + size, end)]

    def write(self, position: int, data: bytes) -> None:
        """Write all of ``data``."""
        self.reserve(position + len(data))
        self._bytes[0][position : position + len(data)] = data

    def reserve(self, size: int) -> None:
        """Make the file ``size`` bytes; only ever larger. Readers keep the region they have."""
        if size > self.size():
            self._resize(size)

    def _resize(self, size: int) -> None:
        region = MappedRegion(-1, max(size, 1))
        kept = min(size, self.size())
        region[:kept] = self._bytes[0][:kept]
        self._bytes = (region, size)

    def trim(self, size: int) -> None:
        """Cut the file to ``size``; whoever maps it sees zeros behind."""
        region, end = self._bytes
        if size < end:
            region[size:end] = bytes(end - size)
            self._resize(size)

    def map(self, size: int) -> Region:
        """Return the file's own bytes."""
        return self._bytes[0]

    def sync(self) -> None:
        """Return at once: memory has no disk to be on."""

    def drop_cache(self) -> None:
        """Return at once: memory is its own device."""

    def close(self) -> None:
        """Return at once: the directory keeps the bytes."""


class MemoryDirectory:
    """A directory that lives as long as the object does."""

    def __init__(self, path: str = ":memory:") -> None:
        self.path = path
        self._files: dict[str, MemoryFile] = {}
        self._children: dict[str, MemoryDirectory] = {}
        self._is_made = False

    def exists(self) -> bool:
        """Say whether the directory was made."""
        return self._is_made

    def names(self) -> list[str]:
        """Return the names in it, sorted."""
        made = [name for name, child in self._children.items() if child.exists()]
        return sorted([*self._files, *made])

    def child(self, name: str) -> MemoryDirectory:
        """Return the directory of that name below this one."""
        if name not in self._children:
            self._children[name] = MemoryDirectory(f"{self.path}/{name}")
        return self._children[name]

    def make(self) -> None:
        """Make the directory."""
        self._is_made = True

    def stamp(self, name: str) -> tuple[int, ...]:
        """Return what changes when the file ``name`` is replaced; empty when it is not there."""
        return (id(self._files[name]),) if name in self._files else ()

    def _file(self, name: str) -> MemoryFile:
        if name not in self._files:
            raise FileNotFoundError(errno.ENOENT, "no such file", f"{self.path}/{name}")
        return self._files[name]

    def open(self, name: str, *, writable: bool = False) -> File:
        """Open the file ``name``."""
        return self._file(name)

    def create(self, name: str) -> File:
        """Make the file ``name``, which must not be there."""
        if name in self._files:
            raise FileExistsError(errno.EEXIST, "file exists", f"{self.path}/{name}")
        self._files[name] = MemoryFile(f"{self.path}/{name}")
        return self._files[name]

    def read(self, name: str) -> bytes:
        """Return the whole of a small file."""
        file = self._file(name)
        return file.read(0, file.size())

    def replace(self, name: str, data: bytes) -> None:
        """Make ``name`` hold ``data``."""
        file = MemoryFile(f"{self.path}/{name}")
        file.write(0, data)
        self._files[name] = file

    def rename(self, old: str, new: str) -> None:
        """Rename ``old`` to ``new``, which may lie in a directory below this one."""
        target, name = self, new
        while "/" in name:
            first, name = name.split("/", 1)
            target = target.child(first)
        if old in self._files:
            file = target._files[name] = self._files.pop(old)
            file.path = f"{target.path}/{name}"
        elif self.child(old).exists():
            target.child(name)._take_over(self.child(old))
        else:
            raise FileNotFoundError(errno.ENOENT, "no such file", f"{self.path}/{old}")

    def _take_over(self, other: MemoryDirectory) -> None:
        """Hold what another directory held, which is gone: an object stands for a path."""
        self._files, other._files = other._files, {}
        for name, file in self._files.items():
            file.path = f"{self.path}/{name}"
        for name, child in other._children.items():
            self.child(name)._take_over(child)
        self._is_made, other._is_made = other._is_made, False

    def unlink(self, name: str) -> None:
        """Remove the file ``name``; whoever maps it keeps its bytes."""
        self._file(name)
        del self._files[name]

    def remove(self) -> None:
        """Remove the directory and all below it."""
        self._files.clear()
        self._children.clear()
        self._is_made = False

    def sync(self) -> None:
        """Return at once: memory has no disk to be on."""

    def lock(self, name: str) -> Lock:
        """Return a lock that nobody else can want: no other broker sees this directory."""
        return MemoryLock()


class MemoryLock:
    """The lock of a directory that only its owner knows."""

    is_same_boot = False

    def recovered(self) -> None:
        """Return at once."""

    def release(self) -> None:
        """Return at once."""

    def abandon(self) -> None:
        """Return at once."""
