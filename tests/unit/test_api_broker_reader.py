"""The contract of a read-only broker beside a live writer."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minilog import (
    Broker,
    LockedError,
    OffsetOutOfRangeError,
    Partition,
    Producer,
    UnknownTopicError,
    hosting,
)
from minilog.storage.files import DiskDirectory
from minilog.storage.log import Log
from minilog.storage.readable_log import ReadableLog
from minilog.testing import ManualClock

WRITER = """
import sys, minilog
broker = minilog.Broker(sys.argv[1], sync="never", maintenance_interval_ms=0, segment_bytes=256)
for line in sys.stdin:
    print(eval(line), flush=True)
broker.close()
"""


class Writer:
    """Another process that has the log open and does what it is told."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def __call__(self, call: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(call + "\n")
        return self.process.stdout.readline().strip()


@pytest.fixture
def writer(log_path: Path, python_command: Callable[..., list[str]]) -> Iterator[Writer]:
    """A live writer with a topic "t" of 2 partitions; 100 records in partition 0."""
    started = Writer(python_command(WRITER, log_path))
    with started.process:
        started("broker.create_topic('t', partitions=2)")
        started("[broker.topic('t')[0].append(b'%d' % n * 9) for n in range(100)]")
        yield started
        started.process.communicate("")


def test_a_reader_beside_a_live_writer_sees_what_it_publishes(
    log_path: Path, writer: Writer
) -> None:
    with Broker(log_path, read_only=True) as broker, Broker(log_path, read_only=True) as second:
        partition = broker.topic("t")[0]
        assert [r.value for r in partition] == [b"%d" % n * 9 for n in range(100)]
        for n in range(100, 150):
            assert writer(f"broker.topic('t')[0].append(b'{n}')") == str(n)
            assert list(partition.read(n).values) == [b"%d" % n]
            assert len(partition.read(n - 9)) == 10
        assert writer("broker.topic('t')[1].append_many([b'x' * 1000] * 50)") == "range(0, 50)"
        assert len(broker.topic("t")[1].read(0)) == 50
        writer("broker.create_topic('later')[0].append(b'v')")
        assert list(broker.topics) == ["later", "t"]
        assert list(broker.topic("later")[0].read(0).values) == [b"v"]
        assert len(second.topic("t")[0]) == 150
        writer("broker.topic('t')[0].delete_before(120)")
        assert partition.read(120, max_records=1)[0].value == b"120"
        with pytest.raises(LockedError):
            Broker(log_path)


def test_a_waiting_read_of_a_reader_wakes_for_the_writer(log_path: Path, writer: Writer) -> None:
    with Broker(log_path, read_only=True) as broker:
        for offset in range(100, 110):
            seen: list[Any] = []
            thread = threading.Thread(
                target=lambda start=offset, seen=seen: seen.extend(
                    broker.topic("t")[0].read(start, timeout=60).values
                )
            )
            thread.start()
            writer(f"broker.topic('t')[0].append(b'{offset}')")
            thread.join()
            assert seen == [b"%d" % offset]


def test_a_reader_never_changes_a_byte_beside_a_live_writer(log_path: Path, writer: Writer) -> None:
    def contents() -> dict[Path, bytes | None]:
        return {p: p.read_bytes() if p.is_file() else None for p in log_path.rglob("*")}

    before = contents()
    for _ in range(2):
        with Broker(log_path, read_only=True) as broker:
            partition = broker.topic("t")[0]
            assert len(partition.read(0)) == len(list(partition)) == 100
            assert partition.offset_at(0) == 0
            assert not partition.read(100, timeout=0.06)
    assert contents() == before
    assert writer("broker.topic('t')[0].append(b'v')") == "100"


BUSY = """
import sys, minilog
with minilog.Broker(sys.argv[1], segment_bytes=300, sync="never") as broker:
    partition = broker.create_topic("t")[0]
    print("ready", flush=True)
    for turn in range(4000):
        end = partition.end_offset
        if turn % 3:
            partition.append(b"%d" % end)
        else:
            partition.append_many([b"%d" % n for n in range(end, end + 3)])
        if turn % 50 == 49 and sys.argv[2] == "deletes":
            partition.delete_before(partition.end_offset - 60)
    partition.append(b"end")
"""


