"""Runs of frames of one record: decode many in one pass.

Most programs send one record at a time, so most logs are made of these. This module refuses to
know anything but the bytes it is handed; what it cannot read it leaves to its caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from minilog.errors import CorruptionError
from minilog.records import Headers
from minilog.storage import format as f
from minilog.storage.checksum import crc32c

OTHER = f.COLUMNS | f.SEAL | f.CONTROL
UNUSUAL = f.NULL_VALUE | f.EXTENDED


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
    timestamps: list[int] = []
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    headers: list[Headers] | None = None
    at, due, record_bytes, plain_context = 0, offset, 0, b""
    last = len(chunk) - f.SINGLE_OVERHEAD
    must_fit = not budget.is_first
    max_records, max_bytes, _, hides = budget
    unpack = f.SHORT_PREFIX.unpack_from
    # Everything by local names and without calls of our own: 0.5 us a record.
    while at <= last and len(values) < max_records:
        size, extent, found, timestamp, context = unpack(chunk, at)
        stop = at + size - 4
        if found != due or size < f.SINGLE_OVERHEAD or stop + 4 > len(chunk):
            break
        body = chunk[at:stop]
        crc = int.from_bytes(chunk[stop : stop + 4], "little")
        if crc32c(body, seed ^ (position + at)) != crc:
            break
        if context != plain_context:
            flags = f.CONTEXT.unpack(context)[2]
            if flags & OTHER:
                break
            if not flags & UNUSUAL:
                plain_context = context
            elif not _is_for_readers(body, flags, hides):
                break
        record_bytes += size - f.SINGLE_OVERHEAD
        if record_bytes > max_bytes and must_fit:
            break
        must_fit = True
        own: Headers = ()
        if context == plain_context:
            middle = f.PREFIX_SIZE + extent if extent >= 0 else f.PREFIX_SIZE
            keys.append(body[f.PREFIX_SIZE : middle] if extent >= 0 else None)
            values.append(body[middle:])
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
