"""What the ledger's records add up to: committed offsets, transactions, producers' epochs.

Each register takes records one by one, in the ledger's order, and can say all it knows as records
again; the first byte of a record's key says whose it is.

    o  group name         offsets of a group: entries; null when it was deleted
    s  session u32        transactions of one opening: the last count used, i64; while it runs
                          -1 - the last known
    b  transaction i64    it has begun in partitions: entries (topic, partition, first offset)
    e  transaction i64    it has ended: committed u8, count of entries u32, entries (topic,
                          partition, the offset behind its last record there), then by group
                          the length of its name u16, count of entries u32, name, entries
    a  empty              transactions that were aborted: i64 each
    p  producer name      the epoch of its latest opening i32

An entry is 28 bytes: topic id 16s, partition u32, offset i64 (-1: forgotten). A transaction's
number is its session and a count, so that none is ever used again, whatever a crash takes.

This module refuses to know where records are kept, and what is done with what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from struct import Struct
from typing import NamedTuple

ENTRY = Struct("<16sIq")
NUMBER = Struct("<q")
SESSION = Struct("<I")
ENDING = Struct("<BI")
GROUP = Struct("<HI")
EPOCH = Struct("<i")

OFFSETS = b"o"
SESSIONS = b"s"
BEGUN = b"b"
ENDED = b"e"
ABORTED = b"a"
EPOCHS = b"p"
FORGOTTEN = -1
COUNT_BITS = 32
COUNT_MASK = 2**COUNT_BITS - 1

Row = tuple[bytes, bytes | None]


class Place(NamedTuple):
    """A partition, by the id of its topic: another topic of the same name is another place."""

    topic_id: bytes
    partition: int


Offsets = dict[Place, int]


class Ending(NamedTuple):
    """How a transaction has ended, and what was decided with it."""

    is_commit: bool
    ends: Offsets  # behind its last record in each partition
    offsets: dict[str, Offsets]  # what groups commit with it

    def encode(self) -> bytes:
        """Return it as a record's value."""
        pieces = [ENDING.pack(self.is_commit, len(self.ends)), packed(self.ends)]
        for group, offsets in self.offsets.items():
            name = group.encode()
            pieces += [GROUP.pack(len(name), len(offsets)), name, packed(offsets)]
        return b"".join(pieces)

    @classmethod
    def decode(cls, value: bytes) -> Ending:
        """Return what a record's value says."""
        is_commit, count = ENDING.unpack_from(value)
        start, stop = ENDING.size, ENDING.size + count * ENTRY.size
        ends = unpacked(value[start:stop])
        groups = {}
        while stop < len(value):
            length, count = GROUP.unpack_from(value, stop)
            start = stop + GROUP.size + length
            name = value[stop + GROUP.size : start].decode()
            stop = start + count * ENTRY.size
            groups[name] = unpacked(value[start:stop])
        return cls(bool(is_commit), ends, groups)


class Commits:
    """The committed offsets of every group."""

    def __init__(self) -> None:
        self.groups: dict[str, Offsets] = {}

    def take(self, key: bytes, value: bytes | None) -> None:
        """Take one record in."""
        group = key.decode()
        if value is None:
            self.groups.pop(group, None)
        else:
            self.commit(group, unpacked(value))

    def commit(self, group: str, changed: Mapping[Place, int]) -> None:
        """Take offsets of a group in."""
        offsets = self.groups.setdefault(group, {})
        offsets.update(changed)
        for place in [place for place, offset in changed.items() if offset == FORGOTTEN]:
            del offsets[place]

    def rows(self) -> Iterator[Row]:
        """Yield all that is known, as records."""
        for group, offsets in self.groups.items():
            if offsets:
                yield OFFSETS + group.encode(), packed(offsets)


class Session(NamedTuple):
    """The transactions of one opening of the log."""

    is_running: bool
    last: int  # the last count that is known to have been used


def session_row(number: int, session: Session) -> tuple[bytes, bytes]:
    """Return a session as a record."""
    last = -1 - session.last if session.is_running else session.last
    return SESSIONS + SESSION.pack(number), NUMBER.pack(last)


