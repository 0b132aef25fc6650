"""What goes for its age or size, what is kept for groups, and what deleting before an offset does.

Written from the public face, but for one seam: what the groups have consumed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minilog
from minilog import (
    Broker,
    ConfigError,
    Consumer,
    GroupError,
    InvalidRecordError,
    OffsetOutOfRangeError,
    Partition,
)
from minilog.hosting import Hosting
from minilog.testing import ManualClock

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 1_700_000_000_000


@pytest.fixture
def broker_at(location: Path | str, clock: ManualClock) -> Callable[..., Broker]:
    """Opens a broker by a clock that is turned by hand."""
    opened: list[Broker] = []

    def open_broker(**settings: Any) -> Broker:
        opened.append(Broker(location, clock=clock, **settings))
        return opened[-1]

    return open_broker


def filled(broker: Broker, count: int = 40, **settings: Any) -> Partition:
    """Return a partition of tiny segments with so many records."""
    partition = broker.create_topic("t", segment_bytes=256, **settings)[0]
    for number in range(count):
        partition.append(b"record %d" % number)
    return partition


def values_of(partition: Partition) -> list[bytes | None]:
    return [record.value for record in partition]


def test_by_default_nothing_is_ever_forgotten(
    broker_at: Callable[..., Broker], clock: ManualClock
) -> None:
    with broker_at() as broker:
        partition = filled(broker)
        clock.advance(10_000 * DAY_MS)
        broker.maintain()
        assert partition.start_offset == 0
        assert len(values_of(partition)) == 40


def test_turning_the_clock_past_retention_ms_expires_everything(
    broker_at: Callable[..., Broker], clock: ManualClock
) -> None:
    with broker_at(retention_ms=HOUR_MS) as broker:
        partition = filled(broker)
        clock.advance(HOUR_MS)
        assert partition.start_offset == 0
        clock.advance(1)
        assert (partition.start_offset, partition.end_offset) == (40, 40)
        assert len(partition) == 0
        assert partition.append(b"again") == 40
        assert values_of(partition) == [b"again"]
        partition.check()


def test_with_maintenance_interval_0_only_maintain_expires(
    broker_at: Callable[..., Broker], clock: ManualClock
) -> None:
    with broker_at(retention_ms=HOUR_MS, maintenance_interval_ms=0) as broker:
        partition = filled(broker)
        clock.advance(2 * HOUR_MS)
        assert partition.start_offset == 0
        broker.maintain()
        assert partition.start_offset == 40


def test_whole_segments_go_oldest_first(
    broker_at: Callable[..., Broker], clock: ManualClock
) -> None:
    with broker_at(retention_ms=HOUR_MS) as broker:
        partition = filled(broker, 20)
        clock.advance(HOUR_MS // 2)
        for number in range(20, 40):
            partition.append(b"record %d" % number)
        clock.advance(HOUR_MS // 2 + 1)
        start = partition.start_offset
        assert 0 < start <= 20
        assert values_of(partition) == [b"record %d" % number for number in range(start, 40)]
        partition.check()


def test_a_segment_is_judged_by_its_largest_timestamp_and_those_behind_it_wait(
    broker_at: Callable[..., Broker], clock: ManualClock
) -> None:
    with broker_at(retention_ms=HOUR_MS) as broker:
        partition = broker.create_topic("t", segment_bytes=256)[0]
        for number in range(40):
            stamp = START_MS if number == 20 else START_MS - 2 * HOUR_MS
            partition.append(b"record %d" % number, timestamp=stamp)
        broker.maintain()
        start = partition.start_offset
        assert 10 < start <= 20
        clock.advance(HOUR_MS)
        assert partition.start_offset == start
        clock.advance(1)
        assert partition.start_offset == 40


def test_a_timestamp_in_the_future_does_not_hold_its_segment_for_ever(
    broker_at: Callable[..., Broker], clock: ManualClock
) -> None:
    with broker_at(retention_ms=HOUR_MS) as broker:
        partition = broker.create_topic("t", segment_bytes=256)[0]
        partition.append(b"from the future", timestamp=START_MS + 1000 * DAY_MS)
        for _ in range(20):
            partition.append(b"x" * 20)
        clock.advance(HOUR_MS + 1)
        assert partition.start_offset == 21


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_timestamp_in_the_future_expires_after_reopening_too(
    tmp_path: Path, clock: ManualClock, is_closed: bool
) -> None:
    import shutil

    path = tmp_path / "log"
    broker = Broker(path, clock=clock, retention_ms=HOUR_MS, maintenance_interval_ms=0)
    partition = broker.create_topic("t")[0]
    partition.append(b"old")
    clock.advance(20 * HOUR_MS)
    partition.append(b"from the future", timestamp=START_MS + 1000 * DAY_MS)
    if is_closed:
        broker.close()
    shutil.copytree(path, tmp_path / "copy")
    broker.close()
    with Broker(tmp_path / "copy", clock=clock) as broker:
        partition = broker.topic("t")[0]
        clock.advance(HOUR_MS)
        assert partition.start_offset == 0, "the last append was an hour ago, not more"
        clock.advance(1)
        assert partition.start_offset == 2


def test_timestamp_after_max_ms_refuses_what_is_further_ahead(
    broker_at: Callable[..., Broker],
) -> None:
    with broker_at(timestamp_after_max_ms=1000) as broker:
        partition = broker.create_topic("t")[0]
        partition.append(b"x", timestamp=START_MS + 1000)
        with pytest.raises(InvalidRecordError, match="timestamp_after_max_ms"):
            partition.append(b"x", timestamp=START_MS + 1001)
        assert partition.end_offset == 1


def test_retention_bytes_keeps_at_least_that_much(
    broker_at: Callable[..., Broker], clock: ManualClock
) -> None:
    with broker_at(retention_bytes=1000) as broker:
        partition = filled(broker, 100)
        broker.maintain()
        kept = len(partition)
        assert partition.start_offset == 100 - kept
        assert 1000 <= kept * 56 + 64 * 8 <= 2000
        before = partition.start_offset
        broker.maintain()
        assert partition.start_offset == before
        assert values_of(partition)[-1] == b"record 99"


def test_retention_bytes_0_empties_the_partition(broker_at: Callable[..., Broker]) -> None:
    with broker_at() as broker:
        partition = filled(broker)
        broker.topic("t").configure(retention_bytes=0)
        broker.maintain()
        assert partition.start_offset == partition.end_offset == 40
        broker.maintain()
        assert partition.append(b"x") == 40


def test_offsets_never_come_again_after_everything_expired(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "log"
    with Broker(path, clock=clock, retention_ms=HOUR_MS) as broker:
        filled(broker)
        clock.advance(DAY_MS)
    for _ in range(2):
        with Broker(path, clock=clock) as broker:
            partition = broker.topic("t")[0]
            assert (partition.start_offset, partition.end_offset) == (40, 40)
    assert minilog.verify(path).ok
    with Broker(path, clock=clock) as broker:
        assert broker.topic("t")[0].append(b"x") == 40


def test_what_was_closed_long_ago_expires_without_being_used(
    tmp_path: Path, clock: ManualClock
) -> None:
    with Broker(tmp_path / "log", clock=clock, retention_ms=HOUR_MS) as broker:
        filled(broker)
    clock.advance(DAY_MS)
    with Broker(tmp_path / "log", clock=clock) as broker:
        broker.maintain()
        assert broker.topic("t")[0].start_offset == 40
    assert len(list((tmp_path / "log" / "t" / "0").glob("*.log"))) == 1


def test_the_files_of_what_expired_are_gone(tmp_path: Path, clock: ManualClock) -> None:
    with Broker(tmp_path / "log", clock=clock, retention_ms=HOUR_MS) as broker:
        filled(broker, index_interval_bytes=64)
        before = set((tmp_path / "log" / "t" / "0").iterdir())
        clock.advance(DAY_MS)
        after = set((tmp_path / "log" / "t" / "0").iterdir())
        assert not before & after
        assert [path.suffix for path in after] == [".log"]


def test_a_reader_in_the_middle_keeps_what_it_read_and_is_told(
    broker_at: Callable[..., Broker], clock: ManualClock
) -> None:
    with broker_at(retention_ms=HOUR_MS) as broker:
        partition = filled(broker)
        held = partition.read(0, max_records=25)
        clock.advance(DAY_MS)
        assert list(held.values) == [b"record %d" % number for number in range(25)]
        with pytest.raises(OffsetOutOfRangeError) as caught:
            partition.read(25)
        assert (caught.value.start_offset, caught.value.end_offset) == (40, 40)


def test_a_consumer_in_the_middle_goes_on_where_its_reset_policy_says(
    broker_at: Callable[..., Broker], clock: ManualClock
) -> None:
    with broker_at(retention_ms=HOUR_MS) as broker:
        partition = filled(broker)
        earliest = Consumer(broker, "t", max_poll_records=5)
        strict = Consumer(broker, "t", max_poll_records=5, auto_offset_reset="none")
        strict.seek(("t", 0), 3)
        assert len(earliest.poll()) == len(strict.poll()) == 5
        clock.advance(DAY_MS)
        partition.append(b"afterwards")
        assert list(earliest.poll().values) == [b"afterwards"]
        with pytest.raises(OffsetOutOfRangeError):
            strict.poll()


def test_deleting_before_an_offset_makes_it_the_first(broker_at: Callable[..., Broker]) -> None:
    with broker_at() as broker:
        partition = filled(broker)
        partition.delete_before(17)
        assert partition.start_offset == 17
        assert len(partition) == 23
        assert values_of(partition)[0] == b"record 17"
        partition.delete_before(3)
        assert partition.start_offset == 17
        with pytest.raises(OffsetOutOfRangeError):
            partition.delete_before(41)
        partition.delete_before(40)
        assert values_of(partition) == []
        assert partition.append(b"x") == 40
        partition.check()


@pytest.mark.parametrize(
    "given", ["billing", 5, None, [1], [""], ["x" * 250], {"billing"}, [b"billing"]]
)
def test_retain_until_consumed_takes_group_names(
    broker_at: Callable[..., Broker], given: Any
) -> None:
    with broker_at() as broker:
        with pytest.raises(ConfigError, match="retain_until_consumed"):
            broker.create_topic("t", retain_until_consumed=given)
        assert not broker.topics


def test_retain_until_consumed_is_kept_across_reopening(tmp_path: Path) -> None:
    with Broker(tmp_path / "log") as broker:
        topic = broker.create_topic("t", retain_until_consumed=["a", "b", "a"])
        assert topic.config.retain_until_consumed == ("a", "b")
        topic.configure(retention_ms=1)
    with Broker(tmp_path / "log") as broker:
        assert broker.topic("t").config.retain_until_consumed == ("a", "b")


def test_what_a_group_has_not_consumed_is_kept_however_old(
    broker_at: Callable[..., Broker], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    floors: dict[str, int | None] = {"a": None}
    monkeypatch.setattr(
        Hosting, "committed_floor", lambda hosting, topic, partition, names: floors[names[0]]
    )
    with broker_at(retention_ms=HOUR_MS, retain_until_consumed=("a",)) as broker:
        partition = filled(broker)
        clock.advance(DAY_MS)
        assert partition.start_offset == 0, "the group has committed nothing"
        floors["a"] = 23
        broker.maintain()
        assert 17 < partition.start_offset <= 23
        floors["a"] = 40
        broker.maintain()
        assert partition.start_offset == 40
        assert broker.housekeeping_errors == ()


def test_retention_bytes_wins_over_a_slow_group_and_says_so(
    broker_at: Callable[..., Broker], clock: ManualClock
) -> None:
    with broker_at(retention_bytes=1000, retain_until_consumed=["slow"]) as broker:
        partition = filled(broker, 100)
        clock.advance(1)
        start = partition.start_offset
        assert start > 50
        (error,) = broker.housekeeping_errors
        assert isinstance(error, GroupError)
        assert f"offsets 0 to {start} " in str(error)
        assert "'slow'" in str(error)


def test_a_compacted_topic_does_not_expire_unless_told(
    broker_at: Callable[..., Broker], clock: ManualClock
) -> None:
    with broker_at(retention_ms=HOUR_MS, segment_bytes=256) as broker:
        partition = broker.create_topic("t", cleanup_policy="compact")[0]
        partition.append(b"x", key=b"k")
        clock.advance(DAY_MS)
        assert partition.start_offset == 0
        broker.topic("t").configure(cleanup_policy="compact,delete")
        clock.advance(1)
        assert partition.start_offset == 1


def test_a_damaged_segment_expires_with_the_one_behind_it(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "log"
    with Broker(path, clock=clock, segment_bytes=256, sync="never") as broker:
        partition = broker.create_topic("t")[0]
        for number in range(20):
            partition.append(b"record %d" % number)
            clock.advance(60_000)
    damaged = sorted((path / "t" / "0").glob("*.log"))[1]
    data = bytearray(damaged.read_bytes())
    data[-20] ^= 0xFF  # its seal
    damaged.write_bytes(data)
    bases = [int(each.stem) for each in sorted((path / "t" / "0").glob("*.log"))]
    with Broker(path, clock=clock) as broker:
        partition = broker.topic("t")[0]
        age_of_second = clock.now_ms() - (START_MS + 60_000 * (bases[2] - 1))
        broker.topic("t").configure(retention_ms=age_of_second - 1)
        broker.maintain()
        assert partition.start_offset == bases[1]
        age_of_third = clock.now_ms() - (START_MS + 60_000 * (bases[3] - 1))
        broker.topic("t").configure(retention_ms=age_of_third - 1)
        broker.maintain()
        assert partition.start_offset == bases[3]


def test_many_segments_are_judged_without_mapping_them(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "log"
    with Broker(path, clock=clock) as broker:
        partition = filled(broker, 400)
        assert len(list((path / "t" / "0").glob("*.log"))) > 80
    with Broker(path, clock=clock) as broker:
        partition = broker.topic("t")[0]
        clock.advance(HOUR_MS)
        broker.topic("t").configure(retention_ms=1)
        broker.maintain()
        assert partition.start_offset == 400
        assert len(list((path / "t" / "0").glob("*.log"))) == 1


def test_errors_of_housekeeping_are_kept_and_it_goes_on(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker(tmp_path / "log", clock=clock, retention_ms=HOUR_MS) as broker:
        first = filled(broker)
        second = broker.create_topic("u")[0]
        second.append(b"x")

        def fails(offset: int, now_ms: int) -> None:
            raise OSError(28, "no space left on device")

        monkeypatch.setattr(first, "_raise_start", fails)
        clock.advance(2 * HOUR_MS)
        assert [str(error) for error in broker.housekeeping_errors] == [
            "[Errno 28] no space left on device"
        ]
        assert second.start_offset == 1
        monkeypatch.undo()
        clock.advance(1)
        assert first.start_offset == 40


def test_a_thread_is_started_for_a_topic_that_expires_and_ends_with_the_broker(
    tmp_path: Path,
) -> None:
    import threading

    def housekeepers() -> int:
        return sum(thread.name == "minilog" for thread in threading.enumerate())

    before = housekeepers()
    with Broker(tmp_path / "log", sync="never") as broker:
        broker.create_topic("t")
    with Broker(tmp_path / "log", sync="never") as broker:
        assert housekeepers() == before, "there is nothing to do"
        broker.topic("t").configure(retention_ms=1)
        assert housekeepers() == before + 1
    assert housekeepers() == before
    with Broker(tmp_path / "log", sync="never"):
        assert housekeepers() == before + 1, "it is needed before anything is written"
    with Broker(tmp_path / "log", sync="never", maintenance_interval_ms=0):
        assert housekeepers() == before
    with Broker(tmp_path / "log", read_only=True):
        assert housekeepers() == before
