"""One daemon thread per broker that does what is due, so that nobody has to ask.

Nothing acknowledged depends on it: it is started by the first write that gives it something to
do, holds its broker weakly, ends with it, and never runs in a child of fork. This module refuses
to know what there is to do.
"""

from __future__ import annotations

import threading
import weakref
from typing import Protocol


class Kept(Protocol):
    """Whoever has things to do every now and then."""

    def keep_house(self) -> None: ...


class Housekeeper:
    """The thread that calls ``keep_house`` every ``interval_ms`` of real time."""

    def __init__(self, owner: Kept, interval_ms: int) -> None:
        self._owner = weakref.ref(owner)
        self._interval_s = interval_ms / 1000
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stop.is_set()

    def start(self) -> None:
        """Start the thread, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="minilog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it, unless it is the one that asks."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            owner = self._owner()
            if owner is None:
                return
            owner.keep_house()
            del owner  # held only while something is done
