"""A sync that fails is not tried again: what it should have put on the disk has an unknown fate.

From then on everything that writes is refused until the log is opened anew; reading goes on.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

import minilog
from minilog import Broker, SyncFailedError
from minilog.storage.files import DiskDirectory, DiskFile


class Failing:
    """Makes a sync fail, as often as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: Any, error: int) -> None:
        self.failures = 0
        self.calls = 0
        sync = kind.sync

        def fail(thing: object) -> None:
            self.calls += 1
            if self.failures:
                self.failures -= 1
                raise OSError(error, "as the test wants it")
            sync(thing)

        monkeypatch.setattr(kind, "sync", fail)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_failed_sync_refuses_all_writing_until_reopened(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    broker = Broker(log_path, sync="always")
    partition = broker.create_topic("t")[0]
    other = broker.create_topic("other")[0]
    for number in range(5):
        partition.append(b"%d" % number)
    disk = Failing(monkeypatch, DiskFile, error)
    disk.failures = 1
    with pytest.raises(SyncFailedError) as caught:
        partition.append(b"unknown fate")
    assert isinstance(caught.value.__cause__, OSError)
    calls = disk.calls
    for _ in range(2):
        with pytest.raises(SyncFailedError):
            partition.append(b"refused")
        with pytest.raises(SyncFailedError):
            partition.append_many([b"refused"] * 3)
        with pytest.raises(SyncFailedError):
            partition.append(b"refused", headers=[("h", b"")], timestamp=7)
        with pytest.raises(SyncFailedError):
            partition.flush()
        with pytest.raises(SyncFailedError):
            broker.flush()
    with pytest.raises(SyncFailedError):
        partition.delete_before(2)
    assert disk.calls == calls, "a failed sync was tried again"
    assert partition.end_offset == 5, "what was not synced is seen"
    assert [record.value for record in partition] == [b"%d" % n for n in range(5)]
    assert other.append(b"another file, another fate") == 0
    broker.close()
    with Broker(log_path, sync="always") as broker:
        partition = broker.topic("t")[0]
        values = [record.value for record in partition]
        assert values[:5] == [b"%d" % n for n in range(5)]
        assert values[5:] in ([], [b"unknown fate"])
        assert partition.append(b"goes on") == len(values)
        assert broker.topic("other")[0].end_offset == 1
    assert minilog.verify(log_path).ok


@pytest.mark.parametrize("call", ["flush", "maintain", "close"])
def test_a_sync_that_fails_later_is_told_by_whoever_asks_next(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    broker = Broker(log_path, sync="interval", maintenance_interval_ms=0, sync_interval_ms=10**9)
    partition = broker.create_topic("t")[0]
    partition.append(b"one")
    disk = Failing(monkeypatch, DiskFile, errno.EIO)
    disk.failures = 1
    with pytest.raises(SyncFailedError):
        getattr(broker, call)()
    if call != "close":
        with pytest.raises(SyncFailedError):
            partition.append(b"two")
        assert [record.value for record in partition] == [b"one"]
        broker.close()
    assert not (log_path / "clean.json").exists() or not disk.failures
    with Broker(log_path) as broker:
        partition = broker.topic("t")[0]
        assert partition.end_offset in (0, 1)
        assert partition.append(b"three") in (0, 1)


def test_a_directory_that_cannot_be_synced_is_a_failed_sync_of_what_is_in_it(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker(log_path, sync="always")
    partition = broker.create_topic("t", segment_bytes=256)[0]
    partition.append(b"x" * 150)
    disk = Failing(monkeypatch, DiskDirectory, errno.EIO)
    disk.failures = 1
    with pytest.raises(SyncFailedError):
        partition.append(b"y" * 150)  # in a new segment, whose name must be synced
    with pytest.raises(SyncFailedError):
        partition.append(b"z")
    assert [record.value for record in partition] == [b"x" * 150]
    broker.close()
    with Broker(log_path) as broker:
        assert broker.topic("t")[0].read(0).values[0] == b"x" * 150


def test_the_housekeeper_keeps_the_error_of_a_sync_that_failed(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker(log_path, maintenance_interval_ms=0, sync_interval_ms=10**9) as broker:
        partition = broker.create_topic("t")[0]
        partition.append(b"one")
        disk = Failing(monkeypatch, DiskFile, errno.EIO)
        disk.failures = 1
        broker.keep_house()
        assert [type(error) for error in broker.housekeeping_errors] == [SyncFailedError]
        with pytest.raises(SyncFailedError):
            partition.append(b"two")
