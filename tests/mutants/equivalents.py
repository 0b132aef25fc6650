"""Mutants that no test can notice, each with the reason: what they change is the same program.

They are told by module, function and text, wherever their lines are; ``ANY`` is every change of
that text. One whose text is gone fails ``tests/house/test_mutants.py``. This module refuses to
know how mutants are made.
"""

from __future__ import annotations

from typing import NamedTuple

ANY = "*"


class Equivalent(NamedTuple):
    """A change that makes no difference, and why."""

    module: str
    function: str
    before: str
    after: str
    reason: str


EQUIVALENTS: list[Equivalent] = []
