"""The same log on minilog and on what a user would pick instead.

Each by its best documented API. Every peer but "lmdb bare" stores the same record, (offset,
timestamp, key, value), and gives it back as a tuple. Bodies are tight on purpose: what a loop
spends here is spent in the user's program too.
"""

from benchmarks.peers.by_hand import BareCondition, Plain
from benchmarks.peers.kafka_doubles import Mockafka, MockCluster
from benchmarks.peers.peer import Peer, Sync
from benchmarks.peers.with_diskcache import Diskcache
from benchmarks.peers.with_lmdb import Lmdb, LmdbBare
from benchmarks.peers.with_minilog import Minilog
from benchmarks.peers.with_mmapq import Mmapq, MmapqBatches
from benchmarks.peers.with_persistqueue import PersistQueue
from benchmarks.peers.with_pychro import Pychro
from benchmarks.peers.with_queuelib import Queuelib
from benchmarks.peers.with_rocksdict import Rocksdict
from benchmarks.peers.with_sqlite import Sqlite

PEERS: tuple[type[Peer], ...] = (
    Minilog,
    Lmdb,
    LmdbBare,
    Sqlite,
    Rocksdict,
    Mmapq,
    MmapqBatches,
    Queuelib,
    Pychro,
    PersistQueue,
    Diskcache,
    Plain,
    BareCondition,
    Mockafka,
    MockCluster,
)

__all__ = ["PEERS", "BareCondition", "Lmdb", "Minilog", "Peer", "Plain", "Sqlite", "Sync"]
