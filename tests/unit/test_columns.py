"""Batches by column: what is encoded is decoded, in every shape, and its parts add up."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilog import RecordTooLargeError
from minilog.storage import format as f
from minilog.storage.batch import EMPTY_BATCH, compressed, encode_batch, encode_frame
from minilog.storage.columns import ColumnsFrame
from minilog.storage.files import MappedRegion

POSITION = 64
BYTES = st.binary(max_size=12)
HEADER = st.tuples(st.text(st.characters(codec="utf-8"), max_size=5), st.none() | BYTES)
RECORDS = st.lists(
    st.tuples(
        st.none() | BYTES,
        st.none() | BYTES,
        st.lists(HEADER, max_size=3).map(tuple),
        st.integers(0, 2**63 - 1),
    ),
    min_size=1,
    max_size=60,
)


def frame_of(values: Any, keys: Any, headers: Any, timestamps: Any) -> tuple[ColumnsFrame, bytes]:
    batch = encode_batch(values, keys, headers, timestamps, 2**20)
    largest = max(timestamps) if timestamps else 1000
    context = f.context_of(1, 0, batch.flags)
    data = encode_frame(batch, 7, largest, context, seed=3, position=POSITION)
    assert len(data) == batch.frame_bytes
    region = MappedRegion(-1, POSITION + len(data))
    region[POSITION : POSITION + len(data)] = data
    prefix = f.Prefix._make(f.PREFIX.unpack_from(data))
    assert f.is_plausible(tuple(prefix), len(data))
    return ColumnsFrame(prefix, region, POSITION), data


def rows_of(frame: ColumnsFrame, start: int, stop: int) -> list[tuple[Any, ...]]:
    rows = frame.rows(start, stop)
    columns = (rows.offsets, rows.timestamps, rows.keys, rows.values, rows.headers)
    return list(zip(*columns, strict=True))


@given(RECORDS, st.booleans(), st.booleans(), st.booleans(), st.data())
def test_a_batch_is_decoded_as_it_was_encoded(
    records: Any, has_keys: bool, has_headers: bool, has_times: bool, data: st.DataObject
) -> None:
    keys = [key for key, _, _, _ in records] if has_keys else None
    values = [value for _, value, _, _ in records]
    headers = [pairs for _, _, pairs, _ in records] if has_headers else None
    times = [stamp for _, _, _, stamp in records] if has_times else None
    frame, encoded = frame_of(values, keys, headers, times)
    assert frame.is_sound
    assert frame.count == len(records)
    expected = [
        (
            7 + number,
            stamp if has_times else 1000,
            key if has_keys else None,
            value,
            pairs if has_headers else (),
        )
        for number, (key, value, pairs, stamp) in enumerate(records)
    ]
    assert rows_of(frame, 0, len(records)) == expected
    start = data.draw(st.integers(0, len(records)))
    stop = data.draw(st.integers(start, len(records)))
    assert rows_of(frame, start, stop) == expected[start:stop]
    rows = frame.rows(0, len(records)).cut(start, stop)
    assert list(rows.values) == values[start:stop]
    assert list(rows.keys) == [key for _, _, key, _, _ in expected][start:stop]
    assert encoded[-4:] == f.checksum(encoded[:-4], 3, POSITION)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 255, 256, 257, 1000])
@pytest.mark.parametrize("length", [0, 1, 7, 8, 100])
def test_values_of_one_length_are_decoded_whatever_their_number(count: int, length: int) -> None:
    values = [(b"%08d" % number * 13)[:length] for number in range(count)]
    frame, _ = frame_of(values, None, None, None)
    assert frame.rows(0, count).values == values
    assert frame.rows(count // 2, count).values == values[count // 2 :]
    assert frame.size_before(count) == count * length


@given(RECORDS)
def test_sizes_and_limits_agree(records: Any) -> None:
    keys = [key for key, _, _, _ in records]
    values = [value for _, value, _, _ in records]
    frame, _ = frame_of(values, keys, None, None)
    sizes = [len(key or b"") + len(value or b"") for key, value in zip(keys, values)]
    for row in range(len(records) + 1):
        assert frame.size_before(row) == sum(sizes[:row])
    for limit in (0, 1, 10, 100, 10**6):
        stop = frame.stop_within(0, limit, at_least=0)
        assert sum(sizes[:stop]) <= limit
        assert stop == len(records) or sum(sizes[: stop + 1]) > limit


def test_a_frame_whose_parts_do_not_add_up_is_not_sound() -> None:
    _, data = frame_of([b"a", b"bc", None], [b"k", None, b"kk"], [{"h": b"v"}, {}, {}], [1, 2, 3])
    for position in (0, *range(36, 40), *range(64, 80)):  # size, count and the four sizes
        changed = bytearray(data)
        changed[position] ^= 0x41
        region = MappedRegion(-1, POSITION + len(data))
        region[POSITION : POSITION + len(data)] = bytes(changed)
        prefix = f.Prefix._make(f.PREFIX.unpack_from(changed))
        assert not ColumnsFrame(prefix, region, POSITION).is_sound, position


def test_a_frame_has_every_byte_where_the_specification_says() -> None:
    batch = encode_batch([b"abc", b"de"], None, None, None, 100)
    origin, context = f.Origin(5, 6, 7), f.context_of(1, 128, batch.flags)
    data = encode_frame(batch, 9, 1000, context, 3, POSITION, origin, tombstones_since=50)
    head = struct.pack("<Iiqq", 116, 2, 9, 1000) + struct.pack("<BBHII", 0, 0, f.COLUMNS, 1, 16)
    head += struct.pack("<IqqiiIIIIq", 2, 5, 6, 7, -1, 0, 5, 0, 24, 51)
    body = struct.pack("<III", 0, 3, 5) + bytes(4) + b"abcde" + bytes(3)
    assert data[:-4] == head + body
    assert data[-4:] == f.checksum(data[:-4], 3, POSITION)


def test_what_a_cleaning_saw_and_who_wrote_it_are_decoded_as_they_were_encoded() -> None:
    batch = encode_batch([b"abc", b"de"], None, None, None, 100)
    for origin, since in ((f.NOBODY, -1), (f.Origin(5, 6, 7), 0), (f.Origin(transaction=8), -1)):
        flags = batch.flags | (f.TRANSACTIONAL if origin.transaction else 0)
        context = f.context_of(1, 0, flags)
        data = encode_frame(
            batch, 9, 1000, context, 3, POSITION, origin, extent=4, tombstones_since=since
        )
        frame = ColumnsFrame(
            f.Prefix._make(f.PREFIX.unpack_from(data)), bytes(POSITION) + data, POSITION
        )
        assert frame.is_sound
        assert (frame.origin, frame.tombstones_since) == (origin, since)
        assert (frame.first_offset, frame.count) == (9, 2)


@pytest.mark.parametrize("count", [7, 8, 9, 63, 64, 65, 128])
def test_nulls_are_decoded_whatever_the_number_of_records(count: int) -> None:
    values = [b"v" * (number % 3) if number % 5 else None for number in range(count)]
    keys = [b"k" if number % 2 else None for number in range(count)]
    frame, _ = frame_of(values, keys, None, None)
    assert frame.is_sound
    assert rows_of(frame, 0, count) == [
        (7 + number, 1000, keys[number], values[number], ()) for number in range(count)
    ]


def test_sizes_count_keys_values_and_headers() -> None:
    values, keys = [b"abc", b"de", b"f"], [b"k", b"kk", None]
    alike, alike_keys = [b"abc", b"def", b"ghi"], [b"kk", b"ll", b"mm"]
    headers = [{"a": b"b"}, {}, {"c": None}]  # 8 bytes each, and the name, and the value

    def sizes(*columns: Any) -> list[int]:
        frame, _ = frame_of(*columns, None)
        return [frame.size_before(row) for row in range(frame.count + 1)]

    assert sizes(values, None, None) == [0, 3, 5, 6]
    assert sizes(values, keys, None) == [0, 4, 8, 9]
    assert sizes(alike, alike_keys, None) == [0, 5, 10, 15]
    assert sizes(values, alike_keys, headers) == [0, 15, 19, 31]


def test_the_place_of_every_part_is_told_where_all_records_are_alike() -> None:
    frame, _ = frame_of([b"abc", b"def"], [b"kk", b"ll"], None, None)
    body = POSITION + 88
    assert frame.shape() == (7, 2, frame._region, 1000, body, 2, body + 8, 3)
    frame, _ = frame_of([b"abc", b"def"], None, None, None)
    assert frame.shape() == (7, 2, frame._region, 1000, 0, -1, body, 3)


@pytest.mark.parametrize(
    "columns",
    [
        ([b"abc", b"de"], None, None, None),
        ([b"abc", b"def"], [b"k", b"kk"], None, None),
        ([b"abc", b"def"], None, None, [1, 2]),
        ([b"abc", None], None, None, None),
        ([b"abc", b"def"], None, [{"h": b""}, {}], None),
    ],
    ids=["values", "keys", "timestamps", "nulls", "headers"],
)
def test_records_that_are_not_alike_have_no_shape_but_rows(columns: Any) -> None:
    frame, _ = frame_of(*columns)
    assert frame.shape() is None
    values, keys, headers, timestamps = columns
    is_plain = None not in values and headers is None
    for row in range(2):
        stamp = timestamps[row] if timestamps else 1000
        key = keys[row] if keys else None
        assert frame.plain_row(row) == ((stamp, key, values[row]) if is_plain else None)


def test_records_with_gaps_between_them_are_found_by_their_offsets() -> None:
    deltas = [0, 2, 3, 7, 8, 15]
    values = [b"%d" % delta for delta in deltas]
    batch = encode_batch(values, None, None, None, 100, deltas)
    context = f.context_of(1, 0, batch.flags)
    data = encode_frame(batch, 7, 1000, context, 3, POSITION, extent=20)
    prefix = f.Prefix._make(f.PREFIX.unpack_from(data))
    frame = ColumnsFrame(prefix, bytes(POSITION) + data, POSITION)
    assert frame.is_sound
    assert prefix.next_offset == 27
    assert rows_of(frame, 0, 6) == [
        (7 + delta, 1000, None, value, ()) for delta, value in zip(deltas, values)
    ]
    assert [frame.row_at(offset) for offset in range(5, 24)] == [
        *[0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 5, 5, 5, 5],
        6,
    ]
    assert frame.plain_row(0) is None
    assert frame.shape() is None


@pytest.mark.parametrize("compression", [0, 1])
def test_a_compressed_frame_that_says_it_has_no_body_is_not_sound(compression: int) -> None:
    context = f.context_of(1, 0, f.COLUMNS | f.FIXED_VALUES, compression)
    data = encode_frame(EMPTY_BATCH, 7, 1000, context, 3, POSITION, extent=1)
    prefix = f.Prefix._make(f.PREFIX.unpack_from(data))
    frame = ColumnsFrame(prefix, bytes(POSITION) + data, POSITION)
    assert frame.is_sound == (compression == 0)


def test_a_frame_that_ends_within_its_header_is_not_sound() -> None:
    _, data = frame_of([b"abc"], None, None, None)
    prefix = f.Prefix._make(f.PREFIX.unpack_from(data))
    assert ColumnsFrame(prefix, bytes(POSITION) + data, POSITION).is_sound
    assert not ColumnsFrame(prefix, bytes(POSITION) + data[:87], POSITION).is_sound


def test_two_records_are_compressed_and_one_is_not() -> None:
    value = b"v" * 1000
    one = encode_batch([value], None, None, None, 2000, compression="gzip")
    two = encode_batch([value, value], None, None, None, 2000, compression="gzip")
    assert (one.codec, one.body) == (0, (value,))
    assert (two.codec, two.body_bytes) == (1, 2000)
    assert two.frame_bytes < 1000
    assert compressed(two, "gzip") is two


def test_a_body_larger_than_a_reader_should_hold_is_not_compressed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("minilog.storage.batch.LARGEST_BODY", 2000)
    values = [b"v" * 1000, b"v" * 1000]
    assert encode_batch(values, None, None, None, 2000, compression="gzip").codec == 1
    assert encode_batch([*values, b""], None, None, None, 2000, compression="gzip").codec == 0


def test_a_batch_larger_than_a_frame_may_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilog.storage.batch.LARGEST_FRAME_BYTES", 2000)
    values = [b"v" * 1000, b"v" * 1000]
    assert encode_batch(values, None, None, None, 2000).body_bytes == 2000
    with pytest.raises(RecordTooLargeError, match="append it in parts") as caught:
        encode_batch([*values, b"v" * 1000], None, None, None, 2000)
    assert (caught.value.size, caught.value.limit) == (3000, 2000)


def test_a_record_beyond_the_limit_is_refused_with_its_number() -> None:
    with pytest.raises(RecordTooLargeError, match="record 1 ") as caught:
        encode_batch([b"", b"12345", b""], [b"", b"123456", b""], None, None, 10)
    assert (caught.value.size, caught.value.limit) == (11, 10)
    assert encode_batch([b"12345", b""], [b"", b"123456"], None, None, 10).record_count == 2


@pytest.mark.parametrize("given", ["text", 1, [b""]])
def test_what_is_not_bytes_is_a_type_error(given: object) -> None:
    with pytest.raises(TypeError, match="bytes"):
        encode_batch([b"ok", given], None, None, None, 100)


def test_views_of_wider_items_are_copied_as_bytes() -> None:
    wide = memoryview(b"12345678").cast("I")
    frame, _ = frame_of([wide, bytearray(b"ab"), b"c"], None, None, None)
    assert frame.rows(0, 3).values == [b"12345678", b"ab", b"c"]