@pytest.mark.parametrize("writes", ["appends", "deletes"])
def test_a_reader_keeps_up_with_a_writer_that_is_busy(
    log_path: Path, writes: str, python_command: Callable[..., list[str]]
) -> None:
    with subprocess.Popen(
        python_command(BUSY, log_path, writes), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        position, last, lost = 0, None, 0
        with Broker(log_path, read_only=True) as broker:
            partition = broker.topic("t")[0]
            while last != b"end":
                try:
                    records = partition.read(position, timeout=60)
                except OffsetOutOfRangeError as error:
                    lost += error.start_offset - position
                    position = max(error.start_offset, position + 1)
                    continue
                assert records, "the writer is stuck"
                assert list(records.offsets) == list(range(position, position + len(records)))
                expected = [b"%d" % offset for offset in records.offsets]
                last = records.values[-1]
                assert list(records.values) == [*expected[:-1], last]
                assert last in (expected[-1], b"end")
                position = records[-1].next_offset
    assert process.returncode == 0
    assert lost == 0 or writes == "deletes"


def test_a_reader_follows_when_all_it_had_seen_was_deleted(log_path: Path) -> None:
    with Broker(log_path, segment_bytes=300) as broker, Broker(log_path, read_only=True) as reader:
        partition = broker.create_topic("t")[0]
        partition.append_many([b"x"] * 5)
        seen = reader.topic("t")[0]
        assert len(seen.read(0)) == 5
        partition.append_many([b"y" * 50] * 200)
        for n in range(205, 300):
            partition.append(b"%d" % n)
        partition.delete_before(250)
        assert list(seen.read(250).values) == [b"%d" % n for n in range(250, 300)]
        assert (seen.start_offset, seen.end_offset, len(seen)) == (250, 300, 50)
        partition.delete_before(300)
        assert not seen.read(300)
        assert partition.append(b"last") == 300
        assert [record.value for record in seen] == [b"last"]


@pytest.mark.parametrize("has_read", [True, False])
def test_a_reader_follows_when_what_it_is_just_listing_is_deleted_each_time(
    log_path: Path, has_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow reader beside a quick writer got a FileNotFoundError: files went twice in a row."""
    with Broker(log_path, segment_bytes=300) as broker, Broker(log_path, read_only=True) as reader:
        partition, seen = broker.create_topic("t")[0], reader.topic("t")[0]
        partition.append(b"seen")
        if has_read:
            assert len(seen.read(0)) == 1

        def replace_all() -> None:
            partition.append_many([b"y" * 50] * 20)
            partition.delete_before(partition.end_offset)
            partition.append(b"last")

        names, turns = DiskDirectory.names, [1, 2, 3]

        def list_and_delete(directory: DiskDirectory) -> list[str]:
            found = names(directory)
            if turns and directory.path == str(log_path / "t" / "0"):
                turns.pop()
                replace_all()
            return found

        replace_all()
        monkeypatch.setattr(DiskDirectory, "names", list_and_delete)
        assert seen.end_offset == partition.end_offset
        assert not turns
        assert list(seen.read(partition.start_offset).values) == [b"last"]


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("who", ["writer", "reader"])
@pytest.mark.parametrize(
    ("look", "after"),
    [
        pytest.param(len, 10, id="count"),
        pytest.param(lambda partition: partition.offset_at(3), 90, id="by time"),
    ],
)
def test_a_look_at_files_that_are_just_deleted_is_taken_again_at_those_that_are_left(
    log_path: Path,
    look: Callable[[Partition], int],
    after: int,
    who: str,
    goes_on: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Broker(log_path, segment_bytes=300) as broker:
        for number in range(100):
            broker.create_topic("t", exist_ok=True)[0].append(b"%d" % number, timestamp=number)
    with Broker(log_path) as broker, Broker(log_path, read_only=True) as reader:
        partition, seen = broker.topic("t")[0], reader.topic("t")[0]
        assert partition.end_offset == seen.end_offset == 100
        limit, look_anew = ReadableLog._limit, Log.look_anew

        def delete_meanwhile(*given: Any) -> Any:
            monkeypatch.setattr(ReadableLog, "_limit", staticmethod(limit))
            partition.delete_before(90)
            return limit(*given)

        def append_meanwhile(log: Log) -> None:
            for _ in range(40 if goes_on else 0):
                partition.append(b"later", timestamp=0)
            look_anew(log)

        monkeypatch.setattr(ReadableLog, "_limit", staticmethod(delete_meanwhile))
        monkeypatch.setattr(Log, "look_anew", append_meanwhile)
        found = look(partition if who == "writer" else seen)
        later = partition.end_offset - 100 if look is len else 0
        assert found == after + later
        assert partition.start_offset == seen.start_offset == 90
        assert look(partition) == look(seen) == after + later


def test_a_reader_takes_compacted_files_anew_though_the_writer_rolls_on_each_time(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker(log_path) as broker, Broker(log_path, read_only=True) as reader:
        topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=512)
        for number in range(100):
            topic[0].append(b"%d" % number, key=b"%d" % (number % 10), timestamp=number)
        seen = reader.topic("t")[0]
        assert len(seen) == 100  # it knows of each segment where it ends
        topic.compact()
        look_anew = Log.look_anew

        def append_meanwhile(log: Log) -> None:
            for _ in range(40):
                topic[0].append(b"later", key=b"later", timestamp=0)
            look_anew(log)

        monkeypatch.setattr(Log, "look_anew", append_meanwhile)
        assert seen.read(20)[0].offset == 90
        assert topic[0].end_offset > 100, "it has looked anew"
        assert [record.offset for record in seen] == [record.offset for record in topic[0]]


def test_a_topic_that_is_deleted_while_a_reader_looks_at_it_is_unknown(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker(log_path, segment_bytes=300) as broker, Broker(log_path, read_only=True) as reader:
        partition = broker.create_topic("t")[0]
        for number in range(50):
            partition.append(b"%d" % number)
        seen = reader.topic("t")[0]
        assert seen.end_offset == 50
        limit = ReadableLog._limit

        def delete_meanwhile(*given: Any) -> Any:
            monkeypatch.undo()
            broker.delete_topic("t")
            return limit(*given)

        monkeypatch.setattr(ReadableLog, "_limit", staticmethod(delete_meanwhile))
        with pytest.raises(UnknownTopicError):
            seen.offset_at(0)


def test_one_read_over_more_segments_than_may_be_mapped_reaches_the_newest_record(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last segment is let go on the way there, and taken again."""
    monkeypatch.setattr(hosting, "map_limit", lambda: 4)
    with Broker(log_path, segment_bytes=300) as broker, Broker(log_path, read_only=True) as reader:
        partition, seen = broker.create_topic("t")[0], reader.topic("t")[0]
        for number in range(60):
            partition.append(b"%d" % number)
            assert seen.read(number)[0].value == b"%d" % number
        assert len(list((log_path / "t/0").glob("*.log"))) > 8
        assert list(seen.read(0).values) == [b"%d" % number for number in range(60)]
        partition.append(b"60")
        assert seen.read(59, max_records=5).values == [b"59", b"60"]


@pytest.mark.parametrize("made_again", [False, True])
def test_a_partition_of_a_reader_ends_with_its_topic(log_path: Path, made_again: bool) -> None:
    with Broker(log_path) as broker, Broker(log_path, read_only=True) as reader:
        broker.create_topic("t")[0].append(b"old")
        stale = reader.topic("t")[0]
        assert len(stale.read(0)) == 1
        broker.delete_topic("t")
        if made_again:
            broker.create_topic("t", partitions=2)[0].append(b"new")
        with pytest.raises(UnknownTopicError):
            stale.read(0)
        if made_again:
            assert list(reader.topic("t")[0].read(0).values) == [b"new"]
            assert reader.topic("t").id == broker.topic("t").id
            broker.topic("t").add_partitions(3)
            assert len(reader.topic("t")) == 3


def test_a_reader_that_has_read_has_nothing_to_flush_or_maintain(log_path: Path) -> None:
    clock = ManualClock()
    settings: dict[str, Any] = {"segment_bytes": 256, "retention_ms": 10, "clock": clock}
    with Broker(log_path, **settings) as broker:
        for policy in ("delete", "compact"):
            topic = broker.create_topic(policy, cleanup_policy=policy)
            for number in range(40):
                topic[0].append(b"%d" % number, key=b"k")
    clock.advance(1000)
    with Broker(log_path, read_only=True, clock=clock) as reader:
        partitions = [reader.topic(policy)[0] for policy in ("delete", "compact")]
        assert [len(partition) for partition in partitions] == [40, 40]
        reader.flush()
        reader.maintain()
        Producer(reader).flush()
        clock.advance(1_000_000)
        assert [len(partition) for partition in partitions] == [40, 40]


def test_a_reader_keeps_no_writer_out(log_path: Path) -> None:
    with Broker(log_path) as broker:
        broker.create_topic("t", partitions=2)[1].append_many([b"v"] * 60)
        broker.create_topic("other")
    with Broker(log_path, read_only=True) as reader, Broker(log_path) as broker:
        assert broker.topic("t")[1].append(b"new") == 60
        assert list(reader.topic("t")[1].read(60).values) == [b"new"]
        broker.delete_topic("other")
        assert list(reader.topics) == ["t"]
        with pytest.raises(UnknownTopicError):
            reader.topic("other")


def test_a_reader_sees_what_compaction_has_taken_away(log_path: Path) -> None:
    """It went on looking through the files it had mapped, which are nobody's any more."""
    settings: dict[str, Any] = {"segment_bytes": 256, "cleanup_policy": "compact"}
    with Broker(log_path, maintenance_interval_ms=0) as writer:
        topic = writer.create_topic("t", **settings)
        for number in range(50):
            topic[0].append(b"%d" % number, key=b"%d" % (number % 4))
        with Broker(log_path, read_only=True) as reader:
            partition = reader.topic("t")[0]
            assert len(partition) == len(list(partition)) == 50
            for number in range(50, 60):
                topic.compact()
                assert [record.offset for record in partition] == list(range(number - 4, number))
                assert len(partition) == 4
                topic[0].append(b"%d" % number, key=b"%d" % (number % 4))
                assert partition.read(number).values == [b"%d" % number]
                assert len(partition) == 5


def test_a_reader_sees_that_a_topic_is_compacted_by_now(log_path: Path) -> None:
    with Broker(log_path, maintenance_interval_ms=0) as writer:
        topic = writer.create_topic("t", segment_bytes=256)
        for number in range(50):
            topic[0].append(b"%d" % number, key=b"%d" % (number % 4))
        with Broker(log_path, read_only=True) as reader:
            partition = reader.topic("t")[0]
            assert len(list(partition)) == 50
            topic.configure(cleanup_policy="compact")
            topic.compact()
            assert [record.offset for record in partition] == [46, 47, 48, 49]
