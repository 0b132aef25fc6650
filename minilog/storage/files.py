"""Directories and files on a disk: the only importer of os, mmap and fcntl in the package.

It is one side of the seam (``seam.py``), and who stands on it finds all of that here.

Rules of the house kept here: a store goes through a map only into space that was reserved (a
full disk would kill the process by SIGBUS otherwise); where a file system cannot reserve, the
region reads and writes through the descriptor instead. Syncs are fdatasync, never mmap.flush
(which holds the GIL). Files are 0600, directories 0700, symbolic links are not followed. Locks
are flock, and the lock file is never unlinked.

This module refuses to know what is in a file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Sequence
from functools import cache
from io import FileIO

from minilog.errors import LockedError, StorageError
from minilog.storage.regions import FileRegion, MapLimit, RegionWords
from minilog.storage.seam import (
    UNFINISHED,
    ZEROS,
    Directory,
    Disk,
    File,
    Lock,
    Region,
    replace_by_rename,
)

__all__ = [
    "PAGE",
    "UNFINISHED",
    "ZEROS",
    "Directory",
    "Disk",
    "DiskDirectory",
    "DiskFile",
    "File",
    "FileRegion",
    "Lock",
    "MapLimit",
    "MappedRegion",
    "PathLike",
    "Region",
    "RegionWords",
    "call_in_forked_child",
    "disk_directory",
    "map_limit",
    "out_of_descriptors",
    "replace_by_rename",
]

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)
FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone leaves the drive's cache


PathLike = str | os.PathLike[str]


# ---------------------------------------------------------------- regions


PAGE = mmap.PAGESIZE


class MappedRegion(mmap.mmap):
    """A file mapped into memory; slicing and storing are mmap's own, in C."""

    def view(self, start: int, stop: int) -> memoryview:
        """Return bytes to look at once, uncopied; whoever keeps them keeps the map."""
        return memoryview(self)[start:stop]

    def words(self) -> Sequence[int]:
        """Return the bytes as little-endian 64-bit numbers, without copying where possible."""
        return native_words(self)


