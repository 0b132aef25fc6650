"""A broker's directory: the files in it, what a crash left there, which topics it holds.

    minilog.lock    the one writer's lock; its pid and the machine's boot id
    broker.json     what makes the directory a log
    clean.json      where every log ended, from a clean close to the next write
    <topic>/        see ``topic.py``; ``~...`` and ``...~`` are half made or half deleted

This module refuses to know who has it open, and what is in a partition.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from minilog.clock import Clock
from minilog.errors import ConfigError, CorruptionError, InvalidTopicError, StorageError
from minilog.storage import CleanMark, Problem
from minilog.storage.files import UNFINISHED, Directory, disk_directory
from minilog.storage.format import FORMAT, decode_document, encode_document
from minilog.storage.memory import MemoryDirectory
from minilog.topic import TOPIC_FILE, TopicState, make_partitions, random_id

MEMORY = ":memory:"
LOCK_FILE = "minilog.lock"
BROKER_FILE = "broker.json"
CLEAN_FILE = "clean.json"
OURS = frozenset({LOCK_FILE, BROKER_FILE, CLEAN_FILE})
SET_ASIDE = "="  # ends the directory of a topic that is called like one of those
RESERVED_PREFIX = "__"
TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")

Marks = dict[str, CleanMark]


class Home:
    """A directory of topics, on a disk or in memory."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory

    @property
    def path(self) -> str:
        """Where it is, for messages."""
        return self.directory.path

    def exists(self) -> bool:
        """Say whether the directory is there."""
        return self.directory.exists()

    def make(self) -> None:
        """Make the directory, durably, unless it is a log already."""
        if not self.exists() or BROKER_FILE not in self.directory.names():
            self.directory.make()

    # ------------------------------------------------------------ broker.json

    def enter(self) -> None:
        """Make sure it is a log of this format, making an empty directory one, and remove what a
        crash left half made or half deleted; StorageError.

        One of an older format is from now on closed to the versions that only know that.
        """
        names = self.directory.names()
        content = self._check_names(names)
        if content is None or content["format"] != FORMAT:
            content = content or {"id": str(random_id())}
            self.directory.replace(BROKER_FILE, encode_document({**content, "format": FORMAT}))
            names = self.directory.names()
        self._remove_unfinished([n for n in names if UNFINISHED in (n[0], n[-1])])

    def refuse_strangers(self) -> None:
        """Raise StorageError where it is no log and holds other things; nothing is touched."""
        names = self.directory.names()
        if BROKER_FILE not in names or LOCK_FILE not in names:  # else ``enter`` is soon enough
            self._check_names(names)

    def _check_names(self, names: list[str]) -> dict[str, Any] | None:
        """Return what ``broker.json`` says, None where there is none and nothing of a stranger."""
        is_stranger = any(name not in OURS and not name.endswith(UNFINISHED) for name in names)
        return self.check() if BROKER_FILE in names or is_stranger else None

    def check(self) -> dict[str, Any]:
        """Return what ``broker.json`` says; StorageError unless it is a log that is read here."""
        try:
            data = self.directory.read(BROKER_FILE)
        except FileNotFoundError:
            names = self.directory.names()
            found = f"it holds {', '.join(names[:3])}" if names else "it is empty"
            raise StorageError(
                f"{self.path} is not a minilog directory: it has no {BROKER_FILE} ({found}). "
                "Give a directory that minilog made, or a new one"
            ) from None
        return decode_document(data, f"{self.path}/{BROKER_FILE}")

    def _remove_unfinished(self, names: list[str]) -> None:
        if names:
            self.directory.sync()  # a deletion is on the disk before anything of it is removed
        for name in names:
            child = self.directory.child(name)
            try:
                is_directory = child.exists()
            except StorageError:
                is_directory = False
            if is_directory:
                child.remove()
            else:
                self.directory.unlink(name)

    # ------------------------------------------------------------ clean.json

    def load_marks(self, problems: list[Problem]) -> Marks | None:
        """Return where every log ended when it was closed; None when it was not, or when that is
        unreadable, which is added to the problems."""
        path = f"{self.path}/{CLEAN_FILE}"
        try:
            content = decode_document(self.directory.read(CLEAN_FILE), path)
            return {key: CleanMark.of(mark) for key, mark in content["logs"].items()}
        except FileNotFoundError:
            return None
        except (CorruptionError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = getattr(error, "reason", str(error))
            problems.append(Problem(path, 0, None, f"{reason}; every log is read instead"))
            return None

    def save_marks(self, marks: Marks) -> None:
        """Note, durably, where every log ends: all of it is on the disk."""
        content = {"logs": {key: list(mark) for key, mark in marks.items()}}
        self.directory.replace(CLEAN_FILE, encode_document(content))

    def clear_marks(self) -> None:
        """Take that note away, durably, before anything changes."""
        with contextlib.suppress(FileNotFoundError):  # taken away before, but not durably
            self.directory.unlink(CLEAN_FILE)
        self.directory.sync()

    # ------------------------------------------------------------ topics

    def topics(self) -> Iterator[tuple[str, TopicState | StorageError]]:
        """Yield the topics by name, with what they are or why that cannot be told.

        Other things in the directory are left alone.
        """
        for directory_name in self.directory.names():
            if directory_name in OURS or UNFINISHED in (directory_name[0], directory_name[-1]):
                continue
            name = directory_name.removesuffix(SET_ASIDE)
            child = self.directory.child(directory_name)
            try:
                if not child.exists():
                    continue
                if child.stamp(TOPIC_FILE) or any(name.isdecimal() for name in child.names()):
                    state = TopicState.load(child)
                    if topic_directory(state.name) != directory_name:
                        raise CorruptionError(
                            f"it is that of topic {state.name!r}; restore its own from a copy",
                            path=f"{child.path}/{TOPIC_FILE}",
                        )
                    yield state.name, state
            except StorageError as error:
                if TOPIC_NAME.fullmatch(name) and not self._is_file(directory_name):
                    yield name, error

    def _is_file(self, name: str) -> bool:
        try:
            self.directory.open(name)
        except (OSError, StorageError):
            return False
        return True

    def topic_directory(self, name: str) -> Directory:
        """Return where a topic is kept."""
        return self.directory.child(topic_directory(name))

    def make_topic(self, state: TopicState, clock: Clock) -> None:
        """Make a topic's directory, durably; an error leaves nothing behind."""
        unfinished = state.id.hex + UNFINISHED
        child = self.directory.child(unfinished)
        is_in_sight = False
        try:
            child.make()
            make_partitions(child, state.id, range(state.partition_count), clock)
            state.save(child)
            self.directory.rename(unfinished, topic_directory(state.name))
            is_in_sight = True
            self.directory.sync()
        except BaseException:
            with contextlib.suppress(OSError):
                if is_in_sight:
                    self.directory.rename(topic_directory(state.name), unfinished)
                child.remove()
            raise

    def take_away(self, name: str) -> Directory:
        """Take a topic out of sight; the directory returned is then to be removed."""
        deleted = UNFINISHED + random_id().hex
        self.directory.rename(topic_directory(name), deleted)
        return self.directory.child(deleted)

    def remove_deleted(self, deleted: Directory) -> None:
        """Remove what was taken away, when it is durably out of sight."""
        self.directory.sync()
        deleted.remove()


def home_at(path: Any) -> Home:
    """Return the home that a broker's ``path`` means; ConfigError."""
    if isinstance(path, str) and path == MEMORY:
        return Home(MemoryDirectory())
    if hasattr(path, "root_directory"):  # a disk of one's own, as minilog.testing has
        return Home(path.root_directory())
    if not (isinstance(path, str) or hasattr(path, "__fspath__")):
        raise ConfigError(f'path is {path!r}; it must be a str, an os.PathLike or ":memory:"')
    if isinstance(path, str) and ("\0" in path or not path):
        raise ConfigError(f"path is {path!r}; it must name a directory")
    return Home(disk_directory(path))


def topic_directory(name: str) -> str:
    """Return the name of a topic's directory: its own, unless a file of ours is called so."""
    return name + SET_ASIDE if name.lower() in OURS else name


def check_topic_name(name: object) -> None:
    """Raise InvalidTopicError unless ``name`` may be a topic's."""
    if not isinstance(name, str):
        raise InvalidTopicError(f"topic name is {name!r}; it must be a str")
    if not TOPIC_NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidTopicError(
            f"topic name {name[:300]!r} is not allowed: 1 to 249 characters of a-z, A-Z, 0-9, "
            "'.', '_' and '-', and not '.' or '..'"
        )
    if name.startswith(RESERVED_PREFIX):
        raise InvalidTopicError(
            f"topic name {name!r} is not allowed: names that begin with __ are minilog's own"
        )
