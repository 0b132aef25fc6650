"""Transactions in a history: all of one is to be seen or nothing, and none reads in a circle.

It refuses to know offsets.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tests.history.anomalies import Anomalies
from tests.history.logs import NEVER, Logs
from tests.history.offsets import Offsets
from tests.history.operations import FAILED, OK, UNKNOWN, Contents, End, Send

if TYPE_CHECKING:
    from tests.history.participants import Members


class Endings:
    """How each transaction ended; one without an end was open when the history ended."""

    def __init__(self, ends: Iterable[End]) -> None:
        self.of = {end.transaction: end for end in ends}

    def visible_from(self, transaction: int) -> float:
        """Return from which tick a transaction's values may be seen by read_committed."""
        end = self.of.get(transaction)
        return NEVER if end is None or end.outcome == FAILED else end.begin


def check(
    sends: list[Send],
    contents: list[Contents],
    endings: Endings,
    logs: Logs,
    members: Members,
    offsets: Offsets,
    found: Anomalies,
    *,
    is_complete: bool,
) -> None:
    """Look for what transactions must not show, and note the offsets they have committed."""
    writer = {
        value: send.transaction
        for send in sends
        if send.transaction is not None
        for value in send.values
    }
    seen = Counter(
        writer[value]
        for value in members.seen_committed.union(
            *(read.values for read in contents if read.is_committed)
        )
        if value in writer
    )
    sizes = Counter(writer.values())
    for number, size in sizes.items():
        if number is not None:
            _check_one(number, size, seen[number], endings, found, is_complete=is_complete)
    for send in sends:
        if send.transaction is not None and not seen[send.transaction] and send.offsets is not None:
            end = endings.of.get(send.transaction)
            if end is not None and end.outcome == UNKNOWN:
                logs.hide(send.tp, send.offsets, NEVER)
    for number, end in endings.of.items():
        is_visible = end.outcome == OK or (end.outcome == UNKNOWN and seen[number] > 0)
        is_possible = is_visible or (end.outcome == UNKNOWN and not sizes[number])
        if end.group is not None and is_possible:
            for tp, offset in end.offsets.items():
                offsets.write(end.group, tp, end.begin, end.end, offset, is_sure=is_visible)
    _check_circles(members.read_within, writer, found)


def _check_one(
    number: int, size: int, count: int, endings: Endings, found: Anomalies, *, is_complete: bool
) -> None:
    end = endings.of.get(number)
    text = f"{count} of {size} values of transaction {number} were seen: {end}"
    if end is None and count:
        found.add("precommitted-read", text)
    elif end is not None and end.outcome == FAILED and count:
        found.add("aborted-read", text)
    elif end is not None and is_complete and count != size and (count or end.outcome == OK):
        found.add("torn-transaction", text)


def _check_circles(
    read_within: dict[int, set[int]], writer: Mapping[int, int | None], found: Anomalies
) -> None:
    """Take away, again and again, who has read of nobody that is left; the rest is in circles."""
    sources: dict[int, set[int]] = {}
    readers: dict[int, list[int]] = defaultdict(list)
    for reader, values in read_within.items():
        sources[reader] = {
            source
            for value in values
            if (source := writer.get(value)) is not None and source != reader
        }
        for source in sources[reader]:
            readers[source].append(reader)
    free = [source for source in [*readers, *sources] if not sources.get(source)]
    while free:
        for reader in readers.pop(free.pop(), ()):
            sources[reader] = {source for source in sources[reader] if source in readers}
            if not sources[reader]:
                free.append(reader)
    circle = sorted(reader for reader, left in sources.items() if left)
    if circle:
        found.add("G1c", f"transactions {circle[:20]} have read of one another")
