"""What a crash may leave of a disk: which operations of a trace are on it, and how much of each.

After a kill everything is there; the last store may have been cut at any byte. After a power cut
an operation that no sync has covered may be there, or lost, or *torn* (some of its 512-byte
sectors are there), or *hollow* (the file has grown, the bytes are missing), whatever became of the
others; where a file grew and nothing was written there may be *garbage*. A rename is there as a
whole or not at all, until one of its two directories is synced.

A sector is on the disk as it was at some moment since it was last synced, whole, and bytes beside
it are left alone: nothing more is asked of a disk. This module refuses to know what is stored.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from minilog.testing.trace import (
    CREATE,
    MAKE,
    RECOVERED,
    SYNC,
    SYNC_NAMES,
    WRITE,
    Image,
    Operation,
    grow,
    store,
)

SECTOR = 512
GARBAGE_SEED = 77

Torn = tuple[int, int, int]


class CrashPlan(NamedTuple):
    """One crash: after how many operations, and which of those are not on the disk, by number.

    ``torn`` are (operation, start, stop): only those of its bytes are there. ``garbage`` seeds
    what stands in sectors that a file has grown by and nothing was written to; None is zeros.
    """

    at: int
    is_power_cut: bool = True
    lost: frozenset[int] = frozenset()
    hollow: frozenset[int] = frozenset()
    torn: tuple[Torn, ...] = ()
    garbage: int | None = None

    @property
    def is_within_operation(self) -> bool:
        """Whether it comes in the middle of the last operation: a kill while bytes are copied."""
        return bool(self.torn) and not self.is_power_cut

    def fate_of(self, number: int) -> str:
        """Return what became of an operation, in a word."""
        if number in self.lost:
            return "lost"
        if number in self.hollow:
            return "hollow"
        torn = [f"torn to [{start}:{stop}]" for other, start, stop in self.torn if other == number]
        return torn[0] if torn else "kept"


class Timeline:
    """A disk while a trace is done to it: what is on it for certain, and what is pending."""

    def __init__(
        self, image: Image, *, is_same_boot: bool = False, inherited_count: int = 0
    ) -> None:
        self.at = 0
        self.inherited_count = inherited_count  # so many operations another process has done
        self.is_same_boot = is_same_boot
        self.durable = image.copy()
        self.pending: dict[int, Operation] = {}

    def advance(self, operation: Operation) -> None:
        """Do the next operation."""
        if operation.kind is SYNC:
            self._settle_file(operation.node)
        elif operation.kind is SYNC_NAMES:
            self._settle_names(operation.node)
        elif operation.kind is RECOVERED:
            self.is_same_boot = True
        else:
            if operation.kind is CREATE:
                self.durable.files.setdefault(operation.node, b"")
            elif operation.kind is MAKE:
                self.durable.directories.setdefault(operation.node, {})
            self.pending[self.at] = operation
        self.at += 1

    def _settle_file(self, node: int) -> None:
        mine = [n for n, op in self.pending.items() if op.node == node and not op.edits]
        if mine:
            content = bytearray(self.durable.files[node])
            for number in mine:
                store(content, self.pending.pop(number))
            self.durable.files[node] = bytes(content)

    def _settle_names(self, directory: int) -> None:
        for number, operation in list(self.pending.items()):
            settled = tuple(edit for edit in operation.edits if edit.directory == directory)
            if settled:
                self.durable.edit(settled)
                rest = tuple(edit for edit in operation.edits if edit.directory != directory)
                if rest:  # its other directory is not synced: there it may be as it was
                    self.pending[number] = operation._replace(edits=rest)
                else:
                    del self.pending[number]

    def image_after(self, plan: CrashPlan) -> Image:
        """Return what is on the disk after a power cut; ValueError for one that cannot be."""
        self._check(plan)
        image = self.durable.copy()
        torn = {number: (start, stop) for number, start, stop in plan.torn}
        pieces: dict[int, Pieces] = {}
        for number, operation in self.pending.items():
            if operation.edits:
                if number not in plan.lost:
                    image.edit(operation.edits)
                continue
            node = operation.node
            if node not in pieces:
                pieces[node] = Pieces(image.files[node])
            if number in torn:
                pieces[node].tear(operation, *torn[number])
            elif number in plan.lost or number in plan.hollow:
                pieces[node].lose(operation, keeps_size=number in plan.hollow)
            else:
                pieces[node].keep(operation)
        for node, file in pieces.items():
            if plan.garbage is not None:
                file.litter(plan.garbage)
            image.files[node] = bytes(file.content)
        return image

    def pending_after(self, plan: CrashPlan) -> list[Operation]:
        """Return what is in the cache and not yet on the disk after the process was killed."""
        self._check(plan)
        torn = {number: (start, stop) for number, start, stop in plan.torn}
        return [
            part_of(operation, *torn[number]) if number in torn else operation
            for number, operation in self.pending.items()
        ]

    def _check(self, plan: CrashPlan) -> None:
        named = {*plan.lost, *plan.hollow, *(number for number, _, _ in plan.torn)}
        if plan.at != self.at:
            raise ValueError(f"the plan is for {plan.at} operations; {self.at} were done")
        if not named <= self.pending.keys():
            synced = sorted(named - self.pending.keys())
            raise ValueError(f"no crash takes back operations {synced}: they were synced")
        if not plan.is_power_cut and (plan.lost or plan.hollow):
            raise ValueError("a kill loses nothing that was done; only a power cut does")


class Pieces:
    """What a power cut leaves of one file: each sector as it was at some moment.

    A sector that has missed a write misses the later ones too: it is one thing in the cache, and
    is on the disk as it was when it was last brought there.
    """

    def __init__(self, durable: bytes) -> None:
        self.content = bytearray(durable)
        self._durable_size = len(durable)
        self._missed: set[int] = set()
        self._written: set[int] = set()

    def keep(self, operation: Operation) -> None:
        """Have an operation on the disk."""
        if operation.kind is not WRITE:
            store(self.content, operation)
            return
        sectors = sectors_of(operation)
        self._written.update(sectors)
        if self._missed.isdisjoint(sectors):
            store(self.content, operation)
            return
        if operation.grows:
            grow(self.content, operation.stop)
        for sector in sectors:
            if sector not in self._missed:
                start = max(sector * SECTOR - operation.position, 0)
                stop = (sector + 1) * SECTOR - operation.position
                store(self.content, part_of(operation, start, stop))

    def lose(self, operation: Operation, *, keeps_size: bool) -> None:
        """Have an operation not on the disk, but perhaps the size it gave the file."""
        if operation.kind is WRITE:
            self._missed.update(sectors_of(operation))
            if keeps_size and operation.grows:
                grow(self.content, operation.stop)

    def tear(self, operation: Operation, start: int, stop: int) -> None:
        """Have some of the bytes of a write on the disk."""
        self.keep(part_of(operation, start, stop))
        self._missed.update(sectors_of(part_of(operation, 0, start)))
        self._missed.update(sectors_of(part_of(operation, stop, len(operation.data))))

    def litter(self, seed: int) -> None:
        """Put garbage into the sectors that nothing was ever written to."""
        size = len(self.content)
        for sector in range(-(-self._durable_size // SECTOR), -(-size // SECTOR)):
            if sector not in self._written or sector in self._missed:
                start, stop = sector * SECTOR, min((sector + 1) * SECTOR, size)
                self.content[start:stop] = random.Random(seed + sector).randbytes(stop - start)


def sectors_of(operation: Operation) -> range:
    """Return the sectors that a write touches."""
    if not operation.data:
        return range(0)
    return range(operation.position // SECTOR, (operation.stop - 1) // SECTOR + 1)


def part_of(operation: Operation, start: int, stop: int) -> Operation:
    """Return a write of some of a write's bytes."""
    data = operation.data[start:stop]
    return operation._replace(position=operation.position + start, data=data)


