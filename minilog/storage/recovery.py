"""What opening does with a log that was not closed: find its end, and tell torn from corrupt.

Bytes that were never synced may be gone after a crash: of such a tail a prefix is kept, the rest
is copied to ``quarantine/``, zeroed and reported. Bytes that were synced and have changed since
are corruption: nothing is modified, nothing is skipped, the log goes on in a new segment.

The two are told apart by S, the largest position known to be synced: every frame says how much
of its segment was synced when it was written, every header which segments were. A clean close
leaves a mark outside; then nothing is scanned.

All of it is done by one caller, before the log is used. A crash in the middle of it, and then
recovery again, ends in the same bytes (each step finds its own work already done). This module
refuses to know who opens the log, and what its records say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from minilog.errors import CorruptionError
from minilog.records import LATEST_TIMESTAMP
from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.files import ZEROS, Directory, Region
from minilog.storage.segment import Segment

QUARANTINE = "quarantine"


class Problem(NamedTuple):
    """One thing that was not as it should be. ``offset`` is None where none is concerned."""

    path: str
    position: int
    offset: int | None
    reason: str

    def __str__(self) -> str:
        where = "" if self.offset is None else f", offset {self.offset}"
        return f"{self.path} at byte {self.position}{where}: {self.reason}"


class CleanMark(NamedTuple):
    """What a clean close knows of a log, so that the next open need not look."""

    base_offset: int
    position: int
    next_offset: int
    largest_timestamp: int
    last_append_ms: int
    epoch: int
    is_sealed: bool

    @classmethod
    def of(cls, values: list[Any]) -> CleanMark:
        """Return a mark of what a file says; ValueError where no log can have ended so."""
        mark = cls(*values)
        *numbers, is_sealed = values
        if (
            not isinstance(is_sealed, bool)
            or any(type(number) is not int or not -1 <= number < 2**63 for number in numbers)
            or not 0 <= mark.base_offset <= mark.next_offset <= f.LARGEST_OFFSET + 1
            or mark.position < f.HEADER_SIZE
        ):
            raise ValueError(f"{values!r} is no mark")
        return mark


class Found(NamedTuple):
    """How far a segment's frames are whole, and what they say."""

    position: int
    next_offset: int
    largest_timestamp: int
    durable: int
    epoch: int
    seal: f.Prefix | None


def is_outdated(mark: CleanMark, last: Segment) -> bool:
    """Say whether a log has more than it had when it was closed: then the mark is an older one,
    or others have written, and only reading the log tells what."""
    if last.base_offset != mark.base_offset:
        return last.base_offset > mark.base_offset
    if mark.is_sealed:
        return False
    size = last.file_size()
    return size > mark.position != scan.last_used(last.region(), mark.position, size)


def resume_clean(segment: Segment, mark: CleanMark, same_boot: bool) -> list[Problem]:
    """Open the last segment of a log that was closed; report what happened to it since."""
    size = segment.file_size()
    if mark.is_sealed and segment.load_seal() and segment.next_offset == mark.next_offset:
        segment.take_as_synced()
        return []
    if size < mark.position or mark.is_sealed:
        segment.freeze(size, mark.next_offset)
        reason = f"the file has {size} bytes; {mark.position} were there when it was closed"
        return [Problem(segment.path, size, None, reason)]
    segment.resume((mark.position, mark.next_offset), mark.largest_timestamp, mark.last_append_ms)
    segment.durable = mark.position
    if same_boot:
        segment.ensure_index()
    else:
        segment.mend_index()  # a close syncs none; a power cut may have come after it
    return []


def resume_unclean(
    segments: list[Segment], directory: Directory, same_boot: bool, mark: CleanMark | None = None
) -> Recovered:
    """Find the end of a log that was not closed, in the last of its segments or before.

    With ``same_boot`` only the process died, not the machine: all it stored is in the page
    cache, and only the last segment can have a torn frame. ``mark`` is an earlier close's: what
    it has was synced.
    """
    problems: list[Problem] = []
    last = segments[-1]
    if same_boot:
        found = find_end(last, same_boot)
        durable_base = _durable_base(segments, found)
        recovered = _finish(segments, found, problems, mark, durable_base)
        if durable_base < last.base_offset and not last.is_sealed:
            last.durable = 0  # what says of itself that it is synced says so of all before it
        return recovered._replace(durable_base=durable_base)
    for number in range(_first_unsynced(segments), len(segments) - 1):
        segment = segments[number]
        found = find_end(segment, same_boot)
        if found.next_offset == segments[number + 1].base_offset:
            problems += _finish_sealed(segment, found)
            continue
        if _is_synced_since(segments[number + 1 :]):
            continue  # damage before what is known to be synced: reading it will say so
        problems += _quarantine_segments(segments[number + 1 :], directory)
        return _finish(segments[: number + 1], found, problems, mark, segment.base_offset)
    return _finish(segments, find_end(last, same_boot), problems, mark, last.base_offset)


