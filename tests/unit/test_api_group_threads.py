"""Members of a group in threads and under asyncio, as their contract says.

Knows only the public face. How threads take turns is not in these tests' hands; what must hold
holds whatever turns they take.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from members import GROUP, assert_shared, filled, places, read_all, settle
from running import Running

from minilog import Broker, ClosedError, CommitError, Consumer, RebalanceError
from minilog.testing import ManualClock


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=ManualClock(1000), segment_bytes=4096) as opened:
        yield opened


def member(broker: Broker, **settings: Any) -> Consumer:
    return Consumer(broker, "a", group=GROUP, **settings)


def test_threads_that_share_a_topic_get_every_record_once(broker: Broker) -> None:
    filled(broker, "a", *[500] * 6)
    everything = {("a", p, n) for p in range(6) for n in range(500)}
    seen: Counter[tuple[str, int, int]] = Counter()
    guard = threading.Lock()

    def work() -> None:
        with member(broker) as consumer:
            while True:
                given = places(consumer.poll(0, max_records=20))
                with guard:
                    seen.update(given)
                    if len(seen) == len(everything):
                        return

    for running in [Running(work) for _ in range(5)]:
        running.result()
    assert set(seen) == everything
    assert max(seen.values()) == 1, "an orderly move delivered a record twice"
    assert sum(broker.groups[GROUP].committed().values()) == 3000


def test_threads_that_come_and_go_lose_no_record(broker: Broker) -> None:
    topic = filled(broker, "a", *[200] * 4)
    everything = {("a", p, n) for p in range(4) for n in range(400)}
    seen: Counter[tuple[str, int, int]] = Counter()
    guard = threading.Lock()

    def work(number: int) -> None:
        while True:
            with member(broker) as consumer:
                for _ in range(number + 2):
                    given = places(consumer.poll(0, max_records=10))
                    with guard:
                        seen.update(given)
                        if len(seen) == len(everything):
                            return

    workers = [Running(lambda number=number: work(number)) for number in range(4)]  # type: ignore[misc]
    for partition in topic:
        partition.append_many([b"v"] * 200)
    for running in workers:
        running.result()
    assert set(seen) == everything
    assert max(seen.values()) == 1, "an orderly move delivered a record twice"


def test_a_partition_is_never_read_by_two_threads_at_once(broker: Broker) -> None:
    topic = filled(broker, "a", *[0] * 4)
    holders: dict[Any, int] = {}
    problems: list[Any] = []
    guard = threading.Lock()
    is_over = threading.Event()

    def work(number: int) -> None:
        def on_assigned(given: list[Any]) -> None:
            with guard:
                problems.extend(tp for tp in given if tp in holders)
                holders.update(dict.fromkeys(given, number))

        def on_revoked(given: list[Any]) -> None:
            with guard:
                problems.extend(tp for tp in given if holders.pop(tp, None) != number)

        while not is_over.is_set():
            with Consumer(broker, group=GROUP) as consumer:
                consumer.subscribe(["a"], on_assigned=on_assigned, on_revoked=on_revoked)
                for _ in range(5):
                    for record in consumer.poll(0):
                        with guard:
                            held = holders.get((record.topic, record.partition))
                        if held != number:
                            problems.append(record)

    workers = [Running(lambda number=number: work(number)) for number in range(4)]  # type: ignore[misc]
    for number in range(400):
        topic[number % 4].append(b"v")
    is_over.set()
    for running in workers:
        running.result()
    assert not problems
    assert not holders


def test_commits_from_other_threads_never_outlive_the_ownership(broker: Broker) -> None:
    """Each owner commits where it read to, from a thread of its own: no commit goes back."""
    filled(broker, "a", 300)
    history: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            found = broker.groups[GROUP].committed() if GROUP in broker.groups else {}
            history.append(found.get(("a", 0), 0))

    watching = Running(watch)
    while not history or history[-1] < 300:
        consumer = member(broker, auto_commit=False, max_poll_records=10)
        records = consumer.poll()

        def commit(consumer: Consumer = consumer, records: Any = records) -> None:
            try:
                for record in records:
                    consumer.commit(record)
            except (CommitError, RebalanceError, ClosedError):
                return

        committing = Running(commit)
        consumer.close()
        committing.result()
    is_over.set()
    watching.result()
    assert history == sorted(history), "a commit of an owner that was gone has counted"


def test_closing_the_broker_ends_members_that_wait(broker: Broker) -> None:
    filled(broker, "a", 0, 0)
    waiting = [Running(lambda: places(member(broker).poll(None))) for _ in range(3)]
    waiting.append(Running(lambda: places(member(broker))))
    assert all(running.waits() for running in waiting)
    broker.close()
    for running in waiting:
        outcome = running.outcome()
        assert outcome == [] or isinstance(outcome, ClosedError)


def test_a_member_of_a_closed_broker_closes_quietly(broker: Broker) -> None:
    filled(broker, "a", 5)
    consumer = member(broker)
    assert len(consumer.poll()) == 5
    broker.close()
    with pytest.raises(ClosedError):
        consumer.poll()
    with pytest.raises(ClosedError):
        consumer.commit()
    consumer.close()


# -- asyncio ------------------------------------------------------------------------------------


def run_async(main: Any) -> Any:
    return Running(lambda: asyncio.run(main())).result()


def test_members_of_one_event_loop_share_the_partitions(broker: Broker) -> None:
    topic = filled(broker, "a", *[0] * 4)

    async def main() -> list[tuple[str, int, int]]:
        consumers = [member(broker) for _ in range(3)]
        seen: list[tuple[str, int, int]] = []

        async def read(consumer: Consumer) -> None:
            async for record in consumer:
                seen.extend(places([record]))
                if len(seen) == 40:
                    for other in consumers:
                        other.close()

        reading = asyncio.gather(*[read(consumer) for consumer in consumers])
        for number in range(40):
            topic[number % 4].append(b"v")
            await asyncio.sleep(0)
        await reading
        return seen

    assert sorted(run_async(main)) == [("a", p, n) for p in range(4) for n in range(10)]
    assert set(broker.groups[GROUP].committed().values()) <= {9, 10}


def test_poll_async_takes_part_in_a_rebalance(broker: Broker) -> None:
    topic = filled(broker, "a", 0, 0)

    async def main() -> None:
        first, second = member(broker), member(broker)
        polls = [asyncio.ensure_future(each.poll_async(None)) for each in (first, second)]
        while not (first.assignment() and second.assignment()):
            await asyncio.sleep(0)
        topic[0].append(b"v")
        topic[1].append(b"v")
        given = [places(await poll) for poll in polls]
        assert sorted(given[0] + given[1]) == [("a", 0, 0), ("a", 1, 0)]
        assert all(len(each) == 1 for each in given)
        first.close()
        waiting = asyncio.ensure_future(second.poll_async(None))
        await asyncio.sleep(0)
        topic[0].append(b"w")
        assert len(await waiting) == 1

    run_async(main)


def test_an_event_loop_and_threads_share_a_group(broker: Broker) -> None:
    topic = filled(broker, "a", 0, 0)
    inside, outside = member(broker), member(broker)
    settle(inside, outside)
    assert_shared(broker, inside, outside)
    for partition in topic:
        partition.append_many([b"v"] * 5)

    async def main() -> list[tuple[str, int, int]]:
        return places(await inside.poll_async(None))

    seen = run_async(main) + Running(lambda: places(outside.poll(None))).result()
    assert sorted(seen) == [("a", p, n) for p in range(2) for n in range(5)]
    assert read_all(inside, outside) == []
