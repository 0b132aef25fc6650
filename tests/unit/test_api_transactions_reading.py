"""Reading beside transactions: stable offsets, positions, lag, waiting, seeking, counting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import Running, advance_until_done

from minilog import Broker, Consumer, Partition, Producer, Records
from minilog.places import Fetched
from minilog.testing import ManualClock


@pytest.fixture
def partition(broker: Broker) -> Partition:
    return broker.create_topic("t")[0]


@pytest.fixture
def reader(broker: Broker, partition: Partition) -> Consumer:
    return Consumer(broker, "t", isolation="read_committed")


def transact(broker: Broker, *values: bytes, aborts: bool = False) -> None:
    with Producer(broker).transaction() as tx:
        for value in values:
            tx.send("t", value)
        if aborts:
            tx.abort()


# ---------------------------------------------------------------- where one is


def test_the_stable_offset_is_the_first_of_the_oldest_open_one(
    broker: Broker, partition: Partition
) -> None:
    producer = Producer(broker)
    assert partition.stable_offset == 0
    partition.append(b"0")
    assert partition.stable_offset == 1
    first, second = producer.transaction(), producer.transaction()
    assert partition.stable_offset == 1
    first.send("t", b"1")
    partition.append(b"2")
    second.send("t", b"3")
    assert partition.stable_offset == 1
    first.abort()
    assert partition.stable_offset == 3
    second.abort()
    assert partition.stable_offset == partition.end_offset == 6


def test_the_position_steps_over_markers_and_aborted_records(
    broker: Broker, partition: Partition, reader: Consumer
) -> None:
    for number in range(20):
        transact(broker, b"never" * 20, aborts=True)
        transact(broker, b"%d" % number)
    got: list[bytes | None] = []
    while reader.lag(("t", 0)):
        got += reader.poll(max_records=3).values
    assert got == [b"%d" % number for number in range(20)]
    assert reader.position(("t", 0)) == partition.end_offset == 80
    assert reader.lag() == {("t", 0): 0}


def test_lag_is_to_the_stable_offset_and_reaches_zero(
    broker: Broker, partition: Partition, reader: Consumer
) -> None:
    partition.append_many([b"0", b"1"])
    with Producer(broker).transaction() as tx:
        tx.send_many("t", [b"2", b"3"])
        partition.append(b"4")
        assert reader.lag(("t", 0)) == 2
        assert reader.poll().values == [b"0", b"1"]
        assert reader.lag(("t", 0)) == 0
        assert Consumer(broker, "t").lag(("t", 0)) == 5
    assert reader.lag(("t", 0)) == 4
    assert reader.poll().values == [b"2", b"3", b"4"]
    assert reader.poll().values == []
    assert reader.lag(("t", 0)) == 0


def test_only_markers_and_aborted_records_leave_no_lag(
    broker: Broker, partition: Partition, reader: Consumer
) -> None:
    transact(broker, *[b"never"] * 50, aborts=True)
    assert list(reader.drain()) == []
    assert reader.lag(("t", 0)) == 0
    assert partition.end_offset == 51


def test_who_does_not_care_sees_open_and_aborted_records(
    broker: Broker, partition: Partition
) -> None:
    with Consumer(broker, "t") as consumer:
        with Producer(broker).transaction() as tx:
            tx.send("t", b"open")
            assert consumer.poll().values == [b"open"]
            assert partition.read(0).values == [b"open"]
            tx.abort()
        assert [record.value for record in Consumer(broker, "t").drain()] == [b"open"]
        assert consumer.poll().values == []
        assert consumer.lag(("t", 0)) == 0


def test_drain_does_not_wait_for_open_transactions(
    broker: Broker, partition: Partition, reader: Consumer
) -> None:
    partition.append(b"0")
    with Producer(broker).transaction() as tx:
        tx.send("t", b"1")
        partition.append(b"2")
        assert [record.value for record in reader.drain()] == [b"0"]
    assert [record.value for record in reader.drain()] == [b"1", b"2"]


def test_iteration_stops_before_what_is_open_and_goes_on(
    broker: Broker, partition: Partition, reader: Consumer
) -> None:
    transact(broker, b"0")
    transact(broker, b"never", aborts=True)
    transact(broker, b"1", b"2")
    got = []
    for record in reader:
        got.append((record.offset, record.value))
        if len(got) == 3:
            break
    assert got == [(0, b"0"), (4, b"1"), (5, b"2")]
    assert reader.position(("t", 0)) == 6
    assert list(reader.drain()) == []
    assert reader.position(("t", 0)) == 7


def test_what_can_be_read_is_counted(broker: Broker, partition: Partition) -> None:
    partition.append(b"0")
    transact(broker, b"1", b"2")
    transact(broker, b"never", aborts=True)
    assert len(partition) == 3
    assert partition.end_offset == 6
    partition.delete_before(2)
    assert len(partition) == 1
    partition.check()


def test_reading_at_a_marker_or_an_aborted_record_gives_the_next(
    broker: Broker, partition: Partition
) -> None:
    transact(broker, b"never", b"never", aborts=True)
    transact(broker, b"3")
    for offset in range(4):
        assert partition.read(offset, max_records=1).offsets[0] == 3
    assert not partition.read(4)
    assert partition.read(4).next_offset == 5


@pytest.mark.parametrize("shape", ["single", "batch"])
def test_no_time_is_found_in_aborted_records(
    broker: Broker, partition: Partition, shape: str
) -> None:
    partition.append(b"0", timestamp=10)
    with Producer(broker).transaction() as tx:
        if shape == "single":
            tx.send("t", b"never", timestamp=100)
        else:
            tx.send_many("t", [b"never", b"never"], timestamps=[100, 120])
        assert partition.offset_at(50) == 1  # open ones are read there
        tx.abort()
    assert partition.offset_at(50) is None
    kept = partition.append(b"kept", timestamp=60)
    assert partition.offset_at(50) == kept
    assert partition.offset_at(10) == 0
    transact(broker, b"now")
    assert partition.offset_at(61) == partition.end_offset - 2


# ---------------------------------------------------------------- the end, and seeking


@pytest.mark.parametrize("group", [None, "g"])
def test_latest_is_the_stable_offset(
    broker: Broker, partition: Partition, group: str | None
) -> None:
    partition.append(b"before")
    settings = {"isolation": "read_committed", "auto_offset_reset": "latest", "group": group}
    with Producer(broker).transaction() as tx:
        tx.send("t", b"1")
        consumer = Consumer(broker, "t", **settings)  # type: ignore[arg-type]
        assert consumer.poll().values == []
        other = None if group is None else "h"
        loose = Consumer(broker, "t", group=other, auto_offset_reset="latest")
        assert loose.poll().values == []
    assert consumer.poll().values == [b"1"]
    assert loose.poll().values == []


def test_seek_to_end_is_the_stable_offset(
    broker: Broker, partition: Partition, reader: Consumer
) -> None:
    partition.append(b"0")
    with Producer(broker).transaction() as tx:
        tx.send("t", b"1")
        reader.seek_to_end()
        assert reader.position(("t", 0)) == 1
        reader.seek_to_time(2**62)
        assert reader.position(("t", 0)) == 1
    assert reader.poll().values == [b"1"]


@pytest.mark.parametrize("reset", ["latest", "none"])
def test_the_stable_offset_is_never_before_the_start(
    broker: Broker, partition: Partition, reset: str
) -> None:
    """Else who begins at the end begins where nothing is, and goes on past what is committed."""
    with Producer(broker).transaction() as tx:
        tx.send_many("t", [b"0", b"1", b"2"])
        partition.delete_before(2)
        assert partition.stable_offset == 2
        reader = Consumer(broker, "t", isolation="read_committed", auto_offset_reset=reset)
        if reset == "none":
            reader.seek_to_end()
        assert reader.poll().values == []
        assert reader.position(("t", 0)) == 2
    assert reader.poll().values == [b"2"]


def test_a_place_beyond_the_stable_offset_is_kept(
    broker: Broker, partition: Partition, reader: Consumer
) -> None:
    with Producer(broker).transaction() as tx:
        tx.send_many("t", [b"0", b"1", b"2"])
        reader.seek(("t", 0), 2)
        assert reader.poll().values == []
        assert reader.lag(("t", 0)) == 0
        assert reader.position(("t", 0)) == 2
    assert reader.poll().values == [b"2"]


# ---------------------------------------------------------------- waiting


def ends() -> dict[str, Callable[[Broker, object, ManualClock], None]]:
    return {
        "commit": lambda broker, tx, clock: tx.__exit__(None),  # type: ignore[attr-defined]
        "abort": lambda broker, tx, clock: tx.abort(),  # type: ignore[attr-defined]
        "timeout": lambda broker, tx, clock: clock.advance(60_000),
        "fence": lambda broker, tx, clock: Producer(broker, producer_id="i").close(),
    }


@pytest.mark.parametrize("how", ends())
@pytest.mark.parametrize("is_async", [False, True])
def test_a_waiting_poll_returns_when_a_transaction_ends(
    tmp_path: Path, how: str, is_async: bool
) -> None:
    clock = ManualClock()
    with Broker(tmp_path / "log", clock=clock) as broker:
        partition = broker.create_topic("t")[0]
        tx = Producer(broker, producer_id="i").transaction()
        tx.send("t", b"sent")
        partition.append(b"behind")
        consumer = Consumer(broker, "t", isolation="read_committed")
        got: list[Records] = []

        def poll() -> None:
            if is_async:
                got.append(asyncio.run(consumer.poll_async(None)))
            else:
                got.append(consumer.poll(None))

        waiting = threading.Thread(target=poll)
        waiting.start()
        while not partition._waiters:  # it waits there
            threading.Event().wait(0)
        ends()[how](broker, tx, clock)
        waiting.join(30)
        assert not waiting.is_alive()
        assert got[0].values == ([b"sent", b"behind"] if how == "commit" else [b"behind"])


@pytest.mark.parametrize("is_async", [False, True])
def test_a_waiting_poll_returns_at_the_timeout_though_nobody_keeps_house(is_async: bool) -> None:
    with Broker(":memory:", maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t")[0]
        tx = Producer(broker, transaction_timeout_ms=30).transaction()
        tx.send("t", b"never")
        partition.append(b"behind")
        consumer = Consumer(broker, "t", isolation="read_committed")
        records = asyncio.run(consumer.poll_async(60)) if is_async else consumer.poll(60)
        assert records.values == [b"behind"]
        assert tx is not None


def test_a_poll_that_does_not_care_returns_at_once(broker: Broker, partition: Partition) -> None:
    with Producer(broker).transaction() as tx:
        tx.send("t", b"open")
        with Consumer(broker, "t") as consumer:
            assert consumer.poll(None).values == [b"open"]


def test_who_reads_nothing_waits_and_does_not_spin_beside_one_whose_time_is_over(
    tmp_path: Path,
) -> None:
    clock = ManualClock(1000)
    with Broker(tmp_path / "log", clock=clock, maintenance_interval_ms=0) as broker:
        broker.create_topic("t")
        consumer = Consumer(broker, "t", isolation="read_committed")
        consumer.poll()
        consumer.pause(*consumer.assignment())
        transaction = Producer(broker, transaction_timeout_ms=10).transaction()
        transaction.send("t", b"late")
        clock.advance(1000)  # nobody keeps house, so nobody has aborted it
        looks = 0
        fetch = consumer._places.fetch

        def counted(*given: object) -> list[Fetched]:
            nonlocal looks
            looks += 1
            return fetch(*given)  # type: ignore[arg-type]

        consumer._places.fetch = counted  # type: ignore[method-assign]
        running = Running(lambda: consumer.poll(1))
        assert running.waits()
        assert running.still_waits()
        advance_until_done(clock, running)
        assert len(running.result()) == 0
        assert looks < 5


@pytest.mark.parametrize("sync", ["never", "interval", "always"])
def test_open_records_are_seen_by_who_does_not_care_at_every_sync_level(
    tmp_path: Path, sync: Any
) -> None:
    with Broker(tmp_path / "log", sync=sync) as broker:
        partition = broker.create_topic("t")[0]
        producer, reader = Producer(broker), Consumer(broker, "t")
        careful = Consumer(broker, "t", isolation="read_committed")
        with producer.transaction() as tx:
            tx.send("t", b"1")
            assert reader.poll().values == [b"1"]
            tx.send("t", b"2", key=b"k")
            assert partition.end_offset == 2
            tx.send_many("t", [b"3", b"4"])
            assert partition.read(2).values == [b"3", b"4"]
            tx.send("t", b"5")
            assert reader.poll(timeout=10).values == [b"2", b"3", b"4", b"5"]
            assert not careful.poll()
        assert careful.poll().values == [b"1", b"2", b"3", b"4", b"5"]
