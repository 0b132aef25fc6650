"""Writes the golden directories: what a released format looked like on a disk, kept for ever.

    python tests/golden/make.py FORMAT

makes ``format-N`` (a log that was closed), ``damaged-N`` (the same with bytes changed), for every
codec of a package ``packed-CODEC-N``, and ``future`` (of a format that this version does not know)
beside this file, unless they are there: a golden directory is never made anew. That of an older
format was written by the version that wrote it.
 What is in them is said here, once, for the test to compare.
It refuses to know how anything is stored, but for the one byte it changes and the one number.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from minilog import Broker, Record
from minilog.storage.format import FORMAT, encode_document
from minilog.testing import ManualClock

HERE = Path(__file__).parent
START_MS = 1_700_000_000_000
LOCK_FILE = "minilog.lock"  # it tells of the machine, not of the log, so it is not kept
DAMAGED_LOG = "orders/0/00000000000000000000.log"
DAMAGED_OFFSET = 2

Headers = tuple[tuple[str, bytes | None], ...]

ORDERS: list[tuple[bytes | None, bytes | None, Headers]] = [
    (None, b"a value alone", ()),
    (b"key", b"a value with a key", ()),
    (b"", b"", ()),
    (b"gone", None, ()),
    (None, None, ()),
    (b"k", b"headers", (("trace", b"\x00\xff"), ("null", None), ("trace", b"again"))),
    ("ключ".encode(), "значение".encode(), (("имя", "é".encode()), ("", b""))),
    (b"zeros", bytes(100), ()),
]
FIXED = [b"%04d" % number for number in range(20)]
VARIABLE: list[bytes | None] = [b"v" * (number % 7) for number in range(15)]
VARIABLE[3] = VARIABLE[11] = None
VARIABLE_KEYS: list[bytes | None] = [b"k%d" % number for number in range(15)]
VARIABLE_KEYS[0] = VARIABLE_KEYS[5] = None
VARIABLE_HEADERS: list[Headers] = [(("n", b"%d" % n),) * (n % 3) for n in range(15)]
VARIABLE_STAMPS = [START_MS + (number * 37) % 100 for number in range(15)]
AUDIT = [b"%d " % number * (number * 5) for number in range(12)]
AUDIT_START = 5
KEYED_START = 2  # within a batch
# From format 2 on there are compressed batches: as they are in ``packed``, one of its own shape.
PACKED = [b"%d is much like the number before it " % number * 3 for number in range(40)]
PACKED_KEYS: list[bytes | None] = [None if n % 7 == 3 else b"key %d" % (n % 5) for n in range(40)]
PACKED_VALUES: list[bytes | None] = [None if n % 11 == 5 else v for n, v in enumerate(PACKED)]
PACKED_STAMPS = [START_MS + (number * 61) % 40 for number in range(40)]
PACKED_SETTINGS: dict[str, Any] = {"segment_bytes": 1024, "index_interval_bytes": 128}
PACKAGED_CODECS = ("lz4", "zstd")
SETTINGS: dict[str, Any] = {
    "segment_bytes": 1024,
    "index_interval_bytes": 128,
    "segment_ms": 86_400_000,
}


def packed_records(start_ms: int = START_MS) -> list[Record]:
    """Return what is in the topic ``packed``: three batches, and a record between."""
    fixed = [Record("packed", 0, n, start_ms, None, value, ()) for n, value in enumerate(FIXED)]
    alone = [Record("packed", 0, 20, start_ms, b"key", b"alone" * 20, ())]
    shaped = [
        Record("packed", 0, 21 + n, *columns, (("n", b"%d" % n),) * (n % 2))
        for n, columns in enumerate(zip(PACKED_STAMPS, PACKED_KEYS, PACKED_VALUES, strict=True))
    ]
    plain = [Record("packed", 0, 61 + n, start_ms, None, v, ()) for n, v in enumerate(PACKED)]
    return fixed + alone + shaped + plain


def write_packed(broker: Broker, compression: str) -> None:
    """Write the topic ``packed``."""
    packed = broker.create_topic("packed", compression=compression, **PACKED_SETTINGS)[0]
    packed.append_many(FIXED)
    packed.append(b"alone" * 20, key=b"key")
    headers = [(("n", b"%d" % n),) * (n % 2) for n in range(len(PACKED))]
    packed.append_many(PACKED_VALUES, keys=PACKED_KEYS, headers=headers, timestamps=PACKED_STAMPS)
    packed.append_many(PACKED)


def expected_records(version: int) -> dict[str, list[list[Record]]]:
    """Return what is in the golden log of a format: by topic, by partition, in order."""
    first = [
        Record("orders", 0, offset, START_MS + 1 + offset, *record)
        for offset, record in enumerate(ORDERS)
    ]
    stamp = START_MS + len(ORDERS)
    fixed = [Record("orders", 0, 8 + n, stamp, None, value, ()) for n, value in enumerate(FIXED)]
    variable = [
        Record("orders", 0, 28 + n, *columns)
        for n, columns in enumerate(
            zip(VARIABLE_STAMPS, VARIABLE_KEYS, VARIABLE, VARIABLE_HEADERS, strict=True)
        )
    ]
    again = [Record("orders", 0, 43, 5, b"late", b"of long ago", ())]
    keyed = [
        Record("orders", 1, n, START_MS, b"same", value, ())
        for n, value in enumerate(FIXED[:6])
        if n >= KEYED_START
    ]
    audit = [
        Record("audit.log", 0, n, stamp, None, value, ())
        for n, value in enumerate(AUDIT)
        if n >= AUDIT_START
    ]
    found = {"orders": [first + fixed + variable + again, keyed, []], "audit.log": [audit]}
    if version >= 2:
        found["packed"] = [packed_records(stamp)]
    return found


def write_log(path: Path) -> None:
    """Write the log, and close it."""
    clock = ManualClock(START_MS)
    with Broker(path, clock=clock) as broker:
        orders = broker.create_topic("orders", 3, **SETTINGS)
        audit = broker.create_topic("audit.log", segment_bytes=256, timestamp_type="append")
        for key, value, headers in ORDERS:
            clock.advance(1)
            orders[0].append(value, key=key, headers=headers)
        orders[0].append_many(FIXED)
        orders[0].append_many(
            VARIABLE, keys=VARIABLE_KEYS, headers=VARIABLE_HEADERS, timestamps=VARIABLE_STAMPS
        )
        orders[0].append(b"of long ago", key=b"late", timestamp=5)
        orders[1].append_many(FIXED[:6], keys=[b"same"] * 6, timestamps=START_MS)
        orders[1].delete_before(KEYED_START)
        for value in AUDIT:
            audit[0].append(value, timestamp=1)
        audit[0].delete_before(AUDIT_START)
        write_packed(broker, "gzip")
    (path / LOCK_FILE).unlink()


def write_packed_log(path: Path, compression: str) -> None:
    """Write a log with nothing in it but ``packed``, and close it."""
    with Broker(path, clock=ManualClock(START_MS)) as broker:
        write_packed(broker, compression)
    (path / LOCK_FILE).unlink()


def damage(path: Path) -> None:
    """Change one byte of the record at DAMAGED_OFFSET."""
    log = path / DAMAGED_LOG
    data = bytearray(log.read_bytes())
    position = 64
    for _ in range(DAMAGED_OFFSET):
        position += (int.from_bytes(data[position : position + 4], "little") + 7) & -8
    data[position + 20] ^= 0x01
    log.write_bytes(data)


def make(version: int) -> None:
    """Make the golden directories of this format that are missing."""
    if version != FORMAT:
        raise SystemExit(f"this version writes format {FORMAT}, not {version}")
    whole, damaged, future = (
        HERE / name for name in (f"format-{version}", f"damaged-{version}", "future")
    )
    if not whole.exists():
        write_log(whole)
    if not damaged.exists():
        shutil.copytree(whole, damaged)
        damage(damaged)
    for compression in PACKAGED_CODECS:
        packed = HERE / f"packed-{compression}-{version}"
        if not packed.exists():
            write_packed_log(packed, compression)
    if not future.exists():
        future.mkdir()
        content = json.loads(encode_document({"id": "00000000-0000-4000-8000-000000000000"}))
        content["format"] = version + 1
        content["what this version cannot know"] = True
        (future / "broker.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    make(int(sys.argv[1]))
