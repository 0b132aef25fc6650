"""One transaction, as its ``with`` block holds it: send, commit offsets, abort.

What makes it atomic is ``transactions.py``'s; this module refuses to know it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from minilog.arguments import check_whole
from minilog.bulk import Bulk
from minilog.coordinator import Commit
from minilog.errors import ConfigError
from minilog.groups import check_group_name
from minilog.partition import Partition
from minilog.records import (
    HeadersLike,
    RecordMetadata,
    TimestampLike,
    TopicPartition,
    topic_partition_of,
)
from minilog.routing import Router
from minilog.sources import Identity
from minilog.transactions import Work


class Committer(Protocol):
    """A consumer in a group, as a transaction sees it."""

    def hand_over_commits(self) -> tuple[str, Commit]: ...


class Transaction:
    """Records, to any topics, and offsets of groups that are seen together or never.

    One of ``producer.transaction()``'s; used with ``with``. After its end every call raises
    TransactionError, but for ``abort``, which has nothing left to do.
    """

    def __init__(self, router: Router, batch_bytes: int, work: Work) -> None:
        self._router = router
        self._batch_bytes = batch_bytes
        self._work = work

    def send(
        self,
        topic: str,
        value: Any,
        *,
        key: Any = None,
        partition: int | None = None,
        timestamp: TimestampLike | None = None,
        headers: HeadersLike | None = (),
        sequence: int | None = None,
    ) -> RecordMetadata:
        """Append one record and return where it landed; ``read_committed`` sees it at the end."""
        router, work = self._router, self._work
        if (
            router.has_plain_keys
            and value.__class__ is bytes
            and key.__class__ is bytes
            and partition is None
            and timestamp is None
            and not headers
            and (sequence is None or (sequence.__class__ is int and work.identity is not None))
            and not work.is_over
        ):
            target = router.target(topic, key, None, 0)
            landed = work.write_plain(target, sequence, key, value)
            if landed is not None:
                return RecordMetadata(topic, target.index, *landed)
        work.check()
        check_sequence(sequence, work.identity)
        value, key = router.serialized(value, key)
        target = router.target(topic, key, partition, len(value) if value else 0)
        offset, stamp = work.write(
            target, lambda: target.append_from(work, sequence, value, key, headers, timestamp)
        )
        return RecordMetadata(topic, target.index, offset, stamp)

    def send_many(
        self,
        topic: str,
        values: Iterable[Any],
        *,
        keys: Iterable[Any] | None = None,
        partition: int | None = None,
        timestamps: TimestampLike | Iterable[TimestampLike] | None = None,
        headers: Iterable[HeadersLike | None] | None = None,
    ) -> dict[int, range]:
        """Append records in batches, as ``producer.send_many`` does."""
        self._work.check()
        return Bulk(self._router, self._batch_bytes, self._work, self._write).send(
            topic, values, keys, headers, timestamps, partition
        )

    def _write(self, target: Partition, write: Callable[[], range]) -> range:
        offsets: range = self._work.write(target, write)
        return offsets

    def commit_offsets(
        self,
        offsets: Committer | Mapping[TopicPartition, int] | Mapping[tuple[str, int], int],
        group: str | None = None,
    ) -> None:
        """Have a group's offsets committed with it: what a consumer has polled so far (it commits
        nothing by itself from then on), or offsets to go on from, of the ``group`` named.

        CommitError where a partition is not the consumer's (any more), here or at the end.
        """
        self._work.check()
        if isinstance(offsets, Mapping):
            if group is None:
                raise ConfigError("commit_offsets({partition: offset}) needs group=")
            check_group_name(group)
            named = {topic_partition_of(tp): offset for tp, offset in offsets.items()}
            for tp, offset in named.items():
                check_whole(f"offset of {tp.topic}-{tp.partition}", offset)
            self._work.commit_offsets(group, Commit(None, named, {}))
            return
        if not hasattr(offsets, "hand_over_commits"):
            raise TypeError(f"offsets is {offsets!r}; give a consumer or {{partition: offset}}")
        if group is not None:
            raise ConfigError("group= goes with offsets; a consumer has a group of its own")
        self._work.commit_offsets(*offsets.hand_over_commits())

    def abort(self) -> None:
        """End it: what was sent is never seen by ``read_committed``."""
        self._work.abort("it was aborted", is_asked=True)

    def __enter__(self) -> Transaction:
        self._work.check()
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        if kind is not None:
            self._work.abort("its block was left by an exception")
        elif not self._work.is_aborted:
            self._work.commit()


def check_sequence(sequence: int | None, identity: Identity | None) -> None:
    """Raise ConfigError or TypeError unless a sequence, if given, is a named producer's."""
    if sequence is not None and identity is None:
        raise ConfigError("sequence= needs a producer with a producer_id")
    if sequence is not None:
        check_whole("sequence", sequence)
