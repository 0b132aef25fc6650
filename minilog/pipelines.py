"""A recipe: read from topics, write to others, and have each input count exactly once.

    with Consumer(broker, "orders", group="billing", isolation="read_committed") as consumer:
        while True:
            consume_transform_produce(consumer, producer, bill, timeout=None)

What a step writes and the group's offsets go into one transaction. Killed anywhere and started
again, the group goes on behind the last step that was committed, and readers of
``isolation="read_committed"`` see the outputs of each input once.

Built on public names alone: it is here to be used, and to be read. This module refuses to know
what the records are about, and how anything is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from minilog import CommitError, Consumer, NotAssignedError, Producer, Record, Records

if TYPE_CHECKING:
    from minilog.producer import Transaction


def consume_transform_produce(
    consumer: Consumer,
    producer: Producer,
    transform: Callable[[Record, Transaction], object],
    *,
    timeout: float | None = 0,
    max_records: int | None = None,
) -> int:
    """Poll once, give each record and the transaction to ``transform``, which sends what it makes
    of it, and commit all of that with the group's offsets; return how many records were read.

    Whatever ``transform`` raises comes out: nothing is seen of the step, and the consumer stands
    where it stood. Where a partition has gone to another member meanwhile nothing is seen either,
    and that member does the work: 0.
    """
    records = consumer.poll(timeout, max_records=max_records)
    if not records:
        return 0
    try:
        with producer.transaction() as tx:
            for record in records:
                transform(record, tx)
            tx.commit_offsets(consumer)
    except CommitError:
        _go_back(consumer, records)
        return 0
    except BaseException:
        _go_back(consumer, records)
        raise
    return len(records)


def _go_back(consumer: Consumer, records: Records) -> None:
    """Have a consumer read these again, as far as they are still its own."""
    first: dict[tuple[str, int], int] = {}
    for record in records:
        first.setdefault((record.topic, record.partition), record.offset)
    for tp, offset in first.items():
        try:
            consumer.seek(tp, offset)
        except NotAssignedError:
            continue  # another member reads them, from what was committed
