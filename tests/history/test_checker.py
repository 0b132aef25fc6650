"""Every anomaly is found, by its name, and what the application has asked for is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.history.anomalies import summary
from tests.history.checker import check
from tests.history.operations import (
    FAILED,
    OK,
    UNKNOWN,
    Assign,
    Commit,
    Committed,
    Contents,
    End,
    Join,
    Leave,
    Lost,
    Poll,
    Reset,
    Revoke,
    Seek,
    Send,
    Tp,
    Trim,
)

T: Tp = ("t", 0)
U: Tp = ("t", 1)
Spot = tuple[int, int]  # an offset and the value there


class Story:
    """A history as it is told: one operation after another, unless ticks are given."""

    def __init__(self) -> None:
        self.operations: list[Any] = []
        self._tick = 0

    def tick(self) -> int:
        self._tick += 1
        return self._tick

    def tell(self, kind: Any, *fields: Any, begin: int | None = None, **more: Any) -> None:
        first = self.tick() if begin is None else begin
        self.operations.append(kind(first, self.tick(), *fields, **more))

    def send(self, who: int, *spots: Spot, tp: Tp = T, **more: Any) -> None:
        offsets = [offset for offset, _ in spots]
        self.tell(Send, who, tp, [value for _, value in spots], offsets, **more)

    def join(self, who: int, group: str | None = "g", **more: Any) -> None:
        self.tell(Join, who, group, **more)

    def assign(self, who: int, committed: int | None, position: int | None, tp: Tp = T) -> None:
        self.tell(Assign, who, {tp: (committed, position)})

    def poll(self, who: int, *spots: Spot, tp: Tp = T, **more: Any) -> None:
        runs = []
        if spots:
            runs = [(tp, [offset for offset, _ in spots], [value for _, value in spots])]
        self.tell(Poll, who, runs, **more)

    def look(self, offset: int | None, tp: Tp = T) -> None:
        self.tell(Committed, 99, "g", {tp: offset})

    def sent(self, count: int) -> Story:
        """Values 10, 11, ... at offsets 0, 1, ..., each sent for itself."""
        for number in range(count):
            self.send(1, (number, 10 + number))
        return self

    def member(self, who: int = 7, **more: Any) -> Story:
        """A member that has just been given a partition of which nothing was committed."""
        self.join(who, **more)
        self.assign(who, None, 0)
        return self

    def anomalies(self, **more: Any) -> list[str]:
        found = check(self.operations, **more)
        print(summary(found))
        return sorted({anomaly.kind for anomaly in found})


def spots(start: int, stop: int) -> list[Spot]:
    return [(offset, 10 + offset) for offset in range(start, stop)]


def lost_write(story: Story) -> None:
    story.sent(3).join(7, None)
    story.poll(7, (0, 10))
    story.tell(Seek, 7, T, 2)
    story.poll(7, (2, 12))


def lost_write_without_an_offset(story: Story) -> None:
    story.tell(Send, 1, T, [10], None)


def unseen(story: Story) -> None:
    story.sent(3).join(7, None)
    story.poll(7, (0, 10), (1, 11))


def unseen_by_a_group(story: Story) -> None:
    story.sent(3).member().poll(7, *spots(0, 2))
    story.tell(Contents, 99, T, [0, 1, 2], [10, 11, 12])


def group_skip(story: Story) -> None:
    """The next owner goes on behind what the first had left undelivered."""
    story.sent(4).member(is_auto=False).poll(7, *spots(0, 1))
    story.tell(Revoke, 7, [T])
    story.join(8)
    story.assign(8, None, None)
    story.poll(8, *spots(2, 4))
    story.tell(Contents, 99, T, [0, 1, 2, 3], [10, 11, 12, 13])


def duplicate(story: Story) -> None:
    story.send(1, (0, 10))
    story.join(7, None)
    story.poll(7, (0, 10), (1, 10))


def duplicate_in_another_partition(story: Story) -> None:
    story.send(1, (0, 10))
    story.join(7, None)
    story.poll(7, (0, 10))
    story.poll(7, (0, 10), tp=U)


def inconsistent_offset(story: Story) -> None:
    story.send(1, (0, 10))
    story.join(7, None)
    story.poll(7, (0, 11))


def two_sends_at_one_offset(story: Story) -> None:
    story.send(1, (0, 10))
    story.send(2, (0, 11))
    story.join(7, None)
    story.poll(7, (0, 11))


def nonmonotonic_send(story: Story) -> None:
    story.tell(Send, 1, T, [11], [1], begin=0)
    story.tell(Send, 1, T, [10], [0], begin=0)  # at once, so that real time says nothing
    story.join(7, None)
    story.poll(7, *spots(0, 2))


def int_nonmonotonic_send(story: Story) -> None:
    story.send(1, (1, 11), (0, 10))
    story.join(7, None)
    story.poll(7, *spots(0, 2))


def realtime_send(story: Story) -> None:
    story.send(1, (1, 11))
    story.send(2, (0, 10))
    story.join(7, None)
    story.poll(7, *spots(0, 2))


def poll_skip(story: Story) -> None:
    story.sent(4).member().poll(7, *spots(0, 1))
    story.poll(7, *spots(2, 4))
    story.join(8, None)
    story.poll(8, *spots(0, 4))
    story.tell(Reset, 99, "g", {T: 4})  # so that nothing else is found


def poll_skip_after_a_seek(story: Story) -> None:
    story.sent(4).member().poll(7, *spots(0, 4))
    story.tell(Seek, 7, T, 1)
    story.poll(7, *spots(2, 4))


def int_poll_skip(story: Story) -> None:
    story.sent(4).join(7, None)
    story.poll(7, (0, 10), (2, 12), (3, 13))
    story.join(8, None)
    story.poll(8, *spots(0, 4))


def nonmonotonic_poll(story: Story) -> None:
    story.sent(3).join(7, None)
    story.poll(7, *spots(0, 3))
    story.poll(7, *spots(2, 3))


def int_nonmonotonic_poll(story: Story) -> None:
    story.sent(3).join(7, None)
    story.poll(7, (0, 10), (2, 12), (1, 11))
    story.poll(7, (2, 12))


def int_nonmonotonic_poll_over_runs(story: Story) -> None:
    story.sent(3).join(7, None)
    story.tell(Poll, 7, [(T, [0, 1], [10, 11]), (T, [1, 2], [11, 12])])


def wrong_resume(story: Story) -> None:
    story.sent(2).member().poll(7, *spots(0, 2))
    story.tell(Leave, 7, True)
    story.join(8)
    story.assign(8, 2, 0)
    story.tell(Leave, 8, False)


def revoked_after_the_next_owner_was_assigned(story: Story) -> None:
    story.member(7)
    story.member(8)
    story.tell(Revoke, 7, [T])


def assigned_while_the_other_was_being_revoked(story: Story) -> None:
    story.member(7)
    story.join(8)
    begin = story.tick()
    story.tell(Revoke, 7, [T])
    story.tell(Assign, 8, {T: (None, 0)}, begin=begin)


def delivered_after_the_next_owner_was_assigned(story: Story) -> None:
    story.sent(2).member(7).member(8).poll(8, *spots(0, 2))
    story.poll(7, *spots(0, 2))


def delivered_after_it_was_revoked(story: Story) -> None:
    story.sent(2).member(7)
    story.tell(Revoke, 7, [T])
    story.poll(7, *spots(0, 2))


def delivered_to_one_that_does_not_tell(story: Story) -> None:
    """It reads between two polls of the owner, so both have the partition."""
    story.sent(3).member(7).poll(7, *spots(0, 1))
    story.join(8, is_telling=False)
    story.poll(8, *spots(0, 3))
    story.poll(7, *spots(1, 3))


def stale_commit(story: Story) -> None:
    story.sent(2).member(7).poll(7, *spots(0, 2))
    story.member(8).poll(8, *spots(0, 2))
    story.tell(Commit, 7, {T: 2})


def commit_regress(story: Story) -> None:
    story.sent(4).member(7, is_auto=False).poll(7, *spots(0, 4))
    story.tell(Commit, 7, {T: 2})
    story.tell(Commit, 7, {T: 4})
    story.look(2)


def commit_regress_to_none(story: Story) -> None:
    story.sent(4).member(7, is_auto=False).poll(7, *spots(0, 4))
    story.tell(Commit, 7, {T: 4})
    story.look(None)


def commit_regress_of_what_was_seen(story: Story) -> None:
    """None of the commits is sure, but the higher one has been seen."""
    story.sent(4).member(7, is_auto=False).poll(7, *spots(0, 4))
    story.tell(Commit, 7, {T: 2}, outcome=UNKNOWN)
    story.tell(Commit, 7, {T: 4}, outcome=UNKNOWN)
    story.look(4)
    story.look(2)


def commit_regress_of_auto_commit(story: Story) -> None:
    story.sent(4).member(7).poll(7, *spots(0, 2))
    story.poll(7, *spots(2, 4))
    story.tell(Leave, 7, True)
    story.look(2)


def commit_of_a_close_that_did_not_stay(story: Story) -> None:
    story.sent(4).member(7).poll(7, *spots(0, 4))
    story.tell(Leave, 7, True)
    story.look(None)


def phantom_commit(story: Story) -> None:
    """Auto-commit covers what the last poll returned before it was known to be done."""
    story.sent(4).member(7).poll(7, *spots(0, 2))
    story.poll(7, *spots(2, 4))
    story.look(4)
    story.poll(7)


def phantom_commit_by_one_that_was_dropped(story: Story) -> None:
    story.sent(2).member(7).poll(7, *spots(0, 2))
    story.tell(Leave, 7, False)
    story.look(2)


def phantom_commit_by_one_that_had_lost(story: Story) -> None:
    story.sent(2).member(7).poll(7, *spots(0, 2))
    story.tell(Lost, 7, [T])
    story.poll(7)
    story.look(2)


def phantom_commit_that_was_refused(story: Story) -> None:
    story.sent(2).member(7, is_auto=False).poll(7, *spots(0, 2))
    story.tell(Commit, 7, {T: 2}, outcome=FAILED)
    story.look(2)


def phantom_commit_of_an_unfinished_record(story: Story) -> None:
    """Iteration was left at a record, and closing commits it all the same."""
    story.sent(2).member(7).poll(7, *spots(0, 2), is_iterated=True)
    story.tell(Revoke, 7, [T], is_leaving=True)
    story.tell(Leave, 7, True)
    story.look(2)


def phantom_commit_of_an_aborted_transaction(story: Story) -> None:
    story.sent(2).member(7, is_auto=False).poll(7, *spots(0, 2))
    story.tell(End, 1, 5, FAILED, "g", {T: 2})
    story.look(2)


def aborted_read(story: Story) -> None:
    story.send(1, (0, 10), transaction=5)
    story.tell(End, 1, 5, FAILED)
    story.join(7, None, is_committed=True)
    story.poll(7, (0, 10))


def aborted_read_of_a_failed_send(story: Story) -> None:
    story.tell(Send, 1, T, [10], None, outcome=FAILED)
    story.join(7, None)
    story.poll(7, (0, 10))


def precommitted_read(story: Story) -> None:
    story.send(1, (0, 10), transaction=5)
    story.join(7, None, is_committed=True)
    story.poll(7, (0, 10))
    story.tell(End, 1, 5, OK)


def precommitted_read_of_one_left_open(story: Story) -> None:
    story.tell(Send, 1, T, [10], None, outcome=UNKNOWN, transaction=5)
    story.join(7, None, is_committed=True)
    story.poll(7, (0, 10))


def torn_transaction(story: Story) -> None:
    story.send(1, (0, 10), transaction=5)
    story.send(1, (0, 20), tp=U, transaction=5)
    story.tell(End, 1, 5, UNKNOWN)
    story.join(7, None, is_committed=True)
    story.poll(7, (0, 10))
    story.join(8, None)
    story.poll(8, (0, 20), tp=U)


def torn_and_committed_transaction(story: Story) -> None:
    story.send(1, (0, 10), transaction=5)
    story.send(1, (0, 20), tp=U, transaction=5)
    story.tell(End, 1, 5, OK)
    story.tell(Contents, 99, T, [0], [10], is_committed=True)
    story.tell(Contents, 99, U, [], [], is_committed=True)
    story.join(8, None)
    story.poll(8, (0, 20), tp=U)


def g1c(story: Story) -> None:
    for number, tp, other in ((5, T, U), (6, U, T)):
        story.send(number, (0, number), tp=tp, transaction=number)
        story.join(number, None)
        story.operations.append(
            Poll(story.tick(), story.tick(), number, [(other, [0], [11 - number])], False, number)
        )
    for number in (5, 6):
        story.tell(End, number, number, OK)
    story.tell(Contents, 99, T, [0], [5], is_committed=True)
    story.tell(Contents, 99, U, [0], [6], is_committed=True)


@pytest.mark.parametrize(
    ("story_of", "expected"),
    [
        (lost_write, ["lost-write"]),
        (lost_write_without_an_offset, ["lost-write"]),
        (unseen, ["unseen"]),
        (unseen_by_a_group, ["unseen"]),
        (group_skip, ["group-skip"]),
        (duplicate, ["duplicate"]),
        (duplicate_in_another_partition, ["duplicate"]),
        (inconsistent_offset, ["inconsistent-offset"]),
        (two_sends_at_one_offset, ["inconsistent-offset"]),
        (nonmonotonic_send, ["nonmonotonic-send"]),
        (int_nonmonotonic_send, ["int-nonmonotonic-send"]),
        (realtime_send, ["realtime-send"]),
        (poll_skip, ["poll-skip"]),
        (poll_skip_after_a_seek, ["poll-skip"]),
        (int_poll_skip, ["int-poll-skip"]),
        (nonmonotonic_poll, ["nonmonotonic-poll"]),
        (int_nonmonotonic_poll, ["int-nonmonotonic-poll", "int-poll-skip"]),
        (int_nonmonotonic_poll_over_runs, ["int-nonmonotonic-poll"]),
        (wrong_resume, ["wrong-resume"]),
        (revoked_after_the_next_owner_was_assigned, ["two-owners"]),
        (assigned_while_the_other_was_being_revoked, ["two-owners"]),
        (delivered_after_the_next_owner_was_assigned, ["two-owners"]),
        (delivered_after_it_was_revoked, ["two-owners"]),
        (delivered_to_one_that_does_not_tell, ["two-owners"]),
        (stale_commit, ["stale-commit"]),
        (commit_regress, ["commit-regress"]),
        (commit_regress_to_none, ["commit-regress"]),
        (commit_regress_of_what_was_seen, ["commit-regress"]),
        (commit_regress_of_auto_commit, ["commit-regress"]),
        (commit_of_a_close_that_did_not_stay, ["commit-regress"]),
        (phantom_commit, ["phantom-commit"]),
        (phantom_commit_by_one_that_was_dropped, ["phantom-commit"]),
        (phantom_commit_by_one_that_had_lost, ["phantom-commit"]),
        (phantom_commit_that_was_refused, ["phantom-commit"]),
        (phantom_commit_of_an_unfinished_record, ["phantom-commit"]),
        (phantom_commit_of_an_aborted_transaction, ["phantom-commit"]),
        (aborted_read, ["aborted-read"]),
        (aborted_read_of_a_failed_send, ["aborted-read"]),
        (precommitted_read, ["precommitted-read"]),
        (precommitted_read_of_one_left_open, ["precommitted-read"]),
        (torn_transaction, ["torn-transaction"]),
        (torn_and_committed_transaction, ["torn-transaction"]),
        (g1c, ["G1c"]),
    ],
)
def test_every_anomaly_is_found_and_no_other(
    story_of: Callable[[Story], None], expected: list[str]
) -> None:
    story = Story()
    story_of(story)
    assert story.anomalies() == expected


def a_quiet_day(story: Story) -> None:
    story.send(1, *spots(0, 3))
    story.tell(Send, 2, T, [13], None)
    story.member(7).poll(7, *spots(0, 2))
    story.look(None)
    story.poll(7, *spots(2, 4))
    story.look(2)
    story.tell(Revoke, 7, [T])
    story.join(8)
    story.assign(8, 4, 4)
    story.send(3, (4, 14))
    story.poll(8, (4, 14))
    story.tell(Leave, 8, True)
    story.look(5)


def a_send_whose_fate_nobody_knows(story: Story) -> None:
    story.tell(Send, 1, T, [10], None, outcome=UNKNOWN)
    story.tell(Send, 1, T, [11], None, outcome=UNKNOWN)
    story.tell(Send, 1, T, [12], None, outcome=FAILED)
    story.join(7, None)
    story.poll(7, (0, 10))


def sends_at_once_in_any_order(story: Story) -> None:
    story.tell(Send, 1, T, [11], [1], begin=0)
    story.tell(Send, 2, T, [10], [0], begin=0)
    story.join(7, None)
    story.poll(7, *spots(0, 2))


def seeks_forth(story: Story) -> None:
    story.sent(6).member(7).poll(7, *spots(0, 2))
    story.tell(Seek, 7, T, 4)
    story.poll(7, *spots(4, 6))
    story.tell(Contents, 99, T, [0, 1, 2, 3, 4, 5], [10, 11, 12, 13, 14, 15])


def a_seek_to_who_knows_where(story: Story) -> None:
    story.sent(6).member(7).poll(7, *spots(0, 2))
    story.tell(Seek, 7, T, None)
    story.poll(7, *spots(5, 6))
    story.tell(Contents, 99, T, [0, 1, 2, 3, 4, 5], [10, 11, 12, 13, 14, 15])


def records_that_were_trimmed(story: Story) -> None:
    story.sent(6).member(7).poll(7, *spots(0, 1))
    story.tell(Trim, 99, T, 3)
    story.poll(7, *spots(3, 6))


def a_member_that_has_lost(story: Story) -> None:
    story.sent(4).member(7).poll(7, *spots(0, 2))
    story.member(8).poll(8, *spots(0, 4))
    story.tell(Lost, 7, [T])
    story.poll(7)
    story.tell(Commit, 7, {T: 2}, outcome=FAILED)
    story.poll(8)
    story.look(4)


def a_poll_under_way_when_another_is_assigned(story: Story) -> None:
    story.sent(2).member(7)
    begin = story.tick()
    story.member(8).poll(8, *spots(0, 2))
    story.poll(7, *spots(0, 2), begin=begin)


def members_that_do_not_tell(story: Story) -> None:
    story.sent(4).join(7, is_telling=False)
    story.poll(7, *spots(0, 2))
    story.join(8, is_telling=False)
    story.poll(8, *spots(2, 4))
    story.poll(7, *spots(2, 4))


def member_that_began_at_the_very_end(story: Story) -> None:
    story.sent(3).join(7, is_telling=False, is_latest=True)
    story.poll(7)
    story.tell(Contents, 99, T, [0, 1, 2], [10, 11, 12])


def member_that_sought_before_where_it_began_and_lost_its_place(story: Story) -> None:
    story.sent(6).join(7, is_telling=False, is_auto=False, is_latest=True)
    story.poll(7, *spots(3, 5))
    story.tell(Seek, 7, T, 0)
    story.poll(7, *spots(0, 1))
    story.poll(7, *spots(3, 6))
    story.tell(Contents, 99, T, [0, 1, 2, 3, 4, 5], [10, 11, 12, 13, 14, 15])


def poll_that_has_committed_when_its_name_is_taken(story: Story) -> None:
    """The record of the iteration before is done, as the next has been asked for."""
    story.sent(3).member(7, name="static").poll(7, *spots(0, 1), is_iterated=True)
    begin = story.tick()
    story.join(8, name="static")
    story.tell(Lost, 7, [T])
    story.poll(7, begin=begin, is_iterated=True)
    story.assign(8, 1, 1)
    story.poll(8, *spots(1, 3))


def offsets_set_by_hand(story: Story) -> None:
    story.sent(6).member(7, is_auto=False).poll(7, *spots(0, 4))
    story.tell(Commit, 7, {T: 4})
    story.tell(Commit, 7, {T: 1})
    story.look(1)
    story.tell(Leave, 7, True)
    story.tell(Reset, 99, "g", {T: 5})
    story.join(8)
    story.assign(8, 5, 5)
    story.poll(8, (5, 15))
    story.tell(Contents, 99, T, [0, 1, 2, 3, 4, 5], [10, 11, 12, 13, 14, 15])


def an_iteration_that_is_left_and_goes_on(story: Story) -> None:
    story.sent(3).member(7).poll(7, *spots(0, 2), is_iterated=True)
    story.poll(7, *spots(2, 3), is_iterated=True)
    story.look(2)
    story.tell(Leave, 7, True)
    story.look(2)


def commits_that_may_be_seen_early_and_late(story: Story) -> None:
    story.sent(4).member(7).poll(7, *spots(0, 4))
    begin = story.tick()
    story.look(None)
    story.look(4)
    story.poll(7, begin=begin)
    story.look(4)


def transactions_well_done(story: Story) -> None:
    story.send(1, (0, 10), transaction=5)
    story.send(2, (1, 11), transaction=6)
    story.send(1, (0, 20), tp=U, transaction=5)
    story.join(7, None, is_committed=True)
    story.poll(7)
    story.join(8, None)
    story.poll(8, *spots(0, 2))
    begin = story.tick()
    story.poll(7, (0, 10))
    story.tell(End, 1, 5, OK, "g", {U: 1}, begin=begin)
    story.tell(End, 2, 6, FAILED)
    story.look(1, U)
    story.send(3, (3, 13), transaction=9)
    story.tell(End, 3, 9, OK)
    story.poll(7, (3, 13))
    story.poll(7, (0, 20), tp=U)
    story.poll(8, (3, 13))
    story.tell(Contents, 99, T, [0, 3], [10, 13], is_committed=True)


def transactions_of_unknown_end(story: Story) -> None:
    for number, tp in ((5, T), (6, U)):
        story.send(number, (0, number), tp=tp, transaction=number)
        story.send(number, (1, 10 + number), tp=tp, transaction=number)
        story.tell(End, number, number, UNKNOWN, "g", {tp: 2})
    story.send(7, (2, 7), transaction=7)
    story.join(8, "g", is_committed=True)
    story.assign(8, 2, 2)
    story.assign(8, None, 0, tp=U)
    story.tell(Contents, 99, T, [0, 1], [5, 15], is_committed=True)
    story.tell(Contents, 99, U, [], [], is_committed=True)
    story.tell(Reset, 99, "g", {T: 3, U: 2})


def a_chain_of_transactions(story: Story) -> None:
    for number in range(5):
        story.send(number, (number, 10 + number), transaction=number)
        story.tell(End, number, number, OK)
        story.join(20 + number, None, is_committed=True)
        story.poll(20 + number, *spots(0, number + 1), transaction=number + 1)


@pytest.mark.parametrize(
    "story_of",
    [
        a_quiet_day,
        a_send_whose_fate_nobody_knows,
        sends_at_once_in_any_order,
        seeks_forth,
        a_seek_to_who_knows_where,
        records_that_were_trimmed,
        a_member_that_has_lost,
        a_poll_under_way_when_another_is_assigned,
        member_that_began_at_the_very_end,
        member_that_sought_before_where_it_began_and_lost_its_place,
        poll_that_has_committed_when_its_name_is_taken,
        members_that_do_not_tell,
        offsets_set_by_hand,
        an_iteration_that_is_left_and_goes_on,
        commits_that_may_be_seen_early_and_late,
        transactions_well_done,
        transactions_of_unknown_end,
        a_chain_of_transactions,
    ],
)
def test_what_was_asked_for_is_no_anomaly(story_of: Callable[[Story], None]) -> None:
    story = Story()
    story_of(story)
    assert story.anomalies() == []
