"""Threads that write and read one log at once: every record once, in order, checked.

Knows only the public face. Sizes are bounded; nothing here depends on how threads are scheduled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from minilog import (
    Broker,
    ClosedError,
    Consumer,
    OffsetOutOfRangeError,
    Partition,
    Producer,
    Topic,
)

PATIENCE_S = 60
WRITERS = 4
EACH = 1000
Spot = tuple[int, int]  # writer, number


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    # A short sync interval, so that the background thread takes part.
    with Broker(path, segment_bytes=2048, sync_interval_ms=5, maintenance_interval_ms=10) as opened:
        yield opened


def value_of(writer: int, number: int) -> bytes:
    return b"%d:%d" % (writer, number)


def spot_of(record: Any) -> Spot:
    writer, number = record.value.split(b":")
    return int(writer), int(number)


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls at once, all from one line, and give their results."""
    line = threading.Barrier(len(calls))

    def start(call: Callable[[], Any]) -> Any:
        line.wait(PATIENCE_S)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        running: list[Future[Any]] = [pool.submit(start, call) for call in calls]
        return [each.result(PATIENCE_S) for each in running]


def assert_every_spot_once_in_order(spots: list[Spot], each: int = EACH) -> None:
    assert len(spots) == WRITERS * each
    for writer in range(WRITERS):
        assert [number for by, number in spots if by == writer] == list(range(each))


def tail(partition: Partition, total: int) -> list[Spot]:
    """Follow one partition by reading until `total` records were seen."""
    seen: list[Spot] = []
    while len(seen) < total:
        records = partition.read(len(seen), max_records=37, timeout=PATIENCE_S)
        assert list(records.offsets) == list(range(len(seen), len(seen) + len(records)))
        seen += map(spot_of, records)
    return seen


def follow(broker: Broker, total: int) -> list[tuple[int, int, Spot]]:
    """Consume a topic until `total` records were seen: (partition, offset, spot)."""
    seen: list[tuple[int, int, Spot]] = []
    with Consumer(broker, "t") as consumer:
        while len(seen) < total:
            records = consumer.poll(timeout=PATIENCE_S)
            seen += [(record.partition, record.offset, spot_of(record)) for record in records]
    return seen


