"""How the house is written: names, docstrings, sizes, and what importing it drags in."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import minilog

PACKAGE = Path(minilog.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
DUMPING_GROUNDS = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base"}
SHORTHAND = {"idx", "msg", "cfg", "pos", "cnt", "tmp", "ts", "buf", "num", "cur", "prev", "evt"}
NEED_NOT_REFUSE = {"storage/__init__.py", "__init__.py", "__main__.py", "errors.py"}
LONGEST_FUNCTION = 60
SLOW_TO_IMPORT = ("asyncio", "dataclasses", "argparse", "difflib")


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in SOURCES:
        yield relative(path), ast.parse(path.read_text())


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[str, Function]]:
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{name}:{node.lineno} {node.name}", node


def test_no_module_is_a_dumping_ground() -> None:
    assert not {path.stem for path in SOURCES} & DUMPING_GROUNDS
    assert not {path.parent.name for path in SOURCES} & DUMPING_GROUNDS


def test_no_function_is_named_for_getting_doing_or_being_new() -> None:
    named = [where for where, node in functions() if re.match(r"_*(get|do|new)(_|$)", node.name)]
    assert not named


def test_no_name_is_shorthand() -> None:
    found = set()
    for name, tree in trees():
        for node in ast.walk(tree):
            written = getattr(node, "arg", None) or getattr(node, "id", None)
            if isinstance(written, str) and written in SHORTHAND:
                found.add(f"{name}:{getattr(node, 'lineno', 0)} {written}")
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_module_says_what_it_is_and_what_it_refuses_to_know(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text
    assert text.split("\n")[0].rstrip()[-1] in ".:,;" or "\n" in text
    if relative(path) not in NEED_NOT_REFUSE:
        assert "refuses to know" in " ".join(text.split())


def test_no_function_is_long() -> None:
    long = [
        f"{where}: {node.end_lineno - node.lineno + 1} lines"
        for where, node in functions()
        if node.end_lineno is not None and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    ]
    assert not long


def test_no_error_is_swallowed_whole() -> None:
    swallowed = []
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                is_empty = all(isinstance(statement, ast.Pass) for statement in node.body)
                if caught in ("everything", "Exception", "BaseException") and is_empty:
                    swallowed.append(f"{name}:{node.lineno}")
    assert not swallowed


def test_nothing_is_left_for_later() -> None:
    left = [
        f"{relative(path)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b", line)
    ]
    assert not left


def test_no_line_is_longer_than_100() -> None:
    long = [
        f"{relative(path)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 100
    ]
    assert not long


def test_importing_minilog_drags_nothing_slow_in(run_python: Callable[..., str]) -> None:
    source = (  # what its two dependencies drag in is theirs
        "import crc32c, sortedcontainers\nbefore = set(sys.modules)\nimport minilog\n"
        "print(*sorted(set(sys.modules) - before), sep='\\n')"
    )
    imported = run_python(source).split()
    assert "minilog.broker" in imported
    assert not set(imported) & set(SLOW_TO_IMPORT)


def test_importing_minilog_starts_no_thread_and_opens_no_file(
    run_python: Callable[..., str],
) -> None:
    source = "import threading, minilog\nprint(threading.active_count())"
    assert run_python(source) == "1\n"
