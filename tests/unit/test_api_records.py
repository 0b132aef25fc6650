"""The contract of Record and Records, and of what goes into a record and comes out of it."""

from __future__ import annotations

import array
import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from minilog import Broker, InvalidRecordError, Partition, Record, Records, RecordTooLargeError

FIELDS = ("topic", "partition", "offset", "timestamp", "key", "value", "headers")
HEADERS = (("b", b"1"), ("a", None), ("b", b""), ("b", b"1"), ("", b"\xff"), ("ключ 🔑", b"\0"))


@pytest.fixture
def partition(broker: Broker) -> Partition:
    return broker.create_topic("t", partitions=2)[1]


@pytest.fixture
def records(partition: Partition) -> Records:
    """Eleven records of every sort, over several segments, read in one go."""
    partition.append(b"zero", key=b"k", headers=HEADERS, timestamp=50)
    partition.append_many(
        [b"one", None, b""],
        keys=[None, b"", b"x"],
        timestamps=[7, 0, 2**63 - 1],
        headers=[(), [("h", None)], {"m": b"v"}],
    )
    for number in range(4, 10):
        partition.append(b"%d" % number * 30, timestamp=number)
    partition.append_many([b"ten"], timestamps=10)
    return partition.read(0, max_records=11)


def only(partition: Partition) -> Record:
    [record] = partition.read(0)
    return record


def test_a_record_has_the_documented_fields_in_the_documented_order(records: Records) -> None:
    record = records[0]
    assert tuple(record) == ("t", 1, 0, 50, b"k", b"zero", HEADERS)
    assert tuple(record) == tuple(getattr(record, name) for name in FIELDS)
    topic, number, offset, timestamp, key, value, headers = record
    assert (topic, number, offset, timestamp, key, value, headers) == record
    assert len(record) == 7
    assert record[2] == record.offset
    assert record[-1] == record.headers


@pytest.mark.parametrize("name", [*FIELDS, "next_offset", "datetime", "invented"])
def test_a_record_cannot_be_changed(records: Records, name: str) -> None:
    with pytest.raises((AttributeError, TypeError)):
        setattr(records[0], name, None)
    with pytest.raises((AttributeError, TypeError)):
        delattr(records[0], name)
    assert records[0].value == b"zero"


def test_equal_records_are_equal_and_hash_alike(partition: Partition, records: Records) -> None:
    again = partition.read(0, max_records=11)
    assert list(again) == list(records)
    assert {*again} == {*records}
    assert len({*records}) == 11
    assert records[4] != records[5]


def test_the_next_offset_of_a_record_is_one_more(records: Records) -> None:
    assert [record.next_offset for record in records] == list(range(1, 12))


@pytest.mark.parametrize("milliseconds", [0, 1, 999, 1_700_000_000_123, 253_402_300_799_999])
def test_the_datetime_of_a_record_is_its_timestamp_in_utc(
    partition: Partition, milliseconds: int
) -> None:
    partition.append(b"v", timestamp=milliseconds)
    moment = only(partition).datetime
    assert moment.utcoffset() == timedelta(0)
    assert moment == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


def test_fields_have_the_documented_types(records: Records) -> None:
    for record in records:
        assert type(record.topic) is str
        assert [type(n) for n in (record.partition, record.offset, record.timestamp)] == [int] * 3
        assert type(record.key) in (bytes, type(None))
        assert type(record.value) in (bytes, type(None))
        assert type(record.headers) is tuple
        assert {type(pair) for pair in record.headers} <= {tuple}


def test_records_have_length_truth_and_order(partition: Partition, records: Records) -> None:
    assert len(records) == 11
    assert records
    assert [record.offset for record in records] == list(range(11))
    assert [record.offset for record in reversed(records)] == list(range(10, -1, -1))
    assert records[3] in records
    nothing = partition.read(partition.end_offset)
    assert len(nothing) == 0
    assert not nothing
    assert list(nothing) == []
    assert [*nothing.offsets, *nothing.timestamps, *nothing.keys, *nothing.values] == []


def test_records_can_be_iterated_again_and_again(records: Records) -> None:
    assert list(records) == list(records)
    first, second = iter(records), iter(records)
    assert [next(first), next(second), next(first)] == [records[0], records[0], records[1]]


@pytest.mark.parametrize("index", range(-11, 11))
def test_records_are_indexed_like_a_list(records: Records, index: int) -> None:
    assert records[index] == list(records)[index]
    assert isinstance(records[index], Record)


@pytest.mark.parametrize("index", [11, -12, 10**20, -(10**20)])
def test_an_index_outside_of_records_is_an_index_error(records: Records, index: int) -> None:
    with pytest.raises(IndexError):
        records[index]


