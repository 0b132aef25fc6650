"""Codecs: what is compressed comes back, nothing else does, and never more than was declared."""

from __future__ import annotations

import random
import sys
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilog import ConfigError
from minilog.storage.codecs import LARGEST_BODY, NUMBERS, check_codec, codec_of, decompress

PACKAGES = {"lz4": ["lz4"], "zstd": ["backports", "backports.zstd", "compression.zstd"]}


@pytest.fixture
def number(compression: str) -> int:
    return NUMBERS[compression]


def packed(number: int, data: bytes) -> bytes:
    (name,) = [name for name, other in NUMBERS.items() if other == number]
    return codec_of(name).compress(data)


@given(data=st.binary(max_size=500) | st.binary(max_size=20).map(lambda piece: piece * 500))
def test_what_is_compressed_comes_back(data: bytes) -> None:
    for name, number in NUMBERS.items():
        try:
            check_codec(name)
        except ConfigError:
            continue  # the tests below skip for it
        expected = data or None  # nothing is never compressed
        assert decompress(number, codec_of(name).compress(data), len(data)) == expected


def test_compressing_twice_gives_the_same_bytes(number: int) -> None:
    data = b"the same again, " * 100
    assert packed(number, data) == packed(number, data)


@pytest.mark.parametrize("difference", [-1000, -1, 1, 1000])
def test_another_size_than_was_declared_is_refused(number: int, difference: int) -> None:
    data = b"some text that shrinks " * 100
    assert decompress(number, packed(number, data), len(data) + difference) is None


@pytest.mark.parametrize("size", [0, -1, LARGEST_BODY + 1, 2**32])
def test_a_size_that_is_no_body_s_is_refused(number: int, size: int) -> None:
    assert decompress(number, packed(number, b"some text " * 100), size) is None


def test_the_largest_body_is_decompressed(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"some text " * 100
    monkeypatch.setattr("minilog.storage.codecs.LARGEST_BODY", len(data))
    assert decompress(number, packed(number, data), len(data)) == data
    assert decompress(number, packed(number, data + b"."), len(data) + 1) is None


def test_a_zstd_frame_without_its_last_block_is_refused_though_that_is_empty(
    need_codec: Callable[[str], str],
) -> None:
    need_codec("zstd")
    zstd = pytest.importorskip(
        "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    )
    packer, data = zstd.ZstdCompressor(), b"some text " * 100
    whole = packer.compress(data, mode=packer.FLUSH_BLOCK) + packer.flush()
    assert decompress(NUMBERS["zstd"], whole, len(data)) == data
    assert decompress(NUMBERS["zstd"], whole[:-3], len(data)) is None


@pytest.mark.parametrize("change", [b"", b"\0", b"more"])
def test_bytes_behind_the_end_or_a_lost_end_are_refused(number: int, change: bytes) -> None:
    data = b"some text that shrinks " * 100
    whole = packed(number, data)
    changed = whole + change if change else whole[:-1]
    assert decompress(number, changed, len(data)) is None


def test_any_bytes_are_decompressed_or_refused_and_nothing_is_raised(number: int) -> None:
    data = b"".join(b"%d," % n for n in range(300))
    whole = packed(number, data)
    for seed in range(300):
        chance = random.Random(seed)
        changed = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        found = decompress(number, bytes(changed), len(data))
        assert found is None or len(found) == len(data), f"seed {seed}"
        assert decompress(number, chance.randbytes(chance.randrange(200)), 100) is None, seed


def test_a_bomb_takes_no_more_memory_than_it_was_declared_to(number: int) -> None:
    bomb = packed(number, bytes(64 * 1024 * 1024))
    assert len(bomb) < 300_000
    tracemalloc.start()
    try:
        assert decompress(number, bomb, 100_000) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_an_error_that_names_the_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in PACKAGES[name]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf'pip install "minilog\[{name}\]"'):
        check_codec(name)
    with pytest.raises(ConfigError, match=rf"minilog\[{name}\]"):
        decompress(NUMBERS[name], b"anything", 10)


def test_what_needs_no_package_is_always_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for modules in PACKAGES.values():
        for module in modules:
            monkeypatch.setitem(sys.modules, module, None)
    check_codec("none")
    check_codec("gzip")
    assert decompress(1, codec_of("gzip").compress(b"text"), 4) == b"text"
