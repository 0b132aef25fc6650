"""KeyboardInterrupt in the middle of a compaction, an expiry, a deletion: the log stays usable.

It comes as in ``test_interrupts``, at every so many-th of the places there are. Afterwards of no
key the last record is gone, cleaning again ends it, and the log closes and opens.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from test_interrupts import Opened, interrupted_everywhere

import minilog
from minilog import Broker, Partition
from minilog.storage.files import DiskDirectory
from minilog.storage.log import Log
from minilog.testing import ManualClock

COUNT = 24
KEYS = 5
Clean = Callable[[Broker], object]

CLEANINGS: dict[str, tuple[Clean, dict[str, Any], bool]] = {
    "compact": (lambda broker: broker.topic("t").compact(), {"cleanup_policy": "compact"}, True),
    "expire": (lambda broker: broker.maintain(), {"retention_bytes": 400}, False),
    "delete": (lambda broker: broker.topic("t")[0].delete_before(COUNT - 3), {}, False),
}


def opened(path: Path | str, settings: dict[str, Any]) -> Opened:
    broker = Broker(path, sync="never", maintenance_interval_ms=0, clock=ManualClock(1000))
    partition = broker.create_topic("t", segment_bytes=256, **settings)[0]
    for number in range(COUNT):
        partition.append(b"%d" % number * 9, key=b"%d" % (number % KEYS))
    return broker, partition


def assert_legal(partition: Partition, *, is_compaction: bool) -> None:
    partition.check()
    start, end = partition.start_offset, partition.end_offset
    assert end == COUNT
    found = [(record.offset, record.key, record.value) for record in partition]
    assert len(partition) == len(found)
    whole = [(n, b"%d" % (n % KEYS), b"%d" % n * 9) for n in range(COUNT)]
    if is_compaction:
        assert [row for row in whole if row in found] == found
        assert found[-KEYS:] == whole[-KEYS:]
    else:
        assert found == whole[start:]


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("name", CLEANINGS)
def test_a_cleaning_interrupted_anywhere_leaves_the_log_usable(
    tmp_path: Path, name: str, where: str
) -> None:
    clean, settings, is_compaction = CLEANINGS[name]

    def path_of(number: int) -> Path | str:
        return ":memory:" if where == "memory" else tmp_path / str(number)

    def check(opened: Opened, number: int) -> None:
        broker, partition = opened
        assert_legal(partition, is_compaction=is_compaction)
        if where == "disk":
            broker.close()
            path = tmp_path / str(number)
            assert minilog.verify(path).ok, str(minilog.verify(path))
            broker = Broker(path, clock=ManualClock(1000), maintenance_interval_ms=0)
            partition = broker.topic("t")[0]
            assert_legal(partition, is_compaction=is_compaction)
            assert broker.recovery.ok
        clean(broker)
        assert_legal(partition, is_compaction=is_compaction)
        assert len(partition) < COUNT // 2
        assert partition.append(b"after", key=b"0") == COUNT
        partition.check()
        if where == "disk":
            names = [each.name for each in (tmp_path / str(number) / "t" / "0").iterdir()]
            assert not [each for each in names if "~" in each]
            broker.close()

    step = 71 if where == "memory" else 191
    brokers: list[Broker] = []

    def begin(number: int) -> Opened:
        broker, partition = opened(path_of(number), settings)
        brokers[:] = [broker]
        return broker, partition

    failures = interrupted_everywhere(
        begin,
        lambda partition: clean(brokers[0]),
        check,
        count(len(name), step),
    )
    assert not failures, f"{len(failures)}\n" + "\n".join(failures[:20])


@pytest.mark.parametrize("is_done", [False, True])
def test_an_interrupt_of_the_rename_that_compaction_ends_with_leaves_the_log_usable(
    tmp_path: Path, is_done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes when the disk has done as it was told, or before."""
    broker, partition = opened(tmp_path / "log", {"cleanup_policy": "compact"})
    broker.topic("t").configure(segment_bytes=4096)
    rename = DiskDirectory.rename

    def interrupted(directory: DiskDirectory, old: str, new: str) -> None:
        monkeypatch.undo()
        if is_done:
            rename(directory, old, new)
        raise KeyboardInterrupt

    monkeypatch.setattr(DiskDirectory, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        broker.topic("t").compact()
    assert_legal(partition, is_compaction=True)
    assert len(partition) == (KEYS if is_done else COUNT)
    broker.topic("t").compact()
    assert_legal(partition, is_compaction=True)
    assert len(partition) == KEYS
    logs = [path for path in (tmp_path / "log/t/0").iterdir() if ".log" in path.name]
    assert [path.name for path in sorted(logs)] == [f"{base:020d}.log" for base in (0, COUNT)]
    broker.close()
    assert minilog.verify(tmp_path / "log").ok


def test_an_interrupt_before_segments_are_out_of_sight_unlinks_none_that_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, partition = opened(tmp_path / "log", {})
    bases = sorted((tmp_path / "log/t/0").glob("*.log"))
    interrupts = [KeyboardInterrupt]

    def swap(log: Log, view: object) -> None:
        if interrupts:
            raise interrupts.pop()
        vars(log)["_view"] = view

    drop_before = Log.drop_before

    def interrupted(log: Log, offset: int) -> None:
        monkeypatch.undo()
        with monkeypatch.context() as patched:
            seen = property(lambda log: vars(log)["_view"], swap)
            patched.setattr(Log, "_view", seen, raising=False)
            drop_before(log, offset)

    monkeypatch.setattr(Log, "drop_before", interrupted)
    with pytest.raises(KeyboardInterrupt):
        partition.delete_before(COUNT - 3)
    assert not interrupts
    assert_legal(partition, is_compaction=False)
    log = partition._opened()
    while log.remove_dropped():
        pass
    assert sorted((tmp_path / "log/t/0").glob("*.log")) == bases
    partition.append(b"%d" % COUNT * 9, key=b"0")
    partition.delete_before(COUNT - 2)
    assert [record.offset for record in partition] == [COUNT - 2, COUNT - 1, COUNT]
    assert not bases[0].exists()
    broker.close()
    assert minilog.verify(tmp_path / "log").ok
