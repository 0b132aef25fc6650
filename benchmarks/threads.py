"""Appends from many threads: ``python -m benchmarks.threads [--size tiny] [--rounds N]``.

From 1 to 16 threads, to one and to eight partitions, alone and beside two readers: the rate of all
together, and how fair it is. Then one thread beside another that computes without a pause: how much
of its rate an append keeps, and how much a bare loop does. Asserts no speed.
"""

import argparse
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep

from benchmarks.data import SMALL, Dataset, dataset
from benchmarks.machine import describe, directory_there
from benchmarks.runner import Sample
from benchmarks.tables import cell, markdown_table, three_digits
from minilog import Broker, Consumer, Partition, Topic

THREADS = (1, 2, 4, 8, 16)
PARTITIONS = (1, 8)
READERS = (0, 2)
SECONDS = {"tiny": 0.05, "small": 0.3, "full": 1.0}
STEP_RECORDS = 100  # between two looks at whether time is up
READ_SECONDS = 0.05  # a reader waits for more
READ_RECORDS = 1_000

Work = Callable[[threading.Event], int]  # until it is set; how much was done


@dataclass(frozen=True)
class Setting:
    threads: int
    partitions: int
    readers: int


@dataclass
class Rates:
    """Of one setting, a figure for each round."""

    appends: list[float] = field(default_factory=list)  # records/s, all threads together
    fairness: list[float] = field(default_factory=list)  # the slowest thread over the fastest
    reads: list[float] = field(default_factory=list)  # records/s, all readers together


def run_together(works: Sequence[Work], seconds: float) -> list[float]:
    """Start all at once, let them run; how much each did in a second of the time of all."""
    over = threading.Event()
    start = threading.Barrier(len(works) + 1)
    done = [0] * len(works)
    errors: list[BaseException] = []

    def body(number: int) -> None:
        try:
            start.wait()
            done[number] = works[number](over)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    start.wait()
    started = perf_counter()
    sleep(seconds)
    over.set()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    took = perf_counter() - started
    return [count / took for count in done]


def appender(partition: Partition, data: Dataset) -> Work:
    pairs = list(zip(data.keys, data.values, strict=True))

    def work(over: threading.Event) -> int:
        append = partition.append
        done = 0
        while done == 0 or not over.is_set():  # who comes late appends one step all the same
            for key, value in pairs:
                append(value, key=key)
            done += len(pairs)
        return done

    return work


def reader(broker: Broker, topic: Topic, number: int, readers: int) -> Work:
    """Waits for what comes to its share of the partitions, or to the one that all read."""
    own = list(range(len(topic)))[number::readers] or [0]

    def work(over: threading.Event) -> int:
        done = 0
        with Consumer(broker, auto_offset_reset="latest") as consumer:
            consumer.assign([(topic.name, partition) for partition in own])
            while not over.is_set():
                done += len(consumer.poll(READ_SECONDS, max_records=READ_RECORDS).values)
        return done

    return work


def computing(over: threading.Event) -> int:
    """A thread that never waits and never lets go of the interpreter by itself."""
    done = 0
    while not over.is_set():
        for number in range(1_000):
            done += number & 1
    return done


def measure(setting: Setting, directory: Path, seconds: float, rates: Rates) -> None:
    with Broker(directory, sync="never") as broker:
        topic = broker.create_topic("threads", partitions=setting.partitions)
        data = dataset(STEP_RECORDS, SMALL)
        works = [
            appender(topic[number % setting.partitions], data) for number in range(setting.threads)
        ]
        readers = [reader(broker, topic, n, setting.readers) for n in range(setting.readers)]
        found = run_together([*works, *readers], seconds)
        appended, read = found[: setting.threads], found[setting.threads :]
        whole = sum(map(len, topic))
    if whole % STEP_RECORDS or whole < setting.threads * STEP_RECORDS:
        raise RuntimeError(f"{whole} records are there after {setting}")
    rates.appends.append(sum(appended))
    rates.fairness.append(min(appended) / max(appended))
    rates.reads.append(sum(read))


def measure_beside_computing(directory: Path, seconds: float) -> dict[str, float]:
    """What an append, and a bare loop, keep of their rates beside a thread that computes."""
    with Broker(directory, sync="never") as broker:
        append = appender(broker.create_topic("alone")[0], dataset(STEP_RECORDS, SMALL))
        kept: dict[str, float] = {}
        for name, work in (("append", append), ("bare loop", computing)):
            (alone,) = run_together([work], seconds)
            beside, _ = run_together([work, computing], seconds)
            kept |= {f"{name} alone/s": alone, f"{name} beside/s": beside}
            kept[f"{name} kept"] = beside / alone
    return kept


def settings() -> list[Setting]:
    return [
        Setting(threads, partitions, readers)
        for partitions in PARTITIONS
        for readers in READERS
        for threads in THREADS
    ]


def table(rates: dict[Setting, Rates]) -> str:
    rows = []
    for setting, found in rates.items():
        alone = rates[Setting(1, setting.partitions, setting.readers)]
        appends = Sample(tuple(found.appends))
        times = appends.over(Sample(tuple(alone.appends)))
        rows.append(
            [
                str(setting.threads),
                str(setting.partitions),
                str(setting.readers),
                cell(appends),
                cell(times, three_digits),
                cell(Sample(tuple(found.fairness)), three_digits),
                cell(Sample(tuple(found.reads))) if setting.readers else "-",
            ]
        )
    header = ["threads", "partitions", "readers", "appends/s, all", "times 1 thread"]
    return markdown_table([*header, "slowest/fastest", "read/s, all"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    rounds = options.rounds or (2 if options.size == "tiny" else 5)
    seconds = SECONDS[options.size]
    rates = {setting: Rates() for setting in settings()}
    kept: list[dict[str, float]] = []
    with ExitStack() as stack:
        prefix, where = ".threads-", options.directory
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=where)))
        for turn in range(rounds):
            print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
            order = settings()
            first = turn % len(order)
            for number, setting in enumerate(order[first:] + order[:first]):
                measure(setting, scratch / f"{turn}-{number}", seconds, rates[setting])
            kept.append(measure_beside_computing(scratch / f"{turn}-computing", seconds))
        machine = describe(scratch)
    print(table(rates))
    print("\nBeside one thread that computes without a pause (half is a fair share):\n")
    rows = [[name, cell(Sample(tuple(each[name] for each in kept)))] for name in kept[0]]
    print(markdown_table(["of one thread", "figure"], rows))
    print()
    facts = [*machine.items(), ("switch interval", f"{sys.getswitchinterval() * 1e3:g} ms")]
    facts.append(("rounds", f"{rounds} of {seconds:g} s each; median (lowest-highest)"))
    print(markdown_table(["of", "this run"], facts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=__doc__)
    parser.add_argument("--size", choices=SECONDS, default="full")
    parser.add_argument("--rounds", type=int, help="medians are of so many; default 5, tiny 2")
    parser.add_argument(
        "--directory", type=directory_there, default=Path.cwd(), help="on a real disk"
    )
    return parser


if __name__ == "__main__":
    main()
