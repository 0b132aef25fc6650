"""GROUND FLOOR: bytes and offsets. It knows no topic, group, client, clock or thread.

Floor plan, each room knowing only those above it:

    seam.py       directories, files, regions, locks: what everything below speaks to
    regions.py    regions that are no map, and how many maps there may be
    files.py      the disk behind the seam
    memory.py     the same in memory
    checksum.py   CRC-32C, without what its package imports
    format.py     THE on-disk format: spec, structs, checksums
    codecs.py     compressing the body of a batch, and a bounded way back
    columns.py    batches of many records by column: what they are, and decoding them
    batch.py      making them
    singles.py    runs of records that were appended one by one
    scan.py       walking frames, and past damage
    index.py      sparse indexes, by offset and by time
    view.py       a look at one mapped segment; one record by its offset
    reading.py    reading a mapped segment: find, return records, find by time
    segment_files.py    a segment's files: made, opened, mapped, sealed or not
    indexed_segment.py  its index: made as frames come, mended, made anew
    segment.py    append to it, seal, sync, follow
    recovery.py   what opening does after a crash; torn told from corrupt
    opening.py    which segments there are, and where the last of them ends
    readable_log.py  reading across them
    log.py        the segments of one partition: append, roll, drop, replace
    sequences.py  what named producers have written
    retention.py  which segments are old or too many
    runs.py       a sealed segment from its first record to its last
    rewriting.py  writing a segment that is to be put for others
    swapping.py   putting it for them
    compaction.py of each key only the last record stays
    repacking.py  records that were appended one by one, as batches
    inspection.py reading every byte, for ``minilog.verify``

The files of a partition: ``<20-digit base offset>.log``, ``.index`` and ``.timeindex`` for each
segment, and ``quarantine/`` for what a crash left that is no record.

Invariants, cited in code by number:

I1  One writer per log, holding its partition's lock; readers take none.
I2  Bytes first, the end last: nobody reads past it. The tail is one tuple published by one
    assignment; the map of segments is copied on roll or drop and swapped whole.
I3  ``.log`` is the truth: an index is a hint that is checked, and rebuilt when it is missing.
I4  A sealed segment never changes; it is replaced whole by rename, or dropped.
I5  Zero where a frame should start is the end.
I6  An offset acknowledged as durable is never given to another record.
I7  Dropping a segment unlinks its files; its map dies with its last reader.
I8  Frames tile the offsets: one begins where the one before it ended.
"""

from minilog.storage.batch import Batch, encode_batch, too_large
from minilog.storage.codecs import check_codec
from minilog.storage.format import NOBODY, Origin, encode_headers
from minilog.storage.log import Log
from minilog.storage.opening import Opening
from minilog.storage.readable_log import End
from minilog.storage.recovery import CleanMark, Problem
from minilog.storage.sequences import SNAPSHOT_FILE, Sequences

__all__ = [
    "NOBODY",
    "SNAPSHOT_FILE",
    "Batch",
    "CleanMark",
    "End",
    "Log",
    "Opening",
    "Origin",
    "Problem",
    "Sequences",
    "check_codec",
    "encode_batch",
    "encode_headers",
    "too_large",
]
