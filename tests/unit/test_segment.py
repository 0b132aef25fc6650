"""A segment on a simulated disk: room, what an append that failed leaves, its end, its files."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest

from minilog.config import TopicConfig
from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.batch import encode_batch
from minilog.storage.files import Directory, MapLimit, Region
from minilog.storage.index import LARGEST_RELATIVE, Index
from minilog.storage.memory import MemoryDirectory
from minilog.storage.segment import FIRST_RESERVE, LARGE_WRITE, Segment
from minilog.storage.segment_files import CLOSED, Place
from minilog.testing import SimulatedDisk
from minilog.testing.trace import RESERVE, SYNC, WRITE

BASE = 100
SMALL = TopicConfig(segment_bytes=4096, index_interval_bytes=256)
LARGE = TopicConfig(segment_bytes=1024 * 1024)


class Made:
    """A segment that was just made, and the disk that it is on."""

    def __init__(
        self,
        config: TopicConfig = SMALL,
        *,
        can_reserve: bool = True,
        is_each_synced: bool = False,
    ) -> None:
        self.disk = SimulatedDisk(can_reserve=can_reserve)
        self.directory: Directory = self.disk.root_directory()
        self.directory.make()
        self.config = config
        self.place = Place(self.directory, b"log", MapLimit(100), True, is_each_synced)
        self.segment = Segment(self.place, BASE, config, 1)
        self.segment.create(BASE, 5000)

    def append(self, value: bytes, timestamp: int = 1000, now_ms: int = 6000) -> None:
        self.segment.make_room(f.SINGLE_OVERHEAD + len(value), now_ms)
        self.segment.append_single(None, value, b"", timestamp, now_ms)

    def again(self) -> Segment:
        """Return the same segment as one who opens it finds it."""
        return Segment(self.place, BASE, self.config, 1)

    def file_bytes(self) -> bytes:
        return self.directory.read(f"{self.segment.name}.log")

    def kinds_since(self, count: int) -> list[tuple[str, int]]:
        """Return what was done to the disk since there were so many operations, and where."""
        return [(each.kind, each.position) for each in self.disk.operations[count:]]


class Failing:
    """A region whose next stores raise, the first of them when it has done a part."""

    def __init__(self, region: Region, stored: int, *errors: BaseException) -> None:
        self._region = region
        self._stored = stored
        self._errors = list(errors)

    def __len__(self) -> int:
        return len(self._region)

    def __getitem__(self, where: slice) -> bytes:
        return self._region[where]

    def __setitem__(self, where: slice, data: bytes) -> None:
        if not self._errors:
            self._region[where] = data
            return
        part = data[: self._stored]
        self._stored = 0
        self._region[where.start : where.start + len(part)] = part
        raise self._errors.pop(0)

    def view(self, start: int, stop: int) -> bytes:
        return self[start:stop]

    def words(self) -> Sequence[int]:
        return self._region.words()


# ---------------------------------------------------------------- room


def test_a_frame_belongs_here_as_long_as_it_fits_with_the_seal() -> None:
    made = Made()
    segment = made.segment
    assert segment.has_room(10**9)  # a lone one always does
    made.append(b"v")
    position = segment.tail[0]
    fits = SMALL.segment_bytes - position - f.SEAL_SIZE
    assert fits % 8 == 0
    assert segment.has_room(fits)
    assert segment.has_room(fits - 7)
    assert not segment.has_room(fits + 1)


def test_no_frame_belongs_where_its_offset_is_too_far_from_the_first() -> None:
    made = Made()
    made.append(b"v")
    segment = made.segment
    position = segment.tail[0]
    segment.tail = (position, BASE + LARGEST_RELATIVE - 1)
    assert segment.has_room(100)
    segment.tail = (position, BASE + LARGEST_RELATIVE)
    assert not segment.has_room(100)


def test_no_frame_belongs_behind_a_seal() -> None:
    made = Made()
    made.segment.seal()
    assert not made.segment.has_room(40)


def test_space_is_reserved_in_steps_that_double() -> None:
    made = Made(LARGE)
    segment = made.segment
    sizes = []
    while segment.tail[0] < 300_000:
        made.append(bytes(20_000))
        sizes.append(segment.file_size())
    assert list(dict.fromkeys(sizes)) == [FIRST_RESERVE * 2**step for step in range(4)]
    made.append(bytes(5_000_000))  # a lone one may be larger than a segment is to be
    assert segment.file_size() == segment.tail[0] + f.SEAL_SIZE


def test_no_more_is_reserved_than_a_segment_may_have() -> None:
    made = Made()
    made.append(b"v")
    assert made.segment.file_size() == SMALL.segment_bytes
    count = len(made.disk.operations)
    region = made.segment.mapped
    while made.segment.has_room(60):
        made.append(b"v" * 20)
    assert RESERVE not in [kind for kind, _ in made.kinds_since(count)]
    assert made.segment.mapped is region


@pytest.mark.parametrize("is_each_synced", [False, True])
@pytest.mark.parametrize("size", [1, 100, 4000, LARGE_WRITE - 1, LARGE_WRITE, 200_000])
def test_where_room_was_made_the_short_path_need_not_ask(size: int, is_each_synced: bool) -> None:
    made = Made(LARGE, is_each_synced=is_each_synced)
    segment = made.segment
    for _ in range(3):
        position = segment.tail[0]
        segment.make_room(size, 6000)
        assert position + f.aligned(size) <= segment.limit <= len(segment.region())
        if size > f.SINGLE_OVERHEAD:
            segment.append_single(None, bytes(size - f.SINGLE_OVERHEAD), b"", 1, 6000)


@pytest.mark.parametrize("is_each_synced", [False, True])
def test_the_short_path_asks_before_the_segment_is_full(is_each_synced: bool) -> None:
    made = Made(SMALL._replace(segment_bytes=4100), is_each_synced=is_each_synced)
    made.append(b"v")
    assert made.segment.limit == 4100 - f.SEAL_SIZE - f.EXTENSION_SIZE - 4  # a multiple of 8
    made = Made(LARGE, is_each_synced=is_each_synced)
    made.append(b"v")
    assert made.segment.limit == FIRST_RESERVE


def test_room_that_is_there_is_not_made_anew() -> None:
    made = Made()
    made.segment.make_room(100_000, 6000)
    region = made.segment.mapped
    assert made.segment.file_size() == len(made.segment.region())
    made.segment.make_room(100_000, 6000)
    assert made.segment.mapped is region


def test_a_segment_began_when_its_first_record_came() -> None:
    made = Made()
    assert made.segment.began_ms() == 5000
    made.append(b"v", now_ms=6000)
    made.append(b"v", now_ms=7000)
    assert made.segment.began_ms() == 6000
    assert made.segment.last_append_ms == 7000
    assert made.again().began_ms() == 5000  # that of one that is reopened is not known


def test_every_byte_the_short_path_may_store_into_was_touched() -> None:
    made = Made(LARGE._replace(segment_bytes=4 * 1024 * 1024))
    touched = 0
    while touched < 2_000_000:
        made.append(bytes(10_000))
        for operation in made.disk.operations:
            if operation.kind is WRITE and operation.path.endswith(".log"):
                assert operation.position <= touched
                touched = max(touched, operation.position + len(operation.data))
        made.disk.operations.clear()
        assert made.segment.limit <= touched
        assert made.segment.limit <= len(made.segment.region())


def test_pages_are_touched_once_ahead_of_what_is_stored() -> None:
    made = Made(LARGE)
    made.append(b"v" * 100)
    count = len(made.disk.operations)
    while made.segment.tail[0] < FIRST_RESERVE - 300:
        made.append(b"v" * 100)
    stores = made.kinds_since(count)
    assert {kind for kind, _ in stores} == {WRITE}
    assert len(stores) == len(range(BASE + 1, made.segment.tail[1]))  # one for each record
    positions = [position for _, position in stores]
    assert positions == sorted(set(positions))


def test_where_every_append_is_synced_no_page_is_touched() -> None:
    made = Made(LARGE, is_each_synced=True)
    count = len(made.disk.operations)
    made.append(b"v")
    assert made.kinds_since(count) == [(RESERVE, FIRST_RESERVE), (WRITE, f.HEADER_SIZE)]


def test_a_large_frame_is_not_zeroed_before_it_is_written() -> None:
    made = Made(LARGE)
    made.append(b"v")
    made.segment.make_room(1_000, 6000)
    count = len(made.disk.operations)
    position = made.segment.tail[0]
    made.append(bytes(LARGE_WRITE - f.SINGLE_OVERHEAD))
    writes = [where for kind, where in made.kinds_since(count) if kind is WRITE]
    assert writes == [position]


# ---------------------------------------------------------------- an append that fails


@pytest.mark.parametrize("stored", [0, 1, 36, 40, 41])
def test_after_an_error_of_the_disk_nothing_is_behind_the_tail(stored: int) -> None:
    """Also where all of it was stored: the caller is told that nothing was."""
    made = Made()
    made.append(b"first")
    segment = made.segment
    tail = segment.tail
    segment.make_room(41, 6000)
    segment.mapped = Failing(segment.region(), stored, OSError(errno.EIO, "no"))
    with pytest.raises(OSError, match="no"):
        segment.append_single(None, b"v", b"", 1000, 6000)
    assert segment.tail == tail
    assert not any(made.file_bytes()[tail[0] :])
    segment.append_single(None, b"w", b"", 1000, 6000)
    segment.check()


def test_what_cannot_be_zeroed_either_is_not_in_the_log() -> None:
    made = Made()
    made.append(b"first")
    segment = made.segment
    tail = segment.tail
    segment.make_room(41, 6000)
    errors = (OSError(errno.EIO, "the store"), OSError(errno.EIO, "the zeros"))
    segment.mapped = Failing(segment.region(), 41, *errors)
    with pytest.raises(OSError, match="the store"):
        segment.append_single(None, b"v", b"", 1000, 6000)
    assert segment.tail == tail


def test_a_large_frame_is_stored_though_its_map_was_let_go_meanwhile() -> None:
    made = Made(LARGE)
    made.append(b"first")
    segment = made.segment
    segment.make_room(LARGE_WRITE + 40, 6000)
    segment.unmap()
    segment.append_single(None, bytes(LARGE_WRITE), b"", 1000, 6000)
    assert segment.next_offset == BASE + 2
    segment.check()


@pytest.mark.parametrize("timestamp_type", ["create", "append"])
def test_a_frame_says_whose_time_it_has(timestamp_type: str) -> None:
    made = Made(SMALL._replace(timestamp_type=timestamp_type))
    made.append(b"v")
    batch = encode_batch([b"a", b"bcd"], None, None, None, 100)
    made.segment.make_room(batch.frame_bytes, 8000)
    made.segment.append_batch(batch, 1500, 8000)
    region, segment = made.segment.region(), made.segment
    frames = scan.walk(region, f.HEADER_SIZE, BASE, segment.tail[0], segment.seed)
    flags = [prefix.flags & (f.APPEND_TIME | f.COLUMNS | f.TRANSACTIONAL) for _, prefix in frames]
    own = f.APPEND_TIME if timestamp_type == "append" else 0
    assert flags == [own, own | f.COLUMNS]


@pytest.mark.parametrize("stored", [0, 1, 36, 40, 41])
def test_after_an_interrupt_a_record_is_in_if_all_of_it_is(stored: int) -> None:
    made = Made()
    made.append(b"first")
    segment = made.segment
    position, offset = segment.tail
    segment.make_room(41, 6000)
    segment.mapped = Failing(segment.region(), stored, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        segment.append_single(None, b"v", b"", 1000, 6000)
    is_in = stored == 41
    assert segment.tail == ((position + 48, offset + 1) if is_in else (position, offset))
    made.append(b"w")
    segment.check()
    assert segment.next_offset == offset + 1 + is_in


def test_an_interrupt_behind_the_tail_does_not_take_in_what_stands_there() -> None:
    made = Made()
    made.append(b"first")
    segment = made.segment
    tail = segment.tail
    made.append(b"second")
    after = segment.tail
    segment.settle(tail[0], tail[1], KeyboardInterrupt())  # its tail was published before
    assert segment.tail == after
    segment.settle(tail[0], tail[1], OSError())
    assert segment.tail == after
    segment.check()


def test_a_whole_frame_of_another_offset_or_a_seal_is_not_taken_in() -> None:
    made = Made()
    made.append(b"first")
    segment = made.segment
    position, offset = segment.tail
    segment.make_room(100, 6000)
    for frame in (
        f.encode_single(None, b"v", b"", offset + 1, 1, 1, 0),
        f.encode_seal(f.Seal(offset, 0, 0, 1), 1, 0, segment.seed, position)[:-4],
    ):
        whole = frame + f.checksum(frame, segment.seed, position)
        segment.region()[position : position + len(whole)] = whole
        segment.settle(position, offset, KeyboardInterrupt())
        assert segment.tail == (position, offset)


# ---------------------------------------------------------------- its end


@pytest.mark.parametrize("can_reserve", [True, False])
def test_a_sealed_segment_says_what_is_in_it_and_has_no_reserve(can_reserve: bool) -> None:
    made = Made(can_reserve=can_reserve)
    made.append(b"v", timestamp=2000, now_ms=7000)
    batch = encode_batch([b"a", b"bcd"], None, None, None, 100)
    made.segment.make_room(batch.frame_bytes, 8000)
    made.segment.append_batch(batch, 1500, 8000)
    position, next_offset = made.segment.tail
    assert (made.segment.is_sealed, made.segment.record_count) == (False, 3)
    made.segment.seal()
    assert (made.segment.is_sealed, made.segment.record_count) == (True, 3)
    assert made.segment.size_bytes == position + f.SEAL_SIZE == made.segment.file_size()
    assert made.segment.limit == CLOSED
    again = made.again()
    assert again.load_seal()
    assert (again.tail, again.is_sealed) == ((position, next_offset), True)
    assert (again.largest_timestamp, again.last_append_ms) == (2000, 8000)
    assert (again.record_count, again.latest_ms, again.is_dense) == (3, 2000, True)
    made.segment.check()
    again.check()


@pytest.mark.parametrize("stored", [0, 30, 56])
def test_a_seal_that_could_not_be_written_leaves_nothing_and_can_be_tried_again(
    stored: int,
) -> None:
    made = Made()
    made.append(b"v")
    segment = made.segment
    tail = segment.tail
    segment.mapped = Failing(segment.region(), stored, OSError(errno.EIO, "no"))
    with pytest.raises(OSError, match="no"):
        segment.seal()
    assert not segment.is_sealed
    assert not any(made.file_bytes()[tail[0] :])
    made.append(b"w")
    segment.seal()
    segment.check()
    assert segment.record_count == 2


@pytest.mark.parametrize("end", ["seal", "trim"])
def test_an_entry_of_a_record_that_never_came_goes_at_the_end(end: str) -> None:
    """An append that was interrupted has left it; the next record at that place may be another."""
    made = Made()
    for _ in range(20):
        made.append(b"v" * 40)
    segment = made.segment
    position, offset = segment.tail
    made.segment.add_index_entry(position, offset, position + 80)
    getattr(segment, end)()
    index = Index.open(made.directory, segment.name, segment.seed)
    assert index is not None
    entries = list(index.entries())
    assert entries
    assert all(entry[1] < position for entry in entries)
    sizes = [len(made.directory.read(f"{segment.name}.{kind}")) for kind in ("index", "timeindex")]
    assert sizes == [8 * len(entries), 16 * len(entries)]


@pytest.mark.parametrize("end", ["seal", "trim"])
def test_the_entry_of_the_last_record_stays(end: str) -> None:
    made = Made()
    entries: list[tuple[int, int, int]] = []
    position = 0
    while not entries or entries[-1][1] != position:
        position = made.segment.tail[0]
        made.append(b"v" * 40)
        assert made.segment._index is not None
        entries = list(made.segment._index.entries())
    getattr(made.segment, end)()
    index = Index.open(made.directory, made.segment.name, made.segment.seed)
    assert index is not None
    assert list(index.entries()) == entries


@pytest.mark.parametrize("is_each_synced", [True, False])
@pytest.mark.parametrize("can_reserve", [True, False])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_trimmed_segment_ends_where_its_next_frame_would_begin(
    can_reserve: bool, is_each_synced: bool, size: int
) -> None:
    made = Made(can_reserve=can_reserve, is_each_synced=is_each_synced)
    made.append(b"v" * size)
    made.segment.trim()
    assert made.segment.file_size() == made.segment.tail[0] == f.HEADER_SIZE + 48
    assert made.segment.limit == CLOSED
    made.segment.trim()
    made.append(b"w")
    made.segment.check()
    made.segment.seal()
    size = made.segment.file_size()
    made.segment.trim()  # of a sealed one there is nothing to give back
    assert made.segment.file_size() == size


def test_after_a_trim_the_short_path_does_not_go_as_far_as_before() -> None:
    """What is reserved anew may be a little less: half of it was not quite full."""
    made = Made(LARGE)
    made.append(b"v")
    made.append(bytes(FIRST_RESERVE - made.segment.tail[0] - f.SINGLE_OVERHEAD - 48))
    segment = made.segment
    segment.make_room(100, 6000)
    assert segment.limit == len(segment.region()) == 2 * FIRST_RESERVE
    segment.trim()
    made.append(b"v")
    assert segment.limit <= len(segment.region()) < 2 * FIRST_RESERVE


def test_a_seal_that_a_crash_came_after_is_finished() -> None:
    made = Made()
    for _ in range(20):
        made.append(b"v" * 40)
    segment = made.segment
    segment.seal()
    end = segment.file_size()
    sealed, index = made.file_bytes(), made.directory.read(f"{segment.name}.index")
    made.directory.open(f"{segment.name}.log", writable=True).reserve(4096)
    made.directory.open(f"{segment.name}.index", writable=True).reserve(4096)
    again = made.again()
    assert not again.load_seal()  # it is not at the end
    again.resume(segment.tail, 1000, 6000)
    again.finish_seal()
    assert again.file_size() == end
    assert made.file_bytes() == sealed
    assert made.directory.read(f"{segment.name}.index") == index
    assert again.mapped is None
    again = made.again()
    assert again.load_seal()
    again.check()


def test_what_was_synced_is_known_up_to_the_tail_of_then() -> None:
    made = Made()
    segment = made.segment
    assert segment.is_dirty()
    segment.sync()
    assert made.disk.operations[-1].kind == SYNC
    assert (segment.durable, segment.is_dirty()) == (f.HEADER_SIZE, False)
    made.append(b"v")
    assert segment.is_dirty()
    segment.sync()
    assert segment.durable == segment.tail[0]
    assert segment.context == f.context_of(1, segment.tail[0])
    assert segment.numbered_context == f.context_of(1, segment.tail[0], f.EXTENDED)
    segment.seal()
    assert segment.is_dirty()
    segment.sync()
    assert segment.durable == segment.tail[0] + f.SEAL_SIZE


# ---------------------------------------------------------------- another process's


def test_a_live_segment_is_followed_up_to_its_seal() -> None:
    made = Made()
    live = made.again()
    live.is_live = True
    assert not live.follow()
    assert live.tail == (f.HEADER_SIZE, BASE)
    for stamp in (3000, 2000):
        made.append(b"v", timestamp=stamp)
        assert not live.follow()
        assert live.tail == made.segment.tail
        assert live.largest_timestamp == 3000
    made.segment.seal()
    assert live.follow()
    assert (live.tail, live.is_sealed, live.is_live) == (made.segment.tail, True, False)
    assert live.mapped is None  # by map from now on


def test_a_live_segment_is_followed_from_its_last_index_entry_on() -> None:
    made = Made()
    for number in range(20):
        made.append(b"v" * 40, timestamp=3000 - number)
    made.segment.trim()
    live = made.again()
    live.is_live = True
    live.skip_to_last_entry()
    assert f.HEADER_SIZE < live.tail[0] < made.segment.tail[0]
    assert live.largest_timestamp == 3000
    assert not live.follow()
    assert live.tail == made.segment.tail


@pytest.mark.parametrize("change", ["tail", "offset", "timestamp", "count"])
def test_a_segment_that_is_not_what_it_says_fails_its_check(change: str) -> None:
    made = Made()
    made.append(b"v", timestamp=3000)
    segment = made.segment
    segment.seal()
    segment.check()
    position, next_offset = segment.tail
    if change == "tail":
        segment.tail = (position - 8, next_offset)
    elif change == "offset":
        segment.tail = (position, next_offset + 1)
    elif change == "timestamp":
        segment.largest_timestamp = 2999
    else:
        segment._sealed_count = 2
    with pytest.raises(AssertionError):
        segment.check()


def test_look_of_a_reader_that_was_slow_is_not_looked_through_again() -> None:
    """In memory a file grows, and is cut, by copying: an older map lacks what came after."""
    directory = MemoryDirectory()
    directory.make()
    place = Place(directory, b"log", MapLimit(100), True, False)
    segment = Segment(place, BASE, LARGE, 1)
    segment.create(BASE, 5000)
    segment.make_room(f.SINGLE_OVERHEAD + 5, 6000)
    segment.append_single(None, b"first", b"", 1000, 6000)
    slow = segment.view(segment.tail[0])
    segment.make_room(2 * FIRST_RESERVE, 6000)  # it grows
    segment.append_single(None, b"second", b"", 1000, 6000)
    segment.look = slow  # as one does who began to look before, and comes back
    segment.seal()
    assert segment.view(segment.tail[0]) is not slow
    assert b"second" in segment.view(segment.tail[0]).region[: segment.tail[0]]
    sealed = segment.view(segment.tail[0])
    assert segment.view(segment.tail[0]) is sealed
