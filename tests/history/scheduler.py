"""A scheduler that a seed decides: of several actors, each a thread, exactly one runs at a time.

An actor runs until it comes to a point where it could be interrupted and the seed says that it
is, or until it must wait for a lock. The points are the steps of the actors themselves, every
taking and giving of a lock, every operation on a file, and, where asked for, every line of
minilog. The same seed makes the same choices, so whatever went wrong goes wrong again.

Within a run minilog's own `threading.Lock` and `RLock` are exchanged for ones that wait by
scheduling somebody else; nothing of minilog knows. It refuses to know what the actors do.
"""

from __future__ import annotations

import random
import sys
import threading
import types
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import minilog

PACKAGE = str(Path(minilog.__file__).parent)
PATIENCE_S = 120  # of real time; nothing that works takes as long
MOST_STALLS = 1000  # turns of the clock that wake nobody

STEP, LOCK, FILE, LINE = "step", "lock", "file", "line"


class Deadlock(Exception):
    """All actors wait, and turning the clock wakes none of them."""


class Stopped(BaseException):
    """Ends an actor, wherever it is, when another has failed."""


class Actor:
    """Somebody who has something to do, in a thread of their own."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.work = work
        self.awaited: object = None  # the lock without which it cannot go on
        self.is_done = False
        self.ident = -1
        self.baton = threading.Lock()
        self.baton.acquire()
        self.thread: threading.Thread | None = None


class Scheduler:
    """Runs actors one at a time, as a seed says."""

    def __init__(self, seed: int, chances: dict[str, float]) -> None:
        """`chances`: how likely an actor is interrupted at a point of each kind."""
        self._chance = random.Random(seed)
        self._random = self._chance.random
        self._chances = chances
        self._actors: list[Actor] = []
        self._idler: Actor | None = None
        self._running: Actor | None = None
        self._is_over = False
        self._failure: BaseException | None = None
        self._has_ended = threading.Event()
        self.trace: list[int] = []  # who was given the baton, by number

    # ------------------------------------------------------------ a run

    def run(self, works: dict[str, Callable[[], None]], when_idle: Callable[[], None]) -> None:
        """Do all of the works, interleaved; `when_idle` is what happens while all wait.

        Raises what an actor has raised, or Deadlock.
        """
        self._actors = [Actor(name, work) for name, work in works.items()]
        self._idler = Actor("idler", lambda: self._idle(when_idle))
        everybody = [*self._actors, self._idler]
        for actor in everybody:
            actor.thread = threading.Thread(target=self._live, args=(actor,), name=actor.name)
            actor.thread.start()
        self._hand_to(self._next())
        ended = self._has_ended.wait(PATIENCE_S)
        self._is_over = True
        for actor in everybody:  # one after another, so that no two run at once
            assert actor.thread is not None
            if not actor.is_done:
                self._running = actor
                actor.baton.release()
            actor.thread.join(PATIENCE_S)
        if self._failure is not None:
            raise self._failure
        if not ended:
            raise Deadlock(f"no end within {PATIENCE_S} s of real time")

    def _live(self, actor: Actor) -> None:
        actor.ident = threading.get_ident()
        actor.baton.acquire()
        try:
            if not self._is_over:
                if LINE in self._chances:
                    sys.settrace(self._trace_calls)
                actor.work()
        except Stopped:
            pass
        except BaseException as error:
            self._failure = self._failure or error
        finally:
            sys.settrace(None)
            actor.is_done = True
            if not self._is_over:
                self._go_on()

    def _go_on(self) -> None:
        """The one that ran is done: the next one, or the end."""
        if self._failure is not None or all(actor.is_done for actor in self._actors):
            self._is_over = True
            self._has_ended.set()
        else:
            self._hand_to(self._next())

    def _idle(self, when_idle: Callable[[], None]) -> None:
        stalls = 0
        while True:
            when_idle()
            self.point(STEP)
            stalls += 1
            if any(self._can_run(actor) for actor in self._actors):
                stalls = 0
            elif stalls > MOST_STALLS:
                waiting = [actor.name for actor in self._actors if not actor.is_done]
                raise Deadlock(f"{', '.join(waiting)} wait, and time wakes nobody")

    # ------------------------------------------------------------ choosing

    @staticmethod
    def _can_run(actor: Actor) -> bool:
        return not actor.is_done and actor.awaited is None

    def _next(self) -> Actor:
        able = [actor for actor in self._actors if self._can_run(actor)]
        if not able:
            assert self._idler is not None
            return self._idler
        return able[int(self._random() * len(able))]

    def _hand_to(self, actor: Actor) -> None:
        self._running = actor
        self.trace.append(self._actors.index(actor) if actor is not self._idler else -1)
        actor.baton.release()

    def _switch(self, actor: Actor, other: Actor) -> None:
        if other is not actor:
            self._hand_to(other)
            actor.baton.acquire()

    def point(self, kind: str) -> None:
        """The actor that runs may be interrupted here; anybody else may not."""
        actor = self._running
        if actor is None or actor.ident != threading.get_ident():
            return
        if not self._is_over and self._random() < self._chances.get(kind, 0.0):
            self._switch(actor, self._next())
        if self._is_over and kind == STEP:  # elsewhere it might hold what it would not give up
            raise Stopped

    def wait_for(self, lock: object) -> None:
        """Let others run until a lock may be free."""
        actor = self._running
        if self._is_over:
            raise Stopped
        if actor is None or actor.ident != threading.get_ident():
            raise Deadlock("somebody outside the schedule waits for a lock that is held")
        actor.awaited = lock
        self._switch(actor, self._next())
        if self._is_over:
            raise Stopped

    def set_free(self, lock: object) -> None:
        """Those who wait for a lock may try again."""
        for actor in self._actors:
            if actor.awaited is lock:
                actor.awaited = None
        if self._idler is not None and self._idler.awaited is lock:
            self._idler.awaited = None

    # ------------------------------------------------------------ lines

    def _trace_calls(self, frame: types.FrameType, event: str, argument: object) -> Any:
        return self._trace_lines if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _trace_lines(self, frame: types.FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self.point(LINE)
        return self._trace_lines


class SteppedLock:
    """A lock that schedules somebody else instead of waiting."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; a wait that would end by the wall's clock ends at once."""
        self._scheduler.point(LOCK)
        while self._is_held:
            if not blocking or timeout >= 0:
                return False
            self._scheduler.wait_for(self)
        self._is_held = True
        return True

    def release(self) -> None:
        """Give it up."""
        if not self._is_held:
            raise RuntimeError("release unlocked lock")
        self._is_held = False
        self._scheduler.set_free(self)
        self._scheduler.point(LOCK)

    def locked(self) -> bool:
        """Say whether somebody has it."""
        return self._is_held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *raised: object) -> None:
        self.release()


