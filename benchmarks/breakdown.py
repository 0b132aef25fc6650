"""Where the nanoseconds go: ``python -m benchmarks.breakdown [--size tiny] [--rounds N]``.

For one append, one send and one read of 1,000 records: the least that the steps of each ask of
this interpreter, measured alone, beside the whole, measured through the public face. What is left
is ours: checks, look-ups, branches and calls. Each figure is the lowest of many short rounds, all
taken in turn, as noise only ever adds, in time of the processor; the collector of garbage is on.
Asserts no speed, and refuses to know minilog's inside: a floor is what the format needs, however it
is done.
"""

import argparse
import mmap
import tempfile
import threading
import time
import zlib
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from struct import Struct
from timeit import Timer
from typing import Any

from benchmarks.data import SMALL, Dataset, dataset
from benchmarks.machine import describe, directory_there, optional
from benchmarks.tables import markdown_table
from minilog import Broker, Producer, Record

TOPIC = "breakdown"
READ_RECORDS = 1_000
REPEATS = 5
READ_BATCHES = 10  # of so many records, each read once in a round
FRAME_BYTES = 152  # of a record of 100 bytes with a key of 8, padded
PAGES_BYTES = 1 << 20
CHUNK_RECORDS = 5_000  # of a round: short, but with all that is done now and then
ENABLE = "import gc; gc.enable()"  # which timeit takes off
ZEROS = bytes(256 << 10)
ROUNDS = {"tiny": 2, "small": 20, "full": 100}
crc32c = optional("crc32c").crc32c

Measure = Callable[[], float]  # nanoseconds


@dataclass(frozen=True)
class Piece:
    label: str
    measure: Measure


@dataclass(frozen=True)
class Breakdown:
    """The floors of one operation, and the operation by the public face."""

    title: str
    floors: tuple[Piece, ...]
    whole: Piece


Answer = namedtuple("Answer", "topic partition offset timestamp")


class Steps:
    """What the statements of the floors are made of; attributes, as they are in any object."""

    def __init__(self, data: Dataset, region: mmap.mmap) -> None:
        self.lock = threading.Lock()
        self.key, self.value = data.keys[1], data.values[1]
        self.prefix, self.checksum = Struct("<IiqqQI"), Struct("<I")
        self.region = region
        self.tail = (0, 0)
        self.topics = {TOPIC: (self,)}
        self.frame = self.prefix.pack(148, 8, 1, 1, 1, 1) + self.key + self.value
        batch = data.between(0, READ_RECORDS)
        self.values, self.keys = b"".join(batch.values), b"".join(batch.keys)
        self.blob = self.values + self.keys
        self.value_slices = Struct(f"<{'100s' * READ_RECORDS}").unpack_from
        self.key_slices = Struct(f"<{'8s' * READ_RECORDS}").unpack_from
        self.columns = (batch.keys, batch.values)

    def call(self, value: bytes, *, key: bytes | None = None) -> None:
        pass

    def inner(self, key: bytes, value: bytes, stamp: int) -> None:
        pass


