"""A consumer's part in its group: it joins, gives partitions up and takes them in, and commits.

All of it happens inside the consumer's own calls and in their thread. Callbacks run under no
lock: what a member is to lose it has until its callback returned, so that the callback can commit,
and no record of it is delivered meanwhile.

What is *done* may be committed: what earlier polls returned, and of an iteration the records after
which another one was asked for. This module refuses to know how partitions are shared out, and
waiting.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from minilog.assignors import Assignor
from minilog.coordinator import Commit, Coordinator
from minilog.errors import CommitError
from minilog.ledger import Ledger
from minilog.ownership import Member
from minilog.partition import Partition
from minilog.places import Place, Places
from minilog.records import TopicPartition

Callback = Callable[[list[TopicPartition]], Any]
Callbacks = Mapping[str, Callback | None]


class Membership:
    """One consumer's part in its group; ``lock`` is the consumer's, over its places."""

    def __init__(
        self,
        coordinator: Coordinator,
        ledger: Ledger,
        places: Places,
        lock: threading.RLock,
        *,
        member_id: str | None,
        assignor: str | Assignor,
        max_poll_interval_ms: int,
        auto_commit: bool,
    ) -> None:
        self.coordinator = coordinator
        self._ledger = ledger
        self._places = places
        self._lock = lock
        self._member_id = member_id
        self._auto_commit = auto_commit
        self._callbacks: Callbacks = {}
        self._is_joined = False  # else its partitions are assigned by hand, or it has none
        self._is_following = False
        self._lost: list[TopicPartition] = []  # of which the callback is still to hear
        self._gone: set[TopicPartition] = set()  # too: deleted, and seen to be between two polls
        self.member = Member(assignor, max_poll_interval_ms, is_latest=places.begins_at_end)

    # ------------------------------------------------------------ in and out

    def join(
        self, names: frozenset[str], pattern: re.Pattern[str] | None, callbacks: Callbacks
    ) -> None:
        """Subscribe to topics as a member of the group."""
        before = (self.member.names, self.member.pattern)
        self.member.names, self.member.pattern = names, pattern
        try:
            was_out = self.coordinator.join(self.member, self._member_id)
        except BaseException:
            self.member.names, self.member.pattern = before
            raise
        if was_out and self._is_joined:
            self._lose_all()  # the next poll tells it
        self._callbacks = callbacks
        self._is_joined = True

    def leave(self, *, for_good: bool) -> None:
        """Give everything up; a member that named itself comes back soon, unless ``for_good``."""
        with self._lock:  # between two commits of other threads, not within one
            was_joined, self._is_joined = self._is_joined, False
        if was_joined:
            self.coordinator.leave(self.member, for_good=for_good)

    def drop(self) -> None:
        """Have the group know that its consumer is no more, without taking a lock."""
        if self._is_joined:
            self.coordinator.drop(self.member)

    def call_before_leaving(self, gone: list[TopicPartition], commits: bool) -> None:
        """Commit what is done and tell the callback what goes."""
        if commits:
            self.commit_done()
        self._tell_lost()
        gone, self._gone = sorted(self._gone.union(gone)), set()
        self._call_back("on_lost" if self._is_out() else "on_revoked", gone)

    def _is_out(self) -> bool:
        return self._is_joined and self.coordinator.share(self.member) is None

    # ------------------------------------------------------------ poll

    def begin_poll(self) -> list[TopicPartition]:
        """Begin a poll: commit what is done, give up and take in what the group has decided;
        return what was taken in."""
        with self._lock:
            self._places.finish()
            if self._is_following:  # a callback polls, or another thread is at it
                return []
            if not self._is_joined:
                self.commit_done()
                return []
            self.coordinator.check_in(self.member)
            has_changed = self.coordinator.has_changed(self.member)
            self.commit_done()
            if not has_changed:
                return []
            self._is_following = True
        try:
            return self._follow()
        finally:
            self._is_following = False

    def enter_poll(self) -> None:
        """Have the group know that a poll is under way, however long it waits."""
        if self._is_joined:
            self.coordinator.enter_poll(self.member)

    def leave_poll(self) -> None:
        """End a poll: the time to the next one counts from now."""
        if self._is_joined:
            self.coordinator.leave_poll(self.member)

    def may_go_on(self) -> bool:
        """Say whether records fetched before may still be yielded, as asking for them is polling;
        else the group comes first."""
        member = self.member
        if not self._is_joined:
            return True
        if self.coordinator.is_late(member) or member.seen_version != self.coordinator.version:
            return False
        self.coordinator.touch(member)
        return True

    def has_news(self) -> bool:
        """Say whether a poll would find the group changed."""
        return self._is_joined and not self.coordinator.is_quiet(self.member)

    def seconds_to_news(self) -> float | None:
        """Return when to look again, at the latest, as another member may be out by then."""
        return self.coordinator.seconds_to_expiry(self.member) if self._is_joined else None

    def _follow(self) -> list[TopicPartition]:
        while self._is_joined:  # a callback may have closed or unsubscribed
            share = self.coordinator.share(self.member)
            if share is None:
                with self._lock:
                    self._lose_all()
            self._tell_lost()
            if share is None:
                if self._is_joined:
                    self.coordinator.join(self.member, self._member_id)
            elif share.revoked:
                self._give_up(share.revoked)
            else:
                with self._lock:
                    share = self.coordinator.share(self.member, is_told=True)
                    if share is not None and not share.revoked:
                        return self._places.replace(share.partitions, self.place_for(), share.terms)
        return []

    def _give_up(self, revoked: list[TopicPartition]) -> None:
        with self._lock:
            read = [tp for tp in revoked if self._places.give_up(tp) or tp in self._gone]
            self._gone.difference_update(revoked)
        try:
            self._call_back("on_revoked", read)
        finally:
            self.coordinator.release(self.member, revoked)

    def _lose_all(self) -> None:
        self._lost += sorted(self._gone.union(self._places.clear()))
        self._gone.clear()

    def _tell_lost(self) -> None:
        lost, self._lost = self._lost, []
        self._call_back("on_lost", lost)

    def _call_back(self, name: str, tps: list[TopicPartition]) -> None:
        """Run a callback; who has none for what was lost is told that it was revoked, as Kafka's
        listeners are."""
        callback = self._callbacks.get(name)
        if callback is None and name == "on_lost":
            callback = self._callbacks.get("on_revoked")
        if callback is not None and tps:
            callback(tps)

    def refresh(self) -> list[TopicPartition]:
        """Take in, between polls, what the group has given this member; return what is new."""
        if not self._is_joined or self._is_following:
            return []
        share = self.coordinator.share(self.member)
        if share is None:
            return []  # the next poll says it
        told = self._places.told()
        added = self._places.replace(share.partitions, self.place_for(), share.terms)
        self._gone.update(set(told).difference(self._places.told()))
        return added

    def place_for(self) -> Callable[[TopicPartition, Partition], Place]:
        """Return what makes a place for a partition: at what was committed, if anything was."""
        committed = self._ledger.committed(self.coordinator.name)

        def make(tp: TopicPartition, partition: Partition) -> Place:
            place = Place(partition, committed.get(self.coordinator.place_of(tp)))
            place.committed = place.position
            if place.position is None and self._places.begins_at_end:
                # Where it begins is committed too, as if that had been read: it is pinned.
                place.position = self.coordinator.first_offset(
                    tp, partition, reads_committed=self._places.reads_committed
                )
                place.delivered = place.done = place.position
            return place

        return make

    # ------------------------------------------------------------ commit

    def committed(self, tp: TopicPartition) -> int | None:
        """Return what the group has committed of a partition."""
        place = self.coordinator.place_of(tp)
        return self._ledger.committed(self.coordinator.name).get(place)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit these; CommitError where one is not this member's."""
        with self._lock:
            for tp, offset in offsets.items():
                if not self._is_joined and tp not in self._places:
                    raise CommitError(
                        f"offset {offset} of {tp.topic}-{tp.partition} was not committed: the "
                        "partition is not this consumer's, or no longer"
                    )
            committed = self.coordinator.commit(self._commit_of(offsets))
            self._places.note_committed(committed)

    def _commit_of(self, offsets: Mapping[TopicPartition, int]) -> Commit:
        member = self.member if self._is_joined else None
        return Commit(member, offsets, self._places.partitions())

    def hand_over_commits(self) -> tuple[str, Commit]:
        """Have transactions commit from now on; return what the next one is to commit."""
        self._auto_commit = False
        return self.coordinator.name, self._commit_of(self._places.delivered())

    def commit_done(self) -> None:
        """Commit what is done, if that is wanted; what is not this member's any more is left out:
        it was lost, and whoever has it reads it again."""
        if not self._auto_commit:
            return
        with self._lock:
            offsets = self._places.uncommitted()
            if offsets:
                commit = self._commit_of(offsets)
                self._places.note_committed(self.coordinator.commit(commit, leaves_out=True))
