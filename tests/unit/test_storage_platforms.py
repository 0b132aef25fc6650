"""Where one system differs from another: what is missing there is done without, or said."""

from __future__ import annotations

import builtins
import errno
import fcntl
import os
import sys
from array import array
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minilog import Broker, RecordTooLargeError
from minilog.storage import batch, checksum, codecs, files, singles
from minilog.storage.columns import ColumnsFrame, little_endian
from minilog.storage.files import DiskDirectory, FileRegion, boot_id
from minilog.storage.format import PREFIX_SIZE, Prefix, encode_document
from minilog.storage.memory import MemoryDirectory
from minilog.storage.sequences import SNAPSHOT_FILE, Sequences

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
DESCRIPTORS = Path("/proc/self/fd")
VECTOR = (b"123456789", 0xE3069283)


# ---------------------------------------------------------------- the disk


def test_a_full_sync_is_asked_for_where_an_ordinary_one_is_not_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On macOS; here another command stands for its."""
    asked: list[int] = []
    monkeypatch.setattr(files, "FULL_SYNC", 51)
    monkeypatch.setattr(fcntl, "fcntl", lambda fd, command: asked.append(command))
    DiskDirectory(str(tmp_path)).create("file").sync()
    assert asked == [51]


def test_the_cache_is_left_alone_where_nobody_can_be_asked_to_drop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = DiskDirectory(str(tmp_path)).create("file")
    file.write(0, b"kept")
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    file.drop_cache()
    assert file.read(0, 4) == b"kept"


def test_all_disks_are_synced_for_names_in_a_directory_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    synced: list[bool] = []
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        files.sync_names(str(tmp_path))
    assert synced == [True]


def test_a_file_that_cannot_be_mapped_though_it_holds_something_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = DiskDirectory(str(tmp_path))
    directory.create("empty").close()
    directory.create("full").write(0, b"x")
    assert isinstance(directory.open("empty").map(0), FileRegion)

    def refuse(*arguments: Any, **more: Any) -> None:
        raise ValueError("mmap length is greater than file size")

    monkeypatch.setattr(files, "MappedRegion", refuse)
    with pytest.raises(ValueError, match="mmap length"):
        directory.open("full").map(0)


def test_a_machine_that_does_not_say_when_it_started_is_taken_for_started_since(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **more: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    assert boot_id() == (BOOT_ID.read_text().strip() if BOOT_ID.exists() else "")
    monkeypatch.setattr(builtins, "open", refuse)
    files._read_boot_id.cache_clear()
    assert boot_id() == ""
    for _ in range(2):
        lock = DiskDirectory(str(log_path.parent)).lock("lock")
        assert not lock.is_same_boot
        lock.recovered()
        lock.release()


@pytest.mark.skipif(not DESCRIPTORS.exists(), reason="this system does not list descriptors")
@pytest.mark.parametrize("call", ["flock", "pwrite"])
def test_a_lock_that_fails_in_the_middle_leaves_no_descriptor_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    directory = DiskDirectory(str(tmp_path))
    before = os.listdir(DESCRIPTORS)
    with monkeypatch.context() as patched:
        patched.setattr(fcntl if call == "flock" else os, call, refuse)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            directory.lock("lock")
    assert os.listdir(DESCRIPTORS) == before
    directory.lock("lock").release()


def test_a_system_without_fork_needs_no_care_for_its_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[object] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: called.append(hooks))
    files.call_in_forked_child(len)
    assert called == [{"after_in_child": len}]
    monkeypatch.delattr(os, "register_at_fork")
    files.call_in_forked_child(len)
    assert len(called) == 1


# ---------------------------------------------------------------- packages


@pytest.mark.parametrize("missing", ["package", "places", "extension", "loader", "module"])
def test_the_checksum_comes_from_the_package_where_its_extension_is_not_found(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    find = PathFinder.find_spec

    def find_less(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = find(name, path, target)
        assert spec is not None
        if missing == "package" or (missing == "extension" and "." in name):
            return None
        if missing == "places":
            spec.submodule_search_locations = None
        elif "." in name:
            makes_none: Any = SimpleNamespace(create_module=lambda spec: None)
            spec.loader = None if missing == "loader" else makes_none
        return spec

    with monkeypatch.context() as patched:
        patched.setattr(PathFinder, "find_spec", find_less)
        assert checksum._extension() is None
    data, expected = VECTOR
    assert checksum._packaged()(data) == expected == checksum.crc32c(data)


def test_memory_that_runs_out_in_a_codec_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(data: bytes, size: int) -> bytes:
        raise MemoryError

    packed = codecs.codec_of("gzip").compress(b"text" * 100)
    assert codecs.decompress(codecs.NUMBERS["gzip"], packed, 400) == b"text" * 100
    broken = SimpleNamespace(decompress=run_out)
    monkeypatch.setattr(codecs, "codec_of", lambda name: broken)
    with pytest.raises(MemoryError):
        codecs.decompress(codecs.NUMBERS["gzip"], packed, 400)


# ---------------------------------------------------------------- sizes


def test_a_batch_that_no_frame_can_hold_is_refused_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "LARGEST_FRAME_BYTES", 1000)
    with Broker(":memory:") as broker:
        partition = broker.create_topic("t")[0]
        with pytest.raises(RecordTooLargeError, match="in parts") as caught:
            partition.append_many([b"x" * 100] * 11)
        assert (caught.value.size >= 1100, caught.value.limit) == (True, 1000)
        assert partition.append_many([b"x" * 100] * 5) == range(5)


def test_a_frame_that_ends_within_its_header_is_not_sound() -> None:
    prefix = Prefix._make([0] * len(Prefix._fields))
    assert not ColumnsFrame(prefix, bytearray(PREFIX_SIZE + 10), 0).is_sound  # type: ignore[arg-type]


def test_numbers_are_stored_little_endian_on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert little_endian(array("I", [1])).tobytes() == (1).to_bytes(4, "little")
    monkeypatch.setattr(sys, "byteorder", "little" if sys.byteorder == "big" else "big")
    assert little_endian(array("I", [1])).tobytes() == (1).to_bytes(4, "big"), "the other way round"


def test_records_that_are_alike_are_read_the_same_on_any_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a machine's own numbers are not as stored, they are decoded one by one."""
    with Broker(tmp_path) as broker:
        partition = broker.create_topic("t")[0]
        for number in range(200):
            partition.append(b"%03d" % number, key=b"k", timestamp=2**40 + number)
        expected = list(partition.read(0))
        monkeypatch.setattr(singles, "sys", SimpleNamespace(byteorder="big"))
        assert list(partition.read(0)) == expected
        assert [record.timestamp for record in expected] == [2**40 + n for n in range(200)]


