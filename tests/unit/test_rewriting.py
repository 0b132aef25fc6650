"""Sealed segments read in runs and written anew: every record with all that is said of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from minilog.config import TopicConfig
from minilog.errors import CorruptionError
from minilog.storage import format as f
from minilog.storage import rewriting, runs, scan, swapping
from minilog.storage.batch import encode_batch
from minilog.storage.files import UNFINISHED, Directory, File, MapLimit
from minilog.storage.index import Index
from minilog.storage.rewriting import Rewriting
from minilog.storage.runs import Run, runs_of
from minilog.storage.segment import Segment
from minilog.storage.segment_files import Place
from minilog.testing import SimulatedDisk

BASE = 100
CONFIG = TopicConfig(index_interval_bytes=256)
HEADER = f.SegmentHeader(BASE, BASE, 5000, 3, cleaned_to=BASE + 50)
Told = tuple[Any, ...]


@pytest.fixture
def directory() -> Directory:
    directory = SimulatedDisk().root_directory()
    directory.make()
    return directory


def segment_in(directory: Directory) -> Segment:
    return Segment(Place(directory, b"log", MapLimit(100), True), BASE, CONFIG, 2)


def append(segment: Segment, key: bytes | None, value: bytes | None, **more: Any) -> None:
    origin, headers = more.get("origin", f.NOBODY), more.get("headers", ())
    data, flags = f.encode_headers(headers), more.get("flags", 0)
    segment.make_room(200 + len(key or b"") + len(value or b""), 6000)
    timestamp = more.get("timestamp", 1000)
    segment.append_single(key, value, data, timestamp, 6000, origin, flags)


def append_many(segment: Segment, values: list[Any], keys: Any = None, **more: Any) -> None:
    stamps, origin = more.get("timestamps"), more.get("origin", f.NOBODY)
    compression = more.get("compression", "none")
    batch = encode_batch(values, keys, None, stamps, 10**6, compression=compression)
    segment.make_room(batch.frame_bytes, 6000)
    segment.append_batch(batch, max(stamps or [1500]), 6000, origin)


@pytest.fixture
def sealed(directory: Directory) -> Segment:
    """A segment with frames of every kind."""
    segment = segment_in(directory)
    segment.create(BASE, 5000)
    append(segment, b"a", b"1")
    append(segment, None, b"2", timestamp=1001)
    append(segment, b"", None, timestamp=1002)
    append(segment, b"b", b"3", headers=(("h", b"x"), ("i", None)))
    append(segment, b"c", b"4", origin=f.Origin(7, 0, 1))
    append(segment, b"d", b"5", origin=f.Origin(7, 1, 1))
    append(segment, b"e", b"6", origin=f.Origin(7, 2, 2))
    append(segment, b"f", b"7", origin=f.Origin(transaction=9))
    append(segment, None, b"C", origin=f.Origin(transaction=9), flags=f.CONTROL)
    append_many(segment, [b"8", b"9", None], [b"g", None, b"h"], timestamps=[7, 3, 5])
    append_many(segment, [b"x" * 50] * 9, [b"k%d" % n for n in range(9)], compression="gzip")
    append_many(segment, [b"yy", b"zz"], origin=f.Origin(7, 3, 2))
    for number in range(20):
        append(segment, b"s%d" % number, b"v" * number)
    segment.seal()
    segment.sync()
    return segment


def told(segment: Segment) -> list[Told]:
    """Return all that is said of each record, readers' and others."""
    records: list[Told] = []
    for run in runs_of(segment):
        columns = run.where([True] * len(run.offsets))
        assert list(run.keys) == columns.keys
        headers = columns.headers or [()] * len(columns.offsets)
        for offset, stamp, key, value, own in zip(*columns[:4], headers):
            origin = run.make.origin(offset)
            records.append((offset, stamp, key, value, own, run.make.is_control, *origin))
    return records


EXPECTED_KEYS = [b"a", None, b"", b"b", b"c", b"d", b"e", b"f", None, b"g", None, b"h"]


