"""``minilog.replay``: what was there, once more, merged by time, the same way every time.

Sorting all records at once is the measure of the merge.
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilog
from minilog import (
    Broker,
    ClosedError,
    ConfigError,
    Consumer,
    CorruptionError,
    InvalidRecordError,
    OffsetOutOfRangeError,
    Record,
    UnknownTopicError,
    replay,
    replay_async,
)
from minilog.testing import ManualClock

START_MS = 1_700_000_000_000
Replay = Callable[..., dict[Any, int]]


def in_loop(*args: Any, **keywords: Any) -> dict[Any, int]:
    return asyncio.run(replay_async(*args, **keywords))


def awaited(*args: Any, into: Any, **keywords: Any) -> dict[Any, int]:
    async def handle(record: Record) -> None:
        into(record)

    return asyncio.run(replay_async(*args, into=handle, **keywords))


@pytest.fixture(params=[replay, in_loop, awaited])
def each_replay(request: pytest.FixtureRequest) -> Replay:
    """The plain one, and the one of an event loop with both sorts of handlers."""
    function: Replay = request.param
    return function


def sorted_at_once(broker: Broker, *names: str, low: int = 0, high: int = 2**63) -> list[Record]:
    rows = []
    for name in names:
        for partition in broker.topic(name):
            largest = 0
            for record in partition:
                if low <= record.timestamp < high:
                    largest = max(largest, record.timestamp)
                    rows.append((largest, record))
    return [record for _, record in sorted(rows)]


# ---------------------------------------------------------------- which records, in which order


def test_records_of_all_partitions_come_by_time(broker: Broker, each_replay: Replay) -> None:
    orders, audit = broker.create_topic("orders", 2), broker.create_topic("audit")
    orders[1].append(b"third", timestamp=30)
    audit[0].append(b"second", timestamp=20)
    orders[0].append_many([b"first", b"fourth"], timestamps=[10, 40])
    found: list[Record] = []
    counts = each_replay(broker, ["orders", "audit"], into=found.append)
    assert [record.value for record in found] == [b"first", b"second", b"third", b"fourth"]
    assert counts == {("orders", 0): 2, ("orders", 1): 1, ("audit", 0): 1}
    assert counts.total == 4  # type: ignore[attr-defined]


def test_at_one_time_the_order_is_topic_partition_offset(
    broker: Broker, each_replay: Replay
) -> None:
    b, a = broker.create_topic("b", 2), broker.create_topic("a")
    for partition in (b[1], b[0], a[0], b[1]):
        partition.append(b"x", timestamp=7)
    found: list[Record] = []
    each_replay(broker, ("b", "a"), into=found.append)
    assert [record[:3] for record in found] == [
        ("a", 0, 0),
        ("b", 0, 0),
        ("b", 1, 0),
        ("b", 1, 1),
    ]


def test_offsets_stay_in_order_where_timestamps_do_not(broker: Broker) -> None:
    topic = broker.create_topic("t", 2)
    topic[0].append_many([b"a", b"b", b"c"], timestamps=[50, 10, 60])
    topic[1].append_many([b"d", b"e"], timestamps=[20, 55])
    found: list[Record] = []
    replay(broker, "t", into=found.append)
    assert b"".join(record.value or b"" for record in found) == b"dabec"


STAMPS = st.lists(st.integers(0, 30), max_size=12)


@given(st.lists(STAMPS, min_size=1, max_size=4), st.integers(0, 31), st.integers(0, 31))
@settings(deadline=None)
def test_the_merge_is_what_sorting_all_at_once_gives(
    columns: list[list[int]], since: int, until: int
) -> None:
    with Broker(":memory:", segment_bytes=256) as broker:
        for number, stamps in enumerate(columns):
            partition = broker.create_topic(f"t{number // 2}", 2, exist_ok=True)[number % 2]
            for start in range(0, len(stamps), 3):
                some = stamps[start : start + 3]
                partition.append_many([b"v"] * len(some), timestamps=some)
        names = list(broker.topics)
        for low, high in ((None, None), (since, None), (None, until), (since, since + until)):
            found: list[Record] = []
            counts = replay(broker, names, since=low, until=high, into=found.append)
            expected = sorted_at_once(
                broker, *names, low=low or 0, high=2**63 if high is None else high
            )
            assert found == expected
            assert counts.total == len(expected)


def test_reading_ahead_little_changes_nothing(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = broker.create_topic("t", 3)
    for number in range(300):
        topic[number % 3].append(b"%d" % number, timestamp=(number * 37) % 100)
    monkeypatch.setattr(sys.modules["minilog.replay"], "MOST_READ_AHEAD", 1)
    found: list[Record] = []
    replay(broker, "t", since=10, until=90, into=found.append)
    assert found == sorted_at_once(broker, "t", low=10, high=90)


def test_times_may_be_datetimes_and_until_is_exclusive(broker: Broker, each_replay: Replay) -> None:
    topic = broker.create_topic("t")
    for ms in range(0, 50, 10):
        topic[0].append(b"%d" % ms, timestamp=START_MS + ms)
    moment = datetime.fromtimestamp(START_MS / 1000, UTC)
    ten = timedelta(milliseconds=10)
    for since, until in (
        (START_MS + 10, START_MS + 30),
        (moment + ten, (moment + 3 * ten).astimezone(timezone(timedelta(hours=5)))),
    ):
        found: list[Record] = []
        each_replay(broker, "t", since=since, until=until, into=found.append)
        assert [record.value for record in found] == [b"10", b"20"]


def test_topics_may_be_a_pattern_and_ours_are_left_out(broker: Broker) -> None:
    for name in ("orders", "orders.eu", "audit"):
        broker.create_topic(name)[0].append(name.encode())
    found: list[Record] = []
    counts = replay(broker, re.compile("orders"), into=found.append)
    assert sorted(record.topic for record in found) == ["orders", "orders.eu"]
    assert set(counts) == {("orders", 0), ("orders.eu", 0)}
    assert replay(broker, re.compile("nothing"), into=found.append) == {}
    assert replay(broker, ["audit", "audit"], into=found.append).total == 1


def test_what_comes_after_the_start_is_not_replayed(broker: Broker, each_replay: Replay) -> None:
    topic = broker.create_topic("t", 2)
    for partition in topic:
        partition.append_many([b"there"] * 3)
    found: list[Record] = []

    def handle(record: Record) -> None:
        found.append(record)
        topic[0].append(b"later")
        topic[1].append_many([b"later"] * 2)

    counts = each_replay(broker, "t", into=handle)
    assert counts == {("t", 0): 3, ("t", 1): 3}
    assert {record.value for record in found} == {b"there"}


def test_nothing_there_is_nothing_replayed(broker: Broker, each_replay: Replay) -> None:
    topic = broker.create_topic("t", 2)
    found: list[Record] = []
    assert each_replay(broker, "t", into=found.append) == {("t", 0): 0, ("t", 1): 0}
    topic[0].append(b"early", timestamp=1)
    assert each_replay(broker, "t", since=2, into=found.append)[("t", 0)] == 0
    assert not found


def test_a_consumer_s_place_is_not_touched(broker: Broker) -> None:
    topic = broker.create_topic("t")
    topic[0].append_many([b"a", b"b"])
    consumer = Consumer(broker, "t")
    assert len(consumer.poll()) == 2
    replay(broker, "t", into=lambda record: None)
    topic[0].append(b"c")
    assert consumer.poll().values == [b"c"]


def test_a_read_only_broker_replays(log_path: Path) -> None:
    with Broker(log_path) as writer:
        writer.create_topic("t")[0].append_many([b"a", b"b"])
        found: list[Record] = []
        with Broker(log_path, read_only=True) as reader:
            replay(reader, "t", into=found.append)
        assert [record.value for record in found] == [b"a", b"b"]


# ---------------------------------------------------------------- the pace


def turned(clock: ManualClock, work: Callable[[], Any]) -> None:
    """Run ``work`` in a thread, turning the clock on whenever it waits."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        if clock._sleepers:
            clock.advance(1)


