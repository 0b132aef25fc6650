"""Every file backend against the contract, and what only one on a disk promises."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest
from contract import DirectoryContract

from minilog import Broker, LockedError, StorageError, verify
from minilog.storage.files import (
    Directory,
    DiskDirectory,
    DiskLock,
    FileRegion,
    MapLimit,
    MappedRegion,
    disk_directory,
    out_of_descriptors,
    replace_by_rename,
)
from minilog.storage.memory import MemoryDirectory
from minilog.testing import SimulatedDisk


def refuse_to_reserve(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def fail(fd: int, start: int, size: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "posix_fallocate", fail, raising=False)


class TestOnDisk(DirectoryContract):
    """Through the map, as where a file system can reserve space."""

    @pytest.fixture
    def directory(self, tmp_path: Path) -> Directory:
        return DiskDirectory(str(tmp_path))

    def test_regions_are_maps(self, directory: Directory) -> None:
        if not hasattr(os, "posix_fallocate"):
            pytest.skip("this system cannot reserve space")
        file = directory.create("file")
        file.reserve(4096)
        assert isinstance(file.map(4096), MappedRegion)


class TestWhereNothingIsReserved(DirectoryContract):
    """By pread and pwrite, as where a store into a map could kill the process."""

    @pytest.fixture(params=["EOPNOTSUPP", "EINVAL", "ENOSYS"])
    def directory(
        self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Directory:
        refuse_to_reserve(monkeypatch, getattr(errno, request.param))
        return DiskDirectory(str(tmp_path))

    def test_nothing_is_stored_through_a_map(self, directory: Directory) -> None:
        file = directory.create("file")
        file.reserve(4096)
        assert isinstance(file.map(4096), FileRegion)


class TestWithoutTheCall(TestWhereNothingIsReserved):
    """The same on a system that has no posix_fallocate at all."""

    @pytest.fixture
    def directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Directory:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
        return DiskDirectory(str(tmp_path))


class TestInMemory(DirectoryContract):
    """Without a disk."""

    @pytest.fixture
    def directory(self) -> Directory:
        directory = MemoryDirectory()
        directory.make()
        return directory


class TestOnASimulatedDisk(DirectoryContract):
    """One whose crashes can be tried, with space that can be reserved and without."""

    @pytest.fixture(params=[True, False], ids=["reserves", "does not reserve"])
    def directory(self, request: pytest.FixtureRequest) -> Directory:
        directory = SimulatedDisk(can_reserve=request.param).root_directory()
        directory.make()
        return directory


# ---------------------------------------------------------------- only on a disk


@pytest.fixture
def on_disk(tmp_path: Path) -> DiskDirectory:
    return DiskDirectory(str(tmp_path))


def test_a_reservation_that_fails_leaves_the_file_as_it_was(
    on_disk: DiskDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = on_disk.create("file")
    file.write(0, b"kept")

    def fail(fd: int, start: int, size: int) -> None:
        os.ftruncate(fd, start + size // 2)  # as ext4 leaves what it could allocate
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(OSError, match="no space"):
        file.reserve(100_000)
    assert file.size() == 4
    assert isinstance(on_disk.open("file", writable=True).map(4), MappedRegion)


def test_a_short_write_is_carried_on(
    on_disk: DiskDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, position: pwrite(fd, bytes(data)[:1000], position)
    )
    data = bytes(range(256)) * 20
    file = on_disk.create("file")
    file.write(3, data)
    assert file.read(3, 9999) == data


def test_a_short_read_is_carried_on(
    on_disk: DiskDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(256)) * 20
    file = on_disk.create("file")
    file.write(0, data)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 1000), at))
    assert file.read(0, 9999) == data
    assert file.read(5, 3000) == data[5:3005]


def test_a_replacement_that_fails_leaves_the_old_bytes_and_no_rest(
    on_disk: DiskDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk.replace("file", b"old")

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(OSError, match="no space"):
            on_disk.replace("file", b"new")
    assert on_disk.read("file") == b"old"
    assert on_disk.names() == ["file"]


def test_a_replacement_that_fails_says_why_whatever_fails_behind_it() -> None:
    class Failing:
        path = "it"

        def fail(self, *arguments: object) -> None:
            raise OSError(errno.ENOSPC, "no space")

        def fail_too(self, *arguments: object) -> None:
            raise OSError(errno.EIO, "that neither")

        def create(self, name: str) -> Failing:
            self.unlink = self.fail_too  # of the one that was begun
            return self

        def unlink(self, name: str) -> None:
            raise FileNotFoundError

        write, close = fail, fail_too

    with pytest.raises(OSError, match="no space"):
        replace_by_rename(Failing(), "name", b"data")  # type: ignore[arg-type]


def test_too_many_open_files_are_told_from_other_errors() -> None:
    assert out_of_descriptors(OSError(errno.EMFILE, "this process"))
    assert out_of_descriptors(OSError(errno.ENFILE, "the machine"))
    assert out_of_descriptors(OSError(errno.ENOSPC, "another")) is False


def test_files_and_directories_are_for_their_owner_alone(on_disk: DiskDirectory) -> None:
    on_disk.create("file")
    on_disk.replace("replaced", b"")
    on_disk.child("child").make()
    on_disk.lock("lock").release()
    modes = {
        name: stat.S_IMODE(os.stat(os.path.join(on_disk.path, name)).st_mode)
        for name in on_disk.names()
    }
    assert modes == {"child": 0o700, "file": 0o600, "lock": 0o600, "replaced": 0o600}


@pytest.mark.parametrize("target", ["elsewhere", "missing"])
def test_symbolic_links_are_not_followed(
    on_disk: DiskDirectory, tmp_path: Path, target: str
) -> None:
    (tmp_path / "elsewhere").write_bytes(b"not ours")
    (tmp_path / "link").symlink_to(tmp_path / target)
    for writable in (False, True):
        with pytest.raises(StorageError, match="symbolic link"):
            on_disk.open("link", writable=writable)
    with pytest.raises(FileExistsError):
        on_disk.create("link")
    on_disk.replace("link", b"ours")
    assert (tmp_path / "elsewhere").read_bytes() == b"not ours"
    assert on_disk.read("link") == b"ours"


def test_removing_follows_no_links(on_disk: DiskDirectory, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"not ours")
    child = on_disk.child("child")
    child.make()
    (tmp_path / "child" / "link").symlink_to(tmp_path / "elsewhere")
    child.remove()
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"not ours"
    assert not child.exists()


def test_what_is_no_regular_file_is_refused(on_disk: DiskDirectory, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises((StorageError, IsADirectoryError)):
        on_disk.open("directory")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="not a directory"):
        on_disk.child("file").exists()


def synced_directories(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that every directory is added to when it is synced."""
    synced = []
    really = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        really(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return synced


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it shows what a descriptor is of")
def test_the_names_of_a_new_log_and_of_what_is_above_it_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody synced the directory above a log: a power cut could take all of it."""
    synced = synced_directories(monkeypatch)
    disk_directory(tmp_path / "a" / "b" / "log").make()
    assert synced == [str(tmp_path.parent), str(tmp_path), f"{tmp_path}/a", f"{tmp_path}/a/b"]
    Broker(tmp_path / "a" / "b" / "log").close()
    synced.clear()
    Broker(tmp_path / "a" / "b" / "log").close()
    assert f"{tmp_path}/a/b" not in synced, "once it is a log it need not be"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it shows what a descriptor is of")
def test_a_directory_that_a_killed_process_made_is_synced_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").mkdir()
    synced = synced_directories(monkeypatch)
    Broker(tmp_path / "log").close()
    assert str(tmp_path) in synced


def test_one_lock_at_a_time_and_the_holder_is_named(on_disk: DiskDirectory) -> None:
    lock = on_disk.lock("lock")
    with pytest.raises(LockedError) as caught:
        on_disk.lock("lock")
    assert caught.value.pid == os.getpid()
    assert caught.value.path == on_disk.path
    lock.release()


def test_a_released_lock_is_free_though_a_forked_child_has_its_descriptor(
    on_disk: DiskDirectory,
) -> None:
    lock = on_disk.lock("lock")
    assert isinstance(lock, DiskLock)
    assert lock._file is not None
    childs = os.dup(lock._file.fileno())
    try:
        lock.release()
        assert lock._file.closed
        on_disk.lock("lock").release()
    finally:
        os.close(childs)


def test_the_boot_is_the_same_once_somebody_has_recovered_under_it(on_disk: DiskDirectory) -> None:
    lock = on_disk.lock("lock")
    lock.release()
    lock = on_disk.lock("lock")
    assert not lock.is_same_boot
    lock.recovered()
    lock.release()
    lock = on_disk.lock("lock")
    assert lock.is_same_boot is Path("/proc/sys/kernel/random/boot_id").exists()
    lock.release()


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"x y z", b"99999999999999999999999 a", b"1"]
)
def test_what_stands_in_a_lock_file_is_only_a_hint(
    on_disk: DiskDirectory, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "lock").write_bytes(content)
    lock = on_disk.lock("lock")
    assert not lock.is_same_boot
    lock.release()


def test_a_file_nobody_refers_to_is_closed(on_disk: DiskDirectory) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("descriptors are counted in /proc, which is not here")
    file = on_disk.create("file")
    file.reserve(4096)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        on_disk.open("file").map(4096)
        on_disk.open("file", writable=True).read(0, 1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_path_is_resolved_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert disk_directory(tmp_path / "link").path == str(tmp_path / "real")


class Holder:
    def __init__(self) -> None:
        self.is_mapped = True

    def unmap(self) -> None:
        self.is_mapped = False


def test_the_first_mapped_is_the_first_let_go() -> None:
    limit = MapLimit(3)
    holders = [Holder() for _ in range(5)]
    for holder in holders:
        limit.admit(holder)
    assert [holder.is_mapped for holder in holders] == [False, False, True, True, True]
    assert limit.relieve()
    assert sum(holder.is_mapped for holder in holders) == 1
    assert limit.relieve()
    assert not limit.relieve()
    assert not any(holder.is_mapped for holder in holders)


@pytest.mark.parametrize("is_reserved", [True, False])
def test_the_engine_is_the_same_where_nothing_can_be_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_reserved: bool
) -> None:
    if not is_reserved:
        refuse_to_reserve(monkeypatch, errno.EOPNOTSUPP)
    expected = []
    with Broker(tmp_path / "log", sync="never") as broker:
        partition = broker.create_topic("t", segment_bytes=2048, index_interval_bytes=128)[0]
        for number in range(60):
            partition.append(b"%d " % number * (number % 40), timestamp=number)
            partition.append_many([b"a", None, b"c" * number], timestamps=number)
        partition.append(b"large" * 50_000)
        partition.append(None, headers=[("h", None)])
        expected = list(partition)
        shutil.copytree(tmp_path / "log", tmp_path / "crashed")
        partition.check()
    for path in (tmp_path / "log", tmp_path / "crashed"):
        with Broker(path) as broker:
            assert broker.recovery.ok, str(broker.recovery)
            partition = broker.topic("t")[0]
            assert list(partition) == expected
            assert partition.offset_at(30) == 120
            assert partition.append(b"goes on") == len(expected)
            partition.check()
        assert verify(path).ok, str(verify(path))
