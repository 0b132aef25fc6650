"""Fixtures shared by all tests: a place for a log, a broker in it, a clock turned by hand, and
a second Python process. It knows nothing of how minilog stores anything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import minilog
from minilog import Broker, ConfigError
from minilog.storage import check_codec
from minilog.testing import ManualClock

# How long an example takes says something about the machine alone.
settings.register_profile("minilog", deadline=None)
settings.load_profile("minilog")


PACKAGE_ROOT = Path(minilog.__file__).parent.parent


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    """A directory for a log that does not exist yet."""
    return tmp_path / "log"


@pytest.fixture(params=["disk", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a log may live: once in a directory, once in memory."""
    return tmp_path / "log" if request.param == "disk" else ":memory:"


@pytest.fixture
def broker(location: Path | str) -> Iterator[Broker]:
    """An open broker with tiny segments, so that every test rolls."""
    with Broker(location, segment_bytes=256, maintenance_interval_ms=0) as opened:
        yield opened


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start_ms=1_700_000_000_000)


@pytest.fixture
def need_codec() -> Callable[[str], str]:
    """Skips the test, visibly, where the package of a codec is not installed."""

    def need(compression: str) -> str:
        try:
            check_codec(compression)
        except ConfigError as error:
            pytest.skip(str(error))
        return compression

    return need


@pytest.fixture(params=["gzip", "lz4", "zstd"])
def compression(request: pytest.FixtureRequest, need_codec: Callable[[str], str]) -> str:
    """Each way to compress that is installed."""
    return need_codec(request.param)


@pytest.fixture
def python_command() -> Callable[..., list[str]]:
    """The command line that runs `source` with `args` in another Python process."""

    def command(source: str, *args: object) -> list[str]:
        bootstrap = f"import sys; sys.path.insert(0, {str(PACKAGE_ROOT)!r})\n"
        return [sys.executable, "-c", bootstrap + source, *map(str, args)]

    return command


@pytest.fixture
def run_python(python_command: Callable[..., list[str]]) -> Callable[..., str]:
    """Runs `source` in another process to its end and returns what it printed."""

    def run(source: str, *args: object, returncode: int = 0) -> str:
        finished = subprocess.run(
            python_command(source, *args),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert finished.returncode == returncode, finished.stderr
        return finished.stdout

    return run
