"""Many records on their way into a frame: checked, copied and joined by column.

What the columns are stands in ``columns.py``. This module refuses to know where in a log a batch
will be: that is given at the last moment, under the lock, and costs one checksum and one join.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import add
from typing import NamedTuple

from minilog.config import LARGEST_FRAME_BYTES
from minilog.errors import RecordTooLargeError
from minilog.records import HeadersLike, bytes_of, headers_of
from minilog.storage import format as f
from minilog.storage.checksum import crc32c
from minilog.storage.codecs import LARGEST_BODY, codec_of
from minilog.storage.columns import BODY, HEADER, little_endian


class Batch(NamedTuple):
    """Records by column, checked and joined, that only lack a place in a log."""

    record_count: int
    flags: int
    timestamps: array[int] | None
    key_bytes: int
    value_bytes: int
    header_bytes: int
    body: tuple[bytes, ...]
    body_bytes: int  # before compression
    codec: int = 0

    @property
    def frame_bytes(self) -> int:
        """Bytes of the frame this becomes."""
        stored = len(self.body[0]) if self.codec else self.body_bytes
        return BODY + stored + f.CRC_SIZE


class _Column(NamedTuple):
    """One column of byte strings on its way into a batch."""

    lengths: Sequence[int]
    fixed: int  # the length they all have, or -1
    blob: bytes
    validity: bytes

    @property
    def largest(self) -> int:
        return self.fixed if self.fixed >= 0 else max(self.lengths)

    @property
    def length_field(self) -> int:
        return self.fixed if self.fixed >= 0 else len(self.blob)

    def offsets(self) -> bytes:
        return b"" if self.fixed >= 0 else _offsets(self.lengths)


def encode_batch(
    values: Sequence[object],
    keys: Sequence[object] | None,
    headers: Sequence[HeadersLike | None] | None,
    timestamps: Sequence[int] | None,
    max_record_bytes: int,
    deltas: Sequence[int] | None = None,
    compression: str = "none",
) -> Batch:
    """Return records as a batch; values, keys and headers are checked, copied and compressed.

    ``deltas`` are the offsets relative to the batch's first, where they are not 0, 1, 2 and so on.
    TypeError for what is not bytes, RecordTooLargeError for a record beyond ``max_record_bytes``
    or a batch beyond what one frame holds.
    """
    value_column = _column("value", values)
    key_column = None
    if keys is not None and any(key is not None for key in keys):
        key_column = _column("key", keys)
    header_blobs: list[bytes] | None = None
    if headers is not None:
        header_blobs = [f.encode_headers(headers_of(given)) for given in headers]
        if not any(header_blobs):
            header_blobs = None
    _check_sizes(key_column, value_column, header_blobs, max_record_bytes)
    batch = _join(key_column, value_column, header_blobs, timestamps, deltas)
    return compressed(batch, compression)


def compressed(batch: Batch, compression: str) -> Batch:
    """Return a batch with its body compressed; as it is where that does not make it smaller,
    and where there is but one record in it or more than a reader should have to hold."""
    is_one = batch.record_count < 2
    if compression == "none" or batch.codec or is_one or batch.body_bytes > LARGEST_BODY:
        return batch
    codec = codec_of(compression)
    body = codec.compress(b"".join(batch.body))
    if len(body) >= batch.body_bytes:
        return batch
    return batch._replace(body=(body,), codec=codec.number)


def _column(what: str, items: Sequence[object]) -> _Column:
    try:
        lengths = list(map(len, items))  # type: ignore[arg-type]
        blob = b"".join(items)  # type: ignore[arg-type]
        if sum(lengths) == len(blob):  # else a memoryview of wider items is among them
            is_fixed = lengths.count(lengths[0]) == len(lengths)
            return _Column(lengths, lengths[0] if is_fixed else -1, blob, b"")
    except TypeError:
        pass  # a None, or something bytes_of has a better word for
    checked = [bytes_of(what, item) for item in items]
    plain = [item or b"" for item in checked]
    if None not in checked:
        return _column(what, plain)
    validity = _bitmap([item is not None for item in checked])
    return _Column(list(map(len, plain)), -1, b"".join(plain), validity)


def _check_sizes(
    keys: _Column | None, values: _Column, headers: list[bytes] | None, limit: int
) -> None:
    largest = values.largest + (keys.largest if keys else 0)
    largest += max(map(len, headers)) if headers else 0
    if largest > limit:  # each column's largest may belong to different records: look closely
        sizes: Iterator[int] = iter(values.lengths)
        if keys:
            sizes = map(add, sizes, keys.lengths)
        if headers:
            sizes = map(add, sizes, map(len, headers))
        for number, size in enumerate(sizes):
            if size > limit:
                raise too_large(size, limit, f"record {number} of the batch")


def too_large(size: int, limit: int, what: str = "the record") -> RecordTooLargeError:
    """Return the error for a record beyond ``max_record_bytes``."""
    return RecordTooLargeError(
        f"{what} has {size} bytes of key, value and headers; max_record_bytes is {limit}",
        size=size,
        limit=limit,
    )


def _join(
    keys: _Column | None,
    values: _Column,
    headers: list[bytes] | None,
    timestamps: Sequence[int] | None,
    deltas: Sequence[int] | None,
) -> Batch:
    flags = f.COLUMNS
    pieces: list[bytes] = []
    if keys:
        flags |= f.KEYS | (f.FIXED_KEYS if keys.fixed >= 0 else 0)
        flags |= f.KEY_VALIDITY if keys.validity else 0
        pieces += [keys.validity, keys.offsets()]
    flags |= f.FIXED_VALUES if values.fixed >= 0 else 0
    flags |= f.VALUE_VALIDITY if values.validity else 0
    pieces += [values.validity, values.offsets()]
    stamps = None
    if timestamps is not None:
        flags |= f.TIMESTAMPS
        stamps = array("q", timestamps)
        pieces.append(little_endian(stamps[:]).tobytes())
    if deltas is not None:
        flags |= f.DELTAS
        pieces.append(little_endian(array("I", deltas)).tobytes())
    header_blob = b""
    if headers:
        flags |= f.HEADERS
        header_blob = b"".join(headers)
        pieces.append(_offsets(list(map(len, headers))))
    pieces += [keys.blob if keys else b"", values.blob, header_blob]
    body: list[bytes] = []
    size = 0
    for piece in pieces:
        if piece:
            body.append(piece)
            padding = -len(piece) & 7
            if padding:
                body.append(bytes(padding))
            size += len(piece) + padding
    if size > LARGEST_FRAME_BYTES:
        raise RecordTooLargeError(
            f"the batch is {size} bytes; one atomic batch holds up to {LARGEST_FRAME_BYTES}: "
            "append it in parts, or use producer.send_many, which does",
            size=size,
            limit=LARGEST_FRAME_BYTES,
        )
    return Batch(
        record_count=len(values.lengths),
        flags=flags,
        timestamps=stamps,
        key_bytes=keys.length_field if keys else 0,
        value_bytes=values.length_field,
        header_bytes=len(header_blob),
        body=tuple(body),
        body_bytes=size,
    )


EMPTY_BATCH = Batch(0, f.COLUMNS | f.FIXED_VALUES, None, 0, 0, 0, (), 0)


def encode_frame(
    batch: Batch,
    offset: int,
    timestamp: int,
    context: bytes,
    seed: int,
    position: int,
    origin: f.Origin = f.NOBODY,
    *,
    extent: int | None = None,
    tombstones_since: int = -1,
) -> bytes:
    """Return a batch as a frame for its place; ``timestamp`` is the largest of its records.

    ``extent`` is how many offsets it covers, where records between or behind its own are gone;
    ``tombstones_since`` when a cleaning first saw its tombstones.
    """
    covered = batch.record_count if extent is None else extent
    producer_id, sequence, producer_epoch, transaction = origin
    head = f.SHORT_PREFIX.pack(batch.frame_bytes, covered, offset, timestamp, context)
    head += HEADER.pack(
        batch.record_count,
        producer_id,
        sequence,
        producer_epoch,
        -1,
        batch.key_bytes,
        batch.value_bytes,
        batch.header_bytes,
        batch.body_bytes,
        transaction or tombstones_since + 1,
    )
    crc = crc32c(head, seed ^ position)
    for piece in batch.body:
        crc = crc32c(piece, crc)
    return b"".join((head, *batch.body, f.CRC.pack(crc)))


def _offsets(lengths: Sequence[int]) -> bytes:
    return little_endian(array("I", accumulate(lengths, initial=0))).tobytes()


def _bitmap(claims: Sequence[bool]) -> bytes:
    bits = bytearray((len(claims) + 7) // 8)
    for number, claim in enumerate(claims):
        if claim:
            bits[number >> 3] |= 1 << (number & 7)
    return bytes(bits)