@pytest.mark.parametrize("index", ["0", 1.0, None])
def test_an_index_that_is_no_integer_is_a_type_error(records: Records, index: Any) -> None:
    with pytest.raises(TypeError):
        records[index]


@pytest.mark.parametrize(
    "part",
    [
        slice(None),
        slice(0, 0),
        slice(2, 5),
        slice(5, 2),
        slice(-3, None),
        slice(None, -3),
        slice(None, None, 2),
        slice(1, None, 3),
        slice(None, None, -1),
        slice(8, 1, -3),
        slice(0, 99),
        slice(-99, 99),
        slice(10, 11),
    ],
    ids=str,
)
def test_a_slice_of_records_is_records(records: Records, part: slice) -> None:
    sliced = records[part]
    expected = list(records)[part]
    assert isinstance(sliced, Records)
    assert len(sliced) == len(expected)
    assert bool(sliced) == bool(expected)
    assert list(sliced) == expected
    assert list(sliced.offsets) == [record.offset for record in expected]
    assert list(sliced.values) == [record.value for record in expected]
    assert list(sliced[1:]) == expected[1:]


def test_a_slice_with_step_zero_is_a_value_error(records: Records) -> None:
    with pytest.raises(ValueError, match="zero"):
        records[::0]


@pytest.mark.parametrize("columns_first", [True, False])
def test_columns_agree_with_records_in_either_order(records: Records, columns_first: bool) -> None:
    def columns() -> list[tuple[Any, ...]]:
        return list(
            zip(records.offsets, records.timestamps, records.keys, records.values, strict=True)
        )

    early = columns() if columns_first else None
    rows = [(r.offset, r.timestamp, r.key, r.value) for r in records]
    assert columns() == rows
    assert early in (None, rows)


@pytest.mark.parametrize("name", ["offsets", "timestamps", "keys", "values"])
def test_a_column_has_an_entry_per_record(records: Records, name: str) -> None:
    column = getattr(records, name)
    assert len(column) == 11
    assert column[4] == list(column)[4]


@pytest.mark.parametrize("name", ["offsets", "timestamps", "keys", "values"])
def test_records_cannot_be_changed_through_a_column(records: Records, name: str) -> None:
    before = list(records)
    column = getattr(records, name)
    for change in (
        lambda: column.__setitem__(0, None),
        lambda: column.clear(),
        lambda: column.append(None),
    ):
        with contextlib.suppress(AttributeError, TypeError):
            change()
    assert list(records) == before
    assert len(records) == len(getattr(records, name)) == 11


@pytest.mark.parametrize(
    "change",
    [
        lambda records: records.__setitem__(0, records[1]),
        lambda records: records.__delitem__(0),
        lambda records: records.append(records[0]),
        lambda records: setattr(records, "values", []),
        lambda records: setattr(records, "offsets", []),
        lambda records: setattr(records, "invented", 1),
    ],
)
def test_records_cannot_be_changed(records: Records, change: Callable[[Records], None]) -> None:
    with pytest.raises((AttributeError, TypeError)):
        change(records)
    assert len(records) == 11


def test_records_outlive_deletion_and_the_broker(log_path: Path) -> None:
    with Broker(log_path, segment_bytes=256) as broker:
        partition = broker.create_topic("t")[0]
        for number in range(40):
            partition.append(b"%d" % number * 20)
        untouched, touched = partition.read(0), partition.read(0)
        values = list(touched.values)
        partition.delete_before(40)
        broker.delete_topic("t")
    assert list(untouched.values) == values
    assert [record.value for record in touched] == values


@pytest.mark.parametrize("value", [None, b"", b"\0", b"\0" * 300, b"v", bytes(range(256)) * 9])
@pytest.mark.parametrize("key", [None, b"", b"\0", b"k" * 300])
@pytest.mark.parametrize("many", [False, True])
def test_key_and_value_come_back_as_they_went_in(
    partition: Partition, key: bytes | None, value: bytes | None, many: bool
) -> None:
    if many:
        partition.append_many([value], keys=[key])
    else:
        partition.append(value, key=key)
    record = only(partition)
    assert (record.key, record.value) == (key, value)
    records = partition.read(0)
    assert (list(records.keys), list(records.values)) == ([key], [value])


