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


class CompactionReport(NamedTuple):
    """What ``topic.compact()`` has done, over all its partitions and all their segments but the
    empty ones that were rolled to."""

    records_before: int
    records_after: int
    bytes_before: int
    bytes_after: int

    def __str__(self) -> str:
        return (
            f"{self.records_before} records in {self.bytes_before} bytes before, "
            f"{self.records_after} in {self.bytes_after} after"
        )


class CompactionProgress(NamedTuple):
    """How far a compaction of one partition is: bytes read, of about how many."""

    bytes_read: int
    bytes_total: int


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
