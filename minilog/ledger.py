"""The ledger: the one log that decides what groups have committed and how transactions ended.

It is an internal topic. What its records mean, and add up to, stands in ``registers.py``; here
they are written, read and replayed. Because offsets and the ends of transactions are records of
one log, one record commits both: that is what makes a transaction atomic.

When the log has grown, all that is known is appended as one atomic batch and what stands before
it is deleted: opening takes time in proportion to the groups, not to their commits.

After a crash it is judged again (``recover``): a commit of offsets that have not survived is taken
back, and so is a transaction of which not every record has survived. That is decided, durably,
before anything is appended anywhere.

Lock order: coordinator → ledger → broker → partition. This module refuses to know members,
producers and who reads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from struct import error as StructError
from typing import Protocol

from minilog.errors import CorruptionError, MinilogError, OffsetOutOfRangeError, StorageError
from minilog.partition import Partition
from minilog.registers import (
    BEGUN,
    COUNT_BITS,
    ENDED,
    EPOCH,
    EPOCHS,
    NUMBER,
    OFFSETS,
    Commits,
    Ending,
    Epochs,
    Offsets,
    Outcomes,
    Place,
    Registers,
    Session,
    packed,
    session_row,
)
from minilog.storage import Problem
from minilog.topic import Topic

LEDGER = "__ledger"
SEGMENT_BYTES = 1 << 20
SNAPSHOT_BYTES = 1 << 20  # so much is appended, at least, before all is written anew


class Keeper(Protocol):
    """What a ledger needs of its broker."""

    @property
    def is_read_only(self) -> bool: ...
    @property
    def is_sync_always(self) -> bool: ...
    def ledger_partition(self, *, is_writing: bool) -> Partition | None: ...
    def topic_by_id(self, topic_id: bytes) -> Topic | None: ...
    def flush_topics(self) -> None: ...


class Ledger:
    """What groups have committed and how transactions ended, of one broker."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._lock = threading.Lock()
        self._partition: Partition | None = None
        self._position = 0
        self._is_behind = True  # there may be records that were not taken in
        self._has_followed = False  # all that was there at first was taken in
        self._grown_bytes = 0
        self._snapshot_bytes = 0
        self._session = 0  # of transactions, once there was one
        self._count = 0  # of its transactions
        self.settlements = 0  # changes when transactions end, odd while that is under way
        self._judge: Callable[[Ending], bool] | None = None  # while recovering
        self._registers = Registers()

    @property
    def _commits(self) -> Commits:
        return self._registers.commits

    @property
    def _outcomes(self) -> Outcomes:
        return self._registers.outcomes

    @property
    def _epochs(self) -> Epochs:
        return self._registers.epochs

    # ------------------------------------------------------------ what it says

    def group_names(self) -> list[str]:
        """Return the groups that have committed something, sorted."""
        with self._lock:
            self._follow()
            return sorted(group for group, offsets in self._commits.groups.items() if offsets)

    def committed(self, group: str) -> Offsets:
        """Return what a group has committed; what a transaction has committed with it is to be
        seen then, too, although who ends that may wait for the disk still."""
        with self._lock:
            self._follow()
            offsets = dict(self._commits.groups.get(group, {}))
            decided = [number for number, is_commit in self._outcomes.decided.items() if is_commit]
            end = self._position
        if decided:
            with contextlib.suppress(MinilogError):  # decided is decided: a reopening tells more
                self.wait_until_kept(end)
            for transaction in decided:
                self.settle(transaction, is_commit=True)
        return offsets

    def open_transactions(self) -> dict[int, Offsets]:
        """Return, by transaction that is open, where its records begin."""
        if self._is_behind:
            with self._lock:
                self._follow()
        return self._outcomes.open

    def first_open_offset(self, topic_id: bytes, partition: int) -> int | None:
        """Return where the oldest open transaction begins in a partition."""
        place = Place(topic_id, partition)
        open_now = list(self.open_transactions().values())
        return min((first[place] for first in open_now if place in first), default=None)

    def hides(self, transaction: int) -> bool:
        """Say whether a transaction's records are not to be seen, as far as was read; no lock is
        taken. Who asks has asked for ``open_transactions`` since the records were written."""
        return self._outcomes.hides(transaction)

    def is_aborted(self, transaction: int) -> bool:
        """Say whether a transaction's records never were; those of an open one may be."""
        outcomes = self._outcomes
        is_stale = self._keeper.is_read_only and outcomes.may_change(transaction)
        if is_stale or not self._has_followed:
            with self._lock:
                self._follow()
            outcomes = self._outcomes
        return outcomes.is_aborted(transaction)

    @property
    def has_transactions(self) -> bool:
        """Whether there ever was a transaction."""
        self.open_transactions()
        return bool(self._outcomes.sessions)

    # ------------------------------------------------------------ what is decided

    def commit(self, group: str, offsets: Mapping[Place, int]) -> int:
        """Write a group's offsets as one record; return what to ``wait_until_kept``."""
        return self._append(OFFSETS + group.encode(), packed(offsets))

    def forget(self, group: str) -> int:
        """Forget all that a group has committed; return what to ``wait_until_kept``."""
        return self._append(OFFSETS + group.encode(), None)

    def open_epoch(self, name: str) -> int:
        """Return the epoch of a named producer that opens now: one more than the last."""
        with self._lock:
            self._follow()
            epoch = self._epochs.epochs.get(name, -1) + 1
            self._write(EPOCHS + name.encode(), EPOCH.pack(epoch))
        return epoch

    def reserve_number(self) -> int:
        """Return a number for a transaction that no other ever had."""
        with self._lock:
            self._follow()
            if not self._session:
                self._begin_session()
            self._count += 1
            return self._session << COUNT_BITS | self._count

    def begin(self, transaction: int, first: Mapping[Place, int]) -> None:
        """Note where a transaction's records begin, before they are written."""
        self._append(BEGUN + NUMBER.pack(transaction), packed(first))

    def _begin_session(self) -> None:
        """Take a number for this opening's transactions that no crash can give out again."""
        number = max(self._outcomes.sessions, default=0) + 1
        self._write(*session_row(number, Session(True, 0)))
        assert self._partition is not None
        self._partition.flush()
        self._count = 0
        self._session = number

    def end(self, transaction: int, ending: Ending) -> int:
        """Decide a transaction, and the offsets that go with it, by one record; return what to
        ``wait_until_kept``. What is committed is to be seen after ``settle``."""
        return self._append(ENDED + NUMBER.pack(transaction), ending.encode())

    def settle(self, transaction: int, *, is_commit: bool) -> None:
        """Have a transaction seen as it was decided."""
        with self._lock:
            self.settlements |= 1  # odd while one is under way
            try:
                self._outcomes.take_ending(transaction, is_commit=is_commit)
            finally:
                self.settlements += 1

    def is_committed(self, transaction: int) -> bool:
        """Say whether the record that commits a transaction was written."""
        with self._lock:
            self._follow()
            decided = self._outcomes.decided.get(transaction)
            return not self._outcomes.hides(transaction) if decided is None else decided

    def end_session(self) -> None:
        """Note, when the log is closed, that all transactions of this opening have ended."""
        with self._lock:
            if self._session:
                session = self._outcomes.sessions[self._session]
                self._write(*session_row(self._session, Session(False, session.last)))
                self._session = 0

    def wait_until_kept(self, end: int) -> None:
        """Return when all below ``end`` is as durable as the broker's records are."""
        assert self._partition is not None
        self._partition.wait_until_kept(end)

    # ------------------------------------------------------------ the log

    def _follow(self) -> None:
        """Take in what is there and was not yet: all of it at first, then what another process
        has appended, or what an interrupt kept from being taken in."""
        if not self._is_behind:
            return
        partition = self._partition
        if partition is None:
            partition = self._partition = self._keeper.ledger_partition(is_writing=False)
        is_read_only = self._keeper.is_read_only
        if partition is not None:
            if self._keeper.is_sync_always and not is_read_only:
                partition.flush()  # nothing is read before
            try:
                self._take_in(partition)
            finally:
                self.settlements += self.settlements % 2
        self._is_behind = is_read_only
        self._has_followed = partition is not None or not is_read_only

    def _take_in(self, partition: Partition) -> None:
        registers = self._registers
        while True:
            if self._position < partition.start_offset:
                registers = Registers()  # a snapshot follows, and it is all there is to know
                self._position = partition.start_offset
            try:
                records = partition.read_all(self._position, 5000)
            except OffsetOutOfRangeError:
                continue  # deleted by another process since the look above
            if not records:
                break
            self.settlements |= 1  # what has ended is to be seen everywhere or nowhere
            for offset, key, value in zip(records.offsets, records.keys, records.values):
                try:
                    registers.take(key or b"", value, is_settled=True, judge=self._judge)
                except (StructError, UnicodeDecodeError, KeyError):
                    raise CorruptionError(
                        "the record passes its checksum, but minilog did not write it",
                        path=f"{partition.topic}-{partition.index}",
                        offset=offset,
                    ) from None
            self._position = records.next_offset
        self._registers = registers  # whole: others look at them meanwhile

    def _append(self, key: bytes, value: bytes | None) -> int:
        with self._lock:
            self._follow()
            return self._write(key, value)

    def _write(self, key: bytes, value: bytes | None) -> int:
        partition = self._partition
        if partition is None:
            partition = self._partition = self._keeper.ledger_partition(is_writing=True)
            assert partition is not None
        self._is_behind = True  # until it is taken in: an interrupt may come between
        try:
            end = partition.append_unkept(key, value) + 1
        except (OSError, MinilogError):
            self._is_behind = False  # then nothing was appended, and reading goes on
            raise
        self._registers.take(key, value, is_settled=False, judge=self._judge)
        self._position = end
        self._is_behind = False
        self._grown_bytes += len(key) + len(value or b"") + 40
        if self._grown_bytes > max(SNAPSHOT_BYTES, 2 * self._snapshot_bytes):
            # No room, or a topic that cannot be synced or is gone: tried again by the next.
            with contextlib.suppress(OSError, MinilogError):
                self._rewrite(partition)
        return end

    def _rewrite(self, partition: Partition) -> None:
        """Append all that is known as one batch, and delete what stands before it."""
        if self._outcomes.sessions:
            # What a transaction's end says of its records cannot be judged again without it.
            self._keeper.flush_topics()
        for offsets in self._commits.groups.values():
            gone = [p for p in offsets if self._keeper.topic_by_id(p.topic_id) is None]
            for place in gone:
                del offsets[place]
        rows = [*self._commits.rows(), *self._outcomes.rows(), *self._epochs.rows()]
        keys, values = [key for key, _ in rows], [value for _, value in rows]
        written = partition.append_many(values, keys=keys)
        self._position = written.stop
        self._grown_bytes = 0
        self._snapshot_bytes = sum(len(key) + len(value or b"") for key, value in rows)
        partition.delete_before(written.start)

    # ------------------------------------------------------------ after a crash

    def recover(self) -> list[Problem]:
        """Judge, once every log was recovered, what groups and transactions have committed; take
        back what has not survived, durably, and report it."""
        from minilog.survival import Survival  # most openings follow a clean close

        survival = Survival(self._keeper.topic_by_id)
        self._judge = survival.is_whole
        try:
            with self._lock:
                self._follow()
        finally:
            self._judge = None
        with self._lock:
            if self._partition is None:
                return survival.problems
            has_changed = bool(survival.problems)
            for group, offsets in self._commits.groups.items():
                has_changed |= survival.take_back(group, offsets)
            for transaction in list(self._outcomes.open):
                self._outcomes.take_ending(transaction, is_commit=False)
                has_changed = True
            for number, session in list(self._outcomes.sessions.items()):
                has_changed |= session.is_running
                self._outcomes.sessions[number] = session._replace(is_running=False)
            if has_changed:
                self._decide(self._partition)  # before anything is appended
        return survival.problems

    def _decide(self, partition: Partition) -> None:
        """Have what was judged on the disk before anything is appended; StorageError."""
        try:
            self._rewrite(partition)
        except OSError as error:
            raise StorageError(
                f"{partition.path}: what groups and transactions came to in the crash could not "
                f"be written ({error}), and has to be before anything else is. Nothing was lost: "
                "make room, or mend what is wrong there, and open it again; read_only=True opens "
                "it as it is"
            ) from error
