"""Who decides in one broker: its groups' coordinators, its named producers, its transactions.

All of them decide by records of one ledger, and here is asked what it says of a partition: up to
where it is settled, and what its groups have consumed of it. This module refuses to know how a
group shares, how a transaction ends, and what the ledger's records are.
"""

from __future__ import annotations

from typing import Protocol

from minilog import ledger, transactions
from minilog.config import nearest
from minilog.coordinator import Coordinator, Registry
from minilog.errors import GroupError
from minilog.partition import Partition
from minilog.registers import Place
from minilog.sources import Identity
from minilog.topic import Lockable

MOST_LOOKS = 100  # at transactions that end just while one looks


class Host(Registry, ledger.Keeper, transactions.Host, Protocol):
    """What those who decide need of their broker."""

    @property
    def guard(self) -> Lockable: ...


class Coordination:
    """The ledger of one broker, and who writes to it."""

    def __init__(self, broker: Host) -> None:
        self._broker = broker
        self.ledger = ledger.Ledger(broker)
        self.transactions = transactions.Transactions(broker)
        self._coordinators: dict[str, Coordinator] = {}
        self._identities: dict[str, Identity] = {}

    # ------------------------------------------------------------ groups

    def group_names(self) -> list[str]:
        """Return the groups that have committed or have members, sorted."""
        with self._broker.guard:
            coordinators = list(self._coordinators.items())
        members = {name for name, coordinator in coordinators if coordinator.members()}
        return sorted(members | set(self.ledger.group_names()))

    def coordinator(self, group: str) -> Coordinator:
        """Return who keeps a group's members."""
        with self._broker.guard:
            if group not in self._coordinators:
                self._coordinators[group] = Coordinator(self._broker, group)
            return self._coordinators[group]

    def delete_group(self, name: str) -> None:
        """Forget what a group has committed; GroupError while it has members, or there is none."""
        if name not in self.group_names():
            raise GroupError(f"no group {name!r}{nearest(name, dict.fromkeys(self.group_names()))}")
        self.coordinator(name).forget()  # it stays: consumers may hold it, and a group has one

    def committed_floor(
        self, topic_id: bytes, partition: int, group_names: tuple[str, ...]
    ) -> int | None:
        """Return the smallest offset that these groups have committed of a partition; None where
        one of them has committed nothing, so that everything is kept for it."""
        place = Place(topic_id, partition)
        committed = [self.ledger.committed(name).get(place, -1) for name in group_names]
        return None if -1 in committed else min(committed, default=None)

    # ------------------------------------------------------------ exactly once

    def identity(self, name: str) -> Identity:
        """Open a named producer; another one of that name may write no more."""
        epoch = self.ledger.open_epoch(name)
        with self._broker.guard:
            before = self._identities.get(name)
            self._identities[name] = Identity(name, epoch)
        if before is not None:
            self.transactions.fence(before)
        return self._identities[name]

    def first_open_offset(self, topic_id: bytes, partition: int) -> int | None:
        """Return where the oldest open transaction begins in a partition."""
        self.transactions.expire()
        return self.ledger.first_open_offset(topic_id, partition)

    def stable_offsets(self, partitions: list[Partition]) -> list[int]:
        """Return up to where ``read_committed`` may read each, at one moment: a transaction that
        ends meanwhile is seen in all of them or in none."""
        for _ in range(MOST_LOOKS):
            before = self.ledger.settlements
            stable = [partition.stable_offset for partition in partitions]
            if self.ledger.settlements == before and not before % 2:
                break
        return stable