def test_words_of_a_map_are_little_endian_on_any_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = DiskDirectory(str(tmp_path)).create("file")
    expected = [1, 2**40 + 7, 2**64 - 1]
    file.write(0, b"".join(number.to_bytes(8, "little") for number in expected))
    region: Any = file.map(0)
    for order in ("little", "big"):
        if order != sys.byteorder:
            monkeypatch.setattr(sys, "byteorder", order)
        words = files.native_words(region)
        assert [words[number] for number in range(len(words))] == expected
        monkeypatch.undo()


def test_what_is_not_there_cannot_be_renamed_in_memory_either() -> None:
    directory = MemoryDirectory("d")
    directory.create("there")
    with pytest.raises(FileNotFoundError, match="missing"):
        directory.rename("missing", "found")
    assert directory.names() == ["there"]


# ---------------------------------------------------------------- what named producers left


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"{",
        {"next_offset": -1, "producers": {}},
        {"next_offset": 11, "producers": {}},
        {"next_offset": "9", "producers": {}},
        {"producers": {}},
        {"next_offset": 9, "producers": []},
        {"next_offset": 9, "producers": {"1": [[0, 0]]}},
        {"next_offset": 9, "producers": {"1": [[0, -1, 3]]}},
        {"next_offset": 9, "producers": {"one": [[0, 0, 3]]}},
    ],
)
def test_a_snapshot_of_sequences_that_is_not_to_be_believed_says_nothing(content: Any) -> None:
    """Then all of the log is read for them."""
    directory = MemoryDirectory("d")
    if content is not None:
        data = content if isinstance(content, bytes) else encode_document(content)
        directory.replace(SNAPSHOT_FILE, data)
    sequences = Sequences.load(directory, 10)
    assert (sequences.next_offset, sequences.last(1)) == (0, -1)
    whole = {"next_offset": 10, "producers": {"1": [[0, 4, 3]]}}
    directory.replace(SNAPSHOT_FILE, encode_document(whole))
    believed = Sequences.load(directory, 10)
    assert (believed.next_offset, believed.last(1), believed.offset_of(1, 1)) == (10, 2, 5)
