"""After a crash: what was decided about records that are gone is taken back, and reported."""

from __future__ import annotations

from typing import Any

from minilog import CorruptionError
from minilog.registers import Ending, Place
from minilog.survival import Survival

TOPIC = bytes(16)
FIRST, SECOND, BEYOND = (Place(TOPIC, number) for number in (0, 1, 7))
DELETED = Place(b"d" * 16, 0)


class EndsAtTen:
    """A partition that ends at offset 10 after the crash."""

    path = "log/t/0"
    end_offset = 10


class Unreadable:
    """A partition that cannot be opened."""

    path = "log/t/1"

    @property
    def end_offset(self) -> int:
        raise CorruptionError("it is damaged", path=self.path)


def survival() -> Survival:
    topic: Any = [EndsAtTen(), Unreadable()]
    return Survival({TOPIC: topic}.get)


def test_a_transaction_all_of_whose_records_are_there_is_whole() -> None:
    judge = survival()
    assert judge.is_whole(Ending(True, {FIRST: 10}, {}))
    assert judge.problems == []


def test_a_transaction_that_lacks_a_record_is_not_whole_and_that_is_said() -> None:
    judge = survival()
    assert not judge.is_whole(Ending(True, {FIRST: 11}, {}))
    (problem,) = judge.problems
    assert problem.path == "log/t/0"
    assert "ends at 10 after the crash: it is aborted" in problem.reason


def test_nothing_is_said_of_partitions_that_are_gone_or_cannot_be_opened() -> None:
    judge = survival()
    places = {SECOND: 99, BEYOND: 99, DELETED: 99}
    assert judge.is_whole(Ending(True, places, {}))
    offsets = dict(places)
    assert not judge.take_back("g", offsets)
    assert offsets == places
    assert judge.problems == []


def test_commits_beyond_the_end_are_taken_back_to_it() -> None:
    judge = survival()
    offsets = {FIRST: 12, SECOND: 3}
    assert judge.take_back("g", offsets)
    assert offsets == {FIRST: 10, SECOND: 3}
    (problem,) = judge.problems
    assert "group 'g' had committed 12" in problem.reason
    assert not judge.take_back("g", offsets), "it is at the end now"
