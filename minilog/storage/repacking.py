"""Re-packing: a sealed segment of records that were appended one by one, written anew as batches.

They read as fast as what was appended in bulk then, take a quarter less, and are compressed where
the topic has it so. Every record keeps its offset, its timestamp and whose it is; markers, which
decide nothing once their transaction is over, go. This module refuses to know when there is time
for it.
"""

from __future__ import annotations

from minilog.config import MIB, TopicConfig
from minilog.errors import CorruptionError
from minilog.storage import format as f
from minilog.storage.log import Log
from minilog.storage.rewriting import Rewriting
from minilog.storage.runs import runs_of
from minilog.storage.segment import Segment
from minilog.storage.swapping import Host, rewriting, swap

LEAST_BYTES = MIB  # of less there is little to gain
SAMPLE_BYTES = 64 * 1024
SAMPLE_FRAMES = 16  # in it, at least: large records gain nothing


def loose(log: Log, limit: int) -> list[Segment]:
    """Return the sealed segments below an offset that are worth it, oldest first."""
    segments = []
    for segment in log.segments()[:-1]:
        if segment.next_offset > limit:
            break
        if segment.is_packed or segment.is_frozen or segment.size_bytes < LEAST_BYTES:
            continue
        if _is_loose(segment):
            segments.append(segment)
        else:
            segment.is_packed = True
    return segments


def _is_loose(segment: Segment) -> bool:
    """Say whether a segment begins with frames of one record, and goes on so for a while."""
    try:
        chunk = segment.open_file().read(f.HEADER_SIZE, SAMPLE_BYTES)
    except FileNotFoundError:
        return False  # deleted meanwhile; or it is missing, which whoever reads it says
    at = frames = 0
    while at <= len(chunk) - f.PREFIX_SIZE:
        size, _, _, _, kind = f.PLAIN_PREFIX.unpack_from(chunk, at)
        if size < f.SINGLE_OVERHEAD:
            return False
        if kind & f.NOT_SINGLE:
            return bool(kind & f.SEAL << 16) and frames >= SAMPLE_FRAMES
        frames += 1
        at += f.aligned(size)
    return frames >= SAMPLE_FRAMES


def repack(log: Log, segment: Segment, config: TopicConfig, host: Host) -> None:
    """Write one anew and put it for the old one; everything up to its end is synced.

    CorruptionError where there is damage; then nothing has changed.
    """
    base, interval = segment.base_offset, config.index_interval_bytes
    try:
        with rewriting(log, base, interval, config.compression) as writing:
            _copy(segment, writing, host)
            header = segment.read_header()._replace(durable_base=base)
            swap(log, host, writing, [segment], header)
    except FileNotFoundError:
        if log.has_all([segment]):
            raise
    except (CorruptionError, OSError):
        segment.is_packed = True  # to try once is enough
        raise


def _copy(segment: Segment, writing: Rewriting, host: Host) -> None:
    writing.segment.is_packed = True
    for run in runs_of(segment):
        if len(run.offsets) and not run.make.is_control:
            records = run.where([True] * len(run.offsets))
            writing.add(records, run.make, run.tombstones_since)
        host.step(run.size)
