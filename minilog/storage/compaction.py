"""Compaction: of the records of one key only the last stays, at its own offset.

Sealed segments below a limit are read twice: once for the last offset of each key, once to write
the records that stay into new segments, each of which is put for one or several old ones. The map
of keys is bounded; when it is full, what it knows is cleaned, and another pass goes on from there.

A tombstone (a key with no value) supersedes as any record does and stays itself until some time
after the first cleaning that saw it: its frame says when that was. Records without a key, from
before the log was compacted, stay.

A crash leaves the old or the new (``swapping.py``): what is removed then is told by its offsets
lying inside those of a segment that compaction made. Groups are replaced from the oldest on, so
that a tombstone is never marked as seen before what it deletes is gone.

This module refuses to know clocks and threads: it is handed the time, and a host.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, repeat
from operator import le
from typing import NamedTuple

from minilog.config import MIB
from minilog.errors import CorruptionError
from minilog.storage.index import LARGEST_RELATIVE
from minilog.storage.log import Log
from minilog.storage.rewriting import Rewriting
from minilog.storage.runs import NOT_SEEN, Columns, Run, runs_of
from minilog.storage.segment import Segment
from minilog.storage.segment_files import missing_path
from minilog.storage.swapping import Host, rewriting, swap

KEY_BUDGET_BYTES = 160 * MIB
KEY_OVERHEAD_BYTES = 140  # an entry of a dict that has just grown, a bytes and an int object


class Rules(NamedTuple):
    """What a compaction keeps to.

    Nothing at or behind ``limit`` is touched, nothing below ``lowest`` is kept. ``is_void`` says
    of a transaction whether its records are to go; the others of one stay as if there never was
    one, and markers go.
    """

    limit: int
    lowest: int
    now_ms: int
    delete_retention_ms: int
    min_compaction_lag_ms: int
    segment_bytes: int
    index_interval_bytes: int
    compression: str
    key_budget_bytes: int
    is_void: Callable[[int], bool]


class Compacted(NamedTuple):
    """What compaction has done."""

    records_before: int = 0
    records_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    segments_before: int = 0
    segments_after: int = 0


class Keys(NamedTuple):
    """The last offset of each key, as far as was looked."""

    last: dict[bytes | None, int]
    end: int


def cleanable(log: Log, rules: Rules) -> list[Segment]:
    """Return the sealed segments that may be compacted, oldest first."""
    segments = []
    for segment in log.segments()[:-1]:
        lag_ms = rules.min_compaction_lag_ms  # 0 is none, also for what came this moment
        is_young = lag_ms > 0 and rules.now_ms - segment.latest_ms < lag_ms
        if segment.next_offset > rules.limit or (is_young and not segment.is_clean):
            break
        segments.append(segment)
    return segments


def first_dirty(segments: list[Segment]) -> int:
    """Return the offset up to which the segments were compacted already."""
    for segment in segments:
        if not segment.is_clean:
            return max(segment.base_offset, segment.cleaning[0])
    return segments[-1].next_offset if segments else 0


def is_due(log: Log, rules: Rules, dirty_ratio: float) -> bool:
    """Say whether enough has come since the last compaction, or tombstones have had their time."""
    segments = cleanable(log, rules)
    dirty = sum(segment.size_bytes for segment in segments if not segment.is_clean)
    if dirty > dirty_ratio * sum(segment.size_bytes for segment in segments):
        return True
    horizon = rules.now_ms - rules.delete_retention_ms
    return any(NOT_SEEN < segment.cleaning[1] <= horizon for segment in segments)


def compact(log: Log, rules: Rules, host: Host) -> Compacted:
    """Compact what may be, whether it is due or not; everything up to the limit is synced.

    CorruptionError where there is damage: what stands before it may have been compacted then.
    """
    log.forget_superseded()
    before = cleanable(log, rules)
    result = Compacted(*_sums(before))
    if not before:
        return result
    end, fresh = before[-1].next_offset, first_dirty(before)
    while segments := [each for each in cleanable(log, rules) if each.next_offset <= end]:
        try:
            reached = _Pass(log, rules, host, fresh).run(segments)
        except FileNotFoundError:
            if log.has_all(segments):
                raise
            continue  # some of them were deleted meanwhile
        if reached >= segments[-1].next_offset:
            break
    after = [segment for segment in log.segments()[:-1] if segment.next_offset <= end]
    records, size, count = _sums(after)[::2]
    return result._replace(records_after=records, bytes_after=size, segments_after=count)


def _sums(segments: list[Segment]) -> tuple[int, int, int, int, int, int]:
    records = sum(segment.record_count for segment in segments)
    size = sum(segment.size_bytes for segment in segments)
    return records, records, size, size, len(segments), len(segments)


def has_tombstones(records: Columns) -> bool:
    """Say whether any of the records deletes its key."""
    if None not in records.values:
        return False
    return any(key is not None for key, value in zip(records.keys, records.values) if value is None)


class _Pass:
    """One map of keys, and the segments rewritten by it."""

    def __init__(self, log: Log, rules: Rules, host: Host, fresh: int) -> None:
        self._log = log
        self._fresh = fresh  # from here on no tombstone was seen before this compaction
        self._rules = rules
        self._host = host
        self._now_ms = rules.now_ms

    def run(self, segments: list[Segment]) -> int:
        """Clean up to where the map of keys is full, or all of it; return up to where."""
        for segment in segments:
            if segment.is_frozen:
                raise CorruptionError("it is damaged; nothing was compacted", path=segment.path)
        for segment, following in pairwise(segments):
            first, stop = segment.next_offset, following.base_offset
            if first < stop:  # put together, they would say that these records were superseded
                path = missing_path(self._log.directory, first, is_base=True)
                reason = "this file is missing; nothing was compacted"
                raise CorruptionError(reason, path=path, offset=first, next_offset=stop)
        keys = self._map_keys(segments, first_dirty(segments))
        number = 0
        while number < len(segments) and segments[number].base_offset < keys.end:
            number += self._rewrite(segments[number:], keys)
        return keys.end

    def _map_keys(self, segments: list[Segment], start: int) -> Keys:
        last: dict[bytes | None, int] = {}
        used = 0
        for segment in segments:
            if segment.next_offset <= start:
                continue
            for run in runs_of(segment):
                if run.next_offset <= start:
                    continue
                if used >= self._rules.key_budget_bytes:
                    return Keys(last, start)
                if not run.make.is_control:
                    used += self._take_keys(run, last)
                start = run.next_offset
                self._host.step(run.size)
        return Keys(last, segments[-1].next_offset)

    def _take_keys(self, run: Run, last: dict[bytes | None, int]) -> int:
        """Take in the keys of a run; return about how many bytes more the map has."""
        known = len(last)
        if not (run.make.transaction and self._rules.is_void(run.make.transaction)):
            last.update(zip(run.keys, run.offsets))
        last.pop(None, None)  # what has no key is superseded by nothing
        more = len(last) - known
        size = sum(map(len, filter(None, run.keys))) // max(len(run.keys), 1)
        return more * (size + KEY_OVERHEAD_BYTES)

    # ------------------------------------------------------------ writing

    def _rewrite(self, segments: list[Segment], keys: Keys) -> int:
        """Write a segment for the first of these and as many more as fit into it; return how
        many that are."""
        log, rules = self._log, self._rules
        base, interval = segments[0].base_offset, rules.index_interval_bytes
        with rewriting(log, base, interval, rules.compression) as writing:
            count, is_changed = self._fill(writing, segments, keys)
            if is_changed:
                self._replace(writing, segments[:count], keys)
            else:
                writing.discard()
        return count

    def _fill(self, writing: Rewriting, segments: list[Segment], keys: Keys) -> tuple[int, bool]:
        """Copy what stays of as many segments as fit; say whether anything is different then."""
        limit = self._rules.segment_bytes
        base = segments[0].base_offset
        is_changed = False
        for number, source in enumerate(segments):
            saved = None
            if number:
                if source.base_offset >= keys.end or source.next_offset - base > LARGEST_RELATIVE:
                    return number, is_changed
                if writing.size_bytes + 4 * source.size_bytes > limit:
                    saved = writing.save()
            was_changed, is_changed = is_changed, self._copy(source, writing, keys) or is_changed
            if writing.size_bytes > limit:
                if saved is None:
                    return number + 1, is_changed
                writing.restore(saved)
                return number, was_changed or number > 1
            is_changed = is_changed or number > 0
        return len(segments), is_changed

    def _copy(self, source: Segment, writing: Rewriting, keys: Keys) -> bool:
        """Copy what stays of a segment; say whether that is less, or now known to be clean."""
        is_changed = not source.is_clean
        for run in runs_of(source):
            is_changed = self._copy_run(run, writing, keys) or is_changed
            self._host.step(run.size)
        return is_changed

    def _copy_run(self, run: Run, writing: Rewriting, keys: Keys) -> bool:
        rules, make = self._rules, run.make
        if not len(run.offsets):
            return False
        if make.is_control:
            return True  # a marker decides nothing, and what it ends is over
        if make.transaction:
            if rules.is_void(make.transaction):
                return True
            make = make.committed()
        mask = list(map(le, map(keys.last.get, run.keys, repeat(-1)), run.offsets))
        if run.offsets[0] < rules.lowest:
            mask = [stays and at >= rules.lowest for stays, at in zip(mask, run.offsets)]
        is_changed = not all(mask) or make is not run.make
        if not any(mask):
            return True
        records, since = self._tombstones(run, run.where(mask), keys)
        if records.offsets:
            writing.add(records, make, since)
        is_changed = is_changed or since != run.tombstones_since
        return is_changed or len(records.offsets) < len(run.offsets)

    def _tombstones(self, run: Run, records: Columns, keys: Keys) -> tuple[Columns, int]:
        """Return the records without tombstones that have had their time, and since when those
        that stay are known."""
        if not has_tombstones(records):
            return records, NOT_SEEN
        since = run.tombstones_since
        if since == NOT_SEEN:
            return records, self._now_ms if run.next_offset <= keys.end else NOT_SEEN
        if self._now_ms - since >= self._rules.delete_retention_ms:
            rows = zip(records.keys, records.values, records.offsets)
            fresh = self._fresh
            records = records.where(
                [key is None or value is not None or at >= fresh for key, value, at in rows]
            )
        return records, since if has_tombstones(records) else NOT_SEEN

    def _replace(self, writing: Rewriting, sources: list[Segment], keys: Keys) -> None:
        headers = [source.read_header() for source in sources]
        header = headers[0]._replace(
            epoch=max(each.epoch for each in headers),
            durable_base=sources[0].base_offset,
            cleaned_to=min(keys.end, sources[-1].next_offset),
        )
        swap(self._log, self._host, writing, sources, header)
