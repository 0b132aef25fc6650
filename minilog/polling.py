"""Handing records out: a poll at a time, or one by one for as long as somebody asks.

A position moves when its record is handed out, not before: a poll moves all of its positions at
once, under the lock; an iteration moves each as its record is yielded, so that a loop that is left
has used up only what it was given. A record of an iteration is *done* when the next one is asked
for. The group comes first: it is followed before anything is read.

This module refuses to know what is read, where positions begin, and what is committed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator

from minilog.clock import Clock, Deadline
from minilog.errors import UnknownTopicError
from minilog.membership import Membership
from minilog.news import News
from minilog.places import Bounds, Places
from minilog.records import Record, Records
from minilog.subscription import Subscription

EMPTY = Records()


class Polling:
    """How one consumer hands records out; ``lock`` is the consumer's, over its places."""

    def __init__(
        self,
        subscription: Subscription,
        news: News,
        places: Places,
        membership: Membership | None,
        lock: threading.RLock,
        clock: Clock,
        max_records: int,
    ) -> None:
        self._clock = clock
        self._subscription = subscription
        self._news = news
        self._places = places
        self._membership = membership
        self._lock = lock
        self._max_records = max_records

    def poll_now(self, limit: int) -> Records:
        """Return what there is, up to a number of records, and move the positions behind it."""
        membership = self._membership
        if membership is not None:
            membership.enter_poll()
        try:
            self._subscription.begin_poll()
            with self._lock:
                if self._subscription.is_closed:
                    return EMPTY
                newest = self._places.newest()
                if newest is not None:
                    place, records = newest
                    place.deliver(records.next_offset)
                    place.done = records.next_offset
                    return records
                found = self._places.fetch(limit)
                for place, _, following, _ in found:
                    place.deliver(following)
                    place.done = following
            return Records(part for _, _, _, part in found)
        finally:
            if membership is not None:
                membership.leave_poll()

    # ------------------------------------------------------------ one by one

    def iterate(self) -> Iterator[Record]:
        """Yield records as they come, for ever."""
        forever = Deadline(self._clock, None)
        is_over, news = self._subscription.is_over, self._news
        while not is_over():
            count = 0
            for record in self._yield_now(None):
                count += 1
                yield record
            if not count and not is_over():
                if news.was_woken():
                    continue
                news.wait(forever)

    async def iterate_async(self, check_open: Callable[[], None]) -> AsyncIterator[Record]:
        """Yield records as they come, for ever, without holding up the event loop; the check is
        made when the first is asked for."""
        check_open()
        forever = Deadline(self._clock, None)
        is_over = self._subscription.is_over
        while not is_over():
            count = 0
            for record in self._yield_now(None):
                count += 1
                yield record
            if not count and not is_over():
                await self._news.wait_async(forever)

    def bounds(self) -> Bounds:
        """Return up to where each partition is read now; the caller holds the lock."""
        bounds = {}
        for tp, place in self._places.running():
            with contextlib.suppress(UnknownTopicError):  # a group has yet to take it away
                bounds[tp] = self._places.end_of(place.partition)
        return bounds

    def drain(self, bounds: Bounds) -> Iterator[Record]:
        """Yield the records before the bounds, and stop."""
        while not self._subscription.is_over() and self._is_before(bounds):
            yield from self._yield_now(bounds)
        self._subscription.tell_of_deleted()

    def _is_before(self, bounds: Bounds) -> bool:
        """Say whether there is anything left to read before the bounds."""
        with self._lock:
            self._subscription.refresh()
            return any(
                tp in bounds and self._places.is_left(tp, bounds[tp])
                for tp, _ in self._places.running()
            )

    def _yield_now(self, bounds: Bounds | None) -> Iterator[Record]:
        """Yield what there is; each position moves as its record is yielded."""
        membership = self._membership
        if membership is not None:
            membership.enter_poll()
        try:
            self._subscription.begin_poll()
            with self._lock:
                if self._subscription.is_over():
                    return
                found = self._places.fetch(self._max_records, bounds)
        finally:
            if membership is not None:
                membership.leave_poll()
        for place, due, _, part in found:
            for record in Records((part,)):
                with self._lock:
                    if place.position != due or place.is_paused or place.is_given_up:
                        break  # somebody has sought, polled, paused or closed meanwhile
                    place.deliver(record.offset + 1)
                    due = record.offset + 1
                yield record
                if place.position == due:
                    place.done = due
                if membership is not None and not membership.may_go_on():
                    return