def plans_at(timeline: Timeline, *, seed: int = 0, drawn: int = 8) -> Iterator[CrashPlan]:
    """Yield the crashes that may come at this moment; ``drawn`` of them are drawn with ``seed``."""
    at, pending = timeline.at, timeline.pending
    yield CrashPlan(at, is_power_cut=False)
    if at > timeline.inherited_count and at - 1 in pending:
        yield from _cuts(at, pending[at - 1])
    yield CrashPlan(at)
    if not pending:
        return
    everything = frozenset(pending)
    yield CrashPlan(at, lost=everything)
    names = frozenset(n for n, op in pending.items() if op.edits)
    writes = frozenset(n for n, op in pending.items() if op.kind is WRITE)
    yield from _subsets(at, list(pending))
    yield from _by_part(at, pending, names, writes)
    yield from _tears(at, pending, writes)
    yield from _drawn(at, pending, random.Random(f"{seed} {at}"), drawn)


def _cuts(at: int, last: Operation) -> Iterator[CrashPlan]:
    """The process is killed while it copies bytes."""
    size = len(last.data)
    for stop in sorted({0, 1, 4, 8, size // 2, size - 4, size - 1}):
        if 0 <= stop < size:
            yield CrashPlan(at, is_power_cut=False, torn=((at - 1, 0, stop),))


def _subsets(at: int, numbers: list[int]) -> Iterator[CrashPlan]:
    """Each lost, each kept alone, every prefix and suffix, every two lost."""
    everything = frozenset(numbers)
    for place, number in enumerate(numbers):
        yield CrashPlan(at, lost=frozenset({number}))
        yield CrashPlan(at, lost=everything - {number})
        yield CrashPlan(at, lost=frozenset(numbers[place:]))
        yield CrashPlan(at, lost=frozenset(numbers[:place]))
    for two in combinations(numbers, 2):
        yield CrashPlan(at, lost=frozenset(two))


def _by_part(
    at: int, pending: dict[int, Operation], names: frozenset[int], writes: frozenset[int]
) -> Iterator[CrashPlan]:
    """Names by prefix with bytes, without, with sizes alone; file by file; garbage for all."""
    data = frozenset(pending) - names
    ordered = sorted(names)
    for place in range(len(ordered) + 1):
        lost = frozenset(ordered[place:])
        yield CrashPlan(at, lost=lost)
        yield CrashPlan(at, lost=lost | data)
        yield CrashPlan(at, lost=lost, hollow=writes)
    for node in {pending[number].node for number in data}:
        mine = frozenset(number for number in data if pending[number].node == node)
        for lost in (mine, data - mine, frozenset(pending) - mine):
            yield CrashPlan(at, lost=lost)
        yield CrashPlan(at, hollow=mine & writes)
        yield CrashPlan(at, hollow=mine & writes, garbage=GARBAGE_SEED)
    yield CrashPlan(at, garbage=GARBAGE_SEED)
    yield CrashPlan(at, lost=writes, garbage=GARBAGE_SEED)
    yield CrashPlan(at, hollow=writes, garbage=GARBAGE_SEED)


def _tears(at: int, pending: dict[int, Operation], writes: frozenset[int]) -> Iterator[CrashPlan]:
    """Each write hollow, or torn at each sector's end: its head kept, or its tail."""
    for number in sorted(writes):
        yield CrashPlan(at, hollow=frozenset({number}))
        yield CrashPlan(at, hollow=frozenset({number}), garbage=GARBAGE_SEED)
        later = frozenset(n for n in pending if n > number)
        size = len(pending[number].data)
        for cut in sector_ends(pending[number]):
            yield CrashPlan(at, torn=((number, 0, cut),))
            yield CrashPlan(at, torn=((number, cut, size),))
            yield CrashPlan(at, torn=((number, 0, cut),), lost=later)
            yield CrashPlan(at, torn=((number, cut, size),), garbage=GARBAGE_SEED)


def _drawn(
    at: int, pending: dict[int, Operation], rng: random.Random, count: int
) -> Iterator[CrashPlan]:
    """Any fate for any operation."""
    for _ in range(count):
        lost, hollow, torn = set(), set(), []
        share = rng.choice((0.2, 0.5, 0.8))
        for number, operation in pending.items():
            if rng.random() >= share:
                continue
            fate = rng.randrange(3) if operation.kind is WRITE else 0
            cuts = sector_ends(operation) if fate == 1 else []
            if cuts:
                cut = rng.choice(cuts)
                parts = (0, cut), (cut, len(operation.data))
                torn.append((number, *rng.choice(parts)))
            elif fate == 2:
                hollow.add(number)
            else:
                lost.add(number)
        garbage = rng.randrange(1000) if rng.random() < 0.3 else None
        yield CrashPlan(at, True, frozenset(lost), frozenset(hollow), tuple(torn), garbage)


def sector_ends(operation: Operation) -> list[int]:
    """Return where, in its bytes, a write may be torn."""
    first = SECTOR - operation.position % SECTOR
    return list(range(first, len(operation.data), SECTOR))
