"""What goes in comes out: any record, singly and in bulk, now and after reopening.

Knows only the public face, never the bytes of a segment.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minilog import Broker, Consumer, Producer, Topic, verify
from minilog.testing import ManualClock

NOW_MS = 1_700_000_000_000
BOUNDED = settings(
    max_examples=80,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Given(NamedTuple):
    """A record before it has an offset."""

    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


payload = st.one_of(
    st.none(),
    st.binary(max_size=30),
    st.builds(bytes.__mul__, st.binary(min_size=1, max_size=3), st.integers(1, 900)),
)
headers = st.lists(
    st.tuples(st.text(max_size=12), st.none() | st.binary(max_size=20)), max_size=4
).map(tuple)
timestamps = st.none() | st.integers(0, 100) | st.integers(0, 2**63 - 1)
records = st.builds(Given, timestamps, payload, payload, headers)
segment_sizes = st.sampled_from([256, 300, 511, 1024, 4096, 1 << 20])


def stored(given: list[Given]) -> list[tuple[Any, ...]]:
    """The records as they must come out of partition 0 of topic `t`."""
    return [
        ("t", 0, offset, NOW_MS if r.timestamp is None else r.timestamp, r.key, r.value, r.headers)
        for offset, r in enumerate(given)
    ]


def columns(given: list[Given]) -> dict[str, Any]:
    """The columns of `append_many` and `send_many`; the clock's stamp where none was given."""
    return {
        "keys": [r.key for r in given],
        "headers": [r.headers for r in given],
        "timestamps": [NOW_MS if r.timestamp is None else r.timestamp for r in given],
    }


@contextmanager
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "log"


@contextmanager
def opened(path: Path | str, segment_bytes: int) -> Iterator[Broker]:
    with Broker(path, clock=ManualClock(NOW_MS), segment_bytes=segment_bytes) as broker:
        yield broker


def assert_reads_back(topic: Topic, given: list[Given]) -> None:
    partition, expected = topic[0], stored(given)
    assert [tuple(record) for record in partition] == expected
    assert (partition.start_offset, partition.end_offset) == (0, len(given))
    assert len(partition) == len(given)
    rest: list[tuple[Any, ...]] = []
    while len(rest) < len(given):
        found = partition.read(len(rest), max_records=3)
        assert 0 < len(found) <= 3
        assert list(found.values) == [record.value for record in found]
        assert list(found.keys) == [record.key for record in found]
        assert list(found.offsets) == [record.offset for record in found]
        assert list(found.timestamps) == [record.timestamp for record in found]
        rest += map(tuple, found)
    assert rest == expected
    partition.check()


def assert_survives(path: Path, given: list[Given]) -> None:
    with Broker(path) as broker:
        assert broker.recovery.ok, str(broker.recovery)
        assert_reads_back(broker.topic("t"), given)
        assert [tuple(r) for r in Consumer(broker, "t").drain()] == stored(given)
    report = verify(path)
    assert report.ok, str(report.problems)
    assert report.record_count == len(given)


@BOUNDED
@given(given=st.lists(records, max_size=25), segment_bytes=segment_sizes)
def test_records_appended_singly_read_back_equal_now_and_after_reopening(
    given: list[Given], segment_bytes: int
) -> None:
    with directory() as path:
        with opened(path, segment_bytes) as broker:
            topic = broker.create_topic("t")
            offsets = [
                topic[0].append(r.value, key=r.key, headers=r.headers, timestamp=r.timestamp)
                for r in given
            ]
            assert offsets == list(range(len(given)))
            assert_reads_back(topic, given)
            with Broker(path, read_only=True) as other:
                assert_reads_back(other.topic("t"), given)
        assert_survives(path, given)


@BOUNDED
@given(runs=st.lists(st.lists(records, max_size=12), max_size=5), segment_bytes=segment_sizes)
def test_runs_appended_in_bulk_read_back_equal_now_and_after_reopening(
    runs: list[list[Given]], segment_bytes: int
) -> None:
    given = [record for run in runs for record in run]
    with directory() as path:
        with opened(path, segment_bytes) as broker:
            topic = broker.create_topic("t")
            end = 0
            for run in runs:
                written = topic[0].append_many([r.value for r in run], **columns(run))
                assert written == range(end, end + len(run))
                end += len(run)
            assert_reads_back(topic, given)
            with Broker(path, read_only=True) as other:
                assert_reads_back(other.topic("t"), given)
        assert_survives(path, given)


