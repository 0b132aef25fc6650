"""From a history to its anomalies, in the style of Jepsen's Kafka workload. A pure function.

    lost-write              an acknowledged value was read by nobody, though a later one was
    unseen                  an acknowledged value was read by nobody, or not by a group, and
                            nothing after it either
    group-skip              a group went past a record without its being delivered to any member
    duplicate               one value at two offsets
    inconsistent-offset     two values at one offset
    nonmonotonic-send       a sender's later value has the smaller offset (int-: within one send)
    realtime-send           so have two senders' values, though one had ended when the other began
    poll-skip               a member's poll passed over a record (int-: within one poll)
    nonmonotonic-poll       a member's poll went back (int-: within one poll)
    wrong-resume            a member was given a partition elsewhere than at the committed offset
    two-owners              a partition was a member's while it was another's
    stale-commit            a commit was taken from a member that had lost the partition
    commit-regress          a committed offset went back, and nobody had asked for it
    phantom-commit          an offset was committed that nobody had committed, or had done
    aborted-read            a read_committed poll gave a record of an aborted transaction, or any
                            poll a value whose send had failed (G1a)
    precommitted-read       a read_committed poll gave a record before its commit was asked for
    torn-transaction        of one transaction's values some were to be seen, and some never
    G1c                     transactions that have each read what the other wrote

Seeks, trimmed records, offsets reset or committed by hand are taken into account: what the
application has asked for is no anomaly. It refuses to know how a history came to be.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from operator import itemgetter
from typing import Any

from tests.history import transactions
from tests.history.anomalies import Anomalies, Anomaly
from tests.history.logs import NEVER, Logs
from tests.history.offsets import Offsets
from tests.history.operations import (
    FAILED,
    OK,
    Committed,
    Contents,
    End,
    Operation,
    Reset,
    Send,
    Tp,
    Trim,
)
from tests.history.participants import Members
from tests.history.readership import Readership

by_end = itemgetter(1)


def check(history: Iterable[Operation], *, is_complete: bool = True) -> list[Anomaly]:
    """Return the anomalies of a history; `is_complete`: in the end all was read by everybody."""
    kinds: dict[type, list[Any]] = defaultdict(list)
    for operation in history:
        kinds[operation.__class__].append(operation)
    was_collecting = gc.isenabled()
    gc.disable()  # a third of the time otherwise; there are no cycles here
    try:
        return _check(kinds, is_complete=is_complete)
    finally:
        if was_collecting:
            gc.enable()


def _check(kinds: dict[type, list[Any]], *, is_complete: bool) -> list[Anomaly]:
    found = Anomalies()
    logs = Logs(found)
    offsets = Offsets(found)
    readership = Readership(found, logs)
    endings = transactions.Endings(kinds.get(End, []))
    sends: list[Send] = sorted(kinds.pop(Send, ()), key=by_end)
    logs.take_trims(kinds.pop(Trim, ()))
    _take_sends(sends, logs, endings, found)
    _take_looks(kinds, offsets, readership)
    contents: list[Contents] = kinds.pop(Contents, [])
    for read in contents:
        logs.take(read.tp, read.offsets, read.values, readership.spans_of(None, read.tp))
    members = Members(found, logs, offsets, readership, endings)
    members.take(sorted((each for kind in kinds.values() for each in kind), key=by_end))
    logs.finish({value for send in sends if send.outcome == FAILED for value in send.values})
    transactions.check(
        sends, contents, endings, logs, members, offsets, found, is_complete=is_complete
    )
    members.finish()
    offsets.finish(logs, readership.isolation)
    for (group, tp), pin in offsets.pins.items():
        readership.excuse(group, tp, 0, pin)
    if is_complete:
        readership.finish(sends)
    return found.all


def _take_sends(
    sends: list[Send], logs: Logs, endings: transactions.Endings, found: Anomalies
) -> None:
    """Note what was acknowledged where, and that each sender's offsets grow."""
    last: dict[tuple[int, Tp], int] = {}
    acknowledged: dict[Tp, list[tuple[int, int, int]]] = defaultdict(list)
    for send in sends:
        begin, end, who, tp, values, offsets, outcome, transaction = send
        if outcome != OK or offsets is None:
            continue
        first = offsets[0]
        highest = offsets[-1]
        log = logs.values[tp]
        if first == highest == len(log):
            log += values  # by far the commonest: one value, the next
        elif highest - first + 1 == len(offsets) and _is_run(offsets):
            logs.put(tp, first, values)
        else:
            _check_within(send, offsets, logs, found)
            first, highest = min(offsets), max(offsets)
        sender = (who, tp)
        if first <= last.get(sender, -1):
            found.add("nonmonotonic-send", f"after offset {last[sender]}: {send}")
        last[sender] = highest
        acknowledged[tp].append((first, begin, end))
        if transaction is not None:
            logs.hide(tp, offsets, endings.visible_from(transaction))
    for tp, marks in acknowledged.items():
        _check_real_time(tp, marks, found)


def _is_run(offsets: Any) -> bool:
    first, last = offsets[0], offsets[-1]
    return offsets.__class__ is range or list(offsets) == list(range(first, last + 1))


def _check_within(send: Send, offsets: Any, logs: Logs, found: Anomalies) -> None:
    for offset, value in zip(offsets, send.values):
        logs.put(send.tp, offset, (value,))
    if any(later <= earlier for earlier, later in pairwise(offsets)):
        found.add("int-nonmonotonic-send", str(send))


def _check_real_time(tp: Tp, marks: list[tuple[int, int, int]], found: Anomalies) -> None:
    """What began after another send had ended must lie behind it."""
    marks.sort(reverse=True)
    soonest_end: float = NEVER
    for offset, begin, end in marks:
        if soonest_end < begin:
            found.add("realtime-send", f"{tp} {offset}: a send that ended before lies behind it")
        if end < soonest_end:
            soonest_end = end


def _take_looks(kinds: dict[type, list[Any]], offsets: Offsets, readership: Readership) -> None:
    """Note what was seen of a group's offsets, and done to them, from outside."""
    for reset in kinds.pop(Reset, ()):
        for tp, offset in reset.offsets.items():
            offsets.write(reset.group, tp, reset.begin, reset.end, offset)
            readership.excuse(reset.group, tp, 0, offset)
    for look in kinds.pop(Committed, ()):
        for tp, offset in look.offsets.items():
            offsets.read(look.group, tp, look.begin, look.end, offset)
