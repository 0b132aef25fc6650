"""Plain values: Record, Records, RecordMetadata, TopicPartition, and what is allowed into them.

This module refuses to know where records are kept; ``Records`` is handed decoded columns.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import Any, NamedTuple, Protocol, overload

from minilog.errors import InvalidRecordError

Header = tuple[str, bytes | None]
Headers = tuple[Header, ...]
BytesLike = bytes | bytearray | memoryview
HeadersLike = Iterable[tuple[str, BytesLike | None]] | Mapping[str, BytesLike | None]
TimestampLike = int | datetime

LATEST_TIMESTAMP = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TopicPartition(NamedTuple):
    """A partition's full name; a plain ``(str, int)`` is taken wherever one is."""

    topic: str
    partition: int


class RecordMetadata(NamedTuple):
    """Where a record that was sent has landed."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class Record(NamedTuple):
    """One record, as it was appended; ``value`` is None for a tombstone, which is not ``b""``."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def next_offset(self) -> int:
        """The offset after this record's: where to read on, and what to commit."""
        return self.offset + 1

    @property
    def datetime(self) -> datetime:
        """The timestamp as an aware datetime (UTC)."""
        return datetime_of(self.timestamp)


class Rows(Protocol):
    """A run of neighbouring records of one batch, or of several, held by column."""

    def __len__(self) -> int: ...
    @property
    def offsets(self) -> Sequence[int]: ...
    @property
    def timestamps(self) -> Sequence[int]: ...
    @property
    def keys(self) -> Sequence[bytes | None]: ...
    @property
    def values(self) -> Sequence[bytes | None]: ...
    @property
    def headers(self) -> Sequence[Headers]: ...
    def cut(self, start: int, stop: int) -> Rows: ...


Part = tuple[str, int, Rows]

ROWS_AT_ONCE = 1024  # how many records iteration decodes ahead: bounds memory, costs nothing


class OneRow:
    """One record, held as it is."""

    __slots__ = ("_record",)

    def __init__(self, record: Record) -> None:
        self._record = record

    def __len__(self) -> int:
        return 1

    @property
    def offsets(self) -> Sequence[int]:
        """Its offset."""
        return (self._record.offset,)

    @property
    def timestamps(self) -> Sequence[int]:
        """Its timestamp."""
        return (self._record.timestamp,)

    @property
    def keys(self) -> Sequence[bytes | None]:
        """Its key."""
        return (self._record.key,)

    @property
    def values(self) -> Sequence[bytes | None]:
        """Its value."""
        return (self._record.value,)

    @property
    def headers(self) -> Sequence[Headers]:
        """Its headers."""
        return (self._record.headers,)

    def cut(self, start: int, stop: int) -> Rows:
        """Return itself, as no part of it is less."""
        return self


