"""Who has which partition: one owner at any moment, and nobody loses what they were told of."""

from __future__ import annotations

from typing import Any

from minilog import TopicPartition
from minilog.ownership import Member, Ownership

A, B, C = (TopicPartition("t", number) for number in range(3))
PARTITIONS: dict[TopicPartition, Any] = {tp: f"partition {tp.partition}" for tp in (A, B, C)}


def member(name: str) -> Member:
    made = Member("sticky", 1000, is_latest=False)
    made.id = name
    return made


def of(*tps: TopicPartition) -> dict[TopicPartition, Any]:
    return {tp: PARTITIONS[tp] for tp in tps}


def owned(ownership: Ownership, *members: Member) -> dict[str, set[TopicPartition]]:
    return ownership.by_member([each.id for each in members])


def test_what_nobody_has_goes_at_once_to_whom_it_is_meant_for() -> None:
    ownership, one, two = Ownership(), member("one"), member("two")
    assert ownership.take_in(of(A, B))
    ownership.install({A: one, B: two})
    assert owned(ownership, one, two) == {"one": {A}, "two": {B}}
    assert ownership.is_settled
    assert ownership.share(one).partitions == of(A)
    assert ownership.share(one).revoked == []


def test_what_an_owner_was_told_of_stays_until_it_gives_it_up() -> None:
    ownership, one, two = Ownership(), member("one"), member("two")
    ownership.take_in(of(A, B))
    ownership.install({A: one, B: one})
    one.held = {A}  # B it was not told of
    ownership.install({A: two, B: two})
    assert owned(ownership, one, two) == {"one": {A}, "two": {B}}
    assert not ownership.is_settled
    assert ownership.share(one).revoked == [A]
    ownership.release(one, [A])
    assert owned(ownership, one, two) == {"one": set(), "two": {A, B}}
    assert ownership.is_settled


def test_a_term_tells_that_somebody_else_had_it_in_between() -> None:
    ownership, one, two = Ownership(), member("one"), member("two")
    ownership.take_in(of(A))
    ownership.install({A: one})
    before = ownership.share(one).terms[A]
    ownership.install({A: one})
    assert ownership.share(one).terms[A] == before
    ownership.install({A: two})
    ownership.install({A: one})
    assert ownership.share(one).terms[A] > before


def test_nothing_is_handed_to_a_member_that_was_removed() -> None:
    ownership, one, two = Ownership(), member("one"), member("two")
    ownership.take_in(of(A))
    ownership.install({A: one})
    one.held = {A}
    ownership.install({A: two})
    ownership.remove(two)
    ownership.release(one, [A])
    assert owned(ownership, one, two) == {"one": set(), "two": set()}


def test_a_member_that_comes_after_another_has_what_that_had_and_was_to_have() -> None:
    ownership, one, two, after = Ownership(), member("one"), member("two"), member("one")
    ownership.take_in(of(A, B, C))
    ownership.install({A: one, B: two, C: two})
    two.held = {C}
    ownership.install({A: one, B: two, C: one})
    ownership.replace(one, after)
    assert ownership.is_owner(after, A)
    ownership.release(two, [C])
    assert ownership.is_owner(after, C)


def test_of_a_topic_that_was_deleted_its_owner_learns_that_it_is_gone() -> None:
    ownership, one = Ownership(), member("one")
    ownership.take_in(of(A, B))
    ownership.install({A: one, B: one})
    one.held = {A, B}
    assert not ownership.take_in(of(A, B)), "they are the same"
    assert ownership.take_in({**of(A), B: "another of the same name"})
    assert owned(ownership, one) == {"one": {A}}
    assert ownership.share(one).revoked == [B]
    ownership.release(one, [B])
    assert ownership.share(one).revoked == []
