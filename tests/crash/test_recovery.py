"""A process dies before each operation on the disk in turn, and recovery finds a legal state.

The workload is a list of steps; whoever dies in one of them must afterwards be as before that
step or as behind it. What recovery does is itself cut off at each operation in turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cutting import CutDirectory, Death, Fate
from images import crashed_copy, image_of, logs_of, write_image

import minilog
import minilog.home
from minilog import Broker
from minilog.storage.files import PathLike, disk_directory
from minilog.testing import ManualClock

Step = Callable[[Broker], object]
Dump = dict[str, Any]


def appends(topic: str, partition: int, *values: bytes | None) -> Step:
    def step(broker: Broker) -> object:
        if len(values) == 1:
            return broker.topic(topic)[partition].append(values[0], key=b"k")
        return broker.topic(topic)[partition].append_many(values)

    return step


WORKLOAD: list[Step] = [
    lambda broker: broker.create_topic("a", 2, segment_bytes=256, index_interval_bytes=64),
    appends("a", 0, b"first"),
    *[appends("a", 0, b"%d" % number * 9) for number in range(9)],
    appends("a", 1, b"x", b"", b"yy" * 20, None),
    lambda broker: broker.topic("a")[0].append(b"with", headers=[("h", b"1")], timestamp=5),
    lambda broker: broker.flush(),
    appends("a", 1, *[b"%d" % number for number in range(30)]),
    lambda broker: broker.create_topic("b", segment_bytes=256),
    appends("b", 0, b"y" * 700),
    lambda broker: broker.topic("a")[0].delete_before(6),
    lambda broker: broker.topic("a").configure(segment_bytes=300),
    appends("a", 0, b"more", b"than", b"one"),
    lambda broker: broker.topic("a").add_partitions(3),
    appends("a", 2, b"in the new one"),
    lambda broker: broker.delete_topic("b"),
    lambda broker: broker.topic("a")[1].delete_before(34),
    appends("a", 1, b"after it was emptied"),
    lambda broker: broker.close(),
]


def dump_of(broker: Broker) -> Dump:
    """Return all a broker holds, as plain values."""
    return {
        name: {
            "settings": topic.config,
            "partitions": [
                (partition.start_offset, partition.end_offset, list(partition))
                for partition in topic
            ],
        }
        for name, topic in broker.topics.items()
    }


def dump_at(path: Path) -> Dump:
    """Open a log, check everything that can be checked, and return what it holds."""
    with Broker(path, clock=ManualClock()) as broker:
        for topic in broker.topics.values():
            for partition in topic:
                partition.check()
        return dump_of(broker)


def open_mortal(path: Path, fate: Fate, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Broker:
    """Open a broker that dies as its fate has it."""

    def mortal(path: PathLike) -> CutDirectory:
        return CutDirectory(disk_directory(path), fate)

    with monkeypatch.context() as patch:
        patch.setattr(minilog.home, "disk_directory", mortal)
        return Broker(path, clock=ManualClock(1000), maintenance_interval_ms=0, **settings)


def recover(path: Path, fate: Fate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open and close a log, or die in it."""
    broker = open_mortal(path, fate, monkeypatch)
    try:
        broker.close()
    except Death:
        broker.refuse_in_child()
        raise


def states_of(path: Path, sync: str) -> list[Dump]:
    """Return what the log holds before the first step and behind each."""
    broker = Broker(
        path,
        clock=ManualClock(1000),
        maintenance_interval_ms=0,
        sync=sync,  # type: ignore[arg-type]
    )
    states = [dump_of(broker)]
    for step in WORKLOAD:
        step(broker)
        states.append(states[-1] if broker.is_closed else dump_of(broker))
    return states


def die(path: Path, fate: Fate, monkeypatch: pytest.MonkeyPatch, sync: str) -> int | None:
    """Run the workload until death; return the number of the step it came in, or None."""
    try:
        broker = open_mortal(path, fate, monkeypatch, sync=sync)
    except Death:
        return 0
    for number, step in enumerate(WORKLOAD):
        try:
            step(broker)
        except Death:
            broker.refuse_in_child()  # lets go of everything, as the end of a process does
            return number
    return None


