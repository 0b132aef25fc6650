"""The directories, files, maps and lock of a simulated disk, as the storage's seam has them.

Whatever changes something is one operation, recorded; ``replace`` and ``remove`` are the several
that a real disk needs for them. This module refuses to know crashes.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from struct import Struct
from struct import error as struct_error

from minilog.errors import LockedError, StorageError
from minilog.storage.files import File, FileRegion, Lock, Region, RegionWords, replace_by_rename
from minilog.testing.trace import (
    CREATE,
    MAKE,
    RECOVERED,
    REMOVE,
    RENAME,
    RESERVE,
    ROOT,
    SYNC,
    SYNC_NAMES,
    TRIM,
    UNLINK,
    WRITE,
    Edit,
    Operation,
    Recorder,
)

WORD = Struct("<Q")


class BusError(BaseException):
    """A map was touched behind the end of its file: a real process dies there, by SIGBUS."""


class SimulatedRegion:
    """A mapped file. Every store is an operation of its own."""

    def __init__(
        self, recorder: Recorder, node: int, path: str, size: int, *, writable: bool
    ) -> None:
        self._recorder = recorder
        self._content = recorder.files[node]
        self._node = node
        self._path = path
        self._size = size
        self._is_writable = writable

    def __len__(self) -> int:
        return self._size

    def _check(self, stop: int) -> None:
        if stop > len(self._content):
            raise BusError(
                f"byte {stop} of a map of {self._path}, which has {len(self._content)} bytes now"
            )

    def __getitem__(self, where: slice) -> bytes:
        start, stop, _ = where.indices(self._size)
        if stop > start:
            self._check(stop)
        return bytes(self._content[start:stop])

    def __setitem__(self, where: slice, data: bytes) -> None:
        if not self._is_writable:
            raise TypeError(f"{self._path} was mapped for reading")
        start, stop, _ = where.indices(self._size)
        if stop - start != len(data):
            raise IndexError(f"{len(data)} bytes do not fit into [{start}:{stop}]")
        if data:
            self._check(stop)
            self._recorder.record(Operation(WRITE, self._path, self._node, start, bytes(data)))

    def view(self, start: int, stop: int) -> bytes:
        """Return bytes to look at once."""
        return self[start:stop]

    def words(self) -> Sequence[int]:
        """Return the bytes as little-endian 64-bit numbers."""
        return SimulatedWords(self, self._content)


class SimulatedWords(RegionWords):
    """The 64-bit numbers of a map, as they are at each look."""

    def __init__(self, region: SimulatedRegion, content: bytearray) -> None:
        super().__init__(region)
        self._content = content

    def __getitem__(self, number: int | slice) -> int:  # type: ignore[override]
        try:
            word: int = WORD.unpack_from(self._content, number * 8)[0]  # type: ignore[operator]
        except struct_error:
            return super().__getitem__(number)  # says what is wrong
        return word


class SimulatedFile:
    """An open file; it lives on when its name goes."""

    def __init__(self, recorder: Recorder, node: int, path: str, *, writable: bool) -> None:
        self.path = path
        self._recorder = recorder
        self._node = node
        self._content = recorder.files[node]
        self._is_writable = writable

    def _record(self, kind: str, position: int, data: bytes = b"") -> None:
        if not self._is_writable:
            raise OSError(errno.EBADF, "the file was opened for reading", self.path)
        grows = position + len(data) > len(self._content)
        operation = Operation(kind, self.path, self._node, position, data, grows=grows)
        self._recorder.record(operation)

    def size(self) -> int:
        """Return the size, reserve included."""
        return len(self._content)

    def read(self, position: int, size: int) -> bytes:
        """Return up to ``size`` bytes; fewer only at the end of the file."""
        return bytes(self._content[position : position + size])

    def write(self, position: int, data: bytes) -> None:
        """Write all of ``data``."""
        if data:
            self._record(WRITE, position, bytes(data))

    def reserve(self, size: int) -> None:
        """Make the file ``size`` bytes; only ever larger."""
        if size > len(self._content) and self._recorder.can_reserve:
            self._record(RESERVE, size)

    def trim(self, size: int) -> None:
        """Cut the file to ``size``."""
        if size < len(self._content):
            self._record(TRIM, size)

    def map(self, size: int) -> Region:
        """Return the first ``size`` bytes as a region; 0 is all there is.

        Where nothing can be reserved, the region of a writer reads and writes the file.
        """
        if self._is_writable and not self._recorder.can_reserve:
            return FileRegion(self, size or self.size())
        if size > len(self._content):
            raise ValueError(f"a map of {size} bytes is longer than {self.path}")
        size = size or len(self._content)
        writable = self._is_writable
        return SimulatedRegion(self._recorder, self._node, self.path, size, writable=writable)

    def sync(self) -> None:
        """Have the bytes and the size of the file on the disk; not its name."""
        self._recorder.record(Operation(SYNC, self.path, self._node))

    def drop_cache(self) -> None:
        """Return at once: after a crash there is no cache, and before it none to doubt."""

    def close(self) -> None:
        """Return at once; a file that nobody refers to is gone."""


class SimulatedDirectory:
    """A directory of a simulated disk, by its path."""

    def __init__(self, recorder: Recorder, parts: tuple[str, ...]) -> None:
        self.path = "/" + "/".join(parts)
        self.recorder = recorder
        self._parts = parts

    def _find(self, parts: tuple[str, ...]) -> int | None:
        node = ROOT
        for part in parts:
            names = self.recorder.directories.get(node)
            if names is None or part not in names:
                return None
            node = names[part]
        return node

    def _node(self) -> int:
        node = self._find(self._parts)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such directory", self.path)
        if node not in self.recorder.directories:
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", self.path)
        return node

    def _file(self, name: str) -> int:
        node = self.recorder.directories[self._node()].get(name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", f"{self.path}/{name}")
        return node

    def _record(self, kind: str, path: str, node: int, *edits: Edit) -> None:
        self.recorder.record(Operation(kind, path, node, edits=edits))

    def exists(self) -> bool:
        """Say whether the directory is there; StorageError when something else is."""
        node = self._find(self._parts)
        if node is not None and node not in self.recorder.directories:
            raise StorageError(f"{self.path} is not a directory")
        return node is not None

    def names(self) -> list[str]:
        """Return the names in it, sorted; none when it is not there."""
        node = self._find(self._parts)
        return [] if node is None else sorted(self.recorder.directories[node])

    def child(self, name: str) -> SimulatedDirectory:
        """Return the directory of that name below this one, whether it is there or not."""
        return SimulatedDirectory(self.recorder, (*self._parts, name))

    def make(self) -> None:
        """Make the directory and those above it that are missing; the top one durably."""
        for depth, part in enumerate(self._parts):
            above = SimulatedDirectory(self.recorder, self._parts[:depth])
            if self._find(self._parts[: depth + 1]) is None:
                above._link(MAKE, part)
            if len(self._parts) == 1:
                above.sync()

    def _link(self, kind: str, name: str) -> int:
        above, node = self._node(), self.recorder.next_node()
        self._record(kind, f"{self.path}/{name}", node, Edit(above, name, node))
        return node

    def stamp(self, name: str) -> tuple[int, ...]:
        """Return what changes when the file ``name`` is replaced; empty when it is not there."""
        directory = self._find(self._parts)
        node = None if directory is None else self.recorder.directories[directory].get(name)
        return () if node is None else (node, len(self.recorder.files.get(node, b"")))

    def open(self, name: str, *, writable: bool = False) -> File:
        """Open the file ``name``."""
        path = f"{self.path}/{name}"
        node = self._file(name)
        if node in self.recorder.directories:
            raise StorageError(f"{path} is not a regular file")
        return SimulatedFile(self.recorder, node, path, writable=writable)

    def create(self, name: str) -> File:
        """Make the file ``name``, which must not be there."""
        path = f"{self.path}/{name}"
        if name in self.recorder.directories[self._node()]:
            raise FileExistsError(errno.EEXIST, "file exists", path)
        return SimulatedFile(self.recorder, self._link(CREATE, name), path, writable=True)

    def read(self, name: str) -> bytes:
        """Return the whole of a small file."""
        file = self.open(name)
        return file.read(0, file.size())

    def replace(self, name: str, data: bytes) -> None:
        """Make ``name`` hold ``data``, durably, by the operations a real disk needs for it."""
        replace_by_rename(self, name, data)

    def rename(self, old: str, new: str) -> None:
        """Rename ``old`` to ``new``, which may lie in a directory below this one."""
        source, node = self._node(), self._file(old)
        *between, name = new.split("/")
        above = SimulatedDirectory(self.recorder, (*self._parts, *between))
        target = above._node()
        there = self.recorder.directories[target].get(name)
        if there is not None and self.recorder.directories.get(there):
            raise OSError(errno.ENOTEMPTY, "directory not empty", f"{above.path}/{name}")
        edits = Edit(source, old, None), Edit(target, name, node)
        self._record(RENAME, f"{self.path}/{old}", node, *edits)

    def unlink(self, name: str) -> None:
        """Remove the file ``name``; whoever has it open keeps its bytes."""
        node = self._file(name)
        if node in self.recorder.directories:
            raise IsADirectoryError(errno.EISDIR, "is a directory", f"{self.path}/{name}")
        self._record(UNLINK, f"{self.path}/{name}", node, Edit(self._node(), name, None))

    def remove(self) -> None:
        """Remove the directory and all below it; nothing happens when it is not there."""
        node = self._find(self._parts)
        if node is None:
            return
        for name in self.names():
            if self.recorder.directories[node][name] in self.recorder.directories:
                self.child(name).remove()
            else:
                self.unlink(name)
        above = SimulatedDirectory(self.recorder, self._parts[:-1])
        self._record(REMOVE, self.path, node, Edit(above._node(), self._parts[-1], None))

    def sync(self) -> None:
        """Have the names in this directory on the disk."""
        self._record(SYNC_NAMES, self.path, self._node())

    def lock(self, name: str) -> Lock:
        """Take the directory's one writer's lock, or raise LockedError at once."""
        return SimulatedLock(self, name)


class SimulatedLock:
    """The lock of a simulated disk; it knows whether a power cut was dealt with since."""

    def __init__(self, directory: SimulatedDirectory, name: str) -> None:
        self._recorder = recorder = directory.recorder
        self._path = directory.path
        self._is_held = False
        if recorder.is_locked:
            raise LockedError(
                f"{directory.path} is open for writing already; close it there, or open it here "
                "with read_only=True",
                pid=0,
                path=directory.path,
            )
        if name not in directory.names():
            directory.create(name)
        self.is_same_boot = recorder.is_same_boot
        recorder.is_locked = self._is_held = True

    def recovered(self) -> None:
        """Say that what a power cut may have left was dealt with."""
        self._recorder.record(Operation(RECOVERED, self._path, ROOT))

    def release(self) -> None:
        """Let the next writer in."""
        if self._is_held:
            self._is_held = self._recorder.is_locked = False

    def abandon(self) -> None:
        """Let the next writer in, as the end of a process does."""
        self.release()
