"""The machine of ``test_log_machine`` on a disk that crashes and fails between and in its steps.

After a kill everything acknowledged is there; after a power cut everything that was acknowledged
as durable, and of the rest a prefix by whole batches; after an error what the error promises. It
knows the public face, and by ``losing_disk`` what was synced.
"""

from __future__ import annotations

import contextlib
import errno
import random
import shutil
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from minilog import Broker, SyncFailedError, verify
from tests.crash.cutting import Death
from tests.crash.images import crashed_copy, write_image
from tests.properties.losing_disk import LosingDisk
from tests.properties.test_log_machine import LogMachine, Row, record, segment_size, which

ERRORS = [errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EDQUOT, errno.ENOMEM]
operations = st.integers(0, 12)
after = st.sampled_from(["kill", "power cut"])


class Attempt:
    """A change that may come to nothing: what it does, and what the log holds if it is in."""

    def __init__(self, act: Callable[[Broker], object]) -> None:
        self.act = act
        self.rows: dict[int, list[Row]] = {}
        self.starts: dict[int, int] = {}
        self.partitions = 0


class CrashMachine(LogMachine):
    """A broker on a losing disk, what must be in it, and what must be durable."""

    steps = 0  # of all machines together

    def open(self, **topic_defaults: Any) -> None:
        self.disk = LosingDisk(self.path)
        self.broker = Broker(
            self.disk,
            clock=self.clock,
            sync=self.sync,
            **topic_defaults,
        )

    @initialize(segment_bytes=segment_size, sync=st.sampled_from(["never", "interval", "always"]))
    def create(self, segment_bytes: int, sync: Any) -> None:
        self.durable = [0, 0]
        self.ends: list[set[int]] = [{0}, {0}]  # where a whole batch ended
        super().create(segment_bytes, sync)

    @invariant()
    def what_is_in_is_noted(self) -> None:
        type(self).steps += 1
        if not hasattr(self, "consumer"):
            return
        while len(self.ends) < len(self.rows):
            self.ends.append({0})
            self.durable.append(0)
        for ends, rows in zip(self.ends, self.rows):
            ends.add(len(rows))
        if self.sync == "always":
            self.all_is_durable()

    def all_is_durable(self) -> None:
        self.durable = [len(rows) for rows in self.rows]

    # -- what makes things durable ------------------------------------------------------------

    @rule()
    def flush(self) -> None:
        super().flush()
        self.all_is_durable()

    @rule(milliseconds=st.sampled_from([1, 1000, 60_000]))
    def advance(self, milliseconds: int) -> None:
        super().advance(milliseconds)
        if self.sync == "interval":
            self.all_is_durable()

    @rule(number=which, share=st.floats(0, 1.2))
    def delete_before(self, number: int, share: float) -> None:
        index, _ = self.pick(number)
        before = self.starts[index]
        super().delete_before(number, share)
        if self.starts[index] > before:
            self.durable[index] = len(self.rows[index])

    @rule()
    def close_and_reopen(self) -> None:
        super().close_and_reopen()
        self.all_is_durable()

    @rule()
    def delete_the_topic_and_make_another(self) -> None:
        self.broker.delete_topic("t")
        assert list(self.broker.topics) == []
        self.broker.create_topic("t", partitions=2)
        self.rows, self.starts = [[], []], [0, 0]
        self.durable, self.ends = [0, 0], [{0}, {0}]
        self.follow()

    # -- crashes ------------------------------------------------------------------------------

    def abandon(self) -> None:
        """Let go of the files as the end of a process does."""
        self.broker.refuse_in_child()
        self.disk.trouble.disarm()

    def crash(self, how: str, seed: int, attempt: Attempt | None = None) -> None:
        """Go on in what a crash leaves, after checking that nothing is missing in it."""
        self.copies += 1
        copy = self.directory / f"crashed-{self.copies}"
        if how == "kill":
            crashed_copy(self.path, copy, power_cut=False)
        else:
            write_image(copy, self.disk.after_power_cut(random.Random(seed)))
        shutil.rmtree(self.path)
        self.path = copy
        self.open()
        self.adopt(attempt, lossy=how != "kill")
        self.all_is_durable_by_recovery(how)

    def all_is_durable_by_recovery(self, how: str) -> None:
        """What is found after a power cut is on the disk; after a kill it may be in its cache."""
        if how != "kill":
            self.all_is_durable()

    def adopt(self, attempt: Attempt | None, *, lossy: bool) -> None:
        """Take over how far the log goes, where that is within what it may be."""
        topic = self.broker.topic("t")
        counts = {len(self.rows), attempt.partitions if attempt else 0} - {0}
        assert len(topic) in counts
        while len(self.rows) < len(topic):
            self.rows.append([])
            self.starts.append(0)
            self.ends.append({0})
            self.durable.append(0)
        for index, partition in enumerate(topic):
            pending = attempt.rows.get(index, []) if attempt else []
            rows = [*self.rows[index], *pending]
            least = self.durable[index] if lossy else len(self.rows[index])
            legal = {end for end in {*self.ends[index], len(rows)} if end >= least}
            legal.add(len(self.rows[index]))
            end = partition.end_offset
            assert end in legal, f"{partition} ends at {end}, not in {sorted(legal)}"
            starts = {self.starts[index]}
            if attempt and index in attempt.starts:
                starts.add(attempt.starts[index])
            assert partition.start_offset in starts
            self.starts[index] = partition.start_offset
            self.rows[index] = rows[:end]
            self.ends[index] = {each for each in self.ends[index] if each <= end} | {end}
            self.durable[index] = min(self.durable[index], end)
        self.assert_holds_everything(self.broker)
        self.follow()

    @rule(how=after, seed=st.integers(0, 2**32))
    def crash_between(self, how: str, seed: int) -> None:
        self.abandon()
        self.crash(how, seed)

    @rule(how=after, seed=st.integers(0, 2**32), number=operations)
    def crash_in_recovery(self, how: str, seed: int, number: int) -> None:
        """The one that recovers dies at some operation, and the next one recovers."""
        self.abandon()
        self.copies += 1
        copy = self.directory / f"crashed-{self.copies}"
        lost = self.disk.after_power_cut(random.Random(seed)) if how != "kill" else None
        crashed_copy(self.path, copy, power_cut=False)
        if lost is not None:
            write_image(copy, lost)
        shutil.rmtree(self.path)
        self.path = copy
        self.disk = LosingDisk(copy)
        self.disk.trouble.arm(number, None)
        with contextlib.suppress(Death):
            broker = Broker(self.disk, clock=self.clock, sync=self.sync)
            broker.refuse_in_child()
        self.disk.trouble.disarm()
        self.open()
        self.adopt(None, lossy=how != "kill")
        self.all_is_durable_by_recovery(how)

    @rule()
    def what_was_recovered_stays_as_it_is(self) -> None:
        """Closed and opened twice more, nothing is found to do and every byte is right."""
        self.broker.close()
        for _ in range(2):
            report = verify(self.path)
            assert report.ok, str(report)
            with Broker(self.path, clock=self.clock) as broker:
                assert broker.recovery.ok, str(broker.recovery)
        self.open()
        self.assert_holds_everything(self.broker)
        self.all_is_durable()
        self.follow()

    # -- changes that die or fail ---------------------------------------------------------------

    def attempt(self, kind: str, number: int, rows: list[Row]) -> Attempt:
        """Return a change of the log, and what it holds if that is in."""
        index, _ = self.pick(number)
        end = len(self.rows[index])
        if kind == "append":
            attempt = Attempt(
                lambda broker: broker.topic("t")[index].append_many(
                    [row[0] for row in rows],
                    keys=[row[1] for row in rows],
                    headers=[row[2] for row in rows],
                    timestamps=[row[3] for row in rows],
                )
            )
            attempt.rows[index] = [
                ("t", index, end + n, row[3], row[1], row[0], tuple(row[2]))
                for n, row in enumerate(rows)
            ]
        elif kind == "delete":
            attempt = Attempt(lambda broker: broker.topic("t")[index].delete_before(end))
            attempt.starts[index] = end
        elif kind == "grow":
            attempt = Attempt(lambda broker: broker.topic("t").add_partitions(3))
            attempt.partitions = 3
        else:
            attempt = Attempt(lambda broker: broker.flush())
        return attempt

    kinds = st.sampled_from(["append", "append", "delete", "grow", "flush"])

    @rule(
        kind=kinds,
        number=which,
        rows=st.lists(record, min_size=1, max_size=5),
        at=operations,
        how=after,
        seed=st.integers(0, 2**32),
    )
    def crash_in_the_middle(
        self, kind: str, number: int, rows: list[Row], at: int, how: str, seed: int
    ) -> None:
        attempt = self.attempt(kind, number, rows)
        self.disk.trouble.arm(at, None)
        with contextlib.suppress(Death):
            attempt.act(self.broker)
        self.abandon()
        self.crash(how, seed, attempt)

    @rule(
        kind=kinds,
        number=which,
        rows=st.lists(record, min_size=1, max_size=5),
        at=operations,
        error=st.sampled_from(ERRORS),
        for_ever=st.booleans(),
    )
    def fail_in_the_middle(
        self, kind: str, number: int, rows: list[Row], at: int, error: int, for_ever: bool
    ) -> None:
        attempt = self.attempt(kind, number, rows)
        self.disk.trouble.arm(at, error, for_ever=for_ever)
        has_failed = is_poisoned = False
        try:
            attempt.act(self.broker)
        except SyncFailedError:
            is_poisoned = True
        except OSError:
            has_failed = True
        self.disk.trouble.disarm()
        if has_failed:  # nothing was appended, and it goes on when the cause is gone
            attempt.rows.clear()
        if is_poisoned:
            self.abandon()
            self.open()
        self.adopt(attempt, lossy=False)
        if not has_failed and not is_poisoned and kind == "flush":
            self.all_is_durable()
        index, partition = self.pick(number)
        offset = partition.append(b"it goes on", timestamp=7)
        assert offset == len(self.rows[index])
        self.remember(index, (b"it goes on", None, (), 7))

    @precondition(lambda self: len(self.rows) == 2)
    @rule()
    def add_a_partition(self) -> None:
        super().add_a_partition()
        self.ends.append({0})
        self.durable.append(0)
