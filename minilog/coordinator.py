"""A group's coordinator: who is in it, which partitions each member has, and for how long.

Kafka's group coordinator as a class: joining and leaving are calls, and done when they return.
Who has which partition stands in ``ownership.py``: an owner gives one up inside its own poll, and
until then nobody else has it. Where those begin who begin at the end stands in ``pins.py``.

A member that polls no more is out when its ``max_poll_interval_ms`` is over by the broker's
clock; that is looked at whenever anybody has a question, so no thread is needed. One that named
itself (*static*) keeps its partitions for that long after it was closed.

Lock order: consumer → coordinator → ledger → broker → partition. No code of the user's runs under
this lock: assignors are called without it, and what they were asked may have changed meanwhile.
This module refuses to know positions, callbacks and what has been read.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from minilog.assignors import assign
from minilog.clock import Clock, Waiters
from minilog.errors import (
    CommitError,
    ConfigError,
    GroupError,
    UnknownMemberError,
    UnknownTopicError,
)
from minilog.ledger import Ledger
from minilog.ownership import Member, Ownership, Share
from minilog.partition import Partition
from minilog.pins import Pins
from minilog.records import TopicPartition
from minilog.registers import Place
from minilog.topic import Topic


class Registry(Protocol):
    """What a coordinator needs of its broker."""

    @property
    def clock(self) -> Clock: ...
    @property
    def changes(self) -> int: ...
    @property
    def topics(self) -> Mapping[str, Topic]: ...
    @property
    def ledger(self) -> Ledger: ...
    def topic(self, name: str) -> Topic: ...


class Commit(NamedTuple):
    """Offsets to commit for a member, or for nobody in particular; ``read`` has the partitions
    they were read from, as there may be another topic of that name by now."""

    member: Member | None
    offsets: Mapping[TopicPartition, int]
    read: Mapping[TopicPartition, Partition]


class Coordinator(Waiters):
    """The members of one group and their partitions."""

    def __init__(self, broker: Registry, name: str) -> None:
        super().__init__()
        self.name = name
        self._broker = broker
        self._lock = threading.Lock()
        self._members: dict[str, Member] = {}
        self._ownership = Ownership()
        self._pins = Pins(broker)
        self._dropped: deque[Member] = deque()  # whose consumers nobody refers to any more
        self._ticket = 0  # changes with what an assignor is asked
        self._is_due = False  # an assignor must be asked
        self._named = 0
        self._seen_changes = -1
        self.generation = 0
        self.version = 0  # changes with what anybody has

    # ------------------------------------------------------------ joining and leaving

    def join(self, member: Member, member_id: str | None) -> bool:
        """Take a member in, or take what it subscribes to now; it has its share at once.

        Say whether it was out: whatever it had before, it has lost.
        """
        with self._lock:
            self._reap()
            self.check_in(member)
            self._look_at_topics()  # before it is in: partitions that came are late for others
            for other in self._members.values():
                if other is not member and other.assignor != member.assignor:
                    raise ConfigError(
                        f"group {self.name!r} shares by {other.assignor!r}, this consumer asks for "
                        f"{member.assignor!r}; all members of a group must ask for the same"
                    )
            was_out = member.is_out
            self._enter(member, member_id)
        try:
            self.settle()
        except BaseException:
            with self._lock:
                self._remove(member)
            raise
        return was_out

    def _enter(self, member: Member, member_id: str | None) -> None:
        if member.is_out:
            member.id = member_id or member.id or self._free_id()
            member.is_static = member_id is not None
            before = self._members.get(member.id)
            if before is not None:
                before.is_out = before.is_replaced = True
                self._ownership.replace(before, member)
            member.is_out = False
            self.touch(member)
            self._members[member.id] = member
        if member.is_latest:
            self._pins.note(self._topics_of(member), is_first=True)
        self._seen_changes = -1  # what it subscribes to may be new to the group
        self._look_at_topics()
        self._change()

    def _free_id(self) -> str:
        while True:
            self._named += 1
            name = f"{self.name}-{self._named:04}"
            if name not in self._members:
                return name

    def leave(self, member: Member, *, for_good: bool) -> None:
        """Let a member go; a static one, unless ``for_good``, keeps its partitions a while."""
        with self._lock:
            if member.is_static and not for_good and not member.is_out:
                member.held.clear()
                member.polls = 0
                self.touch(member)
                return
            self._remove(member)
        self.settle()

    def drop(self, member: Member) -> None:
        """Note that a member's consumer was lost; no lock is taken, as a collector may call."""
        self._dropped.append(member)
        self._wake()

    def _remove(self, member: Member) -> None:
        member.is_out = True
        member.held.clear()
        member.gone.clear()
        if self._members.get(member.id) is member:
            del self._members[member.id]
        self._ownership.remove(member)
        self._change()

    def _change(self) -> None:
        self._ticket += 1
        self._is_due = True

    # ------------------------------------------------------------ sharing out

    def settle(self) -> None:
        """Share the partitions out anew where members or topics have changed.

        What an assignor of the user's raises comes out, and everybody keeps what they have.
        """
        while True:
            with self._lock:
                self._reap()
                self._look_at_topics()
                if not self._is_due:
                    return
                ticket, members = self._ticket, sorted(self._members)
                topics = {name: self._members[name].topics for name in members}
                now = self._ownership.by_member(members)
                wanted = frozenset().union(*topics.values())
                there = self._ownership.partitions
                partitions = sorted(tp for tp in there if tp.topic in wanted)
                assignor = self._members[members[0]].assignor if members else "sticky"
            shares = assign(assignor, topics, partitions, now)
            with self._lock:
                if ticket == self._ticket:
                    self._install(shares)
                    return

    def _install(self, shares: Mapping[str, set[TopicPartition]]) -> None:
        self._ownership.install(
            {tp: self._members[name] for name, share in shares.items() for tp in share}
        )
        self._is_due = False
        self.generation += 1
        self._announce()

    def _announce(self) -> None:
        self.version += 1
        self._wake()

    def _reap(self) -> None:
        """Let those go whose consumers were dropped, or who have not polled for too long."""
        while self._dropped:
            member = self._dropped.popleft()
            if member.is_static:
                member.held.clear()
                member.polls = 0
            else:
                self._remove(member)
        for member in list(self._members.values()):
            if not member.polls and self.is_late(member):
                self._remove(member)

    def _look_at_topics(self) -> None:
        """Take in topics and partitions that have come or gone."""
        changes = self._broker.changes
        if changes == self._seen_changes:
            return
        for member in self._members.values():
            member.topics = self._topics_of(member)
        names = {name for member in self._members.values() for name in member.topics}
        held = {tp.topic for member in self._members.values() for tp in member.held}
        names |= {name for name in held if name in self._broker.topics}  # until they are given up
        there = {
            TopicPartition(name, partition.index): partition
            for name in sorted(names)
            for partition in self._broker.topic(name)
        }
        if self._ownership.take_in(there):
            if any(member.is_latest for member in self._members.values()):
                self._pins.note(frozenset(names), is_first=False)
            self._change()
        self._seen_changes = changes

    def _topics_of(self, member: Member) -> frozenset[str]:
        there = self._broker.topics
        if member.pattern is not None:
            return frozenset(name for name in there if member.pattern.match(name))
        return frozenset(name for name in member.names if name in there)

    def _now_ms(self) -> int:
        return self._broker.clock.now_ms()

    # ------------------------------------------------------------ what a member asks

    def enter_poll(self, member: Member) -> None:
        """Note that a thread of a member begins a poll; while it waits there, it polls."""
        if not member.polls and self.is_late(member):
            self.settle()
        with self._lock:
            member.polls += 1

    def leave_poll(self, member: Member) -> None:
        """Note that a thread has returned from its poll: from now on it must poll again in time."""
        with self._lock:
            self.touch(member)
            member.polls = max(member.polls - 1, 0)

    def touch(self, member: Member) -> None:
        """Note that a member is alive: the time to its next poll counts from now."""
        member.last_poll_ms = self._now_ms()

    def is_late(self, member: Member) -> bool:
        """Say whether a member's time to poll is over."""
        return self._now_ms() - member.last_poll_ms >= member.max_poll_interval_ms

    def has_changed(self, member: Member) -> bool:
        """Say whether a member's share may have changed since it last took note."""
        if not self.is_quiet(member):
            self.settle()
        return member.is_out or member.seen_version != self.version

    def is_quiet(self, member: Member) -> bool:
        """Say whether a member's share is what it was when it last took note."""
        if member.seen_version != self.version or self._dropped or self._is_due:
            return False
        if member.is_out or self._broker.changes != self._seen_changes:
            return False
        left = self.seconds_to_expiry(member)
        return left is None or left > 0

    def seconds_to_expiry(self, member: Member) -> float | None:
        """Return how long it is until another member may be out; None if none may."""
        now_ms = self._now_ms()
        ends = [
            other.last_poll_ms + other.max_poll_interval_ms - now_ms
            for other in list(self._members.values())
            if other is not member and not other.polls
        ]
        return max(min(ends), 0) / 1000 if ends else None

    def share(self, member: Member, *, is_told: bool = False) -> Share | None:
        """Return what a member has; None when it is out. ``is_told``: it takes note, so that from
        now on it must give up itself what it is to lose."""
        with self._lock:
            if member.is_out:
                return None
            share = self._ownership.share(member)
            if is_told:
                member.held = set(share.partitions)
                member.seen_version = self.version
            return share

    def release(self, member: Member, revoked: list[TopicPartition]) -> None:
        """Take partitions from a member that gives them up, and hand them on."""
        with self._lock:
            self._ownership.release(member, revoked)
            self._announce()

    def check_in(self, member: Member) -> None:
        """Raise UnknownMemberError when another consumer has taken a member's name."""
        if member.is_replaced:
            raise UnknownMemberError(
                f"another consumer has joined group {self.name!r} as {member.id!r} and has its "
                "partitions now; close this one"
            )

    # ------------------------------------------------------------ offsets

    def first_offset(
        self, tp: TopicPartition, partition: Partition, *, reads_committed: bool
    ) -> int:
        """Return where one begins who begins at the end: the same for every member, for good."""
        with self._lock:
            place = self.place_of(tp)
            return self._pins.first_offset(place, partition, reads_committed=reads_committed)

    def place_of(self, tp: TopicPartition) -> Place:
        """Return a partition by the id of its topic; UnknownTopicError."""
        return Place(self._broker.topic(tp.topic).id.bytes, tp.partition)

    def commit(self, commit: Commit, *, leaves_out: bool = False) -> dict[TopicPartition, int]:
        """Commit for a member, or for nobody in particular while there are none; return what was.

        CommitError where a partition is not the member's, was read of a topic that is no more, or
        an offset is beyond the end; then nothing is committed, or, if it ``leaves_out`` those,
        the others.
        """
        ledger = self._broker.ledger
        with self.holding((commit,), leaves_out=leaves_out) as offsets:
            if not offsets:
                return {}
            places = {place: offset for _, place, offset in offsets}
            end = ledger.commit(self.name, places)
        ledger.wait_until_kept(end)
        return {tp: offset for tp, _, offset in offsets}

    @contextlib.contextmanager
    def holding(
        self, commits: Iterable[Commit], *, leaves_out: bool = False
    ) -> Iterator[list[tuple[TopicPartition, Place, int]]]:
        """Say what may be committed, and have nobody get a partition between that look and the
        commit."""
        offsets = []
        with self._lock:
            self._reap()
            for commit in commits:
                for tp, offset in commit.offsets.items():
                    try:
                        offsets.append((tp, self._place_to_commit(commit, tp), offset))
                    except (CommitError, UnknownMemberError):
                        if not leaves_out:
                            raise
            yield offsets

    def _place_to_commit(self, commit: Commit, tp: TopicPartition) -> Place:
        member, offset = commit.member, commit.offsets[tp]
        name = f"{tp.topic}-{tp.partition}"
        if member is None and self._members:
            raise CommitError(
                f"offset {offset} of {name} was not committed: group {self.name!r} has members, "
                "and only they may commit"
            )
        if member is not None:
            self.check_in(member)
            if member.is_out or not self._ownership.is_owner(member, tp):
                raise CommitError(
                    f"offset {offset} of {name} was not committed: the partition is not this "
                    f"member's ({member.id!r} of group {self.name!r}), or no longer; poll to "
                    "learn what is"
                )
        try:
            partition = self._broker.topic(tp.topic)[tp.partition]
        except UnknownTopicError:
            raise CommitError(f"{name} was not committed: the topic was deleted") from None
        was = partition if member is None else self._ownership.partitions[tp]
        if not partition is was is commit.read.get(tp, was):
            raise CommitError(
                f"offset {offset} of {name} was not committed: the topic it was read from was "
                "deleted, and this one is another of its name"
            )
        end = partition.end_offset
        if offset > end:
            raise CommitError(
                f"offset {offset} of {name} was not committed: the partition ends at {end}"
            )
        return Place(partition.topic_id, partition.index)

    # ------------------------------------------------------------ from outside

    def members(self) -> dict[str, frozenset[TopicPartition]]:
        """Return the members' ids and what each has now."""
        self.settle()
        with self._lock:
            shares = self._ownership.by_member(sorted(self._members))
        return {name: frozenset(share) for name, share in shares.items()}

    def state(self) -> str:
        """Return ``"empty"``, ``"rebalancing"`` or ``"stable"``."""
        self.settle()
        with self._lock:
            if not self._members:
                return "empty"
            return "stable" if self._ownership.is_settled else "rebalancing"

    def forget(self) -> None:
        """Forget all that was committed; GroupError while there are members."""
        ledger = self._broker.ledger
        self.settle()
        with self._lock:
            if self._members:
                raise GroupError(
                    f"group {self.name!r} cannot be deleted: it has members "
                    f"({', '.join(self._members)}); close them first"
                )
            self._pins.clear()
            end = ledger.forget(self.name)
        ledger.wait_until_kept(end)
