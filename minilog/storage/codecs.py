"""Compressing the body of a batch, and a way back that is bounded.

gzip comes with Python; zstd is the standard library's where there is one (3.14), else the package
``backports.zstd``; lz4 is the package ``lz4``. A package is imported when it is first needed;
where it is missing, ConfigError names the extra that brings it. What is decompressed never takes
more memory than was declared for it, and nothing beyond ``LARGEST_BODY`` is compressed at all:
whoever reads one record of a batch holds all of it.

This module refuses to know what is in a body, and where it is kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

from minilog.errors import ConfigError

LARGEST_BODY = 64 * 1024 * 1024
NUMBERS = {"gzip": 1, "lz4": 2, "zstd": 3}
NAMES = {number: name for name, number in NUMBERS.items()}

_GZIP = 16 + 15  # zlib's word for: with a gzip header, and the largest window
_ZSTD_WINDOW_LOG = 26  # the window that LARGEST_BODY needs, and no larger


class Codec(NamedTuple):
    """A way to compress; ``decompress`` is given the size that must come out."""

    number: int
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes | None]


def check_codec(compression: str) -> None:
    """Raise ConfigError, naming the extra, unless this ``compression`` can be used here."""
    if compression != "none":
        codec_of(compression)


def codec_of(compression: str) -> Codec:
    """Return the codec of that name; ConfigError where its package is missing."""
    try:
        return _LOADERS[compression]()
    except ImportError:
        raise ConfigError(
            f"compression {compression!r} needs a package that is not installed: "
            f'pip install "minilog[{compression}]"'
        ) from None


def decompress(number: int, data: bytes, size: int) -> bytes | None:
    """Return the ``size`` bytes that were compressed; None when these are not the ones.

    ConfigError where the codec's package is missing.
    """
    codec = codec_of(NAMES[number])
    if not 0 < size <= LARGEST_BODY:
        return None
    try:
        body = codec.decompress(data, size)
    except MemoryError:
        raise
    except Exception:  # every package has errors of its own, and they all mean the same
        return None
    return body if body is not None and len(body) == size else None


def _gzip() -> Codec:
    import zlib

    def pack(data: bytes) -> bytes:
        packer = zlib.compressobj(wbits=_GZIP)
        return packer.compress(data) + packer.flush()

    def unpack(data: bytes, size: int) -> bytes | None:
        unpacker = zlib.decompressobj(wbits=_GZIP)
        body = unpacker.decompress(data, size)
        if not unpacker.eof:  # the trailer stands behind the last byte
            body += unpacker.decompress(unpacker.unconsumed_tail, 1)
        return body if unpacker.eof and not unpacker.unused_data else None

    return Codec(NUMBERS["gzip"], pack, unpack)


def _lz4() -> Codec:
    from lz4 import block

    def pack(data: bytes) -> bytes:
        packed: bytes = block.compress(data, store_size=False)
        return packed

    def unpack(data: bytes, size: int) -> bytes | None:
        body: bytes = block.decompress(data, uncompressed_size=size)
        return body

    return Codec(NUMBERS["lz4"], pack, unpack)


def _zstd() -> Codec:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    def pack(data: bytes) -> bytes:
        packed: bytes = zstd.compress(data)
        return packed

    def unpack(data: bytes, size: int) -> bytes | None:
        bounds: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        unpacker = zstd.ZstdDecompressor(options=bounds)
        body: bytes = unpacker.decompress(data, max_length=size)
        if not unpacker.eof:  # what ends the frame stands behind the last byte
            body += unpacker.decompress(b"", max_length=1)
        return body if unpacker.eof and not unpacker.unused_data else None

    return Codec(NUMBERS["zstd"], pack, unpack)


_LOADERS: dict[str, Callable[[], Codec]] = {"gzip": _gzip, "lz4": _lz4, "zstd": _zstd}
