"""KeyboardInterrupt and MemoryError at every instruction of every call that matters.

Python looks for signals at calls and jumps only, and few instructions take memory; here the
exception comes before every one, but for those between the end of a ``with`` body and the call of
``__exit__``, where nobody looks and no code could be safe. Afterwards another thread can use
everything, no record is torn, what was acknowledged is there, and the log closes and opens.

This module refuses to know how the calls do what they do.
"""

from __future__ import annotations

import dis
import functools
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import minilog
from minilog import Broker, Consumer, Partition, Producer
from minilog.clock import SystemClock
from minilog.testing import ManualClock

PACKAGE = str(Path(minilog.__file__).parent)
IN_MEMORY = "/dev/shm"
STUCK_S = 30  # a guard, not a measure: a lock that nobody frees
KINDS: dict[str, type[BaseException]] = {
    "KeyboardInterrupt": KeyboardInterrupt,
    "MemoryError": MemoryError,
}

Trace = Callable[[FrameType, str, Any], Any]
Places = Callable[[CodeType], frozenset[int]]


# ---------------------------------------------------------------- raising


@functools.cache
def leaving_with(code: CodeType) -> frozenset[int]:
    """Return the instructions from the end of each ``with`` body to its call of ``__exit__``."""
    instructions = list(dis.get_instructions(code))
    by_offset = {instruction.offset: n for n, instruction in enumerate(instructions)}
    entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
    going_on = {(entry.start, entry.target) for entry in entries}
    found: set[int] = set()
    for entry in entries:
        number = by_offset.get(entry.target)
        if number is None or instructions[number + 1].opname != "WITH_EXCEPT_START":
            continue
        if (entry.end, entry.target) in going_on or entry.end not in by_offset:
            continue
        for instruction in instructions[by_offset[entry.end] :]:
            found.add(instruction.offset)
            if instruction.opname == "CALL":
                break
    for number in range(len(instructions) - 4):  # also where a jump leads, behind another exit
        exit_call = instructions[number : number + 5]
        if all(each.opname == "LOAD_CONST" and each.argval is None for each in exit_call[:3]):
            found.update(each.offset for each in exit_call)
    return frozenset(found)


@functools.cache
def everywhere(code: CodeType) -> frozenset[int]:
    """Return every instruction but those that leave a ``with`` block, and those that do nothing:
    such a one stands for ``try:``, and where it follows a return its ``with`` need not cover it."""
    able = (i.offset for i in dis.get_instructions(code) if i.opname != "NOP")
    return frozenset(able) - leaving_with(code)


def is_finalizing(frame: FrameType | None) -> bool:
    """Say whether a frame runs for a ``__del__``, which lets no exception out."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


class Interrupter:
    """Raises an exception before the chosen instruction of minilog's code."""

    def __init__(self, chosen: int, places: Places, kind: type[BaseException]) -> None:
        self.is_over = False
        self.place = ""
        self._left = chosen
        self._places = places
        self._kind = kind

    def trace(self, frame: FrameType, event: str, argument: Any) -> Trace | None:
        code = frame.f_code
        if event == "call":
            if self.is_over or not code.co_filename.startswith(PACKAGE) or is_finalizing(frame):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        if event == "opcode" and not self.is_over and frame.f_lasti in self._places(code):
            self._left -= 1
            if self._left < 0:
                self.is_over = True
                self.place = f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_name}"
                raise self._kind
        return self.trace


def interrupt(
    call: Callable[[], object],
    chosen: int,
    places: Places,
    kind: type[BaseException] = KeyboardInterrupt,
) -> str | None:
    """Call and interrupt; return where it was, or None when the call was over before."""
    interrupter = Interrupter(chosen, places, kind)
    before = sys.gettrace()
    sys.settrace(interrupter.trace)
    try:
        call()
    except kind:
        assert interrupter.is_over
    finally:
        sys.settrace(before)
    return interrupter.place or None


# ---------------------------------------------------------------- what is interrupted

Values = list[bytes | None]
Prepare = Callable[[Broker], Callable[[], object]]


class Scene(NamedTuple):
    """A call, and the records that it may have added to the partition: each list is legal."""

    prepare: Prepare  # returns what is interrupted
    added: list[Values]
    settings: dict[str, Any]


BEFORE: Values = [b"before %d" % number for number in range(5)]
SMALL = {"segment_bytes": 300, "index_interval_bytes": 50}
MANY: Values = [b"many %d" % number for number in range(6)]


def on_partition(call: Callable[[Partition], object], *added: bytes | None, **more: Any) -> Scene:
    return Scene(
        lambda broker: functools.partial(call, broker.topic("t")[0]), [[], list(added)], more
    )


def on_broker(call: Callable[[Broker], object], **more: Any) -> Scene:
    return Scene(lambda broker: functools.partial(call, broker), [[]], more)


