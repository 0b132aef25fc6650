"""kill -9 of real writers, at random moments and before every system call that changes a file.

A victim appends, rolls, deletes, reopens or makes topics and acknowledges by a pipe. Whoever opens
its log afterwards must find all that was acknowledged and at most the one step that was on its
way, byte-identical and without a gap; opening it once more must find nothing to do. Recovery is
killed as well, and must end where it ends when nobody kills it.

This module refuses to know how minilog stores anything, but for what a crash leaves: a torn tail,
after a power cut also a hole, and a lock file that names another boot.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import minilog
from minilog import Broker
from tests.crash import writer
from tests.crash.images import crashed_copy, image_of, logs_of
from tests.crash.writer import ACK, IMPORTED, OPENED, STARTS, TOPIC, TOPICS
from tests.torture import children
from tests.torture.rounds import Figures, Rounds

F_SETPIPE_SZ = 1031  # Linux: a small pipe keeps the writer near what was read
CHANGES = (
    "pwrite64,ftruncate,fallocate,fdatasync,fsync,rename,renameat,renameat2,unlink,unlinkat,"
    "mkdir,mkdirat,rmdir"
)
SHAPES = [  # workload, partitions, segment bytes
    ("singles", 3, 2048),
    ("singles", 1, 256),
    ("batches", 1, 64 * 2**20),
    ("batches", 2, 4096),
    ("mixed", 3, 16 * 1024),
    ("deleting", 2, 1024),
    ("reopening", 2, 1024),
    ("topics", 1, 2048),
]
SYNCS = ["never", "interval", "always"]
Acks = dict[int, int]


class Victim:
    """A writer process, and what it has acknowledged.

    Leaving the block kills it, unless ``killed_by`` is the command that will.
    """

    def __init__(
        self,
        path: Path,
        workload: str,
        sync: str,
        partitions: int,
        *,
        steps: int | None = None,
        killed_by: tuple[str, ...] = (),
        pipe_bytes: int = 4096,
        is_quiet: bool = False,
    ) -> None:
        self.told: list[tuple[int, int, int]] = []
        self.has_opened = False
        self._is_killed_by_other = bool(killed_by)
        arguments = [str(path), workload, sync, str(partitions)]
        arguments += [] if steps is None else [str(steps)]
        self._process = (
            subprocess.Popen(
                [*killed_by, sys.executable, writer.__file__, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL if is_quiet else None,
                env=children.ENVIRONMENT,
                bufsize=0,
            )
            if killed_by
            else children.start(writer.__name__, *arguments, is_quiet=is_quiet)
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        if sys.platform == "linux":
            fcntl.fcntl(self._pipe, F_SETPIPE_SZ, pipe_bytes)
        assert self._take()

    def _take(self) -> bool:
        data = b""
        while len(data) < ACK.size:
            piece = self._pipe.read(ACK.size - len(data))
            if not piece:
                return False
            data += piece
        self.told.append(ACK.unpack(data))
        if self.told[-1][0] == OPENED:
            self.has_opened = True
        return True

    def acknowledged(self, before: int | None = None) -> Acks:
        """Return how far each thing had come, by what was told before a moment (ns) or ever."""
        return {
            what: number
            for what, number, when in self.told
            if (before is None or when < before) and what not in (IMPORTED, OPENED)
        }

    def run(self, acknowledgements: int) -> None:
        """Take so many acknowledgements."""
        for _ in range(acknowledgements):
            assert self._take(), "the writer ended by itself"

    def wait(self, seconds: float) -> None:
        """Let it run for a while."""
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return
        raise AssertionError("the writer ended by itself")

    def end(self) -> int:
        """Kill it, take what it had still acknowledged, return how it ended."""
        if not self._is_killed_by_other:
            self._process.kill()
        while not self._pipe.closed and self._take():
            pass
        self._pipe.close()
        return self._process.wait()

    def __enter__(self) -> Victim:
        return self

    def __exit__(self, kind: object, *raised: object) -> None:
        if not self._pipe.closed:
            ended = self.end()
            assert kind is not None or ended == -9, f"it ended by {ended}"


def make_log(path: Path, partitions: int, segment_bytes: int) -> None:
    """Make the log that victims append to."""
    with Broker(path) as broker:
        broker.create_topic(
            TOPIC, partitions, segment_bytes=segment_bytes, index_interval_bytes=512
        )


# ---------------------------------------------------------------- what must be there


@cache
def ends_up_to(workload: str, most: int, victims: int = 1) -> tuple[int, ...]:
    """Return where a partition may end, by whole steps: up to ``most``, and one for each victim."""
    ends = [0]
    while ends[-1] <= most:
        ends.append(ends[-1] + writer.step_of(workload, ends[-1]))
    for _ in range(victims - 1):
        ends.append(ends[-1] + writer.step_of(workload, ends[-1]))
    return tuple(ends)


def assert_whole(
    broker: Broker,
    sure: Acks,
    workload: str,
    *,
    most: Acks | None = None,
    victims: int = 1,
    is_settled: bool = False,
) -> int:
    """Every sure record is there, and none beyond one step after the most that was acknowledged.

    ``most`` is as ``sure`` unless a power cut may have cost some; each victim since may have had
    one step on its way, and none when it is settled. Returns the number of records read.
    """
    count = 0
    for partition in broker.topic(TOPIC):
        least = sure.get(partition.index, 0)
        limit = (most or sure).get(partition.index, 0)
        ends = ends_up_to(workload, limit, victims)
        end, start = partition.end_offset, partition.start_offset
        legal = (least,) if is_settled else tuple(each for each in ends if each >= least)
        assert end in legal, f"{partition}: {least} was acknowledged, it ends at {end}"
        least_start = sure.get(STARTS + partition.index, 0)
        starts = {least_start} | {writer.start_after(each) for each in ends if each <= end}
        assert least_start <= start, f"{partition}: what was deleted is back"
        assert start in starts, f"{partition} begins at {start}, where nobody deleted"
        records = list(partition)
        assert [record.offset for record in records] == list(range(start, end))
        for record in records:
            expected = writer.content_of(partition.index, record.offset)
            assert (record.key, record.value, record.headers) == expected
        partition.check()
        count += len(records)
    steps = sure.get(TOPICS, 0)
    if workload == "topics":
        found = writer.made_topics(broker)
        assert found in (writer.topics_after(steps), writer.topics_after(steps + 1))
        expected_values = [writer.content_of(0, offset)[1] for offset in range(5)]
        for name, (_, records_there) in found.items():
            values = [record.value for record in broker.topic(name)[0]]
            assert values == expected_values[:records_there]
    return count


def assert_quiet(path: Path) -> None:
    """Opening and closing what was recovered changes no byte and finds nothing to do."""
    before = image_of(path)
    with Broker(path) as broker:
        assert broker.recovery.ok, str(broker.recovery)
    assert image_of(path) == before
    report = minilog.verify(path)
    assert report.ok, str(report)


# ---------------------------------------------------------------- killed at random moments


def kill_some(
    path: Path,
    shape: tuple[str, int, int],
    sync: str,
    kills: int,
    chance: random.Random,
    counts: Counter[str],
) -> None:
    """Kill one writer of a log after another, and look at it after each."""
    workload, partitions, segment_bytes = shape
    is_slow = sync == "always" or workload in ("reopening", "topics", "deleting")
    most = 30 if is_slow else 40 if workload == "batches" else 250
    make_log(path, partitions, segment_bytes)
    known: Acks = {}
    for _ in range(kills):
        with Victim(path, workload, sync, partitions) as victim:
            if chance.random() < 0.2:
                victim.wait(chance.uniform(0, 0.05))
            else:
                victim.run(chance.randrange(1, most))
        told = victim.acknowledged()
        counts["kills"] += 1
        counts["kills_while_opening"] += not victim.has_opened
        counts["acknowledged"] += sum(
            end - known.get(what, 0) for what, end in told.items() if what < STARTS
        )
        known |= told
        if chance.random() < 0.5:
            with Broker(path, read_only=True) as broker:
                counts["records_checked"] += assert_whole(broker, known, workload)
                if chance.random() < 0.5:  # the next victim recovers
                    known |= ends_of(broker)
                    continue
        with Broker(path) as broker:
            counts["records_checked"] += assert_whole(broker, known, workload)
            if workload != "topics":  # and it goes on
                for partition in broker.topic(TOPIC):
                    writer.append_step(partition, workload)
            known |= ends_of(broker)
        if chance.random() < 0.5:
            assert_quiet(path)
    with Broker(path) as broker:
        assert_whole(broker, known, workload, is_settled=True)


def ends_of(broker: Broker) -> Acks:
    """Return how far everything has come, by what the log says itself."""
    found: Acks = {}
    for partition in broker.topic(TOPIC):
        found[partition.index] = partition.end_offset
        if partition.start_offset:
            found[STARTS + partition.index] = partition.start_offset
    if len(broker.topics) > 1:
        found[TOPICS] = writer.topic_steps(broker)
    return found


# ---------------------------------------------------------------- recovery, killed


class CrashedLog:
    """A log as a crash leaves it, and where its recovery ends when nobody kills it."""

    workload = "reopening"

    def __init__(self, root: Path, chance: random.Random, *, power_cut: bool) -> None:
        self.root = root
        self._copies = 0
        made = root / "made"
        make_log(made, 2, 2**20)
        with Broker(made, sync="never") as broker:
            for partition in broker.topic(TOPIC):
                while partition.end_offset < 300:
                    writer.append_step(partition, self.workload)
            self._crashed = crashed_copy(made, root / "crashed", power_cut=power_cut)
        for number in range(2):
            self._tear(logs_of(self._crashed, TOPIC, number)[-1], chance, hole=power_cut)
        with Broker(self.copy()) as broker:
            self.ends = ends_of(broker)
            self.problems = len(broker.recovery.problems)

    @staticmethod
    def _tear(log: Path, chance: random.Random, *, hole: bool) -> None:
        data = bytearray(log.read_bytes())
        used = -(-len(data.rstrip(b"\0")) // 8) * 8
        with log.open("r+b") as file:
            if hole:  # nothing was synced: any block may have stayed behind
                file.seek(chance.randrange(1, used // 512 // 2) * 512)
                file.write(bytes(512))
            else:
                file.seek(used)
                file.write(data[64 : 64 + chance.randrange(8, 700)])

    def copy(self) -> Path:
        """Return the log as the crash left it, once more."""
        self._copies += 1
        target = self.root / f"copy-{self._copies}"
        shutil.copytree(self._crashed, target)
        return target

    def check(self, path: Path, victim: Victim) -> int:
        """What a victim left of a copy is recovered as if there had been no victim."""
        sure = {
            what: max(end, victim.acknowledged().get(what, 0)) for what, end in self.ends.items()
        }
        with Broker(path) as broker:
            count = assert_whole(broker, sure, self.workload)
        assert_quiet(path)
        shutil.rmtree(path)
        return count


def kill_recovery(crashed: CrashedLog, chance: random.Random, counts: Counter[str]) -> None:
    """Kill up to two processes that recover the same log, at random moments."""
    path = crashed.copy()
    for _ in range(2):
        with Victim(path, crashed.workload, "never", 2) as victim:
            victim.wait(chance.uniform(0, 0.012))
        counts["kills"] += 1
        counts["kills_while_opening"] += not victim.has_opened
        if victim.has_opened:
            break
    counts["records_checked"] += crashed.check(path, victim)


# ---------------------------------------------------------------- killed at a system call


@cache
def why_no_strace() -> str:
    """Return why system calls cannot be chosen here; empty when they can."""
    if shutil.which("strace") is None:
        return "strace is not there: no kills at chosen system calls"
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=fsync", "true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"strace does not work here: {tried.stderr.strip()}"


def strace(log: str, *options: str) -> tuple[str, ...]:
    """Return the command before a command that has its changes of files traced."""
    chosen = ("-e", f"trace={CHANGES}", "-e", "signal=none", *options)
    return ("strace", "-f", "-qq", "-o", log, *chosen)


def change_count(path: Path, workload: str, sync: str, partitions: int, steps: int) -> int:
    """Return how many system calls of a run of a writer change a file."""
    log = path.with_suffix(".strace")
    tracer = strace(str(log))
    victim = Victim(path, workload, sync, partitions, steps=steps, killed_by=tracer)
    assert victim.end() == 0
    return len(log.read_text().splitlines())


def kill_at_system_calls(
    logs: Iterator[Path],
    shape: tuple[str, int, int],
    sync: str,
    every: int,
    first: int,
    counts: Counter[str],
) -> None:
    """Kill a writer before its N-th change of a file, for every so many-th N there is."""
    workload, partitions, segment_bytes = shape
    steps = 2 if workload == "reopening" else 6
    path = next(logs)
    make_log(path, partitions, segment_bytes)
    changes = change_count(path, workload, sync, partitions, steps)
    for number in range(first, changes + 1, every):
        path = next(logs)
        make_log(path, partitions, segment_bytes)
        victim = killed_at(number, path, workload, sync, partitions, steps)
        counts["kills"] += 1
        counts["kills_at_system_calls"] += 1
        counts["kills_while_opening"] += not victim.has_opened
        with Broker(path) as broker:
            counts["records_checked"] += assert_whole(broker, victim.acknowledged(), workload)
        assert_quiet(path)
        shutil.rmtree(path)


def kill_recovery_at_system_calls(crashed: CrashedLog, every: int, counts: Counter[str]) -> None:
    """Kill recovery before its N-th change of a file, for every so many-th N there is."""
    changes = change_count(crashed.copy(), crashed.workload, "always", 2, 1)
    for number in range(1, changes + 1, every):
        path = crashed.copy()
        victim = killed_at(number, path, crashed.workload, "always", 2, 1)
        counts["kills"] += 1
        counts["kills_at_system_calls"] += 1
        counts["kills_while_opening"] += not victim.has_opened
        counts["records_checked"] += crashed.check(path, victim)


def killed_at(
    number: int, path: Path, workload: str, sync: str, partitions: int, steps: int
) -> Victim:
    """Return a victim that died before its N-th change of a file."""
    tracer = strace(os.devnull, "-e", f"inject={CHANGES}:signal=KILL:when={number}")
    victim = Victim(path, workload, sync, partitions, steps=steps, killed_by=tracer)
    assert victim.end() in (-9, 0)
    return victim


# ---------------------------------------------------------------- the share


def run(minutes: float, seed: int) -> Figures:
    """Kill for as long as told."""
    rounds = Rounds("kills", minutes, seed)
    if why_no_strace():
        print(why_no_strace(), file=sys.stderr)
    for round_seed, chance in rounds:
        root = Path(tempfile.mkdtemp(prefix="minilog-kills-"))
        shape, sync = chance.choice(SHAPES), chance.choice(SYNCS)
        kind = chance.choices(["moments", "recovery", "calls", "calls of recovery"], [80, 10, 7, 3])
        if kind[0].startswith("calls") and why_no_strace():
            kind = ["moments"]
        with rounds.judged(round_seed, f"{kind[0]}, {shape}, {sync}; files in {root}"):
            if kind == ["moments"]:
                kills = chance.randrange(4, 12)
                kill_some(root / "log", shape, sync, kills, chance, rounds.counts)
            elif kind == ["calls"]:
                logs = (root / f"log-{number}" for number in range(10_000))
                shape = chance.choice([each for each in SHAPES if each[0] != "mixed"])
                first = chance.randrange(1, 8)
                kill_at_system_calls(logs, shape, sync, 7, first, rounds.counts)
            else:
                crashed = CrashedLog(root, chance, power_cut=chance.random() < 0.5)
                if kind == ["recovery"]:
                    for _ in range(5):
                        kill_recovery(crashed, chance, rounds.counts)
                else:
                    kill_recovery_at_system_calls(crashed, 3, rounds.counts)
            shutil.rmtree(root)
    return rounds.figures()
