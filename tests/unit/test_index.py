"""The sparse indexes: floors by offset, time and position, and that nothing in them is believed
that does not prove itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilog.storage.files import Directory, DiskDirectory
from minilog.storage.index import WRITTEN_AT_ONCE, Index
from minilog.storage.memory import MemoryDirectory
from minilog.testing import SimulatedDisk

NAME = "00000000000000000000"
SEED = 4711
Entry = tuple[int, int, int]  # relative offset, position, largest timestamp before
ENTRIES = st.lists(
    st.tuples(st.integers(1, 9), st.integers(8, 90), st.integers(0, 5)), min_size=1, max_size=40
)


def filled(directory: Directory, steps: list[Entry]) -> tuple[Index, list[Entry]]:
    """Return an index whose entries grow by these steps, and the entries."""
    index = Index(directory, NAME, SEED)
    entries = []
    offset = position = timestamp = 0
    for by_offset, by_position, by_time in steps:
        offset += by_offset
        position += by_position
        timestamp += by_time
        entries.append((offset, position, timestamp))
        index.append(offset, position, timestamp)
    return index, entries


@given(ENTRIES)
def test_floors_are_the_last_entries_before(steps: list[Entry]) -> None:
    index, entries = filled(MemoryDirectory(), steps)
    for wanted in range(max(offset for offset, _, _ in entries) + 2):
        below = [(o, p) for o, p, _ in entries if o <= wanted]
        assert index.floor(wanted) == (below[-1] if below else None)
    for wanted in range(max(stamp for _, _, stamp in entries) + 2):
        older = [(o, p) for o, p, stamp in entries if stamp < wanted]
        assert index.floor_time(wanted) == (older[-1] if older else None)
    for wanted in range(0, max(position for _, position, _ in entries) + 9, 3):
        before = [entry for entry in entries if entry[1] < wanted]
        assert index.floor_below(wanted) == (before[-1] if before else None)
    assert list(index.entries()) == entries


@pytest.mark.parametrize("is_trimmed", [False, True])
def test_an_index_is_opened_with_the_entries_it_had_but_for_those_that_waited(
    tmp_path: Path, is_trimmed: bool
) -> None:
    directory = DiskDirectory(str(tmp_path))
    index, entries = filled(directory, [(1, 40, 1)] * 700)
    if is_trimmed:
        index.trim()
        assert (tmp_path / f"{NAME}.index").stat().st_size == 8 * 700
        assert (tmp_path / f"{NAME}.timeindex").stat().st_size == 16 * 700
    opened = Index.open(directory, NAME, SEED)
    assert opened is not None
    waiting = 0 if is_trimmed else (len(entries) - 1) % WRITTEN_AT_ONCE + 1
    assert list(opened.entries()) == entries[: len(entries) - waiting]
    assert list(index.entries()) == entries


@pytest.mark.parametrize("ending", ["index", "timeindex"])
def test_an_index_that_was_cut_has_the_entries_that_are_whole(tmp_path: Path, ending: str) -> None:
    directory = DiskDirectory(str(tmp_path))
    index, entries = filled(directory, [(1, 40, 1)] * 10)
    index.trim()
    path = tmp_path / f"{NAME}.{ending}"
    data = path.read_bytes()
    for kept in range(len(data)):
        path.write_bytes(data[:kept])
        opened = Index.open(directory, NAME, SEED)
        assert opened is not None
        assert list(opened.entries()) == entries[: kept * 10 // len(data)]
    path.unlink()
    assert Index.open(directory, NAME, SEED) is None


def test_an_entry_that_was_changed_is_never_believed_for_its_time(tmp_path: Path) -> None:
    directory = DiskDirectory(str(tmp_path))
    index, entries = filled(directory, [(1, 40, 10)] * 8)
    index.trim()
    for ending in ("index", "timeindex"):
        path = tmp_path / f"{NAME}.{ending}"
        data = path.read_bytes()
        for position in range(len(data)):
            changed = bytearray(data)
            changed[position] ^= 0xFF
            path.write_bytes(bytes(changed))
            opened = Index.open(directory, NAME, SEED)
            assert opened is not None
            for wanted in (5, 25, 45, 1000):
                found = opened.floor_time(wanted)
                older = [(o, p) for o, p, stamp in entries if stamp < wanted]
                assert found is None or found in older
            lowest = opened.floor_below(10**6)
            assert lowest is None or lowest in entries
            for relative in range(10):
                floor = opened.floor(relative)
                assert floor is None or floor[0] <= relative
        path.write_bytes(data)


def test_an_index_of_another_log_is_not_believed(tmp_path: Path) -> None:
    directory = DiskDirectory(str(tmp_path))
    index, _ = filled(directory, [(1, 40, 10)] * 8)
    index.trim()
    other = Index.open(directory, NAME, SEED + 1)
    assert other is not None
    assert other.floor_time(1000) is None
    assert other.floor_below(1000) is None


def test_entries_behind_a_position_are_forgotten() -> None:
    directory = MemoryDirectory()
    index, entries = filled(directory, [(1, 40, 1)] * 10)
    index.cut_behind(200)
    assert list(index.entries()) == entries[:5]
    index.append(6, 999, 77)
    assert list(index.entries()) == [*entries[:5], (6, 999, 77)]
    again = Index.open(directory, NAME, SEED)
    assert again is not None
    assert list(again.entries()) == [*entries[:5], (6, 999, 77)]


def test_the_floor_below_a_position_is_below_it_also_out_of_order() -> None:
    """After a crash: asked for an entry below one it had given, it gave the same, for ever."""
    index = Index(MemoryDirectory(), NAME, SEED)
    for offset, position in ((1, 900), (2, 100), (3, 950)):
        index.append(offset, position, 0)
    for below in range(1000):
        found = index.floor_below(below)
        assert found is None or found[1] < below


def test_the_floor_below_is_not_an_entry_above_where_the_one_below_was_changed(
    tmp_path: Path,
) -> None:
    directory = DiskDirectory(str(tmp_path))
    index = Index(directory, NAME, SEED)
    for offset, position in ((1, 900), (2, 100), (3, 950)):
        index.append(offset, position, 0)
    index.trim()
    times = tmp_path / f"{NAME}.timeindex"
    data = bytearray(times.read_bytes())
    data[len(data) // 3] ^= 1  # of the second
    times.write_bytes(data)
    opened = Index.open(directory, NAME, SEED)
    assert opened is not None
    assert opened.floor_below(500) is None
    assert opened.floor_below(900) is None
    assert opened.floor_below(901) == (1, 900, 0)


def test_the_floor_of_a_time_is_not_a_later_one_where_that_before_was_changed(
    tmp_path: Path,
) -> None:
    directory = DiskDirectory(str(tmp_path))
    index = Index(directory, NAME, SEED)
    for offset, position, timestamp in ((1, 100, 9), (2, 200, 1)):
        index.append(offset, position, timestamp)
    index.trim()
    times = tmp_path / f"{NAME}.timeindex"
    data = bytearray(times.read_bytes())
    data[24] ^= 1  # the second's checksum
    times.write_bytes(data)
    opened = Index.open(directory, NAME, SEED)
    assert opened is not None
    assert opened.floor_time(5) is None
    assert opened.floor_time(9) is None
    assert opened.floor_time(10) == (1, 100)


def test_entries_that_wait_are_found_as_those_that_are_written() -> None:
    for count in (1, 2, WRITTEN_AT_ONCE, WRITTEN_AT_ONCE + 1, 3 * WRITTEN_AT_ONCE):
        index, entries = filled(MemoryDirectory(), [(2, 40, 3)] * count)
        last = entries[-1]
        assert len(index) == count
        assert index.floor(last[0]) == index.floor(10**6) == last[:2]
        assert index.floor(1) is None
        assert index.floor_time(last[2] + 1) == last[:2]
        index, _ = filled(MemoryDirectory(), [(2, 40, 3)] * count)
        assert index.floor_below(last[1] + 1) == last
        assert index.floor_below(last[1]) == (entries[-2] if count > 1 else None)


def test_what_was_cut_is_zeros_in_both_files() -> None:
    directory = MemoryDirectory()
    index, _ = filled(directory, [(1, 40, 1)] * 10)
    index.cut_behind(200)
    for ending, size in (("index", 8), ("timeindex", 16)):
        data = directory.read(f"{NAME}.{ending}")
        assert all(data[start : start + size].strip(b"\0") for start in range(0, 5 * size, size))
        assert not any(data[5 * size :])


def test_an_index_that_was_trimmed_grows_again() -> None:
    """Through a map that was made when the file was longer a store would kill the process."""
    directory = SimulatedDisk().root_directory()
    directory.make()
    index, entries = filled(directory, [(1, 40, 1)] * 20)
    index.trim()
    for number in range(40):
        index.append(100 + number, 10_000 + number, 50)
    index.flush()
    assert list(index.entries())[:20] == entries
    assert len(index) == 60
    again = Index.open(directory, NAME, SEED)
    assert again is not None
    assert list(again.entries()) == list(index.entries())


def test_an_index_that_was_removed_has_nothing_and_begins_anew(tmp_path: Path) -> None:
    directory = DiskDirectory(str(tmp_path))
    index, _ = filled(directory, [(1, 40, 1)] * 20)
    index.remove()
    assert len(index) == 0
    assert index.floor(100) is index.floor_time(100) is index.floor_below(100) is None
    assert list(index.entries()) == []
    index.remove()
    index.append(7, 70, 7)
    index.flush()
    assert list(index.entries()) == [(7, 70, 7)]


def test_a_reader_maps_an_index_once(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = MemoryDirectory()
    filled(directory, [(1, 40, 1)] * 20)[0].trim()
    opened = Index.open(directory, NAME, SEED)
    assert opened is not None
    opened.floor(5)

    def again(files: object, entries: int) -> None:
        raise AssertionError("it is mapped again")

    monkeypatch.setattr("minilog.storage.index.Maps.of", again)
    assert opened.floor(7) == (7, 280)
    assert opened.floor_time(4) == (3, 120)


def test_only_entries_that_ascend_and_prove_themselves_are_kept() -> None:
    for entries, position, kept in (
        ([(1, 100), (2, 200), (3, 300)], 200, 2),
        ([(1, 100), (2, 200), (3, 300)], 300, 3),
        ([(1, 100), (2, 200), (3, 300)], 250, None),
        ([(2, 200), (1, 100), (3, 300)], 300, None),
        ([], 64, None),
    ):
        index = Index(MemoryDirectory(), NAME, SEED)
        for offset, at in entries:
            index.append(offset, at, 0)
        assert index.keep_through(position) is (kept is not None)
        assert len(index) == (len(entries) if kept is None else kept)
