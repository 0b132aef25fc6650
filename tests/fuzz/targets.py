"""What is fuzzed: functions of bytes that return, or raise an error of minilog's own.

Most bytes fail their checksum at once, which shows little of what stands behind it. So the
targets also mend checksums: what is decoded then is what somebody made who knows the format. This
module refuses to know where its bytes come from.

To fuzz another decoder, add a function here, to ``TARGETS``, and a directory to the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from struct import unpack_from
from uuid import UUID

import minilog
from minilog import Broker, Consumer, MinilogError
from minilog.home import CLEAN_FILE, Home
from minilog.ledger import Ledger
from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.checksum import crc32c
from minilog.storage.codecs import NUMBERS, decompress
from minilog.storage.columns import BODY, ColumnsFrame
from minilog.storage.files import Directory, FileRegion
from minilog.storage.index import Index
from minilog.storage.memory import MemoryDirectory
from minilog.storage.singles import Budget, read_run
from minilog.testing import ManualClock
from minilog.topic import MOST_PARTITIONS, TOPIC_FILE, TopicState, log_identity

SEED = 12345
LARGEST_INPUT = 256 * 1024
ROWS = 1000  # so many are decoded of what claims to have more


class HeldDisk:
    """A disk that is a directory in memory."""

    def __init__(self, directory: MemoryDirectory) -> None:
        self._directory = directory

    def root_directory(self) -> Directory:
        """Return the directory."""
        return self._directory


# ---------------------------------------------------------------- one decoder each


def fuzz_header(data: bytes) -> None:
    """The first 64 bytes of a segment, as they are and with the right checksum."""
    head = data[: f.HEADER_SIZE - f.CRC_SIZE]
    for candidate in (data, head + f.CRC.pack(crc32c(head))):
        try:
            f.encode_header(f.decode_header(candidate, "a segment"))
        except MinilogError:
            continue


def fuzz_document(data: bytes) -> None:
    """A small JSON file, as it is and with the right checksum."""
    _try(lambda: f.decode_document(data, "a document"))
    content = _json(data)
    if isinstance(content, dict):
        encoded = f.encode_document(content)
        _try(lambda: f.decode_document(encoded, "a document"))


def fuzz_headers(data: bytes) -> None:
    """The headers of one record."""
    try:
        headers = f.decode_headers(data)
    except MinilogError:
        return
    assert f.decode_headers(f.encode_headers(headers)) == headers


def fuzz_frames(data: bytes) -> None:
    """Frames in a row, walked over and looked for."""
    for candidate in (data, mended_frames(data, 0, SEED)):
        region = region_of(candidate)
        positions = []
        for position, prefix in scan.walk(region, 0, None, len(candidate), SEED):
            assert f.is_plausible(prefix, len(candidate) - position)
            positions.append(position)
        assert positions == sorted(set(positions))
        scan.last_used(region, 0, len(candidate))
        scan.find_frame(region, 8, len(candidate), SEED, 0, 2**63 - 1)


def fuzz_single(data: bytes) -> None:
    """One frame of one record: key, value, headers, and who wrote it."""
    prefix = scan.prefix_of(data, 0, len(data))
    if prefix is not None and not prefix.flags & (f.COLUMNS | f.SEAL):
        frame = data[: prefix.size]
        _try(lambda: f.decode_origin(prefix, frame))
        _try(lambda: f.decode_single(prefix, frame))


def fuzz_seal(data: bytes) -> None:
    """The frame that ends a segment."""
    prefix = scan.prefix_of(data, 0, len(data))
    if prefix is not None and prefix.flags & f.SEAL:
        f.decode_seal(prefix, data[: prefix.size])


def fuzz_columns(data: bytes) -> None:
    """One frame of many records, plain or compressed."""
    prefix = scan.prefix_of(data, 0, len(data))
    if prefix is None or not prefix.flags & f.COLUMNS or len(data) < BODY:
        return
    frame: ColumnsFrame | None = ColumnsFrame(prefix, region_of(data), 0)
    assert frame is not None
    if frame.is_sound and prefix.codec:
        frame = _try(frame.unpack)
    if frame is None or not frame.is_sound:
        return
    stop = min(frame.count, ROWS)
    rows = frame.rows(0, stop)
    cut = rows.cut(stop // 3, stop)
    assert len(rows.keys) == len(rows.values) == len(rows.timestamps) == stop
    for each in (rows, cut):
        assert len(each.keys) == len(each.values) == len(each)
        _try(lambda each=each: list(each.headers))
    frame.row_at(prefix.offset + stop // 2)
    frame.row_at_time(prefix.timestamp, 0)
    if stop:
        frame.stop_within(0, 100, at_least=1)
        frame.size_before(stop)


def fuzz_run(data: bytes) -> None:
    """Records that were appended one by one, as they are read."""
    for candidate in (data, mended_frames(data, 64, SEED)):
        for budget in (Budget(ROWS, 2**62, True), Budget(3, 50, False)):
            if len(candidate) < f.PREFIX_SIZE:
                continue
            (offset,) = unpack_from("<q", candidate, 8)
            rows, frame_bytes, _ = read_run(candidate, 64, offset, SEED, budget)
            assert len(rows) == len(rows.keys) == len(rows.values) == len(rows.headers)
            assert 0 <= frame_bytes <= len(candidate) + 8


def fuzz_index(data: bytes) -> None:
    """Both files of an index, and every way of looking something up."""
    directory = MemoryDirectory()
    directory.make()
    size = unpack_from("<H", data)[0] if len(data) >= 2 else 0
    directory.create("s.index").write(0, data[2 : 2 + size])
    directory.create("s.timeindex").write(0, data[2 + size :])
    index = Index.open(directory, "s", SEED)
    assert index is not None
    for number in (0, 1, 500, 2**31, 2**32 - 1):
        index.floor(number)
        index.floor_time(number)
        index.floor_below(number)
    assert len(list(index.entries())) == len(index)
    index.keep_through(1000)
    index.cut_behind(2000)
    index.append(2**20, 2**20, 5)
    index.trim()
    assert Index.open(directory, "s", SEED) is not None


def fuzz_decompress(data: bytes) -> None:
    """The body of a compressed batch: never more than was declared."""
    if len(data) < 5:
        return
    numbers = sorted(NUMBERS.values())
    (size,) = unpack_from("<I", data, 1)
    body = _try(lambda: decompress(numbers[data[0] % len(numbers)], data[5:], size))
    assert body is None or len(body) == size


# ---------------------------------------------------------------- files, replaced whole


def fuzz_marks(data: bytes) -> None:
    """What a clean close leaves: ``data`` is the JSON of where logs ended."""
    content = _json(data)
    directory = MemoryDirectory()
    directory.make()
    encoded = f.encode_document({"logs": content}) if content is not None else data
    directory.replace(CLEAN_FILE, encoded)
    problems: list[minilog.storage.Problem] = []
    marks = Home(directory).load_marks(problems)
    assert (marks is None) == bool(problems)
    for mark in (marks or {}).values():
        assert [type(each) for each in mark] == [int] * 6 + [bool]
        assert 0 <= mark.base_offset <= mark.next_offset < 2**63


def fuzz_topic(data: bytes) -> None:
    """What says which topic a directory is: ``data`` is its JSON."""
    content = _json(data)
    directory = MemoryDirectory()
    directory.make()
    is_mended = isinstance(content, dict)
    directory.replace(TOPIC_FILE, f.encode_document(content) if is_mended else data)
    state = _try(lambda: TopicState.load(directory))
    if isinstance(state, TopicState):
        assert isinstance(state.name, str)
        assert 1 <= state.partition_count <= MOST_PARTITIONS
        assert all(0 <= offset < 2**63 for offset in state.start_offsets.values())
        state.save(directory)


class _Keeper:
    """What a ledger needs of its broker, with rows of our own in it."""

    is_read_only = False
    is_sync_always = False

    def __init__(self, partition: minilog.Partition) -> None:
        self._partition = partition

    def ledger_partition(self, *, is_writing: bool) -> minilog.Partition:
        return self._partition

    def topic_by_id(self, topic_id: bytes) -> None:
        return None

    def flush_topics(self) -> None:
        return None


def fuzz_ledger(data: bytes) -> None:
    """What groups have committed and how transactions ended: ``data`` is an archive of rows."""
    with Broker(":memory:", clock=ManualClock()) as broker:
        partition = broker.create_topic("ledger")[0]
        for key, value in rows_of(data):
            partition.append(value, key=key)
        for _ in range(2):
            ledger = Ledger(_Keeper(partition))
            _try(ledger.recover)
            _try(ledger.group_names)
            _try(ledger.open_transactions)
            ledger.hides(1)


def rows_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return keys and values: for each the lengths of both, and both."""
    rows = []
    start = 0
    while start + 4 <= len(data) and len(rows) < 100:
        key_length, value_length = unpack_from("<HH", data, start)
        middle = start + 4 + key_length
        rows.append((data[start + 4 : middle], data[middle : middle + value_length]))
        start = middle + value_length
    return rows


