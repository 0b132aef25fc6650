"""The segments of one partition: append, roll, sync, drop, replace, follow.

One caller at a time appends, rolls, drops and closes (I1); anybody reads, without a lock: that is
``readable_log.py``'s, and ``opening.py`` says what was there at first. Whatever changes which
segments there are swaps one tuple whole (I2).

This module refuses to know who else reads or writes, what time it is, and whether anybody waits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice, pairwise

from minilog.config import TopicConfig
from minilog.errors import SyncFailedError
from minilog.records import LATEST_TIMESTAMP
from minilog.storage import format as f
from minilog.storage.batch import Batch
from minilog.storage.files import UNFINISHED, Directory, MapLimit
from minilog.storage.index import LARGEST_RELATIVE
from minilog.storage.opening import Opening, bases_in, open_segments
from minilog.storage.readable_log import ReadableLog, by_base
from minilog.storage.recovery import CleanMark
from minilog.storage.segment import Segment
from minilog.storage.segment_files import Place, log_name


class Log(ReadableLog):
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
        self._place = Place(directory, identity, maps, opening.is_writable, opening.is_each_synced)
        found = open_segments(self._place, config, opening)
        super().__init__(found.segments, is_writable=opening.is_writable)
        self._config = config
        self._epoch = found.epoch
        self._durable_base = found.durable_base
        self._names_are_synced = found.names_are_synced
        self.problems = found.problems
        self._superseded: list[int] = []  # replaced, and their files not unlinked yet
        self._dropped: list[Segment] = []  # dropped, likewise; oldest first
        self._stamps: dict[int, tuple[int, ...]] = {}  # of segments as a reader has taken them in
        self.writing = found.segments[-1]  # what is appended to, for the short path

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
        segment = self.writing
        position, offset = segment.tail
        end = position + f.aligned(size)
        is_near = offset - segment.base_offset < LARGEST_RELATIVE
        if end <= segment.limit and is_near:  # there is all it needs, but perhaps an index entry
            if end > segment.index_due:
                segment.add_index_entry(position, offset, end)
            return segment
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

    def follow(self, *, is_compacted: bool = False) -> None:
        """Take in what a writer in another process has appended, rolled and dropped since, and
        where it ``is_compacted``, what has been put for what."""
        if is_compacted and any(
            self._stamps.get(base) != self._stamp(base) for base in self._view[0]
        ):
            self.look_anew()
        else:
            self._follow_tail()

    def _follow_tail(self) -> None:
        is_lost = False
        while True:
            try:
                if not (self._take_in(0) if is_lost else self._follow_once()):
                    return
                is_lost = False
            except FileNotFoundError:  # dropped between two looks; what came after is there
                is_lost = True

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
            bases = [base for base in bases_in(self.directory) if base >= lowest]
        if not bases:
            return False
        taken = [self._segment(base) for base in bases]
        taken[-1].is_live = True
        if lowest != taken[-1].base_offset:
            taken[-1].skip_to_last_entry()
        known = [segments[base] for base in segments.irange(None, lowest, (True, False))]
        self._view = (by_base([*known, *taken]), taken[-1])
        return True

    def _segment(self, base_offset: int) -> Segment:
        self._stamps[base_offset] = self._stamp(base_offset)  # before anything of it is opened
        return Segment(self._place, base_offset, self._config, self._epoch)

    def _stamp(self, base_offset: int) -> tuple[int, ...]:
        """Return what is another when compaction has put another file for a segment's."""
        return self.directory.stamp(f"{log_name(base_offset)}.log")[:1]

    def look_anew(self) -> None:
        """Take in the files as a writer in another process has them now: some it has unlinked,
        some replaced; what is mapped of those is let go."""
        tail = self._view[1]
        bases = bases_in(self.directory)
        if bases and bases[-1] == tail.base_offset:
            self._stamps = {tail.base_offset: self._stamp(tail.base_offset)}
            segments = [*map(self._segment, bases[:-1]), tail]
            self._view = (by_base(segments), tail)
        elif bases and bases[-1] > tail.base_offset:
            self._stamps = {}
            self._take_in(0)
        self._follow_tail()
