"""What named producers have written to a log: which of their sequences got which offsets.

It is restored from a snapshot, a small file beside the segments, and the frames written since
then; where there is none, from all frames. The snapshot says up to which offset it goes, and is
written only when all before that is on the disk: so a crash cannot make it know too much.

Sequences that follow each other at neighbouring offsets are one *run*, and the last ``MOST_RUNS``
of each producer are remembered: all that one importer has written alone, and at least so many
records where others write in between. This module refuses to know names, epochs that are fenced,
and transactions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from minilog.errors import CorruptionError
from minilog.storage import format as f
from minilog.storage.files import Directory

MOST_RUNS = 1024
SNAPSHOT_FILE = "producers.json"

Run = list[int]  # first sequence, its offset, how many


class Sequences:
    """The sequences of every producer of one log."""

    def __init__(self, runs: dict[int, deque[Run]] | None = None, next_offset: int = 0) -> None:
        self._runs = runs if runs is not None else {}
        self.next_offset = next_offset  # frames from here on were not taken in

    def last(self, producer_id: int) -> int:
        """Return the last sequence a producer has written; -1 if none."""
        runs = self._runs.get(producer_id)
        return runs[-1][0] + runs[-1][2] - 1 if runs else -1

    def latest(self, producer_id: int) -> Run | None:
        """Return a producer's last run; whoever appends lengthens it."""
        runs = self._runs.get(producer_id)
        return runs[-1] if runs else None

    def offset_of(self, producer_id: int, sequence: int) -> int | None:
        """Return the offset that a sequence got; None when that is too long ago."""
        for first, offset, count in reversed(self._runs.get(producer_id, ())):
            if first <= sequence < first + count:
                return offset + sequence - first
        return None

    def take(self, producer_id: int, sequence: int, offset: int, count: int) -> None:
        """Note what a producer has written."""
        runs = self._runs.get(producer_id)
        if runs is None:
            runs = self._runs[producer_id] = deque(maxlen=MOST_RUNS)
        if runs:
            last = runs[-1]
            if last[0] + last[2] == sequence and last[1] + last[2] == offset:
                last[2] += count
                return
        runs.append([sequence, offset, count])

    def take_all(self, origins: Iterable[tuple[f.Origin, int, int]]) -> None:
        """Note what frames say."""
        for origin, offset, count in origins:
            if origin.producer_id >= 0 and origin.sequence > self.last(origin.producer_id):
                self.take(origin.producer_id, origin.sequence, offset, count)

    def take_back(self, producer_id: int, offset: int) -> None:
        """Forget what a producer has written from an offset on: it was aborted."""
        runs = self._runs.get(producer_id, deque())
        while runs and runs[-1][1] >= offset:
            runs.pop()
        if runs:
            runs[-1][2] = min(runs[-1][2], offset - runs[-1][1])

    # ------------------------------------------------------------ the snapshot

    def save(self, directory: Directory, next_offset: int) -> None:
        """Write all that is known up to an offset, durably."""
        producers = {}
        for number, runs in self._runs.items():
            below = [[s, o, min(n, next_offset - o)] for s, o, n in runs if o < next_offset]
            producers[str(number)] = below
        content = {"next_offset": next_offset, "producers": producers}
        directory.replace(SNAPSHOT_FILE, f.encode_document(content))
        self.next_offset = next_offset

    @classmethod
    def load(cls, directory: Directory, end_offset: int) -> Sequences:
        """Return what the snapshot says; nothing where there is none to be believed."""
        try:
            data = directory.read(SNAPSHOT_FILE)
            content: dict[str, Any] = f.decode_document(data, f"{directory.path}/{SNAPSHOT_FILE}")
            next_offset = content["next_offset"]
            if type(next_offset) is not int or not 0 <= next_offset <= end_offset:
                return cls()
            runs = {
                int(number): deque(map(_run, listed), MOST_RUNS)
                for number, listed in content["producers"].items()
            }
        except (FileNotFoundError, CorruptionError):
            return cls()
        except (KeyError, TypeError, ValueError, AttributeError):  # none that minilog wrote
            return cls()
        return cls(runs, next_offset)


def _run(numbers: list[Any]) -> Run:
    """Return a run that a snapshot has; ValueError when it is none."""
    first, offset, count = numbers
    if any(type(number) is not int or not 0 <= number < 2**63 for number in numbers):
        raise ValueError(f"{numbers!r} is no run")
    return [first, offset, count]
