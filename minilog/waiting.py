"""Waiting for one of many things: records in any of some partitions, topics that come, a wake-up.

A waiter is anything with ``release()``, left with everybody who may have news. It is left first
and the news looked for after, so that none is missed between. This module refuses to know what
the news is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, Protocol

from minilog.clock import Clock, Deadline

LOOK_AGAIN_S = 0.02  # how often one looks at files that another process writes


class Announcer(Protocol):
    """Whoever may have news: a partition, a broker."""

    def add_waiter(self, waiter: Any) -> None: ...
    def remove_waiter(self, waiter: Any) -> None: ...


def wait_for_news(
    announcers: Iterable[Announcer],
    has_news: Callable[[], bool],
    deadline: Deadline,
    *,
    must_look: bool,
    within: float | None = None,
) -> None:
    """Return when there may be news or the time is over; ``must_look``: others write the files;
    ``within`` so many seconds by the clock there is news at any rate."""
    waiter = threading.Lock()
    waiter.acquire()
    left: list[Announcer] = []
    try:  # what follows a wake-up is what a hand-over takes: no ExitStack here
        for announcer in announcers:
            left.append(announcer)
            announcer.add_waiter(waiter)
        if not has_news():
            deadline.wait(waiter, LOOK_AGAIN_S if must_look else None, within)
    finally:
        for announcer in left:
            announcer.remove_waiter(waiter)


async def wait_for_news_async(
    announcers: Iterable[Announcer],
    has_news: Callable[[], bool],
    clock: Clock,
    deadline: Deadline,
    *,
    must_look: bool,
    within: float | None = None,
) -> None:
    """Like ``wait_for_news``, without holding up the event loop or needing a thread."""
    import asyncio  # imported here because it is slow to import and most never wait so

    waiter = LoopWaiter(asyncio.get_running_loop(), asyncio.Event())
    left = deadline.seconds_left
    if within is not None:
        left = within if left is None else min(left, within)
    with ExitStack() as stack:
        for announcer in announcers:
            stack.callback(announcer.remove_waiter, waiter)
            announcer.add_waiter(waiter)
        subscribe = getattr(clock, "subscribe", None)
        if subscribe is not None:  # a clock that is turned by hand tells when it was
            subscribe(waiter.release)
            stack.callback(clock.unsubscribe, waiter.release)  # type: ignore[attr-defined]
            left = None
        if must_look:
            left = LOOK_AGAIN_S if left is None else min(left, LOOK_AGAIN_S)
        if not has_news():
            try:
                await asyncio.wait_for(waiter.event.wait(), left)
            except TimeoutError:
                return


class LoopWaiter:
    """A waiter that sets an asyncio event in its own loop, from whatever thread."""

    def __init__(self, loop: Any, event: Any) -> None:
        self._loop = loop
        self.event = event

    def release(self) -> None:
        """Wake the one who waits; nothing happens when its loop is gone."""
        try:
            self._loop.call_soon_threadsafe(self.event.set)
        except RuntimeError:
            return  # the loop was closed meanwhile, so nobody waits there any more
