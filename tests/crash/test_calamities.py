"""What the crash states have found in the code, each by the calamity it needs: one way, by hand.

Every one of them lost records, or called what was whole damaged, or never returned; the last was
planted, and is too rare for them to find it quickly.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from minilog import Broker, verify
from minilog.testing import CrashPlan, ManualClock, SimulatedDisk
from minilog.testing.crashes import SECTOR
from minilog.testing.trace import RENAME, Operation

SMALL = {"segment_bytes": 256, "index_interval_bytes": 64}
Loses = Callable[[Operation], bool]


def opened(disk: SimulatedDisk, sync: str = "never") -> Broker:
    return Broker(disk, sync=sync, clock=ManualClock(1000), maintenance_interval_ms=0)  # type: ignore[arg-type]


def values_of(broker: Broker) -> list[bytes | None]:
    return [record.value for record in broker.topic("t")[0]]


def cut_power(disk: SimulatedDisk, loses: Loses, at: int | None = None) -> SimulatedDisk:
    """Cut the power, losing of what was not synced the operations that ``loses`` names."""
    at = len(disk.operations) if at is None else at
    timeline = disk.timeline()
    for operation in disk.operations[:at]:
        timeline.advance(operation)
    lost = frozenset(number for number, op in timeline.pending.items() if loses(op))
    return disk.after(timeline, CrashPlan(at, lost=lost))


def in_segment(base: int) -> Loses:
    return lambda operation: operation.path.endswith(f"{base:020d}.log")


def filled(disk: SimulatedDisk, count: int, sync: str = "never") -> Broker:
    """Return a broker that has put two records into every segment but the last."""
    broker = opened(disk, sync)
    topic = broker.create_topic("t", **SMALL)
    for number in range(count):
        topic[0].append(b"%d" % number * 20)
    return broker


def expected(count: int) -> list[bytes]:
    return [b"%d" % number * 20 for number in range(count)]


def test_a_segment_that_lost_its_header_does_not_vouch_for_the_one_before() -> None:
    """A roll, and power is cut before anything is synced. Of the new segment only the name is on
    the disk: its unreadable header counted as saying that all before was synced, so the first
    segment's lost records were corruption for ever."""
    disk = SimulatedDisk()
    filled(disk, 5)
    crashed = cut_power(disk, lambda operation: not operation.edits)
    with opened(crashed) as broker:
        assert values_of(broker) == []
        assert broker.topic("t")[0].append(b"on") == 0
    assert verify(crashed).ok


def test_a_new_partitions_header_is_on_the_disk_before_a_clean_close_says_so() -> None:
    """A topic was made and the broker closed without using it; the power cut that followed took
    the header, and the clean mark said that nothing need be looked at."""
    disk = SimulatedDisk()
    with opened(disk) as broker:
        broker.create_topic("t")
    crashed = cut_power(disk, lambda operation: True)
    with opened(crashed) as broker:
        broker.topic("t")[0].append(b"x")
        broker.topic("t")[0].check()
    assert verify(crashed).ok, str(verify(crashed))


@pytest.mark.parametrize("sync", ["never", "always"])
def test_what_a_killed_process_left_in_the_cache_is_synced_before_it_counts_as_synced(
    sync: str,
) -> None:
    """Killed with five unsynced segments. The next process synced the last one alone, called the
    whole log synced, and acknowledged a record with ``sync="always"`` behind records that a power
    cut then took."""
    disk = SimulatedDisk()
    filled(disk, 9).refuse_in_child()
    killed = disk.kill()
    broker = opened(killed, sync)
    broker.topic("t")[0].append(b"acknowledged")
    if sync == "never":
        broker.flush()
    crashed = killed.crash()
    with opened(crashed) as broker:
        assert values_of(broker) == [*expected(9), b"acknowledged"]


def test_a_kill_in_the_middle_of_recovery_does_not_hide_the_power_cut() -> None:
    """A power cut tore the first of three segments; the process that recovered was killed before
    it did anything, in the same boot as the next, which therefore took the page cache for whole."""
    disk = SimulatedDisk()
    filled(disk, 5)
    crashed = cut_power(disk, in_segment(0))
    straight = crashed.crash(CrashPlan(0))
    with opened(straight) as broker:
        found = values_of(broker)
        assert not broker.recovery.ok
    with opened(crashed):
        operations = len(crashed.operations)
    for at in range(operations):
        killed = crashed.crash(CrashPlan(at, is_power_cut=False))
        with opened(killed) as broker:
            assert values_of(broker) == found, f"killed after {at} operations"


