"""Of each key the last record stays: what compaction keeps, when, and what it refuses.

Written from the public face alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import minilog
from minilog import (
    Broker,
    ClosedError,
    ConfigError,
    Consumer,
    CorruptionError,
    InvalidRecordError,
    Partition,
    Producer,
    ReadOnlyError,
    UnknownTopicError,
    verify,
)
from minilog.testing import ManualClock

DAY_MS = 24 * 3_600_000
START_MS = 1_700_000_000_000
MAPS = Path("/proc/self/maps")


@pytest.fixture
def compacted(location: Path | str, clock: ManualClock) -> Iterator[Callable[..., Partition]]:
    """Makes a topic that is compacted, on a broker whose clock is turned by hand."""
    brokers: list[Broker] = []

    def make(interval_ms: int = 0, **settings: Any) -> Partition:
        broker = Broker(location, clock=clock, maintenance_interval_ms=interval_ms)
        brokers.append(broker)
        settings = {"cleanup_policy": "compact", "segment_bytes": 512, **settings}
        return broker.create_topic("t", **settings)[0]

    make.broker = lambda: brokers[0]  # type: ignore[attr-defined]
    yield make
    for broker in brokers:
        broker.close()


def topic_of(compacted: Any) -> minilog.Topic:
    topic: minilog.Topic = compacted.broker().topic("t")
    return topic


def pairs_of(partition: Partition) -> list[tuple[int, bytes | None, bytes | None]]:
    return [(record.offset, record.key, record.value) for record in partition]


def test_the_last_record_of_each_key_stays_at_its_offset(compacted: Any) -> None:
    partition = compacted()
    for number in range(100):
        partition.append(b"%d" % number, key=b"k%d" % (number % 7))
    report = topic_of(compacted).compact()
    assert pairs_of(partition) == [
        (number, b"k%d" % (number % 7), b"%d" % number) for number in range(93, 100)
    ]
    assert (report.records_before, report.records_after) == (100, 7)
    assert report.bytes_before > 3 * report.bytes_after
    assert len(partition) == 7
    assert (partition.start_offset, partition.end_offset) == (0, 100)
    assert partition.append(b"next", key=b"k") == 100
    partition.check()


def test_a_read_at_a_removed_offset_gives_the_next_one(compacted: Any) -> None:
    partition = compacted()
    for number in range(50):
        partition.append(b"%d" % number, key=b"only" if number != 20 else b"other")
    topic_of(compacted).compact()
    assert list(partition.read(0).offsets) == [20, 49]
    assert list(partition.read(0, max_records=1).offsets) == [20]
    for offset in range(21):
        assert partition.read(offset)[0].offset == 20
    for offset in range(21, 50):
        records = partition.read(offset)
        assert list(records.offsets) == [49]
        assert records.next_offset == 50
    assert not partition.read(50)


def test_headers_and_timestamps_stay(compacted: Any) -> None:
    partition = compacted()
    headers = [("h", b"1"), ("h", None), ("", b"")]
    partition.append(b"v", key=b"a", headers=headers, timestamp=5)
    partition.append_many([b"x", b"y"], keys=[b"b", b"c"], timestamps=[9, 2])
    partition.append(b"z", key=b"d")
    before = list(partition)
    topic_of(compacted).compact()
    assert list(partition) == before
    assert partition.offset_at(6) == 1
    assert partition.offset_at(10) == 3
    assert partition.offset_at(START_MS + 1) is None


def test_a_tombstone_stays_a_day_after_the_first_cleaning_that_saw_it(
    compacted: Any, clock: ManualClock
) -> None:
    partition = compacted()
    topic = topic_of(compacted)
    partition.append(b"v", key=b"k")
    partition.append(None, key=b"k")
    partition.append(b"", key=b"empty is not null")
    clock.advance(30 * DAY_MS)
    topic.compact()
    deleted = (1, b"k", None)
    kept = (2, b"empty is not null", b"")
    assert pairs_of(partition) == [deleted, kept]
    clock.advance(DAY_MS - 1)
    topic.compact()
    assert pairs_of(partition) == [deleted, kept]
    clock.advance(1)
    topic.compact()
    assert pairs_of(partition) == [kept]


def test_a_tombstone_that_is_seen_again_and_again_goes_in_time(
    compacted: Any, clock: ManualClock
) -> None:
    """Each cleaning puts it into another segment, with younger tombstones."""
    partition = compacted()
    topic = topic_of(compacted)
    partition.append(None, key=b"first")
    for number in range(5):
        topic.compact()
        partition.append(None, key=b"later %d" % number)
        clock.advance(DAY_MS // 4)
    topic.compact()
    assert [record.key for record in partition] == [b"later %d" % number for number in range(1, 5)]


def test_an_empty_partition_is_left_where_all_was_deleted(
    compacted: Any, clock: ManualClock
) -> None:
    partition = compacted()
    topic = topic_of(compacted)
    for number in range(10):
        partition.append(None, key=b"%d" % number)
    topic.compact()
    clock.advance(DAY_MS)
    topic.compact()
    assert pairs_of(partition) == []
    assert len(partition) == 0
    assert (partition.start_offset, partition.end_offset) == (0, 10)
    assert not partition.read(0)
    assert partition.read(0).next_offset == 10
    assert partition.offset_at(0) is None
    with Consumer(compacted.broker(), "t") as consumer:
        assert list(consumer.drain()) == []
        assert consumer.position(("t", 0)) == 10
        assert consumer.lag(("t", 0)) == 0
    assert partition.append(b"x", key=b"k") == 10
    assert pairs_of(partition) == [(10, b"k", b"x")]


def test_a_read_that_waits_behind_a_gap_waits_for_what_comes(
    compacted: Any, clock: ManualClock
) -> None:
    partition = compacted()
    partition.append(None, key=b"k")
    topic_of(compacted).compact()
    clock.advance(DAY_MS)
    topic_of(compacted).compact()
    got: list[minilog.Records] = []
    reader = threading.Thread(target=lambda: got.append(partition.read(0, timeout=None)))
    reader.start()
    partition.append(b"came", key=b"k")
    reader.join(30)
    assert [list(records.values) for records in got] == [[b"came"]]


def test_a_consumer_steps_over_gaps_and_its_lag_ends(compacted: Any) -> None:
    partition = compacted()
    consumer = Consumer(compacted.broker(), "t", max_poll_records=3)
    for number in range(40):
        partition.append(b"%d" % number, key=b"%d" % (number % 4))
    assert len(consumer.poll()) == 3
    topic_of(compacted).compact()
    offsets: list[int] = []
    while records := consumer.poll():
        offsets += records.offsets
    assert offsets == [36, 37, 38, 39]
    assert consumer.lag(("t", 0)) == 0
    assert [record.offset for record in Consumer(compacted.broker(), "t").drain()] == offsets


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_record_without_a_key_is_refused(compacted: Any, policy: str) -> None:
    partition = compacted(cleanup_policy=policy)
    producer = Producer(compacted.broker())
    partition.append(b"v", key=b"k")
    with pytest.raises(InvalidRecordError, match="cleanup_policy"):
        partition.append(b"v")
    with pytest.raises(InvalidRecordError, match="cleanup_policy"):
        partition.append(b"v", headers=[("h", b"")])
    with pytest.raises(InvalidRecordError):
        partition.append_many([b"a", b"b"])
    with pytest.raises(InvalidRecordError, match="record 1 "):
        partition.append_many([b"a", b"b"], keys=[b"k", None])
    with pytest.raises(InvalidRecordError):
        producer.send("t", b"v")
    with pytest.raises(InvalidRecordError):
        producer.send_many("t", [b"v"] * 5)
    with pytest.raises(InvalidRecordError):
        producer.send_many("t", [b"v"] * 5000, keys=[b"k"] * 4999 + [None])  # type: ignore[list-item]
    batch = producer.batch()
    batch.send("t", b"v", key=b"k")
    with pytest.raises(InvalidRecordError):
        batch.send("t", b"v")
    assert partition.end_offset == 1
    assert partition.append(b"", key=b"") == 1
    assert partition.append_many([], keys=[]) == range(2, 2)


def test_a_key_is_needed_from_the_moment_the_topic_is_configured_so(
    location: Path | str,
) -> None:
    with Broker(location) as broker:
        topic = broker.create_topic("t")
        topic[0].append(b"no key")
        topic.configure(cleanup_policy="compact")
        with pytest.raises(InvalidRecordError):
            topic[0].append(b"no key")
        topic[0].append(b"a", key=b"k")
        topic[0].append(b"b", key=b"k")
        topic.compact()
        assert pairs_of(topic[0]) == [(0, None, b"no key"), (2, b"k", b"b")]
        topic.configure(cleanup_policy="delete")
        assert topic[0].append(b"no key") == 3


def test_compacting_a_topic_that_is_not_compacted_is_refused(location: Path | str) -> None:
    with Broker(location) as broker:
        topic = broker.create_topic("t")
        topic[0].append(b"x")
        with pytest.raises(ConfigError, match="cleanup_policy"):
            topic.compact()


def test_a_read_only_broker_does_not_compact(tmp_path: Path) -> None:
    with Broker(tmp_path / "log") as broker:
        broker.create_topic("t", cleanup_policy="compact")[0].append(b"x", key=b"k")
    with Broker(tmp_path / "log", read_only=True) as broker, pytest.raises(ReadOnlyError):
        broker.topic("t").compact()


def test_the_active_segment_is_left_alone_by_maintenance(
    compacted: Any, clock: ManualClock
) -> None:
    partition = compacted(interval_ms=1000, segment_bytes=1 << 20, min_cleanable_dirty_ratio=0)
    for number in range(100):
        partition.append(b"%d" % number, key=b"k")
    clock.advance(DAY_MS)
    assert len(partition) == 100
    clock.advance(7 * DAY_MS)
    assert len(partition) == 1, "segment_ms was over, so it rolled"


def test_turning_the_clock_compacts_when_the_log_is_dirty_enough(
    compacted: Any, clock: ManualClock
) -> None:
    partition = compacted(interval_ms=1000, min_cleanable_dirty_ratio=0.5, segment_bytes=4096)
    for number in range(400):
        partition.append(b"v" * 100, key=b"%d" % (number % 100))
    clock.advance(1000)
    first = len(partition)
    assert first < 150
    for number in range(30):
        partition.append(b"v" * 100, key=b"%d" % number)
    clock.advance(1000)
    assert len(partition) == first + 30, "less than half of it is dirty"
    for _ in range(200):
        partition.append(b"v" * 100, key=b"again")
    clock.advance(1000)
    assert len(partition) < 150


def test_what_is_younger_than_the_lag_is_not_compacted(compacted: Any, clock: ManualClock) -> None:
    partition = compacted(min_compaction_lag_ms=10_000)
    for number in range(20):
        partition.append(b"%d" % number, key=b"k")
    clock.advance(6000)
    topic_of(compacted).compact()
    assert len(partition) == 20
    for number in range(20):
        partition.append(b"%d" % number, key=b"k")
    clock.advance(4000)
    topic_of(compacted).compact()
    assert [record.offset for record in partition] == list(range(19, 40))
    clock.advance(6000)
    topic_of(compacted).compact()
    assert [record.offset for record in partition] == [39]


def test_tombstones_go_in_time_though_nothing_new_comes(compacted: Any, clock: ManualClock) -> None:
    partition = compacted(interval_ms=1000)
    for number in range(60):
        partition.append(b"v", key=b"%d" % number)
    for number in range(60):
        partition.append(None, key=b"%d" % number)
    topic_of(compacted).compact()
    assert len(partition) == 60
    clock.advance(DAY_MS)
    assert len(partition) == 0


def test_small_segments_become_few(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "log"
    with Broker(path, clock=clock) as broker:
        topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=512)
        for number in range(500):
            topic[0].append(b"x" * 40, key=b"%d" % (number % 50))
        assert len(list((path / "t" / "0").glob("*.log"))) > 70
        topic.configure(segment_bytes=1 << 20)
        topic.compact()
        assert len(list((path / "t" / "0").glob("*.log"))) == 2
        assert not list((path / "t" / "0").glob("*~*"))
        again = topic.compact()
        assert (again.records_before, again.records_after) == (50, 50)
        topic[0].check()
    assert minilog.verify(path).ok
    with Broker(path, clock=clock) as broker:
        assert broker.recovery.ok
        assert [record.offset for record in broker.topic("t")[0]] == list(range(450, 500))


def test_what_is_compacted_already_is_not_written_again(tmp_path: Path, clock: ManualClock) -> None:
    with Broker(tmp_path / "log", clock=clock) as broker:
        topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=1024)
        for number in range(200):
            topic[0].append(b"x" * 40, key=b"%d" % number)
        topic.compact()
        before = {path.name: path.stat().st_ino for path in (tmp_path / "log/t/0").glob("*.log")}
        topic.compact()
        after = {path.name: path.stat().st_ino for path in (tmp_path / "log/t/0").glob("*.log")}
        assert after == before


def test_records_larger_than_a_segment_and_than_a_frame_are_compacted(compacted: Any) -> None:
    partition = compacted()
    for number in range(3):
        partition.append(b"%d" % number * 300_000, key=b"large")
        partition.append_many([b"%d" % number * 70_000, b"small"] * 40, keys=[b"a", b"b"] * 40)
    topic_of(compacted).compact()
    kept = pairs_of(partition)
    assert [(offset, key) for offset, key, _ in kept] == [(162, b"large"), (241, b"a"), (242, b"b")]
    assert [value for _, _, value in kept] == [b"2" * 300_000, b"2" * 70_000, b"small"]


def test_a_large_batch_is_compacted_in_parts(compacted: Any) -> None:
    partition = compacted()
    partition.append_many(
        [b"%d" % n * 1000 for n in range(3000)], keys=[b"%d" % n for n in range(3000)]
    )
    partition.append_many([b"new"] * 2990, keys=[b"%d" % n for n in range(2990)])
    topic_of(compacted).compact()
    kept = pairs_of(partition)
    assert [offset for offset, _, _ in kept] == list(range(2990, 5990))
    assert kept[0] == (2990, b"2990", b"2990" * 1000)
    partition.check()


def test_retention_and_compaction_work_together(compacted: Any, clock: ManualClock) -> None:
    partition = compacted(cleanup_policy="compact,delete", retention_ms=DAY_MS)
    for number in range(50):
        partition.append(b"%d" % number, key=b"%d" % (number % 5))
    topic_of(compacted).compact()
    assert len(partition) == 5
    clock.advance(DAY_MS + 1)
    compacted.broker().maintain()
    assert (partition.start_offset, partition.end_offset) == (50, 50)


def test_damage_is_not_compacted_away(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "log"
    with Broker(path, clock=clock, sync="never") as broker:
        topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=512)
        for number in range(50):
            topic[0].append(b"record %d" % number, key=b"k")
    damaged = sorted((path / "t/0").glob("*.log"))[1]
    data = bytearray(damaged.read_bytes())
    data[150] ^= 1
    damaged.write_bytes(data)
    with Broker(path, clock=clock) as broker:
        with pytest.raises(CorruptionError) as caught:
            broker.topic("t").compact()
        assert caught.value.path == str(damaged)
        assert damaged.read_bytes() == data
        assert not list((path / "t/0").glob("*~*"))
        broker.topic("t").configure(min_cleanable_dirty_ratio=0.0)
        clock.advance(DAY_MS)
        assert [type(error) for error in broker.housekeeping_errors] == [CorruptionError]


def test_a_segment_that_is_missing_is_not_compacted_away(
    tmp_path: Path, clock: ManualClock
) -> None:
    """Those around it were put together, and covered its offsets as if nothing had been there."""
    path = tmp_path / "log"
    with Broker(path, segment_bytes=256, clock=clock) as broker:
        partition = broker.create_topic("t", cleanup_policy="compact")[0]
        for number in range(8):
            partition.append(b"v" * 80, key=b"%d" % number)
    missing = sorted((path / "t/0").glob("*.log"))[2]
    missing.unlink()
    with Broker(path, clock=clock) as broker:
        topic = broker.topic("t")
        topic.configure(segment_bytes=4096)
        for _ in range(2):
            with pytest.raises(CorruptionError, match="nothing was compacted") as caught:
                topic.compact()
            error = caught.value
            assert (error.path, error.offset, error.next_offset) == (str(missing), 2, 3)
        with pytest.raises(CorruptionError) as caught:
            topic[0].read(2)
        assert caught.value.path == str(missing)
    assert [problem.path for problem in verify(path).problems] == [str(missing)]


def test_a_full_disk_leaves_the_log_as_it_was(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minilog.storage.rewriting import Rewriting

    with Broker(tmp_path / "log", clock=clock) as broker:
        topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=512)
        for number in range(50):
            topic[0].append(b"record %d" % number, key=b"%d" % (number % 10))
        before = list(topic[0])

        def fails(*given: object) -> None:
            raise OSError(28, "no space left on device")

        monkeypatch.setattr(Rewriting, "_write", fails)
        with pytest.raises(OSError, match="no space"):
            topic.compact()
        assert list(topic[0]) == before
        assert not list((tmp_path / "log/t/0").glob("*~*"))
        monkeypatch.undo()
        topic.compact()
        assert len(topic[0]) == 10
        topic[0].check()


def paused(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Have something done in the middle of the next compaction, once: before it swaps."""
    from minilog.storage.rewriting import Rewriting

    finish = Rewriting.finish

    def interrupted(self: Rewriting, *given: Any) -> Any:
        monkeypatch.undo()
        action()
        return finish(self, *given)

    monkeypatch.setattr(Rewriting, "finish", interrupted)


