"""What is allowed into a call: whole numbers, columns of one length, timestamps.

This module refuses to know what the arguments are for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from minilog.errors import ConfigError
from minilog.records import bytes_of, headers_of, timestamp_of


def check_whole(name: str, value: object, low: int | None = 0) -> None:
    """Raise TypeError or ConfigError unless ``value`` is a whole number of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be a whole number")
    if low is not None and value < low:
        raise ConfigError(f"{name} is {value}; it must be at least {low}")


def is_column(given: object) -> bool:
    """Say whether ``given`` can be a column: an iterable that is not itself one entry."""
    return isinstance(given, Iterable) and not isinstance(
        given, (str, bytes, bytearray, memoryview)
    )


def as_list(name: str, given: Any, length: int | None = None) -> Sequence[Any]:
    """Return any iterable as a list or tuple, of ``length`` where that is given."""
    if given.__class__ is not list and not is_column(given):
        raise TypeError(f"{name} is {type(given).__name__}; it must be an iterable of them")
    listed = given if isinstance(given, (list, tuple)) else taken(name, given)
    if length is not None and len(listed) != length:
        raise ConfigError(f"{name} has {len(listed)} entries for {length} values; give one each")
    return listed


def taken(name: str, given: Iterable[Any]) -> list[Any]:
    """Return what a column's iterable yields, what could be changed copied as it comes out: a
    generator may fill one buffer again and again."""
    if name == "headers":
        return [headers_of(entry) for entry in given]
    if name == "timestamps":
        return list(given)
    what = name.removesuffix("s")
    return [entry if entry.__class__ is bytes else bytes_of(what, entry) for entry in given]


def timestamps_of(given: object, length: int) -> list[int] | int | None:
    """Return timestamps in milliseconds: one each, one for all, or None for now."""
    if given is None:
        return None
    if given.__class__ is int or not isinstance(given, Iterable) or isinstance(given, (str, bytes)):
        return timestamp_of(given)  # type: ignore[arg-type]
    listed = as_list("timestamps", given, length)
    return [timestamp_of(timestamp) for timestamp in listed]


def pattern_of(topics: object) -> re.Pattern[str] | None:
    """Return the compiled pattern that a call was given for topics; ConfigError for one of bytes,
    which matches no name but fails at each."""
    if not isinstance(topics, re.Pattern):
        return None
    if not isinstance(topics.pattern, str):
        raise ConfigError(f"topics is {topics!r}; names are str, and so must a pattern's be")
    return topics


def names_of(topics: object) -> list[str]:
    """Return the topics' names that a call was given; ConfigError."""
    if isinstance(topics, str):
        return [topics]
    if not isinstance(topics, Iterable):
        raise ConfigError(f"topics is {topics!r}; it must be names or one compiled pattern")
    names = list(topics)
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"topics has {name!r}; each must be a topic's name (str)")
    return names
