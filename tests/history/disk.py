"""A disk in memory on which an actor may be interrupted at every operation.

It refuses to know who schedules, and why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minilog.storage.files import FileRegion, Region
from minilog.storage.memory import MemoryDirectory

Point = Callable[[], None]


class SteppedDisk:
    """What a broker takes in place of a path."""

    def __init__(self, point: Point) -> None:
        self._root = SteppedDirectory(MemoryDirectory("stepped"), point)

    def root_directory(self) -> Any:
        """Return the directory that the broker is in."""
        return self._root


class Stepped:
    """Does what another does, once whoever runs may have been interrupted."""

    def __init__(self, inner: Any, point: Point) -> None:
        self._inner = inner
        self._point = point

    def __getattr__(self, name: str) -> Any:
        self._point()
        return getattr(self._inner, name)


class SteppedDirectory(Stepped):
    """A directory of such files."""

    def child(self, name: str) -> SteppedDirectory:
        """Return the directory of that name below this one."""
        return SteppedDirectory(self._inner.child(name), self._point)

    def open(self, name: str, *, writable: bool = False) -> SteppedFile:
        """Open the file `name`."""
        self._point()
        return SteppedFile(self._inner.open(name, writable=writable), self._point)

    def create(self, name: str) -> SteppedFile:
        """Make the file `name`."""
        self._point()
        return SteppedFile(self._inner.create(name), self._point)


class SteppedFile(Stepped):
    """A file whose map is read and written by operations of its own."""

    def map(self, size: int) -> Region:
        """Return a window on the file, of that size; 0 is the size it has."""
        self._point()
        return FileRegion(self, size or self._inner.size())  # type: ignore[arg-type]