def test_a_dropped_segment_that_comes_back_is_no_gap() -> None:
    """Of the segments that were deleted the oldest came back after a power cut, and the others
    did not: what follows such a gap went to quarantine, synced or not."""
    disk = SimulatedDisk()
    broker = filled(disk, 9)
    broker.topic("t")[0].delete_before(6)
    crashed = cut_power(disk, in_segment(0))
    names = crashed.root_directory().child("t").child("0").names()
    assert f"{0:020d}.log" in names
    assert f"{2:020d}.log" not in names
    with opened(crashed) as broker:
        assert broker.recovery.ok, str(broker.recovery)
        assert values_of(broker) == expected(9)[6:]
        broker.topic("t")[0].check()
    assert f"{0:020d}.log" not in crashed.root_directory().child("t").child("0").names()
    assert verify(crashed).ok


def test_a_seal_that_was_never_synced_is_not_taken_for_synced() -> None:
    """Every record was synced, so the new segment's header said that all before it was; the seal
    that had just been written there was not, and its loss passed for damage."""
    disk = SimulatedDisk()
    broker = filled(disk, 2, "always")
    with_seal = len(disk.operations)
    broker.topic("t")[0].append(b"rolls" * 20)
    made = next(
        number
        for number, operation in enumerate(disk.operations[with_seal:], with_seal)
        if operation.path.endswith(f"{2:020d}.log")
    )
    crashed = cut_power(disk, in_segment(0), at=made + 2)
    with opened(crashed) as broker:
        assert values_of(broker) == expected(2)
        broker.topic("t")[0].check()
        assert broker.topic("t")[0].append(b"on") == 2
    assert verify(crashed).ok, str(verify(crashed))


@pytest.mark.parametrize("sync", ["never", "interval", "always"])
def test_a_clean_close_is_clean_where_nothing_can_be_reserved(sync: str) -> None:
    """Where space cannot be reserved a file ended with its last frame, without the padding the
    clean mark counted: every opening reported bytes that were gone, and went on in a new file."""
    disk = SimulatedDisk(can_reserve=False)
    with opened(disk, sync) as broker:
        broker.create_topic("t")[0].append(b"x")
    with opened(disk, sync) as broker:
        assert broker.recovery.ok, str(broker.recovery)
        assert broker.topic("t")[0].append(b"y") == 1
    assert verify(disk).ok, str(verify(disk))


@pytest.mark.parametrize("garbage", [1, 2, 3])
def test_an_index_full_of_garbage_is_made_anew(garbage: int) -> None:
    """The index files had their size on the disk and not their bytes. Opening did not return:
    looking for an entry below a position, it was handed the same one behind it again and again;
    where it did return, the garbage stayed among the entries."""
    disk = SimulatedDisk()
    broker = opened(disk)
    partition = broker.create_topic("t", segment_bytes=100_000, index_interval_bytes=64)[0]
    for number in range(150):
        partition.append(b"%d" % number * 5)
    at = len(disk.operations)
    timeline = disk.timeline()
    for operation in disk.operations:
        timeline.advance(operation)
    lost = frozenset(
        n for n, op in timeline.pending.items() if op.path.endswith("index") and op.data
    )
    some = frozenset(n for n in lost if n % (garbage + 1))
    crashed = disk.after(timeline, CrashPlan(at, lost=some, garbage=garbage))
    with opened(crashed) as broker:
        partition = broker.topic("t")[0]
        assert partition.end_offset == 150
        assert [partition.read(n)[0].offset for n in range(150)] == list(range(150))
    assert verify(crashed).ok, str(verify(crashed))


@pytest.mark.parametrize("change", ["create", "add partitions"])
def test_a_change_of_topics_that_a_kill_cut_off_is_synced_before_it_is_built_upon(
    change: str,
) -> None:
    """Killed between a rename and the sync of its directory. The next process saw the topic or
    partition, acknowledged a record in it with ``sync="always"``, and a power cut took it all."""
    disk = SimulatedDisk()
    broker = opened(disk)
    broker.create_topic("other")
    began = len(disk.operations)
    if change == "create":
        broker.create_topic("t", 2)
    else:
        broker.topic("other").add_partitions(2)
    renames = [n for n, op in enumerate(disk.operations) if n >= began and op.kind == "rename"]
    killed = disk.crash(CrashPlan(renames[-1] + 1, is_power_cut=False))
    broker = opened(killed, "always")
    name = "t" if change == "create" else "other"
    broker.topic(name)[1].append(b"acknowledged")
    with opened(killed.crash()) as broker:
        assert [record.value for record in broker.topic(name)[1]] == [b"acknowledged"]


def test_what_was_removed_again_is_gone_before_a_clean_mark_vouches_for_the_rest() -> None:
    """A power cut brought back a deleted segment; opening removed it again, and the close that
    followed was marked clean while that was in the cache alone. The next power cut brought it back
    once more, and after a clean close nobody looks."""
    disk = SimulatedDisk()
    broker = filled(disk, 9)
    broker.topic("t")[0].delete_before(6)
    crashed = cut_power(disk, in_segment(0))
    opened(crashed).close()
    again = cut_power(crashed, lambda operation: True)
    with opened(again) as broker:
        assert broker.recovery.ok
        broker.topic("t")[0].check()
        assert values_of(broker) == expected(9)[6:]
    assert verify(again).ok


