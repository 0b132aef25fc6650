"""Runs of frames of one record: decode many in one pass.

Most programs send one record at a time, so most logs are made of these. This module refuses to
know anything but the bytes it is handed; what it cannot read it leaves to its caller.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import repeat
from operator import xor
from struct import Struct
from typing import NamedTuple

from minilog.errors import CorruptionError
from minilog.records import Headers
from minilog.storage import format as f
from minilog.storage.checksum import crc32c

OTHER = f.COLUMNS | f.SEAL | f.CONTROL
UNUSUAL = f.NULL_VALUE | f.EXTENDED
DOZENS = 48  # so many records that are alike are decoded at once


class Budget(NamedTuple):
    """How much a read may still return; its first record is returned however large.

    Records of transactions that it ``hides`` are left out.
    """

    records: int
    bytes: int
    is_first: bool
    hides: Callable[[int], bool] | None = None


class SingleRows:
    """Neighbouring records that were appended one by one, decoded."""

    __slots__ = ("_headers", "keys", "offsets", "timestamps", "values")

    def __init__(
        self,
        offsets: range,
        timestamps: list[int],
        keys: list[bytes | None],
        values: list[bytes | None],
        headers: list[Headers] | None,
    ) -> None:
        self.offsets = offsets
        self.timestamps = timestamps
        self.keys = keys
        self.values = values
        self._headers = headers

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def headers(self) -> Sequence[Headers]:
        """The headers of each record."""
        return [()] * len(self.offsets) if self._headers is None else self._headers

    def cut(self, start: int, stop: int) -> SingleRows:
        """Return the records from ``start`` to ``stop``."""
        return SingleRows(
            self.offsets[start:stop],
            self.timestamps[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
            None if self._headers is None else self._headers[start:stop],
        )


def _is_for_readers(body: bytes, flags: int, hides: Callable[[int], bool] | None) -> bool:
    """Say whether a frame with an extension has it, and is of no transaction that is hidden."""
    if len(body) < f.PREFIX_SIZE + f.extension_size(flags):
        return False
    if hides is None or not flags & f.TRANSACTIONAL:
        return True
    (transaction,) = f.TRANSACTION.unpack_from(body, f.PREFIX_SIZE + f.EXTENSION_SIZE)
    return not hides(transaction)


def _decoded(
    chunk: bytes, start: int, stop: int
) -> tuple[bytes | None, bytes | None, Headers] | None:
    prefix = f.Prefix._make(f.PREFIX.unpack_from(chunk, start))
    try:
        return f.decode_single(prefix, chunk[start : stop + 4])
    except CorruptionError:  # its checksum is right, and minilog did not write it
        return None


def read_run(
    chunk: bytes, position: int, offset: int, seed: int, budget: Budget
) -> tuple[SingleRows, int, int]:
    """Return the records of the single frames that ``chunk`` begins with, the bytes of those
    frames, and of the records alone (more than the budget where the next did not fit).

    ``position`` is the chunk's place in its segment and ``offset`` its first record's. It stops,
    perhaps at once, at whatever is not a whole frame of one record with the offset that is due.
    """
    timestamps, keys, values, at = _read_alike(chunk, position, offset, seed, budget)
    headers: list[Headers] | None = None
    due, plain_context = offset + len(values), b""
    record_bytes = 0
    if values:  # all of them have the size of the first
        record_bytes = len(values) * (f.PLAIN_PREFIX.unpack_from(chunk)[0] - f.SINGLE_OVERHEAD)
    last = len(chunk) - f.SINGLE_OVERHEAD
    must_fit = bool(values) or not budget.is_first
    max_records, max_bytes, _, hides = budget
    unpack = f.SHORT_PREFIX.unpack_from
    # Everything by local names and without calls of our own: 0.5 us a record.
    while at <= last and len(values) < max_records:
        size, extent, found, timestamp, context = unpack(chunk, at)
        stop = at + size - 4
        if found != due or size < f.SINGLE_OVERHEAD or stop + 4 > len(chunk):
            break
        frame = chunk[at : stop + 4]
        if crc32c(frame, seed ^ (position + at)) != f.WHOLE:
            break
        if context != plain_context:
            flags = f.CONTEXT.unpack(context)[2]
            if flags & OTHER:
                break
            if not flags & UNUSUAL:
                plain_context = context
            elif not _is_for_readers(frame[:-4], flags, hides):
                break
        record_bytes += size - f.SINGLE_OVERHEAD
        if record_bytes > max_bytes and must_fit:
            break
        must_fit = True
        own: Headers = ()
        if context == plain_context:
            middle = f.PREFIX_SIZE + extent if extent >= 0 else f.PREFIX_SIZE
            keys.append(frame[f.PREFIX_SIZE : middle] if extent >= 0 else None)
            values.append(frame[middle:-4])
        else:
            decoded = _decoded(chunk, at, stop)
            if decoded is None:
                break
            key, value, own = decoded
            keys.append(key)
            values.append(value)
            if own and headers is None:
                headers = [()] * (len(values) - 1)
        if headers is not None:
            headers.append(own)
        timestamps.append(timestamp)
        due += 1
        at = (stop + 11) & -8
    return SingleRows(range(offset, due), timestamps, keys, values, headers), at, record_bytes


def _read_alike(
    chunk: bytes, position: int, offset: int, seed: int, budget: Budget
) -> tuple[list[int], list[bytes | None], list[bytes | None], int]:
    """Return timestamps, keys and values of the records that ``chunk`` begins with as long as they
    are alike, in dozens, and the bytes of their frames.

    Alike is the same size, length of the key, epoch, and neither headers nor anything unusual: so
    are most logs of machines. Then every column is taken out in C: 0.4 us a record, against 1.2.
    """
    timestamps: list[int] = []
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    if len(chunk) < f.PREFIX_SIZE or sys.byteorder != "little":
        return timestamps, keys, values, 0
    size, extent, found, _, kind = f.PLAIN_PREFIX.unpack_from(chunk)
    step, length = (size + 7) & -8, size - f.SINGLE_OVERHEAD
    most = min(len(chunk) // step, budget.records) if size > f.SINGLE_OVERHEAD else 0
    count = min(most, budget.bytes // length if most else 0) // DOZENS * DOZENS
    if count <= 0 or found != offset or kind or not -1 <= extent <= length:
        return timestamps, keys, values, 0
    words, width = memoryview(chunk)[: count * step].cast("q"), step // 8
    alike = [words[::width].tolist(), words[3::width].tolist()]
    while count and (alike[0].count(words[0]) < count or alike[1].count(words[3]) < count):
        count -= DOZENS
        alike = [column[:count] for column in alike]
    if not count or words[1 : count * width : width].tolist() != [*range(offset, offset + count)]:
        return timestamps, keys, values, 0
    stop = count * step
    frames = _cut(chunk, stop, step, 0, size)
    places = map(xor, repeat(seed), range(position, position + stop, step))
    if set(map(crc32c, frames, places)) != {f.WHOLE}:
        return timestamps, keys, values, 0  # whoever looks at each finds where
    timestamps = words[2 : count * width : width].tolist()
    keys = [None] * count
    if extent >= 0:
        keys = _cut(chunk, stop, step, f.PREFIX_SIZE, extent)
    middle = max(extent, 0)
    return timestamps, keys, _cut(chunk, stop, step, f.PREFIX_SIZE + middle, length - middle), stop


def _cut(chunk: bytes, stop: int, step: int, start: int, size: int) -> list[bytes | None]:
    """Return a part of each frame of ``step`` bytes before ``stop``."""
    pieces: list[bytes | None] = []
    unpack = _parts_of(step, start, size)
    for at in range(0, stop, DOZENS * step):
        pieces += unpack(chunk, at)
    return pieces


@lru_cache(maxsize=64)
def _parts_of(step: int, start: int, size: int) -> Callable[[bytes, int], tuple[bytes, ...]]:
    return Struct(f"{start}x{size}s{step - start - size}x" * DOZENS).unpack_from
