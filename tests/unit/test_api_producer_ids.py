"""Named producers against api.md "Exactly once": numbered records, duplicates, gaps, fencing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from minilog import (
    Broker,
    ClosedError,
    ConfigError,
    FencedError,
    OffsetOutOfRangeError,
    Producer,
    ReadOnlyError,
    RecordMetadata,
    SequenceGapError,
    TopicPartition,
    UnknownPartitionError,
    UnknownTopicError,
)
from minilog.testing import ManualClock


@pytest.fixture
def importer(broker: Broker) -> Producer:
    broker.create_topic("t", 2)
    return Producer(broker, producer_id="importer")


def values_of(broker: Broker, topic: str = "t", partition: int = 0) -> list[bytes | None]:
    return [record.value for record in broker.topic(topic)[partition]]


# ---------------------------------------------------------------- sequences


def test_sequences_count_from_0_in_each_partition(broker: Broker, importer: Producer) -> None:
    assert importer.last_sequence("t", 0) is None
    for partition in (0, 1):
        for number in range(3):
            sent = importer.send("t", b"%d" % number, partition=partition, sequence=number)
            assert sent.offset == number
        assert importer.last_sequence("t", partition) == 2
    broker.create_topic("u")
    assert importer.send("u", b"x", sequence=0).offset == 0
    other = Producer(broker, producer_id="other")
    assert other.last_sequence("t", 0) is None
    assert other.send("t", b"y", partition=0, sequence=0).offset == 3


def test_asking_for_the_last_sequence_makes_no_topic() -> None:
    with Broker(":memory:", auto_create_topics=True) as broker:
        importer = Producer(broker, producer_id="importer")
        assert importer.last_sequence("t", 0) is None
        assert list(broker.topics) == []
        assert importer.send("t", b"0", sequence=0).offset == 0
        assert importer.last_sequence("t", 0) == 0
        with pytest.raises(UnknownPartitionError):
            importer.last_sequence("t", 1)
    with Broker(":memory:") as broker, pytest.raises(UnknownTopicError):
        Producer(broker, producer_id="importer").last_sequence("t", 0)


def test_records_without_a_sequence_are_numbered_too(broker: Broker, importer: Producer) -> None:
    importer.send("t", b"0", partition=0)
    importer.send_many("t", [b"1", b"2"], partition=0)
    with importer.batch() as batch:
        batch.send("t", b"3", partition=0)
        batch.send("t", b"4", partition=0)
    with importer.transaction() as tx:
        tx.send("t", b"5", partition=0)
        tx.send_many("t", [b"6", b"7"], partition=0)
    assert importer.last_sequence("t", 0) == 7
    assert importer.send("t", b"8", partition=0, sequence=8).offset > 7
    duplicate = importer.send("t", b"3", partition=0, sequence=3)
    assert broker.topic("t")[0].read(duplicate.offset, max_records=1).values == [b"3"]
    assert values_of(broker) == [b"%d" % number for number in range(9)]


def test_a_sequence_follows_its_key_into_a_partition_of_its_own(
    broker: Broker, importer: Producer
) -> None:
    keys = {number: b"key %d" % number for number in range(20)}
    due = {0: 0, 1: 0}
    for key in keys.values():
        partition = broker.topic("t").partition_for(key)
        sent = importer.send("t", b"v", key=key, sequence=due[partition])
        assert (sent.partition, sent.offset) == (partition, due[partition])
        due[partition] += 1
    assert min(due.values()) > 0


@pytest.mark.parametrize("sequence", [-1, -(2**70)])
def test_a_negative_sequence_is_refused(broker: Broker, importer: Producer, sequence: int) -> None:
    with pytest.raises(ConfigError, match="sequence"):
        importer.send("t", b"x", partition=0, sequence=sequence)
    with (
        importer.transaction() as tx,
        pytest.raises(ConfigError, match="sequence"),
    ):
        tx.send("t", b"x", partition=0, sequence=sequence)
    assert values_of(broker) == []


@pytest.mark.parametrize("sequence", [True, False, "0", 0.0, b"0", (0,)])
def test_a_sequence_is_a_whole_number(broker: Broker, importer: Producer, sequence: Any) -> None:
    with pytest.raises((TypeError, ConfigError), match="sequence"):
        importer.send("t", b"x", partition=0, sequence=sequence)
    assert values_of(broker) == []
    assert importer.last_sequence("t", 0) is None


def test_a_sequence_needs_a_producer_id(broker: Broker) -> None:
    broker.create_topic("t")
    producer = Producer(broker)
    with pytest.raises(ConfigError, match="producer_id"):
        producer.send("t", b"x", sequence=0)
    with producer.transaction() as tx, pytest.raises(ConfigError, match="producer_id"):
        tx.send("t", b"x", sequence=0)
    with pytest.raises(ConfigError, match="producer_id"):
        producer.last_sequence("t", 0)
    assert values_of(broker) == []


@pytest.mark.parametrize("name", ["", 5, b"importer", True, "x" * 100_000, "a\0b"])
def test_a_producer_id_that_is_no_name_is_refused(broker: Broker, name: Any) -> None:
    with pytest.raises((ConfigError, TypeError), match="producer_id"):
        Producer(broker, producer_id=name)


def test_a_gap_is_refused_and_changes_nothing(broker: Broker, importer: Producer) -> None:
    with pytest.raises(SequenceGapError, match="next is 0"):
        importer.send("t", b"x", partition=0, sequence=1)
    importer.send("t", b"0", partition=0, sequence=0)
    for sequence in (2, 1_000, 2**62, 2**80):
        with pytest.raises(SequenceGapError, match="next is 1"):
            importer.send("t", b"x", partition=0, sequence=sequence)
    with importer.transaction() as tx, pytest.raises(SequenceGapError):
        tx.send("t", b"x", partition=0, sequence=7)
    assert values_of(broker) == [b"0"]
    assert importer.last_sequence("t", 0) == 0
    assert importer.send("t", b"1", partition=0, sequence=1).partition == 0


def test_a_refused_record_uses_no_sequence(broker: Broker, importer: Producer) -> None:
    broker.topic("t").configure(max_record_bytes=10)
    with pytest.raises(ValueError, match="10"):
        importer.send("t", b"x" * 11, partition=0, sequence=0)
    with pytest.raises(TypeError):
        importer.send("t", "text", partition=0, sequence=0)
    assert importer.last_sequence("t", 0) is None
    assert importer.send("t", b"x", partition=0, sequence=0).offset == 0


# ---------------------------------------------------------------- duplicates


def test_a_duplicate_answers_with_what_it_was_then(location: Path | str) -> None:
    """At least 1,000 back, with others' records in between."""
    clock = ManualClock(1_000)
    with Broker(location, clock=clock, segment_bytes=4096) as broker:
        partition = broker.create_topic("t")[0]
        importer = Producer(broker, producer_id="importer")
        other = Producer(broker, producer_id="other")
        sent: list[RecordMetadata] = []
        for number in range(1_100):
            clock.advance(3)
            sent.append(importer.send("t", b"%d" % number, sequence=number))
            if number % 3 == 0:
                partition.append(b"plain")
            elif number % 3 == 1:
                other.send("t", b"other")
        end = partition.end_offset
        clock.advance(10_000)
        for number in range(1_099, 99, -1):
            assert importer.send("t", b"again", sequence=number) == sent[number]
        assert partition.end_offset == end
        assert importer.last_sequence("t", 0) == 1_099


