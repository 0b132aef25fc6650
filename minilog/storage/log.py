"""The segments of one partition: open, append, roll, read, drop, sync.

One caller at a time appends, rolls, drops and closes (I1); anybody reads, without a lock. The
segments and the one that is appended to are one tuple, swapped whole (I2).

This module refuses to know who else reads or writes, what time it is, and whether anybody waits.
"""

from __future__ import annotations

import contextlib
import re
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from minilog.config import TopicConfig
from minilog.errors import CorruptionError
from minilog.records import LATEST_TIMESTAMP, Rows
from minilog.storage import format as f
from minilog.storage.batch import Batch
from minilog.storage.files import Directory, MapLimit
from minilog.storage.reading import Tail, offset_at, read
from minilog.storage.recovery import (
    CleanMark,
    Problem,
    is_outdated,
    look_behind_damage,
    resume_clean,
    resume_unclean,
)
from minilog.storage.segment import Place, Segment, log_name
from minilog.storage.singles import Budget

LOOKS = 3  # how often a reader of another process's log lists its files before it says gap
SEGMENT_FILE = re.compile(r"(\d{20})\.log")


if TYPE_CHECKING:
    from sortedcontainers import SortedDict


class End(NamedTuple):
    """How far a log may be read: segment, position in it, and one past the last offset."""

    base_offset: int
    position: int
    next_offset: int


class Opening(NamedTuple):
    """How a log is opened.

    ``mark`` is what a clean close left, None after a crash; ``same_boot`` says that the machine
    has run on since the last writer; ``is_write_through`` that every append will be synced.
    """

    is_writable: bool = True
    mark: CleanMark | None = None
    same_boot: bool = False
    is_write_through: bool = False


