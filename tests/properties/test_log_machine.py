"""Any sequence of operations on a log against plain lists of records.

Knows only the public face; the model is a list per partition and a start offset.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from minilog import (
    Broker,
    Consumer,
    InvalidRecordError,
    OffsetOutOfRangeError,
    Partition,
    Records,
    Topic,
    TopicPartition,
    verify,
)
from minilog.storage import repacking
from minilog.testing import ManualClock

START_MS = 1_000_000
DAY_MS = 24 * 3600 * 1000

payload = st.none() | st.binary(max_size=40) | st.integers(200, 2500).map(lambda n: b"p" * n)
key = st.none() | st.binary(max_size=8)
headers = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=9)), max_size=3)
timestamp = st.integers(0, 50) | st.integers(0, 2**63 - 1)
record = st.tuples(payload, key, headers, timestamp)
segment_size = st.sampled_from([256, 257, 400, 512, 1000, 2048])
which = st.integers(0, 2)
Row = tuple[Any, ...]


class LogMachine(RuleBasedStateMachine):
    """A broker with one topic of two or three partitions, and what must be in it."""

    on_disk = True

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="log-machine-"))
        self.path = self.directory / "log"
        self.clock = ManualClock(START_MS)
        self.rows: list[list[Row]] = [[], []]  # by partition, the deleted ones too
        self.starts = [0, 0]
        self.held: list[tuple[Records, list[Row]]] = []
        self.copies = 0

    @initialize(segment_bytes=segment_size, sync=st.sampled_from(["never", "interval", "always"]))
    def create(self, segment_bytes: int, sync: Any) -> None:
        self.sync = sync
        self.open(segment_bytes=segment_bytes)
        self.broker.create_topic("t", partitions=2)
        self.follow()

    def open(self, **topic_defaults: Any) -> None:
        path = self.path if self.on_disk else ":memory:"
        self.broker = Broker(path, clock=self.clock, sync=self.sync, **topic_defaults)

    def follow(self) -> None:
        """A consumer that starts over."""
        self.consumer = Consumer(self.broker, "t", max_poll_records=7)
        self.positions = [0] * len(self.rows)

    @property
    def topic(self) -> Topic:
        return self.broker.topic("t")

    def pick(self, number: int) -> tuple[int, Partition]:
        index = number % len(self.rows)
        return index, self.topic[index]

    def kept(self, index: int, start: int = 0) -> list[Row]:
        return self.rows[index][max(start, self.starts[index]) :]

    def remember(self, index: int, row: Row) -> None:
        value, row_key, row_headers, stamp = row
        offset = len(self.rows[index])
        self.rows[index].append(("t", index, offset, stamp, row_key, value, tuple(row_headers)))

    # -- writing --------------------------------------------------------------------------------

    @rule(number=which, row=record, stamped=st.booleans())
    def append(self, number: int, row: Row, stamped: bool) -> None:
        index, partition = self.pick(number)
        value, row_key, row_headers, stamp = row
        stamp = stamp if stamped else None
        offset = partition.append(value, key=row_key, headers=row_headers, timestamp=stamp)
        assert offset == len(self.rows[index])
        self.remember(index, (*row[:3], self.clock.now_ms() if stamp is None else stamp))

    @rule(number=which, rows=st.lists(record, max_size=15), plain=st.booleans())
    def append_many(self, number: int, rows: list[Row], plain: bool) -> None:
        index, partition = self.pick(number)
        end = len(self.rows[index])
        values = [row[0] for row in rows]
        if plain:
            written = partition.append_many(values)
            rows = [(value, None, (), self.clock.now_ms()) for value in values]
        else:
            written = partition.append_many(
                values,
                keys=[row[1] for row in rows],
                headers=[row[2] for row in rows],
                timestamps=[row[3] for row in rows],
            )
        assert written == range(end, end + len(rows))
        for row in rows:
            self.remember(index, row)

    @rule(number=which, rows=st.lists(record, min_size=1, max_size=6), data=st.data())
    def refuse_a_run_with_one_bad_record(
        self, number: int, rows: list[Row], data: st.DataObject
    ) -> None:
        _, partition = self.pick(number)
        values: list[Any] = [row[0] for row in rows]
        stamps: list[Any] = [row[3] for row in rows]
        bad = data.draw(st.integers(0, len(rows) - 1))
        if data.draw(st.booleans()):
            values[bad] = "text"
            with pytest.raises(TypeError):
                partition.append_many(values, timestamps=stamps)
        else:
            stamps[bad] = -1
            with pytest.raises(InvalidRecordError):
                partition.append_many(values, timestamps=stamps)

    @rule()
    def repack(self) -> None:
        with mock.patch.multiple(repacking, LEAST_BYTES=0, SAMPLE_FRAMES=1):
            self.broker.maintain()

    @rule(number=which, share=st.floats(0, 1.2))
    def delete_before(self, number: int, share: float) -> None:
        index, partition = self.pick(number)
        end = len(self.rows[index])
        offset = int(end * share)
        if offset > end:
            with pytest.raises(OffsetOutOfRangeError):
                partition.delete_before(offset)
            return
        partition.delete_before(offset)
        self.starts[index] = max(self.starts[index], offset)

    @rule(segment_bytes=segment_size)
    def configure(self, segment_bytes: int) -> None:
        self.topic.configure(segment_bytes=segment_bytes)
        assert self.topic.config.segment_bytes == segment_bytes

    @precondition(lambda self: len(self.rows) == 2)
    @rule()
    def add_a_partition(self) -> None:
        self.topic.add_partitions(3)
        self.rows.append([])
        self.starts.append(0)
        self.positions.append(0)

    @rule(milliseconds=st.sampled_from([1, 1000, 60_000, 8 * DAY_MS]))
    def advance(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds)

    @rule()
    def flush(self) -> None:
        self.broker.flush()

    # -- reading --------------------------------------------------------------------------------

    @rule(
        number=which,
        share=st.floats(0, 1),
        max_records=st.integers(1, 30),
        max_bytes=st.none() | st.integers(1, 4000),
        hold=st.booleans(),
    )
    def read(
        self, number: int, share: float, max_records: int, max_bytes: int | None, hold: bool
    ) -> None:
        index, partition = self.pick(number)
        start, end = self.starts[index], len(self.rows[index])
        offset = start + round((end - start) * share)
        found = partition.read(offset, max_records=max_records, max_bytes=max_bytes)
        rows: list[Row] = [tuple(each) for each in found]
        assert rows == self.kept(index, offset)[: len(rows)]
        assert len(rows) <= max_records
        assert bool(rows) == (offset < end)
        if max_bytes is not None and len(rows) > 1:
            assert sum(len(row[4] or b"") + len(row[5] or b"") for row in rows) <= max_bytes
        assert list(found.values) == [row[5] for row in rows]
        assert list(found.keys) == [row[4] for row in rows]
        assert list(found.timestamps) == [row[3] for row in rows]
        assert list(found.offsets) == [row[2] for row in rows]
        if hold:
            self.held.append((partition.read(offset, max_records=max_records), []))
            records, _ = self.held[-1]
            self.held[-1] = (records, self.kept(index, offset)[: len(records)])

    @rule(number=which, beyond=st.integers(1, 5))
    def read_out_of_range(self, number: int, beyond: int) -> None:
        index, partition = self.pick(number)
        start, end = self.starts[index], len(self.rows[index])
        for offset in {start - beyond, end + beyond}:
            if offset < 0:
                continue
            with pytest.raises(OffsetOutOfRangeError) as caught:
                partition.read(offset)
            error = caught.value
            assert (error.topic, error.partition, error.requested) == ("t", index, offset)
            assert (error.start_offset, error.end_offset) == (start, end)

    @rule(number=which, asked=timestamp)
    def offset_at(self, number: int, asked: int) -> None:
        index, partition = self.pick(number)
        offsets = [row[2] for row in self.kept(index) if row[3] >= asked]
        assert partition.offset_at(asked) == (offsets[0] if offsets else None)

    @rule()
    def consume(self) -> None:
        seen: list[list[Row]] = [[] for _ in self.rows]
        for each in self.consumer.drain():
            seen[each.partition].append(tuple(each))
        for index, position in enumerate(self.positions):
            assert seen[index] == self.kept(index, position)
            self.positions[index] = len(self.rows[index])
            assert self.consumer.position(TopicPartition("t", index)) == len(self.rows[index])

    @rule()
    def look_at_what_was_read_before(self) -> None:
        """Records are immutable, whatever became of the log they came from."""
        for records, rows in self.held:
            assert [tuple(each) for each in records] == rows

    # -- opening anew ---------------------------------------------------------------------------

    def assert_holds_everything(self, broker: Broker) -> None:
        topic = broker.topic("t")
        assert len(topic) == len(self.rows)
        for index, partition in enumerate(topic):
            assert partition.start_offset == self.starts[index]
            assert partition.end_offset == len(self.rows[index])
            assert [tuple(each) for each in partition] == self.kept(index)
            partition.check()

    @rule()
    def read_everything(self) -> None:
        self.assert_holds_everything(self.broker)

    @precondition(lambda self: self.on_disk)
    @rule()
    def close_and_reopen(self) -> None:
        self.broker.close()
        report = verify(self.path)
        assert report.ok, str(report.problems)
        assert report.record_count >= sum(len(self.kept(n)) for n in range(len(self.rows)))
        self.open()
        assert self.broker.recovery.ok, str(self.broker.recovery)
        self.assert_holds_everything(self.broker)
        self.follow()

    @precondition(lambda self: self.on_disk)
    @rule(go_on_there=st.booleans())
    def open_a_copy_as_after_a_kill(self, go_on_there: bool) -> None:
        self.copies += 1
        copy = self.directory / f"copy-{self.copies}"
        shutil.copytree(self.path, copy)
        if go_on_there:
            self.broker.close()
            self.path = copy
            self.open()
            self.assert_holds_everything(self.broker)
            self.follow()
            return
        with Broker(copy, clock=ManualClock(self.clock.now_ms())) as broker:
            self.assert_holds_everything(broker)
        shutil.rmtree(copy)

    @precondition(lambda self: self.on_disk)
    @rule()
    def a_read_only_broker_agrees(self) -> None:
        with Broker(self.path, read_only=True) as broker:
            self.assert_holds_everything(broker)

    @invariant()
    def bounds_and_counts_agree(self) -> None:
        if not hasattr(self, "consumer"):
            return
        for index, partition in enumerate(self.topic):
            assert partition.start_offset == self.starts[index]
            assert partition.end_offset == len(self.rows[index])
            assert len(partition) == len(self.kept(index))
            partition.check()

    def teardown(self) -> None:
        if hasattr(self, "broker"):
            self.broker.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class MemoryLogMachine(LogMachine):
    """The same, where nothing touches a disk."""

    on_disk = False


BOUNDED = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestLogOnDisk = LogMachine.TestCase
TestLogOnDisk.settings = BOUNDED
TestLogInMemory = MemoryLogMachine.TestCase
TestLogInMemory.settings = BOUNDED
