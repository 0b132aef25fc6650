"""Mutants are made, tried and told apart: the tool itself, on a program of a few lines."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.__main__ import PACKAGE, ROOT, TESTS, suite_of
from tests.mutants.equivalents import ANY, EQUIVALENTS
from tests.mutants.mutations import Mutant, mutants_of

PROGRAM = '''"""A program, which is not changed in its prose."""

from __future__ import annotations

FACTOR = 2


class Account:
    """It holds what was paid in."""

    limit: int = 100

    def __init__(self) -> None:
        self.held = 0

    @property
    def is_empty(self) -> bool:
        return self.held == 0

    def pay(self, amount: int) -> None:
        if amount < 0:
            raise ValueError(f"{amount + 1} is less than nothing")
        self.held += amount * FACTOR


def countdown(number: int) -> int:
    while number > 0:
        number -= 1
    return number


def unused() -> int:
    return 5 + 5
'''
NOTICING = """
from program.account import Account, countdown


def test_what_is_paid_in_is_held():
    account = Account()
    assert account.is_empty
    account.pay(3)
    assert account.held == 6


def test_a_countdown_ends():
    assert countdown(3) == 0
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program whose mutants were all tried."""
    root = tmp_path_factory.mktemp("root")
    (root / "program").mkdir()
    (root / "program" / "__init__.py").write_text("")
    (root / "program" / "account.py").write_text(PROGRAM)
    (root / "tests").mkdir()
    (root / "tests" / "test_account.py").write_text(NOTICING)
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    run(root)
    return root


def run(root: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-B", "-m", "tests.mutants", "--json", *arguments]
    what = ["--root", str(root), "--package", "program", "--tests", "tests"]
    finished = subprocess.run(
        [*command, *what], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 1, finished.stderr  # some survive
    told: dict[str, Any] = json.loads(finished.stdout)
    return told


def outcomes(root: Path) -> dict[tuple[str, str], str | None]:
    lines = (root / ".mutants" / "outcomes.jsonl").read_text().splitlines()
    return {(before, after): told for _, _, before, after, told in map(json.loads, lines)}


def test_a_planted_survivor_is_reported(tried: Path) -> None:
    survivors = {(before, after) for _, _, before, after, _ in run(tried, "--report")["survivors"]}
    raised = "raise ValueError(f'{amount + 1} is less than nothing')"
    assert ("limit: int = 100", "limit: int = 101") in survivors
    assert ("amount < 0", "amount <= 0") in survivors
    assert (raised, "pass") in survivors
    assert ("return 5 + 5", "return None") in survivors  # no test runs it
    assert ("amount * FACTOR", "amount // FACTOR") not in survivors


def test_a_planted_change_is_noticed_by_the_test_that_runs_it(tried: Path) -> None:
    found = outcomes(tried)
    paid = "tests/test_account.py::test_what_is_paid_in_is_held"
    assert found["amount * FACTOR", "amount // FACTOR"] == paid
    assert found["self.held == 0", "self.held != 0"] == paid  # in a property
    assert found["FACTOR = 2", "FACTOR = 3"] == paid  # of what runs on import
    assert found["number > 0", "number >= 0"] == "tests/test_account.py::test_a_countdown_ends"


def test_a_change_that_loops_for_ever_is_noticed(tried: Path) -> None:
    ended = "tests/test_account.py::test_a_countdown_ends (time)"
    assert outcomes(tried)["number -= 1", "number += 1"] == ended


def test_what_was_recorded_and_found_is_kept(tried: Path) -> None:
    before = (tried / ".mutants" / "recorded.json").read_bytes()
    count = len(outcomes(tried))
    report = run(tried, "--resume")  # nothing is left to try
    assert report["modules"]["program.account"]["not run"] == 0
    assert len(outcomes(tried)) == count
    assert (tried / ".mutants" / "recorded.json").read_bytes() == before


def test_prose_types_and_the_texts_of_errors_are_left_alone() -> None:
    changed = {mutant.before for mutant in mutants_of("account", ast.parse(PROGRAM))}
    assert "self.held += amount * FACTOR" in changed
    assert not [text for text in changed if "amount + 1" in text and "raise" not in text]
    assert not [text for text in changed if "prose" in text or "->" in text]
    typed = "value: int | None = None\n\n\ndef f(a: int | None) -> int | None:\n    return a\n"
    assert [each.before for each in mutants_of("typed", ast.parse(typed))] == ["return a"]


def test_a_mutant_is_the_same_when_its_lines_move() -> None:
    moved = PROGRAM.replace("FACTOR = 2", "\n\nFACTOR = 2")
    before, after = (mutants_of("account", ast.parse(text)) for text in (PROGRAM, moved))
    assert [each.key for each in before] == [each.key for each in after]
    assert len({each.key for each in before}) == len(before)
    assert [each.line for each in before] != [each.line for each in after]


def test_every_mutant_is_a_program_that_differs() -> None:
    count = len(mutants_of("account", ast.parse(PROGRAM)))
    texts = set()
    for number in range(count):
        tree = ast.parse(PROGRAM)
        mutants_of("account", tree)[number].make()
        texts.add(ast.unparse(tree))
        compile(tree, "account.py", "exec")
    assert len(texts - {ast.unparse(ast.parse(PROGRAM))}) == count


def of_storage() -> list[Mutant]:
    modules = suite_of(ROOT, PACKAGE, TESTS).modules
    return [
        mutant
        for name, path in modules.items()
        for mutant in mutants_of(name.rpartition(".")[2], ast.parse(path.read_text()))
    ]


def test_every_equivalent_names_what_is_in_the_code_and_says_why() -> None:
    there = {mutant.key for mutant in of_storage()}
    texts = {key[:3] for key in there}
    gone = [
        each
        for each in EQUIVALENTS
        if (each[:3] not in texts if each.after == ANY else each[:4] not in there)
    ]
    assert not gone, "their text has changed: mend tests/mutants/equivalents.py"
    assert not [each for each in EQUIVALENTS if len(each.reason) < 20]
    assert len({each[:4] for each in EQUIVALENTS}) == len(EQUIVALENTS)
