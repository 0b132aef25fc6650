"""Putting a segment that is written anew for those it stands for, while others read and append.

A new segment is whole and synced before it is renamed over the first of those it stands for; the
others are removed after that is durable. A crash leaves the old or the new. This module refuses to
know what is written into it, and why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from minilog.storage.format import SegmentHeader
from minilog.storage.log import Log
from minilog.storage.rewriting import Rewriting
from minilog.storage.segment import Segment


class Host(NamedTuple):
    """Who swaps: ``exclusive`` keeps others from changing segments, and under it ``check`` raises
    where they may not be changed any more. ``step`` is called now and then with the bytes read
    since, and may end the work by raising."""

    exclusive: AbstractContextManager[Any]
    check: Callable[[], None]
    step: Callable[[int], None]


@contextlib.contextmanager
def rewriting(
    log: Log, base_offset: int, index_interval_bytes: int, compression: str
) -> Iterator[Rewriting]:
    """Write a segment in the block; whatever ends that early leaves no file."""
    segment = log.begin_segment(base_offset)
    writing = Rewriting(segment, log.directory, index_interval_bytes, compression)
    try:
        yield writing
    except BaseException:
        with contextlib.suppress(OSError):
            writing.discard()
        raise


def swap(
    log: Log, host: Host, writing: Rewriting, sources: list[Segment], header: SegmentHeader
) -> None:
    """Finish a segment and put it for others, unless one of these was deleted meanwhile."""
    end = sources[-1].next_offset
    written = writing.finish(header, end, max(source.last_append_ms for source in sources))
    host.step(0)
    if log.has_all(sources):
        # The old index is only a hint, but it must not outlive what it speaks of.
        sources[0].forget_index(unlink=True)
        log.sync_names()
    with host.exclusive:
        host.check()
        is_current = log.has_all(sources)
        if is_current:
            log.replace(sources, written)
    if not is_current:  # deleted meanwhile, as retention may
        writing.discard()
        return
    log.forget_superseded()
    writing.write_index()
    if not log.has_all([written]):
        written.forget_index(unlink=True)
