"""sqlite3 of the standard library, in WAL mode."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from time import time_ns
from typing import Any

from benchmarks.data import Dataset
from benchmarks.peers.peer import Peer, Sync


class Sqlite(Peer):
    name = "sqlite3"
    meaning = (
        "WAL, synchronous=OFF, one INSERT and its commit each: seen by later reads, survives "
        "kill -9, checksum in the WAL only; synchronous=FULL in w4."
    )
    INSERT = "INSERT INTO log (timestamp, key, value) VALUES (?, ?, ?)"
    SELECT = "SELECT offset, timestamp, key, value FROM log "

    def __init__(self, directory: Path, *, sync: Sync = "never") -> None:
        path = directory / "log.sqlite"
        is_missing = not path.exists()
        # Without an isolation level every statement outside BEGIN is its own transaction. Threads
        # share the connection in turn (w4): one each was 4 times slower, waiting for one another.
        self.turn = threading.Lock()
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        if is_missing:
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute(
                "CREATE TABLE log (offset INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, "
                "key BLOB, value BLOB)"
            )
        level = "FULL" if sync == "always" else "OFF"
        self.connection.execute(f"PRAGMA synchronous={level}")

    @classmethod
    def version(cls) -> str | None:
        return sqlite3.sqlite_version

    def append_singly(self, data: Dataset) -> None:
        execute, insert, turn = self.connection.cursor().execute, self.INSERT, self.turn
        for key, value in zip(data.keys, data.values, strict=True):
            with turn:
                execute(insert, (time_ns() // 1_000_000, key, value))

    append_durably = append_singly

    def transact(self, batches: Sequence[Dataset]) -> None:
        execute, insert = self.connection.cursor().execute, self.INSERT
        for batch in batches:
            execute("BEGIN")
            for key, value in zip(batch.keys, batch.values, strict=True):
                execute(insert, (time_ns() // 1_000_000, key, value))
            execute("COMMIT")

    def append_batches(self, batches: Sequence[Dataset]) -> None:
        cursor = self.connection.cursor()
        for batch in batches:
            rows = zip(repeat(time_ns() // 1_000_000), batch.keys, batch.values, strict=False)
            cursor.execute("BEGIN")
            cursor.executemany(self.INSERT, rows)
            cursor.execute("COMMIT")

    transact_in_bulk = append_batches

    def records(self) -> Iterator[Any]:
        return self.connection.execute(self.SELECT + "ORDER BY offset")

    def read_at(self, offsets: Sequence[int]) -> Any:
        execute, select = self.connection.cursor().execute, self.SELECT + "WHERE offset = ?"
        for offset in offsets:
            record = execute(select, (offset + 1,)).fetchone()
        return record

    def last(self) -> tuple[int, bytes]:
        select = self.SELECT + "ORDER BY offset DESC LIMIT 1"
        rowid, _, _, value = self.connection.execute(select).fetchone()
        return rowid - 1, value

    def flush(self) -> None:
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        self.connection.close()
