"""Anomalies as they are found. It refuses to know how they are."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple


class Anomaly(NamedTuple):
    """Something that must not be in a history: its name, and where it is."""

    kind: str
    text: str


class Anomalies:
    """A growing list of anomalies."""

    def __init__(self) -> None:
        self.all: list[Anomaly] = []

    def add(self, kind: str, text: str) -> None:
        """Note one."""
        self.all.append(Anomaly(kind, text))


def summary(anomalies: list[Anomaly], most: int = 10) -> str:
    """Return how many there are of each kind, and the first of them."""
    counts = Counter(anomaly.kind for anomaly in anomalies)
    lines = [f"{kind}: {count}" for kind, count in counts.most_common()]
    lines += [f"  {anomaly.kind}: {anomaly.text[:600]}" for anomaly in anomalies[:most]]
    return "\n".join(lines)
