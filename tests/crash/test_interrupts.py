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
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import minilog
from minilog import Broker, Partition
from minilog.group_sync import GroupSync
from minilog.storage.files import disk_directory
from tests.torture.interrupts import (
    KINDS,
    SCENES,
    Figures,
    check_scene,
    every,
    everywhere,
    in_another_thread,
    interrupt,
    leaving_with,
)

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


MOST_FAILURES = 100  # more of them say no more
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
                place = interrupt(functools.partial(call, partition), number, places)
                check((broker, partition), number)
                broker.close()
        except Exception as error:
            failures.append(f"{number}, {place}: {error!r}")
            broker.refuse_in_child()  # lets go of everything, whatever state it is in
        if len(failures) >= MOST_FAILURES:
            return failures
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


# ---------------------------------------------------------------- at every instruction, indeed


@pytest.mark.parametrize("name", SCENES)
def test_a_call_interrupted_anywhere_at_all_leaves_everything_usable(name: str) -> None:
    """Some places of each call, by one kind of interrupt; ``tests/torture`` takes all by both."""
    turn = list(SCENES).index(name)
    figures = Figures()
    check_scene(name, list(KINDS)[turn % 2], every(211 - 2 * turn, first=17 * turn % 40), figures)
    assert figures.interrupts
    assert figures.whole
    assert not figures.failures, "\n\n".join(map(str, figures.failures[:5]))


def test_a_sync_interrupted_while_it_is_handed_on_holds_nobody_up() -> None:
    """The thread that was interrupted stood for the one that syncs for ever after."""
    group = GroupSync()

    def sync() -> None:
        group.run(lambda: False, lambda: None)

    for number in range(10_000):
        place = interrupt(sync, number, everywhere)
        in_another_thread(sync)
        if place is None:
            break
    assert number > 50


def test_a_lock_whose_release_was_interrupted_can_be_released_and_taken(tmp_path: Path) -> None:
    """Its descriptor was forgotten before it was closed, so the directory stayed locked."""
    directory = disk_directory(tmp_path)
    for number in range(10_000):
        lock = directory.lock("lock")
        place = interrupt(lock.release, number, everywhere)
        lock.release()
        directory.lock("lock").release()
        if place is None:
            break
    assert number > 5
