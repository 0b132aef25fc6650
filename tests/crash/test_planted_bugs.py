"""Planted bugs are caught: that the list fits the code, and a few of them by crash states alone.

The others are planted by ``python -m tests.planted_bugs``, which takes as long as it takes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.planted_bugs.__main__ import COPIED, copy_to, planted
from tests.planted_bugs.layers import CRASH_STATES, catches
from tests.planted_bugs.patches import BUGS, Bug, bug

FEW = {
    "a segment is never synced",
    "the clean mark is not taken away before the first write",
    "segments behind a gap stay",
    "a roll ends without the seal",
    "a replaced file is renamed before it is synced",
    "recovery does not sync the names of topics",
    "the writer epoch is used again",
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("copy")
    copy_to(target)
    return target


def test_the_list_is_long_enough_and_every_bug_has_a_name_of_its_own() -> None:
    assert len(BUGS) >= 40
    assert len({planted_bug.name for planted_bug in BUGS}) == len(BUGS)
    assert {planted_bug.name for planted_bug in BUGS} >= FEW
    assert "minilog" in COPIED


@pytest.mark.parametrize("planted_bug", BUGS, ids=lambda each: each.name.replace(" ", "_"))
def test_every_bug_fits_the_code_and_leaves_it_valid(planted_bug: Bug, copied: Path) -> None:
    before = {path: path.read_text() for path in copied.glob("minilog/**/*.py")}
    with planted(planted_bug, copied):
        changed = {path for path, text in before.items() if path.read_text() != text}
        assert {path.relative_to(copied / "minilog").as_posix() for path in changed} == {
            edit.file for edit in planted_bug.edits
        }
        for path in changed:
            compile(path.read_text(), str(path), "exec")
    assert before == {path: path.read_text() for path in copied.glob("minilog/**/*.py")}


def test_a_bug_that_does_not_fit_is_refused(copied: Path) -> None:
    unfit = bug("unfit", "nothing", CRASH_STATES, ("broker.py", "no such text", ""))
    with pytest.raises(Exception, match="stands 0 times"), planted(unfit, copied):
        pass


@pytest.mark.parametrize(
    "planted_bug",
    [each for each in BUGS if each.name in FEW],
    ids=lambda each: each.name.replace(" ", "_"),
)
def test_crash_states_catch_it(planted_bug: Bug, copied: Path) -> None:
    with planted(planted_bug, copied):
        is_caught, _, line = catches(CRASH_STATES, copied)
    assert is_caught
    assert line.startswith("caught in"), line