def assert_goes_on(path: Path, found: Dump) -> None:
    """What was recovered opens again unchanged, takes records, and every byte of it is right."""
    before = image_of(path)
    assert minilog.verify(path).ok, str(minilog.verify(path))
    assert dump_at(path) == found
    assert image_of(path) == before
    with Broker(path, clock=ManualClock(1000)) as broker:
        assert broker.recovery.ok, str(broker.recovery)
        for topic in broker.topics.values():
            for partition in topic:
                assert partition.append(b"on it goes") == partition.end_offset - 1
                partition.check()
    assert minilog.verify(path).ok, str(minilog.verify(path))
    with Broker(path) as broker:
        assert broker.recovery.ok
        for topic in broker.topics.values():
            for partition in topic:
                partition.check()


@pytest.mark.parametrize("sync", ["never", "always"])
def test_death_before_any_operation_leaves_the_state_before_or_behind_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: str
) -> None:
    states = states_of(tmp_path / "whole", sync)
    failures = []
    for number in range(0, 10_000, 1 if sync == "never" else 3):
        path = tmp_path / str(number)
        fate = Fate(number)
        step = die(path, fate, monkeypatch, sync)
        if step is None:
            break
        try:
            found = dump_at(path)
            assert found in (states[step], states[step + 1])
            assert_goes_on(path, found)
        except Exception as error:  # collected, so that one bug does not hide another
            failures.append(f"dead before operation {number}, {fate.operations[-1]}: {error!r}")
    assert number > 100
    assert not failures, "\n\n".join(failures)


def test_recovery_that_dies_before_any_operation_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    with Broker(path, segment_bytes=2048, index_interval_bytes=128, sync="never") as broker:
        topic = broker.create_topic("t", 2)
        for number in range(90):
            topic[number % 2].append(b"%d" % number * 5)
        crashed = crashed_copy(path, tmp_path / "crashed", power_cut=True)
    for partition in range(2):
        last = logs_of(crashed, "t", partition)[-1]
        data = bytearray(last.read_bytes())
        end = len(data.rstrip(b"\0"))
        data[end - 30] ^= 0xFF
        data[end + 100 : end + 120] = b"\x77" * 20
        last.write_bytes(data)
    torn = image_of(crashed)
    lock = (crashed / "minilog.lock").read_bytes()

    recover(crashed, straight := Fate(), monkeypatch)
    expected = image_of(crashed)
    assert len(straight.operations) > 20
    for number in range(len(straight.operations)):
        write_image(crashed, torn)
        (crashed / "minilog.lock").write_bytes(lock)
        with pytest.raises(Death):
            recover(crashed, Fate(number), monkeypatch)
        recover(crashed, Fate(), monkeypatch)
        assert image_of(crashed) == expected, f"dead before {straight.operations[number]}"


