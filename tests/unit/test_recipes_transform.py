"""The recipe `transform`: what is read, what is written and how far was read are one."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from members import GROUP, filled
from running import Running, eventually

from minilog import Broker, ConfigError, Consumer, Producer, Record
from minilog.recipes import transform
from minilog.testing import ManualClock

WORKER = """
import sys
from minilog import Broker, Consumer, Producer
from minilog.recipes import transform

def double(record):
    print(".", end="", flush=True)
    for topic in ("odd", "even"):
        yield topic, record.key, record.value

with Broker(sys.argv[1], segment_bytes=4096) as broker:
    with Consumer(broker, "in", group="billing", max_poll_records=7) as consumer:
        transform(consumer, Producer(broker), double, drain=True)
print("end")
"""


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=ManualClock(1000), segment_bytes=4096) as opened:
        filled(opened, "in", 6, 4)
        opened.create_topic("odd", partitions=2)
        opened.create_topic("even", partitions=2)
        yield opened


def member(broker: Broker, **settings: Any) -> Consumer:
    return Consumer(broker, "in", group=GROUP, **settings)


def sort(record: Record) -> Iterable[tuple[str, bytes | None, bytes | None]]:
    """Each record once, to the topic of its number, and twice where it is 3."""
    number = int((record.value or b"").rpartition(b"/")[2])
    for _ in range(2 if number == 3 else 1):
        yield "odd" if number % 2 else "even", record.key, record.value


def written(broker: Broker, *topics: str) -> Counter[Any]:
    """What a reader of finished transactions sees."""
    with Consumer(broker, *topics, isolation="read_committed") as reader:
        return Counter((record.topic, record.value) for record in reader.drain())


EXPECTED = Counter(
    {
        (("odd" if n % 2 else "even"), b"in/%d/%d" % (p, n)): 2 if n == 3 else 1
        for p, count in ((0, 6), (1, 4))
        for n in range(count)
    }
)


@pytest.mark.parametrize("limit", [1, 3, 500])
def test_every_input_is_transformed_once(broker: Broker, limit: int) -> None:
    with member(broker, max_poll_records=limit) as consumer:
        assert transform(consumer, Producer(broker), sort, drain=True) == 10
        assert transform(consumer, Producer(broker), sort, drain=True) == 0
    assert written(broker, "odd", "even") == EXPECTED
    assert broker.groups[GROUP].committed() == {("in", 0): 6, ("in", 1): 4}


def test_an_error_undoes_the_poll_it_was_in_and_its_records_are_next(broker: Broker) -> None:
    calls = 0

    def fail_once(record: Record) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise ZeroDivisionError("mine")
        return sort(record)

    with member(broker, max_poll_records=4) as consumer:
        with pytest.raises(ZeroDivisionError, match="mine"):
            transform(consumer, Producer(broker), fail_once, drain=True)
        assert sum(broker.groups[GROUP].committed().values()) == 4
        assert transform(consumer, Producer(broker), fail_once, drain=True) == 6
    assert written(broker, "odd", "even") == EXPECTED


def test_an_error_leaves_what_was_read_to_the_next_consumer(broker: Broker) -> None:
    def fail(record: Record) -> Any:
        raise KeyboardInterrupt

    def run() -> None:
        with member(broker) as consumer:
            transform(consumer, Producer(broker), fail, drain=True)

    with pytest.raises(KeyboardInterrupt):
        run()
    with member(broker) as consumer:
        assert transform(consumer, Producer(broker), sort, drain=True) == 10
    assert written(broker, "odd", "even") == EXPECTED


def test_a_partition_that_was_lost_meanwhile_is_transformed_by_its_next_owner_alone(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    with Broker(":memory:", clock=clock) as broker:
        filled(broker, "in", 6, 4)
        broker.create_topic("odd")
        broker.create_topic("even")
        producer = Producer(broker, transaction_timeout_ms=10_000_000)
        slow = member(broker, max_poll_interval_ms=1000)

        def dawdle(record: Record) -> Any:
            if not lost:
                lost.append(record)
                clock.advance(1001)
                with member(broker) as quick:
                    assert transform(quick, Producer(broker), sort, drain=True) == 10
            return sort(record)

        lost: list[Record] = []
        assert transform(slow, producer, dawdle, drain=True) == 0
        assert written(broker, "odd", "even") == EXPECTED
        assert broker.groups[GROUP].committed() == {("in", 0): 6, ("in", 1): 4}


def test_it_waits_for_more_until_it_is_closed(broker: Broker) -> None:
    consumer = member(broker)
    running = Running(lambda: transform(consumer, Producer(broker), sort))
    assert eventually(lambda: sum(written(broker, "odd", "even").values()) == 12)
    assert running.waits()
    broker.topic("in")[0].append(b"in/0/8")
    assert eventually(lambda: ("even", b"in/0/8") in written(broker, "even"))
    consumer.close()
    assert running.result() == 11


def test_members_share_the_work(broker: Broker) -> None:
    consumers = [member(broker, max_poll_records=1) for _ in range(2)]
    runs = [
        Running(lambda each=each: transform(each, Producer(broker), sort))  # type: ignore[misc]
        for each in consumers
    ]
    assert eventually(lambda: sum(written(broker, "odd", "even").values()) >= 12)
    for consumer in consumers:
        consumer.close()
    assert sum(running.result() for running in runs) == 10
    assert written(broker, "odd", "even") == EXPECTED


def test_a_consumer_without_a_group_is_refused(broker: Broker) -> None:
    with pytest.raises(ConfigError):
        transform(Consumer(broker, "in"), Producer(broker), sort, drain=True)
    assert not written(broker, "odd", "even")


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_it_writes_one_output_for_each_input(
    tmp_path: Path, python_command: Callable[..., list[str]], seed: int
) -> None:
    chance = random.Random(seed)
    with Broker(tmp_path / "log") as broker:
        topic = broker.create_topic("in", partitions=2)
        for number in range(60):
            topic[number % 2].append(b"%d" % number)
        broker.create_topic("odd")
        broker.create_topic("even", partitions=2)
    for _ in range(6):
        with subprocess.Popen(
            python_command(WORKER, tmp_path / "log"), stdout=subprocess.PIPE, stderr=sys.stderr
        ) as worker:
            assert worker.stdout is not None
            worker.stdout.read(chance.randrange(1, 25))
            worker.kill()
    command = python_command(WORKER, tmp_path / "log")
    ended = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert ended.stdout.endswith(b"end\n")
    with Broker(tmp_path / "log") as broker:
        expected = {(topic, b"%d" % n): 1 for topic in ("odd", "even") for n in range(60)}
        assert written(broker, "odd", "even") == expected, f"seed {seed}"
