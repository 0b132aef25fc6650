"""Who imports whom, proven from the source: two floors, no cycles, one door to the disk."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import minilog
from minilog import storage

PACKAGE = Path(minilog.__file__).parent
MODULES = {
    ".".join(("minilog", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FROM_UPSTAIRS = {"minilog.errors", "minilog.records", "minilog.config"}
DISK_MODULES = {"os", "mmap", "fcntl", "resource", "posix", "ctypes"}
CONVENIENCES = {"pathlib", "shutil", "tempfile", "glob"}
DOOR = "minilog.storage.files"
CODECS = "minilog.storage.codecs"  # the packages of extras, imported when they are needed
ATTIC = {  # speaks to people, by the public names
    "minilog.cli",
    "minilog.cli_arguments",
    "minilog.cli_groups",
    "minilog.recipes.event_sourcing",
    "minilog.recipes.retrying",
    "minilog.recipes.transforming",
    "minilog.tour",
}


def imports_of(name: str) -> set[str]:
    """Return the modules that one imports anywhere in it, also within its functions."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in MODULES else base)
    return found


IMPORTS = {name: imports_of(name) for name in MODULES}


def reached_from(name: str) -> set[str]:
    """Return the modules of the package that one imports, and what those import, and so on."""
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        for other in IMPORTS[waiting.pop()] & set(MODULES):
            if other not in reached:
                reached.add(other)
                waiting.append(other)
    return reached


@pytest.mark.parametrize("name", [name for name in MODULES if ".storage" in name])
def test_the_ground_floor_imports_nothing_from_upstairs(name: str) -> None:
    ours = {other for other in IMPORTS[name] if other.startswith("minilog")}
    upstairs = {other for other in ours if not other.startswith("minilog.storage")}
    assert upstairs <= FROM_UPSTAIRS
    assert "minilog" not in ours, "the shop window is not a supplier"


def test_the_rooms_of_the_ground_floor_know_only_those_above_them() -> None:
    plan = re.findall(r"^    (\w+)\.py\s", storage.__doc__ or "", re.MULTILINE)
    rooms = [name.rpartition(".")[2] for name in MODULES if name.startswith("minilog.storage.")]
    assert sorted(plan) == sorted(rooms), "the floor plan does not show every room"
    for number, room in enumerate(plan):
        known = {
            other.rpartition(".")[2]
            for other in IMPORTS[f"minilog.storage.{room}"]
            if other.startswith("minilog.storage.")
        }
        assert known <= set(plan[:number]), f"{room} knows a room below it"


@pytest.mark.parametrize("name", [name for name in MODULES if name != DOOR])
def test_only_one_module_touches_the_disk(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text())
    imported = {other.partition(".")[0] for other in IMPORTS[name]}
    assert not imported & DISK_MODULES
    assert not imported & CONVENIENCES or name in ATTIC
    opened = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"
    ]
    assert not opened


def test_there_are_no_cycles() -> None:
    cyclic = [name for name in MODULES if name in reached_from(name)]
    assert not cyclic


def test_producer_and_consumer_do_not_know_each_other() -> None:
    assert "minilog.consumer" not in reached_from("minilog.producer")
    assert "minilog.producer" not in reached_from("minilog.consumer")


def test_the_broker_does_not_know_who_uses_it() -> None:
    assert not reached_from("minilog.broker") & {"minilog.producer", "minilog.consumer"}


def test_nobody_knows_the_shop_window_but_the_attic() -> None:
    customers = {name for name in MODULES if "minilog" in IMPORTS[name]}
    assert customers <= ATTIC


def test_nothing_but_the_standard_library_and_two_packages_is_imported() -> None:
    outside = {
        (other.partition(".")[0], name)
        for name, imported in IMPORTS.items()
        for other in imported
        if other.partition(".")[0] not in sys.stdlib_module_names | {"minilog", "compression"}
    }
    assert {package for package, name in outside if name != CODECS} == {
        "crc32c",
        "sortedcontainers",
    }
    assert {package for package, name in outside if name == CODECS} == {"lz4", "backports"}


def test_a_codec_is_imported_when_it_is_needed(run_python: Callable[..., str]) -> None:
    source = "import sys, minilog\nprint(*sys.modules, sep='\\n')"
    assert not set(run_python(source).split()) & {"lz4", "backports.zstd", "compression.zstd"}
