"""One sync at a time, shared by all who wait for one (group commit).

Whoever comes while a sync runs waits until it is over, then looks whether it was served: if not,
one of those becomes the next to sync, for all the others too. Before it does it lets those come
who shared the last one, for at most half a millisecond: they are on their way with their next
records, and a sync that starts without them serves 7 of 16 threads instead of 15. Who was alone
waits for nobody. This module refuses to know what is synced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from minilog.clock import release_once

LOOK_AGAIN_S = 1.0
GATHERING_S = 0.0005


class GroupSync:
    """Runs work one at a time; those who wait for it share it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holder: threading.Lock | None = None
        self._waiters: list[threading.Lock] = []
        self._company = 0  # how many waited for the last one
        self._gathered: threading.Lock | None = None  # released when as many wait again

    def run(self, is_served: Callable[[], bool], work: Callable[[], None]) -> None:
        """Return when ``is_served()``, doing ``work()`` if nobody else does; what either raises
        comes out. All who waited are woken at once: one lock handed on from thread to thread
        served 2 of 16 at a time, this 8."""
        # Held as long as this runs: whoever finds a holder that is not knows it was interrupted.
        me = threading.Lock()
        with me:
            while True:
                waiter = self._try(me, is_served, work)
                if waiter is None:
                    return
                # An interrupt of the one who wakes may skip some; they look for themselves then.
                waiter.acquire(timeout=LOOK_AGAIN_S)
                if is_served():  # first without the guard, which all who were woken want
                    return

    def _try(
        self, me: threading.Lock, is_served: Callable[[], bool], work: Callable[[], None]
    ) -> threading.Lock | None:
        """Do the work if it is needed and nobody does; else return what to wait for."""
        waiter: threading.Lock | None = None
        try:
            with self._guard:
                if is_served():
                    return None
                if self._holder is None or not self._holder.locked():
                    self._holder = me
                else:
                    waiter = threading.Lock()
                    waiter.acquire()
                    self._waiters.append(waiter)
                    if self._gathered is not None and len(self._waiters) >= self._company:
                        release_once(self._gathered)
            if waiter is None:
                if self._company > len(self._waiters):
                    self._gather()
                work()
            return waiter
        finally:
            # By identity, so that an interrupt anywhere above leaves nobody waiting.
            if self._holder is me:
                with self._guard:
                    self._holder = None
                    waiting, self._waiters = self._waiters, []
                    self._company = len(waiting)
                for other in waiting:
                    release_once(other)

    def _gather(self) -> None:
        """Return when as many wait as did for the last one, or the time for it is over."""
        gathered = threading.Lock()
        gathered.acquire()
        with self._guard:
            self._gathered = gathered
            is_complete = len(self._waiters) >= self._company
        if not is_complete:
            gathered.acquire(timeout=GATHERING_S)
        self._gathered = None
