"""Operations of the disk fail, one after the other: an error comes out, and nothing else happens.

Every operation of every workload fails here in one way; ``tests/torture`` takes all the ways. What
the machinery has found is told below, each by its calamity.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

import minilog
from minilog import Broker, ConfigError, Consumer, SyncFailedError
from minilog.testing import FaultPlan, FaultyDisk
from minilog.testing.faults import CHANGES, FAULTS, OPERATIONS
from tests.torture.faults import check_share
from tests.torture.workloads import WORKLOADS


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize(("place", "step"), [("disk", 2), ("memory without maps", 5)])
def test_a_fault_at_any_operation_costs_nothing_that_was_acknowledged(
    name: str, place: str, step: int
) -> None:
    figures = check_share(name, place, turn=list(WORKLOADS).index(name), step=step)
    assert figures.faults
    assert not figures.failures, "\n\n".join(map(str, figures.failures[:5]))


# ---------------------------------------------------------------- the disk that fails


def test_a_planned_fault_is_raised_once_and_the_operation_is_not_done(log_path: Path) -> None:
    disk = FaultyDisk(log_path, FaultPlan("ENOSPC", at=1, operations=frozenset({"create"})))
    directory = disk.root_directory()
    directory.make()
    directory.create("first")
    with pytest.raises(OSError, match="planned fault") as caught:
        directory.create("second")
    assert caught.value.errno == errno.ENOSPC
    directory.create("third")
    assert directory.names() == ["first", "third"]
    assert disk.fault_count == 1
    assert [operation.split()[0] for operation in disk.operations] == [
        "make",
        *["create"] * 3,
        "names",
    ]


def test_a_fault_that_lasts_is_over_when_the_disk_is_mended(log_path: Path) -> None:
    disk = FaultyDisk(":memory:")
    directory = disk.root_directory()
    directory.make()
    file = directory.create("file")
    disk.arm(FaultPlan("EIO", lasts=True, operations=CHANGES))
    for _ in range(3):
        with pytest.raises(OSError, match="EIO"):
            file.write(0, b"x")
    assert file.read(0, 1) == b""
    disk.mend()
    file.write(0, b"x")
    assert file.read(0, 1) == b"x"
    assert disk.fault_count == 3


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_number_and_leaves_what_it_says(fault: str) -> None:
    disk = FaultyDisk(":memory:")
    directory = disk.root_directory()
    directory.make()
    file = directory.create("file")
    disk.arm(FaultPlan(fault))
    with pytest.raises(OSError, match="planned fault") as caught:
        file.write(0, b"abcd")
    assert caught.value.errno == FAULTS[fault]
    left = {"short write": b"ab", "write then error": b"abcd"}.get(fault, b"")
    assert file.read(0, 9) == left


def test_a_disk_without_maps_stores_by_writing(log_path: Path) -> None:
    for maps, is_write in ((True, False), (False, True)):
        disk = FaultyDisk(":memory:", maps=maps)
        with Broker(disk, sync="never") as broker:
            partition = broker.create_topic("t")[0]
            partition.append(b"one")
            disk.arm(FaultPlan("EIO", operations=frozenset({"write"})))
            try:
                partition.append(b"two")
            except OSError:
                assert is_write
            else:
                assert not is_write
            disk.mend()


def test_a_plan_that_means_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="ENOSPC"):
        FaultyDisk(":memory:", FaultPlan("ENOSPACE"))
    with pytest.raises(ConfigError, match="unlink"):
        FaultyDisk(":memory:", FaultPlan(operations=frozenset({"erase"})))
    assert {"write", "sync", "close"} <= OPERATIONS


def test_faulty_disks_can_be_nested_and_opened_again(log_path: Path) -> None:
    inner = FaultyDisk(log_path)
    outer = FaultyDisk(inner)
    for number in range(3):
        with Broker(outer) as broker:
            topic = broker.create_topic("t", exist_ok=True)
            assert topic[0].append(b"x") == number
    assert inner.operations
    assert len(outer.operations) == len(inner.operations)
    with Broker(log_path, read_only=True) as broker:
        assert len(broker.topic("t")[0]) == 3


# ---------------------------------------------------------------- what was found


def test_a_mark_that_was_unlinked_but_not_synced_does_not_stop_appends_for_ever(
    log_path: Path,
) -> None:
    """Every later append looked for the mark again, and failed as it was not there."""
    disk = FaultyDisk(log_path)
    with Broker(disk) as broker:
        broker.create_topic("t")
    with Broker(disk) as broker:
        disk.arm(FaultPlan("EIO", operations=frozenset({"sync"})))
        with pytest.raises(OSError, match="planned fault"):
            broker.topic("t")[0].append(b"x")
        assert broker.topic("t")[0].append(b"y") == 0


def test_a_write_that_was_done_and_told_as_an_error_is_not_in_the_log() -> None:
    """The frame was whole, so it was taken for appended: trying again appended it twice."""
    disk = FaultyDisk(":memory:", maps=False)
    with Broker(disk, sync="never") as broker:
        partition = broker.create_topic("t")[0]
        partition.append(b"one")
        disk.arm(FaultPlan("write then error", operations=frozenset({"write"})))
        with pytest.raises(OSError, match="planned fault"):
            partition.append_many([b"two", b"three"])
        assert partition.end_offset == 1
        assert partition.append_many([b"two", b"three"]) == range(1, 3)
        assert [record.value for record in partition] == [b"one", b"two", b"three"]


def test_a_topic_that_could_not_be_deleted_keeps_its_records(log_path: Path) -> None:
    """It was opened anew by the mark of its making, when it was empty: all its records were
    taken for bytes after the end, and dropped."""
    disk = FaultyDisk(log_path)
    with Broker(disk) as broker:
        topic = broker.create_topic("t")
        for number in range(5):
            topic[0].append(b"%d" % number)
        disk.arm(FaultPlan("EIO", operations=frozenset({"rename"})))
        with pytest.raises(OSError, match="planned fault"):
            broker.delete_topic("t")
        assert [record.value for record in topic[0]] == [b"%d" % n for n in range(5)]
        assert topic[0].append(b"goes on") == 5
    with Broker(log_path) as broker:
        assert broker.recovery.ok
        assert len(broker.topic("t")[0]) == 6


def test_a_sync_that_fails_while_a_partition_is_emptied_refuses_all_writing(
    log_path: Path,
) -> None:
    """It came out as a plain error, and the next sync, which said that all was well, was
    believed."""
    disk = FaultyDisk(log_path)
    with Broker(disk, sync="never") as broker:
        partition = broker.create_topic("t")[0]
        partition.append(b"one")
        broker.flush()
        disk.arm(FaultPlan("EIO", lasts=True, operations=frozenset({"sync"})))
        with pytest.raises(SyncFailedError):
            partition.delete_before(1)
        disk.mend()
        with pytest.raises(SyncFailedError):
            partition.append(b"two")
        assert [record.value for record in partition] == [b"one"]


def test_segments_that_could_not_be_unlinked_go_with_the_next_ones(log_path: Path) -> None:
    disk = FaultyDisk(log_path)
    with Broker(disk) as broker:
        partition = broker.create_topic("t", segment_bytes=256)[0]
        for number in range(20):
            partition.append(b"%d" % number * 30)
        # The first is of what the topic's settings are written to.
        disk.arm(FaultPlan("EIO", at=1, lasts=True, operations=frozenset({"unlink"})))
        with pytest.raises(OSError, match="planned fault"):
            partition.delete_before(10)
        assert partition.start_offset == 10
        disk.mend()
        partition.delete_before(12)
        partition.check()
    kept = sorted((log_path / "t" / "0").glob("*.log"))
    assert int(kept[0].stem) >= 10
    assert minilog.verify(log_path).ok


def test_a_partition_that_was_added_is_read_while_the_disk_is_full(log_path: Path) -> None:
    """It was recovered as after a crash when it was first looked at, which writes and syncs."""
    disk = FaultyDisk(log_path)
    with Broker(disk) as broker:
        topic = broker.create_topic("t")
        topic.add_partitions(2)
        disk.arm(FaultPlan("ENOSPC", lasts=True, operations=CHANGES))
        assert list(topic[1]) == []
        assert disk.fault_count == 0
        disk.mend()


def test_a_log_without_its_index_is_read_while_the_disk_is_full(log_path: Path) -> None:
    """The index was made anew on the disk by whoever looked at the partition first."""
    with Broker(log_path, index_interval_bytes=100) as broker:
        broker.create_topic("t")[0].append_many([b"x" * 30] * 20)
        for number in range(20):
            broker.topic("t")[0].append(b"%d" % number)
    for index in (log_path / "t" / "0").glob("*index"):
        index.unlink()
    disk = FaultyDisk(log_path)
    with Broker(disk) as broker:
        disk.arm(FaultPlan("ENOSPC", lasts=True, operations=CHANGES))
        assert len(list(broker.topic("t")[0])) == 40
        disk.mend()
        assert broker.topic("t")[0].append(b"more") == 40
    with Broker(log_path) as broker:
        assert len(list(broker.topic("t")[0])) == 41
    assert minilog.verify(log_path).ok


def test_a_log_in_memory_that_is_closed_and_opened_again_is_whole() -> None:
    """What was stored behind the trimmed end of a file in memory was lost: its map was longer."""
    disk = FaultyDisk(":memory:")
    for number in range(20):
        with Broker(disk, sync="always" if number % 2 else "never") as broker:
            topic = broker.create_topic("t", exist_ok=True, segment_bytes=256)
            assert topic[0].append_many([b"%d" % number * 20] * 3) == range(
                3 * number, 3 * number + 3
            )
            assert [record.offset for record in topic[0]] == list(range(3 * number + 3))
            topic[0].check()
    assert minilog.verify(disk).ok  # type: ignore[arg-type]


def test_a_record_at_the_end_of_what_was_reserved_in_memory_is_read() -> None:
    """Memory grows by copying; a reader kept to the old map, which was large enough for it."""
    with Broker(":memory:") as broker:
        partition = broker.create_topic("t")[0]
        partition.append(b"first")
        assert len(list(partition)) == 1
        while True:
            assert partition._log is not None
            left = 65536 - partition._log.end().position
            if left < 4000:
                break
            partition.append(b"x" * 1000)
            list(partition)
        partition.append(b"y" * (left - 48))
        values = [record.value for record in partition]
        assert values[-1] == b"y" * (left - 48)


@pytest.mark.parametrize("fault", ["EIO", "short write", "write then error"])
@pytest.mark.parametrize("operation", ["write", "trim"])
def test_a_roll_or_append_that_failed_leaves_nothing_behind_the_next_record(
    log_path: Path, operation: str, fault: str
) -> None:
    """A seal whose file could not be cut stayed behind the tail, as did the end of a frame that
    was written in part: a shorter record did not cover it, so verify told of changed padding and
    recovery of a torn write."""
    disk = FaultyDisk(log_path, maps=False)  # a store into a map is no operation that fails
    broker = Broker(disk, sync="always", segment_bytes=1024)
    partition = broker.create_topic("t")[0]
    partition.append(b"x" * 301)
    disk.arm(FaultPlan(fault, operations=frozenset({operation})))
    with pytest.raises(OSError, match="planned"):
        partition.append(b"y" * (400 if operation == "write" else 900))
    assert disk.fault_count == 1
    disk.mend()
    assert partition.append(b"z" * 5) == 1
    broker.refuse_in_child()
    with Broker(log_path) as broker:
        assert broker.recovery.ok, str(broker.recovery)
        assert [len(record.value or b"") for record in broker.topic("t")[0]] == [301, 5]
    assert minilog.verify(log_path).ok, str(minilog.verify(log_path))


def test_a_topic_that_was_not_durably_made_was_not_made(log_path: Path) -> None:
    """Its directory stayed: making it again failed, as it was there, and so did every commit of
    a group where it was the log of the groups."""
    for name in ("t", "__ledger"):
        disk = FaultyDisk(log_path / name)
        with Broker(disk) as broker:
            broker.create_topic("first")[0].append_many([b"one", b"two"])

            def make(broker: Broker = broker, name: str = name) -> None:
                if name == "t":
                    broker.create_topic("t")
                else:
                    Consumer(broker, "first", group="g").commit({("first", 0): 1})

            disk.arm(FaultPlan("EIO", at=5, operations=frozenset({"sync"})))
            with pytest.raises(OSError, match="planned fault"):
                make()
            assert [operation.split()[0] for operation in disk.operations].count("rename") == 3
            assert list(broker.topics) == ["first"]
            make()
            if name == "t":
                assert broker.topic("t")[0].append(b"x") == 0
            else:
                assert list(broker.groups["g"].committed().values()) == [1]
        with Broker(disk) as broker:
            assert broker.recovery.ok


def test_a_segment_that_was_being_made_when_the_disk_failed_is_no_damage(log_path: Path) -> None:
    """A roll could write no header nor take the empty file away; opening takes it as it is, and
    verify called it damage."""
    disk = FaultyDisk(log_path)
    with Broker(disk, segment_bytes=256) as broker:
        partition = broker.create_topic("t")[0]
        partition.append(b"x" * 200)
        lasting = FaultPlan("EIO", at=1, lasts=True, operations=frozenset({"write", "unlink"}))
        disk.arm(lasting)
        with pytest.raises(OSError, match="planned fault"):
            partition.append(b"y" * 200)
        disk.mend()
    left = log_path / "t" / "0" / f"{1:020d}.log"
    assert left.stat().st_size == 0
    assert minilog.verify(log_path).ok, str(minilog.verify(log_path))
    with Broker(log_path) as broker:
        assert broker.recovery.ok, str(broker.recovery)
        assert broker.topic("t")[0].append(b"z" * 200) == 1
    left.write_bytes(left.read_bytes()[:9])
    assert not minilog.verify(log_path).ok
