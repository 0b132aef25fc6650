"""The tour: the main job in one command, on real lines, with every claim checked.

It writes a log, reads it twice, replays it, closes, reopens and verifies it, and prints what it
did and how fast. It uses the public names of `minilog` alone, refuses to know how they do it, and
is no benchmark: one run, on a machine that does other things.
"""

from __future__ import annotations

import shlex
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zlib import crc32

import minilog

TOPIC = "tour"
PARTITIONS = 4
MOST_EVENTS = 200_000  # of the sources nobody asked for by name; a FILE is read to its end
LONGEST_LINE = 1 << 20  # a longer one, as binary files have, becomes several records
LONGEST_KEY = 128
BLOCK_EVENTS, BLOCK_BYTES = 10_000, 4 << 20


class Event(NamedTuple):
    key: bytes | None
    value: bytes
    timestamp: int


class Tally:
    """Count, bytes and checksum of records, whatever their order and partition."""

    def __init__(self) -> None:
        self.count = self.size = self.checksum = 0

    def add(self, keys: Iterable[bytes | None], values: Iterable[bytes | None]) -> None:
        for column in (keys, values):
            data = [each or b"" for each in column]
            self.size += sum(map(len, data))
            self.checksum += sum(map(crc32, data))
        self.count += len(data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and vars(self) == vars(other)

    def __str__(self) -> str:
        return f"{self.count:,} records, {_bytes(self.size)}"


class Stopwatch:
    """Seconds spent inside its `with` blocks, all together."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started

    def rates(self, tally: Tally) -> str:
        seconds = max(self.seconds, 1e-9)
        return f"{tally.count / seconds:,.0f} records/s, {_bytes(tally.size / seconds)}/s"

    def __str__(self) -> str:
        return f"{self.seconds * 1000:,.1f} ms"


class Story:
    """What is printed, and whether every check in it held."""

    def __init__(self) -> None:
        self.failures = 0

    def tell(self, step: str, text: str) -> None:
        print(f"{step:<8}{text}")

    def check(self, step: str, text: str, held: bool) -> None:
        self.failures += not held
        self.tell(step, f"{text}: {'ok' if held else 'WRONG'}")


def tour(file: str | None, directory: str | None, progress: Callable[[str], None]) -> bool:
    """Do and print it all; True when every check held. The log stays where it is."""
    if file is None:
        return _tour(*_choose_events(), directory, progress)
    with Path(file).open("rb") as stream:  # a missing file is an error before anything is made
        title = f"the lines of {file}, by their first word"
        return _tour(title, _line_events(stream), directory, progress)


def _tour(
    title: str, events: Iterator[Event], directory: str | None, progress: Callable[[str], None]
) -> bool:
    path = directory or tempfile.mkdtemp(prefix="minilog-tour-")
    story = Story()
    story.tell("minilog", f"{minilog.__version__}: a tour in {path}")
    with minilog.Broker(path) as broker:
        broker.create_topic(TOPIC, PARTITIONS)
        story.tell("write", title)
        written = _write(story, broker, events, progress)
        _read_twice(story, broker, written)
        _replay(story, broker)
        closing = Stopwatch()
        with closing:
            broker.close()
    files = [each for each in Path(path).rglob("*") if each.is_file()]
    on_disk = _bytes(sum(each.stat().st_size for each in files))
    story.tell("close", f"in {closing}, all of it on the disk: {on_disk} in {len(files)} files")
    _reopen(story, path, written)
    report = minilog.verify(path)
    is_whole = report.ok and report.record_count == written.count
    story.check("verify", f"every byte read: {report.record_count:,} records", is_whole)
    place = shlex.quote(str(path))
    story.tell("look", f"python -m minilog topics --directory {place}")
    story.tell("", f"python -m minilog read {TOPIC} --directory {place} --format json | head -3")
    verdict = f"{story.failures} checks FAILED" if story.failures else "every check held"
    story.tell("result", verdict)
    return not story.failures


def _write(
    story: Story,
    broker: minilog.Broker,
    events: Iterator[Event],
    progress: Callable[[str], None],
) -> Tally:
    written, watch = Tally(), Stopwatch()
    with minilog.Producer(broker) as producer:
        for block in _blocks(events):
            keys, values, timestamps = zip(*block, strict=True)
            with watch:
                producer.send_many(TOPIC, values, keys=keys, timestamps=timestamps)
            written.add(keys, values)
            progress(f"{written} written")
    progress("")
    story.tell("", f"{written}, in {watch}: {watch.rates(written)}")
    topic = broker.topic(TOPIC)
    shares = ", ".join(f"{each.end_offset:,}" for each in topic)
    ends = sum(each.end_offset for each in topic)
    story.check("", f"spread over {len(topic)} partitions by key: {shares}", ends == written.count)
    return written


def _read_twice(story: Story, broker: minilog.Broker, written: Tally) -> None:
    for reader in (1, 2):
        with minilog.Consumer(broker, TOPIC, max_poll_records=BLOCK_EVENTS) as consumer:
            tally, watch = _read(consumer)
        text = f"reader {reader}: {tally}, in {watch}: {watch.rates(tally)}"
        story.check("read" if reader == 1 else "", text, tally == written)


def _read(consumer: minilog.Consumer) -> tuple[Tally, Stopwatch]:
    tally, watch = Tally(), Stopwatch()
    while True:
        with watch:
            records = consumer.poll()
            keys, values = records.keys, records.values
        if not records:
            return tally, watch
        tally.add(keys, values)


def _replay(story: Story, broker: minilog.Broker) -> None:
    """From the middle of the fullest partition, and from that record's time in all of them."""
    topic = broker.topic(TOPIC)
    fullest = max(topic, key=lambda each: each.end_offset)
    offset = fullest.end_offset // 2
    middle = fullest.read(offset, max_records=1)
    timestamp = middle[0].timestamp if middle else 0
    everywhere = [minilog.TopicPartition(TOPIC, each.index) for each in topic]
    here = everywhere[fullest.index]
    with minilog.Consumer(broker, max_poll_records=BLOCK_EVENTS) as consumer:
        consumer.assign([here])
        consumer.seek(here, offset)
        count = _read(consumer)[0].count
    text = f"partition {fullest.index} from offset {offset:,}: {count:,} records"
    story.check("replay", text, count == fullest.end_offset - offset)
    with minilog.Consumer(broker, max_poll_records=BLOCK_EVENTS) as consumer:
        consumer.assign(everywhere)
        consumer.seek_to_time(timestamp, *everywhere)
        count = _read(consumer)[0].count
    moment = datetime.fromtimestamp(timestamp / 1000, UTC)
    text = f"all from {moment.isoformat(timespec='milliseconds')}: {count:,} records"
    story.check("", text, count == sum(_count_from(each, timestamp) for each in topic))
    for record in middle:
        story.tell("", f"offset {record.offset:,} is {str(record.value)[:70]}")


def _count_from(partition: minilog.Partition, timestamp: int) -> int:
    """The records from the first one at or after `timestamp`, found by looking at them all."""
    for records in _scan(partition):
        for offset, each in zip(records.offsets, records.timestamps, strict=True):
            if each >= timestamp:
                return partition.end_offset - offset
    return 0


def _scan(partition: minilog.Partition) -> Iterator[minilog.Records]:
    offset = partition.start_offset
    while records := partition.read(offset, max_records=BLOCK_EVENTS):
        yield records
        offset = records[-1].next_offset


def _reopen(story: Story, path: str, written: Tally) -> None:
    opening = Stopwatch()
    with opening:
        broker = minilog.Broker(path)
    with broker:
        story.check("reopen", f"in {opening}, with nothing to repair", broker.recovery.ok)
        tally, is_dense = Tally(), True
        for partition in broker.topic(TOPIC):
            expected = 0
            for records in _scan(partition):
                tally.add(records.keys, records.values)
                following = expected + len(records)
                is_dense &= list(records.offsets) == list(range(expected, following))
                expected = following
        story.check("", f"read again: {tally}", tally == written)
        story.check("", "every offset once, in order, in each partition", is_dense)


def _blocks(events: Iterator[Event]) -> Iterator[Sequence[Event]]:
    """Events by the thousand, fewer where they are large, so that any file fits in memory."""
    block: list[Event] = []
    size = 0
    for event in events:
        block.append(event)
        size += len(event.value)
        if len(block) >= BLOCK_EVENTS or size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _choose_events() -> tuple[str, Iterator[Event]]:
    history = _git_events()
    for first in history:
        events = islice(chain([first], history), MOST_EVENTS)
        return "the git history here: commits by author, changes by file", events
    return "Python's own sources: lines by file", islice(_stdlib_events(), MOST_EVENTS)


def _line_events(stream: BinaryIO) -> Iterator[Event]:
    for line in _lines(stream):
        word = line.split(None, 1)[:1]
        yield Event(word[0][:LONGEST_KEY] if word else None, line, _now_ms())


def _stdlib_events() -> Iterator[Event]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if not {"site-packages", "dist-packages"}.intersection(name.parts):
            key = str(name).encode("utf-8", "surrogateescape")
            with path.open("rb") as stream:
                for line in _lines(stream):
                    yield Event(key, line, _now_ms())


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    while line := stream.readline(LONGEST_LINE):
        yield line.removesuffix(b"\n")


def _git_events() -> Iterator[Event]:
    """Every commit and every file it changed, oldest first; none where git has none."""
    command = ["git", "-c", "core.quotePath=false", "-c", "log.showSignature=false", "log"]
    command += ["--reverse", "--numstat", "--no-renames", "--format=%x00%ct%x09%h%x09%an%x09%s"]
    try:
        git = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return  # no git on this machine
    with git:
        assert git.stdout is not None
        timestamp, commit = 0, b""
        for raw in git.stdout:
            line = raw.removesuffix(b"\n")
            if line.startswith(b"\0"):
                seconds, commit, author, subject = line[1:].split(b"\t", 3)
                timestamp = max(0, int(seconds)) * 1000
                yield Event(author, b"\t".join((commit, author, subject)), timestamp)
            elif line:
                yield Event(line.rpartition(b"\t")[2], commit + b"\t" + line, timestamp)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _bytes(size: float) -> str:
    return f"{size / 1e6:,.2f} MB" if size >= 1e6 else f"{size / 1e3:,.2f} kB"
