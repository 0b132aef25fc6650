"""The runner of the long tests: it finds the shares, shares the time, adds up, and fails."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import tests.torture
from tests.torture import __main__ as torture
from tests.torture.rounds import Rounds

GOOD = """
def run(minutes, seed):
    return {"violations": 0, "rounds": 12345, "seed_was": seed, "minutes_were": minutes}
"""
LOSING = 'def run(minutes, seed):\n    return {"violations": 2, "lost": 2}\n'
RAISING = 'def run(minutes, seed):\n    raise ValueError("it broke")\n'


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package of fake shares: one that is well, and a module that is no share."""
    path = tmp_path / "fake_shares"
    path.mkdir()
    (path / "__init__.py").write_text("")
    (path / "__main__.py").write_text("raise AssertionError('it is not to be imported')\n")
    (path / "good.py").write_text(GOOD)
    (path / "no_share.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield importlib.import_module("fake_shares")
    for name in [name for name in sys.modules if name.startswith("fake_shares")]:
        del sys.modules[name]


def add(package: ModuleType, name: str, source: str) -> None:
    (Path(package.__path__[0]) / f"{name}.py").write_text(source)
    importlib.invalidate_caches()


def test_every_module_with_a_run_is_a_share() -> None:
    shares = torture.shares_of(tests.torture)
    assert {"kills", "power_cuts"} <= set(shares)
    assert "rounds" not in shares


def test_the_figures_are_printed_and_the_exit_code_is_0(
    package: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert torture.main(["--minutes", "0", "--seed", "7"], package) == 0
    printed = capsys.readouterr().out
    assert "seed 7" in printed
    assert "good  0 violations  rounds 12,345" in printed


@pytest.mark.parametrize(("name", "source"), [("losing", LOSING), ("raising", RAISING)])
def test_a_violation_is_counted_and_the_exit_code_is_1(
    package: ModuleType, capsys: pytest.CaptureFixture[str], name: str, source: str
) -> None:
    add(package, name, source)
    assert torture.main(["--minutes", "0", "--seed", "7"], package) == 1
    printed = capsys.readouterr()
    assert "good" in printed.out
    assert f"{name}" in printed.out
    if name == "raising":
        assert "it broke" in printed.err
        assert "--only raising --seed 7" in printed.err


def test_only_what_is_asked_for_runs(
    package: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    add(package, "raising", RAISING)
    assert torture.main(["--minutes", "0", "--only", "good"], package) == 0
    with pytest.raises(SystemExit):
        torture.main(["--only", "unheard of"], package)
    assert "unheard of" in capsys.readouterr().err


def test_the_time_is_shared_evenly_and_the_seed_is_handed_on(
    package: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    add(package, "better", GOOD)
    assert torture.main(["--minutes", "60", "--seed", "11", "--json"], package) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["seed"] == 11
    assert list(report["shares"]) == ["better", "good"]
    assert report["shares"]["better"]["seed_was"] == 11
    assert report["shares"]["better"]["minutes_were"] == pytest.approx(30, abs=1)
    assert report["shares"]["good"]["minutes_were"] == pytest.approx(60, abs=1)  # what was left


def test_a_share_that_does_not_say_counts_as_a_violation(package: ModuleType) -> None:
    add(package, "silent", "def run(minutes, seed):\n    return {}\n")
    assert torture.main(["--minutes", "0", "--only", "silent"], package) == 1


def test_a_round_that_fails_is_counted_with_the_seed_that_repeats_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rounds = Rounds("fake", 0, 40, least=3)
    drawn = []
    for seed, chance in rounds:
        drawn.append(chance.random())
        with rounds.judged(seed, "the middle one"):
            assert seed != 41
    assert rounds.figures()["violations"] == 1
    assert rounds.figures()["rounds"] == 3
    assert "--only fake --seed 41 --minutes 0" in capsys.readouterr().err
    (again,) = [chance.random() for _, chance in Rounds("fake", 0, 41)]
    assert again == drawn[1]


def test_a_share_that_always_fails_gives_up() -> None:
    rounds = Rounds("fake", 60, 0)
    for seed, _ in rounds:
        with rounds.judged(seed, "every one"):
            raise ValueError
    assert rounds.figures()["violations"] == rounds.figures()["rounds"] < 10


def test_a_share_that_takes_long_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.torture.rounds.TELLING_S", 0)
    rounds = Rounds("fake", 0, 40, least=2)
    for _ in rounds:
        rounds.counts["kills"] += 3
    told = capsys.readouterr().err
    assert told.startswith("fake so far: {'violations': 0, 'rounds': 1, 'kills': 3")
    assert "'kills': 6" in told
