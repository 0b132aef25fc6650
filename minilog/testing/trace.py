"""What a simulated disk remembers: the operations that changed it, and images of what is on it.

An operation is a store into a file, a change of its size, a change of names in directories, or a
sync. A *node* is a file or directory by number; names refer to nodes, as on a real disk, so that
a file whose name is lost is lost with it. This module refuses to know which operations a crash
may take back (``crashes.py``), and how they are asked for (``disk.py``).
"""

from __future__ import annotations

from typing import NamedTuple

ROOT = 0
WRITE, RESERVE, TRIM, SYNC = "write", "reserve", "trim", "sync"
CREATE, MAKE, RENAME, UNLINK, REMOVE = "create", "make", "rename", "unlink", "remove"
SYNC_NAMES = "sync names of"
RECOVERED = "recovered in"


class Edit(NamedTuple):
    """One name in one directory that now refers to a node, or to nothing (None)."""

    directory: int
    name: str
    node: int | None


class Operation(NamedTuple):
    """One thing that was done to the disk.

    ``position`` is where a write begins, or the size that a file was given. A write ``grows`` the
    file when it reaches behind its end; one that does not is no reason for a file to be larger,
    so where the size it was made under is lost, so are its bytes. ``edits`` are the names an
    operation on directories changed, all or none of them.
    """

    kind: str
    path: str
    node: int
    position: int = 0
    data: bytes = b""
    edits: tuple[Edit, ...] = ()
    grows: bool = False

    @property
    def is_change(self) -> bool:
        """Whether it changes a byte, a size or a name; a sync does not."""
        return self.kind not in (SYNC, SYNC_NAMES, RECOVERED)

    @property
    def stop(self) -> int:
        """One past the last byte it stores, or the size it gives the file."""
        return self.position + len(self.data)

    def __str__(self) -> str:
        if self.kind is WRITE:
            return f"write {self.path} [{self.position}:{self.stop}]"
        if self.kind in (RESERVE, TRIM):
            return f"{self.kind} {self.path} to {self.position}"
        if self.kind is RENAME:
            return f"rename {self.path} to {self.edits[-1].name}"
        return f"{self.kind} {self.path}"


class Image:
    """What is on a disk: the bytes of files and the names in directories, by node."""

    __slots__ = ("directories", "files")

    def __init__(self) -> None:
        self.files: dict[int, bytes] = {}
        self.directories: dict[int, dict[str, int]] = {ROOT: {}}

    def copy(self) -> Image:
        """Return another that can be changed on its own; the bytes are shared."""
        other = Image()
        other.files = self.files.copy()
        other.directories = {node: names.copy() for node, names in self.directories.items()}
        return other

    def edit(self, edits: tuple[Edit, ...]) -> None:
        """Change names."""
        for directory, name, node in edits:
            names = self.directories.setdefault(directory, {})
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node

    def tree(self) -> tuple[tuple[str, bytes | None], ...]:
        """Return what can be reached by name: paths with bytes, or None for a directory."""
        found: list[tuple[str, bytes | None]] = []
        self._walk(ROOT, "", found)
        return tuple(found)

    def _walk(self, directory: int, path: str, found: list[tuple[str, bytes | None]]) -> None:
        names = self.directories[directory]
        for name in sorted(names):
            node = names[name]
            if node in self.directories:
                found.append((f"{path}{name}/", None))
                self._walk(node, f"{path}{name}/", found)
            else:
                found.append((f"{path}{name}", self.files[node]))


def store(content: bytearray, operation: Operation) -> None:
    """Do to a file's bytes what an operation on it did."""
    if operation.kind is WRITE:
        data = operation.data
        if operation.grows:
            grow(content, operation.position)
        elif operation.stop > len(content):
            data = data[: max(len(content) - operation.position, 0)]
            if not data:
                return
        content[operation.position : operation.position + len(data)] = data
    elif operation.kind is TRIM:
        del content[operation.position :]
    else:
        grow(content, operation.position)


def grow(content: bytearray, size: int) -> None:
    """Make a file's bytes at least so many."""
    if size > len(content):
        content += bytes(size - len(content))


class Recorder:
    """A disk's present contents, and every operation that brought it there.

    ``is_same_boot`` says whether the machine has run on since the last writer that had recovered,
    ``can_reserve`` whether files can have space allocated ahead.
    """

    def __init__(
        self, image: Image, pending: list[Operation], *, is_same_boot: bool, can_reserve: bool
    ) -> None:
        self.is_same_boot = is_same_boot
        self.can_reserve = can_reserve
        self.is_locked = False
        self.operations: list[Operation] = []
        self.directories = {node: names.copy() for node, names in image.directories.items()}
        self.files = {node: bytearray(content) for node, content in image.files.items()}
        self._last_node = max(ROOT, *self.directories, *self.files)
        for operation in pending:
            self.record(operation)
            self._last_node = max(self._last_node, operation.node)

    def record(self, operation: Operation) -> None:
        """Do an operation, and remember it."""
        self.operations.append(operation)
        kind = operation.kind
        if kind is WRITE or kind is RESERVE or kind is TRIM:
            store(self.files[operation.node], operation)
        elif kind is RECOVERED:
            self.is_same_boot = True
        elif operation.edits:
            if kind is MAKE:
                self.directories.setdefault(operation.node, {})
            elif kind is CREATE:
                self.files.setdefault(operation.node, bytearray())
            for directory, name, node in operation.edits:
                if node is None:
                    self.directories[directory].pop(name, None)
                else:
                    self.directories[directory][name] = node

    def next_node(self) -> int:
        """Return a number that no node has."""
        self._last_node += 1
        return self._last_node
