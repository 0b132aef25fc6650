"""What is measured: the workloads w1 to w12, each with its rows, its base and its targets.

Data only. A row is a line of the table: one way of doing the work on minilog, against the one way
of every peer. The option `verb` is the peer's method; a peer that lacks it has no figure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks import measures
from benchmarks.data import LARGE, SMALL, VARIED
from benchmarks.measures import Measure
from benchmarks.memory import ROLLUP

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    name: str  # as measures call it
    unit: str
    more_is_better: bool = False


RATE = Metric("rate", "records/s", more_is_better=True)
THROUGHPUT = Metric("throughput", "MB/s", more_is_better=True)
OPEN = Metric("open", "ms")
P50 = Metric("p50", "us")
P99 = Metric("p99", "us")
P99_MS = Metric("p99", "ms")
MEMORY = Metric("memory", "MiB")
DISK = Metric("disk", "B/record")
KEPT = Metric("kept", "% kept", more_is_better=True)


@dataclass(frozen=True)
class Target:
    """What minilog must reach: a ratio to the base, or a figure of its own."""

    limit: float
    is_ratio: bool = True


@dataclass(frozen=True)
class Row:
    label: str
    target: Target | None = None
    metric: Metric | None = None  # else the workload's
    options: Options = field(default_factory=dict)  # for every peer
    minilog: Options = field(default_factory=dict)  # for minilog alone
    base: Options = field(default_factory=dict)  # for what the ratio is to


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    measure: Measure
    metric: Metric
    rows: tuple[Row, ...]
    options: Options = field(default_factory=dict)
    base: str | None = "lmdb"  # the peer that the ratio is to
    varies: bool = True  # else one round tells all
    is_on_disk: bool = False  # nothing to ask of who keeps nothing
    not_here: str = ""  # why it cannot be measured on this machine


SINGLY = {"verb": "append_singly"}
BULK = {"verb": "append_batches"}
FILLED_SINGLY = {"fill": "append_singly"}
FILLED_AND_SEALED = {"fill": "append_and_seal"}
DURABLY = {"verb": "append_durably"}
IN_BULK = {"verb": "transact_in_bulk"}
PLAINLY = {"verb": "append_each"}
VALUES = {"verb": "values"}
VARIED_SIZES = {"kind": VARIED}
READ = {"verb": "records", "fill": "append_batches"}

WORKLOADS = (
    Workload(
        "w1",
        "append one by one, no fsync",
        measures.write_singly,
        RATE,
        options=SINGLY,
        rows=(
            Row("partition.append", Target(1.5)),
            Row("producer.send", Target(1.2), minilog={"verb": "send_singly"}),
            Row("batch.send", Target(3), minilog={"verb": "batch_singly"}),
        ),
    ),
    Workload(
        "w1",
        "of those, after kill -9 of who appended",
        measures.survive_kill,
        KEPT,
        options=SINGLY,
        base=None,
        varies=False,
        is_on_disk=True,
        rows=(
            Row("partition.append", Target(100, is_ratio=False)),
            Row("producer.send", Target(100, is_ratio=False), minilog={"verb": "send_singly"}),
        ),
    ),
    Workload(
        "w2",
        "bulk, 10,000 at a time",
        measures.write_batches,
        RATE,
        options={**BULK, "kind": SMALL},
        rows=(
            Row("append_many", Target(4)),
            Row("send_many", Target(4), minilog={"verb": "send_batches"}),
            Row("append_many, 50-150 bytes", options=VARIED_SIZES),
        ),
    ),
    Workload(
        "w3",
        "read all to Python objects",
        measures.read_all,
        RATE,
        options={**READ, "kind": SMALL},
        rows=(
            Row("for record in partition", Target(1.2)),
            Row("columns, .values", Target(5), minilog=VALUES),
            Row("for record, written singly", Target(0.6), minilog=FILLED_SINGLY),
            Row("columns, written singly", Target(0.6), minilog={**VALUES, **FILLED_SINGLY}),
            Row("for record, written singly, sealed", Target(1.2), minilog=FILLED_AND_SEALED),
            Row("for record, 50-150 bytes", options=VARIED_SIZES),
            Row("columns, 50-150 bytes", options=VARIED_SIZES, minilog=VALUES),
        ),
    ),
    Workload(
        "w4",
        "durable, one by one",
        measures.write_durably,
        RATE,
        options={**DURABLY, "threads": 1},
        base="plain",
        rows=(
            Row("1 thread", Target(1.3)),
            Row("16 threads", Target(8), options={"threads": 16}, base={"threads": 1}),
        ),
    ),
    Workload(
        "w5",
        "open and read the last record",
        measures.open_and_read_last,
        OPEN,
        options={"verb": "last"},
        rows=(
            Row("after a clean close", Target(0.6, is_ratio=False), options={"image": "clean"}),
            Row("after a crash", options={"image": "crashed"}),
        ),
    ),
    Workload(
        "w6",
        "read one at a random offset",
        measures.read_at_random,
        RATE,
        options={"verb": "read_at", "fill": "append_batches"},
        rows=(
            Row("written in bulk", Target(1)),
            Row("written singly", Target(1), minilog=FILLED_SINGLY),
        ),
    ),
    Workload(
        "w7",
        "hand-over to a waiting consumer",
        measures.hand_over,
        P50,
        options={"verb": "hand_over_ends"},
        base="condition",
        rows=(Row("p50", Target(1.5)), Row("p99", metric=P99)),
    ),
    Workload(
        "w8",
        "1-KiB values, write 1,000 at a time",
        measures.write_batches,
        THROUGHPUT,
        options={**BULK, "kind": LARGE},
        rows=(Row("append_many", Target(1.3)),),
    ),
    Workload(
        "w8",
        "1-KiB values, read all",
        measures.read_all,
        THROUGHPUT,
        options={**READ, "kind": LARGE},
        rows=(
            Row("for record in partition", Target(1.3)),
            Row("columns, .values", Target(1.3), minilog=VALUES),
        ),
    ),
    Workload(
        "w9",
        "memory gained by reading all",
        measures.memory_while_reading,
        MEMORY,
        options=READ,
        not_here="" if ROLLUP.exists() else f"needs {ROLLUP}",
        is_on_disk=True,
        rows=(
            Row("for record in partition", Target(1, is_ratio=False)),
            Row("columns, .values", Target(1, is_ratio=False), minilog=VALUES),
        ),
    ),
    Workload(
        "w9",
        "on disk per record",
        measures.disk_per_record,
        DISK,
        varies=False,
        is_on_disk=True,
        rows=(
            Row("written in bulk", Target(118, is_ratio=False), options=BULK),
            Row("written singly", Target(160, is_ratio=False), options=SINGLY),
        ),
    ),
    Workload(
        "w10",
        "through a group, 8 partitions, 4 producer and 4 consumer threads",
        measures.pass_through_group,
        RATE,
        options={"verb": "pass_through_group"},
        base=None,
        rows=(
            Row("end to end", Target(1_000_000, is_ratio=False)),
            Row("p99 of a batch of 500", Target(20, is_ratio=False), metric=P99_MS),
        ),
    ),
    Workload(
        "w11",
        "transactions, against appends without",
        measures.write_transactions,
        RATE,
        options={"verb": "transact"},
        base="minilog",
        rows=(
            Row("of 1 record", options={"size": 1}, base=PLAINLY),
            Row("of 100 records", options={"size": 100}, base=PLAINLY),
            Row("of 10,000 records", options={"size": 10_000}, base=PLAINLY),
            Row("of 10,000 records in bulk", options={"size": 10_000, **IN_BULK}, base=PLAINLY),
        ),
    ),
    Workload(
        "w12",
        "send by a named producer, against an unnamed one's",
        measures.write_singly,
        RATE,
        options={"verb": "send_singly"},
        base="minilog",
        rows=(
            Row("producer_id=", Target(1 / 1.3), minilog={"verb": "send_named"}),
            Row("producer_id= and sequence=", minilog={"verb": "send_numbered"}),
        ),
    ),
)
