"""RocksDB by rocksdict, in raw mode: the offset is the key, the rest is packed into the value."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.data import NUMBER, Dataset
from benchmarks.machine import Lazily
from benchmarks.peers.packing import packed, unpack_all, unpacked
from benchmarks.peers.peer import Peer, Sync

rocksdict = Lazily("rocksdict")


class Rocksdict(Peer):
    name = "rocksdict"
    package = "rocksdict"
    meaning = (
        "RocksDB, one put each into its log without sync: seen by later reads, survives kill -9, "
        "checksums; WriteOptions.sync in w4."
    )

    def __init__(self, directory: Path, *, sync: Sync = "never") -> None:
        self.log = rocksdict.Rdict(str(directory), rocksdict.Options(raw_mode=True))
        if sync == "always":
            options = rocksdict.WriteOptions()
            options.sync = True
            self.log.set_write_options(options)

    def append_singly(self, data: Dataset) -> None:
        log = self.log
        for offset, stored in zip(data.keys, packed(data), strict=True):
            log[offset] = stored

    append_durably = append_singly

    def append_batches(self, batches: Sequence[Dataset]) -> None:
        for batch in batches:
            writing = rocksdict.WriteBatch(raw_mode=True)
            for offset, stored in zip(batch.keys, packed(batch), strict=True):
                writing[offset] = stored
            self.log.write(writing)

    def records(self) -> Iterator[Any]:
        number = NUMBER.unpack
        return unpack_all((number(key)[0], stored) for key, stored in self.log.items())

    def read_at(self, offsets: Sequence[int]) -> Any:
        log, number = self.log, NUMBER.pack
        for offset in offsets:
            record = unpacked(offset, log[number(offset)])
        return record

    def last(self) -> tuple[int, bytes]:
        newest = self.log.iter()
        newest.seek_to_last()
        offset = NUMBER.unpack(newest.key())[0]
        return offset, unpacked(offset, newest.value())[-1]

    def flush(self) -> None:
        self.log.flush_wal(True)

    def close(self) -> None:
        self.log.close()
