"""The broker: opens a directory, owns its topics, closes it; the one place that wires.

It takes the directory's lock, reads what a clean close left or has every log recovered, and ends
every wait when it closes. Its parts: which topics there are (``catalog.py``), what they get of it
(``hosting.py``), where their logs ended (``marks.py``), what is due by the clock (``upkeep.py``),
and who decides for groups and transactions (``coordination.py``). This module refuses to know
frames, offsets and who sends or polls.

Lock order: broker (``guard``) → partition, never the other way; the locks of marks and of upkeep
are leaves. No user code runs under any of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from minilog.catalog import Catalog, Topics, problem_of
from minilog.clock import Clock, SystemClock, Waiters
from minilog.config import (
    BROKER_KNOBS,
    TOPIC_KNOBS,
    BrokerConfig,
    SyncLevel,
    TopicConfig,
    nearest,
)
from minilog.coordination import Coordination
from minilog.coordinator import Coordinator
from minilog.errors import (
    ClosedError,
    ConfigError,
    ForkedError,
    MinilogError,
    ReadOnlyError,
    StorageError,
    UnknownTopicError,
)
from minilog.groups import Group, Groups
from minilog.home import LOCK_FILE, MEMORY, home_at
from minilog.hosting import Hosting
from minilog.ledger import LEDGER, SEGMENT_BYTES, Ledger
from minilog.lifetime import dismiss, enrol
from minilog.marks import CleanMarks
from minilog.partition import Partition
from minilog.reports import RecoveryReport
from minilog.sources import Identity
from minilog.storage import Log, Problem, check_codec
from minilog.storage.files import Lock
from minilog.topic import Topic
from minilog.transactions import Transactions
from minilog.upkeep import Upkeep


class Broker(Waiters):
    """A directory that holds topics, open in this process.

    ``path`` is a directory, made if missing, or ``":memory:"``. ``sync`` says what an append's
    return means: ``"never"`` and ``"interval"``, that the record survives a crash of the process
    (with ``"interval"`` it is on the disk at most ``sync_interval_ms`` later); ``"always"``, that
    it is on the disk. Other keywords are settings of the topics it creates.

    LockedError when another writer has the directory; StorageError when it is no log.
    """

    _is_settled = True  # how every transaction ended stands in the ledger

    def __init__(
        self,
        path: Any,
        *,
        read_only: bool = False,
        sync: SyncLevel = "interval",
        sync_interval_ms: int = 1000,
        auto_create_topics: bool = False,
        default_partitions: int = 1,
        maintenance_interval_ms: int = 60_000,
        clock: Clock | None = None,
        **topic_defaults: Any,
    ) -> None:
        super().__init__()
        self._refusal: Callable[[], Exception] | None = _not_opened
        self._config = BrokerConfig.of(
            read_only=read_only,
            sync=sync,
            sync_interval_ms=sync_interval_ms,
            auto_create_topics=auto_create_topics,
            default_partitions=default_partitions,
            maintenance_interval_ms=maintenance_interval_ms,
        )
        defaults = _checked_defaults(topic_defaults)
        self._clock: Clock = SystemClock() if clock is None else clock
        if not callable(getattr(self._clock, "now_ms", None)):
            raise ConfigError(f"clock is {clock!r}; it must have a method now_ms()")
        self._guard = threading.RLock()
        self._problems: list[Problem] = []
        self._is_let_go = False
        self.change_count = 0
        self._is_in_memory = isinstance(path, str) and path == MEMORY
        self._home = home_at(path)
        self._coordination = Coordination(self)
        self._marks = CleanMarks(self._home)
        self._upkeep = Upkeep(self, self._config, self._clock, in_memory=self._is_in_memory)
        self._hosting = Hosting(self, self._marks, self._upkeep, self._coordination, self._problems)
        self._catalog = Catalog(self, self._hosting, self._home, defaults, self._problems)
        self._topics = self._catalog.topics
        self._lock: Lock | None = None
        if read_only:
            self._open_for_reading()
        else:
            self._open_for_writing()
        self._refusal = None
        self._upkeep.begin()
        enrol(self)
        for topic in list(self._topics.values()):
            self._upkeep.have_kept(topic.config)

    # ------------------------------------------------------------ opening

    def _open_for_writing(self) -> None:
        home = self._home
        home.make()
        home.refuse_strangers()  # before the lock leaves a file there
        self._lock = self._hosting.lock = home.directory.lock(LOCK_FILE)
        try:
            home.enter()
            self._marks.load(self._problems)
            self._catalog.load(is_opening=True)
            if not self._marks.is_clean and LEDGER in self._topics:
                self._topics[LEDGER][0].open()  # before the topics it is about
            is_complete = self._recover() and not self._catalog.damaged
            if not self._marks.is_clean and LEDGER in self._topics:
                self._problems += self.ledger.recover()
            if is_complete:
                self._lock.recovered()
        except BaseException:
            for topic in self._topics.values():
                topic.abandon(_not_opened)
            self._lock.release()
            raise

    def _open_for_reading(self) -> None:
        if self._is_in_memory:
            raise ConfigError('read_only=True with ":memory:" would never hold a record')
        if not self._home.exists():
            raise StorageError(f"{self._home.path} does not exist; there is no log to read")
        self._home.check()
        self._marks.load(self._problems)
        self._catalog.load(is_opening=True)

    def _recover(self) -> bool:
        """Open every log after a crash, after a clean close only those that look changed; True
        when all of them could be."""
        if not self._marks.is_clean:
            # A process killed in the middle of a change may have left names in the cache alone.
            self._home.directory.sync()
            for topic in self._topics.values():
                topic.directory.sync()
        is_complete = True
        for topic in self._topics.values():
            for partition in topic.partitions:
                mark = self._marks.of(topic, partition.index)
                if mark is not None:
                    directory = topic.partition_directory(partition.index)
                    if Log.looks_untouched(directory, mark):
                        continue
                try:
                    partition.open()
                except StorageError as error:
                    is_complete = False
                    self._problems.append(problem_of(error, topic.directory.path))
        return is_complete

    # ------------------------------------------------------------ topics

    def create_topic(
        self, name: str, partitions: int = 1, *, exist_ok: bool = False, **settings: Any
    ) -> Topic:
        """Make a topic, durably, and return it.

        Settings are as in TopicConfig, by default the broker's. TopicExistsError when it is
        there, unless ``exist_ok=True``, which returns it as it is.
        """
        return self._catalog.create(name, partitions, settings, exist_ok=exist_ok)

    def topic(self, name: str) -> Topic:
        """Return the topic of that name; UnknownTopicError."""
        self.check_open()
        return self._catalog.topic(name)

    def topic_to_use(self, name: str) -> Topic:
        """Return the topic of that name, made with the defaults where that is allowed."""
        try:
            return self.topic(name)
        except UnknownTopicError:
            if not self.makes_unknown_topics:
                raise
        return self.create_topic(name, self._config.default_partitions, exist_ok=True)

    @property
    def makes_unknown_topics(self) -> bool:
        """Whether a topic that is not there is made when it is used."""
        return self._config.auto_create_topics and not self._config.read_only

    @property
    def topics(self) -> Mapping[str, Topic]:
        """The topics by name: live, sorted, read-only."""
        self.check_open()
        return Topics(self, self._catalog)

    def delete_topic(self, name: str) -> None:
        """Remove a topic and its records, for good; UnknownTopicError."""
        self._catalog.delete(name)

    def look_again(self) -> None:
        """Take in the topics another process has made or deleted."""
        with self._guard:
            if self._catalog.look_again():
                self.change_count += 1

    # ------------------------------------------------------------ groups

    @property
    def groups(self) -> Mapping[str, Group]:
        """The consumer groups by name: live, sorted, read-only."""
        self.check_open()
        return Groups(self)

    def delete_group(self, name: str) -> None:
        """Forget what a group has committed; GroupError while it has members, or there is none."""
        self.check_writable()
        self._coordination.delete_group(name)

    def group_names(self) -> list[str]:
        """Return the groups that have committed or have members, sorted."""
        return self._coordination.group_names()

    def coordinator(self, group: str) -> Coordinator:
        """Return who keeps a group's members."""
        return self._coordination.coordinator(group)

    @property
    def ledger(self) -> Ledger:
        """Where committed offsets are kept."""
        return self._coordination.ledger

    def ledger_partition(self, *, is_writing: bool) -> Partition | None:
        """Return the internal topic's only partition, made when it is to be written."""
        config = TopicConfig(segment_bytes=SEGMENT_BYTES)
        return self._catalog.only_partition(LEDGER, config, is_writing=is_writing)

    # ------------------------------------------------------------ exactly once

    @property
    def transactions(self) -> Transactions:
        """The transactions that are open."""
        return self._coordination.transactions

    def identity(self, name: str) -> Identity:
        """Open a named producer; another one of that name may write no more."""
        self.check_writable()
        return self._coordination.identity(name)

    def stable_offsets(self, partitions: list[Partition]) -> list[int]:
        """Return up to where ``read_committed`` may read each, at one moment: a transaction that
        ends meanwhile is seen in all of them or in none."""
        return self._coordination.stable_offsets(partitions)

    def flush_topics(self) -> None:
        """Return when everything appended to topics is on the disk."""
        for partition in self.partitions():
            if partition.topic != LEDGER:
                partition.flush()

    def topic_by_id(self, topic_id: bytes) -> Topic | None:
        """Return the topic of an id; None when it was deleted."""
        return self._catalog.by_id(topic_id)

    # ------------------------------------------------------------ durability and closing

    @property
    def recovery(self) -> RecoveryReport:
        """What this opening had to do."""
        return RecoveryReport(tuple(self._problems))

    @property
    def housekeeping_errors(self) -> tuple[Exception, ...]:
        """What went wrong in housekeeping, where no caller was there to be told; the last ten."""
        return tuple(self._upkeep.errors)

    def flush(self) -> None:
        """Return when everything acknowledged so far is on the disk."""
        self.check_open()
        self.flush_all()

    def flush_all(self) -> None:
        """Flush every partition, the ledger's too."""
        for partition in self.partitions():
            partition.flush()

    def maintain(self) -> None:
        """Do now what is due by the clock: sync, roll by age, expire, compact, re-pack.

        What goes wrong with one partition is raised when the others are done.
        """
        self.check_open()
        self._upkeep.maintain()

    def keep_house(self) -> None:
        """Do what is due, for nobody in particular; errors are kept."""
        self._upkeep.keep_house()

    def close(self) -> None:
        """End every wait, put everything on the disk and let the next writer in."""
        if self._refusal is _forked:
            raise _forked()
        if self._is_let_go:
            return
        self._upkeep.stop()
        if self._refusal is None:
            self._is_settled = self.transactions.close()
        with self._guard:
            self._refusal = _closed
            self._upkeep.end()
            self._wake()
            try:
                self._close_topics()
            except (OSError, StorageError):
                self._let_go()
                raise
            self._let_go()

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
        dismiss(self)
        self._is_let_go = True  # last: a close that was interrupted before can be repeated

    def _close_topics(self) -> None:
        failure: Exception | None = None
        is_tied_kept = self._is_what_is_tied_kept()
        topics = sorted(self._topics.values(), key=lambda topic: topic.name == LEDGER)
        for topic in topics:  # the ledger last: others ask it
            for partition in topic.all_partitions:
                try:
                    mark = partition.close(_closed, keeps_sequences=is_tied_kept)
                except (OSError, StorageError) as error:
                    failure = failure or error
                    self._marks.forget(topic, partition.index)
                else:
                    self._marks.closed(topic, partition, mark)
            topic.close(_closed)
        if failure is not None:
            raise failure
        is_disk_writer = not self._config.read_only and not self._is_in_memory
        if is_disk_writer and not self._marks.is_clean and self._is_settled:
            self._marks.save()

    def _is_what_is_tied_kept(self) -> bool:
        """Put on the disk what transactions tie together; False where that fails, as whoever it
        fails for says when it is closed."""
        if self._config.read_only or self._is_in_memory:
            return True
        try:
            if self.ledger.has_transactions:
                self.flush_all()
        except (OSError, MinilogError):
            return False
        return True

    def __enter__(self) -> Broker:
        self.check_open()
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_refusal", _closed) is None:
            self.close()

    def __repr__(self) -> str:
        return f"<Broker {self._home.path}>"

    # ------------------------------------------------------------ for topics, producers, consumers

    @property
    def clock(self) -> Clock:
        """What the time is asked of."""
        return self._clock

    @property
    def is_read_only(self) -> bool:
        """Whether it was opened with ``read_only=True``."""
        return self._config.read_only

    @property
    def is_sync_always(self) -> bool:
        """Whether an append returns when it is on the disk."""
        return self._config.sync == "always" and not self._is_in_memory

    @property
    def guard(self) -> threading.RLock:
        """The lock over which topics there are and how they are set."""
        return self._guard

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, here or by the fork that made this process."""
        return self._refusal is not None

    @property
    def changes(self) -> int:
        """A number that changes when topics or partitions come or go."""
        if self._config.read_only:
            self.look_again()
        return self.change_count

    def check_writable(self) -> None:
        """Raise unless topics may be changed."""
        self.check_open()
        if self._config.read_only:
            raise ReadOnlyError(
                f"{self._home.path} was opened with read_only=True; open it without to change it"
            )

    def topic_changed(self) -> None:
        """Tell those who wait that topics or partitions have come or gone."""
        self.change_count += 1
        self._wake()

    def partitions(self) -> list[Partition]:
        """Return all partitions of the topics that are there."""
        with self._guard:
            topics = list(self._topics.values())
        return [partition for topic in topics for partition in topic.partitions]

    def check_open(self) -> None:
        """Raise ClosedError or ForkedError unless it can be used."""
        if self._refusal is not None:
            raise self._refusal()

    def refuse_in_child(self) -> None:
        """Refuse every call in a child of fork: the parent's files are not the child's."""
        self._refusal = _forked
        self._guard = threading.RLock()
        self._marks.renew_lock()
        self._upkeep.renew_lock()
        for topic in self._topics.values():
            topic.refuse_in_child(_forked)
        if self._lock is not None:
            self._lock.abandon()


def _checked_defaults(settings: Mapping[str, Any]) -> TopicConfig:
    for name in settings.keys() - TOPIC_KNOBS.keys():
        raise ConfigError(
            f"unknown setting {name!r}{nearest(name, {**BROKER_KNOBS, **TOPIC_KNOBS})}"
        )
    defaults = TopicConfig.of(settings)
    check_codec(defaults.compression)
    return defaults


def _closed() -> ClosedError:
    return ClosedError("the broker was closed; open it again to go on")


def _not_opened() -> ClosedError:
    return ClosedError("the broker could not be opened")


def _forked() -> ForkedError:
    return ForkedError(
        "this broker belongs to the parent of fork; open one of your own in the child "
        "(read_only=True while the parent writes)"
    )
