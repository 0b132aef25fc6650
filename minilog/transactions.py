"""Transactions: records of any topics and offsets of groups that are seen together, or never.

One record of the ledger decides. Before a transaction writes to a partition, the ledger notes
where its records begin there; at its end one record says that it was committed, which offsets
groups commit with it, and how far its records go in each partition. Why that is atomic:

- In this process, it is seen by one assignment: from then on nothing is hidden any more.
- After kill -9 the ledger's record is there or not.
- After a power cut, with ``sync="always"``, what it covers was synced before it was written. At
  the other levels it may have survived without: then it says how far the records should go, and
  it is aborted where they do not, before anything is appended there (``Ledger.recover``).

The marker that follows in each partition uses an offset, as Kafka's does, and decides nothing.
Lock order: transaction → coordinator → ledger → broker → partition. This module refuses to know
how records are routed, and what reading them is like.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Protocol

from minilog.clock import Clock
from minilog.coordinator import Commit, Coordinator
from minilog.errors import MinilogError, TransactionError
from minilog.ledger import Ledger
from minilog.partition import Partition
from minilog.registers import Ending, Offsets, Place
from minilog.sources import Identity


class Host(Protocol):
    """What transactions need of their broker."""

    @property
    def clock(self) -> Clock: ...
    @property
    def ledger(self) -> Ledger: ...
    def coordinator(self, group: str) -> Coordinator: ...
    def check_open(self) -> None: ...
    def check_writable(self) -> None: ...


class Work:
    """One transaction: what it has written so far, and how it ends."""

    def __init__(self, host: Host, timeout_ms: int, identity: Identity | None) -> None:
        host.check_writable()
        self._host = host
        self.identity = identity
        # As a source: the number of the named producer whose transaction it is, or -1.
        self.producer_id = -1 if identity is None else identity.producer_id
        self.epoch = -1 if identity is None else identity.epoch
        self._lock = threading.RLock()
        self._first: dict[Partition, Place] = {}
        self._begins: Offsets = {}
        self._commits: dict[str, list[Commit]] = {}
        self._timeout_ms = timeout_ms
        self.deadline_ms = host.clock.now_ms() + timeout_ms
        self.transaction = 0
        self.is_over = False
        self.is_aborted = False  # as was asked for
        self._reason = ""  # why nothing can be sent any more

    # ------------------------------------------------------------ what it writes

    def check(self) -> None:
        """Raise unless it is open still."""
        if self.identity is not None:
            self.identity.check()
        self._host.check_open()
        self.expire()
        if self.is_over:
            raise TransactionError(f"the transaction is over: {self._reason}")

    def expire(self) -> None:
        """Abort it when its time is over by the clock."""
        if not self.is_over and self._host.clock.now_ms() >= self.deadline_ms:
            self.abort(f"it took longer than {self._timeout_ms} ms (transaction_timeout_ms)")

    def write(self, partition: Partition, append: Callable[[], Any]) -> Any:
        """Do one append to a partition within the transaction."""
        with self._lock:
            self.check()
            if partition not in self._first:
                self._enter(partition)
            return append()

    def write_plain(
        self, partition: Partition, sequence: int | None, key: bytes, value: bytes
    ) -> tuple[int, int] | None:
        """Append a record of the commonest kind and return its offset and timestamp; None where
        ``write`` has to look."""
        with self._lock:
            if (
                self.is_over
                or not partition.is_plain
                or self._host.clock.now_ms() >= self.deadline_ms
            ):
                return None
            if partition not in self._first:
                self._enter(partition)
            return partition.append_numbered(self, sequence, key, value)

    def _enter(self, partition: Partition) -> None:
        """Note in the ledger where its records begin in a partition, before any is written."""
        place = Place(partition.topic_id, partition.index)
        ledger = self._host.ledger
        self.transaction = self.transaction or ledger.reserve_number()
        self._begins[place] = first = partition.offset_to_write()
        ledger.begin(self.transaction, {place: first})
        self._first[partition] = place

    def commit_offsets(self, group: str, commit: Commit) -> None:
        """Have offsets of a group committed with it."""
        with self._lock:
            self.check()
            with self._host.coordinator(group).holding((commit,)):
                self._commits.setdefault(group, []).append(commit)

    # ------------------------------------------------------------ its end

    def commit(self) -> None:
        """Have all of it seen; what goes wrong aborts it and comes out."""
        with self._lock:
            self.check()
            try:
                self._decide()
            except BaseException as error:
                if self._was_decided():
                    self._finish(is_commit=True, reason="it was committed")
                else:
                    self.abort(f"it could not be committed ({error})")
                raise
            self._finish(is_commit=True, reason="it was committed")

    def _decide(self) -> None:
        ends = {}
        for partition, place in self._first.items():
            ends[place] = end = partition.offset_to_write()
            partition.wait_until_kept(end)
        if not ends and not self._commits:
            return
        ledger = self._host.ledger
        offsets: dict[str, Offsets] = {}
        with contextlib.ExitStack() as stack:
            for group, commits in sorted(self._commits.items()):
                coordinator = self._host.coordinator(group)
                held = stack.enter_context(coordinator.holding(commits))
                offsets[group] = {place: offset for _, place, offset in held}
            kept = ledger.end(self.transaction, Ending(True, ends, offsets))
        ledger.wait_until_kept(kept)

    def _was_decided(self) -> bool:
        """Say whether its commit was written, although what came then was not to be."""
        if not self.transaction:
            return False
        try:
            return self._host.ledger.is_committed(self.transaction)
        except (OSError, MinilogError):
            return False  # nobody can tell; after a reopening what is on the disk decides

    def abort(self, reason: str, *, is_asked: bool = False) -> None:
        """Have none of it seen; nothing happens when it is over."""
        with self._lock:
            if self.is_over:
                return
            if self._was_decided():  # an interrupt came between that and its being seen
                self._finish(is_commit=True, reason="it was committed")
                return
            self.is_aborted = is_asked
            if self.transaction:
                with contextlib.suppress(OSError, MinilogError):  # not ended is aborted, too
                    self._host.ledger.end(self.transaction, Ending(False, {}, {}))
                for partition, place in self._first.items():
                    partition.take_back(self.producer_id, self._begins[place])
            self._finish(is_commit=False, reason=reason)

    def _finish(self, *, is_commit: bool, reason: str) -> None:
        """Have it seen as it was decided; what an interrupt cuts off here is done again."""
        if self.transaction:
            self._host.ledger.settle(self.transaction, is_commit=is_commit)
        self._reason = reason
        self.is_over = True
        if self.identity is not None:
            self.identity.is_in_transaction = False
        if self.transaction:
            for partition in self._first:
                # A marker decides nothing: one that finds no room is done without.
                with contextlib.suppress(OSError, MinilogError):
                    partition.append_marker(self.transaction, is_commit=is_commit)
                partition.announce()


class Transactions:
    """The transactions of one broker that are open, so that they end in time."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()  # over the list; a leaf
        self._open: list[Work] = []

    def begin(self, timeout_ms: int, identity: Identity | None) -> Work:
        """Begin one; of a named producer one at a time."""
        self.expire()
        with self._lock:
            if identity is not None:
                identity.check()
                if self._is_busy(identity):
                    raise TransactionError(
                        f"producer {identity.name!r} is in a transaction; end that one first"
                    )
            work = Work(self._host, timeout_ms, identity)
            self._open.append(work)
            if identity is not None:
                identity.is_in_transaction = True
        return work

    def is_busy(self, identity: Identity) -> bool:
        """Say whether a named producer is in a transaction whose time is not over."""
        self.expire()
        with self._lock:
            return self._is_busy(identity)

    def _is_busy(self, identity: Identity) -> bool:
        # The list knows: an interrupt may have come before the producer was told.
        busy = any(work.identity is identity and not work.is_over for work in self._open)
        identity.is_in_transaction = busy
        return busy

    def expire(self) -> None:
        """Abort those whose time is over by the clock."""
        if not self._open:
            return
        for work in list(self._open):
            work.expire()
        with self._lock:
            self._open = [work for work in self._open if not work.is_over]

    def seconds_to_expiry(self) -> float | None:
        """Return how long it is until one may be aborted; None if none is open."""
        ends = [work.deadline_ms for work in list(self._open) if not work.is_over]
        return max(min(ends) - self._host.clock.now_ms(), 0) / 1000 if ends else None

    def fence(self, identity: Identity) -> None:
        """Let a named producer write no more, and abort its transaction."""
        identity.is_fenced = True
        for work in list(self._open):
            if work.producer_id == identity.producer_id:
                work.abort(f"another producer {identity.name!r} was opened")

    def close(self) -> bool:
        """Abort all, as the log is closed; False where that could not be written, so that the
        next opening has to, as after a crash."""
        for work in list(self._open):
            work.abort("the broker was closed")
        try:
            self._host.ledger.end_session()
        except (OSError, MinilogError):
            return False
        return True
