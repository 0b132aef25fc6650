"""persist-queue's queue in files, with what queue.Queue offers."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from time import time_ns
from typing import Any

from benchmarks.data import Dataset
from benchmarks.machine import Lazily
from benchmarks.peers.peer import HAND_OVER_TIMEOUT, Peer, Put, Sync, Take

persistqueue = Lazily("persistqueue")


class PersistQueue(Peer):
    name = "persist-queue"
    package = "persist-queue"
    meaning = (
        "Queue, one put and the rename of a file of its state each: seen by the next get, survives "
        "kill -9, no checksum, no sync but at the end of a chunk, no offsets; reading takes out."
    )
    most_records = 500
    is_used_up = True
    CHUNK_RECORDS = 10_000

    def __init__(self, directory: Path, *, sync: Sync = "never") -> None:
        self.queue = persistqueue.Queue(
            str(directory), chunksize=self.CHUNK_RECORDS, tempdir=str(directory)
        )

    def append_singly(self, data: Dataset) -> None:
        put = self.queue.put
        for key, value in zip(data.keys, data.values, strict=True):
            put((time_ns() // 1_000_000, key, value))

    def records(self) -> Iterator[Any]:
        take = self.queue.get
        for offset in count():
            try:
                timestamp, key, value = take(block=False)
            except persistqueue.Empty:
                break
            yield offset, timestamp, key, value
        if self.queue.unfinished_tasks:
            self.queue.task_done()

    def hand_over_ends(self) -> tuple[Put, Take]:
        """Its put and its waiting get."""
        queue = self.queue
        return (
            lambda key, value: queue.put((time_ns() // 1_000_000, key, value)),
            lambda: queue.get(timeout=HAND_OVER_TIMEOUT),
        )

    def close(self) -> None:
        self.queue.headf.close()
        self.queue.tailf.close()
