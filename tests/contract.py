"""What every file backend must pass: the promises of the storage's seam, and no more.

``tests/unit/test_file_backends.py`` holds each backend to it. A region may be larger than was
asked for, and what was reserved but never written may be zeros or missing; all else is said here.
"""

from __future__ import annotations

import pytest

from minilog.storage.files import Directory, File


class DirectoryContract:
    """Tests of a directory and its files; a subclass gives a ``directory`` that was made."""

    def file(self, directory: Directory) -> File:
        return directory.create("file")

    # ------------------------------------------------------------ files

    def test_what_is_written_is_read(self, directory: Directory) -> None:
        file = self.file(directory)
        file.write(0, b"hello")
        file.write(5, b" world")
        file.write(0, b"J")
        assert file.read(0, 11) == b"Jello world"
        assert file.read(6, 5) == b"world"
        assert file.size() == 11

    def test_a_read_gives_fewer_bytes_only_at_the_end(self, directory: Directory) -> None:
        file = self.file(directory)
        file.write(0, b"hello")
        assert file.read(3, 100) == b"lo"
        assert file.read(5, 1) == b""
        assert file.read(99, 1) == b""
        assert file.read(0, 0) == b""

    def test_a_write_beyond_the_end_leaves_zeros_before_it(self, directory: Directory) -> None:
        file = self.file(directory)
        file.write(10, b"x")
        assert file.read(0, 11) == bytes(10) + b"x"

    def test_large_writes_are_whole(self, directory: Directory) -> None:
        file = self.file(directory)
        data = bytes(range(256)) * 12_000
        file.write(7, data)
        assert file.read(7, len(data)) == data

    def test_reserving_keeps_what_is_there_and_never_shrinks(self, directory: Directory) -> None:
        file = self.file(directory)
        file.write(0, b"kept")
        file.reserve(100_000)
        size = file.size()
        file.reserve(10)
        assert file.size() == size
        assert file.read(0, 4) == b"kept"
        assert not file.read(4, 96).strip(b"\0")

    def test_trimming_cuts_and_never_grows(self, directory: Directory) -> None:
        file = self.file(directory)
        file.write(0, b"kept and cut")
        file.trim(100)
        assert file.size() == 12
        file.trim(4)
        assert file.size() == 4
        assert file.read(0, 100) == b"kept"
        file.reserve(12)
        assert not file.read(4, 8).strip(b"\0"), "what was cut came back"

    def test_syncing_and_dropping_the_cache_keep_what_was_written(
        self, directory: Directory
    ) -> None:
        file = self.file(directory)
        file.write(0, b"kept")
        file.sync()
        file.drop_cache()
        assert file.read(0, 4) == b"kept"

    # ------------------------------------------------------------ regions

    def test_what_is_stored_in_a_region_is_read_from_it_and_from_the_file(
        self, directory: Directory
    ) -> None:
        file = self.file(directory)
        file.reserve(1000)
        region = file.map(1000)
        assert len(region) >= 1000
        region[10:15] = b"hello"
        region[995:1000] = b"world"
        assert region[10:15] == b"hello"
        assert region[8:17].strip(b"\0") == b"hello"
        assert bytes(region.view(995, 1000)) == b"world"
        assert file.read(10, 5) == b"hello"
        assert directory.read("file")[995:1000] == b"world"

    def test_a_slice_beyond_a_region_is_shorter_and_one_before_its_start_empty(
        self, directory: Directory
    ) -> None:
        file = self.file(directory)
        file.reserve(1000)
        region = file.map(1000)
        region[990:1000] = b"0123456789"
        end = len(region)
        assert len(region[end - 4 : end + 100]) <= 4
        assert region[end + 10 : end + 20] == b""
        assert region[20:10] == b"", "a slice that ends before it begins"
        assert region[end + 8 : end] == b""

    def test_what_is_written_shows_in_a_region_that_was_there_before(
        self, directory: Directory
    ) -> None:
        file = self.file(directory)
        file.reserve(100)
        region = file.map(100)
        file.write(3, b"abc")
        assert region[3:6] == b"abc"

    def test_a_region_is_words_of_64_bits(self, directory: Directory) -> None:
        file = self.file(directory)
        file.reserve(24)
        region = file.map(24)
        for number, word in enumerate((1, 2**64 - 1, 258)):
            region[number * 8 : number * 8 + 8] = word.to_bytes(8, "little")
        words = region.words()
        assert len(words) >= 3
        assert [words[number] for number in range(3)] == [1, 2**64 - 1, 258]

    def test_a_region_outlives_its_file_being_closed_unlinked_and_grown(
        self, directory: Directory
    ) -> None:
        file = self.file(directory)
        file.write(0, b"kept")
        file.reserve(100)
        region = file.map(100)
        file.reserve(1_000_000)
        directory.unlink("file")
        assert region[0:4] == b"kept"

    def test_a_file_opened_for_reading_is_mapped_whole(self, directory: Directory) -> None:
        self.file(directory).write(0, b"hello")
        file = directory.open("file")
        region = file.map(file.size())
        assert region[0:5] == b"hello"
        assert bytes(region.view(1, 3)) == b"el"

    def test_an_empty_file_is_mapped_as_nothing(self, directory: Directory) -> None:
        self.file(directory)
        file = directory.open("file")
        assert file.map(0)[0:10].strip(b"\0") == b""

    # ------------------------------------------------------------ directories

    def test_names_are_sorted_and_of_files_and_directories(self, directory: Directory) -> None:
        assert directory.names() == []
        for name in ("c", "a"):
            directory.create(name)
        child = directory.child("b")
        assert directory.names() == ["a", "c"]
        assert not child.exists()
        child.make()
        child.make()
        assert child.exists()
        assert directory.names() == ["a", "b", "c"]
        assert child.names() == []
        assert directory.child("missing").names() == []

    def test_a_file_that_is_there_is_not_made_again(self, directory: Directory) -> None:
        directory.create("file").write(0, b"kept")
        with pytest.raises(FileExistsError):
            directory.create("file")
        assert directory.read("file") == b"kept"

    def test_what_is_not_there_is_file_not_found(self, directory: Directory) -> None:
        with pytest.raises(FileNotFoundError):
            directory.open("missing")
        with pytest.raises(FileNotFoundError):
            directory.open("missing", writable=True)
        with pytest.raises(FileNotFoundError):
            directory.read("missing")
        with pytest.raises(FileNotFoundError):
            directory.unlink("missing")
        assert directory.stamp("missing") == ()

    def test_replacing_gives_the_new_bytes_and_another_stamp(self, directory: Directory) -> None:
        directory.replace("file", b"old and long")
        before = directory.stamp("file")
        old = directory.open("file")
        assert before
        directory.replace("file", b"new")
        assert directory.read("file") == b"new"
        assert directory.stamp("file") != before
        assert directory.names() == ["file"]
        assert old.read(0, 100) == b"old and long"

    def test_an_unfinished_replacement_is_no_hindrance(self, directory: Directory) -> None:
        directory.create("file~").write(0, b"left by a crash")
        directory.replace("file", b"new")
        assert directory.read("file") == b"new"

    def test_a_renamed_file_has_its_bytes_under_the_new_name(self, directory: Directory) -> None:
        directory.create("old").write(0, b"kept")
        directory.rename("old", "new")
        assert directory.names() == ["new"]
        assert directory.read("new") == b"kept"

    def test_a_file_is_renamed_into_a_directory_below(self, directory: Directory) -> None:
        directory.create("file").write(0, b"kept")
        child = directory.child("below")
        child.make()
        directory.rename("file", "below/file")
        assert child.read("file") == b"kept"
        assert directory.names() == ["below"]

    def test_a_renamed_directory_has_its_files_under_the_new_name(
        self, directory: Directory
    ) -> None:
        child = directory.child("old")
        child.make()
        child.create("file").write(0, b"kept")
        directory.rename("old", "new")
        assert directory.child("new").read("file") == b"kept"
        assert not directory.child("old").exists()

    def test_a_removed_directory_is_gone_with_all_below_it(self, directory: Directory) -> None:
        child = directory.child("child")
        child.child("below").make()
        child.make()
        child.child("below").create("file")
        child.create("file")
        child.remove()
        assert not child.exists()
        assert directory.names() == []
        child.remove()
        child.make()
        assert child.names() == []

    def test_a_lock_that_was_released_can_be_taken_again(self, directory: Directory) -> None:
        first = directory.lock("lock")
        assert first.is_same_boot in (True, False)
        first.recovered()
        first.release()
        first.release()
        second = directory.lock("lock")
        second.abandon()
        directory.lock("lock").release()
        directory.sync()

    def test_a_path_is_said_for_messages(self, directory: Directory) -> None:
        assert directory.create("file").path == f"{directory.path}/file"
        assert directory.child("child").path == f"{directory.path}/child"
