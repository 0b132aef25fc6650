"""The contract of topics: names, creating and deleting them, their settings and partitions."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import uuid
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from minilog import (
    Broker,
    ConfigError,
    InvalidPartitionsError,
    InvalidTopicError,
    Partition,
    Producer,
    RecordTooLargeError,
    Topic,
    TopicConfig,
    TopicExistsError,
    UnknownPartitionError,
    UnknownTopicError,
)

ILLEGAL_NAMES = [
    "",
    ".",
    "..",
    " ",
    "a b",
    " a",
    "a ",
    "a/b",
    "/a",
    "a/",
    "../a",
    "a\\b",
    "a\n",
    "\na",
    "a\0",
    "a\t",
    "ä",
    "\uff41",
    "\uff11",
    "\u0663",
    "a:b",
    "a*",
    "a?",
    "a%20",
    "a,b",
    "a@b",
    "a+b",
    "a~",
    "🔑",
    "\ud800",
    "a" * 250,
    "a" * 10_000,
]
ODD_NAMES = [
    "a" * 249,
    "." * 249,
    "-" * 249,
    "_",
    "-",
    "--",
    "-rf",
    "...",
    ".hidden",
    "a..b",
    "a.",
    "_a",
    "0",
    "00000000000000000000",
    "00000000000000000000.log",
    "NUL",
    "aux.txt",
    "broker.json",
    "minilog.lock",
    "quarantine",
    "topic.json",
    "broker.json.tmp",
    "topics",
    "x.deleted",
    ".tmp",
    "tmp",
    "lock",
    "deleted",
    "staging",
    "minilog",
]


def tree(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.mark.parametrize("name", ILLEGAL_NAMES, ids=lambda name: ascii(name)[:20])
def test_an_illegal_topic_name_is_refused_and_nothing_is_made(tmp_path: Path, name: str) -> None:
    with Broker(tmp_path / "log", auto_create_topics=True) as broker:
        before = tree(tmp_path)
        with pytest.raises(InvalidTopicError):
            broker.create_topic(name)
        with pytest.raises(InvalidTopicError):
            broker.create_topic(name, exist_ok=True)
        with pytest.raises(InvalidTopicError):
            Producer(broker).send(name, b"v")
        assert list(broker.topics) == []
        assert tree(tmp_path) == before


@pytest.mark.parametrize("name", [None, 5, b"a", ["a"], Path("a")])
def test_a_topic_name_that_is_no_str_is_refused(broker: Broker, name: Any) -> None:
    with pytest.raises((InvalidTopicError, TypeError)):
        broker.create_topic(name)
    assert list(broker.topics) == []


def test_all_odd_but_legal_names_live_side_by_side_and_survive_reopening(log_path: Path) -> None:
    with Broker(log_path) as broker:
        for name in ODD_NAMES:
            assert broker.create_topic(name, partitions=2).name == name
        for name in ODD_NAMES:
            broker.topic(name)[1].append(name.encode())
        assert list(broker.topics) == sorted(ODD_NAMES)
    with Broker(log_path) as broker:
        assert broker.recovery.ok
        assert list(broker.topics) == sorted(ODD_NAMES)
        for name in ODD_NAMES:
            assert list(broker.topic(name)[1].read(0).values) == [name.encode()]


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: name[:30])
def test_an_odd_but_legal_name_can_be_deleted_and_made_again(location: Any, name: str) -> None:
    with Broker(location) as broker:
        broker.create_topic(name)[0].append(b"old")
        broker.delete_topic(name)
        assert list(broker.topics) == []
        assert broker.create_topic(name)[0].append(b"new") == 0
        assert list(broker.topic(name)[0].read(0).values) == [b"new"]


@pytest.mark.parametrize("name", ["__mine", "__", "__consumer_offsets"])
def test_names_with_two_underscores_never_show(broker: Broker, name: str) -> None:
    with contextlib.suppress(InvalidTopicError):
        broker.create_topic(name)
    assert name not in broker.topics
    assert list(broker.topics) == []
    assert len(broker.topics) == 0


@pytest.mark.parametrize(
    ("first", "second"), [("Orders", "orders"), ("a.B-c", "A.b-C"), ("x" * 249, "x" * 248 + "X")]
)
def test_a_name_that_differs_only_in_letter_case_is_refused(
    location: Any, first: str, second: str
) -> None:
    with Broker(location) as broker:
        broker.create_topic(first)
        for exist_ok in (False, True):
            with pytest.raises((InvalidTopicError, TopicExistsError)):
                broker.create_topic(second, exist_ok=exist_ok)
        with pytest.raises(UnknownTopicError):
            broker.topic(second)
        assert second not in broker.topics
        assert list(broker.topics) == [first]
        broker.delete_topic(first)
        broker.create_topic(second)
        assert list(broker.topics) == [second]


def test_creating_a_topic_twice_is_refused_unless_it_may_exist(broker: Broker) -> None:
    made = broker.create_topic("t", partitions=2, segment_bytes=512)
    made[0].append(b"kept")
    with pytest.raises(TopicExistsError):
        broker.create_topic("t")
    same = broker.create_topic("t", partitions=2, exist_ok=True)
    assert (same.id, len(same), same.config.segment_bytes) == (made.id, 2, 512)
    assert list(same[0].read(0).values) == [b"kept"]
    assert broker.create_topic("other", exist_ok=True).id != made.id


def test_of_threads_that_create_one_topic_exactly_one_succeeds(location: Any) -> None:
    with Broker(location) as broker:
        made: list[Topic] = []
        refused: list[TopicExistsError] = []
        shared: list[Topic] = []
        barrier = threading.Barrier(8)

        def create() -> None:
            barrier.wait()
            try:
                made.append(broker.create_topic("t"))
            except TopicExistsError as error:
                refused.append(error)
            shared.append(broker.create_topic("s", exist_ok=True))

        threads = [threading.Thread(target=create) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(made), len(refused)) == (1, 7)
        assert len({topic.id for topic in shared}) == 1 == 9 - len(shared)
        assert list(broker.topics) == ["s", "t"]


@pytest.mark.parametrize("partitions", [0, -1, -(10**9)])
def test_a_topic_without_partitions_is_refused(tmp_path: Path, partitions: int) -> None:
    with Broker(tmp_path / "log") as broker:
        before = tree(tmp_path)
        with pytest.raises(InvalidPartitionsError):
            broker.create_topic("t", partitions=partitions)
        assert list(broker.topics) == []
        assert tree(tmp_path) == before


@pytest.mark.parametrize("partitions", ["2", 1.0, None, True])
def test_a_partition_count_that_is_no_integer_is_refused(broker: Broker, partitions: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        broker.create_topic("t", partitions=partitions)
    assert list(broker.topics) == []


def test_the_topics_are_a_live_sorted_read_only_mapping(broker: Broker) -> None:
    topics: Any = broker.topics
    assert issubclass(type(topics), Mapping)
    assert (len(topics), list(topics), bool(topics)) == (0, [], False)
    for name in ("b", "c", "B1", "a", "0"):
        broker.create_topic(name)
    assert list(topics) == list(topics.keys()) == ["0", "B1", "a", "b", "c"]
    assert [topic.name for topic in topics.values()] == ["0", "B1", "a", "b", "c"]
    assert topics["a"].id == broker.topic("a").id == dict(topics.items())["a"].id
    broker.delete_topic("b")
    assert list(topics) == ["0", "B1", "a", "c"]
    assert ("b" in topics, "a" in topics, 5 in topics) == (False, True, False)
    assert topics.get("b") is None
    with pytest.raises(LookupError):
        topics["b"]
    for change in (
        lambda: topics.__setitem__("x", topics["a"]),
        lambda: topics.__delitem__("a"),
        lambda: topics.clear(),
        lambda: topics.pop("a"),
    ):
        with pytest.raises((TypeError, AttributeError)):
            change()
    assert list(broker.topics) == ["0", "B1", "a", "c"]


@pytest.mark.parametrize("name", ["missing", "", "..", "no good", "__x", "T"])
def test_an_unknown_topic_is_an_unknown_topic_error(broker: Broker, name: str) -> None:
    broker.create_topic("t")
    for call in (broker.topic, broker.delete_topic):
        with pytest.raises(UnknownTopicError):
            call(name)
    assert list(broker.topics) == ["t"]


def test_only_sending_makes_unknown_topics_and_only_when_allowed(location: Any) -> None:
    settings: dict[str, Any] = {"auto_create_topics": True, "default_partitions": 3}
    with Broker(location, segment_bytes=512, **settings) as broker:
        with pytest.raises(UnknownTopicError):
            broker.topic("t")
        Producer(broker).send("t", b"v")
        assert len(broker.topic("t")) == 3
        assert broker.topic("t").config.segment_bytes == 512
        assert len(broker.create_topic("own")) == 1
    with Broker(":memory:") as broker:
        with pytest.raises(UnknownTopicError):
            Producer(broker).send("t", b"v")
        assert list(broker.topics) == []


STALE_CALLS: dict[str, Callable[[Topic, Partition], object]] = {
    "append": lambda topic, partition: partition.append(b"v"),
    "append_many": lambda topic, partition: partition.append_many([b"v"]),
    "read": lambda topic, partition: partition.read(0),
    "iterate": lambda topic, partition: list(partition),
    "delete_before": lambda topic, partition: partition.delete_before(1),
    "add_partitions": lambda topic, partition: topic.add_partitions(5),
    "configure": lambda topic, partition: topic.configure(segment_bytes=512),
}


@pytest.mark.parametrize("call", STALE_CALLS)
@pytest.mark.parametrize("made_again", [False, True])
def test_objects_of_a_deleted_topic_raise_unknown_topic_error(
    broker: Broker, call: str, made_again: bool
) -> None:
    stale = broker.create_topic("t")
    partition = stale[0]
    partition.append_many([b"old"] * 3)
    broker.delete_topic("t")
    if made_again:
        broker.create_topic("t")[0].append(b"new")
    with pytest.raises(UnknownTopicError):
        STALE_CALLS[call](stale, partition)
    if made_again:
        again = broker.topic("t")
        assert again.id != stale.id
        assert (list(again[0].read(0).values), len(again)) == ([b"new"], 1)


def test_an_object_of_a_deleted_topic_names_the_new_one_of_that_name(broker: Broker) -> None:
    partition = broker.create_topic("t")[0]
    broker.delete_topic("t")
    with pytest.raises(UnknownTopicError, match="no topic 't'"):
        partition.append(b"v")
    broker.create_topic("t")
    with pytest.raises(UnknownTopicError, match="another of its name"):
        partition.append(b"v")
    broker.delete_topic("t")
    with pytest.raises(UnknownTopicError, match="no topic 't'"):
        broker.topic("t")


@pytest.mark.parametrize("made_again", [False, True])
def test_a_deletion_survives_reopening(log_path: Path, made_again: bool) -> None:
    with Broker(log_path) as broker:
        kept = broker.create_topic("kept").id
        deleted = broker.create_topic("t", partitions=3)
        deleted[2].append(b"old")
        broker.delete_topic("t")
        if made_again:
            broker.create_topic("t")
    with Broker(log_path) as broker:
        assert broker.recovery.ok
        assert list(broker.topics) == (["kept", "t"] if made_again else ["kept"])
        assert broker.topic("kept").id == kept
        if made_again:
            assert broker.topic("t").id != deleted.id
            assert (len(broker.topic("t")), broker.topic("t")[0].end_offset) == (1, 0)


@pytest.mark.parametrize("made_again", [False, True])
def test_deleting_a_topic_under_appending_threads_harms_nothing_else(
    location: Any, made_again: bool
) -> None:
    with Broker(location, segment_bytes=256) as broker:
        partition = broker.create_topic("t")[0]
        bystander = broker.create_topic("bystander")[0]
        started = threading.Barrier(5)
        ends: list[type[BaseException]] = []

        def append() -> None:
            partition.append(b"v")
            started.wait()
            try:
                while True:
                    partition.append(b"v" * 50)
                    bystander.append(b"b" * 50)
            except BaseException as error:
                ends.append(type(error))

        threads = [threading.Thread(target=append) for _ in range(4)]
        for thread in threads:
            thread.start()
        started.wait()
        broker.delete_topic("t")
        if made_again:
            broker.create_topic("t")
        for thread in threads:
            thread.join()
        bystander.check()
        assert len(list(bystander)) == bystander.end_offset
        assert list(broker.topics) == (["bystander", "t"] if made_again else ["bystander"])
        assert [broker.topics[name][0].end_offset for name in list(broker.topics)[1:]] in ([], [0])
        assert ends == [UnknownTopicError] * 4


def test_a_topic_is_a_sequence_of_its_partitions(broker: Broker) -> None:
    topic = broker.create_topic("t", partitions=3)
    assert topic.name == "t"
    assert len(topic) == 3
    assert type(topic.partitions) is tuple
    assert [(p.topic, p.index) for p in topic] == [("t", 0), ("t", 1), ("t", 2)]
    assert [p.index for p in topic.partitions] == [topic[i].index for i in range(3)] == [0, 1, 2]
    assert len(broker.create_topic("single")) == 1


@pytest.mark.parametrize("index", [3, 10**20])
def test_a_partition_that_is_not_there_is_an_unknown_partition_error(
    broker: Broker, index: int
) -> None:
    with pytest.raises(UnknownPartitionError):
        broker.create_topic("t", partitions=3)[index]


def test_the_id_of_a_topic_is_a_uuid_of_its_own_and_survives_reopening(log_path: Path) -> None:
    with Broker(log_path) as broker:
        ids = [str(broker.create_topic(name).id) for name in ("a", "b")]
    assert len({uuid.UUID(text) for text in ids}) == 2
    with Broker(log_path) as broker:
        assert [str(broker.topic(name).id) for name in ("a", "b")] == ids


def test_partitions_are_only_ever_added_and_nothing_moves(log_path: Path) -> None:
    with Broker(log_path) as broker:
        topic = broker.create_topic("t", partitions=2)
        old = topic.partitions
        old[0].append(b"0")
        old[1].append(b"1")
        topic.add_partitions(5)
        for wrong in (4, 1, 0, -1):
            with pytest.raises(InvalidPartitionsError):
                topic.add_partitions(wrong)
        assert len(topic) == len(broker.topic("t")) == 5
        assert [len(partition) for partition in topic] == [1, 1, 0, 0, 0]
        assert topic[4].append(b"4") == 0
        assert old[0].append(b"still there") == 1
    with Broker(log_path) as broker:
        assert broker.recovery.ok
        assert [len(partition) for partition in broker.topic("t")] == [2, 1, 0, 0, 1]


KEYS = [b"", b"\0", b"k", *(b"key-%d" % n for n in range(60))]


def test_a_key_always_goes_to_the_same_partition(
    log_path: Path, run_python: Callable[..., str]
) -> None:
    with Broker(log_path) as broker:
        topic = broker.create_topic("t", partitions=7)
        here = [topic.partition_for(key) for key in KEYS]
        assert set(here) == set(range(7))
        assert here == [zlib.crc32(key) % 7 for key in KEYS]
        with Producer(broker) as producer:
            assert here == [producer.send("t", b"v", key=key).partition for key in KEYS]
        with pytest.raises(TypeError, match=r"encode|serializer"):
            topic.partition_for("text")  # type: ignore[arg-type]
    printed = run_python(
        "import sys, minilog, ast\n"
        "with minilog.Broker(sys.argv[1]) as broker:\n"
        "    print([broker.topic('t').partition_for(k) for k in ast.literal_eval(sys.argv[2])])",
        log_path,
        KEYS,
    )
    assert printed.strip() == str(here)


def test_settings_come_from_the_call_then_the_broker_then_the_defaults(location: Any) -> None:
    with Broker(location, segment_bytes=1024, max_record_bytes=2000) as broker:
        config = broker.create_topic("t", segment_bytes=512).config
        assert isinstance(config, TopicConfig)
        assert (config.segment_bytes, config.max_record_bytes) == (512, 2000)
        assert config.retention_ms == -1
        assert broker.create_topic("u").config.segment_bytes == 1024


def test_configuring_works_at_once_and_is_kept_over_reopening(log_path: Path) -> None:
    settings = {
        "segment_bytes": 512,
        "max_record_bytes": 10,
        "index_interval_bytes": 100,
        "timestamp_type": "append",
    }
    with Broker(log_path) as broker:
        topic, bystander = broker.create_topic("t", max_record_bytes=100), broker.create_topic("u")
        topic[0].append(b"v" * 100)
        topic.configure(**settings)
        topic.configure()
        topic.configure(segment_ms=1000)
        for partition in (topic[0], broker.topic("t")[0]):
            with pytest.raises(RecordTooLargeError):
                partition.append(b"v" * 11)
        untouched = bystander.config
    with Broker(log_path, segment_bytes=4096) as broker:
        config = broker.topic("t").config
        assert {name: getattr(config, name) for name in settings} == settings
        assert config.segment_ms == 1000
        assert untouched.max_record_bytes == broker.topic("u").config.max_record_bytes
        with pytest.raises(RecordTooLargeError):
            broker.topic("t")[0].append(b"v" * 11)


def test_one_wrong_setting_among_good_ones_changes_nothing(broker: Broker) -> None:
    topic = broker.create_topic("t")
    before = topic.config
    for wrong in ({"retention_ms": "x"}, {"invented": 1}):
        with pytest.raises(ConfigError):
            topic.configure(segment_bytes=512, **wrong)
        assert topic.config == before


def test_a_topic_config_cannot_be_changed_behind_the_topic(broker: Broker) -> None:
    topic = broker.create_topic("t", segment_bytes=512)
    with contextlib.suppress(AttributeError, TypeError, dataclasses.FrozenInstanceError):
        topic.config.segment_bytes = 1024  # type: ignore[misc]
    assert topic.config.segment_bytes == 512
