"""``python -m tests.fuzz.make_corpus``: writes the corpus that real logs give.

What fuzzing has found stands beside it under names of its own and is not touched.
"""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

from minilog import Broker, Consumer, Producer
from minilog.storage import format as f
from minilog.storage.batch import encode_batch, encode_frame
from minilog.storage.codecs import NUMBERS, codec_of
from minilog.testing import ManualClock
from tests.crash.images import Image, crashed_copy, image_of
from tests.fuzz.targets import SEED, mended_frames, packed

CORPUS = Path(__file__).parent / "corpus"
HEADERS: f.Headers = (("trace", b"7f"), ("null", None), ("\N{SNOWMAN}", b""))


def write(target: str, name: str, data: bytes) -> None:
    """Write one input of a target."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"made-{name}").write_bytes(data)


def singles() -> dict[str, bytes]:
    """Return frames of one record, of every shape."""
    encoded = f.encode_headers(HEADERS)
    origin = f.Origin(3, 9, 1, 0)
    transactional = f.Origin(3, 9, 1, 77)
    return {
        "plain": f.encode_single(None, b"value", b"", 5, 1000, 1, 64),
        "keyed": f.encode_single(b"key", b"", b"", 5, 1000, 1, 64),
        "tombstone": f.encode_single(b"key", None, b"", 5, 1000, 1, 64),
        "headers": f.encode_single(b"key", b"value", encoded, 5, 1000, 1, 64),
        "named": f.encode_single(b"k", b"v", encoded, 5, 1000, 1, 64, origin=origin),
        "transaction": f.encode_single(b"k", b"v", b"", 5, 9, 1, 64, origin=transactional),
        "control": f.encode_single(b"k", b"C", b"", 5, 9, 1, 64, f.CONTROL, transactional),
    }


def batches() -> dict[str, bytes]:
    """Return frames of many records, of every shape."""
    values: list[Any] = [b"%d" % number * (number % 5) for number in range(12)]
    shapes: dict[str, tuple[Any, ...]] = {
        "plain": (values, None, None, None, 1000),
        "fixed": ([b"same"] * 40, [b"k%03d" % number for number in range(40)], None, None, 1000),
        "nulls": ([None, *values], [None, *values], None, None, 1000),
        "headers": (values, values, [HEADERS] * 12, list(range(12)), 1000),
    }
    made = {}
    for name, arguments in shapes.items():
        batch = encode_batch(*arguments)
        made[name] = encode_frame(batch, 5, 11, f.context_of(1, 64, batch.flags), SEED, 0)
    return made


def logs() -> dict[str, Image]:
    """Return the files of logs: closed, killed, compressed, compacted, with groups."""
    root = Path(tempfile.mkdtemp(prefix="minilog-corpus-"))
    made: dict[str, Image] = {}
    for compression in ("none", "gzip", "lz4", "zstd"):
        path = root / compression
        clock = ManualClock(10**12)
        settings: dict[str, Any] = {"segment_bytes": 600, "index_interval_bytes": 128}
        with Broker(path, clock=clock, sync="never", **settings) as broker:
            topic = broker.create_topic("t", 2, compression=compression)
            for number in range(12):
                topic[0].append(b"%d" % number * 9, key=b"k", headers={"h": b"%d" % number})
            topic[1].append_many([b"same"] * 30, keys=[b"%d" % number for number in range(30)])
            topic[0].delete_before(3)
            if compression == "none":
                made["killed"] = image_of(crashed_copy(path, root / "killed", power_cut=False))
        made[f"closed-{compression}"] = image_of(path)
    path = root / "groups"  # and transactions, and a named producer
    with Broker(path, clock=ManualClock(10**12), sync="never") as broker:
        broker.create_topic("t", cleanup_policy="compact")
        producer = Producer(broker, producer_id="importer")
        producer.send("t", b"first", key=b"k", sequence=0)
        with Consumer(broker, "t", group="g") as consumer, producer.transaction() as transaction:
            consumer.poll()
            transaction.send("t", b"second", key=b"k")
            transaction.commit_offsets(consumer)
        broker.topic("t").compact()
    made["groups"] = image_of(path)
    with Broker(path, read_only=True) as broker:
        ledger = broker.ledger_partition(is_writing=False)
        assert ledger is not None
        rows = [(record.key or b"", record.value or b"") for record in ledger]
    packed_rows = [struct.pack("<HH", len(key), len(value)) + key + value for key, value in rows]
    write("ledger", "groups", b"".join(packed_rows))
    shutil.rmtree(root)
    made["killed"] = {file: data.rstrip(b"\0") for file, data in made["killed"].items()}
    return made


def main() -> None:
    """Write what real logs give."""
    for old in CORPUS.glob("*/made-*"):
        old.unlink()
    for name, frame in singles().items():
        write("single", name, frame + bytes(4))
    for name, frame in batches().items():
        write("columns", name, frame)
    seal = f.encode_seal(f.Seal(9, 1000, 2000, 4), 1, 64, SEED, 0)
    write("seal", "seal", seal)
    rows = b"".join(
        (frame + bytes(4)).ljust(f.aligned(len(frame) + 4), b"\0") for frame in singles().values()
    )
    write("run", "shapes", mended_frames(rows, 64, SEED))
    frames = [*batches().values(), seal]
    joined = rows + b"".join(frame.ljust(f.aligned(len(frame)), b"\0") for frame in frames)
    write("frames", "shapes", mended_frames(joined, 0, SEED))
    write("headers", "three", f.encode_headers(HEADERS))
    write("header", "first", f.encode_header(f.SegmentHeader(5, 0, 1000, 1, 3, 7)))
    for compression, number in NUMBERS.items():
        body = b"compressed " * 30
        data = codec_of(compression).compress(body)
        size = len(body).to_bytes(4, "little")
        write("decompress", compression, bytes([number - 1]) + size + data)
    for name, image in logs().items():
        write("directory", name, b"\1" + packed(image))
        index = next((file for file in image if file.endswith(".index")), None)
        if index is not None and name == "killed":
            entries = image[index]
            times = image[index.replace(".index", ".timeindex")]
            write("index", name, len(entries).to_bytes(2, "little") + entries + times)
        documents = {file: json.loads(data) for file, data in image.items() if ".json" in file}
        write("documents", name, json.dumps(documents).encode())
        if name == "closed-none":
            marks = json.loads(image["clean.json"])
            write("marks", name, json.dumps(marks["logs"]).encode())
            write("topic", name, image["t/topic.json"])
            write("document", name, image["broker.json"])


if __name__ == "__main__":
    main()
