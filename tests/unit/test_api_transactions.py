"""Transactions against api.md "Exactly once": what is sent together is seen together or never."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minilog import (
    Broker,
    ClosedError,
    ConfigError,
    Consumer,
    OffsetConflictError,
    Producer,
    ReadOnlyError,
    RecordTooLargeError,
    SequenceGapError,
    TransactionError,
    UnknownPartitionError,
    UnknownTopicError,
)
from minilog.testing import ManualClock


@pytest.fixture
def producer(broker: Broker) -> Producer:
    broker.create_topic("t", 3)
    broker.create_topic("u")
    return Producer(broker)


def seen(broker: Broker, *topics: str) -> list[bytes | None]:
    """What a new read_committed reader finds, in no order of partitions."""
    with Consumer(broker, *(topics or ("t", "u")), isolation="read_committed") as consumer:
        return sorted(record.value or b"" for record in consumer.drain())


def all_of(broker: Broker, *topics: str) -> list[bytes | None]:
    """What a new reader finds that does not care."""
    with Consumer(broker, *(topics or ("t", "u"))) as consumer:
        return sorted(record.value or b"" for record in consumer.drain())


def send_everywhere(tx: Any, value: bytes) -> None:
    for partition in range(3):
        tx.send("t", value, partition=partition)
    tx.send("u", value)


# ---------------------------------------------------------------- together or never


def test_all_is_seen_together_at_the_end(broker: Broker, producer: Producer) -> None:
    with Consumer(broker, "t", "u", isolation="read_committed") as consumer:
        with producer.transaction() as tx:
            send_everywhere(tx, b"1")
            assert consumer.poll().values == []
            assert seen(broker) == []
            assert all_of(broker) == [b"1"] * 4
        assert consumer.poll().values == [b"1"] * 4
    assert seen(broker) == [b"1"] * 4


def test_nothing_is_seen_when_the_block_is_left_by_an_exception(
    broker: Broker, producer: Producer
) -> None:
    with pytest.raises(ZeroDivisionError), producer.transaction() as tx:  # noqa: PT012
        send_everywhere(tx, b"never")
        _ = 1 // 0
    assert seen(broker) == []
    assert all_of(broker) == [b"never"] * 4
    assert [len(partition) for partition in broker.topic("t")] == [0, 0, 0]


def test_nothing_is_seen_after_abort_and_the_block_goes_on(
    broker: Broker, producer: Producer
) -> None:
    with producer.transaction() as tx:
        send_everywhere(tx, b"never")
        tx.abort()
        assert broker.topic("u")[0].stable_offset == broker.topic("u")[0].end_offset
        tx.abort()
        with pytest.raises(TransactionError, match="aborted"):
            tx.send("t", b"x")
    assert seen(broker) == []


def test_leaving_by_an_exception_after_abort_lets_that_out(
    broker: Broker, producer: Producer
) -> None:
    with pytest.raises(KeyError), producer.transaction() as tx:  # noqa: PT012
        tx.send("u", b"never")
        tx.abort()
        raise KeyError
    assert seen(broker) == []


def test_after_its_end_every_call_is_refused(broker: Broker, producer: Producer) -> None:
    with producer.transaction() as tx:
        tx.send("u", b"1")
    for use in (
        lambda: tx.send("u", b"x"),
        lambda: tx.send_many("u", [b"x"]),
        lambda: tx.send_many("u", []),
        lambda: tx.commit_offsets({("u", 0): 0}, group="g"),
        tx.__enter__,
    ):
        with pytest.raises(TransactionError, match="committed"):
            use()
    tx.abort()  # has nothing left to end
    assert seen(broker) == [b"1"]
    assert "g" not in broker.groups


def test_an_empty_transaction_is_nothing(broker: Broker, producer: Producer) -> None:
    for _ in range(3):
        with producer.transaction():
            pass
    with producer.transaction() as tx:
        assert tx.send_many("u", []) == {}
        tx.abort()
    assert broker.topic("u")[0].end_offset == 0
    assert seen(broker) == []


def test_transactions_of_two_producers_interleave(broker: Broker) -> None:
    partition = broker.create_topic("u")[0]
    with Consumer(broker, "u", isolation="read_committed") as consumer:
        first, second = Producer(broker).transaction(), Producer(broker).transaction()
        with first:
            first.send("u", b"a1")
            with second:
                second.send("u", b"b1")
                partition.append(b"plain")
                first.send("u", b"a2")
                second.send("u", b"b2")
                assert partition.stable_offset == 0
            assert partition.stable_offset == 0  # the other one is open, and older
            assert consumer.poll().values == []
        assert consumer.poll().values == [b"a1", b"b1", b"plain", b"a2", b"b2"]


def test_of_two_that_interleave_one_is_aborted(broker: Broker, producer: Producer) -> None:
    first, second = producer.transaction(), producer.transaction()
    with second:
        for number in range(5):
            first.send("u", b"never %d" % number)
            second.send("u", b"%d" % number)
        first.abort()
        assert broker.topic("u")[0].stable_offset == 1
    assert seen(broker) == [b"0", b"1", b"2", b"3", b"4"]
    assert [record.value for record in broker.topic("u")[0]] == seen(broker)


def test_a_named_producer_has_one_transaction_at_a_time(broker: Broker, producer: Producer) -> None:
    named = Producer(broker, producer_id="i")
    with named.transaction() as tx:
        for use in (
            named.transaction,
            lambda: named.send("u", b"x"),
            lambda: named.send("u", b"x", headers=[("h", b"")]),
            lambda: named.send_many("u", [b"x"]),
        ):
            with pytest.raises(TransactionError, match="in a transaction"):
                use()
        batch = named.batch()
        batch.send("u", b"x")
        with pytest.raises(TransactionError, match="in a transaction"):
            batch.flush()
        tx.send("u", b"1")
        producer.send("u", b"2")
    with named.transaction() as tx:
        tx.send("u", b"3")
    named.send("u", b"4")
    assert seen(broker) == [b"1", b"2", b"3", b"4"]


# ---------------------------------------------------------------- the timeout


def test_after_its_timeout_it_is_aborted(location: Path | str) -> None:
    clock = ManualClock()
    with Broker(location, clock=clock) as broker:
        partition = broker.create_topic("u")[0]
        producer = Producer(broker, transaction_timeout_ms=500)
        with pytest.raises(TransactionError, match="500"), producer.transaction() as tx:  # noqa: PT012
            tx.send("u", b"never")
            clock.advance(499)
            tx.send("u", b"never")
            clock.advance(1)
            assert partition.stable_offset == partition.end_offset
            assert seen(broker, "u") == []
            tx.send("u", b"never")
        with pytest.raises(TransactionError), producer.transaction() as tx:  # noqa: PT012
            tx.send("u", b"never")
            clock.advance(500)  # and its end comes too late
        assert seen(broker, "u") == []
        producer.send("u", b"after")
        assert seen(broker, "u") == [b"after"]


def test_the_timeout_is_60_seconds_by_default(broker: Broker) -> None:
    clock = ManualClock()
    with Broker(":memory:", clock=clock) as mine:
        mine.create_topic("u")
        tx = Producer(mine).transaction()
        tx.send("u", b"x")
        clock.advance(59_999)
        assert mine.topic("u")[0].stable_offset == 0
        clock.advance(1)
        assert mine.topic("u")[0].stable_offset == mine.topic("u")[0].end_offset


class TurnedByNobody:
    """A clock that tells nobody when it goes on."""

    ms = 0

    def now_ms(self) -> int:
        return self.ms


def test_an_expired_one_of_a_named_producer_is_in_nobodys_way() -> None:
    """Nobody has kept house: whoever comes first aborts it."""
    clock = TurnedByNobody()
    with Broker(":memory:", clock=clock) as broker:
        partition = broker.create_topic("u")[0]
        named = Producer(broker, producer_id="i")
        for use in (
            lambda: named.send("u", b"x"),
            lambda: named.send_many("u", [b"x"]),
            lambda: partition.delete_before(partition.end_offset),
            lambda: partition.stable_offset,
            lambda: seen(broker, "u"),
            broker.maintain,
            lambda: Producer(broker).transaction().abort(),
        ):
            tx = named.transaction()
            tx.send("u", b"never")
            clock.ms += 60_000
            use()
            with pytest.raises(TransactionError):
                tx.send("u", b"never")
            named.transaction().abort()
        assert set(seen(broker, "u")) <= {b"x"}


@pytest.mark.parametrize("timeout", [0, -1, True, "1", 1.5, None])
def test_a_timeout_that_is_none_is_refused(broker: Broker, timeout: Any) -> None:
    with pytest.raises((ConfigError, TypeError), match="transaction_timeout_ms"):
        Producer(broker, transaction_timeout_ms=timeout)


# ---------------------------------------------------------------- what goes wrong


def test_a_refused_record_leaves_the_transaction_open(broker: Broker, producer: Producer) -> None:
    broker.topic("u").configure(max_record_bytes=10)
    with producer.transaction() as tx:
        tx.send("u", b"1")
        for error, use in (
            (RecordTooLargeError, lambda: tx.send("u", b"x" * 11)),
            (RecordTooLargeError, lambda: tx.send_many("u", [b"x" * 11])),
            (TypeError, lambda: tx.send("u", "text")),
            (UnknownTopicError, lambda: tx.send("missing", b"x")),
            (UnknownPartitionError, lambda: tx.send("u", b"x", partition=1)),
            (ConfigError, lambda: tx.send_many("u", [b"x"], keys=[])),
        ):
            with pytest.raises(error):
                use()
        tx.send("u", b"2")
    assert seen(broker) == [b"1", b"2"]


def test_a_topic_deleted_meanwhile_aborts_the_rest(broker: Broker, producer: Producer) -> None:
    with pytest.raises(UnknownTopicError), producer.transaction() as tx:  # noqa: PT012
        send_everywhere(tx, b"never")
        broker.delete_topic("u")
    assert seen(broker, "t") == []
    for partition in broker.topic("t"):
        assert partition.stable_offset == partition.end_offset
    broker.create_topic("u")
    with producer.transaction() as tx:
        send_everywhere(tx, b"1")
    assert seen(broker) == [b"1"] * 4


def test_partitions_added_meanwhile_can_be_sent_to(broker: Broker, producer: Producer) -> None:
    with producer.transaction() as tx:
        tx.send("u", b"1")
        broker.topic("u").add_partitions(2)
        tx.send("u", b"2", partition=1)
        assert seen(broker) == []
    assert seen(broker) == [b"1", b"2"]


def test_a_closed_producer_begins_and_sends_nothing(broker: Broker, producer: Producer) -> None:
    with pytest.raises(ClosedError), producer.transaction() as tx:  # noqa: PT012
        tx.send("u", b"never")
        producer.close()
        tx.send("u", b"never")
    with pytest.raises(ClosedError):
        producer.transaction()
    assert seen(broker) == []


def test_closing_the_broker_aborts(location: Path | str) -> None:
    broker = Broker(location)
    broker.create_topic("u")
    producer = Producer(broker)
    with pytest.raises((ClosedError, TransactionError)), producer.transaction() as tx:  # noqa: PT012
        tx.send("u", b"never")
        broker.close()
    with pytest.raises(ClosedError):
        producer.transaction()
    if location != ":memory:":
        with Broker(location) as broker:
            assert broker.recovery.ok
            assert seen(broker, "u") == []
            assert broker.topic("u")[0].stable_offset == broker.topic("u")[0].end_offset


def test_a_reader_begins_none(log_path: Path) -> None:
    with Broker(log_path) as broker:
        broker.create_topic("u")
    with Broker(log_path, read_only=True) as broker, pytest.raises(ReadOnlyError):
        Producer(broker).transaction()


# ---------------------------------------------------------------- beside them


def test_expected_offsets_and_batches_beside_open_transactions(
    broker: Broker, producer: Producer
) -> None:
    partition = broker.topic("u")[0]
    with producer.transaction() as tx:
        assert tx.send("u", b"t0").offset == 0
        assert partition.append(b"p1", expected_offset=1) == 1
        with pytest.raises(OffsetConflictError) as conflict:
            partition.append(b"x", expected_offset=1)
        assert (conflict.value.expected, conflict.value.actual) == (1, 2)
        assert partition.append_many([b"p2", b"p3"]) == range(2, 4)
        assert tx.send_many("u", [b"t4", b"t5"]) == {0: range(4, 6)}
    assert partition.append(b"p7", expected_offset=7) == 7  # the marker has used 6
    assert [r.offset for r in partition] == [0, 1, 2, 3, 4, 5, 7]
    assert seen(broker) == [b"p1", b"p2", b"p3", b"p7", b"t0", b"t4", b"t5"]
    partition.check()


def test_what_a_record_has_is_kept(broker: Broker) -> None:
    broker.create_topic("t", 4)
    producer = Producer(broker, value_serializer=str.encode, key_serializer=str.encode)
    with producer.transaction() as tx:
        sent = tx.send("t", "v", key="k", headers=[("h", b"1"), ("h", None)], timestamp=5)
        tx.send_many("t", ["a", None], keys=["k", "k"], timestamps=[6, 7], headers=[(), {"x": b""}])
    assert (sent.topic, sent.partition) == ("t", broker.topic("t").partition_for(b"k"))
    records = list(broker.topic("t")[sent.partition])
    assert [(r.key, r.value, r.timestamp, r.headers) for r in records] == [
        (b"k", b"v", 5, (("h", b"1"), ("h", None))),
        (b"k", b"a", 6, ()),
        (b"k", None, 7, (("x", b""),)),
    ]


@pytest.mark.parametrize("how", ["send", "send with headers", "send_many", "batch"])
def test_a_named_producer_sends_nothing_beside_a_transaction_that_begins_meanwhile(
    how: str,
) -> None:
    """Another thread began one between the look for it and the append. What was sent beside it
    was numbered among its records; its abort took those numbers back, to be given out again."""
    with Broker(":memory:") as broker:
        broker.create_topic("t", 2)
        begun: list[Any] = []
        begins = False

        def partitioner(key: bytes, count: int) -> int:
            nonlocal begins
            if begins:  # as another thread would
                begins = False
                begun.append(producer.transaction())
                begun[0].send("t", b"within", partition=0)
            return 0

        producer = Producer(broker, producer_id="importer", partitioner=partitioner)
        assert producer.send("t", b"before", key=b"k", sequence=0).offset == 0
        batch = producer.batch()

        def send() -> None:
            if how == "send_many":
                producer.send_many("t", [b"beside"], keys=[b"k"])
            elif how == "batch":
                batch.flush()
            else:
                headers = [("h", b"")] if how == "send with headers" else []
                producer.send("t", b"beside", key=b"k", headers=headers)

        begins = True
        if how == "batch":
            batch.send("t", b"beside", key=b"k")
        with pytest.raises(TransactionError, match="is in a transaction"):
            send()
        begun[0].abort()
        assert producer.last_sequence("t", 0) == 0
        assert producer.send("t", b"after", key=b"k", sequence=1).offset == 3
        assert [record.value for record in broker.topic("t")[0]] == [b"before", b"after"]


# ---------------------------------------------------------------- the short way of one record


@pytest.mark.parametrize("name", [None, "importer"])
@pytest.mark.parametrize("is_commit", [True, False])
def test_records_on_the_short_and_the_long_way_are_of_one_transaction(
    tmp_path: Path, name: str | None, is_commit: bool
) -> None:
    with Broker(tmp_path / "log") as broker:
        broker.create_topic("u")
        producer = Producer(broker, producer_id=name)
        with producer.transaction() as tx:
            for number in range(4):
                short = tx.send("u", b"short", key=b"k")
                long = tx.send("u", b"long", key=bytearray(b"k"))  # which needs a look
                assert (short.offset, long.offset) == (2 * number, 2 * number + 1)
                assert short.topic == long.topic == "u"
            if not is_commit:
                tx.abort()
        if name is not None:
            assert producer.last_sequence("u", 0) == (7 if is_commit else None)
    with Broker(tmp_path / "log") as broker:
        assert broker.recovery.ok
        expected = [b"short", b"long"] * 4 if is_commit else []
        with Consumer(broker, "u", isolation="read_committed") as consumer:
            assert consumer.poll().values == expected
        if name is not None:
            last = Producer(broker, producer_id=name).last_sequence("u", 0)
            assert last == (7 if is_commit else None)


def test_sequence_on_the_short_way_is_written_once(broker: Broker) -> None:
    broker.create_topic("u")
    producer = Producer(broker, producer_id="importer")
    with producer.transaction() as tx:
        sent = [tx.send("u", b"v", key=b"k", sequence=number).offset for number in (0, 1, 1, 2)]
        with pytest.raises(SequenceGapError):
            tx.send("u", b"v", key=b"k", sequence=4)
    assert sent == [0, 1, 1, 2]
    assert seen(broker, "u") == [b"v"] * 3


def test_late_record_on_the_short_way_is_refused(clock: ManualClock) -> None:
    with Broker(":memory:", clock=clock) as broker:
        broker.create_topic("u")
        producer = Producer(broker, transaction_timeout_ms=1000)
        tx = producer.transaction()
        tx.send("u", b"v", key=b"k")
        clock.advance(1000)
        with pytest.raises(TransactionError, match="longer than 1000 ms"):
            tx.send("u", b"v", key=b"k")
        assert len(broker.topic("u")[0]) == 0
