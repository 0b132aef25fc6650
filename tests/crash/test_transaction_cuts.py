"""A process dies before each operation of transactions in turn: all or nothing, in every place."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from cutting import CutDirectory, Death, Fate
from images import crashed_copy, image_of, write_image

import minilog
import minilog.ledger
from minilog import Broker
from minilog.storage.files import Directory, disk_directory
from minilog.testing import ManualClock
from tests.crash import pipeline_story as story


class MortalDisk:
    """A disk whose process dies as its fate has it."""

    def __init__(self, path: Path, fate: Fate) -> None:
        self._path, self._fate = path, fate

    def root_directory(self) -> Directory:
        return CutDirectory(disk_directory(self._path), self._fate)


def opened(path: Path, fate: Fate | None = None, sync: str = "never") -> Broker:
    place = path if fate is None else MortalDisk(path, fate)
    return Broker(place, sync=sync, clock=ManualClock(1000), maintenance_interval_ms=0)  # type: ignore[arg-type]


def live(path: Path, fate: Fate, sync: str) -> story.Told:
    """Open the log and do the work, until death."""
    told = story.Told()
    broker = None
    try:
        broker = opened(path, fate, sync)
        story.run(broker, told)
        broker.close()
    except Death:
        if broker is not None:
            broker.refuse_in_child()  # lets go of everything, as the end of a process does
    return told


def assert_whole(path: Path, told: story.Told) -> None:
    with opened(path) as broker:
        steps = story.found(broker)
        assert steps in (told.acknowledged, told.begun), (steps, vars(told))
    before = image_of(path)
    with opened(path) as broker:
        assert broker.recovery.ok, str(broker.recovery)
        assert story.found(broker) == steps
    assert image_of(path) == before
    with opened(path) as broker:
        story.finish(broker)
    assert minilog.verify(path).ok


@pytest.mark.parametrize("snapshot_bytes", [1, 1500, 1 << 20])
@pytest.mark.parametrize("sync", ["never", "always"])
def test_death_before_any_operation_leaves_all_of_a_transaction_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: str, snapshot_bytes: int
) -> None:
    """With a small ``snapshot_bytes`` the ledger is written anew again and again."""
    monkeypatch.setattr(minilog.ledger, "SNAPSHOT_BYTES", snapshot_bytes)
    with opened(tmp_path / "prepared") as broker:
        story.prepare(broker)
    prepared = image_of(tmp_path / "prepared")
    failures, step = [], {1500: 17, 1: 41, 1 << 20: 29}[snapshot_bytes]
    number = 0
    while True:
        path = tmp_path / "log"
        write_image(path, prepared)
        fate = Fate(number)
        told = live(path, fate, sync)
        if not fate.is_dead:
            break
        try:
            assert_whole(path, told)
        except Exception as error:  # collected, so that one bug does not hide another
            failures.append(f"dead before operation {number}, {fate.operations[-1]}: {error!r}")
        number += step
    assert number > 100
    assert not failures, "\n\n".join(failures[:5])


@pytest.mark.parametrize("power_cut", [False, True])
def test_recovery_that_dies_before_any_operation_aborts_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, power_cut: bool
) -> None:
    monkeypatch.setattr(minilog.ledger, "SNAPSHOT_BYTES", 1500)
    path, crashed = tmp_path / "log", tmp_path / "crashed"
    with opened(path) as broker:
        story.prepare(broker)
        with story.Producer(broker, producer_id="pipeline").transaction() as tx:
            story.send_step(tx, 0)
            tx.commit_offsets({story.IN: story.PER_STEP}, group="g")
        tx = story.Producer(broker, producer_id="pipeline").transaction()
        story.send_step(tx, 1)
        crashed_copy(path, crashed, power_cut=power_cut)
    torn, lock = image_of(crashed), (crashed / "minilog.lock").read_bytes()

    def recover(fate: Fate) -> None:
        broker = opened(crashed, fate)
        try:
            broker.close()
        except Death:
            broker.refuse_in_child()
            raise

    recover(straight := Fate())
    assert len(straight.operations) > 10
    for number in range(len(straight.operations)):
        write_image(crashed, torn)
        (crashed / "minilog.lock").write_bytes(lock)
        with pytest.raises(Death):
            recover(Fate(number))
        with contextlib.suppress(Death):  # less may be left to do than was done before
            recover(Fate(number // 2))
        with opened(crashed) as broker:
            assert story.found(broker) == 1, straight.operations[number]
        with opened(crashed) as broker:
            assert broker.recovery.ok
            story.finish(broker)
