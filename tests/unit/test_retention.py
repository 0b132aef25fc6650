"""Which segments go: judged one by one, each rule at its edge."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from minilog.config import FOREVER
from minilog.storage.retention import Rules, expired

NOW = 10_000
ALL = Rules(NOW, FOREVER, FOREVER, limit=10**6, wanted=10**6)


def log_of(*segments: tuple[int, int, int], **changes: dict[int, Any]) -> Any:
    """Return a log of segments (records, age, size); ``changes`` name a field and whose it is."""
    made, offset = [], 100
    for number, (count, age, size) in enumerate(segments):
        offset += count
        fields = {"next_offset": offset, "latest_ms": NOW - age, "size_bytes": size}
        own = {name: of[number] for name, of in changes.items() if number in of}
        is_empty = number == len(segments) - 1 and not count
        made.append(SimpleNamespace(**{**fields, "is_empty": is_empty, "is_frozen": False, **own}))
    return SimpleNamespace(
        first_base=100, segments=lambda: made, segments_from_first=lambda: iter(made)
    )


@pytest.mark.parametrize(
    ("retention_ms", "reached"), [(99, 120), (100, 110), (299, 110), (300, 100)]
)
def test_what_is_older_goes_and_what_is_as_old_stays(retention_ms: int, reached: int) -> None:
    log = log_of((10, 300, 1), (10, 100, 1), (10, 50, 1))
    assert expired(log, ALL._replace(retention_ms=retention_ms)) == reached
    assert expired(log, ALL) == 100


def test_what_is_old_behind_what_is_not_stays() -> None:
    log = log_of((10, 300, 1), (10, 50, 1), (10, 300, 1))
    assert expired(log, ALL._replace(retention_ms=100)) == 110


@pytest.mark.parametrize(("offset", "reached"), [(100, 100), (109, 100), (110, 110), (119, 110)])
def test_nothing_goes_for_its_age_that_is_limited_or_wanted(offset: int, reached: int) -> None:
    log = log_of((10, 300, 1), (10, 300, 1), (10, 300, 1))
    rules = ALL._replace(retention_ms=100)
    assert expired(log, rules._replace(limit=offset)) == reached
    assert expired(log, rules._replace(wanted=offset)) == reached


def test_one_whose_age_is_not_known_goes_with_the_next_that_has_records() -> None:
    frozen = {0: True}
    rules = ALL._replace(retention_ms=100)
    assert expired(log_of((10, 0, 1), (10, 300, 1), (5, 0, 1), is_frozen=frozen), rules) == 120
    assert expired(log_of((10, 300, 1), (10, 50, 1), is_frozen=frozen), rules) == 100
    assert expired(log_of((10, 300, 1), (0, 300, 1), is_frozen=frozen), rules) == 100


@pytest.mark.parametrize(
    ("retention_bytes", "reached"),
    [(0, 130), (9, 120), (10, 120), (11, 110), (30, 110), (31, 100), (60, 100), (99, 100)],
)
def test_what_is_too_much_goes_as_long_as_enough_is_left(
    retention_bytes: int, reached: int
) -> None:
    log = log_of((10, 0, 30), (10, 0, 20), (10, 0, 10), (0, 0, 0))
    assert expired(log, ALL._replace(retention_bytes=retention_bytes)) == reached


def test_a_small_one_behind_a_large_one_that_stays_does_not_go() -> None:
    log = log_of((10, 0, 100), (10, 0, 10), (10, 0, 10))
    assert expired(log, ALL._replace(retention_bytes=70)) == 100


@pytest.mark.parametrize(("limit", "reached"), [(109, 100), (110, 110), (119, 110)])
def test_nothing_goes_for_its_size_that_is_limited_but_what_is_wanted(
    limit: int, reached: int
) -> None:
    log = log_of((10, 0, 30), (10, 0, 20), (10, 0, 10))
    rules = ALL._replace(retention_bytes=0, limit=limit)
    assert expired(log, rules) == reached
    assert expired(log, rules._replace(wanted=0)) == reached


def test_what_went_for_its_age_is_not_counted_for_its_size() -> None:
    log = log_of((10, 300, 30), (10, 0, 20), (10, 0, 10))
    rules = ALL._replace(retention_ms=100, retention_bytes=30)
    assert expired(log, rules) == 110
    assert expired(log, rules._replace(retention_bytes=11)) == 110
    assert expired(log, rules._replace(retention_bytes=10)) == 120