def test_a_kill_in_recovery_after_a_power_cut_does_not_pass_for_a_kill_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock named the present boot before anything was recovered: whoever recovered after a
    recovery that was killed trusted the last index entry and left the hole before it in the log."""
    path = tmp_path / "log"
    with Broker(path, sync="never") as broker:
        partition = broker.create_topic("t", index_interval_bytes=128)[0]
        for number in range(60):
            partition.append(b"%d" % number * 20)
        crashed = crashed_copy(path, tmp_path / "crashed", power_cut=True)
    log = logs_of(crashed, "t")[0]
    data = bytearray(log.read_bytes())
    data[1024:1536] = bytes(512)
    log.write_bytes(data)
    holed = image_of(crashed)
    lock = (crashed / "minilog.lock").read_bytes()
    recover(crashed, straight := Fate(), monkeypatch)
    expected = image_of(crashed)
    assert len(straight.operations) > 10
    for number in range(len(straight.operations)):
        write_image(crashed, holed)
        (crashed / "minilog.lock").write_bytes(lock)
        with pytest.raises(Death):
            recover(crashed, Fate(number), monkeypatch)
        recover(crashed, Fate(), monkeypatch)
        assert image_of(crashed) == expected, f"dead before {straight.operations[number]}"


def rolled_log(
    tmp_path: Path, records: int, sync_after: int, segment_bytes: int = 256
) -> tuple[Path, list[Path]]:
    """Make the image of a log of many segments after a power cut, and return its .log files."""
    settings = {"segment_bytes": segment_bytes, "index_interval_bytes": 64}
    with Broker(tmp_path / "log", sync="never", **settings) as broker:  # type: ignore[arg-type]
        partition = broker.create_topic("t")[0]
        for number in range(records):
            partition.append(b"%d" % number * 20)
            if number == sync_after:
                broker.flush()
        crashed = crashed_copy(tmp_path / "log", tmp_path / "crashed", power_cut=True)
    return crashed, logs_of(crashed, "t")


@pytest.mark.parametrize("lost", [{-1}, {-3, -1}, {-4, -2, -1}, {-5, -4, -3, -2, -1}])
def test_a_segment_that_lost_its_header_says_nothing_of_those_before_it(
    tmp_path: Path, lost: set[int]
) -> None:
    """All of the last segment was zeros, as its data were lost in a power cut: that was taken
    for the word that everything before it was synced, and a hole there for corruption."""
    crashed, logs = rolled_log(tmp_path, 60, 30)
    for number in lost:
        logs[number].write_bytes(bytes(logs[number].stat().st_size))
    with Broker(crashed) as broker:
        partition = broker.topic("t")[0]
        assert partition.end_offset == int(logs[min(lost)].stem)
        assert [record.value for record in partition] == [
            b"%d" % number * 20 for number in range(partition.end_offset)
        ]
        assert len(broker.recovery.problems) == len(range(min(lost), -1))
        partition.append(b"on it goes")
    assert minilog.verify(crashed).ok, str(minilog.verify(crashed))


def test_damage_before_the_last_sync_is_not_a_torn_tail_though_the_last_header_is_lost(
    tmp_path: Path,
) -> None:
    crashed, logs = rolled_log(tmp_path, 60, 30)
    logs[-1].write_bytes(bytes(logs[-1].stat().st_size))
    data = bytearray(logs[3].read_bytes())
    data[100] ^= 1
    logs[3].write_bytes(data)
    with Broker(crashed) as broker:
        partition = broker.topic("t")[0]
        assert partition.end_offset == int(logs[-1].stem)
        with pytest.raises(minilog.CorruptionError, match=logs[3].name):
            list(partition)


def synced_files(fate: Fate) -> set[str]:
    return {operation.rpartition("/")[2] for operation in fate.operations if "sync" in operation}


@pytest.mark.parametrize("how", ["append", "flush", "close"])
def test_what_a_killed_process_left_unsynced_is_synced_with_what_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Only the last segment was synced after a kill: a power cut could then take records out of
    the middle, before others that were acknowledged as durable."""
    with Broker(tmp_path / "log", sync="never", segment_bytes=256) as broker:
        partition = broker.create_topic("t")[0]
        for number in range(30):
            partition.append(b"%d" % number * 20)
        killed = crashed_copy(tmp_path / "log", tmp_path / "killed", power_cut=False)
    logs = logs_of(killed, "t")
    assert len(logs) > 5
    sync = "always" if how == "append" else "never"
    broker = open_mortal(killed, fate := Fate(), monkeypatch, sync=sync)
    fate.operations.clear()
    if how == "append":
        broker.topic("t")[0].append(b"durable")
    elif how == "flush":
        broker.flush()
    else:
        broker.close()
    assert {log.name for log in logs} <= synced_files(fate)
    assert f"sync {killed / 't' / '0'}" in fate.operations
    broker.close()


def test_a_hole_from_before_a_kill_is_still_a_torn_tail_after_a_power_cut(tmp_path: Path) -> None:
    """Records appended after a kill said that all before them was synced."""
    with Broker(tmp_path / "log", sync="never", segment_bytes=256) as broker:
        partition = broker.create_topic("t")[0]
        for number in range(30):
            partition.append(b"%d" % number * 20)
        killed = crashed_copy(tmp_path / "log", tmp_path / "killed", power_cut=False)
    with Broker(killed, sync="never") as broker:
        broker.topic("t")[0].append(b"after the kill")
        crashed = crashed_copy(killed, tmp_path / "crashed", power_cut=True)
    holed = logs_of(crashed, "t")[4]
    holed.write_bytes(bytes(holed.stat().st_size))
    with Broker(crashed) as broker:
        partition = broker.topic("t")[0]
        assert partition.end_offset == int(holed.stem)
        assert len(list(partition)) == partition.end_offset
        assert broker.recovery.problems


