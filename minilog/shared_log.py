"""A Log made safe for threads: its lock, its visible end, shared syncs and wake-ups.

Writers take the lock, readers do not. What readers see is the *end*: with ``sync="always"`` it
moves when the records are on the disk, else as soon as they are stored. Whoever waits for it to
move leaves a lock to be released; an appender looks there only when somebody waits.

It may be *refused* (closed, deleted, forked: nothing goes any more) or have *failed* (a sync did:
nothing may be written until it is reopened). This module refuses to know records and arguments.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

from minilog.clock import Clock, Deadline, Waiters, nanoseconds_of
from minilog.config import MIB, TopicConfig
from minilog.errors import (
    CorruptionError,
    ReadOnlyError,
    StorageError,
    SyncFailedError,
)
from minilog.group_sync import GroupSync
from minilog.storage import SNAPSHOT_FILE, CleanMark, End, Log, Sequences
from minilog.storage.files import Directory
from minilog.waiting import wait_for_news

if TYPE_CHECKING:
    from uuid import UUID


EVERYTHING = 2**63
NEVER = object()
LOOKS = 3  # how often files are looked at anew before what is missing is said to be

Found = TypeVar("Found")


class Host(Protocol):
    """What a partition needs of the topic and broker it belongs to."""

    @property
    def id(self) -> UUID: ...
    @property
    def name(self) -> str: ...
    @property
    def config(self) -> TopicConfig: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def is_read_only(self) -> bool: ...
    @property
    def is_sync_always(self) -> bool: ...
    def open_log(self, partition: int) -> Log: ...
    def partition_directory(self, partition: int) -> Directory: ...
    def before_write(self) -> None: ...
    def refresh(self) -> None: ...
    def start_offset(self, partition: int) -> int: ...
    def raise_start_offset(self, partition: int, offset: int) -> None: ...
    def stable_offset(self, partition: int, end_offset: int) -> int: ...
    def hides(self, transaction: int) -> bool: ...
    def is_aborted(self, transaction: int) -> bool: ...
    @property
    def has_transactions(self) -> bool: ...
    def flush_all(self) -> None: ...
    def committed_floor(self, partition: int) -> int | None: ...
    def note(self, error: Exception) -> None: ...


class SharedLog(Waiters):
    """One partition's log, opened when it is first used, for any number of threads."""

    def __init__(self, host: Host, index: int) -> None:
        super().__init__()
        self._host = host
        self._name = host.name
        self._index = index
        self._log: Log | None = None
        self._start = host.start_offset(index)
        self._is_read_only = host.is_read_only
        self._published: End | None = None  # the end that readers see, with sync="always"
        self._refusal: Callable[[], Exception] | None = None  # closed, forked or deleted
        self._has_hidden = False  # with sync="always": records that nobody has synced yet
        self._failure: BaseException | None = None  # of a sync: nothing may be written any more
        self._has_written = False
        self.is_plain = False  # the short path of append will do
        self._is_sync_always = host.is_sync_always
        self._now_ms = host.clock.now_ms
        self._now_ns = nanoseconds_of(host.clock)
        self._sequences: Sequences | None = None  # of named producers, once one has come
        self.no_key: object = None  # what stands for no key, where a record needs none
        self._make_locks()

    def _make_locks(self) -> None:
        self._lock = threading.Lock()
        self._cleaning = threading.Lock()  # one at a time rewrites; taken before the other
        self._group_sync = GroupSync()

    # ------------------------------------------------------------ waiting

    def _wait_beyond(self, offset: int, deadline: Deadline) -> None:
        """Return when there may be records at ``offset``, or the time is over."""

        def has_news() -> bool:
            return self._refusal is not None or self._end(self._opened()).next_offset > offset

        wait_for_news([self], has_news, deadline, must_look=self._is_read_only)

    # ------------------------------------------------------------ durability

    def flush(self) -> None:
        """Return when everything appended so far is on the disk."""
        log = self._log
        if log is None or self._is_read_only:
            return
        # A sync that was interrupted may have ended without its records being published.
        is_hidden = self._is_sync_always and self._published != log.end()
        if log.is_dirty() or is_hidden:
            self._sync_until(EVERYTHING)

    def announce(self) -> None:
        """Wake who waits for records: some that were hidden are so no more."""
        self._wake()

    def wait_until_kept(self, next_offset: int) -> None:
        """Return when all below ``next_offset`` is as durable as the sync level promises."""
        if self._is_sync_always:
            self._sync_until(next_offset)

    def _flush_what_is_tied(self) -> None:
        """Return when everything is on the disk that a crash may not take from this partition
        alone: of a transaction in several, one that loses a record takes all of it back."""
        if self._host.has_transactions:
            self._host.flush_all()
        else:
            self.flush()

    def _sync_until(self, next_offset: int) -> None:
        """Return when all below ``next_offset`` is synced; one sync serves all who wait here."""

        def is_served() -> bool:
            self._check_writable()
            published = self._published
            return published is not None and published.next_offset >= next_offset

        self._group_sync.run(is_served, self._sync)
        if self._waiters:
            self._wake()

    def _sync(self) -> None:
        log = self._log
        assert log is not None
        end = log.end()
        try:
            log.sync()
        except OSError as error:
            self._fail(error)
            raise SyncFailedError(self._failure_text()) from error
        if self._is_sync_always:
            self._published = end

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self.is_plain = False

    def _failure_text(self) -> str:
        return (
            f"a sync of {self._host.name}-{self._index} failed ({self._failure}): what was not "
            "synced has an unknown fate; look at the disk, then close and reopen the broker"
        )

    # ------------------------------------------------------------ for the broker

    @property
    def path(self) -> str:
        """Where its files are, for messages."""
        return self._host.partition_directory(self._index).path

    @property
    def is_open(self) -> bool:
        """Whether its files were looked at."""
        return self._log is not None

    def open(self) -> None:
        """Open its files now; StorageError when they cannot be."""
        self._opened()

    def _opened(self) -> Log:
        if self._refusal is not None:
            raise self._refusal()
        log = self._log
        if log is None:
            with self._lock:
                log = self._log or self._open()
        if self._is_read_only:
            self._host.refresh()
            with self._lock:
                log.follow(is_compacted=self._host.config.is_compacted)
        return log

    def _open(self) -> Log:
        log = self._host.open_log(self._index)
        if self._is_sync_always:
            self._published = log.end()
        self._log = log
        self.reconfigure()
        return log

    def _look(self, look: Callable[[Log, End], Found]) -> Found:
        """Return what ``look`` finds in the log up to its end.

        Where files are gone or replaced, a reader of another process's log looks at them anew.
        """
        looks = LOOKS if self._is_read_only else 0
        while True:
            log = self._opened()
            try:
                return look(log, self._end(log))
            except (FileNotFoundError, CorruptionError):
                if not looks or self._refusal is not None:
                    with self._naming_what_is_missing():
                        raise
            looks -= 1
            with self._lock, contextlib.suppress(FileNotFoundError):
                log.look_anew()

    @contextlib.contextmanager
    def _naming_what_is_missing(self) -> Iterator[None]:
        """Say it of a file that another hand has removed: only deleting the topic may do that."""
        try:
            yield
        except (FileNotFoundError, CorruptionError) as error:
            if self._refusal is not None:
                raise self._refusal() from None
            if isinstance(error, CorruptionError):
                raise
            name, index = self._host.name, self._index
            raise CorruptionError(
                f"this file of {name}-{index} is missing, and what was in it: restore it from a "
                "copy, or delete the topic",
                path=str(error.filename),
            ) from error

    def _end(self, log: Log) -> End:
        if self._has_hidden and self._refusal is None:
            self._has_hidden = False  # who sends in a transaction waits for no sync, who reads does
            with contextlib.suppress(SyncFailedError):  # which refuses writing, not reading
                self._sync_until(log.end_offset)
        return self._published_end(log)

    def _published_end(self, log: Log) -> End:
        published = self._published
        return log.end() if published is None else published

    def _writable_log(self) -> Log:
        """Return the log for writing; whoever appends holds the lock."""
        self._check_writable()
        if not self._has_written:
            self._host.before_write()
            log = self._log or self._open()
            self._has_written = True
            self.reconfigure()
            return log
        assert self._log is not None
        return self._log

    def _check_writable(self) -> None:
        if self._refusal is not None:
            raise self._refusal()
        if self._is_read_only:
            raise ReadOnlyError(
                f"{self._host.name} cannot be written: its broker was opened with read_only=True"
            )
        if self._failure is not None:
            raise SyncFailedError(self._failure_text())

    def reconfigure(self) -> None:
        """Take the topic's present settings; the caller keeps appends out."""
        config = self._host.config
        if self._log is not None:
            self._log.reconfigure(config)
        # The short path never appends as much as MIB at once, so larger limits need no look.
        self.is_plain = (
            self._log is not None
            and self._has_written
            and self._failure is None
            and config.timestamp_type == "create"
            and config.max_record_bytes >= MIB
        )
        self.no_key = NEVER if config.is_compacted else None

    def take_start(self, offset: int) -> None:
        """Take the first offset that is kept, as the topic has it."""
        self._start = offset

    def configure(self) -> None:
        """Take the topic's present settings."""
        with self._lock:
            self.reconfigure()

    def maintain(self, now_ms: int, *, sync: bool) -> None:
        """Do what is due: sync, roll by age."""
        if self._log is None or self._refusal is not None or self._failure is not None:
            return
        with self._lock:
            if self._has_written and self._log.is_older_than(self._host.config.segment_ms, now_ms):
                self._log.roll(now_ms)
        if sync:
            self.flush()

    # ------------------------------------------------------------ the end

    def close(
        self, refusal: Callable[[], Exception], *, keeps_sequences: bool = True
    ) -> CleanMark | None:
        """Refuse every later call and end every wait; return a mark where all was synced. What
        named producers have written is not noted where a transaction may still be lost."""
        self._refusal = refusal  # first: a cleaning that runs ends at its next step
        stable = self._stable_if_named() if keeps_sequences else None
        with self._cleaning, self._lock:
            self.is_plain = False
            self._wake()
            log = self._log
            if log is None:
                return None
            try:
                if self._failure is None and not self._is_read_only:
                    log.trim()
                    self._group_sync.run(lambda: False, self._sync)
                    self.keep_sequences(stable)
                    log.forget_superseded()
                    return log.mark()
            except OSError as error:
                self._fail(error)
                raise SyncFailedError(self._failure_text()) from error
            finally:
                log.unmap()
            return None

    # ------------------------------------------------------------ named producers

    def known_sequences(self, log: Log) -> Sequences:
        """Return what named producers have written; the caller holds the lock.

        The first of all leaves an empty snapshot before it writes: without one there was none.
        """
        sequences = self._sequences
        if sequences is None:
            if log.directory.stamp(SNAPSHOT_FILE):
                sequences = Sequences.load(log.directory, log.end_offset)
                sequences.take_all(
                    found
                    for found in log.origins(sequences.next_offset)
                    if not (found[0].transaction and self._host.is_aborted(found[0].transaction))
                )
            else:
                self._sync()
                sequences = Sequences(next_offset=log.end_offset)
                sequences.save(log.directory, log.end_offset)
            self._sequences = sequences
        return sequences

    def _stable_if_named(self) -> int | None:
        """Return the stable offset where named producers have written, else None. The caller does
        not hold the lock, as a transaction whose time is over is aborted here."""
        log = self._log
        if log is None or self._is_read_only or not log.directory.stamp(SNAPSHOT_FILE):
            return None
        try:
            return self._settled(log)
        except StorageError:
            return 0  # nobody can tell how transactions have ended

    def keep_sequences(self, stable: int | None) -> int | None:
        """Write a snapshot of them up to what was the stable offset, durably; return up to where
        it goes. The caller holds the lock."""
        log = self._log
        if log is None or not stable:
            return stable
        sequences = self.known_sequences(log)
        if sequences.next_offset < stable:
            self._sync()
            sequences.save(log.directory, stable)
        return sequences.next_offset

    def _settled(self, log: Log) -> int:
        """Return the offset before which records may be expired and compacted."""
        return self._host.stable_offset(self._index, self._published_end(log).next_offset)

    def abandon(self, refusal: Callable[[], Exception]) -> None:
        """Refuse every later call, end every wait and let go of the files as they are."""
        self._refusal = refusal
        with self._cleaning, self._lock:
            self.is_plain = False
            self._wake()
            if self._log is not None:
                self._log.unmap()

    def readmit(self) -> None:
        """Take calls again, after ``abandon``."""
        with self._lock:
            self._refusal = None
            self.reconfigure()

    def refuse_in_child(self, refusal: Callable[[], Exception]) -> None:
        """Refuse every call in a child of fork; its locks are new, as others' owners are gone."""
        self._make_locks()
        self._refusal = refusal
        self.is_plain = False
        if self._log is not None:
            self._log.unmap()
