"""The contract of a partition with clocks and threads: times, waiting reads, many writers."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from minilog import (
    Broker,
    ClosedError,
    InvalidRecordError,
    OffsetConflictError,
    OffsetOutOfRangeError,
    Partition,
    Records,
)
from minilog.testing import ManualClock

PATIENCE = 60  # seconds until a thread that should have ended is called stuck


@pytest.fixture
def partition(broker: Broker) -> Partition:
    return broker.create_topic("t", partitions=2)[1]


def in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Starts `call` in a thread; the function returned waits for its result or error."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the thread is stuck"
        return outcome[0]

    return result


def test_of_threads_expecting_the_same_offset_exactly_one_wins(partition: Partition) -> None:
    def compete(name: bytes) -> int:
        won = 0
        for offset in range(100):
            barrier.wait()
            try:
                partition.append(name, expected_offset=offset)
                won += 1
            except OffsetConflictError:
                pass
            barrier.wait()
        return won

    barrier = threading.Barrier(3, timeout=PATIENCE)
    results = [in_thread(partial(compete, name)) for name in (b"a", b"b", b"c")]
    assert sum(result() for result in results) == 100 == partition.end_offset


def test_waiting_reads_of_two_threads_wake_each_other(broker: Broker) -> None:
    ping, pong = broker.create_topic("ping-pong", partitions=2)

    def answer() -> int:
        for offset in range(300):
            [question] = pong.read(offset, timeout=PATIENCE)
            ping.append(question.value)
        return pong.end_offset

    answered = in_thread(answer)
    for offset in range(300):
        pong.append(b"%d" % offset)
        [reply] = ping.read(offset, timeout=PATIENCE)
        assert reply.value == b"%d" % offset
    assert answered() == 300


def test_one_append_wakes_every_waiting_read(partition: Partition) -> None:
    for offset in range(50):
        results = [in_thread(partial(partition.read, offset, timeout=PATIENCE)) for _ in range(3)]
        partition.append(b"v")
        assert [list(result().offsets) for result in results] == [[offset]] * 3


@pytest.mark.parametrize("timeout", [None, PATIENCE * 10])
def test_closing_the_broker_ends_waiting_reads(location: Any, timeout: float | None) -> None:
    for _ in range(10):
        broker = Broker(location)
        partition = broker.create_topic("t", exist_ok=True)[0]
        results = [in_thread(partial(partition.read, 0, timeout=timeout)) for _ in range(2)]
        broker.close()
        for result in results:
            ended = result()
            assert isinstance(ended, ClosedError) or list(ended) == []


def test_a_waiting_read_ends_by_the_clock_of_the_broker(location: Any, clock: ManualClock) -> None:
    with Broker(location, clock=clock) as broker:
        partition = broker.create_topic("t")[0]
        done = threading.Event()

        def read() -> Records:
            records = partition.read(0, timeout=3600)
            done.set()
            return records

        result = in_thread(read)
        turns = 0
        while not done.wait(0.01) and turns < 5000:
            clock.advance(60_000)
            turns += 1
        assert list(result()) == []
        assert turns >= 60


@pytest.mark.parametrize("run", [1, 7, 400])
@pytest.mark.parametrize("order", ["rising", "falling", "random", "equal"])
def test_offset_at_is_the_earliest_offset_at_or_after_a_time(
    location: Any, order: str, run: int
) -> None:
    times = random.Random(4).choices(range(1000), k=400)
    times = {
        "rising": sorted(times),
        "falling": sorted(times)[::-1],
        "random": times,
        "equal": [500] * 400,
    }[order]
    with Broker(location, segment_bytes=512, index_interval_bytes=64) as broker:
        partition = broker.create_topic("t")[0]
        assert partition.offset_at(0) is None
        for part in range(0, 400, run):
            if run == 1:
                partition.append(b"v", timestamp=times[part])
            else:
                partition.append_many(
                    [b"v"] * len(times[part : part + run]), timestamps=times[part : part + run]
                )
        for start in (0, 1, 123, 399, 400):
            partition.delete_before(start)
            for when in (0, 1, 2, 250, 499, 500, 501, 998, *times[::40], 1000, 2**63 - 1):
                expected = next((n for n in range(start, 400) if times[n] >= when), None)
                assert partition.offset_at(when) == expected, (start, when)


def test_offset_at_takes_an_aware_datetime(partition: Partition) -> None:
    moment = datetime(2024, 2, 29, 12, tzinfo=UTC)
    for second in range(5):
        partition.append(b"v", timestamp=moment + timedelta(seconds=second))
    assert partition.offset_at(moment) == 0
    assert partition.offset_at(moment + timedelta(milliseconds=1001)) == 2
    assert partition.offset_at(moment + timedelta(seconds=5)) is None
    for wrong in (moment.replace(tzinfo=None), -1):
        with pytest.raises(InvalidRecordError):
            partition.offset_at(wrong)


def test_records_get_the_time_of_the_broker_clock(location: Any, clock: ManualClock) -> None:
    with Broker(location, clock=clock) as broker:
        partition = broker.create_topic("t")[0]
        partition.append(b"1")
        clock.advance(5)
        partition.append_many([b"2", b"3"])
        partition.append(b"4", timestamp=0)
        start = 1_700_000_000_000
        assert list(partition.read(0).timestamps) == [start, start + 5, start + 5, 0]


class SettableClock(ManualClock):
    """A wall clock that somebody sets back."""

    time_ms = 1000

    def now_ms(self) -> int:
        return self.time_ms


def test_append_time_never_steps_back_with_the_clock(location: Any) -> None:
    clock = SettableClock()
    with Broker(location, clock=clock) as broker:
        partition = broker.create_topic("t", timestamp_type="append")[0]
        for now in (1000, 1010, 400, 0, 1005, 1020):
            clock.time_ms = now
            partition.append(b"v", timestamp=7)
            partition.append_many([b"v", b"v"], timestamps=[9, 5])
        expected = [time for time in (1000, 1010, 1010, 1010, 1010, 1020) for _ in range(3)]
        assert list(partition.read(0).timestamps) == expected
        clock.time_ms = 3
    if location != ":memory:":
        with Broker(location, clock=clock) as broker:
            broker.topic("t")[0].append(b"v")
            assert list(broker.topic("t")[0].read(18).timestamps) == [1020]


@pytest.mark.parametrize("limit", [0, 500])
def test_a_timestamp_too_far_ahead_of_the_clock_is_refused(
    broker: Broker, clock: ManualClock, limit: int
) -> None:
    with Broker(":memory:", clock=clock) as broker:
        partition = broker.create_topic("t", timestamp_after_max_ms=limit)[0]
        latest = clock.now_ms() + limit
        for call in (
            lambda: partition.append(b"v", timestamp=latest + 1),
            lambda: partition.append_many([b"v"] * 3, timestamps=[0, latest + 1, 0]),
            lambda: partition.append_many([b"v"] * 3, timestamps=latest + 1),
        ):
            with pytest.raises(InvalidRecordError):
                call()
        assert partition.end_offset == 0
        assert partition.append(b"v", timestamp=latest) == 0
        assert partition.append_many([b"v"] * 2, timestamps=[latest, 0]) == range(1, 3)
        clock.advance(1)
        assert partition.append(b"v", timestamp=latest + 1) == 3


def test_threads_appending_at_once_share_out_every_offset_once(partition: Partition) -> None:
    def write(name: int) -> dict[int, bytes]:
        mine: dict[int, bytes] = {}
        for turn in range(150):
            if turn % 3:
                value = b"%d-%d" % (name, turn)
                mine[partition.append(value)] = value
            else:
                run = [b"%d-%d-%d" % (name, turn, n) for n in range(5)]
                mine.update(zip(partition.append_many(run), run, strict=True))
        assert list(mine) == sorted(mine)
        return mine

    results = [in_thread(partial(write, name)) for name in range(4)]
    written = [result() for result in results]
    together = {offset: value for mine in written for offset, value in mine.items()}
    assert sum(map(len, written)) == len(together) == partition.end_offset == 4 * (100 + 50 * 5)
    read = [record.value for record in partition]
    assert read == [together[offset] for offset in range(partition.end_offset)]
    partition.check()


def test_a_run_becomes_visible_all_at_once_to_every_reader(partition: Partition) -> None:
    def read() -> int:
        seen = 0
        while seen < 2100:
            records = partition.read(seen, max_records=10**6, timeout=PATIENCE)
            assert records, "the writer is stuck"
            assert partition.end_offset % 7 == len(records) % 7 == 0
            assert list(records.values) == [b"%d" % (offset // 7) for offset in records.offsets]
            seen += len(records)
        return seen

    results = [in_thread(read) for _ in range(3)]
    for turn in range(300):
        partition.append_many([b"%d" % turn] * 7)
    assert [result() for result in results] == [2100] * 3


def test_a_reader_beside_deletion_gets_the_right_records_or_out_of_range(
    partition: Partition,
) -> None:
    def write() -> int:
        for turn in range(400):
            partition.append_many([b"%d" % offset for offset in range(turn * 5, turn * 5 + 5)])
            partition.delete_before(max(0, partition.end_offset - 8))
        return partition.end_offset

    def read() -> int:
        position = 0
        while position < 2000:
            try:
                records = partition.read(position, max_records=7, timeout=PATIENCE)
            except OffsetOutOfRangeError as error:
                position = max(error.start_offset, position + 1)  # never the same one twice
                continue
            assert [r.value for r in records] == [b"%d" % offset for offset in records.offsets]
            assert list(records.offsets) == list(range(position, position + len(records)))
            position += len(records)
        return position

    results = [in_thread(call) for call in (read, read, write)]
    assert [result() for result in results] == [2000] * 3
    partition.check()
