"""Reading a segment: find the frame of an offset, return records, find one by time.

Functions over a ``View``, a look at one mapped segment. Every frame is checked before a byte of it
is returned or decompressed, and that the frames tile the offsets (I8) is checked on the way; damage
raises CorruptionError with where it is and where reading can go on. A frame may cover offsets whose
records are gone, or be not for readers: reading steps over it, so it also says how far it went.

This module refuses to know how frames get there, and other segments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from minilog.errors import ConfigError, CorruptionError
from minilog.records import Rows
from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.columns import ColumnsFrame
from minilog.storage.singles import DOZENS, Budget, SingleRows, read_run
from minilog.storage.view import Stride, Tail, View

RUN_RECORDS = 20 * DOZENS  # how many records of a run are decoded before looking again,
RUN_BYTES = 256 * 1024  # and about how many bytes
REMEMBERED_FRAME = 8 * 1024  # only larger frames are remembered as checked
UNPACKED_FRAMES = 16  # of all segments, those decompressed last are kept, as a part of each was
UNPACKED_BYTES = 32 * 1024 * 1024  # read; not more of them than this, but for the very last


class Found(NamedTuple):
    """The frame that holds an offset; a guess was not reached by hopping."""

    position: int
    due: int
    prefix: f.Prefix | None
    is_guess: bool


class Taken(NamedTuple):
    """What was read of one place: rows, and how far reading went."""

    rows: Rows
    frame_bytes: int
    record_bytes: int
    next_offset: int
    is_cut: bool  # the budget is used up


class Unpacked:
    """The frames that were decompressed last: a batch read in small parts is so only once."""

    def __init__(self) -> None:
        self._frames: tuple[ColumnsFrame, ...] = ()

    def keep(self, frame: ColumnsFrame) -> None:
        """Keep a frame until others have taken its room; what two threads do here at once may
        cost one of them its place, and no more."""
        if self._frames and self._frames[-1] is frame:
            return
        kept = [*(other for other in self._frames if other is not frame), frame]
        size = sum(other.body_bytes for other in kept)
        while len(kept) > UNPACKED_FRAMES or (size > UNPACKED_BYTES and len(kept) > 1):
            size -= kept.pop(0).body_bytes
        self._frames = tuple(kept)


UNPACKED = Unpacked()


class Reading(NamedTuple):
    """Records that were read, the bytes still to spare, and the offset to read on from.

    Nothing to spare means that a limit was met.
    """

    rows: list[Rows]
    bytes_left: int
    next_offset: int


def read(view: View, offset: int, end: Tail, budget: Budget) -> Reading:
    """Return records from ``offset`` on, up to the tail ``end``.

    CorruptionError when the frame that ``offset`` is in is damaged, ConfigError when the package
    that decompresses it is missing.
    """
    place = _locate(view, offset, end)
    found = _read_from(view, place, offset, end, budget)
    if found is None and place.is_guess:
        view.stride = None
        place = _locate(view, offset, end, may_guess=False)
        found = _read_from(view, place, offset, end, budget)
    # The index may be of the file that compaction has put this one for, or a damaged frame says
    # that it goes as far as this, and it does not.
    if found is None:
        place = _locate_past_damage(view, offset, end)
        found = _read_from(view, place, offset, end, budget)
    if found is None:
        raise _damage(view, place.position, place.due, end)
    return found


def _read_from(view: View, place: Found, offset: int, end: Tail, budget: Budget) -> Reading | None:
    """Return records from the frame at a place on; None when that one is damaged."""
    position, due, prefix, _ = place
    found: list[Rows] = []
    left, bytes_left, is_first, hides = budget
    while position < end[0] and left > 0:
        if prefix is None:
            prefix = scan.prefix_at(view.region, position, end[0])
        if prefix is None or prefix[2] != due or prefix[6] & f.SEAL:
            taken = None
        elif prefix[6] & f.CONTROL or (
            hides is not None
            and prefix[6] & f.TRANSACTIONAL
            and hides(_transaction(view, position, prefix))
        ):
            taken = _step_over(view, position, prefix)
        elif prefix[6] & f.COLUMNS:
            budget = Budget(left, bytes_left, is_first, hides)
            try:
                taken = _take_columns(view, position, prefix, offset, budget)
            except ConfigError:
                if due == place.due:
                    raise
                break  # what is before first; the next read says which package is missing
        else:
            budget = Budget(left, bytes_left, is_first, hides)
            taken = _take_singles(view, position, prefix, end[0], budget)
        if taken is None:
            break  # what is before first; the next read meets the damage
        rows, frame_bytes, record_bytes, due, is_cut = taken
        if len(rows):
            found.append(rows)
            left -= len(rows)
            bytes_left -= record_bytes
            is_first = False
        if is_cut:
            return Reading(found, 0, max(due, offset))
        position += frame_bytes
        prefix = None
    if due == place.due < end[1]:
        return None  # damage, or the file ends before its offsets do
    return Reading(found, bytes_left, max(due, offset))


def _transaction(view: View, position: int, prefix: f.Prefix) -> int:
    """Return the number of the transaction that a frame is of."""
    if prefix[6] & f.COLUMNS:
        return ColumnsFrame(prefix, view.region, position).origin.transaction
    stop = position + f.PREFIX_SIZE + f.extension_size(prefix[6])
    return f.decode_origin(prefix, view.region[position:stop]).transaction


def _step_over(view: View, position: int, prefix: f.Prefix) -> Taken | None:
    """Return nothing of a frame that is not for this reader; None when it is damaged."""
    if not scan.is_whole(view.region, prefix, position, view.seed):
        return None
    rows = SingleRows(range(0), [], [], [], None)
    return Taken(rows, f.aligned(prefix.size), 0, prefix.next_offset, is_cut=False)


def _take_singles(
    view: View, position: int, prefix: f.Prefix, end: int, budget: Budget
) -> Taken | None:
    """Return records of the single frames in a row at ``position``; None when damaged."""
    step = f.aligned(prefix[0])
    count = min(budget[0], RUN_RECORDS)
    if count * step > RUN_BYTES:
        count = max(RUN_BYTES // step // DOZENS * DOZENS, 1)
    stop = min(position + count * step, end)
    rows, frame_bytes, record_bytes = read_run(
        view.region[position:stop], position, prefix[2], view.seed, budget
    )
    if not frame_bytes and budget.is_first:
        return None
    is_cut = not frame_bytes or record_bytes > budget.bytes
    return Taken(rows, frame_bytes, record_bytes, prefix[2] + len(rows), is_cut)


def _take_columns(
    view: View, position: int, prefix: f.Prefix, offset: int, budget: Budget
) -> Taken | None:
    """Return rows of the columns frame at ``position``; None when it is damaged."""
    known = view.remembered.at(position)
    kept = known or ColumnsFrame(prefix, view.region, position)
    if not kept.is_sound:
        return None
    frame = _unpacked(view, position, prefix, kept) if prefix[4] else kept
    if frame is None:
        return None
    start = frame.row_at(offset)
    stop = min(start + budget.records, frame.count)
    if frame.body_bytes > budget.bytes:
        stop = min(stop, frame.stop_within(start, budget.bytes, at_least=budget.is_first))
    # A read of a part of a large frame need not check all of it each time (40 us a MB); one of
    # all of it does. A compressed one was checked before it was decompressed.
    is_part = stop - start < frame.count and (prefix.size > REMEMBERED_FRAME or frame is not kept)
    is_checked = frame is not kept or (is_part and known is not None)
    if not is_checked and not scan.is_whole(view.region, prefix, position, view.seed):
        return None
    if is_part:
        view.remembered.add(position, kept)
        if frame is not kept:
            UNPACKED.keep(frame)
    rows = frame.rows(start, stop)
    size = frame.size_before(stop) - frame.size_before(start)
    if stop < frame.count:
        following = rows.offsets[-1] + 1 if stop > start else prefix.offset
        return Taken(rows, 0, size, following, is_cut=True)
    return Taken(rows, f.aligned(prefix.size), size, prefix.next_offset, is_cut=False)


def _unpacked(
    view: View, position: int, prefix: f.Prefix, packed: ColumnsFrame
) -> ColumnsFrame | None:
    """Return a compressed frame to read from; None when it is damaged."""
    frame = packed.unpacked
    if frame is None and scan.is_whole(view.region, prefix, position, view.seed):
        frame = packed.unpack()
    return frame


def _locate(view: View, offset: int, end: Tail, *, may_guess: bool = True) -> Found:
    """Return the frame that holds ``offset``.

    From the index entry before it, frames are hopped over by their sizes. Records of one size are
    where they would be, so that is tried first; reading proves a guess right or wrong.
    """
    stride = view.stride
    if may_guess and stride is not None:
        guess = stride.position + (offset - stride.offset) * stride.step
        place = _guess(view, guess, offset, end[0])
        if place is not None:
            return place
    region = view.region
    position, due, prefix = _floor(view, offset, end[0])
    while position < end[0]:
        if prefix is None:
            prefix = scan.prefix_at(region, position, end[0])
        if prefix is None or prefix[2] != due or prefix[6] & f.SEAL:
            return _locate_past_damage(view, offset, end)
        is_single = not prefix[6] & f.COLUMNS
        following = due + 1 if is_single else due + prefix[1]
        if offset < following:
            return Found(position, due, prefix, False)
        step = (prefix[0] + 7) & -8
        if is_single and may_guess and offset - due > 1:
            may_guess = False
            place = _guess(view, position + (offset - due) * step, offset, end[0])
            if place is not None:
                view.stride = Stride.of(prefix, position)
                return place
        position += step
        due = following
        prefix = None
    return Found(position, due, None, False)


def _guess(view: View, guess: int, offset: int, end: int) -> Found | None:
    """Return the frame of ``offset`` if it is where frames of one size would have it."""
    if not f.HEADER_SIZE <= guess < end:
        return None
    prefix = scan.prefix_at(view.region, guess, end)
    if prefix is None or prefix[2] != offset or prefix[6] & f.SEAL:
        return None
    return Found(guess, offset, prefix, True)


def _floor(view: View, offset: int, end: int) -> tuple[int, int, f.Prefix | None]:
    """Return position, offset and prefix of the last index entry at or before ``offset``."""
    entry = view.entries.floor(offset - view.base_offset)
    if entry is not None and f.HEADER_SIZE < entry[1] < end:
        due = view.base_offset + entry[0]
        prefix = scan.prefix_at(view.region, entry[1], end)
        if prefix is not None and prefix[2] == due:
            return entry[1], due, prefix
    return f.HEADER_SIZE, view.base_offset, None


def _locate_past_damage(view: View, offset: int, end: Tail) -> Found:
    """Like ``_locate``, but checking every frame, from the start of the segment if need be;
    raises when ``offset`` is in what is damaged."""
    region = view.region
    position, due, prefix = _floor(view, offset, end[0])
    if prefix is None or not scan.is_whole(region, prefix, position, view.seed):
        position, due = f.HEADER_SIZE, view.base_offset
    while True:
        for start, prefix in scan.walk(region, position, due, end[0], view.seed):
            due = prefix.next_offset
            if offset < due:
                return Found(start, prefix.offset, prefix, False)
            position = start + f.aligned(prefix.size)
        found = scan.find_frame(region, position + 8, end[0], view.seed, due + 1, end[1])
        if found is None or offset < found[1].offset:
            raise _damage(view, position, due, end)
        position, due = found[0], found[1].offset


def _damage(view: View, position: int, due: int, end: Tail) -> CorruptionError:
    """Return the error for a frame at ``position`` that should hold offset ``due``."""
    prefix = scan.prefix_at(view.region, position, end[0])
    reason = "the bytes of these records have changed: they fail their checksum"
    following = position + 8
    if prefix and prefix.offset == due and scan.is_whole(view.region, prefix, position, view.seed):
        reason = "these records are not what their frame says, though its checksum is right"
        following = position + f.aligned(prefix.size)
    found = scan.find_frame(view.region, following, end[0], view.seed, due + 1, end[1])
    return CorruptionError(
        f"{reason}. Read on from the end of the damage, or restore the file from a copy",
        path=view.path,
        position=position,
        offset=due,
        next_offset=end[1] if found is None else found[1].offset,
    )


def count_from(view: View, lowest: int, end: Tail) -> int:
    """Return how many records there are from offset ``lowest`` on; bodies are not looked at."""
    position, due, prefix, _ = _locate(view, lowest, end, may_guess=False)
    count = 0
    while position < end[0]:
        prefix = scan.prefix_at(view.region, position, end[0])
        if prefix is None or prefix.offset != due or prefix.flags & f.SEAL:
            raise _damage(view, position, due, end)
        if prefix.flags & f.COLUMNS:
            packed = ColumnsFrame(prefix, view.region, position)
            frame: ColumnsFrame | None = packed
            if packed.is_sound and due < lowest and prefix.codec:
                frame = _unpacked(view, position, prefix, packed)  # which rows are left, it says
            if frame is None or not frame.is_sound:
                raise _damage(view, position, due, end)
            count += frame.count - (frame.row_at(lowest) if due < lowest else 0)
        else:
            count += 1
        position, due = position + f.aligned(prefix.size), prefix.next_offset
    return count


def offset_at(
    view: View, timestamp: int, lowest: int, end: Tail, hides: Callable[[int], bool] | None
) -> int | None:
    """Return the first offset from ``lowest`` on whose timestamp is at least ``timestamp``, of
    records of transactions that it ``hides`` none."""
    region = view.region
    position, due = f.HEADER_SIZE, view.base_offset
    entry = view.entries.floor_time(timestamp)
    if entry is not None:
        prefix = scan.prefix_at(region, entry[1], end[0])
        if prefix is not None and prefix.offset == view.base_offset + entry[0]:
            position, due = entry[1], prefix.offset
    if lowest > due:
        place = _locate(view, lowest, end, may_guess=False)
        position, due = max((position, due), (place.position, place.due))
    for at, prefix in scan.walk(region, position, due, end[0], view.seed):
        position, due = at + f.aligned(prefix.size), prefix.next_offset
        if prefix.timestamp < timestamp or prefix.flags & (f.SEAL | f.CONTROL):
            continue
        is_in_one = prefix.flags & f.TRANSACTIONAL
        if is_in_one and hides is not None and hides(_transaction(view, at, prefix)):
            continue
        if not prefix.flags & f.COLUMNS:
            return prefix.offset
        kept = view.remembered.at(at) or ColumnsFrame(prefix, region, at)
        frame = _unpacked(view, at, prefix, kept) if prefix.codec and kept.is_sound else kept
        if frame is None or not frame.is_sound:
            raise _damage(view, at, prefix.offset, end)
        row = frame.row_at_time(timestamp, frame.row_at(lowest))
        if row is not None:
            return frame.rows(row, row + 1).offsets[0]
    if due < end[1]:
        raise _damage(view, position, due, end)
    return None
