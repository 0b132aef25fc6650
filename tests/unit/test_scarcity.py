"""One call of the disk fails, for want of descriptors or of room: it is tried again, done without,
or told, and then nothing has happened."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from minilog import Broker, Partition, SyncFailedError, verify
from minilog.storage.files import DiskDirectory, DiskFile
from minilog.testing import ManualClock

LOCK_FILE, OTHER_BOOT = "minilog.lock", "4242 00000000-0000-4000-8000-000000000000\n"
COUNT = 60


def fail_once(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, number: int, of: str
) -> list[int]:
    """Have an operation of the disk fail once, that of a file so called; return a list that is
    empty when it has."""
    operation, left = getattr(owner, name), [number]

    def failing(self: Any, *given: Any, **more: Any) -> Any:
        if left and str([self.path, *given]).rstrip("'])").endswith(of):
            raise OSError(left.pop(), os.strerror(number))
        return operation(self, *given, **more)

    monkeypatch.setattr(owner, name, failing)
    return left


def values_of(partition: Partition) -> list[bytes | None]:
    return [record.value for record in partition]


@pytest.fixture
def filled(tmp_path: Path) -> list[bytes]:
    """The records of a closed log in a few segments, with indexes."""
    values = [b"%03d" % number * 30 for number in range(COUNT)]
    with Broker(tmp_path, clock=ManualClock()) as broker:
        partition = broker.create_topic("t", segment_bytes=2048, index_interval_bytes=128)[0]
        for value in values:
            partition.append(value)
    return values


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("is_known", [True, False])
def test_where_descriptors_run_out_a_map_is_let_go_and_the_file_is_opened_after_all(
    tmp_path: Path,
    filled: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    is_known: bool,
) -> None:
    """A file is opened to be mapped, and before that to know where it ends."""
    with Broker(tmp_path, clock=ManualClock()) as broker:
        partition = broker.topic("t")[0]
        assert partition.read(COUNT - 1)[0].value == filled[-1]  # one is mapped
        if is_known:
            assert len(partition) == COUNT
        left = fail_once(monkeypatch, DiskDirectory, "open", number, ".log")
        assert partition.read(3)[0].value == filled[3]
        assert not left
        assert values_of(partition) == filled


def test_where_descriptors_run_out_and_no_map_can_be_let_go_it_is_told(
    tmp_path: Path, filled: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker(tmp_path, clock=ManualClock()) as broker:
        partition = broker.topic("t")[0]
        assert partition.end_offset == COUNT
        left = fail_once(monkeypatch, DiskDirectory, "open", errno.EMFILE, ".log")
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            partition.read(3)
        assert not left
        assert values_of(partition) == filled


@pytest.mark.parametrize("ending", [".index", ".timeindex"])
@pytest.mark.parametrize("is_same_boot", [True, False])
def test_an_index_that_finds_no_room_is_done_without(
    tmp_path: Path,
    filled: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    is_same_boot: bool,
) -> None:
    """It was lost, and is made anew when the log is opened: of reading, nobody needs it."""
    last = max((tmp_path / "t/0").glob("*.log"))
    for each in (".index", ".timeindex"):
        last.with_suffix(each).unlink()
    if not is_same_boot:
        (tmp_path / LOCK_FILE).write_text(OTHER_BOOT)
    left = fail_once(monkeypatch, DiskDirectory, "create", errno.ENOSPC, ending)
    with Broker(tmp_path, clock=ManualClock()) as broker:
        partition = broker.topic("t")[0]
        assert values_of(partition) == filled
        assert not left
        assert [partition.read(offset)[0].value for offset in range(COUNT)] == filled
        assert partition.append(b"more") == COUNT
        partition.check()
    assert verify(tmp_path).ok, str(verify(tmp_path))
    with Broker(tmp_path, clock=ManualClock()) as broker:
        assert broker.recovery.ok
        assert values_of(broker.topic("t")[0]) == [*filled, b"more"]


def test_half_an_index_that_could_not_be_unlinked_goes_when_its_log_is_closed(
    tmp_path: Path, filled: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = max((tmp_path / "t/0").glob("*.log"))
    for each in (".index", ".timeindex"):
        last.with_suffix(each).unlink()
    left = fail_once(monkeypatch, DiskDirectory, "create", errno.EDQUOT, ".timeindex")
    left_too = fail_once(monkeypatch, DiskDirectory, "unlink", errno.EDQUOT, ".index")
    with Broker(tmp_path, clock=ManualClock()) as broker:
        partition = broker.topic("t")[0]
        assert values_of(partition) == filled
        assert not left
        assert not left_too
        assert last.with_suffix(".index").exists()
        assert [partition.read(offset)[0].value for offset in range(COUNT)] == filled
    assert not last.with_suffix(".index").exists()
    assert verify(tmp_path).ok, str(verify(tmp_path))


@pytest.mark.parametrize(
    ("owner", "operation", "of", "zeroed"),
    [
        (DiskDirectory, "create", ".timeindex", None),
        (DiskFile, "sync", ".log", -16),
        (DiskFile, "sync", ".log", 0),
    ],
    ids=["only one of its files", "the last entry in one of them", "the first, which is damage"],
)
def test_half_of_what_a_close_that_failed_wrote_of_an_index_is_no_damage(
    tmp_path: Path,
    filled: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    operation: str,
    of: str,
    zeroed: int | None,
) -> None:
    """Nobody has been told that the log is closed, and its next opening makes the index anew."""
    broker = Broker(tmp_path, clock=ManualClock())
    partition = broker.topic("t")[0]
    for number in range(12):
        partition.append(b"%03d" % number * 60)
    left = fail_once(monkeypatch, owner, operation, errno.EDQUOT, of)
    with pytest.raises(SyncFailedError):
        broker.close()
    assert not left
    file = max((tmp_path / "t/0").glob("*.log")).with_suffix(".timeindex")
    if zeroed is None:
        assert file.with_suffix(".index").exists()
        assert not file.exists()
    else:
        data = bytearray(file.read_bytes())
        assert len(data) >= 32
        start = zeroed % len(data)
        data[start : start + 16] = bytes(16)
        file.write_bytes(data)
    assert verify(tmp_path).ok == (zeroed != 0), str(verify(tmp_path))
    with Broker(tmp_path, clock=ManualClock()) as again:
        assert len(values_of(again.topic("t")[0])) == COUNT + 12
    assert verify(tmp_path).ok, str(verify(tmp_path))


@pytest.mark.parametrize(
    ("operation", "of"),
    [
        ("create", "~.index"),
        ("create", "~.timeindex"),
        ("rename", ".index"),
        ("rename", ".timeindex"),
    ],
)
def test_the_index_of_what_was_compacted_finds_no_room_and_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, of: str
) -> None:
    with Broker(tmp_path, clock=ManualClock()) as broker:
        settings = {"cleanup_policy": "compact", "index_interval_bytes": 128}
        topic = broker.create_topic("t", **settings)
        for number in range(2000):
            topic[0].append(b"%d" % number * 40, key=b"%d" % (number % 1500))
        left = fail_once(monkeypatch, DiskDirectory, operation, errno.ENOSPC, of)
        topic.compact()
        assert not left
        found = {record.key: record.offset for record in topic[0]}
        assert found == {b"%d" % (number % 1500): number for number in range(2000)}
        assert [topic[0].read(offset)[0].offset for offset in (0, 499, 700)] == [500, 500, 700]
        assert not list((tmp_path / "t/0").glob("*~*"))
        topic[0].append(b"more", key=b"more")
    assert verify(tmp_path).ok, str(verify(tmp_path))


def test_names_that_cannot_be_synced_end_a_compaction_and_cost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker(tmp_path, clock=ManualClock()) as broker:
        topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=2048)
        for number in range(200):
            topic[0].append(b"%d" % number, key=b"%d" % (number % 9))
        before = list(topic[0])
        topic.configure(segment_bytes=4096)
        broker.flush()
        compacted = topic[0].compaction
        sync, left = DiskDirectory.sync, [errno.EIO]

        def failing(directory: DiskDirectory) -> None:
            if left and list((tmp_path / "t/0").glob("*~*")):
                raise OSError(left.pop(), os.strerror(errno.EIO))
            sync(directory)

        monkeypatch.setattr(DiskDirectory, "sync", failing)
        with pytest.raises(SyncFailedError, match=os.strerror(errno.EIO)):
            topic.compact()
        assert not left
        assert topic[0].compaction is compacted
        assert list(topic[0]) == before
    with Broker(tmp_path, clock=ManualClock()) as broker:
        assert list(broker.topic("t")[0]) == before
        broker.topic("t").compact()
        assert list(broker.topic("t")[0]) == before[-9:]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_large_record_whose_write_fails_is_not_in_however_much_of_it_is(
    tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = bytes(range(256)) * 1024
    with Broker(tmp_path, clock=ManualClock()) as broker:
        partition = broker.create_topic("t")[0]
        partition.append(b"before")
        write = DiskFile.write

        def failing(file: DiskFile, position: int, data: bytes) -> None:
            if len(data) < len(large):
                return write(file, position, data)
            monkeypatch.undo()
            write(file, position, data[: int(len(data) * share)])
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(DiskFile, "write", failing)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            partition.append(large, headers=[("h", b"1")])
        assert values_of(partition) == [b"before"]
        assert partition.append(b"after") == 1
        partition.check()
    with Broker(tmp_path, clock=ManualClock()) as broker:
        assert broker.recovery.ok
        assert values_of(broker.topic("t")[0]) == [b"before", b"after"]
    assert verify(tmp_path).ok
