"""Running tests in forked children of a process that is warm, and how each of them has ended.

A child has a session of its own, so that whatever it has started ends with it, a limit of memory,
and for each test one of time: a change that loops for ever is noticed by that. Its temporary files
are made anew by the next one, in a directory that whoever calls this removes.

This module refuses to know what was changed, and which tests are to run.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

LIMITS = (
    (resource.RLIMIT_AS, 4 * 1024**3),
    (resource.RLIMIT_FSIZE, 1024**3),
    (resource.RLIMIT_CORE, 0),
)
CPU_S = 2.0  # of one test at least, and many times as long as it takes: a machine may be busy
WALL_S = 120.0
TIMES_AS_LONG = 10
SILENT = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # a plugin is imported before
QUIET = ("-p", "no:cacheprovider", "--tb=line", "--capture=sys", "-qq", *SILENT)
IN_MEMORY = "IN_MEMORY"  # where a conftest has its tests' files, if not in pytest's place

Tell = Callable[[dict[str, Any]], None]


class Test(NamedTuple):
    """A test, how long it takes, and how many lines it runs."""

    __test__ = False

    name: str
    seconds: float
    lines: int


class Ended(NamedTuple):
    """How a child has ended: what it has told, and the signal that ended it, if one did."""

    told: list[dict[str, Any]]
    signal: int

    def noticed_by(self) -> str | None:
        """Return what has noticed the change; None: nothing has."""
        begun = "import"
        for told in self.told:
            begun = told.get("begun", begun)
            if "failed" in told:
                return str(told["failed"])
        if self.signal in (signal.SIGPROF, signal.SIGALRM):
            return f"{begun} (time)"
        if self.signal:
            return f"{begun} (signal {self.signal})"
        return None if any("done" in told for told in self.told) else begun


def in_child(place: Path, work: Callable[[Tell], None]) -> Ended:
    """Do something in a forked child that may be left to die; return what it has told."""
    told = place / "told"
    told.write_bytes(b"")
    child = os.fork()
    if not child:
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with open(told, "ab", buffering=0) as lines, open(os.devnull, "r+b") as nothing:
                for standard in range(3):
                    os.dup2(nothing.fileno(), standard)
                for kind, limit in LIMITS:
                    with contextlib.suppress(ValueError):  # not every platform has each
                        resource.setrlimit(kind, (limit, limit))
                be_bounded(0.0)
                work(lambda line: lines.write(json.dumps(line).encode() + b"\n") and None)
        finally:
            os._exit(0)
    try:
        _, status = os.waitpid(child, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    lines = [line for line in told.read_bytes().splitlines() if line.endswith(b"}")]
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return Ended([json.loads(line) for line in lines], ended_by)


def be_bounded(seconds: float) -> None:
    """Die of a signal when what takes so long takes many times as long."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, CPU_S + TIMES_AS_LONG * seconds)
    signal.setitimer(signal.ITIMER_REAL, WALL_S + TIMES_AS_LONG * seconds)


class Plugin:
    """What pytest calls: all that was collected is handed to ``loop``, which runs some of it."""

    def __init__(self, place: Path, loop: Callable[[Plugin], None]) -> None:
        self.items: dict[str, pytest.Item] = {}
        self.failed = False
        self._place = place
        self._loop = loop

    def pytest_configure(self) -> None:
        """Have the same examples every time, kept nowhere, and the first that fails at once."""
        set_hypothesis_home_dir(self._place / "hypothesis")
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile(
            "mutants", hypothesis.settings(), database=None, derandomize=True, phases=phases
        )
        hypothesis.settings.load_profile("mutants")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Have the loop run in place of pytest's own."""
        self.items = {item.nodeid: item for item in session.items}
        for plugin in session.config.pluginmanager.get_plugins():
            if hasattr(plugin, IN_MEMORY):
                setattr(plugin, IN_MEMORY, self._place)
        self._loop(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """See a failure."""
        self.failed |= report.failed

    def run(self, tests: Sequence[Test], tell: Tell) -> None:
        """Run tests up to the first that fails, and tell."""
        there = [test for test in tests if test.name in self.items]
        for number, test in enumerate(there):
            tell({"begun": test.name})
            be_bounded(test.seconds)
            following = self.items[there[number + 1].name] if number + 1 < len(there) else None
            self.run_one(self.items[test.name], following)
            if self.failed:
                tell({"failed": test.name})
                return
        tell({"done": len(there)})

    def run_one(self, item: pytest.Item, following: pytest.Item | None) -> bool:
        """Run one test; return whether it has passed."""
        self.failed = False
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return not self.failed


def collect(root: Path, files: Sequence[str], place: Path, loop: Callable[[Plugin], None]) -> None:
    """Have pytest collect test files and hand them to ``loop``."""
    where = ["--rootdir", str(root), "--basetemp", str(place / "basetemp")]
    paths = (str(root / file) for file in files)
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        pytest.main([*QUIET, *where, *paths], [Plugin(place, loop)])
