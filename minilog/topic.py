"""A topic: numbered partitions with common settings, and which key goes where.

What of it stands on the disk beside its partitions is ``topic_files.py``'s, and whoever makes
topics finds that here. This module refuses to know frames, threads that wait, and other topics.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from minilog.arguments import check_whole
from minilog.clock import Clock
from minilog.config import TopicConfig
from minilog.errors import (
    ConfigError,
    InvalidPartitionsError,
    UnknownPartitionError,
    UnknownTopicError,
)
from minilog.partition import Partition
from minilog.records import BytesLike, bytes_of
from minilog.reports import CompactionReport
from minilog.storage import Log, check_codec
from minilog.storage.files import Directory
from minilog.topic_files import (
    MOST_PARTITIONS,
    TOPIC_FILE,
    TopicState,
    check_partition_count,
    log_identity,
    make_partitions,
    random_id,
)

if TYPE_CHECKING:
    import uuid

    from minilog.table import Table

__all__ = [
    "MOST_PARTITIONS",
    "TOPIC_FILE",
    "Lockable",
    "Owner",
    "Topic",
    "TopicState",
    "check_partition_count",
    "log_identity",
    "make_partitions",
    "random_id",
]

Partitioner = Callable[[bytes, int], int]


class Owner(Protocol):
    """What a topic needs of its broker."""

    @property
    def clock(self) -> Clock: ...
    @property
    def is_read_only(self) -> bool: ...
    @property
    def is_sync_always(self) -> bool: ...
    @property
    def guard(self) -> Lockable: ...
    def open_log(self, topic: Topic, partition: int) -> Log: ...
    def before_write(self) -> None: ...
    def partitions_made(self, topic: Topic, numbers: range) -> None: ...
    def check_writable(self) -> None: ...
    def topic_changed(self) -> None: ...
    def first_open_offset(self, topic_id: bytes, partition: int) -> int | None: ...
    def hides(self, transaction: int) -> bool: ...
    def is_aborted(self, transaction: int) -> bool: ...
    @property
    def has_transactions(self) -> bool: ...
    def flush_all(self) -> None: ...
    def committed_floor(
        self, topic: Topic, partition: int, group_names: tuple[str, ...]
    ) -> int | None: ...
    def note(self, error: Exception) -> None: ...
    def have_house_kept(self, config: TopicConfig) -> None: ...


class Lockable(Protocol):
    """A lock, for ``with``."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *raised: Any) -> Any: ...


