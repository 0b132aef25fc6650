"""The power is really cut under a writer; what was acknowledged as durable must be there.

The short share of ``tests/torture/power_cuts.py``, from fixed seeds. Where an image cannot be
mounted and shut down it is skipped, and says why.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture import power_cuts

pytestmark = pytest.mark.skipif(
    bool(power_cuts.why_no_power_cuts()),
    reason=power_cuts.why_no_power_cuts() or "an image can be mounted",
)


@pytest.fixture(scope="module")
def disk() -> Iterator[power_cuts.LoopDisk]:
    """A disk whose power can be cut."""
    kind = power_cuts.file_systems()[0]
    with power_cuts.LoopDisk(kind, power_cuts.MOUNTS[kind][0]) as disk:
        yield disk


@pytest.mark.parametrize(
    ("shape", "sync"),
    [
        (("singles", 3, 2048), "always"),
        (("deleting", 2, 1024), "always"),
        (("topics", 1, 2048), "never"),
        (("batches", 2, 4096), "interval"),
        (("mixed", 3, 16384), "never"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_a_power_cut_costs_nothing_that_was_acknowledged_as_durable(
    disk: power_cuts.LoopDisk, shape: tuple[str, int, int], sync: str
) -> None:
    counts: Counter[str] = Counter()
    seed = len(shape[0]) + len(sync)
    print(f"seed {seed}")
    path = disk.root / f"{shape[0]}-{sync}"
    power_cuts.cut_some(disk, path, shape, sync, random.Random(seed), counts)
    assert counts["cuts"] in (1, 2)


def test_what_was_not_synced_is_gone_after_a_power_cut(disk: power_cuts.LoopDisk) -> None:
    """The cut is a real one: a file that was not synced has not its bytes, one that was has."""
    for name in ("synced", "unsynced"):
        file = os.open(disk.root / name, os.O_RDWR | os.O_CREAT)
        os.write(file, b"bytes" * 1000)
        if name == "synced":
            os.fsync(file)
        os.close(file)
    disk.cut()
    disk.mount_again()
    assert (disk.root / "synced").read_bytes() == b"bytes" * 1000
    unsynced = disk.root / "unsynced"
    assert not unsynced.exists() or unsynced.read_bytes() != b"bytes" * 1000


def test_an_image_is_unmounted_and_detached_also_when_something_fails() -> None:
    kind = power_cuts.file_systems()[0]
    kept: list[Path] = []

    def fail() -> None:
        with power_cuts.LoopDisk(kind, power_cuts.MOUNTS[kind][0]) as disk:
            kept.append(disk.root)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not kept[0].exists()
    assert str(kept[0]) not in Path("/proc/mounts").read_text()
    assert str(kept[0].parent) not in power_cuts.command("losetup", "--all")