def test_a_sealed_segment_is_read_in_runs(sealed: Segment) -> None:
    records = told(sealed)
    assert [record[0] for record in records] == list(range(BASE, sealed.next_offset))
    assert [record[2] for record in records[:12]] == EXPECTED_KEYS
    assert [record[3] for record in records[:6]] == [b"1", b"2", None, b"3", b"4", b"5"]
    assert [record[1] for record in records[:3]] == [1000, 1001, 1002]
    assert [record[1] for record in records[9:12]] == [7, 3, 5]
    assert records[3][4] == (("h", b"x"), ("i", None))
    assert records[4][6:] == (7, 0, 1, 0)
    assert records[5][6:] == (7, 1, 1, 0)
    assert records[6][6:] == (7, 2, 2, 0)
    assert records[7][6:] == (-1, -1, -1, 9)
    assert [record[5] for record in records].index(True) == 8
    assert [record[7] for record in records[21:23]] == [3, 4]
    assert records[-1][3] == b"v" * 19


def test_runs_tile_the_offsets_and_the_bytes(sealed: Segment) -> None:
    due, size = BASE, 0
    for run in runs_of(sealed):
        assert run.offsets[0] == due
        due = run.next_offset
        size += f.aligned(run.size)
    assert due == sealed.next_offset
    assert size == sealed.tail[0] - f.HEADER_SIZE


@pytest.mark.parametrize("chunk", [16, 64, 200, 1000])
@pytest.mark.parametrize("large", [100, 10**6])
def test_runs_are_the_same_however_little_is_read_at_once(
    sealed: Segment, monkeypatch: pytest.MonkeyPatch, chunk: int, large: int
) -> None:
    expected = told(sealed)
    monkeypatch.setattr(runs, "CHUNK", chunk)
    monkeypatch.setattr(runs, "LARGE_FRAME", large)
    assert told(sealed) == expected
    due, size = BASE, 0
    for run in runs_of(sealed):
        assert run.offsets[0] == due
        due, size = run.next_offset, size + run.size
    assert due == sealed.next_offset
    total = sealed.tail[0] - f.HEADER_SIZE
    assert 0.8 * total < size <= total