WORDS = array.array("I", [1, 2, 3])


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abc"), b"abc"),
        (bytearray(), b""),
        (memoryview(b"abcdef")[::2], b"ace"),
        (memoryview(b"abc")[::-1], b"cba"),
        (memoryview(WORDS), WORDS.tobytes()),
        (memoryview(bytearray(b"wide"))[1:3], b"id"),
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_byte_like_keys_and_values_are_taken_as_their_bytes(
    partition: Partition, given: Any, stored: bytes, many: bool
) -> None:
    if many:
        partition.append_many([b"x", given], keys=[given, None])
        records = partition.read(0)
        assert [(r.key, r.value) for r in records] == [(stored, b"x"), (None, stored)]
    else:
        partition.append(given, key=given)
        assert only(partition)[4:6] == (stored, stored)
    assert {type(v) for v in partition.read(0).values} == {bytes}


@pytest.mark.parametrize("wrap", [lambda buffer: buffer, memoryview])
def test_mutable_buffers_are_copied_at_once(partition: Partition, wrap: Callable[..., Any]) -> None:
    buffer = bytearray(b"before")
    partition.append(wrap(buffer), key=wrap(buffer))
    partition.append_many([wrap(buffer)], keys=[wrap(buffer)])
    buffer[:] = b"after!"
    assert list(partition.read(0).values) == [b"before"] * 2
    assert list(partition.read(0).keys) == [b"before"] * 2


@pytest.mark.parametrize("wrap", [lambda buffer: buffer, memoryview])
def test_a_generator_may_fill_one_buffer_again_and_again(
    partition: Partition, wrap: Callable[..., Any]
) -> None:
    def reused() -> Iterator[Any]:
        buffer = bytearray(b"0")
        for number in range(3):
            buffer[:] = b"%d" % number
            yield wrap(buffer)

    headers = ({"h": entry} for entry in reused())
    partition.append_many(reused(), keys=reused(), headers=headers)
    records = partition.read(0)
    assert list(records.values) == [b"0", b"1", b"2"]
    assert list(records.keys) == [b"0", b"1", b"2"]
    assert [r.headers for r in records] == [(("h", b"%d" % number),) for number in range(3)]


@pytest.mark.parametrize("wrong", ["text", "", 0, 1.5, True, ["v"], object(), (), {}])
@pytest.mark.parametrize("place", ["value", "key", "values", "keys"])
def test_what_is_not_bytes_is_a_type_error_and_writes_nothing(
    partition: Partition, wrong: Any, place: str
) -> None:
    calls: dict[str, Callable[[], object]] = {
        "value": lambda: partition.append(wrong),
        "key": lambda: partition.append(b"v", key=wrong),
        "values": lambda: partition.append_many([b"1", wrong, b"3"]),
        "keys": lambda: partition.append_many([b"1", b"2"], keys=[b"k", wrong]),
    }
    with pytest.raises(TypeError) as caught:
        calls[place]()
    if isinstance(wrong, str):
        assert "encode" in str(caught.value) or "serializer" in str(caught.value)
    assert partition.end_offset == 0
    assert partition.append(b"still usable") == 0


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ((), ()),
        ([], ()),
        ({}, ()),
        (HEADERS, HEADERS),
        (list(HEADERS), HEADERS),
        ({"a": b"1", "b": None}, (("a", b"1"), ("b", None))),
        ([["a", b"1"]], (("a", b"1"),)),
        ([("h" * 300, b"v" * 300)] * 3, (("h" * 300, b"v" * 300),) * 3),
        ([("n", b"%d" % n) for n in range(1000)], tuple(("n", b"%d" % n) for n in range(1000))),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("many", [False, True])
def test_headers_keep_order_duplicates_and_none(
    partition: Partition, given: Any, stored: tuple[Any, ...], many: bool
) -> None:
    if many:
        partition.append_many([b"1", b"2", b"3"], headers=[(), given, HEADERS])
        assert [record.headers for record in partition.read(0)] == [(), stored, HEADERS]
    else:
        partition.append(b"v", headers=given)
        assert only(partition).headers == stored


def test_headers_may_be_any_iterable_of_pairs(partition: Partition) -> None:
    partition.append(b"v", headers=(pair for pair in HEADERS))
    partition.append_many([b"v"], headers=[iter(HEADERS)])
    assert [record.headers for record in partition.read(0)] == [HEADERS, HEADERS]


@pytest.mark.parametrize(
    "wrong",
    [
        5,
        b"ab",
        "ab",
        [("a",)],
        [("a", b"1", b"2")],
        [(b"a", b"1")],
        [("a", "1")],
        [(None, b"1")],
        [("a", 1)],
        {"a": "1"},
        {b"a": b"1"},
        [None],
        ["ab"],
        [("ok", b"1"), ("bad", "1")],
    ],
    ids=str,
)
@pytest.mark.parametrize("many", [False, True])
def test_wrong_headers_are_refused_and_write_nothing(
    partition: Partition, wrong: Any, many: bool
) -> None:
    calls: dict[bool, Callable[[], object]] = {
        False: lambda: partition.append(b"v", headers=wrong),
        True: lambda: partition.append_many([b"1", b"2"], headers=[(), wrong]),
    }
    with pytest.raises((TypeError, ValueError)):
        calls[many]()
    assert partition.end_offset == 0
    assert partition.append(b"still usable") == 0


