"""Other processes in the middle of things: a fork, a second writer, a reader, at every operation.

The disk stops before each operation of what is being done, one after the other, and there another
process does something: a child of fork uses all it has inherited and ends, a second writer tries
to open the log, a reader reads all of it. Then what was being done goes on, and nothing has
happened to it.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from images import crashed_copy, image_of

import minilog
from minilog import Broker, ForkedError, LockedError, Topic, UnknownTopicError
from minilog.testing import FaultyDisk

if not hasattr(os, "fork"):
    pytest.skip("this system has no fork", allow_module_level=True)

SETTINGS: dict[str, Any] = {"segment_bytes": 300, "index_interval_bytes": 60}
COMMON: dict[str, Any] = {"sync": "never", "maintenance_interval_ms": 0}

NEIGHBOUR = """
import json
from minilog import Broker, LockedError, MinilogError
for line in sys.stdin:
    what, path = json.loads(line)
    try:
        with Broker(path, read_only=what == "read", sync="never") as broker:
            answer = {"end": "opened"}
            if what == "read":
                answer["topics"] = {
                    topic.name: [
                        [partition.start_offset, [record.value.decode() for record in partition]]
                        for partition in topic
                    ]
                    for topic in broker.topics.values()
                }
    except MinilogError as error:
        answer = {"end": type(error).__name__, "pid": getattr(error, "pid", None)}
    print(json.dumps(answer), flush=True)
"""


class Stopping(FaultyDisk):
    """A disk that stops before a chosen operation and has something else done there."""

    def __init__(self, path: Path, *, maps: bool = True) -> None:
        super().__init__(path, maps=maps)
        self._left = -1
        self._meanwhile: Callable[[], object] = lambda: None
        self.has_stopped = False
        self.is_locked = False

    def stop_at(self, number: int, meanwhile: Callable[[], object]) -> None:
        """Have ``meanwhile`` done before the operation of this number, from now on counted."""
        self._left, self._meanwhile, self.has_stopped = number, meanwhile, False

    def run(self, kind: str, path: str, act: Any, part: Any = None) -> Any:
        if self.is_locked or kind == "lock":
            self._left -= 1
            if self._left == -1 and self.is_locked:
                self.has_stopped = True
                self._meanwhile()
        result = super().run(kind, path, act, part)
        self.is_locked = self.is_locked or kind == "lock"
        return result


class Neighbour:
    """Another process, which opens a log when told to, and says what came of it."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, what: str, path: Path) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, str(path)]) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        assert self._process.wait(timeout=60) == 0
        self._process.stdout.close()


@pytest.fixture
def neighbour(python_command: Callable[..., list[str]]) -> Iterator[Neighbour]:
    neighbour = Neighbour(python_command(NEIGHBOUR))
    yield neighbour
    neighbour.end()


# ---------------------------------------------------------------- what is being done


def fill(broker: Broker, count: int = 10) -> None:
    partition = broker.create_topic("t", **SETTINGS)[0]
    for number in range(count):
        partition.append(b"%d" % number * 20)


def values(first: int, count: int) -> list[str]:
    return [f"{number}" * 20 for number in range(first, count)]


class Doing:
    """Something being done to a log that has ten records, and what a reader may see meanwhile."""

    maps = True
    operations = 5  # at least
    step = 1  # one of how many is stopped before

    def prepare(self, disk: Stopping) -> Broker | None:
        broker = Broker(disk, **COMMON)
        fill(broker)
        self.topic = broker.topic("t")
        return broker

    def act(self, broker: Broker | None, disk: Stopping) -> Broker:
        raise AssertionError("each does something")

    def is_legal(self, start: int, found: list[str]) -> bool:
        return start == 0 and found == values(0, len(found)) and 10 <= len(found) <= 11

    def end(self, broker: Broker) -> list[str]:
        return [record.value.decode() for record in broker.topic("t")[0]]  # type: ignore[union-attr]

    expected = values(0, 11)


class Append(Doing):
    """By writing, so that there is an operation to stop at."""

    maps = False
    operations = 1

    def act(self, broker: Broker | None, disk: Stopping) -> Broker:
        assert broker is not None
        broker.topic("t")[0].append(b"10" * 20)
        return broker


