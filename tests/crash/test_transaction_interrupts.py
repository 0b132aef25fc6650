"""KeyboardInterrupt before every bytecode of a transaction: it is whole or is not, and is over."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from test_interrupts import it_ends

import minilog.ledger
from minilog import Broker, Consumer, Producer, TransactionError
from minilog.testing import ManualClock
from tests.torture.interrupts import everywhere, interrupt


def opened(path: Path | str, clock: ManualClock | None = None) -> Broker:
    return Broker(path, clock=clock or ManualClock(), maintenance_interval_ms=0, sync="never")


def transact(producer: Producer, number: int) -> None:
    with producer.transaction() as tx:
        for partition in (0, 1):
            tx.send("t", b"%d for %d" % (number, partition), partition=partition)
        tx.commit_offsets({("in", 0): number}, group="g")


def found(broker: Broker) -> list[list[bytes | None]]:
    """What is committed, by partition; the group's offset must go with it."""
    values: list[list[bytes | None]] = [[], []]
    with Consumer(broker, "t", isolation="read_committed") as consumer:
        for record in consumer.drain():
            values[record.partition].append(record.value)
    committed = broker.groups["g"].committed() if "g" in broker.groups else {}
    last = max((int(value.split()[0]) for value in values[0] if value), default=0)
    assert committed.get(("in", 0), 0) == last  # type: ignore[call-overload]
    for partition in broker.topic("t"):
        assert partition.stable_offset == partition.end_offset
        assert [record.value for record in partition] == values[partition.index]
        partition.check()
    return values


def values_of(*numbers: int) -> list[list[bytes]]:
    return [[b"%d for %d" % (number, partition) for number in numbers] for partition in (0, 1)]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="opcodes are traced as 3.11 has them")
@pytest.mark.parametrize("name", [None, "p"])
@pytest.mark.parametrize("snapshot_bytes", [1, 1 << 20])
def test_a_transaction_interrupted_at_any_instruction_is_whole_or_not_there(
    monkeypatch: pytest.MonkeyPatch, name: str | None, snapshot_bytes: int
) -> None:
    monkeypatch.setattr(minilog.ledger, "SNAPSHOT_BYTES", snapshot_bytes)
    failures, step = [], 37 if snapshot_bytes == 1 else 17
    for number in range(0, 100_000, step):
        clock = ManualClock()
        broker = opened(":memory:", clock)
        broker.create_topic("in")[0].append_many([b"x"] * 9)
        broker.create_topic("t", 2)
        producer = Producer(broker, producer_id=name)
        transact(producer, 1)
        place: str | None = "before it began"
        try:
            with it_ends():
                place = interrupt(
                    lambda producer=producer: transact(producer, 2), number, everywhere
                )
                clock.advance(60_000)  # one that was begun, and never handed over
                numbers = [1, 2] if found(broker) == values_of(1, 2) else [1]
                assert found(broker) == values_of(*numbers)
                transact(producer, 3)
                assert found(broker) == values_of(*numbers, 3)
                if name is not None:
                    sent = producer.send("t", b"4 for 0", partition=0, sequence=len(numbers) + 1)
                    assert sent.partition == 0
                broker.close()
        except Exception as error:
            failures.append(f"{number}, {place}: {error!r}")
            broker.refuse_in_child()
        if place is None:
            break
    assert number > 100
    assert not failures, f"{len(failures)}\n" + "\n".join(failures[:20])


def test_an_expired_transaction_of_a_name_ends_before_the_next(tmp_path: Path) -> None:
    clock = ManualClock()
    with opened(tmp_path / "log", clock) as broker:
        broker.create_topic("t", 2)
        producer = Producer(broker, producer_id="p")
        tx = producer.transaction()
        with pytest.raises(TransactionError):
            producer.transaction()
        clock.advance(60_000)
        producer.transaction().abort()
        with pytest.raises(TransactionError):
            tx.send("t", b"x")
