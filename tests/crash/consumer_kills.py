"""Consuming processes are killed; whoever reads next gets all from the committed offset on, and
nothing below it.

What may be committed follows from what the victim told: nothing beyond what it had been given and
asked on after, nothing short of what a call has surely committed. Where offsets are committed
within transactions, each input below them has exactly one output.

This module refuses to know how offsets are kept.
"""

from __future__ import annotations

import fcntl
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import minilog
from minilog import Broker, Consumer
from tests.crash import consumer as victims
from tests.crash.consumer import (
    ANSWERED,
    ASKING,
    COMMITTED,
    COMMITTING,
    GIVEN,
    GROUP,
    IMPORTED,
    OPENED,
    OUTPUT,
    OUTPUTS,
    PARTITIONS,
    TOLD,
    TOPIC,
    YIELDED,
    content_of,
)

F_SETPIPE_SZ = 1031  # Linux: a small pipe keeps the victim near what was read
PACKAGE_ROOT = str(Path(minilog.__file__).parent.parent)
MODES = ["polls", "iteration", "commits", "transform"]
SYNCS = ["never", "interval", "always"]


class Account:
    """What a group may have committed of each partition, by what its members told."""

    def __init__(self, mode: str, committed: dict[int, int]) -> None:
        self._is_auto = mode in ("polls", "iteration")
        self.sure = dict(committed)  # at least this
        self.possible = {number: {offset} for number, offset in committed.items()}
        self._given: dict[int, dict[int, int]] = {}  # by member and partition
        self._asked: dict[int, dict[int, int]] = {}  # when it last asked for more
        self.has_opened = False
        self.given_count = 0

    def take(self, what: int, member: int, partition: int, offset: int) -> None:
        """Take in what was told."""
        given = self._given.setdefault(member, {})
        if what == OPENED:
            self.has_opened = True
        elif what == ASKING:
            self._asked[member] = dict(given)
            if self._is_auto:
                for number, reached in given.items():
                    self.possible.setdefault(number, set()).add(reached)
        elif what == ANSWERED and self._is_auto:
            for number, asked in self._asked[member].items():
                self.sure[number] = max(asked, self.sure.get(number, 0))
        elif what in (GIVEN, YIELDED):
            self.given_count += 1
            # While one iterates, the record that was yielded last is not done before it asks on.
            given[partition] = offset + (what == YIELDED)
        elif what == COMMITTING:
            self.possible.setdefault(partition, set()).add(offset)
        elif what == COMMITTED:
            self.sure[partition] = offset

    def check(self, committed: dict[int, int]) -> None:
        """Say if something else was committed than may have been."""
        for number in range(PARTITIONS):
            offset = committed.get(number)
            sure = self.sure.get(number)
            told = f"partition {number}: {offset} is committed, {sure} surely was"
            assert (offset or 0) >= (sure or 0), told
            assert offset is None or offset in self.possible.get(number, ()), (
                f"{told}, it may be {sorted(self.possible.get(number, ()))[-20:]}"
            )


class Victim:
    """A consuming process; leaving the block kills it."""

    def __init__(self, path: Path, mode: str, sync: str, seed: int, account: Account) -> None:
        self._account = account
        command = [sys.executable, victims.__file__, str(path), mode, sync, str(seed)]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": PACKAGE_ROOT, "PYTHONDONTWRITEBYTECODE": "1"},
            bufsize=0,
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        if sys.platform == "linux":
            fcntl.fcntl(self._pipe, F_SETPIPE_SZ, 4096)
        assert self._take() == IMPORTED

    def _take(self) -> int | None:
        data = b""
        while len(data) < TOLD.size:
            piece = self._pipe.read(TOLD.size - len(data))
            if not piece:
                return None
            data += piece
        what, member, partition, offset = TOLD.unpack(data)
        self._account.take(what, member, partition, offset)
        return int(what)

    def run(self, messages: int) -> None:
        """Take so many messages."""
        for _ in range(messages):
            assert self._take() is not None, "the consumer ended by itself"

    def wait(self, seconds: float) -> None:
        """Let it run for a while."""
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return
        raise AssertionError("the consumer ended by itself")

    def __enter__(self) -> Victim:
        return self

    def __exit__(self, kind: object, *raised: object) -> None:
        self._process.kill()
        while self._take() is not None:
            pass
        self._pipe.close()
        ended = self._process.wait()
        assert kind is not None or ended == -9, f"it ended by {ended}"


def make_log(path: Path) -> None:
    """Make the log that victims consume."""
    with Broker(path) as broker:
        broker.create_topic(TOPIC, PARTITIONS, segment_bytes=4096)
        broker.create_topic(OUTPUT, OUTPUTS, segment_bytes=4096)


def committed_in(broker: Broker) -> dict[int, int]:
    """Return the group's committed offsets."""
    group = broker.groups.get(GROUP)
    return {} if group is None else {tp.partition: n for tp, n in group.committed().items()}


def assert_read_on(broker: Broker, committed: dict[int, int]) -> int:
    """A member gets every record from the committed offset on, and none below it."""
    given: dict[int, list[int]] = {number: [] for number in range(PARTITIONS)}
    with Consumer(broker, TOPIC, group=GROUP, auto_commit=False) as member:
        for record in member.drain():
            assert record.value == content_of(record.partition, record.offset)
            given[record.partition].append(record.offset)
    for partition in broker.topic(TOPIC):
        number = partition.index
        due = list(range(committed.get(number, 0), partition.end_offset))
        assert given[number] == due, f"partition {number} from {committed.get(number)} on"
        partition.check()
    assert committed_in(broker) == committed
    return sum(map(len, given.values()))


def assert_exactly_once(broker: Broker, committed: dict[int, int]) -> None:
    """Each input below the committed offsets has one output, in order, and no other has any."""
    reader = Consumer(broker, OUTPUT, isolation="read_committed")
    found: dict[tuple[int, int], list[int]] = {}
    for record in reader.drain():
        partition, offset = map(int, record.value.split(b"/"))
        assert offset % OUTPUTS == record.partition
        found.setdefault((partition, record.partition), []).append(offset)
    reader.close()
    for number in range(PARTITIONS):
        for output in range(OUTPUTS):
            due = [n for n in range(committed.get(number, 0)) if n % OUTPUTS == output]
            assert found.get((number, output), []) == due, f"of {number} in output {output}"


def kill_some(
    path: Path, mode: str, sync: str, kills: int, chance: random.Random, counts: Counter[str]
) -> None:
    """Kill one consuming process after another, and look at what each leaves."""
    make_log(path)
    committed: dict[int, int] = {}
    account = Account(mode, committed)
    for _ in range(kills):
        with Victim(path, mode, sync, chance.getrandbits(32), account) as victim:
            if chance.random() < 0.25:
                victim.wait(chance.uniform(0, 0.05))
            else:
                victim.run(chance.randrange(1, 100 if sync == "always" else 600))
        counts["kills"] += 1
        if chance.random() < 0.2:  # the next victim goes on by itself
            account = after(account, mode, path, counts, is_read_only=True)
        else:
            account = after(account, mode, path, counts, is_read_only=False)


def after(
    account: Account, mode: str, path: Path, counts: Counter[str], *, is_read_only: bool
) -> Account:
    """Look at what a victim has left; return the account of the next one."""
    counts["given"] += account.given_count
    with Broker(path, read_only=is_read_only) as broker:
        committed = committed_in(broker)
        account.check(committed)
        if mode == "transform":
            assert_exactly_once(broker, committed)
        if not is_read_only:
            counts["given_again"] += assert_read_on(broker, committed)
    return Account(mode, committed)
