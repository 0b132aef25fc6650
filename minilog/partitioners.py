"""Which partition a key goes to, as the clients it copies have it. Pinned by test vectors.

This module refuses to know topics and records.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

from minilog.config import nearest
from minilog.errors import ConfigError

Partitioner = Callable[[bytes, int], int]

MASK = 0xFFFFFFFF


def crc32(key: bytes, partition_count: int) -> int:
    """Return librdkafka's ``consistent``: the CRC-32 of the key, modulo the partitions."""
    return zlib.crc32(key) % partition_count


def murmur2(key: bytes, partition_count: int) -> int:
    """Return what Kafka's Java client does: 31 bits of MurmurHash2, modulo the partitions."""
    return (murmur2_hash(key) & 0x7FFFFFFF) % partition_count


def murmur2_hash(data: bytes) -> int:
    """Return MurmurHash2 of ``data`` with Kafka's seed, as an unsigned 32-bit number."""
    multiplier = 0x5BD1E995
    length = len(data)
    whole = length & -4
    found = (0x9747B28C ^ length) & MASK
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * multiplier & MASK
        word = (word ^ word >> 24) * multiplier & MASK
        found = (found * multiplier & MASK) ^ word
    if whole < length:
        found = (found ^ int.from_bytes(data[whole:], "little")) * multiplier & MASK
    found = (found ^ found >> 13) * multiplier & MASK
    return found ^ found >> 15


def all_by_crc32(keys: Iterable[bytes], partition_count: int) -> list[int]:
    """Return the same for many keys: a call of ours for each would double what that takes."""
    hash_of = zlib.crc32
    return [hash_of(key) % partition_count for key in keys]


NAMED: dict[str, Partitioner] = {"crc32": crc32, "murmur2": murmur2}


def partitioner_of(given: str | Partitioner) -> Partitioner:
    """Return a partitioner by name, or the callable given; ConfigError."""
    if callable(given):
        return given
    if isinstance(given, str) and given in NAMED:
        return NAMED[given]
    raise ConfigError(
        f"partitioner is {given!r}; it must be 'crc32', 'murmur2' or a callable "
        f"(key, partition_count) -> int{nearest(str(given), NAMED)}"
    )
