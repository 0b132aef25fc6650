"""``topic.table()``: the latest value of each key, whatever is appended, deleted or restarted.

Brute force over the records that are there is the measure of it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minilog
from minilog import Broker, ClosedError, CorruptionError, Topic, UnknownTopicError
from minilog.testing import ManualClock


def brute_force(topic: Topic) -> dict[bytes, bytes]:
    """Return the latest value of each key, by time over the partitions, one record at a time."""
    ordered = []
    for partition in topic:
        largest = 0
        for record in partition:
            largest = max(largest, record.timestamp)
            ordered.append((largest, record.partition, record.offset, record.key, record.value))
    latest: dict[bytes, bytes] = {}
    for _, _, _, key, value in sorted(ordered, key=lambda row: row[:3]):
        if key is None:
            continue
        latest.pop(key, None)
        if value is not None:
            latest[key] = value
    return latest


def test_a_table_holds_the_latest_value_of_each_key(broker: Broker) -> None:
    topic = broker.create_topic("t")
    table = topic.table()
    assert len(table) == 0
    topic[0].append(b"1", key=b"a")
    topic[0].append(b"2", key=b"b")
    topic[0].append(b"3", key=b"a")
    assert isinstance(table, Mapping)
    assert dict(table) == {b"a": b"3", b"b": b"2"}
    assert (table[b"a"], table.get(b"b"), table.get(b"c"), len(table)) == (b"3", b"2", None, 2)
    assert b"a" in table
    assert b"c" not in table
    assert sorted(table) == sorted(table.keys()) == [b"a", b"b"]
    assert sorted(table.values()) == [b"2", b"3"]
    assert sorted(table.items()) == [(b"a", b"3"), (b"b", b"2")]
    assert table == {b"a": b"3", b"b": b"2"} == topic.table()
    assert table.positions == {0: 3}
    assert "t" in repr(table)


def test_a_tombstone_removes_its_key_and_an_empty_value_does_not(broker: Broker) -> None:
    topic = broker.create_topic("t")
    topic[0].append_many([b"1", b"2", b"", None], keys=[b"a", b"b", b"empty", b"never"])
    table = topic.table()
    topic[0].append(None, key=b"a")
    assert dict(table) == {b"b": b"2", b"empty": b""}
    assert dict(topic.table()) == {b"b": b"2", b"empty": b""}
    topic[0].append(b"again", key=b"a")
    assert table[b"a"] == b"again"


def test_records_without_a_key_are_left_out(broker: Broker) -> None:
    topic = broker.create_topic("t", 2)
    table = topic.table()
    for partition in topic:
        partition.append(b"alone")
        partition.append_many([b"1", b"2", None], keys=[None, b"k", None])
    assert dict(table) == dict(topic.table()) == {b"k": b"2"}
    with pytest.raises(KeyError):
        table[None]  # type: ignore[index]


def test_a_table_is_read_only(broker: Broker) -> None:
    table = broker.create_topic("t").table()
    for method in ("__setitem__", "__delitem__", "pop", "update", "clear", "setdefault"):
        assert not hasattr(table, method)
    snapshot = table.snapshot()
    snapshot[b"k"] = b"mine"
    assert b"k" not in table


@pytest.mark.parametrize("key", [bytearray(b"k"), memoryview(b"k")])
def test_a_key_may_be_any_bytes(broker: Broker, key: Any) -> None:
    topic = broker.create_topic("t")
    topic[0].append(b"v", key=b"k")
    table = topic.table()
    assert table[key] == b"v"
    assert key in table


@pytest.mark.parametrize("key", ["k", 1, 1.5, ("k",)])
def test_a_key_that_is_no_bytes_is_a_type_error(broker: Broker, key: Any) -> None:
    table = broker.create_topic("t").table()
    for look in (lambda: table[key], lambda: key in table, lambda: table.get(key)):
        with pytest.raises(TypeError, match="bytes"):
            look()


def test_views_are_of_one_moment(broker: Broker) -> None:
    topic = broker.create_topic("t")
    topic[0].append_many([b"1"] * 3, keys=[b"a", b"b", b"c"])
    table = topic.table()
    seen = {}
    for key, value in table.items():
        topic[0].append(None, key=b"c")
        topic[0].append(b"2", key=b"d")
        seen[key] = value
    assert seen == {b"a": b"1", b"b": b"1", b"c": b"1"}
    assert sorted(table) == [b"a", b"b", b"d"]


def test_of_a_key_in_several_partitions_the_latest_by_time_is_taken(broker: Broker) -> None:
    topic = broker.create_topic("t", 3)
    topic[2].append(b"first", key=b"k", timestamp=10)
    topic[0].append(b"third", key=b"k", timestamp=30)
    topic[1].append(b"second", key=b"k", timestamp=20)
    topic[1].append(b"last of its time", key=b"same", timestamp=40)
    topic[0].append(b"first of its time", key=b"same", timestamp=40)
    topic[0].append(b"kept", key=b"gone", timestamp=50)
    topic[2].append(None, key=b"gone", timestamp=60)
    topic[2].append(None, key=b"back", timestamp=70)
    topic[1].append(b"again", key=b"back", timestamp=80)
    expected = {b"k": b"third", b"same": b"last of its time", b"back": b"again"}
    assert dict(topic.table()) == expected == brute_force(topic)


def test_within_a_partition_the_later_record_counts_whatever_its_time(broker: Broker) -> None:
    for count in (1, 2):
        topic = broker.create_topic(f"t{count}", count)
        table = topic.table()
        topic[0].append(b"of long ago", key=b"k", timestamp=100)
        assert table[b"k"] == b"of long ago"
        topic[0].append(b"later", key=b"k", timestamp=1)
        assert table[b"k"] == topic.table()[b"k"] == b"later"


def test_partitions_that_are_added_are_taken_in(broker: Broker) -> None:
    topic = broker.create_topic("t")
    topic[0].append(b"old", key=b"k", timestamp=5)
    table = topic.table()
    topic.add_partitions(3)
    topic[2].append(b"new", key=b"k", timestamp=6)
    topic[1].append(b"other", key=b"o", timestamp=6)
    assert dict(table) == {b"k": b"new", b"o": b"other"}
    topic.add_partitions(4)
    topic[3].append(None, key=b"k", timestamp=7)
    assert dict(table) == {b"o": b"other"}


KEYS = st.sampled_from([b"a", b"b", b"c", b"d", None])
STEP = st.tuples(
    st.sampled_from(["append", "append_many", "delete_before", "look", "reopen", "roll"]),
    st.integers(0, 2),
    st.lists(
        st.tuples(KEYS, st.none() | st.binary(max_size=3), st.integers(0, 50)),
        min_size=1,
        max_size=5,
    ),
)


@given(partitions=st.integers(1, 3), steps=st.lists(STEP, max_size=25))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_table_restored_is_what_brute_force_finds(
    tmp_path_factory: pytest.TempPathFactory, partitions: int, steps: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("table")
    broker = Broker(path, segment_bytes=512, maintenance_interval_ms=0)
    topic = broker.create_topic("t", partitions)
    for kind, number, records in steps:
        partition = topic[number % partitions]
        keys, values, stamps = map(list, zip(*records, strict=True))
        if kind == "append":
            partition.append(values[0], key=keys[0], timestamp=stamps[0])
        elif kind == "append_many":
            partition.append_many(values, keys=keys, timestamps=stamps)
        elif kind == "delete_before":
            start, end = partition.start_offset, partition.end_offset
            partition.delete_before(start + stamps[0] * (end - start) // 50)
        elif kind == "roll":
            partition.append(b"x" * 600, key=keys[0], timestamp=stamps[0])
        elif kind == "reopen":
            broker.close()
            broker = Broker(path, maintenance_interval_ms=0)
            topic = broker.topic("t")
        expected = brute_force(topic)
        assert dict(topic.table()) == expected
    broker.close()


@given(partitions=st.integers(1, 3), steps=st.lists(STEP, max_size=25))
@settings(deadline=None)
def test_a_table_kept_up_to_date_is_what_brute_force_finds(
    partitions: int, steps: list[Any]
) -> None:
    clock = ManualClock(100)  # time goes on, so tombstones need not be remembered
    with Broker(":memory:", segment_bytes=512, clock=clock) as broker:
        topic = broker.create_topic("t", partitions)
        table = topic.table()
        for kind, number, records in steps:
            partition = topic[number % partitions]
            keys, values, stamps = map(list, zip(*records, strict=True))
            clock.advance(stamps[0])
            if kind == "delete_before":
                start, end = partition.start_offset, partition.end_offset
                partition.delete_before(start + stamps[0] * (end - start) // 50)
            elif kind == "append":
                partition.append(values[0], key=keys[0])
            else:
                partition.append_many(values, keys=keys)
            if kind in ("look", "reopen", "delete_before"):
                for key in (b"a", b"b", b"c", b"d"):
                    assert table.get(key) == brute_force(topic).get(key)
                assert dict(table) == dict(topic.table())
        if partitions == 1:
            assert dict(table) == brute_force(topic)


def test_what_is_deleted_leaves_the_table(broker: Broker) -> None:
    for count in (1, 3):
        topic = broker.create_topic(f"t{count}", count)
        partition = topic[count - 1]
        table = topic.table()
        for number in range(6):
            partition.append(b"%d" % number, key=b"k%d" % (number % 4))
        assert len(table) == 4
        partition.delete_before(3)
        assert dict(table) == {b"k3": b"3", b"k0": b"4", b"k1": b"5"} == brute_force(topic)
        partition.delete_before(6)
        assert dict(table) == {}
        partition.append(b"new", key=b"k1")
        assert dict(table) == {b"k1": b"new"}


def test_records_that_go_while_they_are_read_are_no_error(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minilog.table.READ_RECORDS", 2)
    topic = broker.create_topic("t")
    for number in range(10):
        topic[0].append(b"%d" % number * 50, key=b"k%d" % number)
    read, deleted = minilog.Partition.read_up_to, []

    def deleting(self: Any, *args: Any) -> Any:
        for records in read(self, *args):
            yield records
            if not deleted:
                deleted.append(records.next_offset)
                self.delete_before(7)

    monkeypatch.setattr(minilog.Partition, "read_up_to", deleting)
    table = topic.table()
    assert deleted == [2]
    assert sorted(table) == [b"k7", b"k8", b"k9"]


def test_a_look_up_where_nothing_came_reads_nothing(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = broker.create_topic("t", 2)
    topic[0].append(b"v", key=b"k")
    table = topic.table()

    def refuse(*args: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(minilog.Partition, "read_up_to", refuse)
    assert table[b"k"] == b"v"
    assert len(table) == 1
    topic[1].append(b"v", key=b"new")
    with pytest.raises(AssertionError, match="it was read"):
        table[b"k"]


def test_a_table_of_a_read_only_broker_follows_the_writer(log_path: Path) -> None:
    with Broker(log_path, segment_bytes=256) as writer:
        topic = writer.create_topic("t", 2)
        topic[0].append(b"1", key=b"a")
        with Broker(log_path, read_only=True) as reader:
            table = reader.topic("t").table()
            assert dict(table) == {b"a": b"1"}
            for number in range(20):
                topic[number % 2].append(b"%d" % number * 30, key=b"k%d" % (number % 3))
                assert dict(table) == dict(topic.table())
            topic[0].delete_before(topic[0].end_offset)
            assert dict(table) == dict(topic.table())
            topic.add_partitions(3)
            topic[2].append(b"new", key=b"new")
            assert table[b"new"] == b"new"


def test_a_closed_broker_and_a_deleted_topic_are_told(location: Path | str) -> None:
    broker = Broker(location)
    gone, kept = broker.create_topic("gone").table(), broker.create_topic("kept").table()
    broker.delete_topic("gone")
    with pytest.raises(UnknownTopicError):
        gone.get(b"k")
    with pytest.raises(UnknownTopicError):
        len(gone)
    broker.close()
    for look in (lambda: kept.get(b"k"), lambda: len(kept), lambda: list(kept)):
        with pytest.raises(ClosedError):
            look()


def test_damage_is_told_by_every_look_up_and_nothing_wrong_is_shown(log_path: Path) -> None:
    with Broker(log_path) as broker:
        topic = broker.create_topic("t", 2)
        topic[0].append_many([b"value"] * 3, keys=[b"a", b"b", b"c"])
        topic[1].append(b"other", key=b"d")
    log = log_path / "t" / "0" / "00000000000000000000.log"
    whole = log.read_bytes()
    damaged = bytearray(whole)
    damaged[160] ^= 1
    with Broker(log_path, read_only=True) as broker:
        table = broker.topic("t").table()
        assert len(table) == 4
    log.write_bytes(damaged)
    with Broker(log_path, read_only=True) as broker, pytest.raises(CorruptionError):
        broker.topic("t").table()


def test_a_refresh_that_failed_in_the_middle_is_made_up_for(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in (1, 2):
        topic = broker.create_topic(f"t{count}", count)
        table = topic.table()
        topic[0].append_many([b"1", None], keys=[b"a", b"b"], timestamps=[5, 90])
        topic[count - 1].append(b"2", key=b"a", timestamp=7)
        monkeypatch.setattr("minilog.table.READ_RECORDS", 1)
        with monkeypatch.context() as broken:
            settle = "Latest" if count == 1 else "LatestOfMany"

            def interrupt(self: Any) -> None:
                raise KeyboardInterrupt

            broken.setattr(f"minilog.table.{settle}.settle", interrupt)
            with pytest.raises(KeyboardInterrupt):
                table.refresh()
        assert dict(table) == brute_force(topic) == {b"a": b"2"}


class Announced:
    """A lock that tells when somebody comes to it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.came = threading.Semaphore(0)

    def __enter__(self) -> None:
        self.came.release()
        self.lock.acquire()

    def __exit__(self, *raised: object) -> None:
        self.lock.release()


