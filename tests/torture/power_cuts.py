"""Real power cuts: a file system in a loop-mounted image is shut down without flushing its log.

What the device had then is what a machine finds that lost its power: the image is mounted again,
which replays the journal, and the log in it is opened under another boot. Records acknowledged by
``sync="always"`` before the cut are there; with ``"interval"`` those acknowledged before the last
round of housekeeping that was over; always a prefix by whole batches, byte-identical.

Acknowledgements carry the time they were given: a sync may return without having synced anything
while the shutdown is under way, so only what was acknowledged before it began counts. Some pages
are written back out of order before the cut, as a kernel short of memory would.

This needs root, losetup and mkfs. The module refuses to know how minilog stores anything, but for
the lock file that names the boot.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from struct import pack
from types import TracebackType

from minilog import Broker
from tests.crash.images import LOCK_FILE, OTHER_BOOT
from tests.crash.writer import (
    STARTS,
    SYNC_BEGAN,
    SYNC_ENDED,
    TOPIC,
    TOPICS,
    made_topics,
    topics_after,
)
from tests.torture.kills import SHAPES, Acks, Victim, assert_quiet, assert_whole, make_log
from tests.torture.rounds import Figures, Rounds

SHUT_DOWN = 0x8004587D  # FS_IOC_SHUTDOWN
WITHOUT_LOG_FLUSH = 2
WRITE_BACK = 7  # sync_file_range: wait before, write, wait after
PAGE = 4096
IMAGE_BYTES = {"ext4": 96 * 2**20, "xfs": 320 * 2**20}
# Not data=journal: a store into a mapped page while that is shut down is a BUG of the kernel's own
# (Linux 6.18, jbd2_journal_dirty_metadata), and leaves a process that nobody can end.
MOUNTS = {"ext4": ["data=ordered", "data=writeback"], "xfs": ["defaults"]}
CUTS_PER_IMAGE = 8


@cache
def why_no_power_cuts() -> str:
    """Return why there are no power cuts here; empty when there are."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "power cuts need Linux and root, to mount an image and shut it down"
    missing = [tool for tool in ("losetup", "mount", "umount") if shutil.which(tool) is None]
    if missing:
        return f"power cuts need {', '.join(missing)}"
    if not file_systems():
        return "power cuts need mkfs.ext4 or mkfs.xfs"
    try:
        with LoopDisk(file_systems()[0], MOUNTS[file_systems()[0]][0]) as disk:
            disk.cut()
            disk.mount_again()
    except (OSError, subprocess.CalledProcessError) as error:
        told = getattr(error, "stderr", None) or error
        return f"no image can be mounted and shut down here: {told}"
    return ""


@cache
def file_systems() -> list[str]:
    """Return the kinds of file systems that can be made here."""
    return [kind for kind in IMAGE_BYTES if shutil.which(f"mkfs.{kind}")]


def command(*words: object) -> str:
    """Run a command to its end and return what it printed."""
    finished = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=True, timeout=60
    )
    return finished.stdout.strip()


