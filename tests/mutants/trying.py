"""Trying mutants: each in a child that runs the tests which run its line, the nearest first.

A change within a function is put into the functions of a process that has imported all and
collected all tests, which costs a fork. One of what runs on import (constants, defaults) is tried
before anything is imported: its child imports and collects, which costs seconds.

This module refuses to know how it is reported, and which mutants are no loss.
"""

from __future__ import annotations

import ast
import gc
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FunctionType

from tests.mutants.children import Plugin, Tell, Test, be_bounded, collect, in_child
from tests.mutants.importing import Importer, put_code
from tests.mutants.mutations import Function, Mutant
from tests.mutants.recording import Recorded, Suite

FIRST = 40  # so many tests are collected for a change of what runs on import, before the others
COLLECTING_S = 30.0
UNCOVERED = "no test runs it"

Outcome = str | None  # what has noticed it; None: nothing has
Told = Callable[[Mutant, Outcome], None]


class Trial:
    """Mutants of a suite, tried one after the other."""

    def __init__(
        self, suite: Suite, tests: Recorded, trees: dict[str, ast.Module], place: Path, told: Told
    ) -> None:
        self.patience_s = 20.0  # tests of so long, as they were recorded, are run for a mutant
        self._suite = suite
        self._tests = tests
        self._trees = trees
        self._place = place
        self._told = told
        self._quick: dict[tuple[str, str], dict[str, Test]] = defaultdict(dict)
        self._fair: dict[str, bool] = {}  # tests that have noticed something: do they pass else?
        self._functions: dict[tuple[str, int], list[FunctionType]] = defaultdict(list)

    def run(self, mutants: Sequence[Mutant]) -> None:
        """Try mutants and tell of each."""
        inner = []
        for mutant in mutants:
            line = (mutant.module, mutant.line)
            is_only_imported = line in self._tests.on_import and not self._tests.of_lines([line])
            if mutant.outermost is None or is_only_imported:
                self._told(mutant, self._try_on_import(mutant))
            else:
                inner.append(mutant)
        if inner:
            collect(
                self._suite.root,
                self._suite.files,
                self._place,
                lambda plugin: self._run_within(plugin, inner),
            )

    # ------------------------------------------------------------ what runs on import

    def _try_on_import(self, mutant: Mutant) -> Outcome:
        tests = self._bounded(self._tests_on_import(mutant))
        for some in (tests[:FIRST], tests[FIRST:]):
            noticed = self._import_and_run(mutant, some) if some else None
            if noticed is not None:
                return noticed
        return None if tests else UNCOVERED

    def _tests_on_import(self, mutant: Mutant) -> list[Test]:
        """Return the tests that run what mentions the changed names, then those of the module."""
        names: set[str] = set()
        for statement in self._trees[mutant.module].body:
            if getattr(statement, "lineno", 0) == mutant.line:
                names = {node.id for node in ast.walk(statement) if _is_stored(node)}
        lines = [
            (module, statement.lineno)
            for module, tree in self._trees.items()
            for statement in ast.walk(tree)
            if isinstance(statement, ast.stmt) and not isinstance(statement, Function)
            if names & {_name(node) for node in ast.walk(statement)}
        ]
        near = self._tests.of_lines(lines)
        of_module = self._tests.of_module(mutant.module) or self._tests.of_all()
        return list(dict.fromkeys([*near, *of_module]))

    def _import_and_run(self, mutant: Mutant, tests: Sequence[Test]) -> Outcome:
        files = list(dict.fromkeys(test.name.partition("::")[0] for test in tests))

        def work(tell: Tell) -> None:
            be_bounded(COLLECTING_S)
            mutant.make()
            path = str(self._suite.modules[mutant.module])
            tree = self._trees[mutant.module]
            Importer({mutant.module: path}, lambda name, read: tree).install()
            collect(self._suite.root, files, self._place, lambda plugin: plugin.run(tests, tell))

        return in_child(self._place, work).noticed_by()

    # ------------------------------------------------------------ what is within functions

    def _run_within(self, plugin: Plugin, mutants: Iterable[Mutant]) -> None:
        modules = {str(path): name for name, path in self._suite.modules.items()}
        for found in gc.get_objects():
            if isinstance(found, FunctionType) and found.__code__.co_filename in modules:
                code = found.__code__
                where = (modules[code.co_filename], code.co_firstlineno)
                self._functions[where].append(found)
        gc.freeze()
        for mutant in mutants:
            self._told(mutant, self._try_within(plugin, mutant))

    def _try_within(self, plugin: Plugin, mutant: Mutant) -> Outcome:
        covering = [
            test
            for test in self._tests.of_lines([(mutant.module, mutant.line)])
            if self._fair.get(test.name, True)
        ]
        if not covering:
            return UNCOVERED
        quick = self._quick[mutant.module, mutant.function]
        tests = [*(quick[test.name] for test in covering if test.name in quick)]
        tests += [test for test in self._bounded(covering) if test.name not in quick]
        ended = in_child(
            self._place, lambda tell: self._change_and_run(plugin, mutant, tests, tell)
        )
        noticed = ended.noticed_by()
        if noticed is None:
            return None
        test = next((each for each in tests if each.name == noticed.partition(" (")[0]), None)
        if test is not None:
            if not self._is_fair(plugin, test):
                return self._try_within(plugin, mutant)
            quick[test.name] = test
        return noticed

    def _is_fair(self, plugin: Plugin, test: Test) -> bool:
        """Say whether a test passes where nothing is changed."""
        if test.name not in self._fair:
            ended = in_child(self._place, lambda tell: plugin.run([test], tell))
            self._fair[test.name] = ended.noticed_by() is None
        return self._fair[test.name]

    def _change_and_run(
        self, plugin: Plugin, mutant: Mutant, tests: Sequence[Test], tell: Tell
    ) -> None:
        mutant.make()
        outermost = mutant.outermost
        assert outermost is not None
        line = min([outermost.lineno, *(each.lineno for each in outermost.decorator_list)])
        functions = self._functions[mutant.module, line]
        if functions and put_code(functions, self._trees[mutant.module], line, outermost.name):
            plugin.run(tests, tell)
        else:
            tell({"failed": "it cannot be put in place"})

    def _bounded(self, tests: Iterable[Test]) -> list[Test]:
        """Return the first tests, of so long as there is patience for."""
        bounded = []
        left = self.patience_s
        for test in tests:
            left -= test.seconds
            if left < 0 and bounded:
                break
            bounded.append(test)
        return bounded


def _is_stored(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
