"""Who has which partition of a group, and who is to have it.

Every partition has an *owner* and a *target*, the member that the assignor wants to have it. They
differ only while the owner has yet to give the partition up: until then nobody else has it, so a
partition never has two owners. What an owner was never told of, it need not give up.

A plain value, changed by one caller at a time. This module refuses to know who is in the group and
for how long, who decides what is shared how, and locks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from minilog.assignors import Assignor
from minilog.partition import Partition
from minilog.records import TopicPartition


class Member:
    """One consumer, as its group sees it. Only its coordinator changes it."""

    def __init__(
        self, assignor: str | Assignor, max_poll_interval_ms: int, *, is_latest: bool
    ) -> None:
        self.id = ""
        self.assignor = assignor
        self.max_poll_interval_ms = max_poll_interval_ms
        self.is_latest = is_latest  # begins at the end where nothing is committed
        self.is_static = False
        self.is_out = True  # not in the group: not yet, no more, or not any longer
        self.is_replaced = False  # another consumer has taken its name
        self.names: frozenset[str] = frozenset()
        self.pattern: re.Pattern[str] | None = None
        self.topics: frozenset[str] = frozenset()  # those of them that are there
        self.held: set[TopicPartition] = set()  # what it was told it has
        self.gone: set[TopicPartition] = set()  # what it had of topics that were deleted
        self.polls = 0  # of its threads, so many are in a poll
        self.last_poll_ms = 0
        self.seen_version = -1


class Share(NamedTuple):
    """What a member has, and what of it it must give up."""

    partitions: dict[TopicPartition, Partition]
    terms: dict[TopicPartition, int]  # another number when it was another's in between
    revoked: list[TopicPartition]


class Ownership:
    """The partitions of one group's topics, with the owner and the target of each."""

    def __init__(self) -> None:
        self.partitions: dict[TopicPartition, Partition] = {}
        self._owners: dict[TopicPartition, Member] = {}
        self._targets: dict[TopicPartition, Member] = {}
        self._terms: dict[TopicPartition, int] = {}  # how often each has got another owner

    # ------------------------------------------------------------ who has what

    def is_owner(self, member: Member, tp: TopicPartition) -> bool:
        """Say whether a member has a partition now."""
        return self._owners.get(tp) is member

    def by_member(self, names: Iterable[str]) -> dict[str, set[TopicPartition]]:
        """Return what each of these members has now."""
        shares: dict[str, set[TopicPartition]] = {name: set() for name in names}
        for tp, owner in self._owners.items():
            shares[owner.id].add(tp)
        return shares

    @property
    def is_settled(self) -> bool:
        """Whether everybody has what they are to have."""
        return self._owners == self._targets

    def share(self, member: Member) -> Share:
        """Return what a member has, and what of it it must give up."""
        own = {tp: self.partitions[tp] for tp, o in self._owners.items() if o is member}
        terms = {tp: self._terms[tp] for tp in own}
        revoked = [tp for tp in member.held if self._targets.get(tp) is not member]
        return Share(own, terms, sorted(member.gone.union(revoked)))

    # ------------------------------------------------------------ who is to have what

    def install(self, targets: Mapping[TopicPartition, Member]) -> None:
        """Take what an assignor wants, and hand over what nobody has to give up first."""
        self._targets = dict(targets)
        for tp in self.partitions:
            self._hand_over(tp)

    def _hand_over(self, tp: TopicPartition) -> None:
        """Give a partition to whom it is meant for, unless somebody was told that it is theirs."""
        owner, target = self._owners.get(tp), self._targets.get(tp)
        if owner is target or (owner is not None and tp in owner.held):
            return
        self._terms[tp] = self._terms.get(tp, 0) + 1
        if target is None:
            del self._owners[tp]
        else:
            self._owners[tp] = target

    def release(self, member: Member, revoked: list[TopicPartition]) -> None:
        """Take partitions from a member that gives them up, and hand them on."""
        member.gone.difference_update(revoked)
        for tp in revoked:
            member.held.discard(tp)
            if self._owners.get(tp) is member and self._targets.get(tp) is not member:
                self._hand_over(tp)

    def replace(self, before: Member, member: Member) -> None:
        """Put a member for another one that it comes after."""
        for tp, owner in self._owners.items():
            if owner is before:
                self._owners[tp] = self._targets[tp] = member
        for tp, target in self._targets.items():
            if target is before:
                self._targets[tp] = member

    def remove(self, member: Member) -> None:
        """Forget a member: what it had is nobody's."""
        self._owners = {tp: owner for tp, owner in self._owners.items() if owner is not member}
        # Nor is anything to be handed to it that somebody else gives up before the next sharing.
        self._targets = {tp: target for tp, target in self._targets.items() if target is not member}

    def take_in(self, there: dict[TopicPartition, Partition]) -> bool:
        """Take these partitions for the present ones; False when they are the same."""
        if there == self.partitions:
            return False
        for tp, owner in list(self._owners.items()):
            if there.get(tp) is not self.partitions.get(tp):
                if tp in owner.held:  # deleted, or another topic of the same name
                    owner.held.discard(tp)
                    owner.gone.add(tp)
                del self._owners[tp]
        self.partitions = there
        return True
