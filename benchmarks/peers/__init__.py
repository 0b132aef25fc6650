"""The same log on minilog and on what a user would pick instead.

Each by its best documented API. Every peer but "lmdb bare" stores the same record, (offset,
timestamp, key, value), and gives it back as a tuple. Bodies are tight on purpose: what a loop
spends here is spent in the user's program too.
"""

from benchmarks.peers.by_hand import Plain
from benchmarks.peers.peer import Peer, Sync
from benchmarks.peers.with_lmdb import Lmdb, LmdbBare
from benchmarks.peers.with_minilog import Minilog
from benchmarks.peers.with_sqlite import Sqlite

PEERS: tuple[type[Peer], ...] = (Minilog, Lmdb, LmdbBare, Sqlite, Plain)

__all__ = ["PEERS", "Lmdb", "LmdbBare", "Minilog", "Peer", "Plain", "Sqlite", "Sync"]
