"""Clocks: what tells the time and what waiting waits by.

Everything in minilog that knows time asks its broker's clock, so that a test can turn it. A clock
is any object with ``now_ms()``; one with ``wait(lock, seconds)`` also decides how long a wait
lasts. This module refuses to know who waits, or for what.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from minilog.errors import ConfigError


class Clock(Protocol):
    """What a broker needs of a clock."""

    def now_ms(self) -> int:
        """Return the time in whole milliseconds since the epoch."""


def wait_on_wall(lock: threading.Lock, seconds: float | None) -> bool:
    """Wait until ``lock`` can be taken or ``seconds`` of real time are over; say which."""
    if seconds is None:
        return lock.acquire()
    return lock.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Return the time in whole milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def wait(self, lock: threading.Lock, seconds: float | None) -> bool:
        """Wait until ``lock`` can be taken (True) or ``seconds`` are over (False)."""
        return wait_on_wall(lock, seconds)


def nanoseconds_of(clock: Clock) -> Callable[[], int]:
    """Return what tells a clock's time in nanoseconds; of the machine's it is C's own function, as
    a call of ours would cost each append 50 ns."""
    if clock.__class__ is SystemClock:
        return time.time_ns
    return lambda: clock.now_ms() * 1_000_000


class ManualClock:
    """A clock that stands still until ``advance`` turns it; a broker given one never looks
    at the wall.

    A waiting poll or read wakes when the clock is advanced past its deadline, from another
    thread: alone, a wait on a clock that nobody turns does not return (``poll(0)`` does).
    """

    def __init__(self, start_ms: int = 0) -> None:
        if isinstance(start_ms, bool) or not isinstance(start_ms, int) or start_ms < 0:
            raise ValueError(f"start_ms is {start_ms!r}; it must be a whole number >= 0")
        self._now_ms = start_ms
        self._guard = threading.Lock()
        self._sleepers: list[tuple[float, threading.Lock]] = []
        self._listeners: list[Callable[[], None]] = []

    def now_ms(self) -> int:
        """Return the time this clock was turned to, in milliseconds."""
        return self._now_ms

    def advance(self, ms: int) -> None:
        """Turn the clock on by ``ms`` and do what has become due: wake waits, do housekeeping."""
        if isinstance(ms, bool) or not isinstance(ms, int) or ms < 0:
            raise ValueError(f"ms is {ms!r}; a clock only goes forward, by whole milliseconds")
        with self._guard:
            self._now_ms += ms
            due = [sleeper for sleeper in self._sleepers if sleeper[0] <= self._now_ms]
            self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > self._now_ms]
            listeners = list(self._listeners)
        for listener in listeners:
            listener()
        for _, alarm in due:
            release_once(alarm)

    def wait(self, lock: threading.Lock, seconds: float | None) -> bool:
        """Wait until ``lock`` can be taken (True) or the clock was turned past ``seconds``."""
        if seconds is None:
            return lock.acquire()
        deadline = self._now_ms + in_ms(seconds)
        if seconds <= 0:
            return lock.acquire(blocking=False)
        sleeper = (deadline, lock)
        with self._guard:
            if deadline <= self._now_ms:
                return lock.acquire(blocking=False)
            self._sleepers.append(sleeper)
        try:
            lock.acquire()
        finally:
            with self._guard:
                if sleeper in self._sleepers:
                    self._sleepers.remove(sleeper)
        return self._now_ms < deadline

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after every ``advance``, in the thread that advances."""
        with self._guard:
            self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Stop calling ``listener``."""
        with self._guard:
            if listener in self._listeners:
                self._listeners.remove(listener)


def release_once(lock: threading.Lock) -> None:
    """Release a waiter's lock that may have been released already."""
    try:
        lock.release()
    except RuntimeError:
        return  # somebody else woke the waiter first, which is all that was wanted


class Waiters:
    """Whoever may have news, and those who wait for it: each leaves what is to be released."""

    def __init__(self) -> None:
        self._waiters: list[Any] = []

    def add_waiter(self, waiter: Any) -> None:
        """Have ``waiter`` released whenever there may be news."""
        self._waiters.append(waiter)

    def remove_waiter(self, waiter: Any) -> None:
        """Forget ``waiter``; nothing happens where it is not."""
        try:
            self._waiters.remove(waiter)
        except ValueError:
            return  # an interrupt came before it was added

    def _wake(self) -> None:
        for waiter in list(self._waiters):
            release_once(waiter)


def in_ms(seconds: float) -> float:
    """Return seconds in milliseconds, to the microsecond: what a product has behind that is noise,
    and a clock turned by just as much must not stay behind it for ever."""
    return round(seconds * 1000, 3)


def stopwatch(clock: Clock) -> Callable[[], float]:
    """Return what tells the milliseconds from some moment on by which waits are timed.

    The machine's clock may be set back, so what goes by it is timed by the monotonic one.
    """
    if hasattr(clock, "wait") and not isinstance(clock, SystemClock):
        return clock.now_ms
    return lambda: time.monotonic() * 1000


class Deadline:
    """When a wait of ``timeout`` seconds by a clock is over; None is never."""

    def __init__(self, clock: Clock, timeout: float | None) -> None:
        self._clock = clock
        self._wait = getattr(clock, "wait", wait_on_wall)
        self._ms = stopwatch(clock)
        self._end = None if timeout is None else self._ms() + in_ms(timeout)

    def wait(
        self, lock: threading.Lock, at_most: float | None = None, within: float | None = None
    ) -> bool:
        """Wait until ``lock`` can be taken (True), the time is over, ``at_most`` seconds of real
        time or ``within`` so many by the clock."""
        left = self.seconds_left
        if within is not None:
            left = within if left is None else min(left, within)
        if at_most is not None:
            return wait_on_wall(lock, at_most if left is None else min(left, at_most))
        return bool(self._wait(lock, left))

    @property
    def seconds_left(self) -> float | None:
        """How long the wait may still last; None is for ever."""
        return None if self._end is None else max(self._end - self._ms(), 0.0) / 1000

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self._end is not None and self._ms() >= self._end


def check_timeout(timeout: object) -> None:
    """Raise TypeError or ConfigError unless ``timeout`` is seconds, at least 0, or None."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is {timeout!r}; it must be seconds (a number) or None")
    if not timeout >= 0:
        raise ConfigError(f"timeout is {timeout!r}; it must be at least 0, or None to wait on")
