"""A look at a segment: one record by its offset, by each short way, and none that is not there."""

from __future__ import annotations

import pytest

from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.columns import Shape
from minilog.storage.files import MappedRegion
from minilog.storage.index import Index
from minilog.storage.memory import MemoryDirectory
from minilog.storage.view import HOPS_BYTES, Remembered, Stride, View
from tests.frames import (
    BASE,
    SEED,
    columns,
    flip,
    frame_at,
    seal,
    single,
    step_of,
    stride_of,
    view_of,
)

# ---------------------------------------------------------------- hopping from an index entry


def test_a_record_near_the_start_is_found_whatever_sizes_are_before_it() -> None:
    pairs = [(None if n % 3 else b"k" * (n % 4), b"v" * (n % 11)) for n in range(50)]
    view = view_of([single(BASE + n, value, key) for n, (key, value) in enumerate(pairs)])
    for number, (key, value) in enumerate(pairs):
        assert view.record_at(BASE + number) == (1000 + BASE + number, key, value)
    assert view.record_at(BASE + 50) is None
    assert view.record_at(BASE - 1) is None


def test_a_record_is_found_from_the_index_entry_before_it() -> None:
    frames = [single(BASE + number, b"v" * 100) for number in range(300)]
    view = view_of(frames)
    assert step_of(frames[0]) * 300 > 4 * HOPS_BYTES
    last = HOPS_BYTES // step_of(frames[0]) - 1
    assert view.record_at(BASE + last) is not None
    assert view.record_at(BASE + 200) is None  # too far
    view.entries.append(190, f.HEADER_SIZE + 190 * step_of(frames[0]), 0)
    assert view.record_at(BASE + 200) == (1000 + BASE + 200, None, b"v" * 100)
    assert view.record_at(BASE + 190) == (1000 + BASE + 190, None, b"v" * 100)
    assert view.record_at(BASE + 299) is None


def test_a_record_at_the_very_end_of_the_segment_is_found() -> None:
    view = view_of([single(BASE, b"")])
    assert len(view.region) == f.HEADER_SIZE + f.SINGLE_OVERHEAD
    assert view.record_at(BASE) == (1000 + BASE, None, b"")
    assert view_of([]).record_at(BASE) is None
    assert view_of([], room=64).record_at(BASE) is None


@pytest.mark.parametrize("change", [0, 4, 8, 16, 36, -1])
def test_a_record_whose_bytes_have_changed_is_not_found(change: int) -> None:
    frames = [single(BASE + number, b"value") for number in range(3)]
    view = view_of(frames)
    place = f.HEADER_SIZE + step_of(frames[0]) + change % (len(frames[0]) + f.CRC_SIZE)
    flip(view, place)
    assert view.record_at(BASE) is not None
    assert view.record_at(BASE + 1) is None


@pytest.mark.parametrize(
    "other",
    [
        columns(BASE + 1, [b"a", b"bc"]),
        single(BASE + 1, None),
        single(BASE + 1, b"v", None, f.APPEND_TIME),
        single(BASE + 2, b"v"),
        seal(BASE + 1),
    ],
    ids=["columns", "null", "append time", "another offset", "seal"],
)
def test_what_is_not_of_the_commonest_kind_is_left_to_who_looks_at_all(other: bytes) -> None:
    view = view_of([single(BASE, b"one"), other], room=128)
    assert view.record_at(BASE) == (1000 + BASE, None, b"one")
    assert view.record_at(BASE + 1) is None
    assert view.record_at(BASE + 2) is None


def test_reserve_is_no_record_where_offsets_begin_at_0() -> None:
    region = MappedRegion(-1, 4096)
    view = View(region, Index(MemoryDirectory(), "i", SEED), 0, SEED, "a segment")
    assert view.record_at(0) is None
    assert view.record_at(9) is None


def test_frames_that_do_not_follow_one_another_are_not_hopped_over() -> None:
    view = view_of([single(BASE, b"0"), single(BASE + 7, b"7"), single(BASE + 2, b"2")])
    assert view.record_at(BASE) is not None
    assert view.record_at(BASE + 2) is None
    view.stride = stride_of(f.HEADER_SIZE, BASE, 48, 41)
    assert view.record_at(BASE + 1) is None  # there is a whole frame, of another
    assert view.record_at(BASE + 2) == (1000 + BASE + 2, None, b"2")


# ---------------------------------------------------------------- where records of one size are


def test_records_of_one_size_are_found_where_they_must_be() -> None:
    frames = [single(BASE + number, b"%03d" % number * 30, b"k") for number in range(500)]
    view = view_of(frames, room=100)
    step = step_of(frames[0])
    assert view.record_at(BASE + 400) is None
    view.stride = stride_of(f.HEADER_SIZE + 7 * step, BASE + 7, step, len(frames[0]) + f.CRC_SIZE)
    for number in range(500):
        found = view.record_at(BASE + number)
        assert found == (1000 + BASE + number, b"k", b"%03d" % number * 30)
    assert view.record_at(BASE + 500) is None
    assert view.record_at(BASE - 1) is None


