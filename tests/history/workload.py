"""Senders, readers and somebody who changes things, at work on one broker; then their history.

8 producers and 8 consumers in 2 groups with joins, leaves, drops, seeks, pauses, wake-ups, added
partitions and topics, deleted records, commits by hand and by themselves, callbacks that commit,
seek and raise, members that time out. The first group never asks to skip a record, so it must get
every one.

What is done next by whom is drawn from a seed. Who runs when is the driver's affair: threads, or
a scheduler. It refuses to know what an anomaly is.
"""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from minilog import Broker, Consumer, GroupError, OffsetConflictError, Producer
from minilog.testing import ManualClock
from tests.history.operations import FAILED, Committed, Contents, History, Reset, Send, Trim
from tests.history.reader import Reader, runs_of
from tests.history.transacting import OUTPUT, Transactor, Transformer

ASSIGNORS = ("sticky", "sticky", "range", "roundrobin")
EVERYTHING = re.compile(".*")
TRANSFORMERS = 3
MOST_PARTITIONS = 6
MOST_TOPICS = 4
MOST_QUIET_ROUNDS = 200


class GroupPlan(NamedTuple):
    """What all members of a group have in common."""

    name: str
    assignor: str
    reset: str
    isolation: str
    may_skip: bool = False  # its members seek and commit ahead
    is_auto: bool = True  # they commit by themselves, most of them
    pattern: re.Pattern[str] = EVERYTHING
    leaves_out: frozenset[str] = frozenset()


class Setting:
    """What the actors share."""

    def __init__(
        self, broker: Broker, clock: ManualClock, seed: int, *, has_transactions: bool
    ) -> None:
        self.broker = broker
        self.clock = clock
        self.chance = random.Random(seed)
        isolations = ["read_uncommitted"]
        if has_transactions:
            isolations += ["read_committed"] * 2
        self.history = History()
        self.has_static = self.chance.random() < 0.3
        self.max_poll_interval_ms = self.chance.choice((500, 5_000, 300_000))
        self.groups = [
            GroupPlan(
                name,
                self.chance.choice(ASSIGNORS),
                "latest" if may_skip and self.chance.random() < 0.3 else "earliest",
                self.chance.choice(isolations),
                may_skip,
            )
            for name, may_skip in (("whole", False), ("skipping", True))
        ]
        self.transforming = GroupPlan(
            "transforming",
            self.chance.choice(ASSIGNORS),
            "earliest",
            "read_committed",
            is_auto=False,
            pattern=re.compile(f"(?!{OUTPUT}$)"),
            leaves_out=frozenset((OUTPUT,)),
        )
        if has_transactions:
            self.groups.append(self.transforming)
        self.transaction_timeout_ms = self.chance.choice((300, 60_000))
        self.outputs: dict[int, tuple[str, int, int]] = {}  # of which input each was made
        self.readers: list[Reader] = []
        self.counts: Counter[str] = Counter()
        self._numbers = itertools.count()
        self._transactions = itertools.count(1)

    def next_who(self) -> int:
        """Return a number for a member or a sender."""
        return next(self._numbers)

    def next_transaction(self) -> int:
        """Return a number for a transaction."""
        return next(self._transactions)

    def count(self, what: str) -> None:
        """Count something that may happen."""
        self.counts[what] += 1


class Sender:
    """An actor that appends values of its own, in several ways."""

    def __init__(self, setting: Setting, number: int, seed: int) -> None:
        self._setting = setting
        self._chance = random.Random(seed)
        self._who = setting.next_who()
        self._values = itertools.count(number * 1_000_000_000)
        self._producer = Producer(setting.broker)

    def step(self) -> None:
        """Append something somewhere."""
        broker, chance = self._setting.broker, self._chance
        topic = chance.choice(sorted(broker.topics))
        partition = chance.randrange(len(broker.topic(topic)))
        way = chance.random()
        if way < 0.4:
            self._send(topic, {"key": b"%d" % chance.randrange(50)})
        elif way < 0.5:
            self._send(topic, {"partition": partition})
        elif way < 0.7:
            self._send_many(topic, partition)
        elif way < 0.85:
            self._append_many(topic, partition)
        elif way < 0.9:
            self._append_expecting(topic, partition)
        else:
            self._send_batch(topic, partition)

    def _some_values(self) -> list[int]:
        return list(itertools.islice(self._values, self._chance.choice((1, 2, 5, 20))))

    def _record(self, begin: int, tp: tuple[str, int], values: list[int], *rest: Any) -> None:
        self._setting.history.add(Send, begin, self._who, tp, values, *rest)

    def _send(self, topic: str, where: dict[str, Any]) -> None:
        value = next(self._values)
        begin = self._setting.history.tick()
        metadata = self._producer.send(topic, b"%d" % value, **where)
        self._record(begin, (topic, metadata.partition), [value], (metadata.offset,))

    def _send_many(self, topic: str, partition: int) -> None:
        values = self._some_values()
        begin = self._setting.history.tick()
        written = self._producer.send_many(topic, map(b"%d".__mod__, values), partition=partition)
        self._record(begin, (topic, partition), values, written[partition])

    def _append_many(self, topic: str, number: int) -> None:
        values = self._some_values()
        partition = self._setting.broker.topic(topic)[number]
        begin = self._setting.history.tick()
        offsets = partition.append_many(list(map(b"%d".__mod__, values)))
        self._record(begin, (topic, number), values, offsets)

    def _append_expecting(self, topic: str, number: int) -> None:
        """Of racing writers exactly one gets the offset."""
        value = next(self._values)
        partition = self._setting.broker.topic(topic)[number]
        expected = partition.end_offset
        begin = self._setting.history.tick()
        try:
            offset = partition.append(b"%d" % value, expected_offset=expected)
        except OffsetConflictError:
            self._record(begin, (topic, number), [value], None, FAILED)
        else:
            assert offset == expected
            self._record(begin, (topic, number), [value], (offset,))

    def _send_batch(self, topic: str, partition: int) -> None:
        values = self._some_values()
        begin = self._setting.history.tick()
        with self._producer.batch() as batch:
            for value in values:
                batch.send(topic, b"%d" % value, partition=partition)
        self._record(begin, (topic, partition), values, None)


