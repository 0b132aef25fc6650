"""Named producers across closing and crashing: where they stopped is where they go on."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from minilog import Broker, FencedError, Producer, RecordMetadata, SequenceGapError


def crash(path: Path, target: Path) -> Path:
    """Copy a log that is open, as a kill would leave it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(path, target)
    return target


def send_between(
    broker: Broker, producer: Producer, first: int, count: int
) -> list[RecordMetadata]:
    """Send numbered records, others' in between."""
    partition = broker.topic("t")[0]
    other = Producer(broker)
    sent = []
    for number in range(first, first + count):
        sent.append(producer.send("t", b"%d" % number, sequence=number, timestamp=number * 7))
        if number % 4 == 0:
            partition.append_many([b"between"] * 2)
        elif number % 4 == 1:
            with other.transaction() as tx:
                tx.send("t", b"theirs")
    return sent


@pytest.mark.parametrize("ends", ["closed", "killed"])
@pytest.mark.parametrize("sync", ["never", "always"])
def test_duplicates_are_known_after_reopening(
    log_path: Path, tmp_path: Path, ends: str, sync: str
) -> None:
    """A thousand back, and the segments are small, so that many have rolled."""
    path, sent, count = log_path, [], 1_050 if sync == "never" else 60
    for round_number in range(3):
        broker = Broker(path, sync=sync, segment_bytes=2048)  # type: ignore[arg-type]
        broker.create_topic("t", exist_ok=True)
        importer = Producer(broker, producer_id="importer")
        assert importer.last_sequence("t", 0) == (len(sent) - 1 if sent else None)
        sent += send_between(broker, importer, len(sent), count)
        if ends == "killed":
            path = crash(path, tmp_path / f"killed-{round_number}")
        broker.close()
    with Broker(path) as broker:
        importer = Producer(broker, producer_id="importer")
        end = broker.topic("t")[0].end_offset
        assert importer.last_sequence("t", 0) == len(sent) - 1
        for number in range(len(sent) - 1, len(sent) - min(count, 1_001), -1):
            assert importer.send("t", b"again", sequence=number) == sent[number]
        with pytest.raises(SequenceGapError):
            importer.send("t", b"gap", sequence=len(sent) + 1)
        assert broker.topic("t")[0].end_offset == end
        broker.topic("t")[0].check()


@pytest.mark.parametrize("ends", ["closed", "killed"])
def test_the_last_sequence_survives_the_deletion_of_its_record(
    log_path: Path, tmp_path: Path, ends: str
) -> None:
    broker = Broker(log_path, segment_bytes=256)
    partition = broker.create_topic("t")[0]
    importer = Producer(broker, producer_id="importer")
    importer.send_many("t", [b"x" * 50] * 40)
    for _ in range(40):
        importer.send("t", b"x" * 50)
    partition.delete_before(partition.end_offset)
    for _ in range(30):
        partition.append(b"others" * 10)
    partition.delete_before(partition.end_offset)
    path = crash(log_path, tmp_path / "killed") if ends == "killed" else log_path
    broker.close()
    with Broker(path) as broker:
        importer = Producer(broker, producer_id="importer")
        assert importer.last_sequence("t", 0) == 79
        assert importer.send("t", b"x", sequence=79).offset == 79
        assert importer.send("t", b"x", sequence=80).offset == 110


@pytest.mark.parametrize("ends", ["closed", "killed"])
@pytest.mark.parametrize("deletes", ["within", "after"])
def test_sequences_of_a_transaction_survive_the_deletion_of_its_records(
    log_path: Path, tmp_path: Path, ends: str, deletes: str
) -> None:
    broker = Broker(log_path, segment_bytes=256)
    partition = broker.create_topic("t")[0]
    importer = Producer(broker, producer_id="importer")
    with importer.transaction() as tx:
        for _ in range(30):
            tx.send("t", b"x" * 50)
        if deletes == "within":
            partition.delete_before(30)
    partition.delete_before(31)
    broker.maintain()
    path = crash(log_path, tmp_path / "killed") if ends == "killed" else log_path
    broker.close()
    with Broker(path) as broker:
        assert Producer(broker, producer_id="importer").last_sequence("t", 0) == 29


