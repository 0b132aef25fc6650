"""The simulated disk itself: it loses what was not synced, and nothing else."""

from __future__ import annotations

import pytest

from minilog import Broker, LockedError
from minilog.storage.files import Directory
from minilog.testing import CrashPlan, ManualClock, SimulatedDisk
from minilog.testing.directories import BusError


@pytest.fixture
def disk() -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.root_directory().make()
    return disk


@pytest.fixture
def directory(disk: SimulatedDisk) -> Directory:
    return disk.root_directory()


def outcomes(disk: SimulatedDisk, at: int | None = None) -> list[dict[str, bytes | None]]:
    """Return every tree that a crash may leave, after so many operations."""
    at = len(disk.operations) if at is None else at
    return [disk.crash(plan).tree() for plan in disk.crash_plans() if plan.at == at]


def contents(disk: SimulatedDisk, path: str) -> set[bytes | None]:
    return {tree.get(path) for tree in outcomes(disk)}


def test_what_was_synced_survives_every_crash(disk: SimulatedDisk, directory: Directory) -> None:
    file = directory.create("file")
    file.write(0, b"x" * 1000)
    file.sync()
    directory.sync()
    assert contents(disk, "log/file") == {b"x" * 1000}


def test_bytes_that_were_synced_are_lost_with_their_name(
    disk: SimulatedDisk, directory: Directory
) -> None:
    file = directory.create("file")
    file.write(0, b"hello")
    file.sync()
    assert contents(disk, "log/file") == {b"hello", None}


def test_a_write_is_there_or_not_or_torn_at_a_sector_or_a_hole(
    disk: SimulatedDisk, directory: Directory
) -> None:
    file = directory.create("file")
    file.write(0, b"a" * 512)
    file.sync()
    directory.sync()
    file.write(512, b"b" * 1000)
    found = contents(disk, "log/file")
    expected = {
        b"a" * 512,
        b"a" * 512 + b"b" * 1000,
        b"a" * 512 + b"b" * 512,
        b"a" * 512 + bytes(512) + b"b" * 488,
        b"a" * 512 + bytes(1000),
    }
    assert expected <= found
    assert all(data is not None and data[:512] == b"a" * 512 for data in found)


def test_a_sector_that_missed_a_write_misses_the_later_ones(
    disk: SimulatedDisk, directory: Directory
) -> None:
    file = directory.create("file")
    file.reserve(1024)
    file.sync()
    directory.sync()
    for position, data in ((0, b"one"), (3, b"two"), (600, b"three")):
        file.write(position, data)
    kinds = {(tree["log/file"] or b"")[:6].strip(b"\0") for tree in outcomes(disk)}
    assert kinds == {b"", b"one", b"onetwo"}
    assert any((tree["log/file"] or b"")[600:605] == b"three" for tree in outcomes(disk))


def test_garbage_stands_only_where_nothing_was_written(
    disk: SimulatedDisk, directory: Directory
) -> None:
    file = directory.create("file")
    file.write(0, b"kept")
    file.sync()
    directory.sync()
    file.reserve(2048)
    file.write(1024, b"new")
    littered = [data for data in contents(disk, "log/file") if data and any(data[1536:])]
    assert littered
    for data in littered:
        assert data[:512] == b"kept" + bytes(508)


def test_names_may_be_lost_one_by_one_and_a_rename_as_a_whole(
    disk: SimulatedDisk, directory: Directory
) -> None:
    for name in ("a", "b"):
        directory.create(name)
    directory.sync()
    directory.rename("a", "c")
    directory.unlink("b")
    found = {tuple(sorted(tree)) for tree in outcomes(disk)}
    names = {tuple(path[4:] for path in paths if path != "log/") for paths in found}
    assert names == {("a", "b"), ("a",), ("b", "c"), ("c",)}


def test_a_replaced_file_is_the_old_or_the_new_at_every_operation(
    disk: SimulatedDisk, directory: Directory
) -> None:
    directory.replace("file", b"old")
    began = len(disk.operations)
    directory.replace("file", b"new" * 400)
    for at in range(began, len(disk.operations) + 1):
        found = {tree.get("log/file") for tree in outcomes(disk, at)}
        assert found <= {b"old", b"new" * 400}
    assert contents(disk, "log/file") == {b"new" * 400}


def test_a_kill_loses_nothing_and_syncs_nothing(disk: SimulatedDisk, directory: Directory) -> None:
    file = directory.create("file")
    file.write(0, b"hello")
    killed = disk.kill()
    assert killed.tree() == disk.tree()
    assert killed.crash().tree() == {"log/": None}
    assert len(killed.operations) == killed.inherited_count == 2


def test_no_plan_takes_back_what_was_synced(disk: SimulatedDisk, directory: Directory) -> None:
    file = directory.create("file")
    file.write(0, b"hello")
    file.sync()
    at = len(disk.operations)
    with pytest.raises(ValueError, match="were synced"):
        disk.crash(CrashPlan(at, lost=frozenset({at - 2})))
    with pytest.raises(ValueError, match="a kill loses nothing"):
        disk.crash(CrashPlan(at, is_power_cut=False, lost=frozenset({at - 3})))


def test_a_map_touched_behind_the_end_of_its_file_kills_the_process(directory: Directory) -> None:
    file = directory.create("file")
    file.reserve(4096)
    region = file.map(4096)
    file.trim(100)
    assert region[0:100] == bytes(100)
    with pytest.raises(BusError, match="has 100 bytes now"):
        region[50:150]
    with pytest.raises(BusError):
        region[100:101] = b"x"


def test_one_writer_at_a_time(disk: SimulatedDisk) -> None:
    with Broker(disk, clock=ManualClock()):
        with pytest.raises(LockedError, match="read_only=True"):
            Broker(disk, clock=ManualClock())
        assert not Broker(disk, read_only=True, clock=ManualClock()).topics


def test_the_example_of_its_description_holds() -> None:
    disk = SimulatedDisk()
    with Broker(disk, sync="always", clock=ManualClock()) as broker:
        broker.create_topic("t")[0].append(b"hello")
        acknowledged = len(disk.operations)
    for plan in disk.crash_plans():
        with Broker(disk.crash(plan), clock=ManualClock()) as broker:
            values = [record.value for record in broker.topics["t"][0]] if broker.topics else []
            assert values == [b"hello"] or (plan.at <= acknowledged and values == [])
