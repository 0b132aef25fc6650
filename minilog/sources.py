"""Who writes, where it matters: named producers, and transactions.

This module refuses to know what is written, and how a transaction ends.
"""

from __future__ import annotations

from typing import Protocol

from minilog.errors import FencedError, TransactionError


class Source(Protocol):
    """Whose records are numbered, or seen together."""

    @property
    def producer_id(self) -> int:
        """The number of a named producer, -1 for another."""

    @property
    def epoch(self) -> int:
        """How often that name was opened."""

    @property
    def transaction(self) -> int:
        """The number of the transaction, 0 for none."""

    @property
    def identity(self) -> Identity | None:
        """The named producer, which may be fenced."""


class Identity:
    """A named producer, from its opening until another of that name is opened."""

    transaction = 0

    def __init__(self, name: str, epoch: int) -> None:
        from hashlib import sha256  # most producers have no name

        self.name = name
        self.epoch = epoch
        # Made from the name, so that no crash can give a name another number.
        self.producer_id = int.from_bytes(sha256(name.encode()).digest()[:8], "big") >> 1
        self.identity = self  # it is its own source, outside of transactions
        self.is_fenced = False
        self.is_in_transaction = False

    def check(self) -> None:
        """Raise FencedError when another has been opened by its name."""
        if self.is_fenced:
            raise FencedError(
                f"another producer {self.name!r} was opened since; this one may write no more"
            )

    def check_alone(self) -> None:
        """Raise FencedError, or TransactionError while it is in a transaction: what is sent beside
        that would be numbered among its records."""
        self.check()
        if self.is_in_transaction:
            raise TransactionError(
                f"producer {self.name!r} is in a transaction: send with that, or end it"
            )
