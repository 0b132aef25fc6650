"""Offsets that no reader sees: control frames, and what was compacted away, are stepped over.

The frames are built here by hand, from what ``format.py`` and ``columns.py`` say.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import pytest

import minilog
from minilog import Broker, Consumer, CorruptionError, Partition
from minilog.storage import format as f
from minilog.storage.codecs import NUMBERS, codec_of
from minilog.storage.columns import HEADER
from minilog.testing import ManualClock

STAMP = 1_700_000_000_000


def store(partition: Partition, frame: bytes, covered: int) -> None:
    """Put a frame, but for its checksum, at the end of a partition."""
    partition.append(b"opened for writing")
    log = partition._opened()
    segment = log.make_room(len(frame) + f.CRC_SIZE + 4096, 0)
    position, offset = segment.tail
    fields = list(f.PREFIX.unpack_from(frame))
    fields[2] = offset
    frame = f.PREFIX.pack(*fields) + frame[f.PREFIX_SIZE :]
    frame += f.checksum(frame, segment.seed, position)
    segment.append_frame(frame, position, offset + covered, STAMP, 0)


def single_control() -> tuple[bytes, int]:
    return f.encode_single(b"k", b"not for readers", b"", 0, STAMP, 1, 0, f.CONTROL), 1


def columns_frame(
    deltas: list[int], extent: int, compression: str = "none", flags: int = 0
) -> tuple[bytes, int]:
    """A batch with the records of these deltas, "0", "1" ..., keyless; it covers ``extent``."""
    values = [b"value at %d" % delta for delta in deltas]
    flags |= f.COLUMNS | f.DELTAS
    ends = accumulate(map(len, values), initial=0)
    body = b""
    for piece in (
        struct.pack(f"<{len(values) + 1}I", *ends),
        struct.pack(f"<{len(deltas)}I", *deltas),
        b"".join(values),
    ):
        body += piece + bytes(-len(piece) & 7)
    head = HEADER.pack(len(deltas), -1, -1, -1, -1, 0, len(b"".join(values)), 0, len(body), 0)
    codec = NUMBERS.get(compression, 0)
    if codec:
        body = codec_of(compression).compress(body)
    size = f.PREFIX_SIZE + len(head) + len(body) + f.CRC_SIZE
    prefix = f.PREFIX.pack(size, extent, 0, STAMP, codec, 0, flags, 1, 0)
    return prefix + head + body, extent


FRAMES: dict[str, Callable[[], tuple[bytes, int]]] = {
    "a control record": single_control,
    "control records in columns": lambda: columns_frame([0, 1], 2, flags=f.CONTROL),
    "a batch with gaps": lambda: columns_frame([2, 3, 7], 10),
    "a compressed batch with gaps": lambda: columns_frame([2, 3, 7] * 1, 10, "gzip"),
    "a batch of which nothing is left": lambda: columns_frame([], 5),
}
SEEN = {"a batch with gaps": [2, 3, 7], "a compressed batch with gaps": [2, 3, 7]}


@pytest.fixture(params=FRAMES)
def written(
    request: pytest.FixtureRequest, location: Path | str
) -> Iterator[tuple[Partition, int, int, list[int]]]:
    """A partition with such a frame in the middle: also where it begins, ends, what is seen."""
    clock = ManualClock(STAMP)
    with Broker(location, segment_bytes=1024, index_interval_bytes=64, clock=clock) as broker:
        partition = broker.create_topic("t")[0]
        partition.append_many([b"before"] * 20)
        frame, covered = FRAMES[request.param]()
        store(partition, frame, covered)
        end = partition.end_offset
        start = end - covered
        yield partition, start, end, [start + delta for delta in SEEN.get(request.param, [])]


def test_what_is_not_for_readers_is_stepped_over(
    written: tuple[Partition, int, int, list[int]],
) -> None:
    partition, start, end, seen = written
    partition.append_many([b"behind"] * 3)
    partition.check()
    everything = [*range(start), *seen, *range(end, end + 3)]
    assert [record.offset for record in partition] == everything
    for offset in range(end + 3):
        due = [other for other in everything if other >= offset]
        found = partition.read(offset, max_records=2)
        assert list(found.offsets) == due[:2]
        assert list(partition.read(offset, max_bytes=1).offsets) == due[:1]
    assert partition.read(start, max_records=1).values == ([b"value at 2"] if seen else [b"behind"])


def test_a_read_says_how_far_it_came_over_what_is_not_for_readers(
    written: tuple[Partition, int, int, list[int]],
) -> None:
    partition, start, end, seen = written
    behind = seen[-1] + 1 if seen else start
    for offset in range(behind, end):
        found = partition.read(offset)
        assert not found
        assert found.next_offset == end
    assert partition.read(end).next_offset == end
    assert partition.read(0, max_records=1000).next_offset == end


def test_a_waiting_read_waits_for_what_is_for_readers(
    written: tuple[Partition, int, int, list[int]],
) -> None:
    partition, _, end, _ = written
    found = []
    thread = threading.Thread(target=lambda: found.append(partition.read(end - 1, timeout=None)))
    thread.start()
    while not partition._waiters:
        assert thread.is_alive()
    partition.append(b"news")
    thread.join(timeout=60)
    assert [record.value for record in found[0]] == [b"news"]


def test_reading_goes_on_in_the_next_segment_where_one_ends_in_a_gap(
    written: tuple[Partition, int, int, list[int]],
) -> None:
    partition, start, end, seen = written
    partition._opened().roll(STAMP)
    partition.append(b"behind")
    assert partition.read(end - 1, max_records=10).values[-1] == b"behind"
    assert [record.offset for record in partition] == [*range(start), *seen, end]
    partition._opened().roll(STAMP)
    assert not partition.read(end + 1)


def test_a_time_is_not_found_at_what_is_not_for_readers(
    written: tuple[Partition, int, int, list[int]],
) -> None:
    partition, start, end, seen = written
    following = seen[0] if seen else None
    partition.append(b"behind", timestamp=STAMP + 5)
    log = partition._opened()
    assert log.offset_at(STAMP, start, log.end()) == (end if following is None else following)
    assert partition.offset_at(STAMP + 5) == end


def test_iterating_ends_where_the_end_was_over_gaps_too(
    written: tuple[Partition, int, int, list[int]],
) -> None:
    partition, start, _, seen = written
    iterator = iter(partition)
    first = next(iterator)
    partition.append_many([b"later"] * 100)
    assert [first.offset, *(record.offset for record in iterator)] == [*range(start), *seen]


def test_reading_up_to_an_end_gives_nothing_behind_it_over_gaps_too(
    written: tuple[Partition, int, int, list[int]],
) -> None:
    partition, start, end, seen = written
    partition.append_many([b"later"] * 100)
    for max_records in (1, 2, 1000):
        chunks = partition.read_up_to(0, end, max_records)
        found = [offset for records in chunks for offset in records.offsets]
        assert found == [*range(start), *seen]


def test_a_consumer_s_drain_comes_to_its_end_behind_gaps(
    written: tuple[Partition, int, int, list[int]],
) -> None:
    partition, start, end, seen = written
    partition.append(b"behind")
    consumer = Consumer(partition._host._owner._house, "t")  # type: ignore[attr-defined]
    assert [record.offset for record in consumer.drain()] == [*range(start), *seen, end]


@pytest.mark.parametrize("name", FRAMES)
def test_such_frames_are_verified_recovered_and_found_when_damaged(
    log_path: Path, name: str
) -> None:
    with Broker(log_path) as broker:
        partition = broker.create_topic("t")[0]
        partition.append_many([b"before"] * 2)
        frame, covered = FRAMES[name]()
        store(partition, frame, covered)
        position = partition._opened().end().position
        partition.append(b"behind")
        end = partition.end_offset
    report = minilog.verify(log_path)
    assert report.ok, str(report)
    assert report.record_count == 4 + len(SEEN.get(name, []))
    (log_path / "clean.json").unlink()
    with Broker(log_path) as broker:
        assert broker.recovery.ok
        assert broker.topic("t")[0].end_offset == end
        assert broker.topic("t")[0].read(0).next_offset == end
    log = log_path / "t" / "0" / "00000000000000000000.log"
    data = bytearray(log.read_bytes())
    data[position - f.aligned(len(frame) + f.CRC_SIZE) + 30] ^= 1
    log.write_bytes(data)
    with Broker(log_path, read_only=True) as broker:
        partition = broker.topic("t")[0]
        assert len(partition.read(0)) == 3
        with pytest.raises(CorruptionError) as caught:
            partition.read(3)
        assert (caught.value.offset, caught.value.next_offset) == (3, 3 + covered)
        assert partition.read(end - 1).values == [b"behind"]
