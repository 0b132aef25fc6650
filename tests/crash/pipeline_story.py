"""A pipeline that may die at any operation: what it does, and what must be found afterwards.

Each step reads inputs, writes to three partitions of two topics, and commits both with the group's
offsets in one transaction; in between are transactions that are aborted and records of others. So
whoever opens the log afterwards must find a number of steps, the same in every partition and in
the group, and can go on from there. It refuses to know how death comes.
"""

from __future__ import annotations

from minilog import Broker, Consumer, Producer, TopicPartition
from minilog.transaction import Transaction

STEPS = 5
PER_STEP = 2
PLACES = [TopicPartition("out", 0), TopicPartition("out", 1), TopicPartition("other", 0)]
IN = TopicPartition("in", 0)


class Told:
    """How many steps were acknowledged, and how many have begun to be committed."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.begun = 0

    def begin(self, steps: int) -> None:
        """Note that a step is about to be committed."""
        self.begun = steps

    def acknowledge(self, steps: int) -> None:
        """Note that it was."""
        self.acknowledged = steps


def prepare(broker: Broker) -> None:
    """Make the topics, and the inputs, durably."""
    broker.create_topic("in")[0].append_many([b"%d" % n for n in range(STEPS * PER_STEP)])
    broker.create_topic("out", 2, segment_bytes=256)
    broker.create_topic("other", segment_bytes=512)
    broker.flush()


def output_of(step: int, place: TopicPartition) -> bytes:
    """Return what a step writes to a partition."""
    return b"step %d for %s-%d " % (step, place.topic.encode(), place.partition) * (1 + step % 4)


def send_step(tx: Transaction, step: int) -> None:
    """Send what a step writes, numbered."""
    for number, place in enumerate(PLACES):
        tx.send(
            place.topic,
            output_of(step, place),
            partition=place.partition,
            sequence=step,
            headers=[("n", b"%d" % number)],
        )


def run(broker: Broker, told: Told) -> Transaction:
    """Do the steps that are not done yet; return a transaction that is open."""
    producer = Producer(broker, producer_id="pipeline")
    consumer = Consumer(broker, "in", group="g", isolation="read_committed", auto_commit=False)
    while records := consumer.poll(max_records=PER_STEP):
        step = records[0].offset // PER_STEP
        with producer.transaction() as tx:
            send_step(tx, step)
            tx.commit_offsets(consumer)
            told.begin(step + 1)
        told.acknowledge(step + 1)
        broker.topic("out")[step % 2].append(b"others")
        with producer.transaction() as tx:
            send_step(tx, step + 1)
            tx.abort()
    tx = producer.transaction()
    send_step(tx, STEPS)
    return tx


def found(broker: Broker) -> int:
    """Assert that what is found is whole, and return how many steps it has."""
    committed = broker.groups["g"].committed() if "g" in broker.groups else {}
    steps, rest = divmod(committed.get(IN, 0), PER_STEP)
    assert not rest
    for place in PLACES:
        partition = broker.topic(place.topic)[place.partition]
        with Consumer(broker, isolation="read_committed") as consumer:
            consumer.assign([place])
            values = [record.value for record in consumer.drain()]
            assert consumer.lag(place) == 0
        expected = [output_of(step, place) for step in range(steps)]
        assert [value for value in values if value != b"others"] == expected, place
        assert [record.value for record in partition] == values
        assert partition.stable_offset == partition.end_offset
        partition.check()
    return steps


def finish(broker: Broker) -> None:
    """Go on to the end: each step is there once."""
    steps = found(broker)
    producer = Producer(broker, producer_id="pipeline")
    for place in PLACES:
        last = producer.last_sequence(*place)
        assert last == (steps - 1 if steps else None), place
    run(broker, Told()).abort()
    assert found(broker) == STEPS
