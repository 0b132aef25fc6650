"""The contract of a call that writes and cannot finish: interrupted at any instruction, or without
files or space. The log stays usable."""

from __future__ import annotations

import dis
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import minilog
from minilog import Broker, Partition
from minilog.storage.files import DiskFile

PACKAGE = str(Path(minilog.__file__).parent)
SCARCE = """
import os, resource, sys, minilog
limit = getattr(resource, sys.argv[2])
_, hard = resource.getrlimit(limit)
broker = minilog.Broker(sys.argv[1], segment_bytes=256)
topic = broker.create_topic("t")
partition, written, hoard = topic[0], [], []
def append_some(times):
    failed = 0
    for n in range(times):
        run = [b"%d" % n * 2000] * 30
        end = partition.end_offset
        assert end == len(written)
        try:
            assert (partition.append_many(run) if n % 2 else [partition.append(run[0])])[0] == end
        except OSError as error:
            assert not isinstance(error, minilog.MinilogError)
            assert partition.end_offset == end
            failed += 1
        else:
            written.extend(run if n % 2 else run[:1])
    return failed
assert append_some(8) == 0
resource.setrlimit(limit, (100, hard))
try:
    while limit == resource.RLIMIT_NOFILE:
        hoard.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
assert append_some(8) > 0
try:
    broker.create_topic("u")
except OSError:
    assert "u" not in broker.topics
else:
    assert broker.topic("u")[0].end_offset == 0
resource.setrlimit(limit, (hard, hard))
for descriptor in hoard:
    os.close(descriptor)
assert append_some(8) == 0
assert broker.create_topic("u", exist_ok=True)[0].append(b"v") == 0
assert [record.value for record in partition] == written
partition.check()
broker.close()
with minilog.Broker(sys.argv[1]) as broker:
    assert broker.recovery.ok, broker.recovery
    assert [record.value for record in broker.topic("t")[0]] == written
assert minilog.verify(sys.argv[1]).ok
print("end")
"""


@functools.cache
def interruptible(code: CodeType) -> frozenset[int]:
    """Where Python itself looks for signals: after a call, at a jump back, on entry.

    A constant loaded or a swap after a call is the end of a `with` block; there Python has
    looked while still inside of the block, so raising later would be harder than any signal.
    """
    found, before = set(), ""
    for instruction in dis.get_instructions(code):
        ends_block = instruction.opname == "SWAP" or "CONST" in instruction.opname
        after_call = before.startswith("CALL") and not ends_block
        if after_call or before == "RESUME" or instruction.opname.startswith("JUMP_BACKWARD"):
            found.add(instruction.offset)
        before = instruction.opname
    return frozenset(found)


def is_finalizing(frame: FrameType | None) -> bool:
    """Tells a frame under `__del__`, out of which no exception comes."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def interrupt(call: Callable[[], object], after: int) -> bool:
    """Runs `call`, raises KeyboardInterrupt in it at the place `after`; False: it was over."""
    left = after

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(PACKAGE) or is_finalizing(frame):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in interruptible(frame.f_code):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return trace

    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(tracing)
    return False


def interrupted_everywhere(call: Callable[[Any], object], made: Iterator[Any]) -> Iterator[Any]:
    """For each place in turn, what `made` gave, after `call` of it was interrupted there."""
    for after, thing in enumerate(made):
        if not interrupt(lambda thing=thing: call(thing), after):  # type: ignore[misc]
            assert after > 10
            return
        yield thing


def within(seconds: float, call: Callable[[], None]) -> None:
    """Runs `call` in another thread, which must not find a lock that nobody frees."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "a lock is stuck"
    if errors:
        raise errors[0]


def check_offsets_and_times(partition: Partition) -> None:
    records = list(partition)
    assert [r.offset for r in records] == list(range(partition.start_offset, partition.end_offset))
    for when in (0, 5, 8, 9, 500, 1000):
        expected = next((r.offset for r in records if r.timestamp >= when), None)
        assert partition.offset_at(when) == expected, when
    partition.check()


def check_usable(partition: Partition) -> None:
    check_offsets_and_times(partition)
    end = partition.end_offset
    assert end in (9, 10, 12)
    assert partition.append(b"after", timestamp=2) == end
    assert partition.append_many([b"after" * 60] * 2, timestamps=3) == range(end + 1, end + 3)
    check_offsets_and_times(partition)


