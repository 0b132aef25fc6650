"""Reading a segment: each record from its own place, in few looks, and none beyond the end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from minilog import CorruptionError
from minilog.storage import format as f
from minilog.storage import reading, scan
from minilog.storage.reading import Unpacked, count_from, offset_at, read
from minilog.storage.singles import DOZENS, Budget
from minilog.storage.view import Tail, View
from tests.frames import BASE, columns, flip, single, step_of, stride_of, view_of

PLENTY = Budget(10_000, 10**9, True)
ONE = Budget(1, 10**9, True)


class Looks:
    """How often a prefix was looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._prefix_at = scan.prefix_at
        monkeypatch.setattr(scan, "prefix_at", self._look)

    def _look(self, *arguments: Any) -> f.Prefix | None:
        self.count += 1
        return self._prefix_at(*arguments)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


@pytest.fixture
def no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may look at every frame from the start on, as past damage."""

    def past_damage(*arguments: object) -> None:
        raise AssertionError("all before it was looked at")

    monkeypatch.setattr(reading, "_locate_past_damage", past_damage)


def end_of(view: View, next_offset: int) -> Tail:
    return len(view.region), next_offset


def read_values(view: View, offset: int, end: Tail, budget: Budget = PLENTY) -> list[bytes | None]:
    return [value for rows in read(view, offset, end, budget).rows for value in rows.values]


MIXED = [  # how many records each frame has, and so which kind it is of
    *[1, 1, 3, 1, 5, 1, 1, 1, 1, 2, 1, 1, 4, 1, 1, 1, 1, 1, 1, 1, 7, 3, 1],
]


def mixed() -> tuple[list[bytes], list[bytes]]:
    """Return frames of every size and kind, and the values of their records."""
    frames, values = [], []
    for number, count in enumerate(MIXED):
        own = [b"%d" % (number * 10 + row) * (number % 7) for row in range(count)]
        offset = BASE + len(values)
        frames.append(single(offset, own[0]) if count == 1 else columns(offset, own))
        values += own
    return frames, values


# ---------------------------------------------------------------- where records are


@pytest.mark.usefixtures("no_damage")
def test_every_record_among_all_kinds_is_found_in_its_place() -> None:
    frames, values = mixed()
    view = view_of(frames)
    end = end_of(view, BASE + len(values))
    for number, value in enumerate(values):
        assert read_values(view, BASE + number, end, ONE) == [value]
        assert read_values(view, BASE + number, end) == values[number:]
        assert count_from(view, BASE + number, end) == len(values) - number


@pytest.mark.usefixtures("no_damage")
def test_a_record_is_found_from_the_index_entry_before_it(looks: Looks) -> None:
    frames = [single(BASE + number, b"v" * (number * 7 % 50)) for number in range(200)]
    view = view_of(frames)
    position = f.HEADER_SIZE
    for number, frame in enumerate(frames):
        if number and number % 10 == 0:
            view.entries.append(number, position, 0)
        position += step_of(frame)
    end = end_of(view, BASE + 200)
    for number in range(199, -1, -1):
        looks.count = 0
        assert read_values(view, BASE + number, end, ONE) == [b"v" * (number * 7 % 50)]
        assert looks.count <= 12 + 2  # as many as to the entry before, and two guesses


@pytest.mark.usefixtures("no_damage")
def test_among_records_of_one_size_one_is_found_in_few_looks(looks: Looks) -> None:
    frames = [single(BASE + number, b"%05d" % number) for number in range(500)]
    view = view_of(frames, room=4096)
    end = (f.HEADER_SIZE + 500 * step_of(frames[0]), BASE + 500)
    for number in (300, 0, 499, 1, 2, 301):
        looks.count = 0
        assert read_values(view, BASE + number, end, ONE) == [b"%05d" % number]
        assert looks.count <= 3
    step = step_of(frames[0])
    assert view.stride is not None
    assert view.stride[:4] == (f.HEADER_SIZE, BASE, step, len(frames[0]) + f.CRC_SIZE)


@pytest.mark.usefixtures("no_damage")
def test_a_guess_that_leads_elsewhere_costs_no_record() -> None:
    frames = [single(BASE + number, b"v" * number) for number in range(60)]
    view = view_of(frames)
    end = end_of(view, BASE + 60)
    for stride in (
        stride_of(f.HEADER_SIZE, BASE, 40, 40),
        stride_of(f.HEADER_SIZE, BASE, 48, 48),
        stride_of(f.HEADER_SIZE, BASE + 59, 40, 40),  # before the first, all of them
        stride_of(f.HEADER_SIZE, BASE, 10**6, 40),  # behind the last
    ):
        for number in (0, 3, 30, 59):
            view.stride = stride
            assert read_values(view, BASE + number, end, ONE) == [b"v" * number]


def test_an_index_entry_that_leads_elsewhere_costs_no_record() -> None:
    frames, values = mixed()
    end_position = f.HEADER_SIZE + sum(map(step_of, frames))
    for entry in (
        (3, f.HEADER_SIZE + 8),  # in the middle of a frame
        (3, f.HEADER_SIZE + step_of(frames[0])),  # a frame of another offset
        (3, end_position),
        (3, end_position + 8),
    ):
        view = view_of(frames, room=64)
        view.entries.append(*entry, 0)
        end = (end_position, BASE + len(values))
        for number, value in enumerate(values):
            assert read_values(view, BASE + number, end, ONE) == [value]


# ---------------------------------------------------------------- how far


@pytest.mark.parametrize("count", [1, 5, DOZENS - 1, DOZENS, DOZENS + 1, 2 * DOZENS])
def test_nothing_behind_the_end_is_read(count: int) -> None:
    """Which may be before the last record: where an open transaction begins."""
    frames = [single(BASE + number, b"%05d" % number) for number in range(2 * DOZENS + 5)]
    view = view_of(frames)
    end = (f.HEADER_SIZE + count * step_of(frames[0]), BASE + count)
    for start in range(count):
        found = read_values(view, BASE + start, end)
        assert found == [b"%05d" % number for number in range(start, count)]
    assert count_from(view, BASE, end) == count


@pytest.mark.parametrize("wanted", range(1, 12))
def test_a_read_says_where_to_read_on(wanted: int) -> None:
    frames, values = mixed()
    view = view_of(frames)
    end = end_of(view, BASE + len(values))
    offset, found = BASE, []
    while offset < end[1]:
        rows, _, following = read(view, offset, end, Budget(wanted, 10**9, True))
        part = [value for row in rows for value in row.values]
        assert len(part) == min(wanted, end[1] - offset)
        assert following == offset + len(part)
        found += part
        offset = following
    assert found == values


@pytest.mark.parametrize("size", range(0, 60, 3))
def test_a_read_keeps_to_its_bytes_over_frames_of_all_kinds(size: int) -> None:
    frames, values = mixed()
    view = view_of(frames)
    end = end_of(view, BASE + len(values))
    for start in range(len(values)):
        for is_first in (True, False):
            expected: list[bytes] = []
            for value in values[start:]:
                fits = sum(map(len, expected)) + len(value) <= size
                if not fits and not (is_first and not expected):
                    break
                expected.append(value)
            budget = Budget(10_000, size, is_first)
            if expected:
                assert read_values(view, BASE + start, end, budget) == expected


# ---------------------------------------------------------------- large frames


def test_a_large_frame_is_checked_whenever_all_of_it_is_read() -> None:
    values = [b"%09d" % number for number in range(1000)]
    view = view_of([columns(BASE, values)])
    end = end_of(view, BASE + 1000)
    assert read_values(view, BASE + 5, end, ONE) == [values[5]]
    assert read_values(view, BASE, end) == values
    flip(view, f.HEADER_SIZE + 5000)
    with pytest.raises(CorruptionError):
        read(view, BASE, end, PLENTY)


def test_only_large_frames_that_are_read_in_part_are_remembered() -> None:
    small = columns(BASE, [b"%09d" % number for number in range(100)])
    large = columns(BASE + 100, [b"%09d" % number for number in range(1000)])
    place = f.HEADER_SIZE + step_of(small)
    view = view_of([small, large])
    end = end_of(view, BASE + 1100)
    read(view, BASE + 5, end, ONE)
    read(view, BASE + 100, end, PLENTY)
    assert (view.remembered.at(f.HEADER_SIZE), view.remembered.at(place)) == (None, None)
    read(view, BASE + 105, end, ONE)
    assert view.remembered.at(f.HEADER_SIZE) is None
    assert view.remembered.at(place) is not None


def test_a_large_frame_that_has_changed_is_not_remembered_as_checked() -> None:
    view = view_of([columns(BASE, [b"%09d" % number for number in range(1000)])])
    flip(view, f.HEADER_SIZE + 5000)
    for _ in range(2):
        with pytest.raises(CorruptionError):
            read(view, BASE, end_of(view, BASE + 1000), ONE)


def test_what_was_decompressed_last_is_kept_up_to_a_number_and_a_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "UNPACKED_FRAMES", 3)
    monkeypatch.setattr(reading, "UNPACKED_BYTES", 100)
    sizes = (10, 10, 10, 10, 80, 1, 500, 100, 1)
    frames = [SimpleNamespace(number=n, body_bytes=size) for n, size in enumerate(sizes)]
    unpacked = Unpacked()
    kept = []
    for frame in [*frames[:2], frames[1], frames[0], *frames[2:]]:
        unpacked.keep(frame)  # type: ignore[arg-type]
        kept.append([each.number for each in unpacked._frames])  # type: ignore[attr-defined]
    assert kept[:6] == [[0], [0, 1], [0, 1], [1, 0], [1, 0, 2], [0, 2, 3]]
    assert kept[6:] == [[2, 3, 4], [3, 4, 5], [6], [7], [8]]


# ---------------------------------------------------------------- by time


def test_a_record_is_found_by_its_time_among_all_kinds() -> None:
    frames, values = mixed()
    view = view_of(frames)
    end = end_of(view, BASE + len(values))
    first = BASE
    expected = {}
    for count in MIXED:  # all records of a frame have its time, that of its first offset
        expected[1000 + first] = first
        first += count
    for stamp, offset in expected.items():
        assert offset_at(view, stamp, BASE, end, None) == offset
        assert offset_at(view, stamp, offset + 1, end, None) in (offset + 1, None)
    assert offset_at(view, 0, BASE, end, None) == BASE
    assert offset_at(view, max(expected) + 1, BASE, end, None) is None
