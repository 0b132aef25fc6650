"""diskcache's Index, a persistent dictionary on SQLite: the offset is the key."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.data import NUMBER, Dataset
from benchmarks.machine import Lazily
from benchmarks.peers.packing import packed, unpack_all, unpacked
from benchmarks.peers.peer import Peer, Sync

diskcache = Lazily("diskcache")
OFF, FULL = 0, 2


class Diskcache(Peer):
    name = "diskcache"
    package = "diskcache"
    meaning = (
        "Index on SQLite in WAL mode, synchronous=OFF, one transaction each, nothing evicted: seen "
        "by later reads, survives kill -9, checksum in the WAL only; synchronous=FULL in w4."
    )
    most_records = 20_000

    def __init__(self, directory: Path, *, sync: Sync = "never") -> None:
        level = FULL if sync == "always" else OFF
        self.cache = diskcache.Cache(
            str(directory), eviction_policy="none", sqlite_synchronous=level
        )
        self.index = diskcache.Index.fromcache(self.cache)

    def append_singly(self, data: Dataset) -> None:
        index, number = self.index, NUMBER.unpack
        for key, stored in zip(data.keys, packed(data), strict=True):
            index[number(key)[0]] = stored

    append_durably = append_singly

    def append_batches(self, batches: Sequence[Dataset]) -> None:
        for batch in batches:
            with self.index.transact():
                self.append_singly(batch)

    def records(self) -> Iterator[Any]:
        return unpack_all(self.index.items())

    def read_at(self, offsets: Sequence[int]) -> Any:
        index = self.index
        for offset in offsets:
            record = unpacked(offset, index[offset])
        return record

    def last(self) -> tuple[int, bytes]:
        offset, stored = self.index.peekitem()
        return offset, unpacked(offset, stored)[-1]

    def close(self) -> None:
        self.cache.close()
