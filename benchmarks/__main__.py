"""The command: ``python -m benchmarks [--size tiny|small|full] [--only w1,w3] ...``."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.chart import MISSING, draw, is_drawable
from benchmarks.data import SIZES
from benchmarks.floors import measure_floors
from benchmarks.machine import describe, directory_there
from benchmarks.peers import PEERS, Minilog
from benchmarks.report import Report, as_json, as_markdown
from benchmarks.runner import run
from benchmarks.workloads import WORKLOADS


def main(arguments: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    with tempfile.TemporaryDirectory(prefix=".benchmarks-", dir=options.directory) as scratch:
        report = _measure(options, given, Path(scratch))
    print(as_markdown(report), end="")
    if options.json:
        options.json.write_text(as_json(report), encoding="utf-8")
    if options.chart:
        draw(report, options.chart)


def _measure(options: argparse.Namespace, given: list[str], directory: Path) -> Report:
    scale = SIZES[options.size]
    rounds = options.rounds or scale.rounds
    wanted = [peer for peer in PEERS if peer is Minilog or peer.name in options.peers]
    installed = [peer for peer in wanted if peer.version() is not None]
    chosen = [work for work in WORKLOADS if work.name in options.only]
    floors = measure_floors(directory, scale, rounds)
    outcomes = run(chosen, installed, directory, scale, rounds, _progress)
    return Report(
        command=" ".join(["python -m benchmarks", *given]),
        size=options.size,
        rounds=rounds,
        machine=describe(directory),
        peers=installed,
        absent=[peer for peer in wanted if peer not in installed],
        floors=floors,
        outcomes=outcomes,
        not_here=[work for work in chosen if work.not_here],
    )


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="minilog beside what one would use instead, as Markdown; asserts no speed.",
    )
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="full",
        help="how many records: tiny takes seconds, small minutes, full is a million (default)",
    )
    parser.add_argument("--rounds", type=_rounds, help="medians are of so many (at least 1)")
    works = sorted({work.name for work in WORKLOADS}, key=lambda name: int(name[1:]))
    parser.add_argument(
        "--only",
        type=_names("workload", works),
        default=works,
        help="w1,w3: these workloads alone",
    )
    peers = [peer.name for peer in PEERS]
    parser.add_argument(
        "--peers",
        type=_names("peer", peers),
        default=peers,
        help=f"minilog and these alone, of {', '.join(peers[1:])}",
    )
    parser.add_argument(
        "--directory",
        type=directory_there,
        default=Path.cwd(),
        help="where the logs are written, on a real disk; default: here, and removed again",
    )
    parser.add_argument("--json", type=Path, help="write every round's figures to this file")
    parser.add_argument(
        "--chart", type=_drawable, help="draw ratios to the best peer into this .png (matplotlib)"
    )
    return parser


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds")
    return int(text)


def _names(kind: str, known: Sequence[str]) -> Callable[[str], list[str]]:
    def chosen(text: str) -> list[str]:
        names = text.split(",")
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(
                f"no {kind} {', '.join(unknown)}; there are {', '.join(known)}"
            )
        return names

    return chosen


def _drawable(text: str) -> Path:
    """Said before hours of measuring, not after."""
    if not is_drawable():
        raise argparse.ArgumentTypeError(MISSING)
    return Path(text)


if __name__ == "__main__":
    main()
