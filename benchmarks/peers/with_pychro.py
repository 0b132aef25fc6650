"""pychro, a journal of mapped files after Java's Chronicle."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.data import Dataset
from benchmarks.machine import Lazily
from benchmarks.peers.packing import packed, unpack_all, unpacked
from benchmarks.peers.peer import Peer, Put, Sync, Take

pychro = Lazily("pychro")
utc_now = partial(datetime.now, UTC)  # its own default warns from Python 3.12 on
POLLING_SECONDS = 0.001


class Pychro(Peer):
    name = "pychro"
    package = "pychro"
    meaning = (
        "VanillaChronicleWriter, a store into a mapped file and an entry of its index: seen by "
        "readers at once, survives kill -9, no checksum, no sync; a waiting reader looks every ms."
    )

    def __init__(self, directory: Path, *, sync: Sync = "never") -> None:
        self.directory = str(directory)
        self.writer: Any = None
        self.reader: Any = None

    def append_singly(self, data: Dataset) -> None:
        appender = self._appender()
        for stored in packed(data):
            region, start = appender.get_bytes(), appender.get_offset()
            size = len(stored)
            region[start : start + size] = stored
            appender.advance(size)
            appender.finish()

    def append_batches(self, batches: Sequence[Dataset]) -> None:
        for batch in batches:
            self.append_singly(batch)

    def records(self) -> Iterator[Any]:
        return unpack_all(enumerate(self._stored(self._opened_reader())))

    def read_at(self, offsets: Sequence[int]) -> Any:
        if self.reader is None:
            self.reader = self._opened_reader()
            self.reader.next_index()  # before it, no day is open
        reader = self.reader
        first = reader.to_full_index(reader.get_date(), 0)
        for offset in offsets:
            reader.set_index(first + offset)
            record = unpacked(offset, _bytes_of(reader.next_reader()))
        return record

    def last(self) -> tuple[int, bytes]:
        self.reader = reader = self._opened_reader()
        reader.set_end()
        newest = reader.get_index() - 1
        reader.set_index(newest)
        offset = reader.from_full_index(newest)[1]
        return offset, unpacked(offset, _bytes_of(reader.next_reader()))[-1]

    def hand_over_ends(self) -> tuple[Put, Take]:
        """Appending; a reader that looks again and again."""
        self._appender()  # whose day is there before the reader looks for it
        reader = self.reader = self._opened_reader(polling_interval=POLLING_SECONDS)

        def put(key: bytes, value: bytes) -> None:
            appender = self._appender()
            region, start = appender.get_bytes(), appender.get_offset()
            size = len(value)
            region[start : start + size] = value
            appender.advance(size)
            appender.finish()

        return put, lambda: _bytes_of(reader.next_reader())

    def _appender(self) -> Any:
        if self.writer is None:
            self.writer = pychro.VanillaChronicleWriter(self.directory, utcnow=utc_now)
        return self.writer.get_appender()

    def _opened_reader(self, **settings: float) -> Any:
        return pychro.VanillaChronicleReader(self.directory, utcnow=utc_now, **settings)

    def _stored(self, reader: Any) -> Iterator[bytes]:
        following = reader.next_reader
        try:
            while True:
                yield _bytes_of(following())
        except pychro.NoData:
            reader.close()

    def close(self) -> None:
        for end in (self.reader, self.writer):
            if end is not None:
                end.close()


def _bytes_of(reader: Any) -> bytes:
    start = reader.get_offset()
    return bytes(reader.get_bytes()[start : start + reader.get_length()])
