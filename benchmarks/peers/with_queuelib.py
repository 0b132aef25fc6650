"""Scrapy's queue on disk: first in, first out, and out means gone."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.data import Dataset
from benchmarks.machine import Lazily
from benchmarks.peers.packing import packed, unpack_all
from benchmarks.peers.peer import Peer, Sync

queuelib = Lazily("queuelib")


class Queuelib(Peer):
    name = "queuelib"
    package = "queuelib"
    meaning = (
        "FifoDiskQueue, one push and os.write each: how many there are is written by close() "
        "alone, so a killed process leaves files that open as an empty queue; no checksum, no "
        "sync, no offsets; reading takes out."
    )
    is_used_up = True

    def __init__(self, directory: Path, *, sync: Sync = "never") -> None:
        self.queue = queuelib.FifoDiskQueue(directory / "queue")

    def append_singly(self, data: Dataset) -> None:
        push = self.queue.push
        for stored in packed(data):
            push(stored)

    def records(self) -> Iterator[Any]:
        return unpack_all(zip(count(), iter(self.queue.pop, None)))

    def close(self) -> None:
        self.queue.close()