def rolling(broker: Broker) -> Callable[[], object]:
    broker.clock.advance(10**9)  # type: ignore[attr-defined]
    return broker.maintain


def sending(broker: Broker) -> Callable[[], object]:
    producer = Producer(broker)
    return lambda: producer.send("t", b"sent", key=b"k")


def sending_many(broker: Broker) -> Callable[[], object]:
    producer = Producer(broker, batch_bytes=16)
    return lambda: producer.send_many("t", MANY)


def gathering(broker: Broker) -> Callable[[], object]:
    producer = Producer(broker)

    def act() -> None:
        with producer.batch() as batch:
            batch.send("t", b"gathered", key=b"k")
            batch.send("t", b"and more", key=b"k")

    return act


def polling(broker: Broker) -> Callable[[], object]:
    consumer = Consumer(broker, "t")
    return lambda: consumer.poll(0, max_records=3)


def draining(broker: Broker) -> Callable[[], object]:
    consumer = Consumer(broker, "t")
    return lambda: list(consumer.drain())


SCENES: dict[str, Scene] = {
    "append": on_partition(lambda p: p.append(b"one", key=b"k"), b"one"),
    "append of any shape": on_partition(
        lambda p: p.append(None, headers=[("h", b"v")], timestamp=10**15), None
    ),
    "append that rolls": on_partition(lambda p: p.append(b"r" * 200), b"r" * 200),
    "append, synced": on_partition(lambda p: p.append(b"one"), b"one", sync="always"),
    "append that rolls, synced": on_partition(
        lambda p: p.append(b"r" * 200), b"r" * 200, sync="always"
    ),
    "append_many": on_partition(lambda p: p.append_many([b"a", b"bc", None]), b"a", b"bc", None),
    "append_many that rolls": on_partition(
        lambda p: p.append_many([b"x" * 99] * 3, timestamps=[5, 10**15, 7]), *[b"x" * 99] * 3
    ),
    "append_many, synced": on_partition(
        lambda p: p.append_many([b"x" * 99] * 3), *[b"x" * 99] * 3, sync="always"
    ),
    "send": Scene(sending, [[], [b"sent"]], {}),
    "send_many": Scene(sending_many, [MANY[:n] for n in range(len(MANY) + 1)], {}),
    "batch": Scene(gathering, [[], [b"gathered", b"and more"]], {}),
    "read": on_partition(lambda p: p.read(0)),
    "read that waits": on_partition(
        lambda p: p.read(p.end_offset, timeout=0.0001), clock=SystemClock()
    ),
    "iteration": on_partition(lambda p: list(p)),
    "offset_at": on_partition(lambda p: p.offset_at(0)),
    "poll": Scene(polling, [[]], {}),
    "drain": Scene(draining, [[]], {}),
    "roll": Scene(rolling, [[]], {"segment_ms": 1000}),
    "flush": on_broker(lambda broker: broker.flush()),
    "close": on_broker(lambda broker: broker.close()),
    "close, synced": on_broker(lambda broker: broker.close(), sync="always"),
    "create_topic": on_broker(lambda broker: broker.create_topic("new", 2)),
    "delete_topic": on_broker(lambda broker: broker.delete_topic("other")),
    "add_partitions": on_broker(lambda broker: broker.topic("other").add_partitions(3)),
    "configure": on_broker(lambda broker: broker.topic("other").configure(segment_bytes=512)),
    "delete_before": Scene(
        lambda broker: lambda: broker.topic("other")[0].delete_before(7), [[]], {}
    ),
}


def open_log(path: Path, **settings: Any) -> Broker:
    """Open a log with some records in two topics, at a time that stands still."""
    common = {
        "clock": ManualClock(1_700_000_000_000),
        "maintenance_interval_ms": 0,
        "sync_interval_ms": 10**9,
        "sync": "never",
    }
    broker = Broker(path, **{**common, **SMALL, **settings})
    partition = broker.create_topic("t")[0]
    for number, value in enumerate(BEFORE):
        partition.append(value, timestamp=1000 + number)
    other = broker.create_topic("other")[0]
    for number in range(9):
        other.append(b"other %d" % number * 4)
    return broker


# ---------------------------------------------------------------- what must hold


def in_another_thread(call: Callable[[], object]) -> None:
    """Call in a thread of its own, which must not meet a lock that nobody frees."""
    errors: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    assert ended.wait(STUCK_S), "a lock is stuck"
    if errors:
        raise errors[0]


