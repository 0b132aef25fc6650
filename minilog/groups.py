"""Groups seen from outside: who is in them, what they have committed, how far behind they are.

This module refuses to know how partitions are shared out and where offsets are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol

from minilog.arguments import check_whole, names_of
from minilog.config import some_of
from minilog.coordinator import Commit, Coordinator
from minilog.errors import ConfigError, GroupError
from minilog.ledger import Ledger
from minilog.partition import Partition
from minilog.records import TopicPartition, timestamp_of
from minilog.topic import Topic

LONGEST_NAME = 249


class Host(Protocol):
    """What groups need of their broker."""

    @property
    def ledger(self) -> Ledger: ...
    def topic(self, name: str) -> Topic: ...
    def topic_by_id(self, topic_id: bytes) -> Topic | None: ...
    def check_open(self) -> None: ...
    def check_writable(self) -> None: ...
    def group_names(self) -> list[str]: ...
    def coordinator(self, group: str) -> Coordinator: ...


class Group:
    """A consumer group, as ``broker.groups`` shows it: live."""

    def __init__(self, broker: Host, name: str) -> None:
        self._broker = broker
        self._name = name

    @property
    def name(self) -> str:
        """The group's name."""
        return self._name

    @property
    def state(self) -> str:
        """``"empty"`` without members; ``"rebalancing"`` while one has yet to poll so that another
        gets its partitions; else ``"stable"``."""
        return self._coordinator().state()

    @property
    def generation(self) -> int:
        """How often its partitions were shared out, in this process."""
        return self._coordinator().generation

    @property
    def members(self) -> dict[str, frozenset[TopicPartition]]:
        """The partitions of each member, by member id."""
        return self._coordinator().members()

    def committed(self) -> dict[TopicPartition, int]:
        """Return the committed offset of each partition that has one."""
        self._broker.check_open()
        found = {}
        for place, offset in self._broker.ledger.committed(self._name).items():
            topic = self._broker.topic_by_id(place.topic_id)
            if topic is not None and place.partition < len(topic):
                found[TopicPartition(topic.name, place.partition)] = offset
        return dict(sorted(found.items()))

    def lag(self) -> dict[TopicPartition, int]:
        """Return how many offsets each partition's end is ahead of what was committed, or, of
        what a member has without a commit, ahead of its start."""
        committed = self.committed()
        assigned = frozenset[TopicPartition]().union(*self.members.values())
        found = {}
        for tp in sorted(assigned | set(committed)):
            partition = self._broker.topic(tp.topic)[tp.partition]
            behind = partition.stable_offset - committed.get(tp, partition.start_offset)
            found[tp] = max(behind, 0)
        return found

    def reset(
        self,
        topics: str | Iterable[str] | None = None,
        *,
        to: str | int | datetime | Mapping[str, int],
        dry_run: bool = False,
    ) -> dict[TopicPartition, tuple[int | None, int]]:
        """Commit other offsets and return, by partition, what was committed and what is now.

        ``to``: ``"earliest"``, ``"latest"``, an offset, an aware datetime (the first record at or
        after it, else the end) or ``{"shift": n}`` of what is committed; what would be outside of
        a partition becomes its nearer end. Of all partitions of these topics; None: of those with
        a commit. ``dry_run`` commits nothing. GroupError while it has members.
        """
        target = _target(to)
        if not dry_run:
            self._broker.check_writable()
        members = self.members
        if members and not dry_run:
            raise GroupError(
                f"group {self._name!r} cannot be reset: it has members ({', '.join(members)}); "
                "close them first"
            )
        committed = self.committed()
        chosen = list(committed)
        if topics is not None:
            names = names_of(topics)
            chosen = [TopicPartition(n, p.index) for n in names for p in self._broker.topic(n)]
        changed: dict[TopicPartition, tuple[int | None, int]] = {}
        for tp in chosen:
            partition = self._broker.topic(tp.topic)[tp.partition]
            before = committed.get(tp)
            wanted = target(partition, before)
            wanted = min(max(wanted, partition.start_offset), partition.end_offset)
            changed[tp] = (before, wanted)
        if not dry_run:
            after = {tp: offset for tp, (_, offset) in changed.items()}
            self._coordinator().commit(Commit(None, after, {}))
        return changed

    def _coordinator(self) -> Coordinator:
        self._broker.check_open()
        return self._broker.coordinator(self._name)

    def __repr__(self) -> str:
        return f"<Group {self._name}>"


def _target(to: Any) -> Callable[[Partition, int | None], int]:
    """Return what finds the offset that ``reset(to=...)`` means; ConfigError."""
    if to == "earliest":
        return lambda partition, before: partition.start_offset
    if to == "latest":
        return lambda partition, before: partition.end_offset
    if isinstance(to, datetime):
        timestamp = timestamp_of(to)

        def at_time(partition: Partition, before: int | None) -> int:
            found = partition.offset_at(timestamp)
            return partition.end_offset if found is None else found

        return at_time
    if isinstance(to, Mapping) and list(to) == ["shift"]:
        shift: int = to["shift"]
        check_whole("shift", shift, low=None)
        return lambda partition, before: (
            (partition.start_offset if before is None else before) + shift
        )
    if isinstance(to, int) and not isinstance(to, bool):
        offset = to
        check_whole("to", offset)
        return lambda partition, before: offset
    raise ConfigError(
        f'to is {to!r}; it must be "earliest", "latest", an offset, an aware datetime or '
        '{"shift": n}'
    )


class Groups(Mapping[str, Group]):
    """The groups of a broker by name: those that have committed or have members; live, sorted."""

    def __init__(self, broker: Host) -> None:
        self._broker = broker

    def _names(self) -> list[str]:
        self._broker.check_open()
        return self._broker.group_names()

    def __getitem__(self, name: str) -> Group:
        if name not in self._names():
            raise KeyError(name)
        return Group(self._broker, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __repr__(self) -> str:
        return f"<Groups {some_of(self)}>"


def check_group_name(name: object, what: str = "group") -> None:
    """Raise ConfigError unless ``name`` may be a group's, or a member's."""
    if not isinstance(name, str):
        raise ConfigError(f"{what} is {name!r}; it must be a str")
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise ConfigError(
            f"{what} is {name[:300]!r}; it must be 1 to {LONGEST_NAME} printable characters"
        )
