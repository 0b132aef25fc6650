"""Consuming processes are killed with signal 9: what was committed is done, the rest comes again.

The short share of what ``tests/torture/history.py`` does for as long as it is told.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.consumer import ANSWERED, ASKING, COMMITTED, COMMITTING, GIVEN, YIELDED
from tests.crash.consumer_kills import MODES, SYNCS, Account, kill_some
from tests.crash.writer import number_of


@pytest.mark.parametrize("sync", SYNCS)
@pytest.mark.parametrize("mode", MODES)
def test_what_a_killed_process_had_not_committed_is_delivered_again_and_nothing_else(
    log_path: Path, mode: str, sync: str
) -> None:
    seed = number_of("consumer", mode, sync)
    print(f"seed {seed}")
    counts: Counter[str] = Counter()
    kill_some(log_path, mode, sync, 3, random.Random(seed), counts)
    assert counts["kills"] == 3
    assert counts["given"] > 0


@pytest.mark.parametrize("committed", [None, 3, 8])
def test_an_account_of_polls_refuses_what_was_lost_and_what_was_too_early(
    committed: int | None,
) -> None:
    """5 were given and then 2 more: by the second poll 5 were committed, and 7 are not yet."""
    account = Account("polls", {})
    account.take(ASKING, 0, 0, 0)
    account.take(ANSWERED, 0, 0, 0)
    account.take(GIVEN, 0, 1, 5)
    account.take(ASKING, 0, 0, 0)
    account.take(ANSWERED, 0, 0, 0)
    account.take(GIVEN, 0, 1, 7)
    account.check({1: 5})
    with pytest.raises(AssertionError):
        account.check({} if committed is None else {1: committed})
    with pytest.raises(AssertionError):
        account.check({1: 7})


def test_an_account_of_iteration_takes_the_last_record_for_unfinished() -> None:
    account = Account("iteration", {})
    account.take(ASKING, 0, 0, 0)
    account.take(YIELDED, 0, 1, 4)
    account.check({})
    with pytest.raises(AssertionError):
        account.check({1: 5})
    account.take(ASKING, 0, 0, 0)
    account.check({1: 5})


def test_an_account_of_commits_takes_them_as_they_were_told() -> None:
    account = Account("commits", {1: 2})
    account.take(COMMITTING, 0, 1, 4)
    account.check({1: 2})
    account.check({1: 4})
    account.take(COMMITTED, 0, 1, 4)
    with pytest.raises(AssertionError):
        account.check({1: 2})
    with pytest.raises(AssertionError):
        account.check({1: 5})
