"""Whether a log gives back what was written: looked at after the clock has stopped.

A figure for work that was not done would be the fastest of all.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import Any

from benchmarks.data import Dataset
from benchmarks.peers import Peer

READS_CHECKED = 100


class WrongResult(Exception):
    """A peer did not do the work it was timed for."""


def check_contents(log: Peer, data: Dataset, *, is_ordered: bool = True) -> None:
    """Every key and every value, in order unless many threads wrote them."""
    if is_ordered:
        check_read(log, log.records(), data)
        return
    key_of, value_of = log.key_of, log.value_of
    found = sorted((key_of(record), value_of(record)) for record in log.records())
    if found != sorted(zip(data.keys, data.values, strict=True)):
        raise WrongResult(f"{log.name} does not hold the {len(data)} records that were written")


def check_read(log: Peer, items: Iterable[Any], data: Dataset) -> None:
    """What reading gave: records, or values alone."""
    key_of, value_of = log.key_of, log.value_of
    count = 0
    for number, item in enumerate(items):
        is_value = isinstance(item, bytes)
        value = item if is_value else value_of(item)
        if number >= len(data):
            count = sum((1 for _ in items), number + 1)
            break
        key = data.keys[number] if is_value else key_of(item)
        if value != data.values[number] or key != data.keys[number]:
            raise WrongResult(f"{log.name} gives back another record {number} than was written")
        count = number + 1
    if count != len(data):
        raise WrongResult(f"{log.name} gives back {count} records instead of {len(data)}")


def check_reads(
    log: Peer, read_at: Callable[[list[int]], Any], offsets: Sequence[int], data: Dataset
) -> None:
    """Some of the offsets that were read at random, one at a time."""
    for offset in offsets[:READS_CHECKED]:
        record = read_at([offset])
        value = record if isinstance(record, bytes) else log.value_of(record)
        if value != data.values[offset]:
            raise WrongResult(f"{log.name} read another record than that at {offset}")


def kept_prefix(log: Peer, data: Dataset) -> int:
    """How many of the records are there, from the first to the first that is not."""
    pairs = zip_longest(data.values, map(log.value_of, log.records()))
    return next((number for number, (a, b) in enumerate(pairs) if a != b), len(data))
