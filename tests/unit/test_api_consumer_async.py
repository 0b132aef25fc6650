"""Consumer, as its contract says: under asyncio.

Knows only the public face. Every event loop runs in a thread of its own, so that a call that
holds it up is seen and fails.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from minilog import Broker, ClosedError, Consumer, Topic

PATIENCE_S = 20


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


def run_async(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The result of a coroutine function run to the end of its loop."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(main()))
        except BaseException as error:  # raised again below
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert outcome, "the event loop is held up"
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def test_poll_async_gives_what_is_there_and_what_comes(topic: Topic, consumer: Consumer) -> None:
    async def main() -> list[list[Any]]:
        topic[0].append(b"there")
        there = await consumer.poll_async(timeout=0)
        nothing = await consumer.poll_async(timeout=0)
        waiting = asyncio.ensure_future(consumer.poll_async(timeout=None))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        topic[1].append(b"comes")
        return [values(there), values(nothing), values(await waiting)]

    assert run_async(main) == [[b"there"], [], [b"comes"]]


def test_async_iteration_waits_and_leaves_the_rest_on_break(
    topic: Topic, consumer: Consumer
) -> None:
    topic[0].append_many([b"0", b"1", b"2"])

    async def main() -> list[Any]:
        seen: list[Any] = []
        async for record in consumer:
            seen.append(record.value)
            if len(seen) == 2:
                break
        return seen

    assert run_async(main) == [b"0", b"1"]
    assert consumer.position(("a", 0)) == 2
    assert values(consumer.poll()) == [b"2"]


def test_async_iteration_leaves_the_loop_free_while_it_waits(
    topic: Topic, consumer: Consumer
) -> None:
    async def main() -> list[Any]:
        seen: list[Any] = []

        async def read() -> None:
            async for record in consumer:
                seen.append(record.value)
                if len(seen) == 5:
                    break

        reading = asyncio.ensure_future(read())
        for number in range(5):
            while len(seen) < number:
                await asyncio.sleep(0)
            topic[number % 2].append(b"%d" % number)
        await reading
        return seen

    assert run_async(main) == [b"%d" % number for number in range(5)]


def test_a_cancelled_poll_async_lets_go_and_loses_no_record(
    topic: Topic, consumer: Consumer
) -> None:
    async def main() -> list[Any]:
        waiting = asyncio.ensure_future(consumer.poll_async(timeout=None))
        for _ in range(10):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        topic[0].append(b"v")
        return values(await consumer.poll_async(timeout=None))

    assert run_async(main) == [b"v"]


@pytest.mark.parametrize("what", ["consumer", "broker"])
def test_close_ends_async_waiting(broker: Broker, consumer: Consumer, what: str) -> None:
    async def main() -> list[Any]:
        seen: list[Any] = []

        async def read() -> None:
            async for record in consumer:
                seen.append(record.value)

        waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(read())]
        if what == "broker":
            waiting.append(asyncio.ensure_future(Consumer(broker, "a").poll_async(timeout=None)))
        for _ in range(100):
            await asyncio.sleep(0)
        (consumer if what == "consumer" else broker).close()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(outcome, ClosedError) or not outcome for outcome in outcomes), (
            outcomes
        )
        return seen

    assert run_async(main) == []


def test_two_async_consumers_share_one_loop(broker: Broker, topic: Topic) -> None:
    async def take(count: int) -> list[Any]:
        seen: list[Any] = []
        async for record in Consumer(broker, "a"):
            seen.append(record.value)
            if len(seen) == count:
                break
        return seen

    async def main() -> list[list[Any]]:
        both = asyncio.gather(take(3), take(3))
        for number in range(3):
            await asyncio.sleep(0)
            topic[0].append(b"%d" % number)
        return list(await both)

    assert run_async(main) == [[b"0", b"1", b"2"]] * 2