def test_records_that_come_meanwhile_are_there(
    compacted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = compacted()
    for number in range(50):
        partition.append(b"%d" % number, key=b"k")
    seen: list[object] = []

    def meanwhile() -> None:
        seen.append(partition.compaction)
        partition.append(b"meanwhile", key=b"k")
        seen.append([record.offset for record in partition][:2])

    paused(monkeypatch, meanwhile)
    topic_of(compacted).compact()
    progress, offsets = seen
    assert 0 < progress.bytes_read <= progress.bytes_total  # type: ignore[attr-defined]
    assert offsets == [0, 1]
    assert partition.compaction is None
    assert [record.offset for record in partition] == [49, 50]


@pytest.mark.parametrize("offset", [1, 25, 50])
def test_deleting_in_the_middle_of_a_compaction_wins(
    compacted: Any, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    partition = compacted()
    for number in range(50):
        partition.append(b"%d" % number, key=b"%d" % (number % 20))
    paused(monkeypatch, lambda: partition.delete_before(offset))
    topic_of(compacted).compact()
    assert partition.start_offset == offset
    offsets = [record.offset for record in partition]
    assert set(range(max(offset, 30), 50)) <= set(offsets)
    partition.check()
    topic_of(compacted).compact()
    assert [record.offset for record in partition] == list(range(max(offset, 30), 50))
    partition.check()


def test_a_reader_that_holds_the_old_segments_goes_on_in_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker(tmp_path / "log", maintenance_interval_ms=0) as broker:
        topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=512)
        for number in range(100):
            topic[0].append(b"%d" % number, key=b"%d" % (number % 10))
        with Broker(tmp_path / "log", read_only=True) as other:
            theirs = other.topic("t")[0]
            held = theirs.read(0, max_records=15)
            iterator = iter(topic[0])
            first = next(iterator)
            topic.compact()
            assert list(held.offsets) == list(range(15))
            assert first.offset == 0
            offsets = [record.offset for record in iterator]
            assert offsets[-10:] == list(range(90, 100))
            for start in (0, 14, 15, 40, 89, 90, 99):
                offset, offsets = start, []
                while records := theirs.read(offset):
                    offsets += records.offsets
                    offset = records.next_offset
                assert offsets == sorted(set(offsets))
                assert offsets[0] >= start
                assert offsets[-10:] == list(range(max(90, start), 100))
            assert theirs.offset_at(1) == theirs.read(0)[0].offset
            topic[0].append(b"new", key=b"new")
            assert [record.offset for record in theirs][-11:] == list(range(90, 101))
            assert len(theirs) >= 11


def closing(broker: Broker) -> None:
    broker.close()


def deleting(broker: Broker) -> None:
    broker.delete_topic("t")


@pytest.mark.parametrize(
    ("ending", "error"), [(closing, ClosedError), (deleting, UnknownTopicError)]
)
def test_closing_or_deleting_ends_a_compaction(
    location: Path | str,
    monkeypatch: pytest.MonkeyPatch,
    ending: Callable[[Broker], None],
    error: type[Exception],
) -> None:
    broker = Broker(location, maintenance_interval_ms=0)
    topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=512)
    partition = topic[0]
    for number in range(50):
        partition.append(b"%d" % number, key=b"k")
    enders: list[threading.Thread] = []

    def end_it() -> None:
        ender = threading.Thread(target=ending, args=(broker,))
        enders.append(ender)
        ender.start()
        while partition._refusal is None:  # it waits for this compaction to notice
            ender.join(0.001)

    paused(monkeypatch, end_it)
    with pytest.raises(error):
        topic.compact()
    enders[0].join(30)
    assert not enders[0].is_alive()
    broker.close()
    if isinstance(location, Path):
        with Broker(location) as again:
            if ending is closing:
                assert again.recovery.ok
                assert len(again.topic("t")[0]) == 50
            else:
                assert "t" not in again.topics