@BOUNDED
@given(
    given=st.lists(records, max_size=25),
    segment_bytes=segment_sizes,
    batch_bytes=st.sampled_from([1, 200, 5000, 1 << 20]),
    data=st.data(),
)
def test_every_way_to_send_reads_back_equal(
    given: list[Given], segment_bytes: int, batch_bytes: int, data: st.DataObject
) -> None:
    ways = data.draw(
        st.lists(
            st.sampled_from(["send", "many", "batch"]), min_size=len(given), max_size=len(given)
        )
    )
    with opened(":memory:", segment_bytes) as broker:
        topic = broker.create_topic("t")
        producer = Producer(broker, batch_bytes=batch_bytes)
        for way, r in zip(ways, given, strict=True):
            if way == "many":
                producer.send_many("t", [r.value], **columns([r]))
                continue
            with producer.batch() as batch:
                sender = batch if way == "batch" else producer
                sender.send("t", r.value, key=r.key, timestamp=r.timestamp, headers=r.headers)
        assert_reads_back(topic, given)
        assert [tuple(record) for record in Consumer(broker, "t").drain()] == stored(given)


@BOUNDED
@given(
    keys=st.lists(st.none() | st.binary(max_size=6), max_size=60),
    partition_count=st.integers(1, 5),
    limit=st.integers(1, 20),
)
def test_many_partitions_together_hold_every_record_once_in_order(
    keys: list[bytes | None], partition_count: int, limit: int
) -> None:
    values = [b"%d" % number for number in range(len(keys))]
    with opened(":memory:", 256) as broker:
        topic = broker.create_topic("t", partition_count)
        ranges = Producer(broker).send_many("t", values, keys=keys)
        assert {p: len(written) for p, written in ranges.items() if written} == {
            partition.index: len(partition) for partition in topic if len(partition)
        }
        seen: list[Any] = []
        consumer = Consumer(broker, "t", max_poll_records=limit)
        while found := consumer.poll():
            seen += found
    assert sorted(int(record.value) for record in seen) == list(range(len(keys)))
    for partition in range(partition_count):
        mine = [record for record in seen if record.partition == partition]
        numbers = [int(record.value) for record in mine]
        assert numbers == sorted(numbers)
        assert [record.offset for record in mine] == list(range(len(mine)))
        assert [record.key for record in mine] == [keys[number] for number in numbers]


@BOUNDED
@given(
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=20),
    max_bytes=st.integers(1, 700),
    on_disk=st.booleans(),
    segment_bytes=segment_sizes,
)
def test_a_read_keeps_to_its_bytes_but_for_the_first_record(
    sizes: list[int], max_bytes: int, on_disk: bool, segment_bytes: int
) -> None:
    with directory() as path, opened(path if on_disk else ":memory:", segment_bytes) as broker:
        partition = broker.create_topic("t")[0]
        for size in sizes:
            partition.append(bytes(size))
        for offset in range(len(sizes)):
            records = partition.read(offset, max_bytes=max_bytes)
            found = [len(value or b"") for value in records.values]
            assert len(found) >= 1
            assert found == sizes[offset : offset + len(found)]
            assert len(found) == 1 or sum(found) <= max_bytes


@BOUNDED
@given(
    stamps=st.lists(st.integers(0, 30) | st.integers(0, 2**63 - 1), max_size=60),
    first=st.integers(0, 60),
    asked=st.integers(0, 35) | st.integers(0, 2**63 - 1),
    index_interval_bytes=st.sampled_from([1, 64, 4096]),
)
def test_offset_at_is_the_earliest_offset_not_older(
    stamps: list[int], first: int, asked: int, index_interval_bytes: int
) -> None:
    first = min(first, len(stamps))
    with opened(":memory:", 256) as broker:
        partition = broker.create_topic("t", index_interval_bytes=index_interval_bytes)[0]
        for stamp in stamps:
            partition.append(b"v" * 20, timestamp=stamp)
        partition.delete_before(first)
        for timestamp in {asked, *stamps}:
            expected = [n for n in range(first, len(stamps)) if stamps[n] >= timestamp]
            assert partition.offset_at(timestamp) == (expected[0] if expected else None)
