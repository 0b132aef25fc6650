"""Many calls, few batches: what is sent in a ``with producer.batch()`` block is gathered.

What is wrong with a record is said when it is given, and each batch is written whole or not at all.
This module refuses to know topics' names beyond asking, and how a batch is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from minilog.batching import Buffer
from minilog.errors import ClosedError
from minilog.partition import Partition
from minilog.records import HeadersLike, TimestampLike, headers_of, timestamp_of
from minilog.routing import Router
from minilog.sources import Identity
from minilog.storage import encode_headers, too_large


class Route(NamedTuple):
    """What a batch has gathered for one topic, and where it goes."""

    buffers: tuple[Buffer, ...]
    partitions: tuple[Partition, ...]
    partition_count: int
    max_record_bytes: int


class BatchSender:
    """Gathers records, at most ``batch_bytes`` of them, and writes them as batches.

    One thread's own: it is not to be shared.
    """

    def __init__(
        self, router: Router, batch_bytes: int, identity: Identity | None, check: Callable[[], None]
    ) -> None:
        self._router = router
        self._identity = identity
        self._check = check  # before anything is written
        self._routes: dict[str, Route] = {}
        self._batch_bytes = self._room = batch_bytes
        self._is_plain = router.has_plain_keys
        self._number_for = router.partition_of
        self._is_closed = False

    def send(
        self,
        topic: str,
        value: Any,
        *,
        key: Any = None,
        partition: int | None = None,
        timestamp: TimestampLike | None = None,
        headers: HeadersLike | None = (),
    ) -> None:
        """Gather one record; what is wrong with it is said here, not when it is written."""
        route = self._routes.get(topic)
        if (
            route is not None
            and value.__class__ is bytes
            and key.__class__ is bytes
            and self._is_plain
            and partition is None
            and timestamp is None
            and not headers
        ):
            # The commonest record: nothing to check or to convert but its size.
            size = len(value) + len(key)
            if size <= self._room and size <= route.max_record_bytes:
                count = route.partition_count
                buffer = route.buffers[self._number_for(key, count) if count > 1 else 0]
                self._room -= size
                buffer.values.append(value)
                buffer.keys.append(key)
                return
        self._send_checked(topic, value, key, partition, timestamp, headers)

    def _send_checked(
        self,
        topic: str,
        value: Any,
        key: Any,
        partition: int | None,
        timestamp: TimestampLike | None,
        headers: HeadersLike | None,
    ) -> None:
        if self._is_closed:
            raise ClosedError("the batch is over; open another with producer.batch()")
        router = self._router
        value, key = router.serialized(value, key)
        checked = headers_of(headers)
        size = len(value or b"") + len(key or b"") + len(encode_headers(checked))
        stamp = None if timestamp is None else timestamp_of(timestamp)
        target = router.target(topic, key, partition, size)
        limit = target.max_record_bytes
        if size > limit:
            raise too_large(size, limit)
        if key is None:
            target.check_keys(None)
        if stamp is not None:
            target.check_timestamp(stamp, target.now_ms())
        if size > self._room:
            self.flush()
        route = self._routes.get(topic)
        if route is None:
            partitions = router.partitions(topic)
            buffers = tuple(Buffer() for _ in partitions)
            route = self._routes[topic] = Route(buffers, partitions, len(buffers), limit)
        route.buffers[target.index].add(value, key, checked, stamp)
        self._room -= size

    def flush(self) -> None:
        """Write what was gathered, a batch for each partition."""
        self._check()
        while self._routes:
            topic, route = next(iter(self._routes.items()))
            for buffer, partition in zip(route.buffers, route.partitions):
                if buffer.values:
                    buffer.append_to(partition, self._identity)
                    buffer.clear()
            del self._routes[topic]
        self._room = self._batch_bytes

    def __enter__(self) -> BatchSender:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        self._is_plain = False
        self._is_closed = True
        if kind is None:
            self.flush()
        else:
            self._routes.clear()
