"""A record that is read alone is the one that is read with the others, whatever shape it is of.

There are short ways to single records; each must give what the long one does, or leave it to that.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minilog import Broker, CorruptionError, OffsetOutOfRangeError, Partition, Producer
from minilog.storage import view
from minilog.testing import ManualClock

SEED = 20261122
COUNT = 300


def texts(count: int, size: int = 40) -> list[bytes]:
    return [b"%0*d" % (size, number) for number in range(count)]


def varied(count: int) -> list[bytes]:
    return [b"%d" % number * (number % 17) for number in range(count)]


def in_a_transaction(partition: Partition, broker: Broker) -> None:
    with Producer(broker).transaction() as tx:
        tx.send_many("t", texts(COUNT), partition=0)
        tx.send("t", b"alone", partition=0)
    with Producer(broker).transaction() as tx:
        tx.send("t", b"aborted", partition=0)
        tx.send_many("t", texts(9), partition=0)
        tx.abort()
    partition.append(b"behind")


def mixed(partition: Partition, broker: Broker) -> None:
    for number in range(20):
        partition.append(b"%d" % number * number, key=b"k" if number % 3 else None)
        partition.append(None, key=b"gone", headers=[("h", b"x")])
        partition.append_many(texts(number + 1))


Write = Callable[[Partition, Broker], object]
SHAPES: dict[str, Write] = {
    "singles of one size": lambda p, b: [p.append(value) for value in texts(COUNT)],
    "singles with keys": lambda p, b: [p.append(value, key=value[:4]) for value in varied(COUNT)],
    "singles with headers": lambda p, b: [p.append(v, headers=[("h", v)]) for v in varied(COUNT)],
    "a batch of one size": lambda p, b: p.append_many(texts(COUNT)),
    "a batch with keys and times": lambda p, b: p.append_many(
        texts(COUNT), keys=[b"%05d" % n for n in range(COUNT)], timestamps=list(range(COUNT))
    ),
    "batches with keys": lambda p, b: [
        p.append_many(texts(COUNT), keys=[b"%05d" % n for n in range(COUNT)]) for _ in range(3)
    ],
    "batches of many sizes": lambda p, b: [
        p.append_many(varied(COUNT), keys=varied(COUNT)) for _ in range(5)
    ],
    "a batch with nulls": lambda p, b: p.append_many([b"x" * 99, None, b""] * 100),
    "a batch with headers": lambda p, b: p.append_many(
        texts(COUNT), headers=[[("n", b"%d" % n)] for n in range(COUNT)]
    ),
    "mixed": mixed,
    "in a transaction": in_a_transaction,
}


@pytest.fixture(params=["disk", "memory", "synced"])
def broker(request: pytest.FixtureRequest, log_path: Path) -> Iterator[Broker]:
    settings: dict[str, Any] = {"sync": "always"} if request.param == "synced" else {}
    path: Any = ":memory:" if request.param == "memory" else log_path
    with Broker(path, clock=ManualClock(5000), maintenance_interval_ms=0, **settings) as opened:
        yield opened


def check_lookups(partition: Partition) -> None:
    """Each offset alone, in an order of no meaning, twice: the second finds what is remembered."""
    records = {record.offset: record for record in partition}
    offsets = list(range(partition.start_offset, partition.end_offset)) * 2
    random.Random(SEED).shuffle(offsets)
    for offset in offsets:
        found = partition.read(offset, max_records=1)
        if offset in records:
            assert list(found) == [records[offset]], f"seed {SEED}, offset {offset}"
            assert found.next_offset == offset + 1
        else:
            following = min((other for other in records if other > offset), default=None)
            expected = [] if following is None else [records[following]]
            assert list(found) == expected, f"seed {SEED}, offset {offset}"
    with pytest.raises(OffsetOutOfRangeError):
        partition.read(partition.end_offset + 1, max_records=1)


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_record_alone_is_the_record_among_the_others(
    broker: Broker, name: str, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "REMEMBERED_FRAMES", 2)
    partition = broker.create_topic("t", segment_bytes=32_768, compression=compression)[0]
    SHAPES[name](partition, broker)
    check_lookups(partition)
    partition.delete_before(partition.end_offset // 2)
    check_lookups(partition)


def test_a_record_that_has_changed_is_not_found_by_a_short_way(log_path: Path) -> None:
    with Broker(log_path) as broker:
        partition = broker.create_topic("t")[0]
        for value in texts(COUNT):
            partition.append(value)
    log = log_path / "t" / "0" / f"{0:020d}.log"
    data = bytearray(log.read_bytes())
    place = data.index(texts(COUNT)[150])
    data[place] ^= 1
    log.write_bytes(data)
    with Broker(log_path) as broker:
        partition = broker.topic("t")[0]
        for offset in (149, 151, 10, 290):
            assert partition.read(offset, max_records=1).values == [texts(COUNT)[offset]]
        with pytest.raises(CorruptionError) as caught:
            partition.read(150, max_records=1)
        assert caught.value.offset == 150


@pytest.mark.parametrize("given", [{"offset": "0"}, {"offset": 0.0}, {"offset": None}])
@pytest.mark.parametrize("more", [{}, {"max_records": 1}])
def test_an_offset_that_is_no_whole_number_is_refused(given: Any, more: Any) -> None:
    with Broker(":memory:") as broker:
        partition = broker.create_topic("t")[0]
        partition.append(b"x")
        with pytest.raises(TypeError, match="offset is"):
            partition.read(given["offset"], **more)


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "1"])
def test_a_count_of_records_that_is_none_is_refused(count: Any) -> None:
    with Broker(":memory:") as broker:
        partition = broker.create_topic("t")[0]
        partition.append(b"x")
        with pytest.raises((TypeError, ValueError), match="max_records is"):
            partition.read(0, max_records=count)


def test_an_empty_partition_is_true_and_says_which_it_is() -> None:
    with Broker(":memory:") as broker:
        partition = broker.create_topic("t", 2)[1]
        assert partition
        assert len(partition) == 0
        assert repr(partition) == "<Partition t-1>"
