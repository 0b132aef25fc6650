"""A clock that is turned by hand: a wait is over when it was turned by just as much."""

from __future__ import annotations

import threading

import pytest

from minilog import Broker
from minilog.clock import Deadline
from minilog.testing import ManualClock

STARTS = [0, 1, 1_700_000_000_000, 1_700_000_000_123]
WAITS_MS = [*range(1, 1000, 7), 1001, 4350, 60_000, 86_400_000]


@pytest.mark.parametrize("start_ms", STARTS)
def test_a_wait_ends_when_its_clock_is_turned_by_just_as_much(start_ms: int) -> None:
    for wait_ms in WAITS_MS:
        clock = ManualClock(start_ms)
        deadline = Deadline(clock, wait_ms / 1000)
        clock.advance(wait_ms - 1)
        assert not deadline.is_over, wait_ms
        assert deadline.seconds_left
        clock.advance(1)
        assert deadline.is_over, wait_ms
        assert deadline.seconds_left == 0, wait_ms


@pytest.mark.parametrize("start_ms", STARTS)
@pytest.mark.parametrize("wait_ms", [300, 4350])
def test_a_thread_that_waits_wakes_when_the_clock_is_turned_by_just_as_much(
    start_ms: int, wait_ms: int
) -> None:
    clock = ManualClock(start_ms)
    found = []
    with Broker(":memory:", clock=clock) as broker:
        partition = broker.create_topic("t")[0]

        def wait() -> None:
            found.append(partition.read(0, timeout=wait_ms / 1000))

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        while not clock._sleepers:
            assert thread.is_alive()
        clock.advance(wait_ms)
        thread.join(timeout=60)
        assert not thread.is_alive()
        assert len(found) == 1
        assert not found[0]


def test_a_wait_without_an_end_is_never_over() -> None:
    clock = ManualClock()
    deadline = Deadline(clock, None)
    clock.advance(10**12)
    assert not deadline.is_over
    assert deadline.seconds_left is None