@pytest.mark.parametrize("sync_after", [-1, 27])
def test_a_segment_whose_seal_was_lost_is_sealed_again(tmp_path: Path, sync_after: int) -> None:
    """All records of a segment were synced when it was sealed, so the next one said that nothing
    before it could be lost; but its seal could, and nobody looked."""
    crashed, logs = rolled_log(tmp_path, 34, sync_after, 512)
    data = bytearray(logs[-2].read_bytes())
    assert len(data) > 64
    data[-56:] = bytes(56)
    logs[-2].write_bytes(data)
    lost = [logs[-2].with_suffix(ending) for ending in (".index", ".timeindex")]
    for index in lost:
        index.write_bytes(bytes(index.stat().st_size))
    with Broker(crashed) as broker:
        partition = broker.topic("t")[0]
        assert [record.offset for record in partition] == list(range(34))
        assert all("seal was lost" in problem.reason for problem in broker.recovery.problems)
    assert minilog.verify(crashed).ok, str(minilog.verify(crashed))


def test_a_roll_right_after_a_sync_does_not_say_that_the_seal_was_synced(tmp_path: Path) -> None:
    with Broker(tmp_path / "log", sync="never", segment_bytes=256) as broker:
        partition = broker.create_topic("t")[0]
        while len(logs_of(tmp_path / "log", "t")) < 4:
            broker.flush()
            partition.append(b"x" * 50)
        crashed = crashed_copy(tmp_path / "log", tmp_path / "crashed", power_cut=True)
    sealed = logs_of(crashed, "t")[-2]
    data = sealed.read_bytes()
    sealed.write_bytes(data[:-56] + bytes(56))
    with Broker(crashed) as broker:
        assert all("seal was lost" in problem.reason for problem in broker.recovery.problems)
        assert len(list(broker.topic("t")[0])) == broker.topic("t")[0].end_offset
    assert sealed.stat().st_size == len(data)
    assert minilog.verify(crashed).ok, str(minilog.verify(crashed))


@pytest.mark.parametrize("size", [0, 8, None], ids=["empty", "short", "zeros"])
@pytest.mark.parametrize("closed", [True, False])
def test_an_index_that_a_power_cut_took_is_made_again(
    tmp_path: Path, size: int | None, closed: bool
) -> None:
    """Nobody synced an index, so a power cut could leave zeros, after a clean close too; it was
    done without from then on, and every look-up walked the segment from its start."""
    path = tmp_path / "log"
    broker = Broker(path, sync="never", segment_bytes=2048, index_interval_bytes=256)
    partition = broker.create_topic("t")[0]
    for number in range(90):
        partition.append(b"%d" % number * 20)
    if closed:
        broker.close()
    crashed = crashed_copy(path, tmp_path / "crashed", power_cut=True)
    broker.close()
    lost = sorted((crashed / "t" / "0").glob("*index"))
    assert len(lost) >= 6
    kept = {file: file.read_bytes() for file in lost}
    for file in lost[-2:] if closed else lost:
        file.write_bytes(bytes(file.stat().st_size if size is None else size))
    with Broker(crashed) as broker:
        assert broker.topic("t")[0].read(89)[0].value == b"89" * 20
    assert minilog.verify(crashed).ok, str(minilog.verify(crashed))
    assert {file: file.read_bytes().rstrip(b"\0") for file in lost} == {
        file: data.rstrip(b"\0") for file, data in kept.items()
    }


def test_the_index_of_a_sealed_segment_is_synced_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = open_mortal(tmp_path / "log", fate := Fate(), monkeypatch, sync="never")
    topic = broker.create_topic("t", segment_bytes=1024, index_interval_bytes=128)
    while len(logs_of(tmp_path / "log", "t")) < 2:
        topic[0].append(b"x" * 50)
    fate.operations.clear()
    broker.flush()
    sealed = logs_of(tmp_path / "log", "t")[0]
    names = {sealed.with_suffix(ending).name for ending in (".log", ".index", ".timeindex")}
    assert names <= synced_files(fate)
    fate.operations.clear()
    topic[0].append(b"x")
    broker.flush()
    assert not names & synced_files(fate)
    broker.close()