class SteppedRLock:
    """A lock that its owner may take again; others are scheduled instead of waiting."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._owner: int | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, once more or for the first time."""
        me = threading.get_ident()
        if self._owner != me:
            self._scheduler.point(LOCK)
            while self._owner is not None:
                if not blocking or timeout >= 0:
                    return False
                self._scheduler.wait_for(self)
            self._owner = me
        self._count += 1
        return True

    def release(self) -> None:
        """Give it up, once."""
        if self._owner != threading.get_ident():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if self._count == 0:
            self._owner = None
            self._scheduler.set_free(self)
            self._scheduler.point(LOCK)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *raised: object) -> None:
        self.release()


@contextmanager
def scheduled(scheduler: Scheduler, seed: int) -> Iterator[None]:
    """Within the block, minilog's locks are scheduled and its random ids follow a seed."""
    stand_in = types.SimpleNamespace(**vars(threading))
    stand_in.Lock = lambda: SteppedLock(scheduler)
    stand_in.RLock = lambda: SteppedRLock(scheduler)
    chance = random.Random(seed)
    uuid4 = uuid.uuid4
    changed = [
        module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "minilog" and getattr(module, "threading", None) is threading
    ]
    for module in changed:
        module.threading = stand_in  # type: ignore[attr-defined]
    uuid.uuid4 = lambda: uuid.UUID(int=chance.getrandbits(128), version=4)
    try:
        yield
    finally:
        uuid.uuid4 = uuid4
        for module in changed:
            module.threading = threading  # type: ignore[attr-defined]