class LoopDisk:
    """A file system of its own in an image file, which loses its power when told."""

    def __init__(self, kind: str, options: str) -> None:
        in_memory = Path("/dev/shm")  # else two disks would be waited for
        where = in_memory if os.access(in_memory, os.W_OK) else None
        self._work = Path(tempfile.mkdtemp(prefix="minilog-power-", dir=where))
        self.root = self._work / "mounted"
        self._options = options
        self._device = ""
        try:
            self.root.mkdir()
            image = self._work / "image"
            with image.open("wb") as file:
                file.truncate(IMAGE_BYTES[kind])
            command(f"mkfs.{kind}", "-q", image)
            self._device = command("losetup", "--find", "--show", image)
            self._mount()
        except BaseException:
            self.close()
            raise

    def _mount(self) -> None:
        command("mount", "-o", self._options, self._device, self.root)

    def sync(self) -> None:
        """Have all of it written, and nothing of any other disk."""
        directory = os.open(self.root, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(directory):
                raise OSError(ctypes.get_errno(), "syncfs")
        finally:
            os.close(directory)

    def cut(self) -> int:
        """Take the power away; return the moment (monotonic, ns) before which all was well."""
        directory = os.open(self.root, os.O_RDONLY)
        try:
            before = time.monotonic_ns()
            fcntl.ioctl(directory, SHUT_DOWN, pack("I", WITHOUT_LOG_FLUSH))
        finally:
            os.close(directory)
        return before

    def mount_again(self) -> None:
        """Find what the device has, as after the machine has booted anew."""
        command("umount", self.root)
        self._mount()
        for lock in self.root.glob(f"*/{LOCK_FILE}"):
            lock.write_text(OTHER_BOOT)

    def write_back_some(self, chance: random.Random) -> None:
        """Have some pages of some files written, and not those before them."""
        libc = ctypes.CDLL(None, use_errno=True)
        files = sorted(
            os.path.join(directory, name)
            for directory, _, names in os.walk(self.root)  # some may be deleted meanwhile
            for name in names
            if name.endswith((".log", ".index"))
        )
        for path in chance.sample(files, min(len(files), chance.randrange(1, 6))):
            try:
                file = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue  # deleted meanwhile
            try:
                pages = max(os.fstat(file).st_size // PAGE, 1)
                for _ in range(chance.randrange(1, 4)):
                    start = ctypes.c_int64(chance.randrange(pages) * PAGE)
                    size = ctypes.c_int64(chance.choice([1, 1, 8]) * PAGE)
                    if libc.sync_file_range(file, start, size, WRITE_BACK):
                        raise OSError(ctypes.get_errno(), "sync_file_range")
            finally:
                os.close(file)

    def close(self) -> None:
        """Unmount, detach and remove the image, as far as any of it is there."""
        if os.path.ismount(self.root):  # also where a signal came right behind the mount
            subprocess.run(["umount", str(self.root)], check=False, capture_output=True)
            if os.path.ismount(self.root):  # somebody is still in it: detach it all the same
                subprocess.run(["umount", "-l", str(self.root)], check=False)
        if self._device:
            subprocess.run(["losetup", "-d", self._device], check=False, capture_output=True)
        if not os.path.ismount(self.root):
            shutil.rmtree(self._work, ignore_errors=True)

    def __enter__(self) -> LoopDisk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# ---------------------------------------------------------------- what must be there


def sure_of(victim: Victim, sync: str, before: int) -> Acks:
    """Return what must be there after a cut: of the records, by the level of sync; where
    partitions start and which topics there are is durable at any level."""
    told = victim.acknowledged(before)
    records = {what: number for what, number in told.items() if what < STARTS}
    durable = {what: number for what, number in told.items() if what >= STARTS}
    if sync == "interval":
        records = {
            what: number
            for what, number in victim.acknowledged(last_round(victim, before)).items()
            if what < STARTS
        }
    return durable | (records if sync != "never" else {})


def last_round(victim: Victim, before: int) -> int:
    """Return when the last round of housekeeping began that was over before a moment."""
    began: dict[int, int] = {}
    found = 0
    for what, number, when in victim.told:
        if what == SYNC_BEGAN:
            began[number] = when
        elif what == SYNC_ENDED and when < before:
            found = began[number]
    return found


def oldest_loss_ms(victim: Victim, broker: Broker, before: int) -> float:
    """Return how long before a cut the oldest record was acknowledged that is not there."""
    oldest = before
    for what, number, when in victim.told:
        if what < STARTS and number > broker.topic(TOPIC)[what].end_offset:
            oldest = min(oldest, when)
    return (before - oldest) / 1e6


def assert_topics_stand(broker: Broker, sure: Acks, sync: str) -> None:
    """Topics and partitions are durable at any level, the records in them as the level has it."""
    steps = sure.get(TOPICS, 0)
    found = made_topics(broker)
    legal = [topics_after(steps), topics_after(steps + 1)]
    if sync == "always":
        assert found in legal
        return
    shapes = [{name: partitions for name, (partitions, _) in each.items()} for each in legal]
    assert {name: partitions for name, (partitions, _) in found.items()} in shapes
    assert {count for _, count in found.values()} <= {0, 5}


# ---------------------------------------------------------------- cutting


def cut_once(
    disk: LoopDisk,
    path: Path,
    shape: tuple[str, int, int],
    sync: str,
    acknowledgements: int,
    chance: random.Random,
) -> tuple[Victim, int]:
    """Run a writer, take the power away under it, and mount what is left; return the writer and
    the moment of the cut."""
    workload, partitions, _ = shape
    with Victim(path, workload, sync, partitions, pipe_bytes=2**16, is_quiet=True) as victim:
        victim.run(acknowledgements)
        if chance.random() < 0.5:
            disk.write_back_some(chance)
        before = disk.cut()
        victim.end()
    disk.mount_again()
    return victim, before


def cut_some(
    disk: LoopDisk,
    path: Path,
    shape: tuple[str, int, int],
    sync: str,
    chance: random.Random,
    counts: Counter[str],
) -> None:
    """Cut the power under a writer, perhaps again under the one that recovers, and look."""
    workload, partitions, segment_bytes = shape
    make_log(path, partitions, segment_bytes)
    disk.sync()
    sure: Acks = {}
    most: Acks = {}
    is_slow = sync == "always" or workload in ("reopening", "topics", "deleting")
    cuts = 1 if workload == "topics" else chance.choice([1, 1, 2])
    for number in range(cuts):
        some = chance.randrange(1, 150 if is_slow else 3000)
        if number:
            some = chance.randrange(0, 5)
        victim, before = cut_once(disk, path, shape, sync, some, chance)
        mine = sure_of(victim, sync, before)
        told = victim.acknowledged()
        sure = {what: max(mine.get(what, 0), sure.get(what, 0)) for what in mine | sure}
        most = {what: max(told.get(what, 0), most.get(what, 0)) for what in told | most}
        counts["cuts"] += 1
        counts["sure"] += sum(end for what, end in mine.items() if what < STARTS)
        counts["told_too_late"] += sum(when >= before for *_, when in victim.told)
    with Broker(path) as broker:
        counts["torn_tails"] += len(broker.recovery.problems)
        if workload == "topics":
            assert_topics_stand(broker, sure, sync)
        else:
            counts["records_checked"] += assert_whole(
                broker, sure, workload, most=most, victims=cuts
            )
        counts["unsynced_lost"] += sum(
            max(most.get(partition.index, 0) - partition.end_offset, 0)
            for partition in broker.topic(TOPIC)
        )
        if sync == "interval":
            worst = round(oldest_loss_ms(victim, broker, before))
            counts["interval_oldest_loss_ms"] = max(counts["interval_oldest_loss_ms"], worst)
    assert_quiet(path)


# ---------------------------------------------------------------- the share


@contextmanager
def kept_for_later(path: Path) -> Iterator[None]:
    """Copy a log out of its image when it is not as it should be."""
    try:
        yield
    except Exception:
        kept = Path(tempfile.mkdtemp(prefix="minilog-after-power-cut-")) / "log"
        shutil.copytree(path, kept)
        print(f"what was found (and recovered) is in {kept}", file=sys.stderr)
        raise


def run(minutes: float, seed: int) -> Figures:
    """Cut for as long as told."""
    if why_no_power_cuts():
        print(f"power_cuts skipped: {why_no_power_cuts()}", file=sys.stderr)
        return {"violations": 0, "skipped": 1}
    rounds = Rounds("power_cuts", minutes, seed)
    for round_seed, chance in rounds:
        kind = chance.choice(file_systems())
        options = chance.choice(MOUNTS[kind])
        with LoopDisk(kind, options) as disk:
            for number in range(CUTS_PER_IMAGE):
                shape = chance.choice(SHAPES)
                sync = chance.choice(["always", "always", "interval", "never"])
                what = f"cut {number} of {kind} {options}, {shape}, {sync}"
                path = disk.root / f"log-{number}"
                with rounds.judged(round_seed, what), kept_for_later(path):
                    cut_some(disk, path, shape, sync, chance, rounds.counts)
                    shutil.rmtree(path)
    return rounds.figures()
