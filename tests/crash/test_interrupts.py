"""KeyboardInterrupt before every bytecode of a call, one after the other.

Python raises it at calls and jumps only; here it comes at every instruction, but for those
between the end of a ``with`` body and the call of ``__exit__``, where no signal is looked for and
no code could be safe. Afterwards no lock is held, the contents are a legal sequence, every
invariant holds, and the log can be written, closed and opened.
"""

from __future__ import annotations

import ast
import dis
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import minilog
from minilog import Broker, Partition

PACKAGE = str(Path(minilog.__file__).parent)

Trace = Callable[[FrameType, str, Any], Any]


ACTS = ("CALL", "STORE_ATTR", "STORE_SUBSCR", "DELETE_", "BINARY_SUBSCR", "FOR_ITER", "IMPORT_")
HANDLES = ("PUSH_EXC_INFO", "WITH_EXCEPT_START", "POP_EXCEPT", "RERAISE", "CHECK_EXC_MATCH", "COPY")


@functools.cache
def places(code: CodeType) -> frozenset[int]:
    """Return the instructions to interrupt before: each that acts, and each that follows it.

    Between two of those nothing but the stack changes, so it makes no difference where it comes.
    """
    found: set[int] = set()
    cleaning_up = lines_of_finally(code.co_filename)
    before = "RESUME"
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        line = instruction.positions.lineno or line if instruction.positions else line
        has_called = before.startswith(("CALL", "RESUME"))
        is_place = has_called or instruction.opname.startswith(ACTS) or before.startswith(ACTS)
        is_place = is_place and (has_called or line not in cleaning_up)
        if is_place and instruction.opname not in HANDLES:
            found.add(instruction.offset)
        before = instruction.opname
    return frozenset(found) - leaving_with(code)


@functools.cache
def lines_of_finally(path: str) -> frozenset[int]:
    """Return the lines in ``finally`` blocks: there it comes only where Python itself looks for
    signals, after a call, as no clean-up could be safe from more."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(Path(path).read_text())):
        if isinstance(node, ast.Try):
            for statement in node.finalbody:
                found |= set(range(statement.lineno, (statement.end_lineno or 0) + 1))
    return frozenset(found)


def leaving_with(code: CodeType) -> set[int]:
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
    return found


def is_finalizing(frame: FrameType | None) -> bool:
    """Say whether a frame runs for a ``__del__``, which lets no exception out."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


class Interrupter:
    """Raises KeyboardInterrupt before the chosen instruction of minilog's code."""

    def __init__(self, chosen: int) -> None:
        self.is_over = False
        self.place = ""
        self._left = chosen

    def trace(self, frame: FrameType, event: str, argument: Any) -> Trace | None:
        code = frame.f_code
        if event == "call":
            if self.is_over or not code.co_filename.startswith(PACKAGE) or is_finalizing(frame):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        if event == "opcode" and not self.is_over and frame.f_lasti in places(code):
            self._left -= 1
            if self._left < 0:
                self.is_over = True
                self.place = f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_name}"
                raise KeyboardInterrupt
        return self.trace


def interrupt(call: Callable[[], object], chosen: int) -> str | None:
    """Call and interrupt; return where it was, or None when the call was over before."""
    interrupter = Interrupter(chosen)
    before = sys.gettrace()
    sys.settrace(interrupter.trace)
    try:
        call()
    except KeyboardInterrupt:
        assert interrupter.is_over
    finally:
        sys.settrace(before)
    return interrupter.place or None


