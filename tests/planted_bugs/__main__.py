"""``python -m tests.planted_bugs``: plants every bug, prints which layer of the tests catches it.

The layer that is there for its like is tried first, then the others. The exit code is 1 if one
was caught by none, or if the unchanged code is not clean.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.planted_bugs.layers import LAYERS, UNCHANGED, catches
from tests.planted_bugs.patches import BUGS, Bug

ROOT = Path(__file__).parent.parent.parent
COPIED = ("minilog", "tests", "benchmarks", "pyproject.toml", "README.md", "CHANGELOG.md")


class NotPlantedError(Exception):
    """The text that a bug changes is not there once: the list does not fit the code."""


def copy_to(target: Path) -> None:
    """Copy what the tests need."""
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        elif source.exists():
            shutil.copy(source, target / name)


@contextmanager
def planted(bug: Bug, copy: Path) -> Iterator[None]:
    """Plant a bug in a copy and take it out again; NotPlantedError where it does not fit."""
    before: dict[Path, str] = {}
    for edit in bug.edits:
        path = copy / "minilog" / edit.file
        text = path.read_text()
        before.setdefault(path, text)
        if text.count(edit.old) != 1:
            found = text.count(edit.old)
            raise NotPlantedError(
                f"{bug.name!r}: the text it changes stands {found} times in {edit.file}; mend "
                f"tests/planted_bugs/patches.py\n{edit.old}"
            )
        path.write_text(text.replace(edit.old, edit.new))
    try:
        yield
    finally:
        for path, text in before.items():
            path.write_text(text)


def caught_by(bug: Bug, copy: Path) -> tuple[str, float, str] | None:
    """Return the layer that catches a bug, how long it took, and what it says; or None."""
    others = [layer for layer in LAYERS if layer not in (bug.layer, UNCHANGED)]
    with planted(bug, copy):
        for layer in (bug.layer, *others):
            is_caught, seconds, line = catches(layer, copy)
            if is_caught:
                return layer, seconds, line
    return None


def main(arguments: Sequence[str]) -> int:
    """Plant the bugs that are asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted_bugs", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", default="", help="bugs whose name has this")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    asked = parser.parse_args(arguments)
    chosen = [bug for bug in BUGS if asked.only in bug.name]
    if asked.list:
        print("\n".join(f"{bug.layer:14} {bug.name}: {bug.breaks}" for bug in chosen))
        return 0
    missed = 0
    with tempfile.TemporaryDirectory(prefix="minilog-planted-") as directory:
        copy = Path(directory) / "copy"
        copy.mkdir()
        copy_to(copy)
        is_caught, seconds, line = catches(UNCHANGED, copy)
        print(f"unchanged: {line} ({seconds:.0f} s)", flush=True)
        missed += is_caught
        for number, bug in enumerate(chosen, 1):
            found = caught_by(bug, copy)
            head = f"{number:3}/{len(chosen)} {bug.name}"
            if found is None:
                missed += 1
                print(f"{head}\n        MISSED ({bug.breaks})", flush=True)
                continue
            layer, seconds, line = found
            expected = "" if layer == bug.layer else f", not by {bug.layer}"
            print(f"{head}\n        {layer}{expected}, {seconds:.0f} s: {line[:150]}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