@pytest.mark.parametrize("key", [None, b"", b"k" * 8])
def test_records_as_the_first_of_their_size_are_taken_to_pieces_as_it_was(
    key: bytes | None,
) -> None:
    """Also where one is as large, but its key is not, or says something else of itself."""
    length = 20 - len(key or b"")
    others = [(b"kk", b"v" * 18), (None, b"v" * 20), (b"", b"v" * 20)]
    frames = [single(BASE, b"0" * length, key), single(BASE + 1, b"1" * length, key)]
    frames += [single(BASE + 2 + n, value, other) for n, (other, value) in enumerate(others)]
    frames.append(single(BASE + 5, b"5" * length, key, f.APPEND_TIME))
    view = view_of(frames)
    assert {step_of(frame) for frame in frames} == {step_of(frames[0])}
    first = scan.prefix_at(view.region, f.HEADER_SIZE, len(view.region))
    assert first is not None
    view.stride = Stride.of(first, f.HEADER_SIZE)
    for number in (0, 1):
        found = view.record_at(BASE + number)
        assert found == (1000 + BASE + number, key, b"%d" % number * length)
    for number, (other, value) in enumerate(others, 2):
        assert view.record_at(BASE + number) == (1000 + BASE + number, other, value)
    assert view.record_at(BASE + 5) is None  # who looks at all sees that its time is the log's


def test_a_guess_that_is_wrong_costs_nothing() -> None:
    view = view_of([single(BASE + number, b"v" * number) for number in range(9)])
    view.stride = stride_of(f.HEADER_SIZE, BASE, 40, 40)  # as the first is
    for number in range(9):
        assert view.record_at(BASE + number) == (1000 + BASE + number, None, b"v" * number)


# ---------------------------------------------------------------- large frames that were checked


@pytest.mark.parametrize("keys", [None, [b"k1", b"k2", b"k3"], [b"", b"", b""]])
@pytest.mark.parametrize("values", [[b"abc", b"def", b"ghi"], [b"a", b"bc", b""]])
def test_records_of_remembered_frames_are_found(
    values: list[bytes], keys: list[bytes] | None
) -> None:
    frames = [columns(BASE + 3 * number, values, keys) for number in range(4)]
    view = view_of(frames)
    places = [f.HEADER_SIZE + number * step_of(frames[0]) for number in range(4)]
    assert view.record_at(BASE + 4) is None
    for number in (2, 0, 1):  # the last of the four is not remembered
        view.remembered.add(places[number], frame_at(view, places[number]))
    for offset in range(9):
        timestamp = 1000 + BASE + offset // 3 * 3
        key = keys[offset % 3] if keys else None
        assert view.record_at(BASE + offset) == (timestamp, key, values[offset % 3])
    assert view.record_at(BASE + 9) is None
    assert view.record_at(BASE - 1) is None


def test_a_frame_is_remembered_by_its_place_and_once() -> None:
    frames = [columns(BASE + 3 * number, [b"abc", b"def", b"ghi"]) for number in range(3)]
    view = view_of(frames)
    places = [f.HEADER_SIZE + number * step_of(frames[0]) for number in range(3)]
    remembered = view.remembered
    first = frame_at(view, places[0])
    remembered.add(places[1], frame_at(view, places[1]))
    remembered.add(places[0], first)
    before = remembered.in_order
    remembered.add(places[0], first)
    assert remembered.in_order is before
    assert remembered.at(places[0]) is first
    assert remembered.at(places[2]) is None
    remembered.add(places[2], frame_at(view, places[2]))
    for place in places:
        again = frame_at(view, place)
        remembered.add(place, again)  # as another thread has made it
        assert remembered.at(place) is again
        assert remembered.in_order[0] == (BASE, BASE + 3, BASE + 6)
        assert [shape.first_offset for shape in remembered.in_order[1]] == [
            *range(BASE, BASE + 9, 3)
        ]
        assert {type(shape) for shape in remembered.in_order[1]} == {Shape}


def test_frames_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilog.storage.view.REMEMBERED_FRAMES", 2)
    frames = [columns(BASE + 3 * number, [b"abc", b"def", b"ghi"]) for number in range(3)]
    view = view_of(frames)
    places = [f.HEADER_SIZE + number * step_of(frames[0]) for number in range(3)]
    remembered = Remembered()
    for place in places[:2]:
        remembered.add(place, frame_at(view, place))
    assert remembered.in_order[0] == (BASE, BASE + 3)
    remembered.add(places[2], frame_at(view, places[2]))
    assert [remembered.at(place) is None for place in places] == [True, True, False]
    assert remembered.in_order[0] == (BASE + 6,)