def test_a_segment_is_read_in_few_reads(sealed: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    file, reads = sealed.open_file(), []

    class Counting:
        path = file.path

        def read(self, position: int, size: int) -> bytes:
            reads.append(position)
            return file.read(position, size)

    monkeypatch.setattr(sealed, "open_file", Counting)
    assert len(told(sealed)) == 43
    assert reads == [f.HEADER_SIZE]


@pytest.mark.parametrize("number", [0, 3, 4, 8, 9, 10, 11, 30])
@pytest.mark.parametrize("large", [10, 10**6])
def test_damage_is_met_and_says_where_it_is(
    directory: Directory,
    sealed: Segment,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    large: int,
) -> None:
    monkeypatch.setattr(runs, "LARGE_FRAME", large)
    region = sealed.region()
    walked = list(scan.walk(region, f.HEADER_SIZE, BASE, sealed.tail[0], sealed.seed))
    position, prefix = walked[number]
    for place in (3, 8, prefix.size - 5, prefix.size - 1):
        file = directory.open(f"{sealed.name}.log", writable=True)
        (byte,) = file.read(position + place, 1)
        file.write(position + place, bytes([byte ^ 1]))
        with pytest.raises(CorruptionError) as caught:
            told(sealed)
        assert (caught.value.position, caught.value.offset) == (position, prefix.offset)
        file.write(position + place, bytes([byte]))
    assert len(told(sealed)) == 43


@pytest.mark.parametrize("change", [-1, 1])
def test_an_end_that_is_not_where_the_records_end_is_damage(sealed: Segment, change: int) -> None:
    position, next_offset = sealed.tail
    sealed.tail = (position, next_offset + change)
    with pytest.raises(CorruptionError) as caught:
        told(sealed)
    assert (caught.value.position, caught.value.offset) == (position, next_offset)


# ---------------------------------------------------------------- writing them anew


def rewritten(
    directory: Directory,
    sealed: Segment,
    keeps: Callable[[int], bool],
    *,
    since: int = -1,
    compression: str = "none",
) -> tuple[Segment, Rewriting]:
    """Write the records anew whose offsets are kept; return the segment in its place."""
    writing = Rewriting(segment_in(directory), directory, 256, compression)
    for run in runs_of(sealed):
        columns = run.where([keeps(offset) for offset in run.offsets])
        if columns.offsets:
            writing.add(columns, run.make, since)
    segment = writing.finish(HEADER, sealed.next_offset, 6000)
    directory.rename(f"{sealed.name}.log{UNFINISHED}", f"{sealed.name}.log")
    return segment, writing


def test_its_size_is_known_before_it_is_finished(directory: Directory, sealed: Segment) -> None:
    writing = Rewriting(segment_in(directory), directory, 256, "none")
    assert writing.size_bytes == f.HEADER_SIZE + f.SEAL_SIZE
    for run in runs_of(sealed):
        writing.add(run.where([True] * len(run.offsets)), run.make)
        estimated = writing.size_bytes
        saved = writing.save()
        assert saved.position + f.SEAL_SIZE <= estimated
        assert writing.size_bytes == saved.position + f.SEAL_SIZE
    segment = writing.finish(HEADER, sealed.next_offset, 6000)
    assert segment.size_bytes == writing.size_bytes


KEEPS: dict[str, Callable[[int], bool]] = {
    "all": lambda offset: True,
    "none": lambda offset: False,
    "few": lambda offset: offset % 7 == 3,
    "the first": lambda offset: offset == BASE,
    "the last": lambda offset: offset == BASE + 42,
    "most": lambda offset: offset % 5 != 2,
}


@pytest.mark.parametrize("extent", [3, 2**31 - 1])
@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("name", KEEPS)
def test_what_is_kept_is_written_with_all_that_was_said_of_it(
    directory: Directory,
    sealed: Segment,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    compression: str,
    extent: int,
) -> None:
    monkeypatch.setattr(rewriting, "LARGEST_EXTENT", extent)
    expected = [record for record in told(sealed) if KEEPS[name](record[0])]
    segment, _ = rewritten(directory, sealed, KEEPS[name], compression=compression)
    assert (segment.next_offset, segment.record_count) == (sealed.next_offset, len(expected))
    assert (segment.is_sealed, segment.is_cleaned, segment.last_append_ms) == (True, True, 6000)
    assert segment.largest_timestamp == max([record[1] for record in expected], default=-1)
    again = segment_in(directory)
    assert again.load_seal()
    for each in (segment, again):
        assert told(each) == expected
        assert each.cleaning == (BASE + 50, -1)
        each.check()


@pytest.mark.parametrize("name", ["most", "few", "all"])
def test_the_index_is_the_one_that_is_made_from_the_log(
    directory: Directory, sealed: Segment, name: str
) -> None:
    segment, writing = rewritten(directory, sealed, KEEPS[name])
    written = list(writing._index.entries())
    assert written
    sealed.forget_index(unlink=True)
    writing.write_index()
    on_disk = Index.open(directory, segment.name, segment.seed)
    assert on_disk is not None
    assert list(on_disk.entries()) == written
    again = segment_in(directory)
    again.load_seal()
    again.forget_index(unlink=True)
    assert list(again.view(0).entries.entries()) == written
    assert [left for left in directory.names() if UNFINISHED in left] == []


def test_what_was_added_since_can_be_taken_back(directory: Directory, sealed: Segment) -> None:
    expected = told(sealed)
    parts = [run.where([True] * len(run.offsets)) for run in runs_of(sealed)]
    makes = [run.make for run in runs_of(sealed)]
    writing = Rewriting(segment_in(directory), directory, 64, "none")
    for columns, make in zip(parts[:4], makes):
        writing.add(columns, make)
    saved = writing.save()
    assert writing.size_bytes == saved.position + f.SEAL_SIZE
    for _ in range(2):
        for columns, make in zip(parts[4:], makes[4:]):
            writing.add(columns, make)
        writing.restore(saved)
        assert writing.size_bytes == saved.position + f.SEAL_SIZE
        assert writing.save() == saved
    for columns, make in zip(parts[4:], makes[4:]):
        writing.add(columns, make)
    segment = writing.finish(HEADER, sealed.next_offset, 6000)
    directory.rename(f"{sealed.name}.log{UNFINISHED}", f"{sealed.name}.log")
    assert told(segment) == expected
    entries = list(writing._index.entries())
    assert entries == sorted(set(entries))
    segment.check()


def test_records_of_one_make_are_put_together_and_others_are_not(
    directory: Directory, sealed: Segment
) -> None:
    def frames(segment: Segment) -> list[tuple[int, int]]:
        region = segment.region()
        walked = scan.walk(region, f.HEADER_SIZE, BASE, segment.tail[0], segment.seed)
        return [(prefix.offset - BASE, prefix.extent) for _, prefix in walked]

    segment, _ = rewritten(directory, sealed, KEEPS["all"])
    assert frames(segment) == [
        *[(0, 4), (4, 2), (6, 1), (7, 1), (8, 1), (9, 12), (21, 2), (23, 20)],
    ]


def test_large_columns_are_written_in_frames_of_their_own(
    directory: Directory, sealed: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewriting, "FRAME_BYTES", 100)
    expected = told(sealed)
    segment, _ = rewritten(directory, sealed, KEEPS["all"])
    assert told(segment) == expected


def test_when_tombstones_were_first_seen_is_said_of_the_oldest(
    directory: Directory, sealed: Segment
) -> None:
    writing = Rewriting(segment_in(directory), directory, 256, "none")
    given: list[Run] = list(runs_of(sealed))
    for number, run in enumerate(given):
        since = {0: 900, 2: 700, 5: 800}.get(number, -1)
        writing.add(run.where([True] * len(run.offsets)), run.make, since)
    segment = writing.finish(HEADER, sealed.next_offset, 6000)
    assert segment.cleaning == (BASE + 50, 700)
    directory.rename(f"{sealed.name}.log{UNFINISHED}", f"{sealed.name}.log")
    again = segment_in(directory)
    assert again.cleaning == (BASE + 50, 700)
    again.load_seal()
    assert [run.tombstones_since for run in runs_of(again)][:6] == [900, -1, 700, -1, -1, 800]


def test_one_that_is_given_up_leaves_no_file(directory: Directory, sealed: Segment) -> None:
    before = directory.names()
    for _ in range(2):
        writing = Rewriting(segment_in(directory), directory, 256, "none")
        assert len(directory.names()) == len(before) + 1
    writing.discard()
    assert directory.names() == before
    file: File = directory.open(f"{sealed.name}.log")
    assert file.size() == sealed.size_bytes


def test_long_keys_count_as_long_values_do(directory: Directory) -> None:
    make = runs.Make(0, 1, -1, -1, 0, 0)
    writing = Rewriting(segment_in(directory), directory, 256, "none")
    writing.add(runs.Columns([BASE], [1], [b"k" * 5000], [b"v" * 5000], None), make)
    assert writing.size_bytes > 10_000


def test_what_is_committed_says_nothing_of_its_transaction() -> None:
    make = runs.Make(f.TRANSACTIONAL | f.APPEND_TIME, 1, 7, 1, 9, -BASE)
    assert make.committed() == runs.Make(f.APPEND_TIME, 1, 7, 1, 0, -BASE)
    assert make.committed().origin(BASE + 3) == f.Origin(7, 3, 1)


@pytest.mark.parametrize("chunk", [256, 512])
def test_little_is_read_twice(sealed: Segment, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(runs, "CHUNK", chunk)
    file, sizes = sealed.open_file(), []

    class Counting:
        path = file.path

        def read(self, position: int, size: int) -> bytes:
            sizes.append(size)
            return file.read(position, size)

    monkeypatch.setattr(sealed, "open_file", Counting)
    assert len(told(sealed)) == 43
    assert sum(sizes) < 3 * sealed.tail[0]


def test_a_frame_of_another_offset_behind_good_ones_is_damage(directory: Directory) -> None:
    segment = segment_in(directory)
    segment.create(BASE, 5000)
    append(segment, b"k", b"v")
    position, offset = segment.tail
    frame = f.encode_single(b"k", b"v", b"", offset + 1, 1000, 2, 0)
    frame += f.checksum(frame, segment.seed, position)
    segment.region()[position : position + len(frame)] = frame
    segment.tail = (position + f.aligned(len(frame)), offset + 1)
    with pytest.raises(CorruptionError) as caught:
        told(segment)
    assert (caught.value.position, caught.value.offset) == (position, offset)


def test_a_frame_that_is_not_what_it_says_is_damage(directory: Directory) -> None:
    """Though its checksum is right."""
    segment = segment_in(directory)
    segment.create(BASE, 5000)
    append_many(segment, [b"a", b"bc"])
    position = f.HEADER_SIZE
    frame = bytearray(segment.region()[position : segment.tail[0]])
    size = int.from_bytes(frame[:4], "little")
    frame[68] ^= 8  # bytes of the values
    frame[size - 4 : size] = f.checksum(bytes(frame[: size - 4]), segment.seed, position)
    segment.region()[position : segment.tail[0]] = bytes(frame)
    with pytest.raises(CorruptionError):
        told(segment)


# ---------------------------------------------------------------- putting it for the old ones


class FakeLog:
    """A log as swapping sees it, which writes down what is done to it."""

    def __init__(self, directory: Directory, has_sources: list[bool]) -> None:
        self.directory = directory
        self.done: list[str] = []
        self._has_all = has_sources

    def begin_segment(self, base_offset: int) -> Segment:
        return segment_in(self.directory)

    def has_all(self, segments: list[Segment]) -> bool:
        return self._has_all.pop(0)

    def sync_names(self) -> None:
        self.done.append("sync names")

    def replace(self, sources: list[Segment], written: Segment) -> None:
        self.done.append("replace")
        name = f"{written.name}.log"
        self.directory.rename(name + UNFINISHED, name)

    def forget_superseded(self) -> None:
        self.done.append("forget")


def swapped(directory: Directory, sealed: Segment, has_sources: list[bool], **host: Any) -> FakeLog:
    log: Any = FakeLog(directory, has_sources)
    host = {
        "exclusive": contextlib.nullcontext(),
        "check": lambda: log.done.append("check"),
        "step": lambda size: log.done.append(f"step {size}"),
        **host,
    }
    with swapping.rewriting(log, BASE, 256, "none") as writing:
        for run in runs_of(sealed):
            writing.add(run.where([True] * len(run.offsets)), run.make)
        other = segment_in(directory)
        other.take_over(64, f.Seal(sealed.next_offset, 1, 9000, 1), (0, -1), None)
        sealed.last_append_ms = 12_000
        swapping.swap(log, swapping.Host(**host), writing, [sealed, other], HEADER)
    log.last_append_ms = writing.segment.last_append_ms
    return log  # type: ignore[no-any-return]


def left_in(directory: Directory) -> list[str]:
    return [name for name in directory.names() if UNFINISHED in name]


def test_names_are_synced_before_and_files_are_forgotten_behind_the_swap(
    directory: Directory, sealed: Segment
) -> None:
    expected = told(sealed)
    log: Any = swapped(directory, sealed, [True, True, True])
    assert log.done == ["step 0", "sync names", "check", "replace", "forget"]
    assert left_in(directory) == []
    again = segment_in(directory)
    assert again.load_seal()
    assert told(again) == expected
    assert again.last_append_ms == log.last_append_ms == 12_000
    assert Index.open(directory, again.name, again.seed) is not None


@pytest.mark.parametrize("has_sources", [[False, False], [True, False]])
def test_what_was_deleted_meanwhile_is_not_put_back(
    directory: Directory, sealed: Segment, has_sources: list[bool]
) -> None:
    before = directory.read(f"{sealed.name}.log")
    log = swapped(directory, sealed, has_sources)
    assert "replace" not in log.done
    assert "forget" not in log.done
    assert left_in(directory) == []
    assert directory.read(f"{sealed.name}.log") == before


def test_no_index_is_left_of_one_that_is_deleted_while_it_is_written(
    directory: Directory, sealed: Segment
) -> None:
    swapped(directory, sealed, [True, True, False])
    assert Index.open(directory, sealed.name, sealed.seed) is None


@pytest.mark.parametrize("name", ["check", "step"])
def test_who_swaps_may_end_it_before_anything_is_changed(
    directory: Directory, sealed: Segment, name: str
) -> None:
    def refuse(*arguments: object) -> None:
        raise ZeroDivisionError

    before = directory.read(f"{sealed.name}.log")
    with pytest.raises(ZeroDivisionError):
        swapped(directory, sealed, [True, True, True], **{name: refuse})
    assert left_in(directory) == []
    assert directory.read(f"{sealed.name}.log") == before


def test_why_it_ended_early_is_told_though_its_file_is_gone(directory: Directory) -> None:
    log: Any = FakeLog(directory, [])

    def write() -> None:
        with swapping.rewriting(log, BASE, 256, "none"):
            directory.unlink(f"{segment_in(directory).name}.log{UNFINISHED}")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()


# ---------------------------------------------------------------- frames


def columns_of(*offsets: int) -> runs.Columns:
    count = len(offsets)
    return runs.Columns(list(offsets), [1] * count, [b"k"] * count, [b"v"] * count, None)


def test_neighbours_are_one_frame_without_deltas_wherever_their_offsets_are(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewriting, "LARGEST_EXTENT", 150)  # less than twice the first offset
    writing = Rewriting(segment_in(directory), directory, 256, "none")
    make = runs.Make(0, 1, -1, -1, 0, 0)
    writing.add(columns_of(BASE, BASE + 1), make)
    writing.add(columns_of(BASE + 2, BASE + 3), make)
    segment = writing.finish(HEADER, BASE + 4, 6000)
    directory.rename(f"{segment.name}.log{UNFINISHED}", f"{segment.name}.log")
    walked = scan.walk(segment.region(), f.HEADER_SIZE, BASE, segment.tail[0], segment.seed)
    ((_, prefix),) = walked
    assert (prefix.extent, prefix.flags & f.DELTAS) == (4, 0)


def test_records_that_are_too_far_apart_are_not_one_frame(directory: Directory) -> None:
    far = BASE + rewriting.LARGEST_EXTENT + 10
    writing = Rewriting(segment_in(directory), directory, 256, "none")
    make = runs.Make(0, 1, -1, -1, 0, 0)
    writing.add(columns_of(BASE), make)
    writing.add(columns_of(far), make)
    segment = writing.finish(HEADER, far + rewriting.LARGEST_EXTENT, 6000)
    directory.rename(f"{segment.name}.log{UNFINISHED}", f"{segment.name}.log")
    assert [record[0] for record in told(segment)] == [BASE, far]
    segment.check()


@pytest.mark.parametrize("producer_id", [0, 7])
def test_sequences_are_kept_where_records_before_them_went(
    directory: Directory, producer_id: int
) -> None:
    writing = Rewriting(segment_in(directory), directory, 256, "none")
    make = runs.Make(0, 1, producer_id, 1, 0, -BASE)
    writing.add(columns_of(BASE + 5, BASE + 6), make)
    segment = writing.finish(HEADER, BASE + 9, 6000)
    directory.rename(f"{segment.name}.log{UNFINISHED}", f"{segment.name}.log")
    assert [(record[0], record[7]) for record in told(segment)] == [(BASE + 5, 5), (BASE + 6, 6)]
    walked = scan.walk(segment.region(), f.HEADER_SIZE, BASE, segment.tail[0], segment.seed)
    assert [prefix.offset for _, prefix in walked] == [BASE, BASE + 5]


def test_an_index_that_cannot_be_written_leaves_no_file(
    directory: Directory, sealed: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment, writing = rewritten(directory, sealed, KEEPS["all"])
    sealed.forget_index(unlink=True)
    entries = list(writing._index.entries())

    def fail(*names: str) -> None:
        raise OSError

    monkeypatch.setattr(directory, "rename", fail)
    writing.write_index()
    assert [name for name in directory.names() if "index" in name] == []
    assert list(segment.view(0).entries.entries()) == entries
