"""The benchmarks run from the command line to the table, and count right; no speed is looked at."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.__main__ import main
from benchmarks.chart import MISSING
from benchmarks.contents import WrongResult, check_contents, kept_prefix
from benchmarks.data import SIZES, SMALL, Dataset, Scale, dataset
from benchmarks.measures import write_singly
from benchmarks.peers import PEERS, Lmdb, Minilog, Peer, Plain, Sqlite
from benchmarks.report import Report, as_markdown
from benchmarks.runner import Outcome, Sample, run
from benchmarks.workloads import OPEN, RATE, WORKLOADS, Metric, Row, Target, Workload

FEW = "lmdb,plain,condition"
SINGLY = Workload(
    "w0", "of a test", write_singly, RATE, (Row("one way"),), options={"verb": "append_singly"}
)


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
    json_file = tmp_path / "figures.json"
    arguments = ["--size", "tiny", "--rounds", "1", "--peers", FEW]
    main([*arguments, "--directory", str(scratch), "--json", str(json_file)])

    table = capsys.readouterr().out
    first_cells = [line.split("|")[1].strip() for line in table.splitlines() if "|" in line]
    measured = json.loads(json_file.read_text())
    rows = {(outcome["title"], outcome["row"]): outcome for outcome in measured["outcomes"]}
    for workload in WORKLOADS:
        if workload.not_here:
            assert workload.not_here in table
            continue
        for row in workload.rows:
            # Once beside the targets, once beside the others.
            assert first_cells.count(f"{workload.name} {workload.title}: {row.label}") == 2
            measured_row = rows[workload.title, row.label]
            assert measured_row["figures"]["minilog"]["rounds"]
            assert not measured_row["failures"]
            assert (measured_row["target_met"] is None) == (row.target is None)
    assert "| hand-over by a bare Condition " in table
    assert "Against lmdb: " in table.splitlines()[-1]
    assert list(scratch.iterdir()) == []


def test_peer_that_is_not_installed_is_named_as_absent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lmdb, "version", classmethod(lambda cls: None))
    arguments = ["--size", "tiny", "--rounds", "1", "--only", "w2", "--peers", "lmdb"]
    main([*arguments, "--directory", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert ["lmdb", "absent: pip install lmdb"] in [line[1:3] for line in cells]
    assert lines[-1] == "Against lmdb: nothing to compare."


def test_unknown_workload_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "w1,w99"])
    assert "no workload w99" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["__main__", "growth", "threads", "breakdown", "cleaning"])
def test_a_directory_that_is_not_there_is_refused_before_anything_is_measured(
    module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "--directory", "missing"])
    with pytest.raises(SystemExit):
        importlib.import_module(f"benchmarks.{module}").main()
    assert "'missing' is no directory" in capsys.readouterr().err


def test_unknown_peer_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--peers", "sqlite3,nobody"])
    assert "no peer nobody; there are minilog, lmdb" in capsys.readouterr().err


def test_chart_without_matplotlib_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "is_drawable", lambda: False)
    monkeypatch.setattr(command, "_measure", lambda *_: pytest.fail("it measured"))
    with pytest.raises(SystemExit):
        main(["--chart", "never.png"])
    assert MISSING in capsys.readouterr().err


def test_chart_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: minilog[bench]")
    picture = tmp_path / "chart.png"
    arguments = ["--size", "tiny", "--rounds", "1", "--only", "w2", "--peers", "sqlite3"]
    main([*arguments, "--directory", str(tmp_path), "--chart", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")


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

    with pytest.raises(WrongResult, match="999 records instead of 1000"):
        write_singly(Forgetful, tmp_path, SIZES["tiny"], verb="append_singly")


def test_peer_whose_data_does_not_come_back_is_shown_as_such(tmp_path: Path) -> None:
    class Liar(Plain):
        name = "liar"

        def append_singly(self, data: Dataset) -> None:
            super().append_singly(Dataset(data.keys, [b"other", *data.values[1:]], data.kind))

    class Broken(Plain):
        name = "broken"

        def append_singly(self, data: Dataset) -> None:
            raise ValueError("not today")

    peers = (Minilog, Liar, Broken)
    outcomes = run([SINGLY], peers, tmp_path, SIZES["tiny"], 2, lambda line: None)
    table = as_markdown(Report("", "tiny", 2, {}, peers, (), {}, outcomes, ()))
    assert outcomes[0].samples.keys() == {"minilog"}
    assert "| WRONG |" in table
    assert "| FAILED |" in table
    assert "wrong: liar gives back another record 0 than was written" in table
    assert "failed: ValueError: not today" in table


def test_minilog_that_loses_a_record_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Minilog, "append_singly", lambda self, data: None)
    with pytest.raises(WrongResult, match="minilog gives back 0 records"):
        run([SINGLY], (Minilog,), tmp_path, SIZES["tiny"], 1, lambda line: None)


@pytest.mark.parametrize(
    ("peer", "verb"),
    [
        pytest.param(peer, verb, id=f"{peer.name} {verb}")
        for peer in PEERS
        for verb in ("append_singly", "append_batches", "append_durably")
        if peer.version() and hasattr(peer, verb)
    ],
)
def test_installed_peer_gives_back_every_record_it_was_given(
    tmp_path: Path, peer: type[Peer], verb: str
) -> None:
    data = dataset(150, SMALL)
    log = peer(tmp_path, sync="always" if verb == "append_durably" else "never")
    try:
        getattr(log, verb)([data] if verb == "append_batches" else data)
        check_contents(log, data)
    finally:
        log.close()


def test_slow_peer_gets_fewer_records() -> None:
    assert SIZES["full"].at_most(500).records == 500
    assert SIZES["full"].at_most(500).large == 50
    assert SIZES["tiny"].at_most(20_000) == SIZES["tiny"]
    assert SIZES["full"].at_most(None) is SIZES["full"]


def test_what_a_kill_left_counts_up_to_the_first_record_that_is_missing(tmp_path: Path) -> None:
    data = dataset(10, SMALL)
    log = Plain(tmp_path)
    log.append_singly(data.between(0, 4))
    log.append_singly(data.between(5, 10))
    assert kept_prefix(log, data) == 4
    log.close()


def test_best_peer_is_the_best_of_those_that_keep_data() -> None:
    samples = {
        "minilog": Sample((30.0,)),
        "sqlite3": Sample((10.0,)),
        "plain": Sample((20.0,)),
        "mockafka": Sample((99.0,)),
    }
    outcome = Outcome(SINGLY, SINGLY.rows[0], samples, None)
    assert outcome.best_peer == "plain"
    assert outcome.against_best("minilog") == 1.5
    assert outcome.against_best("lmdb") is None


def test_every_row_names_a_verb_that_minilog_has() -> None:
    verbs = {
        {**workload.options, **row.options, **row.minilog}["verb"]
        for workload in WORKLOADS
        for row in workload.rows
    }
    assert {verb for verb in verbs if not hasattr(Minilog, verb)} == set()
    assert len({peer.name for peer in PEERS}) == len(PEERS)
