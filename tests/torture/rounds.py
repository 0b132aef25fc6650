"""Rounds of a share: each with randomness of its own, until the time is over.

What fails in one is printed with its seed and the command that runs it again, is counted, and
the share goes on. This module refuses to know what is tested. (It has no ``run``, so it is no
share itself.)
"""

from __future__ import annotations

import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

Figures = dict[str, int | float]
MOST_VIOLATIONS = 5  # then the share gives up: they will have one cause
TELLING_S = 60.0  # a share that runs for an hour says how far it is


class Rounds:
    """Iterates over the rounds of a share and keeps its figures."""

    def __init__(self, share: str, minutes: float, seed: int, least: int = 1) -> None:
        self.share = share
        self.counts: Counter[str] = Counter(violations=0)
        self._seed = seed
        self._least = least
        self._began = time.monotonic()
        self._ends = self._began + 60 * minutes
        self._tells = self._began + TELLING_S

    def __iter__(self) -> Iterator[tuple[int, random.Random]]:
        """Yield each round's seed and its randomness; the first one's seed is the share's."""
        number = 0
        while number < self._least or time.monotonic() < self._ends:
            if self.counts["violations"] >= MOST_VIOLATIONS:
                return
            self.counts["rounds"] += 1
            yield self._seed + number, random.Random(self._seed + number)
            number += 1
            if time.monotonic() >= self._tells:
                self._tells += TELLING_S
                print(f"{self.share} so far: {self.figures()}", file=sys.stderr, flush=True)

    @contextmanager
    def judged(self, seed: int, what: object) -> Iterator[None]:
        """Count what fails inside as a violation, and say how to see it again."""
        try:
            yield
        except Exception:
            self.counts["violations"] += 1
            print(f"\nVIOLATION in {self.share}, seed {seed}: {what}", file=sys.stderr)
            traceback.print_exc()
            print(
                f"again: python -m tests.torture --only {self.share} --seed {seed} --minutes 0",
                file=sys.stderr,
                flush=True,
            )

    def figures(self) -> Figures:
        """Return what was counted."""
        seconds = time.monotonic() - self._began
        return {**self.counts, "seconds": round(seconds, 1)}
