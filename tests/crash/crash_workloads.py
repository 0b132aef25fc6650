"""The workloads whose every crash is tried: small, each about one thing that can go wrong.

How to add one is told in ``story.py``. They refuse to know what is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from story import Story, Told, Workload

WORKLOADS: list[Told] = []


def workload(sync: str = "never", **settings: Any) -> Callable[[Workload], Workload]:
    """Have a story told under these settings of the broker."""

    def enter(tell: Workload) -> Workload:
        given = {"segment_bytes": 2048, "index_interval_bytes": 64, **settings}
        WORKLOADS.append(Told(tell.__name__, {"sync": sync, **given}, tell))
        return tell

    return enter


# ---------------------------------------------------------------- appending


@workload()
def appends_one_by_one_unsynced(story: Story) -> None:
    story.create("t")
    for _ in range(6):
        story.append("t")


@workload(sync="always")
def appends_one_by_one_synced(story: Story) -> None:
    story.create("t")
    for _ in range(5):
        story.append("t")


@workload(sync="interval")
def appends_synced_every_second(story: Story) -> None:
    story.create("t")
    for _ in range(3):
        story.append("t")
        story.append("t")
        story.tick()
    story.append("t")


@workload()
def appends_batches_unsynced(story: Story) -> None:
    story.create("t")
    for count in (1, 5, 30):
        story.append_many("t", count=count)


@workload(sync="always")
def appends_batches_synced(story: Story) -> None:
    story.create("t")
    for count in (7, 1, 20):
        story.append_many("t", count=count)


@workload(segment_bytes=4096)
def appends_batches_over_many_sectors(story: Story) -> None:
    story.create("t")
    story.append_many("t", count=12, size=100)
    story.append("t", size=700)
    story.flush()
    story.append_many("t", count=8, size=120)
    story.append("t", size=5)


@workload(sync="always", segment_bytes=4096)
def appends_batches_over_many_sectors_synced(story: Story) -> None:
    story.create("t")
    story.append_many("t", count=12, size=100)
    story.append("t", size=700)
    story.append_many("t", count=9, size=90)


@workload()
def appends_keys_headers_and_nulls(story: Story) -> None:
    story.create("t")
    story.append("t", value=None, key=b"k")
    story.append("t", key=b"k" * 30, headers=[("h", b"1"), ("h", None)])
    values = [b"x", None, b"", b"zz"]
    headers = [(), (("a", b"b"),), (), ()]
    story.append_many("t", values=values, keys=[b"1", None, b"", b"22"], headers=headers)
    story.flush()
    story.append("t", headers=[("late", b"")])


@workload()
def appends_zeros(story: Story) -> None:
    """Records that look like space nobody wrote to."""
    story.create("t", index_interval_bytes=0)
    for size in (0, 8, 64, 200):
        story.append("t", value=bytes(size))
    story.append_many("t", values=[bytes(16)] * 6)
    story.append("t", value=bytes(100))


# ---------------------------------------------------------------- rolling


@workload(segment_bytes=256)
def rolls_unsynced(story: Story) -> None:
    story.create("t")
    for _ in range(9):
        story.append("t", size=40)


@workload(sync="always", segment_bytes=256)
def rolls_synced(story: Story) -> None:
    story.create("t")
    for _ in range(6):
        story.append("t", size=40)


@workload(sync="interval", segment_bytes=256)
def rolls_between_syncs(story: Story) -> None:
    story.create("t")
    for _ in range(3):
        for _ in range(3):
            story.append("t", size=40)
        story.tick()


@workload(segment_bytes=1024)
def rolls_batches(story: Story) -> None:
    story.create("t")
    for count in (10, 10, 10):
        story.append_many("t", count=count, size=30)
    story.flush()
    story.append_many("t", count=10, size=30)


@workload(segment_bytes=256)
def rolls_for_records_larger_than_a_segment(story: Story) -> None:
    story.create("t")
    story.append("t", size=5)
    story.append("t", size=900)
    story.append("t", size=5)
    story.append_many("t", count=3, size=600)


@workload(segment_bytes=256, index_interval_bytes=4096)
def rolls_without_an_index(story: Story) -> None:
    story.create("t")
    for _ in range(6):
        story.append("t", size=40)
    story.flush()
    story.append("t", size=40)


@workload(segment_bytes=1024, index_interval_bytes=0)
def fills_an_index(story: Story) -> None:
    story.create("t")
    for _ in range(9):
        story.append("t", size=10)
    story.flush()
    for _ in range(3):
        story.append("t", size=10)


# ---------------------------------------------------------------- several logs


@workload()
def spreads_over_partitions(story: Story) -> None:
    story.create("t", 3)
    for number in (0, 1, 0, 2):
        story.append("t", number)
    story.flush()
    for number in (2, 1):
        story.append("t", number)


@workload(sync="always", segment_bytes=256)
def spreads_over_topics_synced(story: Story) -> None:
    story.create("a")
    story.create("b")
    for name in "abab":
        story.append(name, size=60)


@workload()
def makes_topics_beside_unsynced_records(story: Story) -> None:
    story.create("a")
    story.append("a")
    story.create("b", 2)
    story.append("b", 1)
    story.append("a")
    story.create("minilog.lock")  # set aside, as it is called like a file of ours


@workload()
def deletes_a_topic(story: Story) -> None:
    story.create("t", 2)
    story.append("t", 1)
    story.create("other")
    story.append("other")
    story.delete("t")
    story.append("other")


@workload(sync="always")
def makes_a_deleted_topic_again(story: Story) -> None:
    story.create("t")
    story.append("t", size=20)
    story.append("t", size=20)
    story.delete("t")
    story.create("t")
    story.append("t", size=20)


@workload()
def adds_partitions(story: Story) -> None:
    story.create("t")
    story.append("t")
    story.add_partitions("t", 3)
    story.append("t", 2)
    story.flush()
    story.add_partitions("t", 4)
    story.append("t", 3)


@workload(sync="always")
def changes_settings(story: Story) -> None:
    story.create("t")
    story.append("t")
    story.configure("t", segment_bytes=256)
    story.append("t", size=100)
    story.configure("t", index_interval_bytes=0)
    story.append("t", size=60)


# ---------------------------------------------------------------- deleting records


@workload(segment_bytes=256)
def deletes_the_oldest(story: Story) -> None:
    story.create("t")
    for _ in range(7):
        story.append("t", size=40)
    story.delete_before("t", back=3)
    story.append("t", size=40)
    story.delete_before("t", back=1)


@workload(segment_bytes=256)
def deletes_everything(story: Story) -> None:
    story.create("t")
    for _ in range(5):
        story.append("t", size=40)
    story.delete_before("t")
    story.append("t", size=40)
    story.delete_before("t")
    story.delete_before("t")


@workload(sync="always", segment_bytes=256)
def deletes_and_goes_on_synced(story: Story) -> None:
    story.create("t")
    for _ in range(4):
        story.append("t", size=40)
    story.delete_before("t", back=1)
    story.append("t", size=40)
    story.delete_before("t")
    story.append("t", size=40)


# ---------------------------------------------------------------- closing and opening


@workload()
def opens_and_closes_empty(story: Story) -> None:
    story.reopen()
    story.create("t")
    story.reopen()
    story.reopen()


@workload(segment_bytes=256)
def goes_on_after_a_clean_close(story: Story) -> None:
    story.create("t", 2)
    story.append("t", size=40)
    story.append("t", size=40)
    story.reopen()
    story.append("t", size=40)
    story.append("t", 1)
    story.reopen(sync="always")
    story.append("t", size=40)
    story.append("t", size=40)


@workload(sync="interval", segment_bytes=256)
def changes_the_sync_level(story: Story) -> None:
    story.create("t")
    story.append_many("t", count=3, size=30)
    story.reopen(sync="never")
    story.append("t", size=50)
    story.append("t", size=50)
    story.reopen(sync="always")
    story.append("t", size=50)


@workload(segment_bytes=256)
def rolls_and_closes_at_the_seal(story: Story) -> None:
    story.create("t")
    for _ in range(5):
        story.append("t", size=40)
    story.delete_before("t")
    story.reopen()
    story.append("t", size=40)
    story.reopen()


# ---------------------------------------------------------------- crashing and going on


@workload(segment_bytes=256)
def goes_on_after_a_power_cut(story: Story) -> None:
    story.create("t")
    for _ in range(4):
        story.append("t", size=40)
    story.crash()
    for _ in range(4):
        story.append("t", size=40)
    story.flush()
    story.append("t", size=40)


@workload(sync="always", segment_bytes=256)
def goes_on_synced_after_a_power_cut(story: Story) -> None:
    story.create("t", 2)
    for _ in range(3):
        story.append("t", size=40)
    story.crash()
    for number in (0, 1, 0):
        story.append("t", number, size=40)


@workload(segment_bytes=1024)
def crashes_three_times(story: Story) -> None:
    story.create("t")
    for _ in range(3):
        story.append_many("t", count=4)
        story.append("t", size=300)
        story.crash()
    story.append("t")


@workload(segment_bytes=256)
def goes_on_after_a_kill(story: Story) -> None:
    story.create("t")
    for _ in range(5):
        story.append("t", size=40)
    story.kill()
    story.append("t", size=40)
    story.flush()
    story.append("t", size=40)


@workload(segment_bytes=256)
def is_killed_and_loses_power(story: Story) -> None:
    story.create("t")
    for _ in range(5):
        story.append("t", size=40)
    story.kill()
    story.reopen(sync="always")
    story.append("t", size=40)
    story.kill()
    story.append("t", size=40)
    story.crash()
    story.append("t", size=40)


@workload(segment_bytes=256)
def syncs_always_after_a_kill_of_one_that_never_did(story: Story) -> None:
    story.create("t")
    for _ in range(5):
        story.append("t", size=40)
    story.leg.settings = {**story.leg.settings, "sync": "always"}
    story.kill()
    story.append("t", size=40)
    story.append("t", size=40)


@workload(segment_bytes=256)
def is_killed_before_and_behind_a_clean_close(story: Story) -> None:
    story.create("t")
    story.append("t", size=40)
    story.kill()
    story.append("t", size=40)
    story.reopen()
    story.kill()
    story.append("t", size=60)
    story.append("t", size=60)
    story.crash()


@workload(segment_bytes=256)
def crashes_after_deleting(story: Story) -> None:
    story.create("t")
    for _ in range(6):
        story.append("t", size=40)
    story.delete_before("t", back=2)
    story.crash()
    story.append("t", size=40)
    story.delete_before("t")
    story.crash()
    story.append("t", size=40)


@workload()
def crashes_while_topics_come_and_go(story: Story) -> None:
    story.create("a")
    story.append("a")
    story.crash()
    story.create("b", 2)
    story.append("b")
    story.delete("a")
    story.crash()
    story.create("a")
    story.append("a")


# ---------------------------------------------------------------- expiring and compacting


@workload(segment_bytes=256)
def expires_by_size(story: Story) -> None:
    story.create("t", retention_bytes=300)
    for _ in range(6):
        story.append("t", size=40)
    story.expire()
    story.append("t", size=40)
    story.append("t", size=40)
    story.expire()


@workload(sync="always", segment_bytes=256)
def expires_by_age_and_goes_on(story: Story) -> None:
    story.create("t", retention_ms=1000)
    for _ in range(3):
        story.append("t", size=40)
    story.expire(5000)
    story.append("t", size=40)
    story.crash()
    story.append("t", size=40)


@workload(segment_bytes=256)
def compacts(story: Story) -> None:
    story.create("t", cleanup_policy="compact")
    for key in b"abacab":
        story.append("t", size=30, key=bytes([key]))
    story.compact("t")
    story.append("t", size=30, key=b"a")
    story.append("t", value=None, key=b"b")
    story.compact("t")


@workload(sync="always", segment_bytes=512)
def compacts_batches_and_crashes(story: Story) -> None:
    story.create("t", cleanup_policy="compact")
    story.append_many("t", values=[b"1" * 30] * 6, keys=[b"a", b"b", b"a", b"c", b"b", b"a"])
    story.append("t", size=60, key=b"a")
    story.append("t", size=300, key=b"c")
    story.compact("t")
    story.crash()
    story.append("t", size=30, key=b"b")
    story.compact("t")


@workload(segment_bytes=384)
def repacks_unsynced(story: Story) -> None:
    story.create("t")
    for _ in range(8):
        story.append("t", size=10, key=b"k")
    story.repack()
    story.append("t", size=10)


@workload(sync="always", segment_bytes=384)
def repacks_and_crashes(story: Story) -> None:
    story.create("t")
    for _ in range(5):
        story.append("t", size=10)
    story.repack()
    story.crash()
    for _ in range(4):
        story.append("t", size=10)
    story.repack()


# ---------------------------------------------------------------- groups and transactions


@workload()
def commits_offsets_unsynced(story: Story) -> None:
    story.create("t", 2)
    story.append_many("t", 0, count=4)
    story.append("t", 1)
    story.commit("g", "t", 0, back=2)
    story.append("t", 0)
    story.commit("g", "t", 0)
    story.commit("h", "t", 1)


@workload(sync="always")
def commits_offsets_synced(story: Story) -> None:
    story.create("t")
    story.append_many("t", count=4)
    story.commit("g", "t", back=2)
    story.append("t")
    story.commit("g", "t")


@workload(sync="interval")
def commits_offsets_between_syncs_and_crashes(story: Story) -> None:
    story.create("t")
    story.append_many("t", count=3)
    story.commit("g", "t", back=1)
    story.tick()
    story.append("t")
    story.commit("g", "t")
    story.crash()
    story.append("t")
    story.commit("g", "t")


@workload()
def transacts_unsynced(story: Story) -> None:
    story.create("a")
    story.create("b")
    story.transact(("a", 0), ("b", 0))
    story.transact(("a", 0), ("b", 0), fails=True)
    story.append("a")
    story.transact(("b", 0), ("a", 0), ("b", 0))


@workload(sync="always")
def transacts_synced(story: Story) -> None:
    story.create("t", 2)
    story.append("t", 1)
    story.transact(("t", 0), ("t", 1))
    story.transact(("t", 1), fails=True)
    story.transact(("t", 1), ("t", 0))


@workload()
def transacts_with_offsets_and_crashes(story: Story) -> None:
    story.create("t", 2)
    story.append("t", 1)
    story.transact(("t", 0), group="g", offset_of=("t", 1))
    story.flush()
    story.transact(("t", 0), ("t", 1))
    story.crash()
    story.transact(("t", 0), ("t", 1))