class Recovered(NamedTuple):
    """The segments that are left, the writer epoch to follow, and what was met."""

    segments: list[Segment]
    epoch: int
    problems: list[Problem]
    durable_base: int  # of the oldest segment that may not be on the disk


def look_behind_damage(segment: Segment) -> None:
    """Have a live segment end behind damage that its walk has stopped at, where what follows
    says that those bytes were synced: reading them is to raise, not to end there."""
    segment.follow()
    position, next_offset = segment.tail
    found = Found(position, next_offset, segment.largest_timestamp, 0, 0, None)
    beyond = [] if segment.is_sealed else _frames_beyond(segment, found)
    if any(durable > position for _, _, durable in beyond):
        # Where its writer has come so far meanwhile, they are whole when they are read.
        segment.resume(beyond[-1][:2], LATEST_TIMESTAMP, 0)


def find_end(segment: Segment, same_boot: bool) -> Found:
    """Return how far a segment's frames are whole, from the last place that can be trusted."""
    file = segment.writable_file()
    file.sync()
    if not same_boot:
        file.drop_cache()  # after a failed sync the cache looks better than the disk is
    region = segment.region()
    size = segment.file_size()
    position, next_offset, largest, durable = segment.trusted_start(same_boot)
    epoch, seal = 0, None
    for start, prefix in scan.walk(region, position, next_offset, size, segment.seed):
        durable = max(durable, prefix.durable_position)
        epoch = prefix.epoch
        if prefix.flags & f.SEAL:
            seal, position = prefix, start
            break
        largest = max(largest, prefix.timestamp)
        position, next_offset = start + f.aligned(prefix.size), prefix.next_offset
    return Found(position, next_offset, largest, durable, epoch, seal)


def _finish(
    segments: list[Segment],
    found: Found,
    problems: list[Problem],
    mark: CleanMark | None,
    durable_base: int,
) -> Recovered:
    """Make the last of the segments end where its whole frames do; those before ``durable_base``
    are on the disk."""
    last = segments[-1]
    epoch = found.epoch
    try:
        epoch = max(epoch, last.header().epoch)
    except CorruptionError as error:
        if found.position > f.HEADER_SIZE:
            problems.append(Problem(last.path, 0, None, error.reason))
        else:
            # It was being made when the crash came, and nothing was ever in it; but the first of
            # all was on the disk before the topic had a name.
            if len(segments) == 1:
                reason = f"{error.reason}: what was in it is gone, and it begins anew"
                problems.append(Problem(last.path, 0, last.base_offset, reason))
            epoch = max(map(_epoch_of, segments[-2:-1]), default=epoch)  # of those before it
            last.set_epoch(epoch)
            last.write_header(last.writable_file(), durable_base, 0)
    if found.seal is not None:
        last.resume((found.position, found.next_offset), found.largest_timestamp, 0)
        last.finish_seal()
        last.accept_seal(found.position, found.seal, last.region())
        last.take_as_synced()
        return Recovered(segments, epoch, problems, last.base_offset)
    region, size = last.region(), last.file_size()
    tail = (found.position, found.next_offset)
    beyond = _frames_beyond(last, found)
    if mark is not None and mark.base_offset == last.base_offset:
        beyond.append((mark.position, mark.next_offset, mark.position))
        beyond.sort()
    if any(durable > found.position for _, _, durable in beyond):
        position, next_offset, _ = beyond[-1]
        last.freeze(position, next_offset)
        reason = (
            "bytes that were on the disk have changed: the records here cannot be read "
            "(nothing was dropped; what follows can)"
        )
        problems.append(Problem(last.path, found.position, found.next_offset, reason))
        return Recovered(segments, epoch, problems, last.base_offset)
    last.resume(tail, found.largest_timestamp, last.began_ms())
    last.reindex()
    if size > found.position:
        problems += _drop(last, found.position, found.next_offset, region)
    last.durable = found.position
    return Recovered(segments, epoch, problems, last.base_offset)


def _epoch_of(segment: Segment) -> int:
    """Return the latest writer epoch that a segment tells of."""
    frames = scan.walk(
        segment.region(),
        f.HEADER_SIZE,
        segment.base_offset,
        segment.file_size(),
        segment.seed,
    )
    latest = max((prefix.epoch for _, prefix in frames), default=0)
    try:
        return max(latest, segment.header().epoch)
    except CorruptionError:
        return latest


