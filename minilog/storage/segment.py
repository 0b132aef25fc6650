"""A segment: one .log file and its indexes; append, seal, sync, and look at it.

The tail is one tuple (position, next offset), published by one assignment after the bytes (I2):
readers take it and need no lock. Appends are the business of one caller at a time (I1).

A segment is *sealed* when its last frame is a seal; then it never changes (I4). Before that its
file has zeros reserved behind the tail. The map may be let go at any moment and is taken again at
the next use; a reader's own reference keeps what it reads (I7).

This module refuses to know its neighbours, and what to do about damage: it raises.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from minilog.config import TopicConfig
from minilog.errors import CorruptionError
from minilog.records import LATEST_TIMESTAMP
from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.batch import Batch, encode_frame
from minilog.storage.columns import ColumnsFrame, record_count
from minilog.storage.files import (
    ZEROS,
    Directory,
    File,
    FileRegion,
    MapLimit,
    Region,
    out_of_descriptors,
)
from minilog.storage.index import LARGEST_RELATIVE, Index
from minilog.storage.memory import MemoryDirectory
from minilog.storage.view import Tail, View

FIRST_RESERVE = 64 * 1024
LARGE_WRITE = 64 * 1024  # from here one pwrite beats a store: it need not fault pages in
LARGEST_FILE = 2**32  # a position is 32 bits
CLOSED = -1
SEGMENT_FILE = re.compile(r"(0[0-4][0-9]{18})\.log")  # up to the largest offset


class Start(NamedTuple):
    """Where a scan may begin, and what is known of all before."""

    position: int
    offset: int
    largest_timestamp: int
    durable: int


class Place(NamedTuple):
    """What the segments of one log share."""

    directory: Directory
    identity: bytes
    maps: MapLimit
    is_writable: bool
    # Where every append is synced, a pwrite into reserved space is: 90 us with its sync, against
    # 165 for a store into touched pages, which each sync makes fault anew.
    is_write_through: bool = False


def log_name(base_offset: int) -> str:
    """Return the stem of a segment's file names."""
    return f"{base_offset:020d}"