def test_one_thread_at_a_time_takes_in_and_the_others_wait_for_it(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = broker.create_topic("t")
    table = topic.table()
    table._lock = lock = Announced()  # type: ignore[assignment]
    read, may_go_on = minilog.Partition.read_up_to, threading.Event()
    reading: list[int] = []

    def pausing(self: Any, *args: Any) -> Any:
        for records in read(self, *args):
            reading.append(threading.get_ident())
            may_go_on.wait(timeout=60)
            yield records

    monkeypatch.setattr(minilog.Partition, "read_up_to", pausing)
    topic[0].append(b"v", key=b"k")
    found: list[bytes | None] = []
    threads = [threading.Thread(target=lambda: found.append(table.get(b"k"))) for _ in range(2)]
    for thread in threads:
        thread.start()
        assert lock.came.acquire(timeout=60)
    may_go_on.set()
    for thread in threads:
        thread.join(timeout=60)
    assert found == [b"v", b"v"]
    assert len(reading) == 1


def test_threads_that_look_see_every_key_that_was_appended_before(broker: Broker) -> None:
    topic = broker.create_topic("t", 2)
    table = topic.table()
    switch = sys.getswitchinterval()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for count in range(200):
                key = b"%d of %d" % (count, number)
                topic[number % 2].append(b"%d" % count, key=key)
                assert table[key] == b"%d" % count
                if count % 50 == 0:
                    assert len(dict(table.items())) <= len(table)
        except BaseException as error:
            failures.append(error)

    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert not failures
    assert len(table) == 800
    assert dict(table) == brute_force(topic)


def test_a_table_of_a_compressed_topic_is_the_same(compression: str) -> None:
    with Broker(":memory:") as broker:
        topics = [
            broker.create_topic("plain"),
            broker.create_topic("packed", compression=compression),
        ]
        for topic in topics:
            keys = [b"key %d" % (number % 77) for number in range(1000)]
            topic[0].append_many([b"value %d" % n for n in range(1000)], keys=keys)
        assert dict(topics[0].table()) == dict(topics[1].table()) == brute_force(topics[1])
