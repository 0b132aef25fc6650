"""A process dies before each operation of an expiry, a compaction, a deletion: old or new is left.

What opening does about it is itself cut off at each operation. It knows only the public face and
what a partition's files are called.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cutting import CutDirectory, Death, Fate
from images import Image, image_of, write_image

import minilog
import minilog.home
from minilog import Broker
from minilog.storage import compaction, repacking
from minilog.storage.files import PathLike, disk_directory
from minilog.testing import ManualClock

LATER_MS = 50_000
STEP = 13  # where there are hundreds of operations; all were cut off once
Row = tuple[Any, ...]
State = tuple[int, int, list[Row]]


def open_mortal(path: Path, fate: Fate, **settings: Any) -> Broker:
    """Open a broker that dies as its fate has it, long after the records were written."""

    def mortal(path: PathLike) -> CutDirectory:
        return CutDirectory(disk_directory(path), fate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minilog.home, "disk_directory", mortal)
        clock = ManualClock(LATER_MS)
        return Broker(path, clock=clock, maintenance_interval_ms=0, **settings)


def run(path: Path, fate: Fate, action: Callable[[Broker], object], sync: str = "never") -> bool:
    """Open a log, do something and close it; False when it died on the way."""
    broker = None
    try:
        broker = open_mortal(path, fate, sync=sync)
        action(broker)
        broker.close()
    except Death:
        if broker is not None:
            broker.refuse_in_child()  # lets go of everything, as the end of a process does
        return False
    return True


def state_of(broker: Broker) -> State:
    partition = broker.topic("t")[0]
    return partition.start_offset, partition.end_offset, [tuple(each) for each in partition]


def state_at(path: Path) -> State:
    with Broker(path, clock=ManualClock(LATER_MS), maintenance_interval_ms=0) as broker:
        partition = broker.topic("t")[0]
        partition.check()
        found = state_of(broker)
        assert len(partition) == len(found[2])
        return found


def written(path: Path, *, keys: int = 3, is_closed: bool = True, **settings: Any) -> Image:
    """Write a log of some segments, with tombstones in it, and return its image."""
    broker = Broker(path, clock=ManualClock(1000), maintenance_interval_ms=0, sync="never")
    settings = {"segment_bytes": 512, "index_interval_bytes": 128, **settings}
    partition = broker.create_topic("t", **settings)[0]
    for number in range(20):
        partition.append(b"%d" % number * 7, key=b"k%d" % (number % keys))
        partition.append_many([b"x", None], keys=[b"k%d" % (number * 5 % keys), b"gone"])
    if is_closed:
        broker.close()
        return image_of(path)
    image = image_of(path)
    broker.close()
    return image


def assert_sound(path: Path, found: State) -> None:
    """What was found stays so, takes records, and every byte of it is right."""
    before = image_of(path)
    assert minilog.verify(path).ok, str(minilog.verify(path))
    assert state_at(path) == found
    assert image_of(path) == before
    assert not [name for name in before if name.endswith("~") and ".log" in name]
    with Broker(path, clock=ManualClock(LATER_MS), maintenance_interval_ms=0) as broker:
        assert broker.recovery.ok, str(broker.recovery)
        partition = broker.topic("t")[0]
        assert partition.append(b"on it goes", key=b"k0") == found[1]
        partition.check()
    assert minilog.verify(path).ok, str(minilog.verify(path))


def compact(broker: Broker) -> None:
    broker.topic("t").compact()


def nothing(broker: Broker) -> None:
    assert not broker.is_closed


def maintain(broker: Broker) -> None:
    broker.maintain()


def repack(broker: Broker) -> None:
    assert broker.topic("t")[0].end_offset  # what nobody uses is not re-packed
    broker.maintain()


CALAMITIES: dict[str, tuple[Callable[[Broker], object], dict[str, Any]]] = {
    "compact": (compact, {"cleanup_policy": "compact"}),
    "compact many keys": (compact, {"cleanup_policy": "compact", "keys": 20}),
    "expire some by size": (maintain, {"retention_bytes": 1500}),
    "expire all by age": (maintain, {"retention_ms": 10_000}),
    "delete in a segment": (lambda broker: broker.topic("t")[0].delete_before(31), {}),
    "empty": (lambda broker: broker.topic("t")[0].delete_before(60), {}),
    "expire and compact": (maintain, {"cleanup_policy": "compact,delete", "retention_bytes": 900}),
}


@pytest.mark.parametrize("sync", ["never", "always"])
@pytest.mark.parametrize("calamity", CALAMITIES)
def test_death_at_any_operation_leaves_the_old_or_the_new(
    tmp_path: Path, calamity: str, sync: str
) -> None:
    action, settings = CALAMITIES[calamity]
    path = tmp_path / "log"
    image = written(path, is_closed=sync == "never", **settings)
    write_image(path, image)
    old = state_at(path)
    write_image(path, image)
    with open_mortal(path, straight := Fate(), sync=sync) as broker:
        action(broker)
        new = state_of(broker)
    assert new != old
    lost = {row[2] for row in old[2]} - {row[2] for row in new[2]}
    failures = []
    for number in range(0, len(straight.operations), 1 if sync == "never" else 3):
        write_image(path, image)
        run(path, Fate(number), action, sync)
        try:
            found = state_at(path)
            assert found[0] in (old[0], new[0])
            assert found[1] == old[1]
            rows = {row[2]: row for row in old[2]}
            assert found[2] == [rows[row[2]] for row in found[2]], "altered"
            missing = rows.keys() - {row[2] for row in found[2]}
            assert missing <= lost, f"lost {missing - lost}"
            if "and" not in calamity and "many" not in calamity:
                assert not missing or missing == lost, "half"
            assert_sound(path, found)
        except Exception as error:  # collected, so that one bug does not hide another
            failures.append(f"dead before {number}, {straight.operations[number]}: {error!r}")
    assert not failures, "\n\n".join(failures)
    assert len(straight.operations) > 5


def test_a_compaction_of_several_groups_is_cut_between_any_two_operations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several new segments, and several passes: what a later one would remove may still be
    there, but of no key the last record is gone."""
    monkeypatch.setattr(compaction, "KEY_BUDGET_BYTES", 900)
    path = tmp_path / "log"
    image = written(path, keys=13, cleanup_policy="compact", segment_bytes=512)
    old = state_at(path)
    last = {row[4]: row for row in old[2]}
    write_image(path, image)
    with open_mortal(path, straight := Fate(), sync="never") as broker:
        compact(broker)
        assert state_of(broker)[2] == sorted(last.values(), key=lambda row: row[2])
    assert sum(operation.startswith("rename") for operation in straight.operations) > 3
    for number in range(0, len(straight.operations), STEP):
        write_image(path, image)
        run(path, Fate(number), compact)
        found = state_at(path)
        assert found[:2] == old[:2]
        assert [row for row in old[2] if row in found[2]] == found[2]
        assert {row[4]: row for row in found[2]} == last
        assert_sound(path, found)
        with Broker(path, clock=ManualClock(LATER_MS), maintenance_interval_ms=0) as broker:
            compact(broker)
            kept = state_of(broker)[2]
            assert len(kept) == len(last)
            broker.topic("t")[0].check()


