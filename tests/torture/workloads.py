"""What is done to a log while its disk fails: each workload a list of steps, each step one call.

A step takes the session and returns a plain value, which must be the same whether or not the step
before it failed and was repeated. To add a workload, add an entry to ``WORKLOADS``: what comes
``before`` the faults begin, and the ``steps`` they are injected into.

This module refuses to know faults, and what is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from minilog import Broker, Consumer, Partition, Producer
from minilog.storage.files import Directory
from minilog.testing import FaultyDisk, ManualClock

OTHER_BOOT = b"4242 00000000-0000-4000-8000-000000000000\n"
LOCK_FILE = "minilog.lock"


class OnRoot:
    """A directory as a disk."""

    def __init__(self, root: Directory) -> None:
        self._root = root

    def root_directory(self) -> Directory:
        return self._root


class Session:
    """A broker, and perhaps a reader beside it, on a disk that may fail."""

    def __init__(self, root: Directory, *, maps: bool, **settings: Any) -> None:
        self.root = root
        self.disk = FaultyDisk(OnRoot(root), maps=maps)
        self.clock = ManualClock(1000)
        self.settings = {"maintenance_interval_ms": 0, **settings}
        self.broker: Broker | None = None
        self.reader: Broker | None = None

    def open(self, **settings: Any) -> None:
        """Open the broker."""
        self.broker = Broker(self.disk, clock=self.clock, **{**self.settings, **settings})

    def open_reader(self) -> None:
        """Open a read-only broker beside it."""
        self.reader = Broker(self.disk, clock=self.clock, read_only=True)

    def close(self) -> None:
        """Close what is open; what failed to close may be closed again."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None
        if self.broker is not None:
            self.broker.close()
            self.broker = None

    def let_go(self) -> None:
        """Let go of everything as it is, as the end of a process does."""
        for broker in (self.reader, self.broker):
            if broker is not None:
                broker.refuse_in_child()
        self.reader = self.broker = None

    def cut_power(self) -> None:
        """Let go, and have the next opening find that the machine was off meanwhile."""
        self.let_go()
        if LOCK_FILE in self.root.names():
            file = self.root.open(LOCK_FILE, writable=True)
            file.trim(0)
            file.write(0, OTHER_BOOT)

    def scribble(self, topic: str, partition: int, data: bytes) -> None:
        """Leave bytes of a torn write behind the last record of a log that is not open."""
        directory = self.root.child(topic).child(str(partition))
        name = max(name for name in directory.names() if name.endswith(".log"))
        file = directory.open(name, writable=True)
        end = len(file.read(0, file.size()).rstrip(b"\0"))
        file.write((end + 15) & -8, data)

    def partition(self, topic: str = "t", number: int = 0) -> Partition:
        """Return a partition of the broker."""
        assert self.broker is not None
        return self.broker.topic(topic)[number]


Step = Callable[[Session], Any]
DONE_EARLY: set[Step] = set()
View = Callable[[Broker], dict[str, Any]]


def everything(broker: Broker) -> dict[str, Any]:
    """Return all a broker holds, as plain values."""
    return {
        name: {
            "settings": topic.config,
            "partitions": [(p.start_offset, p.end_offset, list(p)) for p in topic],
        }
        for name, topic in broker.topics.items()
    } | {f"group {name}": group.committed() for name, group in broker.groups.items()}


def latest(broker: Broker) -> dict[str, Any]:
    """Return what compaction must not change: where each log ends, and the last of each key."""
    return {
        topic.name: [(p.end_offset, {record.key: record for record in p}) for p in topic]
        for topic in broker.topics.values()
    }


def committed(broker: Broker) -> dict[str, Any]:
    """Return what a reader of committed transactions sees: offsets may differ, as an aborted one
    uses some; a group's place is how many such records are before it."""
    seen: dict[str, Any] = {}
    for topic in broker.topics.values():
        with Consumer(broker, topic.name, isolation="read_committed") as consumer:
            records = list(consumer.drain())
        places = [[r for r in records if r.partition == p.index] for p in topic]
        seen[topic.name] = [[(r.key, r.value, r.headers) for r in place] for place in places]
        for name, group in broker.groups.items():
            seen[f"group {name} of {topic.name}"] = [
                sum(record.offset < offset for record in places[tp.partition])
                for tp, offset in group.committed().items()
                if tp.topic == topic.name
            ]
    return seen


