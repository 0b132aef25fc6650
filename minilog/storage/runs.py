"""A sealed segment from its first record to its last, in runs: what compaction reads.

Everything is read by pread and every frame is checked, so that damage is met as an error and not
copied. Large frames come in parts. This module refuses to know which records are wanted, and what
becomes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Any, NamedTuple, cast

from minilog.errors import CorruptionError
from minilog.records import Headers, Rows
from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.checksum import crc32c
from minilog.storage.columns import ColumnsFrame
from minilog.storage.files import File, FileRegion, Region
from minilog.storage.segment import Segment
from minilog.storage.singles import OTHER

CHUNK = 256 * 1024
LARGE_FRAME = 4 * 1024 * 1024  # read in parts, not whole
NOT_SEEN = -1
ORIGIN_BYTES = f.PREFIX_SIZE + f.LARGEST_EXTENSION
KEPT_FLAGS = f.APPEND_TIME | f.TRANSACTIONAL | f.CONTROL


class Make(NamedTuple):
    """What neighbouring records have in common, so that they may go into one frame.

    ``sequence`` is what their offset is to be added to, to have their sequence number.
    """

    flags: int
    epoch: int
    producer_id: int
    producer_epoch: int
    transaction: int
    sequence: int

    @classmethod
    def of(cls, prefix: f.Prefix, origin: f.Origin) -> Make:
        """Return what a frame says of its records."""
        producer, sequence, epoch, transaction = origin
        shift = sequence - prefix.offset if sequence >= 0 else 0
        return cls(prefix.flags & KEPT_FLAGS, prefix.epoch, producer, epoch, transaction, shift)

    @property
    def is_control(self) -> bool:
        """Whether readers never see it."""
        return bool(self.flags & f.CONTROL)

    def committed(self) -> Make:
        """Return what is to be said of records that stay: their transaction is long over."""
        return self._replace(transaction=0, flags=self.flags & ~f.TRANSACTIONAL)

    def origin(self, offset: int) -> f.Origin:
        """Return what a frame that begins at ``offset`` is to say."""
        sequence = -1 if self.producer_id < 0 else self.sequence + offset
        return f.Origin(self.producer_id, sequence, self.producer_epoch, self.transaction)


class Columns(NamedTuple):
    """Records by column."""

    offsets: list[int]
    timestamps: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers] | None

    def where(self, mask: Sequence[Any]) -> Columns:
        """Return those that the mask is true for."""
        offsets, stamps, keys, values = (list(compress(column, mask)) for column in self[:4])
        headers = None if self.headers is None else list(compress(self.headers, mask))
        return Columns(offsets, stamps, keys, values, headers)  # type: ignore[arg-type]


class Run:
    """Neighbouring records of one make."""

    def __init__(
        self,
        make: Make,
        rows: Rows | LateSingles,
        next_offset: int,
        *,
        size: int,
        tombstones_since: int = NOT_SEEN,
    ) -> None:
        self.make = make
        self.offsets = rows.offsets
        self.next_offset = next_offset
        self.size = size  # bytes of the file
        self.tombstones_since = tombstones_since
        self._rows = rows
        self._keys: Sequence[bytes | None] | None = None

    @property
    def keys(self) -> Sequence[bytes | None]:
        """The keys."""
        if self._keys is None:
            self._keys = self._rows.keys
        return self._keys

    def where(self, mask: Sequence[Any]) -> Columns:
        """Return the records that the mask is true for."""
        rows, keys = self._rows, list(compress(self.keys, mask))
        if isinstance(rows, LateSingles):
            rows = rows.where(mask)
            mask = [True] * len(rows)
        headers: list[Headers] | None = list(compress(rows.headers, mask))
        return Columns(
            list(compress(rows.offsets, mask)),
            list(compress(rows.timestamps, mask)),
            keys,
            list(compress(rows.values, mask)),
            headers if headers and any(headers) else None,
        )


class LateSingles:
    """Frames of one record in a chunk, of which only the keys were looked at yet."""

    def __init__(
        self, chunk: bytes, starts: list[int], offsets: Sequence[int], keys: list[bytes | None]
    ) -> None:
        self.offsets = offsets
        self.keys = keys
        self._chunk = chunk
        self._starts = starts
        self._decoded: list[tuple[bytes | None, bytes | None, Headers]] | None = None

    def __len__(self) -> int:
        return len(self._starts)

    def where(self, mask: Sequence[Any]) -> LateSingles:
        """Return those that the mask is true for."""
        columns = (list(compress(each, mask)) for each in (self._starts, self.offsets, self.keys))
        return LateSingles(self._chunk, *columns)  # type: ignore[arg-type]

    def _records(self) -> list[tuple[bytes | None, bytes | None, Headers]]:
        if self._decoded is None:
            self._decoded = []
            unpack = f.PLAIN_PREFIX.unpack_from
            for start, key in zip(self._starts, self.keys):
                size, extent, _, _, kind = unpack(self._chunk, start)
                if not kind and extent <= size - f.SINGLE_OVERHEAD:  # a third of the time
                    first = start + f.PREFIX_SIZE + max(extent, 0)
                    self._decoded.append((key, self._chunk[first : start + size - f.CRC_SIZE], ()))
                    continue
                prefix = f.Prefix._make(f.PREFIX.unpack_from(self._chunk, start))
                frame = self._chunk[start : start + prefix.size]
                self._decoded.append(f.decode_single(prefix, frame))
        return self._decoded

    @property
    def timestamps(self) -> list[int]:
        """The timestamps."""
        unpack = f.SHORT_PREFIX.unpack_from
        return [unpack(self._chunk, start)[3] for start in self._starts]

    @property
    def values(self) -> list[bytes | None]:
        """The values."""
        return [value for _, value, _ in self._records()]

    @property
    def headers(self) -> list[Headers]:
        """The headers of each record."""
        return [headers for _, _, headers in self._records()]


class _Window:
    """A part of a file in memory, moved on as it is read."""

    def __init__(self, file: File, end: int) -> None:
        self.file = file
        self.end = end
        self.start = 0
        self.chunk = b""

    def have(self, position: int, size: int) -> int:
        """Have that many bytes from a position, as far as there are; return where they begin."""
        stop = min(position + size, self.end)
        if position < self.start or stop > self.start + len(self.chunk):
            wanted = min(max(size, CHUNK), self.end - position)
            self.chunk = self.file.read(position, wanted)
            self.start = position
        return position - self.start


def runs_of(segment: Segment) -> Iterator[Run]:
    """Yield the records of a sealed segment in runs; CorruptionError at what is damaged."""
    end, end_offset = segment.tail
    window = _Window(segment.open_file(), end)
    position, due = f.HEADER_SIZE, segment.base_offset
    while position < end:
        at = window.have(position, f.PREFIX_SIZE)
        prefix = scan.prefix_of(window.chunk, at, end - position)
        if prefix is None or prefix.offset != due or prefix.flags & f.SEAL:
            raise _damage(segment, position, due)
        if prefix.flags & f.COLUMNS:
            yield from _columns(segment, window, position, prefix)
            position, due = position + f.aligned(prefix.size), prefix.next_offset
            continue
        at = window.have(position, prefix.size)
        if prefix.flags & f.CONTROL:
            run, size = _control(window.chunk, at, position, prefix, segment.seed)
        else:
            run, size = _singles(window.chunk, at, position, due, segment.seed)
        if run is None:
            raise _damage(segment, position, due)
        yield run
        position, due = position + size, run.next_offset
    if due != end_offset:
        raise _damage(segment, position, due)


def _columns(segment: Segment, window: _Window, position: int, prefix: f.Prefix) -> Iterator[Run]:
    """Yield the records of a columns frame."""
    region: Region = FileRegion(window.file, window.end)
    if prefix.size > LARGE_FRAME:
        at = position
        is_whole = _is_whole_in_parts(region, prefix, position, segment.seed)
    else:
        at = window.have(position, prefix.size)
        region = cast(Region, window.chunk)  # ColumnsFrame only slices it
        is_whole = _is_whole(window.chunk, at, position, prefix.size, segment.seed)
    frame: ColumnsFrame | None = ColumnsFrame(prefix, region, at)
    if frame is not None and is_whole and frame.is_sound and prefix.codec:
        frame = frame.unpack()
    if frame is None or not is_whole or not frame.is_sound:
        raise _damage(segment, position, prefix.offset)
    make = Make.of(prefix, frame.origin)
    start = 0
    while True:
        stop = frame.stop_within(start, CHUNK, at_least=True)
        is_last = stop >= frame.count
        rows = frame.rows(start, min(stop, frame.count))
        yield Run(
            make,
            rows,
            prefix.next_offset if is_last else rows.offsets[-1] + 1,
            size=prefix.size * max(len(rows), 1) // max(frame.count, 1),
            tombstones_since=frame.tombstones_since,
        )
        if is_last:
            return
        start = stop


def _control(
    chunk: bytes, at: int, position: int, prefix: f.Prefix, seed: int
) -> tuple[Run | None, int]:
    """Return a control record and the bytes of its frame."""
    if not _is_whole(chunk, at, position, prefix.size, seed):
        return None, 0
    frame = chunk[at : at + prefix.size]
    rows = LateSingles(frame, [0], [prefix.offset], [None])
    make = Make.of(prefix, f.decode_origin(prefix, frame))
    size = f.aligned(prefix.size)
    return Run(make, rows, prefix.next_offset, size=size), size


def _singles(
    chunk: bytes, at: int, position: int, offset: int, seed: int
) -> tuple[Run | None, int]:
    """Return the frames of one record and of one make in a row, and their bytes."""
    keys: list[bytes | None] = []
    starts: list[int] = []
    make: Make | None = None
    known_context = None
    first, due = at, offset
    shift = position - at
    last = len(chunk) - f.SINGLE_OVERHEAD
    view = memoryview(chunk)
    unpack = f.SHORT_PREFIX.unpack_from
    # By local names and without calls of our own, as in ``singles.py``.
    while at <= last:
        size, extent, found, _, context = unpack(chunk, at)
        stop = at + size - 4
        if found != due or size < f.SINGLE_OVERHEAD or stop + 4 > len(chunk):
            break
        if crc32c(view[at:stop], seed ^ (shift + at)) != int.from_bytes(
            chunk[stop : stop + 4], "little"
        ):
            break
        if context != known_context:
            prefix = f.Prefix._make(f.PREFIX.unpack_from(chunk, at))
            if prefix.flags & OTHER:
                break
            own = Make.of(prefix, f.decode_origin(prefix, chunk[at : at + ORIGIN_BYTES]))
            if make is not None and own != make:
                break
            make = own
            if not prefix.flags & f.EXTENDED:
                known_context = context
            start = at + f.PREFIX_SIZE + f.extension_size(prefix.flags)
        else:
            start = at + f.PREFIX_SIZE
        keys.append(chunk[start : start + extent] if extent >= 0 else None)
        starts.append(at)
        due += 1
        at = (stop + 11) & -8
    if make is None:
        return None, 0
    rows = LateSingles(chunk, starts, range(offset, due), keys)
    return Run(make, rows, due, size=at - first), at - first


def _is_whole(chunk: bytes, at: int, position: int, size: int, seed: int) -> bool:
    stop = at + size - f.CRC_SIZE
    crc = f.CRC.pack(crc32c(memoryview(chunk)[at:stop], seed ^ position))
    return chunk[stop : stop + f.CRC_SIZE] == crc


def _is_whole_in_parts(region: Region, prefix: f.Prefix, position: int, seed: int) -> bool:
    stop = position + prefix.size - f.CRC_SIZE
    crc = seed ^ position
    for start in range(position, stop, CHUNK):
        crc = crc32c(region[start : min(start + CHUNK, stop)], crc)
    return region[stop : stop + f.CRC_SIZE] == f.CRC.pack(crc)


def _damage(segment: Segment, position: int, due: int) -> CorruptionError:
    return CorruptionError(
        "the bytes of these records have changed: they fail their checksum. Nothing was compacted",
        path=segment.path,
        position=position,
        offset=due,
    )
