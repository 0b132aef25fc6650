"""Frames are found one behind the other, and none where another offset is due."""

from __future__ import annotations

import pytest

from minilog import Broker
from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.files import ZEROS, FileRegion, MappedRegion
from minilog.storage.singles import Budget, read_run
from minilog.testing import SimulatedDisk
from minilog.topic import log_identity
from tests.frames import BASE, SEED, columns, flip, seal, single, step_of, view_of

HIGHEST = 2**63 - 1


def test_a_frame_that_does_not_follow_the_one_before_is_none() -> None:
    """Right where it stands, as what an older writer left there is."""
    disk = SimulatedDisk()
    with Broker(disk, maintenance_interval_ms=0) as broker:
        topic = broker.create_topic("t")
        for value in (b"one", b"two", b"three"):
            topic[0].append(value)
        identity = log_identity(topic.id, 0)
    file = disk.root_directory().child("t").child("0").open(f"{0:020d}.log")
    region, seed = FileRegion(file, file.size()), f.seed_of(identity, 0)
    found = list(scan.walk(region, f.HEADER_SIZE, 0, file.size(), seed))
    assert [prefix.offset for _, prefix in found] == [0, 1, 2]
    assert list(scan.walk(region, f.HEADER_SIZE, 1, file.size(), seed)) == []


def test_of_a_run_that_is_cut_in_its_first_frame_nothing_is_read() -> None:
    frame = f.encode_single(b"key", b"value", b"", 0, 1, 1, 0, 0, f.NOBODY)
    frame += f.checksum(frame, 5, f.HEADER_SIZE)
    budget = Budget(10, 1000, is_first=True)
    rows, size, _ = read_run(frame, f.HEADER_SIZE, 0, 5, budget)
    assert (rows.values, size) == ([b"value"], f.aligned(len(frame)))
    for length in range(len(frame)):
        rows, size, _ = read_run(frame[:length], f.HEADER_SIZE, 0, 5, budget)
        assert (len(rows), size) == (0, 0)


def test_a_prefix_is_one_only_where_its_frame_ends_before_the_end() -> None:
    view = view_of([single(BASE, b"v" * 7), single(BASE + 1, b"w" * 7)])
    size = f.SINGLE_OVERHEAD + 7
    for end in range(f.HEADER_SIZE, f.HEADER_SIZE + 2 * 48 + 1):
        found = scan.prefix_at(view.region, f.HEADER_SIZE, end)
        assert (found is not None) == (end >= f.HEADER_SIZE + size)
    region = view.region[:]
    assert scan.prefix_at(region[: f.HEADER_SIZE + 35], f.HEADER_SIZE, 10**6) is None


def test_a_prefix_of_bytes_that_were_read_needs_all_of_it() -> None:
    frame = single(BASE, b"v" * 7)
    for start in (0, 5, 64):
        data = bytes(start) + frame[: f.PREFIX_SIZE]
        assert scan.prefix_of(data, start, 1000) == scan.prefix_of(frame, 0, 1000) is not None
        assert scan.prefix_of(data[:-1], start, 1000) is None
        assert scan.prefix_of(data, start, 46) is None


@pytest.mark.parametrize("offset", [BASE, None])
def test_nothing_is_walked_behind_a_seal(offset: int | None) -> None:
    """As a frame is that an older writer has left there."""
    frames = [single(BASE, b"v"), seal(BASE + 1), single(BASE + 1, b"w")]
    view = view_of(frames)
    walked = list(scan.walk(view.region, f.HEADER_SIZE, offset, len(view.region), SEED))
    assert [prefix.offset for _, prefix in walked] == [BASE, BASE + 1]
    assert walked[-1][1].flags == f.SEAL


def test_a_frame_is_found_wherever_it_begins() -> None:
    """Also at the edges of what is looked through at once."""
    frame = single(BASE, b"v")
    step = step_of(frame)
    for start in (0, 64, *range(scan.CHUNK - 64, scan.CHUNK + 72, 8), 3 * scan.CHUNK - 8):
        region = MappedRegion(-1, start + step)
        region[start : start + len(frame) + 4] = frame + f.checksum(frame, SEED, start)
        for before in (0, 8, 1):
            if before <= start:
                found = scan.find_frame(region, before, len(region), SEED, BASE, BASE)
                assert found is not None, start
                assert (found[0], found[1].offset) == (start, BASE)
        assert scan.find_frame(region, start + 1, len(region), SEED, 0, HIGHEST) is None


def test_a_frame_is_found_only_whole_and_within_its_bounds() -> None:
    frames = [single(BASE, b"v"), columns(BASE + 1, [b"a", b"b"]), single(BASE + 3, b"w")]
    view = view_of(frames)
    end = len(view.region)
    last = end - step_of(frames[2])

    def found(lowest: int, highest: int, stop: int = end) -> int | None:
        frame = scan.find_frame(view.region, 0, stop, SEED, lowest, highest)
        return None if frame is None else frame[1].offset

    assert [found(lowest, HIGHEST) for lowest in range(BASE - 1, BASE + 5)] == [
        *[BASE, BASE, BASE + 1, BASE + 3, BASE + 3, None]
    ]
    assert [found(0, highest) for highest in (BASE - 1, BASE)] == [None, BASE]
    assert found(BASE + 3, BASE + 3, end - 8) is None
    flip(view, last + 40)
    assert found(BASE + 3, BASE + 3) is None


@pytest.mark.parametrize("size", [0, 1, 1000, len(ZEROS), len(ZEROS) + 1, 3 * len(ZEROS)])
def test_the_last_byte_that_is_used_is_found_however_far_it_is(size: int) -> None:
    region = MappedRegion(-1, 4 * len(ZEROS))
    end = len(region) - 8
    assert scan.last_used(region, 0, end) == 0
    assert scan.last_used(region, 24, end) == 24
    region[end : end + 1] = b"x"
    assert scan.last_used(region, 0, end) == 0
    region[size : size + 1] = b"x"
    assert scan.last_used(region, 0, end) == size + 1
    assert scan.last_used(region, size + 1, end) == size + 1
    assert scan.last_used(region, size, size) == size
