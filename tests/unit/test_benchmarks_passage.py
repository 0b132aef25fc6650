"""Records pass from producers through a group's members, all of them or with an error."""

from collections.abc import Callable
from queue import Empty, Queue

import pytest

from benchmarks.peers import passage
from benchmarks.peers.passage import PARTITIONS, THREADS, Passage

SHARE = PARTITIONS // THREADS


# Not a SimpleQueue: on Python 3.11 a `get` of one that is woken for nothing after its timeout has
# passed waits for ever.
def receiver(queue: "Queue[int]") -> Callable[[Passage, int], None]:
    def receive(running: Passage, member: int) -> None:
        running.shares[member] = SHARE
        while not running.is_over:
            try:
                running.take(queue.get(timeout=0.001), 7.0)
            except Empty:
                continue

    return receive


def test_everything_that_is_sent_comes() -> None:
    queue: Queue[int] = Queue()
    running = Passage(10 * THREADS, lambda thread: queue.put(10), receiver(queue))
    assert running() == [7.0] * THREADS
    assert running.left == 0


def test_record_that_never_comes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "STALLED_SECONDS", 0.01)
    queue: Queue[int] = Queue()
    running = Passage(10 * THREADS + 3, lambda thread: queue.put(10), receiver(queue))
    with pytest.raises(RuntimeError, match="3 records did not come"):
        running()


def test_record_that_comes_twice_is_an_error() -> None:
    queue: Queue[int] = Queue()
    running = Passage(10 * THREADS - 1, lambda thread: queue.put(10), receiver(queue))
    with pytest.raises(RuntimeError, match="1 records more came"):
        running()


def test_error_of_a_member_before_the_group_has_formed_comes_out() -> None:
    def fail(running: Passage, member: int) -> None:
        raise ValueError("no share")

    with pytest.raises(ValueError, match="no share"):
        Passage(1, lambda thread: None, fail)


def test_error_of_a_member_on_the_way_comes_out() -> None:
    def fail(running: Passage, member: int) -> None:
        running.shares[member] = SHARE
        while running.shares != [SHARE] * THREADS:
            pass
        raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        Passage(1, lambda thread: None, fail)()