def test_a_death_in_the_middle_of_rolling_leaves_a_segment_that_ends_with_its_seal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead between the seal and giving back the reserve: the seal was found by scanning, but on
    the next opening, when it was no longer the last segment, looked for at the end of the file."""
    path = tmp_path / "log"
    with Broker(path, sync="never") as broker:
        partition = broker.create_topic("t", segment_bytes=4096)[0]
        for _ in range(27):
            partition.append(b"x" * 100)
    full = image_of(path)
    for number in range(100):
        write_image(path, full)
        fate = Fate(number)
        broker = open_mortal(path, fate, monkeypatch, sync="never")
        try:
            broker.topic("t")[0].append(b"it rolls" * 50)
            broker.close()
        except Death:
            broker.refuse_in_child()
        else:
            break
        with Broker(path, sync="never") as broker:
            partition = broker.topic("t")[0]
            end = partition.end_offset
            assert end in (27, 28)
            for _ in range(40):
                partition.append(b"y" * 100)
        with Broker(path) as broker:
            partition = broker.topic("t")[0]
            assert [record.offset for record in partition] == list(range(end + 40))
            partition.check()
    assert number > 5


def test_an_index_for_which_only_space_was_reserved_is_cut_when_closed(tmp_path: Path) -> None:
    """Killed between reserving the index files and storing the first entry: the index had no
    entries, and one without was never cut."""
    path = tmp_path / "log"
    with Broker(path) as broker:
        broker.create_topic("t", index_interval_bytes=500)[0].append(b"x" * 50)
        crashed = crashed_copy(path, tmp_path / "crashed", power_cut=False)
    for ending, size in ((".index", 4096), (".timeindex", 8192)):
        logs_of(crashed, "t")[0].with_suffix(ending).write_bytes(bytes(size))
    with Broker(crashed) as broker:
        assert broker.recovery.ok
    assert minilog.verify(crashed).ok, str(minilog.verify(crashed))


# ---------------------------------------------------------------- torn tails


def unsynced_log(tmp_path: Path) -> tuple[Path, int, int]:
    """Make the image of a log after a power cut: 20 records synced, 20 in single frames not."""
    with Broker(tmp_path / "log", sync="never", maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t", index_interval_bytes=256)[0]
        for number in range(20):
            partition.append(b"synced %d" % number)
        broker.flush()
        for number in range(20, 40):
            partition.append(b"unsynced %d" % number)
        crashed = crashed_copy(tmp_path / "log", tmp_path / "crashed", power_cut=True)
    data = logs_of(crashed, "t")[0].read_bytes().rstrip(b"\0")
    return crashed, data.index(b"unsynced 20") - 36, len(data)


def values_of(path: Path) -> list[bytes | None]:
    with Broker(path) as broker:
        return [record.value for record in broker.topic("t")[0]]


EXPECTED = [b"synced %d" % n for n in range(20)] + [b"unsynced %d" % n for n in range(20, 40)]


def frame_starts(data: bytes, start: int, end: int) -> list[int]:
    starts = []
    while start < end:
        starts.append(start)
        start += (int.from_bytes(data[start : start + 4], "little") + 7) & -8
    return starts


@pytest.mark.parametrize("damage", ["cut off", "zeroed", "garbled", "one byte"])
def test_a_torn_tail_loses_exactly_the_records_from_the_tear_on(
    tmp_path: Path, damage: str
) -> None:
    crashed, first, end = unsynced_log(tmp_path)
    image = image_of(crashed)
    name = next(name for name in image if name.endswith(".log"))
    data = image[name]
    starts = frame_starts(data, first, end)
    assert len(starts) == 20
    for tear in range(first, end, 13):
        torn = bytearray(data)
        if damage == "cut off":
            del torn[tear:]
        elif damage == "zeroed":
            torn[tear:end] = bytes(end - tear)
        elif damage == "garbled":
            torn[tear:end] = bytes(byte ^ 0x5A for byte in torn[tear:end])
        else:
            torn[tear] ^= 0x10
        hit = max(start for start in starts if start <= tear)
        size = int.from_bytes(data[hit : hit + 4], "little")
        is_padding = tear >= hit + size
        kept = 20 + starts.index(hit) + is_padding
        if damage == "zeroed" and not any(data[tear : hit + size]):
            kept = 20 + starts.index(hit) + 1
        write_image(crashed, {**image, name: bytes(torn)})
        (crashed / "minilog.lock").write_text("1 another-boot\n")
        with Broker(crashed) as broker:
            partition = broker.topic("t")[0]
            found = [record.value for record in partition]
            if is_padding and damage in ("garbled", "one byte"):
                assert found[:kept] == EXPECTED[:kept]
                assert found == EXPECTED[: len(found)]
                continue
            assert found == EXPECTED[:kept], f"torn at {tear}"
            was_something_left = any(torn[starts[kept - 20] if kept < 40 else end : end])
            assert len(broker.recovery.problems) == was_something_left, f"torn at {tear}"
            if was_something_left:
                (problem,) = broker.recovery.problems
                assert problem.path.endswith(name)
                assert problem.position == starts[kept - 20]
                assert problem.offset == kept
                kept_file = crashed / "t" / "0" / "quarantine"
                left = bytes(torn[starts[kept - 20] :]).rstrip(b"\0")
                assert [path.read_bytes() for path in kept_file.iterdir()] == [left]
            assert partition.append(b"on it goes") == kept
        before = image_of(crashed)
        with Broker(crashed) as broker:
            assert broker.recovery.ok
            assert broker.topic("t")[0].end_offset == kept + 1
        assert image_of(crashed) == before


# ---------------------------------------------------------------- headers that are damaged


def reopened_log(path: Path, openings: int) -> None:
    """A log of small segments that was opened for writing so often."""
    for number in range(openings):
        with Broker(path, sync="never", maintenance_interval_ms=0) as broker:
            topic = broker.create_topic("t", exist_ok=True, segment_bytes=512)
            for _ in range(9):
                topic[0].append(b"opening %d" % number)


def damage_header(log: Path) -> None:
    data = bytearray(log.read_bytes())
    data[20] ^= 1
    log.write_bytes(data)


@pytest.mark.parametrize("power_cut", [False, True])
def test_a_header_that_is_damaged_before_whole_records_is_told_and_costs_none(
    tmp_path: Path, power_cut: bool
) -> None:
    with Broker(tmp_path / "log", sync="never", maintenance_interval_ms=0) as broker:
        partition = broker.create_topic("t")[0]
        for number in range(5):
            partition.append(b"%d" % number)
        crashed = crashed_copy(tmp_path / "log", tmp_path / "crashed", power_cut=power_cut)
    (log,) = logs_of(crashed, "t")
    damage_header(log)
    with Broker(crashed) as broker:
        (problem,) = broker.recovery.problems
        assert (problem.path, problem.position, problem.offset) == (str(log), 0, None)
        assert "header" in problem.reason
        assert broker.topic("t")[0].append(b"5") == 5
        assert [record.value for record in broker.topic("t")[0]] == [b"%d" % n for n in range(6)]


@pytest.mark.parametrize("power_cut", [False, True])
@pytest.mark.parametrize("size", [0, 10])
def test_a_log_whose_only_file_was_emptied_is_told_and_begins_anew(
    tmp_path: Path, size: int, power_cut: bool
) -> None:
    """The header of a topic's first files is on the disk before the topic has its name."""
    with Broker(tmp_path / "log", sync="always", maintenance_interval_ms=0) as broker:
        broker.create_topic("t")[0].append(b"acknowledged")
        crashed = crashed_copy(tmp_path / "log", tmp_path / "crashed", power_cut=power_cut)
    (log,) = logs_of(crashed, "t")
    os.truncate(log, size)
    with Broker(crashed) as broker:
        (problem,) = broker.recovery.problems
        assert (problem.path, problem.position, problem.offset) == (str(log), 0, 0)
        assert "what was in it is gone" in problem.reason
        assert broker.topic("t")[0].append(b"anew") == 0
    assert minilog.verify(crashed).ok


