"""Compaction meets damage, files that went, and offsets far apart: it hides nothing, and loses
nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minilog import Broker, CorruptionError, Partition, Producer, Topic, verify
from minilog.storage import format as f
from minilog.storage import rewriting, scan
from minilog.storage.files import DiskDirectory, FileRegion
from minilog.storage.rewriting import Rewriting
from minilog.testing import ManualClock
from minilog.topic import log_identity

OFFSET_AT = 8  # in a frame
SETTINGS: dict[str, Any] = {"cleanup_policy": "compact", "segment_bytes": 64 * 1024}


def frames_of(topic: Topic, log: Path) -> list[tuple[int, f.Prefix]]:
    """Every frame of a file, its seal too."""
    file = DiskDirectory(str(log.parent)).open(log.name)
    region, base = FileRegion(file, file.size()), int(log.stem)
    seed = f.seed_of(log_identity(topic.id, 0), base)
    return list(scan.walk(region, f.HEADER_SIZE, base, file.size(), seed))


def flip(log: Path, position: int) -> bytes:
    data = bytearray(log.read_bytes())
    data[position] ^= 1
    log.write_bytes(data)
    return bytes(data)


def offsets_of(partition: Partition) -> list[int]:
    return [record.offset for record in partition]


@pytest.mark.parametrize(
    ("number", "where", "offset"),
    [
        pytest.param(0, 100, 0, id="in a batch"),
        pytest.param(1, OFFSET_AT, 4, id="in the offset of a record"),
        pytest.param(2, OFFSET_AT, 5, id="in the offset of a record behind another"),
        pytest.param(3, f.PREFIX.size, 6, id="in the key of a record behind others"),
        pytest.param(5, f.PREFIX.size + 1, 8, id="in a marker"),
    ],
)
def test_damage_to_a_frame_of_any_kind_is_not_compacted_away(
    tmp_path: Path, clock: ManualClock, number: int, where: int, offset: int
) -> None:
    with Broker(tmp_path, clock=clock) as broker:
        topic = broker.create_topic("t", **SETTINGS)
        topic[0].append_many([b"batch" * 20] * 4, keys=[b"a"] * 4)
        for _ in range(3):
            topic[0].append(b"single", key=b"b")
        with Producer(broker).transaction() as transaction:
            transaction.send(topic.name, b"in a transaction", key=b"c", partition=0)
        (log,) = (tmp_path / "t/0").glob("*.log")
        frames = frames_of(topic, log)
        assert [prefix.offset for _, prefix in frames] == [0, 4, 5, 6, 7, 8]
    position = frames[number][0]
    damaged = flip(log, position + where)
    with Broker(tmp_path, clock=clock) as broker:
        broker.topic("t")[0].append(b"behind the damage", key=b"a")
        with pytest.raises(CorruptionError, match=r"[Nn]othing was compacted") as caught:
            broker.topic("t").compact()
        error = caught.value
        assert (error.path, error.position, error.offset) == (str(log), position, offset)
        assert log.read_bytes().startswith(damaged)
        assert not list(log.parent.glob("*~*"))


def test_a_seal_that_says_more_than_its_segment_holds_is_not_believed(
    tmp_path: Path, clock: ManualClock
) -> None:
    with Broker(tmp_path, clock=clock) as broker:
        topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=256)
        for number in range(3):
            topic[0].append(b"v" * 120, key=b"%d" % number)
        log = min((tmp_path / "t/0").glob("*.log"))
        position, seal = frames_of(topic, log)[-1]
        assert seal.offset == 1
        seed = f.seed_of(log_identity(topic.id, 0), 0)
    data = log.read_bytes()
    lying = f.encode_seal(f.Seal(3, seal.timestamp, 0, 3), seal.epoch, 0, seed, position)
    assert len(data) == position + len(lying)
    log.write_bytes(data[:position] + lying)
    with Broker(tmp_path, clock=clock) as broker:
        with pytest.raises(CorruptionError, match="Nothing was compacted") as caught:
            broker.topic("t").compact()
        error = caught.value
        assert (error.path, error.position, error.offset) == (str(log), position, 1)
        assert log.read_bytes() == data[:position] + lying


def test_a_file_that_another_hand_removes_while_it_is_compacted_is_named(
    tmp_path: Path, clock: ManualClock
) -> None:
    with Broker(tmp_path, clock=clock) as broker:
        topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=256)
        for number in range(4):
            topic[0].append(b"v" * 120, key=b"%d" % number)
        gone = sorted((tmp_path / "t/0").glob("*.log"))[1]
        gone.rename(tmp_path / "aside")
        with pytest.raises(CorruptionError) as caught:
            topic.compact()
        assert caught.value.path == str(gone)
        (tmp_path / "aside").rename(gone)
        topic.compact()
        assert offsets_of(topic[0]) == [0, 1, 2, 3]


def test_no_index_is_left_of_a_segment_that_is_deleted_while_its_index_is_written(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker(tmp_path, clock=clock) as broker:
        settings = {**SETTINGS, "segment_bytes": 256 * 1024, "index_interval_bytes": 128}
        topic = broker.create_topic("t", **settings)
        for number in range(2000):
            topic[0].append(b"v" * 100, key=b"%d" % number)
        write_index = Rewriting.write_index

        def delete_meanwhile(writing: Rewriting) -> None:
            monkeypatch.undo()
            assert len(writing._index)
            topic[0].delete_before(topic[0].end_offset)
            write_index(writing)

        monkeypatch.setattr(Rewriting, "write_index", delete_meanwhile)
        topic.compact()
        assert topic[0].start_offset == topic[0].end_offset == 2000
        topic[0].append(b"new", key=b"new")
        names = {path.name for path in (tmp_path / "t/0").iterdir()}
        assert names == {f"{2000:020d}.log"}


@pytest.mark.parametrize("read_only", [True, False])
def test_an_index_of_what_compaction_has_replaced_misleads_nobody(
    tmp_path: Path, clock: ManualClock, read_only: bool
) -> None:
    """Its entries prove themselves, and lead to where nothing begins any more."""
    with Broker(tmp_path, clock=clock) as broker:
        topic = broker.create_topic("t", **SETTINGS, index_interval_bytes=128)
        for number in range(400):
            topic[0].append(b"%d" % number, key=b"%d" % (number % 130), timestamp=number)
    outdated = {path: path.read_bytes() for path in (tmp_path / "t/0").glob("*index")}
    assert len(outdated) == 2
    with Broker(tmp_path, clock=clock) as broker:
        broker.topic("t").compact()
        expected = list(broker.topic("t")[0])
        assert [record.offset for record in expected] == list(range(270, 400))
    for path, data in outdated.items():
        path.write_bytes(data)
    with Broker(tmp_path, clock=clock, read_only=read_only) as broker:
        partition = broker.topic("t")[0]
        for time in range(401):
            assert partition.offset_at(time) == (max(time, 270) if time < 400 else None)
        for offset in range(0, 400, 7):
            assert partition.read(offset)[0] == expected[max(offset - 270, 0)]


def test_what_goes_far_behind_the_last_record_is_covered_by_frames_of_its_own(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No frame can say that it goes on for two thousand million offsets; here not for eight."""
    monkeypatch.setattr(rewriting, "LARGEST_EXTENT", 8)
    with Broker(tmp_path, clock=clock) as broker:
        topic = broker.create_topic("t", **SETTINGS)
        for number in range(50):
            topic[0].append(b"%d" % number, key=b"k")
        with Producer(broker).transaction() as transaction:
            for _ in range(50):
                transaction.send("t", b"aborted", key=b"other", partition=0)
            transaction.abort()
        end = topic[0].end_offset
        topic.compact()
        assert offsets_of(topic[0]) == [49]
        assert topic[0].read(0)[0].offset == topic[0].read(49)[0].offset == 49
        records = topic[0].read(50)
        assert (list(records), records.next_offset) == ([], end)
        logs = sorted((tmp_path / "t/0").glob("*.log"))
        frames = [prefix for log in logs for _, prefix in frames_of(topic, log)]
        covered = [prefix.extent for prefix in frames if prefix.flags & f.COLUMNS]
        assert (sum(covered), max(covered)) == (end, 8)
        topic[0].check()
    assert verify(tmp_path).ok


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(OFFSET_AT, id="in its offset"),
        pytest.param(f.PREFIX_SIZE, id="in how many records it has"),
    ],
)
def test_what_was_compacted_is_not_counted_past_a_damaged_frame(
    tmp_path: Path, clock: ManualClock, where: int
) -> None:
    """Where a count begins within a segment, the records of each frame are counted."""
    with Broker(tmp_path, clock=clock) as broker:
        topic = broker.create_topic("t", cleanup_policy="compact")
        for number in range(900):
            topic[0].append(b"v" * 400, key=b"%d" % (number % 600))
        topic.compact()
        assert len(topic[0]) == 600
        topic[0].delete_before(310)
        assert len(topic[0]) == 590
        log = min((tmp_path / "t/0").glob("*.log"))
        frames = frames_of(topic, log)
    position, prefix = frames[1]
    flip(log, position + where)
    with Broker(tmp_path, clock=clock) as broker:
        with pytest.raises(CorruptionError) as caught:
            len(broker.topic("t")[0])
        error = caught.value
        assert (error.path, error.position, error.offset) == (str(log), position, prefix.offset)