class Records(Sequence[Record]):
    """An immutable sequence of records that decodes late.

    ``offsets``, ``timestamps``, ``keys`` and ``values`` give one column as a list without
    building records; that is the fast face.
    """

    __slots__ = ("_len", "_next_offset", "_parts")

    def __init__(self, parts: Iterable[Part] = (), next_offset: int | None = None) -> None:
        self._parts: tuple[Part, ...] = tuple(parts)
        self._next_offset = next_offset
        self._len = 0
        for part in self._parts:
            self._len += len(part[2])

    def __len__(self) -> int:
        return self._len

    def __bool__(self) -> bool:
        return self._len > 0

    def __iter__(self) -> Iterator[Record]:
        for topic, partition, rows in self.parts:
            count = len(rows)
            if count <= ROWS_AT_ONCE:
                yield from _build(topic, partition, rows)
                continue
            for start in range(0, count, ROWS_AT_ONCE):
                piece = rows.cut(start, min(start + ROWS_AT_ONCE, count))
                yield from _build(topic, partition, piece)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> Record | Records:
        if isinstance(index, slice):
            return self._slice(index)
        number = operator.index(index)
        if number < 0:
            number += self._len
        if not 0 <= number < self._len:
            raise IndexError(f"index {index} is out of range: there are {self._len} records")
        for topic, partition, rows in self.parts:
            if number < len(rows):
                one = rows if len(rows) == 1 else rows.cut(number, number + 1)
                return next(_build(topic, partition, one))
            number -= len(rows)
        raise AssertionError("the parts are shorter than their sum")

    def _slice(self, index: slice) -> Records:
        start, stop, step = index.indices(self._len)
        if step != 1:
            return Records(part for i in range(start, stop, step) for part in self._cut(i, i + 1))
        return Records(self._cut(start, max(start, stop)))

    def _cut(self, start: int, stop: int) -> Iterator[Part]:
        first = 0
        for topic, partition, rows in self.parts:
            low, high = max(start - first, 0), min(stop - first, len(rows))
            if low < high:
                yield topic, partition, rows.cut(low, high)
            first += len(rows)

    @property
    def offsets(self) -> list[int]:
        """The offsets, in order."""
        return list(chain.from_iterable(rows.offsets for _, _, rows in self.parts))

    @property
    def timestamps(self) -> list[int]:
        """The timestamps, in milliseconds."""
        return list(chain.from_iterable(rows.timestamps for _, _, rows in self.parts))

    @property
    def keys(self) -> list[bytes | None]:
        """The keys."""
        return list(chain.from_iterable(rows.keys for _, _, rows in self.parts))

    @property
    def values(self) -> list[bytes | None]:
        """The values."""
        if len(self.parts) == 1:
            return list(self.parts[0][2].values)
        return list(chain.from_iterable(rows.values for _, _, rows in self.parts))

    @property
    def next_offset(self) -> int:
        """The offset after the last of them, where to read on in its partition; as read from one,
        also behind what is not for readers, even where that is all there was."""
        if self._next_offset is not None:
            return self._next_offset
        return self.parts[-1][2].offsets[-1] + 1

    @property
    def parts(self) -> tuple[Part, ...]:
        """The columns by topic and partition, as they came from the log."""
        return self._parts

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Records):
            return NotImplemented
        return len(self) == len(other) and all(map(tuple.__eq__, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        if not self._len:
            return "Records()"
        first, last = self[0], self[-1]
        names = sorted({f"{topic}-{partition}" for topic, partition, _ in self.parts})
        return (
            f"<Records: {self._len} of {', '.join(names)}, "
            f"offset {first.offset} first, {last.offset} last>"
        )


class OneRecord(Records):
    """One record that is there already: a third of what decoding it late costs.

    Whoever makes one sets ``record``, and nothing else.
    """

    __slots__ = ("record",)

    record: Record
    _next_offset = None
    _len = 1

    def __getitem__(self, index: Any) -> Any:
        return self.record if index == 0 else super().__getitem__(index)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The record as a column of one."""
        topic, partition = self.record[:2]
        return ((topic, partition, OneRow(self.record)),)

    def __reduce__(self) -> tuple[Any, ...]:
        return Records, (self.parts,)


def _build(topic: str, partition: int, rows: Rows) -> Iterator[Record]:
    # tuple.__new__ mapped over zip stays in C: 130 ns a record, against 200 for Record._make
    # and 230 for Record(...). The columns have one length by construction.
    columns = zip(
        repeat(topic),
        repeat(partition),
        rows.offsets,
        rows.timestamps,
        rows.keys,
        rows.values,
        rows.headers,
    )
    return map(tuple.__new__, repeat(Record), columns)


def timestamp_of(given: TimestampLike) -> int:
    """Return ``given`` in milliseconds since the epoch.

    InvalidRecordError for a negative or too large number and for a naive datetime.
    """
    if isinstance(given, datetime):
        if given.tzinfo is None or given.utcoffset() is None:
            raise InvalidRecordError(
                f"timestamp {given!r} is naive; give it a time zone, as in "
                "datetime.now(timezone.utc)"
            )
        since = given - _EPOCH
        milliseconds = (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
    elif isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(
            f"timestamp is {type(given).__name__}; it must be whole milliseconds since the "
            "epoch (int) or an aware datetime"
        )
    else:
        milliseconds = given
    if not 0 <= milliseconds <= LATEST_TIMESTAMP:
        raise InvalidRecordError(
            f"timestamp {given!r} is out of range; it must be 0 to 2**63 - 1 milliseconds "
            "since the epoch"
        )
    return milliseconds


def datetime_of(timestamp: int) -> datetime:
    """Return milliseconds since the epoch as an aware datetime (UTC).

    InvalidRecordError beyond the year 9999, where Python's datetimes end.
    """
    try:
        return _EPOCH + timedelta(milliseconds=timestamp)
    except OverflowError:
        raise InvalidRecordError(
            f"timestamp {timestamp} is beyond the year 9999, where datetime ends"
        ) from None


def topic_partition_of(given: Any) -> TopicPartition:
    """Return the partition that is meant; TypeError unless it is ``(topic name, number)``."""
    try:
        topic, partition = (None, None) if isinstance(given, str) else given
    except (TypeError, ValueError):
        topic, partition = None, None
    if not isinstance(topic, str) or isinstance(partition, bool) or not isinstance(partition, int):
        raise TypeError(f"{given!r} is no TopicPartition; give (topic name, partition number)")
    return TopicPartition(topic, partition)


def bytes_of(what: str, given: object) -> bytes | None:
    """Return a key, value or header value as bytes, copied at once; None stays None."""
    if given is None or given.__class__ is bytes:
        return given
    if isinstance(given, (bytes, bytearray, memoryview)):
        return bytes(given)
    if isinstance(given, str):
        raise TypeError(
            f"{what} is str; it must be bytes: encode it ({what}.encode()), "
            f"or give the producer a serializer for it"
        )
    raise TypeError(f"{what} is {type(given).__name__}; it must be bytes or None")


def headers_of(given: HeadersLike | None) -> Headers:
    """Return headers as a tuple of ``(str, bytes | None)``, order and duplicates kept."""
    if not given:
        return ()
    if isinstance(given, (str, bytes, bytearray, memoryview)) or not isinstance(given, Iterable):
        raise TypeError(
            f"headers is {type(given).__name__}; it must be pairs of (str, bytes) or a mapping"
        )
    pairs: Iterable[Any] = given.items() if isinstance(given, Mapping) else given
    return tuple(_header_of(pair) for pair in pairs)


def _header_of(pair: Any) -> Header:
    try:
        name, value = pair
    except (TypeError, ValueError):
        raise TypeError(f"a header is {pair!r}; it must be a pair of (str, bytes)") from None
    if not isinstance(name, str):
        raise TypeError(f"a header's name is {name!r}; it must be str")
    return name, bytes_of(f"header {name!r}", value)
