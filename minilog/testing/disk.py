"""A disk in memory that remembers every operation and can crash: by power cut or by kill -9.

    disk = SimulatedDisk()
    with Broker(disk, sync="always", clock=ManualClock()) as broker:
        broker.create_topic("t")[0].append(b"hello")
    for plan in disk.crash_plans():
        with Broker(disk.crash(plan), clock=ManualClock()) as broker:
            ...  # what must hold after any crash

It stands behind the storage's seam, so a broker takes it in place of a path. Its rules are those
of POSIX and no kinder: what was not synced may be lost, and a file's name needs a sync of its
directory. A map that is touched behind the end of its file raises BusError, where a real process
is killed.

One thread at a time uses it. This module refuses to know what is stored, and which states a crash
may leave.
"""

from __future__ import annotations

from collections.abc import Iterator

from minilog.testing.crashes import CrashPlan, Timeline, plans_at
from minilog.testing.directories import SimulatedDirectory
from minilog.testing.trace import Image, Operation, Recorder

LOG = "log"


class SimulatedDisk:
    """A disk in memory whose crashes can be tried, one by one; ``Broker(disk)`` uses it.

    With ``can_reserve=False`` it is one whose files cannot have space allocated ahead, as on some
    file systems; then nothing is stored through maps.
    """

    def __init__(self, *, can_reserve: bool = True) -> None:
        self._take(Image(), [], is_same_boot=False, can_reserve=can_reserve)

    def _take(
        self, image: Image, pending: list[Operation], *, is_same_boot: bool, can_reserve: bool
    ) -> None:
        self._image = image
        self._was_same_boot = is_same_boot
        self._recorder = Recorder(
            image, pending, is_same_boot=is_same_boot, can_reserve=can_reserve
        )
        self._inherited_count = len(pending)

    def root_directory(self) -> SimulatedDirectory:
        """Return the directory a broker keeps its log in; the broker makes it."""
        return SimulatedDirectory(self._recorder, (LOG,))

    @property
    def operations(self) -> list[Operation]:
        """Everything that changed it, in order; first what a killed process left unsynced."""
        return self._recorder.operations

    @property
    def image(self) -> Image:
        """What was on it before its operations."""
        return self._image

    @property
    def inherited_count(self) -> int:
        """How many of the operations a killed process has left."""
        return self._inherited_count

    def tree(self) -> dict[str, bytes | None]:
        """Return every path with its bytes, synced or not; None for a directory."""
        image = Image()
        image.directories = self._recorder.directories
        image.files = {node: bytes(content) for node, content in self._recorder.files.items()}
        return dict(image.tree())

    # ------------------------------------------------------------ crashing

    def timeline(self) -> Timeline:
        """Return the disk as it was before its operations, to do them to it one by one."""
        return Timeline(
            self._image,
            is_same_boot=self._was_same_boot,
            inherited_count=self._inherited_count,
        )

    def crash_plans(self, *, seed: int = 0) -> Iterator[CrashPlan]:
        """Yield the crashes this disk may suffer at each moment of what was done to it.

        Many: of the operations that no sync has covered each one is lost, kept, torn, every two
        are, all are; some more fates are drawn with ``seed``. Some come to the same bytes.
        """
        timeline = self.timeline()
        for number in range(len(self.operations) + 1):
            if number:
                timeline.advance(self.operations[number - 1])
            if number >= self._inherited_count:
                yield from plans_at(timeline, seed=seed)

    def crash(self, plan: CrashPlan | None = None) -> SimulatedDisk:
        """Return the disk found after a crash; this one stays as it is.

        By default the power goes now, and nothing that was not synced survives. ValueError for
        a plan that takes back what was synced.
        """
        timeline = self.timeline()
        last = len(self.operations) if plan is None else plan.at
        for operation in self.operations[:last]:
            timeline.advance(operation)
        if plan is None:
            plan = CrashPlan(last, lost=frozenset(timeline.pending))
        return self.after(timeline, plan)

    def kill(self) -> SimulatedDisk:
        """Return the disk as the next process finds it when this one is killed now: with all that
        was done, and no more of it synced."""
        return self.crash(CrashPlan(len(self.operations), is_power_cut=False))

    def after(self, timeline: Timeline, plan: CrashPlan) -> SimulatedDisk:
        """Return the disk found after a crash of what a timeline of this one has come to."""
        disk = SimulatedDisk.__new__(SimulatedDisk)
        can_reserve = self._recorder.can_reserve
        if plan.is_power_cut:
            image = timeline.image_after(plan)
            disk._take(image, [], is_same_boot=False, can_reserve=can_reserve)
        else:
            image, pending = timeline.durable.copy(), timeline.pending_after(plan)
            is_same_boot = timeline.is_same_boot
            disk._take(image, pending, is_same_boot=is_same_boot, can_reserve=can_reserve)
        return disk
