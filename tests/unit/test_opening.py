"""Opening a log: leftovers, marks that hold or do not, and what its problems say."""

from __future__ import annotations

from typing import Any

import pytest

from minilog.config import TopicConfig
from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.files import Directory, MapLimit
from minilog.storage.log import Log
from minilog.storage.opening import Opening
from minilog.storage.recovery import CleanMark, Problem, is_outdated
from minilog.storage.rewriting import Rewriting
from minilog.storage.runs import runs_of
from minilog.testing import SimulatedDisk

BASE = 100
CONFIG = TopicConfig(segment_bytes=512, index_interval_bytes=256)


@pytest.fixture
def directory() -> Directory:
    directory = SimulatedDisk().root_directory()
    Log.create(directory, b"log", BASE, 5000)
    return directory


def opened(directory: Directory, **opening: Any) -> Log:
    return Log(directory, b"log", CONFIG, MapLimit(100), Opening(**opening))


def filled(directory: Directory, count: int = 30) -> tuple[Log, CleanMark]:
    """Return a log that was filled and closed, and its mark."""
    log = opened(directory, mark=Log.fresh_mark(BASE), same_boot=True)
    for number in range(count):
        log.append_single(None, b"%03d" % number * 5, b"", 1000 + number, 6000)
    log.sync()
    log.trim()
    mark = log.mark()
    log.unmap()
    return log, mark


def values_of(log: Log) -> list[Any]:
    rows, _ = log.read(log.first_base, log.end(), 10**6, 10**9)
    return [value for row in rows for value in row.values]


# ---------------------------------------------------------------- a mark


def mark_with(**changes: Any) -> list[Any]:
    mark = CleanMark(BASE, f.HEADER_SIZE, BASE + 5, 1000, 6000, 1, is_sealed=False)
    return list(mark._replace(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"base_offset": 0},
        {"base_offset": BASE + 5},
        {"next_offset": f.LARGEST_OFFSET + 1},
        {"largest_timestamp": -1, "last_append_ms": -1},
        {"largest_timestamp": 2**63 - 1},
        {"is_sealed": True},
    ],
)
def test_a_mark_that_a_log_can_have_is_one(changes: dict[str, Any]) -> None:
    assert list(CleanMark.of(mark_with(**changes))) == mark_with(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"base_offset": -1},
        {"base_offset": BASE + 6},
        {"next_offset": BASE - 1},
        {"next_offset": f.LARGEST_OFFSET + 2},
        {"position": f.HEADER_SIZE - 1},
        {"largest_timestamp": -2},
        {"largest_timestamp": 2**63},
        {"largest_timestamp": 1.0},
        {"epoch": True},
        {"epoch": "1"},
        {"is_sealed": 0},
        {"is_sealed": None},
    ],
)
def test_a_mark_that_no_log_can_have_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is no mark"):
        CleanMark.of(mark_with(**changes))


def test_a_mark_is_outdated_where_the_log_has_more(directory: Directory) -> None:
    log, mark = filled(directory, 3)
    (segment,) = log.segments()
    assert mark.next_offset == BASE + 3
    assert not is_outdated(mark, segment)
    assert is_outdated(mark._replace(position=mark.position - 8), segment)
    assert is_outdated(mark._replace(base_offset=BASE - 1), segment)
    assert not is_outdated(mark._replace(base_offset=BASE + 1), segment)
    assert not is_outdated(mark._replace(position=mark.position - 8, is_sealed=True), segment)
    directory.open(f"{segment.name}.log", writable=True).reserve(4096)  # is none of the log
    segment.unmap()
    assert not is_outdated(mark, segment)


@pytest.mark.parametrize("same_boot", [True, False])
def test_after_a_clean_close_the_log_is_as_it_was(directory: Directory, same_boot: bool) -> None:
    log, mark = filled(directory)
    again = opened(directory, mark=mark, same_boot=same_boot)
    assert again.problems == []
    assert values_of(again) == [b"%03d" % number * 5 for number in range(30)]
    assert again.mark() == mark._replace(epoch=mark.epoch + 1)
    assert again.largest_timestamp == 1029
    again.check()
    again.append_single(None, b"more", b"", 2000, 7000)
    again.check()
    assert log.first_base == again.first_base == BASE


