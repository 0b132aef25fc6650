"""Every operation of every workload fails in every way, once and for ever; what must then hold.

After each fault: only the planned error or one of api's came out; what was acknowledged is there;
the failed step did nothing (or, where a sync failed, its outcome is open); reading goes on; when
the cause is gone the step can be repeated, from another thread, with the same result; a failed
sync refuses writing until reopened; what is closed and opened again is whole; no descriptor or
thread is left.

This module refuses to know what the workloads do.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minilog import Broker, MinilogError, StorageError, SyncFailedError, verify
from minilog.storage.files import Directory, disk_directory
from minilog.storage.memory import MemoryDirectory
from minilog.testing import FaultPlan
from minilog.testing.faults import CHANGES, FAULTS, WRITE_THEN_ERROR
from tests.torture.workloads import DONE_EARLY, WORKLOADS, OnRoot, Session, Step, View, Workload

IN_MEMORY = "/dev/shm"
STUCK_S = 60  # a guard, not a measure: a lock that nobody frees
Dump = dict[str, Any]
#: Where the files are and how they are reached: on a disk by map, on one by read and write, ...
PLACES = {"disk": True, "disk without maps": False, "memory": True, "memory without maps": False}


class Truth(NamedTuple):
    """What a workload does when nothing fails: its state before the first step and after each,
    what the steps return, and how many operations they take."""

    states: list[Dump]
    results: list[Any]
    operations: int


class Case(NamedTuple):
    """One fault of one workload in one place."""

    workload: str
    place: str
    plan: FaultPlan

    def __str__(self) -> str:
        plan = self.plan
        which = "changes" if plan.operations else "operations"
        how = "and all after" if plan.lasts else "once"
        return f"{self.workload!r} in {self.place}: {plan.fault} at {plan.at} of {which}, {how}"


class Ground:
    """A place for logs, new for each run and gone after."""

    def __init__(self, place: str) -> None:
        self.maps = PLACES[place]
        self._path: str | None = None
        self.root: Directory = MemoryDirectory("memory/log")
        if place.startswith("disk"):
            memory = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
            self._path = tempfile.mkdtemp(prefix="minilog-faults-", dir=memory)
            self.root = disk_directory(os.path.join(self._path, "log"))

    def __enter__(self) -> Ground:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._path is not None:
            shutil.rmtree(self._path)


def begin(workload: Workload, ground: Ground) -> Session:
    session = Session(ground.root, maps=ground.maps, **workload.settings)
    for step in workload.before:
        step(session)
    return session


def state_of(session: Session, view: View) -> Dump:
    """Return what a session's log holds; one that is not open is copied and opened there."""
    if session.broker is not None and not session.broker.is_closed:
        return view(session.broker)
    if not session.root.exists() or "broker.json" not in session.root.names():
        return {}
    aside = MemoryDirectory("aside")
    copy(session.root, aside)
    with Broker(OnRoot(aside), clock=session.clock, maintenance_interval_ms=0) as broker:
        return view(broker)


def copy(source: Directory, target: Directory) -> None:
    target.make()
    for name in source.names():
        if is_directory(source, name):
            copy(source.child(name), target.child(name))
        else:
            target.replace(name, source.read(name))


def is_directory(directory: Directory, name: str) -> bool:
    try:
        return directory.child(name).exists()
    except StorageError:
        return False


def truth_of(workload: Workload, place: str) -> Truth:
    """Run a workload without faults."""
    with Ground(place) as ground:
        session = begin(workload, ground)
        session.disk.arm(FaultPlan(at=2**62))
        states, results = [state_of(session, workload.view)], []
        count = 0
        for step in workload.steps:
            session.disk.arm(FaultPlan(at=2**62))
            results.append(step(session))
            count += len(session.disk.operations)
            states.append(state_of(session, workload.view))
        session.let_go()
    return Truth(states, results, count)


def attempt(step: Step, session: Session) -> tuple[Any, BaseException | None]:
    """Take a step in a thread of its own, so that a lock that was left held shows."""
    outcomes = attempt_all([step], session)
    return outcomes[0]


