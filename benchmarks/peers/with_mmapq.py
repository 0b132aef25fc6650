"""mmapq, a C ring of mapped files: its queue of messages, and its queue of batches."""

from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from benchmarks.data import Dataset
from benchmarks.machine import Lazily
from benchmarks.peers.packing import packed, unpack_all, unpacked
from benchmarks.peers.peer import Peer, Sync

mmapq = Lazily("mmapq")
QUEUE = "log"
MAPPED_REGIONS = 64  # of 4 MiB; with its default of 4, reads at random are 100 times slower


class Mmapq(Peer):
    name = "mmapq"
    package = "mmapq"
    meaning = (
        "IndexedQueue, one append in C into a mapped file: seen by readers at once, survives "
        "kill -9, no checksum, no sync; in bulk one append after another, not atomic."
    )

    def __init__(self, directory: Path, *, sync: Sync = "never") -> None:
        self.queue = mmapq.IndexedQueue.create(str(directory), QUEUE)
        self.reader = mmapq.IndexedReader.create(str(directory), QUEUE, ring_size=MAPPED_REGIONS)

    def append_singly(self, data: Dataset) -> None:
        self.append_batches([data])

    def append_batches(self, batches: Sequence[Dataset]) -> None:
        with self.queue.create_appender() as appender:  # there are 256 at most, ever
            append = appender.append
            for batch in batches:
                for stored in packed(batch):
                    append(stored)

    def records(self) -> Iterator[Any]:
        read = self.reader.read
        return unpack_all(enumerate(iter(map(read, count()).__next__, None)))

    def read_at(self, offsets: Sequence[int]) -> Any:
        read = self.reader.read
        for offset in offsets:
            record = unpacked(offset, read(offset))
        return record

    def last(self) -> tuple[int, bytes]:
        offset = self.reader.last_index()
        return offset, unpacked(offset, self.reader.read_last())[-1]

    def close(self) -> None:
        self.reader.close()
        self.queue.close()


class MmapqBatches(Peer):
    name = "mmapq batch"
    package = "mmapq"
    meaning = (
        "IndexedBatchQueue, one atomic commit for each batch, offsets of batches alone; else as "
        "mmapq."
    )

    def __init__(self, directory: Path, *, sync: Sync = "never") -> None:
        self.queue = mmapq.IndexedBatchQueue.create(str(directory), QUEUE)
        self.reader = mmapq.IndexedBatchReader.create(str(directory), QUEUE)

    def append_batches(self, batches: Sequence[Dataset]) -> None:
        with self.queue.create_appender() as appender:
            for batch in batches:
                with appender.start_batch() as writer:
                    append = writer.append
                    for stored in packed(batch):
                        append(stored)
                    writer.commit()

    def records(self) -> Iterator[Any]:
        batches = iter(map(self.reader.read, count()).__next__, None)
        return unpack_all(enumerate(chain.from_iterable(batches)))

    def close(self) -> None:
        self.reader.close()
        self.queue.close()