@pytest.mark.parametrize("ending", ["index", "timeindex"])
def test_an_index_that_a_power_cut_after_the_close_has_cost_is_mended(
    directory: Directory, ending: str
) -> None:
    log, mark = filled(directory)
    name = f"{log.segments()[-1].name}.{ending}"
    if name not in directory.names():
        log.append_single(None, b"x" * 200, b"", 2000, 7000)
        log.append_single(None, b"x" * 20, b"", 2000, 7000)
        log.sync()
        log.trim()
        mark = log.mark()
    whole = directory.read(name)
    assert whole
    directory.open(name, writable=True).write(0, bytes(len(whole)))
    again = opened(directory, mark=mark, same_boot=False)
    assert again.problems == []
    assert directory.read(name) == whole


def test_a_file_that_is_shorter_than_its_mark_is_reported(directory: Directory) -> None:
    _, mark = filled(directory, 3)
    directory.open(f"{BASE:020d}.log", writable=True).trim(mark.position - 8)
    again = opened(directory, mark=mark, same_boot=True)
    (problem,) = again.problems
    assert problem.position == mark.position - 8
    assert problem.reason == (
        f"the file has {mark.position - 8} bytes; {mark.position} were there when it was closed"
    )
    assert again.end_offset == BASE + 3  # no offset is given again
    assert again.append_single(None, b"v", b"", 1000, 6000) == BASE + 3


def test_a_problem_says_where_it_is() -> None:
    assert str(Problem("file", 64, 7, "it is gone")) == "file at byte 64, offset 7: it is gone"
    assert str(Problem("file", 0, None, "it is gone")) == "file at byte 0: it is gone"


# ---------------------------------------------------------------- leftovers

LEFT = [
    f"{BASE:020d}.log~",  # of compaction
    f"{BASE:020d}~.index",
    f"{BASE:020d}~.timeindex",
    f"{BASE + 7:020d}.index",  # of no segment
    f"{BASE + 7:020d}.timeindex",
    f"{BASE + 3:020d}.index",  # a half
]


@pytest.mark.parametrize("is_closed", [True, False])
def test_what_a_crash_left_is_removed_by_the_next_writer(
    directory: Directory, is_closed: bool
) -> None:
    _, mark = filled(directory)
    before = directory.names()
    for name in LEFT:
        directory.create(name)
    opened(directory, is_writable=False, mark=mark if is_closed else None)
    assert directory.names() == sorted([*before, *LEFT])
    log = opened(directory, mark=mark if is_closed else None, same_boot=True)
    if is_closed:  # then there are none but of compaction
        assert LEFT[0] not in directory.names()
    else:
        assert directory.names() == before
    assert len(values_of(log)) == 30


def test_half_an_index_is_removed_and_made_anew(directory: Directory) -> None:
    log, _ = filled(directory)
    first = log.segments()[0].name
    whole = directory.read(f"{first}.timeindex")
    directory.unlink(f"{first}.timeindex")
    again = opened(directory, same_boot=True)
    assert f"{first}.index" not in directory.names()
    assert again.offset_at(1010, BASE, again.end()) == BASE + 10
    assert whole


def test_segments_below_the_start_that_come_back_are_removed(directory: Directory) -> None:
    log, _ = filled(directory)
    bases = [segment.base_offset for segment in log.segments()]
    assert len(bases) > 3
    for start, left in ((bases[1] - 1, 0), (bases[2], 2), (bases[2] + 1, 2), (10**6, -1)):
        again = opened(directory, same_boot=True, start_offset=start)
        assert again.first_base == bases[left]
        assert again.end_offset == BASE + 30


