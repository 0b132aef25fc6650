"""Bytes of a cleanly closed log are changed, zeroed, cut off or removed: nobody gets wrong ones.

Whatever is done to whichever file, reading gives the right records or a StorageError that names
the file; every record that is not in what was damaged is still read; nothing is skipped
silently; ``verify`` tells.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from images import Image, crashed_copy, image_of, logs_of, write_image

import minilog
from minilog import Broker, CorruptionError, Partition, Record, StorageError, verify
from minilog.storage import recovery
from minilog.storage.segment import Segment
from minilog.testing import ManualClock
from tests.torture.damage import SAMPLES, block_changes, changes, check_share

HANG_S = 20  # a guard, not a measure: what takes so long does not end
TOPIC = "t"


class Sample(NamedTuple):
    """A closed log, as bytes, and what is in it."""

    path: Path
    image: Image
    records: dict[int, list[Record]]  # by partition
    starts: dict[int, int]


class Reading(NamedTuple):
    """What reading a whole log gave."""

    records: dict[int, list[Record]]
    errors: dict[int, list[CorruptionError]]


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TimeoutError("this does not end")

    before = signal.signal(signal.SIGALRM, stop)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """Two partitions in small segments: singles of all shapes, batches of all shapes."""
    path = tmp_path / "log"
    clock = ManualClock(1_700_000_000_000)
    with Broker(path, clock=clock) as broker:
        topic = broker.create_topic(TOPIC, 2, segment_bytes=512, index_interval_bytes=128)
        first, second = topic
        for number in range(8):
            clock.advance(10)
            first.append(b"value %d " % number * (number % 4), key=b"k%d" % number)
        first.append(None, key=b"gone")
        first.append(b"with", headers=[("a", b"1"), ("b", None)], timestamp=7)
        first.append_many([b"same", b"size", b"vals"])
        first.append_many([b"a", None, b"ccc"], keys=[None, b"k", b""], timestamps=[3, 2, 1])
        second.append_many([b"x%d" % number for number in range(9)], headers=[{"h": b"v"}] * 9)
        for _ in range(4):
            second.append(b"y" * 40)
        second.delete_before(3)
        records = {partition.index: list(partition) for partition in topic}
        starts = {partition.index: partition.start_offset for partition in topic}
    return Sample(path, image_of(path), records, starts)


def lost_by(error: CorruptionError) -> tuple[int, int]:
    """Return the first offset that an error says cannot be read, and the first after it."""
    assert error.offset is not None
    assert error.next_offset is not None
    return error.offset, error.next_offset


def read_all(partition: Partition) -> tuple[list[Record], list[CorruptionError]]:
    """Read a partition as one who goes on behind damage does."""
    records: list[Record] = []
    errors: list[CorruptionError] = []
    offset, end = partition.start_offset, partition.end_offset
    while offset < end:
        try:
            found = partition.read(offset, max_records=5)
        except CorruptionError as error:
            first, following = lost_by(error)
            if not first <= offset < following <= end:
                raise AssertionError(f"at {offset}: {error}") from error
            errors.append(error)
            offset = following
            continue
        assert found, f"nothing at {offset} of {end}"
        for record in found:
            assert record.offset == offset, "a record was skipped silently"
            offset += 1
        records += found
    return records, errors


def read_sample(sample: Sample, *, read_only: bool) -> Reading | StorageError:
    """Open the log as it is now and read all of it; the error when it cannot be opened."""
    reading = Reading({}, {})
    try:
        with Broker(sample.path, read_only=read_only) as broker:
            for partition in broker.topic(TOPIC):
                found = read_all(partition)
                reading.records[partition.index], reading.errors[partition.index] = found
    except StorageError as error:
        return error
    return reading


def assert_honest(sample: Sample, name: str, reading: Reading | StorageError) -> None:
    """Every record read is right, and every one that is not is accounted for by an error that
    names the damaged file."""
    if isinstance(reading, StorageError):
        assert name in str(reading), f"{reading} does not name {name}"
        return
    for partition, expected in sample.records.items():
        by_offset = {record.offset: record for record in expected}
        found = reading.records[partition]
        assert all(by_offset[record.offset] == record for record in found)
        missing = set(by_offset) - {record.offset for record in found}
        explained: set[int] = set()
        for error in reading.errors[partition]:
            assert error.path.endswith(name), f"{error} does not name {name}"
            explained |= set(range(*lost_by(error)))
        assert missing <= explained


def change_each(
    sample: Sample, name: str, positions: range, change: Callable[[bytes, int], bytes]
) -> Iterator[tuple[int, bytes]]:
    """Change a file at each position in turn, and put back what was there."""
    path = sample.path / name
    original = sample.image[name]
    for position in positions:
        data = change(original, position)
        if data == original:
            continue
        path.write_bytes(data)
        signal.alarm(HANG_S)
        yield position, data
        signal.alarm(0)
        path.write_bytes(original)


def names_of(sample: Sample, ending: str) -> list[str]:
    names = [name for name in sample.image if name.endswith(ending)]
    assert names
    return names


def flip(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 0xFF
    return bytes(changed)


def frames_of(data: bytes) -> list[tuple[int, int, int]]:
    """Return (position, end, records) of each frame of a .log; records 0 for a seal."""
    frames = []
    position = 64
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "little")
        flags = int.from_bytes(data[position + 26 : position + 28], "little")
        extent = int.from_bytes(data[position + 4 : position + 8], "little")
        count = extent if flags & 1 else 0 if flags & 2 else 1
        frames.append((position, position + size, count))
        position += (size + 7) & -8
    return frames


@pytest.mark.parametrize("read_only", [True, False])
def test_a_byte_flipped_in_a_log_costs_at_most_the_frame_it_is_in(
    sample: Sample, read_only: bool
) -> None:
    failures = []
    step = 1 if read_only else 13  # opening for writing syncs, so fewer of those
    for name in names_of(sample, ".log"):
        frames = frames_of(sample.image[name])
        positions = range(0, len(sample.image[name]), step)
        for position, _ in change_each(sample, name, positions, flip):
            try:
                reading = read_sample(sample, read_only=read_only)
                assert_honest(sample, name, reading)
                assert isinstance(reading, Reading), f"{reading!r}: the broker must open"
                lost = sum(map(len, sample.records.values()))
                lost -= sum(map(len, reading.records.values()))
                hit = [count for start, end, count in frames if start <= position < end]
                assert lost <= (hit[0] if hit else 0)
                assert not (hit or position < 64) or not verify(sample.path).ok
            except Exception as error:
                failures.append(f"{name} at {position}: {error!r}")
    assert not failures, f"{len(failures)}\n" + "\n".join(failures[:20])
    assert image_of(sample.path) == sample.image, "damage was not left as it was"


def test_a_byte_flipped_between_frames_costs_nothing_and_is_found(sample: Sample) -> None:
    unseen = []
    for name in names_of(sample, ".log"):
        for _, end, _ in frames_of(sample.image[name]):
            positions = range(end, min((end + 7) & -8, len(sample.image[name])))
            for position, _ in change_each(sample, name, positions, flip):
                reading = read_sample(sample, read_only=True)
                assert isinstance(reading, Reading)
                assert reading.records == sample.records
                if verify(sample.path).ok:
                    unseen.append((name, position))
    assert not unseen


def test_the_error_says_where_the_damage_is(sample: Sample) -> None:
    name = names_of(sample, ".log")[0]
    offset = 0
    for start, end, count in frames_of(sample.image[name]):
        if not count:
            continue
        for position, _ in change_each(sample, name, range(start, end), flip):
            reading = read_sample(sample, read_only=True)
            assert isinstance(reading, Reading)
            (error,) = reading.errors[0]
            assert (error.path, error.position) == (str(sample.path / name), start), position
            assert (error.offset, error.next_offset) == (offset, offset + count), position
            assert error.reason
        offset += count


@pytest.mark.parametrize("ending", [".json", ".index", ".timeindex"])
@pytest.mark.parametrize("read_only", [True, False])
def test_a_byte_flipped_in_another_file_is_reported_or_harmless(
    sample: Sample, ending: str, read_only: bool
) -> None:
    failures = []
    for name in names_of(sample, ending):
        size = len(sample.image[name])
        step = 1 if read_only else max(1, size // 30)
        for position, _ in change_each(sample, name, range(0, size, step), flip):
            try:
                assert not verify(sample.path).ok, "verify saw nothing"
                assert_honest(sample, name, read_sample(sample, read_only=read_only))
                if not read_only:
                    write_image(sample.path, sample.image)
            except Exception as error:
                failures.append(f"{name} at {position}: {error!r}")
    assert not failures, f"{len(failures)}\n" + "\n".join(failures[:20])


@pytest.mark.parametrize("ending", [".index", ".timeindex"])
def test_a_damaged_index_costs_nothing(sample: Sample, ending: str) -> None:
    for name in names_of(sample, ending):
        for _position, _ in change_each(sample, name, range(len(sample.image[name])), flip):
            with Broker(sample.path, read_only=True) as broker:
                for partition, expected in zip(broker.topic(TOPIC), sample.records.values()):
                    for record in expected:
                        assert partition.read(record.offset, max_records=1)[0] == record
                    for timestamp in (0, 5, 1_700_000_000_055, 1_700_000_000_080):
                        later = [r.offset for r in expected if r.timestamp >= timestamp]
                        assert partition.offset_at(timestamp) == later[0]


@pytest.mark.parametrize("bit", range(8))
def test_a_bit_flipped_in_a_small_log_is_found(tmp_path: Path, bit: int) -> None:
    path = tmp_path / "log"
    with Broker(path) as broker:
        partition = broker.create_topic(TOPIC)[0]
        partition.append(b"one", key=b"k")
        partition.append_many([b"two", b"three"])
        records = list(partition)
    sample = Sample(path, image_of(path), {0: records}, {0: 0})
    (name,) = names_of(sample, ".log")
    frames = frames_of(sample.image[name])

    def flip_bit(data: bytes, position: int) -> bytes:
        changed = bytearray(data)
        changed[position] ^= 1 << bit
        return bytes(changed)

    for position, _ in change_each(sample, name, range(len(sample.image[name])), flip_bit):
        assert_honest(sample, name, read_sample(sample, read_only=True))
        is_padding = not any(start <= position < end for start, end, _ in frames)
        assert not verify(path).ok or (position >= 64 and is_padding), position


@pytest.mark.parametrize("read_only", [True, False])
def test_a_log_cut_at_any_length_gives_what_is_left_and_says_what_is_not(
    sample: Sample, read_only: bool
) -> None:
    failures = []
    for name in names_of(sample, ".log"):
        size = len(sample.image[name])
        frames = frames_of(sample.image[name])
        step = 1 if read_only else 17
        for length, _ in change_each(
            sample, name, range(0, size, step), lambda data, length: data[:length]
        ):
            try:
                reading = read_sample(sample, read_only=read_only)
                assert_honest(sample, name, reading)
                assert isinstance(reading, Reading)
                lost = sum(map(len, sample.records.values()))
                lost -= sum(map(len, reading.records.values()))
                assert lost <= sum(count for _, end, count in frames if end > length)
                assert length % 5 or not verify(sample.path).ok
                assert (sample.path / name).stat().st_size == length
            except Exception as error:
                failures.append(f"{name} cut to {length}: {error!r}")
    assert not failures, f"{len(failures)}\n" + "\n".join(failures[:20])


def test_a_block_of_zeros_costs_what_was_in_it(sample: Sample) -> None:
    def zero(data: bytes, start: int) -> bytes:
        return data[:start] + bytes(len(data[start : start + 512])) + data[start + 512 :]

    for name in sample.image:
        positions = range(0, len(sample.image[name]), 512)
        for start, _ in change_each(sample, name, positions, zero):
            reading = read_sample(sample, read_only=True)
            assert_honest(sample, name, reading)
            assert not verify(sample.path).ok, (name, start)
            if not isinstance(reading, Reading):
                assert name.endswith(".json")
                continue
            lost = sum(map(len, sample.records.values()))
            lost -= sum(map(len, reading.records.values()))
            if name.endswith(".log"):
                frames = frames_of(sample.image[name])
                hit = [n for a, b, n in frames if a < start + 512 and start < b]
                assert lost <= sum(hit)
            else:
                assert not lost


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_that_is_gone_is_named_or_not_needed(sample: Sample, read_only: bool) -> None:
    failures = []
    for name in sample.image:
        (sample.path / name).unlink()
        signal.alarm(HANG_S)
        try:
            reading = read_sample(sample, read_only=read_only)
            if isinstance(reading, Reading):
                found = reading.records
                for partition, expected in sample.records.items():
                    assert all(record in expected for record in found[partition])
                    lost = {r.offset for r in expected} - {r.offset for r in found[partition]}
                    explained: set[int] = set()
                    for error in reading.errors[partition]:
                        explained |= set(range(*lost_by(error)))
                    assert lost <= explained
                    if not name.endswith(".log"):
                        assert not lost
            else:
                assert str(Path(name).parent) in str(reading)
            if name.endswith((".log", "topic.json", "broker.json")) and read_only:
                try:
                    is_right = verify(sample.path).ok
                except StorageError:
                    is_right = False
                assert not is_right
        except Exception as error:
            failures.append(f"without {name}: {error!r}")
        write_image(sample.path, sample.image)
    signal.alarm(0)
    assert not failures, "\n".join(failures)


def test_a_log_with_damage_takes_records_behind_it_and_closes_and_opens_again(
    sample: Sample,
) -> None:
    failures = []
    for partition_number in (0, 1):
        for log in logs_of(sample.path, TOPIC, partition_number):
            name = str(log.relative_to(sample.path))
            size = len(sample.image[name])
            for damage in (size // 2, 70, size - 1):
                write_image(sample.path, sample.image)
                log.write_bytes(flip(sample.image[name], damage))
                try:
                    with Broker(sample.path) as broker:
                        partition = broker.topic(TOPIC)[partition_number]
                        end = partition.end_offset
                        assert [partition.append(b"more %d" % n) for n in range(20)] == [
                            *range(end, end + 20)
                        ]
                    for read_only in (True, False):
                        with Broker(sample.path, read_only=read_only) as broker:
                            records, errors = read_all(broker.topic(TOPIC)[partition_number])
                        expected = sample.records[partition_number]
                        found = {record.offset: record for record in records}
                        assert [found[end + n].value for n in range(20)] == [
                            b"more %d" % n for n in range(20)
                        ]
                        for record in expected:
                            assert found.get(record.offset, record) == record
                        missing = {r.offset for r in expected} - set(found)
                        for error in errors:
                            missing -= set(range(*lost_by(error)))
                        assert not missing
                except Exception as error:
                    failures.append(f"{name} at {damage}: {error!r}")
    assert not failures, "\n".join(failures)


def test_a_record_acknowledged_as_durable_behind_damage_survives_a_power_cut(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    with Broker(path) as broker:
        partition = broker.create_topic(TOPIC)[0]
        for number in range(10):
            partition.append(b"before %d" % number)
            partition.flush()
    (log,) = logs_of(path, TOPIC)
    log.write_bytes(log.read_bytes()[:300])
    with Broker(path, sync="always") as broker:
        offset = broker.topic(TOPIC)[0].append(b"acknowledged")
        shutil.copytree(path, tmp_path / "crashed")
    (tmp_path / "crashed" / "minilog.lock").write_text("1 another-boot\n")
    with Broker(tmp_path / "crashed") as broker:
        assert broker.topic(TOPIC)[0].read(offset)[0].value == b"acknowledged"


def test_iterating_stops_at_damage_with_an_error(sample: Sample) -> None:
    name = names_of(sample, ".log")[0]
    path = sample.path / name
    path.write_bytes(flip(sample.image[name], 64 + 40))
    with Broker(sample.path, read_only=True) as broker:
        partition = broker.topic(TOPIC)[0]
        with pytest.raises(CorruptionError) as caught:
            list(partition)
        assert caught.value.offset == 0
        consumer = minilog.Consumer(broker, TOPIC)
        with pytest.raises(CorruptionError):
            list(consumer.drain())


def test_a_damaged_batch_that_claims_the_records_behind_it_does_not_have_them(
    tmp_path: Path,
) -> None:
    with Broker(tmp_path / "log") as broker:
        partition = broker.create_topic(TOPIC)[0]
        for batch in range(3):
            partition.append_many([b"%d" % n for n in range(10 * batch, 10 * batch + 10)])
    log = tmp_path / "log" / TOPIC / "0" / "00000000000000000000.log"
    data = bytearray(log.read_bytes())
    second = 64 + ((int.from_bytes(data[64:68], "little") + 7) & -8)
    assert data[second + 4] == 10
    data[second + 5] = 1  # it covers 266 offsets now
    log.write_bytes(data)
    with Broker(tmp_path / "log", read_only=True) as broker:
        partition = broker.topic(TOPIC)[0]
        with pytest.raises(CorruptionError) as caught:
            partition.read(15)
        assert (caught.value.offset, caught.value.next_offset) == (10, 20)
        assert partition.read(20).values == [b"%d" % n for n in range(20, 30)]


# ---------------------------------------------------------------- every bit, block and file


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_small_log_damaged_in_any_way_is_right_or_says_so(sample: str) -> None:
    """A share of all bits, lengths and blocks; ``tests/torture`` takes all of them."""
    turn = SAMPLES.index(sample)
    result = check_share("small", changes, lambda number: number % 499 == 7 * turn, sample)
    assert result.case_count > 200
    assert not result.failures, "\n\n".join(map(str, result.failures[:5]))


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_log_with_files_gone_and_blocks_moved_is_right_or_says_so(sample: str) -> None:
    turn = SAMPLES.index(sample)
    result = check_share("large", block_changes, lambda number: number % 5 == turn, sample)
    assert result.case_count > 80
    assert not result.failures, "\n\n".join(map(str, result.failures[:5]))


def test_an_index_whose_entries_are_out_of_order_does_not_keep_recovery_for_ever(
    tmp_path: Path,
) -> None:
    """The search for an entry below a position gave one above it, again and again."""
    with Broker(tmp_path / "log", sync="never", maintenance_interval_ms=0) as broker:
        partition = broker.create_topic(TOPIC, index_interval_bytes=100)[0]
        for number in range(40):
            partition.append(b"%d" % number * 10)
        expected = list(partition)
        crashed = crashed_copy(tmp_path / "log", tmp_path / "crashed", power_cut=True)
    index = crashed / TOPIC / "0" / "00000000000000000000.index"
    data = bytearray(index.read_bytes())
    count = len(data.rstrip(b"\0")) // 8
    assert count > 10
    for number in range(count):
        changed = bytearray(data)
        changed[number * 8 + 2] ^= 0x80  # a position far behind the end
        index.write_bytes(changed)
        signal.alarm(HANG_S)
        with Broker(crashed) as broker:
            assert list(broker.topic(TOPIC)[0]) == expected
        signal.alarm(0)
        shutil.rmtree(crashed)
        crashed_copy(tmp_path / "log", crashed, power_cut=True)
        index.write_bytes(data)


def test_the_mark_of_an_earlier_close_does_not_cost_what_came_after_it(tmp_path: Path) -> None:
    """Whatever stood behind the place it marks was dropped to quarantine."""
    path = tmp_path / "log"
    settings: dict[str, int] = {"segment_bytes": 400}
    with Broker(path) as broker:
        broker.create_topic(TOPIC, **settings)[0].append(b"first")
    marks = [(path / "clean.json").read_bytes()]
    for number in range(12):
        with Broker(path) as broker:
            broker.topic(TOPIC)[0].append(b"%d" % number * 20)
            expected = list(broker.topic(TOPIC)[0])
        marks.append((path / "clean.json").read_bytes())
    assert len(logs_of(path, TOPIC)) > 1
    image = image_of(path)
    for mark in marks:
        for read_only in (True, False):
            write_image(path, {**image, "clean.json": mark})
            with Broker(path, read_only=read_only) as broker:
                assert list(broker.topic(TOPIC)[0]) == expected
                if not read_only:
                    assert broker.topic(TOPIC)[0].append(b"more") == len(expected)


def test_a_topic_with_the_settings_of_another_is_told_and_not_left_out(sample: Sample) -> None:
    """It was passed over in silence, as a directory that is none of ours."""
    with Broker(sample.path) as broker:
        broker.create_topic("other")[0].append(b"x")
    ours, others = (sample.path / name / "topic.json" for name in (TOPIC, "other"))
    mine = ours.read_bytes()
    ours.write_bytes(others.read_bytes())
    others.write_bytes(mine)
    assert not verify(sample.path).ok
    for read_only in (True, False):
        with Broker(sample.path, read_only=read_only) as broker:
            for name in (TOPIC, "other"):
                with pytest.raises(CorruptionError, match="restore its own") as caught:
                    broker.topic(name)
                assert caught.value.path == str(sample.path / name / "topic.json")
            assert len(broker.recovery.problems) == 2


@pytest.mark.parametrize("damage", [b"\xff", b"\0" * 60])
def test_a_reader_of_a_log_that_was_not_closed_meets_damage_before_what_was_synced(
    tmp_path: Path, damage: bytes
) -> None:
    """It took damage for the end, as of a log that is just being written."""
    with Broker(tmp_path / "log", sync="never", maintenance_interval_ms=0) as broker:
        partition = broker.create_topic(TOPIC)[0]
        for number in range(10):
            partition.append(b"%d" % number * 10)
        broker.flush()
        partition.append(b"knows that those before are on the disk")
        expected = list(partition)
        crashed = crashed_copy(tmp_path / "log", tmp_path / "crashed", power_cut=False)
    (log,) = logs_of(crashed, TOPIC)
    data = log.read_bytes()
    hit = data.index(b"5" * 10) - 36
    log.write_bytes(data[:hit] + damage + data[hit + len(damage) :])
    for read_only in (True, False):
        with Broker(crashed, read_only=read_only) as broker:
            records, errors = read_all(broker.topic(TOPIC)[0])
            assert broker.topic(TOPIC)[0].end_offset == 11
        (error,) = errors
        lost = range(*lost_by(error))
        assert (error.path, error.position, lost[0]) == (str(log), hit, 5)
        assert len(lost) <= 2
        assert records == [record for record in expected if record.offset not in lost]


# ---------------------------------------------------------------- whole files that are missing


@pytest.fixture
def segments(tmp_path: Path) -> list[Path]:
    """The files of a closed partition, each a segment of two records, at offsets 0, 2, 4..."""
    with Broker(tmp_path / "log", clock=ManualClock()) as broker:
        partition = broker.create_topic(TOPIC, segment_bytes=256)[0]
        for number in range(6):
            partition.append_many([b"v" * 60] * 2, timestamps=number)
        expected = [log_name(base) for base in range(0, 12, 2)]
    logs = logs_of(tmp_path / "log", TOPIC)
    assert [log.name for log in logs] == expected
    return logs


def log_name(base: int) -> str:
    return f"{base:020d}.log"


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(("first", "last"), [(0, 0), (1, 1), (1, 3), (4, 5), (5, 5)])
def test_a_missing_segment_is_named_with_the_offsets_it_held_and_not_its_neighbour(
    tmp_path: Path, segments: list[Path], first: int, last: int, read_only: bool
) -> None:
    missing = segments[first : last + 1]
    for log in missing:
        log.unlink()
    lost = range(2 * first, 2 * (last + 1))
    report = verify(tmp_path / "log")
    assert [(p.path, p.offset) for p in report.problems] == [(str(missing[0]), lost.start)]
    with Broker(tmp_path / "log", read_only=read_only, clock=ManualClock()) as broker:
        partition = broker.topic(TOPIC)[0]
        assert partition.end_offset == 12
        records, errors = read_all(partition)
        assert [record.offset for record in records] == [n for n in range(12) if n not in lost]
        assert [lost_by(error) for error in errors] == [(lost.start, lost.stop)]
        (error,) = errors
        assert (error.path, error.position) == (str(missing[0]), 0)
        assert "missing" in error.reason
        is_last = last == 5
        told = [(str(missing[0]), lost.start)] if is_last and not read_only else []
        assert [(p.path, p.offset) for p in broker.recovery.problems] == told
        looks = [lambda: partition.offset_at(first), lambda: partition.offset_at(100)]
        if first:
            assert partition.offset_at(first - 1) == lost.start - 2
        if read_only and not is_last:
            looks.append(lambda: len(partition))
        else:
            assert len(partition) == len(records)
        for look in looks if first or read_only else []:
            with pytest.raises(CorruptionError, match="missing") as caught:
                look()
            assert caught.value.path == str(missing[0])


@pytest.mark.parametrize("read_only", [True, False])
def test_where_a_missing_first_segment_began_is_not_made_up(
    tmp_path: Path, segments: list[Path], read_only: bool
) -> None:
    with Broker(tmp_path / "log", clock=ManualClock()) as broker:
        broker.topic(TOPIC)[0].delete_before(5)
    remaining = logs_of(tmp_path / "log", TOPIC)
    assert remaining[0].name == log_name(4)
    remaining[0].unlink()
    (problem,) = verify(tmp_path / "log").problems
    assert (problem.path, problem.offset) == (str(remaining[0].parent), 5)
    with Broker(tmp_path / "log", read_only=read_only, clock=ManualClock()) as broker:
        (error,) = read_all(broker.topic(TOPIC)[0])[1]
    assert lost_by(error) == (5, 6)
    assert error.path == str(remaining[0].parent)
    assert "offset 5, or else the last before it, is missing" in error.reason


def test_a_segment_that_is_removed_under_an_open_broker_is_named_until_it_is_back(
    tmp_path: Path, segments: list[Path]
) -> None:
    with Broker(tmp_path / "log", clock=ManualClock()) as broker:
        partition = broker.topic(TOPIC)[0]
        assert partition.end_offset == 12
        segments[2].rename(tmp_path / "aside")
        for _ in range(2):
            records, (error,) = read_all(partition)
            assert [record.offset for record in records] == [0, 1, 2, 3, *range(6, 12)]
            assert (error.path, *lost_by(error)) == (str(segments[2]), 4, 6)
            assert "missing" in error.reason
        (tmp_path / "aside").rename(segments[2])
        assert [record.offset for record in partition] == list(range(12))


def test_the_last_segment_is_missed_for_as_long_as_the_log_lives(
    tmp_path: Path, segments: list[Path]
) -> None:
    """A log that was closed without its last segment took what came before it for damaged, and a
    reader of it ended there in silence."""
    lost = segments.pop()
    lost.unlink()

    def assert_missed(*, read_only: bool, end: int) -> None:
        with Broker(tmp_path / "log", read_only=read_only, clock=ManualClock()) as broker:
            partition = broker.topic(TOPIC)[0]
            assert partition.end_offset == end
            records, errors = read_all(partition)
            assert [r.offset for r in records] == [n for n in range(end) if n not in (10, 11)]
            assert [(error.path, *lost_by(error)) for error in errors] == [(str(lost), 10, 12)]

    for _ in range(2):
        assert_missed(read_only=False, end=12)
        assert_missed(read_only=True, end=12)
    with Broker(tmp_path / "log", clock=ManualClock()) as broker:
        assert broker.topic(TOPIC)[0].append(b"goes on behind what is lost") == 12
    for read_only in (True, False):
        assert_missed(read_only=read_only, end=13)


@pytest.mark.parametrize("read_only", [True, False])
def test_damage_to_what_was_compacted_costs_nothing_behind_it_after_a_power_cut(
    tmp_path: Path, read_only: bool
) -> None:
    """The last segment was begun before anything was synced, and says so still."""
    with Broker(tmp_path / "log", sync="never", maintenance_interval_ms=0) as broker:
        topic = broker.create_topic(TOPIC, segment_bytes=512, cleanup_policy="compact")
        for number in range(60):
            topic[0].append(b"value", key=b"%d" % number)
        topic.compact()
        expected = list(topic[0])
        crashed = crashed_copy(tmp_path / "log", tmp_path / "crashed", power_cut=True)
    logs = logs_of(crashed, TOPIC)
    assert len(logs) > 3
    logs[0].write_bytes(flip(logs[0].read_bytes(), 100))
    with Broker(crashed, read_only=read_only) as broker:
        records, (error,) = read_all(broker.topic(TOPIC)[0])
        assert lost_by(error) == (0, int(logs[1].stem))
        assert error.path == str(logs[0])
        assert records == expected[int(logs[1].stem) :]
    assert logs_of(crashed, TOPIC) == logs


def test_reserve_that_comes_back_behind_a_seal_is_no_damage(tmp_path: Path) -> None:
    """A crash may undo that a file was cut: the seal is looked for, and the segment is whole."""
    with Broker(tmp_path / "log", clock=ManualClock()) as broker:
        topic = broker.create_topic(TOPIC, segment_bytes=512, cleanup_policy="compact")
        for number in range(30):
            topic[0].append(b"%d" % number, key=b"%d" % (number % 7))
        expected = list(topic[0])
    for log in logs_of(tmp_path / "log", TOPIC)[:-1]:
        log.write_bytes(log.read_bytes() + bytes(4096))
    with Broker(tmp_path / "log", clock=ManualClock()) as broker:
        partition = broker.topic(TOPIC)[0]
        assert len(partition) == 30
        assert list(partition) == expected
        partition.check()
        broker.topic(TOPIC).compact()
        assert list(partition) == expected[-7:]


def test_a_writer_that_repairs_what_a_reader_has_just_looked_behind_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of bytes stored in a row the later ones may be seen first: that is no damage."""
    with Broker(tmp_path / "log", sync="never", maintenance_interval_ms=0) as broker:
        partition = broker.create_topic(TOPIC, segment_bytes=2048)[0]
        for number in range(10):
            partition.append(b"%d" % number * 10)
        broker.flush()
        partition.append(b"knows that those before are on the disk")
        (log,) = logs_of(tmp_path / "log", TOPIC)
        data = log.read_bytes()
        hit = data.index(b"5" * 10)
        frames_beyond = recovery._frames_beyond

        def put(piece: bytes) -> None:
            with log.open("r+b") as file:
                file.seek(hit)
                file.write(piece)

        def looked_behind(segment: Segment, found: recovery.Found) -> list[tuple[int, int, int]]:
            beyond = frames_beyond(segment, found)
            assert found.next_offset == 5
            assert beyond
            monkeypatch.undo()
            put(data[hit : hit + 10])
            for number in range(40):
                partition.append(b"later %d" % number)
            return beyond

        put(bytes(10))
        monkeypatch.setattr(recovery, "_frames_beyond", looked_behind)
        with Broker(tmp_path / "log", read_only=True) as reader:
            seen = reader.topic(TOPIC)[0]
            assert seen.end_offset == partition.end_offset == 51
            assert list(seen) == list(partition)
            assert seen.offset_at(2**62) is None
        assert len(logs_of(tmp_path / "log", TOPIC)) > 1