class Segment:
    """One segment of a log."""

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
        self.is_cleaned = False  # compaction has just put it for others
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
        self.reconfigure(config)

    # ------------------------------------------------------------ making and opening

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
        return self._mapped_file(file, file.size()) if is_writable else file.map(file.size())

    def _mapped_file(self, file: File, size: int) -> Region:
        return FileRegion(file, size) if self._place.is_write_through else file.map(size)

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

    # ------------------------------------------------------------ append

    def _set_context(self) -> None:
        """Have the short paths write what is known now of the writer and of what is synced."""
        self.context = f.context_of(self._epoch, self.durable)
        self.numbered_context = f.context_of(self._epoch, self.durable, f.EXTENDED)

    def append_frame(
        self, frame: bytes, position: int, next_offset: int, timestamp: int, now_ms: int
    ) -> None:
        """Store a whole frame at the tail, where ``make_room`` has made room for it."""
        offset = self.tail[1]
        end = position + len(frame)
        self.largest_timestamp = max(timestamp, self.largest_timestamp)
        self.last_append_ms = now_ms
        try:
            if len(frame) >= LARGE_WRITE and self._file is not None:
                self._file.write(position, frame)
            else:
                self.region()[position:end] = frame
            self.tail = (f.aligned(end), next_offset)
        except BaseException as error:
            self.settle(position, offset, error)
            raise

    def append_batch(
        self, batch: Batch, timestamp: int, now_ms: int, origin: f.Origin = f.NOBODY
    ) -> None:
        """Append a batch, where ``make_room`` has made room for it."""
        position, offset = self.tail
        flags = batch.flags | self._flags | (f.TRANSACTIONAL if origin.transaction else 0)
        context = f.context_of(self._epoch, self.durable, flags, batch.codec)
        frame = encode_frame(batch, offset, timestamp, context, self.seed, position, origin)
        self.append_frame(frame, position, offset + batch.record_count, timestamp, now_ms)

    def append_single(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: bytes,
        timestamp: int,
        now_ms: int,
        origin: f.Origin = f.NOBODY,
        flags: int = 0,
    ) -> None:
        """Append one record of any shape, where ``make_room`` has made room for it."""
        position, offset = self.tail
        flags |= self._flags
        frame = f.encode_single(
            key, value, headers, offset, timestamp, self._epoch, self.durable, flags, origin
        )
        frame += f.checksum(frame, self.seed, position)
        self.append_frame(frame, position, offset + 1, timestamp, now_ms)

    def settle(self, position: int, offset: int, error: BaseException) -> None:
        """After an interrupt in the middle of an append: the frame is in if all of it is; after
        an error of the disk it never is, as the caller is told that nothing was appended."""
        if self.tail[0] != position:
            return
        if isinstance(error, OSError):
            self._wipe(position)
            return
        region = self.region()
        prefix = scan.prefix_at(region, position, len(region))
        is_ours = prefix is not None and prefix.offset == offset and not prefix.flags & f.SEAL
        if is_ours and prefix is not None and scan.is_whole(region, prefix, position, self.seed):
            self.tail = (position + f.aligned(prefix.size), prefix.next_offset)

    def _wipe(self, position: int) -> None:
        """Zero what a failed write has left behind the tail (I5); a shorter frame would not cover
        it. Where that fails too, it is told as torn when the log is opened after a crash."""
        with contextlib.suppress(OSError):
            region = self.region()
            used = scan.last_used(region, position, len(region))
            if used > position:
                region[position:used] = bytes(used - position)

    def has_room(self, size: int) -> bool:
        """Say whether a frame of ``size`` bytes belongs here; a lone one always does."""
        position, offset = self.tail
        if self.is_sealed or offset - self.base_offset >= LARGEST_RELATIVE:
            return False
        fits = position + f.aligned(size) + f.SEAL_SIZE <= self._config.segment_bytes
        return fits or position == f.HEADER_SIZE

    def make_room(self, size: int, now_ms: int) -> None:
        """Have space reserved and pages touched for a frame of ``size`` bytes, and an index entry
        where one is due; OSError when there is no room, and then nothing has changed."""
        position, offset = self.tail
        end = position + f.aligned(size)
        if position == f.HEADER_SIZE:
            self._began_ms = now_ms
        self._reserve(end + f.SEAL_SIZE)
        if end > self.index_due:
            self.add_index_entry(position, offset, end)
        if end > self._filled and size < LARGE_WRITE and not self._place.is_write_through:
            self._touch(end)
        if self._place.is_write_through:
            self._filled = len(self.region())
        self._filled = max(end, self._filled)
        self.limit = self._filled

    def writable_file(self) -> File:
        """Return the file, open for writing."""
        file = self._file
        if file is None:
            file = self._place.directory.open(f"{self.name}.log", writable=True)
        return file

    def _reserve(self, needed: int) -> None:
        """Have at least ``needed`` bytes reserved: in steps that double, as most logs are small."""
        region = self.region()
        if needed <= len(region):
            return
        step = min(max(2 * len(region), FIRST_RESERVE), self._config.segment_bytes)
        size = max(needed, step)
        file = self.writable_file()
        file.reserve(size)
        self.mapped = self._mapped_file(file, size)
        self._file = file
        self.look = None

    def _touch(self, end: int) -> None:
        """Write zeros ahead: 0.4 us a page, where a store's own page fault costs 2.7."""
        start = max(self._filled, self.tail[0])
        ahead = min(start + len(ZEROS), self._config.segment_bytes)  # memory comes in whole pages
        stop = min(len(self.region()), max(end, ahead))
        self.writable_file().write(start, ZEROS[: stop - start])
        self._filled = stop

    def add_index_entry(self, position: int, offset: int, end: int) -> None:
        """Add the entry that is due for a frame that will end at ``end``."""
        if offset != self.base_offset:  # the start needs none
            if self._index is None:
                self.reindex()
                assert self._index is not None
            largest = max(self.largest_timestamp, 0)
            self._index.append(offset - self.base_offset, position, largest)
        self.index_due = max(end, position + self._config.index_interval_bytes)

    def seal(self) -> None:
        """End the segment for good: a last frame says what is in it, the reserve goes."""
        position, next_offset = self.tail
        end = position + f.SEAL_SIZE
        self._reserve(end)
        count = next_offset - self.base_offset
        seal = f.Seal(next_offset, self.largest_timestamp, self.last_append_ms, count)
        frame = f.encode_seal(seal, self._epoch, self.durable, self.seed, position)
        try:
            self.region()[position:end] = frame
            self._give_back(end)
            if self._index is not None:
                self._index.cut_behind(position - 1)  # an interrupted append left its entry
                self._index.trim()
        except OSError:
            self._wipe(position)
            raise
        self._sealed_count = count
        self.is_sealed = True

    def finish_seal(self) -> None:
        """Do what a crash has left undone after the seal was written: cut the files."""
        end = self.tail[0] + f.SEAL_SIZE
        self.writable_file().trim(end)
        self.reindex()
        assert self._index is not None
        self._index.trim()
        self.unmap()

    def trim(self) -> None:
        """Give the reserve back, before the log is closed."""
        if not self.is_sealed:
            self._give_back(self.tail[0])
            if self._index is not None:
                self._index.cut_behind(self.tail[0] - 1)
                self._index.trim()

    def _give_back(self, end: int) -> None:
        # The map goes first: nobody may store behind what the file still has.
        file = self.writable_file()
        self.limit = CLOSED
        self.mapped = None
        self._filled = 0
        size = file.size()
        if size > end:
            file.trim(end)
        elif size < end:  # nothing could be reserved, so the last frame lacks its padding
            file.write(size, ZEROS[: end - size])

    def sync(self) -> None:
        """Return when everything up to the present tail is on the disk."""
        position = self._end_position()
        self.writable_file().sync()
        self.durable = max(position, self.durable)
        self._set_context()

    def sync_index(self) -> None:
        """Return when the index is on the disk, if there is one."""
        Index(self._place.directory, self.name, self.seed).sync()

    def take_as_synced(self) -> None:
        """Know that everything up to the present tail is on the disk."""
        self.durable = self._end_position()

    def _end_position(self) -> int:
        return self.tail[0] + (f.SEAL_SIZE if self.is_sealed else 0)

    def follow(self) -> bool:
        """Take in what another process has appended since; True when the segment was sealed."""
        region = self.region()
        position, due = self.tail
        for start, prefix in scan.walk(region, position, due, self.file_size(), self.seed):
            if prefix.flags & f.SEAL:
                self.accept_seal(start, prefix, region)
                return True
            self.largest_timestamp = max(self.largest_timestamp, prefix.timestamp)
            self.tail = (start + f.aligned(prefix.size), prefix.next_offset)
        return False

    def skip_to_last_entry(self) -> None:
        """Take the last index entry for the tail of a live segment; ``follow`` goes on there."""
        start = self.trusted_start(same_boot=True)
        self.tail = (start.position, start.offset)
        self.largest_timestamp = start.largest_timestamp

    def exists(self) -> bool:
        """Say whether the file is there."""
        return bool(self._place.directory.stamp(f"{self.name}.log"))

    def remove(self) -> None:
        """Unlink the files; whoever maps them keeps them."""
        directory = self._place.directory
        directory.unlink(f"{self.name}.log")
        Index(directory, self.name, self.seed).remove()

    def set_epoch(self, epoch: int) -> None:
        """Write frames under this writer epoch from now on."""
        self._epoch = epoch
        self._set_context()

    def check(self) -> None:
        """Assert that every frame up to the tail is whole and that they tile the offsets."""
        position, due = f.HEADER_SIZE, self.base_offset
        largest, count = f.NO_TIMESTAMP, 0
        region = self.region()
        for start, prefix in scan.walk(region, position, due, self.tail[0], self.seed):
            position, due = start + f.aligned(prefix.size), prefix.next_offset
            largest = max(largest, prefix.timestamp)
            count += record_count(prefix, region, start)
        assert (position, due) == self.tail, f"{self.path}: {(position, due)}, not {self.tail}"
        is_counted = not self.is_sealed or count == self.record_count
        assert is_counted, f"{self.path}: {count} records, not {self.record_count}"
        assert largest <= self.largest_timestamp, f"{self.path}: a timestamp beyond the largest"

    def is_dirty(self) -> bool:
        """Say whether there is something that was not synced."""
        return self.durable < self._end_position()

    def reconfigure(self, config: TopicConfig) -> None:
        """Go on with other settings."""
        self._config = config
        self._flags = f.APPEND_TIME if config.timestamp_type == "append" else 0

    # ------------------------------------------------------------ read

    def origins(self, lowest: int) -> Iterator[tuple[f.Origin, int, int]]:
        """Yield who wrote each frame, its first offset and how many records it was written with,
        from the frame at ``lowest`` on, for those that say who."""
        region = self._mapped(self._map_to_read)
        frames = scan.walk(region, f.HEADER_SIZE, self.base_offset, self.tail[0], self.seed)
        for position, prefix in frames:
            if prefix.offset < lowest or prefix.flags & (f.SEAL | f.CONTROL):
                continue
            if prefix.flags & f.COLUMNS:
                frame = ColumnsFrame(prefix, region, position)
                is_whole = not prefix.flags & f.DELTAS  # else compaction has made it
                if is_whole and frame.is_sound and frame.origin != f.NOBODY:
                    yield frame.origin, prefix.offset, frame.count
            elif prefix.flags & f.EXTENDED:
                stop = position + f.PREFIX_SIZE + f.extension_size(prefix.flags)
                yield f.decode_origin(prefix, region[position:stop]), prefix.offset, 1

    def view(self, end: int) -> View:
        """Return a look at the segment that reaches at least to position ``end``.

        Any thread may ask; what the writer maps is looked at where it is there, else the file is
        mapped anew, which the writer never sees.
        """
        view, region = self.look, self.mapped
        if self._place.is_write_through:
            region = None  # reading by map is faster than through that
        is_mapped = region is not None and len(region) >= end
        if view is not None and (view.region is region if is_mapped else len(view.region) >= end):
            return view  # not an older map though it is large enough: memory grows by copying
        if not is_mapped:
            region = self._mapped(self._map_to_read)
        assert region is not None
        index = self._index
        if index is None:
            index = self._index = self._open_index()
        view = self.look = View(region, index, self.base_offset, self.seed, self.path)
        return view

    # ------------------------------------------------------------ index

    def _open_index(self) -> Index:
        """Return the index on the disk; where it is missing, one made from the log (I3).

        What readers make stays in memory: they take no lock, so they write no files.
        """
        place = self._place
        index = Index.open(place.directory, self.name, self.seed)
        if index is None:
            index = Index(MemoryDirectory(), self.name, self.seed)
            self.index_frames(index, Start(f.HEADER_SIZE, self.base_offset, f.NO_TIMESTAMP, 0))
        return index

    def forget_index(self, *, unlink: bool = False) -> None:
        """Look for the index anew at the next use; ``unlink``: there is to be none until then."""
        self.look = None
        self._index = None
        if unlink:
            Index(self._place.directory, self.name, self.seed).remove()

    def ensure_index(self) -> None:
        """Have the index that appends go on with; made anew if it is missing."""
        directory = self._place.directory
        index = Index.open(directory, self.name, self.seed)
        if index is None and self.tail[0] > f.HEADER_SIZE + self._config.index_interval_bytes:
            try:
                self.reindex()
            except OSError:  # no room for one: a read may have asked, and does without (I3)
                self._index = self._open_index()
            return
        self._index = index or Index(directory, self.name, self.seed)
        last = self._index.floor_below(LARGEST_FILE)
        last_position = f.HEADER_SIZE if last is None else last[1]
        self.index_due = last_position + self._config.index_interval_bytes

    def trusted_start(self, same_boot: bool, below: int = LARGEST_FILE) -> Start:
        """Return from where recovery must scan, looking at what lies ``below`` a position.

        That is the last index entry below what is known to be synced, or, when only the process
        died, simply the last entry; either is believed only if its frame is whole.
        """
        region, size = self.region(), self.file_size()
        index = Index.open(self._place.directory, self.name, self.seed)
        durable = f.HEADER_SIZE
        while index is not None:
            entry = index.floor_below(below)
            if entry is None:
                break
            relative, position, largest = entry
            prefix = scan.prefix_at(region, position, size)
            if (
                prefix is not None
                and prefix.offset == self.base_offset + relative
                and scan.is_whole(region, prefix, position, self.seed)
            ):
                durable = max(durable, prefix.durable_position)
                if same_boot or position <= durable:
                    return Start(position, prefix.offset, largest, durable)
                below = durable + 1
            else:
                below = position
        return Start(f.HEADER_SIZE, self.base_offset, f.NO_TIMESTAMP, durable)

    def mend_index(self) -> None:
        """Have the index that appends go on with, after a close that did not sync it."""
        try:
            self.reindex()
            assert self._index is not None
            self._index.trim()
        except OSError:  # a read may have asked, and does without (I3)
            self._index = self._open_index()

    def reindex(self) -> None:
        """Make the index on the disk agree with a log that ends at the present tail.

        After a crash any of its entries may be missing or garbage: then it is made anew.
        """
        directory = self._place.directory
        start = self.trusted_start(same_boot=True, below=self.tail[0])
        index = Index.open(directory, self.name, self.seed)
        if index is None or not index.keep_through(start.position):
            index = Index(directory, self.name, self.seed)
            index.remove()
            start = Start(f.HEADER_SIZE, self.base_offset, f.NO_TIMESTAMP, 0)
        self._index = index
        self.index_frames(index, start)

    def index_frames(self, index: Index, start: Start) -> None:
        """Add entries for the frames from ``start`` on, as appending them would have."""
        interval = self._config.index_interval_bytes
        self.index_due = start.position + interval
        largest = start.largest_timestamp
        frames = scan.walk(self.region(), start.position, start.offset, self.tail[0], self.seed)
        for position, prefix in frames:
            end = position + f.aligned(prefix.size)
            if end > self.index_due and position > start.position:
                index.append(prefix.offset - self.base_offset, position, max(largest, 0))
                self.index_due = max(end, position + interval)
            largest = max(largest, prefix.timestamp)