def test_what_a_seal_leaves_uncounted_is_counted_where_a_count_begins_within(
    tmp_path: Path, clock: ManualClock
) -> None:
    """A segment whose seal says that some of its records are gone, which are all there."""
    with Broker(tmp_path, clock=clock) as broker:
        topic = broker.create_topic("t", segment_bytes=1024)
        while len(logs := sorted((tmp_path / "t/0").glob("*.log"))) < 3:
            topic[0].append(b"v" * 100)
        topic[0].delete_before(2)
        count = len(topic[0])
        position, seal = frames_of(topic, logs[0])[-1]
        seed = f.seed_of(log_identity(topic.id, 0), 0)
    less = f.encode_seal(f.Seal(seal.offset, seal.timestamp, 0, 3), seal.epoch, 0, seed, position)
    data = logs[0].read_bytes()
    logs[0].write_bytes(data[:position] + less)
    with Broker(tmp_path, clock=clock) as broker:
        assert len(broker.topic("t")[0]) == len(list(broker.topic("t")[0])) == count


def test_what_compaction_has_replaced_and_a_crash_brings_back_is_not_counted_twice(
    tmp_path: Path, clock: ManualClock
) -> None:
    with Broker(tmp_path, clock=clock) as broker:
        topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=256)
        for number in range(6):
            topic[0].append(b"v" * 80, key=b"%d" % number)
        topic.configure(segment_bytes=4096)
        replaced = sorted((tmp_path / "t/0").glob("*.log"))[1]
        data = replaced.read_bytes()
        topic.compact()
        assert not replaced.exists()
        topic[0].append(b"behind it", key=b"behind it")
    replaced.write_bytes(data)
    report = verify(tmp_path)
    assert report.ok
    assert report.record_count == 7
    with Broker(tmp_path, clock=clock, read_only=True) as broker:
        assert len(broker.topic("t")[0]) == 7
        assert offsets_of(broker.topic("t")[0]) == list(range(7))


