"""The benchmark of threads runs from the command line to its tables; no speed is looked at."""

import sys
import threading
from pathlib import Path

import pytest

from benchmarks import threads
from benchmarks.threads import Rates, Setting, main, run_together, settings, table


def test_threads_prints_a_row_for_each_setting_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [Setting(1, 2, 0), Setting(3, 2, 0), Setting(1, 1, 1), Setting(2, 1, 1)]
    monkeypatch.setattr(threads, "settings", lambda: few)
    monkeypatch.setitem(threads.SECONDS, "tiny", 0.01)
    main(["--size", "tiny", "--rounds", "1", "--directory", str(tmp_path)])
    table = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()[2:6]]
    assert [row[1:4] for row in rows] == [
        [str(each.threads), str(each.partitions), str(each.readers)] for each in few
    ]
    assert rows[0][-2] == "-"
    assert rows[3][-2] != "-"
    assert "| append kept " in table
    assert f"{sys.getswitchinterval() * 1e3:g} ms" in table
    assert list(tmp_path.iterdir()) == []


def test_every_number_of_threads_meets_every_number_of_partitions_and_readers() -> None:
    found = settings()
    assert len(set(found)) == len(found)
    assert {each.threads for each in found} == {1, 2, 4, 8, 16}
    assert {(each.partitions, each.readers) for each in found} == {(1, 0), (8, 0), (1, 2), (8, 2)}


def test_rate_of_many_threads_is_told_against_that_of_one() -> None:
    one, two = Setting(1, 1, 0), Setting(2, 1, 0)
    rates = {
        one: Rates([10.0, 20.0, 40.0], [1.0] * 3, [0.0] * 3),
        two: Rates([15.0, 10.0, 60.0], [0.25, 0.5, 0.75], [0.0] * 3),
    }
    last = [cell.strip() for cell in table(rates).splitlines()[-1].split("|")]
    assert last[4:7] == ["15.0 (10.0-60.0)", "1.50 (0.50-1.50)", "0.50 (0.25-0.75)"]


def test_error_of_a_thread_comes_out() -> None:
    def fail(over: threading.Event) -> int:
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        run_together([fail, lambda over: 1], 0)
