"""Which sealed segments are worth re-packing, and that all of their records stay."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from minilog.config import TopicConfig
from minilog.storage import format as f
from minilog.storage import repacking, scan
from minilog.storage.batch import encode_batch
from minilog.storage.files import Directory, MapLimit
from minilog.storage.log import Log
from minilog.storage.opening import Opening
from minilog.storage.repacking import SAMPLE_FRAMES, loose, repack
from minilog.storage.swapping import Host
from minilog.testing import SimulatedDisk

BASE = 100
CONFIG = TopicConfig(index_interval_bytes=256)
HOST = Host(contextlib.nullcontext(), lambda: None, lambda size: None)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setattr(repacking, "LEAST_BYTES", 1)
    directory: Directory = SimulatedDisk().root_directory()
    Log.create(directory, b"log", BASE, 5000)
    return Log(directory, b"log", CONFIG, MapLimit(100), Opening(same_boot=True))


def fill(log: Log, count: int, *, batches: int = 0) -> None:
    """Fill a segment with records one by one, then batches, and go on in another."""
    for number in range(count):
        log.append_single(b"k%d" % number, b"v" * number, b"", 1000, 6000)
    for _ in range(batches):
        log.append_batch(encode_batch([b"a", b"b"], None, None, None, 100), 1000, 6000)
    log.roll(6000)


def loose_in(log: Log, limit: int = 10**6) -> list[int]:
    return [segment.base_offset for segment in loose(log, limit)]


@pytest.mark.parametrize(
    ("count", "batches", "is_loose"),
    [
        (SAMPLE_FRAMES, 0, True),
        (SAMPLE_FRAMES - 1, 0, False),
        (SAMPLE_FRAMES + 20, 0, True),
        (SAMPLE_FRAMES + 20, 1, False),
        (0, 3, False),
    ],
)
def test_only_segments_of_many_records_appended_one_by_one_are_worth_it(
    log: Log, count: int, batches: int, is_loose: bool
) -> None:
    fill(log, count, batches=batches)
    assert loose_in(log) == ([BASE] if is_loose else [])
    assert log.segments()[0].is_packed != is_loose  # it is looked at once


def test_what_is_small_or_behind_the_limit_is_left_alone(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(log, 20)
    fill(log, 30)
    assert loose_in(log) == [BASE, BASE + 20]
    assert loose_in(log, BASE + 49) == [BASE]
    assert loose_in(log, BASE + 20) == [BASE]
    assert loose_in(log, BASE + 19) == []
    size = log.segments()[0].size_bytes
    for least, found in ((size, [BASE, BASE + 20]), (size + 1, [BASE + 20])):
        monkeypatch.setattr(repacking, "LEAST_BYTES", least)
        assert loose_in(log) == found
    log.segments()[1].is_packed = True
    assert loose_in(log) == []


def test_a_repacked_segment_has_its_records_in_few_frames_and_no_markers(log: Log) -> None:
    for number in range(40):
        log.append_single(b"k%d" % number, b"v" * number, b"", 1000 + number, 6000)
        if number % 10 == 0:
            log.append_marker(5, is_commit=True, now_ms=6000)
    log.roll(6000)

    def records() -> list[Any]:
        rows, _ = log.read(BASE, log.end(), 10**6, 10**9)
        return [pair for row in rows for pair in zip(row.offsets, row.keys, row.values)]

    before = records()
    assert len(before) == 40
    (segment,) = loose(log, 10**6)
    repack(log, segment, CONFIG, HOST)
    assert records() == before
    packed = log.segments()[0]
    assert packed is not segment
    assert packed.is_packed
    assert packed.record_count == 40
    region, end = packed.region(), packed.tail[0]
    frames = list(scan.walk(region, f.HEADER_SIZE, BASE, end, packed.seed))
    assert len(frames) < 10
    assert not any(prefix.flags & f.CONTROL for _, prefix in frames)
    assert loose_in(log) == []
    log.check()
