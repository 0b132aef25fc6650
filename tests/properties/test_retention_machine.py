"""Any sequence of appends, expiries and deletions against the rule worked out by brute force.

The model knows when each record was stamped and appended, and reads from the names of the files
where segments begin; it knows nothing else of how records are kept.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from minilog import Broker, Consumer, OffsetOutOfRangeError, Partition, TopicPartition, verify
from minilog.testing import ManualClock

START_MS = 1_000_000
RETENTION_MS = 5000


class Row(NamedTuple):
    """A record, and when it came."""

    value: bytes
    stamp: int
    appended_ms: int


class RetentionMachine(RuleBasedStateMachine):
    """A partition that forgets, and every record it was ever given."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="retention-machine-"))
        self.path = self.directory / "log"
        self.clock = ManualClock(START_MS)
        self.rows: list[Row] = []
        self.start = 0
        self.floor: int | None = None
        self.reopened_ms: dict[int, int] = {}  # a crash forgets when the last record came
        self.is_written = False  # since it was opened: else there is nothing to crash

    @initialize(
        sync=st.sampled_from(["never", "always"]),
        retention_ms=st.sampled_from([-1, 0, RETENTION_MS]),
        retention_bytes=st.sampled_from([-1, -1, 0, 700]),
        is_waiting=st.booleans(),
    )
    def create(self, sync: Any, retention_ms: int, retention_bytes: int, is_waiting: bool) -> None:
        self.sync = sync
        self.retention_ms = retention_ms
        self.retention_bytes = retention_bytes
        self.is_waiting = is_waiting
        self.open()
        self.broker.create_topic(
            "t",
            segment_bytes=256,
            retention_ms=retention_ms,
            retention_bytes=retention_bytes,
            retain_until_consumed=["slow"] if is_waiting else [],
        )
        self.is_written = True

    def open(self) -> None:
        self.broker = Broker(self.path, clock=self.clock, sync=self.sync, maintenance_interval_ms=0)
        self.is_written = False

    @property
    def partition(self) -> Partition:
        return self.broker.topic("t")[0]

    @rule(size=st.integers(0, 200), ahead=st.none() | st.integers(-20_000, 20_000))
    def append(self, size: int, ahead: int | None) -> None:
        now_ms = self.clock.now_ms()
        stamp = now_ms if ahead is None else now_ms + ahead
        self.partition.append(b"v" * size, timestamp=stamp)
        self.is_written = True
        self.rows.append(Row(b"v" * size, stamp, now_ms))

    @rule(count=st.integers(1, 8))
    def append_many(self, count: int) -> None:
        now_ms = self.clock.now_ms()
        self.partition.append_many([b"many"] * count)
        self.is_written = True
        self.rows += [Row(b"many", now_ms, now_ms)] * count

    @rule(milliseconds=st.sampled_from([1, 1000, RETENTION_MS, RETENTION_MS + 1, 60_000]))
    def advance(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds)

    @rule(share=st.none() | st.floats(0, 1))
    def commit(self, share: float | None) -> None:
        self.floor = None if share is None else int(len(self.rows) * share)
        if self.floor is not None:
            with Consumer(self.broker, "t", group="slow", auto_commit=False) as consumer:
                consumer.poll(max_records=1)
                consumer.commit({TopicPartition("t", 0): self.floor})
            self.is_written = True
        elif "slow" in self.broker.groups:
            self.broker.delete_group("slow")
            self.is_written = True

    @rule(share=st.floats(0, 1))
    def delete_before(self, share: float) -> None:
        offset = int(len(self.rows) * share)
        self.partition.delete_before(offset)
        self.is_written = True
        self.start = max(self.start, offset)

    def segments(self) -> list[tuple[int, int, int]]:
        """Return (first offset, one past the last, bytes of the file) of each segment."""
        paths = sorted((self.path / "t" / "0").glob("*.log"))
        bases = [int(path.stem) for path in paths]
        ends = [*bases[1:], len(self.rows)]
        sizes = [path.stat().st_size for path in paths]
        return list(zip(bases, ends, sizes))

    def aged(self) -> int:
        """Return the offset before which everything is old enough to go, and not waited for."""
        reached = 0
        wanted = len(self.rows)
        if self.is_waiting:
            wanted = 0 if self.floor is None else self.floor
        if self.retention_ms < 0:
            return 0
        for first, stop, _ in self.segments():
            if first == stop or stop > wanted:
                break
            rows = self.rows[first:stop]
            appended_ms = max(row.appended_ms for row in rows)
            appended_ms = max(appended_ms, self.reopened_ms.get(stop, 0))
            latest_ms = min(max(row.stamp for row in rows), appended_ms)
            if self.clock.now_ms() - latest_ms <= self.retention_ms:
                break
            reached = stop
        return reached

    @rule()
    def maintain(self) -> None:
        aged = self.aged()
        segments = self.segments()
        self.broker.maintain()
        found = self.partition.start_offset
        self.is_written |= found > self.start
        if self.retention_bytes < 0:
            assert found == max(self.start, aged)
        else:
            assert found >= max(self.start, aged)
            left = sum(size for first, _, size in segments if first >= found)
            if found > max(self.start, aged):
                assert left + 256 >= self.retention_bytes
                assert found in [stop for _, stop, _ in segments]
            else:
                sealed = sum(size for first, _, size in segments[:-1] if first >= aged)
                oldest = next((size for first, _, size in segments[:-1] if first >= aged), 0)
                assert not oldest or sealed - oldest < self.retention_bytes
        self.start = found

    @invariant()
    def everything_that_is_kept_is_there(self) -> None:
        if not hasattr(self, "broker"):
            return
        partition = self.partition
        assert (partition.start_offset, partition.end_offset) == (self.start, len(self.rows))
        assert len(partition) == len(self.rows) - self.start
        found = [(record.offset, record.timestamp, record.value) for record in partition]
        kept = enumerate(self.rows[self.start :], self.start)
        assert found == [(offset, row.stamp, row.value) for offset, row in kept]
        partition.check()
        if self.start:
            with pytest.raises(OffsetOutOfRangeError) as caught:
                partition.read(self.start - 1)
            assert caught.value.start_offset == self.start

    @precondition(lambda self: hasattr(self, "broker"))
    @rule(is_killed=st.booleans())
    def reopen(self, is_killed: bool) -> None:
        if is_killed:
            copy = self.path.with_name(self.path.name + "-")
            shutil.copytree(self.path, copy)
            self.broker.close()
            self.path = copy
            if self.is_written:
                self.reopened_ms[len(self.rows)] = self.clock.now_ms()
        else:
            self.broker.close()
            report = verify(self.path)
            assert report.ok, str(report)
            assert report.record_count == len(self.rows) - self.start
        self.open()

    def teardown(self) -> None:
        if hasattr(self, "broker"):
            self.broker.close()
        shutil.rmtree(self.directory, ignore_errors=True)


TestRetention = RetentionMachine.TestCase
TestRetention.settings = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