def test_a_duplicate_answers_the_same_whatever_it_carries_now(
    broker: Broker, importer: Producer
) -> None:
    first = importer.send("t", b"x", partition=0, timestamp=77, sequence=0)
    again = importer.send(
        "t", b"another", key=b"k", partition=0, headers=[("h", b"1")], timestamp=99, sequence=0
    )
    assert again == first == RecordMetadata("t", 0, 0, 77)
    assert values_of(broker) == [b"x"]


def test_a_duplicate_too_long_ago_is_refused_as_what_it_is(broker: Broker) -> None:
    partition = broker.create_topic("t", segment_bytes=65536)[0]
    importer = Producer(broker, producer_id="importer")
    for number in range(1_500):
        importer.send("t", b"x", sequence=number)
        partition.append(b"between")  # so that no two follow each other
    end = partition.end_offset
    with pytest.raises(SequenceGapError, match="too long ago"):
        importer.send("t", b"x", sequence=0)
    assert partition.end_offset == end
    assert importer.send("t", b"x", sequence=499).partition == 0


def test_a_duplicate_of_a_deleted_record_is_not_written_again(
    broker: Broker, importer: Producer
) -> None:
    for number in range(30):
        importer.send("t", b"%d" % number * 20, partition=0, sequence=number)
    broker.topic("t")[0].delete_before(30)
    assert importer.send("t", b"x", partition=0, sequence=7).offset == 7
    assert values_of(broker) == []
    assert importer.last_sequence("t", 0) == 29
    with pytest.raises(OffsetOutOfRangeError):
        broker.topic("t")[0].read(7)


def test_a_duplicate_of_a_compacted_record_is_not_written_again(broker: Broker) -> None:
    broker.create_topic("t", cleanup_policy="compact", segment_bytes=256)
    importer = Producer(broker, producer_id="importer")
    for number in range(30):
        importer.send("t", b"%d" % number, key=b"k", timestamp=number, sequence=number)
    broker.topic("t").compact()
    assert len(broker.topic("t")[0]) == 1
    assert importer.send("t", b"x", key=b"k", sequence=7).offset == 7
    assert importer.last_sequence("t", 0) == 29
    assert len(broker.topic("t")[0]) == 1