class Workload(NamedTuple):
    """Steps, the broker's settings, what was there before, and what is compared."""

    before: list[Step]
    steps: list[Step]
    settings: dict[str, Any]
    view: View = everything


def opened(**settings: Any) -> Step:
    return lambda session: session.open(**settings)


def closed() -> Step:
    return lambda session: session.close()


def made(name: str, partitions: int = 1, **settings: Any) -> Step:
    def step(session: Session) -> None:
        assert session.broker is not None
        session.broker.create_topic(name, partitions, exist_ok=True, **settings)

    return step


def deleted(name: str) -> Step:
    def step(session: Session) -> None:
        assert session.broker is not None
        if name in session.broker.topics:
            session.broker.delete_topic(name)

    return done_early(step)


def done_early(step: Step) -> Step:
    """Mark a step that may fail when what it is for is done: the files are only yet to go."""
    DONE_EARLY.add(step)
    return step


def appended(value: bytes | None, topic: str = "t", number: int = 0, **more: Any) -> Step:
    return lambda session: session.partition(topic, number).append(value, **more)


def batched(*values: bytes | None, topic: str = "t", number: int = 0, **more: Any) -> Step:
    return lambda session: session.partition(topic, number).append_many(values, **more)


def told(call: str, *arguments: Any, **more: Any) -> Step:
    """A call of the broker's."""

    def step(session: Session) -> None:
        getattr(session.broker, call)(*arguments, **more)

    return done_early(step) if call == "maintain" else step


def changed(call: str, *arguments: Any, topic: str = "t", **more: Any) -> Step:
    """A call of a topic's."""

    def step(session: Session) -> None:
        assert session.broker is not None
        getattr(session.broker.topic(topic), call)(*arguments, **more)

    return step


def deleted_before(offset: int, topic: str = "t", number: int = 0) -> Step:
    return done_early(lambda session: session.partition(topic, number).delete_before(offset))


def read_by_reader(topic: str = "t") -> Step:
    def step(session: Session) -> list[list[Any]]:
        assert session.reader is not None
        return [list(partition) for partition in session.reader.topic(topic)]

    return step


def looked_up(topic: str = "t", number: int = 0) -> Step:
    def step(session: Session) -> list[Any]:
        partition = session.partition(topic, number)
        start, end = partition.start_offset, partition.end_offset
        offsets = range(start, end, 3)
        found = [list(partition.read(offset, max_records=2)) for offset in offsets]
        times = [partition.offset_at(when) for when in (0, 999, 1000, 1001)]
        return [found, times, len(partition)]

    return step


def sent(session: Session) -> Any:
    assert session.broker is not None
    return tuple(Producer(session.broker).send("t", b"sent", key=b"k"))


def sent_many(session: Session) -> Any:
    assert session.broker is not None
    producer = Producer(session.broker, batch_bytes=200)
    return producer.send_many("t", [b"many %d" % n for n in range(12)], partition=0)


def drained(session: Session) -> list[Any]:
    assert session.broker is not None
    with Consumer(session.broker, "t") as consumer:
        return list(consumer.drain())


def looked_up_latest(session: Session) -> Any:
    assert session.broker is not None
    return dict(session.broker.topic("t").table())


def polled(group: str = "g", **more: Any) -> Step:
    """A member of a group joins, polls, commits what it polled, and leaves."""

    def step(session: Session) -> list[Any]:
        assert session.broker is not None
        with Consumer(session.broker, "t", group=group, auto_commit=False, **more) as consumer:
            records = list(consumer.poll(max_records=3))
            consumer.commit()
            return records

    return step


