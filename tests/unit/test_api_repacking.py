"""Sealed segments of records appended one by one are written anew, and nobody can tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minilog
from minilog import Broker, Consumer, CorruptionError, Partition, Producer
from minilog.storage import repacking
from minilog.storage.segment import Segment
from minilog.testing import ManualClock

SEGMENT_BYTES = 2048


@pytest.fixture(autouse=True)
def _small_segments_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repacking, "LEAST_BYTES", 0)


def logs(path: Path) -> dict[str, bytes]:
    """The sealed segments, by name."""
    found = sorted((path / "t" / "0").glob("*.log"))
    return {each.name: each.read_bytes() for each in found[:-1]}


def batches(data: bytes) -> bool:
    """Say whether a segment begins with a batch."""
    flags = int.from_bytes(data[64 + 26 : 64 + 28], "little")
    return bool(flags & 1)


def rows_of(partition: Partition) -> list[Any]:
    return list(partition)


def append_all_kinds(partition: Partition, count: int = 200) -> None:
    for number in range(count):
        partition.append(
            None if number % 7 == 3 else b"value %d" % number,
            key=None if number % 5 == 1 else b"k%d" % number,
            headers={"n": b"%d" % number} if number % 11 == 2 else (),
            timestamp=1_000_000 + number * 3 - number % 13,
        )


def test_every_record_stays_as_it_was(tmp_path: Path) -> None:
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t", segment_bytes=SEGMENT_BYTES)[0]
        append_all_kinds(partition)
        before, old = rows_of(partition), logs(tmp_path)
        held = partition.read(0)
        times = [partition.offset_at(stamp) for stamp in range(999_990, 1_000_640, 10)]
        broker.maintain()
        new = logs(tmp_path)
        assert rows_of(partition) == list(held) == before
        assert [partition.offset_at(stamp) for stamp in range(999_990, 1_000_640, 10)] == times
        assert [partition.read(offset)[0] for offset in range(200)] == before
        assert len(partition) == 200
        partition.check()
    assert old.keys() == new.keys()
    assert len(old) > 2
    assert not any(map(batches, old.values()))
    assert all(map(batches, new.values()))
    assert sum(map(len, new.values())) < sum(map(len, old.values()))
    assert minilog.verify(tmp_path).ok
    with Broker(tmp_path) as broker:
        assert broker.recovery.ok
        assert rows_of(broker.topic("t")[0]) == before
        assert broker.topic("t")[0].append(b"next") == 200


def test_it_is_done_once(tmp_path: Path) -> None:
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        append_all_kinds(broker.create_topic("t", segment_bytes=SEGMENT_BYTES)[0])
        broker.maintain()
        files = {each: each.stat().st_ino for each in (tmp_path / "t" / "0").glob("*.log")}
        broker.maintain()
        assert {each: each.stat().st_ino for each in files} == files
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        broker.topic("t")[0].append(b"v")
        broker.maintain()
        assert {each: each.stat().st_ino for each in files} == files


def test_batches_and_large_records_are_left_alone(tmp_path: Path) -> None:
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t", segment_bytes=SEGMENT_BYTES)[0]
        for _ in range(6):
            partition.append_many([b"v" * 20] * 50)
        for _ in range(8):
            partition.append(b"large" * 200)
        old = logs(tmp_path)
        broker.maintain()
        assert logs(tmp_path) == old


def test_while_records_come_nothing_is_repacked(tmp_path: Path, clock: ManualClock) -> None:
    with Broker(tmp_path, clock=clock) as broker:
        partition = broker.create_topic("t", segment_bytes=SEGMENT_BYTES)[0]
        for _ in range(3):
            append_all_kinds(partition, 50)
            clock.advance(1000)
        assert not any(map(batches, logs(tmp_path).values()))
        clock.advance(1000)
        assert all(map(batches, logs(tmp_path).values()))
        assert not broker.housekeeping_errors


def test_record_that_comes_meanwhile_ends_it(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    repack: Callable[..., None] = repacking.repack
    with Broker(tmp_path, clock=clock) as broker:
        partition = broker.create_topic("t", segment_bytes=SEGMENT_BYTES)[0]
        append_all_kinds(partition)

        def append_before(*args: Any) -> None:
            partition.append(b"meanwhile")
            repack(*args)

        monkeypatch.setattr(repacking, "repack", append_before)
        clock.advance(1000)
        clock.advance(1000)
        assert partition.end_offset == 201
        assert not any(map(batches, logs(tmp_path).values()))
        assert not list((tmp_path / "t" / "0").glob("*~*"))
        monkeypatch.setattr(repacking, "repack", repack)
        clock.advance(1000)
        assert not any(map(batches, logs(tmp_path).values()))
        clock.advance(1000)
        assert all(map(batches, logs(tmp_path).values()))
        assert not broker.housekeeping_errors


@pytest.mark.parametrize("is_reopened", [False, True])
def test_sequences_and_transactions_are_what_they_were(tmp_path: Path, is_reopened: bool) -> None:
    broker = Broker(tmp_path, maintenance_interval_ms=0)
    topic = broker.create_topic("t", segment_bytes=SEGMENT_BYTES)
    importer, other = Producer(broker, producer_id="importer"), Producer(broker)
    offsets = []
    for number in range(60):
        offsets.append(importer.send("t", b"i%d" % number, key=b"k").offset)
        with other.transaction() as tx:
            tx.send("t", b"t%d" % number, key=b"k")
            if number % 3 == 1:
                tx.abort()
        if number % 4 == 0:
            with importer.transaction() as tx:
                tx.send("t", b"never", key=b"k")
                tx.abort()
    before = rows_of(topic[0])
    broker.maintain()
    assert all(map(batches, logs(tmp_path).values()))
    if is_reopened:
        broker.close()
        broker = Broker(tmp_path, maintenance_interval_ms=0)
        importer = Producer(broker, producer_id="importer")
    with broker:
        partition = broker.topic("t")[0]
        assert rows_of(partition) == before
        with Consumer(broker, "t", isolation="read_committed") as consumer:
            seen = [record.value for record in consumer.drain()]
            assert consumer.lag() == {minilog.TopicPartition("t", 0): 0}
        assert [value for value in seen if value and value.startswith(b"i")] == [
            b"i%d" % number for number in range(60)
        ]
        assert [value for value in seen if value and value.startswith(b"t")] == [
            b"t%d" % number for number in range(60) if number % 3 != 1
        ]
        assert b"never" not in seen
        assert importer.last_sequence("t", 0) == 59
        again = [importer.send("t", b"again", key=b"k", sequence=n).offset for n in range(50, 60)]
        assert again == offsets[50:]
        partition.check()


def test_open_transaction_holds_it_back(tmp_path: Path) -> None:
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t", segment_bytes=SEGMENT_BYTES)[0]
        tx = Producer(broker).transaction()
        tx.send("t", b"v")
        append_all_kinds(partition)
        old = logs(tmp_path)
        broker.maintain()
        assert logs(tmp_path) == old
        tx.abort()
        broker.maintain()
        assert all(map(batches, logs(tmp_path).values()))
        assert partition.read(0)[0].offset == 1


def test_damage_is_not_copied(tmp_path: Path) -> None:
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        append_all_kinds(broker.create_topic("t", segment_bytes=SEGMENT_BYTES)[0])
    first = min((tmp_path / "t" / "0").glob("*.log"))
    data = bytearray(first.read_bytes())
    data[1000] ^= 1
    first.write_bytes(data)
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        partition = broker.topic("t")[0]
        partition.append(b"v")
        with pytest.raises(CorruptionError) as caught:
            broker.maintain()
        assert caught.value.path == str(first)
        assert first.read_bytes() == data
        broker.maintain()  # once is enough
        assert len(partition.read(100)) > 0


def test_what_begins_with_damage_is_left_as_it_is(tmp_path: Path) -> None:
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        append_all_kinds(broker.create_topic("t", segment_bytes=SEGMENT_BYTES)[0])
    damaged = min((tmp_path / "t" / "0").glob("*.log"))
    data = bytearray(damaged.read_bytes())
    data[64:68] = bytes(4)  # how large the first frame is
    damaged.write_bytes(data)
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        partition = broker.topic("t")[0]
        broker.maintain()
        assert not any(map(batches, logs(tmp_path).values())), "nobody has used it"
        assert partition.end_offset == 200
        broker.maintain()
        assert damaged.read_bytes() == data
        assert all(map(batches, list(logs(tmp_path).values())[1:]))
        with pytest.raises(CorruptionError) as caught:
            partition.read(0)
        assert caught.value.path == str(damaged)


def test_what_is_missing_is_left_to_whoever_reads_it(tmp_path: Path) -> None:
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t", segment_bytes=SEGMENT_BYTES)[0]
        append_all_kinds(partition)
        missing = sorted((tmp_path / "t" / "0").glob("*.log"))[1]
        missing.rename(tmp_path / "aside")
        broker.maintain()
        assert all(map(batches, logs(tmp_path).values()))
        (tmp_path / "aside").rename(missing)
        assert [record.offset for record in partition] == list(range(200))
    assert minilog.verify(tmp_path).ok


def test_a_file_that_another_hand_removes_while_it_is_copied_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t", segment_bytes=SEGMENT_BYTES)[0]
        append_all_kinds(partition)
        before, first = rows_of(partition), min((tmp_path / "t" / "0").glob("*.log"))
        copy = repacking._copy

        def remove_meanwhile(segment: Segment, *given: Any) -> None:
            monkeypatch.setattr(repacking, "_copy", copy)
            first.rename(tmp_path / "aside")
            copy(segment, *given)

        monkeypatch.setattr(repacking, "_copy", remove_meanwhile)
        with pytest.raises(CorruptionError) as caught:
            broker.maintain()
        assert caught.value.path == str(first)
        (tmp_path / "aside").rename(first)
        assert rows_of(partition) == before
        broker.maintain()
        assert all(map(batches, logs(tmp_path).values()))
        assert rows_of(partition) == before


@pytest.mark.parametrize(("value_bytes", "is_repacked"), [(100, True), (6000, False)])
def test_large_segments_are_told_by_how_they_begin(
    tmp_path: Path, value_bytes: int, is_repacked: bool
) -> None:
    with Broker(tmp_path, maintenance_interval_ms=0, sync="never") as broker:
        partition = broker.create_topic("t", segment_bytes=150_000)[0]
        while len(logs(tmp_path)) < 2:
            partition.append(b"v" * value_bytes)
        before = rows_of(partition)
        broker.maintain()
        assert [batches(data) for data in logs(tmp_path).values()] == [is_repacked] * 2
        assert rows_of(partition) == before


def test_segments_that_are_deleted_meanwhile_are_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repack: Callable[..., None] = repacking.repack
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t", segment_bytes=SEGMENT_BYTES)[0]
        append_all_kinds(partition)

        def delete_before(*args: Any) -> None:
            partition.delete_before(150)
            repack(*args)

        monkeypatch.setattr(repacking, "repack", delete_before)
        broker.maintain()
        assert [record.offset for record in partition] == [*range(150, 200)]
        assert all(map(batches, logs(tmp_path).values()))
        assert not list((tmp_path / "t" / "0").glob("*~*"))
        partition.check()


def test_reader_in_another_opening_reads_on(tmp_path: Path) -> None:
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t", segment_bytes=SEGMENT_BYTES)[0]
        append_all_kinds(partition)
        with Broker(tmp_path, read_only=True) as reader:
            read = reader.topic("t")[0].read
            seen = [*read(0, max_records=30)]
            broker.maintain()
            while len(seen) < 200:
                seen += read(len(seen), max_records=30)
            assert seen == rows_of(partition)


def test_what_is_repacked_is_compressed_as_the_topic_has_it(tmp_path: Path) -> None:
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        settings: dict[str, Any] = {"segment_bytes": SEGMENT_BYTES, "compression": "gzip"}
        partition = broker.create_topic("t", **settings)[0]
        for _ in range(200):
            partition.append(b"alike " * 8, timestamp=5)
        old = sum(map(len, logs(tmp_path).values()))
        broker.maintain()
        assert sum(map(len, logs(tmp_path).values())) * 4 < old
        assert partition.read(0, max_records=200).values == [b"alike " * 8] * 200


def test_log_in_memory_is_repacked_too() -> None:
    with Broker(":memory:", maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t", segment_bytes=SEGMENT_BYTES)[0]
        append_all_kinds(partition)
        before = rows_of(partition)
        broker.maintain()
        assert rows_of(partition) == before
        partition.check()
        assert partition.append(b"next") == 200
