"""Retention: which segments are old or too many, oldest first, stopping at the first that stays.

A segment's age is that of its largest timestamp, or of its last append where that is earlier: a
record that is stamped far in the future does not hold it for ever. One whose seal is damaged says
nothing of its age, so it goes with the one after it. This module refuses to know how anything is
deleted, and whose committed offsets hold it back.
"""

from __future__ import annotations

from typing import NamedTuple

from minilog.config import FOREVER
from minilog.storage.log import Log


class Rules(NamedTuple):
    """What is kept: records of the last ``retention_ms``, of at most ``retention_bytes`` in all.

    Nothing at or behind ``limit`` goes. Nothing at or behind ``wanted`` goes for its age, but for
    its size it does.
    """

    now_ms: int
    retention_ms: int
    retention_bytes: int
    limit: int
    wanted: int


def expired(log: Log, rules: Rules) -> int:
    """Return the offset before which everything may go."""
    reached = log.first_base
    if rules.retention_ms != FOREVER:
        reached = _aged(log, rules, reached)
    if rules.retention_bytes != FOREVER:
        reached = _oversized(log, rules, reached)
    return reached


def _aged(log: Log, rules: Rules, reached: int) -> int:
    limit = min(rules.limit, rules.wanted)
    for segment in log.segments_from_first():
        if segment.next_offset > limit or segment.is_empty:
            break
        if segment.is_frozen:
            continue
        if rules.now_ms - segment.latest_ms <= rules.retention_ms:
            break
        reached = segment.next_offset
    return reached


def _oversized(log: Log, rules: Rules, reached: int) -> int:
    segments = [segment for segment in log.segments() if segment.next_offset > reached]
    excess = sum(segment.size_bytes for segment in segments) - rules.retention_bytes
    for segment in segments:
        if excess < segment.size_bytes or segment.next_offset > rules.limit or segment.is_empty:
            break
        excess -= segment.size_bytes
        reached = segment.next_offset
    return reached
