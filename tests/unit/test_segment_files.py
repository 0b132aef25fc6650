"""A segment's files as they are found: its seal, what cannot be opened, its index and origins."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from minilog.config import TopicConfig
from minilog.errors import CorruptionError
from minilog.records import LATEST_TIMESTAMP
from minilog.storage import format as f
from minilog.storage.batch import encode_batch
from minilog.storage.files import Directory, DiskDirectory, File, MapLimit
from minilog.storage.index import Index
from minilog.storage.segment import Segment
from minilog.storage.segment_files import CLOSED, Place, missing_path
from minilog.testing import SimulatedDisk
from minilog.testing.trace import UNLINK

BASE = 100
CONFIG = TopicConfig(segment_bytes=8192, index_interval_bytes=256)


class OutOfDescriptors:
    """A directory whose next files cannot be opened: too many are."""

    def __init__(self, directory: Directory, times: int, number: int = errno.EMFILE) -> None:
        self._directory = directory
        self._number = number
        self.times = times

    def open(self, name: str, *, writable: bool = False) -> File:
        if self.times:
            self.times -= 1
            raise OSError(self._number, "too many open files")
        return self._directory.open(name, writable=writable)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._directory, name)


class Holder:
    """One who maps files, and lets them go."""

    is_mapped = True

    def unmap(self) -> None:
        self.is_mapped = False


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


@pytest.fixture
def directory(disk: SimulatedDisk) -> Directory:
    directory = disk.root_directory()
    directory.make()
    return directory


def found(directory: Directory, maps: MapLimit | None = None) -> Segment:
    """Return a segment as one who opens it finds it."""
    return Segment(Place(directory, b"log", maps or MapLimit(100), True), BASE, CONFIG, 1)


@pytest.fixture
def segment(directory: Directory) -> Segment:
    """A segment that was just made."""
    made = found(directory)
    made.create(BASE, 5000)
    return made


def append(
    segment: Segment,
    value: bytes,
    timestamp: int = 1000,
    origin: f.Origin = f.NOBODY,
    flags: int = 0,
) -> None:
    extension = 0 if origin is f.NOBODY else f.LARGEST_EXTENSION
    segment.make_room(f.SINGLE_OVERHEAD + extension + len(value), 6000)
    segment.append_single(None, value, b"", timestamp, 6000, origin, flags)


def append_many(
    segment: Segment,
    values: list[bytes],
    origin: f.Origin = f.NOBODY,
    deltas: list[int] | None = None,
) -> None:
    batch = encode_batch(values, None, None, None, 1000, deltas)
    segment.make_room(batch.frame_bytes, 6000)
    segment.append_batch(batch, 1000, 6000, origin)


def change(directory: Directory, segment: Segment, position: int) -> None:
    file = directory.open(f"{segment.name}.log", writable=True)
    (byte,) = file.read(position, 1)
    file.write(position, bytes([byte ^ 1]))


# ---------------------------------------------------------------- what it knows


def test_one_that_nobody_has_looked_at_knows_nothing(directory: Directory) -> None:
    segment = found(directory)
    assert segment.tail == (f.HEADER_SIZE, BASE)
    assert (segment.largest_timestamp, segment.last_append_ms, segment.durable) == (-1, 0, 0)
    assert (segment.is_sealed, segment.is_frozen, segment.is_live) == (False, False, False)
    assert (segment.is_cleaned, segment.is_empty, segment.record_count) == (False, True, 0)
    assert (segment.limit, segment.mapped, segment.look) == (CLOSED, None, None)
    assert not segment.exists()


def test_a_seal_without_records_before_it_is_found(directory: Directory, segment: Segment) -> None:
    segment.seal()
    again = found(directory)
    assert again.load_seal()
    assert (again.tail, again.record_count) == ((f.HEADER_SIZE, BASE), 0)
    assert again.size_bytes == f.HEADER_SIZE + f.SEAL_SIZE


def test_a_file_too_short_for_a_seal_has_none(tmp_path: Path) -> None:
    directory = DiskDirectory(str(tmp_path))
    segment = found(directory)
    segment.create(BASE, 5000)
    segment.seal()
    (path,) = tmp_path.glob("*.log")
    whole = path.read_bytes()
    assert found(directory).load_seal()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        again = found(directory)
        assert not again.load_seal()
        assert again.tail == (f.HEADER_SIZE, BASE)


def test_a_segment_that_cannot_be_made_leaves_no_file(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    segment = found(directory)
    monkeypatch.setattr(segment, "write_header", fail)
    with pytest.raises(OSError, match="no space"):
        segment.create(BASE, 5000)
    assert directory.names() == []
    monkeypatch.undo()
    segment.create(BASE, 5000)
    assert (segment.last_append_ms, segment.began_ms()) == (5000, 5000)


def test_its_size_has_its_seal_but_not_where_there_is_damage(segment: Segment) -> None:
    append(segment, b"v")
    position = segment.tail[0]
    assert segment.size_bytes == position
    assert segment.limit > position
    other = found(segment.directory)
    other.region()
    append(other, b"v")
    other.freeze(position, BASE + 9)
    assert (other.size_bytes, other.record_count, other.limit) == (position, 9, CLOSED)
    segment.seal()
    assert segment.size_bytes == position + f.SEAL_SIZE


def test_a_last_record_of_a_seal_s_size_is_no_seal(directory: Directory, segment: Segment) -> None:
    append(segment, b"v" * (f.SEAL_SIZE - f.SINGLE_OVERHEAD))
    segment.trim()
    assert segment.file_size() == f.HEADER_SIZE + f.SEAL_SIZE
    again = found(directory)
    assert not again.load_seal()
    assert again.tail == (f.HEADER_SIZE, BASE)


@pytest.mark.parametrize("position", [0, 8, 40, 52])
def test_a_seal_that_has_changed_is_none(
    directory: Directory, segment: Segment, position: int
) -> None:
    append(segment, b"v")
    segment.seal()
    change(directory, segment, segment.tail[0] + position)
    again = found(directory)
    assert not again.load_seal()
    again.open_sealed(BASE + 1)
    assert (again.is_sealed, again.is_frozen) == (True, True)
    assert again.tail == (segment.file_size(), BASE + 1)
    assert again.largest_timestamp == LATEST_TIMESTAMP


def test_a_seal_is_believed_though_a_record_before_it_has_changed(
    directory: Directory, segment: Segment
) -> None:
    append(segment, b"v")
    segment.seal()
    change(directory, segment, f.HEADER_SIZE + 40)
    again = found(directory)
    again.open_sealed(BASE + 1)
    assert (again.tail, again.is_sealed, again.is_frozen) == (segment.tail, True, False)


def test_a_seal_is_found_though_a_crash_has_brought_the_reserve_back(
    directory: Directory, segment: Segment
) -> None:
    append(segment, b"v")
    segment.seal()
    directory.open(f"{segment.name}.log", writable=True).reserve(4096)
    again = found(directory)
    assert not again.load_seal()
    again.open_sealed(BASE + 1)
    assert (again.tail, again.is_sealed, again.is_frozen) == (segment.tail, True, False)
    assert (again.record_count, again.largest_timestamp) == (1, 1000)


@pytest.mark.parametrize(("end", "count"), [(BASE - 5, 0), (BASE, 0), (BASE + 3, 3), (BASE + 9, 5)])
def test_a_seal_never_counts_more_records_than_offsets(
    segment: Segment, end: int, count: int
) -> None:
    segment.take_over(640, f.Seal(end, 2000, 3000, 5), (7, 8), None)
    assert segment.record_count == count
    assert (segment.tail, segment.durable) == ((640, end), 640)
    assert (segment.is_sealed, segment.is_cleaned) == (True, True)
    assert (segment.cleaning, segment.latest_ms) == ((7, 8), 2000)
    assert segment.is_dense == (count == end - BASE)


def test_a_header_that_has_changed_says_nothing_of_compaction(
    directory: Directory, segment: Segment
) -> None:
    append(segment, b"v")
    assert not segment.is_of_compaction()
    file = directory.open(f"{segment.name}.log", writable=True)
    header = f.SegmentHeader(BASE, BASE, 5000, 1, BASE + 7, 9)
    file.write(0, f.encode_header(header))
    again = found(directory)
    assert (again.is_of_compaction(), again.cleaning) == (True, (BASE + 7, 9))
    assert again.began_ms() == 5000
    change(directory, segment, 8)
    again = found(directory)
    assert not again.is_of_compaction()
    assert again.began_ms() == 0
    with pytest.raises(CorruptionError):
        again.header()


# ---------------------------------------------------------------- maps and descriptors


def test_where_descriptors_ran_out_maps_are_let_go(directory: Directory, segment: Segment) -> None:
    append(segment, b"v")
    segment.seal()
    calls: list[Any] = [
        lambda again: again.open_file(),
        lambda again: again.region(),
        lambda again: again.view(f.HEADER_SIZE),
    ]
    for call in calls:
        maps, holder = MapLimit(100), Holder()
        maps.admit(holder)
        call(found(OutOfDescriptors(directory, 1), maps))  # type: ignore[arg-type]
        assert not holder.is_mapped
        with pytest.raises(OSError, match="too many"):  # nothing is mapped that could be let go
            call(found(OutOfDescriptors(directory, 1), MapLimit(100)))  # type: ignore[arg-type]
        maps.admit(Holder())
        with pytest.raises(OSError, match="too many"):
            call(found(OutOfDescriptors(directory, 2), maps))  # type: ignore[arg-type]
        maps, holder = MapLimit(100), Holder()
        maps.admit(holder)
        with pytest.raises(OSError, match="too many"):  # of another kind, which nothing helps
            call(found(OutOfDescriptors(directory, 1, errno.EIO), maps))  # type: ignore[arg-type]
        assert holder.is_mapped


def test_a_sealed_segment_is_opened_for_reading(directory: Directory, segment: Segment) -> None:
    append(segment, b"v")
    segment.seal()
    again = found(directory)
    assert again.load_seal()
    reading = Segment(Place(directory, b"log", MapLimit(100), False), BASE, CONFIG, 1)
    for region in (again.region(), reading.region()):
        with pytest.raises(TypeError, match="for reading"):
            region[0:1] = b"x"


def test_a_look_is_at_the_present_map_and_reaches_its_end(segment: Segment) -> None:
    segment.reconfigure(CONFIG._replace(segment_bytes=1024 * 1024))
    append(segment, b"v")
    before = segment.mapped
    look = segment.view(segment.tail[0])
    assert look.region is before
    assert segment.view(segment.tail[0]) is look
    while segment.mapped is before:
        append(segment, b"v" * 1000)
    end = segment.tail[0]
    assert segment.view(end).region is segment.mapped
    for stale in (before, None):
        segment.mapped, segment.look = stale, look  # as one sees it who looks at that moment
        assert len(segment.view(end).region) >= end
    segment.unmap()
    assert (segment.look, segment.mapped) == (None, None)


def test_a_live_segment_is_looked_at_by_reading_its_file(
    directory: Directory, segment: Segment
) -> None:
    append(segment, b"v")
    live = found(directory)
    live.is_live = True
    look = live.view(segment.tail[0])
    assert look.region is live.region()
    append(segment, b"w" * 3000)
    assert live.view(segment.tail[0]) is look
    assert look.region[segment.tail[0] - 40 : segment.tail[0]].startswith(b"w")


# ---------------------------------------------------------------- the index


def filled(segment: Segment, count: int = 40, timestamp: int = 1000) -> None:
    for _ in range(count):
        append(segment, b"v" * 40, timestamp)


def entries_in(directory: Directory, segment: Segment) -> list[tuple[int, int, int]]:
    index = Index.open(directory, segment.name, segment.seed)
    return [] if index is None else list(index.entries())


@pytest.mark.parametrize("timestamp", [0, 1000])
def test_an_index_made_anew_is_the_one_that_appending_made(
    directory: Directory, segment: Segment, timestamp: int
) -> None:
    filled(segment, 40, timestamp)
    segment.trim()
    entries = entries_in(directory, segment)
    assert len(entries) > 5
    assert {largest for _, _, largest in entries} == {timestamp}
    for remake in (Segment.reindex, Segment.ensure_index, Segment.mend_index):
        segment.forget_index(unlink=True)
        assert entries_in(directory, segment) == []
        remake(segment)
        assert entries_in(directory, segment) == entries
        assert segment.index_due == max(position for _, position, _ in entries) + 256 or (
            segment.index_due > entries[-1][1]
        )


def test_an_index_is_looked_for_anew_when_it_was_forgotten(segment: Segment) -> None:
    filled(segment)
    segment.trim()
    entries = segment.view(f.HEADER_SIZE).entries
    assert segment.view(f.HEADER_SIZE).entries is entries
    segment.forget_index()
    again = segment.view(f.HEADER_SIZE).entries
    assert again is not entries
    assert list(again.entries()) == list(entries.entries())


def test_no_index_is_made_for_a_few_records(directory: Directory, segment: Segment) -> None:
    filled(segment, 3)
    segment.trim()
    again = found(directory)
    again.resume(segment.tail, 1000, 6000)
    again.ensure_index()
    assert again.index_due == f.HEADER_SIZE + CONFIG.index_interval_bytes
    assert [name for name in directory.names() if "index" in name] == []
    filled(segment, 1)
    segment.trim()
    again.resume(segment.tail, 1000, 6000)
    again.ensure_index()
    assert "index" in " ".join(directory.names())


def test_a_first_frame_needs_no_entry_however_large_it_is(
    directory: Directory, segment: Segment
) -> None:
    append(segment, b"v" * 1000)
    filled(segment, 10)
    segment.trim()
    entries = entries_in(directory, segment)
    assert entries[0][0] > 0
    segment.forget_index(unlink=True)
    segment.reindex()
    assert entries_in(directory, segment) == entries


def test_an_index_that_is_there_is_gone_on_with(
    directory: Directory, segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(segment)
    segment.trim()
    entries = entries_in(directory, segment)
    again = found(directory)
    again.resume(segment.tail, 1000, 6000)

    def walk() -> None:
        raise AssertionError("the whole log was looked through")

    with monkeypatch.context() as patched:
        patched.setattr(again, "reindex", walk)
        again.ensure_index()
    assert again.index_due == entries[-1][1] + CONFIG.index_interval_bytes
    filled(again, 20)
    again.trim()
    assert entries_in(directory, again)[: len(entries)] == entries
    assert len(entries_in(directory, again)) > len(entries)
    again.check()


def test_an_index_that_agrees_with_the_log_is_kept(
    disk: SimulatedDisk, directory: Directory, segment: Segment
) -> None:
    filled(segment)
    segment.trim()
    entries = entries_in(directory, segment)
    count = len(disk.operations)
    segment.reindex()
    assert not [each for each in disk.operations[count:] if each.kind == UNLINK]
    index = directory.open(f"{segment.name}.index", writable=True)
    index.write(8, bytes(8))  # the second is lost
    segment.reindex()
    assert [each for each in disk.operations[count:] if each.kind == UNLINK]
    assert entries_in(directory, segment) == entries


@pytest.mark.parametrize("remake", ["ensure_index", "mend_index"])
def test_where_there_is_no_room_for_an_index_there_is_one_in_memory(
    directory: Directory, segment: Segment, monkeypatch: pytest.MonkeyPatch, remake: str
) -> None:
    filled(segment)
    segment.trim()
    entries = entries_in(directory, segment)
    segment.forget_index(unlink=True)

    def full() -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(segment, "reindex", full)
    getattr(segment, remake)()
    assert entries_in(directory, segment) == []
    assert list(segment.view(f.HEADER_SIZE).entries.entries()) == entries


@pytest.mark.parametrize("same_boot", [True, False])
def test_an_entry_is_trusted_only_where_its_frame_is_whole(
    directory: Directory, segment: Segment, same_boot: bool
) -> None:
    filled(segment, 20)
    segment.sync()
    filled(segment, 20)
    segment.trim()
    *_, before, last = entries_in(directory, segment)
    synced = f.HEADER_SIZE + 20 * 80
    again = found(directory)
    start = again.trusted_start(same_boot)
    assert start.durable == synced
    assert start.offset == BASE + (start.position - f.HEADER_SIZE) // 80
    if same_boot:
        assert (start.offset - BASE, start.position, start.largest_timestamp) == last
        assert again.trusted_start(same_boot, below=last[1]).position == before[1]
        change(directory, segment, last[1] + 50)
        assert found(directory).trusted_start(same_boot).position == before[1]
    else:
        assert synced - 256 - 80 <= start.position <= synced
    segment.forget_index(unlink=True)
    start = again.trusted_start(same_boot)
    assert start == (f.HEADER_SIZE, BASE, f.NO_TIMESTAMP, f.HEADER_SIZE)


def test_an_entry_that_leads_elsewhere_is_not_trusted(
    directory: Directory, segment: Segment
) -> None:
    filled(segment, 20)
    segment.trim()
    *_, before, last = entries_in(directory, segment)
    index = Index.open(directory, segment.name, segment.seed)
    assert index is not None
    index.append(last[0] + 2, last[1] + 80, 1000)  # a whole frame of another offset
    index.flush()
    assert found(directory).trusted_start(same_boot=True).position == last[1]
    file = directory.open(f"{segment.name}.log", writable=True)
    file.write(last[1], bytes(40))  # no frame at all
    assert found(directory).trusted_start(same_boot=True).position == before[1]


def test_a_look_at_a_whole_file_is_made_once(directory: Directory, segment: Segment) -> None:
    filled(segment, 20)
    segment.trim()
    again = found(directory)
    again.resume(segment.tail, 1000, 6000)
    look = again.view(segment.tail[0])
    assert len(look.region) == segment.tail[0]
    assert again.view(segment.tail[0]) is look


# ---------------------------------------------------------------- who wrote


def test_who_wrote_is_told_of_each_frame_that_says_it(segment: Segment) -> None:
    append(segment, b"nobody's")
    append(segment, b"v", origin=f.Origin(7, 0, 1))
    append_many(segment, [b"a", b"b"], f.Origin(7, 1, 1))
    append_many(segment, [b"a", b"b"])
    append(segment, b"C", origin=f.Origin(transaction=5), flags=f.CONTROL)
    append(segment, b"v", origin=f.Origin(transaction=6))
    append_many(segment, [b"a", b"b"], f.Origin(7, 3, 1), [0, 1])  # compaction has made it
    append(segment, b"v", origin=f.Origin(8, 0, 1, 6))
    expected = [
        (f.Origin(7, 0, 1), BASE + 1, 1),
        (f.Origin(7, 1, 1), BASE + 2, 2),
        (f.Origin(transaction=6), BASE + 7, 1),
        (f.Origin(8, 0, 1, 6), BASE + 10, 1),
    ]
    assert list(segment.origins(BASE)) == expected
    for lowest in range(BASE, BASE + 12):
        assert list(segment.origins(lowest)) == [each for each in expected if each[1] >= lowest]
    segment.seal()
    assert list(segment.origins(0)) == expected


def test_a_frame_that_is_not_what_it_says_does_not_say_who_wrote_it(segment: Segment) -> None:
    """Though its checksum is right."""
    append_many(segment, [b"a", b"bc"], f.Origin(7, 0, 1))
    assert len(list(segment.origins(BASE))) == 1
    position, end = f.HEADER_SIZE, segment.tail[0]
    frame = bytearray(segment.region()[position:end])
    size = int.from_bytes(frame[:4], "little")
    frame[68] ^= 8  # bytes of the values
    frame[size - 4 : size] = f.checksum(bytes(frame[: size - 4]), segment.seed, position)
    segment.region()[position:end] = bytes(frame)
    assert list(segment.origins(BASE)) == []


@pytest.mark.parametrize(
    ("offset", "is_base", "name"),
    [(7, True, f"{7:020d}.log"), (0, False, f"{0:020d}.log"), (7, False, "")],
)
def test_what_is_missing_is_named_where_its_name_is_known(
    directory: Directory, offset: int, is_base: bool, name: str
) -> None:
    path = f"{directory.path}/{name}" if name else directory.path
    assert missing_path(directory, offset, is_base=is_base) == path
