"""Consumer without a group, as its contract says: settings it refuses, commit, closing.

Knows only the public face, never how a partition is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minilog import Broker, ClosedError, ConfigError, Consumer, Topic, TopicPartition


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, segment_bytes=4096, maintenance_interval_ms=0) as opened:
        yield opened


def filled(broker: Broker, count: int) -> Topic:
    topic = broker.create_topic("a")
    topic[0].append_many([b"%d" % n for n in range(count)])
    return topic


@pytest.mark.parametrize(
    "setting",
    [
        {"auto_offset_reset": "newest"},
        {"auto_offset_reset": None},
        {"isolation": "serializable"},
        {"max_poll_records": 0},
        {"max_poll_records": -1},
    ],
    ids=str,
)
def test_an_unknown_setting_is_a_config_error(broker: Broker, setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Consumer(broker, **setting)


def test_commit_without_a_group_is_a_config_error(broker: Broker) -> None:
    filled(broker, 2)
    consumer = Consumer(broker, "a")
    record = consumer.poll()[0]
    for arguments in ((), ({TopicPartition("a", 0): 1},), (record,)):
        with pytest.raises(ConfigError):
            consumer.commit(*arguments)
    consumer.close()
    assert list(Consumer(broker, "a").poll().offsets) == [0, 1]


USES: dict[str, Callable[[Consumer], Any]] = {
    "poll": lambda consumer: consumer.poll(),
    "waiting poll": lambda consumer: consumer.poll(timeout=None),
    "next": lambda consumer: next(iter(consumer)),
    "drain": lambda consumer: list(consumer.drain()),
    "subscribe": lambda consumer: consumer.subscribe(["a"]),
    "assign": lambda consumer: consumer.assign([("a", 0)]),
    "unsubscribe": lambda consumer: consumer.unsubscribe(),
    "seek": lambda consumer: consumer.seek(("a", 0), 0),
    "seek_to_end": lambda consumer: consumer.seek_to_end(("a", 0)),
    "position": lambda consumer: consumer.position(("a", 0)),
    "pause": lambda consumer: consumer.pause(("a", 0)),
    "resume": lambda consumer: consumer.resume(("a", 0)),
    "lag": lambda consumer: consumer.lag(),
}


@pytest.mark.parametrize("use", USES)
def test_use_after_close_is_a_closed_error(broker: Broker, use: str) -> None:
    filled(broker, 1)
    consumer = Consumer(broker, "a")
    consumer.close()
    with pytest.raises(ClosedError):
        USES[use](consumer)


def test_the_with_block_closes_and_closing_twice_is_fine(broker: Broker) -> None:
    filled(broker, 1)
    with Consumer(broker, "a") as consumer:
        assert len(consumer.poll()) == 1
        consumer.close()
    consumer.close()
    with pytest.raises(ClosedError):
        consumer.poll()
    assert len(Consumer(broker, "a").poll()) == 1


def test_an_exception_leaves_the_with_block_as_it_is(broker: Broker) -> None:
    filled(broker, 1)
    with pytest.raises(ZeroDivisionError, match="mine"), Consumer(broker, "a") as consumer:
        raise ZeroDivisionError("mine")
    with pytest.raises(ClosedError):
        consumer.poll()


def test_poll_after_the_broker_closed_is_a_closed_error(broker: Broker) -> None:
    filled(broker, 1)
    consumer = Consumer(broker, "a")
    broker.close()
    with pytest.raises(ClosedError):
        consumer.poll()
    consumer.close()