async def turned_in_loop(clock: ManualClock, work: Any) -> None:
    """Run ``work`` in this event loop, turning the clock on whenever it waits."""
    task = asyncio.ensure_future(work)
    while not task.done():
        for _ in range(20):  # more turns of the loop than waking anybody takes
            await asyncio.sleep(0)
        clock.advance(1)
    await task


@pytest.mark.parametrize(
    ("speed", "expected"), [(1, [0, 30, 100]), (2, [0, 15, 50]), (3, [0, 10, 34])]
)
def test_at_a_speed_records_come_at_their_pace_by_the_clock(
    clock: ManualClock, speed: float, expected: list[int]
) -> None:
    with Broker(":memory:", clock=clock) as broker:
        topic = broker.create_topic("t", 2)
        topic[0].append_many([b"a", b"c"], timestamps=[1000, 1100])
        topic[1].append(b"b", timestamp=1030)
        began, at = clock.now_ms(), []

        def work() -> None:
            replay(broker, "t", speed=speed, into=lambda record: at.append(clock.now_ms() - began))

        turned(clock, work)
        assert at == expected


def test_at_a_speed_an_event_loop_replays_by_the_clock_too(clock: ManualClock) -> None:
    with Broker(":memory:", clock=clock) as broker:
        topic = broker.create_topic("t")
        topic[0].append_many([b"a", b"b", b"c"], timestamps=[5, 10, 25])
        began, at = clock.now_ms(), []

        async def handle(record: Record) -> None:
            at.append(clock.now_ms() - began)

        asyncio.run(turned_in_loop(clock, replay_async(broker, "t", speed=0.5, into=handle)))
        assert at == [0, 10, 40]