class Outcomes:
    """Which transactions are open and which were aborted; all others were committed."""

    def __init__(self) -> None:
        self.open: dict[int, Offsets] = {}  # where the records of each begin
        self.aborted: set[int] = set()
        self.decided: dict[int, bool] = {}  # committed or aborted, and not seen so yet
        self.sessions: dict[int, Session] = {}

    def take_session(self, key: bytes, value: bytes) -> None:
        """Take in that a session has begun or ended, and with it each of its transactions: who
        found no room to say so was aborted."""
        (number,) = SESSION.unpack(key)
        (last,) = NUMBER.unpack(value)
        is_running = last < 0
        self.sessions[number] = Session(is_running, -1 - last if is_running else last)
        if not is_running:
            for transaction in [n for n in self.open if n >> COUNT_BITS == number]:
                self.take_ending(transaction, is_commit=False)

    def take_beginning(self, key: bytes, value: bytes) -> None:
        """Take in that a transaction has begun in some partitions."""
        (number,) = NUMBER.unpack(key)
        self.open[number] = {**unpacked(value), **self.open.get(number, {})}
        session, count = number >> COUNT_BITS, number & COUNT_MASK
        if count > self.sessions[session].last:
            self.sessions[session] = Session(True, count)

    def take_ending(self, number: int, *, is_commit: bool) -> None:
        """Take in that a transaction has ended. It is aborted first, open no longer after: who
        looks meanwhile finds one or the other."""
        if not is_commit:
            self.aborted.add(number)
        self.open.pop(number, None)
        self.decided.pop(number, None)

    def take_aborted(self, value: bytes) -> None:
        """Take in that these were aborted."""
        self.aborted.update(number for (number,) in NUMBER.iter_unpack(value))

    def hides(self, number: int) -> bool:
        """Say whether a transaction's records are not to be seen: it is open or was aborted, or
        nothing is known of it, as a crash took what said so.

        ``open`` is looked at first, as one that is aborted meanwhile leaves it last.
        """
        return number in self.open or number in self.aborted or not self._is_known(number)

    def is_aborted(self, number: int) -> bool:
        """Say whether a transaction's records never were: as ``hides``, but for open ones."""
        return number not in self.open and self.hides(number)

    def may_change(self, number: int) -> bool:
        """Say whether records to come may say more of a transaction: it has not ended yet."""
        return number in self.open or not (number in self.aborted or self._is_known(number))

    def _is_known(self, number: int) -> bool:
        session = self.sessions.get(number >> COUNT_BITS)
        return session is not None and number & COUNT_MASK <= session.last

    def rows(self) -> Iterator[Row]:
        """Yield all that is known, as records."""
        for number, session in self.sessions.items():
            yield session_row(number, session)
        aborted = self.aborted | {n for n, is_commit in self.decided.items() if not is_commit}
        if aborted:
            yield ABORTED, b"".join(map(NUMBER.pack, sorted(aborted)))
        for number, first in self.open.items():
            if number not in self.decided:
                yield BEGUN + NUMBER.pack(number), packed(first)


class Epochs:
    """The epoch of every named producer's latest opening."""

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}

    def take(self, key: bytes, value: bytes) -> None:
        """Take one record in."""
        self.epochs[key.decode()] = EPOCH.unpack(value)[0]

    def rows(self) -> Iterator[Row]:
        """Yield all that is known, as records."""
        for name, epoch in self.epochs.items():
            yield EPOCHS + name.encode(), EPOCH.pack(epoch)


class Registers:
    """All of them: what the records of a ledger add up to."""

    def __init__(self) -> None:
        self.commits = Commits()
        self.outcomes = Outcomes()
        self.epochs = Epochs()

    def take(
        self,
        key: bytes,
        value: bytes | None,
        *,
        is_settled: bool,
        judge: Callable[[Ending], bool] | None,
    ) -> None:
        """Take one record in, by whose it is. ``is_settled``: a transaction's end is seen at once;
        ``judge`` says, after a crash, whether its records are there."""
        kind, name = key[:1], key[1:]
        if kind == OFFSETS:
            self.commits.take(name, value)
        elif value is None:
            return
        elif kind == ENDED:
            (number,) = NUMBER.unpack(name)
            ending = Ending.decode(value)
            is_commit = ending.is_commit and (judge is None or judge(ending))
            self._take_ending(number, ending, is_commit=is_commit, is_settled=is_settled)
        elif kind == BEGUN:
            self.outcomes.take_beginning(name, value)
        elif kind == SESSIONS:
            self.outcomes.take_session(name, value)
        elif kind == ABORTED:
            self.outcomes.take_aborted(value)
        elif kind == EPOCHS:
            self.epochs.take(name, value)

    def _take_ending(
        self, number: int, ending: Ending, *, is_commit: bool, is_settled: bool
    ) -> None:
        if is_commit:
            for group, offsets in ending.offsets.items():
                self.commits.commit(group, offsets)
        if is_settled:
            self.outcomes.take_ending(number, is_commit=is_commit)
        else:
            self.outcomes.decided[number] = is_commit


def packed(offsets: Mapping[Place, int]) -> bytes:
    """Return offsets by partition as bytes."""
    return b"".join(ENTRY.pack(*place, offset) for place, offset in offsets.items())


def unpacked(data: bytes) -> Offsets:
    """Return offsets by partition."""
    return {
        Place(topic_id, partition): offset
        for topic_id, partition, offset in ENTRY.iter_unpack(data)
    }