class Topic:
    """A named set of partitions; made by ``broker.create_topic``."""

    def __init__(self, owner: Owner, directory: Directory, state: TopicState) -> None:
        self._owner = owner
        self._directory = directory
        self._state = state
        self._stamp = directory.stamp(TOPIC_FILE)
        self._refusal: Callable[[], Exception] | None = None
        # What a look at the partitions needs first, if anything: one test on a hot path.
        self._before_use: Callable[[], Any] | None = self.refresh if owner.is_read_only else None
        self._refresh_lock = threading.Lock()
        self._partitions = tuple(Partition(self, n) for n in range(state.partition_count))

    # ------------------------------------------------------------ what it is

    @property
    def name(self) -> str:
        """The topic's name."""
        return self._state.name

    @property
    def id(self) -> uuid.UUID:
        """What tells it from a topic of the same name that was deleted."""
        return self._state.id

    @property
    def config(self) -> TopicConfig:
        """Its present settings."""
        return self._state.config

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """Its partitions, by number."""
        if self._before_use is not None:
            self._before_use()
        return self._partitions

    def __getitem__(self, number: int) -> Partition:
        check_whole("partition", number, low=None)
        partitions = self.partitions
        if not 0 <= number < len(partitions):
            raise UnknownPartitionError(
                f"{self.name} has no partition {number}; it has 0 to {len(partitions) - 1}"
            )
        return partitions[number]

    def __len__(self) -> int:
        return len(self.partitions)

    def __iter__(self) -> Iterator[Partition]:
        return iter(self.partitions)

    def __repr__(self) -> str:
        return f"<Topic {self.name} of {len(self._partitions)} partitions>"

    def partition_for(self, key: BytesLike) -> int:
        """Return the number of the partition that a key goes to (librdkafka's ``consistent``)."""
        as_bytes = bytes_of("key", key)
        if as_bytes is None:
            raise TypeError("key is None; a record without a key may go to any partition")
        return zlib.crc32(as_bytes) % len(self.partitions)

    def table(self) -> Table:
        """Return the latest value of each key as a read-only mapping that keeps up to date.

        Keep it: each call reads the topic anew.
        """
        from minilog.table import Table  # most programs have none

        return Table(self)

    # ------------------------------------------------------------ changing it

    def configure(self, **settings: Any) -> None:
        """Change settings, at once and for good; ConfigError changes none."""
        with self._owner.guard:
            self._check_open()
            self._owner.check_writable()
            config = self.config.override(settings)
            check_codec(config.compression)
            self._owner.before_write()
            self._save(self._state._replace(config=config))
            for partition in self._partitions:
                partition.configure()
        self._owner.have_house_kept(self.config)

    def compact(self) -> CompactionReport:
        """Roll and compact now, whatever the dirty ratio, and say what that did.

        Appends and reads go on meanwhile; ``partition.compaction`` tells how far it is.
        ConfigError unless ``cleanup_policy`` has ``"compact"``.
        """
        self._check_open()
        self._owner.check_writable()
        if not self.config.is_compacted:
            raise ConfigError(
                f"{self.name} has cleanup_policy={self.config.cleanup_policy!r}; compact() needs "
                'one with "compact" in it'
            )
        now_ms = self.clock.now_ms()
        done = [partition.run_compaction(now_ms, lambda: None) for partition in self.partitions]
        return CompactionReport(*(sum(each[field] for each in done) for field in range(4)))

    def add_partitions(self, total: int) -> None:
        """Have ``total`` partitions from now on; only ever more. No record moves, so keys may
        map elsewhere than before."""
        with self._owner.guard:
            self._check_open()
            self._owner.check_writable()
            before = len(self._partitions)
            check_partition_count(total)
            if total < before:
                raise InvalidPartitionsError(
                    f"total is {total}; {self.name} has {before} partitions and cannot have fewer"
                )
            if total == before:
                return
            self._owner.before_write()
            make_partitions(self._directory, self.id, range(before, total), self._owner.clock)
            self._save(self._state._replace(partition_count=total))
            self._owner.partitions_made(self, range(before, total))
            added = tuple(Partition(self, number) for number in range(before, total))
            self._partitions += added
            self._owner.topic_changed()

    def _save(self, state: TopicState) -> None:
        state.save(self._directory)
        self._state, self._stamp = state, self._directory.stamp(TOPIC_FILE)

    # ------------------------------------------------------------ for its partitions

    @property
    def clock(self) -> Clock:
        """The broker's clock."""
        return self._owner.clock

    @property
    def is_read_only(self) -> bool:
        """Whether the broker was opened with ``read_only=True``."""
        return self._owner.is_read_only

    @property
    def is_sync_always(self) -> bool:
        """Whether an append returns when it is on the disk."""
        return self._owner.is_sync_always

    def open_log(self, partition: int) -> Log:
        """Open a partition's files."""
        return self._owner.open_log(self, partition)

    def before_write(self) -> None:
        """Have the broker note that its files are about to change."""
        self._owner.before_write()

    def start_offset(self, partition: int) -> int:
        """Return the first offset that is kept of a partition."""
        return self._state.start_offsets.get(partition, 0)

    def raise_start_offset(self, partition: int, offset: int) -> None:
        """Set the first offset that is kept of a partition, for good."""
        with self._owner.guard:
            self._check_open()
            starts = dict(self._state.start_offsets)
            starts[partition] = max(offset, starts.get(partition, 0))
            self._save(self._state._replace(start_offsets=starts))
            self._partitions[partition].take_start(starts[partition])

    def stable_offset(self, partition: int, end_offset: int) -> int:
        """Return the first offset of the oldest open transaction in a partition, or its end."""
        first = self._owner.first_open_offset(self.id.bytes, partition)
        return end_offset if first is None else min(first, end_offset)

    def hides(self, transaction: int) -> bool:
        """Say whether a transaction's records are not to be seen by ``read_committed``."""
        return self._owner.hides(transaction)

    def is_aborted(self, transaction: int) -> bool:
        """Say whether a transaction's records never were."""
        return self._owner.is_aborted(transaction)

    @property
    def has_transactions(self) -> bool:
        """Whether there ever was a transaction."""
        return self._owner.has_transactions

    def flush_all(self) -> None:
        """Return when everything appended to any topic is on the disk."""
        self._owner.flush_all()

    def committed_floor(self, partition: int) -> int | None:
        """Return the offset that the groups it is retained for have all committed, or None."""
        groups = self.config.retain_until_consumed
        return self._owner.committed_floor(self, partition, groups)

    def note(self, error: Exception) -> None:
        """Keep an error that nobody is there to be told."""
        self._owner.note(error)

    # ------------------------------------------------------------ for the broker

    @property
    def all_partitions(self) -> tuple[Partition, ...]:
        """Its partitions, also when it was refused."""
        return self._partitions

    @property
    def directory(self) -> Directory:
        """Where it is kept."""
        return self._directory

    def partition_directory(self, partition: int) -> Directory:
        """Return where a partition is kept."""
        return self._directory.child(str(partition))

    def identity(self, partition: int) -> bytes:
        """Return what the checksums of a partition's records are seeded with."""
        return log_identity(self.id, partition)

    def refresh(self) -> None:
        """Take in what a writer in another process has changed; UnknownTopicError when it is
        gone, also when another of the same name is there now."""
        stamp = self._directory.stamp(TOPIC_FILE)
        if stamp == self._stamp:
            return
        with self._refresh_lock:
            state = TopicState.load(self._directory) if stamp else None
            if state is None or state.id != self.id:
                raise UnknownTopicError(f"topic {self.name!r} was deleted")
            self._state, self._stamp = state, stamp
            for partition in self._partitions:
                partition.take_start(self.start_offset(partition.index))
            known = len(self._partitions)
            added = tuple(Partition(self, n) for n in range(known, state.partition_count))
            self._partitions += added

    def readmit(self) -> None:
        """Take calls again, after it was refused for nothing."""
        self._refusal = None
        self._before_use = self.refresh if self._owner.is_read_only else None
        for partition in self._partitions:
            partition.readmit()

    def is_gone(self) -> bool:
        """Say whether another process has deleted it."""
        try:
            self.refresh()
        except UnknownTopicError:
            return True
        return False

    def close(self, refusal: Callable[[], Exception]) -> None:
        """Refuse every later call; its partitions are closed one by one."""
        self._refusal = refusal
        self._before_use = self._check_open

    def abandon(self, refusal: Callable[[], Exception]) -> None:
        """Refuse every later call and let go of the files as they are."""
        self._refusal = refusal
        self._before_use = self._check_open
        for partition in self._partitions:
            partition.abandon(refusal)

    def refuse_in_child(self, refusal: Callable[[], Exception]) -> None:
        """Refuse every call in a child of fork."""
        self._refusal = refusal
        self._before_use = self._check_open
        for partition in self._partitions:
            partition.refuse_in_child(refusal)

    def _check_open(self) -> None:
        if self._refusal is not None:
            raise self._refusal()
