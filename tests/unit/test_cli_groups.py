"""The command line's `groups`: what it prints, what it changes, and what it leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from members import filled

import minilog
from minilog import cli

ROOT = Path(__file__).parents[2]
Output = pytest.CaptureFixture[str]


@pytest.fixture
def directory(tmp_path: Path) -> str:
    """A log with two groups: of `audit` all is behind it, `billing` has some left."""
    path = str(tmp_path / "log")
    with minilog.Broker(path) as broker:
        topic = broker.create_topic("orders", partitions=2)
        for number in range(10):
            topic[0].append(b"v", timestamp=1000 * number)
        topic[1].append_many([b"v"] * 3, timestamps=[0, 1000, 2000])
        filled(broker, "invoices", 2)
        commit(broker, "audit", {("orders", 0): 10, ("orders", 1): 3})
        commit(broker, "billing", {("orders", 0): 4, ("orders", 1): 3, ("invoices", 0): 1})
    return path


def commit(broker: minilog.Broker, group: str, offsets: dict[tuple[str, int], int]) -> None:
    topics = {topic for topic, _ in offsets}
    with minilog.Consumer(broker, *topics, group=group, auto_commit=False) as consumer:
        consumer.poll()
        consumer.commit(offsets)


def committed(directory: str, group: str = "billing") -> dict[Any, int]:
    with minilog.Broker(directory, read_only=True) as broker:
        return dict(broker.groups[group].committed())


BEFORE = {("invoices", 0): 1, ("orders", 0): 4, ("orders", 1): 3}


def groups(directory: str, *argv: str) -> int:
    return cli.main(["groups", *argv, "--directory", directory])


def table(output: Output) -> list[list[str]]:
    return [line.split() for line in output.readouterr().out.splitlines()]


def objects(output: Output) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.readouterr().out.splitlines()]


def complaint(output: Output) -> str:
    """The error, which is all there is, one line."""
    captured = output.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("minilog: ")
    assert captured.err.count("\n") == 1
    return captured.err


# --- list and describe


@pytest.mark.parametrize("action", [[], ["list"]])
def test_groups_are_listed_with_how_far_behind_they_are(
    directory: str, capsys: Output, action: list[str]
) -> None:
    assert groups(directory, *action) == 0
    assert table(capsys) == [
        ["GROUP", "PARTITIONS", "LAG"],
        ["audit", "2", "0"],
        ["billing", "3", "7"],
    ]
    assert groups(directory, *action, "--json") == 0
    assert objects(capsys) == [
        {"group": "audit", "partitions": 2, "lag": 0},
        {"group": "billing", "partitions": 3, "lag": 7},
    ]


@pytest.mark.parametrize("action", [[], ["describe"]])
def test_a_group_is_described_by_partition(
    directory: str, capsys: Output, action: list[str]
) -> None:
    with minilog.Broker(directory) as broker:
        broker.topic("orders")[0].delete_before(2)
    assert groups(directory, *action, "--group", "billing") == 0
    assert table(capsys) == [
        ["TOPIC", "PARTITION", "COMMITTED", "START", "END", "LAG"],
        ["invoices", "0", "1", "0", "2", "1"],
        ["orders", "0", "4", "2", "10", "6"],
        ["orders", "1", "3", "0", "3", "0"],
    ]
    assert groups(directory, *action, "--group", "billing", "--json") == 0
    first, *_ = objects(capsys)
    assert first == {
        "group": "billing",
        "topic": "invoices",
        "partition": 0,
        "committed": 1,
        "start": 0,
        "end": 2,
        "lag": 1,
    }


def test_a_log_without_groups_has_none_to_list(tmp_path: Path, capsys: Output) -> None:
    with minilog.Broker(tmp_path / "log") as broker:
        broker.create_topic("a")
    assert groups(str(tmp_path / "log")) == 0
    assert table(capsys) == [["GROUP", "PARTITIONS", "LAG"]]
    assert groups(str(tmp_path / "log"), "--json") == 0
    assert objects(capsys) == []


def test_looking_works_beside_a_live_writer_and_changes_nothing(
    directory: str, capsys: Output
) -> None:
    with minilog.Broker(directory) as broker:
        with minilog.Consumer(broker, "orders", group="billing") as consumer:
            consumer.poll()
            for argv in ([], ["--group", "billing"], ["describe", "--group", "audit"]):
                assert groups(directory, *argv) == 0
            for argv in (["reset", "--to", "earliest"], ["delete"]):
                assert groups(directory, *argv, "--group", "audit", "--dry-run") == 0
            assert groups(directory, "--group", "billing", "--json") == 0
        capsys.readouterr()
        assert groups(directory, "--json") == 0
        assert objects(capsys)[1] == {"group": "billing", "partitions": 3, "lag": 1}
    assert committed(directory) == {**BEFORE, ("orders", 0): 10}


# --- reset


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("earliest", (0, 0, 0)),
        ("latest", (2, 10, 3)),
        ("1", (1, 1, 1)),
        ("shift:-1", (0, 3, 2)),
        ("shift:+1", (2, 5, 3)),
        ("shift:2", (2, 6, 3)),
        ("1970-01-01T00:00:02", (0, 2, 2)),
        ("1970-01-01T00:00:02+00:00", (0, 2, 2)),
        ("1h", (0, 10, 3)),
    ],
)
@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_a_reset_goes_where_it_is_told_and_says_what_it_changed(
    directory: str, capsys: Output, to: str, expected: tuple[int, ...], json_option: list[str]
) -> None:
    after = dict(zip(BEFORE, expected, strict=True))
    for is_dry in (True, False):
        options = ["--dry-run"] if is_dry else []
        argv = ["reset", "--group", "billing", "--to", to, *options, *json_option]
        assert groups(directory, *argv) == 0
        rows = [[topic, partition, BEFORE[topic, partition]] for topic, partition in BEFORE]
        if json_option:
            names = ("group", "topic", "partition", "before", "after")
            assert objects(capsys) == [
                dict(zip(names, ["billing", *row, target], strict=True))
                for row, target in zip(rows, expected, strict=True)
            ]
        else:
            header, *printed = table(capsys)
            assert header == ["TOPIC", "PARTITION", "BEFORE", "AFTER"]
            assert printed[:3] == [
                [str(cell) for cell in [*row, target]]
                for row, target in zip(rows, expected, strict=True)
            ]
            assert (printed[3:] != []) == is_dry
        assert committed(directory) == (BEFORE if is_dry else after)


def test_a_reset_of_a_topic_leaves_the_others(directory: str, capsys: Output) -> None:
    options = ["--group", "billing", "--to", "earliest", "--topic"]
    assert groups(directory, "reset", *options, "invoices") == 0
    assert committed(directory) == {**BEFORE, ("invoices", 0): 0}
    assert groups(directory, "reset", *options, "orders", "--topic", "invoices") == 0
    assert committed(directory) == dict.fromkeys(BEFORE, 0)
    assert committed(directory, "audit") == {("orders", 0): 10, ("orders", 1): 3}


def test_a_reset_of_a_topic_the_group_never_read_begins_it(directory: str, capsys: Output) -> None:
    options = ["--group", "audit", "--to", "latest", "--topic", "invoices"]
    assert groups(directory, "reset", *options) == 0
    assert table(capsys)[1] == ["invoices", "0", "-", "2"]
    assert committed(directory, "audit")[("invoices", 0)] == 2


# --- delete


def test_a_deleted_group_is_gone_and_was_told(directory: str, capsys: Output) -> None:
    assert groups(directory, "delete", "--group", "billing", "--dry-run") == 0
    assert committed(directory) == BEFORE
    capsys.readouterr()
    assert groups(directory, "delete", "--group", "billing") == 0
    assert table(capsys) == [
        ["TOPIC", "PARTITION", "COMMITTED"],
        *[[topic, str(number), str(offset)] for (topic, number), offset in BEFORE.items()],
    ]
    assert groups(directory, "--json") == 0
    assert [row["group"] for row in objects(capsys)] == ["audit"]


# --- what goes wrong


@pytest.mark.parametrize("action", [["reset", "--to", "earliest"], ["delete"]])
def test_a_live_writer_is_named_to_who_would_change_its_groups(
    directory: str, capsys: Output, action: list[str]
) -> None:
    holder = "import sys, minilog\nwith minilog.Broker(sys.argv[1]):\n  print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert groups(directory, *action, "--group", "billing") == 2
        assert str(other.pid) in complaint(capsys)
        other.communicate(b"\n")
    assert committed(directory) == BEFORE


@pytest.mark.parametrize(
    "argv",
    [
        ["describe"],
        ["reset", "--to", "earliest"],
        ["delete"],
        ["reset", "--group", "billing"],
        ["list", "--group", "billing"],
        ["--to", "earliest"],
        ["--group", "billing", "--to", "earliest"],
        ["--group", "billing", "--topic", "orders"],
        ["--group", "billing", "--dry-run"],
        ["delete", "--group", "billing", "--to", "earliest"],
        ["delete", "--group", "billing", "--topic", "orders"],
        ["remove", "--group", "billing"],
        ["reset", "--group", "billing", "--to", "middle"],
        ["reset", "--group", "billing", "--to", "-1"],
        ["reset", "--group", "billing", "--to", "shift:"],
        ["reset", "--group", "billing", "--to", "shift:x"],
        ["reset", "--group", "nope", "--to", "earliest"],
        ["reset", "--group", "billing", "--to", "earliest", "--topic", "nope"],
        ["describe", "--group", "nope"],
        ["delete", "--group", "nope"],
        ["delete", "--group", ""],
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_one_line_and_exit_2_and_changes_nothing(
    directory: str, capsys: Output, argv: list[str]
) -> None:
    assert groups(directory, *argv) == 2
    assert complaint(capsys)
    assert committed(directory) == BEFORE


@pytest.mark.parametrize(
    "argv",
    [[], ["--group", "g"], ["reset", "--group", "g", "--to", "0"], ["delete", "--group", "g"]],
)
def test_a_directory_that_is_missing_is_named_and_not_made(
    tmp_path: Path, capsys: Output, argv: list[str]
) -> None:
    missing = tmp_path / "missing"
    assert groups(str(missing), *argv) == 2
    assert str(missing) in complaint(capsys)
    assert not missing.exists()


def test_the_help_says_what_can_be_asked(capsys: Output) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["groups", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("exit codes:", "--dry-run", "shift:N", "describe"))
    assert max(map(len, text.splitlines())) <= 100
