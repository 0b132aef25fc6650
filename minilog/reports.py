"""What opening and verifying found: reports to read by program or by eye.

This module refuses to know how anything was found.
"""

from __future__ import annotations

from typing import NamedTuple

from minilog.storage import Problem


class RecoveryReport(NamedTuple):
    """What opening a broker had to do; ``ok`` when there was nothing, as after a clean close."""

    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was dropped, rebuilt or unreadable."""
        return not self.problems

    def __str__(self) -> str:
        if self.ok:
            return "nothing to recover"
        return "\n".join(map(str, self.problems))


class VerifyReport(NamedTuple):
    """What reading every byte of a log found."""

    problems: tuple[Problem, ...]
    record_count: int
    size_bytes: int

    @property
    def ok(self) -> bool:
        """Whether every byte is as it was written."""
        return not self.problems

    def __str__(self) -> str:
        head = f"{self.record_count} records in {self.size_bytes} bytes: "
        if self.ok:
            return head + "every byte is as it was written"
        return "\n".join([head + f"{len(self.problems)} problems", *map(str, self.problems)])