def test_a_writer_is_told_from_those_before_it_though_two_headers_are_lost(tmp_path: Path) -> None:
    """Of the segment that was just begun, and of the one before it, whose frames say it."""

    def epochs(path: Path) -> list[int]:
        found = []
        for log in logs_of(path, "t"):
            data = log.read_bytes()
            position = 64
            while (size := int.from_bytes(data[position : position + 4], "little")) >= 40:
                found.append(int.from_bytes(data[position + 28 : position + 32], "little"))
                position += (size + 7) & -8
        return found

    reopened_log(tmp_path / "log", 4)
    with Broker(tmp_path / "log", sync="never", maintenance_interval_ms=0) as broker:
        partition = broker.topic("t")[0]
        partition.append(b"the last writer's")
        partition._opened().roll(0)
        expected = list(partition)
        crashed = crashed_copy(tmp_path / "log", tmp_path / "crashed", power_cut=True)
    before, last = logs_of(crashed, "t")[-2:]
    last.write_bytes(bytes(64))
    damage_header(before)
    latest = max(epochs(crashed))
    assert latest == 5
    with Broker(crashed, maintenance_interval_ms=0) as broker:
        partition = broker.topic("t")[0]
        assert list(partition) == expected
        partition.append(b"the next writer's")
        broker.flush()
        assert epochs(crashed)[-1] == latest + 1
