"""lmdb twice: holding the record that minilog holds, and bare.

A log on a key-value store must pack what the store does not know (the timestamp and the record's
own key), so that is what "lmdb" does. "lmdb bare" leaves all that out and is the faster for it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct
from time import time_ns
from typing import Any

from benchmarks.data import NUMBER, Dataset
from benchmarks.machine import optional
from benchmarks.peers.peer import Peer, Sync

lmdb = optional("lmdb")


class Lmdb(Peer):
    """A log built on lmdb: the offset is its key, and the rest is packed into its value."""

    name = "lmdb"
    package = "lmdb"
    meaning = (
        "one write transaction each, sync=False and writemap=True: seen by transactions begun "
        "later, survives kill -9, no checksum; sync=True in w4."
    )
    HEADER = Struct("<qi")  # timestamp, size of the record's key
    MAP_BYTES = 2 << 30  # address space; the file is sparse

    def __init__(self, directory: Path, *, sync: Sync = "never") -> None:
        durable = sync == "always"
        self.environment = lmdb.open(
            str(directory), map_size=self.MAP_BYTES, sync=durable, writemap=not durable
        )
        # Offsets ascend, and lmdb has a short way for that; not so from many threads (w4).
        self.ascending = not durable

    @classmethod
    def version(cls) -> str | None:
        if lmdb is None:
            return None
        return f"{lmdb.__version__} (LMDB {'.'.join(map(str, lmdb.version()))})"

    def append_singly(self, data: Dataset) -> None:
        begin, pack, ascending = self.environment.begin, self.HEADER.pack, self.ascending
        for key, value in zip(data.keys, data.values, strict=True):
            transaction = begin(write=True)
            header = pack(time_ns() // 1_000_000, len(key))
            transaction.put(key, header + key + value, append=ascending)
            transaction.commit()

    append_durably = append_singly

    def append_batches(self, batches: Sequence[Dataset]) -> None:
        pack = self.HEADER.pack
        for batch in batches:
            now = time_ns() // 1_000_000
            items = (
                (key, pack(now, len(key)) + key + value)
                for key, value in zip(batch.keys, batch.values, strict=True)
            )
            with self.environment.begin(write=True) as transaction:
                transaction.cursor().putmulti(items, append=True)

    def records(self) -> Iterator[Any]:
        number, header, header_bytes = NUMBER.unpack, self.HEADER.unpack_from, self.HEADER.size
        with self.environment.begin() as transaction:
            for offset, stored in transaction.cursor():
                timestamp, key_bytes = header(stored)
                value_start = header_bytes + key_bytes
                yield (
                    number(offset)[0],
                    timestamp,
                    stored[header_bytes:value_start],
                    stored[value_start:],
                )

    def read_at(self, offsets: Sequence[int]) -> Any:
        header, header_bytes, number = self.HEADER.unpack_from, self.HEADER.size, NUMBER.pack
        with self.environment.begin() as transaction:
            get = transaction.get
            for offset in offsets:
                stored = get(number(offset))
                timestamp, key_bytes = header(stored)
                value_start = header_bytes + key_bytes
                record = (
                    offset,
                    timestamp,
                    stored[header_bytes:value_start],
                    stored[value_start:],
                )
        return record

    def last(self) -> tuple[int, bytes]:
        with self.environment.begin() as transaction, transaction.cursor() as cursor:
            cursor.last()
            offset, stored = cursor.item()
        _, key_bytes = self.HEADER.unpack_from(stored)
        return NUMBER.unpack(offset)[0], stored[self.HEADER.size + key_bytes :]

    def flush(self) -> None:
        self.environment.sync(True)

    def close(self) -> None:
        self.environment.close()


class LmdbBare(Lmdb):
    """What lmdb does where a value under its offset is all that is wanted."""

    name = "lmdb bare"
    meaning = "as lmdb, but the value alone under its offset: no record key, no timestamp."

    def append_singly(self, data: Dataset) -> None:
        begin, ascending = self.environment.begin, self.ascending
        for key, value in zip(data.keys, data.values, strict=True):
            transaction = begin(write=True)
            transaction.put(key, value, append=ascending)
            transaction.commit()

    append_durably = append_singly

    def append_batches(self, batches: Sequence[Dataset]) -> None:
        for batch in batches:
            items = zip(batch.keys, batch.values, strict=True)
            with self.environment.begin(write=True) as transaction:
                transaction.cursor().putmulti(items, append=True)

    def records(self) -> Iterator[Any]:
        return iter(self.environment.begin().cursor())

    def read_at(self, offsets: Sequence[int]) -> Any:
        number = NUMBER.pack
        with self.environment.begin() as transaction:
            get = transaction.get
            for offset in offsets:
                value = get(number(offset))
        return value

    def last(self) -> tuple[int, bytes]:
        with self.environment.begin() as transaction, transaction.cursor() as cursor:
            cursor.last()
            return NUMBER.unpack(cursor.key())[0], cursor.value()
