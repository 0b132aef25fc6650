"""No room on the disk, no larger files, no more descriptors: an OSError, and nothing else happens.

Nothing was appended, no offset was used, the process lives, and the log goes on when the cause is
gone. The disk that fills up is a small one in memory, which only root may mount; limits of the
process are set in a child.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import minilog
from minilog import Broker, Consumer, Partition, Producer, StorageError
from minilog.testing import FaultPlan, FaultyDisk

RunPython = Callable[..., str]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path, leave: int = 0) -> Path:
    """Fill a disk but for some bytes; return the file to remove."""
    ballast = path / "ballast"
    with ballast.open("wb") as file:
        written = 0
        for size in (65536, 4096):
            try:
                while True:
                    written += os.write(file.fileno(), b"\xee" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        os.ftruncate(file.fileno(), max(written - leave, 0))
    return ballast


def append_until_full(partition: Partition, append: Callable[[], object]) -> OSError:
    """Append until there is no room; the failing call changes nothing, and so does trying again."""
    while True:
        end, records = partition.end_offset, len(partition)
        try:
            append()
        except OSError as error:
            assert (partition.end_offset, len(partition)) == (end, records)
            with pytest.raises(OSError, match="No space left"):
                append()
            assert (partition.end_offset, len(partition)) == (end, records)
            return error


@pytest.mark.parametrize("sync", ["never", "always"])
@pytest.mark.parametrize("shape", ["single", "with headers", "batch", "large", "rolling"])
def test_an_append_to_a_full_disk_fails_cleanly_and_goes_on_when_there_is_room(
    small_disk: Path, sync: str, shape: str
) -> None:
    path = small_disk / "log"
    with Broker(path, sync=sync) as broker:  # type: ignore[arg-type]
        settings: dict[str, Any] = {"segment_bytes": 20_000} if shape == "rolling" else {}
        partition = broker.create_topic("t", **settings)[0]
        partition.append(b"first")
        ballast = fill(small_disk, leave=150_000)
        number = 0

        def append() -> None:
            nonlocal number
            value = b"%d " % number * 300
            if shape == "with headers":
                partition.append(value, headers=[("h", b"x")])
            elif shape == "batch":
                partition.append_many([value] * 9)
            elif shape == "large":
                partition.append(value * 100)
            else:
                partition.append(value)
            number += 1

        error = append_until_full(partition, append)
        assert error.errno == errno.ENOSPC
        assert number
        end = partition.end_offset
        assert [record.offset for record in partition] == list(range(end))
        partition.check()
        ballast.unlink()
        append()
        assert partition.end_offset > end
        assert [record.offset for record in partition] == list(range(partition.end_offset))
        partition.check()
        end = partition.end_offset
    with Broker(path) as broker:
        assert broker.recovery.ok
        assert [record.offset for record in broker.topic("t")[0]] == list(range(end))
    assert minilog.verify(path).ok


def test_a_topic_on_a_full_disk_is_made_later_or_not_at_all(small_disk: Path) -> None:
    path = small_disk / "log"
    with Broker(path) as broker:
        for leave in (0, 4096, 8192, 16384, 32768, 65536, 131072):
            name = f"t{leave}"
            ballast = fill(small_disk, leave=leave)
            before = sorted(os.listdir(path))
            try:
                broker.create_topic(name, 40, segment_bytes=4096)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                assert sorted(os.listdir(path)) == before
                assert name not in broker.topics
                ballast.unlink()
                broker.create_topic(name, 40, segment_bytes=4096)
            else:
                ballast.unlink()
            assert [partition.append(b"x") for partition in broker.topics[name]] == [0] * 40
            broker.delete_topic(name)
    with Broker(path) as broker:
        assert broker.recovery.ok
        assert not broker.topics


def test_a_full_disk_stops_neither_reading_nor_opening_nor_closing(small_disk: Path) -> None:
    path = small_disk / "log"
    broker = Broker(path)
    partition = broker.create_topic("t", segment_bytes=5000)[0]
    for number in range(50):
        partition.append(b"%d" % number * 100)
    expected = list(partition)
    ballast = fill(small_disk)
    assert list(partition) == expected
    try:
        broker.close()
    except OSError as error:  # the note of a clean close may find no room
        if error.errno != errno.ENOSPC:
            raise
    with Broker(path, read_only=True) as reading:
        assert list(reading.topic("t")[0]) == expected
    ballast.unlink()
    with Broker(path) as broker:
        assert list(broker.topic("t")[0]) == expected
        assert broker.topic("t")[0].append(b"more") == 50


def test_a_crash_s_transactions_that_find_no_room_keep_the_log_shut_and_say_why(
    log_path: Path,
) -> None:
    """What they came to has to be written before anything else is. It was a bare OSError."""
    disk = FaultyDisk(log_path)
    crashed = Broker(disk)
    crashed.create_topic("t")
    producer = Producer(crashed)
    with producer.transaction() as transaction:
        transaction.send("t", b"committed")
    producer.transaction().send("t", b"open")
    crashed.refuse_in_child()  # as the end of its process does
    disk.arm(FaultPlan("ENOSPC", lasts=True, operations=frozenset({"reserve", "write"})))
    for _ in range(2):
        with pytest.raises(StorageError, match=r"ENOSPC.*open it again") as caught:
            Broker(disk)
        assert isinstance(caught.value.__cause__, OSError)
        with Broker(disk, read_only=True) as reading:
            consumer = Consumer(reading, "t", isolation="read_committed")
            assert [record.value for record in consumer.drain()] == [b"committed"]
    disk.mend()
    with Broker(disk) as broker:
        assert [record.value for record in broker.topic("t")[0]] == [b"committed"]
        assert broker.topic("t")[0].append(b"more") == 3
    assert minilog.verify(log_path).ok


def test_changing_a_topic_on_a_full_disk_changes_nothing(small_disk: Path) -> None:
    path = small_disk / "log"
    with Broker(path) as broker:
        topic = broker.create_topic("t")
        for number in range(10):
            topic[0].append(b"%d" % number)
        ballast = fill(small_disk)
        with pytest.raises(OSError, match="No space left"):
            topic.configure(segment_bytes=4096)
        with pytest.raises(OSError, match="No space left"):
            topic.add_partitions(5)
        with pytest.raises(OSError, match="No space left"):
            topic[0].delete_before(5)
        assert topic.config.segment_bytes != 4096
        assert (len(topic), topic[0].start_offset, len(topic[0])) == (1, 0, 10)
        ballast.unlink()
        topic.configure(segment_bytes=4096)
        topic.add_partitions(5)
        topic[0].delete_before(5)
        assert [partition.append(b"x") for partition in topic] == [10, 0, 0, 0, 0]
    with Broker(path) as broker:
        assert broker.recovery.ok
        assert len(broker.topic("t")) == 5
        assert broker.topic("t")[0].start_offset == 5
    assert minilog.verify(path).ok


LIMITED_FILES = """
import errno, resource
from minilog import Broker
path, = sys.argv[1:]
with Broker(path, sync="never") as broker:
    partition = broker.create_topic("t")[0]
    partition.append(b"first")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        while True:
            partition.append(b"x" * 500)
    except OSError as error:
        assert error.errno == errno.EFBIG, error
    end = partition.end_offset
    assert end > 100
    for value in (b"y" * 70_000, b"z" * 500):
        try:
            partition.append(value, headers=[("h", b"")])
        except OSError as error:
            assert error.errno == errno.EFBIG, error
        else:
            raise AssertionError("a file beyond the limit")
    assert partition.end_offset == end == len(list(partition))
    partition.check()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert partition.append(b"z" * 70_000) == end
    partition.check()