def test_several_partitions_are_compacted_and_summed_up(location: Path | str) -> None:
    with Broker(location) as broker:
        topic = broker.create_topic("t", 3, cleanup_policy="compact")
        producer = Producer(broker)
        for number in range(300):
            producer.send("t", b"%d" % number, key=b"%d" % (number % 30))
        report = topic.compact()
        assert (report.records_before, report.records_after) == (300, 30)
        assert sum(map(len, topic)) == 30
        assert "300 records" in str(report)
        assert {bytes(record.key or b"") for each in topic for record in each} == {
            b"%d" % number for number in range(30)
        }


def test_sync_always_shows_and_keeps_all_of_it(tmp_path: Path) -> None:
    with Broker(tmp_path / "log", sync="always") as broker:
        topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=512)
        for number in range(40):
            topic[0].append(b"%d" % number, key=b"%d" % (number % 4))
        topic.compact()
        assert [record.offset for record in topic[0]] == [36, 37, 38, 39]
        assert topic[0].append(b"x", key=b"0") == 40
        topic.compact()
        assert [record.offset for record in topic[0]] == [37, 38, 39, 40]
    assert minilog.verify(tmp_path / "log").ok


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux shows what a process maps")
@pytest.mark.parametrize("policy", ["compact", "delete"])
def test_what_was_cleaned_away_frees_its_space_at_once(tmp_path: Path, policy: str) -> None:
    """The segments were unlinked, but stayed mapped until hundreds of others had been."""
    with Broker(tmp_path / "log", maintenance_interval_ms=0) as broker:
        topic = broker.create_topic("t", cleanup_policy=policy, segment_bytes=512)
        for number in range(100):
            topic[0].append(b"%d" % number, key=b"k")
        assert len(list(topic[0])) == 100
        if policy == "compact":
            topic.compact()
        else:
            topic[0].delete_before(100)
        mapped = [line for line in MAPS.read_text().splitlines() if str(tmp_path) in line]
        assert not [line for line in mapped if line.endswith("(deleted)")]


