"""The shop window shows what the public face promises: no more, no less, in order."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path

import pytest

import minilog
from minilog import testing

ERRORS = [
    "MinilogError",
    "ConfigError",
    "InvalidTopicError",
    "InvalidPartitionsError",
    "RecordTooLargeError",
    "InvalidRecordError",
    "ClosedError",
    "ReadOnlyError",
    "ForkedError",
    "LockedError",
    "UnknownTopicError",
    "TopicExistsError",
    "UnknownPartitionError",
    "OffsetOutOfRangeError",
    "StorageError",
    "CorruptionError",
    "UnsupportedFormatError",
    "SyncFailedError",
    "GroupError",
    "RebalanceError",
    "UnknownMemberError",
    "CommitError",
    "NoOffsetError",
    "NotAssignedError",
    "OffsetConflictError",
    "SequenceGapError",
    "TransactionError",
    "FencedError",
]
NAMES = [
    "Broker",
    "Consumer",
    "Group",
    "Partition",
    "Producer",
    "Record",
    "RecordMetadata",
    "Records",
    "RecoveryReport",
    "Topic",
    "TopicConfig",
    "TopicPartition",
    "VerifyReport",
    "replay",
    "replay_async",
    "verify",
]
RETRIABLE = {"RebalanceError"}
ALSO = {
    "ConfigError": ValueError,
    "InvalidTopicError": ValueError,
    "InvalidPartitionsError": ValueError,
    "RecordTooLargeError": ValueError,
    "InvalidRecordError": ValueError,
    "UnknownTopicError": LookupError,
    "UnknownPartitionError": LookupError,
    "OffsetOutOfRangeError": LookupError,
    "CorruptionError": minilog.StorageError,
    "UnsupportedFormatError": minilog.StorageError,
    "SyncFailedError": minilog.StorageError,
    "RebalanceError": minilog.GroupError,
    "UnknownMemberError": minilog.GroupError,
    "CommitError": minilog.GroupError,
    "NoOffsetError": minilog.GroupError,
    "NotAssignedError": minilog.GroupError,
    "FencedError": minilog.TransactionError,
}


def test_the_shop_window_shows_the_public_names_in_order() -> None:
    assert minilog.__all__ == sorted(ERRORS + NAMES)


def test_the_shop_window_shows_nothing_else() -> None:
    shown = {
        name
        for name, value in vars(minilog).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert shown == set(minilog.__all__)


def test_there_is_a_version() -> None:
    assert all(part.isdigit() for part in minilog.__version__.split("."))


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_where_the_tree_has_it(name: str) -> None:
    error = getattr(minilog, name)
    assert issubclass(error, minilog.MinilogError)
    assert issubclass(error, ALSO.get(name, Exception))
    assert error.retriable is (name in RETRIABLE)
    assert issubclass(error, ValueError) == (ALSO.get(name) is ValueError)
    assert issubclass(error, LookupError) == (ALSO.get(name) is LookupError)
    assert not issubclass(error, OSError)


@pytest.mark.parametrize("name", sorted(ERRORS + NAMES))
def test_every_public_name_says_what_it_is(name: str) -> None:
    public = getattr(minilog, name)
    assert public.__doc__
    assert public.__module__.startswith("minilog.")


def public_calls() -> list[tuple[str, object]]:
    functions = [name for name in NAMES if inspect.isfunction(getattr(minilog, name))]
    classes = [getattr(minilog, name) for name in NAMES if name not in functions]
    calls: list[tuple[str, object]] = [(name, getattr(minilog, name)) for name in functions]
    for kind in classes:
        for name, member in vars(kind).items():
            if not name.startswith("_"):
                calls.append((f"{kind.__name__}.{name}", member))
    return calls


@pytest.mark.parametrize(("name", "member"), public_calls(), ids=lambda value: str(value)[:50])
def test_every_public_method_says_what_it_does_and_is_typed(name: str, member: object) -> None:
    function = member
    if isinstance(member, property):
        function = member.fget
    if isinstance(member, (classmethod, staticmethod)):
        function = member.__func__
    if not inspect.isfunction(function):
        return  # a field of a named tuple
    assert function.__doc__, f"{name} says nothing"
    hints = inspect.get_annotations(function)
    parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
    untyped = [parameter for parameter in [*parameters, "return"] if parameter not in hints]
    assert not untyped, f"{name}: {untyped}"


def test_the_types_are_shipped() -> None:
    assert (Path(minilog.__file__).parent / "py.typed").exists()


def test_types_in_signatures_can_be_resolved() -> None:
    for kind in (minilog.Broker, minilog.Partition, minilog.Producer, minilog.Consumer):
        for name, member in vars(kind).items():
            if inspect.isfunction(member) and not name.startswith("_"):
                assert "return" in typing.get_type_hints(member)


def test_testing_hands_out_the_clock() -> None:
    assert "ManualClock" in testing.__all__
    assert testing.ManualClock(5).now_ms() == 5
