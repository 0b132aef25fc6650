"""A disk whose process dies at a chosen operation: from then on every operation raises.

What was done before stays done, as after kill -9: the page cache outlives the process. It wraps
any directory of the storage's seam and counts what changes something; it refuses to know what is
written.
"""

from __future__ import annotations

from collections.abc import Sequence

from minilog.storage.files import Directory, File, Lock, Region


class Death(BaseException):
    """The process died here."""


class Fate:
    """Which operation is the last but one; None lives for ever."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.operations: list[str] = []
        self._dies_at = dies_at

    @property
    def is_dead(self) -> bool:
        """Whether the chosen operation was reached."""
        return self._dies_at is not None and len(self.operations) > self._dies_at

    def count(self, operation: str) -> None:
        """Note an operation, or die instead of doing it."""
        if self.is_dead:
            raise Death(operation)
        self.operations.append(operation)
        if self.is_dead:
            raise Death(operation)


class CutRegion:
    """A region whose stores are counted."""

    def __init__(self, region: Region, fate: Fate, path: str) -> None:
        self._region = region
        self._fate = fate
        self._path = path

    def __len__(self) -> int:
        return len(self._region)

    def __getitem__(self, where: slice) -> bytes:
        return self._region[where]

    def __setitem__(self, where: slice, data: bytes) -> None:
        self._fate.count(f"store {self._path}")
        self._region[where] = data

    def view(self, start: int, stop: int) -> bytes | memoryview:
        return self._region.view(start, stop)

    def words(self) -> Sequence[int]:
        return self._region.words()


class CutFile:
    """A file whose writes, reservations, trims and syncs are counted."""

    def __init__(self, file: File, fate: Fate) -> None:
        self.path = file.path
        self._file = file
        self._fate = fate

    def size(self) -> int:
        return self._file.size()

    def read(self, position: int, size: int) -> bytes:
        return self._file.read(position, size)

    def write(self, position: int, data: bytes) -> None:
        self._fate.count(f"write {self.path}")
        self._file.write(position, data)

    def reserve(self, size: int) -> None:
        self._fate.count(f"reserve {self.path}")
        self._file.reserve(size)

    def trim(self, size: int) -> None:
        self._fate.count(f"trim {self.path}")
        self._file.trim(size)

    def map(self, size: int) -> Region:
        return CutRegion(self._file.map(size), self._fate, self.path)

    def sync(self) -> None:
        self._fate.count(f"sync {self.path}")
        self._file.sync()

    def drop_cache(self) -> None:
        self._file.drop_cache()

    def close(self) -> None:
        self._file.close()


class CutDirectory:
    """A directory whose changes are counted; ``replace`` dies before or behind itself, as what is
    in between is one rename."""

    def __init__(self, directory: Directory, fate: Fate) -> None:
        self.path = directory.path
        self._directory = directory
        self._fate = fate

    def exists(self) -> bool:
        return self._directory.exists()

    def names(self) -> list[str]:
        return self._directory.names()

    def child(self, name: str) -> CutDirectory:
        return CutDirectory(self._directory.child(name), self._fate)

    def make(self) -> None:
        self._fate.count(f"make {self.path}")
        self._directory.make()

    def stamp(self, name: str) -> tuple[int, ...]:
        return self._directory.stamp(name)

    def open(self, name: str, *, writable: bool = False) -> File:
        return CutFile(self._directory.open(name, writable=writable), self._fate)

    def create(self, name: str) -> File:
        self._fate.count(f"create {self.path}/{name}")
        return CutFile(self._directory.create(name), self._fate)

    def read(self, name: str) -> bytes:
        return self._directory.read(name)

    def replace(self, name: str, data: bytes) -> None:
        self._fate.count(f"write what replaces {self.path}/{name}")
        self._directory.create(name + "~half").close()
        self._directory.rename(name + "~half", name + "~")
        self._fate.count(f"replace {self.path}/{name}")
        self._directory.replace(name, data)

    def rename(self, old: str, new: str) -> None:
        self._fate.count(f"rename {self.path}/{old}")
        self._directory.rename(old, new)

    def unlink(self, name: str) -> None:
        self._fate.count(f"unlink {self.path}/{name}")
        self._directory.unlink(name)

    def remove(self) -> None:
        self._fate.count(f"remove {self.path}")
        self._directory.remove()

    def sync(self) -> None:
        self._fate.count(f"sync {self.path}")
        self._directory.sync()

    def lock(self, name: str) -> Lock:
        return self._directory.lock(name)
