"""Assignors: which member of a group reads which partitions.

Pure functions over plain values, the same for the same input. ``range`` and ``roundrobin`` are
Kafka's; ``sticky`` is balanced and moves no more than it must (as Kafka's cooperative sticky
assignor). This module refuses to know members, offsets and time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import cycle, islice
from typing import Any

from minilog.errors import ConfigError
from minilog.records import TopicPartition

Topics = Mapping[str, frozenset[str]]  # member id -> the topics it subscribes to
Shares = dict[str, set[TopicPartition]]  # member id -> its partitions
Assignor = Callable[[Topics, list[TopicPartition]], Mapping[str, Iterable[Any]]]


def assign(
    assignor: str | Assignor, topics: Topics, partitions: list[TopicPartition], now: Shares
) -> Shares:
    """Return who is to read what; ``now`` is who reads what at present.

    ``topics`` and ``partitions`` are sorted. ConfigError when an assignor of the user's gives a
    partition twice, to nobody's member, or to one that did not subscribe to its topic.
    """
    if assignor == "sticky":
        return _sticky(topics, partitions, now)
    if assignor == "range":
        return _range(topics, partitions)
    if assignor == "roundrobin":
        return _roundrobin(topics, partitions)
    assert callable(assignor)
    return _checked(assignor(dict(topics), list(partitions)), topics, partitions)


def check_assignor(given: object) -> None:
    """Raise ConfigError unless ``given`` names an assignor or is a callable."""
    if given not in ("range", "roundrobin", "sticky") and not callable(given):
        raise ConfigError(
            f"assignor is {given!r}; it must be 'range', 'roundrobin', 'sticky' or a callable "
            "(members, partitions) -> {member id: partitions}"
        )


def _range(topics: Topics, partitions: list[TopicPartition]) -> Shares:
    """Topic by topic, neighbours together; the first members get one more where it is uneven."""
    shares: Shares = {member: set() for member in topics}
    for topic in sorted({tp.topic for tp in partitions}):
        members = [member for member, wanted in topics.items() if topic in wanted]
        if not members:
            continue
        own = [tp for tp in partitions if tp.topic == topic]
        each, rest = divmod(len(own), len(members))
        start = 0
        for number, member in enumerate(members):
            stop = start + each + (number < rest)
            shares[member].update(own[start:stop])
            start = stop
    return shares


def _roundrobin(topics: Topics, partitions: list[TopicPartition]) -> Shares:
    """All partitions in order, one to each member in turn that subscribed to the topic."""
    shares: Shares = {member: set() for member in topics}
    turn = cycle(topics)
    for tp in partitions:
        if any(tp.topic in wanted for wanted in topics.values()):
            member = next(member for member in turn if tp.topic in topics[member])
            shares[member].add(tp)
    return shares


def _sticky(topics: Topics, partitions: list[TopicPartition], now: Shares) -> Shares:
    """Everybody keeps what they have, as far as that is even; the rest goes to who has least."""
    there = set(partitions)
    shares: Shares = {
        member: {tp for tp in now.get(member, ()) if tp in there and tp.topic in wanted}
        for member, wanted in topics.items()
    }
    if len(set(topics.values())) == 1:
        _level(shares, [tp for tp in partitions if tp.topic in next(iter(topics.values()))])
    else:
        _move_one_by_one(shares, topics, partitions)
    return shares


def _level(shares: Shares, partitions: list[TopicPartition]) -> None:
    """Share out evenly among members who all read the same; who has most keeps one more."""
    each, rest = divmod(len(partitions), len(shares))
    members = sorted(shares, key=lambda member: -len(shares[member]))
    quotas = {member: each + (number < rest) for number, member in enumerate(members)}
    for member, share in shares.items():
        share.difference_update(sorted(share)[quotas[member] :])
    taken = set().union(*shares.values())
    free = iter([tp for tp in partitions if tp not in taken])
    for member, share in shares.items():
        share.update(islice(free, quotas[member] - len(share)))


def _move_one_by_one(shares: Shares, topics: Topics, partitions: list[TopicPartition]) -> None:
    """Give what is free to who has least of those who read it; then, while somebody has two more
    than another who could take one, move one, from who has most to who has least: taking them in
    another order would move some twice."""
    readers: dict[str, list[str]] = {tp.topic: [] for tp in partitions}
    for member, wanted in topics.items():
        for topic in wanted & readers.keys():
            readers[topic].append(member)
    taken = set().union(*shares.values()) if shares else set()
    for tp in partitions:
        if tp not in taken and readers[tp.topic]:
            shares[_least(readers[tp.topic], shares)].add(tp)
    while move := _next_move(readers, shares):
        tp, giver, taker = move
        shares[giver].remove(tp)
        shares[taker].add(tp)


def _least(members: Iterable[str], shares: Shares) -> str:
    return min(members, key=lambda member: len(shares[member]))


def _next_move(
    readers: dict[str, list[str]], shares: Shares
) -> tuple[TopicPartition, str, str] | None:
    """Return a partition, who is to give it and who to take it; None when all is even."""
    least = min(map(len, shares.values()), default=0)
    takers: dict[str, str] = {}
    for giver in sorted(shares, key=lambda member: -len(shares[member])):
        if len(shares[giver]) - least < 2:
            return None
        for tp in sorted(shares[giver], reverse=True):
            if tp.topic not in takers:
                takers[tp.topic] = _least(readers[tp.topic], shares)
            if len(shares[giver]) - len(shares[takers[tp.topic]]) > 1:
                return tp, giver, takers[tp.topic]
    return None


def _checked(given: Any, topics: Topics, partitions: list[TopicPartition]) -> Shares:
    """Return what a user's assignor gave, if it may stand."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"the assignor returned {given!r}; it must be {{member: partitions}}")
    shares: Shares = {member: set() for member in topics}
    left = set(partitions)
    for member, share in given.items():
        if member not in shares:
            raise ConfigError(f"the assignor gave partitions to {member!r}, who is no member")
        for named in _pairs(member, share):
            if named not in left:
                raise ConfigError(f"the assignor gave {named} twice, or there is no such one")
            if named.topic not in topics[member]:
                raise ConfigError(f"the assignor gave {named} to {member!r}, who did not subscribe")
            left.remove(named)
            shares[member].add(named)
    return shares


def _pairs(member: str, share: Any) -> list[TopicPartition]:
    try:
        named = [TopicPartition(*tp) for tp in share]
        hash(tuple(named))  # or it is of a kind that no partition's name can be
    except TypeError:
        raise ConfigError(
            f"the assignor gave {member!r} {share!r}; it must be (topic, partition) pairs"
        ) from None
    return named