class Roll(Append):
    maps = True
    operations = 5

    def act(self, broker: Broker | None, disk: Stopping) -> Broker:
        path = Path(disk.root_directory().path) / "t" / "0"
        before = len(list(path.glob("*.log")))
        broker = super().act(broker, disk)
        assert len(list(path.glob("*.log"))) == before + 1
        return broker


class Recovery(Doing):
    expected = values(0, 10)
    operations = 30
    step = 3

    def prepare(self, disk: Stopping) -> Broker | None:
        root = Path(disk.root_directory().path)
        away = root.parent / "away"
        with Broker(away, **COMMON) as broker:
            fill(broker)
            crashed_copy(away, root, power_cut=True)
        return None

    def act(self, broker: Broker | None, disk: Stopping) -> Broker:
        return Broker(disk, **COMMON)

    def is_legal(self, start: int, found: list[str]) -> bool:
        return start == 0 and found == values(0, 10)


class DeleteBefore(Doing):
    expected = values(7, 10)

    def act(self, broker: Broker | None, disk: Stopping) -> Broker:
        assert broker is not None
        broker.topic("t")[0].delete_before(7)
        return broker

    def is_legal(self, start: int, found: list[str]) -> bool:
        return start in (0, 7) and found == values(start, 10)


class DeleteTopic(Doing):
    expected = values(0, 0)
    operations = 3

    def act(self, broker: Broker | None, disk: Stopping) -> Broker:
        assert broker is not None
        broker.delete_topic("t")
        return broker

    def is_legal(self, start: int, found: list[str]) -> bool:
        return start == 0 and found == values(0, 10)

    def end(self, broker: Broker) -> list[str]:
        with pytest.raises(UnknownTopicError):
            broker.topic("t")
        return []


DOINGS = {each.__name__: each for each in (Append, Roll, Recovery, DeleteBefore, DeleteTopic)}


def at_every_operation(
    tmp_path: Path, name: str, meanwhile: Callable[[Path, Doing, Broker | None], object]
) -> int:
    """Do something again and again, each time stopped before another operation after the lock was
    taken; return how many there are."""
    step = DOINGS[name].step
    for number in range(step - 1, 1000, step):
        doing = DOINGS[name]()
        path = tmp_path / str(number) / "log"
        path.parent.mkdir()
        disk = Stopping(path, maps=doing.maps)
        broker = doing.prepare(disk)
        disk.stop_at(number, lambda p=path, d=doing, b=broker: meanwhile(p, d, b))  # type: ignore[misc]
        broker = doing.act(broker, disk)
        has_stopped = disk.has_stopped
        disk.stop_at(-1, lambda: None)
        assert doing.end(broker) == doing.expected
        with pytest.raises(LockedError):
            Broker(path)
        broker.close()
        with Broker(path) as again:
            assert again.recovery.ok, str(again.recovery)
            assert doing.end(again) == doing.expected
        assert minilog.verify(path).ok, str(minilog.verify(path))
        if not has_stopped and number >= step:
            return number
    raise AssertionError("it never ends")


# ---------------------------------------------------------------- the other process


@pytest.mark.parametrize("name", DOINGS)
def test_a_second_writer_is_refused_at_every_operation(
    tmp_path: Path, name: str, neighbour: Neighbour
) -> None:
    def write(path: Path, doing: Doing, broker: Broker | None) -> None:
        before = image_of(path)
        assert neighbour.ask("write", path) == {"end": "LockedError", "pid": os.getpid()}
        with pytest.raises(LockedError) as caught:
            Broker(path)
        assert caught.value.pid == os.getpid()
        assert image_of(path) == before, "who was refused has changed something"

    assert at_every_operation(tmp_path, name, write) >= DOINGS[name].operations