def test_a_slow_handler_is_not_waited_for_twice(clock: ManualClock) -> None:
    with Broker(":memory:", clock=clock) as broker:
        broker.create_topic("t")[0].append_many([b"v"] * 4, timestamps=[0, 10, 20, 100])
        began, at = clock.now_ms(), []

        def handle(record: Record) -> None:
            at.append(clock.now_ms() - began)
            clock.advance(15)

        turned(clock, lambda: replay(broker, "t", speed=1, into=handle))
        assert at == [0, 15, 30, 100]


def test_at_no_speed_nobody_waits(clock: ManualClock, each_replay: Replay) -> None:
    with Broker(":memory:", clock=clock) as broker:
        broker.create_topic("t")[0].append_many([b"v"] * 1000, timestamps=range(0, 10**9, 10**6))
        found: list[Record] = []
        each_replay(broker, "t", into=found.append)
        assert len(found) == 1000


def test_closing_the_broker_ends_a_replay_that_waits(clock: ManualClock) -> None:
    for function in (replay, in_loop):
        broker = Broker(":memory:", clock=clock)
        broker.create_topic("t")[0].append_many([b"a", b"b"], timestamps=[0, 10**6])
        ended: list[BaseException] = []

        def work(function: Any = function, broker: Broker = broker, ended: Any = ended) -> None:
            try:
                function(broker, "t", speed=1, into=lambda record: None)
            except ClosedError as error:
                ended.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while not broker._waiters:
            assert thread.is_alive()
        broker.close()
        thread.join(timeout=60)
        assert len(ended) == 1


def test_closing_the_broker_ends_a_replay_at_full_speed(each_replay: Replay) -> None:
    broker = Broker(":memory:")
    broker.create_topic("t")[0].append_many([b"v"] * 10)
    with pytest.raises(ClosedError):
        each_replay(broker, "t", into=lambda record: broker.close())


# ---------------------------------------------------------------- what goes wrong


class Refused(Exception):
    pass


