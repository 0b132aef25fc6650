"""The corpus is replayed, with a few fixed changes of it: no decoder raises a foreign exception.

A file whose name does not begin with ``made-`` was found by fuzzing; its name says what it is.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from minilog import Broker, CorruptionError, verify
from minilog.storage import format as f
from tests.fuzz import targets
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import TARGETS, mended_files, packed, unpacked
from tests.torture import fuzz

FILES = sorted(path.relative_to(fuzz.CORPUS) for path in fuzz.CORPUS.glob("*/*"))
SLOW = {"directory": 15, "documents": 25, "ledger": 80, "frames": 80}
LARGEST_CORPUS = 200_000


@pytest.mark.parametrize("path", FILES, ids=str)
def test_the_corpus_raises_nothing_foreign(path: Path) -> None:
    TARGETS[path.parent.name]((fuzz.CORPUS / path).read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_changes_of_the_corpus_raise_nothing_foreign(name: str) -> None:
    seed = 20_261_122
    chance = random.Random(seed)
    corpus = fuzz.inputs_of(name)
    for number in range(SLOW.get(name, 400)):
        data = mutated(chance.choice(corpus), corpus, chance)
        try:
            TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"change {number} of seed {seed}: {data!r}") from error


def test_every_target_has_a_corpus_and_it_is_small() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert sum((fuzz.CORPUS / path).stat().st_size for path in FILES) < LARGEST_CORPUS


def test_a_foreign_exception_is_found_and_its_input_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def brittle(data: bytes) -> None:
        if b"key" in data and len(data) % 2:
            raise KeyError("key")

    monkeypatch.setitem(targets.TARGETS, "single", brittle)
    counts: Counter[str] = Counter()
    with pytest.raises(KeyError):
        fuzz.fuzz_by_chance("single", 60, 1, tmp_path, counts)
    assert b"key" in (tmp_path / "single").read_bytes()
    assert counts["executions"] > 0


def test_a_mended_log_is_one_that_opens() -> None:
    """The checksums are really put right: what was changed is read, not refused."""
    files = unpacked((fuzz.CORPUS / "directory" / "made-closed-none").read_bytes()[1:])
    assert unpacked(packed(files)) == files
    assert mended_files(files) == files
    name = next(name for name, data in files.items() if name.endswith(".log") and b"same" in data)
    changed = {
        **files,
        name: files[name].replace(b"same", b"SAME"),
        "broker.json": b'{"id": "other"}',
    }
    mended = mended_files(changed)
    assert mended[name] != changed[name] != files[name]
    assert mended_files(mended) == mended
    f.decode_document(mended["broker.json"], "broker.json")
    with pytest.raises(CorruptionError):
        f.decode_document(changed["broker.json"], "broker.json")


@pytest.mark.parametrize("base", ["9" * 20, "٠" * 20, "0" + "5" * 19])
def test_a_file_named_for_an_offset_that_no_log_has_is_left_alone(
    log_path: Path, base: str
) -> None:
    """Its number did not fit where it was packed, and the error was not one of minilog's."""
    with Broker(log_path) as broker:
        broker.create_topic("t")[0].append(b"x")
    (log_path / "t" / "0" / f"{base}.log").write_bytes(b"not ours")
    assert verify(log_path).record_count == 1
    with Broker(log_path) as broker:
        assert broker.topic("t")[0].append(b"y") == 1
        assert [record.value for record in broker.topic("t")[0]] == [b"x", b"y"]


def test_a_frame_at_an_offset_that_no_log_has_is_no_frame() -> None:
    fields = f.PREFIX.unpack(f.encode_single(None, b"v", b"", f.LARGEST_OFFSET, 0, 1, 64)[:36])
    assert f.is_plausible(fields, 1000)
    for offset in (f.LARGEST_OFFSET + 1, -1):
        assert not f.is_plausible((*fields[:2], offset, *fields[3:]), 1000)