@pytest.mark.parametrize("ends", ["closed", "killed", "aborted"])
def test_sequences_of_an_aborted_transaction_are_free_again(
    log_path: Path, tmp_path: Path, ends: str
) -> None:
    broker = Broker(log_path, segment_bytes=256)
    partition = broker.create_topic("t")[0]
    importer = Producer(broker, producer_id="importer")
    importer.send("t", b"0")
    tx = importer.transaction()
    for number in range(1, 20):
        tx.send("t", b"never" * 9, sequence=number)
        partition.append(b"between")
    path = log_path
    if ends == "killed":
        path = crash(log_path, tmp_path / "killed")
    elif ends == "aborted":
        tx.abort()
        assert importer.last_sequence("t", 0) == 0
    broker.close()
    for round_number in range(3):
        with Broker(path) as broker:
            importer = Producer(broker, producer_id="importer")
            assert importer.last_sequence("t", 0) == round_number
            sent = importer.send("t", b"%d" % (round_number + 1), sequence=round_number + 1)
            assert importer.send("t", b"again", sequence=round_number + 1) == sent
            values = [record.value for record in broker.topic("t")[0]]
            assert [value for value in values if value != b"between"] == [
                b"%d" % number for number in range(round_number + 2)
            ]


def test_a_topic_made_again_starts_at_0(log_path: Path) -> None:
    with Broker(log_path) as broker:
        broker.create_topic("t")
        importer = Producer(broker, producer_id="importer")
        importer.send_many("t", [b"x"] * 5)
        broker.delete_topic("t")
        broker.create_topic("t")
        assert importer.last_sequence("t", 0) is None
        with pytest.raises(SequenceGapError):
            importer.send("t", b"x", sequence=5)
        assert importer.send("t", b"x", sequence=0).offset == 0
    with Broker(log_path) as broker:
        assert Producer(broker, producer_id="importer").last_sequence("t", 0) == 0


def test_a_partition_added_later_starts_at_0(log_path: Path) -> None:
    with Broker(log_path) as broker:
        topic = broker.create_topic("t")
        importer = Producer(broker, producer_id="importer")
        importer.send("t", b"x")
        topic.add_partitions(2)
        assert importer.last_sequence("t", 1) is None
        assert importer.send("t", b"x", partition=1, sequence=0).offset == 0
    with Broker(log_path) as broker:
        importer = Producer(broker, producer_id="importer")
        assert [importer.last_sequence("t", number) for number in (0, 1)] == [0, 0]


def test_reopening_by_a_named_producer_changes_nobody_elses_sequences(log_path: Path) -> None:
    names = [f"producer {number}" for number in range(20)]
    for round_number in range(3):
        with Broker(log_path, segment_bytes=512) as broker:
            broker.create_topic("t", exist_ok=True)
            chance = random.Random(round_number)
            for name in chance.sample(names, len(names)):
                producer = Producer(broker, producer_id=name)
                last = producer.last_sequence("t", 0)
                assert last == (round_number * 3 - 1 if round_number else None)
                for number in range(3):
                    producer.send("t", name.encode(), sequence=round_number * 3 + number)


def test_epochs_go_on_so_that_a_fenced_one_stays_fenced(log_path: Path) -> None:
    with Broker(log_path) as broker:
        broker.create_topic("t")
        older = Producer(broker, producer_id="i")
        for _ in range(3):
            newer = Producer(broker, producer_id="i")
            with pytest.raises(FencedError):
                older.send("t", b"x")
            newer.send("t", b"x")
            older = newer
    with Broker(log_path) as broker:
        assert Producer(broker, producer_id="i").send("t", b"x", sequence=3).offset == 3
