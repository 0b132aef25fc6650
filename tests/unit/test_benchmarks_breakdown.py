"""The breakdown runs from the command line to its tables, which add up; no speed is looked at."""

from pathlib import Path

import pytest

from benchmarks import breakdown
from benchmarks.breakdown import Breakdown, Piece, lowest, main, table


def test_breakdown_prints_floors_and_wholes_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breakdown, "CHUNK_RECORDS", 1_000)
    monkeypatch.setattr(breakdown, "READ_BATCHES", 1)
    main(["--size", "tiny", "--rounds", "1", "--directory", str(tmp_path)])
    printed = capsys.readouterr().out
    for label in ("with lock", "crc32c of the batch", "1,000 records of seven fields"):
        assert f"| {label} " in printed
    for whole in ("partition.append", "producer.send", "max_records=1_000))", "1_000).values"):
        assert sum(f"{whole} " in line and " 100 " in line for line in printed.splitlines()) == 1
    assert printed.count("| left: ours ") == 4
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_is_the_whole_without_the_lowest_of_its_floors() -> None:
    figures = iter([30.0, 10.0, 20.0])
    noisy = Piece("noisy", lambda: next(figures))
    steady = Piece("steady", lambda: 15.0)
    found = Breakdown("of a test", (noisy, steady), Piece("whole", lambda: 100.0))
    measured = lowest([found], 3)
    assert measured[noisy] == 10.0
    rows = [
        [cell.strip() for cell in line.split("|")] for line in table(found, measured).split("\n")
    ]
    assert [row[1:4] for row in rows[2:]] == [
        ["noisy", "10", "10"],
        ["steady", "15", "15"],
        ["all of these: the floor", "25", "25"],
        ["left: ours", "75", "75"],
        ["whole", "100", "100"],
    ]