class Keeper:
    """An actor that adds partitions and topics, turns the clock and looks at groups."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self._setting = setting
        self._chance = random.Random(seed)
        self._who = setting.next_who()
        self._generations: dict[str, int] = {}

    def step(self) -> None:
        """Do one thing."""
        does = self._chance.choices(
            (
                self._turn,
                self._look,
                self._add_partitions,
                self._add_topic,
                self._keep,
                self._reset,
            ),
            (40, 40, 6, 3, 5, 6),
        )[0]
        does()

    def _turn(self) -> None:
        interval = self._setting.max_poll_interval_ms
        ms = self._chance.choice((1, 10, 50, interval // 20, interval // 3))
        self._setting.clock.advance(ms)

    def _add_partitions(self) -> None:
        topic = self._setting.broker.topic(self._chance.choice(sorted(self._setting.broker.topics)))
        if len(topic) < MOST_PARTITIONS and topic.name != OUTPUT:
            topic.add_partitions(len(topic) + 1)

    def _trim(self) -> None:
        """Delete the first records of a partition, where nobody who has lost its place by that
        goes on at the end."""
        setting = self._setting
        if setting.groups[-1] is setting.transforming or "latest" in {
            g.reset for g in setting.groups
        }:
            return
        topic = setting.broker.topic(self._chance.choice(sorted(setting.broker.topics)))
        partition = topic[self._chance.randrange(len(topic))]
        offset = self._chance.randint(partition.start_offset, partition.end_offset)
        begin = setting.history.tick()
        partition.delete_before(offset)
        setting.history.add(Trim, begin, self._who, (topic.name, partition.index), offset)

    def _add_topic(self) -> None:
        broker = self._setting.broker
        if len(broker.topics) < MOST_TOPICS:
            broker.create_topic(f"topic-{len(broker.topics)}", self._chance.randint(1, 3))

    def _keep(self) -> None:
        self._setting.broker.maintain()
        self._setting.broker.flush()

    def _look(self) -> None:
        """See that no partition is two members', and that time only goes forward."""
        group = self._chance.choice(self._setting.groups)
        begin = self._setting.history.tick()
        seen = self._setting.broker.groups.get(group.name)
        if seen is None:
            return
        committed = seen.committed()
        self._setting.history.add(Committed, begin, self._who, group.name, committed)
        members = seen.members
        shares = list(itertools.chain.from_iterable(members.values()))
        assert len(shares) == len(set(shares)), f"two owners in {members}"
        generation = seen.generation
        assert generation >= self._generations.get(group.name, 0)
        self._generations[group.name] = generation
        assert all(lag >= 0 for lag in seen.lag().values())
        assert seen.state in ("empty", "rebalancing", "stable")

    def _reset(self) -> None:
        """Set a group's offsets, which is refused while it has members."""
        setting = self._setting
        group = self._chance.choice(setting.groups[:2])  # the third counts on its offsets
        seen = setting.broker.groups.get(group.name)
        if seen is None:
            return
        to = self._chance.choice(("earliest", "latest")) if group.may_skip else "earliest"
        begin = setting.history.tick()
        try:
            changed = seen.reset(to=to)
        except GroupError:
            setting.count("reset refused")
        else:
            after = {tuple(tp): offset for tp, (_, offset) in changed.items()}
            setting.history.add(Reset, begin, self._who, group.name, after)
            setting.count("reset")