def transacted(number: int, *, aborts: bool = False) -> Step:
    """Send to two topics and commit a group's offset, seen together or never."""

    def step(session: Session) -> None:
        assert session.broker is not None
        with Producer(session.broker).transaction() as transaction:
            transaction.send("t", b"%d in t" % number, key=b"k")
            transaction.send_many("u", [b"%d in u" % number] * 2)
            end = session.broker.topic("t")[0].end_offset
            transaction.commit_offsets({("t", 0): end}, group="g")
            if aborts:
                transaction.abort()

    return step


def numbered(sequence: int) -> Step:
    """A named producer is opened and sends one by its number; one that is known is not repeated."""

    def step(session: Session) -> list[int | None]:
        assert session.broker is not None
        producer = Producer(session.broker, producer_id="importer")
        sent = producer.send("t", b"%d" % sequence, sequence=sequence, partition=0)
        return [sent.offset, producer.last_sequence("t", 0)]

    return step


def put(value: bytes) -> Step:
    """Append where the offset may be another one: an aborted transaction has used some."""

    def step(session: Session) -> None:
        session.partition().append(value)

    return step


def later(ms: int) -> Step:
    """Time passes, and nobody is told: what is due is done by ``maintain``, which says how."""

    def step(session: Session) -> None:
        session.clock._now_ms += ms

    return step


def torn(session: Session) -> None:
    session.cut_power()
    session.scribble("t", 0, b"\xa5" * 777)


def killed(session: Session) -> None:
    session.let_go()


