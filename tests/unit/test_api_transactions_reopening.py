"""Transactions across closing, crashing and reading from another process: what was committed is
there, what was not never comes, and nothing stays open."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import minilog
import minilog.ledger
from minilog import Broker, Consumer, Producer, TopicPartition
from minilog.ledger import Ledger


def committed_values(broker: Broker, topic: str = "t") -> list[bytes | None]:
    with Consumer(broker, topic, isolation="read_committed") as consumer:
        return [record.value for record in consumer.drain()]


def transact(broker: Broker, *values: bytes, topic: str = "t", aborts: bool = False) -> None:
    with Producer(broker).transaction() as tx:
        for value in values:
            tx.send(topic, value)
        if aborts:
            tx.abort()


@pytest.mark.parametrize("read_only", [False, True])
def test_committed_records_are_read_from_partitions_after_reopening(
    log_path: Path, read_only: bool
) -> None:
    """The first thing done with the log is a plain read: nobody has looked at the ledger yet."""
    with Broker(log_path) as broker:
        broker.create_topic("t")
        transact(broker, b"1", b"2")
        transact(broker, b"never", aborts=True)
    with Broker(log_path, read_only=read_only) as broker:
        assert broker.topic("t")[0].read(0).values == [b"1", b"2"]
    with Broker(log_path, read_only=read_only) as broker:
        assert [record.value for record in broker.topic("t")[0]] == [b"1", b"2"]
    with Broker(log_path, read_only=read_only) as broker:
        assert len(broker.topic("t")[0]) == 2


def test_a_reader_in_another_process_follows_transactions_as_they_end(log_path: Path) -> None:
    with Broker(log_path) as broker, Producer(broker) as producer:
        partition = broker.create_topic("t")[0]
        with Broker(log_path, read_only=True) as reader:
            seen = reader.topic("t")[0]
            with producer.transaction() as tx:
                tx.send("t", b"1")
                assert seen.read(0).values == [b"1"]
                assert committed_values(reader) == []
                assert seen.stable_offset == 0
                tx.abort()
            assert seen.read(0).values == []
            transact(broker, b"2")
            assert seen.read(0).values == [b"2"]
            assert committed_values(reader) == [b"2"]
            assert seen.stable_offset == partition.end_offset


def test_a_reader_that_sees_the_ledger_rewritten_loses_nothing_meanwhile(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilog.ledger, "SNAPSHOT_BYTES", 1)
    with Broker(log_path) as broker:
        broker.create_topic("t")
        with Broker(log_path, read_only=True) as reader:
            for number in range(10):
                transact(broker, b"%d" % number, aborts=number % 3 == 2)
                expected = [b"%d" % n for n in range(number + 1) if n % 3 != 2]
                assert committed_values(reader) == expected
                assert reader.topic("t")[0].read(0).values == expected


def full(*ignored: object) -> int:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("closes", [True, False])
def test_an_abort_that_could_not_be_written_is_one_after_reopening(
    log_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closes: bool
) -> None:
    with Broker(log_path) as broker:
        partition = broker.create_topic("t")[0]
        with Producer(broker).transaction() as tx:
            tx.send("t", b"never")
            with monkeypatch.context() as patch:
                patch.setattr(Ledger, "_write", full)
                tx.abort()
        partition.append(b"after")
        assert committed_values(broker) == [b"after"]
        if not closes:
            shutil.copytree(log_path, tmp_path / "crashed")
    path = log_path if closes else tmp_path / "crashed"
    with Broker(path) as broker:
        partition = broker.topic("t")[0]
        assert partition.stable_offset == partition.end_offset
        assert committed_values(broker) == [b"after"]
        assert partition.read(0).values == [b"after"]


def test_a_log_is_closed_though_the_end_of_its_transactions_cannot_be_written(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker(log_path)
    broker.create_topic("t")
    transact(broker, b"1")
    tx = Producer(broker).transaction()
    tx.send("t", b"never")
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_write", full)
        broker.close()
    assert broker.is_closed
    with Broker(log_path) as broker:
        partition = broker.topic("t")[0]
        assert committed_values(broker) == [b"1"]
        assert partition.stable_offset == partition.end_offset


def test_plain_appends_after_reopening_can_be_closed_where_a_named_producer_has_written(
    log_path: Path,
) -> None:
    """Closing looks at what transactions are open, for the first time, while logs are closed."""
    with Broker(log_path) as broker:
        broker.create_topic("t")
        producer = Producer(broker, producer_id="i")
        with producer.transaction() as tx:
            tx.send("t", b"1", sequence=0)
        producer.send("t", b"2", sequence=1)
    with Broker(log_path) as broker:
        broker.topic("t")[0].append(b"plain")
    with Broker(log_path) as broker:
        assert broker.recovery.ok, str(broker.recovery)
        assert Producer(broker, producer_id="i").last_sequence("t", 0) == 1
        assert committed_values(broker) == [b"1", b"2", b"plain"]


@pytest.mark.parametrize("sync", ["never", "always"])
def test_a_crash_aborts_what_was_open_and_keeps_what_was_committed(
    log_path: Path, tmp_path: Path, sync: str
) -> None:
    with Broker(log_path, sync=sync) as broker:  # type: ignore[arg-type]
        broker.create_topic("in")[0].append_many([b"a", b"b", b"c"])
        broker.create_topic("t", 3)
        producer = Producer(broker)
        with producer.transaction() as tx:
            for number in range(3):
                tx.send("t", b"kept", partition=number)
            tx.commit_offsets({("in", 0): 1}, group="g")
        with producer.transaction() as tx:
            for number in range(3):
                tx.send("t", b"never", partition=number)
            tx.commit_offsets({("in", 0): 3}, group="g")
            shutil.copytree(log_path, tmp_path / "crashed")
    for _ in range(2):
        with Broker(tmp_path / "crashed") as broker:
            assert committed_values(broker) == [b"kept"] * 3
            assert broker.groups["g"].committed() == {TopicPartition("in", 0): 1}
            for partition in broker.topic("t"):
                assert partition.stable_offset == partition.end_offset
                assert len(partition) == 1
                partition.check()
    with Broker(tmp_path / "crashed") as broker:
        assert broker.recovery.ok


def test_transactions_ended_by_threads_are_aborted_when_the_log_is_closed(log_path: Path) -> None:
    """Beginning one while another thread looks for expired ones forgets none."""
    broker = Broker(log_path)
    partition = broker.create_topic("t")[0]
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            broker.transactions.expire()

    def begin() -> None:
        for _ in range(300):
            tx = Producer(broker).transaction()
            tx.send("t", b"never")
            begun.append(tx)

    begun: list[object] = []
    looking = threading.Thread(target=look)
    beginning = [threading.Thread(target=begin) for _ in range(2)]
    for thread in (looking, *beginning):
        thread.start()
    for thread in beginning:
        thread.join()
    stop.set()
    looking.join()
    partition.append(b"kept")
    broker.close()
    assert len(begun) == 600
    with Broker(log_path) as broker:
        assert committed_values(broker) == [b"kept"]


def test_forked_children_write_nothing_of_a_transaction(
    log_path: Path, run_python: Callable[..., str]
) -> None:
    source = """
