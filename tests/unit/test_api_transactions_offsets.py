"""A group's offsets in transactions: committed with the records, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minilog import (
    Broker,
    CommitError,
    ConfigError,
    Consumer,
    Partition,
    Producer,
    TopicPartition,
    TransactionError,
    UnknownTopicError,
)
from minilog.ledger import Ledger
from minilog.testing import ManualClock

IN = TopicPartition("in", 0)


@pytest.fixture
def partition(broker: Broker) -> Partition:
    broker.create_topic("out")
    partition = broker.create_topic("in", 2)[0]
    partition.append_many([b"%d" % number for number in range(10)])
    broker.topic("in")[1].append_many([b"%d" % number for number in range(5)])
    return partition


def committed(broker: Broker, group: str = "g") -> dict[TopicPartition, int]:
    return broker.groups[group].committed() if group in broker.groups else {}


def test_offsets_are_committed_with_the_records(broker: Broker, partition: Partition) -> None:
    with Consumer(broker, "in", group="g") as consumer:
        consumer.poll()
        with Producer(broker).transaction() as tx:
            tx.send("out", b"x")
            tx.commit_offsets(consumer)
            assert committed(broker) == {}
            assert consumer.committed(IN) is None
        assert consumer.committed(IN) == 10
    assert committed(broker) == {IN: 10, TopicPartition("in", 1): 5}
    with Consumer(broker, "in", group="g") as consumer:
        assert consumer.poll().values == []


@pytest.mark.parametrize("how", ["abort", "exception", "timeout"])
def test_offsets_of_an_aborted_transaction_are_not_committed(how: str, location: Any) -> None:
    clock = ManualClock()
    with Broker(location, clock=clock) as broker:
        broker.create_topic("in")[0].append_many([b"0", b"1"])
        producer = Producer(broker)
        with Consumer(broker, "in", group="g") as consumer:
            consumer.poll()
            try:
                with producer.transaction() as tx:
                    tx.commit_offsets(consumer)
                    tx.commit_offsets({IN: 1}, group="h")
                    if how == "abort":
                        tx.abort()
                    elif how == "timeout":
                        clock.advance(60_000)
                    else:
                        raise KeyError
            except (KeyError, TransactionError):
                assert how != "abort"
        assert committed(broker) == committed(broker, "h") == {}
        with Consumer(broker, "in", group="g") as consumer:
            assert consumer.poll().values == [b"0", b"1"]


def test_offsets_alone_make_a_transaction(broker: Broker, partition: Partition) -> None:
    with Producer(broker).transaction() as tx:
        tx.commit_offsets({IN: 4}, group="g")
        tx.commit_offsets({("in", 1): 2}, group="g")
        tx.commit_offsets({("in", 0): 7}, group="h")
        tx.commit_offsets({}, group="i")
    assert committed(broker) == {IN: 4, TopicPartition("in", 1): 2}
    assert committed(broker, "h") == {IN: 7}
    assert "i" not in broker.groups
    assert partition.end_offset == 10


def test_the_last_offsets_given_are_committed(broker: Broker, partition: Partition) -> None:
    with Consumer(broker, "in", group="g") as consumer, Producer(broker).transaction() as tx:
        for _ in range(20):
            consumer.poll(max_records=1)
            tx.commit_offsets(consumer)
    assert committed(broker) == {IN: 10, TopicPartition("in", 1): 5}


def test_from_then_on_a_consumer_commits_nothing_by_itself(
    broker: Broker, partition: Partition
) -> None:
    with Consumer(broker, "in", group="g") as consumer:
        consumer.poll(max_records=4)
        with Producer(broker).transaction() as tx:
            tx.commit_offsets(consumer)
        before = committed(broker)
        while consumer.poll(max_records=4):
            assert committed(broker) == before
    assert committed(broker) == before
    assert sum(before.values()) == 4


def test_what_was_polled_in_transactions_is_delivered_once(
    broker: Broker, partition: Partition
) -> None:
    """Members come and go, every third step fails."""
    producer, got = Producer(broker), []
    for step in range(40):
        with Consumer(broker, "in", group="g", isolation="read_committed") as consumer:
            records = consumer.poll(max_records=2)
            with producer.transaction() as tx:
                tx.send_many("out", records.values)
                tx.commit_offsets(consumer)
                if step % 3 == 0:
                    tx.abort()
                    continue
        got += records.values
    with Consumer(broker, "out", isolation="read_committed") as reader:
        assert [record.value for record in reader.drain()] == got
    assert sorted(got) == sorted([b"%d" % n for n in range(10)] + [b"%d" % n for n in range(5)])


def test_the_offsets_of_two_members_may_go_into_one(broker: Broker, partition: Partition) -> None:
    with Consumer(broker, "in", group="g") as one, Consumer(broker, "in", group="g") as two:
        one.poll()
        two.poll()
        one.seek_to_beginning()
        one.poll()
        two.poll()
        assert len(one.assignment()) == len(two.assignment()) == 1
        with Producer(broker).transaction() as tx:
            tx.commit_offsets(one)
            tx.commit_offsets(two)
    assert committed(broker) == {IN: 10, TopicPartition("in", 1): 5}


# ---------------------------------------------------------------- refused


def test_a_partition_that_moved_on_is_refused_at_the_end_and_nothing_is_seen() -> None:
    clock = ManualClock()
    with Broker(":memory:", clock=clock) as broker:
        broker.create_topic("out")
        broker.create_topic("in")[0].append_many([b"0", b"1", b"2"])
        slow = Consumer(broker, "in", group="g", max_poll_interval_ms=1000)
        quick = Consumer(broker, "in", group="g", max_poll_interval_ms=100_000)
        slow.poll()
        with (  # noqa: PT012
            pytest.raises(CommitError, match="not this member's"),
            Producer(broker).transaction() as tx,
        ):
            tx.send("out", b"never")
            tx.commit_offsets(slow)
            clock.advance(1000)
            assert quick.poll().values == [b"0", b"1", b"2"]
        with Consumer(broker, "out", isolation="read_committed") as reader:
            assert list(reader.drain()) == []
        assert committed(broker) == {}
        with pytest.raises(CommitError), Producer(broker).transaction() as tx:
            tx.commit_offsets(slow)  # and here it is known at once
        with Producer(broker).transaction() as tx:
            tx.commit_offsets(quick)
        assert committed(broker) == {IN: 3}


def test_offsets_of_a_group_with_members_are_only_theirs_to_commit(
    broker: Broker, partition: Partition
) -> None:
    with Consumer(broker, "in", group="g") as consumer, Producer(broker).transaction() as tx:
        consumer.poll()
        with pytest.raises(CommitError, match="members"):
            tx.commit_offsets({IN: 1}, group="g")
        tx.send("out", b"x")
    with pytest.raises(CommitError, match="members"), Producer(broker).transaction() as tx:  # noqa: PT012
        tx.commit_offsets({IN: 1}, group="h")
        member = Consumer(broker, "in", group="h")
    member.close()
    assert committed(broker, "h") == {}


def test_bad_offsets_are_refused_and_the_transaction_goes_on(
    broker: Broker, partition: Partition
) -> None:
    loose = Consumer(broker, "in")
    with Producer(broker).transaction() as tx:
        for error, offsets, group in (
            (ConfigError, {IN: 1}, None),
            (ConfigError, {IN: -1}, "g"),
            (ConfigError, {IN: 1}, ""),
            (CommitError, {IN: 11}, "g"),
            ((UnknownTopicError, CommitError), {("missing", 0): 0}, "g"),
            (LookupError, {("in", 7): 0}, "g"),
            (TypeError, {IN: "1"}, "g"),
            (TypeError, {IN: True}, "g"),
            (TypeError, {"in": 1}, "g"),
            (TypeError, [IN], "g"),
            (TypeError, None, "g"),
            (ConfigError, loose, None),
            (ConfigError, Consumer(broker, "in", group="h"), "h"),
        ):
            with pytest.raises(error):  # type: ignore[arg-type]
                tx.commit_offsets(offsets, group=group)  # type: ignore[arg-type]
        tx.commit_offsets({IN: 1}, group="g")
    assert committed(broker) == {IN: 1}
    assert "h" not in broker.groups or not committed(broker, "h")


def test_a_topic_deleted_meanwhile_is_refused_at_the_end(
    broker: Broker, partition: Partition
) -> None:
    with (  # noqa: PT012
        pytest.raises((CommitError, UnknownTopicError)),
        Producer(broker).transaction() as tx,
    ):
        tx.send("out", b"never")
        tx.commit_offsets({IN: 1}, group="g")
        broker.delete_topic("in")
    assert committed(broker) == {}
    assert len(broker.topic("out")[0]) == 0


@pytest.mark.parametrize("closes", [True, False])
def test_committed_offsets_survive_reopening(log_path: Path, closes: bool) -> None:
    with Broker(log_path) as broker:
        broker.create_topic("in")[0].append_many([b"0", b"1"])
        for offset in (1, 2):
            with Producer(broker).transaction() as tx:
                tx.commit_offsets({IN: offset}, group="g")
        if not closes:
            broker.flush()
    with Broker(log_path) as broker:
        assert committed(broker) == {IN: 2}


def test_offsets_are_never_seen_before_the_records_they_were_committed_with(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were while the record that commits both waited for the disk."""
    whole = Ledger.wait_until_kept
    looks: list[tuple[Any, list[bytes | None]]] = []

    def look_and_wait(ledger: Ledger, end: int) -> None:
        if not looks:
            looks.append((None, []))  # looking waits here, too
            offsets = committed(broker)
            with Consumer(broker, "out", isolation="read_committed") as consumer:
                looks[0] = (offsets, consumer.poll().values)
        whole(ledger, end)

    with Broker(log_path, sync="always") as broker:
        broker.create_topic("in")[0].append(b"0")
        broker.create_topic("out")
        monkeypatch.setattr(Ledger, "wait_until_kept", look_and_wait)
        with Producer(broker, producer_id="p").transaction() as tx:
            tx.send("out", b"made of 0")
            tx.commit_offsets({IN: 1}, group="g")
        assert looks == [({IN: 1}, [b"made of 0"])]
        assert committed(broker) == {IN: 1}
        with Consumer(broker, "out", isolation="read_committed") as consumer:
            assert consumer.poll().values == [b"made of 0"]
