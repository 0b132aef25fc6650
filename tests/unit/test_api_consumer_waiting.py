"""Consumer, as its contract says: waiting, and what ends it, among threads.

Knows only the public face. No test sleeps or measures: a thread is watched until it waits
inside minilog, then what must end its wait is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import Running, advance_until_done

from minilog import Broker, ClosedError, Consumer, Producer, Topic, TopicPartition
from minilog.testing import ManualClock


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, segment_bytes=4096, maintenance_interval_ms=0) as opened:
        yield opened


@pytest.fixture
def topic(broker: Broker) -> Topic:
    return broker.create_topic("a", partitions=2)


@pytest.fixture
def consumer(broker: Broker, topic: Topic) -> Consumer:
    return Consumer(broker, "a")


def values(records: Any) -> list[Any]:
    return [record.value for record in records]


# -- a virtual clock ----------------------------------------------------------------------------


def test_poll_of_zero_does_not_wait_though_nobody_turns_the_clock() -> None:
    with Broker(":memory:", clock=ManualClock()) as broker:
        broker.create_topic("a")
        consumer = Consumer(broker, "a")
        assert values(Running(consumer.poll).result()) == []
        assert values(Running(lambda: consumer.poll(timeout=0)).result()) == []
        assert Running(lambda: list(consumer.drain())).result() == []


def test_a_waiting_poll_returns_when_the_clock_passes_its_deadline() -> None:
    clock = ManualClock()
    with Broker(":memory:", clock=clock) as broker:
        broker.create_topic("a")
        consumer = Consumer(broker, "a")
        polling = Running(lambda: consumer.poll(timeout=1))
        assert polling.waits()
        clock.advance(999)
        assert polling.still_waits()
        assert advance_until_done(clock, polling) >= 1
        assert values(polling.result()) == []


def test_a_waiting_poll_gets_a_record_though_the_clock_stands_still() -> None:
    with Broker(":memory:", clock=ManualClock()) as broker:
        topic = broker.create_topic("a")
        consumer = Consumer(broker, "a")
        polling = Running(lambda: consumer.poll(timeout=1))
        assert polling.waits()
        topic[0].append(b"v")
        assert values(polling.result()) == [b"v"]


def test_wakeup_ends_one_poll_and_the_next_waits_again() -> None:
    clock = ManualClock()
    with Broker(":memory:", clock=clock) as broker:
        broker.create_topic("a")
        consumer = Consumer(broker, "a")
        consumer.wakeup()
        assert values(Running(lambda: consumer.poll(timeout=1)).result()) == []
        polling = Running(lambda: consumer.poll(timeout=1))
        assert polling.waits()
        consumer.wakeup()
        assert values(polling.result()) == []
        again = Running(lambda: consumer.poll(timeout=1))
        assert again.waits()
        assert again.still_waits()
        advance_until_done(clock, again)
        assert values(again.result()) == []


# -- records that come while a poll waits -------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 1e6])
def test_a_waiting_poll_gets_what_is_sent(
    broker: Broker, consumer: Consumer, timeout: float | None
) -> None:
    polling = Running(lambda: consumer.poll(timeout=timeout))
    assert polling.waits()
    Producer(broker).send("a", b"v", partition=1)
    assert values(polling.result()) == [b"v"]


def test_a_poll_with_a_timeout_does_not_wait_for_what_is_there(
    topic: Topic, consumer: Consumer
) -> None:
    topic[1].append(b"v")
    assert values(Running(lambda: consumer.poll(timeout=None)).result()) == [b"v"]


def test_a_short_timeout_passes_by_itself(consumer: Consumer) -> None:
    assert values(Running(lambda: consumer.poll(timeout=0.01)).result()) == []


def test_iteration_waits_for_each_next_record(topic: Topic, consumer: Consumer) -> None:
    def first_five() -> list[Any]:
        seen: list[Any] = []
        for record in consumer:
            seen.append(record.value)
            if len(seen) == 5:
                break
        return seen

    reading = Running(first_five)
    for number in range(5):
        assert reading.waits()
        topic[1].append(b"%d" % number)
    assert reading.result() == [b"%d" % number for number in range(5)]


def test_an_atomic_run_wakes_a_poll_with_all_of_it(topic: Topic, consumer: Consumer) -> None:
    polling = Running(lambda: consumer.poll(timeout=None))
    assert polling.waits()
    topic[0].append_many([b"%d" % number for number in range(100)])
    assert values(polling.result()) == [b"%d" % number for number in range(100)]


def test_a_waiting_poll_sees_a_new_topic_of_its_pattern(broker: Broker) -> None:
    consumer = Consumer(broker)
    consumer.subscribe(re.compile("^new-"))
    polling = Running(lambda: consumer.poll(timeout=None))
    assert polling.waits()
    broker.create_topic("new-topic")
    Producer(broker).send("new-topic", b"v")
    assert values(polling.result()) == [b"v"]


def test_a_waiting_poll_sees_a_new_partition(topic: Topic, consumer: Consumer) -> None:
    polling = Running(lambda: consumer.poll(timeout=None))
    assert polling.waits()
    topic.add_partitions(4)
    topic[3].append(b"v")
    assert values(polling.result()) == [b"v"]


def test_a_reader_of_a_read_only_broker_waits_for_what_the_writer_publishes(
    tmp_path: Path,
) -> None:
    with Broker(tmp_path / "log", segment_bytes=4096) as writer:
        topic = writer.create_topic("a")
        with Broker(tmp_path / "log", read_only=True) as reader:
            consumer = Consumer(reader)
            consumer.subscribe(re.compile("."))
            for number in range(3):
                polling = Running(lambda: consumer.poll(timeout=None))
                assert polling.waits()
                topic[0].append(b"%d" % number)
                assert values(polling.result()) == [b"%d" % number]
            polling = Running(lambda: consumer.poll(timeout=None))
            assert polling.waits()
            writer.create_topic("later")[0].append(b"of a later topic")
            assert values(polling.result()) == [b"of a later topic"]


# -- wakeup -------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 1e6])
def test_wakeup_ends_a_waiting_poll(consumer: Consumer, timeout: float | None) -> None:
    polling = Running(lambda: consumer.poll(timeout=timeout))
    assert polling.waits()
    consumer.wakeup()
    assert values(polling.result()) == []


def test_wakeup_beforehand_ends_the_next_poll(topic: Topic, consumer: Consumer) -> None:
    consumer.wakeup()
    assert values(Running(lambda: consumer.poll(timeout=None)).result()) == []
    topic[0].append(b"v")
    consumer.wakeup()
    assert values(Running(lambda: consumer.poll(timeout=None)).result()) == [b"v"]


def test_wakeup_is_used_up_by_a_poll_that_has_records() -> None:
    clock = ManualClock()
    with Broker(":memory:", clock=clock) as broker:
        topic = broker.create_topic("a")
        consumer = Consumer(broker, "a")
        for timeout in (0, 1):
            topic[0].append(b"v")
            consumer.wakeup()
            assert values(consumer.poll(timeout=timeout)) == [b"v"]
            polling = Running(lambda: consumer.poll(timeout=1))
            assert polling.waits()
            assert polling.still_waits()
            advance_until_done(clock, polling)
            assert values(polling.result()) == []


def test_wakeup_loses_no_record(topic: Topic, consumer: Consumer) -> None:
    polling = Running(lambda: consumer.poll(timeout=None))
    assert polling.waits()
    consumer.wakeup()
    topic[0].append_many([b"1", b"2"])
    seen = values(polling.result())
    assert seen + values(consumer.poll()) == [b"1", b"2"]


# -- close --------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 1e6])
def test_close_ends_a_waiting_poll_with_nothing(consumer: Consumer, timeout: float | None) -> None:
    polling = Running(lambda: consumer.poll(timeout=timeout))
    assert polling.waits()
    consumer.close()
    assert values(polling.result()) == []
    with pytest.raises(ClosedError):
        consumer.poll()


def test_close_ends_iteration(topic: Topic, consumer: Consumer) -> None:
    reading = Running(lambda: values(consumer))
    assert reading.waits()
    topic[0].append(b"v")
    assert reading.waits()
    consumer.close()
    assert reading.result() in ([b"v"], [])


@pytest.mark.parametrize("loop", [iter, lambda consumer: consumer.drain()])
def test_close_within_a_loop_ends_it(
    topic: Topic, consumer: Consumer, loop: Callable[[Consumer], Iterator[Any]]
) -> None:
    topic[0].append(b"v")

    def read_and_close() -> list[Any]:
        seen = []
        for record in loop(consumer):
            seen.append(record.value)
            consumer.close()
        return seen

    assert Running(read_and_close).result() == [b"v"]


def test_closing_the_broker_ends_every_waiting_poll_and_iteration(
    broker: Broker, topic: Topic
) -> None:
    polling = [Running(lambda: values(Consumer(broker, "a").poll(timeout=None))) for _ in range(3)]
    iterating = Running(lambda: values(Consumer(broker, "a")))
    waiting = [*polling, iterating]
    assert all(running.waits() for running in waiting)
    broker.close()
    for running in waiting:
        outcome = running.outcome()
        assert outcome == [] or isinstance(outcome, ClosedError)


# -- threads that share a consumer --------------------------------------------------------------


def test_threads_that_poll_one_consumer_get_every_record_once(
    topic: Topic, consumer: Consumer
) -> None:
    for partition in topic:
        partition.append_many([b"%d" % number for number in range(2000)])

    def read_all() -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = []
        while records := consumer.poll(max_records=7):
            seen += [(record.partition, record.offset) for record in records]
        return seen

    readers = [Running(read_all) for _ in range(4)]
    seen = sorted(pair for reader in readers for pair in reader.result())
    assert seen == [(partition, number) for partition in range(2) for number in range(2000)]


def test_a_consumer_can_be_asked_and_moved_while_another_thread_polls(
    topic: Topic, consumer: Consumer
) -> None:
    polling = Running(lambda: values(consumer.poll(timeout=None)))
    assert polling.waits()

    def ask_and_move() -> tuple[int, int, set[TopicPartition]]:
        consumer.pause(("a", 1))
        consumer.seek(("a", 0), 0)
        return consumer.position(("a", 0)), consumer.lag(("a", 1)), set(consumer.assignment())

    asked = Running(ask_and_move).result()
    assert asked == (0, 0, {TopicPartition("a", 0), TopicPartition("a", 1)})
    topic[0].append(b"v")
    assert polling.result() == [b"v"]
