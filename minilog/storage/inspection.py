"""Reading every byte of a log and changing none: what ``minilog.verify`` does to one partition.

This module refuses to know topics and brokers, and to mend anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from minilog.errors import ConfigError, CorruptionError, UnsupportedFormatError
from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.columns import ColumnsFrame
from minilog.storage.files import Directory, FileRegion, Region
from minilog.storage.index import Index
from minilog.storage.recovery import CleanMark, Problem
from minilog.storage.segment_files import LARGEST_FILE, SEGMENT_FILE, log_name, missing_path

Hides = Callable[[int], bool]


class Inspection(NamedTuple):
    """What was found in one log."""

    problems: list[Problem]
    record_count: int
    size_bytes: int


class _Counted(NamedTuple):
    """Which records are counted: from an offset on, and of no transaction that is hidden."""

    lowest: int
    hides: Hides


class _Walked(NamedTuple):
    """What was found in one segment."""

    end_offset: int
    end_position: int
    record_count: int
    is_sealed: bool
    frames: dict[int, tuple[int, int]]  # position -> (offset, largest timestamp before)


def inspect_log(
    directory: Directory,
    identity: bytes,
    start_offset: int,
    mark: CleanMark | None,
    hides: Hides,
) -> Inspection:
    """Return what reading a whole log finds; ``mark`` is what a clean close left. Records of
    transactions that it ``hides`` are read, but not counted."""
    matches = [SEGMENT_FILE.fullmatch(name) for name in directory.names()]
    bases = sorted(int(match[1]) for match in matches if match)
    if not bases:
        return Inspection([Problem(directory.path, 0, None, "the log's files are gone")], 0, 0)
    # A crash may bring back segments that were dropped: the next opening removes them.
    while len(bases) > 1 and bases[1] <= start_offset:
        del bases[0]
    problems: list[Problem] = []
    count = size = 0
    due = min(bases[0], start_offset)
    lacking = missing_path(directory, due, is_base=False)
    for base in bases:
        if base < due:
            continue  # compaction has put another for it, and a crash came before it could go
        if base > max(due, start_offset):  # what is missing below was deleted
            problems.append(Problem(lacking, 0, due, f"the records to offset {base} are missing"))
        is_last = base == bases[-1]
        if is_last and base != bases[0] and _is_being_made(directory, base, mark):
            continue
        lowest = max(start_offset, base)  # records before it are kept here, but deleted
        counted = _Counted(lowest, hides)
        walked = _inspect_segment(directory, identity, base, counted, is_last, mark, problems)
        count += walked.record_count
        size += walked.end_position
        due = walked.end_offset
        if walked.is_sealed:  # else what is missing behind it was in it
            lacking = missing_path(directory, due, is_base=True)
        else:
            lacking = f"{directory.path}/{log_name(base)}.log"
    if mark is not None and due < mark.next_offset:
        reason = f"offsets to {mark.next_offset} were there when it was closed"
        problems.append(Problem(lacking, 0, due, reason))
    return Inspection(problems, count, size)


def _is_being_made(directory: Directory, base: int, mark: CleanMark | None) -> bool:
    """Say whether a last segment is one that a roll has left empty, as the disk or the process
    failed: opening takes it as it is."""
    if mark is not None and mark.base_offset == base:
        return False
    file = directory.open(f"{log_name(base)}.log")
    size = file.size()
    return size < f.HEADER_SIZE or not scan.last_used(FileRegion(file, LARGEST_FILE), 0, size)


def _inspect_segment(
    directory: Directory,
    identity: bytes,
    base: int,
    counted: _Counted,
    is_last: bool,
    mark: CleanMark | None,
    problems: list[Problem],
) -> _Walked:
    file = directory.open(f"{log_name(base)}.log")
    size = file.size()
    region = FileRegion(file, LARGEST_FILE)
    seed = f.seed_of(identity, base)
    try:
        f.decode_header(region[0 : f.HEADER_SIZE], file.path)
    except (CorruptionError, UnsupportedFormatError) as error:
        problems.append(Problem(file.path, 0, None, getattr(error, "reason", str(error))))
    walked = _walk(region, base, counted, size, seed, file.path, problems)
    end, end_offset = walked.end_position, walked.end_offset
    used = scan.last_used(region, end, size)
    is_marked = mark is not None and mark.base_offset == base
    if used > end:
        reason = f"{used - end} bytes here are no record; they will be dropped or reported at open"
        problems.append(Problem(file.path, end, end_offset, reason))
    elif not is_last and not walked.is_sealed:
        problems.append(Problem(file.path, end, end_offset, "the segment ends without its seal"))
    elif is_marked and mark is not None and not mark.is_sealed and mark.position != size:
        reason = f"the file has {size} bytes; it had {mark.position} when it was closed"
        problems.append(Problem(file.path, min(size, mark.position), end_offset, reason))
    is_finished = is_marked or (walked.is_sealed and not is_last)  # else a crash may be to blame
    problems += _inspect_index(directory, base, seed, walked, is_finished=is_finished)
    return walked


def _walk(
    region: Region,
    base: int,
    counted: _Counted,
    size: int,
    seed: int,
    path: str,
    problems: list[Problem],
) -> _Walked:
    """Walk a segment's frames from the first to the last, past damage."""
    position, due, count, largest = f.HEADER_SIZE, base, 0, 0
    is_sealed = False
    frames: dict[int, tuple[int, int]] = {}
    while True:
        for start, prefix in scan.walk(region, position, due, size, seed):
            frames[start] = (prefix.offset, largest)
            if any(region[start + prefix.size : start + f.aligned(prefix.size)]):
                reason = "the padding behind this frame has changed (nothing is lost)"
                problems.append(Problem(path, start + prefix.size, prefix.offset, reason))
            position, due = start + f.aligned(prefix.size), prefix.next_offset
            if prefix.flags & f.SEAL:
                is_sealed = True
                break
            largest = max(largest, prefix.timestamp)
            if prefix.next_offset > counted.lowest:
                count += _record_count(prefix, region, start, counted, path, problems)
        used = scan.last_used(region, position, size)
        found = None
        if used > position and not is_sealed:
            found = scan.find_frame(region, position + 8, used, seed, due, 2**63 - 1)
        if found is None:
            return _Walked(due, position, count, is_sealed, frames)
        reason = f"the records to offset {found[1].offset} (end exclusive) fail their checksum"
        problems.append(Problem(path, position, due, reason))
        position, due = found[0], found[1].offset


