"""A log of several segments: room, what is synced, what is dropped, and how it is read across."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from minilog.config import TopicConfig
from minilog.errors import CorruptionError
from minilog.storage import format as f
from minilog.storage import readable_log, scan
from minilog.storage.batch import encode_batch
from minilog.storage.files import Directory, DiskDirectory, MapLimit
from minilog.storage.index import LARGEST_RELATIVE
from minilog.storage.log import Log
from minilog.storage.opening import Opening
from minilog.storage.readable_log import LOOKS, End
from minilog.storage.rewriting import Rewriting
from minilog.storage.runs import runs_of
from minilog.storage.segment import Segment
from minilog.testing import SimulatedDisk
from minilog.testing.trace import SYNC, SYNC_NAMES, UNLINK

BASE = 100
CONFIG = TopicConfig(segment_bytes=512, index_interval_bytes=256)


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


@pytest.fixture
def directory(disk: SimulatedDisk) -> Directory:
    directory = disk.root_directory()
    Log.create(directory, b"log", BASE, 5000)
    return directory


def opened(directory: Directory, **opening: Any) -> Log:
    return Log(directory, b"log", CONFIG, MapLimit(100), Opening(**opening))


@pytest.fixture
def log(directory: Directory) -> Log:
    return opened(directory, mark=Log.fresh_mark(BASE), same_boot=True)


def append(log: Log, value: bytes, timestamp: int = 1000, origin: f.Origin = f.NOBODY) -> int:
    return log.append_single(None, value, b"", timestamp, 6000, origin)


def filled(log: Log, segments: int = 3) -> list[bytes]:
    """Fill so many segments; return the values."""
    values: list[bytes] = []
    while len(log.segments()) < segments or not log.has_records_in_tail:
        values.append(b"%03d" % len(values) * 10)
        append(log, values[-1], timestamp=1000 + len(values))
    return values


def values_from(
    log: Log, offset: int, max_records: int = 10**6, max_bytes: int = 10**9
) -> list[Any]:
    rows, _ = log.read(offset, log.end(), max_records, max_bytes)
    return [value for row in rows for value in row.values]


def kinds(disk: SimulatedDisk, since: int) -> list[tuple[str, str]]:
    return [(each.kind, each.path.rpartition(".")[2]) for each in disk.operations[since:]]


# ---------------------------------------------------------------- append


@pytest.mark.parametrize("origin", [f.NOBODY, f.Origin(7, 0, 1), f.Origin(7, 0, 1, 5)])
@pytest.mark.parametrize("size", [0, 1, 100, 400, 10_000])
def test_there_is_room_for_whatever_a_record_has(
    directory: Directory, log: Log, origin: f.Origin, size: int
) -> None:
    """A store beyond what was reserved would kill the process."""
    headers = f.encode_headers((("name", b"value"),))
    for number in range(20):
        assert log.append_single(b"key", bytes(size), headers, 1, 6000, origin) == BASE + number
    log.append_marker(5, is_commit=True, now_ms=6000)
    log.check()
    assert values_from(log, BASE) == [bytes(size)] * 20


def test_a_marker_does_not_move_the_time_of_its_segment(log: Log) -> None:
    append(log, b"v", timestamp=1000)
    log.append_marker(5, is_commit=False, now_ms=9000)
    assert log.largest_timestamp == 1000
    (segment,) = log.segments()
    walked = scan.walk(segment.region(), f.HEADER_SIZE, BASE, segment.tail[0], segment.seed)
    prefix = list(walked)[-1][1]
    assert prefix.flags == f.CONTROL | f.EXTENDED | f.TRANSACTIONAL
    assert prefix.timestamp == 1000


@pytest.mark.parametrize(("is_commit", "said"), [(True, b"C"), (False, b"A")])
def test_a_marker_says_how_its_transaction_ended(log: Log, is_commit: bool, said: bytes) -> None:
    log.append_marker(5, is_commit=is_commit, now_ms=9000)
    assert log.largest_timestamp == 0  # there was none before it
    (segment,) = log.segments()
    frame = segment.region()[f.HEADER_SIZE : segment.tail[0]]
    prefix = f.Prefix._make(f.PREFIX.unpack_from(frame))
    assert f.decode_single(prefix, frame) == (None, said, ())
    assert f.decode_origin(prefix, frame) == f.Origin(transaction=5)


@pytest.mark.parametrize(("timestamp_type", "largest"), [("create", -1), ("append", 3000)])
def test_append_time_does_not_step_back_over_a_roll(
    log: Log, timestamp_type: str, largest: int
) -> None:
    log.reconfigure(CONFIG._replace(timestamp_type=timestamp_type))
    append(log, b"v", timestamp=3000)
    log.roll(6000)
    assert log.largest_timestamp == largest


def test_a_log_rolls_before_an_offset_is_too_far_from_the_first_of_its_segment(log: Log) -> None:
    append(log, b"v")
    (segment,) = log.segments()
    segment.tail = (segment.tail[0], BASE + LARGEST_RELATIVE - 1)
    append(log, b"v")
    assert (log.writing, log.end_offset) == (segment, BASE + LARGEST_RELATIVE)
    append(log, b"v")
    assert log.writing.base_offset == BASE + LARGEST_RELATIVE


def test_the_short_path_is_shown_the_last_segment_also_after_an_interrupt(log: Log) -> None:
    append(log, b"v")
    before = log.writing
    log.roll(6000)
    log.writing = before  # as a roll leaves it that was interrupted at its end
    append(log, b"v")
    assert log.writing is log.segments()[-1] is not before


def test_a_log_rolls_when_its_segment_is_full_and_goes_on_where_it_was(log: Log) -> None:
    values = filled(log, 4)
    segments = log.segments()
    assert len(segments) == 4
    assert all(segment.size_bytes <= CONFIG.segment_bytes for segment in segments)
    assert all(segment.is_sealed for segment in segments[:-1])
    assert (log.first_base, log.end_offset) == (BASE, BASE + len(values))
    batch = encode_batch([b"a", b"b"], None, None, None, 100)
    assert log.append_batch(batch, 5000, 6000) == BASE + len(values)
    log.check()


def test_each_opening_writes_under_an_epoch_of_its_own(directory: Directory) -> None:
    epochs = []
    for number in range(3):
        log = opened(directory, same_boot=True)
        append(log, b"%d" % number)
        segment = log.segments()[-1]
        walked = scan.walk(segment.region(), f.HEADER_SIZE, BASE, segment.tail[0], segment.seed)
        epochs = [prefix.epoch for _, prefix in walked]
    assert len(epochs) == 3
    assert epochs == sorted(set(epochs))


# ---------------------------------------------------------------- durability


def test_a_sync_is_of_what_was_not_synced_and_no_more(disk: SimulatedDisk, log: Log) -> None:
    filled(log, 3)
    assert log.is_dirty()
    count = len(disk.operations)
    log.sync()
    done = kinds(disk, count)
    assert done.count((SYNC, "log")) == 3
    assert done.count((SYNC, "index")) == done.count((SYNC, "timeindex")) == 2  # of the sealed
    assert [kind for kind, _ in done].count(SYNC_NAMES) == 1
    assert not log.is_dirty()
    append(log, b"v")
    assert log.is_dirty()
    count = len(disk.operations)
    log.sync()
    assert kinds(disk, count) == [(SYNC, "log")]
    assert not log.is_dirty()


def test_names_whose_sync_failed_are_synced_the_next_time(
    disk: SimulatedDisk, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(log, 2)

    def fail() -> None:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patched:
        patched.setattr(log.directory, "sync", fail)
        with pytest.raises(OSError, match="no"):
            log.sync()
    assert log.is_dirty()
    count = len(disk.operations)
    log.sync()
    assert SYNC_NAMES in [kind for kind, _ in kinds(disk, count)]
    assert not log.is_dirty()


def test_a_log_is_untouched_as_long_as_its_last_file_is_as_large(tmp_path: Path) -> None:
    directory = DiskDirectory(str(tmp_path / "log"))
    Log.create(directory, b"log", BASE, 5000)
    mark = Log.fresh_mark(BASE)
    assert Log.looks_untouched(directory, mark)
    assert not Log.looks_untouched(directory, mark._replace(position=f.HEADER_SIZE + 8))
    assert Log.looks_untouched(directory, mark._replace(position=0, is_sealed=True))
    assert not Log.looks_untouched(directory, mark._replace(base_offset=BASE + 1, is_sealed=True))


# ---------------------------------------------------------------- drop


def test_what_was_dropped_is_out_of_sight_at_once_and_unlinked_one_by_one(
    disk: SimulatedDisk, directory: Directory, log: Log
) -> None:
    values = filled(log, 4)
    bases = [segment.base_offset for segment in log.segments()]
    log.sync()
    assert not log.has_some_to_drop(bases[1] - 1)
    log.drop_before(bases[1] - 1)
    assert not log.is_dirty()
    assert not log.remove_dropped()
    assert log.has_some_to_drop(bases[1])
    count = len(disk.operations)
    log.drop_before(bases[2] + 1)
    assert log.is_dirty()
    assert log.first_base == bases[2]
    assert log.has_some_to_drop(bases[2])
    assert kinds(disk, count) == []
    assert log.remove_dropped()
    assert f"{bases[0]:020d}.log" not in directory.names()
    assert f"{bases[1]:020d}.log" in directory.names()
    assert log.remove_dropped()
    assert not log.remove_dropped()
    assert values_from(log, bases[2]) == values[bases[2] - BASE :]
    assert not log.has_some_to_drop(bases[2])
    assert UNLINK in [kind for kind, _ in kinds(disk, count)]
    log.check()


def test_a_dropped_segment_whose_file_is_gone_is_no_error(directory: Directory, log: Log) -> None:
    filled(log, 3)
    bases = [segment.base_offset for segment in log.segments()]
    log.drop_before(bases[2])
    directory.unlink(f"{bases[0]:020d}.log")
    assert log.remove_dropped()
    assert log.remove_dropped()
    assert not log.remove_dropped()


def test_all_can_be_dropped_when_the_end_was_left_behind(log: Log) -> None:
    filled(log, 2)
    end = log.end_offset
    log.leave_behind(end - 1, 6000)
    assert log.has_records_in_tail
    log.leave_behind(end, 6000)
    assert not log.has_records_in_tail
    segments = log.segments()
    log.leave_behind(end, 6000)
    assert log.segments() == segments  # an empty one is left as it is
    log.drop_before(end)
    assert (log.first_base, log.end_offset) == (end, end)
    assert append(log, b"again") == end


# ---------------------------------------------------------------- read across


def test_every_record_is_read_from_every_offset_on(log: Log) -> None:
    values = filled(log, 4)
    for start in range(len(values)):
        assert values_from(log, BASE + start) == values[start:]
        assert values_from(log, BASE + start, max_records=1) == [values[start]]
    assert values_from(log, BASE, max_records=0) == []
    assert log.read(log.end_offset, log.end(), 10, 10) == ([], log.end_offset)


def test_a_read_keeps_to_its_bytes_across_segments(log: Log) -> None:
    for size in (400, 400, 1, 400):
        append(log, bytes(size))
    assert len(log.segments()) >= 3
    for budget, count in ((0, 1), (400, 1), (799, 1), (800, 2), (801, 3), (1200, 3), (1201, 4)):
        assert len(values_from(log, BASE, max_bytes=budget)) == count


def test_nothing_behind_an_earlier_end_is_read_or_counted(log: Log) -> None:
    ends: list[End] = [log.end()]
    values: list[bytes] = []
    while len(log.segments()) < 4:
        values.append(b"%03d" % len(values) * 10)
        append(log, values[-1], timestamp=1000 + len(values))
        ends.append(log.end())
    for count, end in enumerate(ends):
        assert log.record_count(BASE, end) == log.record_count(0, end) == count
        assert log.offset_at(1000 + count, BASE, end) == (BASE + count - 1 if count else None)
        assert log.offset_at(1001 + count, BASE, end) is None
        if count:
            rows, following = log.read(BASE, end, 10**6, 10**9)
            assert [value for row in rows for value in row.values] == values[:count]
            assert following == BASE + count
    for start in range(len(values)):
        assert log.record_count(BASE + start, log.end()) == len(values) - start
        assert log.offset_at(0, BASE + start, log.end()) == BASE + start


def test_a_look_reaches_as_far_as_is_read(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(log, 3)
    tails = {segment.base_offset: segment.tail[0] for segment in log.segments()}
    asked: dict[int, set[int]] = {base: set() for base in tails}
    real = Segment.view

    def view(segment: Segment, end: int) -> Any:
        asked[segment.base_offset].add(end)
        return real(segment, end)

    monkeypatch.setattr(Segment, "view", view)
    values_from(log, BASE)
    for number in range(log.end_offset - BASE):
        assert log.offset_at(1001 + number, BASE, log.end()) == BASE + number
    assert asked == {base: {position} for base, position in tails.items()}


@pytest.mark.parametrize("is_writable", [True, False])
def test_segments_that_are_gone_are_met_as_damage_that_says_where_to_read_on(
    directory: Directory, log: Log, is_writable: bool
) -> None:
    values = filled(log, 4)
    log.sync()
    log.trim()
    _, second, third, _ = log.segments()
    mark = log.mark()
    directory.unlink(f"{second.name}.log")
    again = opened(directory, is_writable=is_writable, mark=mark, same_boot=True)
    assert values_from(again, BASE) == values[: second.base_offset - BASE]
    with pytest.raises(CorruptionError) as caught:
        values_from(again, second.base_offset)
    assert caught.value.path == second.path
    assert caught.value.offset == second.base_offset
    assert caught.value.next_offset == third.base_offset
    assert values_from(again, third.base_offset) == values[third.base_offset - BASE :]
    if not is_writable:
        with pytest.raises(CorruptionError):
            again.record_count(second.base_offset, again.end())


def test_what_is_before_damage_is_read_first(directory: Directory, log: Log) -> None:
    values = filled(log, 3)
    log.sync()
    second = log.segments()[1]
    file = directory.open(f"{second.name}.log", writable=True)
    file.write(f.HEADER_SIZE + 38, b"x")
    log.unmap()
    assert values_from(log, BASE) == values[: second.base_offset - BASE]
    with pytest.raises(CorruptionError) as caught:
        values_from(log, second.base_offset)
    assert (caught.value.position, caught.value.offset) == (f.HEADER_SIZE, second.base_offset)
    assert caught.value.next_offset == second.base_offset + 1


CALLS: dict[str, Any] = {
    "read": lambda log: [list(rows.values) for rows in log.read(BASE, log.end(), 5, 10**9)[0]],
    "offset_at": lambda log: log.offset_at(1001, BASE, log.end()),
    "count_from": lambda log: log.record_count(BASE + 1, log.end()),
}


@pytest.mark.parametrize("name", CALLS)
def test_files_that_went_meanwhile_are_looked_for_a_few_times(
    log: Log, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    append(log, b"v", timestamp=1000)
    batch = encode_batch([b"a", b"b"], None, None, [1001, 1002], 100, [0, 1])
    log.append_batch(batch, 1002, 6000)
    log.roll(6000)
    log.segments()[0]._sealed_count = 2  # not dense: its records are counted
    expected = CALLS[name](log)
    real = getattr(readable_log, name)
    failing: list[BaseException] = []
    calls = 0

    def fail_first(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if failing:
            raise failing.pop()
        return real(*arguments)

    monkeypatch.setattr(readable_log, name, fail_first)
    for times in range(LOOKS + 1):
        failing[:] = [FileNotFoundError() for _ in range(times)]
        assert CALLS[name](log) == expected
    failing[:] = [FileNotFoundError() for _ in range(100)]
    calls = 0
    with pytest.raises((FileNotFoundError, CorruptionError)):  # or it says which is missing
        CALLS[name](log)
    assert calls == LOOKS + 1
    failing[:] = [CorruptionError("it is damaged", path="it") for _ in range(100)]
    calls = 0
    with pytest.raises(CorruptionError):
        CALLS[name](log)
    assert calls == 1


# ---------------------------------------------------------------- another process's log


def reader_of(directory: Directory, **opening: Any) -> Log:
    return opened(directory, is_writable=False, **opening)


def bases_of(log: Log) -> list[int]:
    return list(log._view[0])


@pytest.fixture
def from_0(disk: SimulatedDisk) -> Directory:
    directory = disk.root_directory()
    Log.create(directory, b"log", 0, 5000)
    return directory


def test_a_reader_follows_a_writer_over_many_segments(from_0: Directory) -> None:
    writer = opened(from_0, same_boot=True)
    reader = reader_of(from_0)
    reader.follow()
    assert reader.end_offset == 0
    for number in range(40):
        append(writer, b"%03d" % number * 10)
        if number % 7 == 0:
            reader.follow()
            assert reader.end_offset == number + 1
            assert bases_of(reader) == bases_of(writer)
    reader.follow()
    expected = [b"%03d" % number * 10 for number in range(40)]
    assert values_from(reader, 0) == values_from(writer, 0) == expected
    writer.roll(6000)
    reader.follow()
    assert reader.end() == writer.end()
    reader.check()


@pytest.mark.parametrize("follow", [Log.follow, Log.look_anew])
def test_a_reader_finds_what_is_there_where_its_last_segment_went(
    from_0: Directory, follow: Any
) -> None:
    """Put together with those before it, as compaction does, or dropped with them."""
    writer = opened(from_0, same_boot=True)
    values = filled(writer, 2)
    reader = reader_of(from_0)
    first, last = bases_of(reader)
    before = reader._view[0][first]
    reader.unmap()
    values += [append(writer, b"v" * 300) and b"v" * 300 for _ in range(2)]
    from_0.unlink(f"{last:020d}.log")
    follow(reader)
    there = [base for base in bases_of(writer) if base != last]
    assert bases_of(reader) == there
    assert first == 0
    assert reader._view[0][first] is not before  # it may be of another file now
    assert reader.end_offset == writer.end_offset
    for base in there[:-1]:
        from_0.unlink(f"{base:020d}.log")
    reader = reader_of(from_0)
    assert bases_of(reader) == there[-1:]
    assert values_from(reader, there[-1]) == values[there[-1] :]


def test_a_reader_sees_dropped_segments_go(from_0: Directory) -> None:
    writer = opened(from_0, same_boot=True)
    values = filled(writer, 2)
    reader = reader_of(from_0)
    end = writer.end_offset
    writer.leave_behind(end, 6000)
    writer.drop_before(end)
    while writer.remove_dropped():
        pass
    values.append(b"the only one")
    append(writer, values[-1])
    reader.look_anew()
    assert bases_of(reader) == [end]
    assert values_from(reader, end) == [b"the only one"]


def test_a_reader_of_a_log_whose_end_is_gone_goes_on_with_what_a_writer_adds(
    from_0: Directory,
) -> None:
    writer = opened(from_0, same_boot=True)
    filled(writer, 3)
    writer.sync()
    writer.trim()
    mark = writer.mark()
    from_0.unlink(f"{mark.base_offset:020d}.log")
    reader = reader_of(from_0, mark=mark)
    assert reader.end_offset == mark.next_offset
    writer = opened(from_0, mark=mark, same_boot=True)
    (problem,) = writer.problems
    assert problem.path.endswith(f"{mark.base_offset:020d}.log")
    assert problem.position == 0
    assert str(mark.next_offset) in problem.reason
    assert append(writer, b"added") == mark.next_offset
    reader.follow()
    assert reader.end_offset == mark.next_offset + 1
    assert values_from(reader, mark.next_offset) == [b"added"]


def test_what_was_replaced_may_be_gone_already(disk: SimulatedDisk, log: Log) -> None:
    filled(log, 2)
    count = len(disk.operations)
    log.forget_superseded()
    assert kinds(disk, count) == []
    log._superseded.append(BASE + 1)
    log.forget_superseded()
    assert log._superseded == []
    assert [kind for kind, _ in kinds(disk, count)] == [SYNC_NAMES]


@pytest.mark.parametrize("is_renamed", [True, False])
def test_a_replacement_that_was_interrupted_is_seen_if_it_was_done(
    directory: Directory, log: Log, monkeypatch: pytest.MonkeyPatch, is_renamed: bool
) -> None:
    values = filled(log, 3)
    sources = log.segments()[:2]
    writing = Rewriting(log.begin_segment(BASE), directory, 256, "none")
    for source in sources:
        for run in runs_of(source):
            writing.add(run.where([True] * len(run.offsets)), run.make)
    end = sources[-1].next_offset
    written = writing.finish(f.SegmentHeader(BASE, BASE, 5000, 1, cleaned_to=end), end, 6000)
    rename = directory.rename

    def interrupted(old: str, new: str) -> None:
        if is_renamed:
            rename(old, new)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(log.directory, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.replace(sources, written)
    assert log.has_all([written]) == is_renamed
    assert log.has_all(sources) == (not is_renamed)
    assert values_from(log, BASE) == values
    if is_renamed:
        log.forget_superseded()
        assert f"{sources[1].name}.log" not in directory.names()
    log.check()


def test_a_reader_keeps_what_it_has_where_files_are_gone(from_0: Directory) -> None:
    writer = opened(from_0, same_boot=True)
    filled(writer, 3)
    reader = reader_of(from_0)
    reader.follow()
    bases, end = bases_of(reader), reader.end_offset
    for base in reversed(bases):
        from_0.unlink(f"{base:020d}.log")
        reader.look_anew()
        assert (bases_of(reader), reader.end_offset) == (bases, end)


def test_one_record_is_found_in_any_segment_that_was_read(log: Log) -> None:
    values = filled(log, 4)
    assert values_from(log, BASE) == values
    for number, value in enumerate(values):
        assert log.record_at(BASE + number) == (1001 + number, None, value)
    assert log.record_at(log.end_offset) is None
    assert log.record_at(BASE - 1) is None
