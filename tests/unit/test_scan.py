"""Frames are found one behind the other, and none where another offset is due."""

from __future__ import annotations

from minilog import Broker
from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.files import FileRegion
from minilog.storage.singles import Budget, read_run
from minilog.testing import SimulatedDisk
from minilog.topic import log_identity


def test_a_frame_that_does_not_follow_the_one_before_is_none() -> None:
    """Right where it stands, as what an older writer left there is."""
    disk = SimulatedDisk()
    with Broker(disk, maintenance_interval_ms=0) as broker:
        topic = broker.create_topic("t")
        for value in (b"one", b"two", b"three"):
            topic[0].append(value)
        identity = log_identity(topic.id, 0)
    file = disk.root_directory().child("t").child("0").open(f"{0:020d}.log")
    region, seed = FileRegion(file, file.size()), f.seed_of(identity, 0)
    found = list(scan.walk(region, f.HEADER_SIZE, 0, file.size(), seed))
    assert [prefix.offset for _, prefix in found] == [0, 1, 2]
    assert list(scan.walk(region, f.HEADER_SIZE, 1, file.size(), seed)) == []


def test_of_a_run_that_is_cut_in_its_first_frame_nothing_is_read() -> None:
    frame = f.encode_single(b"key", b"value", b"", 0, 1, 1, 0, 0, f.NOBODY)
    frame += f.checksum(frame, 5, f.HEADER_SIZE)
    budget = Budget(10, 1000, is_first=True)
    rows, size, _ = read_run(frame, f.HEADER_SIZE, 0, 5, budget)
    assert (rows.values, size) == ([b"value"], f.aligned(len(frame)))
    for length in range(len(frame)):
        rows, size, _ = read_run(frame[:length], f.HEADER_SIZE, 0, 5, budget)
        assert (len(rows), size) == (0, 0)
