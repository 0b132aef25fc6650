"""The contract of a broker with what lies in its directory: reading only, verifying, damage,
files of a later format, and files of somebody else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minilog import (
    Broker,
    CorruptionError,
    MinilogError,
    Partition,
    ReadOnlyError,
    StorageError,
    Topic,
    UnsupportedFormatError,
    verify,
)


def snapshot(directory: Path, *, times: bool = True) -> dict[str, tuple[Any, ...]]:
    """Everything about a directory that a reader must not change."""
    found = {}
    for path in [directory, *sorted(directory.rglob("*"))]:
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        name = str(path.relative_to(directory))
        found[name] = (status.st_mode, content, status.st_mtime_ns if times else None)
    return found


def write_log(path: Path, count: int = 60) -> None:
    """A cleanly closed log: a topic "t" with `count` records in partition 1 of 2, and "other"."""
    with Broker(path, segment_bytes=512) as broker:
        topic = broker.create_topic("t", partitions=2)
        for n in range(count):
            topic[1].append(b"<value %d>" % n, key=b"k", timestamp=n)
        broker.create_topic("other")[0].append(b"v")


def read_all(broker: Broker) -> list[list[bytes | None]]:
    read = [[r.value for r in partition] for topic in broker.topics.values() for partition in topic]
    for topic in broker.topics.values():
        topic[0].offset_at(0)
        topic[0].read(topic[0].end_offset, timeout=0.06)
    return read


@pytest.mark.parametrize("clean", [True, False])
def test_a_reader_never_changes_a_byte_of_a_log_nobody_has_open(
    log_path: Path, clean: bool
) -> None:
    write_log(log_path)
    if not clean:
        with Broker(log_path) as broker:
            broker.topic("t")[0].append(b"not closed")
            log_path = Path(shutil.copytree(log_path, log_path.with_name("crashed")))
    for path in log_path.rglob("*"):
        path.chmod(0o500 if path.is_dir() else 0o400)
    before = snapshot(log_path)
    with Broker(log_path, read_only=True) as broker:
        assert len(broker.topic("t")[1]) == 60
        read_all(broker)
    assert verify(log_path).record_count == (61 if clean else 62)
    assert snapshot(log_path) == before


def test_a_directory_of_somebody_elses_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    """The lock was taken before the look, so a refused directory kept a lock file."""
    (tmp_path / "other.txt").write_text("theirs")
    with pytest.raises(StorageError, match=r"broker\.json"):
        Broker(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_a_lock_file_that_cannot_be_opened_is_told_and_the_log_is_left_as_it_was(
    log_path: Path,
) -> None:
    with Broker(log_path) as broker:
        broker.create_topic("t")[0].append(b"v")
    (log_path / "minilog.lock").unlink()
    (log_path / "minilog.lock").mkdir()
    before = snapshot(log_path)
    with pytest.raises(IsADirectoryError) as caught:
        Broker(log_path)
    assert caught.value.filename == str(log_path / "minilog.lock")
    assert snapshot(log_path) == before
    (log_path / "minilog.lock").rmdir()
    with Broker(log_path) as broker:
        assert broker.recovery.ok
        assert [record.value for record in broker.topic("t")[0]] == [b"v"]


def test_a_reader_makes_nothing_where_no_log_is(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises((MinilogError, OSError)):
        Broker(tmp_path / "missing", read_only=True)
    for name in ("missing", "empty", "notes"):
        with contextlib.suppress(MinilogError, OSError), Broker(tmp_path / name, read_only=True):
            pass
        with contextlib.suppress(MinilogError, OSError):
            verify(tmp_path / name)
    assert snapshot(tmp_path) == before


READ_ONLY_CALLS: dict[str, Callable[[Broker, Topic, Partition], object]] = {
    "create_topic": lambda broker, topic, partition: broker.create_topic("new"),
    "delete_topic": lambda broker, topic, partition: broker.delete_topic("t"),
    "configure": lambda broker, topic, partition: topic.configure(segment_bytes=999),
    "add_partitions": lambda broker, topic, partition: topic.add_partitions(5),
    "append": lambda broker, topic, partition: partition.append(b"v"),
    "append_many": lambda broker, topic, partition: partition.append_many([b"v"]),
    "delete_before": lambda broker, topic, partition: partition.delete_before(10),
}


@pytest.mark.parametrize("call", READ_ONLY_CALLS)
def test_every_call_that_writes_is_a_read_only_error(log_path: Path, call: str) -> None:
    write_log(log_path)
    before = snapshot(log_path)
    with Broker(log_path, read_only=True, auto_create_topics=True) as broker:
        topic = broker.topic("t")
        with pytest.raises(ReadOnlyError):
            READ_ONLY_CALLS[call](broker, topic, topic[1])
        assert (list(broker.topics), len(topic), len(topic[1])) == (["other", "t"], 2, 60)
    assert snapshot(log_path) == before


def test_there_is_nothing_to_recover_after_a_clean_close(log_path: Path) -> None:
    with Broker(log_path) as broker:
        assert (broker.recovery.ok, list(broker.recovery.problems)) == (True, [])
    write_log(log_path)
    for _ in range(2):
        with Broker(log_path) as broker:
            assert (broker.recovery.ok, list(broker.recovery.problems)) == (True, [])
            assert isinstance(str(broker.recovery), str)


def test_verifying_a_good_log_counts_it_and_changes_nothing(log_path: Path) -> None:
    write_log(log_path)
    before = snapshot(log_path)
    for path in (log_path, str(log_path)):
        report = verify(path)
        assert (report.ok, list(report.problems), report.record_count) == (True, [], 61)
        assert report.size_bytes >= 60 * len(b"k<value 00>") - 10
        assert str(report)
    assert snapshot(log_path) == before


def flip(log_path: Path, content: bytes) -> Path:
    """Changes one bit in the one file that holds `content`."""
    [file] = [p for p in log_path.rglob("*") if p.is_file() and content in p.read_bytes()]
    data = bytearray(file.read_bytes())
    data[data.index(content) + 2] ^= 4
    file.write_bytes(data)
    return file


@pytest.mark.parametrize("read_only", [False, True])
def test_a_damaged_record_is_reported_and_never_returned_nor_skipped(
    log_path: Path, read_only: bool
) -> None:
    write_log(log_path)
    damaged = flip(log_path, b"<value 20>")
    before = snapshot(log_path)
    report = verify(log_path)
    assert not report.ok
    [problem] = report.problems
    assert os.path.samefile(os.path.join(log_path, problem.path), damaged)
    assert 0 <= problem.position < damaged.stat().st_size
    assert problem.offset == 20
    assert problem.reason
    assert snapshot(log_path) == before
    with Broker(log_path, read_only=read_only) as broker:
        partition = broker.topic("t")[1]
        assert (partition.start_offset, partition.end_offset) == (0, 60)
        assert list(partition.read(0, max_records=20).offsets) == list(range(20))
        with pytest.raises(CorruptionError) as caught:
            partition.read(20)
        assert os.path.samefile(os.path.join(log_path, caught.value.path), damaged)
        assert (caught.value.position, caught.value.offset) == (problem.position, 20)
        assert caught.value.reason
        seen: list[int] = []
        with pytest.raises(CorruptionError):
            seen.extend(record.offset for record in partition)
        assert seen == list(range(20))
        assert [r.value for r in partition.read(21)] == [b"<value %d>" % n for n in range(21, 60)]
        assert list(broker.topic("other")[0].read(0).values) == [b"v"]


def read_value(log_path: Path, read_only: bool) -> bytes | None:
    with Broker(log_path, read_only=read_only) as broker:
        return broker.topic("t")[1].read(0)[0].value


GARBAGE = [
    b"",
    b"{",
    b"\0" * 100,
    b"\xff\xfe\xfd",
    b"null",
    b"[]",
    b"{}",
    b"5",
    b'"text"',
    b"[" * 100_000,
    b'{"format": "one"}',
    b'{"format": null}',
    b'{"format": -1}',
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda data: str(data[:16]))
@pytest.mark.parametrize("name", ["broker.json", "t/topic.json"])
@pytest.mark.parametrize("read_only", [False, True])
def test_damaged_metadata_is_a_clear_storage_error_and_nothing_is_written_over(
    log_path: Path, name: str, garbage: bytes, read_only: bool
) -> None:
    write_log(log_path)
    good = (log_path / name).read_bytes()
    (log_path / name).write_bytes(garbage)
    for _ in range(2):  # and no LockedError the second time
        with pytest.raises(StorageError) as caught:
            read_value(log_path, read_only)
        assert Path(name).name in str(caught.value)
    with contextlib.suppress(StorageError):
        assert not verify(log_path).ok
    assert (log_path / name).read_bytes() == garbage
    (log_path / name).write_bytes(good)
    with Broker(log_path) as broker:
        assert len(list(broker.topic("t")[1])) == 60


def test_what_a_crash_left_of_the_first_file_of_all_is_in_nobodys_way(log_path: Path) -> None:
    log_path.mkdir()
    (log_path / "broker.json~").write_bytes(b"half")
    with Broker(log_path) as broker:
        assert broker.recovery.ok
        assert broker.create_topic("t")[0].append(b"v") == 0
    assert not (log_path / "broker.json~").exists()


@pytest.mark.parametrize("name", ["broker.json", "t/topic.json"])
def test_missing_metadata_never_passes_for_an_empty_log(log_path: Path, name: str) -> None:
    write_log(log_path)
    (log_path / name).unlink()
    try:
        with Broker(log_path) as broker:
            noticed = not broker.recovery.ok or len(broker.topic("t")[1]) == 60
    except MinilogError:
        noticed = True
    assert noticed


def test_a_missing_partition_directory_never_passes_for_an_empty_partition(log_path: Path) -> None:
    write_log(log_path)
    shutil.rmtree(log_path / "t" / "1")
    try:
        with Broker(log_path) as broker:
            noticed = not broker.recovery.ok
    except StorageError:
        noticed = True
    assert noticed
    with contextlib.suppress(StorageError):
        assert not verify(log_path).ok


@pytest.mark.parametrize("name", ["broker.json", "t/topic.json"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_format_is_unsupported_and_not_damaged(
    log_path: Path, name: str, read_only: bool
) -> None:
    write_log(log_path)
    document = json.loads((log_path / name).read_text())
    [field] = [key for key in document if "format" in key]
    current = document[field]
    (log_path / name).write_text(json.dumps({**document, field: current + 1}))
    before = snapshot(log_path, times=False)
    for _ in range(2):
        with pytest.raises(UnsupportedFormatError) as caught:
            read_value(log_path, read_only)
        assert (caught.value.found, caught.value.supported) == (current + 1, current)
    with contextlib.suppress(UnsupportedFormatError):
        assert not verify(log_path).ok
    assert snapshot(log_path, times=False) == before


def test_files_of_somebody_else_are_left_alone(log_path: Path) -> None:
    write_log(log_path)
    strangers = {
        "NOTES.txt": b"n",
        "broker.json.orig": b"{",
        "lost+found/x": b"l",
        "backup/x": b"b",
        ".git/HEAD": b"g",
        "t/README": b"r",
        "t/1/notes.log.gz": b"z",
        "t/notes/x": b"x",
        "t/1/00000000000000000000.bak": b"k",
        "quarantine/mine": b"q",
        "t/1/sub/x": b"s",
    }
    for name, content in strangers.items():
        (log_path / name).parent.mkdir(parents=True, exist_ok=True)
        (log_path / name).write_bytes(content)
    (log_path / "link").symlink_to("/nowhere")
    for turn in range(2):
        with Broker(log_path, segment_bytes=256) as broker:
            assert list(broker.topics) == ["other", "t"]
            assert broker.topic("t")[1].append_many([b"v" * 300] * 3) == range(
                60 + turn * 3, 63 + turn * 3
            )
            broker.topic("t").configure(segment_bytes=512)
            broker.flush()
    assert verify(log_path).record_count == 67
    assert {name: (log_path / name).read_bytes() for name in strangers} == strangers
    assert os.readlink(log_path / "link") == "/nowhere"
