"""Walking the frames of a region: whole frames from a position on, and past damage.

A frame is believed only when its checksum is right for its place and its offset is the one that
must come next. This module refuses to know what damage means; it says where it is.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator

from minilog.storage import format as f
from minilog.storage.checksum import crc32c
from minilog.storage.files import ZEROS, Region

CHUNK = 64 * 1024


def prefix_at(region: Region, position: int, end: int) -> f.Prefix | None:
    """Return the prefix at ``position`` if it could be one; it is not checked further."""
    data = region[position : position + f.PREFIX_SIZE]
    if len(data) < f.PREFIX_SIZE:
        return None
    fields = f.PREFIX.unpack(data)
    if not f.is_plausible(fields, end - position):
        return None
    return tuple.__new__(f.Prefix, fields)  # in C: a third of what Prefix(*fields) costs


def prefix_of(frame: bytes, start: int, room: int) -> f.Prefix | None:
    """Return the prefix at ``start`` of bytes that were read, if it could be one."""
    if len(frame) - start < f.PREFIX_SIZE:
        return None
    fields = f.PREFIX.unpack_from(frame, start)
    return tuple.__new__(f.Prefix, fields) if f.is_plausible(fields, room) else None


def is_whole(region: Region, prefix: f.Prefix, position: int, seed: int) -> bool:
    """Say whether the frame at ``position`` has the checksum of its bytes and place."""
    stop = position + prefix.size - f.CRC_SIZE
    expected = f.CRC.pack(crc32c(region.view(position, stop), seed ^ position))
    return region[stop : stop + f.CRC_SIZE] == expected


def walk(
    region: Region, position: int, offset: int | None, end: int, seed: int
) -> Iterator[tuple[int, f.Prefix]]:
    """Yield (position, prefix) of whole frames in a row, the first of which is at ``offset``.

    It ends at the first place where no such frame begins, or after a seal.
    """
    while position < end:
        prefix = prefix_at(region, position, end)
        if prefix is None or not is_whole(region, prefix, position, seed):
            return
        if offset is not None and prefix.offset != offset:
            return
        yield position, prefix
        if prefix.flags & f.SEAL:
            return
        offset = prefix.next_offset
        position += f.aligned(prefix.size)


def find_frame(
    region: Region, position: int, end: int, seed: int, lowest: int, highest: int
) -> tuple[int, f.Prefix] | None:
    """Return the first whole frame at or after ``position`` whose offset is within bounds.

    The offset is the second 8-byte word of a frame, so words are looked through in runs, and
    only where one could be an offset is anything decoded.
    """
    position = f.aligned(position)
    while position < end:
        chunk = region[position + 8 : min(position + 8 + CHUNK, end)]
        words = array("Q")
        words.frombytes(chunk[: len(chunk) // 8 * 8])
        if sys.byteorder == "big":
            words.byteswap()
        for number, word in enumerate(words):
            if lowest <= word <= highest:
                candidate = position + number * 8
                prefix = prefix_at(region, candidate, end)
                if prefix is not None and is_whole(region, prefix, candidate, seed):
                    return candidate, prefix
        position += CHUNK
    return None


def last_used(region: Region, position: int, end: int) -> int:
    """Return the end of the bytes after ``position`` that are not zero, or ``position``."""
    used = position
    while position < end:
        chunk = region[position : min(position + len(ZEROS), end)]
        if chunk != ZEROS[: len(chunk)]:
            used = position + len(chunk.rstrip(b"\0"))
        position += len(ZEROS)
    return used
