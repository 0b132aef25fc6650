"""The segments of one partition, as anybody reads them: from where to where, and what.

Nobody who reads takes a lock: the segments and the one that is appended to are one tuple, swapped
whole (I2), and who reads looks at one of them. When files went meanwhile, they are looked for
again where they are now. This module refuses to know who appends, what is synced, and how
segments come and go.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, NamedTuple

from minilog.errors import ConfigError, CorruptionError
from minilog.records import Rows
from minilog.storage.reading import count_from, offset_at, read
from minilog.storage.segment import Segment
from minilog.storage.segment_files import missing_path
from minilog.storage.singles import Budget
from minilog.storage.view import Tail

if TYPE_CHECKING:
    from sortedcontainers import SortedDict

Hides = Callable[[int], bool]

LOOKS = 3  # how often one who reads looks again when files went meanwhile


class End(NamedTuple):
    """How far a log may be read: segment, position in it, and one past the last offset."""

    base_offset: int
    position: int
    next_offset: int


class ReadableLog:
    """One partition's records, in segments, the last of which may grow."""

    def __init__(self, segments: list[Segment], *, is_writable: bool) -> None:
        self._is_writable = is_writable  # else another process may put segments together
        self._view = (by_base(segments), segments[-1])
        self._ordered: tuple[object, tuple[int, ...], tuple[Segment, ...]] = (None, (), ())

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
                if offset < segment.base_offset:
                    raise self._gap(segment, offset, segment.base_offset, is_base=False)
                if offset >= limit[1]:
                    raise self._gap(segment, limit[1], following or segment.next_offset)
                budget = Budget(max_records, max_bytes, not found, hides)
                rows, max_bytes, offset = read(segment.view(limit[0]), offset, limit, budget)
                found += rows
                max_records -= sum(map(len, rows))
                if (offset < limit[1] and found) or max_bytes <= 0:
                    break
        except (CorruptionError, ConfigError, FileNotFoundError) as error:
            # What is before it first; the next read meets it.
            if not found:
                if looks and self._has_moved_on(view, error):
                    return self.read(offset, end, max_records, max_bytes, hides, looks - 1)
                if isinstance(error, FileNotFoundError) and self._is_writable:
                    behind = following or segment.next_offset
                    raise self._gap(segment, segment.base_offset, behind) from error
                raise
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
        if segment.gone_from is not None:
            return segment.tail[0], segment.gone_from
        is_last = segment.base_offset >= end.base_offset and not segment.is_cleaned
        if following is None or is_last:
            return end.position, end.next_offset
        segment.open_sealed(following)
        return segment.tail

    @staticmethod
    def _gap(
        beside: Segment, offset: int, next_offset: int, *, is_base: bool = True
    ) -> CorruptionError:
        """Return the error for records whose segment is missing, beside one that is there; where
        it began is known by the one before it."""
        path = missing_path(beside.directory, offset, is_base=is_base)
        reason = "this file is missing, and these records with it"
        if path == beside.directory.path:
            reason = f"the file named for offset {offset}, or else the last before it, is missing"
        return CorruptionError(
            f"{reason}. Restore it, and any that followed it, from a copy, or read on behind them",
            path=path,
            offset=offset,
            next_offset=next_offset,
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
            for segment, limit in self._from(view[0], lowest, end, has_no_gap=True):
                if segment.largest_timestamp >= timestamp:
                    start = max(lowest, segment.base_offset)
                    found = offset_at(segment.view(limit[0]), timestamp, start, limit, hides)
                    if found is not None:
                        return found
                if segment.gone_from is not None:
                    raise self._gap(segment, limit[1], segment.next_offset)
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

    def _from(
        self, segments: SortedDict, lowest: int, end: End, *, has_no_gap: bool = False
    ) -> Iterator[tuple[Segment, Tail]]:
        """Yield the segments that hold offsets from ``lowest`` on, and how far each is read."""
        bases = list(segments.islice(max(segments.bisect_right(lowest) - 1, 0)))
        for base, following in zip_longest(bases, bases[1:]):
            if lowest >= end.next_offset:
                return  # what follows came after the end was looked at
            limit = self._limit(segments[base], following, end)
            # Another process may have put segments together since these were listed.
            may_lack = self._is_writable and (base == bases[0] or not has_no_gap)
            if base > lowest and not may_lack:
                raise self._gap(segments[base], lowest, base, is_base=base != bases[0])
            if limit[1] > lowest:
                yield segments[base], limit
                lowest = limit[1]

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


def by_base(segments: list[Segment]) -> SortedDict:
    """Return segments by their base offset."""
    from sortedcontainers import SortedDict  # 5 ms, of the 30 that importing minilog may take

    return SortedDict((segment.base_offset, segment) for segment in segments)
