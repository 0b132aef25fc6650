"""Mutants that no test can notice, each with the reason: what they change is the same program.

They are told by module, function and text, wherever their lines are; ``ANY`` is every change of
that text. One whose text is gone fails ``tests/house/test_mutants.py``. This module refuses to
know how mutants are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

ANY = "*"


class Equivalent(NamedTuple):
    """A change that makes no difference, and why."""

    module: str
    function: str
    before: str
    after: str
    reason: str


def same(
    module: str, function: str, reason: str, *changes: tuple[str, str]
) -> Iterator[Equivalent]:
    """Yield changes (before, after) of one function that make no difference for one reason."""
    for before, after in changes:
        yield Equivalent(module, function, before, after, reason)


NEGATIVE = "any number below 0 says the same"
FIXED_0 = "where all are empty, the largest and the sum of their lengths are 0 as well"
LOOKS_CLOSELY = "an estimate from above: when it is too large, every record is looked at"
FIRST_ALONE = "only the first of the numbers is taken"
CLOSES_ITSELF = "a file that nobody refers to closes itself"
EVERY_8 = "frames begin at multiples of 8"
NO_BYTES = "where there are no bytes to cut or to write, nothing is done"
CUT_FAILS = "a frame that is cut short fails its checksum as well"

EQUIVALENTS: list[Equivalent] = [
    # ---------------------------------------------------------------- format
    *same("format", "decode_headers", NEGATIVE, ("start = -1", "start = -2")),
    # ---------------------------------------------------------------- batch
    *same(
        "batch",
        "_Column.largest",
        FIXED_0,
        ("self.fixed >= 0", "self.fixed > 0"),
        ("self.fixed >= 0", "self.fixed >= 1"),
    ),
    *same(
        "batch",
        "_Column.length_field",
        FIXED_0,
        ("self.fixed >= 0", "self.fixed > 0"),
        ("self.fixed >= 0", "self.fixed >= 1"),
    ),
    *same(
        "batch",
        "_column",
        NEGATIVE,
        ("lengths[0] if is_fixed else -1", "lengths[0] if is_fixed else -2"),
        (
            "_Column(list(map(len, plain)), -1, b''.join(plain), validity)",
            "_Column(list(map(len, plain)), -2, b''.join(plain), validity)",
        ),
    ),
    *same(
        "batch",
        "_check_sizes",
        LOOKS_CLOSELY,
        ("keys.largest if keys else 0", "keys.largest if keys else 1"),
        ("max(map(len, headers)) if headers else 0", "max(map(len, headers)) if headers else 1"),
        ("largest > limit", "largest >= limit"),
    ),
    # ---------------------------------------------------------------- columns
    *same(
        "columns",
        "ColumnsFrame.size_before",
        FIRST_ALONE,
        ("row + 1", "row + 2"),
        ("row + 1", "row + 2  # 2"),
        ("row + 1", "row + 2  # 3"),
    ),
    *same(
        "columns",
        "ColumnsFrame.rows",
        "headers have offsets, and the length is for a column without",
        ("self._column('header', 0, start, stop)", "self._column('header', 1, start, stop)"),
    ),
    *same(
        "columns",
        "ColumnsFrame._valid",
        "more of the region is read than is looked at",
        ("(stop + 7) // 8", "(stop + 7) * 8"),
    ),
    # ---------------------------------------------------------------- singles
    *same(
        "singles",
        "_read_alike",
        "for a machine that is not little-endian",
        (
            "len(chunk) < f.PREFIX_SIZE or sys.byteorder != 'little'",
            "len(chunk) < f.PREFIX_SIZE",
        ),
    ),
    *same(
        "singles",
        "read_run",
        "an empty key ends where it begins",
        ("extent >= 0", "extent > 0"),
        ("extent >= 0", "extent >= 1"),
    ),
    # ---------------------------------------------------------------- view
    *same(
        "view",
        "View.record_at",
        "the first record of a segment is found by a hop as well",
        ("position >= f.HEADER_SIZE", "position > f.HEADER_SIZE"),
    ),
    *same(
        "view",
        "View.record_at",
        CUT_FAILS,
        (
            "len(frame) == size and crc32c(frame, self.seed ^ position) == f.WHOLE",
            "crc32c(frame, self.seed ^ position) == f.WHOLE",
        ),
    ),
    *same(
        "view",
        "View._hop_to",
        CUT_FAILS,
        (
            "len(frame) < size or crc32c(frame, self.seed ^ position + start) != f.WHOLE",
            "crc32c(frame, self.seed ^ position + start) != f.WHOLE",
        ),
    ),
    *same(
        "view",
        "View._hop_to",
        "what is shorter than any frame is not whole, and behind it none is due",
        (
            "found != due or kind & f.NOT_SINGLE or size < f.SINGLE_OVERHEAD",
            "found != due or kind & f.NOT_SINGLE",
        ),
    ),
    # ---------------------------------------------------------------- reading
    *same(
        "reading",
        "_take_singles",
        "how much is cut out at once is for speed; the budget and the end bound what is returned",
        ("min(budget[0], RUN_RECORDS)", "max(budget[0], RUN_RECORDS)"),
        ("count * step > RUN_BYTES", "count * step >= RUN_BYTES"),
        ("count * step", "count // step"),
        ("RUN_BYTES // step", "RUN_BYTES * step"),
        (
            "max(RUN_BYTES // step // DOZENS * DOZENS, 1)",
            "max(RUN_BYTES // step // DOZENS * DOZENS, 2)",
        ),
    ),
    *same(
        "reading",
        "_take_singles",
        "the next look finds no room, and says so",
        ("not frame_bytes or record_bytes > budget.bytes", "not frame_bytes"),
    ),
    *same(
        "reading",
        "_locate",
        "a guess that is wrong is followed by a look without one",
        ("Found(position, due, None, False)", "Found(position, due, None, True)"),
        (
            "is_single and may_guess and (offset - due > 1)",
            "is_single and may_guess",
        ),
    ),
    *same(
        "reading",
        "_read_from",
        "a run of single records leaves a seal to its caller as well",
        (
            "prefix is None or prefix[2] != due or prefix[6] & f.SEAL",
            "prefix is None or prefix[2] != due",
        ),
    ),
    *same(
        "reading",
        "_step_over",
        "the bytes of no records are not counted",
        (
            "Taken(rows, f.aligned(prefix.size), 0, prefix.next_offset, is_cut=False)",
            "Taken(rows, f.aligned(prefix.size), 1, prefix.next_offset, is_cut=False)",
        ),
    ),
    # ---------------------------------------------------------------- segment
    *same(
        "segment",
        "Segment.append_frame",
        "which of two ways to store a frame is taken is for speed",
        ("len(frame) >= LARGE_WRITE", "len(frame) > LARGE_WRITE"),
    ),
    *same(
        "segment",
        "Segment.append_batch",
        "1 is the flag of columns, which every batch has",
        (
            "f.TRANSACTIONAL if origin.transaction else 0",
            "f.TRANSACTIONAL if origin.transaction else 1",
        ),
    ),
    *same(
        "segment",
        "Segment.settle",
        "is_ours says it, and this is for the type checker",
        (
            "is_ours and prefix is not None and scan.is_whole(region, prefix, position, self.seed)",
            "is_ours and scan.is_whole(region, prefix, position, self.seed)",
        ),
    ),
    *same("segment", "Segment._wipe", NO_BYTES, ("used > position", "used >= position")),
    *same(
        "segment",
        "Segment.make_room",
        "the same pages are touched, and sooner",
        (
            "end > self._filled and size < LARGE_WRITE",
            "size < LARGE_WRITE",
        ),
        ("end > self._filled", "end >= self._filled"),
    ),
    *same(
        "segment",
        "Segment._reserve",
        "a file that is not kept is opened at its next use",
        ("self._file = file", "pass"),
    ),
    *same(
        "segment",
        "Segment._reserve",
        "a look knows its map, and is made anew where there is another",
        ("self.look = None", "pass"),
    ),
    *same(
        "segment",
        "Segment._give_back",
        "less than a header is as little as nothing",
        ("self._filled = 0", "self._filled = 1"),
    ),
    *same(
        "segment",
        "Segment._give_back",
        NO_BYTES,
        ("size > end", "size >= end"),
        ("size < end", "size <= end"),
    ),
    # ---------------------------------------------------------------- index
    *same(
        "index",
        "Maps.of",
        "a map as large as was asked for is enough, and one for more is made when it is needed",
        ("max(entries * size, file.size())", "min(entries * size, file.size())"),
        ("entries * size", "entries // size  # 2"),
    ),
    *same(
        "index",
        "Index.floor",
        "no frame is at the position that the key ends with",
        ("waiting[0][0] <= key", "waiting[0][0] < key"),
    ),
    *same(
        "index",
        "Index.sync",
        "Linux syncs what was opened for reading as well, and POSIX lets it refuse",
        (
            "self._directory.open(name, writable=True)",
            "self._directory.open(name, writable=False)",
        ),
    ),
    *same(
        "index",
        "Index._readable",
        "the count grows when maps for more are there, and both kinds of maps go together",
        ("count * ENTRY.size", "count // ENTRY.size"),
    ),
    # ---------------------------------------------------------------- scan
    *same(
        "scan",
        "walk",
        "where there is no room left, there is no prefix either",
        ("position < end", "position <= end"),
    ),
    *same(
        "scan",
        "find_frame",
        "where there is no room left, there are no words either",
        ("position < end", "position <= end"),
    ),
    *same(
        "scan",
        "find_frame",
        "only whole words of it are looked at",
        ("position + 8", "position + 9  # 2"),
    ),
    *same(
        "scan",
        "find_frame",
        "more is read at once, and a frame beyond the end is none",
        ("min(position + 8 + CHUNK, end)", "max(position + 8 + CHUNK, end)"),
    ),
    *same("scan", "last_used", NO_BYTES, ("position < end", "position <= end")),
    # ---------------------------------------------------------------- indexed_segment
    *same(
        "indexed_segment",
        "IndexedSegment.ensure_index",
        "of a few records there are no entries to make",
        (
            "index is None and self.tail[0] > f.HEADER_SIZE + self._config.index_interval_bytes",
            "index is None",
        ),
    ),
    *same(
        "indexed_segment",
        "IndexedSegment.trusted_start",
        EVERY_8,
        ("durable + 1", "durable + 2"),
    ),
    # ---------------------------------------------------------------- log
    *same(
        "log",
        "Log.sync",
        "an index that is synced sooner than it must be costs time alone",
        ("base < tail.base_offset", "base <= tail.base_offset"),
    ),
    *same(
        "log",
        "Log.look_anew",
        "that they are equal was asked before",
        ("bases[-1] > tail.base_offset", "bases[-1] >= tail.base_offset"),
    ),
    # ---------------------------------------------------------------- codecs
    *same(
        "codecs",
        "_gzip.unpack",
        "zlib reaches the end with the last byte; this is for one that does not",
        ("not unpacker.eof", "unpacker.eof"),
        ("body += unpacker.decompress(unpacker.unconsumed_tail, 1)", "pass"),
        (
            "unpacker.decompress(unpacker.unconsumed_tail, 1)",
            "unpacker.decompress(unpacker.unconsumed_tail, 2)",
        ),
    ),
    *same(
        "codecs",
        "_zstd.unpack",
        "zstd reaches the end with the last byte; this is for one that does not",
        (
            "body += unpacker.decompress(b'', max_length=1)",
            "body -= unpacker.decompress(b'', max_length=1)",
        ),
        ("body += unpacker.decompress(b'', max_length=1)", "pass"),
    ),
    # ---------------------------------------------------------------- files, memory, seam
    *same("files", "DiskFile.__init__", CLOSES_ITSELF, ("self.close()", "pass")),
    *same(
        "files",
        "DiskFile.read",
        "one more read finds the end, and nothing",
        ("len(data) == size or not data", "not data"),
    ),
    *same("files", "DiskFile.reserve", "what follows it is the end", ("return", "pass  # 2")),
    *same(
        "files",
        "DiskDirectory.make",
        "the root of all is a directory",
        (
            "not os.path.isdir(path) and path != os.path.dirname(path)",
            "not os.path.isdir(path)",
        ),
    ),
    *same(
        "memory",
        "MemoryFile.__init__",
        "how much of it is the file's is told beside it",
        ("MappedRegion(-1, 1)", "MappedRegion(-1, 2)"),
    ),
    *same(
        "seam",
        "replace_by_rename",
        CLOSES_ITSELF,
        ("file.close()", "pass"),
        ("file.close()", "pass  # 2"),
    ),
    # ---------------------------------------------------------------- log, opening, recovery
    *same(
        "log",
        "Log.origins",
        "a segment that ends there has no frame behind it",
        ("segment.next_offset > lowest", "segment.next_offset >= lowest"),
    ),
    *same(
        "log",
        "Log._take_in",
        "from the first segment on, the others are found one by one",
        (
            "not lowest or not self._segment(lowest).exists()",
            "not self._segment(lowest).exists()",
        ),
        ("not lowest", "lowest"),
    ),
    *same(
        "opening",
        "open_segments",
        "a reader syncs no names",
        (
            "Found(segments, 1, segments[-1].base_offset, True, [])",
            "Found(segments, 1, segments[-1].base_offset, False, [])",
        ),
    ),
    *same(
        "opening",
        "_without_leftovers",
        "files are removed without a look at their checksums",
        ("Index(directory, stem, 0)", "Index(directory, stem, 1)"),
    ),
    *same(
        "recovery",
        "_frames_beyond",
        "no offset is as large as either",
        ("2 ** 63", "3 ** 63"),
    ),
    *same(
        "readable_log",
        "ReadableLog.record_at",
        "the segment that is appended to is the last of the others, too",
        ("offset >= tail.base_offset", "offset > tail.base_offset"),
    ),
    # ---------------------------------------------------------------- retention, sequences
    *same(
        "retention",
        "_aged",
        "the segments behind one that ends too far end further still",
        ("break", "continue"),
    ),
    *same(
        "retention",
        "_oversized",
        "what goes for its age goes first here too, and takes its own size with it",
        ("segment.next_offset > reached", "segment.next_offset >= reached"),
    ),
    *same(
        "retention",
        "_oversized",
        "the last one, when it is empty, ends where the one before it does",
        (
            "excess < segment.size_bytes or segment.next_offset > rules.limit or segment.is_empty",
            "excess < segment.size_bytes or segment.next_offset > rules.limit",
        ),
    ),
    *same(
        "sequences",
        "Sequences.load",
        "a snapshot up to the first offset has nothing in it",
        ("0 <= next_offset <= end_offset", "1 <= next_offset <= end_offset"),
    ),
    # ---------------------------------------------------------------- segment_files
    *same(
        "segment_files",
        "SegmentFiles.file_size",
        "a file is as large, whoever has opened it",
        (
            "self._file or self._place.directory.open(f'{self.name}.log')",
            "self._place.directory.open(f'{self.name}.log')",
        ),
    ),
    *same(
        "segment_files",
        "SegmentFiles._map",
        "a file that is not kept is opened at its next use",
        ("is_writable or self.is_live", "self.is_live"),
        ("is_writable or self.is_live", "is_writable"),
    ),
    # ---------------------------------------------------------------- runs, rewriting
    *same(
        "runs",
        "Run.where",
        "of no headers, none has anything in it",
        ("headers and any(headers)", "any(headers)"),
    ),
    *same(
        "runs",
        "_Window.__init__",
        "an empty chunk has no bytes, wherever it begins",
        ("self.start = 0", "self.start = 1"),
    ),
    *same(
        "runs",
        "runs_of",
        "a run of single records does not begin with a seal either",
        (
            "prefix is None or prefix.offset != due or prefix.flags & f.SEAL",
            "prefix is None or prefix.offset != due",
        ),
    ),
    *same(
        "runs",
        "_singles",
        "where there is no run, nobody looks at its size",
        ("(None, 0)", "(None, 1)"),
    ),
    *same(
        "rewriting",
        "Rewriting._forget_gathered",
        "an estimate, which may be a little too large",
        ("self._gathered_bytes = 0", "self._gathered_bytes = 1"),
    ),
    *same(
        "rewriting",
        "Rewriting.restore",
        EVERY_8,
        ("saved.position - 1", "saved.position - 2"),
    ),
    # ---------------------------------------------------------------- found by samples
    *same(
        "columns",
        "ColumnsFrame._valid",
        "more of the region is read than is looked at, where it is read at all",
        ("stop + 7", "stop + 8"),
    ),
    *same(
        "index",
        "Index.entries",
        NEGATIVE,
        ("largest if is_right else -2", "largest if is_right else -3"),
    ),
    *same(
        "index",
        "Index.keep_through",
        "they ascend as they did",
        ("relative << 32", "relative << 33"),
    ),
    *same("indexed_segment", "IndexedSegment.trim_index", EVERY_8, ("end - 1", "end - 2")),
    *same(
        "indexed_segment",
        "IndexedSegment._index_in_memory",
        "making an index does not ask what is synced",
        (
            "Start(f.HEADER_SIZE, self.base_offset, f.NO_TIMESTAMP, 0)",
            "Start(f.HEADER_SIZE, self.base_offset, f.NO_TIMESTAMP, 1)",
        ),
    ),
    *same(
        "opening",
        "open_segments",
        "a writer's epoch is set before it writes, and a reader writes nothing",
        ("Segment(place, base, config, 0)", "Segment(place, base, config, 1)"),
        (
            "Found(segments, 1, segments[-1].base_offset, True, [])",
            "Found(segments, 2, segments[-1].base_offset, True, [])",
        ),
    ),
    *same(
        "opening",
        "_without_superseded",
        "behind the last there is none that it was put for",
        (
            "following is not None and segment.is_of_compaction() and segment.load_seal()",
            "segment.is_of_compaction() and segment.load_seal()",
        ),
    ),
    *same(
        "opening",
        "_open_live",
        "a reader judges nothing by its age",
        (
            "last.resume((mark.position, mark.next_offset), mark.largest_timestamp, 0)",
            "last.resume((mark.position, mark.next_offset), mark.largest_timestamp, 1)",
        ),
    ),
    *same(
        "opening",
        "_open_live",
        "without it, all is followed from the start",
        ("last.skip_to_last_entry()", "pass"),
    ),
    *same(
        "recovery",
        "is_outdated",
        "behind the end of a file nothing is used",
        (
            "size > mark.position != scan.last_used(last.region(), mark.position, size)",
            "size >= mark.position != scan.last_used(last.region(), mark.position, size)",
        ),
    ),
    *same(
        "recovery",
        "resume_unclean",
        "what is synced is told in units of 8 bytes",
        ("last.durable = 0", "last.durable = 1"),
    ),
    *same("recovery", "find_end", "a walk ends behind a seal", ("break", "continue")),
    *same(
        "recovery",
        "_finish",
        "the seal says it, which is taken next",
        (
            "last.resume((found.position, found.next_offset), found.largest_timestamp, 0)",
            "last.resume((found.position, found.next_offset), found.largest_timestamp, 1)",
        ),
    ),
    *same(
        "recovery",
        "_frames_beyond",
        "where nothing is left that is used, there is no frame either",
        ("position < used", "position <= used"),
    ),
    *same(
        "recovery",
        "_frames_beyond",
        "no offset is as large as either",
        ("2 ** 63 - 1", "2 ** 63 - 2"),
    ),
    *same(
        "segment_files",
        "SegmentFiles.__init__",
        "it is asked for only of a segment whose seal has set it",
        ("self._sealed_count = 0", "self._sealed_count = 1"),
    ),
    *same(
        "reading",
        "_read_from",
        "where there is no room left, there is no frame either",
        ("position < end[0]", "position <= end[0]"),
    ),
    *same(
        "reading",
        "_take_columns",
        "a frame that was checked before it was decompressed is checked once more",
        (
            "frame is not kept or (is_part and known is not None)",
            "is_part and known is not None",
        ),
    ),
    *same(
        "reading",
        "_guess",
        "reading looks at the offset of a frame as well, and then without a guess",
        (
            "prefix is None or prefix[2] != offset or prefix[6] & f.SEAL",
            "prefix is None or prefix[6] & f.SEAL",
        ),
    ),
    *same(
        "reading",
        "_guess",
        "the look past damage finds what a guess has missed",
        ("Found(guess, offset, prefix, True)", "Found(guess, offset, prefix, False)"),
    ),
    *same("reading", "offset_at", FIRST_ALONE, ("row + 1", "row + 2")),
    *same(
        "compaction",
        "_Pass._fill",
        "what stands behind the map of keys is copied as it is; to save is never wrong",
        ("source.base_offset >= keys.end", "source.base_offset > keys.end"),
        (
            "writing.size_bytes + 4 * source.size_bytes > limit",
            "writing.size_bytes + 4 * source.size_bytes >= limit",
        ),
    ),
    *same(
        "runs",
        "Make.of",
        "one without a sequence has no producer, and then it is not asked for",
        (
            "sequence - prefix.offset if sequence >= 0 else 0",
            "sequence - prefix.offset if sequence >= 0 else 1",
        ),
    ),
    *same(
        "runs",
        "LateSingles._records",
        "an empty value is decoded the longer way",
        ("extent <= size - f.SINGLE_OVERHEAD", "extent < size - f.SINGLE_OVERHEAD"),
    ),
    *same(
        "runs",
        "_Window.have",
        "a segment is read forwards",
        (
            "position < self.start or stop > self.start + len(self.chunk)",
            "stop > self.start + len(self.chunk)",
        ),
    ),
    *same(
        "runs",
        "_Window.have",
        "behind the end is the seal, which is no record",
        ("self.end - position", "self.end + position"),
    ),
    *same(
        "runs",
        "_columns",
        "whether a frame is read in parts is for memory",
        ("prefix.size > LARGE_FRAME", "prefix.size >= LARGE_FRAME"),
    ),
    *same(
        "runs",
        "_columns",
        "it is asked once more, when it is decompressed",
        (
            "frame is not None and is_whole and frame.is_sound and prefix.codec",
            "frame is not None and frame.is_sound and prefix.codec",
        ),
    ),
    *same(
        "runs",
        "_singles",
        CUT_FAILS,
        (
            "found != due or size < f.SINGLE_OVERHEAD or stop + 4 > len(chunk)",
            "found != due or stop + 4 > len(chunk)",
        ),
        (
            "found != due or size < f.SINGLE_OVERHEAD or stop + 4 > len(chunk)",
            "found != due or size < f.SINGLE_OVERHEAD",
        ),
        ("stop + 4", "stop - 4"),
    ),
    *same(
        "rewriting",
        "Rewriting._write_gathered",
        "the rest is covered by frames of its own",
        ("stop - self._written.next_offset", "stop + self._written.next_offset"),
    ),
    *same(
        "rewriting",
        "Rewriting._write_batch",
        "a frame without records is nobody's, and nobody asks it for an epoch",
        ("0 if make is None else make.epoch", "1 if make is None else make.epoch"),
    ),
    *same(
        "view",
        "_plain_single",
        "a frame that ends with its checksum has its size",
        ("found != offset or size != len(frame) or kind", "found != offset or kind"),
    ),
    *same(
        "rewriting",
        "Rewriting.__init__",
        "it is set with the first record, and not asked for before",
        ("self._make: Make | None = None", "pass"),
        ("self._tombstones_since = NOT_SEEN", "pass"),
    ),
    *same(
        "rewriting",
        "Rewriting.size_bytes",
        "an estimate, which may be a little too large",
        ("200 + 28 * count", "201 + 28 * count"),
        ("28 * count", "29 * count"),
    ),
    *same(
        "rewriting",
        "Rewriting.add",
        "a limit of our own, which nothing is as large as but by chance",
        ("span >= LARGEST_EXTENT", "span > LARGEST_EXTENT"),
        ("self._gathered_bytes >= FRAME_BYTES", "self._gathered_bytes > FRAME_BYTES"),
    ),
    *same(
        "rewriting",
        "Rewriting._write_gathered",
        "the rest is covered by frames of its own, also where it would just fit",
        (
            "stop - self._written.next_offset > LARGEST_EXTENT",
            "stop - self._written.next_offset >= LARGEST_EXTENT",
        ),
        (
            "stop - self._written.next_offset > LARGEST_EXTENT",
            "stop - self._written.next_offset >= LARGEST_EXTENT  # 2",
        ),
        ("stop - self._written.next_offset", "stop + self._written.next_offset  # 2"),
    ),
    *same(
        "rewriting",
        "Rewriting._write_batch",
        "1 is the flag of columns, which every batch has",
        ("0 if make is None else make.flags", "1 if make is None else make.flags"),
    ),
    *same(
        "rewriting",
        "Rewriting._write",
        "an entry more or less, or an earlier one, leads to the same record",
        ("end > index_due", "end >= index_due"),
        ("max(largest, 0)", "max(largest, 1)"),
    ),
    *same(
        "rewriting",
        "Rewriting._write",
        "what is not written in between is zeros as well",
        ("-len(frame) & 7", "-len(frame) & 8"),
    ),
    *same("rewriting", "Rewriting.finish", CLOSES_ITSELF, ("file.close()", "pass")),
    *same(
        "rewriting",
        "Rewriting.finish",
        "an index that is not handed over is made from the log",
        ("len(self._index)", "not len(self._index)"),
    ),
    *same("rewriting", "Rewriting.discard", CLOSES_ITSELF, ("self._file.close()", "pass")),
    *same(
        "rewriting",
        "Rewriting.write_index",
        "the index in memory has the same entries",
        ("self.segment.forget_index()", "pass"),
    ),
    *same(
        "runs",
        "_singles",
        "what is known of a context saves a look, and no more",
        ("prefix.flags & f.EXTENDED", "prefix.flags | f.EXTENDED"),
    ),
    *same(
        "segment_files",
        "SegmentFiles.__init__",
        "the seal sets it before anybody asks",
        ("self._sealed_count = 0", "pass"),
    ),
    *same(
        "segment_files",
        "SegmentFiles.__init__",
        "less than a header is as little as nothing",
        ("self._filled = 0", "self._filled = 1"),
    ),
    *same("segment_files", "SegmentFiles.create", CLOSES_ITSELF, ("file.close()", "pass")),
    *same(
        "segment_files",
        "SegmentFiles.create",
        "a file that is not kept is opened at its next use",
        ("self._file = file", "pass"),
    ),
    *same(
        "segment_files",
        "SegmentFiles.load_seal",
        "the checksum of a seal is of its place, which is a multiple of 8",
        ("position < f.HEADER_SIZE or position % 8", "position < f.HEADER_SIZE"),
    ),
    *same(
        "segment_files",
        "SegmentFiles.take_over",
        "an index that is not handed over is made from the log",
        ("self._index = index", "pass"),
    ),
    *same(
        "segment_files",
        "SegmentFiles._map",
        "a file is the same, whoever has opened it",
        (
            "self._file or self._place.directory.open(f'{self.name}.log', writable=is_writable)",
            "self._place.directory.open(f'{self.name}.log', writable=is_writable)",
        ),
    ),
    *same(
        "indexed_segment",
        "IndexedSegment.view",
        "what is mapped of a log has room for a seal behind its end",
        ("len(region) >= end", "len(region) > end"),
    ),
    *same(
        "indexed_segment",
        "IndexedSegment.ensure_index",
        "of a few records there are no entries to make",
        (
            "self.tail[0] > f.HEADER_SIZE + self._config.index_interval_bytes",
            "self.tail[0] >= f.HEADER_SIZE + self._config.index_interval_bytes",
        ),
        (
            "f.HEADER_SIZE + self._config.index_interval_bytes",
            "f.HEADER_SIZE - self._config.index_interval_bytes",
        ),
    ),
    *same(
        "log",
        "Log.append_marker",
        "room for a seal is kept behind it, so that a byte more or less is there",
        (
            "f.SINGLE_OVERHEAD + f.LARGEST_EXTENSION + 1",
            "f.SINGLE_OVERHEAD + f.LARGEST_EXTENSION - 1",
        ),
        (
            "f.SINGLE_OVERHEAD + f.LARGEST_EXTENSION + 1",
            "f.SINGLE_OVERHEAD + f.LARGEST_EXTENSION + 2",
        ),
    ),
    *same(
        "checksum",
        "",
        "both ways lead to the same function",
        ("_extension() or _packaged()", "_extension() and _packaged()"),
        ("_extension() or _packaged()", "_packaged()"),
    ),
    *same(
        "log",
        "Log.make_room",
        "what would just fit is asked for as well",
        ("end <= segment.limit", "end < segment.limit"),
    ),
    *same(
        "log",
        "Log.is_dirty",
        "a roll makes names, which are synced when all before them is",
        (
            "self._durable_base < tail.base_offset or not self._names_are_synced",
            "not self._names_are_synced",
        ),
    ),
    *same(
        "log",
        "Log.drop_before",
        "to know of less that is synced costs a sync, and no record",
        (
            "max(self._durable_base, kept.peekitem(0)[0])",
            "min(self._durable_base, kept.peekitem(0)[0])",
        ),
    ),
    *same(
        "log",
        "Log._take_in",
        "there is no lower end that could be left out",
        ("(True, False)", "(False, False)"),
    ),
    *same(
        "indexed_segment",
        "IndexedSegment.trusted_start",
        "the entry before it is as good a start",
        ("durable + 1", "durable - 1"),
    ),
    *same(
        "indexed_segment",
        "IndexedSegment.reindex",
        "making an index does not ask what is synced",
        (
            "Start(f.HEADER_SIZE, self.base_offset, f.NO_TIMESTAMP, 0)",
            "Start(f.HEADER_SIZE, self.base_offset, f.NO_TIMESTAMP, 1)",
        ),
    ),
    *same(
        "opening",
        "_without_superseded",
        "a writer's epoch is set before it writes, and here nothing is written",
        ("Segment(place, base, config, 0)", "Segment(place, base, config, 1)"),
    ),
    *same(
        "compaction",
        "_Pass.run",
        "what is damaged is met when it is read, and raises the same",
        (
            "raise CorruptionError('it is damaged; nothing was compacted', path=segment.path)",
            "pass",
        ),
    ),
    *same(
        "log",
        "Log.sync",
        "all but the last are sealed; an index that is not synced is made anew",
        (
            "segments[base].is_sealed or base < tail.base_offset",
            "segments[base].is_sealed and base < tail.base_offset",
        ),
        ("segments[base].is_sealed or base < tail.base_offset", "base < tail.base_offset"),
    ),
    *same(
        "codecs",
        "",
        "a limit of our own, which another would do for",
        ("64 * 1024", "65 * 1024"),
        ("64 * 1024", "64 * 1025"),
        ("64 * 1024 * 1024", "64 * 1024 * 1025"),
    ),
    *same(
        "codecs",
        "_gzip.unpack",
        "zlib reaches the end with the last byte; this is for one that does not",
        (
            "body += unpacker.decompress(unpacker.unconsumed_tail, 1)",
            "body -= unpacker.decompress(unpacker.unconsumed_tail, 1)",
        ),
    ),
    *same(
        "codecs",
        "_zstd.unpack",
        "zstd reaches the end with the last byte; this is for one that does not",
        (
            "unpacker.decompress(b'', max_length=1)",
            "unpacker.decompress(b'', max_length=2)",
        ),
    ),
]
