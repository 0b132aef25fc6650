"""Consumer groups, as their contract says: their state, and what is refused.

Knows only the public face.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from members import GROUP, filled, owners, partitions, settle

from minilog import (
    Broker,
    ClosedError,
    ConfigError,
    Consumer,
    NotAssignedError,
    ReadOnlyError,
    UnknownTopicError,
)
from minilog.ledger import Ledger
from minilog.testing import ManualClock


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=ManualClock(1000), segment_bytes=4096) as opened:
        yield opened


def member(broker: Broker, *topics: Any, **settings: Any) -> Consumer:
    return Consumer(broker, *topics, group=GROUP, **settings)


# -- state, generation --------------------------------------------------------------------------


def test_the_state_is_rebalancing_while_a_member_still_holds_what_moves(broker: Broker) -> None:
    filled(broker, "a", 0, 0)
    first = member(broker, "a")
    settle(first)
    group = broker.groups[GROUP]
    assert (group.name, group.state) == (GROUP, "stable")
    before = group.generation
    second = member(broker, "a")
    assert broker.groups[GROUP].state == "rebalancing"
    settle(second)
    assert broker.groups[GROUP].state == "rebalancing", "the first has not let go yet"
    assert not second.assignment()
    assert owners(broker).keys() == partitions("a", 0, 1)
    settle(first, second)
    assert broker.groups[GROUP].state == "stable"
    assert broker.groups[GROUP].generation > before
    first.commit({("a", 0) if ("a", 0) in first.assignment() else ("a", 1): 0})
    first.close()
    second.close()
    assert broker.groups[GROUP].state == "empty"


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "g" * 250, 5, b"billing", True, ["billing"]], ids=repr)
def test_a_group_name_that_cannot_be_is_a_config_error(broker: Broker, name: Any) -> None:
    filled(broker, "a", 0)
    with pytest.raises(ConfigError):
        Consumer(broker, "a", group=name)
    assert len(broker.groups) == 0


def test_a_group_name_of_249_characters_is_one(broker: Broker) -> None:
    filled(broker, "a", 3)
    with Consumer(broker, "a", group="g" * 249) as consumer:
        assert len(consumer.poll()) == 3
    assert broker.groups["g" * 249].committed() == {("a", 0): 3}


@pytest.mark.parametrize(
    "setting",
    [
        {"assignor": "fair"},
        {"assignor": None},
        {"assignor": 5},
        {"member_id": ""},
        {"member_id": 5},
        {"auto_commit": "yes"},
        {"max_poll_interval_ms": 0},
    ],
    ids=str,
)
def test_an_unknown_setting_of_a_member_is_a_config_error(
    broker: Broker, setting: dict[str, Any]
) -> None:
    filled(broker, "a", 0)
    with pytest.raises((ConfigError, TypeError)):
        member(broker, "a", **setting)
    assert len(broker.groups) == 0 or not broker.groups[GROUP].members


def test_a_refused_subscribe_does_not_join(broker: Broker) -> None:
    filled(broker, "a", 0)
    consumer = member(broker)
    with pytest.raises(UnknownTopicError):
        consumer.subscribe(["a", "nope"])
    with pytest.raises(ConfigError):
        consumer.subscribe(["a"], on_lost="print")  # type: ignore[arg-type]
    assert len(broker.groups) == 0 or not broker.groups[GROUP].members
    assert not consumer.assignment()


def test_a_consumer_that_joins_and_cannot_be_made_is_no_member(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It held its partitions for as long as anybody held its exception."""
    broker.create_topic("t")[0].append_many([b"0", b"1"])
    committed, left = Ledger.committed, [OSError(5, "the disk fails")]

    def failing(ledger: Ledger, *given: Any) -> Any:
        if left:
            raise left.pop()
        return committed(ledger, *given)

    monkeypatch.setattr(Ledger, "committed", failing)
    with pytest.raises(OSError, match="the disk fails") as caught:
        member(broker, "t")
    assert caught.value.__traceback__ is not None
    assert GROUP not in broker.groups
    with member(broker, "t") as other:
        assert [record.value for record in other.poll()] == [b"0", b"1"]


def test_subscribe_and_assign_exclude_each_other_in_a_group_too(broker: Broker) -> None:
    filled(broker, "a", 2)
    consumer = member(broker, "a")
    with pytest.raises(ConfigError):
        consumer.assign([("a", 0)])
    assert len(consumer.poll()) == 2
    with pytest.raises(NotAssignedError):
        consumer.seek(("a", 1), 0)
    with pytest.raises(NotAssignedError):
        consumer.seek(("nope", 0), 0)


def test_a_member_of_a_read_only_broker_is_refused(tmp_path: Path) -> None:
    with Broker(tmp_path / "log") as writer:
        filled(writer, "a", 1)
        with Broker(tmp_path / "log", read_only=True) as reader:
            with pytest.raises(ReadOnlyError):
                Consumer(reader, "a", group=GROUP)
            assert len(Consumer(reader, "a").poll()) == 1


def test_use_of_a_closed_member_is_a_closed_error(broker: Broker) -> None:
    filled(broker, "a", 1)
    consumer = member(broker, "a")
    consumer.close()
    consumer.close()
    uses: list[Callable[[], Any]] = [
        consumer.poll,
        consumer.commit,
        lambda: consumer.commit({("a", 0): 1}),
        lambda: consumer.committed(("a", 0)),
        lambda: consumer.subscribe(["a"]),
        consumer.assignment,
    ]
    for use in uses:
        with pytest.raises(ClosedError):
            use()
