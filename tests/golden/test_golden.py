"""Every format ever released is read by this version, and none is guessed at.

The directories are committed and never made anew (``make.py`` says how they were); each test
works on a copy.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from make import (
    AUDIT_START,
    DAMAGED_LOG,
    DAMAGED_OFFSET,
    KEYED_START,
    PACKAGED_CODECS,
    SETTINGS,
    START_MS,
    expected_records,
    packed_records,
)

import minilog
from minilog import Broker, Consumer, CorruptionError, Record, UnsupportedFormatError
from minilog.storage.format import FORMAT

HERE = Path(__file__).parent
FORMATS = sorted(int(path.name.removeprefix("format-")) for path in HERE.glob("format-*"))


@pytest.fixture(params=FORMATS)
def version(request: pytest.FixtureRequest) -> int:
    """A format there has been."""
    return int(request.param)


@pytest.fixture
def golden(version: int, tmp_path: Path) -> Path:
    """A copy of a log that was written in that format."""
    return Path(shutil.copytree(HERE / f"format-{version}", tmp_path / "log"))


@pytest.fixture
def expected(version: int) -> dict[str, list[list[Record]]]:
    """What is in it."""
    return expected_records(version)


def bytes_of(path: Path) -> dict[str, bytes]:
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def count_of(expected: dict[str, list[list[Record]]]) -> int:
    return sum(len(records) for partitions in expected.values() for records in partitions)


def test_there_is_a_golden_log_of_this_format_and_of_all_before() -> None:
    assert list(range(1, FORMAT + 1)) == FORMATS


@pytest.mark.parametrize("read_only", [True, False])
def test_every_record_of_a_golden_log_is_read(
    golden: Path, expected: dict[str, list[list[Record]]], read_only: bool
) -> None:
    with Broker(golden, read_only=read_only) as broker:
        assert broker.recovery.ok, str(broker.recovery)
        assert sorted(broker.topics) == sorted(expected)
        for name, partitions in expected.items():
            topic = broker.topic(name)
            assert [list(partition) for partition in topic] == partitions
            for partition in topic:
                partition.check()
        drained = list(Consumer(broker, *expected).drain())
        assert len(drained) == count_of(expected)


def test_settings_and_starts_of_a_golden_log_are_kept(golden: Path) -> None:
    with Broker(golden, read_only=True) as broker:
        orders, audit = broker.topic("orders"), broker.topic("audit.log")
        assert {name: getattr(orders.config, name) for name in SETTINGS} == SETTINGS
        assert audit.config.timestamp_type == "append"
        assert audit.config.segment_bytes == 256
        assert (audit[0].start_offset, audit[0].end_offset) == (AUDIT_START, 12)
        assert (orders[1].start_offset, len(orders[1])) == (KEYED_START, 6 - KEYED_START)
        assert len(orders[2]) == 0


def test_every_place_of_a_golden_log_is_found_by_offset_and_time(
    golden: Path, expected: dict[str, list[list[Record]]]
) -> None:
    with Broker(golden, read_only=True) as broker:
        for name, partitions in expected.items():
            for partition, records in zip(broker.topic(name), partitions, strict=True):
                for record in records:
                    assert partition.read(record.offset, max_records=1)[0] == record
                stamps = sorted({record.timestamp for record in records} | {0, START_MS + 50})
                for stamp in stamps:
                    later = [record.offset for record in records if record.timestamp >= stamp]
                    assert partition.offset_at(stamp) == (later[0] if later else None)


def test_a_golden_log_is_whole_and_reading_it_changes_no_byte(
    golden: Path, expected: dict[str, list[list[Record]]]
) -> None:
    before = bytes_of(golden)
    report = minilog.verify(golden)
    assert report.ok, str(report)
    assert report.record_count == count_of(expected)
    with Broker(golden, read_only=True) as broker:
        for topic in broker.topics.values():
            for partition in topic:
                list(partition)
                partition.offset_at(START_MS)
    assert bytes_of(golden) == before


def test_a_golden_log_takes_records(golden: Path, expected: dict[str, list[list[Record]]]) -> None:
    with Broker(golden) as broker:
        for name, partitions in expected.items():
            for partition, records in zip(broker.topic(name), partitions, strict=True):
                end = partition.end_offset
                assert end == (records[-1].offset + 1 if records else 0)
                assert [partition.append(b"new %d" % n) for n in range(9)] == [*range(end, end + 9)]
                assert partition.append_many([b"a", None]) == range(end + 9, end + 11)
    assert minilog.verify(golden).ok
    with Broker(golden) as broker:
        assert broker.recovery.ok
        for name, partitions in expected.items():
            for partition, records in zip(broker.topic(name), partitions, strict=True):
                found = list(partition)
                assert found[: len(records)] == records
                assert len(found) == len(records) + 11


@pytest.mark.parametrize("read_only", [True, False])
def test_damage_in_a_golden_log_is_told_and_read_around(
    tmp_path: Path, version: int, expected: dict[str, list[list[Record]]], read_only: bool
) -> None:
    path = Path(shutil.copytree(HERE / f"damaged-{version}", tmp_path / "log"))
    before = bytes_of(path)
    with Broker(path, read_only=read_only) as broker:
        partition = broker.topic("orders")[0]
        assert list(partition.read(0)) == expected["orders"][0][:DAMAGED_OFFSET]
        with pytest.raises(CorruptionError) as caught:
            partition.read(DAMAGED_OFFSET)
        assert caught.value.path == str(path / DAMAGED_LOG)
        assert caught.value.offset == DAMAGED_OFFSET
        assert caught.value.next_offset == DAMAGED_OFFSET + 1
        found: list[Record] = []
        offset = DAMAGED_OFFSET + 1
        while offset < partition.end_offset:
            records = partition.read(offset)
            found += records
            offset = records.next_offset
        assert found == expected["orders"][0][DAMAGED_OFFSET + 1 :]
        assert list(broker.topic("audit.log")[0]) == expected["audit.log"][0]
    (path / "minilog.lock").unlink(missing_ok=True)
    after = bytes_of(path)
    if not read_only and version < FORMAT:
        assert json.loads(after.pop("broker.json"))["format"] == FORMAT
        del before["broker.json"]
    assert after == before
    report = minilog.verify(path)
    in_logs = [problem for problem in report.problems if problem.path.endswith(".log")]
    assert [(problem.path, problem.offset) for problem in in_logs] == [
        (str(path / DAMAGED_LOG), DAMAGED_OFFSET)
    ]


@pytest.mark.parametrize("read_only", [True, False])
def test_a_log_of_the_future_is_refused_and_not_called_damaged(
    tmp_path: Path, read_only: bool
) -> None:
    path = Path(shutil.copytree(HERE / "future", tmp_path / "log"))
    before = bytes_of(path)
    with pytest.raises(UnsupportedFormatError) as caught:
        Broker(path, read_only=read_only)
    assert (caught.value.found, caught.value.supported) == (FORMAT + 1, FORMAT)
    assert not isinstance(caught.value, CorruptionError)
    assert str(path) in str(caught.value)
    assert not minilog.verify(path).ok
    (path / "minilog.lock").unlink(missing_ok=True)
    assert bytes_of(path) == before


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("codec", PACKAGED_CODECS)
@pytest.mark.parametrize("version", [version for version in FORMATS if version >= 2])
def test_a_golden_log_of_a_codec_is_read(
    tmp_path: Path, need_codec: Callable[[str], str], codec: str, version: int, read_only: bool
) -> None:
    need_codec(codec)
    path = shutil.copytree(HERE / f"packed-{codec}-{version}", tmp_path / "log")
    report = minilog.verify(path)
    assert report.ok, str(report)
    assert report.record_count == len(packed_records())
    with Broker(path, read_only=read_only) as broker:
        assert broker.recovery.ok, str(broker.recovery)
        packed = broker.topic("packed")[0]
        assert list(packed) == packed_records()
        for record in packed_records():
            assert packed.read(record.offset, max_records=1)[0] == record


def test_an_older_log_is_of_this_format_from_the_first_opening_for_writing(
    golden: Path, version: int
) -> None:
    def formats() -> dict[str, int]:
        return {
            str(path.relative_to(golden)): json.loads(path.read_text())["format"]
            for path in golden.rglob("*.json")
        }

    before = formats()
    identity = json.loads((golden / "broker.json").read_text())["id"]
    assert set(before.values()) == {version}
    Broker(golden, read_only=True).close()
    assert formats() == before
    with Broker(golden) as broker:
        during = formats()
        assert during.pop("broker.json") == FORMAT
        assert set(during.values()) == {version}, "what need not change has not"
        segment = golden / "orders" / "2" / "00000000000000000000.log"
        broker.topic("orders")[2].append(b"in a segment of its old format")
        assert int.from_bytes(segment.read_bytes()[8:12], "little") == version
        for _ in range(20):  # some rolls
            broker.topic("orders")[2].append(b"x" * 200)
        newest = max((golden / "orders" / "2").glob("*.log"))
        assert int.from_bytes(newest.read_bytes()[8:12], "little") == FORMAT
    assert json.loads((golden / "broker.json").read_text())["id"] == identity
    assert minilog.verify(golden).ok
