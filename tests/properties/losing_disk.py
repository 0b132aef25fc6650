"""A real directory that notes what was synced, fails or dies when told, and loses the rest.

What was synced of a file, and which names, is kept aside; a power cut then leaves any mixture, in
blocks of 512 bytes, of that and of what the files hold now. It refuses to know what the files
mean. Directories are taken to be durable as soon as they are made.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from minilog.storage.files import Directory, DiskDirectory, File
from tests.crash.cutting import CutDirectory, CutFile, Death, Fate
from tests.crash.images import Image, image_of

BLOCK = 512


class Trouble(Fate):
    """Makes one operation, or all from one on, fail or die when it is armed."""

    def __init__(self) -> None:
        super().__init__()
        self._is_armed = False
        self._left = 0
        self._error: int | None = None
        self._is_for_ever = False

    def arm(self, operations: int, error: int | None, *, for_ever: bool = False) -> None:
        """Have the operation after so many fail with an errno, or die where that is None."""
        self.operations.clear()
        self._left, self._error = operations, error
        self._is_for_ever = for_ever or error is None
        self._is_armed = True

    def disarm(self) -> None:
        """Let everything work again."""
        self._is_armed = False

    def count(self, operation: str) -> None:
        """Note an operation; fail or die when it is the one."""
        if not self._is_armed or (operation.startswith("store ") and self._error is not None):
            return  # a store into reserved space does not fail
        self.operations.append(operation)
        number = len(self.operations) - 1
        if number < self._left or (number > self._left and not self._is_for_ever):
            return
        if self._error is None:
            raise Death(operation)
        raise OSError(self._error, os.strerror(self._error), operation)


class LosingDisk:
    """A directory as a broker takes one in place of a path."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trouble = Trouble()
        self._content: Image = {}
        self._names: set[str] = set()
        if root.exists():
            self._content = image_of(root)
            self._names = set(self._content)

    def root_directory(self) -> Directory:
        """Return the directory itself."""
        return LosingDirectory(DiskDirectory(str(self.root)), self)

    # ------------------------------------------------------------ what is synced

    def _name(self, path: str) -> str:
        return str(Path(path).relative_to(self.root))

    def file_synced(self, path: str) -> None:
        """Note that a file's bytes are on the disk."""
        if Path(path).exists():
            self._content[self._name(path)] = Path(path).read_bytes()

    def names_synced(self, path: str) -> None:
        """Note that the names in a directory are on the disk."""
        folder = Path(path)
        here = {name for name in self._names if (self.root / name).parent == folder}
        self._names -= here
        self._names |= {self._name(str(each)) for each in folder.iterdir() if each.is_file()}
        for name in here - self._names:
            self._content.pop(name, None)

    def renamed(self, old: str, new: str) -> None:
        """Note a rename: what was known of the one is known of the other."""
        before, after = self._name(old), self._name(new)
        for name in [*self._content, *self._names]:
            if name != before and not name.startswith(before + "/"):
                continue
            moved = after + name[len(before) :]
            if name in self._content:
                self._content[moved] = self._content.pop(name)
            if name in self._names:
                self._names.remove(name)
                self._names.add(moved)

    def removed(self, path: str) -> None:
        """Note that a directory is gone, with all in it."""
        below = self._name(path) + "/"
        self._names = {name for name in self._names if not name.startswith(below)}
        for name in [name for name in self._content if name.startswith(below)]:
            del self._content[name]

    def replaced(self, path: str, data: bytes) -> None:
        """Note that a file was replaced, durably."""
        self._content[self._name(path)] = data
        self._names.add(self._name(path))

    # ------------------------------------------------------------ what is left

    def after_power_cut(self, chance: random.Random) -> Image:
        """Return the files as a power cut may leave them."""
        now = image_of(self.root)
        lossy = chance.random()
        left: Image = {}
        for name in sorted({*now, *self._names}):
            synced = self._content.get(name, b"")
            if name not in self._names and chance.random() < lossy:
                continue  # its name was not synced
            if name not in now and chance.random() < 0.5:
                continue  # it was unlinked, and that got through
            left[name] = mixed(synced, now.get(name, synced), chance)
        return left


def mixed(synced: bytes, now: bytes, chance: random.Random) -> bytes:
    """Return bytes that may be found of a file: every block is the old or the new one."""
    if synced == now:
        return now
    size = chance.choice([len(synced), len(now), len(now)])
    longest = max(len(synced), len(now))
    old, new = synced.ljust(longest, b"\0"), now.ljust(longest, b"\0")
    share = chance.choice([0, 0.1, 0.5, 0.9, 1])
    blocks = [
        (new if chance.random() < share else old)[start : start + BLOCK]
        for start in range(0, longest, BLOCK)
    ]
    return b"".join(blocks)[:size]


class LosingFile(CutFile):
    """A file whose syncs are noted."""

    def __init__(self, file: File, disk: LosingDisk) -> None:
        super().__init__(file, disk.trouble)
        self._disk = disk

    def sync(self) -> None:
        super().sync()
        self._disk.file_synced(self.path)


class LosingDirectory(CutDirectory):
    """A directory whose syncs and renames are noted."""

    def __init__(self, directory: Directory, disk: LosingDisk) -> None:
        super().__init__(directory, disk.trouble)
        self._disk = disk

    def child(self, name: str) -> LosingDirectory:
        return LosingDirectory(self._directory.child(name), self._disk)

    def open(self, name: str, *, writable: bool = False) -> File:
        return LosingFile(self._directory.open(name, writable=writable), self._disk)

    def create(self, name: str) -> File:
        self._fate.count(f"create {self.path}/{name}")
        return LosingFile(self._directory.create(name), self._disk)

    def replace(self, name: str, data: bytes) -> None:
        super().replace(name, data)
        self._disk.replaced(f"{self.path}/{name}", data)

    def rename(self, old: str, new: str) -> None:
        super().rename(old, new)
        self._disk.renamed(f"{self.path}/{old}", f"{self.path}/{new}")

    def remove(self) -> None:
        super().remove()
        self._disk.removed(self.path)

    def sync(self) -> None:
        super().sync()
        self._disk.names_synced(self.path)