def test_a_header_written_again_after_a_kill_does_not_say_more_than_is_so() -> None:
    """Killed while a segment was made, with unsynced records before it. Its header was written
    anew, and said that all before it was synced: after a power cut the lost records passed for
    corruption."""
    disk = SimulatedDisk()
    broker = filled(disk, 2)
    began = len(disk.operations)
    broker.topic("t")[0].append(b"rolls" * 20)
    made = next(
        number
        for number, operation in enumerate(disk.operations[began:], began)
        if operation.path.endswith(f"{2:020d}.log")
    )
    killed = disk.crash(CrashPlan(made + 1, is_power_cut=False))
    opened(killed).refuse_in_child()
    crashed = cut_power(killed, lambda operation: in_segment(0)(operation))
    with opened(crashed) as broker:
        assert values_of(broker) == []
        broker.topic("t")[0].append(b"on")
    assert verify(crashed).ok


def test_a_deletion_that_a_kill_cut_off_does_not_come_back_without_its_files() -> None:
    """Killed when a topic was out of sight and that was not synced. The next opening removed its
    files; a power cut brought the topic back, without its settings: damaged for ever."""
    disk = SimulatedDisk()
    with opened(disk) as broker:
        broker.create_topic("t")[0].append(b"x")
    broker = opened(disk)
    began = len(disk.operations)
    broker.delete_topic("t")
    renamed = next(n for n, op in enumerate(disk.operations) if n >= began and op.kind == "rename")
    killed = disk.crash(CrashPlan(renamed + 1, is_power_cut=False))
    opened(killed).refuse_in_child()
    for at in range(len(killed.operations) + 1):
        timeline = killed.timeline()
        for operation in killed.operations[:at]:
            timeline.advance(operation)
        lost = frozenset(n for n, op in timeline.pending.items() if op.kind == "rename")
        with opened(killed.after(timeline, CrashPlan(at, lost=lost))) as broker:
            assert broker.recovery.ok, f"{at}: {broker.recovery}"


def test_what_compaction_replaced_is_removed_when_the_replacement_is_durable() -> None:
    """Killed when a compacted segment had the name of the first it stands for, which was not
    synced. The next opening removed the others; a power cut took the name back, and synced records
    were gone."""
    disk = SimulatedDisk()
    broker = opened(disk)
    topic = broker.create_topic("t", cleanup_policy="compact", **SMALL)
    for keys in ("abacab", "ab"):  # a segment each
        for number, key in enumerate(keys):
            topic[0].append(b"%d" % number * 60, key=key.encode())
        began = len(disk.operations)
        topic.compact()
    before = {record.key: record.value for record in topic[0]}
    renames = [n for n, op in enumerate(disk.operations) if n >= began and is_replacement(op)]
    assert renames
    for rename in renames:
        killed = disk.crash(CrashPlan(rename + 1, is_power_cut=False))
        opened(killed).refuse_in_child()
        for at in range(killed.inherited_count, len(killed.operations) + 1):
            with opened(cut_power(killed, is_replacement, at)) as broker:
                latest = {record.key: record.value for record in broker.topic("t")[0]}
            assert latest == before, f"cut after {at} operations"


def is_replacement(operation: Operation) -> bool:
    return operation.kind is RENAME and operation.path.endswith(".log~")


def test_a_dropped_tail_does_not_come_back_behind_the_next_record() -> None:
    """A power cut took the second of four records of one size; the next opening dropped the rest
    and appended another in its place. Another cut must not leave that one and the old ones."""
    disk = SimulatedDisk()
    with opened(disk) as broker:
        broker.create_topic("t")
    sizes = [SECTOR - 64 - 40] + [SECTOR - 40] * 4  # each in a sector of its own
    values = [b"%d" % number * size for number, size in enumerate(sizes)]
    broker = opened(disk)
    for value in values[:4]:
        broker.topic("t")[0].append(value)
    crashed = cut_power(disk, lambda operation: values[1] in operation.data)
    broker = opened(crashed)
    assert values_of(broker) == values[:1]
    assert not broker.recovery.ok
    broker.topic("t")[0].append(values[4])
    timeline = crashed.timeline()
    for operation in crashed.operations:
        timeline.advance(operation)
    zeros = [n for n, op in timeline.pending.items() if op.data and not any(op.data)]
    assert zeros
    torn = tuple((number, 0, SECTOR) for number in zeros)  # the sector of the new record alone
    again = crashed.after(timeline, CrashPlan(timeline.at, torn=torn))
    with opened(again) as broker:
        assert values_of(broker) == [values[0], values[4]]
