"""The contract of opening, locking, closing and forking a broker."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import minilog
from minilog import Broker, ClosedError, ConfigError, LockedError, Producer

HOLD_LOCK = """
import sys, minilog
broker = minilog.Broker(sys.argv[1])
broker.create_topic("held", exist_ok=True)
print("ready", flush=True)
sys.stdin.read()
broker.close()
"""
TRY_LOCK = """
import sys, minilog
try:
    minilog.Broker(sys.argv[1]).close()
    print("free")
except minilog.LockedError as error:
    print(error.pid)
"""
WATCH_WRITES = """
import os, sys, minilog, minilog.testing
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os." + name for name in (
    "mkdir", "rename", "remove", "rmdir", "truncate", "link", "symlink", "chmod", "chown", "utime",
    "setxattr", "removexattr")}
writes = []
def watch(event, args):
    if event in CHANGES or event == "open" and args[2] & WRITING and args[0] != os.devnull:
        writes.append((event, args))
sys.addaudithook(watch)
"""


@pytest.fixture
def holder(
    log_path: Path, python_command: Callable[..., list[str]]
) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the log open for writing until its standard input ends."""
    process = subprocess.Popen(
        python_command(HOLD_LOCK, log_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with process:
        yield process
        if process.poll() is None:
            process.kill()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    "spell",
    [
        str,
        Path,
        lambda path: f"{path}/",
        lambda path: os.path.relpath(path),
        lambda path: path.parent / "link",
        lambda path: path.parent / "." / "log" / ".." / "log",
    ],
)
def test_a_path_may_be_spelled_in_any_way_and_is_one_log(
    log_path: Path, spell: Callable[[Path], Any]
) -> None:
    log_path.mkdir()
    (log_path.parent / "link").symlink_to(log_path, target_is_directory=True)
    with Broker(spell(log_path)) as broker:
        broker.create_topic("t")[0].append(b"v")
        for other in (log_path, str(log_path), log_path.parent / "link"):
            with pytest.raises(LockedError):
                Broker(other)
    with Broker(log_path) as broker:
        assert list(broker.topic("t")[0].read(0).values) == [b"v"]


@pytest.mark.parametrize("name", ["with space", "ünï-🔑", "a%sb{0}", "-n", ":memory", "x" * 200])
def test_a_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    for _ in range(2):
        with Broker(tmp_path / name) as broker:
            broker.create_topic("t", exist_ok=True)[0].append(b"v")
    assert os.listdir(tmp_path) == [name]
    assert minilog.verify(tmp_path / name).record_count == 2


@pytest.mark.parametrize("wrong", [None, 3, 1.5, ["log"], object()])
def test_a_path_of_another_type_is_refused(wrong: Any) -> None:
    with pytest.raises((TypeError, ConfigError)):
        Broker(wrong)


def test_a_path_that_is_a_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    with pytest.raises((OSError, minilog.MinilogError)):
        Broker(file)
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_directories_are_made_private_whatever_the_umask(log_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with Broker(log_path, segment_bytes=256) as broker:
            topic = broker.create_topic("t", partitions=2)
            for _ in range(50):
                topic[0].append(b"v" * 50)
            topic.configure(segment_bytes=512)
            topic.add_partitions(3)
            topic[0].delete_before(20)
            broker.delete_topic(broker.create_topic("gone").name)
            broker.flush()
        found = [log_path, *log_path.rglob("*")]
    finally:
        os.umask(before)
    assert {mode(path) for path in found if path.is_dir()} == {0o700}
    assert {mode(path) for path in found if path.is_file()} == {0o600}


def test_a_relative_path_is_not_lost_by_changing_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with Broker("log", segment_bytes=256) as broker:
        topic = broker.create_topic("t")
        monkeypatch.chdir(tmp_path / "elsewhere")
        for _ in range(50):
            topic[0].append(b"v" * 50)
        broker.create_topic("u")
        topic.configure(segment_bytes=512)
        broker.delete_topic("u")
    assert os.listdir() == []
    with Broker(tmp_path / "log") as broker:
        assert (list(broker.topics), len(broker.topic("t")[0])) == (["t"], 50)


def test_a_log_may_be_moved(log_path: Path) -> None:
    with Broker(log_path, segment_bytes=256) as broker:
        for _ in range(50):
            broker.create_topic("t", exist_ok=True)[0].append(b"v" * 50)
    moved = log_path.rename(log_path.with_name("moved"))
    with Broker(moved) as broker:
        assert broker.recovery.ok
        assert len(list(broker.topic("t")[0])) == 50
    assert not log_path.exists()


def test_a_log_in_memory_touches_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_python: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run_python(
        WATCH_WRITES
        + """
with minilog.Broker(":memory:", segment_bytes=256, sync="always") as broker:
    topic = broker.create_topic("t", partitions=2)
    for n in range(500):
        topic[n % 2].append(b"v" * 50, key=b"k")
    topic[0].delete_before(100)
    topic.configure(segment_bytes=512)
    topic.add_partitions(3)
    broker.flush()
    assert len(list(topic[1])) == 250
    broker.delete_topic("t")
print(writes)
"""
    )
    assert printed == "[]\n"
    assert os.listdir(tmp_path) == []


def test_logs_in_memory_are_apart_and_forgotten() -> None:
    with Broker(":memory:") as first, Broker(":memory:") as second:
        first.create_topic("t")
        assert list(second.topics) == []
    with Broker(":memory:") as third:
        assert list(third.topics) == []
        assert third.recovery.ok


def test_a_second_writer_in_this_process_is_refused_with_its_pid(
    log_path: Path, run_python: Callable[..., str]
) -> None:
    with Broker(log_path) as broker:
        for _ in range(3):
            with pytest.raises(LockedError) as caught:
                Broker(log_path)
            assert caught.value.pid == os.getpid()
            assert str(os.getpid()) in str(caught.value)
            assert str(log_path) in str(caught.value.path)
        broker.create_topic("t")[0].append(b"v")
        assert run_python(TRY_LOCK, log_path) == f"{os.getpid()}\n"  # a refusal frees nothing
    assert run_python(TRY_LOCK, log_path) == "free\n"


def test_a_second_writer_is_refused_with_the_pid_of_the_other_process(
    log_path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(LockedError) as caught:
        Broker(log_path)
    assert caught.value.pid == holder.pid
    holder.communicate("")
    with Broker(log_path) as broker:
        assert broker.recovery.ok
        assert list(broker.topics) == ["held"]


def test_the_lock_is_free_once_its_holder_is_killed(
    log_path: Path, holder: subprocess.Popen[str]
) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with Broker(log_path) as broker:
        assert list(broker.topics) == ["held"]


@pytest.mark.parametrize("sync", ["never", "interval", "always"])
def test_kill_9_costs_nothing_that_was_acknowledged(
    log_path: Path, run_python: Callable[..., str], sync: str
) -> None:
    printed = run_python(
        """
import os, signal, sys, minilog
broker = minilog.Broker(sys.argv[1], sync=sys.argv[2], segment_bytes=512)
partition = broker.create_topic("t", partitions=2)[1]
for n in range(100):
    partition.append(b"%d" % n)
    print(*partition.append_many([b"%d" % n] * 2), flush=True)
broker.topic("t").configure(max_record_bytes=77)
partition.delete_before(5)
os.kill(os.getpid(), signal.SIGKILL)
""",
        log_path,
        sync,
        returncode=-signal.SIGKILL,
    )
    assert printed.split()[-1] == "299"
    with Broker(log_path) as broker:
        partition = broker.topic("t")[1]
        assert (partition.start_offset, partition.end_offset) == (5, 300)
        assert [r.value for r in partition] == [b"%d" % (n // 3) for n in range(5, 300)]
        assert broker.topic("t").config.max_record_bytes == 77
        assert str(broker.recovery)
        assert partition.append(b"next") == 300


@pytest.mark.parametrize("sync", ["never", "interval", "always"])
def test_flush_and_a_copy_of_the_live_directory_hold_everything(log_path: Path, sync: Any) -> None:
    with Broker(log_path, sync=sync, segment_bytes=512) as broker:
        producer = Producer(broker)
        broker.create_topic("t", partitions=3)
        for n in range(100):
            producer.send("t", b"v" * n, key=b"%d" % n)
        broker.flush()
        copy = shutil.copytree(log_path, log_path.with_name("copy"))
        with Broker(copy) as copied:
            assert [list(p) for p in copied.topic("t")] == [list(p) for p in broker.topic("t")]


def test_leaving_the_with_block_closes_even_by_an_exception(log_path: Path) -> None:
    broker = Broker(log_path)
    topic = broker.create_topic("t")
    with pytest.raises(ZeroDivisionError), broker:
        raise ZeroDivisionError
    with pytest.raises(ClosedError):
        topic[0].append(b"v")
    with Broker(log_path) as again:
        assert again.recovery.ok


CALLS = (
    "broker.topic('t')",
    "broker.create_topic('u')",
    "broker.create_topic('t', exist_ok=True)",
    "broker.delete_topic('t')",
    "list(broker.topics)",
    "broker.flush()",
    "broker.maintain()",
    "topic.configure(segment_bytes=512)",
    "topic.add_partitions(9)",
    "partition.append(b'v')",
    "partition.append(b'v', expected_offset=0)",
    "partition.append_many([b'v'])",
    "partition.append_many([])",
    "partition.read(0)",
    "partition.read(partition.end_offset, timeout=5)",
    "list(partition)",
    "partition.offset_at(0)",
    "partition.delete_before(1)",
    "producer.send('t', b'v')",
    "producer.send_many('t', [b'v'])",
    "producer.flush()",
    "minilog.Producer(broker)",
    "minilog.Consumer(broker)",
    "minilog.Consumer(broker, 't')",
    "producer.batch()",
)


@pytest.mark.parametrize("call", CALLS)
def test_every_call_after_close_is_a_closed_error(location: Any, call: str) -> None:
    broker = Broker(location)
    topic = broker.create_topic("t")
    partition = topic[0]
    producer = Producer(broker)
    partition.append(b"v")
    broker.close()
    broker.close()
    names = {"broker": broker, "topic": topic, "partition": partition, "producer": producer}
    with pytest.raises(ClosedError):
        eval(call, {"minilog": minilog, **names})
    broker.close()
    if location != ":memory:":
        with Broker(location) as again:
            assert len(again.topic("t")[0]) == 1


FORK = """
import os, signal, subprocess, sys, threading, minilog
location, calls = sys.argv[1], sys.argv[2:]
broker = minilog.Broker(location, segment_bytes=256)
topic = broker.create_topic("t")
partition, producer = topic[0], minilog.Producer(broker)
partition.append(b"v")
ended = threading.Event()
def append():
    while not ended.is_set():
        partition.append(b"busy")
busy = [threading.Thread(target=append) for _ in range(2)]
for thread in busy:
    thread.start()
for call in calls:
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            eval(call)
            answer = "no error"
        except BaseException as error:
            answer = type(error).__name__
        if answer != "ForkedError":
            print(call, answer, flush=True)
        try:
            broker.close()
        except minilog.ForkedError:
            pass
        broker = topic = partition = producer = None
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        print(call, "ended with", status, flush=True)
ended.set()
for thread in busy:
    thread.join()
child = os.fork()
if child == 0:
    sys.exit()  # an ordinary exit, with everything Python does at one
os.waitpid(child, 0)
if location != ":memory:":
    tried = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True)
    if tried.stdout.strip() != str(os.getpid()):
        print("the child freed the lock:", tried)
offset = partition.append(b"the parent goes on")
partition.check()
if [record.offset for record in partition] != list(range(offset + 1)):
    print("the log is torn")
broker.close()
print("end")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_of_fork_gets_forked_error_from_every_call_and_the_parent_goes_on(
    location: Any, run_python: Callable[..., str]
) -> None:
    package = str(Path(minilog.__file__).parent.parent)
    attempt = f"import sys; sys.path.insert(0, {package!r}); sys.argv[1:] = [{str(location)!r}]\n"
    printed = run_python(f"TRY = {attempt + TRY_LOCK!r}\n" + FORK, location, *CALLS)
    assert printed == "end\n"
    if location != ":memory:":
        with Broker(location) as broker:
            assert broker.recovery.ok
            assert list(broker.topic("t")[0])[-1].value == b"the parent goes on"