def test_of_more_records_than_are_read_at_once_the_last_of_each_key_stays(
    tmp_path: Path, clock: ManualClock
) -> None:
    with Broker(tmp_path, clock=clock, sync="never") as broker:
        topic = broker.create_topic("t", cleanup_policy="compact")
        expected = {}
        for number in range(1500):
            key = b"%d" % (number % 700)
            expected[key] = topic[0].append(b"%d" % number + b"v" * (300 + number % 90), key=key)
        topic.compact()
        assert {record.key: record.offset for record in topic[0]} == expected
        for record in topic[0]:
            assert record.value is not None
            assert record.value.startswith(b"%dv" % record.offset)
    assert verify(tmp_path).ok


@pytest.mark.parametrize("what", ["compact", "maintain", "expire", "offset_at", "len"])
def test_a_file_that_another_hand_removes_under_an_open_log_is_named(
    tmp_path: Path, clock: ManualClock, what: str
) -> None:
    """It is damage as any other, told by an error of ours, and what is left goes on."""
    policy = "delete" if what == "expire" else "compact"
    settings = {**SETTINGS, "segment_bytes": 2048, "cleanup_policy": policy}
    with Broker(tmp_path, clock=clock, maintenance_interval_ms=0) as broker:
        topic = broker.create_topic("t", **settings)
        for number in range(60):
            topic[0].append(b"%03d" % number * 30, key=b"k", timestamp=number)
    with Broker(tmp_path, clock=clock, maintenance_interval_ms=0) as broker:
        topic = broker.topic("t")
        topic[0].append(b"last", key=b"k", timestamp=99)
        gone = sorted((tmp_path / "t/0").glob("*.log"))[1]
        gone.unlink()
        calls = {
            "compact": topic.compact,
            "maintain": broker.maintain,
            "expire": lambda: (topic.configure(retention_ms=1), broker.maintain()),
            "offset_at": lambda: topic[0].offset_at(50),
            "len": lambda: len(topic[0]),
        }
        with pytest.raises(CorruptionError) as told:
            calls[what]()
        assert gone.name in str(told.value)
        assert topic[0].append(b"more", key=b"k") == 61
        assert topic[0].read(61).values == [b"more"]


def test_a_topic_that_is_deleted_while_another_thread_maintains_is_no_error(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker(":memory:", clock=clock) as broker:
        for name in ("a", "b"):
            broker.create_topic(name, **SETTINGS)[0].append(b"v", key=b"k")
        clean = Partition._clean
        seen = []

        def delete_first(partition: Partition, *given: Any, **more: Any) -> None:
            seen.append(partition.topic)
            if partition.topic == "a":
                broker.delete_topic("a")
            clean(partition, *given, **more)

        monkeypatch.setattr(Partition, "_clean", delete_first)
        broker.maintain()
        assert seen == ["a", "b"]
