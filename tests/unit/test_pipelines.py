"""The recipe consume_transform_produce: each input counts once, whatever goes wrong."""

from __future__ import annotations

import pytest

from minilog import Broker, ConfigError, Consumer, Producer, Record, TopicPartition
from minilog.recipes import consume_transform_produce
from minilog.testing import ManualClock


@pytest.fixture
def inputs(broker: Broker) -> list[bytes]:
    broker.create_topic("out")
    values = [b"%d" % number for number in range(10)]
    broker.create_topic("in")[0].append_many(values)
    return values


def outputs(broker: Broker) -> list[bytes | None]:
    with Consumer(broker, "out", isolation="read_committed") as consumer:
        return [record.value for record in consumer.drain()]


def copy(record: Record, tx: object) -> None:
    tx.send("out", record.value)  # type: ignore[attr-defined]


def test_a_step_writes_and_commits_what_it_has_read(broker: Broker, inputs: list[bytes]) -> None:
    consumer = Consumer(broker, "in", group="g")
    assert consume_transform_produce(consumer, Producer(broker), copy, max_records=4) == 4
    assert outputs(broker) == inputs[:4]
    assert broker.groups["g"].committed() == {TopicPartition("in", 0): 4}
    assert consume_transform_produce(consumer, Producer(broker), copy) == 6
    assert consume_transform_produce(consumer, Producer(broker), copy) == 0
    assert outputs(broker) == inputs


def test_what_transform_raises_comes_out_and_the_step_is_done_again(
    broker: Broker, inputs: list[bytes]
) -> None:
    consumer, producer = Consumer(broker, "in", group="g"), Producer(broker)
    calls: list[bytes | None] = []

    def fail_at_3(record: Record, tx: object) -> None:
        calls.append(record.value)
        copy(record, tx)
        if len(calls) == 4:
            raise KeyError

    with pytest.raises(KeyError):
        consume_transform_produce(consumer, producer, fail_at_3)
    assert outputs(broker) == []
    assert broker.groups["g"].committed() == {}
    assert consume_transform_produce(consumer, producer, fail_at_3) == 10
    assert calls == inputs[:4] + inputs
    assert outputs(broker) == inputs


def test_a_partition_that_has_moved_on_is_left_to_its_new_owner(
    broker: Broker, inputs: list[bytes]
) -> None:
    clock = ManualClock()
    with Broker(":memory:", clock=clock) as mine:
        mine.create_topic("out")
        mine.create_topic("in")[0].append_many(inputs)
        slow = Consumer(mine, "in", group="g", max_poll_interval_ms=1000)
        quick = Consumer(mine, "in", group="g", max_poll_interval_ms=100_000)
        slow.poll()
        slow.seek(("in", 0), 0)

        def take_too_long(record: Record, tx: object) -> None:
            copy(record, tx)
            clock.advance(500)
            quick.poll(max_records=1)

        assert consume_transform_produce(slow, Producer(mine), take_too_long) == 0
        assert outputs(mine) == []
        assert quick.assignment() == {("in", 0)}
        quick.seek(("in", 0), 0)
        assert consume_transform_produce(quick, Producer(mine), copy) == 10
        assert outputs(mine) == inputs


def test_a_consumer_without_a_group_is_refused_and_stays_where_it_is(
    broker: Broker, inputs: list[bytes]
) -> None:
    consumer = Consumer(broker, "in")
    with pytest.raises(ConfigError, match="group"):
        consume_transform_produce(consumer, Producer(broker), copy)
    assert consumer.position(("in", 0)) == 0
    assert outputs(broker) == []