def native_words(region: mmap.mmap) -> Sequence[int]:
    """Return a mapped region as 64-bit numbers; a view where the machine is little-endian."""
    import sys

    if sys.byteorder == "little":
        return memoryview(region)[: len(region) // 8 * 8].cast("Q")
    return RegionWords(region)  # type: ignore[arg-type]


def map_limit() -> int:
    """Return how many segments may be mapped at once under this process's descriptor limit.

    An active segment holds up to four descriptors, so an eighth leaves half for the application.
    No more than 256, so that a thousand partitions need fewer than a thousand of them.
    """
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(4, min(256, soft // 8))


def out_of_descriptors(error: OSError) -> bool:
    """Say whether an error means that too many files are open."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


# ---------------------------------------------------------------- on disk


class DiskFile:
    """A file on a disk; one that nobody refers to any more closes itself."""

    _fd = -1
    _close = staticmethod(os.close)  # kept: at interpreter exit the module may be gone first

    def __init__(self, path: str, flags: int) -> None:
        self.path = path
        self._writable = bool(flags & os.O_RDWR)
        self._can_reserve = hasattr(os, "posix_fallocate")
        self._fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            self.close()
            raise StorageError(f"{path} is not a regular file")

    def size(self) -> int:
        """Return the size, reserve included."""
        return os.fstat(self._fd).st_size

    def read(self, position: int, size: int) -> bytes:
        """Return up to ``size`` bytes; fewer only at the end of the file."""
        data = os.pread(self._fd, size, position)
        if len(data) == size or not data:
            return data
        pieces = [data]  # a short read is legal, if rare
        while data:
            position += len(data)
            size -= len(data)
            data = os.pread(self._fd, size, position)
            pieces.append(data)
        return b"".join(pieces)

    def write(self, position: int, data: bytes) -> None:
        """Write all of ``data``; a short write is carried on, its error raised."""
        written = os.pwrite(self._fd, data, position)
        if written == len(data):
            return
        rest = memoryview(data)
        while written < len(rest):
            rest = rest[written:]
            position += written
            written = os.pwrite(self._fd, rest, position)

    def reserve(self, size: int) -> None:
        """Make the file ``size`` bytes of allocated zeros; only ever larger.

        OSError when there is no room, and then the file is as it was.
        """
        before = self.size()
        if size <= before:
            return
        if self._can_reserve:
            try:
                os.posix_fallocate(self._fd, before, size - before)
                return
            except OSError as error:
                # ext4 leaves what it could allocate behind; nothing mapped that part yet.
                os.ftruncate(self._fd, before)
                if error.errno not in NOT_SUPPORTED:
                    raise
                self._can_reserve = False

    def trim(self, size: int) -> None:
        """Cut the file to ``size``: only reserve that no reader of another process maps."""
        if self.size() > size:
            os.ftruncate(self._fd, size)

    def map(self, size: int) -> Region:
        """Return the first ``size`` bytes as a region, through the map where that is safe.

        0 is all there is at this moment, for one who only reads while another may trim.
        """
        if self._writable and not self._can_reserve:
            return FileRegion(self, size or self.size())
        access = mmap.ACCESS_DEFAULT if self._writable else mmap.ACCESS_READ
        try:
            return MappedRegion(self._fd, size, access=access)
        except ValueError:  # an empty file cannot be mapped
            if self.size():
                raise
            return FileRegion(self, 0)

    def sync(self) -> None:
        """Return when data and size are on the disk; OSError when they may not be."""
        if FULL_SYNC is not None:
            fcntl.fcntl(self._fd, FULL_SYNC)
        else:
            os.fdatasync(self._fd)

    def drop_cache(self) -> None:
        """Ask the kernel to forget its clean pages, so that the next read asks the device."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the descriptor; maps made from it live on."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._close(fd)

    def __del__(self) -> None:
        self.close()


class DiskDirectory:
    """A directory on a disk."""

    def __init__(self, path: str, *, is_top: bool = False) -> None:
        self.path = path
        self._is_top = is_top

    def _join(self, name: str) -> str:
        return f"{self.path}/{name}"

    def exists(self) -> bool:
        """Say whether the directory is there; StorageError when something else is."""
        try:
            mode = os.lstat(self.path).st_mode
        except FileNotFoundError:
            return False
        if stat.S_ISLNK(mode):
            raise StorageError(f"{self.path} is a symbolic link; minilog does not follow them")
        if not stat.S_ISDIR(mode):
            raise StorageError(f"{self.path} is not a directory")
        return True

    def names(self) -> list[str]:
        """Return the names in it, sorted; none when it is not there."""
        try:
            return sorted(os.listdir(self.path))
        except FileNotFoundError:
            return []

    def child(self, name: str) -> DiskDirectory:
        """Return the directory of that name below this one, whether it is there or not."""
        return DiskDirectory(self._join(name))

    def make(self) -> None:
        """Make the directory and those above it that are missing.

        Of one above which nobody syncs, all these names are on the disk then.
        """
        if not self._is_top:
            os.makedirs(self.path, mode=DIRECTORY_MODE, exist_ok=True)
            return
        missing = []
        path = self.path
        while not os.path.isdir(path) and path != os.path.dirname(path):
            missing.append(path)
            path = os.path.dirname(path)
        # The lowest one that is there may have been made by a process that was killed here.
        sync_names(os.path.dirname(path))
        for path in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, DIRECTORY_MODE)
            sync_names(os.path.dirname(path))

    def stamp(self, name: str) -> tuple[int, ...]:
        """Return what changes when the file ``name`` is replaced; empty when it is not there."""
        try:
            status = os.stat(self._join(name), follow_symlinks=False)
        except FileNotFoundError:
            return ()
        return status.st_ino, status.st_mtime_ns, status.st_size

    def open(self, name: str, *, writable: bool = False) -> File:
        """Open the file ``name``."""
        path = self._join(name)
        try:
            return DiskFile(path, os.O_RDWR if writable else os.O_RDONLY)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise StorageError(f"{path} is a symbolic link; minilog does not follow them") from None

    def create(self, name: str) -> File:
        """Make the file ``name``, which must not be there."""
        return DiskFile(self._join(name), os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def read(self, name: str) -> bytes:
        """Return the whole of a small file."""
        file = self.open(name)
        try:
            return file.read(0, file.size())
        finally:
            file.close()

    def replace(self, name: str, data: bytes) -> None:
        """Make ``name`` hold ``data``, durably: it has the old or the new bytes at any moment."""
        replace_by_rename(self, name, data)

    def rename(self, old: str, new: str) -> None:
        """Rename ``old`` to ``new``, which may lie in a directory below this one."""
        os.rename(self._join(old), self._join(new))

    def unlink(self, name: str) -> None:
        """Remove the file ``name``; whoever maps it keeps its bytes."""
        os.unlink(self._join(name))

    def remove(self) -> None:
        """Remove the directory and all below it; nothing happens when it is not there."""
        for root, directories, files in os.walk(self.path, topdown=False):
            for name in files:
                os.unlink(os.path.join(root, name))
            for name in directories:
                path = os.path.join(root, name)
                if os.path.islink(path):
                    os.unlink(path)
                else:
                    os.rmdir(path)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.path)

    def sync(self) -> None:
        """Return when the names in this directory are on the disk."""
        sync_names(self.path)

    def lock(self, name: str) -> Lock:
        """Take the directory's one writer's lock, or raise LockedError at once."""
        return DiskLock(self, name)


def sync_names(path: str) -> None:
    """Return when the names in a directory are on the disk."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # one that may be written, not listed: all disks, then
        os.sync()
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


PID_DIGITS = 10


class DiskLock:
    """An flock on a file that holds its owner's pid and the boot id under which all was recovered.

    flock, not lockf: lockf grants a second lock to the same process and drops it on any close.
    The descriptor is a file object's, which closes it once, in C: an interrupt cannot come between
    closing it and forgetting its number.
    """

    _file: FileIO | None = None

    def __init__(self, directory: DiskDirectory, name: str) -> None:
        path = os.path.join(directory.path, name)
        self._file = FileIO(path, "r+", opener=_open_lock)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, _ = self._owner()
            self.abandon()
            holder = f"process {pid}" if pid else "another process"
            raise LockedError(
                f"{directory.path} is open for writing in {holder}"
                f"{' (this one)' if pid == os.getpid() else ''}; close it there, "
                "or open it here with read_only=True",
                pid=pid,
                path=directory.path,
            ) from None
        except BaseException:
            self.abandon()
            raise
        boot = boot_id()
        _, previous_boot = self._owner()
        self.is_same_boot = bool(boot) and boot == previous_boot
        try:
            # Until all is recovered the boot stays the previous one: whoever comes after a
            # recovery that was cut short has to look as closely.
            self._note(previous_boot)
        except BaseException:
            self.abandon()
            raise

    def recovered(self) -> None:
        """Note that nothing is left of what an earlier running of the machine may have cost."""
        if not self.is_same_boot:
            self._note(boot_id())

    def _note(self, boot: str) -> None:
        assert self._file is not None
        fd = self._file.fileno()
        text = f"{os.getpid():<{PID_DIGITS}} {boot}\n".encode()
        os.pwrite(fd, text, 0)
        if os.fstat(fd).st_size > len(text):  # hardly ever: it takes 0.15 ms, a quarter of opening
            os.ftruncate(fd, len(text))

    def _owner(self) -> tuple[int, str]:
        assert self._file is not None
        words = os.pread(self._file.fileno(), 200, 0).decode("ascii", "replace").split()
        pid = int(words[0]) if words and words[0].isdecimal() else 0
        return pid, words[1] if len(words) > 1 else ""

    def release(self) -> None:
        """Let the next writer in."""
        file = self._file
        if file is not None and not file.closed:
            fcntl.flock(file, fcntl.LOCK_UN)
            file.close()

    def abandon(self) -> None:
        """Close the descriptor without unlocking: in a forked child the parent's lock stays."""
        if self._file is not None:
            self._file.close()

    def __del__(self) -> None:
        self.abandon()


def _open_lock(path: str, _: int) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)


def boot_id() -> str:
    """Return what names this running of the machine: the page cache lives as long. Or ``""``."""
    try:
        return _read_boot_id()
    except OSError:
        return ""


@cache  # a process runs in one boot; not kept where it fails
def _read_boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def disk_directory(path: PathLike) -> DiskDirectory:
    """Return the directory at ``path``, which may itself be reached through a symbolic link."""
    return DiskDirectory(os.path.realpath(os.fspath(path)), is_top=True)


def call_in_forked_child(callback: object) -> None:
    """Have ``callback()`` called in every child of fork from now on."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=callback)  # type: ignore[arg-type]
