"""The command line: pipes in, pipes out, and a tour.

It stands outside the library: it uses the public names of `minilog` alone, refuses to know any
file of a log, and turns every error a user can meet into one line on stderr and an exit code.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any, BinaryIO, NoReturn

import minilog
from minilog.cli_arguments import (
    WHOLE_NUMBER,
    UsageError,
    add_directory,
    offset_or_time,
    whole_number,
)
from minilog.cli_groups import add_groups, run_groups

EXIT_OK, EXIT_FAILED, EXIT_ERROR, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 0, 1, 2, 130, 141
EXIT_CODES = """\
exit codes:
  0    all went well
  1    a check of the tour failed, or verify found damage
  2    wrong usage, or an error that one line on stderr explains
  130  interrupted (Ctrl-C)
  141  whoever read the output left early, as `head` does
"""
READ_BYTES = 1 << 20


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line, as every other error is here."""

    def __init__(self, **settings: Any) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(epilog=EXIT_CODES, formatter_class=layout, **settings)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (try: {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    if sys.stdin is None or sys.stdout is None:  # closed by the shell: <&- or >&-
        print("minilog: standard input and output must be open", file=sys.stderr)
        return EXIT_ERROR
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path need not be text
    try:
        arguments = _parser().parse_args(argv)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        code = EXIT_BROKEN_PIPE
    except (UsageError, minilog.MinilogError, OSError) as error:
        _progress()
        print(f"minilog: {_in_one_line(error)}", file=sys.stderr)
        code = EXIT_ERROR
    _release_stdout()
    return code


def _parser() -> Parser:
    text = "An append-only log in a directory: topics of partitions of records."
    parser = Parser(prog="python -m minilog", description=text)
    parser.add_argument("--version", action="version", version=f"minilog {minilog.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for run, add_arguments, text in (
        (_tour, _add_tour, "write, read, replay, reopen and check real lines, and tell how fast"),
        (_append, _add_append, "append standard input to a topic, a line a record"),
        (_read, _add_read, "print a topic's records, beside a live writer too"),
        (_topics, add_directory, "list the topics, a line a partition"),
        (_groups, add_groups, "list consumer groups and how far behind they are, or change them"),
        (_verify, _add_place, "read every byte of a log, change none, and report damage"),
    ):
        name = run.__name__.removeprefix("_")
        command: Parser = commands.add_parser(name, help=text, description=text)
        add_arguments(command)
        command.set_defaults(run=run)
    return parser


def _add_place(parser: Parser) -> None:
    parser.add_argument("directory", metavar="DIR", help="the directory of the log")


def _add_tour(parser: Parser) -> None:
    text = """append its lines, any bytes, keyed by their first word (default: the history of the
        git repository around you, else the sources of Python's standard library)"""
    parser.add_argument("file", metavar="FILE", nargs="?", help=text)
    text = "where the log is made, and left (default: a new temporary directory)"
    parser.add_argument("--directory", metavar="DIR", help=text)


def _add_append(parser: Parser) -> None:
    parser.add_argument("topic", metavar="TOPIC", help="made if it is missing")
    add_directory(parser)
    text = """the key of a line: its N-th field, counted from 1, or, of lines that are JSON
        objects, the member NAME, as text (a line without it gets no key)"""
    parser.add_argument("--key-field", metavar="N|NAME", help=text)
    text = r"what separates the fields; \t is a tab (default: white space)"
    parser.add_argument("--delimiter", metavar="TEXT", help=text)
    text = "of a topic made now (default: 1)"
    parser.add_argument("--partitions", metavar="N", type=whole_number, help=text)
    text = """when a record is on the disk: never (when the system likes), interval (a second
        later at most; the default), always (before the next line is read)"""
    levels = ("never", "interval", "always")
    parser.add_argument("--sync", metavar="LEVEL", choices=levels, default="interval", help=text)


def _add_read(parser: Parser) -> None:
    parser.add_argument("topic", metavar="TOPIC")
    add_directory(parser)
    text = """begin at this offset of each partition, or at this time: ISO 8601 such as
        2026-11-22T12:00:00+00:00 (UTC when it names no zone), or an age such as 90s, 30m, 1h
        or 2d (default: the beginning)"""
    parser.add_argument(
        "--from", dest="start", metavar="OFFSET|TIME", type=offset_or_time, help=text
    )
    text = "this one alone (default: all)"
    parser.add_argument("--partition", metavar="N", type=whole_number, help=text)
    text = "stop after N records (default: at the end)"
    parser.add_argument("--max", metavar="N", type=whole_number, help=text)
    parser.add_argument("--follow", action="store_true", help="at the end, wait for more")
    text = """value: its bytes and a newline (the default); json: a line with every field, bytes
        that are not UTF-8 as {"base64": "..."}"""
    formats = ("value", "json")
    parser.add_argument("--format", choices=formats, default="value", help=text)


def _tour(arguments: argparse.Namespace) -> int:
    from minilog.tour import tour  # what it needs, no pipe waits for

    return EXIT_OK if tour(arguments.file, arguments.directory, _progress) else EXIT_FAILED


def _append(arguments: argparse.Namespace) -> int:
    key_of = _key_of(arguments.key_field, arguments.delimiter)
    count = 0
    with (
        minilog.Broker(arguments.directory, sync=arguments.sync) as broker,
        minilog.Producer(broker) as producer,
    ):
        topic = _open_topic(broker, arguments.topic, arguments.partitions)
        for lines in _line_blocks(sys.stdin.buffer, topic.config.max_record_bytes):
            keys: list[bytes | None] = []
            try:
                for line in lines:
                    keys.append(key_of(line))
            except (ValueError, RecursionError) as error:
                number = count + len(keys) + 1
                raise UsageError(f"line {number} is not a JSON object: {error}") from error
            finally:  # the lines before a bad one are good
                producer.send_many(topic.name, lines[: len(keys)], keys=keys)
            count += len(lines)
            if not sys.stdin.isatty():
                _progress(f"{count:,} records")
    _progress()
    print(f"appended {count:,} record{'s' * (count != 1)} to {topic.name}")
    return EXIT_OK


def _key_of(field: str | None, delimiter: str | None) -> Callable[[bytes], bytes | None]:
    """What finds the key of a line."""
    number = int(field) if field and re.fullmatch(WHOLE_NUMBER, field) else None
    if delimiter is not None and number is None:
        raise UsageError("--delimiter goes with --key-field N")
    if number == 0 or delimiter == "":
        raise UsageError("--key-field counts from 1, and --delimiter is not empty")
    if field is None:
        return lambda line: None
    if number is not None:
        place = slice(number - 1, number)
        separator = None
        if delimiter is not None:
            separator = delimiter.replace("\\t", "\t").encode(errors="surrogateescape")
        return lambda line: next(iter(line.split(separator)[place]), None)

    def member(line: bytes) -> bytes | None:
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError("it is JSON of another kind")
        key = found.get(field)
        text = key if isinstance(key, str) else json.dumps(key)
        return None if key is None else text.encode("utf-8", "surrogatepass")

    return member


def _line_blocks(stream: BinaryIO, longest: int) -> Iterator[list[bytes]]:
    """The lines of a stream, without their ends, as many at a time as have come in.

    A line that grows beyond `longest` bytes is given as far as it got: no topic takes it.
    """
    rest = b""
    while block := stream.read1(READ_BYTES):  # type: ignore[attr-defined]
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > longest:
            lines.append(rest)
        if lines:
            yield lines
    if rest:
        yield [rest]


def _open_topic(broker: minilog.Broker, name: str, partitions: int | None) -> minilog.Topic:
    if name not in broker.topics:
        return broker.create_topic(name, 1 if partitions is None else partitions)
    topic = broker.topic(name)
    if partitions is not None and partitions != len(topic):
        raise UsageError(
            f"{name} is there already, with --partitions {len(topic)}; give that, or leave it out"
        )
    return topic


def _read(arguments: argparse.Namespace) -> int:
    write, format_record = sys.stdout.buffer.write, _FORMATS[arguments.format]
    with (
        minilog.Broker(arguments.directory, read_only=True) as broker,
        minilog.Consumer(broker, max_poll_records=5000) as consumer,
    ):
        topic = broker.topic(arguments.topic)
        partitions = list(topic) if arguments.partition is None else [topic[arguments.partition]]
        chosen = [minilog.TopicPartition(topic.name, each.index) for each in partitions]
        consumer.assign(chosen)
        if isinstance(arguments.start, datetime):
            consumer.seek_to_time(arguments.start, *chosen)
        elif arguments.start is not None:
            for partition, each in zip(partitions, chosen, strict=True):
                partition.read(arguments.start, max_records=1)  # out of range: say so at once
                consumer.seek(each, arguments.start)
        records = consumer if arguments.follow else consumer.drain()
        for record in islice(records, arguments.max):
            write(format_record(record))
            if arguments.follow:
                sys.stdout.buffer.flush()
    return EXIT_OK


def _value_line(record: minilog.Record) -> bytes:
    return (record.value or b"") + b"\n"


def _json_line(record: minilog.Record) -> bytes:
    fields = record._asdict()
    fields["key"], fields["value"] = _json_text(record.key), _json_text(record.value)
    fields["headers"] = [(name, _json_text(value)) for name, value in record.headers]
    return _encode_json(fields).encode() + b"\n"


def _json_text(data: bytes | None) -> str | dict[str, str] | None:
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(data or b"").decode()}


_encode_json = json.JSONEncoder(ensure_ascii=False).encode  # made once: json.dumps makes it anew
_FORMATS = {"value": _value_line, "json": _json_line}


def _topics(arguments: argparse.Namespace) -> int:
    with minilog.Broker(arguments.directory, read_only=True) as broker:
        print(f"{'TOPIC':<24} {'PARTITION':>9} {'START':>12} {'END':>12}")
        for name, topic in broker.topics.items():
            for each in topic:
                numbers = f"{each.index:>9} {each.start_offset:>12} {each.end_offset:>12}"
                print(f"{name:<24} {numbers}")
    return EXIT_OK


def _groups(arguments: argparse.Namespace) -> int:
    run_groups(arguments)
    return EXIT_OK


def _verify(arguments: argparse.Namespace) -> int:
    report = minilog.verify(arguments.directory)
    print(report)
    return EXIT_OK if report.ok else EXIT_FAILED


def _in_one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _progress(text: str = "") -> None:
    """Rewrite a line of stderr, on a terminal only; without text it goes away."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _release_stdout() -> None:
    """Let go of what cannot be written, or the interpreter complains of it as it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            sys.stdout.close()