@pytest.mark.parametrize(
    "call",
    [
        lambda partition: partition.append(b"v" * 30, timestamp=1000),
        lambda partition: partition.append(b"v" * 300, timestamp=1000, headers={"h": b"v"}),
        lambda partition: partition.append_many([b"v" * 30] * 3, timestamps=[1000, 5, 7]),
        lambda partition: partition.append_many([b"v" * 300] * 3, timestamps=[1000, 5, 7]),
        lambda partition: partition.delete_before(6),
    ],
    ids=["append", "append and roll", "append_many", "append_many and roll", "delete_before"],
)
def test_an_interrupted_write_leaves_the_partition_usable(
    call: Callable[[Partition], object],
) -> None:
    def partitions() -> Iterator[Partition]:
        while True:
            broker = Broker(":memory:", segment_bytes=256, maintenance_interval_ms=0)
            partition = broker.create_topic("t")[0]
            for timestamp in range(9):
                partition.append(b"w" * 20, timestamp=timestamp)
            yield partition
            broker.close()

    for partition in interrupted_everywhere(call, partitions()):
        within(30, lambda partition=partition: check_usable(partition))  # type: ignore[misc]


@pytest.mark.parametrize(
    "call",
    [
        lambda broker: broker.create_topic("new"),
        lambda broker: broker.delete_topic("old"),
        lambda broker: broker.topic("old").configure(segment_bytes=512),
        lambda broker: broker.topic("old").add_partitions(3),
        lambda broker: broker.flush(),
    ],
    ids=["create_topic", "delete_topic", "configure", "add_partitions", "flush"],
)
def test_an_interrupted_change_of_topics_leaves_the_broker_usable(
    tmp_path: Path, call: Callable[[Broker], object]
) -> None:
    def brokers() -> Iterator[Broker]:
        for number in range(10_000):
            broker = Broker(tmp_path / str(number), maintenance_interval_ms=0)
            broker.create_topic("old", partitions=2)[0].append(b"old")
            broker.create_topic("kept")[0].append(b"kept")
            yield broker
            broker.close()
            with Broker(tmp_path / str(number)) as broker:
                assert {"kept", "new", "old"} == set(broker.topics)
                assert len(broker.topic("kept")[0]) == 2
                assert broker.topic("new")[-1 + len(broker.topic("new"))].end_offset == 1

    def check(broker: Broker) -> None:
        assert {"kept"} <= set(broker.topics) <= {"kept", "new", "old"}
        for name in ("new", "old"):
            topic = broker.create_topic(name, exist_ok=True)
            topic[len(topic) - 1].append(b"after")
            topic.configure(segment_bytes=1024)
            topic.add_partitions(len(topic))
        assert broker.topic("kept")[0].append(b"after") == 1
        broker.flush()

    for broker in interrupted_everywhere(call, brokers()):
        within(30, lambda broker=broker: check(broker))  # type: ignore[misc]


def test_an_interrupted_close_can_be_repeated_and_frees_the_lock(tmp_path: Path) -> None:
    def brokers() -> Iterator[Broker]:
        for number in range(10_000):
            broker = Broker(tmp_path / str(number), maintenance_interval_ms=0)
            broker.create_topic("t")[0].append(b"v")
            yield broker
            with Broker(tmp_path / str(number)) as broker:
                assert broker.recovery.ok
                assert [record.value for record in broker.topic("t")[0]] == [b"v"]

    for broker in interrupted_everywhere(lambda broker: broker.close(), brokers()):
        within(30, broker.close)


@pytest.mark.parametrize("limit", ["RLIMIT_NOFILE", "RLIMIT_FSIZE"])
def test_an_append_without_files_or_space_is_an_os_error_and_leaves_no_trace(
    log_path: Path, limit: str, run_python: Callable[..., str]
) -> None:
    assert run_python(SCARCE, log_path, limit) == "end\n"


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_an_interrupted_write_of_a_large_record_is_in_if_all_of_it_is(
    tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With headers, one so large goes to the disk by a call of its own, not through the map."""
    large = bytes(range(256)) * 1024
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t")[0]
        partition.append(b"before")
        write = DiskFile.write

        def interrupted(file: DiskFile, position: int, data: bytes) -> None:
            if len(data) < len(large):
                return write(file, position, data)
            monkeypatch.undo()
            write(file, position, data[: int(len(data) * share)])
            raise KeyboardInterrupt

        monkeypatch.setattr(DiskFile, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            partition.append(large, headers=[("h", b"1")])
        expected = [b"before", large] if share == 1.0 else [b"before"]
        assert [record.value for record in partition] == expected
        assert partition.append(b"after") == len(expected)
        partition.check()
    with Broker(tmp_path) as broker:
        assert broker.recovery.ok
        found = [record.value for record in broker.topic("t")[0]]
        assert found == [*expected, b"after"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "the disk fails")])
def test_what_fails_behind_an_append_that_is_in_takes_nothing_back(
    tmp_path: Path, error: BaseException
) -> None:
    with Broker(tmp_path, maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t")[0]
        partition.append(b"before")
        segment = partition._opened().make_room(1000, 0)
        position, offset = segment.tail
        partition.append(b"in")
        segment.settle(position, offset, error)
        assert [record.value for record in partition] == [b"before", b"in"]
        partition.check()
