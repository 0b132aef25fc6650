"""The on-disk format: the worked example byte for byte; nothing proves itself by chance."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from minilog import CorruptionError, InvalidRecordError, UnsupportedFormatError
from minilog.storage import format as f

PATH = "/somewhere/file"
I64 = st.integers(-(2**63), 2**63 - 1)
OFFSET = st.integers(0, f.LARGEST_OFFSET)
U32 = st.integers(0, 2**32 - 1)
NAME = st.text(st.characters(codec="utf-8"), max_size=20)
HEADERS = st.lists(st.tuples(NAME, st.none() | st.binary(max_size=30)), max_size=5).map(tuple)


def whole(frame: bytes, seed: int = 0, position: int = 64) -> bytes:
    return frame + f.checksum(frame, seed, position)


# ---------------------------------------------------------------- the worked example


def test_the_worked_example_is_right_byte_for_byte() -> None:
    assert f.__doc__ is not None
    example = re.search(r"Worked example.*?:\n\n(.*?)\n\n", f.__doc__, re.DOTALL)
    assert example is not None
    written = bytes.fromhex("".join(example[1].split()))
    frame = whole(f.encode_single(b"k", b"hello", b"", 7, 1000, epoch=1, durable=64))
    assert frame.hex() == written.hex()
    prefix = f.Prefix._make(f.PREFIX.unpack_from(written))
    assert (prefix.size, prefix.extent) == (len(written), 1)
    assert (prefix.offset, prefix.timestamp) == (7, 1000)
    assert (prefix.codec, prefix.zero, prefix.flags, prefix.epoch) == (0, 0, 0, 1)
    assert prefix.durable_position == 64
    assert f.decode_single(prefix, written) == (b"k", b"hello", ())


def test_the_short_path_packs_the_same_bytes() -> None:
    for key in (None, b"k"):
        given = f.encode_single(key, b"hello", b"", 7, 1000, epoch=3, durable=80, flags=16)
        context = f.context_of(3, 80, 16)
        size = f.SINGLE_OVERHEAD + len(key or b"") + 5
        short = f.SHORT_PREFIX.pack(size, -1 if key is None else len(key), 7, 1000, context)
        assert given == short + (key or b"") + b"hello"


def test_sizes_are_as_the_specification_says() -> None:
    assert f.HEADER.size + f.CRC.size == f.HEADER_SIZE == 64
    assert f.PREFIX.size == f.SHORT_PREFIX.size == f.PREFIX_SIZE == 36
    assert f.EXTENSION.size == f.EXTENSION_SIZE == 24
    assert f.SEAL_SIZE == 56
    assert [f.aligned(n) for n in (0, 1, 7, 8, 9)] == [0, 8, 8, 8, 16]


# ---------------------------------------------------------------- what is encoded is decoded


@given(OFFSET, OFFSET, OFFSET, U32)
def test_a_header_is_decoded_as_it_was_encoded(
    base: int, durable: int, created: int, epoch: int
) -> None:
    header = f.SegmentHeader(base, durable, created, epoch)
    data = f.encode_header(header)
    assert len(data) == f.HEADER_SIZE
    assert data.startswith(b"minilog\0")
    assert f.decode_header(data, PATH) == header


def test_any_bit_of_a_header_that_changes_is_found() -> None:
    data = f.encode_header(f.SegmentHeader(7, 3, 1000, 2))
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptionError) as caught:
            f.decode_header(bytes(changed), PATH)
        assert caught.value.path == PATH


@pytest.mark.parametrize("size", [0, 1, 63])
def test_a_header_that_is_cut_short_is_found(size: int) -> None:
    data = f.encode_header(f.SegmentHeader(7, 3, 1000, 2))
    with pytest.raises(CorruptionError):
        f.decode_header(data[:size], PATH)


def test_a_header_of_a_later_version_is_not_damage() -> None:
    head = f.HEADER.pack(f.MAGIC, f.FORMAT + 1, 0, 0, 0, 0, 0, bytes(16))
    with pytest.raises(UnsupportedFormatError) as caught:
        f.decode_header(head + f.CRC.pack(crc32c(head)), PATH)
    assert (caught.value.found, caught.value.supported) == (f.FORMAT + 1, f.FORMAT)
    assert PATH in str(caught.value)


def test_a_header_has_every_byte_where_the_specification_says() -> None:
    header = f.SegmentHeader(7, 3, 1000, 2, cleaned_to=9, tombstones_since=5000)
    said = struct.pack("<8sIIqqqIqq", b"minilog\0", 2, 0, 7, 3, 1000, 2, 9, 5001)
    assert f.encode_header(header) == said + struct.pack("<I", crc32c(said))
    assert f.decode_header(f.encode_header(header), PATH) == header


def test_a_header_of_another_program_is_damage_though_its_checksum_is_right() -> None:
    head = f.HEADER.pack(b"minilog!", f.FORMAT, 0, 0, 0, 0, 0, bytes(16))
    with pytest.raises(CorruptionError):
        f.decode_header(head + f.CRC.pack(crc32c(head)), PATH)


@given(
    st.none() | st.binary(max_size=50), st.none() | st.binary(max_size=50), HEADERS, OFFSET, OFFSET
)
def test_a_single_is_decoded_as_it_was_encoded(
    key: bytes | None, value: bytes | None, headers: Any, offset: int, timestamp: int
) -> None:
    frame = f.encode_single(key, value, f.encode_headers(headers), offset, timestamp, 5, 8)
    frame = whole(frame, seed=99)
    fields = f.PREFIX.unpack_from(frame)
    prefix = f.Prefix._make(fields)
    assert f.is_plausible(fields, len(frame))
    assert not f.is_plausible(fields, len(frame) - 1)
    assert prefix.size == len(frame)
    assert (prefix.offset, prefix.next_offset, prefix.timestamp) == (offset, offset + 1, timestamp)
    assert f.decode_single(prefix, frame) == (key, value, headers)


def test_a_header_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidRecordError, match="UTF-8"):
        f.encode_headers((("\ud800", b""),))


@given(OFFSET, I64, I64, OFFSET)
def test_a_seal_is_decoded_as_it_was_encoded(
    end: int, largest: int, last_append: int, count: int
) -> None:
    seal = f.Seal(end, largest, last_append, count)
    frame = f.encode_seal(seal, epoch=4, durable=640, seed=17, position=800)
    fields = f.PREFIX.unpack_from(frame)
    prefix = f.Prefix._make(fields)
    assert len(frame) == f.SEAL_SIZE == prefix.size
    assert f.is_plausible(fields, len(frame))
    assert prefix.next_offset == end
    assert f.decode_seal(prefix, frame) == seal
    assert frame[-4:] == f.checksum(frame[:-4], 17, 800)


@pytest.mark.parametrize(
    "data",
    [
        b"\1",  # shorter than its lengths
        struct.pack("<Ii", 1, 2) + b"nvv!",  # longer
        struct.pack("<Ii", 1, 3) + b"nvv",  # the value's end is missing
        struct.pack("<Ii", 2, -1) + b"n",  # the name's
        struct.pack("<Ii", 1, -1) + b"\xff",  # no UTF-8
    ],
)
def test_headers_that_do_not_add_up_are_damage(data: bytes) -> None:
    whole_ones = f.encode_headers((("n", b"vv"), ("m", None), ("", b"")))
    assert f.decode_headers(whole_ones) == (("n", b"vv"), ("m", None), ("", b""))
    for damaged in (data, whole_ones + data):
        with pytest.raises(CorruptionError) as caught:
            f.decode_headers(damaged)
        assert caught.value.path == "a record's headers"


def test_a_record_says_who_wrote_it_and_of_which_transaction() -> None:
    origins = [
        f.NOBODY,
        f.Origin(5, 6, 7),
        f.Origin(transaction=8),
        f.Origin(5, 6, 7, 8),
    ]
    for origin in origins:
        frame = f.encode_single(b"k", b"v", b"", 1, 2, 3, 64, origin=origin)
        prefix = f.Prefix._make(f.PREFIX.unpack_from(frame))
        assert f.decode_origin(prefix, frame) == origin
        assert f.decode_single(prefix, whole(frame)) == (b"k", b"v", ())
        assert f.extension_size(prefix.flags) == len(frame) - f.PREFIX_SIZE - 2


# ---------------------------------------------------------------- what could be a frame

SMALLEST = f.SINGLE_OVERHEAD
EXTENDED_SMALLEST = SMALLEST + f.EXTENSION_SIZE
TRANSACTIONAL_SMALLEST = SMALLEST + f.LARGEST_EXTENSION
IN_TRANSACTION = f.EXTENDED | f.TRANSACTIONAL


def plausible(
    size: int, extent: int, flags: int = 0, *, offset: int = 7, codec: int = 0, zero: int = 0
) -> bool:
    """Say whether it is one in a room that is just large enough, and none in a smaller one."""
    fields = (size, extent, offset, 1000, codec, zero, flags, 1, 8)
    assert not f.is_plausible(fields, size - 1)
    return f.is_plausible(fields, size)


def test_a_prefix_that_could_be_one_is_plausible_up_to_its_limits() -> None:
    assert plausible(SMALLEST, -1)
    assert plausible(SMALLEST, 0)
    assert plausible(SMALLEST + 5, 5)
    assert plausible(SMALLEST, -1, offset=0)
    assert plausible(SMALLEST, -1, offset=f.LARGEST_OFFSET)
    assert plausible(EXTENDED_SMALLEST, -1, f.EXTENDED)
    assert plausible(EXTENDED_SMALLEST + 5, 5, f.EXTENDED)
    assert plausible(TRANSACTIONAL_SMALLEST, 0, IN_TRANSACTION)
    assert plausible(f.SEAL_SIZE, 0, f.SEAL)
    assert plausible(SMALLEST, 1, f.COLUMNS)
    assert plausible(SMALLEST, 2**31 - 1, f.COLUMNS)
    assert all(plausible(SMALLEST, 1, f.COLUMNS, codec=codec) for codec in range(f.CODECS + 1))


def test_a_prefix_beyond_any_limit_is_not_plausible() -> None:
    assert not plausible(SMALLEST - 1, -1)
    assert not plausible(SMALLEST - 1, 1, f.COLUMNS)
    assert not plausible(SMALLEST, -1, zero=1)
    assert not plausible(SMALLEST, -1, offset=-1)
    assert not plausible(SMALLEST, -1, offset=f.LARGEST_OFFSET + 1)
    assert not plausible(SMALLEST, -2)
    assert not plausible(SMALLEST + 5, 6)
    assert not plausible(EXTENDED_SMALLEST, -2, f.EXTENDED)
    assert not plausible(EXTENDED_SMALLEST + 5, 6, f.EXTENDED)
    assert not plausible(TRANSACTIONAL_SMALLEST, 1, IN_TRANSACTION)
    assert not plausible(f.SEAL_SIZE + 1, 0, f.SEAL)
    assert not plausible(f.SEAL_SIZE - 1, 0, f.SEAL)
    assert not plausible(f.SEAL_SIZE, 1, f.SEAL)
    assert not plausible(SMALLEST, 0, f.COLUMNS)
    assert not plausible(SMALLEST, -1, f.COLUMNS)
    assert not plausible(SMALLEST, 1, f.COLUMNS, codec=f.CODECS + 1)
    assert not plausible(SMALLEST, 0, codec=1)
    assert not plausible(f.SEAL_SIZE, 0, f.SEAL, codec=1)
    assert not plausible(f.SEAL_SIZE, 0, f.SEAL | f.COLUMNS, codec=1)


# ---------------------------------------------------------------- checksums and zeros


def test_a_checksum_depends_on_the_log_the_segment_and_the_place() -> None:
    frame = f.encode_single(b"k", b"hello", b"", 7, 1000, 1, 64)
    seeds = {f.seed_of(log, base) for log in (b"a", b"b", b"ab") for base in (0, 1, 2**32, 2**40)}
    assert len(seeds) == 12
    checksums = {
        f.checksum(frame, seed, position) for seed in seeds for position in range(64, 6400, 8)
    }
    assert len(checksums) == 12 * len(range(64, 6400, 8))


def test_any_bit_of_a_frame_that_changes_is_found() -> None:
    frame = whole(f.encode_single(b"k", b"hello", b"", 7, 1000, 1, 64), seed=5)
    for bit in range(8 * len(frame)):
        changed = bytearray(frame)
        changed[bit // 8] ^= 1 << bit % 8
        assert f.checksum(bytes(changed[:-4]), 5, 64) != bytes(changed[-4:])


@given(st.integers(0, 200), st.integers(0, 2**31))
def test_zeros_are_never_a_frame(size: int, room: int) -> None:
    data = bytes(f.PREFIX_SIZE + size)
    assert not f.is_plausible(f.PREFIX.unpack_from(data), room)


@given(st.binary(min_size=36, max_size=36), st.integers(0, 2**20))
def test_a_size_beyond_the_room_is_never_plausible(data: bytes, room: int) -> None:
    fields = f.PREFIX.unpack(data)
    assert not f.is_plausible(fields, room) or f.SINGLE_OVERHEAD <= fields[0] <= room


# ---------------------------------------------------------------- small documents


def test_a_document_is_decoded_as_it_was_encoded() -> None:
    data = f.encode_document({"name": "ü", "n": {"1": 2}, "list": [1, None]})
    content = f.decode_document(data, PATH)
    assert content == {"format": f.FORMAT, "name": "ü", "n": {"1": 2}, "list": [1, None]}
    assert json.loads(data)["format"] == f.FORMAT
    assert data.endswith(b"\n")


def test_a_document_cut_anywhere_is_refused() -> None:
    data = f.encode_document({"name": "t", "n": 12, "settings": {"a": 1}})
    assert f.decode_document(data, PATH)["n"] == 12
    for size in range(len(data)):
        with pytest.raises(CorruptionError):
            f.decode_document(data[:size], PATH)


def test_any_byte_of_a_document_that_changes_is_found() -> None:
    data = f.encode_document({"name": "t", "n": 12, "flag": True})
    for position in range(len(data)):
        for change in (0x01, 0x20, 0x80, 0xFF):
            changed = bytearray(data)
            changed[position] ^= change
            with pytest.raises((CorruptionError, UnsupportedFormatError)) as caught:
                f.decode_document(bytes(changed), PATH)
            assert PATH in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b": ", b":"), (b": ", b":  "), (b",", b", "), (b"\n}\n", b" \n}\n"), (b'"t"', b'"\\u0074"')],
)
def test_a_document_that_says_the_same_in_other_bytes_is_refused(old: bytes, new: bytes) -> None:
    data = f.encode_document({"name": "t", "n": [1, 2]})
    changed = data.replace(old, new)
    assert json.loads(changed) == json.loads(data)
    assert changed != data
    with pytest.raises(CorruptionError, match="checksum"):
        f.decode_document(changed, PATH)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'"x"', b"1", b"{}", b"\xff", b"[" * 99_999]
)
def test_what_is_no_document_is_damage(data: bytes) -> None:
    with pytest.raises(CorruptionError) as caught:
        f.decode_document(data, PATH)
    assert caught.value.path == PATH


def test_a_document_of_a_later_version_is_not_damage() -> None:
    data = json.dumps({"format": f.FORMAT + 1, "anything": 1}).encode()
    with pytest.raises(UnsupportedFormatError) as caught:
        f.decode_document(data, PATH)
    assert caught.value.found == f.FORMAT + 1
