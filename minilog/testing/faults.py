"""A disk that fails: wraps any disk and makes a chosen operation raise, once or from then on.

    disk = FaultyDisk(tmp_path / "log")              # a path, ":memory:" or a disk of one's own
    with Broker(disk) as broker:
        topic = broker.create_topic("orders")
        disk.arm(FaultPlan("ENOSPC", at=3, lasts=True))  # the fourth operation from now, and on
        ...                                              # what your program does about it
        disk.mend()                                      # the cause is gone

Every operation a log asks of its disk is counted, in the order it comes: ``disk.operations``
names them. To fail each in turn, raise ``at`` from 0 until ``disk.fault_count`` stays 0.

What a fault does: the named error (``EIO``, ``ENOSPC``, ``EDQUOT``, ``EMFILE``, ``ENOMEM``,
``EINTR``) is raised and the operation is not done. ``"short write"`` does the first half of a
write (of a directory to be removed, the first entry) and raises ENOSPC. ``"write then error"``
does all of it and raises EIO.

A store through a map cannot fail, as on a real disk; ``maps=False`` has everything go by read and
write, as where a file system cannot reserve space. Letting go of a lock never fails.

This module refuses to know what is in a file, and what its user makes of an error.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from minilog.errors import ConfigError
from minilog.storage.files import (
    Directory,
    Disk,
    File,
    FileRegion,
    Lock,
    PathLike,
    Region,
    disk_directory,
    replace_by_rename,
)
from minilog.storage.memory import MemoryDirectory

Result = TypeVar("Result")

SHORT_WRITE = "short write"
WRITE_THEN_ERROR = "write then error"
FAULTS = {
    "EIO": errno.EIO,
    "ENOSPC": errno.ENOSPC,
    "EDQUOT": errno.EDQUOT,
    "EMFILE": errno.EMFILE,
    "ENOMEM": errno.ENOMEM,
    "EINTR": errno.EINTR,
    SHORT_WRITE: errno.ENOSPC,
    WRITE_THEN_ERROR: errno.EIO,
}

#: The operations that change something; a full disk fails these and no others.
CHANGES = frozenset(
    {"make", "create", "write", "reserve", "trim", "rename", "unlink", "remove", "sync", "lock"}
)
#: The operations that only look.
LOOKS = frozenset({"exists", "names", "stamp", "open", "size", "read", "map", "drop_cache"})
OPERATIONS = CHANGES | LOOKS | {"close"}


class FaultPlan(NamedTuple):
    """Which operation fails, and how.

    ``fault`` is one of ``FAULTS``; ``at`` counts from 0 among the ``operations`` named (all, when
    None); with ``lasts`` every later one of those fails too, until the disk is mended.
    """

    fault: str = "EIO"
    at: int = 0
    lasts: bool = False
    operations: frozenset[str] | None = None

    def check(self) -> None:
        """Raise ConfigError unless there are such faults and operations."""
        if self.fault not in FAULTS:
            raise ConfigError(f"fault is {self.fault!r}; it must be one of {', '.join(FAULTS)}")
        unknown = (self.operations or frozenset()) - OPERATIONS
        if unknown:
            raise ConfigError(
                f"operations has {', '.join(sorted(unknown))}; "
                f"known are {', '.join(sorted(OPERATIONS))}"
            )


class FaultyDisk:
    """A disk whose operations are counted and made to fail as planned.

    ``path_or_disk`` is a directory, ``":memory:"`` (kept as long as this object, so that a broker
    can be opened on it again), or anything with ``root_directory()``.
    """

    def __init__(
        self, path_or_disk: PathLike | Disk, plan: FaultPlan | None = None, *, maps: bool = True
    ) -> None:
        self._root = _root_of(path_or_disk)
        self._guard = threading.Lock()
        self.maps = maps
        self.operations: list[str] = []
        self.fault_count = 0
        self._plan: FaultPlan | None = None
        self._seen = 0
        if plan is not None:
            self.arm(plan)

    def root_directory(self) -> Directory:
        """Return what a broker takes: the directory it is to live in."""
        return FaultyDirectory(self._root, self)

    def arm(self, plan: FaultPlan) -> None:
        """Have this plan from now on, counting operations and faults from 0."""
        plan.check()
        with self._guard:
            self._plan, self._seen, self.fault_count = plan, 0, 0
            self.operations = []

    def mend(self) -> None:
        """Let every operation succeed again; what was counted stays."""
        self._plan = None

    def run(
        self,
        kind: str,
        path: str,
        act: Callable[[], Result],
        part: Callable[[], object] | None = None,
    ) -> Result:
        """Do an operation, or fail as planned; ``part`` does half of one that has halves."""
        fault = self._count(kind, path)
        if fault is None:
            return act()
        if fault == WRITE_THEN_ERROR:
            act()
        elif fault == SHORT_WRITE and part is not None:
            part()
        raise OSError(FAULTS[fault], f"planned fault ({fault}) of {kind}", path)

    def _count(self, kind: str, path: str) -> str | None:
        """Note an operation; return the fault it meets."""
        with self._guard:
            self.operations.append(f"{kind} {path}")
            plan = self._plan
            if plan is None or not (plan.operations is None or kind in plan.operations):
                return None
            number, self._seen = self._seen, self._seen + 1
            if number != plan.at and not (plan.lasts and number > plan.at):
                return None
            self.fault_count += 1
            return plan.fault


def _root_of(path_or_disk: Any) -> Directory:
    if hasattr(path_or_disk, "root_directory"):
        root: Directory = path_or_disk.root_directory()
        return root
    if isinstance(path_or_disk, str) and path_or_disk == ":memory:":
        return MemoryDirectory()
    return disk_directory(path_or_disk)


class FaultyFile:
    """A file of such a disk."""

    def __init__(self, file: File, disk: FaultyDisk) -> None:
        self.path = file.path
        self._file = file
        self._disk = disk

    def size(self) -> int:
        """Return the size, reserve included."""
        return self._disk.run("size", self.path, self._file.size)

    def read(self, position: int, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        return self._disk.run("read", self.path, lambda: self._file.read(position, size))

    def write(self, position: int, data: bytes) -> None:
        """Write all of ``data``, or as much as is planned."""
        self._disk.run(
            "write",
            self.path,
            lambda: self._file.write(position, data),
            lambda: self._file.write(position, data[: len(data) // 2]),
        )

    def reserve(self, size: int) -> None:
        """Make the file ``size`` bytes, all of it or nothing."""
        self._disk.run("reserve", self.path, lambda: self._file.reserve(size))

    def trim(self, size: int) -> None:
        """Cut the file to ``size``."""
        self._disk.run("trim", self.path, lambda: self._file.trim(size))

    def map(self, size: int) -> Region:
        """Return the file's bytes: as the disk maps them, or through ``read`` and ``write``."""
        region = self._disk.run("map", self.path, lambda: self._file.map(size))
        if self._disk.maps and not isinstance(region, FileRegion):
            return region
        return FileRegion(self, size or self._file.size())

    def sync(self) -> None:
        """Return when data and size are on the disk."""
        self._disk.run("sync", self.path, self._file.sync)

    def drop_cache(self) -> None:
        """Ask for the next read to come from the device."""
        self._disk.run("drop_cache", self.path, self._file.drop_cache)

    def close(self) -> None:
        """Close it: also where that raises, as a network's file system may."""
        self._file.close()
        self._disk.run("close", self.path, lambda: None)


