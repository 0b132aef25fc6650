"""The contract of a partition for one thread: append, read, iterate, delete before an offset."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minilog import (
    Broker,
    OffsetConflictError,
    OffsetOutOfRangeError,
    Partition,
    Record,
    Records,
)


@pytest.fixture
def partition(broker: Broker) -> Partition:
    return broker.create_topic("t", partitions=2)[1]


def values(partition: Partition) -> list[bytes | None]:
    return [record.value for record in partition]


def fill(partition: Partition, count: int) -> list[bytes]:
    """Appends `count` records of growing value, in runs of one to four."""
    written = [b"%d:" % n + b"x" * (n % 37) for n in range(count)]
    remaining = iter(written)
    for length in itertools.cycle((1, 3, 1, 4, 2)):
        run = list(itertools.islice(remaining, length))
        if not run:
            break
        partition.append(run[0]) if length == 1 else partition.append_many(run)
    return written


def test_offsets_count_from_zero_and_ends_are_exclusive(partition: Partition) -> None:
    assert (partition.topic, partition.index) == ("t", 1)
    assert (partition.start_offset, partition.end_offset, len(partition)) == (0, 0, 0)
    assert [partition.append(b"v") for _ in range(3)] == [0, 1, 2]
    assert partition.append_many([b"v"] * 4) == range(3, 7)
    assert (partition.start_offset, partition.end_offset, len(partition)) == (0, 7, 7)
    partition.check()


def test_all_but_the_value_is_given_by_name(partition: Partition) -> None:
    with pytest.raises(TypeError):
        partition.append(b"v", b"k")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        partition.append_many([b"v"], [b"k"])  # type: ignore[call-arg]
    assert partition.end_offset == 0


def test_thousands_of_records_in_tiny_segments_come_back_in_order(location: Any) -> None:
    with Broker(location, segment_bytes=256) as broker:
        partition = broker.create_topic("t")[0]
        written = fill(partition, 3000)
        assert partition.end_offset == len(partition) == 3000
        assert values(partition) == written
        assert [record.offset for record in partition] == list(range(3000))
        for offset in (0, 1, 499, 500, 1234, 2999):
            assert partition.read(offset, max_records=1)[0].value == written[offset]
        partition.check()


def test_small_segments_are_many_files_and_survive_reopening(log_path: Path) -> None:
    with Broker(log_path, segment_bytes=256) as broker:
        written = fill(broker.create_topic("t")[0], 300)
        assert len(list(log_path.rglob("*.log"))) > 30
    with Broker(log_path) as broker:
        partition = broker.topic("t")[0]
        assert broker.recovery.ok
        assert values(partition) == written
        assert partition.append(b"next") == 300
        partition.check()


@pytest.mark.parametrize("size", [200, 256, 257, 1000, 100_000, 3_000_000])
def test_a_record_larger_than_a_segment_gets_its_own(log_path: Path, size: int) -> None:
    expected = [b"before", b"x" * size, b"after", b"y" * size, b"z" * size]
    with Broker(log_path, segment_bytes=256) as broker:
        partition = broker.create_topic("t")[0]
        for value in expected:
            partition.append(value)
        assert values(partition) == expected
    with Broker(log_path) as broker:
        assert values(broker.topic("t")[0]) == expected
        broker.topic("t")[0].check()


@pytest.mark.parametrize("count", [0, 1, 2, 500, 501, 20_000])
def test_append_many_is_one_run_of_offsets_however_many(partition: Partition, count: int) -> None:
    partition.append(b"first")
    written = [b"%d" % n for n in range(count)]
    assert partition.append_many(written) == range(1, 1 + count)
    assert partition.end_offset == 1 + count
    assert values(partition) == [b"first", *written]
    assert partition.append(b"last") == 1 + count


def test_append_many_takes_a_value_key_header_and_timestamp_each(partition: Partition) -> None:
    assert partition.append_many(
        (b"1", None, b""),
        keys=(b"a", None, b""),
        timestamps=(3, 1, 2),
        headers=([("h", None)], {}, {"x": b"y"}),
    ) == range(3)
    assert [tuple(record)[3:] for record in partition.read(0)] == [
        (3, b"a", b"1", (("h", None),)),
        (1, None, None, ()),
        (2, b"", b"", (("x", b"y"),)),
    ]


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"keys": []},
        {"headers": []},
        {"timestamps": []},
        {"timestamps": 5},
        {"keys": [], "headers": [], "timestamps": []},
    ],
    ids=str,
)
def test_appending_no_values_is_an_empty_range_at_the_end(
    partition: Partition, extra: dict[str, Any]
) -> None:
    assert partition.append_many([], **extra) == range(0)
    partition.append_many([b"v"] * 3)
    empty = partition.append_many([], **extra)
    assert (type(empty), empty.start, empty.stop) == (range, 3, 3)
    assert partition.end_offset == 3


@pytest.mark.parametrize("name", ["keys", "headers", "timestamps"])
@pytest.mark.parametrize(("count", "given"), [(2, 1), (2, 3), (2, 0), (0, 1), (1, 2), (3, 2)])
def test_lists_of_another_length_are_refused_and_write_nothing(
    partition: Partition, name: str, count: int, given: int
) -> None:
    entries: dict[str, Any] = {"keys": b"k", "headers": (), "timestamps": 5}
    with pytest.raises(ValueError, match=name):
        partition.append_many([b"v"] * count, **{name: [entries[name]] * given})
    assert partition.end_offset == 0


@pytest.mark.parametrize("position", [0, 1, 50, 99])
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("values", "text"),
        ("values", 5),
        ("values", b"v" * 1001),
        ("keys", "text"),
        ("headers", [("h", "text")]),
        ("headers", 5),
        ("timestamps", -1),
        ("timestamps", 2**63),
    ],
    ids=lambda value: str(value)[:20],
)
def test_one_bad_entry_anywhere_in_a_run_writes_nothing_of_it(
    broker: Broker, name: str, wrong: Any, position: int
) -> None:
    partition = broker.create_topic("limited", max_record_bytes=1000)[0]
    partition.append(b"before")
    columns: dict[str, list[Any]] = {
        "values": [b"v"] * 100,
        "keys": [b"k"] * 100,
        "headers": [()] * 100,
        "timestamps": [5] * 100,
    }
    columns[name][position] = wrong
    with pytest.raises((TypeError, ValueError)):
        partition.append_many(**columns)
    assert partition.end_offset == 1
    assert partition.append(b"after") == 1
    assert values(partition) == [b"before", b"after"]


def test_a_generator_that_fails_midway_writes_nothing(partition: Partition) -> None:
    def broken() -> Iterator[bytes]:
        yield from [b"v"] * 600
        raise ZeroDivisionError

    with pytest.raises((ZeroDivisionError, TypeError)):
        partition.append_many(broken())
    assert partition.end_offset == 0
    assert partition.append(b"v") == 0


def test_append_with_the_expected_offset_appends_only_at_that_offset(partition: Partition) -> None:
    assert partition.append(b"0", expected_offset=0) == 0
    assert partition.append(b"1", expected_offset=1) == 1
    for wrong in (0, 1, 3, 100):
        with pytest.raises(OffsetConflictError) as caught:
            partition.append(b"no", expected_offset=wrong)
        assert (caught.value.expected, caught.value.actual) == (wrong, 2)
    assert values(partition) == [b"0", b"1"]
    partition.delete_before(2)
    assert partition.append(b"2", expected_offset=2) == 2


def test_reading_starts_at_the_offset_and_stops_at_max_records(partition: Partition) -> None:
    partition.append_many([b"%d" % n for n in range(10)])
    for offset in range(10):
        for limit in (1, 2, 5, 10, 11):
            records = partition.read(offset, max_records=limit)
            assert isinstance(records, Records)
            assert list(records.offsets) == list(range(offset, min(10, offset + limit)))
            assert list(records.values) == [b"%d" % n for n in records.offsets]


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"max_records": 1},
        {"max_records": 7},
        {"max_records": 10**6},
        {"max_bytes": 1},
        {"max_bytes": 100},
        {"max_bytes": 10**9},
        {"max_records": 3, "max_bytes": 50},
    ],
    ids=str,
)
def test_reading_step_by_step_sees_every_record_once(
    partition: Partition, limits: dict[str, int]
) -> None:
    written = fill(partition, 700)
    seen: list[bytes | None] = []
    while records := partition.read(len(seen), **limits):
        assert len(records) <= limits.get("max_records", 500)
        assert list(records.offsets) == list(range(len(seen), len(seen) + len(records)))
        read = [len(value or b"") for value in records.values]
        assert len(read) == 1 or sum(read) <= limits.get("max_bytes", 10**9)
        seen += records.values
    assert seen == written


@pytest.mark.parametrize("many", [False, True])
def test_the_first_record_is_given_however_large(partition: Partition, many: bool) -> None:
    large = [b"a" * 10_000, b"b" * 10_000, b"c" * 10_000]
    if many:
        partition.append_many(large)
    else:
        for value in large:
            partition.append(value)
    for offset in range(3):
        assert list(partition.read(offset, max_bytes=1).values) == [large[offset]]


@pytest.mark.parametrize("wrong", [-1, 2, 9, 11, 10**18, 2**63, 2**64, -(2**63)])
@pytest.mark.parametrize("timeout", [0, 5])
def test_reading_out_of_range_is_an_error_that_names_the_range(
    partition: Partition, wrong: int, timeout: int
) -> None:
    partition.append_many([b"v"] * 8)
    partition.delete_before(3)
    with pytest.raises(OffsetOutOfRangeError) as caught:
        partition.read(wrong, timeout=timeout)
    error = caught.value
    assert (error.topic, error.partition, error.requested) == ("t", 1, wrong)
    assert (error.start_offset, error.end_offset) == (3, 8)
    assert isinstance(error, LookupError)
    assert not isinstance(error, (IndexError, KeyError))


def test_reading_at_the_end_is_empty(partition: Partition) -> None:
    assert not partition.read(0)
    assert not partition.read(0, timeout=0.01)
    partition.append(b"v")
    assert not partition.read(1)
    assert len(partition.read(0, timeout=None)) == 1


def test_iterating_reads_what_is_there_now_and_stops(partition: Partition) -> None:
    written = fill(partition, 1200)
    seen: list[Record] = []
    for record in itertools.islice(partition, 2000):
        partition.append(b"later")
        seen.append(record)
    assert [record.value for record in seen] == written
    assert partition.end_offset == 2400
    partition.delete_before(2398)
    assert [record.offset for record in partition] == [2398, 2399]
    partition.delete_before(2400)
    assert list(partition) == []


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("cut", [0, 1, 13, 14, 59, 60])
def test_delete_before_moves_the_start_to_exactly_there_and_persists(
    log_path: Path, cut: int, many: bool
) -> None:
    written = [b"%d" % n * 9 for n in range(60)]
    with Broker(log_path, segment_bytes=256) as broker:
        partition = broker.create_topic("t")[0]
        if many:
            partition.append_many(written)
        else:
            for value in written:
                partition.append(value)
        partition.delete_before(cut)
        partition.check()
        assert (partition.start_offset, partition.end_offset) == (cut, 60)
        assert values(partition) == written[cut:]
    for appended in range(2):
        with Broker(log_path) as broker:
            partition = broker.topic("t")[0]
            assert broker.recovery.ok
            assert (partition.start_offset, len(partition)) == (cut, 60 - cut + appended)
            assert values(partition)[: 60 - cut] == written[cut:]
            if cut:
                with pytest.raises(OffsetOutOfRangeError):
                    partition.read(cut - 1)
            assert partition.append(b"new") == 60 + appended  # no offset comes again


def test_delete_before_never_goes_back_and_never_beyond_the_end(partition: Partition) -> None:
    fill(partition, 30)
    partition.delete_before(20)
    for below in (20, 19, 0, -1):
        partition.delete_before(below)
        assert partition.start_offset == 20
    for beyond in (31, 2**63, 2**70):
        with pytest.raises(OffsetOutOfRangeError) as caught:
            partition.delete_before(beyond)
        assert (caught.value.requested, caught.value.start_offset, caught.value.end_offset) == (
            beyond,
            20,
            30,
        )
    assert (partition.start_offset, len(partition)) == (20, 10)
    partition.check()


class SteppingClock:
    """A wall clock that somebody sets."""

    now = 1000

    def now_ms(self) -> int:
        return self.now


def test_append_time_does_not_step_back_when_the_partition_was_emptied() -> None:
    """The largest timestamp was that of the segment in use, and a new one had none."""
    clock = SteppingClock()
    with Broker(":memory:", clock=clock, timestamp_type="append") as broker:
        partition = broker.create_topic("t")[0]
        partition.append(b"v")
        partition.delete_before(1)
        clock.now = 500
        partition.append(b"v")
        assert [record.timestamp for record in partition] == [1000]
