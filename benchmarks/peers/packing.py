"""A record as one value of a store of bytes: what the store does not know is packed into it."""

from collections.abc import Iterable, Iterator
from struct import Struct
from time import time_ns

from benchmarks.data import Dataset

HEADER = Struct("<qi")  # timestamp, size of the record's key

Unpacked = tuple[int, int, bytes, bytes]  # offset, timestamp, key, value


def packed(data: Dataset) -> Iterator[bytes]:
    """Each record as bytes, stamped when it is asked for."""
    pack = HEADER.pack
    for key, value in zip(data.keys, data.values, strict=True):
        yield pack(time_ns() // 1_000_000, len(key)) + key + value


def unpacked(offset: int, stored: bytes) -> Unpacked:
    timestamp, key_bytes = HEADER.unpack_from(stored)
    value_start = HEADER.size + key_bytes
    return offset, timestamp, stored[HEADER.size : value_start], stored[value_start:]


def unpack_all(items: Iterable[tuple[int, bytes]]) -> Iterator[Unpacked]:
    """As `unpacked`, in one loop: a call for each record would be the dearest part of it."""
    header, header_bytes = HEADER.unpack_from, HEADER.size
    for offset, stored in items:
        timestamp, key_bytes = header(stored)
        value_start = header_bytes + key_bytes
        yield offset, timestamp, stored[header_bytes:value_start], stored[value_start:]