def attempt_all(
    steps: Sequence[Step], session: Session, after: Callable[[], object] | None = None
) -> list[tuple[Any, BaseException | None]]:
    """Take steps in one thread of their own until one fails; return what came of each. Looking
    at the log ``after`` each belongs to what came of it."""
    outcomes: list[tuple[Any, BaseException | None]] = []
    is_done = threading.Event()

    def run() -> None:
        for step in steps:
            try:
                result = step(session)
                outcomes.append((result if after is None else (result, after()), None))
            except BaseException as error:
                outcomes.append((None, error))
                break
        is_done.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert is_done.wait(STUCK_S), "a lock is stuck"
    thread.join()
    return outcomes


def is_planned(error: BaseException | None) -> bool:
    """Say whether an error is the injected one, or names it as its cause."""
    while error is not None:
        if isinstance(error, (OSError, SyncFailedError)) and "planned fault" in str(error):
            return True
        error = error.__cause__
    return False


class Run:
    """One workload with one fault."""

    def __init__(self, case: Case, truth: Truth, ground: Ground) -> None:
        self.case = case
        self._truth = truth
        self._workload = WORKLOADS[case.workload]
        self._session = begin(self._workload, ground)
        self.fault_count = 0

    def take(self) -> None:
        """Run the workload into the fault, and on when the cause is gone."""
        session = self._session
        session.disk.arm(self.case.plan)
        outcomes = attempt_all(self._workload.steps, session)
        self.fault_count = session.disk.fault_count
        for number, (result, error) in enumerate(outcomes):
            if error is not None:
                self._recover(number, error)
                self._go_on(number + 1)
                break
            assert result == self._truth.results[number], f"step {number} returned {result}"
        session.disk.mend()
        self._finish()

    def _view(self) -> Dump:
        assert self._session.broker is not None
        return self._workload.view(self._session.broker)

    def _recover(self, number: int, error: BaseException) -> None:
        """Check what is left after a step that failed, and repeat it."""
        session, plan = self._session, self.case.plan
        legal = self._truth.states[number : number + 2]
        is_api = isinstance(error, SyncFailedError) or not isinstance(error, MinilogError)
        if not (is_planned(error) and isinstance(error, (OSError, SyncFailedError)) and is_api):
            raise AssertionError(f"step {number} raised {error!r}") from error
        was_open = session.broker is not None and not session.broker.is_closed
        if plan.operations == CHANGES and was_open:
            assert self._view() in legal, "reading does not go on"
        session.disk.mend()
        if was_open:
            found = self._view()
            may_be_done = (
                plan.fault == WRITE_THEN_ERROR
                or isinstance(error, SyncFailedError)
                or self._workload.steps[number] in DONE_EARLY
            )
            assert found in (legal if may_be_done else legal[:1]), (
                f"step {number} failed by {error!r} and yet did something: {found}"
            )
        if isinstance(error, SyncFailedError) and was_open:
            self._reopen_after_sync(number)
        found = state_of(session, self._workload.view)
        assert found in legal, f"after step {number} failed by {error!r}: {found}"
        if found == legal[1] and found != legal[0]:
            return
        result, again = attempt(self._workload.steps[number], session)
        if isinstance(again, SyncFailedError) and was_open:  # another call was told first
            self._reopen_after_sync(number)
            result, again = attempt(self._workload.steps[number], session)
        if again is not None:
            raise AssertionError(f"step {number} cannot be repeated: {again!r}") from again
        assert result == self._truth.results[number], f"step {number} returned {result}"
        assert state_of(session, self._workload.view) == legal[1], (
            f"step {number} repeated: {state_of(session, self._workload.view)}"
        )

    def _reopen_after_sync(self, number: int) -> None:
        """After a failed sync: that partition refuses writing, and is whole when reopened."""
        session = self._session
        assert session.broker is not None
        refused = 0
        for topic in session.broker._topics.values():  # also ours
            for partition in topic:
                if partition._failure is not None:
                    _, error = attempt(
                        lambda _, p=partition: p.append(b"refused", key=b"k"), session
                    )  # type: ignore[misc]
                    assert isinstance(error, SyncFailedError), repr(error)
                    refused += 1
        assert refused, "a failed sync refuses nobody"
        reader = session.reader is not None
        session.close()
        session.open()
        if reader:
            session.open_reader()

    def _go_on(self, number: int) -> None:
        session, view = self._session, self._workload.view
        outcomes = attempt_all(
            self._workload.steps[number:], session, lambda: state_of(session, view)
        )
        for later, (found, error) in enumerate(outcomes, number):
            if error is not None:
                raise AssertionError(f"step {later} after the fault: {error!r}") from error
            result, state = found
            assert result == self._truth.results[later], f"step {later} returned {result}"
            assert state == self._truth.states[later + 1], f"step {later}"

    def _finish(self) -> None:
        """What was closed opens as it was closed, is whole, and takes records."""
        session = self._session
        try:
            session.close()
        except SyncFailedError as error:  # nobody had been told yet
            if not is_planned(error):
                raise
        disk = OnRoot(session.root)
        report = verify(disk)  # type: ignore[arg-type]
        assert report.ok, str(report)
        with Broker(disk, clock=session.clock, maintenance_interval_ms=0) as broker:
            assert self._workload.view(broker) == self._truth.states[-1], "not what was closed"
            for topic in broker.topics.values():
                for partition in topic:
                    partition.check()
                    assert partition.append(b"after", key=b"k") == partition.end_offset - 1
        report = verify(disk)  # type: ignore[arg-type]
        assert report.ok, str(report)

    def let_go(self) -> None:
        """Let go of what a run that failed has left open."""
        self._session.let_go()


