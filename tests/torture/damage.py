"""Every bit flipped, every length cut, blocks zeroed, doubled, swapped and stale, files gone.

Three logs, each with files of every kind: one closed, one whose process was killed, one whose
machine lost power. Whatever is done to one file of it, opening and reading give the right records,
or a StorageError that names the file, with positions and offsets; of a log that was not closed
also fewer records at the end, which is reported. No wrong byte, no foreign error, no signal, no
case of over a second of the processor's, no memory out of proportion: cases run in children with
a limit on it.

This module refuses to know how anything is stored, but for the names of the files.
"""

from __future__ import annotations

import itertools
import mmap
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from minilog import Broker, CorruptionError, Partition, Record, StorageError, verify
from minilog.testing import ManualClock

IN_MEMORY = "/dev/shm"
LOCK_FILE = "minilog.lock"
BOOT = Path("/proc/sys/kernel/random/boot_id")
OTHER_BOOT = b"4242 00000000-0000-4000-8000-000000000000\n"
SLOWEST_S = 1.0
HANG_S = 10
MEMORY_TO_SPARE = 64 * 2**20
CASES_PER_CHILD = 2000
HEADER_SIZE = 64
HARMLESS = (LOCK_FILE, ".torn")  # nothing that is read is in these
DOCUMENTS = ("broker.json", "clean.json", "topic.json")

Image = dict[str, bytes]
Name = tuple[str, int]  # of a partition


class Sample(NamedTuple):
    """The files of a log, and what is in it."""

    name: str
    image: Image
    stale: Image  # an older version of the same
    records: dict[Name, dict[int, Record]]
    starts: dict[Name, int]
    unsynced: dict[Name, int]  # from here on a crash may have cost something
    witness: dict[Name, int]  # where the last frame begins: it says how much was synced before
    is_closed: bool


class Case(NamedTuple):
    """What is done to a sample: files that are other than they were (None: gone)."""

    sample: str
    what: str
    changed: dict[str, bytes | None]
    read_only: bool
    reaches: int  # how far into the first file what was changed goes

    def __str__(self) -> str:
        how = "read-only" if self.read_only else "for writing"
        return f"{self.sample}: {self.what}, opened {how}"


