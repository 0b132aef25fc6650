"""Any sequence of operations, crashes and errors against plain lists of records: a short share
that is the same every time; ``tests/torture/model.py`` runs the long one."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from minilog.storage.files import ZEROS
from tests.crash.cutting import Death
from tests.properties.crash_machine import CrashMachine
from tests.properties.losing_disk import LosingDisk, mixed

TestCrashes = CrashMachine.TestCase
TestCrashes.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def disk(tmp_path: Path) -> LosingDisk:
    return LosingDisk(tmp_path)


def found_after_cuts(disk: LosingDisk, name: str) -> set[bytes | None]:
    return {disk.after_power_cut(random.Random(seed)).get(name) for seed in range(50)}


def test_the_disk_of_the_machine_keeps_what_was_synced_and_may_lose_the_rest(
    disk: LosingDisk,
) -> None:
    directory = disk.root_directory()
    file = directory.create("file")
    file.write(0, b"synced")
    assert found_after_cuts(disk, "file") >= {None, b""}
    file.sync()
    assert found_after_cuts(disk, "file") == {None, b"synced"}
    directory.sync()
    assert found_after_cuts(disk, "file") == {b"synced"}
    file.write(0, b"stored")
    assert found_after_cuts(disk, "file") == {b"synced", b"stored"}
    directory.unlink("file")
    assert found_after_cuts(disk, "file") == {None, b"synced"}
    directory.sync()
    assert found_after_cuts(disk, "file") == {None}


def test_blocks_are_lost_one_by_one() -> None:
    old, new = ZEROS[:2048], b"\1" * 2048
    found = {mixed(old, new, random.Random(seed)) for seed in range(200)}
    assert {old, new} < found
    assert len(found) == 16
    shorter = {len(mixed(b"", new, random.Random(seed))) for seed in range(50)}
    assert shorter == {0, 2048}


def test_what_was_replaced_or_renamed_is_known_by_its_new_name(disk: LosingDisk) -> None:
    directory = disk.root_directory()
    directory.replace("document", b"new")
    assert found_after_cuts(disk, "document") == {b"new"}
    child = directory.child("made~")
    child.make()
    child.create("inside").sync()
    child.sync()
    directory.rename("made~", "made")
    assert found_after_cuts(disk, "made/inside") == {b""}
    directory.child("made").remove()
    assert found_after_cuts(disk, "made/inside") == {None}


def test_the_disk_of_the_machine_fails_once_or_for_ever_or_dies(disk: LosingDisk) -> None:
    file = disk.root_directory().create("file")
    disk.trouble.arm(1, errno.ENOSPC)
    file.write(0, b"first")
    with pytest.raises(OSError, match="No space left"):
        file.write(0, b"second")
    file.write(0, b"third")
    disk.trouble.arm(0, errno.EIO, for_ever=True)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            file.sync()
    disk.trouble.arm(0, None)
    for _ in range(2):
        with pytest.raises(Death):
            file.write(0, b"fourth")
    disk.trouble.disarm()
    assert file.read(0, 10) == b"third"
