"""What a history is made of: operations, each with the ticks at which it began and ended.

Ticks come from one counter that all actors share, so an operation that ended before another began
has the smaller tick: that is the real-time order. `who` is a sender's number or a member's: one
consumer object of its own, from its making to its end. Values are whole numbers, each sent once.

It refuses to know what is right and what is an anomaly, and where the operations come from.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Tp = tuple[str, int]
Run = tuple[Tp, Sequence[int], Sequence[int]]  # a partition, offsets, values

OK = "ok"  # it happened
FAILED = "failed"  # it did not happen, and never will
UNKNOWN = "unknown"  # either; nobody was told


class Send(NamedTuple):
    """Values appended at once to one partition; `offsets` is None where none were told."""

    begin: int
    end: int
    who: int
    tp: Tp
    values: Sequence[int]
    offsets: Sequence[int] | None
    outcome: str = OK
    transaction: int | None = None


class End(NamedTuple):
    """The end of a transaction: `begin` is when its commit, or its abort, was asked for.

    `offsets` are those of `group` that were to be committed with it; then `who` is its member.
    """

    begin: int
    end: int
    who: int
    transaction: int
    outcome: str
    group: str | None = None
    offsets: Mapping[Tp, int] = {}


class Join(NamedTuple):
    """A consumer was made: everything else of a member comes after."""

    begin: int
    end: int
    who: int
    group: str | None
    is_auto: bool = True  # auto_commit
    is_committed: bool = False  # isolation="read_committed"
    is_telling: bool = True  # it has callbacks, so that its Assign and Revoke are here
    name: str | None = None  # the name it chose, by which it keeps its partitions
    leaves_out: frozenset[str] = frozenset()  # topics that its group never reads
    is_latest: bool = False  # auto_offset_reset="latest": where that is, is committed, too


class Assign(NamedTuple):
    """`on_assigned` ran: by partition, the committed offset (None without) and the position
    (None where it was not looked at)."""

    begin: int
    end: int
    who: int
    places: Mapping[Tp, tuple[int | None, int | None]]


class Revoke(NamedTuple):
    """`on_revoked` ran, within a poll or because the member leaves."""

    begin: int
    end: int
    who: int
    tps: Sequence[Tp]
    is_leaving: bool = False


class Lost(NamedTuple):
    """`on_lost` ran."""

    begin: int
    end: int
    who: int
    tps: Sequence[Tp]


class Leave(NamedTuple):
    """A consumer was closed (`is_clean`) or dropped."""

    begin: int
    end: int
    who: int
    is_clean: bool


class Poll(NamedTuple):
    """What one poll returned; or, `is_iterated`, what iteration yielded: its last record is not
    done yet, and whether it has committed is not to be seen. So it is of a poll that has raised.

    `transaction` is the one in which it was read, by whoever reads within one.
    """

    begin: int
    end: int
    who: int
    runs: Sequence[Run]
    is_iterated: bool = False
    transaction: int | None = None


class Seek(NamedTuple):
    """The next record of `tp` is to be the first at or after `offset`; None: who knows.

    `before` is where it was.
    """

    begin: int
    end: int
    who: int
    tp: Tp
    offset: int | None
    before: int = 0


class Commit(NamedTuple):
    """These offsets were committed by a call of the application's."""

    begin: int
    end: int
    who: int
    offsets: Mapping[Tp, int]
    outcome: str = OK


class Reset(NamedTuple):
    """A group's offsets were set from outside."""

    begin: int
    end: int
    who: int
    group: str
    offsets: Mapping[Tp, int]


class Committed(NamedTuple):
    """A group's committed offsets were looked at; None: there is none."""

    begin: int
    end: int
    who: int
    group: str
    offsets: Mapping[Tp, int | None]


class Trim(NamedTuple):
    """Records below `offset` were deleted."""

    begin: int
    end: int
    who: int
    tp: Tp
    offset: int


class Contents(NamedTuple):
    """All that was in a partition when nobody wrote any more."""

    begin: int
    end: int
    who: int
    tp: Tp
    offsets: Sequence[int]
    values: Sequence[int]
    is_committed: bool = False


Operation = (
    Send
    | End
    | Join
    | Assign
    | Revoke
    | Lost
    | Leave
    | Poll
    | Seek
    | Commit
    | Reset
    | Committed
    | Trim
    | Contents
)


class History:
    """Operations as they are recorded, by any number of threads."""

    def __init__(self) -> None:
        self.operations: list[Any] = []
        self._ticks = itertools.count()

    def tick(self) -> int:
        """Return the next tick; in CPython one call, so no two are the same."""
        return next(self._ticks)

    def add(self, kind: Any, begin: int, who: int, *fields: Any, **more: Any) -> None:
        """Record an operation that began at a tick and has just ended."""
        self.operations.append(kind(begin, next(self._ticks), who, *fields, **more))

    def __len__(self) -> int:
        return len(self.operations)

    def tail(self, count: int = 40) -> str:
        """Return the last operations, a line each."""
        return "\n".join(map(repr, self.operations[-count:]))
