"""What kills and power cuts may leave of transactions, some of it: all of each, or nothing.

``tests/torture/transactions.py`` tries it for as long as it is told.
"""

from __future__ import annotations

import random

import pytest

from minilog import Broker, Consumer, Producer, Topic
from minilog.testing import ManualClock, SimulatedDisk
from minilog.testing.crashes import plans_at
from tests.torture import transactions
from tests.torture.transactions import Effort

STEPS = 3


def test_every_state_a_crash_may_leave_has_all_of_a_transaction_or_nothing() -> None:
    """Each sync level, with the ledger rewritten at every step and now and then."""
    effort = Effort(moments=0.1, per_moment=1, nested=0.05, nested_moments=0.05)
    figures = transactions.run(0, 3, effort, least=3)
    assert figures["violations"] == 0
    assert figures["states"] > 60
    assert figures["nested"]


def transact(broker: Broker) -> tuple[Topic, Topic]:
    """Have a named producer write to two topics in each of some transactions."""
    ours, theirs = broker.create_topic("ours"), broker.create_topic("theirs", segment_bytes=256)
    ours.configure(cleanup_policy="compact")
    producer = Producer(broker, producer_id="importer")
    for step in range(STEPS):
        with producer.transaction() as tx:
            for topic in ("theirs", "ours"):
                tx.send(topic, b"%d" % step * 40, key=b"k%d" % step, sequence=step)
    return ours, theirs


@pytest.mark.parametrize("what", ["close", "compact", "delete_before"])
def test_what_is_noted_of_one_partition_is_durable_in_all_that_transactions_tie_it_to(
    what: str,
) -> None:
    """A power cut may take a record of another partition, and the transaction with it: whoever
    goes on must not find more here, neither records nor sequences, than is committed."""
    disk = SimulatedDisk()
    broker = Broker(disk, sync="never", clock=ManualClock(1000), maintenance_interval_ms=0)
    ours, _ = transact(broker)
    begun = len(disk.operations)
    if what == "compact":
        ours.compact()
    elif what == "delete_before":
        ours[0].delete_before(1)
    broker.close()
    timeline = disk.timeline()
    states = 0
    for number, operation in enumerate(disk.operations, 1):
        timeline.advance(operation)
        if number < begun:
            continue
        plans = [plan for plan in plans_at(timeline, seed=number) if plan.is_power_cut]
        for plan in random.Random(number).sample(plans, min(4, len(plans))):
            states += 1
            with Broker(disk.after(timeline, plan), maintenance_interval_ms=0) as after:
                with Consumer(after, "theirs", isolation="read_committed") as consumer:
                    steps = len([*consumer.drain()])
                with Consumer(after, "ours", isolation="read_committed") as consumer:
                    seen = [record.offset for record in consumer.drain()]
                assert len(seen) in (steps, max(steps - (what == "delete_before"), 0)), plan
                producer = Producer(after, producer_id="importer")
                last = producer.last_sequence("ours", 0)
                assert last == (steps - 1 if steps else None), plan
    assert states > 100
