"""A real process is killed with signal 9 at some moment; what it acknowledged must be there.

Kills come after a number of acknowledgements, or a time, drawn from a seed that is printed. No
claim is made about timing: wherever the kill lands, the same must hold.
"""

from __future__ import annotations

import fcntl
import random
import subprocess
import sys
from pathlib import Path

import pytest
import writer
from images import crashed_copy, image_of, logs_of
from writer import ACK, IMPORTED, OPENED, TOPIC, append_step, content_of, step_of

import minilog
from minilog import Broker, Topic

F_SETPIPE_SZ = 1031  # Linux: a small pipe keeps the writer near what the test has read
PACKAGE_ROOT = str(Path(minilog.__file__).parent.parent)


class Victim:
    """A writer process, and what it has acknowledged."""

    def __init__(self, path: Path, workload: str, sync: str, partitions: int) -> None:
        self.acknowledged = dict.fromkeys(range(partitions), 0)
        self.has_opened = False
        command = [sys.executable, writer.__file__, str(path), workload, sync, str(partitions)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env={"PYTHONPATH": PACKAGE_ROOT}, bufsize=0
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        if sys.platform == "linux":
            fcntl.fcntl(self._pipe, F_SETPIPE_SZ, 4096)
        assert self._take() == IMPORTED

    def _take(self) -> int | None:
        data = b""
        while len(data) < ACK.size:
            piece = self._pipe.read(ACK.size - len(data))
            if not piece:
                return None
            data += piece
        partition, offset = ACK.unpack(data)
        if partition == OPENED:
            self.has_opened = True
        elif partition != IMPORTED:
            self.acknowledged[partition] = offset
        return int(partition)

    def run(self, acknowledgements: int) -> None:
        """Take so many acknowledgements."""
        for _ in range(acknowledgements):
            assert self._take() is not None, "the writer ended by itself"

    def wait(self, seconds: float) -> None:
        """Let it run for a while."""
        with pytest.raises(subprocess.TimeoutExpired):
            self._process.wait(timeout=seconds)

    def __enter__(self) -> Victim:
        return self

    def __exit__(self, *raised: object) -> None:
        """Kill it, and take what it had still acknowledged."""
        self._process.kill()
        while self._take() is not None:
            pass
        assert self._process.wait() == -9
        self._pipe.close()


def make_log(path: Path, partitions: int, segment_bytes: int) -> None:
    with Broker(path) as broker:
        broker.create_topic(
            TOPIC, partitions, segment_bytes=segment_bytes, index_interval_bytes=512
        )


def assert_whole(topic: Topic, acknowledged: dict[int, int], workload: str) -> None:
    """Every acknowledged record is there, and at most the one append that was on its way."""
    for partition in topic:
        end = partition.end_offset
        sure = acknowledged[partition.index]
        assert end in (sure, sure + step_of(workload, sure))
        records = list(partition)
        assert [record.offset for record in records] == list(range(end))
        for record in records:
            expected = content_of(partition.index, record.offset)
            assert (record.key, record.value, record.headers) == expected
        partition.check()


def assert_quiet(path: Path) -> None:
    """Opening and closing what was recovered changes no byte and finds nothing to do."""
    before = image_of(path)
    with Broker(path) as broker:
        assert broker.recovery.ok, str(broker.recovery)
    assert image_of(path) == before
    report = minilog.verify(path)
    assert report.ok, str(report)


def draw(*words: object) -> random.Random:
    seed = writer.number_of(*words)
    print(f"seed {seed} of {words}")
    return random.Random(seed)


@pytest.mark.parametrize("sync", ["never", "interval", "always"])
@pytest.mark.parametrize(
    ("workload", "partitions", "segment_bytes"),
    [
        ("singles", 3, 2048),
        ("batches", 1, 64 * 2**20),
        ("batches", 2, 4096),
        ("mixed", 3, 16 * 1024),
        ("reopening", 2, 1024),
    ],
)
def test_kill_9_costs_nothing_that_was_acknowledged(
    log_path: Path, workload: str, partitions: int, segment_bytes: int, sync: str
) -> None:
    chance = draw("kill", workload, partitions, sync)
    is_slow = sync == "always" or workload == "reopening"
    make_log(log_path, partitions, segment_bytes)
    acknowledged = dict.fromkeys(range(partitions), 0)
    for _ in range(2):
        with Victim(log_path, workload, sync, partitions) as victim:
            victim.acknowledged.update(acknowledged)
            victim.run(chance.randrange(1, 40 if is_slow else 700))
        with Broker(log_path) as broker:
            topic = broker.topic(TOPIC)
            assert_whole(topic, victim.acknowledged, workload)
            for partition in topic:  # and it goes on
                acknowledged[partition.index] = append_step(partition, workload)
        assert_quiet(log_path)
    with Broker(log_path) as broker:
        assert_whole(broker.topic(TOPIC), acknowledged, "nothing on its way")


def test_kills_in_a_row_without_recovery_between_cost_nothing(log_path: Path) -> None:
    """Nobody but the next victim recovers, so recovery is itself killed now and then."""
    chance = draw("in a row")
    make_log(log_path, 2, 8192)
    acknowledged = {0: 0, 1: 0}
    for _ in range(8):
        sync = chance.choice(["never", "always"])
        with Victim(log_path, "batches", sync, 2) as victim:
            victim.acknowledged.update(acknowledged)
            victim.wait(chance.uniform(0, 0.03))
        with Broker(log_path, read_only=True) as broker:
            for partition in broker.topic(TOPIC):
                sure = victim.acknowledged[partition.index]
                assert partition.end_offset in (sure, sure + step_of("batches", sure))
                acknowledged[partition.index] = partition.end_offset
    with Broker(log_path) as broker:
        assert_whole(broker.topic(TOPIC), acknowledged, "nothing on its way")
    assert_quiet(log_path)


@pytest.mark.parametrize("power_cut", [False, True])
def test_kill_9_in_the_middle_of_recovery_changes_nothing_of_its_outcome(
    log_path: Path, tmp_path: Path, power_cut: bool
) -> None:
    chance = draw("recovery", power_cut)
    make_log(log_path, 2, 4 * 2**20)
    with Broker(log_path, sync="never") as broker:
        for partition in broker.topic(TOPIC):
            for _ in range(200):
                append_step(partition, "batches")
        crashed = crashed_copy(log_path, tmp_path / "crashed", power_cut=power_cut)
    for number in range(2):  # a torn append behind the last record
        last = logs_of(crashed, TOPIC, number)[-1]
        data = last.read_bytes().rstrip(b"\0")
        start = -(-len(data) // 8) * 8
        with last.open("r+b") as file:
            file.seek(start)
            file.write(b"\xa5" * 777)
    straight = crashed_copy(crashed, tmp_path / "straight", power_cut=False)
    with Broker(straight) as broker:
        ends = {partition.index: partition.end_offset for partition in broker.topic(TOPIC)}
        assert len(broker.recovery.problems) == 2
    for round_number in range(4):
        target = crashed_copy(crashed, tmp_path / f"killed-{round_number}", power_cut=False)
        for _ in range(2):
            with Victim(target, "reopening", "never", 2) as victim:
                victim.wait(chance.uniform(0, 0.012))
            if victim.has_opened:
                break
        acknowledged = {n: max(ends[n], victim.acknowledged[n]) for n in ends}
        with Broker(target) as broker:
            assert_whole(broker.topic(TOPIC), acknowledged, "reopening")
        assert_quiet(target)
