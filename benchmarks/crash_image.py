"""A directory as a crash would leave it: a copy taken while its log is open.

Refuses to know whose files they are.
"""

import os
import shutil
from pathlib import Path


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a directory with the holes of its files: an lmdb file is mostly one."""
    for path in source.rglob("*"):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True)
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "rb") as original, open(copy, "wb") as image:
            if hasattr(os, "SEEK_DATA"):
                _copy_extents(original.fileno(), image.fileno())
            else:
                shutil.copyfileobj(original, image)


def _copy_extents(source: int, target: int) -> None:
    end = os.fstat(source).st_size
    os.truncate(target, end)
    position = 0
    while position < end:
        try:
            position = os.lseek(source, position, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            break
        hole = os.lseek(source, position, os.SEEK_HOLE)
        while position < hole:
            copied = os.pread(source, min(1 << 20, hole - position), position)
            position += os.pwrite(target, copied, position)
