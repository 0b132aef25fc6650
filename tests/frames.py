"""Frames and segments made by hand, without a log: whole, in their places, of any kind."""

from __future__ import annotations

from collections.abc import Sequence

from minilog.storage import format as f
from minilog.storage.batch import encode_batch, encode_frame
from minilog.storage.columns import ColumnsFrame
from minilog.storage.files import MappedRegion
from minilog.storage.index import Index
from minilog.storage.memory import MemoryDirectory
from minilog.storage.view import Stride, View

SEED, BASE = 17, 100
EPOCH = 2**32 - 1  # every bit of it, as of a flag that is looked for in the wrong place


def single(
    offset: int,
    value: bytes | None,
    key: bytes | None = None,
    flags: int = 0,
    origin: f.Origin = f.NOBODY,
    headers: bytes = b"",
) -> bytes:
    """Return a frame of one record, but for its checksum."""
    return f.encode_single(key, value, headers, offset, 1000 + offset, EPOCH, 64, flags, origin)


def columns(
    offset: int,
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None = None,
    compression: str = "none",
) -> bytes:
    """Return a frame of many records, but for its checksum."""
    batch = encode_batch(values, keys, None, None, 10**6, compression=compression)
    context = f.context_of(EPOCH, 0, batch.flags, batch.codec)
    return encode_frame(batch, offset, 1000 + offset, context, 0, 0)[: -f.CRC_SIZE]


def seal(offset: int) -> bytes:
    """Return the frame that ends a segment at an offset, but for its checksum."""
    return f.encode_seal(f.Seal(offset, 0, 0, 1), EPOCH, 0, 0, 0)[: -f.CRC_SIZE]


def in_place(frames: Sequence[bytes], position: int, seed: int = SEED) -> bytes:
    """Return frames with the checksums of their places, the first of them at a position."""
    data = b""
    for frame in frames:
        data += frame + f.checksum(frame, seed, position + len(data))
        data += bytes(-len(data) & 7)
    return data


def view_of(frames: Sequence[bytes], *, room: int = 0) -> View:
    """Return a look at a segment of these frames, without an index."""
    data = bytes(f.HEADER_SIZE) + in_place(frames, f.HEADER_SIZE)
    region = MappedRegion(-1, len(data) + room)
    region[: len(data)] = data
    return View(region, Index(MemoryDirectory(), "i", SEED), BASE, SEED, "a segment")


def step_of(frame: bytes) -> int:
    """Return how far it is from a frame to the next."""
    return f.aligned(len(frame) + f.CRC_SIZE)


def stride_of(position: int, offset: int, step: int, size: int) -> Stride:
    """Return the stride of frames without keys that lie so."""
    prefix = f.Prefix(size, -1, offset, 0, 0, 0, 0, 0, 0)
    return Stride.of(prefix, position)._replace(step=step)


def frame_at(view: View, position: int) -> ColumnsFrame:
    """Return the columns frame at a position."""
    data = view.region[position : position + f.PREFIX_SIZE]
    return ColumnsFrame(f.Prefix._make(f.PREFIX.unpack(data)), view.region, position)


def flip(view: View, position: int) -> None:
    """Change a byte of a segment."""
    (byte,) = view.region[position : position + 1]
    view.region[position : position + 1] = bytes([byte ^ 1])