@pytest.mark.parametrize("name", DOINGS)
def test_a_reader_in_another_process_sees_a_right_prefix_at_every_operation(
    tmp_path: Path, name: str, neighbour: Neighbour
) -> None:
    def read(path: Path, doing: Doing, broker: Broker | None) -> None:
        before = image_of(path)
        answer = neighbour.ask("read", path)
        assert answer["end"] == "opened", answer
        if "t" in answer["topics"]:
            ((start, found),) = answer["topics"]["t"]
            assert doing.is_legal(start, found), (start, found)
        else:
            assert name == "DeleteTopic"
        assert image_of(path) == before, "a reader has changed something"

    assert at_every_operation(tmp_path, name, read) >= DOINGS[name].operations


def in_child(act: Callable[[], object]) -> None:
    """Fork, act in the child and end it as an interpreter ends; what it raises is raised here."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            act()
            atexit._run_exitfuncs()
        except BaseException as error:
            os.write(writing, repr(error).encode()[:4000])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        raised = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    assert not raised, raised


def use_what_was_inherited(broker: Broker, topic: Topic) -> None:
    """All of it refuses; nothing waits for a lock whose owner is not in this process."""
    for call in (
        lambda: broker.topic("t"),
        lambda: broker.create_topic("new"),
        lambda: broker.delete_topic("t"),
        broker.flush,
        broker.close,
        lambda: topic[0],
        lambda: topic.configure(segment_bytes=512),
        lambda: topic.all_partitions[0].append(b"x"),
        lambda: topic.all_partitions[0].append_many([b"x"]),
        lambda: topic.all_partitions[0].read(0),
        lambda: topic.all_partitions[0].delete_before(1),
    ):
        with pytest.raises((ForkedError, UnknownTopicError)) as caught:
            call()
        # The topic may have been taken away just before.
        assert caught.type is ForkedError or topic not in broker._topics.values()


@pytest.mark.parametrize("name", DOINGS)
def test_a_child_of_fork_at_every_operation_refuses_and_harms_nothing(
    tmp_path: Path, name: str
) -> None:
    def fork(path: Path, doing: Doing, broker: Broker | None) -> None:
        before = image_of(path)

        def act() -> None:
            if broker is not None:
                use_what_was_inherited(broker, doing.topic)
            with pytest.raises(LockedError) as caught:
                Broker(path)
            assert caught.value.pid == os.getppid()

        in_child(act)
        assert image_of(path) == before, "the child has changed something"

    assert at_every_operation(tmp_path, name, fork) >= DOINGS[name].operations


@pytest.mark.parametrize("name", DOINGS)
def test_a_child_of_fork_reads_with_a_broker_of_its_own_at_every_operation(
    tmp_path: Path, name: str
) -> None:
    def fork(path: Path, doing: Doing, broker: Broker | None) -> None:
        def act() -> None:
            with Broker(path, read_only=True) as reading:
                if "t" in reading.topics or name != "DeleteTopic":
                    partition = reading.topic("t")[0]
                    found = [record.value.decode() for record in partition]  # type: ignore[union-attr]
                    assert doing.is_legal(partition.start_offset, found), found

        in_child(act)

    assert at_every_operation(tmp_path, name, fork) >= DOINGS[name].operations


def test_a_child_of_fork_that_outlives_its_parents_broker_does_not_keep_the_lock(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    broker = Broker(path, **COMMON)
    fill(broker)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)  # until the parent says so, or is gone
        os._exit(0)
    os.close(reading)
    broker.close()
    with Broker(path) as again:
        assert again.topic("t")[0].append(b"more") == 10
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 0


def append_one(path: str) -> None:
    """What a spawned process does: it inherits nothing."""
    with Broker(path) as broker:
        broker.topic("t")[0].append(b"spawned")


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_processes_of_every_kind_take_turns(tmp_path: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot start processes by {method}")
    path = tmp_path / "log"
    with Broker(path, **COMMON) as broker:
        fill(broker)
    context = multiprocessing.get_context(method)
    for _ in range(2):
        process = context.Process(target=append_one, args=(str(path),))
        process.start()
        process.join(120)
        assert process.exitcode == 0
    with Broker(path) as broker:
        assert broker.recovery.ok
        assert broker.topic("t")[0].read(10).values == [b"spawned"] * 2