def breakdowns(broker: Broker, scratch: Path) -> list[Breakdown]:
    count, few = CHUNK_RECORDS, READ_BATCHES
    data = dataset(count, SMALL)
    with open(scratch / "region", "w+b") as file:
        file.truncate(PAGES_BYTES)
        region = mmap.mmap(file.fileno(), PAGES_BYTES)
        region[:] = bytes(PAGES_BYTES)  # every page is there
    names = {
        "s": Steps(data, region),
        "time_ns": time.time_ns,
        "crc32": zlib.crc32,
        "crc32c": crc32c,
        "Answer": Answer,
        "Record": Record,
        "repeat": repeat,
        "make": tuple.__new__,
    }

    def piece(label: str, statement: str, times: int = count) -> Piece:
        each = max(times // REPEATS, 1)
        return Piece(label, lambda: _statement_ns(statement, names, each))

    touch = Piece(
        "zeros ahead, the first touch of a page",
        lambda: _first_touch_ns(scratch / "fresh", count),
    )
    append = (
        piece("a call with a keyword", "s.call(s.value, key=s.key)"),
        piece("is it bytes, twice", "s.value.__class__ is bytes and s.key.__class__ is bytes"),
        piece("with lock", "with s.lock: pass"),
        piece("time_ns() // 1_000_000", "time_ns() // 1_000_000"),
        piece("a call of the floor below", "s.inner(s.key, s.value, 1)"),
        piece("pack the prefix", "s.prefix.pack(148, 8, 1, 1, 1, 1)"),
        piece("prefix + key + value", "s.value + s.key + s.value"),
        piece("crc32c of 144 bytes", "crc32c(s.frame, 7)"),
        piece("pack the checksum, frame + checksum", "s.frame + s.checksum.pack(7)"),
        piece("store 144 bytes into a map", "s.region[512:656] = s.frame"),
        touch,
        piece("publish a tuple", "s.tail = (s.tail[0] + 7 & -8, s.tail[1])"),
    )
    send = (
        piece("a call with a keyword", "s.call(s.value, key=s.key)"),
        piece("the topic by its name", "s.topics[TOPIC_NAME]".replace("TOPIC_NAME", repr(TOPIC))),
        piece("crc32 of the key, modulo, a call", "s.inner(1, 1, crc32(s.key) % 8)"),
        piece("the answer, a named tuple", "make(Answer, ('t', 0, 1, 1))"),
    )
    blobs = (
        piece("crc32c of the batch", "crc32c(s.blob)", few),
        piece("copy it out of the map", "bytes(s.region[:108_000])", few),
    )
    values = piece("1,000 values", "s.value_slices(s.values)", few)
    read = (
        *blobs,
        values,
        piece("1,000 keys", "s.key_slices(s.keys)", few),
        piece(
            "1,000 records of seven fields",
            "list(map(make, repeat(Record), zip(repeat('t'), repeat(0), range(1000), repeat(1), "
            "*s.columns, repeat(()))))",
            few,
        ),
    )
    log = Log(broker, data, few)
    return [
        Breakdown(
            "one append, the key 8 bytes and the value 100",
            append,
            Piece("partition.append", lambda: _loop_ns(log.append, data)),
        ),
        Breakdown(
            "one send: the append, and",
            (*append, *send),
            Piece("producer.send", lambda: _loop_ns(log.send, data)),
        ),
        Breakdown(
            "a read of 1,000 records, for the first time",
            read,
            Piece("list(partition.read(offset, max_records=1_000))", log.read_records),
        ),
        Breakdown(
            "a read of the values of 1,000 records, for the first time",
            (*blobs, values),
            Piece("partition.read(offset, max_records=1_000).values", log.read_values),
        ),
    ]


class Log:
    """The operations as a user calls them."""

    def __init__(self, broker: Broker, data: Dataset, batches: int) -> None:
        self.broker = broker
        self.batches = batches
        self.append_one = broker.create_topic(TOPIC)[0].append
        self.send_one = Producer(broker).send
        self.batch = data.between(0, READ_RECORDS)
        self.made = 0

    def append(self, data: Dataset) -> None:
        append = self.append_one
        for key, value in zip(data.keys, data.values):
            append(value, key=key)

    def send(self, data: Dataset) -> None:
        send = self.send_one
        for key, value in zip(data.keys, data.values):
            send(TOPIC, value, key=key)

    def read_records(self) -> float:
        return self._read_ns(lambda records: list(records))

    def read_values(self) -> float:
        return self._read_ns(lambda records: records.values)

    def _read_ns(self, decode: Callable[[Any], Any]) -> float:
        """Read batches that nobody has read yet, each once."""
        self.made += 1
        partition = self.broker.create_topic(f"{TOPIC}-{self.made}")[0]
        for _ in range(self.batches):
            partition.append_many(self.batch.values, keys=self.batch.keys)
        started = time.thread_time_ns()
        for offset in range(0, self.batches * READ_RECORDS, READ_RECORDS):
            decoded = decode(partition.read(offset, max_records=READ_RECORDS))
        took = time.thread_time_ns() - started
        if len(decoded) != READ_RECORDS:
            raise RuntimeError(f"{len(decoded)} records were read")
        self.broker.delete_topic(f"{TOPIC}-{self.made}")
        return took / self.batches


def _statement_ns(statement: str, names: dict[str, Any], times: int) -> float:
    """Without the loop around it; the lowest of both, so that a pause in one is not in the rest."""
    seconds = min(
        Timer(statement, ENABLE, timer=time.thread_time, globals=names).repeat(REPEATS, times)
    )
    empty = min(Timer("pass", ENABLE, timer=time.thread_time, globals=names).repeat(REPEATS, times))
    return max(seconds - empty, 0.0) / times * 1e9


def _loop_ns(work: Callable[[Dataset], None], data: Dataset) -> float:
    """Of one record, without what the loop over them takes."""
    started = time.thread_time_ns()
    work(data)
    took = time.thread_time_ns() - started
    names = {"data": data}
    loop = "for key, value in zip(data.keys, data.values): pass"
    return (
        took / len(data)
        - min(Timer(loop, timer=time.thread_time, globals=names).repeat(REPEATS, 1))
        / len(data)
        * 1e9
    )


def _first_touch_ns(path: Path, count: int) -> float:
    """Storing into new pages, written with zeros just before (the cheapest way that is known), less
    what storing into them again takes."""
    took = [_stores_ns(path, count * FRAME_BYTES) for _ in range(REPEATS)]
    first = min(times[0] for times in took)
    again = min(times[1] for times in took)
    return max(first - again, 0) / count


def _stores_ns(path: Path, size: int) -> tuple[int, int]:
    frame = bytes(FRAME_BYTES)
    took = []
    with open(path, "w+b", buffering=0) as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size) as region:
            for is_new in (True, False):
                started = time.thread_time_ns()
                for _ in range(0, size if is_new else 0, len(ZEROS)):
                    file.write(ZEROS)
                for start in range(0, size, FRAME_BYTES):
                    region[start : start + FRAME_BYTES] = frame
                took.append(time.thread_time_ns() - started)
    path.unlink()
    return took[0], took[1]


