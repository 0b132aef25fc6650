"""kill -9 of importers and of pipelines: each line once, and one output for each input.

An *importer* is a named producer that sends numbered lines, some in transactions. Killed anywhere
and started again it goes on behind ``last_sequence``, or, as one that has lost its notes does,
sends again what it may have sent before. A *pipeline* reads a topic as a member of a group and
writes what it makes of each record to two others, in one transaction with the group's offsets.

Whoever opens the log between kills finds a prefix of the work and nothing twice; when all is done,
every line is there once, in order. Most kills come at any moment, and many of them while the log
is opened and recovered. This module refuses to know how minilog stores anything.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import minilog.ledger
from minilog import Broker, Consumer, Producer, Record, TopicPartition
from minilog.recipes import consume_transform_produce
from tests.torture import children
from tests.torture.rounds import Figures, Rounds

MODULE = "tests.torture.exactly_once"  # also where it is run as a program
SYNCS = ["never", "interval", "always"]
LINES = 4_000  # of an importer, before it begins with another log
INPUTS = 1_000  # of a pipeline
PARTITIONS = 2
BOUND = 200  # kills of one log: a child that gets nowhere is a violation
BEGUN = b"begun"  # what a child says before it opens the log
SNAPSHOT_BYTES = 4096  # so that the ledger is rewritten again and again


# ---------------------------------------------------------------- the children


def line_of(partition: int, number: int) -> bytes:
    """Return a line: what it holds follows from where it stands."""
    return b"%d/%d " % (partition, number) * (1 + number % 9)


def import_lines(broker: Broker, chance: random.Random) -> None:
    """Import what is not there yet, in one of several ways at a time."""
    producer = Producer(broker, producer_id="importer")
    due = {}
    for partition in range(PARTITIONS):
        last = producer.last_sequence("lines", partition)
        due[partition] = 0 if last is None else max(last + 1 - chance.randrange(20), 0)
    while min(due.values()) < LINES:
        partition = chance.choice([number for number in due if due[number] < LINES])
        number, count = due[partition], chance.randrange(1, 6)
        way = chance.randrange(4)
        numbers = range(number, min(number + count, LINES))
        if way == 0:
            with producer.transaction() as tx:
                for each in numbers:
                    tx.send("lines", line_of(partition, each), partition=partition, sequence=each)
        elif way == 1:
            tx = producer.transaction()
            for each in numbers:
                tx.send("lines", line_of(partition, each), partition=partition, sequence=each)
            tx.abort()
            continue
        else:
            for each in numbers:
                line = line_of(partition, each)
                producer.send("lines", line, partition=partition, sequence=each)
        due[partition] = numbers.stop


def transform(record: Record, tx: object) -> None:
    """Send one output to each of two topics."""
    send = tx.send  # type: ignore[attr-defined]
    send("doubled", (record.value or b"") * 2, partition=record.partition)
    send("counted", b"%d" % len(record.value or b""), key=b"%d" % record.offset)


def run_pipeline(broker: Broker, chance: random.Random) -> None:
    """Read, write and commit until nothing is left."""
    name = chance.choice([None, "pipeline"])
    producer = Producer(broker, producer_id=name)
    with Consumer(broker, "inputs", group="g", isolation="read_committed") as consumer:
        for step in itertools.count():
            if step % 11 == 7:  # one that changes its mind
                with producer.transaction() as tx:
                    for number in range(PARTITIONS):
                        tx.send("doubled", b"never", partition=number)
                    tx.abort()
            most = chance.randrange(1, 8)
            count = consume_transform_produce(consumer, producer, transform, max_records=most)
            if not count and not any(consumer.lag().values()):
                return


def main(kind: str, path: str, sync: str, seed: str) -> None:
    """Be a child: do the work until it is done, or one is killed."""
    minilog.ledger.SNAPSHOT_BYTES = SNAPSHOT_BYTES
    os.write(1, BEGUN)
    with Broker(path, sync=sync, sync_interval_ms=1) as broker:  # type: ignore[arg-type]
        {"importer": import_lines, "pipeline": run_pipeline}[kind](broker, random.Random(seed))


# ---------------------------------------------------------------- the parent


def kill_once(kind: str, path: Path, sync: str, chance: random.Random, patience_s: float) -> bool:
    """Start a child and kill it after a while; False when it was done before."""
    child = children.start(MODULE, kind, str(path), sync, str(chance.randrange(2**31)))
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.read(len(BEGUN)) == BEGUN
    try:
        child.wait(timeout=chance.uniform(0, patience_s))
    except subprocess.TimeoutExpired:
        child.kill()
    ended = child.wait()  # by itself, too, where the machine is slow to look
    assert ended in (0, -9), f"the {kind} ended by itself: {ended}"
    return ended == -9


def committed(broker: Broker, topic: str) -> dict[int, list[bytes | None]]:
    """Return what a read_committed reader finds, by partition; nothing may keep it waiting."""
    found: dict[int, list[bytes | None]] = {number: [] for number in range(PARTITIONS)}
    with Consumer(broker, topic, isolation="read_committed") as consumer:
        for record in consumer.drain():
            found[record.partition].append(record.value)
        assert not any(consumer.lag().values()), f"{topic}: {consumer.lag()}"
    for partition in broker.topic(topic):
        assert partition.stable_offset == partition.end_offset
        assert [record.value for record in partition] == found[partition.index]
        partition.check()
    return found


def check_lines(path: Path) -> bool:
    """Assert that the lines are a prefix, each once; say whether all are there."""
    with Broker(path) as broker:
        lines = committed(broker, "lines")
        producer = Producer(broker, producer_id="importer")
        for partition, found in lines.items():
            assert found == [line_of(partition, number) for number in range(len(found))]
            assert (producer.last_sequence("lines", partition) or 0) + 1 in (len(found), 1)
        return all(len(found) == LINES for found in lines.values())


def check_outputs(path: Path) -> bool:
    """Assert that what is committed has its outputs, each once; say whether that is all."""
    with Broker(path) as broker:
        doubled, counted = committed(broker, "doubled"), committed(broker, "counted")
        offsets = broker.groups["g"].committed() if "g" in broker.groups else {}
        done = {n: offsets.get(TopicPartition("inputs", n), 0) for n in range(PARTITIONS)}
        lengths: Counter[bytes | None] = Counter()
        for partition, count in done.items():
            inputs = [line_of(partition, number) for number in range(count)]
            assert doubled[partition] == [line * 2 for line in inputs]
            lengths.update(b"%d" % len(line) for line in inputs)
        assert Counter(value for values in counted.values() for value in values) == lengths
        return all(count == INPUTS for count in done.values())


def prepare(kind: str, path: Path) -> None:
    """Make a log for a kind of child."""
    with Broker(path, segment_bytes=16_384) as broker:
        if kind == "importer":
            broker.create_topic("lines", PARTITIONS)
            return
        for partition in broker.create_topic("inputs", PARTITIONS):
            partition.append_many([line_of(partition.index, n) for n in range(INPUTS)])
        broker.create_topic("doubled", PARTITIONS)
        broker.create_topic("counted", PARTITIONS)


CHECKS = {"importer": check_lines, "pipeline": check_outputs}
KILLS = {"importer": "importer_kills", "pipeline": "ctp_kills"}


def run_log(kind: str, path: Path, chance: random.Random, counts: Counter[str], most: int) -> None:
    """Kill children on one log until their work is done, or so many were killed."""
    prepare(kind, path)
    sync = chance.choice(SYNCS)
    kills = 0
    while kills < min(most, BOUND):
        # Half of the children die soon: while they open the log, and recover it.
        patience_s = chance.choice([0.02, 0.5])
        if not kill_once(kind, path, sync, chance, patience_s):
            break
        kills += 1
        counts[KILLS[kind]] += 1
        # Half of the time nobody but the next child recovers, and it may be killed at that.
        if chance.random() < 0.5 and CHECKS[kind](path):
            return
    if kills < min(most, BOUND):
        assert CHECKS[kind](path), "it was done, and not all is there"
        counts[f"{kind}_logs_done"] += 1
    else:
        CHECKS[kind](path)


def run(minutes: float, seed: int, most: int = BOUND, least: int = 2) -> Figures:
    """Kill importers and pipelines in turn for a while; return what was counted."""
    rounds = Rounds("exactly_once", minutes, seed, least=least)
    with tempfile.TemporaryDirectory(prefix="minilog-") as directory:
        for round_seed, chance in rounds:
            kind = ("importer", "pipeline")[round_seed % 2]
            path = Path(directory) / "log"
            with rounds.judged(round_seed, kind):
                run_log(kind, path, chance, rounds.counts, most)
            shutil.rmtree(path, ignore_errors=True)
    return rounds.figures()


if __name__ == "__main__":
    main(*sys.argv[1:])