class Workload:
    """The whole of it: actors, their end, and what is there then."""

    def __init__(
        self,
        disk: Any,
        seed: int,
        *,
        senders: int = 8,
        readers: int = 8,
        sync: Any = "never",
        has_transactions: bool = False,
    ) -> None:
        self.clock = ManualClock(1_700_000_000_000)
        self.broker = Broker(disk, clock=self.clock, sync=sync, segment_bytes=4096)
        self.setting = setting = Setting(
            self.broker, self.clock, seed, has_transactions=has_transactions
        )
        chance = setting.chance
        self.broker.create_topic("orders", chance.randint(1, 4))
        self.broker.create_topic("audit", chance.randint(1, 3))
        count = senders * 3 // 4 if has_transactions else 0
        self.senders = [Sender(setting, n, chance.getrandbits(64)) for n in range(count, senders)]
        self.transactors: list[Transactor] = []
        setting.readers += [Reader(setting, n, chance.getrandbits(64)) for n in range(readers)]
        if has_transactions:
            self.broker.create_topic(OUTPUT, 2)
            self.transactors += [
                Transactor(setting, n, chance.getrandbits(64)) for n in range(count)
            ]
            setting.readers += [
                Transformer(setting, n, chance.getrandbits(64)) for n in range(TRANSFORMERS)
            ]
        self.keeper = Keeper(setting, chance.getrandbits(64))

    @property
    def actors(self) -> dict[str, Callable[[], None]]:
        """What each actor's next step is, by the actor's name."""
        named: dict[str, Callable[[], None]] = {}
        for number, sender in enumerate(self.senders):
            named[f"sender-{number}"] = sender.step
        for number, transactor in enumerate(self.transactors):
            named[f"transactor-{number}"] = transactor.step
        for number, reader in enumerate(self.setting.readers):
            named[f"reader-{number}"] = reader.step
        named["keeper"] = self.keeper.step
        return named

    def release(self) -> None:
        """Have whoever waits go on."""
        self.clock.advance(1000)
        for reader in self.setting.readers:
            consumer = reader.consumer
            if consumer is not None:
                consumer.wakeup()

    def finish(self) -> History:
        """Have every group read all there is, look at everything once more, and close."""
        setting, history = self.setting, self.setting.history
        for transactor in self.transactors:
            transactor.end()
        for reader in setting.readers:
            reader.settle()
        quiet = rounds = 0
        while quiet < 3:
            moved = sum(reader.poll_settled() for reader in setting.readers)
            quiet = 0 if moved or not self._is_settled() else quiet + 1
            rounds = 0 if moved else rounds + 1
            if setting.has_static:  # one that was closed keeps its partitions for a while
                self.clock.advance(setting.max_poll_interval_ms // 3)
            assert rounds < MOST_QUIET_ROUNDS, f"no rest: {self._shares()}"
        who = setting.next_who()
        self._check_shares()
        for reader in setting.readers:
            reader._close()
        for group in setting.groups:
            begin = history.tick()
            if group.name in self.broker.groups:
                committed = self.broker.groups[group.name].committed()
                history.add(Committed, begin, who, group.name, committed)
        for topic in self.broker.topics.values():
            for partition in topic:
                partition.check()
                begin = history.tick()
                for tp, offsets, values in runs_of(partition):
                    history.add(Contents, begin, who, tp, offsets, values)
        if self.transactors:
            self._look_at_committed(who)
        self.broker.close()
        return history

    def _is_settled(self) -> bool:
        """Say whether every group has the members that are there, and nothing on its way."""
        for plan in self.setting.groups:
            group = self.broker.groups[plan.name]
            there = {
                reader.consumer.member_id
                for reader in self.setting.readers
                if reader.group is plan and reader.consumer is not None
            }
            if group.state != "stable" or group.members.keys() != there:
                return False
        return True

    def _look_at_committed(self, who: int) -> None:
        """Read once more what is committed; each input of it has exactly one output."""
        history = self.setting.history
        inputs: set[tuple[str, int, int]] = set()
        outputs: list[tuple[str, int, int]] = []
        begin = history.tick()
        with Consumer(self.broker, EVERYTHING, isolation="read_committed") as reader:
            for tp, offsets, values in runs_of(list(reader.drain())):
                history.add(Contents, begin, who, tp, offsets, values, is_committed=True)
                if tp[0] != OUTPUT:
                    inputs |= {(*tp, offset) for offset in offsets}
                else:
                    outputs += [
                        self.setting.outputs[v] for v in values if v in self.setting.outputs
                    ]
        assert len(outputs) == len(set(outputs)), "some input has two outputs"
        lacking, odd = inputs.difference(outputs), set(outputs) - inputs
        assert not lacking, f"no output was made of {sorted(lacking)[:5]}"
        assert not odd, f"outputs were made of {sorted(odd)[:5]}, which nobody may see"

    def _check_shares(self) -> None:
        """Every partition has exactly one owner in each group."""
        everything = sorted(
            (topic.name, partition.index)
            for topic in self.broker.topics.values()
            for partition in topic
        )
        for group in self.setting.groups:
            members = self.broker.groups[group.name].members
            shares = sorted(map(tuple, itertools.chain.from_iterable(members.values())))
            due = [tp for tp in everything if tp[0] not in group.leaves_out]
            assert shares == due, f"{group.name}: {self._shares()}"

    def _shares(self) -> str:
        return "\n".join(
            f"{name} {group.state}: {group.members}" for name, group in self.broker.groups.items()
        )
