"""Where a group begins that begins at the end: *pinned* when it first looked, for all its members.

A partition that was there at first is pinned where it ended, one that came later where it starts:
nothing that was written since the group began is left out, whoever of it reads. This module
refuses to know members, and what is committed.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from minilog.ledger import Ledger
from minilog.partition import Partition
from minilog.registers import Place
from minilog.topic import Topic


class Source(Protocol):
    """What pins need of a broker."""

    @property
    def ledger(self) -> Ledger: ...
    def topic(self, name: str) -> Topic: ...


class Pin(NamedTuple):
    """Where a partition ended when the group first looked, for all records and for those of
    transactions that had ended."""

    end: int
    stable: int


class Pins:
    """The pins of one group; its coordinator holds its lock."""

    def __init__(self, broker: Source) -> None:
        self._broker = broker
        self._pins: dict[Place, Pin] = {}

    def first_offset(self, place: Place, partition: Partition, *, reads_committed: bool) -> int:
        """Return where a partition was pinned, else where it ends now."""
        pin = self._pins.get(place) or self._ends_of(partition)
        return pin.stable if reads_committed else pin.end

    def _ends_of(self, partition: Partition) -> Pin:
        """Return where a partition ends; no transaction is aborted for that, as one that is
        committed may be waiting for the group's lock."""
        end = partition.end_offset
        first = self._broker.ledger.first_open_offset(partition.topic_id, partition.index)
        return Pin(end, end if first is None else min(first, end))

    def note(self, names: frozenset[str], *, is_first: bool) -> None:
        """Pin the partitions of these topics where they end, those that came later where they
        start."""
        known = {place.topic_id for place in self._pins}
        for name in sorted(names):
            topic = self._broker.topic(name)
            is_later = not is_first or topic.id.bytes in known
            for partition in topic:
                place = Place(topic.id.bytes, partition.index)
                if place not in self._pins:
                    start = partition.start_offset
                    self._pins[place] = Pin(start, start) if is_later else self._ends_of(partition)

    def clear(self) -> None:
        """Forget them: the group begins anew."""
        self._pins.clear()