class FaultyDirectory:
    """A directory of such a disk."""

    def __init__(self, directory: Directory, disk: FaultyDisk) -> None:
        self.path = directory.path
        self._directory = directory
        self._disk = disk

    def _run(self, kind: str, name: str, act: Callable[[], Result]) -> Result:
        return self._disk.run(kind, f"{self.path}/{name}" if name else self.path, act)

    def exists(self) -> bool:
        """Say whether the directory is there."""
        return self._run("exists", "", self._directory.exists)

    def names(self) -> list[str]:
        """Return the names in it, sorted."""
        return self._run("names", "", self._directory.names)

    def child(self, name: str) -> FaultyDirectory:
        """Return the directory of that name below this one."""
        return FaultyDirectory(self._directory.child(name), self._disk)

    def make(self) -> None:
        """Make the directory."""
        self._run("make", "", self._directory.make)

    def stamp(self, name: str) -> tuple[int, ...]:
        """Return what changes when the file ``name`` is replaced."""
        return self._run("stamp", name, lambda: self._directory.stamp(name))

    def open(self, name: str, *, writable: bool = False) -> File:
        """Open the file ``name``."""
        file = self._run("open", name, lambda: self._directory.open(name, writable=writable))
        return FaultyFile(file, self._disk)

    def create(self, name: str) -> File:
        """Make the file ``name``, which must not be there."""
        return FaultyFile(
            self._run("create", name, lambda: self._directory.create(name)), self._disk
        )

    def read(self, name: str) -> bytes:
        """Return the whole of a small file."""
        return self._run("read", name, lambda: self._directory.read(name))

    def replace(self, name: str, data: bytes) -> None:
        """Make ``name`` hold ``data`` in the steps a disk takes, each of which may fail."""
        replace_by_rename(self, name, data)

    def rename(self, old: str, new: str) -> None:
        """Rename ``old`` to ``new``."""
        self._run("rename", old, lambda: self._directory.rename(old, new))

    def unlink(self, name: str) -> None:
        """Remove the file ``name``."""
        self._run("unlink", name, lambda: self._directory.unlink(name))

    def remove(self) -> None:
        """Remove the directory and all below it."""
        self._disk.run("remove", self.path, self._directory.remove, self._remove_first)

    def _remove_first(self) -> None:
        for name in self._directory.names()[:1]:
            child = self._directory.child(name)
            if child.exists():
                child.remove()
            else:
                self._directory.unlink(name)

    def sync(self) -> None:
        """Return when the names in this directory are on the disk."""
        self._run("sync", "", self._directory.sync)

    def lock(self, name: str) -> Lock:
        """Take the directory's one writer's lock; it is let go without fail."""
        return self._run("lock", name, lambda: self._directory.lock(name))
