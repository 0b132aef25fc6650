"""The broker: opens a directory, owns its topics, closes it; the one place that wires.

It takes the directory's lock, reads what a clean close left or has every log recovered, hands
partitions their files and keeps house. This module refuses to know frames, offsets and who sends
or polls.

Lock order: broker (``guard``) → partition, never the other way; ``_mark_lock`` is a leaf. No
user code runs under any of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from minilog.clock import Clock, SystemClock, Waiters
from minilog.config import (
    BROKER_KNOBS,
    TOPIC_KNOBS,
    BrokerConfig,
    SyncLevel,
    TopicConfig,
    nearest,
)
from minilog.coordinator import Coordinator
from minilog.errors import (
    ClosedError,
    ConfigError,
    ForkedError,
    GroupError,
    InvalidTopicError,
    MinilogError,
    ReadOnlyError,
    StorageError,
    TopicExistsError,
    UnknownTopicError,
)
from minilog.groups import Group, Groups
from minilog.home import LOCK_FILE, MEMORY, RESERVED_PREFIX, Marks, check_topic_name, home_at
from minilog.housekeeping import Housekeeper
from minilog.ledger import LEDGER, SEGMENT_BYTES, Ledger
from minilog.lifetime import dismiss, enrol
from minilog.partition import Partition
from minilog.registers import Place
from minilog.reports import RecoveryReport
from minilog.sources import Identity
from minilog.storage import CleanMark, Log, Opening, Problem, check_codec
from minilog.storage.files import Lock, MapLimit, map_limit
from minilog.topic import Topic, TopicState, check_partition_count, random_id
from minilog.transactions import Transactions

MOST_LOOKS = 100  # at transactions that end just while one looks


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
        self._topic_defaults = _checked_defaults(topic_defaults)
        self._clock: Clock = SystemClock() if clock is None else clock
        if not callable(getattr(self._clock, "now_ms", None)):
            raise ConfigError(f"clock is {clock!r}; it must have a method now_ms()")
        self._guard = threading.RLock()
        self._mark_lock = threading.Lock()
        from sortedcontainers import SortedDict  # here, so that importing minilog stays quick

        self._topics: SortedDict = SortedDict()
        self._damaged: dict[str, MinilogError] = {}
        self._problems: list[Problem] = []
        self._errors: list[Exception] = []
        self._marks: Marks = {}
        self._is_marked_clean = False
        self._is_let_go = False
        self._changes = 0
        self._ledger = Ledger(self)
        self._coordinators: dict[str, Coordinator] = {}
        self._transactions = Transactions(self)
        self._identities: dict[str, Identity] = {}
        self._maps = MapLimit(map_limit())
        self._lock: Lock | None = None
        self._is_in_memory = isinstance(path, str) and path == MEMORY
        self._home = home_at(path)
        self._housekeeper = Housekeeper(self, self._house_interval_ms())
        self._cleaned_ms = self._synced_ms = self._clock.now_ms()
        if read_only:
            self._open_for_reading()
        else:
            self._open_for_writing()
        self._refusal = None
        subscribe = getattr(self._clock, "subscribe", None)
        if subscribe is not None:
            subscribe(self.keep_house)
        enrol(self)
        for topic in list(self._topics.values()):
            self.have_house_kept(topic.config)

    # ------------------------------------------------------------ opening

    def _open_for_writing(self) -> None:
        home = self._home
        home.make()
        home.refuse_strangers()  # before the lock leaves a file there
        self._lock = home.directory.lock(LOCK_FILE)
        try:
            home.enter()
            home.remove_unfinished()
            marks = home.load_marks(self._problems)
            self._is_marked_clean = marks is not None
            self._marks = marks or {}
            self._find_topics()
            if not self._is_marked_clean and LEDGER in self._topics:
                self._topics[LEDGER][0].open()  # before the topics it is about
            is_complete = self._recover() and not self._damaged
            if not self._is_marked_clean and LEDGER in self._topics:
                self._problems += self._ledger.recover()
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
        self._marks = self._home.load_marks(self._problems) or {}
        self._find_topics()

    def _find_topics(self) -> None:
        for name, found in self._home.topics():
            if not isinstance(found, StorageError):
                if name not in self._topics and self._can_decompress(found):
                    self._topics[name] = Topic(self, self._home.topic_directory(name), found)
            elif name not in self._damaged:
                self._damaged[name] = found
                self._note(found, f"{self._home.path}/{name}")

    def _can_decompress(self, state: TopicState) -> bool:
        """Say whether a topic's codec is here; ConfigError when that is found while opening."""
        try:
            check_codec(state.config.compression)
        except ConfigError as error:
            missing = ConfigError(f"topic {state.name!r}: {error}")
            if self._refusal is _not_opened:
                raise missing from None
            self._damaged[state.name] = missing  # another process has made it since
            return False
        return True

    def _note(self, error: StorageError, path: str) -> None:
        reason = getattr(error, "reason", str(error))
        self._problems.append(Problem(getattr(error, "path", path), 0, None, reason))

    def _recover(self) -> bool:
        """Open every log after a crash, after a clean close only those that look changed; True
        when all of them could be."""
        if not self._is_marked_clean:
            # A process killed in the middle of a change may have left names in the cache alone.
            self._home.directory.sync()
            for topic in self._topics.values():
                topic.directory.sync()
        is_complete = True
        for topic in self._topics.values():
            for partition in topic.partitions:
                mark = self._marks.get(_mark_key(topic, partition.index))
                if mark is not None:
                    directory = topic.partition_directory(partition.index)
                    if Log.looks_untouched(directory, mark):
                        continue
                try:
                    partition.open()
                except StorageError as error:
                    is_complete = False
                    self._note(error, topic.directory.path)
        return is_complete

    # ------------------------------------------------------------ topics

    def create_topic(
        self, name: str, partitions: int = 1, *, exist_ok: bool = False, **settings: Any
    ) -> Topic:
        """Make a topic, durably, and return it.

        Settings are as in TopicConfig, by default the broker's. TopicExistsError when it is
        there, unless ``exist_ok=True``, which returns it as it is.
        """
        check_topic_name(name)
        check_partition_count(partitions)
        config = self._topic_defaults.override(settings)
        check_codec(config.compression)
        with self._guard:
            self.check_writable()
            if name in self._damaged:
                raise self._damaged[name]
            if name in self._topics:
                if exist_ok:
                    topic: Topic = self._topics[name]
                    return topic
                raise TopicExistsError(
                    f"topic {name!r} exists already; exist_ok=True returns it as it is"
                )
            self._check_case(name)
            if self._home.topic_directory(name).exists():
                self._find_again(name)  # made by a call that was interrupted at its end
                return self.create_topic(name, partitions, exist_ok=exist_ok, **settings)
            topic = self._make_topic(name, partitions, config)
        self.topic_changed()
        self.have_house_kept(config)
        return topic

    def _make_topic(self, name: str, partitions: int, config: TopicConfig) -> Topic:
        self.before_write()
        state = TopicState(name, random_id(), partitions, config, {})
        self._home.make_topic(state, self._clock)
        topic = Topic(self, self._home.topic_directory(name), state)
        self.partitions_made(topic, range(partitions))
        self._topics[name] = topic
        return topic

    def _check_case(self, name: str) -> None:
        folded = name.lower()
        for other in [*self._topics, *self._damaged]:
            if other.lower() == folded:
                raise InvalidTopicError(
                    f"topic {name!r} differs from {other!r} only in letter case; not every file "
                    "system tells them apart"
                )

    def topic(self, name: str) -> Topic:
        """Return the topic of that name; UnknownTopicError."""
        self.check_open()
        topic = self._find(name)
        if self._config.read_only and (topic is None or topic.is_gone()):
            self._look_again()
            topic = self._find(name)
        if topic is not None:
            return topic
        if name in self._damaged:
            raise self._damaged[name]
        raise self._unknown(name)

    def _find(self, name: object) -> Topic | None:
        is_ours = not isinstance(name, str) or name.startswith(RESERVED_PREFIX)
        if is_ours:
            return None
        found: Topic | None = self._topics.get(name)
        return found

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
        return Topics(self)

    def delete_topic(self, name: str) -> None:
        """Remove a topic and its records, for good; UnknownTopicError."""
        with self._guard:
            self.check_writable()
            if self._find(name) is None and name not in self._damaged:
                raise self._unknown(name)
            self.before_write()
            topic: Topic | None = self._topics.get(name)
            try:
                if topic is not None:
                    topic.abandon(lambda: self._unknown(name))  # nobody is in its files any more
                deleted = self._home.take_away(name)
                self._topics.pop(name, None)
                self._damaged.pop(name, None)
            except BaseException:
                self._find_again(name)
                raise
            try:
                self._home.remove_deleted(deleted)
            finally:
                self.topic_changed()

    def _find_again(self, name: str) -> None:
        """Have a topic stand for its files, or not, when it could not be made or deleted."""
        topic: Topic | None = self._topics.get(name)
        if topic is not None:
            topic.readmit()  # first: whether it is gone may be hard to tell, too
            if topic.is_gone():
                del self._topics[name]
                topic.abandon(lambda: self._unknown(name))
        elif self._home.topic_directory(name).exists():
            self._find_topics()

    def _unknown(self, name: object) -> UnknownTopicError:
        there = {other: None for other in self._topics if self._find(other) is not None}
        hint = nearest(str(name), there) if there else "; there are none yet"
        return UnknownTopicError(f"no topic {name!r}{hint}")

    def _look_again(self) -> None:
        """Take in the topics another process has made or deleted."""
        with self._guard:
            for name, topic in list(self._topics.items()):
                if topic.is_gone():
                    del self._topics[name]
                    topic.abandon(lambda name=name: self._unknown(name))
            before = len(self._topics)
            self._find_topics()
            if len(self._topics) != before:
                self._changes += 1

    # ------------------------------------------------------------ groups

    @property
    def groups(self) -> Mapping[str, Group]:
        """The consumer groups by name: live, sorted, read-only."""
        self.check_open()
        return Groups(self)

    def delete_group(self, name: str) -> None:
        """Forget what a group has committed; GroupError while it has members, or there is none."""
        self.check_writable()
        if name not in self.group_names():
            raise GroupError(f"no group {name!r}{nearest(name, dict.fromkeys(self.group_names()))}")
        self.coordinator(name).forget()  # it stays: consumers may hold it, and a group has one

    def group_names(self) -> list[str]:
        """Return the groups that have committed or have members, sorted."""
        with self._guard:
            coordinators = list(self._coordinators.items())
        members = {name for name, coordinator in coordinators if coordinator.members()}
        return sorted(members | set(self._ledger.group_names()))

    def coordinator(self, group: str) -> Coordinator:
        """Return who keeps a group's members."""
        with self._guard:
            if group not in self._coordinators:
                self._coordinators[group] = Coordinator(self, group)
            return self._coordinators[group]

    @property
    def ledger(self) -> Ledger:
        """Where committed offsets are kept."""
        return self._ledger

    def ledger_partition(self, *, is_writing: bool) -> Partition | None:
        """Return the internal topic's only partition, made when it is to be written."""
        if self._config.read_only and LEDGER not in self._topics:
            self._look_again()
        with self._guard:
            topic: Topic | None = self._topics.get(LEDGER)
            if LEDGER in self._damaged:
                raise self._damaged[LEDGER]
            if topic is None and is_writing:
                self.check_writable()
                if self._home.topic_directory(LEDGER).exists():
                    self._find_again(LEDGER)  # made by a call that failed at its end
                topic = self._topics.get(LEDGER) or self._make_topic(
                    LEDGER, 1, TopicConfig(segment_bytes=SEGMENT_BYTES)
                )
            return None if topic is None else topic[0]

    # ------------------------------------------------------------ exactly once

    @property
    def transactions(self) -> Transactions:
        """The transactions that are open."""
        return self._transactions

    def identity(self, name: str) -> Identity:
        """Open a named producer; another one of that name may write no more."""
        self.check_writable()
        epoch = self._ledger.open_epoch(name)
        with self._guard:
            before = self._identities.get(name)
            self._identities[name] = Identity(name, epoch)
        if before is not None:
            self._transactions.fence(before)
        return self._identities[name]

    def first_open_offset(self, topic_id: bytes, partition: int) -> int | None:
        """Return where the oldest open transaction begins in a partition."""
        self._transactions.expire()
        return self._ledger.first_open_offset(topic_id, partition)

    def stable_offsets(self, partitions: list[Partition]) -> list[int]:
        """Return up to where ``read_committed`` may read each, at one moment: a transaction that
        ends meanwhile is seen in all of them or in none."""
        for _ in range(MOST_LOOKS):
            before = self._ledger.settlements
            stable = [partition.stable_offset for partition in partitions]
            if self._ledger.settlements == before and not before % 2:
                break
        return stable

    def hides(self, transaction: int) -> bool:
        """Say whether a transaction's records are not to be seen by ``read_committed``."""
        return self._ledger.hides(transaction)

    def is_aborted(self, transaction: int) -> bool:
        """Say whether a transaction's records never were."""
        return self._ledger.is_aborted(transaction)

    @property
    def has_transactions(self) -> bool:
        """Whether there ever was a transaction."""
        return self._ledger.has_transactions

    def flush_topics(self) -> None:
        """Return when everything appended to topics is on the disk."""
        for partition in self._partitions():
            if partition.topic != LEDGER:
                partition.flush()

    def topic_by_id(self, topic_id: bytes) -> Topic | None:
        """Return the topic of an id; None when it was deleted."""
        topics: list[Topic] = list(self._topics.values())
        return next((topic for topic in topics if topic.id.bytes == topic_id), None)

    # ------------------------------------------------------------ durability and closing

    @property
    def recovery(self) -> RecoveryReport:
        """What this opening had to do."""
        return RecoveryReport(tuple(self._problems))

    @property
    def housekeeping_errors(self) -> tuple[Exception, ...]:
        """What went wrong in housekeeping, where no caller was there to be told; the last ten."""
        return tuple(self._errors)

    def flush(self) -> None:
        """Return when everything acknowledged so far is on the disk."""
        self.check_open()
        for partition in self._partitions():
            partition.flush()

    def maintain(self) -> None:
        """Do now what is due by the clock: sync, roll by age, expire, compact.

        What goes wrong with one partition is raised when the others are done.
        """
        self.check_open()
        self._transactions.expire()
        now_ms = self._clock.now_ms()
        failure: Exception | None = None
        for partition in self._partitions():
            try:
                partition.maintain(now_ms, sync=self._config.sync == "interval")
                partition.clean(now_ms, lambda: None)
            except (OSError, MinilogError) as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def keep_house(self) -> None:
        """Do what is due, for nobody in particular; errors are kept."""
        if self._refusal is not None:
            return
        self._transactions.expire()
        partitions = self._partitions()
        for partition in partitions:
            self._keep(partition.maintain, sync=self._config.sync == "interval")
        if not self._is_cleaning_due():
            return
        for partition in partitions:
            self._keep(partition.clean, step=lambda: self._pause_cleaning(partitions))

    def _keep(self, work: Callable[..., None], **how: Any) -> None:
        """Do some work on a partition; what goes wrong is kept."""
        try:
            work(self._clock.now_ms(), **how)
        except (ClosedError, UnknownTopicError, ForkedError):
            return  # it went while we came
        except (OSError, MinilogError) as error:
            self.note(error)

    def _is_cleaning_due(self) -> bool:
        """Say whether to look at what may be expired and compacted: not at every sync."""
        if self._config.read_only or not self._config.maintenance_interval_ms:
            return False
        if not hasattr(self._clock, "subscribe"):
            now_ms = self._clock.now_ms()
            if abs(now_ms - self._cleaned_ms) < self._config.maintenance_interval_ms:
                return False
            self._cleaned_ms = now_ms
        return True

    def _pause_cleaning(self, partitions: list[Partition]) -> None:
        """In the middle of a compaction: end it when the broker is closed, and sync in time.

        Its own partition's compaction is running, so nothing here may wait for that.
        """
        if self._housekeeper.is_stopping:
            raise _closed()
        now_ms = self._clock.now_ms()
        if self._config.sync == "interval" and (
            abs(now_ms - self._synced_ms) >= self._config.sync_interval_ms
        ):
            self._synced_ms = now_ms
            for partition in partitions:
                self._keep(partition.maintain, sync=True)

    def have_house_kept(self, config: TopicConfig) -> None:
        """Have a thread do what is due, if a topic with these settings will ever need it."""
        if not (config.is_expiring or config.is_compacted) or self._config.read_only:
            return
        if self._config.maintenance_interval_ms and not hasattr(self._clock, "subscribe"):
            with self._mark_lock:
                self._housekeeper.start()

    def note(self, error: Exception) -> None:
        """Keep an error of housekeeping, the last ten of them."""
        self._errors = [*self._errors[-9:], error]

    def committed_floor(
        self, topic: Topic, partition: int, group_names: tuple[str, ...]
    ) -> int | None:
        """Return the smallest offset that these groups have committed of a partition; None where
        one of them has committed nothing, so that everything is kept for it."""
        place = Place(topic.id.bytes, partition)
        committed = [self._ledger.committed(name).get(place, -1) for name in group_names]
        return None if -1 in committed else min(committed, default=None)

    def close(self) -> None:
        """End every wait, put everything on the disk and let the next writer in."""
        if self._refusal is _forked:
            raise _forked()
        if self._is_let_go:
            return
        self._housekeeper.stop()
        if self._refusal is None:
            self._is_settled = self._transactions.close()
        with self._guard:
            self._refusal = _closed
            unsubscribe = getattr(self._clock, "unsubscribe", None)
            if unsubscribe is not None:
                unsubscribe(self.keep_house)
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
        topics = sorted(self._topics.values(), key=lambda topic: topic.name == LEDGER)
        for topic in topics:  # the ledger last: others ask it
            for partition in topic.all_partitions:
                try:
                    mark = partition.close(_closed)
                except (OSError, StorageError) as error:
                    failure = failure or error
                    self._marks.pop(_mark_key(topic, partition.index), None)
                else:
                    self._keep_mark(_mark_key(topic, partition.index), partition, mark)
            topic.close(_closed)
        if failure is not None:
            raise failure
        is_disk_writer = not self._config.read_only and not self._is_in_memory
        if is_disk_writer and not self._is_marked_clean and self._is_settled:
            self._home.save_marks(self._marks)

    def _keep_mark(self, key: str, partition: Partition, mark: CleanMark | None) -> None:
        if mark is not None:
            self._marks[key] = mark
        elif partition.is_open:
            self._marks.pop(key, None)  # it failed: its end is not known

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
            self._look_again()
        return self._changes

    def open_log(self, topic: Topic, partition: int) -> Log:
        """Open a partition's files."""
        lock = self._lock
        opening = Opening(
            is_writable=not self._config.read_only,
            mark=self._marks.get(_mark_key(topic, partition)),
            is_write_through=self.is_sync_always,
            same_boot=lock is not None and lock.is_same_boot,
            now_ms=self._clock.now_ms(),
            start_offset=topic.start_offset(partition),
        )
        directory = topic.partition_directory(partition)
        log = Log(directory, topic.identity(partition), topic.config, self._maps, opening)
        if opening.is_writable:  # from here on it says less than the files do
            self._marks.pop(_mark_key(topic, partition), None)
        self._problems += log.problems
        return log

    def partitions_made(self, topic: Topic, numbers: range) -> None:
        """Note that partitions are new, so that opening one need not look at its files."""
        for number in numbers:
            self._marks[_mark_key(topic, number)] = Log.fresh_mark(0)

    def before_write(self) -> None:
        """Take the clean mark away before the first byte changes, and have the house kept."""
        if self._is_marked_clean:
            with self._mark_lock:
                if self._is_marked_clean:
                    self._home.clear_marks()
                    self._is_marked_clean = False
        is_turned_by_hand = hasattr(self._clock, "subscribe")
        if not self._is_in_memory and not is_turned_by_hand and self._house_interval_ms():
            with self._mark_lock:
                self._housekeeper.start()

    def _house_interval_ms(self) -> int:
        if self._config.sync != "interval" or self._is_in_memory:
            return self._config.maintenance_interval_ms
        if not self._config.maintenance_interval_ms:
            return self._config.sync_interval_ms
        return min(self._config.sync_interval_ms, self._config.maintenance_interval_ms)

    def check_writable(self) -> None:
        """Raise unless topics may be changed."""
        self.check_open()
        if self._config.read_only:
            raise ReadOnlyError(
                f"{self._home.path} was opened with read_only=True; open it without to change it"
            )

    def topic_changed(self) -> None:
        """Tell those who wait that topics or partitions have come or gone."""
        self._changes += 1
        self._wake()

    def _partitions(self) -> list[Partition]:
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
        self._mark_lock = threading.Lock()
        for topic in self._topics.values():
            topic.refuse_in_child(_forked)
        if self._lock is not None:
            self._lock.abandon()


