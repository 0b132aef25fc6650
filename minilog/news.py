"""What a consumer waits for: records, topics that come, its group's decisions, a wake-up.

Who waits for records polls, however long it takes: its group is told so. What goes wrong while
looking for news is news, which the next poll meets and says. This module refuses to know what is
done with the news, and how threads and event loops sleep.
"""

from __future__ import annotations

import threading
from typing import Protocol

from minilog.clock import Clock, Deadline, Waiters
from minilog.errors import MinilogError
from minilog.membership import Membership
from minilog.places import Places
from minilog.subscription import Subscription
from minilog.transactions import Transactions
from minilog.waiting import Announcer, wait_for_news, wait_for_news_async


class Source(Announcer, Protocol):
    """What waiting needs of a broker."""

    @property
    def clock(self) -> Clock: ...
    @property
    def is_read_only(self) -> bool: ...
    @property
    def transactions(self) -> Transactions: ...


class News(Waiters):
    """What one consumer waits for; ``lock`` is the consumer's, over its places."""

    def __init__(
        self,
        broker: Source,
        subscription: Subscription,
        places: Places,
        membership: Membership | None,
        lock: threading.RLock,
    ) -> None:
        super().__init__()
        self._broker = broker
        self._subscription = subscription
        self._places = places
        self._membership = membership
        self._lock = lock
        self._is_woken = False  # and no poll has returned for it yet

    def wake_up(self) -> None:
        """Have a wait, or else the next poll, end at once."""
        self._is_woken = True
        self._wake()

    def announce(self) -> None:
        """Have who waits look again: the consumer has moved, or was closed."""
        self._wake()

    def was_woken(self) -> bool:
        """Say whether there was a wake-up, and forget it."""
        was, self._is_woken = self._is_woken, False
        return was

    def wait(self, deadline: Deadline) -> None:
        """Return when there may be news, or the time is over."""
        membership = self._membership
        if membership is not None:
            membership.enter_poll()
        try:
            wait_for_news(
                self._announcers(),
                self._has_news_or_error,
                deadline,
                must_look=self._broker.is_read_only,
                within=self._seconds_to_news(),
            )
        finally:
            if membership is not None:
                membership.leave_poll()

    async def wait_async(self, deadline: Deadline) -> None:
        """Return as ``wait`` does, without holding up the event loop."""
        broker, membership = self._broker, self._membership
        if membership is not None:
            membership.enter_poll()
        try:
            await wait_for_news_async(
                self._announcers(),
                self._has_news_or_error,
                broker.clock,
                deadline,
                must_look=broker.is_read_only,
                within=self._seconds_to_news(),
            )
        finally:
            if membership is not None:
                membership.leave_poll()

    def _announcers(self) -> list[Announcer]:
        with self._lock:
            announcers: list[Announcer] = [self, self._broker]
            if self._membership is not None:
                announcers.append(self._membership.coordinator)
            return [*announcers, *(place.partition for _, place in self._places.running())]

    def _has_news_or_error(self) -> bool:
        try:
            return self._has_news()
        except MinilogError:
            return True  # the next poll meets it and says it

    def _has_news(self) -> bool:
        if self._is_woken or self._subscription.is_over():
            return True
        with self._lock:
            if self._membership is not None and self._membership.has_news():
                return True
            return self._subscription.has_news() or self._places.has_news()

    def _seconds_to_news(self) -> float | None:
        """Return when to look again, at the latest: another member may be out by then, or a
        transaction aborted."""
        # Who reads nothing now is not concerned by transactions, nor ends one that is late.
        reads_committed = self._places.reads_committed and bool(self._places.running())
        ends = [
            None if self._membership is None else self._membership.seconds_to_news(),
            self._broker.transactions.seconds_to_expiry() if reads_committed else None,
        ]
        return min((end for end in ends if end is not None), default=None)
