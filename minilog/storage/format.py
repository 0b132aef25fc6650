"""THE on-disk format, version 2: spec, structs, checksums. (Columnar bodies: ``columns.py``.)

Grammar. All numbers are little-endian; every frame starts at a multiple of 8 bytes.

    segment  := header frame* [seal] zero*         one .log file
    frame    := single | columns                   one batch: all of it is readable, or nothing
    single   := prefix [extension] key value headers crc      a batch of one record
    columns  := prefix columns-header body crc                a batch of many
    seal     := prefix last-append count crc                  the segment will not change again
    (a single or columns frame with the control flag is not for readers: they step over it)
    zero     := 8 bytes of 0, as space is reserved ahead: where a frame should start, the end

Header, 64 bytes:

     0  magic "minilog\\0"                8s   32  created, ms                      i64
     8  format version                   u32  40  writer epoch                     u32
    12  flags (none yet)                 u32  44  cleaned to, 0 = not cleaned      i64
    16  base offset                      i64  52  tombstones since, ms + 1, 0: no  i64
    24  durable base                     i64  60  crc32c of bytes 0 to 60          u32

Durable base: that of the oldest segment not known to be synced when this one was made. Cleaned
to: compaction made this segment, of one or of several, and looked for later records of the same
keys up to that offset. Tombstones since: when a cleaning first saw the oldest of those in here
that any has seen.

Prefix, 36 bytes; the same for every frame:

     0  size: bytes of the frame, crc included, padding not (0 = end of the log)   u32
     4  single: length of the key, -1 = null · columns: offsets covered · seal: 0  i32
     8  offset of the first record · seal: the end offset                          i64
    16  timestamp · columns: the largest · seal: the segment's largest (-1: none)  i64
    24  codec, columns only (2)           u8   28  writer epoch                    u32
    25  zero                              u8   32  durable: bytes of this segment
    26  flags                            u16       known synced, in units of 8     u32

Flags:  1 columns · 2 seal · 4 the value is null · 8 has extension · 16 append time
        32 transactional · 64 control · 128 some key is not null · 256 keys of one length
        512 key validity · 1024 values of one length · 2048 value validity · 4096 timestamps
        8192 headers · 16384 offset deltas

Codecs of a body: 0 none · 1 gzip (RFC 1952) · 2 LZ4 block · 3 zstd (RFC 8878).

Extension of a single, 24 bytes: producer id i64, sequence i64, producer epoch i32, bytes of
headers u32; of a transactional one 8 more: the transaction's number i64. The value's length is
what the size leaves. Columns header, 64 bytes: see ``columns.py``. Headers of one record: per
header u32 length of the name, i32 length of the value (-1 = null), name (UTF-8), value.

The checksum is the frame's last four bytes: crc32c over everything before it in the frame, size
included, seeded with ``seed ^ position``. The seed is the crc32c of the log's identity (topic id
and partition) and the segment's base offset, so that bytes which belong to another file, another
segment or another place in it are never a frame. It comes last, so that it commits the frame.

Frames tile the offsets: each begins where the one before ended, also after records in between
were compacted away (then a columns frame covers more offsets than it has records, of which there
may be none at all). A frame that does not begin where it should is damage.

A version that is newer says so in the header (whose checksum is right): UnsupportedFormatError.
A header whose checksum is wrong is damage. Frames are read all the same: they prove themselves.
A single's headers, key and value are never compressed; a batch that would not shrink is not.

Version 2 adds to 1: codecs, frames with the control flag, transactions, offset deltas. A directory
of version 1 is read as it is. Opened for writing it becomes one of version 2 before anything else
changes: ``broker.json`` says so, so that an older minilog refuses it and does not take what it
cannot read for damage. Segments and documents written before keep their 1, and what is appended
to such a segment may be of version 2 all the same.

Worked example (``tests/unit/test_format.py`` checks it). Key ``b"k"``, value ``b"hello"``, offset
7, timestamp 1000 ms, epoch 1, durable 64 bytes, at position 64 with seed 0:

    2e000000 01000000 0700000000000000 e803000000000000 00 00 0000 01000000 08000000
    6b 68656c6c6f b5dbaebf

This module refuses to know files, segments and time.
"""

from __future__ import annotations

import re
from functools import cache
from struct import Struct
from struct import error as StructError
from typing import TYPE_CHECKING, Any, NamedTuple

