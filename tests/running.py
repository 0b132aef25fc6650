"""A call in a thread of its own, watched until it waits, returns or raises.

No test sleeps or measures with it: the thread is looked at until it is inside a wait of
minilog's, then what must end its wait is done.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from minilog.testing import ManualClock

PATIENCE_S = 20
T = TypeVar("T")


class Running(Generic[T]):
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._outcome: list[T | BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome.append(self._call())
        except BaseException as error:  # handed to the test by result()
            self._outcome.append(error)

    @property
    def done(self) -> bool:
        return bool(self._outcome)

    @property
    def ident(self) -> int:
        """The thread's number, as ``threading.get_ident`` gives it there."""
        return self._thread.ident or 0

    def waits(self) -> bool:
        """Watch until the call is in a wait of minilog's clock; False if it returned instead."""
        for _ in range(1000):
            frame = sys._current_frames().get(self.ident)
            module = "" if frame is None else frame.f_globals.get("__name__")
            name = "" if frame is None else frame.f_code.co_name
            if module in ("threading", "minilog.clock") and name.startswith("wait"):
                return True
            if self.done:
                return False
            self._thread.join(0.002)
        return True

    def still_waits(self) -> bool:
        """Give the call a chance to return when it should not."""
        self._thread.join(0.05)
        return not self.done

    def outcome(self) -> T | BaseException:
        self._thread.join(PATIENCE_S)
        assert self._outcome, "the call still waits"
        return self._outcome[0]

    def result(self) -> T:
        outcome = self.outcome()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def eventually(holds: Callable[[], bool]) -> bool:
    """Look until something holds that another thread is to bring about."""
    pause = threading.Event()
    for _ in range(PATIENCE_S * 500):
        if holds():
            return True
        pause.wait(0.002)
    return False


def advance_until_done(clock: ManualClock, running: Running[Any], step_ms: int = 100) -> int:
    """Advance step by step until the call returns; the milliseconds it took."""
    for steps in range(1, 1001):
        clock.advance(step_ms)
        for _ in range(200):  # until it waits for the clock again, however slow the machine is
            running._thread.join(0.001)
            if running.done or clock._sleepers:
                break
        if running.done:
            return steps * step_ms
    raise AssertionError("the call still waits")
