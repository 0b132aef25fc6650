"""The recipe for event sourcing: whoever decides has seen all that came before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import Running

from minilog import Broker, OffsetOutOfRangeError, Producer, Record, UnknownTopicError
from minilog.recipes import Aggregate, Aggregates
from minilog.testing import ManualClock


@pytest.fixture(params=["memory", "disk", "disk, kept at once"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    sync: Any = "always" if "at once" in request.param else "interval"
    with Broker(path, clock=ManualClock(1000), segment_bytes=4096, sync=sync) as opened:
        opened.create_topic("accounts", partitions=3)
        opened.create_topic("snapshots", partitions=2, cleanup_policy="compact")
        yield opened


class Balance:
    """What evolves a balance, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.asked = 0

    def evolve(self, balance: int, record: Record) -> int:
        self.asked += 1
        return balance + int(record.value or b"0")


def accounts_of(broker: Broker, balance: Balance | None = None, **settings: Any) -> Aggregates[int]:
    evolve = (balance or Balance()).evolve
    return Aggregates(broker, "accounts", initial=0, evolve=evolve, **settings)


def snapshotting(broker: Broker, balance: Balance | None = None, every: int = 10) -> Any:
    return accounts_of(
        broker, balance, snapshots="snapshots", snapshot_every=every, encode=encode, decode=int
    )


def encode(balance: int) -> bytes:
    return b"%d" % balance


def deposit(amount: int) -> Any:
    return lambda balance: b"%d" % amount


def withdraw(amount: int) -> Any:
    def decide(balance: int) -> bytes:
        if balance < amount:
            raise ValueError("there is not enough")
        return b"%d" % -amount

    return decide


def test_the_state_is_what_the_records_of_a_key_come_to(broker: Broker) -> None:
    accounts = accounts_of(broker)
    assert accounts.load(b"ann").state == 0
    assert accounts.execute(b"ann", deposit(50)).state == 50
    assert accounts.execute(b"bob", deposit(7)).state == 7
    assert accounts.execute(b"ann", withdraw(30)).state == 20
    assert accounts.load(b"ann") == Aggregate(20, accounts.load(b"ann").next_offset, 2)
    assert (accounts.load(b"bob").state, accounts.load(b"eve").state) == (7, 0)
    assert accounts_of(broker).load(b"ann").state == 20


def test_what_a_decision_raises_comes_out_and_appends_nothing(broker: Broker) -> None:
    accounts = accounts_of(broker)
    accounts.execute(b"ann", deposit(5))
    with pytest.raises(ValueError, match="not enough"):
        accounts.execute(b"ann", withdraw(6))
    assert accounts.execute(b"ann", lambda balance: None).state == 5
    assert sum(len(partition) for partition in broker.topic("accounts")) == 1


def test_who_comes_second_sees_what_came_first_and_decides_again(broker: Broker) -> None:
    accounts, rival = accounts_of(broker), accounts_of(broker)
    accounts.execute(b"ann", deposit(50))
    seen: list[int] = []

    def decide(balance: int) -> bytes:
        seen.append(balance)
        if len(seen) == 1:
            rival.execute(b"ann", withdraw(40))
        return withdraw(40)(balance)

    with pytest.raises(ValueError, match="not enough"):
        accounts.execute(b"ann", decide)
    assert seen == [50, 10]
    assert accounts.load(b"ann").state == 10


def test_a_record_of_another_key_in_the_partition_only_costs_another_look(broker: Broker) -> None:
    accounts = accounts_of(broker)
    topic = broker.topic("accounts")
    other = next(
        b"%d" % n for n in range(100) if topic.partition_for(b"%d" % n) == topic.partition_for(b"k")
    )
    seen: list[int] = []

    def decide(balance: int) -> bytes:
        seen.append(balance)
        if len(seen) == 1:
            accounts.execute(other, deposit(1))
        return b"2"

    assert accounts.execute(b"k", decide).state == 2
    assert (seen, accounts.load(other).state) == ([0, 0], 1)


def test_threads_that_race_overdraw_no_account_and_lose_no_decision(broker: Broker) -> None:
    names = [b"ann", b"bob"]
    for name in names:
        accounts_of(broker).execute(name, deposit(60))

    def spend(seed: int) -> dict[bytes, int]:
        chance, accounts = random.Random(seed), snapshotting(broker, every=7)
        spent = dict.fromkeys(names, 0)
        for _ in range(30):
            name, amount = chance.choice(names), chance.randrange(1, 4)
            try:
                accounts.execute(name, withdraw(amount))
            except ValueError:
                continue
            spent[name] += amount
        return spent

    spent = [running.result() for running in [Running(lambda n=n: spend(n)) for n in range(4)]]  # type: ignore[misc]
    for name in names:
        left = accounts_of(broker).load(name).state
        assert left == 60 - sum(each[name] for each in spent) >= 0
        assert snapshotting(broker).load(name).state == left


def test_a_snapshot_spares_reading_what_it_covers_and_changes_nothing(broker: Broker) -> None:
    accounts = snapshotting(broker)
    for number in range(25):
        accounts.execute(b"ann", deposit(number))
        accounts.execute(b"bob", deposit(1))
    count = sum(len(partition) for partition in broker.topic("snapshots"))
    assert count == 4, "one for every ten records of a key"
    balance = Balance()
    assert snapshotting(broker, balance).load(b"ann").state == sum(range(25))
    assert balance.asked == 5
    broker.topic("snapshots").compact()
    assert snapshotting(broker, balance).load(b"bob").state == 25
    assert accounts.load(b"bob") == accounts_of(broker).load(b"bob")
    assert accounts.execute(b"ann", deposit(100)).state == sum(range(25)) + 100


def test_snapshots_survive_a_reopening_and_the_deletion_of_what_they_cover(
    tmp_path: Path,
) -> None:
    with Broker(tmp_path / "log") as broker:
        broker.create_topic("accounts")
        broker.create_topic("snapshots", cleanup_policy="compact")
        for _ in range(25):
            snapshotting(broker).execute(b"ann", deposit(2))
    with Broker(tmp_path / "log") as broker:
        broker.topic("accounts")[0].delete_before(20)
        assert snapshotting(broker).load(b"ann").state == 50
        with pytest.raises(OffsetOutOfRangeError):
            accounts_of(broker).load(b"ann")


def test_snapshots_of_a_topic_that_was_deleted_are_not_of_the_one_made_again(
    broker: Broker,
) -> None:
    accounts = snapshotting(broker, every=2)
    for _ in range(5):
        accounts.execute(b"ann", deposit(10))
    broker.delete_topic("accounts")
    broker.create_topic("accounts", partitions=3)
    again = snapshotting(broker, every=2)
    assert again.load(b"ann").state == 0
    assert again.execute(b"ann", deposit(1)).state == 1
    assert again.execute(b"ann", deposit(1)).state == 2
    assert snapshotting(broker, every=2).load(b"ann").state == 2


def test_records_of_transactions_that_were_aborted_do_not_hold_it_up(broker: Broker) -> None:
    accounts = accounts_of(broker)
    accounts.execute(b"ann", deposit(5))
    with Producer(broker).transaction() as transaction:
        transaction.send("snapshots", b"x", key=b"elsewhere")
        transaction.send("accounts", b"7", key=b"ann")
    assert accounts.execute(b"ann", deposit(1)).state == 13


def test_what_cannot_be_is_refused(broker: Broker) -> None:
    with pytest.raises(UnknownTopicError):
        Aggregates(broker, "nope", initial=0, evolve=Balance().evolve)
    with pytest.raises(ValueError, match="decode"):
        accounts_of(broker, snapshots="snapshots")
