"""Groups seen from outside, as their contract says: what they show, and resets and deletion.

Knows only the public face.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from members import GROUP, assert_shared, filled, offsets, partitions, read_all, settle

from minilog import (
    Broker,
    ClosedError,
    Consumer,
    GroupError,
    InvalidTopicError,
    MinilogError,
    ReadOnlyError,
    TopicPartition,
    UnknownTopicError,
)
from minilog.testing import ManualClock

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=ManualClock(1000), segment_bytes=4096) as opened:
        yield opened


@pytest.fixture
def group(broker: Broker) -> Any:
    """A group without members; it has 4 of 10, 5 of 5 and 1 of 3 behind it."""
    topic = broker.create_topic("a", partitions=2)
    topic[0].append_many([b"v"] * 10, timestamps=[1000 * n for n in range(10)])
    topic[1].append_many([b"v"] * 5, timestamps=[1000 * n for n in range(5)])
    broker.create_topic("b")[0].append_many([b"v"] * 3, timestamps=[1000 * n for n in range(3)])
    commit(broker, {A0: 4, A1: 5, B0: 1})
    return broker.groups[GROUP]


def commit(broker: Broker, wanted: dict[TopicPartition, int], group: str = GROUP) -> None:
    topics = {tp.topic for tp in wanted}
    with Consumer(broker, *topics, group=group, auto_commit=False) as consumer:
        consumer.poll()
        consumer.commit(wanted)


# -- what is shown ------------------------------------------------------------------------------


def test_groups_is_a_mapping_that_is_live_and_cannot_be_written(broker: Broker) -> None:
    groups = broker.groups
    assert isinstance(groups, Mapping)
    assert (len(groups), list(groups), GROUP in groups, groups.get(GROUP)) == (0, [], False, None)
    with pytest.raises(KeyError):
        groups[GROUP]
    filled(broker, "a", 3)
    for name in ("b", "c", "a"):
        with Consumer(broker, "a", group=name) as consumer:
            consumer.poll()
    assert (list(groups), len(groups)) == (["a", "b", "c"], 3)
    assert groups["b"].name == "b"
    with pytest.raises((TypeError, AttributeError)):
        groups["d"] = groups["b"]  # type: ignore[index]


def test_a_group_shows_its_members_with_what_they_have(broker: Broker) -> None:
    filled(broker, "a", 0, 0, 0)
    consumers = [Consumer(broker, "a", group=GROUP, member_id=f"w{n}") for n in range(2)]
    settle(*consumers)
    group = broker.groups[GROUP]
    assert {name: set(tps) for name, tps in group.members.items()} == {
        f"w{n}": set(consumer.assignment()) for n, consumer in enumerate(consumers)
    }
    assert {tp for tps in group.members.values() for tp in tps} == partitions("a", 0, 1, 2)
    with contextlib.suppress(TypeError, AttributeError):
        group.members.clear()
    assert set(group.members) == {"w0", "w1"}, "the caller's copy is the group's own"


def test_a_group_shows_what_is_committed_and_its_lag(broker: Broker, group: Any) -> None:
    assert group.committed() == {A0: 4, A1: 5, B0: 1}
    assert group.lag() == {A0: 6, A1: 0, B0: 2}
    broker.topic("b")[0].append(b"v")
    assert group.lag() == {A0: 6, A1: 0, B0: 3}
    assert (group.state, dict(group.members)) == ("empty", {})
    assert isinstance(group.generation, int)
    group.committed().clear()
    assert group.committed() == {A0: 4, A1: 5, B0: 1}, "the caller's copy is the group's own"


def test_what_minilog_keeps_for_itself_shows_nowhere(broker: Broker, group: Any) -> None:
    assert list(broker.topics) == ["a", "b"]
    assert len(broker.topics) == 2
    assert not [name for name in broker.topics if name.startswith("__")]
    everything = Consumer(broker, re.compile(""))
    assert {tp.topic for tp in everything.assignment()} == {"a", "b"}
    sharing = Consumer(broker, re.compile(".*"), group="all")
    while records := sharing.poll():
        assert {record.topic for record in records} <= {"a", "b"}
    assert set(sharing.subscription()) == {"a", "b"}


@pytest.mark.parametrize("name", ["nope", "__ledge", "__ledger", ""])
def test_what_minilog_keeps_for_itself_is_no_hint_in_an_error(broker: Broker, name: str) -> None:
    with Consumer(broker, re.compile("a"), group=GROUP) as consumer:
        filled(broker, "a", 1)
        consumer.poll()
    for use in (broker.topic, broker.delete_topic, lambda name: Consumer(broker, name)):
        with pytest.raises(UnknownTopicError) as caught:
            use(name)
        assert "__" not in str(caught.value).replace(repr(name), "")
    assert broker.groups[GROUP].committed() == {A0: 1}


def test_groups_of_a_closed_broker_are_a_closed_error(broker: Broker, group: Any) -> None:
    broker.close()
    for use in (lambda: broker.groups, lambda: list(broker.groups), group.committed, group.lag):
        with pytest.raises(ClosedError):
            use()
    with pytest.raises(ClosedError):
        group.reset(to=0)
    with pytest.raises(ClosedError):
        broker.delete_group(GROUP)


# -- reset --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("earliest", {A0: (4, 2), A1: (5, 0), B0: (1, 0)}),
        ("latest", {A0: (4, 10), A1: (5, 5), B0: (1, 3)}),
        (2, {A0: (4, 2), A1: (5, 2), B0: (1, 2)}),
        (3, {A0: (4, 3), A1: (5, 3), B0: (1, 3)}),
        (datetime.fromtimestamp(2, UTC), {A0: (4, 2), A1: (5, 2), B0: (1, 2)}),
        (datetime.fromtimestamp(3.5, UTC), {A0: (4, 4), A1: (5, 4), B0: (1, 3)}),
        (
            datetime(1970, 1, 1, 2, 0, 3, tzinfo=timezone(timedelta(hours=2))),
            {A0: (4, 3), A1: (5, 3), B0: (1, 3)},
        ),
        ({"shift": -1}, {A0: (4, 3), A1: (5, 4), B0: (1, 0)}),
        ({"shift": 0}, {A0: (4, 4), A1: (5, 5), B0: (1, 1)}),
    ],
    ids=str,
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_reset_tells_from_where_to_where(
    broker: Broker, group: Any, to: Any, expected: dict[TopicPartition, Any], dry_run: bool
) -> None:
    broker.topic("a")[0].delete_before(2)
    before = group.committed()
    assert group.reset(to=to, dry_run=dry_run) == expected
    after = before if dry_run else {tp: target for tp, (_, target) in expected.items()}
    assert group.committed() == after
    consumer = Consumer(broker, group=GROUP)
    assert {tp: consumer.committed(tp) for tp in after} == after


def test_a_reset_of_some_topics_leaves_the_others(broker: Broker, group: Any) -> None:
    assert group.reset(["b"], to="latest") == {B0: (1, 3)}
    assert group.committed() == {A0: 4, A1: 5, B0: 3}
    assert group.reset(topics=["a"], to="earliest") == {A0: (4, 0), A1: (5, 0)}
    assert group.committed() == {A0: 0, A1: 0, B0: 3}


def test_a_reset_of_a_topic_the_group_never_read_begins_it(broker: Broker, group: Any) -> None:
    filled(broker, "c", 7, 2)
    assert group.reset(["c"], to="latest") == {("c", 0): (None, 7), ("c", 1): (None, 2)}
    broker.topic("c")[1].append(b"v")
    with Consumer(broker, "c", group=GROUP) as consumer:
        assert [(r.partition, r.offset) for r in consumer.poll()] == [(1, 2)]


def test_records_after_a_reset_are_delivered_from_there(broker: Broker, group: Any) -> None:
    group.reset(["a"], to={"shift": -2})
    with Consumer(broker, "a", group=GROUP) as consumer:
        records = consumer.poll()
    assert (offsets(records, 0), offsets(records, 1)) == (list(range(2, 10)), [3, 4])


@pytest.mark.parametrize("to", [{"shift": -100}, {"shift": 100}, 7, 2**40], ids=str)
def test_a_reset_never_leaves_an_offset_outside_of_the_log(
    broker: Broker, group: Any, to: Any
) -> None:
    broker.topic("a")[0].delete_before(3)
    before = group.committed()
    try:
        changed = group.reset(to=to)
    except MinilogError:
        assert group.committed() == before, "refused, and yet it changed something"
        return
    assert group.committed() == {tp: target for tp, (_, target) in changed.items()}
    for tp, offset in group.committed().items():
        partition = broker.topic(tp.topic)[tp.partition]
        assert partition.start_offset <= offset <= partition.end_offset


@pytest.mark.parametrize("to", ["earliest", "latest", 0, {"shift": 1}], ids=str)
def test_a_reset_is_refused_while_the_group_has_members(
    broker: Broker, group: Any, to: Any
) -> None:
    consumer = Consumer(broker, "b", group=GROUP)
    with pytest.raises(GroupError):
        group.reset(to=to)
    with contextlib.suppress(GroupError):
        group.reset(to=to, dry_run=True)
    assert group.committed() == {A0: 4, A1: 5, B0: 1}
    assert offsets(consumer.poll()) == [1, 2]
    consumer.close()
    assert group.reset(to=to)


@pytest.mark.parametrize(
    "to",
    [
        "middle",
        "",
        None,
        -1,
        True,
        1.5,
        b"earliest",
        [0],
        datetime(2026, 1, 1),
        {},
        {"by": 2},
        {"shift": 1.5},
        {"shift": None},
        {"shift": 1, "by": 2},
    ],
    ids=repr,
)
def test_a_reset_to_what_cannot_be_changes_nothing(broker: Broker, group: Any, to: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        group.reset(to=to)
    assert group.committed() == {A0: 4, A1: 5, B0: 1}


def test_a_reset_of_an_unknown_topic_changes_nothing(broker: Broker, group: Any) -> None:
    with pytest.raises(UnknownTopicError):
        group.reset(["a", "nope"], to="earliest")
    with pytest.raises((TypeError, ValueError, UnknownTopicError)):
        group.reset([5], to="earliest")
    assert group.committed() == {A0: 4, A1: 5, B0: 1}
    assert group.reset([], to="earliest") == {}


def test_a_reset_survives_a_reopening(tmp_path: Path) -> None:
    with Broker(tmp_path / "log") as broker:
        filled(broker, "a", 10)
        commit(broker, {A0: 9})
        broker.groups[GROUP].reset(to=3)
    with Broker(tmp_path / "log") as broker:
        assert broker.groups[GROUP].committed() == {A0: 3}


# -- delete -------------------------------------------------------------------------------------


def test_a_deleted_group_begins_anew(broker: Broker, group: Any) -> None:
    commit(broker, {A0: 8}, group="kept")
    broker.delete_group(GROUP)
    assert list(broker.groups) == ["kept"]
    with pytest.raises(KeyError):
        broker.groups[GROUP]
    with Consumer(broker, "a", group=GROUP) as consumer:
        assert consumer.committed(A0) is None
        assert offsets(consumer.poll()) == list(range(10))
    assert broker.groups["kept"].committed() == {A0: 8}


def test_a_group_made_again_after_its_deletion_is_one_group(broker: Broker, group: Any) -> None:
    """A consumer made before the deletion and one made after it are members of the same group."""
    before = Consumer(broker, group=GROUP)
    broker.delete_group(GROUP)
    before.subscribe(["a"])
    after = Consumer(broker, "a", group=GROUP)
    read_all(before, after)
    assert_shared(broker, before, after)


def test_a_group_with_members_is_not_deleted(broker: Broker, group: Any) -> None:
    consumer = Consumer(broker, "a", group=GROUP)
    with pytest.raises(GroupError):
        broker.delete_group(GROUP)
    assert offsets(consumer.poll()) == [4, 5, 6, 7, 8, 9]
    assert group.committed() == {A0: 4, A1: 5, B0: 1}
    consumer.close()
    broker.delete_group(GROUP)
    assert list(broker.groups) == []


def test_a_group_that_is_not_there_cannot_be_deleted(broker: Broker, group: Any) -> None:
    for name in ("nope", "", 5):
        with pytest.raises((MinilogError, TypeError)):
            broker.delete_group(name)
    assert list(broker.groups) == [GROUP]


def test_a_deleted_group_stays_deleted_after_a_reopening(tmp_path: Path) -> None:
    with Broker(tmp_path / "log") as broker:
        filled(broker, "a", 10)
        commit(broker, {A0: 9})
        broker.delete_group(GROUP)
    with Broker(tmp_path / "log") as broker:
        assert list(broker.groups) == []
        commit(broker, {A0: 2})
    with Broker(tmp_path / "log") as broker:
        assert broker.groups[GROUP].committed() == {A0: 2}


def test_a_read_only_broker_resets_and_deletes_nothing(tmp_path: Path) -> None:
    with Broker(tmp_path / "log") as broker:
        filled(broker, "a", 10)
        commit(broker, {A0: 4})
    with Broker(tmp_path / "log", read_only=True) as reader:
        with pytest.raises(ReadOnlyError):
            reader.groups[GROUP].reset(to=0)
        with pytest.raises(ReadOnlyError):
            reader.delete_group(GROUP)
        assert reader.groups[GROUP].committed() == {A0: 4}


def test_the_internal_topic_is_nobody_s_to_change(broker: Broker, group: Any) -> None:
    for name in ("__groups", "__offsets", "__consumer_offsets"):
        with pytest.raises(InvalidTopicError):
            broker.create_topic(name)
    assert group.committed() == {A0: 4, A1: 5, B0: 1}