def check_case(case: Case, truth: Truth) -> int:
    """Run one case; return how many faults it met. AssertionError where something does not hold."""
    descriptors, threads = descriptor_count(), threading.active_count()
    with Ground(case.place) as ground:
        run = Run(case, truth, ground)
        try:
            run.take()
        except Exception:
            run.let_go()
            raise
        faults = run.fault_count
        del run
    if descriptor_count() > descriptors:
        gc.collect()
    assert descriptor_count() <= descriptors, "a descriptor was left open"
    assert threading.active_count() == threads, "a thread was left running"
    return faults


def descriptor_count() -> int:
    """Return how many files this process has open; 0 where that cannot be told."""
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0


def kinds() -> Iterator[tuple[str, bool, frozenset[str] | None]]:
    """Yield every kind of fault: which, whether it lasts, and of which operations."""
    for fault in FAULTS:
        yield fault, False, None
        yield fault, True, CHANGES
        if fault != WRITE_THEN_ERROR:  # done, denied, and no look can tell: nobody could know
            yield fault, True, None


KINDS = list(kinds())


class Failure(NamedTuple):
    """A case in which something did not hold."""

    case: Case
    reason: str

    def __str__(self) -> str:
        return f"{self.case}: {self.reason}"


class Figures:
    """What was checked so far."""

    def __init__(self) -> None:
        self.cases = self.faults = 0
        self.failures: list[Failure] = []

    def check(self, case: Case, truth: Truth) -> bool:
        """Check a case; False when it met no fault any more."""
        self.cases += 1
        try:
            met = check_case(case, truth)
        except Exception as error:
            self.failures.append(Failure(case, "".join(traceback.format_exception(error))))
            return True
        self.faults += met
        return bool(met)


def check_share(name: str, place: str, turn: int, step: int = 1) -> Figures:
    """Check every operation of a workload (or every few) with one kind of fault each, in turn."""
    truth = truth_of(WORKLOADS[name], place)
    figures = Figures()
    for at in range(turn % step, truth.operations, step):
        fault, lasts, operations = KINDS[(at // step + turn) % len(KINDS)]
        figures.check(Case(name, place, FaultPlan(fault, at, lasts, operations)), truth)
    return figures


def run(minutes: float, seed: int) -> dict[str, int | float]:
    """Have every operation of every workload fail in every way, in an order drawn from the seed,
    for so long at most; return the figures."""
    began = time.monotonic()
    triples = [(name, place, kind) for name in WORKLOADS for place in PLACES for kind in KINDS]
    random.Random(seed).shuffle(triples)
    truths: dict[tuple[str, str], Truth] = {}
    figures = Figures()
    whole = 0
    for name, place, (fault, lasts, operations) in triples:
        truth = truths.get((name, place)) or truth_of(WORKLOADS[name], place)
        truths[name, place] = truth
        for at in itertools.count():
            if time.monotonic() - began > minutes * 60:
                break
            if not figures.check(Case(name, place, FaultPlan(fault, at, lasts, operations)), truth):
                whole += 1  # N has risen until none fired
                break
    for failure in figures.failures[:20]:
        print(f"seed {seed}: {failure}")
    return {
        "workloads": len(WORKLOADS),
        "sweeps": len(triples),
        "sweeps to the end": whole,
        "cases": figures.cases,
        "faults": figures.faults,
        "violations": len(figures.failures),
        "seconds": round(time.monotonic() - began, 1),
    }
