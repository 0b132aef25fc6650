"""A segment's files: made, opened, mapped, told what they say of themselves.

The tail is one tuple (position, next offset), published by one assignment after the bytes (I2):
readers take it and need no lock. A segment is *sealed* when its last frame is a seal; then it never
changes (I4). The map may be let go at any moment and is taken again at the next use; a reader's own
reference keeps what it reads (I7).

This module refuses to know what is appended, and what the index is for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from minilog.config import TopicConfig
from minilog.errors import CorruptionError
from minilog.records import LATEST_TIMESTAMP
from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.files import (
    Directory,
    File,
    FileRegion,
    MapLimit,
    Region,
    out_of_descriptors,
)
from minilog.storage.index import Index
from minilog.storage.view import Tail, View

LARGEST_FILE = 2**32  # a position is 32 bits
CLOSED = -1
SEGMENT_FILE = re.compile(r"(0[0-4][0-9]{18})\.log")  # up to the largest offset


class Place(NamedTuple):
    """What the segments of one log share."""

    directory: Directory
    identity: bytes
    maps: MapLimit
    is_writable: bool
    # Where every append is synced, no page is touched ahead: a store into one that was, and its
    # sync, take 150 us, into a new one 85. So does a pwrite, but it lets go of the GIL in the
    # middle of an append, and 16 threads that share syncs then keep half their rate.
    is_each_synced: bool = False


def log_name(base_offset: int) -> str:
    """Return the stem of a segment's file names."""
    return f"{base_offset:020d}"


def missing_path(directory: Directory, offset: int, *, is_base: bool) -> str:
    """Return the path of the file that should hold an offset; where that is not known to be the
    base of its segment, the directory's."""
    return f"{directory.path}/{log_name(offset)}.log" if is_base or not offset else directory.path


