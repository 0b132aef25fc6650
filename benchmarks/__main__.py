"""The command: ``python -m benchmarks [--size tiny|small|full] [--only w1,w3] ...``."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.data import SIZES
from benchmarks.floors import measure_floors
from benchmarks.machine import describe
from benchmarks.peers import PEERS
from benchmarks.report import Report, as_json, as_markdown, as_text
from benchmarks.runner import run
from benchmarks.workloads import WORKLOADS


def main(arguments: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    with tempfile.TemporaryDirectory(prefix=".benchmarks-", dir=options.directory) as scratch:
        report = _measure(options, given, Path(scratch))
    print(as_text(report))
    for path, rendered in ((options.json, as_json), (options.markdown, as_markdown)):
        if path:
            path.write_text(rendered(report), encoding="utf-8")


def _measure(options: argparse.Namespace, given: list[str], directory: Path) -> Report:
    scale = SIZES[options.size]
    rounds = options.rounds or scale.rounds
    installed = [peer for peer in PEERS if peer.version() is not None]
    chosen = [work for work in WORKLOADS if work.name in options.only]
    floors = measure_floors(directory, rounds)
    outcomes = run(chosen, installed, directory, scale, rounds, _progress)
    return Report(
        command=" ".join(["python -m benchmarks", *given]),
        size=options.size,
        rounds=rounds,
        machine=describe(directory),
        peers=installed,
        absent=[peer for peer in PEERS if peer not in installed],
        floors=floors,
        outcomes=outcomes,
        not_here=[work for work in chosen if work.not_here],
    )


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="minilog beside sqlite3, lmdb and a plain file; asserts no speed.",
    )
    parser.add_argument(
        "--size", choices=SIZES, default="small", help="how many records; full is a million"
    )
    parser.add_argument("--rounds", type=_rounds, help="medians are of so many (at least 1)")
    parser.add_argument(
        "--only", type=_workload_names, default=_names(), help="w1,w3: these workloads alone"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path.cwd(),
        help="where the logs are written, on a real disk; default: here, and removed again",
    )
    parser.add_argument("--json", type=Path, help="write every round's figures to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    return parser


def _names() -> list[str]:
    return sorted({work.name for work in WORKLOADS})


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds")
    return int(text)


def _workload_names(text: str) -> list[str]:
    chosen = text.split(",")
    unknown = sorted(set(chosen) - set(_names()))
    if unknown:
        known = ", ".join(_names())
        raise argparse.ArgumentTypeError(f"no workload {', '.join(unknown)}; there are {known}")
    return chosen


if __name__ == "__main__":
    main()
