"""Who knows the time: the clock, and whoever asks it; nobody looks at the wall, nobody sleeps."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import minilog

PACKAGE = Path(minilog.__file__).parent
TESTS = Path(__file__).parent.parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
TEST_SOURCES = {path.relative_to(TESTS).as_posix(): path for path in sorted(TESTS.rglob("*.py"))}
KNOW_THE_TIME = {"clock.py", "housekeeping.py"}
ATTIC = {"cli.py", "cli_arguments.py", "tour.py"}  # speaks to people, who live by the wall
CLOCKS = {"time", "sched"}
NOW = {"now", "utcnow", "today"}  # of datetime
WAITS = {"acquire", "join", "wait", "wait_for", "select", "get"}  # with a timeout
MAY_WAIT_BY_THE_WALL = {
    "clock.py",
    "housekeeping.py",
    "waiting.py",  # looks again at files that another process writes
    "group_sync.py",  # looks again after the one who syncs was interrupted; a disk has no clock
}


def uses_of_time(path: Path) -> list[str]:
    """Return where a module imports ``time``, or asks a datetime for now."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        names: set[str] = set()
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names} & CLOCKS
        elif isinstance(node, ast.ImportFrom) and node.module in CLOCKS:
            names = {node.module}
        elif isinstance(node, ast.Attribute) and node.attr in NOW:
            names = {node.attr}
        found += [f"line {getattr(node, 'lineno', 0)}: {name}" for name in names]
    return found


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - KNOW_THE_TIME - ATTIC))
def test_only_the_clock_looks_at_the_wall(name: str) -> None:
    assert not uses_of_time(SOURCES[name])
    assert not sleeps(SOURCES[name])


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - MAY_WAIT_BY_THE_WALL - ATTIC))
def test_only_waiting_waits(name: str) -> None:
    waits = [
        f"line {node.lineno}: {ast.unparse(node)[:60]}"
        for node in ast.walk(ast.parse(SOURCES[name].read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and any(keyword.arg == "timeout" for keyword in node.keywords)
        and node.func.attr in WAITS
    ]
    assert not waits


def sleeps(path: Path) -> list[str]:
    """Return where a module sleeps for any time."""
    return [
        f"line {node.lineno}: {ast.unparse(node)[:60]}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] == "sleep"
        and ast.unparse(node) != "asyncio.sleep(0)"
    ]


@pytest.mark.parametrize("name", TEST_SOURCES)
def test_no_test_sleeps(name: str) -> None:
    assert not sleeps(TEST_SOURCES[name])


def test_what_is_looked_for_is_found(tmp_path: Path) -> None:
    path = tmp_path / "guilty.py"
    path.write_text(
        "import time\nfrom time import monotonic\nfrom datetime import datetime\n"
        "import asyncio\ntime.sleep(1)\nasyncio.sleep(0)\nasyncio.sleep(0.1)\ndatetime.now()\n"
    )
    assert len(uses_of_time(path)) == 3
    assert sleeps(path) == ["line 5: time.sleep(1)", "line 7: asyncio.sleep(0.1)"]
