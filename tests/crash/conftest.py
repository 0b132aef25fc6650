"""Where simulated crashes happen: thousands of logs are opened, and a sync proves nothing there.

It refuses to know what is tested.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

IN_MEMORY = Path("/dev/shm")
SIMULATED = (
    "test_cleaning_crash",
    "test_cleaning_interrupts",
    "test_damage",
    "test_interrupts",
    "test_processes",
    "test_recovery",
    "test_transaction_cuts",
)


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory of the test's own; for simulated crashes in memory, where there is such."""
    module = request.module.__name__.rpartition(".")[2]
    if module not in SIMULATED or not os.access(IN_MEMORY, os.W_OK):
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(prefix="minilog-", dir=IN_MEMORY))
    yield path
    shutil.rmtree(path)
