"""One record by its offset: whatever short way it takes, it is the record that was appended."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from minilog import Broker, CorruptionError, OffsetOutOfRangeError, Partition, Producer, Record

COUNT = 3_000


def one_size(broker: Broker, partition: Partition) -> None:
    for number in range(COUNT):
        partition.append(b"v" * 90, key=number.to_bytes(8, "big"))


def many_sizes(broker: Broker, partition: Partition) -> None:
    for number in range(COUNT):
        partition.append(b"v" * (number % 70), key=None if number % 3 else b"k" * (number % 5))


def all_kinds(broker: Broker, partition: Partition) -> None:
    for number in range(COUNT):
        headers = [("h", b"%d" % number)] if number % 5 == 0 else []
        value = None if number % 7 == 0 else b"v" * (number % 20)
        partition.append(value, key=b"k%d" % number, headers=headers, timestamp=number)


def in_bulk(broker: Broker, partition: Partition) -> None:
    for start in range(0, COUNT, 1_000):
        keys = [number.to_bytes(8, "big") for number in range(start, start + 1_000)]
        partition.append_many([b"v" * 100] * 1_000, keys=keys)


def in_bulk_of_many_sizes(broker: Broker, partition: Partition) -> None:
    for start in range(0, COUNT, 1_000):
        numbers = range(start, start + 1_000)
        values = [b"v" * (number % 90) for number in numbers]
        keys = [b"k" * (number % 9) for number in numbers]
        partition.append_many(values, keys=keys, timestamps=numbers)


def in_bulk_of_all_kinds(broker: Broker, partition: Partition) -> None:
    for start in range(0, COUNT, 1_000):
        numbers = range(start, start + 1_000)
        values = [b"v" * 100 if number % 3 else None for number in numbers]
        headers = [[("h", b"%d" % number)] for number in numbers]
        partition.append_many(values, headers=headers)


def mixed(broker: Broker, partition: Partition) -> None:
    producer = Producer(broker)
    while partition.end_offset < COUNT:
        partition.append(b"v" * 50)
        partition.append_many([b"w" * 50] * 300)
        producer.send(partition.topic, b"x" * 50)
        with producer.transaction() as transaction:
            transaction.send(partition.topic, b"y" * 50)


FILLS: list[Callable[[Broker, Partition], None]] = [
    one_size,
    many_sizes,
    all_kinds,
    in_bulk,
    in_bulk_of_many_sizes,
    in_bulk_of_all_kinds,
    mixed,
]


def written(partition: Partition) -> dict[int, Record]:
    """The records as a read of everything gives them."""
    return {record.offset: record for record in partition}


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("fill", FILLS, ids=lambda fill: fill.__name__)
def test_every_record_is_found_by_its_offset_in_any_order(
    tmp_path: Path, fill: Callable[[Broker, Partition], None], compression: str
) -> None:
    settings = {"segment_bytes": 100_000, "compression": compression}
    with Broker(tmp_path, sync="never") as broker:
        fill(broker, broker.create_topic("events", **settings)[0])
        for _ in range(2):  # while it is written, and after what readers remembered is gone
            partition = broker.topic("events")[0]
            expected = written(partition)
            assert len(expected) >= COUNT
            order = [*expected, *expected]
            random.Random(4).shuffle(order)
            for offset in order:
                (record,) = partition.read(offset, max_records=1)
                assert record == expected[offset]
                assert type(record) is Record
            broker.close()
            broker = Broker(tmp_path, sync="never")
        broker.close()


def test_a_record_far_from_any_index_entry_is_found_alone(tmp_path: Path) -> None:
    with Broker(tmp_path, sync="never") as broker:
        partition = broker.create_topic("events", index_interval_bytes=2**20)[0]
        many_sizes(broker, partition)
        expected = written(partition)
        for offset in (COUNT - 1, 7, 1_000, 500, 2_000, 0):
            (record,) = partition.read(offset, max_records=1)
            assert record == expected[offset]


def test_what_is_read_alone_has_every_face_of_records(tmp_path: Path) -> None:
    with Broker(tmp_path, sync="never") as broker:
        partition = broker.create_topic("events")[0]
        one_size(broker, partition)
        partition.read(7, max_records=1)  # from now on it is known how far apart they are
        records = partition.read(9, max_records=1)
        again = partition.read(9, max_records=2)[:1]
        assert records == again
        assert hash(records) == hash(again)
        assert (len(records), bool(records), list(records)) == (1, True, list(again))
        assert records[0] == records[-1] == again[0]
        assert records[:1] == again
        assert list(records[1:]) == []
        assert records.offsets == [9]
        assert records.keys == again.keys
        assert records.values == again.values
        assert records.timestamps == again.timestamps
        assert records.next_offset == 10
        assert repr(records) == repr(again)
        with pytest.raises(IndexError):
            records[1]


def test_records_that_were_deleted_are_out_of_range_though_they_are_remembered(
    tmp_path: Path,
) -> None:
    with Broker(tmp_path, sync="never") as broker:
        partition = broker.create_topic("events")[0]
        one_size(broker, partition)
        assert partition.read(5, max_records=1)[0].offset == 5
        partition.delete_before(10)
        with pytest.raises(OffsetOutOfRangeError):
            partition.read(5, max_records=1)
        assert partition.read(10, max_records=1)[0].offset == 10


@pytest.mark.parametrize("wrong", [True, 1.0, "1", -1, 0, None])
def test_what_is_no_number_of_records_is_refused_also_where_one_would_be(
    tmp_path: Path, wrong: object
) -> None:
    with Broker(tmp_path, sync="never") as broker:
        partition = broker.create_topic("events")[0]
        one_size(broker, partition)
        assert partition.read(5, max_records=1)[0].offset == 5
        with pytest.raises((TypeError, ValueError)):
            partition.read(5, max_records=wrong)  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError)):
            partition.read(5, max_records=1, timeout=False)


@pytest.mark.parametrize("fill", [one_size, many_sizes], ids=lambda fill: fill.__name__)
def test_a_bit_that_flips_in_a_record_is_met_at_its_next_read(
    tmp_path: Path, fill: Callable[[Broker, Partition], None]
) -> None:
    with Broker(tmp_path, sync="never") as broker:
        partition = broker.create_topic("events")[0]
        fill(broker, partition)
        for offset in range(100, 110):
            partition.read(offset, max_records=1)
        (path,) = tmp_path.rglob("events*/**/*.log")
        at = 64 + sum(
            (40 + len(r.key or b"") + len(r.value or b"") + 7) & -8 for r in head(partition)
        )
        with path.open("r+b") as file:
            file.seek(at + 17)  # in its timestamp
            (byte,) = file.read(1)
            file.seek(at + 17)
            file.write(bytes([byte ^ 4]))
        with pytest.raises(CorruptionError):
            partition.read(105, max_records=1)
        assert partition.read(104, max_records=1)[0].offset == 104
        assert partition.read(106, max_records=1)[0].offset == 106


def head(partition: Partition) -> list[Record]:
    """The first 105 records."""
    return list(partition.read(0, max_records=105))


def test_records_not_yet_synced_are_not_found_where_every_append_is(tmp_path: Path) -> None:
    with Broker(tmp_path, sync="always") as broker:
        partition = broker.create_topic("events")[0]
        for _ in range(20):
            partition.append(b"v" * 50)
        assert partition.read(3, max_records=1)[0].offset == 3
        assert partition.read(4, max_records=1)[0].offset == 4
        log = partition._log
        assert log is not None
        assert log.append_single(None, b"v" * 50, b"", 1, 1) == 20  # stored, and not synced
        assert len(partition.read(partition.end_offset, max_records=1)) == 0
        with pytest.raises(OffsetOutOfRangeError):
            partition.read(21, max_records=1)


def test_damage_among_records_that_are_all_alike_costs_no_other(tmp_path: Path) -> None:
    """Dozens of such are decoded at once."""
    with Broker(tmp_path, sync="never") as broker:
        partition = broker.create_topic("events")[0]
        one_size(broker, partition)
        expected = list(partition)
    (path,) = tmp_path.rglob("events*/**/*.log")
    data = bytearray(path.read_bytes())
    step = (40 + 8 + 90 + 7) & -8
    data[64 + 150 * step + 60] ^= 1  # in the value of record 150
    path.write_bytes(data)
    with Broker(tmp_path, read_only=True) as broker:
        partition = broker.topic("events")[0]
        assert list(partition.read(100, max_records=100)) == expected[100:150]
        with pytest.raises(CorruptionError) as caught:
            partition.read(150)
        error = caught.value
        assert (error.position, error.offset, error.next_offset) == (64 + 150 * step, 150, 151)
        assert list(partition.read(151, max_records=100)) == expected[151:251]
