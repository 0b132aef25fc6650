"""``python -m tests.mutants``: changes the ground floor in one place at a time, and says which
changes no test has noticed.

The exit code is 1 if there are any that ``tests/mutants/equivalents.py`` does not name. What is
found is kept in ``.mutants``, for ``--report`` and ``--survivors``.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.equivalents import ANY, EQUIVALENTS
from tests.mutants.mutations import Mutant, mutants_of
from tests.mutants.recording import Suite, recorded
from tests.mutants.trying import UNCOVERED, Outcome, Trial

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "minilog/storage"
TESTS = ("tests/unit", "tests/properties", "tests/golden", "tests/fuzz", "tests/crash")
SLOW = (  # kills, cuts and every interrupt: they take long, or other processes see no change
    "tests/crash/test_cleaning_crash.py",
    "tests/crash/test_cleaning_interrupts.py",
    "tests/crash/test_consumer_kills.py",
    "tests/crash/test_crash_states.py",
    "tests/crash/test_exactly_once_kills.py",
    "tests/crash/test_faults.py",
    "tests/crash/test_full_disk.py",
    "tests/crash/test_interrupts.py",
    "tests/crash/test_kill.py",
    "tests/crash/test_planted_bugs.py",
    "tests/crash/test_power_cut.py",
    "tests/crash/test_processes.py",
    "tests/crash/test_transaction_",
    "tests/unit/test_api_interrupts.py",
    "tests/unit/test_benchmarks",
    "tests/unit/test_cli.py",
    "tests/unit/test_torture.py",
)
IN_MEMORY = Path("/dev/shm")
KILLED, SURVIVED, EQUIVALENT, NOT_RUN = "killed", "survived", "equivalent", "not run"

Key = tuple[str, str, str, str]


def suite_of(root: Path, package: str, tests: Sequence[str]) -> Suite:
    """Return what is to be changed below a root, and the tests that are there for it."""
    modules = {}
    for path in sorted((root / package).rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        modules[name.removesuffix(".__init__")] = path
    paths = {path for test in tests for path in [root / test, *(root / test).rglob("test_*.py")]}
    files = sorted(path.relative_to(root).as_posix() for path in paths if path.is_file())
    return Suite(root, modules, [file for file in files if not file.startswith(SLOW)])


class Outcomes:
    """What was found of each mutant, kept in a file line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[Key, Outcome] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                *key, outcome = json.loads(line)
                self._found[tuple(key)] = outcome

    def add(self, mutant: Mutant, outcome: Outcome) -> None:
        """Keep what was found of a mutant."""
        self._found[mutant.key] = outcome
        self._path.parent.mkdir(exist_ok=True)
        with self._path.open("a") as lines:
            lines.write(json.dumps([*mutant.key, outcome]) + "\n")

    def kind(self, mutant: Mutant) -> str:
        """Return what a mutant counts as."""
        if is_equivalent(mutant):
            return EQUIVALENT
        if mutant.key not in self._found:
            return NOT_RUN
        return SURVIVED if self._found[mutant.key] in (None, UNCOVERED) else KILLED

    def shown(self, mutant: Mutant) -> str:
        """Return what a reader needs to find a mutant."""
        what = f"{mutant.before}\n        -> {mutant.after}".replace("\n", "\n        ")
        note = f" ({UNCOVERED})" if self._found.get(mutant.key) == UNCOVERED else ""
        where = mutant.function or "the module"
        return f"{mutant.module} {mutant.line} in {where}{note}\n        {what}"


def is_equivalent(mutant: Mutant) -> bool:
    """Say whether a mutant is listed as one that changes nothing."""
    module, function, before, after = mutant.key
    return any(
        (each.function, each.before) == (function, before)
        and module.endswith(f".{each.module}")
        and each.after in (after, ANY)
        for each in EQUIVALENTS
    )


def chosen(mutants: list[Mutant], asked: argparse.Namespace, outcomes: Outcomes) -> list[Mutant]:
    """Return the mutants that are asked for, of those that are not equivalent."""
    kept = [mutant for mutant in mutants if not is_equivalent(mutant)]
    if asked.within:
        kept = [mutant for mutant in kept if mutant.outermost is not None]
    if asked.survivors:
        kept = [mutant for mutant in kept if outcomes.kind(mutant) == SURVIVED]
    if asked.resume:
        kept = [mutant for mutant in kept if outcomes.kind(mutant) == NOT_RUN]
    if asked.sample and len(kept) > asked.sample:
        drawn = random.Random(asked.seed).sample(range(len(kept)), asked.sample)
        kept = [kept[number] for number in sorted(drawn)]
    return kept