import os, sys
from minilog import Broker, ForkedError, Producer
broker = Broker(sys.argv[1])
partition = broker.create_topic("t")[0]
with Producer(broker, producer_id="i").transaction() as tx:
    tx.send("t", b"1")
    child = os.fork()
    if not child:
        try:
            tx.send("t", b"child")
        except ForkedError:
            try:
                tx.abort()
            finally:
                os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    tx.send("t", b"2")
broker.close()
"""
    run_python(source, log_path)
    with Broker(log_path) as broker:
        assert broker.recovery.ok
        assert committed_values(broker) == [b"1", b"2"]


def test_verify_counts_no_record_of_a_transaction_that_is_open_or_was_aborted(
    log_path: Path,
) -> None:
    with Broker(log_path) as broker:
        broker.create_topic("t").configure(compression="gzip")
        producer = Producer(broker)
        producer.send("t", b"plain")
        for ends in ("committed", "aborted", "open"):
            tx = producer.transaction()
            tx.send("t", ends.encode())
            tx.send_many("t", [ends.encode()] * 10)
            if ends != "open":
                tx.__exit__(None if ends == "committed" else ValueError)
        report = minilog.verify(log_path)
        assert (report.ok, report.record_count) == (True, 12), str(report)
    report = minilog.verify(log_path)
    assert (report.ok, report.record_count) == (True, 12), str(report)
    with Broker(log_path) as broker:
        assert len(broker.topic("t")[0]) == 12
    ledger = log_path / "__ledger" / "0" / f"{0:020d}.log"
    ledger.write_bytes(b"")
    report = minilog.verify(log_path)
    assert (report.ok, report.record_count) == (False, 34), "nobody can tell any more"
