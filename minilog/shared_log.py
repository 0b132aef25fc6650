"""A Log made safe for threads: its lock, its visible end, shared syncs and wake-ups.

Writers take the lock, readers do not. What readers see is the *end*: with ``sync="always"`` it
moves when the records are on the disk, else as soon as they are stored. Whoever waits for it to
move leaves a lock to be released; an appender looks there only when somebody waits.

It may be *refused* (closed, deleted, forked: nothing goes any more) or have *failed* (a sync did:
nothing may be written until it is reopened). This module refuses to know records and arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from minilog.clock import Clock, Deadline, Waiters
from minilog.config import MIB, TopicConfig
from minilog.errors import ReadOnlyError, SyncFailedError
from minilog.group_sync import GroupSync
from minilog.storage import CleanMark, End, Log
from minilog.waiting import wait_for_news

EVERYTHING = 2**63


class Host(Protocol):
    """What a partition needs of the topic and broker it belongs to."""

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
    def before_write(self) -> None: ...
    def refresh(self) -> None: ...
    def start_offset(self, partition: int) -> int: ...
    def raise_start_offset(self, partition: int, offset: int) -> None: ...


class SharedLog(Waiters):
    """One partition's log, opened when it is first used, for any number of threads."""

    def __init__(self, host: Host, index: int) -> None:
        super().__init__()
        self._host = host
        self._index = index
        self._log: Log | None = None
        self._start = host.start_offset(index)
        self._is_read_only = host.is_read_only
        self._published: End | None = None  # the end that readers see, with sync="always"
        self._refusal: Callable[[], Exception] | None = None  # closed, forked or deleted
        self._failure: BaseException | None = None  # of a sync: nothing may be written any more
        self._has_written = False
        self._is_plain = False  # the short path of append will do
        self._is_sync_always = host.is_sync_always
        self._now_ms = host.clock.now_ms
        self._make_locks()

    def _make_locks(self) -> None:
        self._lock = threading.Lock()
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
        if log is None:
            return
        # A sync that was interrupted may have ended without its records being published.
        is_hidden = self._is_sync_always and self._published != log.end()
        if log.is_dirty() or is_hidden:
            self._sync_until(EVERYTHING)

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
        self._is_plain = False

    def _failure_text(self) -> str:
        return (
            f"a sync of {self._host.name}-{self._index} failed ({self._failure}): what was not "
            "synced has an unknown fate; look at the disk, then close and reopen the broker"
        )

    # ------------------------------------------------------------ for the broker

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
                log.follow()
        return log

    def _open(self) -> Log:
        log = self._host.open_log(self._index)
        if self._is_sync_always:
            self._published = log.end()
        self._log = log
        self.reconfigure()
        return log

    def _end(self, log: Log) -> End:
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
        self._is_plain = (
            self._log is not None
            and self._has_written
            and self._failure is None
            and config.timestamp_type == "create"
            and config.max_record_bytes >= MIB
        )

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

    def close(self, refusal: Callable[[], Exception]) -> CleanMark | None:
        """Refuse every later call and end every wait; return a mark where all was synced."""
        with self._lock:
            self._refusal = refusal
            self._is_plain = False
            self._wake()
            log = self._log
            if log is None:
                return None
            try:
                if self._failure is None and not self._is_read_only:
                    log.trim()
                    self._group_sync.run(lambda: False, self._sync)
                    return log.mark()
            except OSError as error:
                self._fail(error)
                raise SyncFailedError(self._failure_text()) from error
            finally:
                log.unmap()
            return None

    def abandon(self, refusal: Callable[[], Exception]) -> None:
        """Refuse every later call, end every wait and let go of the files as they are."""
        with self._lock:
            self._refusal = refusal
            self._is_plain = False
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
        self._is_plain = False
        if self._log is not None:
            self._log.unmap()