class SegmentFiles:
    """The files of one segment, and where it ends."""

    def __init__(self, place: Place, base_offset: int, config: TopicConfig, epoch: int) -> None:
        self.base_offset = base_offset
        self.name = log_name(base_offset)
        self.seed = f.seed_of(place.identity, base_offset)
        self.tail: Tail = (f.HEADER_SIZE, base_offset)
        self.largest_timestamp = f.NO_TIMESTAMP
        self.last_append_ms = 0
        self._began_ms: int | None = None
        self.is_sealed = False
        self.is_frozen = False  # there is damage: what is not here is not known
        self.gone_from: int | None = None  # from here on in it, as files behind it are missing
        self.is_cleaned = False  # compaction has just put it for others
        self.is_packed = False  # to re-pack it is not worth a look any more
        self.is_live = False  # read by pread: another process may be writing it
        self._sealed_count = 0
        self._cleaning: tuple[int, int] | None = None
        self.durable = 0  # bytes known synced
        self._place = place
        self._epoch = epoch
        self._set_context()
        self.limit = CLOSED  # where the short path of append must stop and somebody has to look
        self._filled = 0  # pages up to here were touched
        self.index_due = f.HEADER_SIZE
        self.mapped: Region | None = None  # taken away after the limit was
        self._file: File | None = None
        self._index: Index | None = None
        self.look: View | None = None  # the last view of it
        self.layout = 0  # another when bytes may have moved: memory grows, and is cut, by copying
        self.reconfigure(config)

    @property
    def directory(self) -> Directory:
        """The directory of the log."""
        return self._place.directory

    @property
    def path(self) -> str:
        """Where the file is, for messages."""
        return f"{self._place.directory.path}/{self.name}.log"

    @property
    def next_offset(self) -> int:
        """One past the last offset in it."""
        return self.tail[1]

    @property
    def is_empty(self) -> bool:
        """Whether no frame was appended yet."""
        return self.tail[0] == f.HEADER_SIZE

    def began_ms(self) -> int:
        """Return when its first record came, or for one that was reopened, when it was made."""
        if self._began_ms is None:
            try:
                self._began_ms = self.header().created_ms
            except CorruptionError:
                self._began_ms = self.last_append_ms
        return self._began_ms

    def create(self, durable_base: int, now_ms: int) -> None:
        """Make the file, with its header; OSError leaves nothing behind."""
        directory = self._place.directory
        file = directory.create(f"{self.name}.log")
        try:
            self.write_header(file, durable_base, now_ms)
        except BaseException:
            file.close()
            directory.unlink(f"{self.name}.log")
            raise
        self.last_append_ms = now_ms
        self._began_ms = now_ms
        self._file = file
        self._index = Index(directory, self.name, self.seed)

    def write_header(self, file: File, durable_base: int, now_ms: int) -> None:
        """Write what the file says of itself."""
        header = f.SegmentHeader(self.base_offset, durable_base, now_ms, self._epoch)
        file.write(0, f.encode_header(header))

    def header(self) -> f.SegmentHeader:
        """Return what the file says of itself; CorruptionError, UnsupportedFormatError."""
        return f.decode_header(self.region()[0 : f.HEADER_SIZE], self.path)

    def read_header(self) -> f.SegmentHeader:
        """Return the same without mapping the file."""
        return f.decode_header(self.open_file().read(0, f.HEADER_SIZE), self.path)

    def load_seal(self) -> bool:
        """Take the tail from the seal at the end of the file; False when there is none.

        The file is not mapped for it: ten thousand segments are judged in a second.
        """
        file = self.open_file()
        position = file.size() - f.SEAL_SIZE
        if position < f.HEADER_SIZE or position % 8:
            return False
        frame = file.read(position, f.SEAL_SIZE)
        prefix = scan.prefix_of(frame, 0, f.SEAL_SIZE)
        if prefix is None or not prefix.flags & f.SEAL:
            return False
        if f.checksum(frame[: -f.CRC_SIZE], self.seed, position) != frame[-f.CRC_SIZE :]:
            return False
        self._believe(position, f.decode_seal(prefix, frame))
        return True

    def open_file(self) -> File:
        """Return the file, open for reading; where descriptors ran out, maps are let go."""
        name = f"{self.name}.log"
        try:
            return self._place.directory.open(name)
        except OSError as error:
            if not (out_of_descriptors(error) and self._place.maps.relieve()):
                raise
            return self._place.directory.open(name)

    def writable_file(self) -> File:
        """Return the file, open for writing."""
        file = self._file
        if file is None:
            file = self._place.directory.open(f"{self.name}.log", writable=True)
        return file

    def open_sealed(self, next_base: int) -> None:
        """Take the tail of a segment that another follows, from the seal or, where that is gone,
        from the file's size and the next segment's base; what is missing shows when it is read."""
        if self.is_sealed:
            return
        if self.load_seal():
            return
        # Not at its end: a crash may have brought the reserve back. Walk to it.
        region = self._mapped(self._map_to_read)
        frames = scan.walk(region, f.HEADER_SIZE, self.base_offset, len(region), self.seed)
        for position, prefix in frames:
            if prefix.flags & f.SEAL:
                self.accept_seal(position, prefix, region)
                return
        self.freeze(self.file_size(), next_base)

    def freeze(self, position: int, next_offset: int) -> None:
        """Take this tail and never append here again: there is damage that must stay as it is."""
        self.largest_timestamp = LATEST_TIMESTAMP  # not known, so nothing may skip this segment
        self.limit = CLOSED
        self.mapped = None
        self.tail = (position, next_offset)
        self.is_frozen = True
        self.is_sealed = True
        self.take_as_synced()  # what is lost is lost, the rest was read from the disk

    def end_in_gap(self, base_offset: int, next_offset: int) -> int:
        """End where the log did, whose segments behind this one, the last of them of that base,
        are missing; return the first offset that is."""
        self.open_sealed(base_offset)
        first = self.gone_from = self.next_offset
        self.freeze(self.file_size(), next_offset)
        return first

    def resume(self, tail: Tail, largest_timestamp: int, last_append_ms: int) -> None:
        """Take a tail that is known to be right and go on appending there."""
        self.largest_timestamp = largest_timestamp
        self.last_append_ms = last_append_ms
        self.tail = tail

    def file_size(self) -> int:
        """Return the size of the file, reserve included."""
        file = self._file or self._place.directory.open(f"{self.name}.log")
        return file.size()

    def accept_seal(self, position: int, prefix: f.Prefix, region: Region) -> None:
        """Believe a seal that was found whole at ``position``."""
        self._believe(position, f.decode_seal(prefix, region[position : position + f.SEAL_SIZE]))

    def _believe(self, position: int, seal: f.Seal) -> None:
        self.largest_timestamp = seal.largest_timestamp
        self.last_append_ms = seal.last_append_ms
        # Never more than there are offsets, whatever it says.
        self._sealed_count = min(seal.record_count, max(seal.end_offset - self.base_offset, 0))
        self.tail = (position, seal.end_offset)
        self.is_sealed = True
        if self.is_live:
            self.is_live = False
            self.mapped = None  # by map from now on

    def take_over(
        self, position: int, seal: f.Seal, cleaning: tuple[int, int], index: Index | None
    ) -> None:
        """Be the segment that compaction has written: its seal, what its header says, and an
        index in memory until there is one on the disk."""
        self._believe(position, seal)
        self._cleaning = cleaning
        self._index = index
        self.durable = position
        self.is_cleaned = True

    @property
    def record_count(self) -> int:
        """How many records are in it; of one that is damaged, as many as there were offsets."""
        if self.is_sealed and not self.is_frozen:
            return self._sealed_count
        return self.tail[1] - self.base_offset

    @property
    def is_dense(self) -> bool:
        """Whether every offset in it has its record."""
        return self.record_count == self.tail[1] - self.base_offset

    @property
    def size_bytes(self) -> int:
        """Bytes that are used, reserve not included."""
        return self.tail[0] + (f.SEAL_SIZE if self.is_sealed and not self.is_frozen else 0)

    @property
    def latest_ms(self) -> int:
        """What its age is told by: the largest timestamp, but not beyond the last append, so
        that a timestamp in the future does not hold it for ever."""
        return min(self.largest_timestamp, self.last_append_ms)

    @property
    def cleaning(self) -> tuple[int, int]:
        """What its header says of compaction: cleaned to (0: never), and tombstones since (-1)."""
        if self._cleaning is None:
            header = self.read_header()
            self._cleaning = (header.cleaned_to, header.tombstones_since)
        return self._cleaning

    @property
    def is_clean(self) -> bool:
        """Whether every record in it was compacted."""
        return self.cleaning[0] >= self.next_offset

    def is_of_compaction(self) -> bool:
        """Say whether compaction has made it; a header that is damaged says nothing."""
        try:
            return bool(self.cleaning[0])
        except CorruptionError:
            return False

    def region(self) -> Region:
        """Return the file's bytes for the one caller who may write them or opens the log."""
        region = self.mapped
        if region is None:
            region = self.mapped = self._mapped(self._map)
        return region

    def _map(self) -> Region:
        is_writable = self._place.is_writable and not self.is_sealed
        file = self._file or self._place.directory.open(f"{self.name}.log", writable=is_writable)
        if is_writable or self.is_live:
            self._file = file
        if self.is_live:
            return FileRegion(file, LARGEST_FILE)
        # Whoever only reads takes all there is at once: a writer may be trimming the file.
        return file.map(file.size() if is_writable else 0)

    def _map_to_read(self) -> Region:
        if self.is_live:
            return self.region()
        return self._place.directory.open(f"{self.name}.log").map(0)

    def _mapped(self, map_it: Callable[[], Region]) -> Region:
        try:
            region = map_it()
        except OSError as error:
            if not (out_of_descriptors(error) and self._place.maps.relieve()):
                raise
            region = map_it()
        self._place.maps.admit(self)
        return region

    def unmap(self) -> None:
        """Let go of maps and descriptors until the next use."""
        self.limit = CLOSED
        self.look = None
        self.mapped = None
        self._file = None
        if self._index is not None:
            self._index.unmap()

    def exists(self) -> bool:
        """Say whether the file is there."""
        return bool(self._place.directory.stamp(f"{self.name}.log"))

    def remove(self) -> None:
        """Unlink the files; whoever maps them keeps them."""
        directory = self._place.directory
        directory.unlink(f"{self.name}.log")
        Index(directory, self.name, self.seed).remove()

    def take_as_synced(self) -> None:
        """Know that everything up to the present tail is on the disk."""
        self.durable = self._end_position()

    def _end_position(self) -> int:
        return self.tail[0] + (f.SEAL_SIZE if self.is_sealed else 0)

    def set_epoch(self, epoch: int) -> None:
        """Write frames under this writer epoch from now on."""
        self._epoch = epoch
        self._set_context()

    def _set_context(self) -> None:
        """Have the short paths write what is known now of the writer and of what is synced."""
        self.context = f.context_of(self._epoch, self.durable)
        self.numbered_context = f.context_of(self._epoch, self.durable, f.EXTENDED)
        flags = f.EXTENDED | f.TRANSACTIONAL
        self.transactional_context = f.context_of(self._epoch, self.durable, flags)

    def reconfigure(self, config: TopicConfig) -> None:
        """Go on with other settings."""
        self._config = config
        self._flags = f.APPEND_TIME if config.timestamp_type == "append" else 0
