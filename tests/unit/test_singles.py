"""Frames of one record in a row: as many are read as the budget has room for, all in one go."""

from __future__ import annotations

import pytest

from minilog.storage import format as f
from minilog.storage.singles import DOZENS, Budget, SingleRows, _read_alike, read_run
from tests.frames import SEED, in_place, single

POSITION, OFFSET = 640, 7
PLENTY = Budget(10_000, 10**9, True)


def frame_of(
    number: int,
    value: bytes | None,
    key: bytes | None = None,
    headers: bytes = b"",
    flags: int = 0,
    origin: f.Origin = f.NOBODY,
) -> bytes:
    return single(OFFSET + number, value, key, flags, origin, headers)


def chunk_of(frames: list[bytes]) -> bytes:
    return in_place(frames, POSITION)


def run(chunk: bytes, budget: Budget = PLENTY) -> tuple[SingleRows, int, int]:
    return read_run(chunk, POSITION, OFFSET, SEED, budget)


@pytest.mark.parametrize("size", range(9))
@pytest.mark.parametrize("count", [1, 2, DOZENS - 1, DOZENS, DOZENS + 1, 3 * DOZENS])
def test_records_of_one_size_are_read_in_one_go(size: int, count: int) -> None:
    values = [b"%08d" % number for number in range(count)]
    chunk = chunk_of([frame_of(number, value[:size]) for number, value in enumerate(values)])
    rows, read_bytes, record_bytes = run(chunk)
    assert rows.values == [value[:size] for value in values]
    assert rows.keys == [None] * count
    assert rows.timestamps == [1000 + OFFSET + number for number in range(count)]
    assert rows.offsets == range(OFFSET, OFFSET + count)
    assert (read_bytes, record_bytes) == (len(chunk), count * size)


@pytest.mark.parametrize("key", [None, b"", b"k", b"key"])
def test_records_with_keys_of_one_length_are_read_in_one_go(key: bytes | None) -> None:
    count = 2 * DOZENS + 3
    chunk = chunk_of([frame_of(number, b"%03d" % number, key) for number in range(count)])
    rows, read_bytes, record_bytes = run(chunk)
    assert rows.keys == [key] * count
    assert rows.values == [b"%03d" % number for number in range(count)]
    assert (read_bytes, record_bytes) == (len(chunk), count * (3 + len(key or b"")))


@pytest.mark.parametrize("key", [None, b"", b"k"])
@pytest.mark.parametrize("size", [1, 3, 4, 8])
def test_what_is_alike_is_decoded_by_dozens(size: int, key: bytes | None) -> None:
    """All of it, whatever its size is a multiple of: not one by one, which takes three times."""
    for count in (DOZENS - 1, DOZENS, 2 * DOZENS + 3):
        frames = [frame_of(number, (b"%08d" % number)[-size:], key) for number in range(count)]
        whole = count // DOZENS * DOZENS
        chunk = chunk_of(frames)
        timestamps, keys, values, read_bytes = _read_alike(chunk, POSITION, OFFSET, SEED, PLENTY)
        assert values == [(b"%08d" % number)[-size:] for number in range(whole)]
        assert keys == [key] * whole
        assert timestamps == [1000 + OFFSET + number for number in range(whole)]
        assert read_bytes == len(chunk_of(frames[:whole]))


@pytest.mark.parametrize("at", [0, 5, DOZENS, 2 * DOZENS - 1])
def test_a_null_among_records_of_its_size_is_a_null(at: int) -> None:
    values = [b"" if number != at else None for number in range(2 * DOZENS)]
    rows, _, _ = run(
        chunk_of([frame_of(number, value, b"k") for number, value in enumerate(values)])
    )
    assert rows.values == values
    assert rows.keys == [b"k"] * len(values)


@pytest.mark.parametrize("at", [5, DOZENS, 2 * DOZENS - 1])
def test_a_key_of_another_length_among_records_of_one_size_is_that_key(at: int) -> None:
    pairs = [(b"k", b"vvv") if number != at else (b"kk", b"vv") for number in range(2 * DOZENS)]
    rows, _, _ = run(chunk_of([frame_of(number, v, k) for number, (k, v) in enumerate(pairs)]))
    assert list(zip(rows.keys, rows.values)) == pairs


def test_what_begins_with_no_frame_has_no_records() -> None:
    for chunk in (
        b"",
        bytes(35),
        bytes(64),
        bytes(64 * DOZENS),
        chunk_of([frame_of(0, b"v")])[:20],
    ):
        rows, read_bytes, record_bytes = run(chunk)
        assert (len(rows), read_bytes, record_bytes) == (0, 0, 0)


@pytest.mark.parametrize("extent", [-2, 5, 2**31 - 1])
def test_a_key_longer_than_its_frame_is_no_error_of_python(extent: int) -> None:
    """Its checksum is right: who wrote it was not minilog."""
    frames = [bytearray(frame_of(number, b"v")) for number in range(DOZENS)]
    for frame in frames:
        frame[4:8] = extent.to_bytes(4, "little", signed=True)
    rows, _, _ = run(chunk_of([bytes(frame) for frame in frames]))
    assert rows.offsets == range(OFFSET, OFFSET + DOZENS)