# ---------------------------------------------------------------- whole directories


def fuzz_directory(data: bytes) -> None:
    """A directory of files: verified, opened, read, written, closed, opened again.

    ``data`` is an archive (see ``unpacked``); where its first byte is odd, checksums are mended.
    """
    files = unpacked(data[1:])
    if data[:1] and data[0] & 1:
        files = mended_files(files)
    _use(files)


def fuzz_documents(data: bytes) -> None:
    """A directory whose JSON files say other things: ``data`` is an object of them by name."""
    content = _json(data)
    if not isinstance(content, dict):
        return
    those = [log for log in _logs() if content.keys() <= log.keys()] or _logs()
    files = dict(those[len(data) % len(those)])
    for name, document in content.items():
        if name in files and isinstance(document, dict):
            document.pop("crc32c", None)
            files[name] = f.encode_document(document)
    _use(files)


@cache
def _logs() -> list[dict[str, bytes]]:
    """Return the files of closed logs, of the corpus."""
    folder = Path(__file__).parent / "corpus" / "directory"
    archives = sorted(folder.glob("made-closed-*")) + sorted(folder.glob("made-groups"))
    return [unpacked(path.read_bytes()[1:]) for path in archives]


def _use(files: dict[str, bytes]) -> None:
    root = MemoryDirectory()
    root.make()
    for name, content in files.items():
        folder = root
        *parents, last = name.split("/")
        for parent in parents:
            folder.make()
            folder = folder.child(parent)
        folder.make()
        if last not in folder.names():
            folder.create(last).write(0, content)
    disk = HeldDisk(root)
    _try(lambda: str(minilog.verify(disk)))  # type: ignore[arg-type]
    _try(lambda: _read_all(disk, read_only=True))
    _try(lambda: _read_all(disk, read_only=False))
    _try(lambda: _read_all(disk, read_only=False))