def singles(count: int, size: int = 40, **more: Any) -> list[Step]:
    return [appended(b"%d " % number * (size // 3), **more) for number in range(count)]


SMALL = {"segment_bytes": 300, "index_interval_bytes": 60}
OPEN_SMALL = [opened(), made("t", **SMALL)]
HEADERS = [("h", b"v"), ("null", None)]

WORKLOADS: dict[str, Workload] = {
    "create topics": Workload(
        [], [opened(), made("a"), made("b", 3, **SMALL), appended(b"x", "b", 2)], {}
    ),
    "append singly": Workload(
        [opened(), made("t")],
        [
            appended(b"one"),
            appended(b"two", key=b"k"),
            appended(None, key=b"gone"),
            appended(b"with", headers=HEADERS, timestamp=7),
            appended(b"expected", expected_offset=4),
            looked_up(),
        ],
        {},
    ),
    "append in bulk": Workload(
        [opened(), made("t")],
        [
            batched(b"a", b"bc", None),
            batched(b"x" * 9, b"y" * 9, keys=[b"k", None], timestamps=[5, 3]),
            batched(*[b"v"] * 20, headers=[{"h": b"v"}] * 20),
            looked_up(),
        ],
        {},
    ),
    "roll by singles": Workload(OPEN_SMALL, [*singles(12), looked_up()], {"sync": "never"}),
    "roll by batches": Workload(
        OPEN_SMALL, [*[batched(*[b"x" * 30] * 5)] * 4, looked_up()], {"sync": "never"}
    ),
    "large records": Workload(
        [opened(), made("t", segment_bytes=100_000)],
        [appended(b"a"), appended(b"L" * 70_000), batched(b"M" * 90_000, b"m"), appended(b"z")],
        {"sync": "never"},
    ),
    "grow": Workload(
        [opened(), made("t")],
        [*[batched(b"g" * 30_000)] * 5, appended(b"h" * 9000), appended(b"i")],
        {"sync": "never"},
    ),
    "sync always": Workload(
        [opened(), made("t", 2, **SMALL)],
        [*singles(5), batched(b"a", b"b", number=1), batched(*[b"x" * 90] * 4), *singles(4)],
        {"sync": "always"},
    ),
    "sync at intervals": Workload(
        OPEN_SMALL,
        [
            *singles(3),
            told("maintain"),
            *singles(5),
            told("flush"),
            appended(b"more"),
            told("maintain"),
        ],
        {"sync": "interval", "sync_interval_ms": 10**9},
    ),
    "delete before": Workload(
        [*OPEN_SMALL, *singles(10)],
        [
            deleted_before(3),
            appended(b"a"),
            deleted_before(8),
            looked_up(),
            deleted_before(11),
            appended(b"b"),
        ],
        {},
    ),
    "delete a topic": Workload(
        [*OPEN_SMALL, *singles(6), made("kept"), appended(b"k", "kept")],
        [deleted("t"), made("t", 2), appended(b"new", "t", 1), deleted("kept")],
        {},
    ),
    "add partitions": Workload(
        [opened(), made("t", 1, **SMALL), appended(b"x")],
        [changed("add_partitions", 3), appended(b"in it", number=2), batched(b"y", b"z", number=1)],
        {},
    ),
    "configure": Workload(
        [*OPEN_SMALL, appended(b"x")],
        [
            changed("configure", segment_bytes=400),
            appended(b"y" * 200),
            changed("configure", timestamp_type="append"),
            appended(b"z" * 200),
        ],
        {},
    ),
    "close and open": Workload(
        [opened(), made("t", 2, **SMALL), *singles(7)],
        [closed(), opened(), looked_up(), closed(), opened(), *singles(3, number=1), closed()],
        {},
    ),
    "close with sync always": Workload(
        [opened(), made("t", **SMALL), *singles(3)],
        [appended(b"last"), closed(), opened(), appended(b"again"), closed()],
        {"sync": "always"},
    ),
    "open after a kill": Workload(
        [opened(), made("t", 2, **SMALL), *singles(9), killed],
        [opened(), *singles(2), looked_up(), closed(), opened()],
        {"sync": "never"},
    ),
    "open after a power cut": Workload(
        [opened(), made("t", **SMALL), *singles(9), torn],
        [opened(), appended(b"on it goes"), looked_up(), closed()],
        {"sync": "never"},
    ),
    "read beside a writer": Workload(
        [*OPEN_SMALL, *singles(4)],
        [
            lambda session: session.open_reader(),
            read_by_reader(),
            *singles(6),
            read_by_reader(),
            deleted_before(5),
            read_by_reader(),
        ],
        {"sync": "never"},
    ),
    "compressed": Workload(
        [opened(), made("t", compression="gzip", **SMALL)],
        [*[batched(*[b"z%d" % n * 30] * 6) for n in range(4)], looked_up(), closed(), opened()],
        {},
    ),
    "commit to a group": Workload(
        [opened(), made("t", **SMALL), *singles(8)],
        [polled(), polled(), closed(), opened(), polled(), polled("other"), told("maintain")],
        {},
    ),
    "commit to a group, synced": Workload(
        [opened(), made("t", **SMALL), *singles(5)], [polled(), polled()], {"sync": "always"}
    ),
    "transactions": Workload(
        [opened(), made("t", **SMALL), made("u", 2)],
        [
            transacted(1),
            transacted(2, aborts=True),
            put(b"between"),
            transacted(3),
            closed(),
            opened(),
            transacted(4),
        ],
        {},
        committed,
    ),
    "transactions, synced": Workload(
        [opened(), made("t", **SMALL), made("u", 2)],
        [transacted(1), transacted(2)],
        {"sync": "always"},
        committed,
    ),
    "a named producer": Workload(
        [opened(), made("t", **SMALL)],
        [*map(numbered, (0, 1, 2, 1, 3)), closed(), opened(), numbered(3), numbered(4)],
        {},
    ),
    "compact": Workload(
        [
            opened(),
            made("t", cleanup_policy="compact", **SMALL),
            *[appended(b"%d" % n * 9, key=b"k%d" % (n % 4)) for n in range(20)],
            appended(None, key=b"k1"),
        ],
        [
            changed("compact"),
            appended(b"more", key=b"k2"),
            changed("compact"),
            looked_up_latest,
            closed(),
            opened(),
            changed("compact"),
        ],
        {},
        latest,
    ),
    "expire": Workload(
        [opened(), made("t", retention_ms=10_000, segment_ms=1000, **SMALL), *singles(9)],
        [
            later(2000),
            told("maintain"),
            appended(b"new"),
            later(20_000),
            told("maintain"),
            appended(b"newer"),
            told("maintain"),
        ],
        {},
    ),
    "producer and consumer": Workload(
        [opened(), made("t", 2, **SMALL)], [sent, sent_many, drained, sent, drained], {}
    ),
}
