"""The command line: what it prints, what it exits with, and that no typo is a traceback."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import minilog
from minilog import cli, tour

ROOT = Path(__file__).parents[2]

Feed = Callable[[bytes], None]
Output = pytest.CaptureFixture[str]


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Feed:
    """Make these bytes the standard input."""

    def set_stdin(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return set_stdin


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "log")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Programs started now can be interrupted, even where the tests themselves cannot."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def write(directory: str, values: Sequence[bytes | None], partitions: int = 1) -> None:
    with minilog.Broker(directory) as broker:
        topic = broker.create_topic("events", partitions)
        for number, value in enumerate(values):
            topic[number % partitions].append(value, timestamp=1000 * number)


def read(directory: str) -> list[minilog.Record]:
    with minilog.Broker(directory, read_only=True) as broker:
        return [record for partition in broker.topic("events") for record in partition]


def complaint(output: Output) -> str:
    """The error, which is all there is on stderr, one line."""
    captured = output.readouterr().err
    assert captured.startswith("minilog: ")
    assert captured.count("\n") == 1
    return captured


def start(*argv: str, **settings: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "minilog", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **settings,
    )


# --- append


def test_append_makes_the_topic_and_a_line_is_a_record(
    directory: str, feed: Feed, capsys: Output
) -> None:
    feed(b"one\n\nthree \xff\r\nno newline")
    assert cli.main(["append", "events", "--directory", directory]) == 0
    assert [record.value for record in read(directory)] == [
        b"one",
        b"",
        b"three \xff\r",
        b"no newline",
    ]
    assert [record.key for record in read(directory)] == [None] * 4
    assert capsys.readouterr().out == "appended 4 records to events\n"


def test_append_of_nothing_makes_an_empty_topic(directory: str, feed: Feed, capsys: Output) -> None:
    feed(b"")
    assert cli.main(["append", "events", "--directory", directory, "--partitions", "3"]) == 0
    assert capsys.readouterr().out == "appended 0 records to events\n"
    with minilog.Broker(directory, read_only=True) as broker:
        assert [each.end_offset for each in broker.topic("events")] == [0, 0, 0]


def test_append_goes_on_where_the_last_one_stopped(directory: str, feed: Feed) -> None:
    for line in (b"first\n", b"second\n"):
        feed(line)
        assert cli.main(["append", "events", "--directory", directory, "--sync", "always"]) == 0
    assert [(record.offset, record.value) for record in read(directory)] == [
        (0, b"first"),
        (1, b"second"),
    ]


@pytest.mark.parametrize(
    ("options", "line", "key"),
    [
        (["--key-field", "1"], b"  ann  bought", b"ann"),
        (["--key-field", "2"], b"ann\tbought milk", b"bought"),
        (["--key-field", "3"], b"ann bought", None),
        (["--key-field", "1"], b"", None),
        (["--key-field", "2", "--delimiter", ","], b"a,b c,d", b"b c"),
        (["--key-field", "2", "--delimiter", ","], b"a,,d", b""),
        (["--key-field", "2", "--delimiter", "\\t"], b"a b\tc d", b"c d"),
        (["--key-field", "user"], b'{"user": "\xc3\xa9va", "n": 1}', "éva".encode()),
        (["--key-field", "n"], b'{"user": "eva", "n": 1}', b"1"),
        (["--key-field", "ok"], b'{"ok": true}', b"true"),
        (["--key-field", "user"], b'{"user": null}', None),
        (["--key-field", "user"], b'{"name": "eva"}', None),
    ],
)
def test_the_key_is_the_field_that_was_asked_for(
    directory: str, feed: Feed, options: list[str], line: bytes, key: bytes | None
) -> None:
    feed(line + b"\n")
    assert cli.main(["append", "events", "--directory", directory, *options]) == 0
    assert [(record.key, record.value) for record in read(directory)] == [(key, line)]


def test_a_key_goes_to_one_partition(directory: str, feed: Feed) -> None:
    feed(b"".join(b"user%d event %d\n" % (number % 7, number) for number in range(210)))
    options = ["--directory", directory, "--partitions", "4", "--key-field", "1"]
    assert cli.main(["append", "events", *options]) == 0
    homes: dict[bytes | None, set[int]] = {}
    for record in read(directory):
        homes.setdefault(record.key, set()).add(record.partition)
    assert len(homes) == 7
    assert {len(home) for home in homes.values()} == {1}


@pytest.mark.parametrize("bad", [b"not json", b"[1, 2]", b"", b'"\xff"', b"[" * 100_000])
def test_a_line_that_is_not_a_json_object_stops_append_after_the_lines_before_it(
    directory: str, feed: Feed, capsys: Output, bad: bytes
) -> None:
    feed(b'{"id": 1}\n{"id": 2}\n' + bad + b'\n{"id": 4}\n')
    assert cli.main(["append", "events", "--directory", directory, "--key-field", "id"]) == 2
    assert "line 3 is not a JSON object" in complaint(capsys)
    assert [record.key for record in read(directory)] == [b"1", b"2"]


def test_a_line_longer_than_a_record_may_be_is_refused(
    directory: str, feed: Feed, capsys: Output
) -> None:
    with minilog.Broker(directory) as broker:
        broker.create_topic("events", max_record_bytes=1000)
    feed(b"short\n" + b"x" * 1001 + b"\nnever read\n")
    assert cli.main(["append", "events", "--directory", directory]) == 2
    assert "1001" in complaint(capsys).replace(",", "")


def test_append_with_other_partitions_than_the_topic_has_is_refused(
    directory: str, feed: Feed, capsys: Output
) -> None:
    write(directory, [b"here"], partitions=2)
    feed(b"line\n")
    assert cli.main(["append", "events", "--directory", directory, "--partitions", "3"]) == 2
    assert "with --partitions 2" in complaint(capsys)
    assert len(read(directory)) == 1


def test_append_beside_another_writer_is_one_line_naming_it(directory: str) -> None:
    with (
        minilog.Broker(directory),
        start("append", "events", "--directory", directory) as append,
    ):
        printed, complaint = append.communicate(b"line\n")
    assert (append.returncode, printed, complaint.count(b"\n")) == (2, b"", 1)
    assert complaint.startswith(b"minilog: ")
    assert b"%d" % os.getpid() in complaint


@pytest.mark.parametrize(
    "options",
    [
        ["--delimiter", ","],
        ["--key-field", "name", "--delimiter", ","],
        ["--key-field", "0"],
        ["--key-field", "1", "--delimiter", ""],
        ["--partitions", "-1"],
        ["--partitions", "0"],
        ["--partitions", "two"],
        ["--sync", "sometimes"],
    ],
)
def test_append_options_that_mean_nothing_are_refused(
    directory: str, feed: Feed, capsys: Output, options: list[str]
) -> None:
    feed(b"line\n")
    assert cli.main(["append", "events", "--directory", directory, *options]) == 2
    assert complaint(capsys)


# --- read


def test_read_prints_the_values_in_order(
    directory: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    write(directory, [b"one", None, b"", b"f\xc3\xbcr"])
    assert cli.main(["read", "events", "--directory", directory]) == 0
    assert capsysbinary.readouterr().out == b"one\n\n\nf\xc3\xbcr\n"


def test_read_as_json_loses_nothing(directory: str, capsys: Output) -> None:
    with minilog.Broker(directory) as broker:
        partition = broker.create_topic("events")[0]
        headers = [("trace", b"x"), ("trace", None), ("raw", b"\xff")]
        partition.append("für".encode(), key=b"\xfe", headers=headers, timestamp=5)
        partition.append(None, timestamp=6)
    assert cli.main(["read", "events", "--directory", directory, "--format", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    place = {"topic": "events", "partition": 0}
    assert lines == [
        {
            **place,
            "offset": 0,
            "timestamp": 5,
            "key": {"base64": "/g=="},
            "value": "für",
            "headers": [["trace", "x"], ["trace", None], ["raw", {"base64": "/w=="}]],
        },
        {**place, "offset": 1, "timestamp": 6, "key": None, "value": None, "headers": []},
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--from", "0"], "abcd"),
        (["--from", "2"], "cd"),
        (["--from", "4"], ""),
        (["--max", "2"], "ab"),
        (["--max", "0"], ""),
        (["--from", "1", "--max", "2"], "bc"),
        (["--from", "1970-01-01T00:00:02+00:00"], "cd"),
        (["--from", "1970-01-01T00:00:02"], "cd"),
        (["--from", "1970-01-01T01:00:02+01:00"], "cd"),
        (["--from", "1970-01-01T00:00:01.001Z"], "cd"),
        (["--from", "1970-01-01"], "abcd"),
        (["--from", "1950-01-01"], "abcd"),
        (["--from", "2100-01-01"], ""),
        (["--from", "1h"], ""),
        (["--from=-30m"], ""),
        (["--partition", "0", "--from", "3"], "d"),
    ],
)
def test_read_begins_and_ends_where_it_is_told(
    directory: str, capsys: Output, options: list[str], expected: str
) -> None:
    write(directory, [b"a", b"b", b"c", b"d"])
    assert cli.main(["read", "events", "--directory", directory, *options]) == 0
    assert capsys.readouterr().out.replace("\n", "") == expected


def test_read_of_one_partition_leaves_the_others(directory: str, capsys: Output) -> None:
    write(directory, [b"a", b"b", b"c", b"d"], partitions=2)
    assert cli.main(["read", "events", "--directory", directory, "--partition", "1"]) == 0
    assert capsys.readouterr().out == "b\nd\n"


def test_read_of_all_partitions_gives_each_record_once(directory: str, capsys: Output) -> None:
    write(directory, [b"%d" % number for number in range(100)], partitions=3)
    assert cli.main(["read", "events", "--directory", directory]) == 0
    printed = capsys.readouterr().out.split()
    assert sorted(printed, key=int) == [str(number) for number in range(100)]


def test_read_works_beside_a_live_writer_and_changes_nothing(
    directory: str, capsys: Output
) -> None:
    with minilog.Broker(directory) as broker:
        broker.create_topic("events")[0].append(b"live")
        assert cli.main(["read", "events", "--directory", directory]) == 0
        assert capsys.readouterr().out == "live\n"
        broker.topic("events")[0].append(b"more")
    assert [record.value for record in read(directory)] == [b"live", b"more"]


def test_read_follow_stops_at_max(directory: str, capsys: Output) -> None:
    write(directory, [b"a", b"b", b"c"])
    assert cli.main(["read", "events", "--directory", directory, "--follow", "--max", "3"]) == 0
    assert capsys.readouterr().out == "a\nb\nc\n"


# --- the typos of the first day


@pytest.mark.parametrize("offset", ["5", "999999999999999999"])
def test_an_offset_out_of_range_names_the_range(
    directory: str, capsys: Output, offset: str
) -> None:
    write(directory, [b"a", b"b", b"c", b"d"])
    assert cli.main(["read", "events", "--directory", directory, "--from", offset]) == 2
    text = complaint(capsys)
    assert offset in text.replace(",", "")
    assert "4" in text


def test_a_topic_that_is_missing_is_named(directory: str, capsys: Output) -> None:
    write(directory, [b"a"])
    assert cli.main(["read", "evnets", "--directory", directory]) == 2
    assert "evnets" in complaint(capsys)


def test_a_partition_that_is_missing_is_named(directory: str, capsys: Output) -> None:
    write(directory, [b"a"], partitions=2)
    assert cli.main(["read", "events", "--directory", directory, "--partition", "2"]) == 2
    assert "2" in complaint(capsys)


@pytest.mark.parametrize("command", [["read", "events"], ["topics"]])
def test_a_directory_that_is_missing_is_named_and_not_made(
    tmp_path: Path, capsys: Output, command: list[str]
) -> None:
    missing = tmp_path / "missing"
    assert cli.main([*command, "--directory", str(missing)]) == 2
    assert str(missing) in complaint(capsys)
    assert not missing.exists()


@pytest.mark.parametrize("command", [["read", "events"], ["topics"]])
def test_a_directory_that_is_no_log_is_left_as_it_is(
    tmp_path: Path, capsys: Output, command: list[str]
) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"no log")
    assert cli.main([*command, "--directory", str(tmp_path)]) == 2
    assert complaint(capsys)
    assert [each.name for each in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_file_in_place_of_a_directory_is_an_error(
    tmp_path: Path, feed: Feed, capsys: Output
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    feed(b"line\n")
    for command in (["append", "events"], ["read", "events"], ["topics"]):
        assert cli.main([*command, "--directory", str(path)]) == 2
        assert complaint(capsys)
    assert path.read_bytes() == b"content"


def test_a_topic_name_that_cannot_be_is_an_error(
    directory: str, feed: Feed, capsys: Output
) -> None:
    feed(b"line\n")
    assert cli.main(["append", "no/slash", "--directory", directory]) == 2
    assert "no/slash" in complaint(capsys)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["tuor"],
        ["read"],
        ["append"],
        ["verify"],
        ["read", "events", "--from", "yesterday"],
        ["read", "events", "--from", "-5"],
        ["read", "events", "--from", "99999999999d"],
        ["read", "events", "--max", "many"],
        ["read", "events", "--partition", "-1"],
        ["read", "events", "--format", "xml"],
        ["topics", "surplus"],
        ["tour", "--loud"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(capsys: Output, argv: list[str]) -> None:
    assert cli.main(argv) == 2
    assert "--help" in complaint(capsys)


# --- topics, verify, version


def test_topics_lists_every_partition_with_its_ends(directory: str, capsys: Output) -> None:
    write(directory, [b"a", b"b", b"c"], partitions=2)
    with minilog.Broker(directory) as broker:
        broker.topic("events")[0].delete_before(1)
        broker.create_topic("audit")
    assert cli.main(["topics", "--directory", directory]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["TOPIC", "PARTITION", "START", "END"],
        ["audit", "0", "0", "0"],
        ["events", "0", "1", "2"],
        ["events", "1", "0", "1"],
    ]


def test_verify_of_a_sound_log_is_exit_0(directory: str, capsys: Output) -> None:
    write(directory, [b"a", b"b", b"c"])
    assert cli.main(["verify", directory]) == 0
    assert "3" in capsys.readouterr().out


def test_verify_of_a_damaged_log_is_exit_1_and_names_the_file(
    directory: str, capsys: Output
) -> None:
    write(directory, [b"the first record", b"the second record", b"the last record"])
    (path,) = Path(directory).rglob("*.log")
    data = bytearray(path.read_bytes())
    data[data.index(b"second")] ^= 1
    path.write_bytes(data)
    assert cli.main(["verify", directory]) == 1
    assert path.name in capsys.readouterr().out
    assert path.read_bytes() == data


def test_verify_of_a_directory_that_is_missing_is_exit_2(directory: str, capsys: Output) -> None:
    assert cli.main(["verify", directory]) == 2
    assert complaint(capsys)


def test_version_is_the_package_s(capsys: Output) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"minilog {minilog.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["tour"], ["append"], ["read"], ["topics"], ["verify"]])
def test_every_help_documents_the_exit_codes(capsys: Output, argv: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([*argv, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "exit codes:" in text
    assert max(map(len, text.splitlines())) <= 100


# --- tour


def tour_of(data: bytes, tmp_path: Path) -> int:
    (tmp_path / "input").write_bytes(data)
    return cli.main(["tour", str(tmp_path / "input"), "--directory", str(tmp_path / "log")])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"one line, no end",
        b"".join(b"user%d did %d\n" % (number % 13, number) for number in range(25_000)),
        bytes(range(256)) * 300,
        b"\0" * (tour.LONGEST_LINE + 10),
        b"x" * 1000 + b" a long word\n\n   \n",
    ],
    ids=["empty", "blank", "unended", "words", "binary", "no-lines", "long-word"],
)
def test_tour_of_any_file_holds(tmp_path: Path, capsys: Output, data: bytes) -> None:
    assert tour_of(data, tmp_path) == 0
    captured = capsys.readouterr()
    assert "every check held" in captured.out
    assert "WRONG" not in captured.out
    assert captured.err == ""
    assert 10 <= len(captured.out.splitlines()) <= 25
    with minilog.Broker(tmp_path / "log", read_only=True) as broker:
        values = [record.value for each in broker.topic("tour") for record in each]
    size = sum(len(value) for value in values if value is not None)
    assert len(data) - data.count(b"\n") == size


def test_tour_of_the_repository_around_you_reads_its_history(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    repository = tmp_path / "repository"
    repository.mkdir()
    monkeypatch.chdir(repository)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, moment in (("AUTHOR", "1000000000 +0000"), ("COMMITTER", "1000000100 +0000")):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Ann")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "ann@example.org")
        monkeypatch.setenv(f"GIT_{name}_DATE", moment)
    subprocess.run(["git", "init", "-q"], check=True)
    (repository / "a file.txt").write_text("one\ntwo\n")
    subprocess.run(["git", "add", "."], check=True)
    subprocess.run(["git", "commit", "-q", "-m", "Begin"], check=True)
    assert cli.main(["tour", "--directory", str(tmp_path / "log")]) == 0
    assert "git history" in capsys.readouterr().out
    with minilog.Broker(tmp_path / "log", read_only=True) as broker:
        records = {record.key: record for each in broker.topic("tour") for record in each}
    assert set(records) == {b"Ann", b"a file.txt"}
    assert str(records[b"Ann"].value).endswith("Ann\\tBegin'")
    assert str(records[b"a file.txt"].value).endswith("2\\t0\\ta file.txt'")
    assert {record.timestamp for record in records.values()} == {1_000_000_100_000}


def test_tour_without_git_reads_python_s_own_sources(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tour, "MOST_EVENTS", 500)
    assert cli.main(["tour", "--directory", str(tmp_path / "log")]) == 0
    printed = capsys.readouterr().out
    assert "Python's own sources" in printed
    assert "500 records" in printed


def test_tour_leaves_its_log_in_a_new_directory_it_names(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = tmp_path / "input"
    path.write_bytes(b"a line\n")
    assert cli.main(["tour", str(path)]) == 0
    (made,) = tmp_path.glob("minilog-tour-*")
    assert str(made) in capsys.readouterr().out
    assert minilog.verify(made).record_count == 1


def test_tour_of_a_missing_file_makes_nothing(tmp_path: Path, capsys: Output) -> None:
    missing = str(tmp_path / "missing")
    assert cli.main(["tour", missing, "--directory", str(tmp_path / "log")]) == 2
    assert missing in complaint(capsys)
    assert list(tmp_path.iterdir()) == []


def test_tour_does_not_touch_the_tour_before_it(tmp_path: Path, capsys: Output) -> None:
    assert tour_of(b"the first\n", tmp_path) == 0
    capsys.readouterr()
    assert tour_of(b"the second\n", tmp_path) == 2
    assert "tour" in complaint(capsys)
    assert minilog.verify(tmp_path / "log").record_count == 1


def test_tour_that_reads_something_else_than_was_written_is_exit_1(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll = minilog.Consumer.poll

    def lossy(self: minilog.Consumer, *rest: float) -> minilog.Records:
        return poll(self, *rest)[1:]

    monkeypatch.setattr(minilog.Consumer, "poll", lossy)
    assert tour_of(b"one\ntwo\nthree\n", tmp_path) == 1
    printed = capsys.readouterr().out
    assert "WRONG" in printed
    assert "every check held" not in printed


# --- as a program


def test_the_import_of_minilog_does_not_bring_the_command_line() -> None:
    script = "import minilog, sys; sys.exit('minilog.cli' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0


def test_what_goes_in_by_one_pipe_comes_out_by_another(directory: str) -> None:
    data = b"".join(b"%d \xff\n" % number for number in range(10_000))
    with start("append", "events", "--directory", directory) as append:
        assert append.communicate(data) == (b"appended 10,000 records to events\n", b"")
    with start("read", "events", "--directory", directory) as reading:
        assert reading.communicate() == (data, b"")
    assert (append.returncode, reading.returncode) == (0, 0)


@pytest.mark.parametrize("follow", [[], ["--follow"]], ids=["read", "follow"])
def test_a_reader_that_leaves_early_is_no_traceback(directory: str, follow: list[str]) -> None:
    write(directory, [b"%d" % number * 1000 for number in range(1000)])
    with start("read", "events", "--directory", directory, *follow) as reading:
        assert reading.stdout is not None
        assert reading.stderr is not None
        assert reading.stdout.readline() == b"0" * 1000 + b"\n"
        reading.stdout.close()
        assert reading.stderr.read() == b""
    assert reading.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_output_is_one_line_and_exit_2(directory: str) -> None:
    write(directory, [b"a"])
    command = f"'{sys.executable}' -m minilog read events --directory '{directory}' > /dev/full"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(b"minilog: ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_a_closed_standard_stream_is_one_line_and_exit_2(tmp_path: Path, closed: str) -> None:
    command = f"'{sys.executable}' -m minilog append events {closed}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", command], env=environment, cwd=tmp_path, input=b"", stderr=subprocess.PIPE
    )
    assert done.returncode == 2
    assert done.stderr == b"minilog: standard input and output must be open\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_follow_quietly_with_exit_130(directory: str) -> None:
    with minilog.Broker(directory) as broker:
        partition = broker.create_topic("events")[0]
        partition.append(b"before")
        with start("read", "events", "--directory", directory, "--follow") as reading:
            assert reading.stdout is not None
            assert reading.stdout.readline() == b"before\n"
            partition.append(b"while it waits")
            assert reading.stdout.readline() == b"while it waits\n"
            reading.send_signal(signal.SIGINT)
            assert reading.communicate() == (b"", b"")
    assert reading.returncode == 130


@pytest.mark.usefixtures("interruptible")
def test_append_hands_on_each_line_as_it_comes(directory: str) -> None:
    write(directory, [b"first"])
    with start("append", "events", "--directory", directory) as append:
        assert append.stdin is not None
        append.stdin.write(b"typed\n")
        append.stdin.flush()
        with minilog.Broker(directory, read_only=True) as broker:
            records = broker.topic("events")[0].read(1, timeout=60)
            assert records.values[0] == b"typed"
        append.send_signal(signal.SIGINT)
        assert append.communicate() == (b"", b"")
    assert append.returncode == 130
    assert [record.value for record in read(directory)] == [b"first", b"typed"]