def _read_all(disk: HeldDisk, *, read_only: bool) -> None:
    settings = {} if read_only else {"maintenance_interval_ms": 0}
    with Broker(disk, read_only=read_only, clock=ManualClock(10**12), **settings) as broker:
        for name in list(broker.topics):
            topic = broker.topic(name)
            for partition in list(topic)[:3]:
                _try(lambda partition=partition: _read_partition(partition))
                if not read_only:
                    _try(lambda partition=partition: partition.append(b"more", key=b"k"))
            consumer = Consumer(broker, name, isolation="read_committed")
            _try(lambda consumer=consumer: [r.headers for r in consumer.poll(max_records=ROWS)])
            _try(consumer.close)
        _try(lambda: [group.lag() for group in broker.groups.values()])
        if not read_only:
            _try(broker.maintain)


def _read_partition(partition: minilog.Partition) -> None:
    offset = partition.start_offset
    for _ in range(50):
        try:
            records = partition.read(offset, max_records=ROWS)
        except minilog.CorruptionError as error:
            if error.next_offset is None or error.next_offset <= offset:
                raise
            offset = error.next_offset
            continue
        if not records:
            break
        assert records[0].offset >= offset
        offset = records.next_offset
        list(records)
    partition.offset_at(10**12)
    len(partition)