def image_of(root: Path) -> Image:
    """Return every file by its path below the root."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def write_image(root: Path, image: Image) -> None:
    """Make a directory hold these files and no others."""
    for path in root.rglob("*"):
        if path.is_file() and str(path.relative_to(root)) not in image:
            path.unlink()
    for name, data in image.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


# ---------------------------------------------------------------- the samples


def append_some(partition: Partition, clock: ManualClock, number: int, size: int) -> None:
    """Append records of all shapes, one by one and in batches."""
    clock.advance(10)
    partition.append(b"value %d " % number * size, key=b"k%d" % number)
    partition.append(None, key=b"gone")
    partition.append(b"with", headers=[("a", b"1"), ("b", None)], timestamp=7 + number)
    partition.append_many([b"same", b"size", b"vals"])
    partition.append_many([b"a" * size, None, b"ccc"], keys=[None, b"k", b""], timestamps=[3, 2, 1])
    partition.append_many([b"x%d" % number] * 3, headers=[{"h": b"v"}] * 3)


def build(path: Path, name: str, *, segment_bytes: int, size: int, rounds: int) -> Sample:
    """Make a sample: closed and opened again in between, recovered once, with a second topic."""
    clock = ManualClock(1_700_000_000_000)
    settings: dict[str, Any] = {"segment_bytes": segment_bytes, "index_interval_bytes": 128}
    with Broker(path, clock=clock) as broker:
        topic = broker.create_topic("t", 2, **settings)
        for number in range(rounds):
            append_some(topic[number % 2], clock, number, size)
        broker.create_topic("u", **settings)[0].append(b"another topic")
    scribble(path / "t" / "0")
    (path / "clean.json").unlink()
    with Broker(path, clock=clock) as broker:  # recovers: there is a quarantine
        assert broker.recovery.problems
        broker.topic("t")[0].append(b"recovered")
        topic.name  # noqa: B018
    stale = image_of(path)
    broker = Broker(path, clock=clock, sync="never", maintenance_interval_ms=0)
    topic = broker.topic("t")
    topic[1].delete_before(2)
    topic[0].append(b"synced")
    append_some(topic[1], clock, 100, size)
    broker.flush()
    unsynced = {(t.name, p.index): p.end_offset for t in broker.topics.values() for p in t}
    append_some(topic[0], clock, 101, size)
    topic[1].append(b"not synced", key=b"k")
    witness = {("t", p.index): p._log.end().position for p in topic}  # type: ignore[union-attr]
    for partition in topic:
        partition.append_many([b"nor", b"this"])
    records, starts = {}, {}
    for each in broker.topics.values():
        for partition in each:
            key = (each.name, partition.index)
            records[key] = {record.offset: record for record in partition}
            starts[key] = partition.start_offset
    image = image_of(path)
    if name == "closed":
        broker.close()
        image = image_of(path)
    broker.refuse_in_child()  # lets go, as the end of a process does
    if name == "cut off":
        image[LOCK_FILE] = OTHER_BOOT
    return Sample(name, image, stale, records, starts, unsynced, witness, name == "closed")


def scribble(directory: Path) -> None:
    """Leave what a torn write leaves."""
    last = max(directory.glob("*.log"))
    with last.open("ab") as file:
        file.write(b"\xa5" * 100)


SIZES = {
    "small": {"segment_bytes": 700, "size": 2, "rounds": 4},
    "large": {"segment_bytes": 20_000, "size": 60, "rounds": 14},
}
SAMPLES = ("closed", "killed", "cut off")


def build_all(size: str) -> dict[str, Sample]:
    """Return the three samples."""
    found = {}
    for name in SAMPLES:
        with scratch() as path:
            found[name] = build(path / "log", name, **SIZES[size])
    return found


class scratch:
    """A directory in memory, where there is such, for a while."""

    def __enter__(self) -> Path:
        memory = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
        self._path = tempfile.mkdtemp(prefix="minilog-damage-", dir=memory)
        return Path(self._path)

    def __exit__(self, *raised: object) -> None:
        shutil.rmtree(self._path)


# ---------------------------------------------------------------- what is done to them

Change = tuple[str, dict[str, bytes | None], int]


def flips(name: str, data: bytes) -> Iterator[Change]:
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            yield f"bit {bit} of byte {position} of {name}", {name: bytes(changed)}, position + 1


def cuts(name: str, data: bytes, step: int = 1) -> Iterator[Change]:
    for length in range(0, len(data), step):
        yield f"{name} cut to {length}", {name: data[:length]}, len(data)


def blocks(name: str, data: bytes, stale: bytes, size: int) -> Iterator[Change]:
    def put(start: int, block: bytes) -> bytes:
        return data[:start] + block + data[start + len(block) :]

    for start in range(0, len(data), size):
        block, following = data[start : start + size], data[start + size : start + 2 * size]
        where = f"block of {size} at {start} of {name}"
        yield f"{where} zeroed", {name: put(start, bytes(len(block)))}, start + size
        if following:
            doubled = put(start + size, block[: len(following)])
            yield f"{where} doubled", {name: doubled}, start + 2 * size
            swapped = data[:start] + following + block + data[start + 2 * size :]
            yield f"{where} swapped with the next", {name: swapped}, start + 2 * size
        old = stale[start : start + size]
        if old and old != block:
            yield f"{where} stale", {name: put(start, old[: len(block)])}, start + size


def kind_of(name: str) -> str:
    """Return what a file is: its ending, or its own name."""
    path = Path(name)
    return path.name if path.suffix == ".json" else path.suffix


def losses(image: Image) -> Iterator[Change]:
    for name, data in image.items():
        yield f"{name} gone", {name: None}, len(data)
        yield f"{name} empty", {name: b""}, len(data)
    names = list(image)
    for name, other in itertools.pairwise(names):
        for second in [other, *[n for n in names if n > name and kind_of(n) == kind_of(name)]][:3]:
            swapped: dict[str, bytes | None] = {name: image[second], second: image[name]}
            reach = max(len(image[name]), len(image[second]))
            yield f"{name} and {second} swapped", swapped, reach


def changes(sample: Sample) -> Iterator[Change]:
    """Yield all that is done to a small sample."""
    yield from losses(sample.image)
    for name, data in sample.image.items():
        yield from cuts(name, data)
        for size in (512, 4096):
            yield from blocks(name, data, sample.stale.get(name, b""), size)
        yield from flips(name, data)


def block_changes(sample: Sample) -> Iterator[Change]:
    """Yield what is done to a large sample: whole blocks, and lengths."""
    yield from losses(sample.image)
    for name, data in sample.image.items():
        yield from cuts(name, data, step=509)
        for size in (512, 4096):
            yield from blocks(name, data, sample.stale.get(name, b""), size)


# ---------------------------------------------------------------- what must hold


class Reading(NamedTuple):
    """What reading a partition gave."""

    start: int
    end: int
    records: list[Record]
    errors: list[CorruptionError]


def behind(error: CorruptionError, offset: int, end: int) -> int:
    """Return where reading goes on, as an error that has all it should says."""
    first, following = error.offset, error.next_offset
    assert first is not None, f"{error} says no offset"
    assert following is not None, f"{error} says no next offset"
    assert first <= offset < following <= end, f"at {offset} of {end}: {error}"
    assert error.position >= 0, f"{error} says no position"
    assert error.path, f"{error} says no path"
    return following


def read_all(partition: Partition) -> Reading:
    """Read a partition as one who goes on behind damage does."""
    records: list[Record] = []
    errors: list[CorruptionError] = []
    start, end = partition.start_offset, partition.end_offset
    offset = start
    while offset < end:
        try:
            found = partition.read(offset, max_records=50)
        except CorruptionError as error:
            errors.append(error)
            offset = behind(error, offset, end)
            continue
        assert found, f"nothing at {offset} of {end}"
        for record in found:
            assert record.offset == offset, "a record was skipped silently"
            offset += 1
        records += found
    return Reading(start, end, records, errors)


class Trial:
    """One case in a directory."""

    def __init__(self, root: Path, sample: Sample, case: Case) -> None:
        self._root = root
        self._sample = sample
        self._case = case
        self._names = list(case.changed)

    def take(self) -> str:
        """Check the case; return what came of it. AssertionError where something does not hold."""
        try:
            broker = Broker(
                self._root,
                read_only=self._case.read_only,
                clock=ManualClock(1_800_000_000_000),
                maintenance_interval_ms=0,
                sync="never",
            )
        except StorageError as error:
            self._check_named(error)
            return "refused"
        with broker:
            return self._check_broker(broker)

    def _check_named(self, error: StorageError) -> None:
        text = str(error)
        parents = {str(Path(name).parent) for name in self._names}
        named = [*self._names, *(parent for parent in parents if parent != ".")]
        if any("broker.json" in name for name in self._names):
            named.append("broker.json")
        assert any(name in text for name in named), f"{error!r} names none of {self._names}"

    def _check_broker(self, broker: Broker) -> str:
        outcome = "right"
        reported = {problem.path for problem in broker.recovery.problems}
        for (topic, number), expected in self._sample.records.items():
            try:
                reading = read_all(broker.topic(topic)[number])
            except StorageError as error:
                self._check_named(error)
                outcome = "refused"
                continue
            missing = self._check_reading((topic, number), expected, reading)
            if missing:
                outcome = "shorter"
                directory = str(self._root / topic / str(number))
                is_told = any(path.startswith(directory) for path in reported)
                assert is_told or self._is_unseen((topic, number)), (
                    f"offsets from {reading.end} of {topic}-{number} are gone, and nobody says so"
                )
            if reading.errors:
                outcome = "damage told"
        for problem in broker.recovery.problems:
            assert problem.reason
        return outcome

    def _check_reading(self, key: Name, expected: dict[int, Record], reading: Reading) -> list[int]:
        """Check what was read of a partition; return the offsets missing at the end."""
        sample = self._sample
        is_stale_topic = any(name.endswith("topic.json") for name in self._names)
        if not is_stale_topic:
            assert reading.start == sample.starts[key], f"{key} starts at {reading.start}"
        for record in reading.records:
            if record.offset >= sample.starts[key]:
                assert record == expected.get(record.offset), f"wrong: {record}"
        explained: set[int] = set()
        gone = [name for name, data in self._case.changed.items() if data is None]
        named = (*self._names, *(str(Path(name).parent) for name in gone))
        for error in reading.errors:
            assert error.path.endswith(named), f"{error} names none of {named}"
            explained |= set(range(error.offset or 0, error.next_offset or 0))
        end = max(expected, default=-1) + 1
        assert reading.end <= end, f"{key} ends at {reading.end}, not {end}"
        missing = set(expected) - {record.offset for record in reading.records} - explained
        assert all(offset >= reading.end for offset in missing), f"{sorted(missing)} are skipped"
        if missing:
            self._check_shorter(key, min(missing))
        return sorted(missing)

    def _check_shorter(self, key: Name, first: int) -> None:
        """Fewer records at the end are right only after a crash, of what was not synced, or where
        all that could tell is gone too."""
        sample, case = self._sample, self._case
        assert not sample.is_closed, f"{key} lost {first} and on, and it was closed"
        ours = [name for name in self._names if name.startswith(f"{key[0]}/{key[1]}/")]
        assert ours, f"{key} lost {first} and on, and none of its files were touched"
        # What was synced last is known to be only by what was written behind it.
        is_told = key in sample.witness and case.reaches <= sample.witness[key]
        assert first >= sample.unsynced[key] or not is_told, (
            f"{key} lost {first} and on, which was synced"
        )

    def _is_unseen(self, key: Name) -> bool:
        """Say whether opening has dropped nothing: what is gone had left no byte to be told of."""
        image = {**self._sample.image, **self._case.changed}
        for name, data in image.items():
            if data is not None and name.startswith(f"{key[0]}/{key[1]}/") and ".log" in name:
                path = self._root / name
                records = data.rstrip(b"\0")[HEADER_SIZE:]
                if not path.exists() or not path.read_bytes()[HEADER_SIZE:].startswith(records):
                    return False
        return True


def verify_told(root: Path, sample: Sample, case: Case) -> None:
    """Assert that ``verify`` tells of damage to a log that was closed, and raises nothing else."""
    try:
        is_right = verify(root).ok
    except StorageError:
        is_right = False
    is_harmless = any(name.endswith(HARMLESS) for name in case.changed)
    if sample.is_closed and not is_harmless and "stale" not in case.what:
        assert not is_right or case.what.endswith(("index gone", "clean.json gone")), (
            "verify sees nothing"
        )


# ---------------------------------------------------------------- running cases


class Failure(NamedTuple):
    """A case in which something did not hold."""

    case: str
    reason: str

    def __str__(self) -> str:
        return f"{self.case}: {self.reason}"


class Result(NamedTuple):
    """What some cases came to."""

    outcomes: dict[str, int]
    failures: list[Failure]
    slowest_s: float

    @property
    def case_count(self) -> int:
        """How many cases there were."""
        return sum(self.outcomes.values()) + len(self.failures)


class Bench:
    """A directory in which cases of one sample are tried, one after the other."""

    def __init__(self, root: Path, sample: Sample) -> None:
        self._root = root
        self._sample = sample
        write_image(root, sample.image)

    def try_case(self, case: Case) -> str:
        """Try a case and put everything back; AssertionError where something does not hold."""
        root, image = self._root, self._sample.image
        for name, data in case.changed.items():
            if data is None:
                (root / name).unlink()
            else:
                (root / name).write_bytes(data)
        try:
            if case.read_only:
                verify_told(root, self._sample, case)
            return Trial(root, self._sample, case).take()
        finally:
            restored = {name: image[name] for name in case.changed} if case.read_only else image
            if case.read_only:
                for name, data in restored.items():
                    (root / name).write_bytes(data)
            else:
                write_image(root, image)


def try_cases(cases: Iterable[Case], samples: dict[str, Sample]) -> Result:
    """Try cases in this process."""
    outcomes: dict[str, int] = {}
    failures: list[Failure] = []
    slowest = 0.0
    with scratch() as path:
        benches = {
            name: Bench(path / name.replace(" ", "-") / "log", each)
            for name, each in samples.items()
        }
        for case in cases:
            before = time.process_time()
            try:
                outcome = benches[case.sample].try_case(case)
            except Exception as error:
                reason = "".join(traceback.format_exception(error))
                failures.append(Failure(str(case), reason))
                benches[case.sample] = Bench(
                    path / f"{len(failures)}" / "log", samples[case.sample]
                )
                continue
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            took = time.process_time() - before
            slowest = max(slowest, took)
            if took > SLOWEST_S:
                failures.append(Failure(str(case), f"took {took:.2f} s"))
    return Result(outcomes, failures, slowest)


def try_in_child(cases: list[Case], samples: dict[str, Sample]) -> Result:
    """Try cases in a child of little memory; one that a signal ends is a failure of its case."""
    progress = mmap.mmap(-1, 8)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        status = 1
        try:
            limit_memory()
            signal.signal(signal.SIGVTALRM, _hang)
            result = try_cases(counted(cases, progress), samples)
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(result, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if status == 0 and data:
        result: Result = pickle.loads(data)
        return result
    number = int.from_bytes(progress[:8], "little")
    failure = Failure(str(cases[number]), f"ended the process: wait status {status}")
    before = try_in_child(cases[:number], samples) if number else Result({}, [], 0.0)
    after = try_in_child(cases[number + 1 :], samples) if cases[number + 1 :] else before
    parts = [before, after] if after is not before else [before]
    return merged([*parts, Result({}, [failure], 0.0)])


def counted(cases: list[Case], progress: mmap.mmap) -> Iterator[Case]:
    """Yield cases, with their number where the parent sees it, and an end to what hangs."""
    for number, case in enumerate(cases):
        progress[:8] = number.to_bytes(8, "little")
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
        yield case
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _hang(number: int, frame: object) -> None:
    raise TimeoutError("this does not end")


def limit_memory() -> None:
    """Let this process have little more memory than it has now."""
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        size = int(statistics.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_TO_SPARE, resource.RLIM_INFINITY))


def merged(results: Iterable[Result]) -> Result:
    """Return several results as one."""
    outcomes: dict[str, int] = {}
    failures: list[Failure] = []
    slowest = 0.0
    for result in results:
        for outcome, count in result.outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
        failures += result.failures
        slowest = max(slowest, result.slowest_s)
    return Result(outcomes, failures, slowest)


def cases_of(sample: Sample, changed: Iterator[Change]) -> Iterator[Case]:
    """Yield a sample's cases, each opened for reading and for writing."""
    for what, files, reaches in changed:
        for read_only in (True, False):
            yield Case(sample.name, what, files, read_only, reaches)


