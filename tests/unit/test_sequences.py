"""What named producers have written: runs that grow, are cut, are kept, and are not believed."""

from __future__ import annotations

from collections import deque

import pytest

from minilog.storage import format as f
from minilog.storage.memory import MemoryDirectory
from minilog.storage.sequences import MOST_RUNS, SNAPSHOT_FILE, Sequences


def runs_of(sequences: Sequences, producer_id: int = 7) -> list[list[int]]:
    """Return all runs of a producer, as a snapshot has them."""
    directory = MemoryDirectory()
    sequences.save(directory, 10**6)
    content = f.decode_document(directory.read(SNAPSHOT_FILE), "it")
    runs: list[list[int]] = content["producers"].get(str(producer_id), [])
    return runs


def taken(*runs: tuple[int, int, int]) -> Sequences:
    sequences = Sequences()
    for sequence, offset, count in runs:
        sequences.take(7, sequence, offset, count)
    return sequences


def test_neighbouring_sequences_at_neighbouring_offsets_are_one_run() -> None:
    assert runs_of(taken((0, 10, 1), (1, 11, 3), (4, 14, 1))) == [[0, 10, 5]]
    assert runs_of(taken((0, 10, 1), (1, 12, 1))) == [[0, 10, 1], [1, 12, 1]]  # others between
    assert runs_of(taken((0, 10, 2), (3, 12, 1))) == [[0, 10, 2], [3, 12, 1]]
    assert runs_of(taken((0, 10, 1), (5, 20, 2), (7, 22, 1))) == [[0, 10, 1], [5, 20, 3]]


def test_what_a_sequence_got_is_known_up_to_its_last() -> None:
    sequences = taken((0, 10, 3), (3, 20, 2), (5, 30, 1))
    offsets = [sequences.offset_of(7, sequence) for sequence in range(-1, 7)]
    assert offsets == [None, 10, 11, 12, 20, 21, 30, None]
    assert sequences.last(7) == 5
    assert sequences.latest(7) == [5, 30, 1]
    assert (sequences.last(8), sequences.latest(8), sequences.offset_of(8, 0)) == (-1, None, None)


def test_only_the_last_runs_are_remembered() -> None:
    sequences = taken(*((number, 2 * number, 1) for number in range(MOST_RUNS + 2)))
    assert sequences.offset_of(7, 1) is None
    assert sequences.offset_of(7, 2) == 4
    assert len(runs_of(sequences)) == MOST_RUNS


def test_frames_are_taken_in_once_and_of_named_producers_alone() -> None:
    sequences = Sequences()
    sequences.take_all(
        [
            (f.Origin(7, 0, 1), 10, 2),
            (f.Origin(7, 0, 1), 10, 2),  # read again
            (f.Origin(7, 1, 1), 11, 1),
            (f.Origin(7, 2, 1), 12, 1),
            (f.Origin(0, 0, 1), 13, 1),
            (f.Origin(transaction=5), 14, 1),
            (f.Origin(-1, 3, -1), 15, 1),
        ]
    )
    assert runs_of(sequences) == [[0, 10, 3]]
    assert runs_of(sequences, 0) == [[0, 13, 1]]
    assert runs_of(sequences, -1) == []


@pytest.mark.parametrize(
    ("offset", "left"),
    [
        (31, [[0, 10, 3], [3, 20, 2], [5, 30, 1]]),
        (30, [[0, 10, 3], [3, 20, 2]]),
        (22, [[0, 10, 3], [3, 20, 2]]),
        (21, [[0, 10, 3], [3, 20, 1]]),
        (20, [[0, 10, 3]]),
        (13, [[0, 10, 3]]),
        (11, [[0, 10, 1]]),
        (10, []),
        (0, []),
    ],
)
def test_what_was_aborted_is_forgotten_from_its_offset_on(
    offset: int, left: list[list[int]]
) -> None:
    sequences = taken((0, 10, 3), (3, 20, 2), (5, 30, 1))
    sequences.take_back(7, offset)
    assert runs_of(sequences) == left
    sequences.take_back(8, offset)  # nobody has written as that one


def test_a_snapshot_has_what_was_written_before_its_offset() -> None:
    directory = MemoryDirectory()
    sequences = taken((0, 10, 3), (3, 20, 2), (5, 30, 1))
    sequences.save(directory, 21)
    assert sequences.next_offset == 21
    loaded = Sequences.load(directory, 100)
    assert loaded.next_offset == 21
    assert runs_of(loaded) == [[0, 10, 3], [3, 20, 1]]
    sequences.save(directory, 20)
    assert runs_of(Sequences.load(directory, 20)) == [[0, 10, 3]]
    assert Sequences.load(directory, 19).next_offset == 0  # it goes further than the log


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"next_offset": 5},
        {"next_offset": "5", "producers": {}},
        {"next_offset": True, "producers": {}},
        {"next_offset": -1, "producers": {}},
        {"next_offset": 11, "producers": {}},
        {"next_offset": 5, "producers": []},
        {"next_offset": 5, "producers": {"x": []}},
        {"next_offset": 5, "producers": {"7": [[0, 1]]}},
        {"next_offset": 5, "producers": {"7": [[0, 1, "2"]]}},
        {"next_offset": 5, "producers": {"7": [[0, 1, True]]}},
        {"next_offset": 5, "producers": {"7": [[-1, 1, 2]]}},
        {"next_offset": 5, "producers": {"7": [[0, 2**63, 2]]}},
        {"next_offset": 5, "producers": {"7": 3}},
    ],
)
def test_a_snapshot_that_minilog_did_not_write_is_not_believed(content: dict[str, object]) -> None:
    directory = MemoryDirectory()
    assert Sequences.load(directory, 10).next_offset == 0
    directory.replace(SNAPSHOT_FILE, f.encode_document(content))
    loaded = Sequences.load(directory, 10)
    assert (loaded.next_offset, runs_of(loaded)) == (0, [])


def test_a_snapshot_is_believed_up_to_the_end_of_its_log_and_the_largest_numbers() -> None:
    directory = MemoryDirectory()
    producers = {"7": [[0, 2**63 - 1, 0]]}
    document = f.encode_document({"next_offset": 10, "producers": producers})
    directory.replace(SNAPSHOT_FILE, document)
    loaded = Sequences.load(directory, 10)
    assert loaded.next_offset == 10
    assert loaded.latest(7) == [0, 2**63 - 1, 0]
    for number in range(MOST_RUNS + 5):
        loaded.take(7, 2 * number, number, 1)
    assert loaded.offset_of(7, 8) is None  # no more are remembered of what was loaded either
    assert loaded.offset_of(7, 10) == 5


def test_runs_that_were_given_are_those_that_are_asked_for() -> None:
    sequences = Sequences({7: deque([[0, 10, 3]], MOST_RUNS)}, 13)
    assert (sequences.last(7), sequences.next_offset) == (2, 13)
    sequences.take(7, 3, 13, 1)
    assert sequences.latest(7) == [0, 10, 4]