def lowest(breakdown: Sequence[Breakdown], rounds: int) -> dict[Piece, float]:
    """Each piece once a round, and the lowest of the rounds."""
    pieces = {piece: float("inf") for each in breakdown for piece in (*each.floors, each.whole)}
    for _ in range(rounds):
        for piece in pieces:
            pieces[piece] = min(pieces[piece], piece.measure())
    return pieces


def table(breakdown: Breakdown, measured: dict[Piece, float]) -> str:
    whole = breakdown.whole
    total = measured[whole]
    floor = sum(measured[piece] for piece in breakdown.floors)
    rows = [(piece.label, measured[piece]) for piece in breakdown.floors]
    rows += [("all of these: the floor", floor), ("left: ours", total - floor)]
    rows += [(whole.label, total)]
    return markdown_table(
        [breakdown.title, "ns", "%"],
        [[label, f"{figure:,.0f}", f"{figure / total * 100:.0f}"] for label, figure in rows],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    rounds = options.rounds or ROUNDS[options.size]
    with tempfile.TemporaryDirectory(prefix=".breakdown-", dir=options.directory) as scratch:
        path = Path(scratch)
        with Broker(path / "log", sync="never", maintenance_interval_ms=0) as broker:
            found = breakdowns(broker, path)
            measured = lowest(found, rounds)
        machine = describe(path)
    for breakdown in found:
        print(table(breakdown, measured))
        print()
    print(markdown_table(["of", "this run"], [*machine.items(), ("lowest of rounds", str(rounds))]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.breakdown", description=__doc__)
    parser.add_argument("--size", choices=ROUNDS, default="full")
    parser.add_argument(
        "--rounds", type=int, help="each the lowest of so many: 100, small 20, tiny 2"
    )
    parser.add_argument(
        "--directory", type=directory_there, default=Path.cwd(), help="on a real disk"
    )
    return parser


if __name__ == "__main__":
    main()