def test_maintain_does_what_it_can_and_then_says_what_failed(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker(tmp_path / "log", clock=clock, maintenance_interval_ms=0) as broker:
        for name in ("a", "b"):
            topic = broker.create_topic(name, cleanup_policy="compact", segment_bytes=512)
            for number in range(50):
                topic[0].append(b"%d" % number, key=b"k")

        def fails(*given: object, **also: object) -> None:
            raise OSError(28, "no space left on device")

        monkeypatch.setattr(broker.topic("a")[0], "run_compaction", fails)
        with pytest.raises(OSError, match="no space"):
            broker.maintain()
        assert len(broker.topic("a")[0]) == 50
        assert len(broker.topic("b")[0]) < 10


def test_a_clock_that_steps_back_protects_nothing(tmp_path: Path) -> None:
    """A record of this very moment came after the compaction had looked at the clock, so that it
    was younger than a lag of nothing."""

    class SetClock:
        ms = 5000

        def now_ms(self) -> int:
            return self.ms

    clock = SetClock()
    with Broker(tmp_path / "log", clock=clock, maintenance_interval_ms=0) as broker:
        topic = broker.create_topic("t", cleanup_policy="compact")
        for number in range(10):
            topic[0].append(b"%d" % number, key=b"k")
        clock.ms = 4000
        assert topic.compact().records_after == 1


def test_tombstones_go_when_their_own_time_has_come(compacted: Any, clock: ManualClock) -> None:
    """Those of one segment, though others were seen later."""
    partition = compacted(min_cleanable_dirty_ratio=1.0)
    for name in (b"a", b"b"):
        partition.append(None, key=name)
        partition.append(b"v" * 300, key=b"large " + name)  # which needs a segment of its own
        topic_of(compacted).compact()
        clock.advance(DAY_MS // 2)
    tombstones = [key for _, key, value in pairs_of(partition) if value is None]
    assert tombstones == [b"a", b"b"]
    clock.advance(1)
    compacted.broker().maintain()
    tombstones = [key for _, key, value in pairs_of(partition) if value is None]
    assert tombstones == [b"b"]


def test_segments_are_put_together_only_as_far_as_they_fit(tmp_path: Path) -> None:
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=2048)
        for number in range(300):
            topic[0].append(b"v" * (number % 90), key=b"k%d" % (number if number % 3 else 0))
        expected = pairs_of(topic[0])
        topic.compact()
        kept = {key: (offset, value) for offset, key, value in expected}
        assert pairs_of(topic[0]) == sorted((o, key, value) for key, (o, value) in kept.items())
        sizes = [path.stat().st_size for path in sorted((tmp_path / "t" / "0").glob("*.log"))]
        assert max(sizes) <= 2048
        assert sum(sizes) / len(sizes) > 1024  # and as far as that
        topic[0].check()


def test_records_without_a_key_are_superseded_by_nothing(compacted: Any) -> None:
    partition = compacted(cleanup_policy="delete")
    for number in range(40):
        partition.append(b"%d" % number, key=b"k" if number % 4 == 0 else None)
    topic = topic_of(compacted)
    topic.configure(cleanup_policy="compact")
    topic.compact()
    keyless = [(number, None, b"%d" % number) for number in range(40) if number % 4]
    assert pairs_of(partition) == sorted([*keyless, (36, b"k", b"36")])
