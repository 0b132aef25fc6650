"""The machine behind a set of figures, and what is installed on it."""

import os
import platform
import re
from argparse import ArgumentTypeError
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any


def describe(directory: Path) -> dict[str, str]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {os.cpu_count()} cores, {_memory()}",
        "system": f"{platform.system()} {platform.release()}",
        "file system": _file_system(directory),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def directory_there(text: str) -> Path:
    """What ``--directory`` means: the benchmarks make theirs in it, and none above."""
    path = Path(text)
    if not path.is_dir():
        raise ArgumentTypeError(f"{text!r} is no directory; make it first, on a real disk")
    return path


def optional(module: str) -> Any:
    """A module, or None where it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        return None


class Lazily:
    """A module, imported when something of it is asked for: some take longer than a tiny run."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(import_module(self._module), name)
        setattr(self, name, found)
        return found


def _processor() -> str:
    return _found(Path("/proc/cpuinfo"), r"^model name\s*:\s*(.+)$") or platform.machine()


def _memory() -> str:
    kilobytes = _found(Path("/proc/meminfo"), r"^MemTotal:\s*(\d+) kB$")
    return f"{int(kilobytes) / 2**20:.0f} GiB" if kilobytes else "memory unknown"


def _file_system(directory: Path) -> str:
    """The type of the mount that holds a directory; a tmpfs makes every figure a flattering one."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    fields = (line.split() for line in mounts.read_text().splitlines())
    holding = [
        (len(mount), kind)
        for _, mount, kind, *_ in fields
        if directory.resolve().is_relative_to(mount)
    ]
    kind = max(holding)[1] if holding else "unknown"
    return f"{kind} (in memory: not a disk)" if kind in {"tmpfs", "ramfs"} else kind


def _found(path: Path, pattern: str) -> str | None:
    if not path.exists():
        return None
    match = re.search(pattern, path.read_text(), re.MULTILINE)
    return match[1] if match else None