Changes = Callable[[Sample], Iterator[Change]]


def check_share(size: str, changed: Changes, wanted: Callable[[int], bool], name: str) -> Result:
    """Try those cases of one sample whose number is wanted, in a child."""
    samples = build_all(size)
    cases = [
        case
        for number, case in enumerate(cases_of(samples[name], changed(samples[name])))
        if wanted(number)
    ]
    return try_in_child(cases, {name: samples[name]})


def run(minutes: float, seed: int) -> dict[str, int | float]:
    """Damage logs in every way, in an order drawn from the seed, for so long at most; return the
    figures."""
    began = time.monotonic()
    chance = random.Random(seed)
    results: list[Result] = []
    total = 0
    kinds: set[str] = set()
    for size, changed in (("small", changes), ("large", block_changes)):
        samples = build_all(size)
        kinds |= {kind_of(name) for sample in samples.values() for name in sample.image}
        total += sum(2 * sum(1 for _ in changed(sample)) for sample in samples.values())
        for cases in shuffled(samples, changed, chance):
            if time.monotonic() - began > minutes * 60:
                break
            results.append(try_in_child(cases, samples))
    result = merged(results)
    for failure in result.failures[:20]:
        print(f"seed {seed}: {failure}", file=sys.stderr)
    return {
        "kinds of files": len(kinds),
        "cases": result.case_count,
        "of": total,
        **result.outcomes,
        "slowest ms": round(result.slowest_s * 1000),
        "violations": len(result.failures),
        "seconds": round(time.monotonic() - began, 1),
    }


def shuffled(
    samples: dict[str, Sample], changed: Changes, chance: random.Random
) -> Iterator[list[Case]]:
    """Yield all cases in lists, those lists in an order drawn by chance: a run that is cut short
    has seen some of everything."""
    share = [
        (name, turn, turns)
        for name in SAMPLES
        for turns in [max(1, 2 * sum(1 for _ in changed(samples[name])) // CASES_PER_CHILD)]
        for turn in range(turns)
    ]
    chance.shuffle(share)
    for name, turn, turns in share:
        every = enumerate(cases_of(samples[name], changed(samples[name])))
        yield [case for number, case in every if number // 2 % turns == turn]