def _record_count(
    prefix: f.Prefix,
    region: Region,
    position: int,
    counted: _Counted,
    path: str,
    problems: list[Problem],
) -> int:
    """Return how many records of a frame readers see; what should be seen and cannot is a
    problem."""
    if prefix.flags & f.CONTROL:
        return 0
    if not prefix.flags & f.COLUMNS:
        if not prefix.flags & f.TRANSACTIONAL:
            return 1
        stop = position + f.PREFIX_SIZE + f.extension_size(prefix.flags)
        is_hidden = counted.hides(f.decode_origin(prefix, region[position:stop]).transaction)
        return 0 if is_hidden else 1
    frame: ColumnsFrame | None = ColumnsFrame(prefix, region, position)
    reason = "these records are not what their frame says, though its checksum is right"
    if frame is not None and frame.is_sound and prefix.codec:
        try:
            frame = frame.unpack()
        except ConfigError as error:
            frame, reason = None, str(error)
    if frame is None or not frame.is_sound:
        problems.append(Problem(path, position, prefix.offset, reason))
        return 0
    if frame.origin.transaction and counted.hides(frame.origin.transaction):
        return 0
    return frame.count - frame.row_at(counted.lowest)


def _inspect_index(
    directory: Directory, base: int, seed: int, walked: _Walked, *, is_finished: bool
) -> Iterator[Problem]:
    """Say where an index disagrees with its log; it will be done without, or made anew.

    That of a log that is not closed has reserve behind its entries, and what was written of it
    last may be in one of the files only: opening makes it anew.
    """
    name = log_name(base)
    path = f"{directory.path}/{name}.index"
    index = Index.open(directory, name, seed)
    if index is None:
        names = directory.names()
        if is_finished and (f"{name}.index" in names or f"{name}.timeindex" in names):
            yield Problem(path, 0, None, "one of the two index files is missing")
        return
    sizes = {directory.open(f"{name}.index").size(), directory.open(f"{name}.timeindex").size() / 2}
    if is_finished and sizes != {len(index) * 8}:
        yield Problem(path, len(index) * 8, None, "the index files are not as large as they were")
    wrong = {}
    for number, (relative, position, largest) in enumerate(index.entries()):
        offset, smallest = walked.frames.get(position, (-1, 0))
        if offset != base + relative or largest < smallest:
            wrong[number] = base + relative
    last = len(index) - 1
    while not is_finished and wrong.pop(last, None) is not None:
        last -= 1
    for number, offset in wrong.items():
        reason = "an index entry disagrees with the log; it will be done without"
        yield Problem(path, number * 8, offset, reason)