def assert_usable(broker: Broker, scene: Scene) -> Values:
    """Check an open broker after an interrupt; return what is in the partition now."""
    broker.flush()  # with sync="always" a record that was interrupted is seen when synced
    partition = broker.topic("t")[0]
    partition.check()
    values = [record.value for record in partition]
    assert values in [BEFORE + added for added in scene.added], values
    assert len(partition) == partition.end_offset == len(values)
    stamps = [record.timestamp for record in partition]
    for wanted in (0, 1003, 10**15):
        later = [offset for offset, stamp in enumerate(stamps) if stamp >= wanted]
        assert partition.offset_at(wanted) == (later[0] if later else None)
    for value in (b"after", b"after" * 60):
        assert partition.append(value) == len(values)
        values.append(value)
    assert partition.append_many([b"and", b"after"]) == range(len(values), len(values) + 2)
    values += [b"and", b"after"]
    assert [record.value for record in partition] == values
    with Consumer(broker, "t") as consumer:
        assert [record.value for record in consumer.drain()] == values
    partition.check()
    for name in ("new", "other"):
        topic = broker.create_topic(name, exist_ok=True)
        end = topic[len(topic) - 1].end_offset
        assert topic[len(topic) - 1].append(b"after") == end
        topic.configure(segment_bytes=1024)
        topic.add_partitions(len(topic))
    other = broker.topic("other")[0]
    kept = [record.value for record in other if record.offset < 9]
    assert kept in ([], [b"after"]) or kept == [b"other %d" % n * 4 for n in range(9)][-len(kept) :]
    return values


def assert_opens(path: Path, legal: list[Values]) -> None:
    """What was closed after an interrupt opens as what was closed without one."""
    with Broker(path, sync="never", maintenance_interval_ms=0) as broker:
        assert broker.recovery.ok, str(broker.recovery)
        partition = broker.topic("t")[0]
        found = [record.value for record in partition]
        assert found in legal, found
        assert partition.append(b"on it goes") == len(found)
        partition.check()
    report = minilog.verify(path)
    assert report.ok, str(report)


def check_place(scene: Scene, chosen: int, kind: str, path: Path, places: Places) -> str | None:
    """Interrupt a scene at one place and check what is left; None when it was over before."""
    broker = open_log(path, **scene.settings)
    place: str | None = "before it began"
    try:
        call = scene.prepare(broker)
        place = interrupt(call, chosen, places, KINDS[kind])
        legal = [BEFORE + added for added in scene.added]
        if not broker.is_closed:
            in_another_thread(
                lambda: legal.__setitem__(slice(None), [assert_usable(broker, scene)])
            )
        in_another_thread(broker.close)
        in_another_thread(lambda: assert_opens(path, legal))
    except BaseException as error:
        broker.refuse_in_child()  # lets go of everything, whatever state it is in
        raise AssertionError(f"{kind} at {place}: {error!r}") from error
    return place


class Failure(NamedTuple):
    """A place where something did not hold."""

    scene: str
    chosen: int
    reason: str

    def __str__(self) -> str:
        return f"{self.scene} at instruction {self.chosen}: {self.reason}"


class Figures:
    """What was checked so far."""

    def __init__(self) -> None:
        self.interrupts = 0
        self.whole: list[str] = []  # scenes that were interrupted at every instruction
        self.failures: list[Failure] = []


def check_scene(
    name: str,
    kind: str,
    chosen: Iterable[int],
    figures: Figures,
    places: Places = everywhere,
    end: float | None = None,
) -> None:
    """Interrupt a scene at each of some places, until it is over before."""
    memory = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="minilog-interrupts-", dir=memory) as root:
        for number in chosen:
            if end is not None and time.monotonic() > end:
                return
            path = Path(root) / str(number)
            try:
                if check_place(SCENES[name], number, kind, path, places) is None:
                    figures.whole.append(f"{name} by {kind}")
                    return
            except AssertionError as error:
                reason = "".join(traceback.format_exception(error))
                figures.failures.append(Failure(name, number, reason))
            figures.interrupts += 1
            shutil.rmtree(path)


def every(step: int, first: int = 0) -> Iterator[int]:
    """Yield every ``step``-th number, for ever."""
    while True:
        yield first
        first += step


def run(minutes: float, seed: int) -> dict[str, int | float]:
    """Interrupt every call at every instruction, in an order drawn from the seed, for so long at
    most; return the figures."""
    began = time.monotonic()
    figures = Figures()
    pairs = [(name, kind) for name in SCENES for kind in KINDS]
    random.Random(seed).shuffle(pairs)
    for name, kind in pairs:
        check_scene(name, kind, every(1), figures, end=began + minutes * 60)
    for failure in figures.failures[:20]:
        print(f"seed {seed}: {failure}", file=sys.stderr)
    return {
        "calls": len(SCENES),
        "sweeps": len(pairs),
        "sweeps to the end": len(figures.whole),
        "interrupts": figures.interrupts,
        "violations": len(figures.failures),
        "seconds": round(time.monotonic() - began, 1),
    }
