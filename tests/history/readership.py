"""Who has read what: nothing acknowledged may stay unread by everybody, nor by any group.

It refuses to know in which order it was read.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain

from tests.history.anomalies import Anomalies
from tests.history.logs import Logs, Span
from tests.history.operations import OK, Send, Tp

MOST_TOLD = 20  # gaps told of one partition


class Readership:
    """What each group, or nobody's group (None), has read, and need not have read."""

    def __init__(self, found: Anomalies, logs: Logs) -> None:
        self._found = found
        self._logs = logs
        self._spans: dict[tuple[str | None, Tp], list[Span]] = defaultdict(list)
        self._excused: dict[tuple[str, Tp], list[Span]] = defaultdict(list)
        self.latest: set[str] = set()  # groups that begin where the partition ended
        self.leaves_out: dict[str, frozenset[str]] = {}  # topics that a group never reads
        self.isolation: dict[str, set[bool]] = defaultdict(set)  # is_committed of members

    def spans_of(self, group: str | None, tp: Tp) -> list[Span]:
        """Return the list that takes what is read."""
        return self._spans[group, tp]

    def excuse(self, group: str | None, tp: Tp, start: int, stop: int) -> None:
        """Note what a group was asked not to read."""
        if group is not None and start < stop:
            self._excused[group, tp].append((start, stop))

    def finish(self, sends: list[Send]) -> None:
        """Look for what was not read, by anybody and by each group."""
        partitions = list(self._logs.values)
        unread: dict[Tp, set[int]] = {}
        for tp in partitions:
            everybody = [spans for (_, of), spans in self._spans.items() if of == tp]
            unread[tp] = self._check_everybody(tp, list(chain.from_iterable(everybody)))
        for group in sorted(self.isolation):
            for tp in partitions:
                if tp[0] not in self.leaves_out.get(group, ()):
                    self._check_group(group, tp, unread[tp])
        self._check_untold(sends)

    def _check_everybody(self, tp: Tp, spans: list[Span]) -> set[int]:
        end = max((stop for _, stop in spans), default=0)
        unread = set()
        for offset in self._missing(tp, spans, is_committed=True):
            unread.add(offset)
            kind = "lost-write" if offset < end else "unseen"
            value = self._logs.values[tp][offset]
            self._found.add(kind, f"{tp} {offset}: {value} was acknowledged and read by nobody")
        return unread

    def _check_group(self, group: str, tp: Tp, told: set[int]) -> None:
        spans = self._spans.get((group, tp), [])
        end = max((stop for _, stop in spans), default=0)
        is_committed = False not in self.isolation[group]
        covered = spans + self._excused.get((group, tp), [])
        if group in self.latest:
            # Where it began is what it was given first: it may have sought before that, and lost
            # that place. Who was given it and came to read nothing may have begun at its very end.
            began = spans[0][0] if spans else len(self._logs.values[tp])
            covered.append((0, began))
        for offset in self._missing(tp, covered, is_committed=is_committed):
            if offset not in told:
                kind = "group-skip" if offset < end else "unseen"
                self._found.add(kind, f"{tp} {offset} was delivered to no member of {group!r}")

    def _missing(self, tp: Tp, spans: list[Span], *, is_committed: bool) -> list[int]:
        """Return the first offsets that have a value and lie in no span."""
        missing: list[int] = []
        reached = 0
        end = len(self._logs.values[tp])
        for start, stop in [*sorted(spans), (end, end)]:
            offset: int | None = reached
            while offset is not None and offset < start and len(missing) < MOST_TOLD:
                offset = self._logs.first_skipped(
                    tp, offset, start, float("inf"), is_committed=is_committed
                )
                if offset is not None:
                    missing.append(offset)
                    offset += 1
            reached = max(reached, stop)
        return missing

    def _check_untold(self, sends: list[Send]) -> None:
        """What was acknowledged without its offset must be somewhere."""
        wanted = {
            value
            for send in sends
            if send.outcome == OK and send.offsets is None and send.transaction is None
            for value in send.values
        }
        if wanted:
            for log in self._logs.values.values():
                wanted.difference_update(log)
            for value in sorted(wanted)[:MOST_TOLD]:
                self._found.add("lost-write", f"{value} was acknowledged and read by nobody")
