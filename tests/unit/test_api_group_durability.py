"""Committed offsets over closing, killing and reopening, as the contract of groups says.

Knows only the public face.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from members import GROUP, filled, offsets

from minilog import Broker, Consumer, TopicPartition

LEVELS = ("never", "interval", "always")
A0 = TopicPartition("a", 0)

COMMIT_AND_DIE = """
import os, signal, sys
from minilog import Broker, Consumer
broker = Broker(sys.argv[1], sync=sys.argv[2])
consumer = Consumer(broker, "a", group="billing", auto_commit=False)
for _ in range(int(sys.argv[3])):
    for record in consumer.poll(max_records=1):
        consumer.commit(record)
        print(consumer.committed(("a", 0)), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
POLL_AND_DIE = """
import os, signal, sys
from minilog import Broker, Consumer
broker = Broker(sys.argv[1])
consumer = Consumer(broker, "a", group="billing", max_poll_records=3)
for _ in range(int(sys.argv[2])):
    for record in consumer.poll():
        print(record.offset, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
FORK = """
import os, sys
from minilog import Broker, Consumer, ForkedError
broker = Broker(sys.argv[1])
consumer = Consumer(broker, "a", group="billing")
assert len(consumer.poll(max_records=3)) == 3
child = os.fork()
if not child:
    refused = 0
    calls = [consumer.poll, consumer.commit, lambda: consumer.commit({("a", 0): 9}),
             lambda: broker.groups["billing"].committed(),
             lambda: broker.groups["billing"].reset(to=9),
             lambda: broker.delete_group("billing"),
             lambda: Consumer(broker, "a", group="billing")]
    for call in calls:
        try:
            call()
        except ForkedError:
            refused += 1
    try:
        consumer.close()
    except ForkedError:
        pass
    os._exit(len(calls) - refused)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert len(consumer.poll()) == 7
consumer.close()
print(broker.groups["billing"].committed()[("a", 0)])
broker.close()
"""


def member(broker: Broker, *topics: str, **settings: Any) -> Consumer:
    return Consumer(broker, *(topics or ("a",)), group=GROUP, **settings)


@pytest.mark.parametrize("sync", LEVELS)
def test_commits_survive_a_close(tmp_path: Path, sync: Any) -> None:
    with Broker(tmp_path / "log", sync=sync) as broker:
        filled(broker, "a", 10, 10)
        with member(broker, auto_commit=False) as consumer:
            consumer.poll()
            for offset in range(1, 8):
                consumer.commit({A0: offset})
            consumer.commit({("a", 1): 2})
    for _ in range(2):
        with Broker(tmp_path / "log", sync=sync) as broker:
            assert broker.recovery.ok, broker.recovery
            assert broker.groups[GROUP].committed() == {A0: 7, ("a", 1): 2}
            assert broker.groups[GROUP].lag() == {A0: 3, ("a", 1): 8}
            assert (broker.groups[GROUP].state, dict(broker.groups[GROUP].members)) == ("empty", {})


@pytest.mark.parametrize("sync", LEVELS)
@pytest.mark.parametrize("count", [1, 7])
def test_commits_that_returned_survive_kill_9(
    tmp_path: Path, python_command: Callable[..., list[str]], sync: str, count: int
) -> None:
    with Broker(tmp_path / "log") as broker:
        filled(broker, "a", 10)
    command = python_command(COMMIT_AND_DIE, tmp_path / "log", sync, count)
    died = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert died.returncode == -9, died.stderr
    assert died.stdout.split() == [str(number) for number in range(1, count + 1)]
    with Broker(tmp_path / "log") as broker:
        assert broker.groups[GROUP].committed() == {A0: count}
        assert offsets(member(broker).poll()) == list(range(count, 10))


def test_after_kill_9_everything_the_last_poll_gave_is_given_again(
    tmp_path: Path, python_command: Callable[..., list[str]]
) -> None:
    with Broker(tmp_path / "log") as broker:
        filled(broker, "a", 10)
    command = python_command(POLL_AND_DIE, tmp_path / "log", 3)
    died = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert died.returncode == -9, died.stderr
    assert died.stdout.split() == [str(number) for number in range(9)]
    with Broker(tmp_path / "log") as broker:
        assert broker.groups[GROUP].committed() == {A0: 6}
        assert offsets(member(broker).poll()) == [6, 7, 8, 9]


def test_a_child_of_fork_has_no_group_and_the_parent_goes_on(
    tmp_path: Path, run_python: Callable[..., str]
) -> None:
    with Broker(tmp_path / "log") as broker:
        filled(broker, "a", 10)
    assert run_python(FORK, tmp_path / "log").split() == ["0", "10"]
    with Broker(tmp_path / "log") as broker:
        assert broker.groups[GROUP].committed() == {A0: 10}


def test_group_names_of_any_letters_survive(tmp_path: Path) -> None:
    names = ["Größe/1", "a b c", "消费者", "x" * 249, "é" * 249, "UPPER", "upper", ".", "__ours"]
    with Broker(tmp_path / "log") as broker:
        filled(broker, "a", 20)
        for number, name in enumerate(names):
            with Consumer(broker, "a", group=name) as consumer:
                consumer.poll(max_records=number + 1)
    with Broker(tmp_path / "log") as broker:
        found = {name: group.committed() for name, group in broker.groups.items()}
        assert found == {name: {A0: number + 1} for number, name in enumerate(names)}
        assert list(broker.groups) == sorted(names)


def test_a_topic_made_again_starts_clean_after_a_reopening_too(tmp_path: Path) -> None:
    with Broker(tmp_path / "log") as broker:
        filled(broker, "a", 10)
        with member(broker) as consumer:
            consumer.poll()
        broker.delete_topic("a")
    with Broker(tmp_path / "log") as broker:
        filled(broker, "a", 12)
        assert member(broker).committed(A0) is None
    with Broker(tmp_path / "log") as broker:
        assert len(member(broker).poll()) == 12


def test_what_was_committed_last_counts_after_thousands_of_commits(tmp_path: Path) -> None:
    with Broker(tmp_path / "log") as broker:
        filled(broker, "a", 100)
        with (
            Broker(tmp_path / "log", read_only=True) as reader,
            member(broker, auto_commit=False) as consumer,
        ):
            consumer.poll()
            for number in range(40_000):
                consumer.commit({A0: number % 101})
                if number % 3999 == 0:
                    assert reader.groups[GROUP].committed() == {A0: number % 101}
    with Broker(tmp_path / "log") as broker:
        assert broker.groups[GROUP].committed() == {A0: 39_999 % 101}
        assert broker.recovery.ok, broker.recovery
    size = sum(path.stat().st_size for path in (tmp_path / "log").rglob("*"))
    assert size < 2_000_000, "commits are kept for ever"


def test_a_commit_beyond_what_survived_a_crash_is_taken_back_and_told(tmp_path: Path) -> None:
    """The tail of the partition was lost with the power; the commit behind it was not. What is
    appended at those offsets afterwards would never be read."""
    with Broker(tmp_path / "log", sync="never") as broker:
        topic = filled(broker, "a", 5)
        broker.flush()
        shutil.copytree(tmp_path / "log" / "a", tmp_path / "before")
        topic[0].append_many([b"v"] * 5)
        with member(broker) as consumer:
            assert len(consumer.poll()) == 10
    shutil.rmtree(tmp_path / "log" / "a")
    shutil.copytree(tmp_path / "before", tmp_path / "log" / "a")
    (tmp_path / "log" / "clean.json").unlink()
    with Broker(tmp_path / "log") as broker:
        assert broker.topic("a")[0].end_offset == 5
        assert not broker.recovery.ok
        assert GROUP in str(broker.recovery)
        assert broker.groups[GROUP].committed() == {A0: 5}
        broker.topic("a")[0].append_many([b"w"] * 3)
        assert offsets(member(broker, auto_offset_reset="none").poll()) == [5, 6, 7]


# -- beside a live writer -----------------------------------------------------------------------


def test_a_read_only_broker_sees_what_the_writer_s_groups_commit(tmp_path: Path) -> None:
    with Broker(tmp_path / "log") as writer:
        filled(writer, "a", 10)
        with Broker(tmp_path / "log", read_only=True) as reader:
            assert GROUP not in reader.groups
            assert list(reader.groups) == []
            with member(writer, auto_commit=False) as consumer:
                consumer.poll()
                for offset in (1, 5, 3):
                    consumer.commit({A0: offset})
                    assert list(reader.groups) == [GROUP]
                    assert reader.groups[GROUP].committed() == {A0: offset}
                    assert reader.groups[GROUP].lag() == {A0: 10 - offset}
            writer.delete_group(GROUP)
            assert list(reader.groups) == []
    with Broker(tmp_path / "log", read_only=True) as reader:
        assert list(reader.groups) == []


def test_a_read_only_broker_without_groups_and_of_a_closed_log_changes_nothing(
    tmp_path: Path,
) -> None:
    with Broker(tmp_path / "log") as broker:
        filled(broker, "a", 10)
        with member(broker) as consumer:
            consumer.poll()
    before = {path: path.stat() for path in (tmp_path / "log").rglob("*")}
    with Broker(tmp_path / "log", read_only=True) as reader:
        assert reader.groups[GROUP].committed() == {A0: 10}
        assert reader.groups[GROUP].lag() == {A0: 0}
    after = {path: path.stat() for path in (tmp_path / "log").rglob("*")}
    assert [(path, stat.st_mtime_ns, stat.st_size) for path, stat in before.items()] == [
        (path, stat.st_mtime_ns, stat.st_size) for path, stat in after.items()
    ]