@contextmanager
def it_ends(seconds: int = 3) -> Iterator[None]:
    """Fail, rather than go on for ever: a guard, not a measure."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError("it does not end")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


Call = Callable[[Partition], object]

CALLS: dict[str, tuple[Call, list[bytes | None]]] = {
    "append": (lambda partition: partition.append(b"one", key=b"k"), [b"one"]),
    "append of any shape": (
        lambda partition: partition.append(None, headers=[("h", b"v")], timestamp=10**15),
        [None],
    ),
    "append to a new segment": (lambda partition: partition.append(b"r" * 200), [b"r" * 200]),
    "append_many": (
        lambda partition: partition.append_many([b"a", b"bc", None]),
        [b"a", b"bc", None],
    ),
    "append_many to a new segment": (
        lambda partition: partition.append_many([b"x" * 99] * 3, timestamps=[5, 10**15, 7]),
        [b"x" * 99] * 3,
    ),
    "read": (lambda partition: partition.read(0), []),
    "iteration": (lambda partition: list(partition), []),
    "offset_at": (lambda partition: partition.offset_at(0), []),
    "flush": (lambda partition: partition.flush(), []),
}
BEFORE: list[bytes | None] = [b"before %d" % number for number in range(5)]


def open_new(path: Path | str, sync: Any) -> tuple[Broker, Partition]:
    broker = Broker(path, sync=sync, maintenance_interval_ms=0, sync_interval_ms=10**9)
    partition = broker.create_topic("t", segment_bytes=300, index_interval_bytes=50)[0]
    for number, value in enumerate(BEFORE):
        partition.append(value, timestamp=1000 + number)
    return broker, partition


def assert_usable(partition: Partition, added: list[bytes | None]) -> list[bytes | None]:
    """Check a partition after an interrupt; return what is in it now."""
    partition.flush()  # with sync="always" a record that was interrupted is seen when synced
    partition.check()
    values = [record.value for record in partition]
    assert values in (BEFORE, BEFORE + added)
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
    assert [record.offset for record in partition] == list(range(len(values)))
    partition.check()
    return values


def assert_opens(path: Path, legal: list[list[bytes | None]]) -> None:
    """What was closed after an interrupt opens as what was closed without one."""
    with Broker(path, sync="never") as broker:
        assert broker.recovery.ok, str(broker.recovery)
        partition = broker.topic("t")[0]
        found = [record.value for record in partition]
        assert found in legal
        assert partition.append(b"on it goes") == len(found)
        partition.check()
    assert minilog.verify(path).ok, str(minilog.verify(path))


Opened = tuple[Broker, Partition]


def interrupted_everywhere(
    opened: Callable[[int], Opened],
    call: Call,
    check: Callable[[Opened, int], object],
    chosen: Iterable[int],
) -> list[str]:
    """Interrupt a call of something new at each place in turn; return what failed then."""
    failures = []
    for number in chosen:
        broker, partition = opened(number)
        place: str | None = "before it began"
        try:
            with it_ends():
                place = interrupt(functools.partial(call, partition), number)
                check((broker, partition), number)
                broker.close()
        except Exception as error:
            failures.append(f"{number}, {place}: {error!r}")
            broker.refuse_in_child()  # lets go of everything, whatever state it is in
        if place is None:
            return failures
    raise AssertionError("the call never ended by itself")


@pytest.mark.parametrize("name", CALLS)
def test_a_call_interrupted_at_any_instruction_leaves_the_partition_usable(name: str) -> None:
    call, added = CALLS[name]
    failures = interrupted_everywhere(
        lambda number: open_new(":memory:", "interval"),
        call,
        lambda opened, number: assert_usable(opened[1], added),
        range(10_000),
    )
    assert not failures, f"{len(failures)}\n" + "\n".join(failures[:20])


@pytest.mark.parametrize("sync", ["never", "always"])
@pytest.mark.parametrize("name", ["append", "append to a new segment", "append_many"])
def test_an_interrupted_append_closes_and_opens_as_if_nothing_had_been(
    tmp_path: Path, name: str, sync: str
) -> None:
    call, added = CALLS[name]

    def check(opened: Opened, number: int) -> None:
        broker, partition = opened
        legal = [BEFORE, BEFORE + added]
        if number % 2:
            broker.flush()  # a record that was stored, but whose sync was cut short, shows then
            legal = [assert_usable(partition, added)]
        broker.close()
        assert_opens(tmp_path / str(number), legal)

    # Each of these touches a disk, so only some of the places.
    places_to_try = range(len(name) % 3, 10_000, 3 if name == "append" else 11)
    failures = interrupted_everywhere(
        lambda number: open_new(tmp_path / str(number), sync), call, check, places_to_try
    )
    assert not failures, f"{len(failures)}\n" + "\n".join(failures[:20])


def test_an_interrupted_read_that_waits_leaves_nobody_behind() -> None:
    def check(opened: Opened, number: int) -> None:
        partition = opened[1]
        assert partition.append(b"wakes whoever waits") == len(BEFORE)
        reader = threading.Thread(target=partition.read, args=(len(BEFORE),), daemon=True)
        reader.start()
        reader.join()

    failures = interrupted_everywhere(
        lambda number: open_new(":memory:", "interval"),
        lambda partition: partition.read(partition.end_offset, timeout=0.0001),
        check,
        range(10_000),
    )
    assert not failures, "\n".join(failures)
