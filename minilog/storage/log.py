"""The segments of one partition: open, append, roll, read, drop, sync.

One caller at a time appends, rolls, drops and closes (I1); anybody reads, without a lock. The
segments and the one that is appended to are one tuple, swapped whole (I2).

This module refuses to know who else reads or writes, what time it is, and whether anybody waits.
"""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice, pairwise, zip_longest
from typing import TYPE_CHECKING, NamedTuple

from minilog.config import TopicConfig
from minilog.errors import ConfigError, CorruptionError, SyncFailedError
from minilog.records import LATEST_TIMESTAMP, Rows
from minilog.storage import format as f
from minilog.storage.batch import Batch
from minilog.storage.files import UNFINISHED, Directory, MapLimit
from minilog.storage.index import Index
from minilog.storage.reading import count_from, offset_at, read
from minilog.storage.recovery import (
    CleanMark,
    Problem,
    is_outdated,
    look_behind_damage,
    resume_clean,
    resume_unclean,
)
from minilog.storage.segment import SEGMENT_FILE, Place, Segment, log_name
from minilog.storage.singles import Budget
from minilog.storage.view import Tail

Hides = Callable[[int], bool]

LOOKS = 3  # how often one who reads looks again when files went meanwhile
INDEX_FILE = re.compile(r"[0-9]{20}" + UNFINISHED + r"?\.(time)?index")
UNFINISHED_FILE = re.compile(r"[0-9]{20}\.log" + UNFINISHED)  # compaction was writing it


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
    has run on since the last writer; ``is_write_through`` that every append will be synced;
    ``now_ms`` stands for the time of the last append where a crash has left it unknown. What
    is below ``start_offset`` was deleted.
    """

    is_writable: bool = True
    mark: CleanMark | None = None
    same_boot: bool = False
    is_write_through: bool = False
    now_ms: int = 0
    start_offset: int = 0


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
        self._superseded: list[int] = []  # replaced, and their files not unlinked yet
        self._dropped: list[Segment] = []  # dropped, likewise; oldest first
        bases = self._bases()
        if opening.is_writable:
            bases = self._without_leftovers(bases, opening)
        segments = [Segment(self._place, base, config, 0) for base in bases]
        if not segments:
            raise CorruptionError(
                "the log's files are gone; restore them from a copy, or delete the topic",
                path=directory.path,
            )
        self._durable_base = segments[-1].base_offset
        self._names_are_synced = True
        if opening.is_writable:
            segments = self._recover(segments, opening)
        else:
            self._open_live(segments, opening.mark)
        self._view = (_by_base(segments), segments[-1])
        self._ordered: tuple[object, tuple[int, ...], tuple[Segment, ...]] = (None, (), ())
        self.writing = segments[-1]  # what is appended to, for the short path

    @classmethod
    def create(cls, directory: Directory, identity: bytes, base_offset: int, now_ms: int) -> None:
        """Make the files of an empty log that begins at ``base_offset``; its name is not synced.

        The header is: a clean close may come before the log is ever opened, and says it is there.
        """
        directory.make()
        place = Place(directory, identity, MapLimit(1), True)
        segment = Segment(place, base_offset, TopicConfig(), 1)
        segment.create(base_offset, now_ms)
        segment.sync()
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

    def _without_leftovers(self, bases: list[int], opening: Opening) -> list[int]:
        """Remove what a crash left in the middle of a compaction or a deletion: a file half
        written, segments that another was put for or that were dropped, indexes of none or by
        halves. A crash may bring back any of those that were dropped, which is no gap."""
        for name in filter(UNFINISHED_FILE.fullmatch, self.directory.names()):
            self.directory.unlink(name)
        if opening.mark is not None:
            return bases
        bases = self._without_superseded(bases, opening.start_offset)
        indexes = filter(INDEX_FILE.fullmatch, self.directory.names())
        halves = Counter(name.partition(".")[0] for name in indexes)
        present = set(map(log_name, bases))
        for stem, count in halves.items():
            if count == 1 or stem not in present:
                Index(self.directory, stem, 0).remove()
        return bases

    def _without_superseded(self, bases: list[int], start_offset: int) -> list[int]:
        """Remove the segments whose records are in one that compaction has put for them, and
        those that have none at or behind the start."""
        kept: list[int] = []
        due = 0
        for base, following in zip(bases, [*bases[1:], None]):
            segment = self._segment(base)
            is_dropped = following is not None and following <= start_offset
            if base < due or is_dropped:
                segment.remove()
                continue
            kept.append(base)
            if following is not None and segment.is_of_compaction() and segment.load_seal():
                due = segment.next_offset
        if len(kept) < len(bases):
            self.directory.sync()  # a clean mark will vouch for what is left
        return kept

    def _recover(self, segments: list[Segment], opening: Opening) -> list[Segment]:
        mark, last = opening.mark, segments[-1]
        if mark is None or is_outdated(mark, last):
            segments, epoch, problems, durable_base = resume_unclean(
                segments, self.directory, opening.same_boot, mark
            )
            self.problems = problems
            if not segments[-1].is_sealed:
                segments[-1].last_append_ms = max(segments[-1].last_append_ms, opening.now_ms)
            self._durable_base = durable_base
            # After a kill, or where the boot is not known, they may be in the cache alone.
            self._names_are_synced = False
        else:
            epoch = mark.epoch
            if last.base_offset == mark.base_offset:
                self.problems = resume_clean(last, mark, opening.same_boot)
            else:
                reason = f"segment {mark.base_offset} was there when it was closed and is gone"
                last.freeze(last.file_size(), mark.next_offset)
                self.problems = [Problem(last.path, 0, mark.base_offset, reason)]
        self._epoch = min(epoch + 1, f.LARGEST_EPOCH)
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

    @property
    def has_records_in_tail(self) -> bool:
        """Whether the segment that is appended to holds anything."""
        return not self._view[1].is_empty

    def has_some_to_drop(self, offset: int) -> bool:
        """Say whether there are segments that end at or before an offset, or files of such."""
        return bool(self._dropped) or len(list(islice(self._view[0].irange(None, offset), 2))) > 1

    def segments(self) -> list[Segment]:
        """Return the segments with what their seals say; the last is the one appended to."""
        segments: list[Segment] = list(self._view[0].values())
        for segment, following in pairwise(segments):
            segment.open_sealed(following.base_offset)
        return segments

    def segments_from_first(self) -> Iterator[Segment]:
        """Yield the same one by one: what is not asked for is not looked at."""
        segments: list[Segment] = list(self._view[0].values())
        for segment, following in pairwise(segments):
            segment.open_sealed(following.base_offset)
            yield segment
        yield segments[-1]

    # ------------------------------------------------------------ append

    def append_batch(
        self, batch: Batch, timestamp: int, now_ms: int, origin: f.Origin = f.NOBODY
    ) -> int:
        """Append a batch whose largest timestamp is given; return its first offset."""
        segment = self.make_room(batch.frame_bytes, now_ms)
        offset = segment.tail[1]
        segment.append_batch(batch, timestamp, now_ms, origin)
        return offset

    def append_single(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: bytes,
        timestamp: int,
        now_ms: int,
        origin: f.Origin = f.NOBODY,
    ) -> int:
        """Append one record of any shape; return its offset."""
        size = f.SINGLE_OVERHEAD + f.LARGEST_EXTENSION + len(key or b"") + len(value or b"")
        segment = self.make_room(size + len(headers), now_ms)
        offset = segment.tail[1]
        segment.append_single(key, value, headers, timestamp, now_ms, origin)
        return offset

    def append_marker(self, transaction: int, *, is_commit: bool, now_ms: int) -> None:
        """Append a record that readers never see: a transaction has ended."""
        size = f.SINGLE_OVERHEAD + f.LARGEST_EXTENSION + 1
        segment = self.make_room(size, now_ms)
        value = f.COMMITTED if is_commit else f.ABORTED
        timestamp = max(segment.largest_timestamp, 0)  # it must not move the segment's time
        origin = f.Origin(transaction=transaction)
        segment.append_single(None, value, b"", timestamp, now_ms, origin, f.CONTROL)

    def origins(self, lowest: int) -> Iterator[tuple[f.Origin, int, int]]:
        """Yield who wrote each frame from ``lowest`` on, where it says so; see Segment."""
        for segment in self.segments():
            if segment.next_offset > lowest:
                yield from segment.origins(lowest)

    def make_room(self, size: int, now_ms: int) -> Segment:
        """Return the segment to append a frame of up to ``size`` bytes to, rolling if need be.

        OSError when there is no room, and then nothing has changed.
        """
        segment = self._view[1]
        if not segment.has_room(size):
            segment = self.roll(now_ms)
        segment.make_room(size, now_ms)
        self.writing = segment  # again: a roll may have been interrupted before
        return segment

    def roll(self, now_ms: int) -> Segment:
        """Seal the tail segment and go on in a new one."""
        segments, tail = self._view
        following = self._segment(tail.next_offset)
        durable_base = following.base_offset
        if not tail.is_sealed:
            tail.seal()
            durable_base = self._durable_base  # the seal at least was not synced
        elif self.is_dirty():
            durable_base = self._durable_base
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
        self.writing = following
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
            if segments[base].is_sealed or base < tail.base_offset:
                segments[base].sync_index()
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

    def read(
        self,
        offset: int,
        end: End,
        max_records: int,
        max_bytes: int,
        hides: Callable[[int], bool] | None = None,
        looks: int = LOOKS,
    ) -> tuple[list[Rows], int]:
        """Return records from ``offset`` on, up to ``end``, and the offset to read on from, which
        is beyond the last of them where what follows is gone, or not for readers.

        The first record is returned in any case, if there is one. Records of transactions that it
        ``hides`` are left out. ``offset`` is within the log and before its end. CorruptionError
        when it is in damage, ConfigError when a package to decompress it is missing.
        """
        view = self._view
        segments, tail = view
        found: list[Rows] = []
        try:
            while offset < end.next_offset and max_records > 0:
                if offset >= tail.base_offset:  # most reads are near the end: it is remembered
                    segment, following = tail, None
                else:
                    segment, following = self._floor(segments, offset)
                limit = self._limit(segment, following, end)
                if offset >= limit[1] or offset < segment.base_offset:
                    raise self._gap(segment, limit, following, offset)
                budget = Budget(max_records, max_bytes, not found, hides)
                rows, max_bytes, offset = read(segment.view(limit[0]), offset, limit, budget)
                found += rows
                max_records -= sum(map(len, rows))
                if (offset < limit[1] and found) or max_bytes <= 0:
                    break
        except (CorruptionError, ConfigError, FileNotFoundError) as error:
            # What is before it first; the next read meets it.
            if not found:
                if not looks or not self._has_moved_on(view, error):
                    raise
                return self.read(offset, end, max_records, max_bytes, hides, looks - 1)
        return found, offset

    def record_at(self, offset: int) -> tuple[int, bytes | None, bytes] | None:
        """Return timestamp, key and value of one record within the log; None where ``read`` has to
        look: what is not of the commonest kind, or in a place that nobody has read yet."""
        segments, tail = self._view
        if offset >= tail.base_offset:
            view = tail.look if offset < tail.tail[1] else None
        else:
            ordered = self._ordered
            if ordered[0] is not segments:  # bisecting tuples takes a tenth of asking the map
                ordered = self._ordered = (segments, tuple(segments), tuple(segments.values()))
            number = bisect_right(ordered[1], offset) - 1
            view = ordered[2][number].look if number >= 0 else None
        return None if view is None else view.record_at(offset)

    def _has_moved_on(self, view: tuple[SortedDict, Segment], error: Exception) -> bool:
        """Say whether what could not be read is perhaps no more: segments were dropped or
        replaced since that look at the log, or are just being replaced."""
        return self._view is not view or isinstance(error, FileNotFoundError)

    @staticmethod
    def _floor(segments: SortedDict, offset: int) -> tuple[Segment, int | None]:
        """Return the segment that holds ``offset`` and the base of the one behind it."""
        number = segments.bisect_right(offset)
        segment: Segment = segments.peekitem(max(number - 1, 0))[1]
        following = segments.peekitem(number)[0] if number < len(segments) else None
        return segment, following

    @staticmethod
    def _limit(segment: Segment, following: int | None, end: End) -> Tail:
        if segment.base_offset >= end.base_offset and not segment.is_cleaned:
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

    def offset_at(
        self,
        timestamp: int,
        lowest: int,
        end: End,
        hides: Hides | None = None,
        looks: int = LOOKS,
    ) -> int | None:
        """Return the first offset from ``lowest`` on whose timestamp is at least ``timestamp``,
        of records of transactions that it ``hides`` none."""
        view = self._view
        try:
            for segment, limit in self._from(view[0], lowest, end):
                if segment.largest_timestamp >= timestamp:
                    start = max(lowest, segment.base_offset)
                    found = offset_at(segment.view(limit[0]), timestamp, start, limit, hides)
                    if found is not None:
                        return found
        except (CorruptionError, FileNotFoundError) as error:
            if not looks or not self._has_moved_on(view, error):
                raise
            return self.offset_at(timestamp, lowest, end, hides, looks - 1)
        return None

    def record_count(self, lowest: int, end: End, looks: int = LOOKS) -> int:
        """Return how many records there are from ``lowest`` on to the end."""
        view = self._view
        count = 0
        try:
            for segment, limit in self._from(view[0], lowest, end):
                start = max(lowest, segment.base_offset)
                if segment.is_dense:
                    count += limit[1] - start
                elif start == segment.base_offset:
                    count += segment.record_count
                else:
                    count += count_from(segment.view(limit[0]), start, limit)
        except (CorruptionError, FileNotFoundError) as error:
            if not looks or not self._has_moved_on(view, error):
                raise
            return self.record_count(lowest, end, looks - 1)
        return count

    def _from(self, segments: SortedDict, lowest: int, end: End) -> Iterator[tuple[Segment, Tail]]:
        """Yield the segments that hold offsets from ``lowest`` on, and how far each is read."""
        bases = list(segments.islice(max(segments.bisect_right(lowest) - 1, 0)))
        for base, following in zip_longest(bases, bases[1:]):
            limit = self._limit(segments[base], following, end)
            if base > lowest and not self._place.is_writable:
                # Another process may have put segments together since these were listed.
                raise self._gap(segments[base], limit, following, lowest)
            if limit[1] > lowest:
                yield segments[base], limit
                lowest = limit[1]
            if base >= end.base_offset or lowest >= end.next_offset:
                return

    # ------------------------------------------------------------ drop

    def leave_behind(self, offset: int, now_ms: int) -> None:
        """Go on in a new segment if ``offset`` is the end, so that all before can be dropped."""
        if offset == self.end_offset and self._view[1].base_offset < offset:
            self.roll(now_ms)

    def drop_before(self, offset: int) -> None:
        """Let go of the segments that end at or before ``offset``; what comes after is synced.

        Whoever reads them keeps their maps (I7); ``remove_dropped`` unlinks their files.
        """
        segments, tail = self._view
        gone = [base for base, _ in pairwise(segments.irange(None, offset))]
        if not gone:
            return
        kept = segments.copy()
        for base in gone:
            del kept[base]
        self._durable_base = max(self._durable_base, kept.peekitem(0)[0])
        self._names_are_synced = False
        self._dropped += [segments[base] for base in gone]
        self._view = (kept, tail)

    def remove_dropped(self) -> bool:
        """Unlink the files of the oldest segment that was dropped; False when there is none.

        What cannot be unlinked is the oldest still: another time, and no gap meanwhile.
        """
        if not self._dropped:
            return False
        oldest = self._dropped[0]
        if self._view[0].get(oldest.base_offset) is not oldest:
            with contextlib.suppress(FileNotFoundError):
                oldest.remove()
            oldest.unmap()  # else the disk would keep its bytes for as long as it is mapped
        del self._dropped[0]
        return True

    # ------------------------------------------------------------ replace (for compaction)

    def begin_segment(self, base_offset: int) -> Segment:
        """Return a segment that is to be put for the one of that base and some that follow."""
        return self._segment(base_offset)

    def has_all(self, sources: list[Segment]) -> bool:
        """Say whether these are segments of the log still, none of them dropped or replaced."""
        segments = self._view[0]
        return all(segments.get(segment.base_offset) is segment for segment in sources)

    def replace(self, sources: list[Segment], cleaned: Segment) -> None:
        """Put a whole, synced segment for others by renaming its file; whoever compacts holds
        the lock of who appends. ``forget_superseded`` removes the files of the others."""
        segments, tail = self._view
        swapped = segments.copy()
        for segment in sources:
            del swapped[segment.base_offset]
        swapped[cleaned.base_offset] = cleaned
        view = (swapped, tail)
        name = f"{cleaned.name}.log"
        self._superseded += [segment.base_offset for segment in sources[1:]]
        try:
            self.directory.rename(name + UNFINISHED, name)
            self._view = view
        except BaseException:
            if not self.directory.stamp(name + UNFINISHED):  # interrupted, but renamed
                self._view = view
            raise
        for segment in sources:
            segment.unmap()  # else the disk would keep their bytes for as long as they are mapped

    def sync_names(self) -> None:
        """Return when the names of the files are on the disk; SyncFailedError: who knows."""
        try:
            self.directory.sync()
        except OSError as error:
            raise SyncFailedError(f"a sync of {self.directory.path} failed ({error})") from error

    @property
    def has_superseded(self) -> bool:
        """Whether files are left that others were put for."""
        return bool(self._superseded)

    def forget_superseded(self) -> None:
        """Make replacing durable, then remove the files of the segments that were replaced."""
        if self._superseded:
            self.sync_names()
        while self._superseded:
            base = self._superseded[-1]
            if base not in self._view[0]:
                with contextlib.suppress(FileNotFoundError):
                    self._segment(base).remove()
            self._superseded.pop()

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

    def look_anew(self) -> None:
        """Take in the files as a writer in another process has them now: some it has unlinked,
        some replaced; what is mapped of those is let go."""
        tail = self._view[1]
        bases = self._bases()
        if bases and bases[-1] == tail.base_offset:
            segments = [*map(self._segment, bases[:-1]), tail]
            self._view = (_by_base(segments), tail)
        elif bases and bases[-1] > tail.base_offset:
            self._take_in(0)
        self.follow()

    # ------------------------------------------------------------ invariants

    def check(self) -> None:
        """Assert that the segments tile the offsets and that the tail is the last of them."""
        segments, tail = self._view
        assert segments.peekitem(-1)[1] is tail, "the tail is not the last segment"
        loaded = self.segments()
        for segment, following in pairwise(loaded):
            assert segment.is_sealed, f"{segment.path} is not sealed, and another follows"
            assert segment.next_offset == following.base_offset, f"a gap after {segment.path}"
        for segment in loaded:
            segment.check()


def _by_base(segments: list[Segment]) -> SortedDict:
    """Return segments by their base offset."""
    from sortedcontainers import SortedDict  # 5 ms, of the 30 that importing minilog may take

    return SortedDict((segment.base_offset, segment) for segment in segments)
