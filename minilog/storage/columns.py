"""Batches of many records, by column, in Arrow's shape: what they are, and decoding them.

A columns frame goes on after its prefix (see ``format.py``) with 52 bytes:

    36  count of records                u32    64  keys: length of each, or of all    u32
    40  producer id, -1 = none          i64    68  values: likewise                   u32
    48  base sequence, -1 = none        i64    72  headers: bytes of all              u32
    56  producer epoch, -1 = none       i32    76  body: bytes before compression     u32
    60  leader epoch, -1 = none         i32    80  transactional: the transaction; else
                                                   when its tombstones were first
                                                   cleaned, ms + 1, 0 = not yet       i64

and from byte 88 with the columns that its flags name, each starting at a multiple of 8:

    key validity     bitmap, 1 = not null, least bit first        flag 512
    key offsets      u32[count + 1] into the keys                 flag 128 without 256
    value validity   bitmap                                       flag 2048
    value offsets    u32[count + 1] into the values               no flag 1024
    timestamps       i64[count]; without it all have the prefix's flag 4096
    offset deltas    u32[count]; without it they are 0, 1, 2 ...  flag 16384
    header offsets   u32[count + 1] into the headers              flag 8192
    keys, values, headers: each joined

With a codec in the prefix, all from byte 88 to the checksum is those columns compressed; what is
decompressed must be as long as the header says and the columns add up to, which is known before.

Where all keys (or values) have one length there are no offsets: a quarter less to write, to check
and to decode for the commonest of logs, and Arrow has a type for it too.

This module refuses to know where a frame comes from; it is handed checked bytes or a region.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise, repeat
from struct import Struct
from typing import NamedTuple
from weakref import ref

from minilog.records import Headers
from minilog.storage import format as f
from minilog.storage.codecs import LARGEST_BODY, decompress
from minilog.storage.files import Region

HEADER = Struct("<IqqiiIIIIq")
BODY = f.PREFIX_SIZE + HEADER.size
UNUSUAL = f.DELTAS | f.HEADERS | f.KEY_VALIDITY | f.VALUE_VALIDITY | f.TRANSACTIONAL | f.CONTROL
PAIR = Struct("<II")
FEW = 32  # so many values are faster sliced than unpacked
UNPACK_AT_ONCE = 256  # a struct of that many strings: 16 ns a value, against 80 for slices


class FixedBytes:
    """Byte strings of one length."""

    __slots__ = ("_blob", "_count", "_length")

    def __init__(self, blob: bytes, length: int, count: int) -> None:
        self._blob = blob
        self._length = length
        self._count = count

    def cut(self, start: int, stop: int) -> FixedBytes:
        """Return the strings from ``start`` to ``stop``."""
        length = self._length
        return FixedBytes(self._blob[start * length : stop * length], length, stop - start)

    def decode(self) -> list[bytes | None]:
        """Return the strings."""
        length, blob = self._length, self._blob
        if not length:
            return [b""] * self._count
        if self._count <= FEW:
            return [blob[start : start + length] for start in range(0, len(blob), length)]
        decoded: list[bytes | None] = []
        whole = self._count - self._count % UNPACK_AT_ONCE
        many = _strings(length, UNPACK_AT_ONCE)
        for start in range(0, whole * length, UNPACK_AT_ONCE * length):
            decoded += many(blob, start)
        rest = range(whole * length, len(blob), length)
        decoded += [blob[start : start + length] for start in rest]
        return decoded


class VariableBytes:
    """Byte strings of any lengths, some of them perhaps null."""

    __slots__ = ("_blob", "_offsets", "_valid")

    def __init__(self, blob: bytes, offsets: Sequence[int], valid: Sequence[bool] | None) -> None:
        self._blob = blob
        self._offsets = offsets  # one more than there are strings, from the start of the blob
        self._valid = valid

    def cut(self, start: int, stop: int) -> VariableBytes:
        """Return the strings from ``start`` to ``stop``."""
        valid = None if self._valid is None else self._valid[start:stop]
        return VariableBytes(self._blob, self._offsets[start : stop + 1], valid)

    def decode(self) -> list[bytes | None]:
        """Return the strings."""
        blob = self._blob
        if self._valid is None:
            return [blob[a:b] for a, b in pairwise(self._offsets)]
        spans = zip(self._valid, pairwise(self._offsets))
        return [blob[a:b] if is_valid else None for is_valid, (a, b) in spans]


class NoBytes:
    """Nulls, or nothing at all: a column that the batch does not have."""

    __slots__ = ("_count",)

    def __init__(self, count: int) -> None:
        self._count = count

    def cut(self, start: int, stop: int) -> NoBytes:
        """Return as many nulls as there are from ``start`` to ``stop``."""
        return NoBytes(stop - start)

    def decode(self) -> list[bytes | None]:
        """Return the nulls."""
        return [None] * self._count


ByteColumn = FixedBytes | VariableBytes | NoBytes


class ColumnRows:
    """Neighbouring records of one columns frame, copied out of the log and decoded on demand."""

    __slots__ = ("_headers", "_keys", "_values", "offsets", "timestamps")

    def __init__(
        self,
        offsets: Sequence[int],
        timestamps: Sequence[int],
        keys: ByteColumn,
        values: ByteColumn,
        headers: ByteColumn,
    ) -> None:
        self.offsets = offsets
        self.timestamps = timestamps
        self._keys = keys
        self._values = values
        self._headers = headers

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def keys(self) -> list[bytes | None]:
        """The keys."""
        return self._keys.decode()

    @property
    def values(self) -> list[bytes | None]:
        """The values."""
        return self._values.decode()

    @property
    def headers(self) -> Sequence[Headers]:
        """The headers of each record."""
        if isinstance(self._headers, NoBytes):
            return [()] * len(self)
        return [f.decode_headers(data or b"") for data in self._headers.decode()]

    def cut(self, start: int, stop: int) -> ColumnRows:
        """Return the records from ``start`` to ``stop``."""
        return ColumnRows(
            self.offsets[start:stop],
            self.timestamps[start:stop],
            self._keys.cut(start, stop),
            self._values.cut(start, stop),
            self._headers.cut(start, stop),
        )


class Shape(NamedTuple):
    """Where the parts of records are that have all the same lengths and one timestamp."""

    first_offset: int
    records: int
    region: Region | bytes
    timestamp: int
    key_at: int
    key_length: int  # -1: they have none
    value_at: int
    value_length: int


class ColumnsFrame:
    """A columns frame in a region: where its columns are, and rows cut from them.

    ``is_sound`` is False when its parts do not add up to its size; then nothing else is. A
    compressed one gives its count, and from ``unpack`` the frame to read.
    """

    _unpacked: ref[ColumnsFrame] | None = None

    def __init__(self, prefix: f.Prefix, region: Region, position: int) -> None:
        head = region[position + f.PREFIX_SIZE : position + BODY]
        if len(head) < HEADER.size:
            self.is_sound = False
            return
        (
            count,
            producer_id,
            sequence,
            producer_epoch,
            _,
            key_bytes,
            value_bytes,
            header_bytes,
            body,
            special,
        ) = HEADER.unpack(head)
        transaction = special if prefix.flags & f.TRANSACTIONAL else 0
        self.origin = f.Origin(producer_id, sequence, producer_epoch, transaction)
        self.tombstones_since: int = -1 if transaction else special - 1  # a cleaning saw them
        self.first_offset = prefix.offset
        self.count: int = count
        self.body_bytes: int = body
        self._prefix = prefix
        self._region: Region | bytes = region
        self._position = position
        self._key_bytes = key_bytes
        self._value_bytes = value_bytes
        self._at: dict[str, int] = {}
        start = end = 0 if prefix.codec else position + BODY
        flags = prefix.flags
        offsets_size = 4 * (count + 1)
        has_keys = bool(flags & f.KEYS)
        fixed_keys, fixed_values = flags & f.FIXED_KEYS, flags & f.FIXED_VALUES
        for name, is_there, size in (
            ("key validity", flags & f.KEY_VALIDITY, (count + 7) // 8),
            ("key offsets", has_keys and not fixed_keys, offsets_size),
            ("value validity", flags & f.VALUE_VALIDITY, (count + 7) // 8),
            ("value offsets", not fixed_values, offsets_size),
            ("timestamps", flags & f.TIMESTAMPS, 8 * count),
            ("deltas", flags & f.DELTAS, 4 * count),
            ("header offsets", flags & f.HEADERS, offsets_size),
            ("keys", has_keys, key_bytes * (count if fixed_keys else 1)),
            ("values", True, value_bytes * (count if fixed_values else 1)),
            ("headers", flags & f.HEADERS, header_bytes),
        ):
            if is_there:
                self._at[name] = end
                end += f.aligned(size)
        stored = prefix.size - BODY - f.CRC_SIZE
        self._is_plain = not flags & UNUSUAL and count == prefix.extent
        fits = 0 < body <= LARGEST_BODY if prefix.codec else body == stored
        self.is_sound = fits and body == end - start and count <= prefix.extent

    @property
    def unpacked(self) -> ColumnsFrame | None:
        """What ``unpack`` returned before, if somebody keeps it still."""
        return None if self._unpacked is None else self._unpacked()

    def unpack(self) -> ColumnsFrame | None:
        """Return a compressed frame, whose checksum is right, as one that can be read; None when
        it is not what it says. ConfigError where its codec is missing."""
        start = self._position + BODY
        stop = self._position + self._prefix.size - f.CRC_SIZE
        body = decompress(self._prefix.codec, self._region[start:stop], self.body_bytes)
        if body is None:
            return None
        frame = ColumnsFrame.__new__(ColumnsFrame)
        frame.__dict__.update(self.__dict__)
        frame._region = body
        self._unpacked = ref(frame)
        return frame

    def plain_row(self, row: int) -> tuple[int, bytes | None, bytes] | None:
        """Return timestamp, key and value of one row; None where its frame is not of the commonest
        kind, or what it was decompressed to is kept no more."""
        frame = self.unpacked if self._prefix.codec else self
        if frame is None or not frame._is_plain:
            return None
        timestamp = self._prefix.timestamp
        if "timestamps" in self._at:
            (timestamp,) = frame._numbers("q", "timestamps", row, row + 1)
        key = None
        if "keys" in self._at:
            key = frame._string("key", self._key_bytes, row)
        return timestamp, key, frame._string("value", self._value_bytes, row)

    def _string(self, name: str, length: int, row: int) -> bytes:
        start = stop = self._at[f"{name}s"]
        if f"{name} offsets" in self._at:
            span = self._at[f"{name} offsets"] + 4 * row
            low, high = PAIR.unpack(self._region[span : span + 8])
        else:
            low, high = row * length, (row + 1) * length
        return self._region[start + low : stop + high]

    def shape(self) -> Shape | None:
        """Return where the parts of every record are, if all have the same lengths and timestamp
        and nothing else; None where that is not so."""
        at = self._at
        is_uniform = self._is_plain and "timestamps" not in at and not self._prefix.codec
        if not is_uniform or "value offsets" in at or "key offsets" in at:
            return None
        key_length = self._key_bytes if "keys" in at else -1
        timestamp, key_at = self._prefix.timestamp, at.get("keys", 0)
        first, region = self.first_offset, self._region
        return Shape(
            first,
            self.count,
            region,
            timestamp,
            key_at,
            key_length,
            at["values"],
            self._value_bytes,
        )

    def row_at(self, offset: int) -> int:
        """Return the number of the first row at or after ``offset``; the count if there is none."""
        if not self._prefix.flags & f.DELTAS:
            return min(max(offset - self._prefix.offset, 0), self.count)
        deltas = self._deltas(0, self.count)
        return bisect_left(deltas, offset - self._prefix.offset)

    def row_at_time(self, timestamp: int, start: int) -> int | None:
        """Return the first row from ``start`` on whose timestamp is at least ``timestamp``."""
        for number, stamp in enumerate(self._timestamps(start, self.count), start):
            if stamp >= timestamp:
                return number
        return None

    def stop_within(self, start: int, max_bytes: int, *, at_least: int) -> int:
        """Return the row before which ``max_bytes`` of records from ``start`` are full."""
        budget = self.size_before(start) + max_bytes
        rows = range(start + 1, self.count + 1)
        return start + max(bisect_right(rows, budget, key=self.size_before), at_least)

    def size_before(self, row: int) -> int:
        """Return the bytes of keys, values and headers before a row."""
        if "value offsets" in self._at:
            size = self._numbers("I", "value offsets", row, row + 1)[0]
        else:
            size = row * self._value_bytes
        if "key offsets" in self._at:
            size += self._numbers("I", "key offsets", row, row + 1)[0]
        elif self._prefix.flags & f.KEYS:
            size += row * self._key_bytes
        if "header offsets" in self._at:
            size += self._numbers("I", "header offsets", row, row + 1)[0]
        return size

    def rows(self, start: int, stop: int) -> ColumnRows:
        """Return the rows from ``start`` to ``stop``, copied."""
        flags = self._prefix.flags
        count = stop - start
        keys: ByteColumn = NoBytes(count)
        if flags & f.KEYS:
            keys = self._column("key", self._key_bytes, start, stop)
        headers: ByteColumn = NoBytes(count)
        if flags & f.HEADERS:
            headers = self._column("header", 0, start, stop)
        first = self._prefix.offset
        offsets: Sequence[int] = range(first + start, first + stop)
        if flags & f.DELTAS:
            offsets = [first + delta for delta in self._deltas(start, stop)]
        values = self._column("value", self._value_bytes, start, stop)
        return ColumnRows(offsets, self._timestamps(start, stop), keys, values, headers)

    def _timestamps(self, start: int, stop: int) -> Sequence[int]:
        if self._prefix.flags & f.TIMESTAMPS:
            return self._numbers("q", "timestamps", start, stop)
        return list(repeat(self._prefix.timestamp, stop - start))

    def _deltas(self, start: int, stop: int) -> Sequence[int]:
        return self._numbers("I", "deltas", start, stop)

    def _column(self, name: str, length: int, start: int, stop: int) -> ByteColumn:
        at = self._at[f"{name}s"]
        if f"{name} offsets" not in self._at:
            blob = self._region[at + start * length : at + stop * length]
            return FixedBytes(blob, length, stop - start)
        offsets = self._numbers("I", f"{name} offsets", start, stop + 1)
        low, high = offsets[0], offsets[-1]
        if low:
            offsets = [offset - low for offset in offsets]
        valid = None
        if f"{name} validity" in self._at:
            valid = self._valid(f"{name} validity", start, stop)
        return VariableBytes(self._region[at + low : at + high], offsets, valid)

    def _valid(self, name: str, start: int, stop: int) -> list[bool]:
        at = self._at[name]
        bits = self._region[at + start // 8 : at + (stop + 7) // 8]
        first = start // 8 * 8
        return [bool(bits[(n - first) >> 3] >> (n & 7) & 1) for n in range(start, stop)]

    def _numbers(self, code: str, name: str, start: int, stop: int) -> list[int]:
        size = 8 if code == "q" else 4
        at = self._at[name]
        numbers = array(code)
        numbers.frombytes(self._region[at + start * size : at + stop * size])
        return little_endian(numbers).tolist()


def record_count(prefix: f.Prefix, region: Region, position: int) -> int:
    """Return how many records the frame at ``position`` holds."""
    if not prefix.flags & f.COLUMNS:
        return 0 if prefix.flags & f.SEAL else 1
    start = position + f.PREFIX_SIZE
    return int.from_bytes(region[start : start + 4], "little")


@lru_cache(maxsize=64)
def _strings(length: int, count: int) -> Callable[[bytes, int], tuple[bytes, ...]]:
    return Struct(f"{length}s" * count).unpack_from


def little_endian(numbers: array[int]) -> array[int]:
    """Return the numbers in little-endian order; swapped in place where the machine differs."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