def test_segments_that_compaction_has_put_another_for_are_removed(directory: Directory) -> None:
    """A crash came before they could be."""
    log, _ = filled(directory)
    sources = log.segments()[:2]
    writing = Rewriting(log.begin_segment(BASE), directory, 256, "none")
    for source in sources:
        for run in runs_of(source):
            writing.add(run.where([True] * len(run.offsets)), run.make)
    end = sources[-1].next_offset
    writing.finish(f.SegmentHeader(BASE, BASE, 5000, 1, cleaned_to=end), end, 6000)
    directory.rename(f"{sources[0].name}.log~", f"{sources[0].name}.log")
    assert f"{sources[1].name}.log" in directory.names()
    again = opened(directory, same_boot=True)
    assert f"{sources[1].name}.log" not in directory.names()
    assert again.problems == []
    assert [segment.base_offset for segment in again.segments()][:2] == [BASE, end]
    assert values_of(again) == [b"%03d" % number * 5 for number in range(30)]
    again.check()


# ---------------------------------------------------------------- torn or corrupt


def unclean(directory: Directory, *, synced: int, damaged: int, count: int = 6) -> Log:
    """Open a log that was not closed: ``synced`` before so many records were written, and one of
    them damaged since."""
    log = opened(directory, mark=Log.fresh_mark(BASE), same_boot=True)
    for number in range(count):
        if number == synced:
            log.sync()
        log.append_single(None, b"v" * 8, b"", 1000 + number, 6000)  # 48 bytes
    file = directory.open(f"{BASE:020d}.log", writable=True)
    file.write(f.HEADER_SIZE + damaged * 48 + 40, b"x")
    return log


@pytest.mark.parametrize("same_boot", [True, False])
@pytest.mark.parametrize("damaged", [0, 2, 3, 4, 5])
def test_damage_before_what_was_synced_is_corruption_and_behind_it_torn(
    directory: Directory, same_boot: bool, damaged: int
) -> None:
    """Three were synced; the fourth is the first that a crash may have cost."""
    unclean(directory, synced=3, damaged=damaged)
    again = opened(directory, same_boot=same_boot)
    place = f.HEADER_SIZE + damaged * 48
    (problem,) = again.problems
    assert (problem.position, problem.offset) == (place, BASE + damaged)
    if damaged < 3:
        assert "bytes that were on the disk have changed" in problem.reason
        assert again.end_offset == BASE + 6
        assert again.record_count(BASE, again.end()) >= 6
    else:
        assert "were dropped" in problem.reason
        assert again.end_offset == BASE + damaged
        (segment,) = again.segments()
        assert segment.durable == place
        assert segment.context == f.context_of(2, place)
        again.check()


@pytest.mark.parametrize("damaged", [0, 2, 3, 4, 5])
def test_a_reader_of_a_log_in_use_tells_the_same_apart(directory: Directory, damaged: int) -> None:
    unclean(directory, synced=3, damaged=damaged)
    reader = opened(directory, is_writable=False)
    assert reader.end_offset == BASE + (6 if damaged < 3 else damaged)


@pytest.mark.parametrize(("damaged", "end"), [(1, 6), (2, 6), (3, 3), (4, 4)])
def test_what_an_earlier_close_has_synced_is_not_dropped(
    directory: Directory, damaged: int, end: int
) -> None:
    log, mark = filled(directory, 3)
    assert mark.position == f.HEADER_SIZE + 3 * 56
    for number in range(3):
        log.append_single(None, b"%03d" % number * 5, b"", 1000, 6000)
    file = directory.open(f"{BASE:020d}.log", writable=True)
    file.write(f.HEADER_SIZE + damaged * 56 + 40, b"x")
    log = opened(directory, mark=mark, same_boot=True)
    assert log.end_offset == BASE + end
    assert len(log.problems) == 1


def test_a_mark_that_is_older_than_the_log_costs_no_record(directory: Directory) -> None:
    log, mark = filled(directory, 3)
    log.append_single(None, b"more", b"", 1000, 6000)
    again = opened(directory, mark=mark, same_boot=True)
    assert again.problems == []
    assert values_of(again)[3:] == [b"more"]


@pytest.mark.parametrize("count", [0, 3])
def test_a_seal_that_was_there_at_the_close_and_has_changed_is_reported(
    directory: Directory, count: int
) -> None:
    log, _ = filled(directory, count)
    last = log.segments()[-1]
    last.seal()
    mark = log.mark()
    assert opened(directory, mark=mark, same_boot=True).problems == []
    directory.open(f"{last.name}.log", writable=True).write(last.tail[0] + 20, b"x")
    again = opened(directory, mark=mark, same_boot=True)
    assert len(again.problems) == 1
    assert again.end_offset == BASE + count