@pytest.mark.parametrize("sync", ["never", "always"])
def test_a_duplicate_within_a_transaction_is_not_written_again(log_path: Path, sync: str) -> None:
    """With sync="always" nobody can read the original yet."""
    with Broker(log_path, sync=sync) as broker:  # type: ignore[arg-type]
        broker.create_topic("t")
        importer = Producer(broker, producer_id="importer")
        with importer.transaction() as tx:
            sent = [tx.send("t", b"%d" % n, sequence=n, timestamp=n) for n in range(3)]
            assert [tx.send("t", b"x", sequence=n) for n in range(3)] == sent
        assert [importer.send("t", b"x", sequence=n) for n in range(3)] == sent
        assert values_of(broker) == [b"0", b"1", b"2"]


def test_serializers_see_duplicates_and_nothing_more_is_written(broker: Broker) -> None:
    broker.create_topic("t")
    producer = Producer(
        broker, producer_id="i", value_serializer=str.encode, key_serializer=str.encode
    )
    first = producer.send("t", "v", key="k", sequence=0)
    assert producer.send("t", "v", key="k", sequence=0) == first
    assert producer.send("t", "w", key="k", sequence=1).offset == 1
    assert values_of(broker) == [b"v", b"w"]


# ---------------------------------------------------------------- fencing


def uses(producer: Producer) -> dict[str, Any]:
    def batch() -> None:
        with producer.batch() as batch:
            batch.send("t", b"x", partition=0)

    def transaction() -> None:
        with producer.transaction() as tx:
            tx.send("t", b"x", partition=0)

    return {
        "send": lambda: producer.send("t", b"x", partition=0),
        "send a sequence": lambda: producer.send("t", b"x", partition=0, sequence=0),
        "send more": lambda: producer.send("t", b"x", headers=[("h", b"")], partition=0),
        "send_many": lambda: producer.send_many("t", [b"x"], partition=0),
        "send_many of nothing": lambda: producer.send_many("t", []),
        "batch": batch,
        "transaction": transaction,
        "last_sequence": lambda: producer.last_sequence("t", 0),
    }


@pytest.mark.parametrize("name", uses(None))  # type: ignore[arg-type]
def test_the_older_one_of_a_name_is_fenced_at_its_next_call(
    broker: Broker, importer: Producer, name: str
) -> None:
    importer.send("t", b"before", partition=0)
    newer = Producer(broker, producer_id="importer")
    for _ in range(2):
        with pytest.raises(FencedError, match="importer"):
            uses(importer)[name]()
    assert values_of(broker) == [b"before"]
    assert newer.last_sequence("t", 0) == 0
    assert newer.send("t", b"after", partition=0, sequence=1).offset == 1


def test_a_fenced_one_makes_no_topic(location: Path | str) -> None:
    with Broker(location, auto_create_topics=True) as broker:
        older = Producer(broker, producer_id="i")
        newer = Producer(broker, producer_id="i")
        with pytest.raises(FencedError):
            older.send("made", b"x")
        with pytest.raises(ConfigError):
            newer.send("made", b"x", sequence=-1)
        assert "made" not in broker.topics


def test_fencing_cuts_off_a_batch_and_a_transaction_in_the_middle(
    broker: Broker, importer: Producer
) -> None:
    with pytest.raises(FencedError), importer.batch() as batch:  # noqa: PT012
        batch.send("t", b"1", partition=0)
        Producer(broker, producer_id="importer")
    older = Producer(broker, producer_id="importer")
    with pytest.raises(FencedError), older.transaction() as tx:  # noqa: PT012
        tx.send("t", b"2", partition=0)
        newer = Producer(broker, producer_id="importer")
        assert broker.topic("t")[0].stable_offset == broker.topic("t")[0].end_offset
        assert newer.send("t", b"3", partition=0, sequence=0).partition == 0
    assert values_of(broker) == [b"3"]
    with pytest.raises(FencedError):
        older.transaction()


def test_other_names_and_unnamed_ones_are_not_fenced(broker: Broker, importer: Producer) -> None:
    others = [Producer(broker), Producer(broker, producer_id="Importer")]
    Producer(broker, producer_id="importer")
    for number, other in enumerate(others):
        assert other.send("t", b"x", partition=0).offset == number
    importer.close()
    with pytest.raises(ClosedError):
        importer.send("t", b"x")


def test_a_reader_opens_no_named_producer(log_path: Path) -> None:
    with Broker(log_path) as broker:
        broker.create_topic("t")
        Producer(broker, producer_id="i").send("t", b"x")
    with Broker(log_path, read_only=True) as broker:
        with pytest.raises(ReadOnlyError):
            Producer(broker, producer_id="i")
        assert values_of(broker) == [b"x"]
        assert TopicPartition("t", 0).topic in broker.topics


def test_a_closed_broker_refuses_named_producers(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "log")
    broker.create_topic("t")
    producer = Producer(broker, producer_id="i")
    broker.close()
    for use in (lambda: producer.send("t", b"x", sequence=0), producer.transaction):
        with pytest.raises(ClosedError):
            use()
    with pytest.raises(ClosedError):
        Producer(broker, producer_id="j")
    shutil.rmtree(tmp_path / "log")