# ---------------------------------------------------------------- putting checksums right


def mended_frames(data: bytes, position: int, seed: int) -> bytes:
    """Return frames, the first of which is at a position, with the checksums they should have."""
    mended = bytearray(data)
    start = 0
    while start + f.SINGLE_OVERHEAD <= len(mended):
        (size,) = unpack_from("<I", mended, start)
        if not f.SINGLE_OVERHEAD <= size <= len(mended) - start:
            break
        stop = start + size - f.CRC_SIZE
        mended[stop : stop + 4] = f.checksum(bytes(mended[start:stop]), seed, position + start)
        start += f.aligned(size)
    return bytes(mended)


def mended_files(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files of a log with the checksums they should have."""
    mended = dict(files)
    ids: dict[str, UUID] = {}
    for name, data in files.items():
        content = _json(data) if name.endswith(".json") else None
        if isinstance(content, dict):
            content.pop("crc32c", None)
            mended[name] = f.encode_document(content)
            if name.endswith("/" + TOPIC_FILE):
                try:
                    ids[name.split("/")[0]] = UUID(str(content.get("id")))
                except ValueError:
                    continue
    for name, data in files.items():
        topic, *between = name.split("/")
        if not name.endswith(".log") or topic not in ids or len(between) != 2:
            continue
        partition, base = between[0], between[1].removesuffix(".log")
        if not (partition.isascii() and partition.isdecimal() and len(partition) < 9):
            continue
        if base.isascii() and base.isdecimal() and len(base) <= 20 and int(base) < 2**63:
            seed = f.seed_of(log_identity(ids[topic], int(partition)), int(base))
            head = data[: f.HEADER_SIZE - f.CRC_SIZE]
            frames = mended_frames(data[f.HEADER_SIZE :], f.HEADER_SIZE, seed)
            mended[name] = head + f.CRC.pack(crc32c(head)) + frames
    return mended


def packed(files: dict[str, bytes]) -> bytes:
    """Return files as an archive: for each the lengths of name and content, and both."""
    return b"".join(
        len(name.encode()).to_bytes(2, "little")
        + len(content).to_bytes(4, "little")
        + name.encode()
        + content
        for name, content in files.items()
    )


def unpacked(data: bytes) -> dict[str, bytes]:
    """Return the files of an archive; names that no file can have are left out."""
    files: dict[str, bytes] = {}
    start = 0
    while start + 6 <= len(data):
        length, size = unpack_from("<HI", data, start)
        middle = start + 6 + length
        name = data[start + 6 : middle].decode("utf-8", "replace")
        parts = name.split("/")
        if length <= 300 and "\0" not in name and not {"", ".", ".."} & set(parts):
            files[name] = data[middle : middle + size]
        start = middle + size
    return files


def region_of(data: bytes) -> FileRegion:
    """Return bytes as the region of a file."""
    directory = MemoryDirectory()
    file = directory.create("file")
    file.write(0, data)
    return FileRegion(file, len(data))


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _try(work: Callable[[], object]) -> object:
    """Return what is returned; None where an error of minilog's own is raised."""
    try:
        return work()
    except MinilogError:
        return None


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": fuzz_header,
    "document": fuzz_document,
    "headers": fuzz_headers,
    "frames": fuzz_frames,
    "single": fuzz_single,
    "seal": fuzz_seal,
    "columns": fuzz_columns,
    "run": fuzz_run,
    "index": fuzz_index,
    "decompress": fuzz_decompress,
    "marks": fuzz_marks,
    "topic": fuzz_topic,
    "ledger": fuzz_ledger,
    "documents": fuzz_documents,
    "directory": fuzz_directory,
}