with Broker(path) as broker:
    assert broker.recovery.ok
    assert len(list(broker.topic("t")[0])) == end + 1
print("lives")
"""


def test_a_limit_on_the_size_of_files_is_an_error_and_no_signal(
    log_path: Path, run_python: RunPython
) -> None:
    assert run_python(LIMITED_FILES, log_path) == "lives\n"


LIMITED_DESCRIPTORS = """
import errno, os, resource
from minilog import Broker
path, = sys.argv[1:]
with Broker(path, sync="never", maintenance_interval_ms=0) as broker:
    topic = broker.create_topic("t", 4, segment_bytes=400, index_interval_bytes=64)
    for number in range(40):
        topic[number % 4].append(b"%d" % number * 30)
    taken = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    def take_all():
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            assert error.errno == errno.EMFILE
    take_all()
    ends = [partition.end_offset for partition in topic]
    failed = 0
    for number in range(200):
        partition = topic[number % 4]
        try:
            partition.append(b"%d" % number * 30)
            ends[number % 4] += 1
        except OSError as error:
            assert error.errno == errno.EMFILE, error
            failed += 1
        assert partition.end_offset == ends[number % 4]
    take_all()  # maps were let go for what was appended
    try:
        broker.create_topic("other", 5)
        os._exit(3)
    except OSError as error:
        assert error.errno == errno.EMFILE, error
    assert list(broker.topics) == ["t"]
    for fd in taken:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "other" not in os.listdir(path)
    for partition in topic:
        assert partition.append(b"goes on") == ends[partition.index]
        assert [r.offset for r in partition] == list(range(ends[partition.index] + 1))
        partition.check()
    broker.create_topic("other", 5)
with Broker(path) as broker:
    assert broker.recovery.ok, str(broker.recovery)
    for partition in broker.topic("t"):
        assert len(list(partition)) == ends[partition.index] + 1
print("failed" if failed else "managed without")
"""


def test_no_descriptors_left_is_an_error_and_the_log_goes_on_when_there_are(
    log_path: Path, run_python: RunPython
) -> None:
    assert run_python(LIMITED_DESCRIPTORS, log_path) in ("failed\n", "managed without\n")
    assert minilog.verify(log_path).ok


MANY_PARTITIONS = """
import os, resource, time
from minilog import Broker
path, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
def descriptors():
    return len(os.listdir("/proc/self/fd"))
most = 0
with Broker(path, sync="never") as broker:
    topic = broker.create_topic("t", 1000)
    for partition in topic:
        assert partition.append(b"one record") == 0
        most = max(most, descriptors())
    reserved = sum(
        os.stat(os.path.join(root, name)).st_blocks * 512
        for root, _, names in os.walk(path) for name in names
    )
    for partition in topic:
        assert [record.value for record in partition] == [b"one record"]
        most = max(most, descriptors())
before = time.perf_counter()
with Broker(path) as broker:
    opened = time.perf_counter() - before
    assert broker.recovery.ok
    for partition in broker.topic("t"):
        assert partition.read(0).values == [b"one record"]
        most = max(most, descriptors())
assert not [thread for thread in __import__("threading").enumerate() if thread.name == "minilog"]
left = descriptors()
print(reserved, most, left, opened)
"""


@pytest.mark.parametrize("limit", [0, 256])
def test_a_thousand_partitions_of_one_record_need_little(
    log_path: Path, run_python: RunPython, limit: int
) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("descriptors are counted in /proc, which is not here")
    reserved, most, left, opened = run_python(MANY_PARTITIONS, log_path, limit).split()
    print(f"{reserved} bytes on disk, {most} descriptors, opened in {opened} s")
    assert int(reserved) < 128 * 2**20
    assert int(most) < (limit or 1000)
    assert int(left) < 10
