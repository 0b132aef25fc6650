"""The benchmark of growth runs from the command line to its tables; no speed is looked at."""

from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.growth import COLUMNS, Growth, Point, main, points, tables


def test_growth_prints_a_row_for_each_log_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = [Point("bulk", 300, partitions=3), Point("singly", 300, segment_bytes=4 << 10)]
    monkeypatch.setattr(growth, "points", lambda size, is_huge: logs)
    main(["--size", "tiny", "--directory", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    rows = {cells[1].strip(): cells for line in lines[:4] if len(cells := line.split("|")) > 2}
    assert list(rows)[2:] == [point.label for point in logs]
    bulk, singly = (
        dict(zip(COLUMNS, (cell.strip() for cell in rows[point.label][2:-1]), strict=True))
        for point in logs
    )
    assert "-" not in bulk.values()
    assert bulk["segments"] == "3.00"
    assert float(singly["segments"]) > 5
    assert list(tmp_path.iterdir()) == []


def test_growth_looks_at_the_sizes_partitions_and_segments_it_promises() -> None:
    bulk = [point for point in points("full", is_huge=True) if point.how == "bulk"]
    assert {point.records for point in bulk} == {10**5, 10**6, 10**7, 10**8}
    assert {point.partitions for point in bulk} == {1, 100, 1_000}
    assert any(point.segment_bytes for point in bulk)
    assert max(point.records for point in points("full") if point.how == "singly") == 10**7


def test_growth_is_told_against_the_first_log_written_that_way() -> None:
    first, second = Growth(Point("bulk", 100)), Growth(Point("bulk", 200))
    other = Growth(Point("singly", 100))
    first.figures["append ns"] = [90.0, 100.0, 900.0]
    second.figures["append ns"] = [150.0]
    other.figures["append ns"] = [7.0]
    last_table = tables([first, second, other]).split("\n\n")[-1].splitlines()
    assert [row.split("|")[2].strip() for row in last_table[2:]] == ["1.00", "1.50", "1.00"]