def test_what_a_handler_raises_comes_out_with_where_it_was(
    broker: Broker, each_replay: Replay
) -> None:
    broker.create_topic("t", 2)[1].append_many([b"a", b"b", b"c"], timestamps=[1, 2, 3])

    def handle(record: Record) -> None:
        if record.value == b"c":
            raise Refused

    with pytest.raises(Refused) as caught:
        each_replay(broker, "t", into=handle)
    assert caught.value.__notes__ == ["while replaying t-1 at offset 2, after 2 records"]


def test_a_coroutine_function_is_told_where_it_belongs(broker: Broker) -> None:
    broker.create_topic("t")[0].append(b"v")

    async def handle(record: Record) -> None: ...

    with pytest.raises(ConfigError, match="replay_async"):
        replay(broker, "t", into=handle)


def test_records_that_are_deleted_before_their_turn_are_told(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["minilog.replay"], "MOST_READ_AHEAD", 1)
    topic = broker.create_topic("t")
    for _ in range(10):
        topic[0].append(b"v" * 100)
    with pytest.raises(OffsetOutOfRangeError):
        replay(broker, "t", into=lambda record: topic[0].delete_before(8))


def test_damage_comes_out_after_what_is_before_it(log_path: Path) -> None:
    with Broker(log_path) as broker:
        topic = broker.create_topic("t")
        for number in range(3):
            topic[0].append(b"%d" % number)
    log = log_path / "t" / "0" / "00000000000000000000.log"
    data = bytearray(log.read_bytes())
    data[64 + 48 + 20] ^= 1
    log.write_bytes(data)
    found: list[Record] = []
    with Broker(log_path, read_only=True) as broker, pytest.raises(CorruptionError):
        replay(broker, "t", into=found.append)
    assert [record.value for record in found] == [b"0"]


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"topics": "absent"}, UnknownTopicError),
        ({"topics": ["t", "absent"]}, UnknownTopicError),
        ({"topics": []}, ConfigError),
        ({"topics": 7}, ConfigError),
        ({"topics": [b"t"]}, ConfigError),
        ({"into": None}, ConfigError),
        ({"into": "t"}, ConfigError),
        ({"broker": "t"}, ConfigError),
        ({"speed": 0}, ConfigError),
        ({"speed": -1.5}, ConfigError),
        ({"speed": float("nan")}, ConfigError),
        ({"speed": float("inf")}, ConfigError),
        ({"speed": "fast"}, TypeError),
        ({"speed": True}, TypeError),
        ({"since": -1}, InvalidRecordError),
        ({"since": datetime(2026, 1, 1)}, InvalidRecordError),
        ({"until": "now"}, TypeError),
        ({"since": 2, "until": 1}, ConfigError),
    ],
)
def test_a_wrong_argument_is_told_before_anything_is_replayed(
    broker: Broker, each_replay: Replay, keywords: dict[str, Any], error: type[Exception]
) -> None:
    broker.create_topic("t")[0].append(b"v")
    found: list[Record] = []
    given = {"broker": broker, "topics": "t", "into": found.append, **keywords}
    if each_replay is awaited and "into" in keywords:
        return  # that one wraps it
    with pytest.raises(error):
        each_replay(given.pop("broker"), given.pop("topics"), **given)
    assert not found


def test_a_closed_broker_replays_nothing(each_replay: Replay) -> None:
    broker = Broker(":memory:")
    broker.create_topic("t")
    broker.close()
    with pytest.raises(ClosedError):
        each_replay(broker, "t", into=print)


def test_an_event_loop_does_other_things_meanwhile() -> None:
    async def work(broker: Broker) -> list[str]:
        order: list[str] = []
        other = asyncio.create_task(note(order))
        await replay_async(broker, "t", into=lambda record: order.append("record"))
        await other
        return order

    async def note(order: list[str]) -> None:
        order.append("other")

    with Broker(":memory:") as broker:
        broker.create_topic("t")[0].append_many([b"v"] * 2000)
        order = asyncio.run(work(broker))
    assert 0 < order.index("other") < 2000


def test_replay_is_in_the_shop_window() -> None:
    assert minilog.replay is replay
    assert minilog.replay_async is replay_async