class Topics(Mapping[str, Topic]):
    """The topics of a broker by name: live, sorted, read-only; ours are left out."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def _visible(self) -> list[str]:
        self._broker.check_open()
        if self._broker.is_read_only:
            self._broker._look_again()
        return [name for name in self._broker._topics if not name.startswith(RESERVED_PREFIX)]

    def __getitem__(self, name: str) -> Topic:
        self._broker.check_open()
        if self._broker.is_read_only:
            self._broker._look_again()
        topic = self._broker._find(name)
        if topic is None:
            raise KeyError(name)
        return topic

    def __iter__(self) -> Iterator[str]:
        return iter(self._visible())

    def __len__(self) -> int:
        return len(self._visible())

    def __repr__(self) -> str:
        return f"<Topics {', '.join(self)}>"


def _checked_defaults(settings: Mapping[str, Any]) -> TopicConfig:
    for name in settings.keys() - TOPIC_KNOBS.keys():
        raise ConfigError(
            f"unknown setting {name!r}{nearest(name, {**BROKER_KNOBS, **TOPIC_KNOBS})}"
        )
    defaults = TopicConfig.of(settings)
    check_codec(defaults.compression)
    return defaults


def _mark_key(topic: Topic, partition: int) -> str:
    return f"{topic.id}/{partition}"


def _closed() -> ClosedError:
    return ClosedError("the broker was closed; open it again to go on")


def _not_opened() -> ClosedError:
    return ClosedError("the broker could not be opened")


def _forked() -> ForkedError:
    return ForkedError(
        "this broker belongs to the parent of fork; open one of your own in the child "
        "(read_only=True while the parent writes)"
    )