from minilog.errors import CorruptionError, InvalidRecordError, UnsupportedFormatError
from minilog.records import Headers
from minilog.storage.checksum import crc32c

if TYPE_CHECKING:
    from json import JSONEncoder

FORMAT = 2
CODECS = 3  # the largest number of one
LARGEST_EPOCH = 2**32 - 1
LARGEST_OFFSET = 5 * 10**18 - 1  # no log comes so far; what claims to is no frame of ours
MAGIC = b"minilog\0"
HEADER_SIZE = 64
PREFIX_SIZE = 36
EXTENSION_SIZE = 24
CRC_SIZE = 4
SEAL_SIZE = PREFIX_SIZE + 16 + CRC_SIZE
SINGLE_OVERHEAD = PREFIX_SIZE + CRC_SIZE
NO_TIMESTAMP = -1

COLUMNS = 1
SEAL = 2
NULL_VALUE = 4
EXTENDED = 8
APPEND_TIME = 16
TRANSACTIONAL = 32
CONTROL = 64
KEYS = 128
FIXED_KEYS = 256
KEY_VALIDITY = 512
FIXED_VALUES = 1024
VALUE_VALIDITY = 2048
TIMESTAMPS = 4096
HEADERS = 8192
DELTAS = 16384

HEADER = Struct("<8sIIqqqI16s")
CLEANING = Struct("<qq")
PREFIX = Struct("<IiqqBBHII")
# The same 36 bytes as the short path of one packs them: what changes rarely is one string.
SHORT_PREFIX = Struct("<Iiqq12s")
PLAIN_PREFIX = Struct("<IiqqI8x")  # codec and flags are one number: 0 for the commonest record
NOT_SINGLE = (COLUMNS | SEAL) << 16  # in that number
NUMBERED_PREFIX = Struct("<Iiqq12sqqiI")  # with the extension of a named producer's record
CONTEXT = Struct("<BBHII")
EXTENSION = Struct("<qqiI")
TRANSACTION = Struct("<q")
LARGEST_EXTENSION = EXTENSION_SIZE + TRANSACTION.size
COMMITTED, ABORTED = b"C", b"A"  # what a control record says of its transaction
SEAL_TAIL = Struct("<qQ")
CRC = Struct("<I")
WHOLE = 0x48674BC7  # crc32c of a frame with its checksum, whatever the frame and the seed
HEADER_LENGTHS = Struct("<Ii")
BREAK = re.compile(rb"\n *")


class Prefix(NamedTuple):
    """What every frame begins with."""

    size: int
    extent: int  # single: length of the key; columns: offsets covered
    offset: int
    timestamp: int
    codec: int
    zero: int
    flags: int
    epoch: int
    durable: int

    @property
    def next_offset(self) -> int:
        """The offset after the last this frame covers."""
        if self.flags & COLUMNS:
            return self.offset + self.extent
        return self.offset if self.flags & SEAL else self.offset + 1

    @property
    def durable_position(self) -> int:
        """Bytes of this segment known synced when the frame was written."""
        return self.durable * 8


class Origin(NamedTuple):
    """Who wrote a frame: a named producer, a transaction, both or neither."""

    producer_id: int = -1
    sequence: int = -1  # of its first record
    producer_epoch: int = -1
    transaction: int = 0


NOBODY = Origin()


class SegmentHeader(NamedTuple):
    """What a segment says of itself."""

    base_offset: int
    durable_base: int
    created_ms: int
    epoch: int
    cleaned_to: int = 0
    tombstones_since: int = -1


class Seal(NamedTuple):
    """What a sealed segment says at its end."""

    end_offset: int
    largest_timestamp: int
    last_append_ms: int
    record_count: int


def aligned(size: int) -> int:
    """Return ``size`` rounded up to where the next frame may start."""
    return (size + 7) & -8


def seed_of(identity: bytes, base_offset: int) -> int:
    """Return the checksum seed of a segment."""
    return crc32c(base_offset.to_bytes(8, "little"), crc32c(identity))