class Log:
    """One partition's records, in segments."""

    def __init__(
        self,
        directory: Directory,
        identity: bytes,
        config: TopicConfig,
        maps: MapLimit,
        opening: Opening,
    ) -> None:
        self.directory = directory
        self.problems: list[Problem] = []
        self._place = Place(
            directory, identity, maps, opening.is_writable, opening.is_write_through
        )
        self._config = config
        self._epoch = 1
        segments = [Segment(self._place, base, config, 0) for base in self._bases()]
        if not segments:
            raise CorruptionError(
                "the log's files are gone; restore them from a copy, or delete the topic",
                path=directory.path,
            )
        if opening.is_writable:
            segments = self._recover(segments, opening)
        else:
            self._open_live(segments, opening.mark)
        self._durable_base = segments[-1].base_offset
        self._names_are_synced = True
        self._view = (_by_base(segments), segments[-1])
        # The tail segment's own short path, so that an append is one call downstairs.
        self.append_one = segments[-1].append_one

    @classmethod
    def create(cls, directory: Directory, identity: bytes, base_offset: int, now_ms: int) -> None:
        """Make the files of an empty log that begins at ``base_offset``; nothing is synced yet."""
        directory.make()
        place = Place(directory, identity, MapLimit(1), True)
        segment = Segment(place, base_offset, TopicConfig(), 1)
        segment.create(base_offset, now_ms)
        segment.unmap()

    @classmethod
    def fresh_mark(cls, base_offset: int) -> CleanMark:
        """Return the mark of a log that was just created."""
        return CleanMark(
            base_offset, f.HEADER_SIZE, base_offset, f.NO_TIMESTAMP, 0, 0, is_sealed=False
        )

    @staticmethod
    def looks_untouched(directory: Directory, mark: CleanMark) -> bool:
        """Say whether the last file is as large as a clean close left it."""
        stamp = directory.stamp(f"{log_name(mark.base_offset)}.log")
        return bool(stamp) and (mark.is_sealed or stamp[-1] == mark.position)

    def _bases(self) -> list[int]:
        matches = map(SEGMENT_FILE.fullmatch, self.directory.names())
        return sorted(int(match[1]) for match in matches if match)

    def _recover(self, segments: list[Segment], opening: Opening) -> list[Segment]:
        mark, last = opening.mark, segments[-1]
        if mark is None or is_outdated(mark, last):
            segments, epoch, problems = resume_unclean(
                segments, self.directory, opening.same_boot, mark
            )
            self.problems = problems
        else:
            epoch = mark.epoch
            if last.base_offset == mark.base_offset:
                self.problems = resume_clean(last, mark)
            else:
                reason = f"segment {mark.base_offset} was there when it was closed and is gone"
                last.freeze(last.file_size(), mark.next_offset)
                self.problems = [Problem(last.path, 0, mark.base_offset, reason)]
        self._epoch = epoch + 1
        for segment in segments:
            segment.set_epoch(self._epoch)
        return segments

    def _open_live(self, segments: list[Segment], mark: CleanMark | None) -> None:
        last = segments[-1]
        last.is_live = True
        if mark is not None and mark.base_offset == last.base_offset and not mark.is_sealed:
            last.resume((mark.position, mark.next_offset), mark.largest_timestamp, 0)
            if last.file_size() < mark.position:
                last.freeze(last.file_size(), mark.next_offset)
        elif mark is not None and mark.base_offset > last.base_offset:
            last.is_live = False  # it was closed, and its last segments are gone
            last.freeze(last.file_size(), mark.next_offset)
        else:
            last.skip_to_last_entry()
            look_behind_damage(last)

    # ------------------------------------------------------------ where it begins and ends

    @property
    def first_base(self) -> int:
        """The base offset of the first segment."""
        base: int = self._view[0].peekitem(0)[0]
        return base

    @property
    def end_offset(self) -> int:
        """One past the last offset."""
        return self._view[1].tail[1]

    def end(self) -> End:
        """Return how far it may be read now."""
        segment = self._view[1]
        position, next_offset = segment.tail
        return End(segment.base_offset, position, next_offset)

    @property
    def largest_timestamp(self) -> int:
        """The largest timestamp of the segment that is appended to."""
        return self._view[1].largest_timestamp

    def is_older_than(self, age_ms: int, now_ms: int) -> bool:
        """Say whether the segment that is appended to was begun so long ago."""
        tail = self._view[1]
        return not tail.is_empty and now_ms - tail.began_ms() >= age_ms

    def _loaded(self) -> list[Segment]:
        segments: list[Segment] = list(self._view[0].values())
        for segment, following in pairwise(segments):
            segment.open_sealed(following.base_offset)
        return segments

    # ------------------------------------------------------------ append

    def append_batch(self, batch: Batch, timestamp: int, now_ms: int) -> int:
        """Append a batch whose largest timestamp is given; return its first offset."""
        segment = self.make_room(batch.frame_bytes, now_ms)
        offset = segment.tail[1]
        segment.append_batch(batch, timestamp, now_ms)
        return offset

    def append_single(
        self, key: bytes | None, value: bytes | None, headers: bytes, timestamp: int, now_ms: int
    ) -> int:
        """Append one record of any shape; return its offset."""
        size = f.SINGLE_OVERHEAD + f.EXTENSION_SIZE + len(key or b"") + len(value or b"")
        segment = self.make_room(size + len(headers), now_ms)
        offset = segment.tail[1]
        segment.append_single(key, value, headers, timestamp, now_ms)
        return offset

    def make_room(self, size: int, now_ms: int) -> Segment:
        """Return the segment to append a frame of up to ``size`` bytes to, rolling if need be.

        OSError when there is no room, and then nothing has changed.
        """
        segment = self._view[1]
        if not segment.has_room(size):
            segment = self.roll(now_ms)
        segment.make_room(size, now_ms)
        self.append_one = segment.append_one  # again: a roll may have been interrupted before
        return segment

    def roll(self, now_ms: int) -> Segment:
        """Seal the tail segment and go on in a new one."""
        segments, tail = self._view
        if not tail.is_sealed:
            tail.seal()
        following = self._segment(tail.next_offset)
        durable_base = self._durable_base if self.is_dirty() else following.base_offset
        with contextlib.suppress(FileNotFoundError):  # left by a roll that was interrupted
            self.directory.unlink(f"{following.name}.log")
        following.create(durable_base, now_ms)
        if self._config.timestamp_type == "append" and tail.largest_timestamp < LATEST_TIMESTAMP:
            # Append time does not step back over an empty segment either; too large is harmless.
            following.largest_timestamp = tail.largest_timestamp
        self._names_are_synced = False
        grown = segments.copy()
        grown[following.base_offset] = following
        self._view = (grown, following)
        self.append_one = following.append_one
        return following

    def reconfigure(self, config: TopicConfig) -> None:
        """Go on with other settings."""
        self._config = config
        self._view[1].reconfigure(config)

    # ------------------------------------------------------------ durability

    def is_dirty(self) -> bool:
        """Say whether there is anything that was not synced."""
        tail = self._view[1]
        is_behind = self._durable_base < tail.base_offset or not self._names_are_synced
        return is_behind or tail.is_dirty()

    def sync(self) -> None:
        """Return when everything appended so far is on the disk: older segments first (3)."""
        segments, tail = self._view
        for base in segments.irange(self._durable_base):
            segments[base].sync()
        if not self._names_are_synced:
            self._names_are_synced = True  # before: a roll meanwhile makes new names
            try:
                self.directory.sync()
            except BaseException:
                self._names_are_synced = False
                raise
        self._durable_base = tail.base_offset

    def trim(self) -> None:
        """Give the reserve back, before the log is closed."""
        self._view[1].trim()

    def mark(self) -> CleanMark:
        """Return what is known of the log's end."""
        tail = self._view[1]
        return CleanMark(
            tail.base_offset,
            *tail.tail,
            tail.largest_timestamp,
            tail.last_append_ms,
            self._epoch,
            tail.is_sealed,
        )

    def unmap(self) -> None:
        """Let go of all maps until the next use."""
        for segment in self._view[0].values():
            segment.unmap()

    # ------------------------------------------------------------ read

    def read(self, offset: int, end: End, max_records: int, max_bytes: int) -> list[Rows]:
        """Return records from ``offset`` on, up to ``end``; the first one always.

        ``offset`` is within the log and before its end. CorruptionError when it is in damage.
        """
        segments, tail = self._view
        looks = 0 if self._place.is_writable else LOOKS
        found: list[Rows] = []
        while offset < end.next_offset and max_records > 0:
            if offset >= tail.base_offset:  # most reads are near the end: it is remembered
                segment, following = tail, None
            else:
                segment, following = self._floor(segments, offset)
            limit = self._limit(segment, following, end)
            if offset >= limit[1] or offset < segment.base_offset:
                if found:
                    break
                if looks and self._take_in(0):  # a listing may miss what is made meanwhile
                    looks -= 1
                    segments, tail = self._view
                    continue
                raise self._gap(segment, limit, following, offset)
            budget = Budget(max_records, max_bytes, is_first=not found)
            try:
                rows, max_bytes = read(segment.view(limit[0]), offset, limit, budget)
            except CorruptionError:
                if found:
                    break  # what is before the damage first; the next read meets it
                raise
            if not rows:
                break
            found += rows
            max_records -= sum(map(len, rows))
            offset = rows[-1].offsets[-1] + 1
            if offset < limit[1] or max_bytes <= 0:
                break
        return found

    @staticmethod
    def _floor(segments: SortedDict, offset: int) -> tuple[Segment, int | None]:
        """Return the segment that holds ``offset`` and the base of the one behind it."""
        number = segments.bisect_right(offset)
        segment: Segment = segments.peekitem(max(number - 1, 0))[1]
        following = segments.peekitem(number)[0] if number < len(segments) else None
        return segment, following

    @staticmethod
    def _limit(segment: Segment, following: int | None, end: End) -> Tail:
        if segment.base_offset >= end.base_offset:
            return end.position, end.next_offset
        if following is not None:
            segment.open_sealed(following)
        return segment.tail

    @staticmethod
    def _gap(segment: Segment, limit: Tail, following: int | None, offset: int) -> CorruptionError:
        is_before = offset < segment.base_offset
        return CorruptionError(
            "the segments that held these records are gone; restore them from a copy, or read "
            "on behind them",
            path=segment.path,
            position=0 if is_before else limit[0],
            offset=offset if is_before else limit[1],
            next_offset=segment.base_offset if is_before else following,
        )

    def offset_at(self, timestamp: int, lowest: int, end: End) -> int | None:
        """Return the first offset from ``lowest`` on whose timestamp is at least ``timestamp``."""
        segments = self._view[0]
        number = max(segments.bisect_right(lowest) - 1, 0)
        for base in segments.islice(number):
            segment, following = self._floor(segments, base)
            limit = self._limit(segment, following, end)
            if segment.largest_timestamp >= timestamp:
                found = offset_at(segment.view(limit[0]), timestamp, max(lowest, base), limit)
                if found is not None:
                    return found
            if following is None or base >= end.base_offset:
                break
        return None

    def record_count(self, lowest: int, end_offset: int) -> int:
        """Return how many records there are from ``lowest`` to ``end_offset``."""
        return end_offset - lowest

    # ------------------------------------------------------------ drop

    def leave_behind(self, offset: int, now_ms: int) -> None:
        """Go on in a new segment if ``offset`` is the end, so that all before can be dropped."""
        if offset == self.end_offset and self._view[1].base_offset < offset:
            self.roll(now_ms)

    def drop_before(self, offset: int) -> None:
        """Unlink the segments that end at or before ``offset``; what comes after is synced.

        Whoever reads them keeps their maps (I7). What cannot be unlinked goes another time.
        """
        segments, tail = self._view
        gone = [base for base, following in pairwise(segments) if following <= offset]
        if not gone:
            return
        kept = segments.copy()
        for base in gone:
            del kept[base]
        self._view = (kept, tail)
        self._durable_base = max(self._durable_base, kept.peekitem(0)[0])
        self._names_are_synced = False
        try:
            for base in gone:
                with contextlib.suppress(FileNotFoundError):
                    segments[base].remove()
        except OSError:
            self._view = (segments, tail)  # no gap, and the next call tries again
            with contextlib.suppress(OSError):
                present = set(self._bases())
                left = [segment for base, segment in segments.items() if base in present]
                self._view = (_by_base(left), tail)
            raise

    # ------------------------------------------------------------ another process's log

    def follow(self) -> None:
        """Take in what a writer in another process has appended, rolled and dropped since."""
        while True:
            try:
                if not self._follow_once():
                    return
            except FileNotFoundError:  # dropped between two looks; what came after is there
                if not self._take_in(0):
                    return

    def _follow_once(self) -> bool:
        """Follow the tail; True when it was sealed and the next segment is the tail now."""
        tail = self._view[1]
        if tail.is_live and not tail.follow():
            return False
        return self._take_in(tail.next_offset)

    def _take_in(self, lowest: int) -> bool:
        """Take in the segments on the disk from an offset on; True if there are any."""
        segments = self._view[0]
        bases = [lowest]
        if not lowest or not self._segment(lowest).exists():  # dropped, or not made yet
            bases = [base for base in self._bases() if base >= lowest]
        if not bases:
            return False
        taken = [self._segment(base) for base in bases]
        taken[-1].is_live = True
        if lowest != taken[-1].base_offset:
            taken[-1].skip_to_last_entry()
        known = [segments[base] for base in segments.irange(None, bases[0], (True, False))]
        self._view = (_by_base([*known, *taken]), taken[-1])
        return True

    def _segment(self, base_offset: int) -> Segment:
        return Segment(self._place, base_offset, self._config, self._epoch)

    def forget_missing(self) -> None:
        """Leave out the segments whose files a writer in another process has unlinked."""
        segments = self._view[0]
        present = set(self._bases())
        kept = _by_base([s for base, s in segments.items() if base in present])
        if kept:
            self._view = (kept, kept.peekitem(-1)[1])

    # ------------------------------------------------------------ invariants

    def check(self) -> None:
        """Assert that the segments tile the offsets and that the tail is the last of them."""
        segments, tail = self._view
        assert segments.peekitem(-1)[1] is tail, "the tail is not the last segment"
        loaded = self._loaded()
        for segment, following in pairwise(loaded):
            assert segment.is_sealed, f"{segment.path} is not sealed, and another follows"
            assert segment.next_offset == following.base_offset, f"a gap after {segment.path}"
        for segment in loaded:
            segment.check()


def _by_base(segments: list[Segment]) -> SortedDict:
    """Return segments by their base offset."""
    from sortedcontainers import SortedDict  # 5 ms, of the 30 that importing minilog may take

    return SortedDict((segment.base_offset, segment) for segment in segments)
