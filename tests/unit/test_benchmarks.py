"""The benchmarks run from the command line to the table, and count right; no speed is looked at."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.data import SIZES, Dataset, Scale
from benchmarks.measures import WrongResult, write_singly
from benchmarks.peers import PEERS, Lmdb, Minilog, Peer, Plain, Sqlite
from benchmarks.runner import Outcome, Sample, run
from benchmarks.workloads import OPEN, RATE, WORKLOADS, Metric, Row, Target, Workload


def _figures_of_nothing(
    peer: type[Peer], directory: Path, scale: Scale, *, verb: str
) -> Mapping[str, float]:
    return {"rate": 1.0}


def _outcome(metric: Metric, mine: Sample, base: Sample, target: Target | None = None) -> Outcome:
    row = Row("one way", target)
    workload = Workload("w0", "of a test", _figures_of_nothing, metric, (row,))
    return Outcome(workload, row, {"minilog": mine, "lmdb": base}, base)


def test_tiny_run_prints_a_row_for_each_workload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    json_file, markdown_file = tmp_path / "figures.json", tmp_path / "table.md"
    arguments = ["--size", "tiny", "--rounds", "1", "--directory", str(scratch)]
    main([*arguments, "--json", str(json_file), "--markdown", str(markdown_file)])

    table = capsys.readouterr().out
    measured = json.loads(json_file.read_text())
    rows = {(outcome["title"], outcome["row"]): outcome for outcome in measured["outcomes"]}
    for workload in WORKLOADS:
        if workload.not_here:
            assert workload.not_here in table
            continue
        assert f"{workload.name} {workload.title}\n" in table
        for row in workload.rows:
            assert f"\n  {row.label}  " in table
            assert rows[workload.title, row.label]["figures"]["minilog"]["rounds"]
            assert f"{workload.name} {workload.title}: {row.label}" in markdown_file.read_text()
    assert "Against lmdb: " in table.splitlines()[-1]
    assert list(scratch.iterdir()) == []


def test_peer_that_is_not_installed_is_named_as_absent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lmdb, "version", classmethod(lambda cls: None))
    main(["--size", "tiny", "--rounds", "1", "--only", "w1", "--directory", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert ["lmdb", "absent: not installed"] in [line.split(None, 1) for line in lines]
    assert lines[-1] == "Against lmdb: nothing to compare."


def test_unknown_workload_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "w1,w99"])
    assert "no workload w99" in capsys.readouterr().err


def test_order_of_the_peers_is_rotated_each_round(tmp_path: Path) -> None:
    seen: list[str] = []

    def measure(
        peer: type[Peer], directory: Path, scale: Scale, *, verb: str
    ) -> Mapping[str, float]:
        assert list(directory.iterdir()) == []
        seen.append(peer.name)
        (directory / "left behind").touch()
        return {"rate": 1.0}

    workload = Workload(
        "w0", "of a test", measure, RATE, (Row("one way"),), options={"verb": "append_singly"}
    )
    peers = (Minilog, Sqlite, Plain)
    run([workload], peers, tmp_path, SIZES["tiny"], 3, lambda line: None)
    assert seen == [
        *("minilog", "sqlite3", "plain"),
        *("sqlite3", "plain", "minilog"),
        *("plain", "minilog", "sqlite3"),
    ]


def test_ratio_is_taken_within_each_round_before_the_median() -> None:
    # The ratio of the medians would be 20 / 20.
    outcome = _outcome(RATE, Sample((10.0, 20.0, 90.0)), Sample((5.0, 40.0, 20.0)))
    assert outcome.ratio == Sample((2.0, 0.5, 4.5))
    assert outcome.advantage == 2.0


def test_less_is_better_where_the_metric_is_a_time() -> None:
    slower = _outcome(OPEN, Sample((4.0,)), Sample((2.0,)), Target(1.5))
    assert slower.advantage == 0.5
    assert slower.is_target_met is False
    assert _outcome(OPEN, Sample((2.0,)), Sample((4.0,)), Target(1.5)).is_target_met is True


def test_target_in_absolute_terms_looks_at_the_figure_alone() -> None:
    target = Target(0.6, is_ratio=False)
    assert _outcome(OPEN, Sample((0.5,)), Sample((0.1,)), target).is_target_met is True
    assert _outcome(OPEN, Sample((0.7,)), Sample((9.0,)), target).is_target_met is False


def test_peer_that_loses_a_record_has_no_figure(tmp_path: Path) -> None:
    class Forgetful(Plain):
        def append_singly(self, data: Dataset) -> None:
            super().append_singly(data.between(0, -1))

    with pytest.raises(WrongResult, match="instead of 1000"):
        write_singly(Forgetful, tmp_path, SIZES["tiny"], verb="append_singly")


def test_every_row_names_a_verb_that_minilog_has() -> None:
    verbs = {
        {**workload.options, **row.options, **row.minilog}["verb"]
        for workload in WORKLOADS
        for row in workload.rows
    }
    assert {verb for verb in verbs if not hasattr(Minilog, verb)} == set()
    assert len({peer.name for peer in PEERS}) == len(PEERS)