def context_of(epoch: int, durable: int, flags: int = 0, codec: int = 0) -> bytes:
    """Return the last 12 bytes of a prefix; ``durable`` is in bytes."""
    return CONTEXT.pack(codec, 0, flags, epoch, durable // 8)


def checksum(frame: bytes, seed: int, position: int) -> bytes:
    """Return the four bytes that commit a frame to its place."""
    return CRC.pack(crc32c(frame, seed ^ position))


def encode_header(header: SegmentHeader) -> bytes:
    """Return a segment's first 64 bytes."""
    head = HEADER.pack(
        MAGIC,
        FORMAT,
        0,
        header.base_offset,
        header.durable_base,
        header.created_ms,
        header.epoch,
        CLEANING.pack(header.cleaned_to, header.tombstones_since + 1),
    )
    return head + CRC.pack(crc32c(head))


def decode_header(data: bytes, path: str) -> SegmentHeader:
    """Return what a segment says of itself; CorruptionError or UnsupportedFormatError."""
    if len(data) < HEADER_SIZE:
        raise CorruptionError("the segment's header is cut short", path=path)
    magic, version, _, base, durable_base, created, epoch, cleaning = HEADER.unpack_from(data)
    if magic != MAGIC or CRC.pack(crc32c(data[:60])) != data[60:HEADER_SIZE]:
        raise CorruptionError("the segment's header fails its checksum", path=path)
    if version > FORMAT:
        raise unsupported(path, version)
    cleaned_to, since = CLEANING.unpack(cleaning)
    return SegmentHeader(base, durable_base, created, epoch, cleaned_to, since - 1)


def encode_single(
    key: bytes | None,
    value: bytes | None,
    headers: bytes,
    offset: int,
    timestamp: int,
    epoch: int,
    durable: int,
    flags: int = 0,
    origin: Origin = NOBODY,
) -> bytes:
    """Return a frame of one record, but for its checksum."""
    extension = b""
    if value is None:
        flags |= NULL_VALUE
        value = b""
    if headers or origin is not NOBODY:
        flags |= EXTENDED
        *producer, transaction = origin
        extension = EXTENSION.pack(*producer, len(headers))
        if transaction:
            flags |= TRANSACTIONAL
            extension += TRANSACTION.pack(transaction)
    key_length = -1 if key is None else len(key)
    tail = b"".join((extension, key or b"", value, headers))
    size = SINGLE_OVERHEAD + len(tail)
    prefix = PREFIX.pack(size, key_length, offset, timestamp, 0, 0, flags, epoch, durable // 8)
    return prefix + tail


def decode_single(prefix: Prefix, frame: bytes) -> tuple[bytes | None, bytes | None, Headers]:
    """Return key, value and headers of a frame of one record."""
    start = PREFIX_SIZE
    stop = prefix.size - CRC_SIZE
    headers: Headers = ()
    if prefix.flags & EXTENDED:
        _, _, _, size = EXTENSION.unpack_from(frame, start)
        start += extension_size(prefix.flags)
        headers = decode_headers(frame[stop - size : stop])
        stop -= size
    key = None
    if prefix.extent >= 0:
        key = frame[start : start + prefix.extent]
        start += prefix.extent
    return key, None if prefix.flags & NULL_VALUE else frame[start:stop], headers


def extension_size(flags: int) -> int:
    """Return how many bytes of a single stand between its prefix and its key."""
    if not flags & EXTENDED:
        return 0
    return EXTENSION_SIZE + (TRANSACTION.size if flags & TRANSACTIONAL else 0)


def decode_origin(prefix: Prefix, frame: bytes) -> Origin:
    """Return who wrote a frame of one record; ``frame`` begins with it."""
    if not prefix.flags & EXTENDED:
        return NOBODY
    producer_id, sequence, epoch, _ = EXTENSION.unpack_from(frame, PREFIX_SIZE)
    transaction = 0
    if prefix.flags & TRANSACTIONAL:
        (transaction,) = TRANSACTION.unpack_from(frame, PREFIX_SIZE + EXTENSION_SIZE)
    return Origin(producer_id, sequence, epoch, transaction)


def encode_headers(headers: Headers) -> bytes:
    """Return the headers of one record as bytes; none is ``b""``."""
    pieces = []
    for name, value in headers:
        try:
            text = name.encode()
        except UnicodeEncodeError as error:
            raise InvalidRecordError(
                f"header name {name!r} is not valid text: it cannot be written as UTF-8 ({error})"
            ) from None
        length = -1 if value is None else len(value)
        pieces += [HEADER_LENGTHS.pack(len(text), length), text, value or b""]
    return b"".join(pieces)


def decode_headers(data: bytes) -> Headers:
    """Return the headers of one record; CorruptionError when these are none."""
    headers = []
    start = 0
    try:
        while start < len(data):
            name_length, value_length = HEADER_LENGTHS.unpack_from(data, start)
            start += HEADER_LENGTHS.size
            middle = start + name_length
            stop = middle + max(value_length, 0)
            value = None if value_length < 0 else data[middle:stop]
            headers.append((data[start:middle].decode(), value))
            start = stop
    except (StructError, UnicodeDecodeError):
        start = -1
    if start != len(data):
        raise CorruptionError(
            "they pass their checksum, but minilog did not write them", path="a record's headers"
        )
    return tuple(headers)


def encode_seal(seal: Seal, epoch: int, durable: int, seed: int, position: int) -> bytes:
    """Return the frame that ends a segment for good."""
    offset, timestamp, last_append, count = seal
    frame = PREFIX.pack(SEAL_SIZE, 0, offset, timestamp, 0, 0, SEAL, epoch, durable // 8)
    frame += SEAL_TAIL.pack(last_append, count)
    return frame + checksum(frame, seed, position)


def decode_seal(prefix: Prefix, frame: bytes) -> Seal:
    """Return what a sealed segment says at its end."""
    last_append, count = SEAL_TAIL.unpack_from(frame, PREFIX_SIZE)
    return Seal(prefix.offset, prefix.timestamp, last_append, count)


def is_plausible(fields: tuple[int, ...], room: int) -> bool:
    """Say whether a prefix could be one, before any of its sizes is believed.

    ``room`` is how many bytes the segment has from here on.
    """
    size, extent, offset, _, codec, zero, flags, _, _ = fields
    if size < SINGLE_OVERHEAD or size > room or zero or not 0 <= offset <= LARGEST_OFFSET:
        return False
    if codec and (codec > CODECS or not flags & COLUMNS or flags & SEAL):
        return False
    if not flags & (COLUMNS | SEAL | EXTENDED):
        return -1 <= extent <= size - SINGLE_OVERHEAD
    if flags & SEAL:
        return size == SEAL_SIZE and extent == 0
    if flags & COLUMNS:
        return extent > 0
    return -1 <= extent <= size - SINGLE_OVERHEAD - extension_size(flags)


# ---------------------------------------------------------------- small files, replaced whole


def encode_document(content: dict[str, Any]) -> bytes:
    """Return a small JSON file: the content, its format and its own checksum."""
    import json  # in functions, so that importing minilog stays quick

    content = {"format": FORMAT, **content}
    content["crc32c"] = crc32c(_canonical(content))
    return json.dumps(content, indent=1).encode() + b"\n"


def decode_document(data: bytes, path: str) -> dict[str, Any]:
    """Return a small JSON file's content; CorruptionError or UnsupportedFormatError."""
    import json

    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise CorruptionError("it is not the JSON minilog wrote", path=path) from None
    if not isinstance(content, dict):
        raise CorruptionError("it is not the JSON minilog wrote", path=path)
    version = content.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise unsupported(path, version)
    # As it was written, byte for byte, but for line breaks: rendering these too is eight times as
    # slow, and it is most of opening a log.
    compact = _encoder(is_sorted=False).encode(content).encode()
    is_as_written = data.endswith(b"\n}\n") and compact == BREAK.sub(b"", data)
    found = content.pop("crc32c", None)
    if not is_as_written or found != crc32c(_canonical(content)):
        raise CorruptionError("it fails its checksum: its bytes were changed", path=path)
    return content


def unsupported(path: str, version: int) -> UnsupportedFormatError:
    """Return the error for files that a newer version wrote."""
    return UnsupportedFormatError(
        f"{path} is of format {version}; this version of minilog reads up to {FORMAT}: "
        "use a newer one (the files are not damaged)",
        found=version,
        supported=FORMAT,
    )


def _canonical(content: dict[str, Any]) -> bytes:
    return _encoder(is_sorted=True).encode(content).encode()


@cache
def _encoder(*, is_sorted: bool) -> JSONEncoder:
    from json import JSONEncoder

    separators = (",", ":") if is_sorted else (",", ": ")
    return JSONEncoder(sort_keys=is_sorted, separators=separators)
