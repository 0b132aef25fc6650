"""A group's committed offset of a partition, as a register: what is seen must have been written,
and not be older than what was surely written, or seen, before.

It refuses to know who may write, and why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import itemgetter

from tests.history.anomalies import Anomalies
from tests.history.logs import Logs
from tests.history.operations import Tp

# An offset that was, or may have been, written between two ticks: end, begin, offset.
Write = tuple[int, int, int | None]


class Offsets:
    """The committed offsets of all groups."""

    def __init__(self, found: Anomalies) -> None:
        self._found = found
        self.pins: dict[tuple[str, Tp], int] = {}  # where groups began that began at the end
        self.latest: set[str] = set()  # those groups
        self._sure: dict[tuple[str, Tp], list[Write]] = defaultdict(list)
        self._possible: dict[tuple[str, Tp], list[Write]] = defaultdict(list)
        self._highest: dict[tuple[str, Tp], int] = {}
        self._reads: dict[tuple[str, Tp], list[Write]] = defaultdict(list)

    def write(
        self, group: str, tp: Tp, begin: int, end: int, offset: int, *, is_sure: bool = True
    ) -> None:
        """Note that an offset was, or may have been, committed."""
        written: Write = (end, begin, offset)
        where = (group, tp)
        self._possible[where].append(written)
        if is_sure:
            self._sure[where].append(written)
        if offset > self._highest.get(where, -1):
            self._highest[where] = offset

    def raise_to(self, group: str, tp: Tp, begin: int, end: int, offset: int) -> None:
        """Note that an offset was committed, unless as much, or more, was before."""
        is_sure = offset > self._highest.get((group, tp), -1)
        self.write(group, tp, begin, end, offset, is_sure=is_sure)

    def read(self, group: str, tp: Tp, begin: int, end: int, offset: int | None) -> None:
        """Note that an offset was seen."""
        self._reads[group, tp].append((end, begin, offset))

    def finish(self, logs: Logs, isolation: Mapping[str, set[bool]]) -> None:
        """Look at every offset that was seen.

        Offsets between which a group's members see nothing (control records, aborted ones) are
        one and the same to it.
        """
        for (group, tp), reads in self._reads.items():
            where = (group, tp)
            if logs.has_gaps(tp):
                following = logs.following(tp, is_committed=False not in isolation.get(group, ()))
                for kind in (self._sure, self._possible, self._reads):
                    kind[where] = [
                        (end, begin, _next(following, offset)) for end, begin, offset in kind[where]
                    ]
                reads = self._reads[where]
            self._check(group, tp, sorted(reads, key=itemgetter(1)))

    def _check(self, group: str, tp: Tp, reads: list[Write]) -> None:
        # What was seen was there then, so it is as sure as what was written.
        sure = sorted([*self._sure[group, tp], *reads], key=itemgetter(0))
        origins: dict[int | None, list[tuple[int, int]]] = defaultdict(list)
        for end, begin, offset in self._possible[group, tp]:
            origins[offset].append((end, begin))
        origins[None].append((-1, -1))
        latest: Write = (-1, -1, None)
        done = 0
        for end, begin, offset in reads:
            while done < len(sure) and sure[done][0] < begin:
                if sure[done][1] > latest[1]:
                    latest = sure[done]
                done += 1
            ends = [written for written, began in origins[offset] if began < end]
            where = f"{group!r} {tp}: {offset} at {begin}"
            if ends and (latest[2] == offset or max(ends) >= latest[1]):
                continue
            if offset is not None and self._is_pin(group, tp, offset):
                continue
            if not ends:
                self._found.add("phantom-commit", f"{where} was committed by nobody")
            else:
                text = f"{where}, though {latest[2]} was there at {latest[1]}-{latest[0]}"
                self._found.add("commit-regress", text)

    def _is_pin(self, group: str, tp: Tp, offset: int) -> bool:
        return group in self.latest and self.pins.setdefault((group, tp), offset) == offset


def _next(following: Sequence[int], offset: int | None) -> int | None:
    if offset is None:
        return None
    return following[offset] if offset < len(following) else len(following)
