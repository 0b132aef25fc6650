"""Opening a log: which segments there are, and where the last of them ends.

After a clean close the mark says it; after a crash leftovers are removed and every segment that may
not be on the disk is gone through (``recovery.py``); beside a writer of another process nothing is
touched, and the last segment is followed. This module refuses to know what is then appended, read
and dropped.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from minilog.config import TopicConfig
from minilog.errors import CorruptionError
from minilog.storage import format as f
from minilog.storage.files import UNFINISHED, Directory
from minilog.storage.index import Index
from minilog.storage.recovery import (
    CleanMark,
    Problem,
    is_outdated,
    look_behind_damage,
    resume_clean,
    resume_unclean,
)
from minilog.storage.segment import Segment
from minilog.storage.segment_files import SEGMENT_FILE, Place, log_name, missing_path

INDEX_FILE = re.compile(r"[0-9]{20}" + UNFINISHED + r"?\.(time)?index")
UNFINISHED_FILE = re.compile(r"[0-9]{20}\.log" + UNFINISHED)  # compaction was writing it


class Opening(NamedTuple):
    """How a log is opened.

    ``mark`` is what a clean close left, None after a crash; ``same_boot`` says that the machine
    has run on since the last writer; ``is_each_synced`` that every append will be;
    ``now_ms`` stands for the time of the last append where a crash has left it unknown. What
    is below ``start_offset`` was deleted.
    """

    is_writable: bool = True
    mark: CleanMark | None = None
    same_boot: bool = False
    is_each_synced: bool = False
    now_ms: int = 0
    start_offset: int = 0


class Found(NamedTuple):
    """The segments of a log as they were found or left by recovery, and what is known of them."""

    segments: list[Segment]
    epoch: int  # of the writer who opens it
    durable_base: int  # before this segment all is on the disk
    names_are_synced: bool
    problems: list[Problem]


def bases_in(directory: Directory) -> list[int]:
    """Return the base offsets of the segments that are there, in order."""
    return _bases_among(directory.names())


def _bases_among(names: list[str]) -> list[int]:
    matches = map(SEGMENT_FILE.fullmatch, names)
    return sorted(int(match[1]) for match in matches if match)


def open_segments(place: Place, config: TopicConfig, opening: Opening) -> Found:
    """Return the segments, resumed; CorruptionError when there are none."""
    names = place.directory.names()
    bases = _bases_among(names)
    if opening.is_writable:
        bases = _without_leftovers(place, config, names, bases, opening)
    segments = [Segment(place, base, config, 0) for base in bases]
    if not segments:
        raise CorruptionError(
            "the log's files are gone; restore them from a copy, or delete the topic",
            path=place.directory.path,
        )
    if opening.is_writable:
        return _recover(segments, place.directory, opening)
    try:
        _open_live(segments, opening.mark)
    except FileNotFoundError:  # dropped since it was listed; what came after is there
        return open_segments(place, config, opening)
    return Found(segments, 1, segments[-1].base_offset, True, [])


def _without_leftovers(
    place: Place, config: TopicConfig, names: list[str], bases: list[int], opening: Opening
) -> list[int]:
    """Remove what a crash left in the middle of a compaction or a deletion: a file half
    written, segments that another was put for or that were dropped, indexes of none or by
    halves. A crash may bring back any of those that were dropped, which is no gap."""
    directory = place.directory
    for name in filter(UNFINISHED_FILE.fullmatch, names):
        directory.unlink(name)
    if opening.mark is not None:
        return bases
    bases = _without_superseded(place, config, bases, opening.start_offset)
    indexes = filter(INDEX_FILE.fullmatch, directory.names())
    halves = Counter(name.partition(".")[0] for name in indexes)
    present = set(map(log_name, bases))
    for stem, count in halves.items():
        if count == 1 or stem not in present:
            Index(directory, stem, 0).remove()
    return bases


def _without_superseded(
    place: Place, config: TopicConfig, bases: list[int], start_offset: int
) -> list[int]:
    """Remove the segments whose records are in one that compaction has put for them, and
    those that have none at or behind the start."""
    kept: list[int] = []
    gone: list[Segment] = []
    due = 0
    for base, following in zip(bases, [*bases[1:], None]):
        segment = Segment(place, base, config, 0)
        is_dropped = following is not None and following <= start_offset
        if base < due or is_dropped:
            gone.append(segment)
            continue
        kept.append(base)
        if following is not None and segment.is_of_compaction() and segment.load_seal():
            due = segment.next_offset
    if gone:
        place.directory.sync()  # one was killed before the name of what replaces them was durable
        for segment in gone:
            segment.remove()
        place.directory.sync()  # a clean mark will vouch for what is left
    return kept


def _recover(segments: list[Segment], directory: Directory, opening: Opening) -> Found:
    mark, last = opening.mark, segments[-1]
    durable_base, names_are_synced = last.base_offset, True
    if mark is None or is_outdated(mark, last):
        segments, epoch, problems, durable_base = resume_unclean(
            segments, directory, opening.same_boot, mark
        )
        if not segments[-1].is_sealed:
            segments[-1].last_append_ms = max(segments[-1].last_append_ms, opening.now_ms)
        # After a kill, or where the boot is not known, they may be in the cache alone.
        names_are_synced = False
    else:
        epoch = mark.epoch
        if _lacks_segments(last, mark):
            first = last.end_in_gap(mark.base_offset, mark.next_offset)
            path = missing_path(directory, first, is_base=True)
            reason = f"the file is missing; offsets to {mark.next_offset} were there at the close"
            problems = [Problem(path, 0, first, reason)]
        else:
            problems = resume_clean(last, mark, opening.same_boot)
    epoch = min(epoch + 1, f.LARGEST_EPOCH)
    for segment in segments:
        segment.set_epoch(epoch)
    return Found(segments, epoch, durable_base, names_are_synced, problems)


def _lacks_segments(last: Segment, mark: CleanMark) -> bool:
    """Say whether a log that was closed had more segments, or had been closed without them before:
    a seal says where its segment ended."""
    if mark.base_offset > last.base_offset:
        return True
    is_marked = mark.is_sealed and mark.base_offset == last.base_offset
    return is_marked and last.load_seal() and last.next_offset < mark.next_offset


def _open_live(segments: list[Segment], mark: CleanMark | None) -> None:
    last = segments[-1]
    last.is_live = True
    if mark is not None and mark.base_offset == last.base_offset and not mark.is_sealed:
        last.resume((mark.position, mark.next_offset), mark.largest_timestamp, 0)
        if last.file_size() < mark.position:
            last.freeze(last.file_size(), mark.next_offset)
    elif mark is not None and _lacks_segments(last, mark):
        last.is_live = False
        last.end_in_gap(mark.base_offset, mark.next_offset)
    else:
        last.skip_to_last_entry()
        look_behind_damage(last)
