"""The layers of the tests, as commands that fail when they catch something.

This module refuses to know what is planted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

TIMEOUT_S = 3600  # a machine may be busy; what does not return is caught
CRASH_STATES = "crash states"
UNCHANGED = "unchanged"

LAYERS: dict[str, list[str]] = {
    CRASH_STATES: ["-m", "tests.planted_bugs.crash_layer"],
    UNCHANGED: ["-m", "tests.planted_bugs.crash_layer", "30"],  # seconds
    "backends": [
        "-m",
        "pytest",
        "-x",
        "tests/unit/test_file_backends.py",
        "tests/unit/test_format.py",
        "tests/unit/test_index.py",
        "tests/unit/test_scan.py",
    ],
    "unit": ["-m", "pytest", "-x", "tests/unit"],
    "recovery": [
        "-m",
        "pytest",
        "-x",
        "tests/crash/test_recovery.py",
        "tests/crash/test_calamities.py",
    ],
    "sync failures": ["-m", "pytest", "-x", "tests/crash/test_sync_failure.py"],
    "faults": ["-m", "pytest", "-x", "tests/crash/test_faults.py"],
    "interrupts": ["-m", "pytest", "-x", "tests/crash/test_interrupts.py"],
    "damage": ["-m", "pytest", "-x", "tests/crash/test_damage.py"],
    "properties": ["-m", "pytest", "-x", "tests/properties", "tests/golden"],
    "kills": ["-m", "pytest", "-x", "tests/crash/test_kill.py"],
    "stress": ["-m", "pytest", "-x", "tests/stress"],
}


def catches(layer: str, copy: Path, timeout_s: float = TIMEOUT_S) -> tuple[bool, float, str]:
    """Run a layer on a copy; return whether it failed, how long it took, and its last line."""
    began = time.monotonic()
    command = [sys.executable, "-B", *LAYERS[layer]]
    if "pytest" in command:
        command += ["-p", "no:cacheprovider", "--basetemp", str(copy / "basetemp")]
    environment = {"PYTHONPATH": str(copy), "PATH": "/usr/bin:/bin", "TMPDIR": str(copy.parent)}
    try:
        finished = subprocess.run(
            command,
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True, time.monotonic() - began, "it did not return"
    lines = [line for line in finished.stdout.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("FAILED", "ERROR", "caught"))] or lines
    if finished.returncode not in (0, 1):  # 5 is "no tests": then nothing was tried
        telling = [f"exit code {finished.returncode}: {finished.stderr.strip()[-200:]}"]
    return finished.returncode != 0, time.monotonic() - began, (telling or [""])[-1]