def test_writers_of_one_partition_beside_readers_and_consumers(broker: Broker) -> None:
    partition = broker.create_topic("t")[0]
    total = WRITERS * EACH

    def write(writer: int) -> list[int]:
        offsets: list[int] = []
        while len(offsets) < EACH:
            start = len(offsets)
            if (start // 10) % 2:
                run = [value_of(writer, n) for n in range(start, min(start + 10, EACH))]
                offsets += partition.append_many(run)
            else:
                offsets += [partition.append(value_of(writer, n)) for n in range(start, start + 10)]
        return offsets

    *offsets, first, second, consumed = together(
        *(lambda writer=writer: write(writer) for writer in range(WRITERS)),
        lambda: tail(partition, total),
        lambda: tail(partition, total),
        lambda: follow(broker, total),
    )
    stored = [spot_of(record) for record in partition]
    assert_every_spot_once_in_order(stored)
    assert first == second == stored == [spot for _, _, spot in consumed]
    assert sorted(offset for each in offsets for offset in each) == list(range(total))
    for writer, mine in enumerate(offsets):
        assert [stored[offset] for offset in mine] == [(writer, n) for n in range(EACH)]
    partition.check()


def test_a_shared_producer_beside_consumers_over_many_partitions(broker: Broker) -> None:
    topic = broker.create_topic("t", partitions=5)
    producer = Producer(broker, batch_bytes=300)
    total = WRITERS * EACH

    def write(writer: int) -> None:
        part = EACH // 4
        arguments: dict[str, Any] = {"partition": writer}
        for number in range(part):
            producer.send("t", value_of(writer, number), **arguments)
        producer.send_many("t", (value_of(writer, n) for n in range(part, 2 * part)), **arguments)
        with producer.batch() as batch:
            for number in range(2 * part, EACH):
                batch.send("t", value_of(writer, number), **arguments)

    results = together(
        *(lambda writer=writer: write(writer) for writer in range(WRITERS)),
        *(lambda: follow(broker, total) for _ in range(2)),
    )
    for consumed in results[-2:]:
        assert_every_spot_once_in_order([spot for _, _, spot in consumed])
        assert all(spot == (p, offset) for p, offset, spot in consumed)
    assert [len(partition) for partition in topic] == [EACH] * 4 + [0]
    for partition in topic:
        partition.check()


def test_keyless_and_keyed_writers_share_a_producer(broker: Broker) -> None:
    topic = broker.create_topic("t", partitions=3)
    producer = Producer(broker)

    def write(writer: int) -> None:
        for number in range(EACH):
            key = b"%d" % writer if writer % 2 else None
            producer.send("t", value_of(writer, number), key=key)

    together(*(lambda writer=writer: write(writer) for writer in range(WRITERS)))
    stored = [[spot_of(record) for record in partition] for partition in topic]
    spots = sorted(chain.from_iterable(stored))
    assert spots == [(w, n) for w in range(WRITERS) for n in range(EACH)]
    for there in stored:
        for writer in range(WRITERS):
            mine = [number for by, number in there if by == writer]
            assert mine == sorted(mine)
    for writer in (1, 3):
        assert sum(any(by == writer for by, _ in spots) for spots in stored) == 1


def test_runs_are_seen_all_at_once(broker: Broker) -> None:
    partition = broker.create_topic("t")[0]
    runs, length = 150, 20

    def write() -> None:
        for number in range(runs):
            partition.append_many([value_of(number, n) for n in range(length)])

    def watch() -> list[int]:
        seen = [0]
        while seen[-1] < runs * length:
            partition.read(seen[-1], timeout=PATIENCE_S)
            seen.append(partition.end_offset)
        return seen

    _, *watched = together(write, watch, watch)
    for seen in watched:
        assert [end % length for end in seen] == [0] * len(seen)
        assert seen == sorted(seen)
    partition.check()


def test_readers_follow_over_segments_that_roll(broker: Broker) -> None:
    runs, length = 100, 20
    for attempt in range(12):
        partition = broker.create_topic(f"rolling-{attempt}")[0]

        def write(partition: Partition = partition) -> None:
            for number in range(runs):
                partition.append_many([value_of(number, n) for n in range(length)])

        def read(partition: Partition = partition) -> list[Spot]:
            seen: list[Spot] = []
            while len(seen) < runs * length:
                seen += map(spot_of, partition.read(len(seen), timeout=PATIENCE_S))
            return seen

        expected = [(number, n) for number in range(runs) for n in range(length)]
        assert together(write, read, read, read)[1:] == [expected] * 3


def test_deleting_beside_readers_gives_true_records_or_out_of_range(broker: Broker) -> None:
    partition = broker.create_topic("t")[0]
    total = 4000
    refusals: list[tuple[int, int, int, int]] = []

    def write() -> None:
        for start in range(0, total, 20):
            partition.append_many([value_of(0, n) for n in range(start, start + 20)])

    def delete() -> None:
        while (end := partition.end_offset) < total:
            partition.delete_before(end - end % 7)

    def read() -> int:
        offset = 0
        while offset < total:
            try:
                records = partition.read(offset, max_records=50, timeout=PATIENCE_S)
            except OffsetOutOfRangeError as error:
                refusals.append((error.requested, offset, error.start_offset, error.end_offset))
                offset = error.start_offset
                continue
            assert [spot_of(record) for record in records] == [(0, n) for n in records.offsets]
            assert records[0].offset == offset
            offset = records[-1].next_offset
        return offset

    results = together(write, delete, read, read)
    assert results[2:] == [total, total]
    assert all(told == asked < start <= end for told, asked, start, end in refusals)
    partition.check()
    assert partition.end_offset == total


def test_topics_change_while_they_are_written_and_read(broker: Broker) -> None:
    topic = broker.create_topic("t", partitions=2)
    producer = Producer(broker)
    total = WRITERS * EACH

    def write(writer: int) -> None:
        for number in range(EACH):
            producer.send("t", value_of(writer, number), key=b"%d" % number)

    def change() -> None:
        for number in range(60):
            topic.configure(segment_bytes=256 + 64 * (number % 7))
            if number % 15 == 0:
                topic.add_partitions(len(topic) + 1)
            broker.create_topic(f"other-{number}", segment_bytes=256)[0].append(b"v")
            broker.flush()
            broker.maintain()
            broker.delete_topic(f"other-{number}")

    *_, consumed = together(
        *(lambda writer=writer: write(writer) for writer in range(WRITERS)),
        change,
        lambda: follow(broker, total),
    )
    spots = sorted(spot for _, _, spot in consumed)
    assert spots == [(w, n) for w in range(WRITERS) for n in range(EACH)]
    assert list(broker.topics) == ["t"]
    for partition in topic:
        partition.check()


def test_threads_share_one_consumer_while_records_come(broker: Broker) -> None:
    topic = broker.create_topic("t", partitions=3)
    total = 3000
    consumer = Consumer(broker, "t", max_poll_records=11)
    seen: list[tuple[int, int]] = []

    def write() -> None:
        for number in range(total):
            topic[number % 3].append(b"%d" % number)

    def read() -> None:
        while len(seen) < total:
            seen.extend((record.partition, record.offset) for record in consumer.poll(timeout=1))
        consumer.wakeup()

    together(write, read, read, read)
    assert sorted(seen) == [(p, n) for p in range(3) for n in range(total // 3)]


def test_threads_iterate_one_consumer_while_records_come(broker: Broker) -> None:
    topic = broker.create_topic("t", partitions=3)
    total = 3000
    consumer = Consumer(broker, "t", max_poll_records=11)
    seen: list[Spot] = []

    def write() -> None:
        for number in range(total):
            topic[number % 3].append(b"%d" % number)

    def read() -> None:
        for record in consumer:
            seen.append((record.partition, record.offset))
            if len(seen) >= total:
                consumer.close()

    together(write, read, read, read)
    assert sorted(seen) == [(p, n) for p in range(3) for n in range(total // 3)]


@pytest.mark.parametrize("sync", ["never", "interval", "always"])
def test_every_acknowledged_record_is_there_after_the_broker_was_closed_under_its_writers(
    tmp_path: Path, sync: Any
) -> None:
    each = 100 if sync == "always" else 1500
    broker = Broker(tmp_path / "log", sync=sync, segment_bytes=2048)
    topic: Topic = broker.create_topic("t", partitions=2)
    enough = threading.Event()
    begun = threading.Semaphore(0)

    def write(writer: int) -> list[tuple[int, int]]:
        acknowledged: list[tuple[int, int]] = []
        try:
            for number in range(100 * each):
                partition = topic[number % 2]
                acknowledged.append((number % 2, partition.append(value_of(writer, number))))
                if number == 0:
                    begun.release()
                if number == each:
                    enough.set()
        except ClosedError:
            return acknowledged
        return acknowledged

    def close() -> None:
        for _ in range(WRITERS):  # every one has had a turn
            assert begun.acquire(timeout=PATIENCE_S)
        assert enough.wait(PATIENCE_S)
        broker.close()

    *written, _ = together(*(lambda writer=w: write(writer) for w in range(WRITERS)), close)
    with Broker(tmp_path / "log") as again:
        assert again.recovery.ok, str(again.recovery)
        stored = [[spot_of(record) for record in partition] for partition in again.topic("t")]
        for partition in again.topic("t"):
            partition.check()
    for writer, acknowledged in enumerate(written):
        assert len(acknowledged) >= 1
        assert [stored[partition][offset] for partition, offset in acknowledged] == [
            (writer, number) for number in range(len(acknowledged))
        ]


def test_a_read_only_broker_follows_the_writers(tmp_path: Path) -> None:
    with (
        Broker(tmp_path / "log", segment_bytes=2048) as writer,
        Broker(tmp_path / "log", read_only=True) as reader,
    ):
        partition = writer.create_topic("t")[0]

        def write() -> None:
            for start in range(0, 3000, 10):
                partition.append_many([value_of(0, n) for n in range(start, start + 10)])

        _, tailed, consumed = together(
            write,
            lambda: tail(reader.topic("t")[0], 3000),
            lambda: follow(reader, 3000),
        )
        assert tailed == [(0, n) for n in range(3000)]
        assert [spot for _, _, spot in consumed] == tailed
        reader.topic("t")[0].check()


def test_compacting_beside_writers_readers_and_deleting_loses_no_last_record(
    tmp_path: Path,
) -> None:
    """Readers, also of another broker, see records in order, each as it was written, and at the
    end of each key the last."""
    with Broker(tmp_path / "log", sync_interval_ms=5, maintenance_interval_ms=10) as broker:
        topic = broker.create_topic(
            "t", cleanup_policy="compact", segment_bytes=2048, min_cleanable_dirty_ratio=0.0
        )
        partition = topic[0]
        finished = threading.Event()
        total = 3000

        def write() -> None:
            for number in range(0, total, 3):
                partition.append(b"%d" % number, key=b"%d" % (number % 50))
                keys = [b"%d" % ((number + n) % 50) for n in (1, 2)]
                partition.append_many([b"%d" % (number + n) for n in (1, 2)], keys=keys)
            finished.set()

        def clean() -> int:
            runs = 0
            while not finished.is_set():
                topic.compact()
                runs += 1
            return runs

        def delete() -> None:
            while not finished.is_set():
                partition.delete_before(max(partition.end_offset - 400, 0))

        def read(theirs: Partition) -> int:
            rounds = 0
            while not finished.is_set() or not rounds:
                offset = theirs.start_offset
                end = theirs.end_offset
                while offset < end:
                    try:
                        records = theirs.read(offset, max_records=37)
                    except OffsetOutOfRangeError as error:
                        offset = error.start_offset
                        continue
                    for record in records:
                        assert record.offset >= offset
                        assert record.value == b"%d" % record.offset
                        assert record.key == b"%d" % (record.offset % 50)
                    assert records.next_offset > offset
                    offset = records.next_offset
                theirs.offset_at(0)
                assert len(theirs) >= 0
                rounds += 1
            return rounds

        with Broker(tmp_path / "log", read_only=True) as other:
            other_partition = other.topic("t")[0]
            together(write, clean, delete, lambda: read(partition), lambda: read(other_partition))
        topic.compact()
        offsets = [record.offset for record in partition]
        assert offsets == list(range(total - 50, total))
        assert broker.housekeeping_errors == ()
        partition.check()
    with Broker(tmp_path / "log") as broker:
        assert broker.recovery.ok
        assert len(broker.topic("t")[0]) == 50