def report(suite: Suite, mutants: list[Mutant], outcomes: Outcomes, *, as_json: bool) -> int:
    """Print what was found of all mutants; return how many survived."""
    kinds = (KILLED, SURVIVED, EQUIVALENT, NOT_RUN)
    counts = {name: Counter(dict.fromkeys(kinds, 0)) for name in suite.modules}
    for mutant in mutants:
        counts[mutant.module][outcomes.kind(mutant)] += 1
    survivors = [mutant for mutant in mutants if outcomes.kind(mutant) == SURVIVED]
    if as_json:
        listed = [[*mutant.key, mutant.line] for mutant in survivors]
        print(json.dumps({"modules": counts, "survivors": listed}, indent=1))
        return len(survivors)
    for mutant in survivors:
        print(outcomes.shown(mutant))
    print(f"{'':32}" + "".join(f"{kind:>11}" for kind in ("mutants", *kinds)))
    for name, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        if count.total():
            figures = (count.total(), *(count[kind] for kind in kinds))
            print(f"{name:32}" + "".join(f"{figure:11}" for figure in figures))
    return len(survivors)


def main(arguments: Sequence[str]) -> int:
    """Try the mutants that are asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", metavar="MODULES", default="", help="format,batch,...")
    parser.add_argument("--sample", metavar="N", type=int, default=0, help="of each module")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--patience", metavar="S", type=float, default=20.0, help="for a mutant")
    parser.add_argument("--within", action="store_true", help="nothing of what runs on import")
    parser.add_argument("--survivors", action="store_true", help="those of the runs before")
    parser.add_argument("--resume", action="store_true", help="those that no run has tried")
    parser.add_argument("--report", action="store_true", help="what the runs before have found")
    parser.add_argument("--json", action="store_true", help="print that as JSON")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    parser.add_argument("--package", default=PACKAGE, help=argparse.SUPPRESS)
    parser.add_argument("--tests", nargs="*", default=TESTS, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    suite = suite_of(asked.root.resolve(), asked.package, asked.tests)
    trees = {name: ast.parse(path.read_bytes()) for name, path in suite.modules.items()}
    names = {name.rpartition(".")[2]: name for name in trees}
    only = [names[name] for name in asked.only.split(",")] if asked.only else list(trees)
    of_module = {name: mutants_of(name, trees[name]) for name in only}
    kept = suite.root / ".mutants"
    outcomes = Outcomes(kept / "outcomes.jsonl")
    if not asked.report:
        mutants = [each for some in of_module.values() for each in chosen(some, asked, outcomes)]
        try_all(suite, trees, mutants, outcomes, kept, asked.patience)
    every = [mutant for some in of_module.values() for mutant in some]
    return 1 if report(suite, every, outcomes, as_json=asked.json) else 0


def try_all(
    suite: Suite,
    trees: dict[str, ast.Module],
    mutants: Sequence[Mutant],
    outcomes: Outcomes,
    kept: Path,
    patience_s: float,
) -> None:
    """Try mutants, saying where it stands."""
    began = time.monotonic()
    survived = tried = 0

    def told(mutant: Mutant, outcome: Outcome) -> None:
        nonlocal survived, tried
        outcomes.add(mutant, outcome)
        tried += 1
        survived += outcomes.kind(mutant) == SURVIVED
        seconds = time.monotonic() - began
        line = f"{tried}/{len(mutants)} {mutant.module}, {survived} survived, {seconds:.0f} s"
        say(line)

    where = IN_MEMORY if IN_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="minilog-mutants-", dir=where) as directory:
        place = Path(directory)
        tests = recorded(suite, place, kept / "recorded.json", say)
        say(f"{tests.count} tests of {tests.seconds:.0f} s, {len(mutants)} mutants")
        began = time.monotonic()
        trial = Trial(suite, tests, trees, place, told)
        trial.patience_s = patience_s
        trial.run(mutants)


def say(line: str) -> None:
    """Print where it stands; on a terminal, over the line before."""
    print(
        f"\r{line:99}", end="" if sys.__stderr__.isatty() else "\n", file=sys.__stderr__, flush=True
    )


def stop(number: int, frame: object) -> None:
    """End as by an interrupt, so that no child is left and no directory."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    sys.exit(main(sys.argv[1:]))
