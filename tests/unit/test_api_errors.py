"""The contract of the error tree, of the public names, and of refused settings."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minilog
from minilog import (
    Broker,
    ConfigError,
    Consumer,
    MinilogError,
    NotAssignedError,
    UnknownTopicError,
)

ERROR_BASES: dict[str, set[str]] = {
    "MinilogError": {"Exception"},
    "ConfigError": {"MinilogError", "ValueError"},
    "InvalidTopicError": {"MinilogError", "ValueError"},
    "InvalidPartitionsError": {"MinilogError", "ValueError"},
    "RecordTooLargeError": {"MinilogError", "ValueError"},
    "InvalidRecordError": {"MinilogError", "ValueError"},
    "ClosedError": {"MinilogError"},
    "ReadOnlyError": {"MinilogError"},
    "ForkedError": {"MinilogError"},
    "LockedError": {"MinilogError"},
    "UnknownTopicError": {"MinilogError", "LookupError"},
    "TopicExistsError": {"MinilogError"},
    "UnknownPartitionError": {"MinilogError", "LookupError"},
    "OffsetOutOfRangeError": {"MinilogError", "LookupError"},
    "StorageError": {"MinilogError"},
    "CorruptionError": {"StorageError"},
    "UnsupportedFormatError": {"StorageError"},
    "SyncFailedError": {"StorageError"},
    "GroupError": {"MinilogError"},
    "RebalanceError": {"GroupError"},
    "UnknownMemberError": {"GroupError"},
    "CommitError": {"GroupError"},
    "NoOffsetError": {"GroupError"},
    "NotAssignedError": {"GroupError"},
    "OffsetConflictError": {"MinilogError"},
    "SequenceGapError": {"MinilogError"},
    "TransactionError": {"MinilogError"},
    "FencedError": {"TransactionError"},
}
OTHER_NAMES = (
    "Broker",
    "Topic",
    "Partition",
    "TopicConfig",
    "Producer",
    "Consumer",
    "Record",
    "Records",
    "RecordMetadata",
    "TopicPartition",
    "RecoveryReport",
    "VerifyReport",
    "verify",
)
DAY_MS = 24 * 60 * 60 * 1000
DEFAULTS = {
    "segment_bytes": 64 << 20,
    "segment_ms": 7 * DAY_MS,
    "index_interval_bytes": 4096,
    "max_record_bytes": 16 << 20,
    "cleanup_policy": "delete",
    "retention_ms": -1,
    "retention_bytes": -1,
    "retain_until_consumed": (),
    "delete_retention_ms": DAY_MS,
    "min_compaction_lag_ms": 0,
    "min_cleanable_dirty_ratio": 0.5,
    "compression": "none",
    "timestamp_type": "create",
    "timestamp_after_max_ms": -1,
}
INTEGER_SETTINGS = sorted(name for name, value in DEFAULTS.items() if type(value) is int)
TEXT_SETTINGS = sorted(name for name, value in DEFAULTS.items() if type(value) is str)
WRONG_SETTINGS: list[tuple[str, Any]] = [
    *itertools.product(INTEGER_SETTINGS, (True, 1e6, "1000", None, b"1", [], -2)),
    *itertools.product(TEXT_SETTINGS, ("bogus", "", None, 1, b"delete", [])),
    *itertools.product(["min_cleanable_dirty_ratio"], ("0.5", None, -0.1, 1.1, float("nan"))),
    ("segment_bytes", 255),
    ("segment_bytes", 0),
    ("segment_bytes", -1),
    ("max_record_bytes", -1),
    ("segment_ms", 0),
    ("cleanup_policy", "DELETE"),
    ("timestamp_type", "create,append"),
]
MISSPELT = [
    ("segment_byte", "segment_bytes"),
    ("segmentbytes", "segment_bytes"),
    ("retention_msec", "retention_ms"),
    ("max_record_byte", "max_record_bytes"),
    ("timestamp_typ", "timestamp_type"),
    ("cleanup_polic", "cleanup_policy"),
]


@pytest.mark.parametrize("name", ERROR_BASES)
def test_every_error_has_exactly_the_drawn_bases(name: str) -> None:
    assert {base.__name__ for base in getattr(minilog, name).__bases__} == ERROR_BASES[name]


@pytest.mark.parametrize("name", ERROR_BASES)
def test_only_a_rebalance_is_retriable(name: str) -> None:
    assert getattr(minilog, name).retriable is (name == "RebalanceError")


def test_there_are_no_public_errors_beside_the_drawn_ones() -> None:
    exported = {
        name
        for name in minilog.__all__
        if inspect.isclass(cls := getattr(minilog, name)) and issubclass(cls, BaseException)
    }
    assert exported == set(ERROR_BASES)


@pytest.mark.parametrize("name", [*ERROR_BASES, *OTHER_NAMES])
def test_every_public_name_is_imported_from_minilog_itself(name: str) -> None:
    assert name in minilog.__all__
    assert getattr(minilog, name).__doc__


def test_all_lists_each_name_once_and_only_names_that_exist() -> None:
    assert len(set(minilog.__all__)) == len(minilog.__all__)
    assert [name for name in minilog.__all__ if not hasattr(minilog, name)] == []


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_topic_setting_has_the_documented_default(name: str) -> None:
    with Broker(":memory:") as broker:
        assert getattr(broker.create_topic("t").config, name) == DEFAULTS[name]


@pytest.mark.parametrize(("name", "wrong"), WRONG_SETTINGS)
def test_a_wrong_setting_is_refused_by_name_wherever_it_is_given(name: str, wrong: Any) -> None:
    with Broker(":memory:") as broker:
        topic = broker.create_topic("t")
        before = topic.config
        with pytest.raises(ConfigError, match=name):
            broker.create_topic("refused", **{name: wrong})
        with pytest.raises(ConfigError, match=name):
            topic.configure(**{name: wrong})
        assert list(broker.topics) == ["t"]
        assert topic.config == before
    with pytest.raises(ConfigError, match=name):
        Broker(":memory:", **{name: wrong})


@pytest.mark.parametrize(("unknown", "nearest"), MISSPELT)
def test_an_unknown_setting_is_answered_with_the_nearest_name(unknown: str, nearest: str) -> None:
    with Broker(":memory:") as broker:
        topic = broker.create_topic("t")
        settings: dict[str, Any] = {unknown: 1000}
        calls: list[Callable[[], object]] = [
            lambda: broker.create_topic("refused", **settings),
            lambda: topic.configure(**settings),
            lambda: Broker(":memory:", **settings),
        ]
        for call in calls:
            with pytest.raises(ConfigError) as caught:
                call()
            assert re.search(rf"\b{unknown}\b", str(caught.value))
            assert re.search(rf"\b{nearest}\b", str(caught.value))
        assert list(broker.topics) == ["t"]


def test_a_setting_out_of_range_is_refused_with_its_limit() -> None:
    with Broker(":memory:") as broker, pytest.raises(ConfigError, match="256"):
        broker.create_topic("t", segment_bytes=255)


def test_the_smallest_segment_is_256_bytes() -> None:
    with Broker(":memory:") as broker:
        topic = broker.create_topic("t", segment_bytes=256)
        assert topic.config.segment_bytes == 256
        assert topic[0].append(b"v") == 0


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("sync", "sometimes"),
        ("sync", None),
        ("sync", True),
        ("sync", b"never"),
        ("sync_interval_ms", -1),
        ("sync_interval_ms", "1000"),
        ("sync_interval_ms", True),
        ("maintenance_interval_ms", -1),
        ("maintenance_interval_ms", "0"),
        ("maintenance_interval_ms", True),
        ("default_partitions", 0),
        ("default_partitions", -1),
        ("default_partitions", "1"),
        ("default_partitions", True),
        ("default_partitions", 1.0),
    ],
)
def test_a_wrong_broker_setting_is_refused_by_name(log_path: Path, name: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        Broker(log_path, **{name: wrong})
    with Broker(log_path) as broker:  # and the refused call left no lock behind
        assert list(broker.topics) == []


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [("syncs", "sync"), ("readonly", "read_only"), ("default_partition", "default_partitions")],
)
def test_an_unknown_broker_setting_is_answered_with_the_nearest_name(
    unknown: str, nearest: str
) -> None:
    settings: dict[str, Any] = {unknown: 1}
    with pytest.raises(ConfigError) as caught:
        Broker(":memory:", **settings)
    assert re.search(rf"\b{nearest}\b", str(caught.value))


def test_everything_but_the_path_of_a_broker_is_given_by_name(log_path: Path) -> None:
    with pytest.raises(TypeError):
        Broker(log_path, True)  # type: ignore[call-arg]
    assert not log_path.exists()


def test_one_except_clause_catches_everything_minilog_raises() -> None:
    with Broker(":memory:") as broker:
        broker.create_topic("t")
        for call in (
            lambda: broker.topic("unknown"),
            lambda: broker.create_topic("t"),
            lambda: broker.create_topic("no good"),
            lambda: broker.topic("t")[0].read(1),
            lambda: broker.topic("t")[1],
        ):
            with pytest.raises(MinilogError) as caught:
                call()
            assert str(caught.value)


def test_what_there_are_thousands_of_is_not_all_named_in_a_message() -> None:
    with Broker(":memory:", auto_create_topics=False) as broker:
        broker.create_topic("wide", partitions=300)
        for number in range(300):
            broker.create_topic(f"topic-{number:03}")
        with pytest.raises(UnknownTopicError, match=r"known are topic-000, .* more$") as unknown:
            broker.topic("nothing-like-it")
        with pytest.raises(NotAssignedError, match=r"it has wide-0, .* more$") as unassigned:
            Consumer(broker, "wide").seek(("topic-000", 0), 0)
        texts = [str(unknown.value), str(unassigned.value), repr(broker.topics)]
        assert max(map(len, texts)) < 1000


def _with_group(broker: Broker) -> minilog.Group:
    with Consumer(broker, "t", group="g") as consumer:
        consumer.commit({("t", 0): 0})
    return broker.groups["g"]


WRONG_KINDS: dict[str, tuple[type[Exception], str, Callable[[Broker], object]]] = {
    "topic": (UnknownTopicError, r"no topic \[\]", lambda b: b.topic([])),  # type: ignore[arg-type]
    "delete": (UnknownTopicError, r"no topic \[\]", lambda b: b.delete_topic([])),  # type: ignore[arg-type]
    "send": (UnknownTopicError, r"no topic \[\]", lambda b: minilog.Producer(b).send([], b"v")),  # type: ignore[arg-type]
    "subscribe": (ConfigError, r"topics has \[\]", lambda b: Consumer(b).subscribe([[]])),  # type: ignore[list-item]
    "assign": (TypeError, "partitions is 5", lambda b: Consumer(b).assign(5)),  # type: ignore[arg-type]
    "reset": (ConfigError, "topics is 5", lambda b: _with_group(b).reset(5, to=0)),  # type: ignore[arg-type]
    "replay": (ConfigError, "topics is 5", lambda b: minilog.replay(b, 5, into=print)),  # type: ignore[arg-type]
    "settings": (ConfigError, "settings is 5", lambda b: minilog.TopicConfig.of(5)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", WRONG_KINDS)
def test_what_is_of_the_wrong_kind_altogether_is_named(what: str) -> None:
    kind, message, call = WRONG_KINDS[what]
    with Broker(":memory:") as broker:
        broker.create_topic("t")
        with pytest.raises(kind, match=message):
            call(broker)
