"""Any sequence of appends, compactions, expiries and deletions against a plain list of records.

The model knows which records may be read and brute force says what a cleaning leaves; reopening
and images of a crash are rules like the others. It knows only the public face.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from minilog import Broker, Consumer, Partition, verify
from minilog.storage import compaction
from minilog.testing import ManualClock

START_MS = 1_000_000
KEYS = [b"a", b"b", b"c", b"dd", b"e" * 30]
Row = tuple[Any, ...]

key = st.sampled_from(KEYS)
value = st.none() | st.binary(max_size=30) | st.just(b"v" * 150)
headers = st.just(()) | st.just((("h", b"1"), ("h", None)))
record = st.tuples(value, key, headers, st.integers(0, START_MS + 5000))


class CleaningMachine(RuleBasedStateMachine):
    """A compacted partition, every record it was ever given, and which of them must be there."""

    on_disk = True

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="cleaning-machine-"))
        self.path = self.directory / "log"
        self.clock = ManualClock(START_MS)
        self.patch = pytest.MonkeyPatch()  # several passes where there is room for few keys
        self.rows: dict[int, Row] = {}  # by offset: those that must be there
        self.end = 0
        self.start = 0
        self.seen: dict[int, int] = {}  # tombstones: when a cleaning first saw them
        self.copies = 0

    @initialize(
        segment_bytes=st.sampled_from([256, 400, 1000, 4096]),
        index_interval_bytes=st.sampled_from([0, 64, 4096]),
        sync=st.sampled_from(["never", "always"]),
        delete_retention_ms=st.sampled_from([0, 1000, 100_000]),
        key_budget_bytes=st.sampled_from([1, 300, compaction.KEY_BUDGET_BYTES]),
    )
    def create(
        self,
        segment_bytes: int,
        index_interval_bytes: int,
        sync: Any,
        delete_retention_ms: int,
        key_budget_bytes: int,
    ) -> None:
        self.patch.setattr(compaction, "KEY_BUDGET_BYTES", key_budget_bytes)
        self.sync = sync
        self.delete_retention_ms = delete_retention_ms
        self.open()
        self.broker.create_topic(
            "t",
            cleanup_policy="compact",
            segment_bytes=segment_bytes,
            index_interval_bytes=index_interval_bytes,
            delete_retention_ms=delete_retention_ms,
        )

    def open(self) -> None:
        path = self.path if self.on_disk else ":memory:"
        self.broker = Broker(path, clock=self.clock, sync=self.sync, maintenance_interval_ms=0)

    @property
    def partition(self) -> Partition:
        return self.broker.topic("t")[0]

    def remember(self, row: Row) -> None:
        given, row_key, row_headers, stamp = row
        self.rows[self.end] = ("t", 0, self.end, stamp, row_key, given, row_headers)
        self.end += 1

    # -- writing --------------------------------------------------------------------------------

    @rule(row=record)
    def append(self, row: Row) -> None:
        given, row_key, row_headers, stamp = row
        offset = self.partition.append(given, key=row_key, headers=row_headers, timestamp=stamp)
        assert offset == self.end
        self.remember(row)

    @rule(rows=st.lists(record, min_size=1, max_size=12), is_plain=st.booleans())
    def append_many(self, rows: list[Row], is_plain: bool) -> None:
        values, keys = [row[0] for row in rows], [row[1] for row in rows]
        if is_plain:
            self.partition.append_many(values, keys=keys, timestamps=7)
            rows = [(row[0], row[1], (), 7) for row in rows]
        else:
            stamps = [row[3] for row in rows]
            self.partition.append_many(
                values, keys=keys, headers=[row[2] for row in rows], timestamps=stamps
            )
        for row in rows:
            self.remember(row)

    # -- cleaning -------------------------------------------------------------------------------

    @rule(times=st.integers(1, 3))
    def compact(self, times: int) -> None:
        for _ in range(times):
            self.compact_once()

    def compact_once(self) -> None:
        before = {offset: row for offset, row in self.rows.items() if offset >= self.start}
        report = self.broker.topic("t").compact()
        now_ms = self.clock.now_ms()
        last = {row[4]: offset for offset, row in before.items()}
        for offset, row in before.items():
            is_old = now_ms - self.seen.get(offset, now_ms) >= self.delete_retention_ms
            is_dropped = row[5] is None and offset in self.seen and is_old
            if last[row[4]] != offset or is_dropped:
                del self.rows[offset]
            elif row[5] is None:
                self.seen.setdefault(offset, now_ms)
        kept = [offset for offset in self.rows if offset >= self.start]
        assert report.records_after == len(kept)

    @rule(share=st.floats(0, 1))
    def delete_before(self, share: float) -> None:
        offset = int(self.end * share)
        self.partition.delete_before(offset)
        self.start = max(self.start, offset)

    @rule(milliseconds=st.sampled_from([1, 999, 1000, 60_000]))
    def advance(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds)

    @rule(segment_bytes=st.sampled_from([256, 1000, 8192]))
    def configure(self, segment_bytes: int) -> None:
        self.broker.topic("t").configure(segment_bytes=segment_bytes)

    # -- reading --------------------------------------------------------------------------------

    def kept(self, start: int = 0) -> list[Row]:
        lowest = max(start, self.start)
        return [self.rows[offset] for offset in sorted(self.rows) if offset >= lowest]

    @rule(
        share=st.floats(0, 1),
        max_records=st.integers(1, 20),
        max_bytes=st.none() | st.integers(1, 500),
    )
    def read(self, share: float, max_records: int, max_bytes: int | None) -> None:
        offset = self.start + round((self.end - self.start) * share)
        found = self.partition.read(offset, max_records=max_records, max_bytes=max_bytes)
        rows = [tuple(each) for each in found]
        expected = self.kept(offset)
        assert rows == expected[: len(rows)]
        assert bool(rows) == bool(expected)
        assert len(rows) <= max_records
        behind = [row[2] for row in expected[len(rows) :]]
        assert found.next_offset <= (behind[0] if behind else self.end)
        assert found.next_offset > offset or offset == self.end

    @rule(asked=st.integers(0, START_MS + 5000))
    def offset_at(self, asked: int) -> None:
        offsets = [row[2] for row in self.kept() if row[3] >= asked]
        assert self.partition.offset_at(asked) == (offsets[0] if offsets else None)

    @rule(limit=st.integers(1, 9))
    def consume(self, limit: int) -> None:
        consumer = Consumer(self.broker, "t", max_poll_records=limit)
        assert [tuple(each) for each in consumer.drain()] == self.kept()
        assert consumer.lag() == {("t", 0): 0}
        assert not consumer.poll(0)
        consumer.close()

    def assert_holds_everything(self, broker: Broker) -> None:
        partition = broker.topic("t")[0]
        assert partition.start_offset == self.start
        assert partition.end_offset == self.end
        assert [tuple(each) for each in partition] == self.kept()
        assert len(partition) == len(self.kept())
        partition.check()

    # -- opening anew ---------------------------------------------------------------------------

    @precondition(lambda self: self.on_disk)
    @rule()
    def close_and_reopen(self) -> None:
        self.broker.close()
        report = verify(self.path)
        assert report.ok, str(report)
        assert report.record_count == len(self.kept())
        self.open()
        assert self.broker.recovery.ok, str(self.broker.recovery)
        self.assert_holds_everything(self.broker)

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
    def everything_is_there(self) -> None:
        if hasattr(self, "broker"):
            self.assert_holds_everything(self.broker)

    def teardown(self) -> None:
        if hasattr(self, "broker"):
            self.broker.close()
        self.patch.undo()
        shutil.rmtree(self.directory, ignore_errors=True)


class MemoryCleaningMachine(CleaningMachine):
    """The same, where nothing touches a disk."""

    on_disk = False


BOUNDED = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestCleaningOnDisk = CleaningMachine.TestCase
TestCleaningOnDisk.settings = BOUNDED
TestCleaningInMemory = MemoryCleaningMachine.TestCase
TestCleaningInMemory.settings = BOUNDED