EAST = timezone(timedelta(hours=5, minutes=30))


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (0, 0),
        (1, 1),
        (2**31, 2**31),
        (2**53 + 1, 2**53 + 1),
        (2**63 - 1, 2**63 - 1),
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1970, 1, 1, 5, 30, tzinfo=EAST), 0),
        (datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC), 1_700_000_000_123),
        (datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC), 253_402_300_799_999),
        *(
            (datetime(2033, 3, 3, 3, 3, 3, ms * 1000, tzinfo=UTC), 1_993_431_783_000 + ms)
            for ms in (1, 57, 333, 511, 777, 999)
        ),
    ],
)
@pytest.mark.parametrize("shape", ["one", "one for all", "one each"])
def test_timestamps_are_milliseconds_or_aware_datetimes(
    partition: Partition, given: Any, stored: int, shape: str
) -> None:
    if shape == "one":
        partition.append(b"v", timestamp=given)
    else:
        timestamps = given if shape == "one for all" else [given, 5]
        partition.append_many([b"1", b"2"], timestamps=timestamps)
    expected = {"one": [stored], "one for all": [stored, stored], "one each": [stored, 5]}[shape]
    assert list(partition.read(0).timestamps) == expected
    assert [record.timestamp for record in partition.read(0)] == expected


@pytest.mark.parametrize(
    "wrong",
    [-1, -(2**63), 2**63, 2**64, datetime(2023, 1, 1), datetime(1969, 12, 31, tzinfo=UTC)],
    ids=str,
)
@pytest.mark.parametrize("shape", ["one", "one for all", "one each"])
def test_a_timestamp_out_of_range_or_naive_is_refused_and_writes_nothing(
    partition: Partition, wrong: Any, shape: str
) -> None:
    calls: dict[str, Callable[[], object]] = {
        "one": lambda: partition.append(b"v", timestamp=wrong),
        "one for all": lambda: partition.append_many([b"1", b"2"], timestamps=wrong),
        "one each": lambda: partition.append_many([b"1", b"2"], timestamps=[5, wrong]),
    }
    with pytest.raises(InvalidRecordError):
        calls[shape]()
    assert partition.end_offset == 0


@pytest.mark.parametrize("wrong", [1.5, "0", b"0", [], object()])
def test_a_timestamp_of_another_type_is_refused_and_writes_nothing(
    partition: Partition, wrong: Any
) -> None:
    for call in (
        lambda: partition.append(b"v", timestamp=wrong),
        lambda: partition.append_many([b"1", b"2"], timestamps=[5, wrong]),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
    assert partition.end_offset == 0


@pytest.mark.parametrize(
    ("key", "value", "headers", "size"),
    [
        (None, b"v" * 1001, (), 1001),
        (b"k" * 1001, None, (), 1001),
        (b"k", b"v" * 1000, (), 1001),
        (b"k" * 500, b"v" * 501, (), 1001),
        (None, b"v" * 5000, (), 5000),
        (None, b"v" * 500, [("h", b"x" * 501)], None),
        (None, None, [("h" * 1001, None)], None),
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_a_record_over_the_limit_is_refused_with_its_size_and_writes_nothing(
    broker: Broker,
    key: bytes | None,
    value: bytes | None,
    headers: Any,
    size: int | None,
    many: bool,
) -> None:
    partition = broker.create_topic("limited", max_record_bytes=1000)[0]
    calls: dict[bool, Callable[[], object]] = {
        False: lambda: partition.append(value, key=key, headers=headers),
        True: lambda: partition.append_many(
            [b"1", value, b"3"], keys=[None, key, None], headers=[(), headers, ()]
        ),
    }
    with pytest.raises(RecordTooLargeError) as caught:
        calls[many]()
    assert caught.value.limit == 1000
    assert caught.value.size == size if size else caught.value.size > 1000
    assert partition.end_offset == 0
    assert partition.append_many([b"v" * 1000, b"v" * 600], keys=[None, b"k" * 400]) == range(2)


def test_the_default_limit_is_16_mib() -> None:
    with Broker(":memory:") as broker:
        partition = broker.create_topic("t")[0]
        partition.append(b"v" * (16 << 20))
        with pytest.raises(RecordTooLargeError):
            partition.append(b"v" * ((16 << 20) + 1))
        assert partition.read(0).values[0] == b"v" * (16 << 20)
