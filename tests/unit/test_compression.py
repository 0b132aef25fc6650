"""Compressed topics from outside: the same records, fewer bytes, and clear words when it fails."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minilog
from minilog import Broker, ConfigError, Consumer, CorruptionError, Producer
from minilog.storage import columns
from minilog.storage import format as f
from minilog.storage.checksum import crc32c
from minilog.storage.columns import BODY, HEADER
from minilog.testing import ManualClock

BYTES = st.none() | st.binary(max_size=40)
HEADER_PAIRS = st.lists(st.tuples(st.text("ab", max_size=3), BYTES), max_size=2).map(tuple)
BATCH = st.lists(
    st.tuples(BYTES, BYTES, HEADER_PAIRS, st.integers(0, 10**6)), min_size=2, max_size=40
)
VALUES = [b"%d is much like the number before it " % number for number in range(1000)]
PACKAGES = {"lz4": ["lz4"], "zstd": ["backports", "backports.zstd", "compression.zstd"]}


def first_log(path: Path) -> Path:
    return path / "events" / "0" / "00000000000000000000.log"


def take_away(monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    """Have the package of a codec be missing."""
    for module in PACKAGES[compression]:
        monkeypatch.setitem(sys.modules, module, None)


# ---------------------------------------------------------------- what goes in comes out


@given(batches=st.lists(BATCH, min_size=1, max_size=4), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_compressed_batches_read_as_plain_ones(
    compression: str, batches: list[Any], data: st.DataObject
) -> None:
    with Broker(":memory:", segment_bytes=1024, index_interval_bytes=64) as broker:
        plain = broker.create_topic("plain")[0]
        packed = broker.create_topic("packed", compression=compression)[0]
        for batch in batches:
            keys, values, headers, stamps = map(list, zip(*batch, strict=True))
            for partition in (plain, packed):
                partition.append_many(values, keys=keys, headers=headers, timestamps=stamps)
        packed.check()
        records = [record[2:] for record in plain]
        assert [record[2:] for record in packed] == records
        offset = data.draw(st.integers(0, len(records) - 1))
        count = data.draw(st.integers(1, len(records)))
        limit = data.draw(st.none() | st.integers(0, 500))
        found = [p.read(offset, max_records=count, max_bytes=limit) for p in (plain, packed)]
        assert [r[2:] for r in found[0]] == [r[2:] for r in found[1]]
        assert found[0].next_offset == found[1].next_offset
        for stamp in {record[1] for record in records} | {0, 10**7}:
            assert plain.offset_at(stamp) == packed.offset_at(stamp)


def test_every_way_of_writing_many_compresses_and_one_stays_plain(
    log_path: Path, compression: str
) -> None:
    with Broker(log_path) as broker:
        one = broker.create_topic("events", compression=compression)[0]
        log = first_log(log_path)

        def codec_of_next() -> int:
            data = log.read_bytes()
            position = f.HEADER_SIZE
            while int.from_bytes(data[position : position + 4], "little"):
                found = data[position + 24]
                position += f.aligned(int.from_bytes(data[position : position + 4], "little"))
            return found

        one.append(b"v" * 1000)
        assert codec_of_next() == 0
        one.append_many([b"v" * 1000])
        assert codec_of_next() == 0
        producer = Producer(broker)
        one.append_many(VALUES)
        assert codec_of_next() > 0
        one.append(b"between")
        producer.send_many("events", VALUES)
        assert codec_of_next() > 0
        one.append(b"between")
        with producer.batch() as batch:
            for value in VALUES:
                batch.send("events", value)
        assert codec_of_next() > 0
        chance = random.Random(1)
        one.append_many([chance.randbytes(100) for _ in range(10)])
        assert codec_of_next() == 0, "what does not shrink is kept as it is"
    assert minilog.verify(log_path).ok


def test_compressed_records_take_fewer_bytes(tmp_path: Path, compression: str) -> None:
    sizes = {}
    for name in ("none", compression):
        with Broker(tmp_path / name, compression=name) as broker:
            broker.create_topic("events")[0].append_many(VALUES)
        sizes[name] = minilog.verify(tmp_path / name).size_bytes
    assert sizes[compression] < sizes["none"] / 3


def test_compressed_records_survive_closing_and_a_crash(log_path: Path, compression: str) -> None:
    with Broker(log_path, compression=compression, segment_bytes=4096) as broker:
        events = broker.create_topic("events")[0]
        for start in range(0, 1000, 100):
            events.append_many(VALUES[start : start + 100])
    (log_path / "clean.json").unlink()
    with Broker(log_path) as broker:
        assert broker.recovery.ok, str(broker.recovery)
        assert broker.topic("events")[0].read(0, max_records=2000).values == VALUES
        assert len(list(Consumer(broker, "events").drain())) == 1000
    with Broker(log_path, read_only=True) as broker:
        assert broker.topic("events")[0].read(0, max_records=2000).values == VALUES


def test_compression_can_be_changed_and_old_batches_stay(log_path: Path, compression: str) -> None:
    with Broker(log_path) as broker:
        topic = broker.create_topic("events")
        topic[0].append_many(VALUES[:10])
        topic.configure(compression=compression)
        topic[0].append_many(VALUES[10:20])
        topic.configure(compression="none")
        topic[0].append_many(VALUES[20:30])
        assert topic[0].read(0).values == VALUES[:30]
    with Broker(log_path) as broker:
        assert broker.topic("events").config.compression == "none"
        assert broker.topic("events")[0].read(5, max_records=20).values == VALUES[5:25]


def test_append_time_is_stamped_on_a_compressed_batch(clock: ManualClock, compression: str) -> None:
    with Broker(":memory:", clock=clock) as broker:
        settings = {"compression": compression, "timestamp_type": "append"}
        events = broker.create_topic("events", **settings)[0]
        events.append_many(VALUES[:10], timestamps=5)
        assert set(events.read(0).timestamps) == {clock.now_ms()}


def test_a_batch_larger_than_a_reader_should_hold_stays_plain(
    monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    monkeypatch.setattr("minilog.storage.batch.LARGEST_BODY", 1000)
    with Broker(":memory:", compression=compression) as broker:
        events = broker.create_topic("events")[0]
        events.append_many(VALUES)
        assert events.read(0, max_records=1000).values == VALUES


# ---------------------------------------------------------------- read in parts


def test_a_batch_read_in_small_parts_is_decompressed_once(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    decompress = columns.decompress

    def counted(number: int, data: bytes, size: int) -> bytes | None:
        calls.append(size)
        return decompress(number, data, size)

    monkeypatch.setattr(columns, "decompress", counted)
    with Broker(":memory:", compression=compression) as broker:
        events = broker.create_topic("events", partitions=2)
        for partition in events:
            partition.append_many(VALUES)
        found: dict[int, list[Any]] = {0: [], 1: []}
        for offset in range(0, 1000, 10):  # two readers, turn by turn
            for partition in events:
                found[partition.index] += partition.read(offset, max_records=10).values
        assert found == {0: VALUES, 1: VALUES}
        assert len(calls) == 2
        assert events[0].read(0, max_records=1000).values == VALUES
        assert len(calls) == 2


def test_a_limit_counts_the_bytes_of_records_and_not_those_on_the_disk(compression: str) -> None:
    with Broker(":memory:", compression=compression) as broker:
        events = broker.create_topic("events")[0]
        events.append_many(VALUES)
        assert events._opened().end().position < 20_000 < sum(map(len, VALUES))
        found = events.read(0, max_records=1000, max_bytes=20_000)
        sizes = list(map(len, VALUES))
        assert sum(sizes[: len(found)]) <= 20_000 < sum(sizes[: len(found) + 1])


def test_what_was_decompressed_is_not_kept_for_ever(compression: str) -> None:
    from minilog.storage.reading import UNPACKED, UNPACKED_FRAMES

    with Broker(":memory:", compression=compression) as broker:
        events = broker.create_topic("events")[0]
        for _ in range(3 * UNPACKED_FRAMES):
            events.append_many(VALUES[:20])
        for offset in range(0, events.end_offset, 20):
            assert events.read(offset + 7, max_records=2).values == VALUES[7:9]
        assert len(UNPACKED._frames) == UNPACKED_FRAMES


# ---------------------------------------------------------------- damage


def rewritten(path: Path, change: Any) -> None:
    """Change the first frame of a log and make its checksum right again."""
    log = first_log(path)
    data = bytearray(log.read_bytes())
    position = f.HEADER_SIZE
    size = int.from_bytes(data[position : position + 4], "little")
    frame = bytearray(data[position : position + size - f.CRC_SIZE])
    with Broker(path, read_only=True) as broker:
        topic = broker.topic("events")
        seed = f.seed_of(topic.identity(0), 0)
    change(frame)
    assert len(frame) == size - f.CRC_SIZE
    frame += f.CRC.pack(crc32c(bytes(frame), seed ^ position))
    data[position : position + size] = frame
    log.write_bytes(data)


def declare(body: int, value_length: int) -> Any:
    def change(frame: bytearray) -> None:
        fields = list(HEADER.unpack_from(frame, f.PREFIX_SIZE))
        fields[6], fields[8] = value_length, body
        frame[f.PREFIX_SIZE : f.PREFIX_SIZE + HEADER.size] = HEADER.pack(*fields)

    return change


def spoil(frame: bytearray) -> None:
    frame[BODY:] = bytes(len(frame) - BODY)


FIXED = [b"%098d" % 7, b"%098d" % 8] * 500
LIES = {
    "larger than it is": declare(1000 * 104, 104),
    "smaller than it is": declare(1000 * 96, 96),
    "other than its columns": declare(1000 * 98 + 8, 98),
    "a gigabyte": declare(1000 * 1_048_576, 1_048_576),
    "larger than any": declare(2**32 - 8, 2**32 - 1),
    "nothing": declare(0, 0),
    "no compressed data": spoil,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_frame_that_lies_about_its_size_is_corruption_and_not_memory(
    log_path: Path, compression: str, lie: str
) -> None:
    with Broker(log_path, compression=compression) as broker:
        events = broker.create_topic("events")[0]
        events.append_many(FIXED, timestamps=5)
        events.append(b"behind", timestamp=9)
    rewritten(log_path, LIES[lie])
    with Broker(log_path) as broker:
        events = broker.topic("events")[0]
        for read in (lambda: events.read(0), lambda: events.read(3, max_records=1)):
            with pytest.raises(CorruptionError, match="not what their frame says") as caught:
                read()
            assert caught.value.path == str(first_log(log_path))
            assert (caught.value.position, caught.value.offset) == (f.HEADER_SIZE, 0)
            assert caught.value.next_offset == 1000
        with pytest.raises(CorruptionError):
            events.offset_at(5)
        assert events.read(1000).values == [b"behind"]
    report = minilog.verify(log_path)
    assert [(p.position, p.offset) for p in report.problems] == [(f.HEADER_SIZE, 0)]
    assert report.record_count == 1


@pytest.mark.parametrize("read_only", [True, False])
def test_changed_bytes_of_a_compressed_frame_are_never_decompressed(
    log_path: Path, compression: str, read_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker(log_path, compression=compression) as broker:
        events = broker.create_topic("events")[0]
        for start in range(0, 300, 100):
            events.append_many(VALUES[start : start + 100])
    whole = first_log(log_path).read_bytes()
    sizes = []
    position = f.HEADER_SIZE
    while position < len(whole):
        sizes.append(f.aligned(int.from_bytes(whole[position : position + 4], "little")))
        position += sizes[-1]
    second = f.HEADER_SIZE + sizes[0]
    monkeypatch.setattr(columns, "decompress", checking(columns.decompress, whole))
    for seed in range(40):
        chance = random.Random(seed)
        changed = bytearray(whole)
        changed[second + chance.randrange(sizes[1] - 8)] ^= 1 << chance.randrange(8)
        first_log(log_path).write_bytes(changed)
        with Broker(log_path, read_only=read_only) as broker:
            events = broker.topic("events")[0]
            assert events.read(0).values == VALUES[:100], f"seed {seed}"
            with pytest.raises(CorruptionError, match="fail their checksum") as caught:
                events.read(150, max_records=1)
            assert (caught.value.offset, caught.value.next_offset) == (100, 200), f"seed {seed}"
            assert events.read(200).values == VALUES[200:300], f"seed {seed}"


def checking(decompress: Any, whole: bytes) -> Any:
    def checked(number: int, data: bytes, size: int) -> bytes | None:
        assert data in whole, "bytes that had changed were decompressed"
        found: bytes | None = decompress(number, data, size)
        return found

    return checked


# ---------------------------------------------------------------- a package that is missing


@pytest.mark.parametrize("compression", PACKAGES)
def test_a_missing_package_is_told_before_anything_is_made(
    tmp_path: Path, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_away(monkeypatch, compression)
    extra = rf'pip install "minilog\[{compression}\]"'
    with pytest.raises(ConfigError, match=extra):
        Broker(tmp_path / "other", compression=compression)
    assert not (tmp_path / "other").exists()
    with Broker(tmp_path / "log") as broker:
        with pytest.raises(ConfigError, match=extra):
            broker.create_topic("events", compression=compression)
        assert not broker.topics
        topic = broker.create_topic("events")
        with pytest.raises(ConfigError, match=extra):
            topic.configure(compression=compression)
        assert topic.config.compression == "none"
        topic[0].append_many(VALUES)


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("codec", PACKAGES)
def test_a_broker_with_a_topic_whose_package_is_missing_is_not_opened(
    log_path: Path, codec: str, read_only: bool, need_codec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_codec(codec)
    with Broker(log_path) as broker:
        broker.create_topic("events", compression=codec)[0].append_many(VALUES)
    with monkeypatch.context() as missing:
        take_away(missing, codec)
        with pytest.raises(ConfigError, match=rf"'events'.*minilog\[{codec}\]"):
            Broker(log_path, read_only=read_only)
    with Broker(log_path, read_only=read_only) as broker:  # the lock was given back
        assert broker.topic("events")[0].read(0, max_records=1000).values == VALUES


@pytest.mark.parametrize("codec", PACKAGES)
def test_frames_of_a_missing_package_are_no_damage(
    log_path: Path, codec: str, need_codec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_codec(codec)
    with Broker(log_path) as broker:
        topic = broker.create_topic("events")
        topic[0].append(b"before")
        topic.configure(compression=codec)
        topic[0].append_many(VALUES)
        topic.configure(compression="none")
        topic[0].append(b"behind")
    take_away(monkeypatch, codec)
    with Broker(log_path) as broker:
        assert broker.recovery.ok
        events = broker.topic("events")[0]
        assert events.read(0).values == [b"before"]
        with pytest.raises(ConfigError, match=rf"minilog\[{codec}\]"):
            events.read(1)
        assert events.read(1001).values == [b"behind"]
    report = minilog.verify(log_path)
    assert [problem.offset for problem in report.problems] == [1]
    assert f"minilog[{codec}]" in str(report)


@pytest.mark.parametrize("codec", PACKAGES)
def test_a_topic_that_another_process_makes_is_told_when_it_is_asked_for(
    log_path: Path, codec: str, need_codec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_codec(codec)
    with Broker(log_path) as writer, Broker(log_path, read_only=True) as reader:
        writer.create_topic("plain")
        writer.create_topic("events", compression=codec)
        take_away(monkeypatch, codec)
        assert list(reader.topics) == ["plain"]
        with pytest.raises(ConfigError, match=rf"minilog\[{codec}\]"):
            reader.topic("events")