def _finish_sealed(segment: Segment, found: Found) -> list[Problem]:
    """Take a segment that another follows and that has all its records; its seal may be lost."""
    problems = []
    segment.resume((found.position, found.next_offset), found.largest_timestamp, segment.began_ms())
    if found.seal is None:
        reason = "the segment's seal was lost in a crash and is written again; no record was"
        problems.append(Problem(segment.path, found.position, None, reason))
        segment.set_epoch(found.epoch)
        segment.reindex()
        segment.seal()
    else:
        segment.finish_seal()
        segment.accept_seal(found.position, found.seal, segment.region())
    segment.sync()
    segment.sync_index()
    segment.unmap()
    return problems


def _frames_beyond(segment: Segment, found: Found) -> list[tuple[int, int, int]]:
    """Return (end position, next offset, durable) of whole frames behind a place with none."""
    region, size = segment.region(), segment.file_size()
    beyond = []
    position = found.position
    used = scan.last_used(region, position, size)
    while position < used:
        frame = scan.find_frame(region, position, used, segment.seed, found.next_offset, 2**63 - 1)
        if frame is None:
            break
        for start, prefix in scan.walk(region, *_start(frame), size, segment.seed):
            position = start + f.aligned(prefix.size)
            beyond.append((position, prefix.next_offset, prefix.durable_position))
        position = max(position, frame[0] + 8)
    return beyond


def _start(frame: tuple[int, f.Prefix]) -> tuple[int, int]:
    return frame[0], frame[1].offset


def _drop(segment: Segment, position: int, offset: int, region: Region) -> list[Problem]:
    """Copy what stands behind a log's end to quarantine and zero it; report it if it is more
    than reserve."""
    used = scan.last_used(region, position, segment.file_size())
    if used == position:
        return []
    directory = segment.directory.child(QUARANTINE)
    directory.make()
    name = f"{segment.name}-{position}.torn"
    directory.replace(name, region[position:used])
    segment.directory.sync()
    file = segment.writable_file()
    for start in range(position, used, len(ZEROS)):
        file.write(start, ZEROS[: min(len(ZEROS), used - start)])
    file.sync()
    reason = (
        f"{used - position} bytes after the last whole record were dropped: a write that a crash "
        f"cut short. They are kept in {directory.path}/{name}"
    )
    return [Problem(segment.path, position, offset, reason)]


def _quarantine_segments(segments: Iterable[Segment], directory: Directory) -> list[Problem]:
    problems = []
    quarantine = directory.child(QUARANTINE)
    quarantine.make()
    for segment in segments:
        segment.unmap()
        directory.rename(f"{segment.name}.log", f"{QUARANTINE}/{segment.name}.log")
        reason = (
            "the segment was dropped: records before it, not synced either, were lost in a crash. "
            f"It is kept in {quarantine.path}"
        )
        problems.append(Problem(segment.path, 0, segment.base_offset, reason))
    quarantine.sync()
    directory.sync()
    return problems


def _durable_base(segments: list[Segment], found: Found) -> int:
    """Return the base of the oldest segment that may not be on the disk, after a process died."""
    last = segments[-1]
    if found.durable > f.HEADER_SIZE:
        return last.base_offset
    try:
        return max(last.header().durable_base, segments[0].base_offset)
    except CorruptionError:
        return segments[0].base_offset


def _first_unsynced(segments: list[Segment]) -> int:
    """Return the number of the first segment that a machine's crash may have cost something."""
    unsynced = None
    for number, segment in reversed(list(enumerate(segments))):
        if unsynced is None:  # where all of a segment may be lost, ask the one before
            unsynced = _unsynced_base(segment)
        if unsynced is not None and segment.base_offset <= unsynced:
            return number
    return 0


def _unsynced_base(segment: Segment) -> int | None:
    """Return the base of the oldest segment that was not known to be synced when this one was
    written; None where nothing can be read that says so."""
    frames = scan.walk(
        segment.region(),
        f.HEADER_SIZE,
        segment.base_offset,
        segment.file_size(),
        segment.seed,
    )
    if any(prefix.durable for _, prefix in frames):
        return segment.base_offset
    try:
        return segment.header().durable_base
    except CorruptionError:
        return None


def _is_synced_since(segments: Iterable[Segment]) -> bool:
    """Say whether later segments know that those before them were synced."""
    return any(_unsynced_base(segment) == segment.base_offset for segment in segments)