def test_a_reader_follows_a_log_that_was_closed_and_is_written_again(directory: Directory) -> None:
    _, mark = filled(directory, 3)
    reader = opened(directory, is_writable=False, mark=mark)
    assert (reader.end_offset, len(values_of(reader))) == (BASE + 3, 3)
    assert not reader.segments()[-1].is_frozen
    writer = opened(directory, mark=mark, same_boot=True)
    writer.append_single(None, b"more", b"", 1000, 6000)
    reader.follow()
    assert values_of(reader)[3:] == [b"more"]


def test_a_header_that_has_changed_is_reported_and_its_records_are_there(
    directory: Directory,
) -> None:
    filled(directory, 3)
    directory.open(f"{BASE:020d}.log", writable=True).write(20, b"x")
    again = opened(directory, same_boot=True)
    (problem,) = again.problems
    assert (problem.position, problem.offset) == (0, None)
    assert "header" in problem.reason
    assert len(values_of(again)) == 3


def epochs_of(log: Log) -> list[int]:
    """Return the epoch of every frame, seals too."""
    return [
        prefix.epoch
        for segment in log.segments()
        for _, prefix in scan.walk(
            segment.region(),
            f.HEADER_SIZE,
            segment.base_offset,
            segment.file_size(),
            segment.seed,
        )
    ]


def test_after_a_roll_that_was_cut_short_the_epoch_still_grows(directory: Directory) -> None:
    for _ in range(3):
        log = opened(directory, same_boot=True)
        log.append_single(None, b"v", b"", 1000, 6000)
    before = epochs_of(log)
    log.roll(6000)
    name = f"{log.segments()[-1].name}.log"
    directory.open(name, writable=True).write(0, bytes(f.HEADER_SIZE))
    log = opened(directory, same_boot=True)
    assert log.problems == []
    log.append_single(None, b"v", b"", 1000, 6000)
    assert epochs_of(log)[-1] > max(before)


def test_a_seal_that_a_power_cut_took_is_written_again_as_it_was(directory: Directory) -> None:
    log, _ = filled(directory, 12)
    first, second = log.segments()[:2]
    end = first.file_size()
    whole = directory.read(f"{first.name}.log")
    directory.open(f"{first.name}.log", writable=True).trim(end - f.SEAL_SIZE)
    again = opened(directory, same_boot=False)
    (problem,) = again.problems
    assert "seal was lost" in problem.reason
    assert (problem.position, problem.path) == (end - f.SEAL_SIZE, first.path)
    (epoch,) = set(epochs_of(again)[: second.base_offset - BASE + 1])
    assert epoch == 1
    assert len(directory.read(f"{first.name}.log")) == len(whole)
    assert len(values_of(again)) == 12
    again.check()


def test_a_reader_of_a_log_that_ends_with_a_seal_knows_it(directory: Directory) -> None:
    log, _ = filled(directory, 3)
    log.segments()[-1].seal()
    mark = log.mark()
    assert mark.is_sealed
    reader = opened(directory, is_writable=False, mark=mark)
    assert reader.segments()[-1].is_sealed
    assert len(values_of(reader)) == 3


class Stale:
    """A directory that shows a file once more when it is listed, which is gone."""

    def __init__(self, directory: Directory, name: str) -> None:
        self._directory = directory
        self._gone = [name]

    def names(self) -> list[str]:
        gone, self._gone = self._gone, []
        return sorted([*self._directory.names(), *gone])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._directory, name)


def test_a_reader_whose_last_segment_goes_as_it_opens_looks_again(directory: Directory) -> None:
    filled(directory, 3)
    stale: Any = Stale(directory, f"{BASE + 3:020d}.log")
    reader = opened(stale, is_writable=False)
    assert len(values_of(reader)) == 3
    assert [segment.base_offset for segment in reader.segments()] == [BASE]
