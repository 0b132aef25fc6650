"""What one writes by hand: a struct through os.write; a list and a Condition."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from struct import Struct
from time import time_ns
from typing import Any

from benchmarks.data import Dataset
from benchmarks.peers.peer import HAND_OVER_TIMEOUT, Peer, Put, Sync, Take

fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class Plain(Peer):
    name = "plain"
    meaning = (
        "one os.write to a growing file: seen by later reads, survives kill -9, no checksum, no "
        "index, a torn end is not told from a whole one; os.fdatasync after each in w4."
    )
    HEADER = Struct("<qii")  # timestamp, size of the key, size of the value
    CHUNK_BYTES = 1 << 20

    def __init__(self, directory: Path, *, sync: Sync = "never") -> None:
        self.path = directory / "log"
        self.descriptor = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self.is_durable = sync == "always"

    @classmethod
    def version(cls) -> str | None:
        return "os.write"

    def append_singly(self, data: Dataset) -> None:
        write, pack, descriptor = os.write, self.HEADER.pack, self.descriptor
        is_durable = self.is_durable
        for key, value in zip(data.keys, data.values, strict=True):
            header = pack(time_ns() // 1_000_000, len(key), len(value))
            write(descriptor, header + key + value)
            if is_durable:
                fdatasync(descriptor)

    append_durably = append_singly

    def append_batches(self, batches: Sequence[Dataset]) -> None:
        pack = self.HEADER.pack
        for batch in batches:
            now = time_ns() // 1_000_000
            frames = [
                pack(now, len(key), len(value)) + key + value
                for key, value in zip(batch.keys, batch.values, strict=True)
            ]
            os.write(self.descriptor, b"".join(frames))

    def records(self) -> Iterator[Any]:
        header, header_bytes = self.HEADER.unpack_from, self.HEADER.size
        offset, rest = 0, b""
        with open(self.path, "rb", buffering=0) as file:
            while chunk := file.read(self.CHUNK_BYTES):
                buffer = rest + chunk
                start, size = 0, len(buffer)
                while start + header_bytes <= size:
                    timestamp, key_bytes, value_bytes = header(buffer, start)
                    key_start = start + header_bytes
                    value_start = key_start + key_bytes
                    end = value_start + value_bytes
                    if end > size:
                        break
                    yield (
                        offset,
                        timestamp,
                        buffer[key_start:value_start],
                        buffer[value_start:end],
                    )
                    start = end
                    offset += 1
                rest = buffer[start:]

    def last(self) -> tuple[int, bytes]:
        """Offset and value of the last record: without an index, by reading all."""
        record = deque(self.records(), maxlen=1)[0]
        return record[0], record[-1]

    def flush(self) -> None:
        fdatasync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)


class BareCondition(Peer):
    """The least that a hand-over between two threads can be."""

    name = "condition"
    meaning = "a list and a Condition, in memory only: what w7 is measured against."
    is_persistent = False

    def __init__(self, directory: Path, *, sync: Sync = "never") -> None:
        self.items: list[tuple[bytes, bytes]] = []
        self.condition = threading.Condition()

    @classmethod
    def version(cls) -> str | None:
        return "threading"

    def hand_over_ends(self) -> tuple[Put, Take]:
        """Appending to a list and notifying; waiting for the Condition and popping."""
        items, condition = self.items, self.condition

        def put(key: bytes, value: bytes) -> None:
            with condition:
                items.append((key, value))
                condition.notify()

        def take() -> tuple[bytes, bytes]:
            with condition:
                while not items:
                    if not condition.wait(HAND_OVER_TIMEOUT):
                        raise TimeoutError("nothing was handed over")
                return items.pop()

        return put, take

    def records(self) -> Iterator[Any]:
        return iter(self.items)

    def close(self) -> None:
        self.items.clear()
