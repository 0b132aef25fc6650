"""The recipe `retry`: a record that fails comes again, later, and is set aside in the end; what
went wrong in whatever way loses nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from members import GROUP, filled, offsets, places
from running import Running, advance_until_done, eventually

from minilog import Broker, ConfigError, Consumer, Record, UnknownTopicError
from minilog.recipes import Outcome, retry
from minilog.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_700_000_000_123)


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=clock, segment_bytes=4096) as opened:
        opened.create_topic("dead")
        yield opened


def member(broker: Broker, **settings: Any) -> Consumer:
    return Consumer(broker, "a", group=GROUP, **settings)


def committed(broker: Broker, partition: int = 0) -> int | None:
    return Consumer(broker, group=GROUP).committed(("a", partition))


class Processing:
    """Processes records; those at some offsets fail so many times first."""

    def __init__(self, clock: ManualClock, fails: dict[int, int]) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self.done: list[tuple[int, int]] = []
        self._clock = clock
        self._left = dict(fails)

    def __call__(self, record: Record) -> None:
        self.calls.append((record.partition, record.offset, self._clock.now_ms()))
        if self._left.get(record.offset, 0) > 0:
            self._left[record.offset] -= 1
            raise ValueError(f"no {record.offset}")
        self.done.append((record.partition, record.offset))


@pytest.mark.parametrize("auto_commit", [False, True])
def test_what_succeeds_is_processed_once_and_committed(
    broker: Broker, clock: ManualClock, auto_commit: bool
) -> None:
    filled(broker, "a", 5, 3)
    process = Processing(clock, {})
    with member(broker, auto_commit=auto_commit, max_poll_records=3) as consumer:
        assert retry(broker, consumer, process, dead_letter="dead", drain=True) == (8, 0, 0)
    assert sorted(process.done) == [(p, n) for p, count in ((0, 5), (1, 3)) for n in range(count)]
    assert (committed(broker, 0), committed(broker, 1)) == (5, 3)
    assert broker.topic("dead")[0].end_offset == 0


def test_a_record_that_fails_is_tried_again_when_the_clock_says_so(
    broker: Broker, clock: ManualClock
) -> None:
    filled(broker, "a", 4)
    process = Processing(clock, {1: 2})
    begin = clock.now_ms()
    with member(broker) as consumer:
        running = Running(
            lambda: retry(broker, consumer, process, backoff_ms=500, attempts=3, drain=True)
        )
        assert running.waits()
        assert [offset for _, offset, _ in process.calls] == [0, 1]
        assert committed(broker) == 1
        clock.advance(499)
        assert running.still_waits()
        assert len(process.calls) == 2, "tried again too soon"
        clock.advance(1)
        assert eventually(lambda: len(process.calls) == 3)
        assert running.waits()
        clock.advance(500)
        assert running.result() == Outcome(processed=4, set_aside=0, failed_attempts=2)
    tried = [(offset, now_ms - begin) for _, offset, now_ms in process.calls]
    assert tried == [(0, 0), (1, 0), (1, 500), (1, 1000), (2, 1000), (3, 1000)]
    assert [offset for _, offset in process.done] == [0, 1, 2, 3], "the order was not kept"
    assert committed(broker) == 4


def test_other_partitions_go_on_while_one_waits(broker: Broker, clock: ManualClock) -> None:
    topic = filled(broker, "a", 2, 0)
    process = Processing(clock, {0: 1})
    with member(broker) as consumer:
        running = Running(lambda: retry(broker, consumer, process))
        assert running.waits()
        topic[1].append_many([b"v"] * 2)
        assert eventually(lambda: process.done[-1:] == [(1, 1)])
        clock.advance(1000)
        assert eventually(lambda: len(process.done) == 5 or (0, 1) in process.done)
        consumer.close()
        running.result()
    assert [offset for partition, offset in process.done if partition == 0] == [0, 1]


def test_after_the_last_attempt_the_record_is_set_aside_with_its_cause(
    broker: Broker, clock: ManualClock
) -> None:
    topic = broker.create_topic("a", partitions=3)
    topic[2].append(b"fine")
    topic[2].append(b"\xff", key=b"\xfe", headers=[("h", b"1"), ("h", None)], timestamp=77)
    topic[2].append(None, key=b"k")
    process = Processing(clock, {1: 99})
    with member(broker) as consumer:
        running = Running(
            lambda: retry(broker, consumer, process, attempts=4, dead_letter="dead", drain=True)
        )
        advance_until_done(clock, running)
        assert running.result() == (2, 1, 4)
    assert [offset for _, offset in process.done] == [0, 2]
    assert committed(broker, 2) == 3
    (record,) = broker.topic("dead")[0]
    assert (record.key, record.value, record.timestamp) == (b"\xfe", b"\xff", 77)
    assert record.headers == (
        ("h", b"1"),
        ("h", None),
        ("cause.topic", b"a"),
        ("cause.partition", b"2"),
        ("cause.offset", b"1"),
        ("cause.error", b"ValueError: no 1"),
        ("cause.attempts", b"4"),
    )


def test_what_is_set_aside_is_what_was_stored_whatever_a_deserializer_made_of_it(
    broker: Broker, clock: ManualClock
) -> None:
    broker.create_topic("a")[0].append(b"5", key=b"k")

    def fail(record: Record) -> None:
        raise RuntimeError(record.value)

    settings = {"value_deserializer": int, "key_deserializer": bytes.decode}
    with member(broker, **settings) as consumer:
        retry(broker, consumer, fail, attempts=1, dead_letter="dead", drain=True)
    (record,) = broker.topic("dead")[0]
    assert (record.key, record.value) == (b"k", b"5")
    assert dict(record.headers)["cause.error"] == b"RuntimeError: 5"


@pytest.mark.parametrize(
    "error", [ValueError("\ud800 " * 10_000), ValueError(), UnicodeError("é"), KeyError("x")]
)
def test_any_error_can_be_told(broker: Broker, error: Exception) -> None:
    broker.create_topic("a")[0].append(b"v")

    def fail(record: Record) -> None:
        raise error

    with member(broker) as consumer:
        retry(broker, consumer, fail, attempts=1, dead_letter="dead", drain=True)
    (record,) = broker.topic("dead")[0]
    told = dict(record.headers)["cause.error"]
    assert told is not None
    assert told.startswith(type(error).__name__.encode())
    assert len(told) < 10_000


def test_the_backoff_may_grow_with_the_attempts(broker: Broker, clock: ManualClock) -> None:
    filled(broker, "a", 1)
    process = Processing(clock, {0: 3})
    begin = clock.now_ms()
    with member(broker) as consumer:
        running = Running(
            lambda: retry(
                broker, consumer, process, attempts=9, backoff_ms=lambda n: 100 * 2**n, drain=True
            )
        )
        advance_until_done(clock, running, step_ms=100)
        running.result()
    assert [now_ms - begin for _, _, now_ms in process.calls] == [0, 200, 600, 1400]


def test_without_a_topic_to_set_aside_the_last_error_comes_out_and_the_record_is_next(
    broker: Broker, clock: ManualClock
) -> None:
    filled(broker, "a", 4, 4)
    process = Processing(clock, {2: 1})
    with member(broker) as consumer:
        with pytest.raises(ValueError, match="no 2"):
            retry(broker, consumer, process, attempts=1, drain=True)
        done = len(process.done)
        assert sum(committed(broker, p) or 0 for p in range(2)) == done
        assert retry(broker, consumer, process, attempts=1, drain=True).processed == 8 - done
    assert sorted(process.done) == [(p, n) for p in range(2) for n in range(4)]


@pytest.mark.parametrize("auto_commit", [False, True])
def test_an_interrupt_loses_nothing(broker: Broker, clock: ManualClock, auto_commit: bool) -> None:
    filled(broker, "a", 5, 5)
    done: list[Any] = []

    def process(record: Record) -> None:
        if len(done) == 3 and not seen:
            seen.append((record.partition, record.offset))
            raise KeyboardInterrupt
        done.append((record.partition, record.offset))

    seen: list[Any] = []
    consumer = member(broker, auto_commit=auto_commit)
    with pytest.raises(KeyboardInterrupt):
        retry(broker, consumer, process, drain=True)
    assert sum(committed(broker, p) or 0 for p in range(2)) == 3
    retry(broker, consumer, process, drain=True)
    consumer.close()
    assert sorted(done) == [(p, n) for p in range(2) for n in range(5)]


def test_what_cannot_be_set_aside_is_not_committed(broker: Broker, clock: ManualClock) -> None:
    filled(broker, "a", 3)
    with member(broker) as consumer:

        def fail(record: Record) -> None:
            if record.offset == 1:
                if "dead" in broker.topics:
                    broker.delete_topic("dead")
                raise ValueError("no")

        with pytest.raises(UnknownTopicError):
            retry(broker, consumer, fail, attempts=1, dead_letter="dead", drain=True)
    assert committed(broker) == 1


def test_a_member_that_waits_to_try_again_stays_a_member(
    broker: Broker, clock: ManualClock
) -> None:
    filled(broker, "a", 1)
    process = Processing(clock, {0: 1})
    with member(broker, max_poll_interval_ms=1000) as consumer, member(broker) as other:
        running = Running(lambda: retry(broker, consumer, process, backoff_ms=60_000, drain=True))
        assert running.waits()
        for _ in range(59):
            clock.advance(1000)
            assert not other.poll(0)
        advance_until_done(clock, running, step_ms=1000)
        assert running.result() == (1, 0, 1)
        assert not other.poll(0)
        assert committed(broker) == 1


def test_a_partition_that_moves_while_it_waits_is_the_other_s_to_process(
    broker: Broker, clock: ManualClock
) -> None:
    filled(broker, "a", 2, 2)
    processes = [Processing(clock, {0: 1}), Processing(clock, {})]
    first = member(broker)
    running = Running(lambda: retry(broker, first, processes[0]))
    assert running.waits()
    second = member(broker)
    other = Running(lambda: retry(broker, second, processes[1]))
    assert eventually(lambda: len(processes[1].done) == 2)
    clock.advance(1000)
    assert eventually(lambda: len(processes[0].done) == 2)
    first.close()
    second.close()
    running.result(), other.result()
    done = Counter(processes[0].done + processes[1].done)
    assert done == Counter([(p, n) for p in range(2) for n in range(2)])
    assert (committed(broker, 0), committed(broker, 1)) == (2, 2)


@pytest.mark.parametrize("what", ["consumer", "broker"])
def test_closing_ends_it(broker: Broker, clock: ManualClock, what: str) -> None:
    filled(broker, "a", 3)
    process = Processing(clock, {2: 1})
    consumer = member(broker)
    running = Running(lambda: retry(broker, consumer, process, backoff_ms=10_000))
    assert eventually(lambda: len(process.calls) == 3)
    assert running.waits()
    (consumer if what == "consumer" else broker).close()
    assert running.result() == (2, 0, 1)


def test_what_comes_while_it_waits_is_processed(broker: Broker, clock: ManualClock) -> None:
    topic = filled(broker, "a", 0)
    process = Processing(clock, {})
    with member(broker) as consumer:
        running = Running(lambda: retry(broker, consumer, process))
        for number in range(3):
            assert running.waits()
            topic[0].append(b"v")
            assert eventually(lambda number=number: len(process.done) == number + 1)  # type: ignore[misc]
        consumer.close()
        running.result()
    assert committed(broker) == 3


def test_what_cannot_be_is_refused_before_anything_is_read(
    broker: Broker, clock: ManualClock
) -> None:
    filled(broker, "a", 3)
    process = Processing(clock, {})
    with member(broker) as consumer:
        with pytest.raises(UnknownTopicError):
            retry(broker, consumer, process, dead_letter="nope", drain=True)
        with pytest.raises(ConfigError):
            retry(broker, consumer, process, attempts=0, drain=True)
        with pytest.raises(ConfigError):
            retry(broker, consumer, process, dead_letter="a", drain=True)
    with pytest.raises(ConfigError):
        retry(broker, Consumer(broker, "a"), process, drain=True)
    assert process.calls == []
    assert offsets(member(broker).poll()) == [0, 1, 2]
    assert places(broker.topic("dead")[0]) == []
