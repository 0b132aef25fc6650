"""Compaction of what transactions and named producers have written, in one pass or in many."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import minilog
from minilog import Broker, Partition, Producer, Record
from minilog.storage import compaction
from minilog.testing import ManualClock

SEED = 20261122
KEYS = [b"key %d" % number for number in range(12)]


def write_at_random(broker: Broker, rng: random.Random) -> None:
    """Write records of every kind."""
    named = Producer(broker, producer_id="named")
    plain = Producer(broker)
    for number in range(120):
        key, value = rng.choice(KEYS), rng.choice([b"%d" % number * 9, b"%d" % number, None])
        producer = rng.choice([named, plain])
        how = rng.choice(["send", "batch", "commit", "abort"])
        if how == "send":
            producer.send("t", value, key=key)
        elif how == "batch":
            producer.send_many("t", [value] * 3, keys=rng.sample(KEYS, 3))
        else:
            with producer.transaction() as tx:
                tx.send("t", value, key=key)
                tx.send_many("t", [value, b"two"], keys=rng.sample(KEYS, 2))
                if how == "abort":
                    tx.abort()


def latest_of(records: list[Record]) -> list[Record]:
    last = {record.key: record for record in records}
    return sorted(last.values(), key=lambda record: record.offset)


def check(partition: Partition, expected: list[Record]) -> None:
    found = list(partition)
    assert found == expected, f"seed {SEED}"
    assert len(partition) == len(expected)
    partition.check()


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("budget", [1, 700, compaction.KEY_BUDGET_BYTES])
def test_compaction_keeps_the_last_committed_record_of_each_key_and_no_trace_of_aborted_ones(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int, compression: str
) -> None:
    monkeypatch.setattr(compaction, "KEY_BUDGET_BYTES", budget)
    rng = random.Random(SEED)
    settings = {"cleanup_policy": "compact", "segment_bytes": 700, "compression": compression}
    with Broker(log_path, clock=ManualClock(10**6)) as broker:
        broker.create_topic("t", delete_retention_ms=2**40, **settings)
        expected: list[Record] = []
        for _ in range(3):
            write_at_random(broker, rng)
            expected = latest_of(list(broker.topic("t")[0]))
            report = broker.topic("t").compact()
            assert report.records_after <= report.records_before
            check(broker.topic("t")[0], expected)
        last = Producer(broker, producer_id="named").last_sequence("t", 0)
        assert last is not None
        broker.topic("t")[0].delete_before(expected[3].offset)
        broker.topic("t").compact()
        check(broker.topic("t")[0], expected[3:])
    assert minilog.verify(log_path).ok, str(minilog.verify(log_path))
    with Broker(log_path) as broker:
        check(broker.topic("t")[0], expected[3:])
        assert Producer(broker, producer_id="named").last_sequence("t", 0) == last


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_the_records_behind_a_start_within_a_compacted_segment_are_counted(
    log_path: Path, compression: str
) -> None:
    with Broker(log_path, clock=ManualClock(10**6)) as broker:
        settings = {"cleanup_policy": "compact", "compression": compression}
        topic = broker.create_topic("t", **settings)
        for number in range(30):
            topic[0].append(b"%d" % number * 20, key=b"%d" % (number % 11))
            keys = [b"%d" % (other % 13) for other in range(number, number + 9)]
            topic[0].append_many([b"x" * 30] * 9, keys=keys)
        topic.compact()
        offsets = [record.offset for record in topic[0]]
        assert len(topic[0]) == len(offsets) == 13
        for left in range(12, -1, -1):
            topic[0].delete_before(offsets[12 - left] + 1)
            assert len(topic[0]) == left
            assert [record.offset for record in topic[0]] == offsets[13 - left :]
    with Broker(log_path) as broker:
        assert len(broker.topic("t")[0]) == 0


def test_what_an_open_transaction_has_written_is_not_compacted(log_path: Path) -> None:
    with Broker(log_path, clock=ManualClock(10**6)) as broker:
        topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=256)
        for number in range(9):
            topic[0].append(b"%d" % number * 40, key=b"k")
        with Producer(broker).transaction() as tx:
            tx.send("t", b"open", key=b"k")
            for number in range(9):
                topic[0].append(b"%d" % number * 40, key=b"k")
            topic.compact()
            assert [record.offset for record in topic[0]] == [8, *range(9, 19)]
        topic.compact()
        assert [record.offset for record in topic[0]] == [18]
        assert topic[0].end_offset == 20


def test_a_segment_that_is_found_damaged_ends_a_compaction_before_it_changes_anything(
    log_path: Path,
) -> None:
    with Broker(log_path, clock=ManualClock(10**6)) as broker:
        topic = broker.create_topic("t", cleanup_policy="compact", segment_bytes=256)
        for number in range(9):
            topic[0].append(b"%d" % number * 40, key=b"k")
    files = sorted(log_path.glob("t/0/*.log"))
    data = files[2].read_bytes()
    files[2].write_bytes(data[: len(data) // 2])
    before = [file.read_bytes() for file in files]
    with Broker(log_path, clock=ManualClock(10**6)) as broker:
        with pytest.raises(minilog.CorruptionError):
            broker.topic("t").compact()
        assert [file.read_bytes() for file in files[:-1]] == before[:-1]
        assert broker.topic("t")[0].append(b"more", key=b"k") == 9