def test_repacking_that_dies_at_any_operation_changes_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repacking, "LEAST_BYTES", 0)
    monkeypatch.setattr(repacking, "SAMPLE_FRAMES", 2)
    path = tmp_path / "log"
    with Broker(path, clock=ManualClock(1000), maintenance_interval_ms=0, sync="never") as broker:
        partition = broker.create_topic("t", segment_bytes=512, index_interval_bytes=128)[0]
        for number in range(30):
            partition.append(b"%d" % number * 7, key=b"k%d" % number)
    image = image_of(path)
    old = state_at(path)
    write_image(path, image)
    straight = Fate()
    assert run(path, straight, repack)
    assert sum(operation.startswith("rename") for operation in straight.operations) > 3
    for number in range(len(straight.operations)):
        write_image(path, image)
        run(path, Fate(number), repack)
        assert_sound(path, state_at(path))
        write_image(path, image)
        run(path, Fate(number), repack)
        assert state_at(path) == old, f"dead before {number}, {straight.operations[number]}"


def test_recovery_of_a_compaction_that_died_may_die_at_any_operation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    image = written(path, cleanup_policy="compact")
    with open_mortal(path, straight := Fate(), sync="never") as broker:
        compact(broker)
        new = state_of(broker)
    renamed = next(n for n, name in enumerate(straight.operations) if name.startswith("rename"))
    for number in range(renamed + 1, renamed + 9):
        write_image(path, image)
        assert not run(path, Fate(number), compact)
        crashed = image_of(path)
        recovered = Fate()
        assert run(path, recovered, nothing)
        expected = image_of(path)
        assert state_at(path) == new
        for second in range(len(recovered.operations)):
            write_image(path, crashed)
            assert not run(path, Fate(second), nothing)
            assert run(path, Fate(), nothing)
            assert image_of(path) == expected, f"dead before {recovered.operations[second]}"
