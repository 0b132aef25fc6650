"""What is known of each partition: which value is at which offset, and who may see it from when.

It refuses to know who has read it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.history.anomalies import Anomalies
from tests.history.operations import Tp, Trim

NEVER = math.inf
Span = tuple[int, int]  # first, stop


class Logs:
    """The partitions as senders and readers have seen them."""

    def __init__(self, found: Anomalies) -> None:
        self._found = found
        self.values: dict[Tp, list[int | None]] = defaultdict(list)
        self.visible: dict[Tp, list[float]] = {}  # from which tick, for read_committed
        self._trims: dict[Tp, list[Trim]] = defaultdict(list)

    def take_trims(self, trims: Iterable[Trim]) -> None:
        """Note what was deleted."""
        for trim in trims:
            self._trims[trim.tp].append(trim)

    def trimmed(self, tp: Tp, before: float = NEVER) -> int:
        """Return below which offset records may be gone by a tick."""
        return max((trim.offset for trim in self._trims[tp] if trim.begin < before), default=0)

    def put(self, tp: Tp, first: int, values: Sequence[int]) -> None:
        """Note values that lie at an offset and those that follow."""
        log = self.values[tp]
        stop = first + len(values)
        if len(log) < first:
            log += [None] * (first - len(log))
        if len(log) == first:
            log += values
        elif log[first:stop] != list(values):
            log += [None] * (stop - len(log))
            for offset, value in enumerate(values, first):
                self._put_one(tp, log, offset, value)

    def _put_one(self, tp: Tp, log: list[int | None], offset: int, value: int) -> None:
        if log[offset] is None:
            log[offset] = value
        elif log[offset] != value:
            self._found.add("inconsistent-offset", f"{tp} {offset}: {log[offset]} and {value}")

    def hide(self, tp: Tp, offsets: Iterable[int], until: float) -> None:
        """Note that read_committed may not show these offsets before a tick."""
        visible = self.visible.setdefault(tp, [])
        for offset in offsets:
            if len(visible) <= offset:
                visible += [0] * (offset + 1 - len(visible))
            visible[offset] = until

    def take(
        self, tp: Tp, offsets: Sequence[int], values: Sequence[int], spans: list[Span]
    ) -> None:
        """Note what a reader has seen there, and where that is."""
        if not offsets:
            return
        first, stop = offsets[0], offsets[-1] + 1
        if self.values[tp][first:stop] == values and offsets == list(range(first, stop)):
            spans.append((first, stop))
            return
        start = 0
        for number in range(1, len(offsets) + 1):
            if number == len(offsets) or offsets[number] != offsets[number - 1] + 1:
                self.put(tp, offsets[start], values[start:number])
                spans.append((offsets[start], offsets[number - 1] + 1))
                start = number

    def finish(self, failed: set[int]) -> None:
        """Look for values in two places, and for those that should be in none."""
        places: dict[int, tuple[Tp, int]] = {}
        count = 0
        together: set[int | None] = set()
        for log in self.values.values():
            together.update(log)
            count += len(log) - log.count(None)
        for tp, log in self.values.items():
            if count == len(together - {None}):
                break
            for offset, value in enumerate(log):
                if value is not None and places.setdefault(value, (tp, offset)) != (tp, offset):
                    self._found.add("duplicate", f"{value} at {places[value]} and {(tp, offset)}")
        for value in failed & together:
            self._found.add("aborted-read", f"{value} was read, though its send had failed")

    def has_gaps(self, tp: Tp) -> bool:
        """Say whether there are offsets that no reader, or not every reader, sees."""
        return tp in self.visible or None in self.values[tp]

    def following(self, tp: Tp, *, is_committed: bool) -> list[int]:
        """Return for every offset the first one from there on that a reader sees."""
        log = self.values[tp]
        visible = self.visible.get(tp) if is_committed else None
        found = list(range(len(log)))
        after = len(log)
        for offset in range(len(log) - 1, -1, -1):
            if log[offset] is not None and not is_hidden(visible, offset):
                after = offset
            found[offset] = after
        return found

    def first_skipped(
        self, tp: Tp, start: int, stop: int, before: float, *, is_committed: bool
    ) -> int | None:
        """Return the first record in a range that a reader would have had to see."""
        log = self.values[tp]
        visible = self.visible.get(tp) if is_committed else None
        for offset in range(max(start, self.trimmed(tp, before)), min(stop, len(log))):
            if log[offset] is not None and not is_hidden(visible, offset):
                return offset
        return None


def is_hidden(visible: list[float] | None, offset: int) -> bool:
    """Say whether read_committed never shows an offset."""
    return visible is not None and offset < len(visible) and visible[offset] == NEVER
