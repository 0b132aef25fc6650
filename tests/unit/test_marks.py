"""Clean marks: true while they are kept, and on the disk only while nobody writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from minilog.home import CLEAN_FILE, home_at
from minilog.marks import CleanMarks
from minilog.storage import CleanMark, Log


class Named:
    """A topic, as far as marks need one."""

    id = UUID(int=7)


class Numbered:
    """A partition, as far as marks need one."""

    def __init__(self, index: int, *, is_open: bool) -> None:
        self.index = index
        self.is_open = is_open


TOPIC: Any = Named()
MARK = CleanMark(0, 4096, 17, 5, 5, 2, is_sealed=False)


def partition(index: int, *, is_open: bool = True) -> Any:
    return Numbered(index, is_open=is_open)


@pytest.fixture
def marks(tmp_path: Path) -> CleanMarks:
    home = home_at(tmp_path / "log")
    home.make()
    return CleanMarks(home)


def again(tmp_path: Path) -> CleanMarks:
    loaded = CleanMarks(home_at(tmp_path / "log"))
    loaded.load([])
    return loaded


def test_what_a_close_has_saved_the_next_opening_loads(marks: CleanMarks, tmp_path: Path) -> None:
    marks.load([])
    assert not marks.is_clean
    marks.closed(TOPIC, partition(0), MARK)
    marks.save()
    loaded = again(tmp_path)
    assert loaded.is_clean
    assert loaded.of(TOPIC, 0) == MARK
    assert loaded.of(TOPIC, 1) is None


def test_the_file_goes_before_the_first_byte_changes(marks: CleanMarks, tmp_path: Path) -> None:
    marks.closed(TOPIC, partition(0), MARK)
    marks.save()
    loaded = again(tmp_path)
    loaded.take_away()
    assert not (tmp_path / "log" / CLEAN_FILE).exists()
    assert not loaded.is_clean
    assert loaded.of(TOPIC, 0) == MARK, "of a partition that nobody has opened it still holds"


def test_a_partition_that_was_open_and_leaves_no_mark_has_none(marks: CleanMarks) -> None:
    marks.closed(TOPIC, partition(0), MARK)
    marks.closed(TOPIC, partition(0), None)
    assert marks.of(TOPIC, 0) is None


def test_a_partition_that_was_never_opened_keeps_its_mark(marks: CleanMarks) -> None:
    marks.made(TOPIC, range(2))
    marks.closed(TOPIC, partition(0, is_open=False), None)
    assert marks.of(TOPIC, 0) == Log.fresh_mark(0)
    marks.forget(TOPIC, 1)
    assert marks.of(TOPIC, 1) is None


def test_marks_that_cannot_be_read_are_a_problem_and_none(
    marks: CleanMarks, tmp_path: Path
) -> None:
    (tmp_path / "log" / CLEAN_FILE).write_bytes(b"{")
    problems: list[Any] = []
    marks.load(problems)
    assert not marks.is_clean
    assert len(problems) == 1
    assert "every log is read instead" in problems[0].reason
