"""Which tests run which lines, and how long they take: recorded once and kept in a file.

What was recorded holds for as long as the sources are the same; of the tests, those files that
have changed are recorded anew. This module refuses to know what is done with it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.mutants.children import Plugin, Tell, Test, be_bounded, collect, in_child
from tests.mutants.importing import Importer, noting

LONGEST_S = 30.0  # slower tests are left out


class Suite(NamedTuple):
    """What is to be changed, and the tests that are to notice."""

    root: Path
    modules: dict[str, Path]  # by their full names
    files: list[str]  # of tests, below the root


class Recorded:
    """The tests of every line."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._tests: dict[tuple[str, int], list[Test]] = defaultdict(list)
        self.count = 0
        self.seconds = 0.0
        self.on_import = {(name, line) for name, lines in content["on_import"] for line in lines}
        for file in content["files"].values():
            for name, (seconds, lines) in file["tests"].items():
                if seconds > LONGEST_S:
                    continue
                self.count += 1
                self.seconds += seconds
                test = Test(name, seconds, sum(map(len, lines.values())))
                for module, numbers in lines.items():
                    for number in numbers:
                        self._tests[module, number].append(test)

    def of_lines(self, lines: Iterable[tuple[str, int]]) -> list[Test]:
        """Return the tests that run any of these lines (module, number).

        First those that are quick and run little else: a test of these lines notices more of what
        they do than one that only comes through.
        """
        found = {test for line in lines for test in self._tests.get(line, ())}
        return sorted(found, key=lambda test: (test.seconds * test.lines, test.name))

    def of_all(self) -> list[Test]:
        """Return every test that runs any line at all, in the same order."""
        return self.of_lines(self._tests)

    def of_module(self, module: str) -> list[Test]:
        """Return the tests that run anything of a module, in the same order."""
        return self.of_lines([line for line in self._tests if line[0] == module])


def digest_of(paths: Iterable[Path]) -> str:
    """Return what changes when one of these files does."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def recorded(suite: Suite, place: Path, kept: Path, say: Callable[[str], None]) -> Recorded:
    """Return which tests run which lines, from the file where they are kept as far as it holds."""
    sources = digest_of(sorted(suite.modules.values()))
    content: dict[str, Any] = {"sources": sources, "files": {}, "on_import": []}
    if kept.exists():
        before = json.loads(kept.read_text())
        if before["sources"] == sources:
            content = before
    digests = {file: digest_of([suite.root / file]) for file in suite.files}
    files = content["files"]
    for file in [file for file in files if files[file]["digest"] != digests.get(file)]:
        del files[file]
    for number, file in enumerate(suite.files):
        if file in files:
            continue
        tests: dict[str, Any] = {}
        for told in in_child(place, partial(_record, suite, file, place)).told:
            if "passed" in told:
                tests[told["passed"]] = (told["seconds"], told["lines"])
            content["on_import"] = told.get("on_import", content["on_import"])
        files[file] = {"digest": digests[file], "tests": tests}
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(content))
        say(f"recorded {number + 1} of {len(suite.files)} files, {len(tests)} tests in {file}")
    return Recorded(content)


def _record(suite: Suite, file: str, place: Path, tell: Tell) -> None:
    """Run a test file on modules that note what is run; tell of each test that passes."""
    ran: dict[str, set[int]] = {name: set() for name in suite.modules}
    paths = {name: str(path) for name, path in suite.modules.items()}
    Importer(paths, noting, lambda name: ran[name].add).install()

    def loop(plugin: Plugin) -> None:
        tell({"on_import": [(name, sorted(lines)) for name, lines in ran.items()]})
        items = list(plugin.items.values())
        for item, following in zip(items, [*items[1:], None]):
            be_bounded(3 * LONGEST_S)
            for lines in ran.values():
                lines.clear()
            began = time.monotonic()
            if plugin.run_one(item, following):
                seconds = round(time.monotonic() - began, 4)
                lines_of = {name: sorted(lines.copy()) for name, lines in ran.items() if lines}
                tell({"passed": item.nodeid, "seconds": seconds, "lines": lines_of})

    be_bounded(3 * LONGEST_S)
    collect(suite.root, [file], place, loop)
