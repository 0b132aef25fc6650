"""Every knob: its name, unit, limits and default.

Kafka's names where Kafka has one, dots as underscores, the unit last. This module refuses to
know what a setting does; it only says which values are allowed and what is wrong with the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, Literal, NamedTuple

from minilog.errors import ConfigError

SyncLevel = Literal["never", "interval", "always"]

KIB = 1024
MIB = 1024 * KIB
DAY_MS = 24 * 60 * 60 * 1000
FOREVER = -1
LARGEST = 2**63 - 1
LONGEST_NAME = 249
MOST_NAMED = 24  # in a message: every setting there is, but not every topic
LARGEST_FRAME_BYTES = 2**30  # positions and sizes in a frame are 32-bit; this keeps well inside


class Knob(NamedTuple):
    """What one setting may be: a whole number between two limits, a flag, or one of a few words."""

    default: Any
    low: int = 0
    high: int = LARGEST
    words: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> Any:
        """Return ``value``, or raise ConfigError saying what is allowed."""
        if self.words:
            if not isinstance(value, str) or value not in self.words:
                raise ConfigError(f"{name} is {value!r}; it must be one of {self._choices()}")
        elif isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise ConfigError(f"{name} is {value!r}; it must be True or False")
        elif isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{name} is {value!r}; it must be a whole number")
        elif not self.low <= value <= self.high:
            raise ConfigError(f"{name} is {value}; it must be {self.low} to {self.high}")
        return value

    def _choices(self) -> str:
        return ", ".join(repr(word) for word in self.words)


TOPIC_KNOBS: dict[str, Knob] = {
    "segment_bytes": Knob(64 * MIB, low=256, high=LARGEST_FRAME_BYTES),
    "segment_ms": Knob(7 * DAY_MS, low=1),
    "index_interval_bytes": Knob(4096, low=0, high=LARGEST_FRAME_BYTES),
    "max_record_bytes": Knob(16 * MIB, low=1, high=LARGEST_FRAME_BYTES // 2),
    "cleanup_policy": Knob("delete", words=("delete", "compact", "compact,delete")),
    "retention_ms": Knob(FOREVER, low=FOREVER),
    "retention_bytes": Knob(FOREVER, low=FOREVER),
    "retain_until_consumed": Knob(()),
    "delete_retention_ms": Knob(DAY_MS),
    "min_compaction_lag_ms": Knob(0),
    "min_cleanable_dirty_ratio": Knob(0.5),
    "compression": Knob("none", words=("none", "gzip", "lz4", "zstd")),
    "timestamp_type": Knob("create", words=("create", "append")),
    "timestamp_after_max_ms": Knob(FOREVER, low=FOREVER),
}

BROKER_KNOBS: dict[str, Knob] = {
    "read_only": Knob(False),
    "sync": Knob("interval", words=("never", "interval", "always")),
    "sync_interval_ms": Knob(1000, low=1),
    "auto_create_topics": Knob(False),
    "default_partitions": Knob(1, low=1, high=100_000),
    "maintenance_interval_ms": Knob(60_000),
}


class TopicConfig(NamedTuple):
    """The settings of one topic; made by ``TopicConfig.of``, which checks them."""

    segment_bytes: int = 64 * MIB
    segment_ms: int = 7 * DAY_MS
    index_interval_bytes: int = 4096
    max_record_bytes: int = 16 * MIB
    cleanup_policy: str = "delete"
    retention_ms: int = FOREVER
    retention_bytes: int = FOREVER
    retain_until_consumed: tuple[str, ...] = ()
    delete_retention_ms: int = DAY_MS
    min_compaction_lag_ms: int = 0
    min_cleanable_dirty_ratio: float = 0.5
    compression: str = "none"
    timestamp_type: str = "create"
    timestamp_after_max_ms: int = FOREVER

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> TopicConfig:
        """Return the defaults overridden by ``settings``; ConfigError where one is not allowed."""
        return cls().override(settings)

    def override(self, settings: Mapping[str, Any]) -> TopicConfig:
        """Return a copy with ``settings`` changed; ConfigError where one is not allowed."""
        if not isinstance(settings, Mapping):
            raise ConfigError(f"settings is {settings!r}; it must be a mapping of names to values")
        for name, value in settings.items():
            check_topic_setting(name, value)
        changed = self._replace(**settings)
        groups = tuple(dict.fromkeys(changed.retain_until_consumed))
        return changed._replace(retain_until_consumed=groups)

    @property
    def is_compacted(self) -> bool:
        """Whether of each key only the last record stays, so that every record needs one."""
        return "compact" in self.cleanup_policy

    @property
    def is_expiring(self) -> bool:
        """Whether records go for their age or size."""
        has_bounds = self.retention_ms != FOREVER or self.retention_bytes != FOREVER
        return has_bounds and "delete" in self.cleanup_policy


class BrokerConfig(NamedTuple):
    """The settings of a broker, checked."""

    read_only: bool = False
    sync: SyncLevel = "interval"
    sync_interval_ms: int = 1000
    auto_create_topics: bool = False
    default_partitions: int = 1
    maintenance_interval_ms: int = 60_000

    @classmethod
    def of(cls, **settings: Any) -> BrokerConfig:
        """Return the settings; ConfigError where a value is not allowed."""
        for name, value in settings.items():
            BROKER_KNOBS[name].check(name, value)
        return cls(**settings)


def check_topic_setting(name: str, value: Any) -> None:
    """Raise ConfigError unless a topic setting of this name may have this value."""
    knob = TOPIC_KNOBS.get(name)
    if knob is None:
        raise ConfigError(f"unknown setting {name!r}{nearest(name, TOPIC_KNOBS)}")
    if name == "min_cleanable_dirty_ratio":
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1:
            raise ConfigError(f"{name} is {value!r}; it must be a number from 0 to 1")
    elif name == "retain_until_consumed":
        _check_groups(name, value)
    else:
        knob.check(name, value)


def _check_groups(name: str, value: Any) -> None:
    is_named = isinstance(value, (tuple, list)) and all(
        isinstance(group, str) and 1 <= len(group) <= LONGEST_NAME for group in value
    )
    if not is_named:
        raise ConfigError(
            f"{name} is {value!r}; it must be a tuple or list of group names, each a str of 1 to "
            f"{LONGEST_NAME} characters"
        )


def nearest(name: str, known: Mapping[str, Any]) -> str:
    """Return "; did you mean ...?" or the names there are, to end a message with."""
    import difflib  # imported here because only a typo needs it, and it is slow to import

    close = difflib.get_close_matches(str(name), known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {some_of(sorted(known))}"


def some_of(names: Collection[str]) -> str:
    """Return names as a message or a repr has them: not thousands."""
    more = len(names) - MOST_NAMED
    return ", ".join(islice(names, MOST_NAMED)) + (f" and {more:,} more" if more > 0 else "")
