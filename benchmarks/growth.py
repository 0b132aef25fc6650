"""Whether anything grows with the log: ``python -m benchmarks.growth [--huge] [--size tiny]``.

The same work on logs of 1e5 to 1e7 records (1e8 with --huge, in bulk), on 1 to 1,000 partitions and
on thousands of segments: what a record costs, how long opening takes, and the memory, descriptors
and maps of the process that reads. Rounds interleaved, order rotated; it asserts no speed.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import describe, directory_there
from benchmarks.measures import REPOSITORY
from benchmarks.runner import Sample
from benchmarks.tables import NOTHING, cell, markdown_table, short

BATCH_RECORDS = 10_000
SEGMENTED_BYTES = 32 << 10  # thousands of segments of a million records
SEGMENTED_BATCH = 100  # so that some batches go into each
COLUMNS = (
    "append ns",
    "read ns",
    "durable us",
    "open ms",
    "random ns",
    "memory MiB",
    "writing MiB",
    "descriptors",
    "maps",
    "segments",
    "disk B",
)
RELATIVE = COLUMNS[:5]


@dataclass(frozen=True)
class Point:
    """A log of one size."""

    how: str  # it is written: bulk or singly
    records: int
    partitions: int = 1
    segment_bytes: int = 0  # 0: as it comes

    @property
    def batch(self) -> int:
        """Records appended at a time in bulk: fewer where a partition or segment takes no more."""
        fitting = SEGMENTED_BATCH if self.segment_bytes else BATCH_RECORDS
        return min(fitting, self.records // self.partitions)

    @property
    def label(self) -> str:
        segments = f", segments of {self.segment_bytes >> 10} KiB" if self.segment_bytes else ""
        how = f"by {self.batch:,}" if self.how == "bulk" else self.how
        return f"{how}, {self.records:,} records, {self.partitions:,} partitions{segments}"


@dataclass
class Growth:
    """The figures of one point, a list of them for each column."""

    point: Point
    figures: dict[str, list[float]] = field(default_factory=dict)

    def sample(self, column: str) -> Sample | None:
        figures = self.figures.get(column)
        return Sample(tuple(figures)) if figures else None


def points(size: str, *, is_huge: bool = False) -> list[Point]:
    """Sizes with one partition, then partitions and segments at the middle size."""
    sizes = {
        "tiny": (1_000, 2_000),
        "small": (10_000, 100_000),
        "full": (100_000, 1_000_000, 10_000_000),
    }[size]
    partitions = (4, 10) if size == "tiny" else (100, 1_000)
    middle = sizes[1]
    found = []
    for how in ("bulk", "singly"):
        found += [Point(how, records) for records in sizes]
        found += [Point(how, middle, partitions=count) for count in partitions]
        found += [Point(how, middle, segment_bytes=SEGMENTED_BYTES)]
    if is_huge:
        found.append(Point("bulk", 100_000_000))
    return found


def measure(point: Point, directory: Path) -> dict[str, float]:
    log = directory / "log"
    try:
        sizes = map(str, (point.records, point.partitions, point.batch, point.segment_bytes))
        figures = _part("write", log, point.how, *sizes)
        files = [path for path in log.rglob("*") if path.is_file()]
        figures["segments"] = sum(path.suffix == ".log" for path in files)
        allocated = sum(getattr(path.stat(), "st_blocks", 0) * 512 for path in files)
        figures["disk B"] = allocated / point.records
        figures |= _part("read", log)
        figures |= _part("durable", log)
    finally:
        shutil.rmtree(log, ignore_errors=True)
    return figures


def _part(part: str, log: Path, *arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.growth_parts", part, str(log.resolve())]
    child = subprocess.run(
        [*command, *arguments], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True
    )
    figures: dict[str, float] = json.loads(child.stdout)
    return figures


def tables(growths: Sequence[Growth]) -> str:
    """What everything costs; then how many times what it costs in the first log of its kind."""
    absolute = [
        [growth.point.label, *(cell(growth.sample(column)) for column in COLUMNS)]
        for growth in growths
    ]
    relative = []
    for growth in growths:
        first = next(other for other in growths if other.point.how == growth.point.how)
        relative.append(
            [growth.point.label, *(_times(growth, first, column) for column in RELATIVE)]
        )
    return "\n\n".join(
        [
            markdown_table(["log", *COLUMNS], absolute),
            "Times the first log written that way, by the medians:",
            markdown_table(["log", *RELATIVE], relative),
        ]
    )


def _times(growth: Growth, first: Growth, column: str) -> str:
    sample, base = growth.sample(column), first.sample(column)
    return short(sample.median / base.median) if sample and base and base.median else NOTHING


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    growths = [Growth(point) for point in points(options.size, is_huge=options.huge)]
    rounds = options.rounds or (1 if options.size == "tiny" else 3)
    with tempfile.TemporaryDirectory(prefix=".growth-", dir=options.directory) as scratch:
        for turn in range(rounds):
            first = turn % len(growths)
            for growth in growths[first:] + growths[:first]:
                print(f"round {turn + 1}: {growth.point.label}", file=sys.stderr, flush=True)
                for column, figure in measure(growth.point, Path(scratch)).items():
                    growth.figures.setdefault(column, []).append(figure)
        machine = describe(Path(scratch))
    print(tables(growths))
    print()
    facts = [*machine.items(), ("rounds", f"{rounds}; each figure: median (lowest-highest)")]
    print(markdown_table(["of", "this run"], facts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="full")
    parser.add_argument("--huge", action="store_true", help="1e8 records in bulk, too: 12 GB")
    parser.add_argument("--rounds", type=int, help="medians are of so many; default 3, tiny 1")
    parser.add_argument(
        "--directory", type=directory_there, default=Path.cwd(), help="on a real disk"
    )
    return parser


if __name__ == "__main__":
    main()