@pytest.mark.parametrize("others", [0, 1, DOZENS])
def test_records_of_every_kind_are_read_in_one_go(others: int) -> None:
    """Behind none, one and so many as are decoded at once."""
    pairs = (("h", b"v"),)
    headers = f.encode_headers(pairs)
    frames = [frame_of(number, b"v") for number in range(others)]
    for key, value, own in (
        (b"", b"", b""),
        (None, None, b""),
        (b"k", b"v", headers),
        (b"k", None, headers),
        (None, b"", b""),
    ):
        frames.append(frame_of(len(frames), value, key, own))
    chunk = chunk_of(frames)
    rows, read_bytes, record_bytes = run(chunk)
    assert rows.keys[others:] == [b"", None, b"k", b"k", None]
    assert rows.values[others:] == [b"", None, b"v", None, b""]
    assert list(rows.headers) == [()] * (others + 2) + [pairs, pairs, ()]
    assert read_bytes == len(chunk)
    assert record_bytes == others + 3 + 2 * (f.EXTENSION_SIZE + len(headers))


@pytest.mark.parametrize("count", [5, DOZENS, 2 * DOZENS + 5])
@pytest.mark.parametrize("wanted", [0, 1, 2, 3, DOZENS - 1, DOZENS, DOZENS + 1])
def test_no_more_bytes_than_the_budget_has_are_read_but_for_a_first_record(
    count: int, wanted: int
) -> None:
    chunk = chunk_of([frame_of(number, b"%010d" % number) for number in range(count)])
    for spare in (0, 9):
        budget = Budget(10_000, 10 * wanted + spare, True)
        rows, read_bytes, _ = run(chunk, budget)
        assert len(rows) == min(max(wanted, 1), count)
        assert read_bytes == len(rows) * 56
        rows, read_bytes, _ = run(chunk, budget._replace(is_first=False))
        assert len(rows) == min(wanted, count)
        assert read_bytes == len(rows) * 56
    assert len(run(chunk, Budget(wanted, 10**9, True))[0]) == min(wanted, count)


@pytest.mark.parametrize("at", [0, 1, DOZENS - 1, DOZENS, DOZENS + 1])
@pytest.mark.parametrize("change", ["byte", "offset", "kind", "cut"])
def test_it_stops_before_what_is_no_record_of_its_place(at: int, change: str) -> None:
    frames = [frame_of(number, b"%010d" % number) for number in range(DOZENS + 3)]
    if change == "offset":
        frames[at] = frame_of(at + 1, b"%010d" % at)
    elif change == "kind":
        frames[at] = frame_of(at, b"%010d" % at, None, b"", f.CONTROL)
    chunk = chunk_of(frames)
    if change == "byte":
        place = 56 * at + 40
        chunk = chunk[:place] + bytes([chunk[place] ^ 1]) + chunk[place + 1 :]
    elif change == "cut":
        chunk = chunk[: 56 * at + 49]  # of its 50 bytes
    rows, read_bytes, _ = run(chunk)
    assert rows.values == [b"%010d" % number for number in range(at)]
    assert read_bytes == 56 * at
    assert rows.offsets == range(OFFSET, OFFSET + at)


def test_records_of_a_transaction_that_is_hidden_are_not_read() -> None:
    def chunk_with(origin: f.Origin) -> bytes:
        ours = frame_of(1, b"v", b"k", b"", 0, origin)
        return chunk_of([frame_of(0, b"v"), ours, frame_of(2, b"v")])

    hidden = Budget(100, 10**9, True, lambda transaction: transaction == 5)
    for transaction, count in ((5, 1), (6, 3)):
        assert len(run(chunk_with(f.Origin(transaction=transaction)), hidden)[0]) == count
    assert len(run(chunk_with(f.Origin(transaction=5)))[0]) == 3
    assert len(run(chunk_with(f.Origin(5, 6, 7)), hidden)[0]) == 3


def test_a_part_of_a_run_has_every_column_of_it() -> None:
    headers = f.encode_headers((("h", b"v"),))
    frames = [frame_of(number, b"v%d" % number, b"k", headers) for number in range(5)]
    rows = run(chunk_of(frames))[0].cut(1, 3)
    assert (len(rows), rows.offsets) == (2, range(OFFSET + 1, OFFSET + 3))
    assert (rows.keys, rows.values) == ([b"k", b"k"], [b"v1", b"v2"])
    assert rows.timestamps == [1008, 1009]
    assert list(rows.headers) == [(("h", b"v"),)] * 2
    plain = run(chunk_of([frame_of(0, b"v"), frame_of(1, b"w")]))[0].cut(1, 2)
    assert list(plain.headers) == [()]
