"""Fuzzing every decoder for as long as told: by atheris where it is installed, else by chance.

What fails is written to a directory that is printed; put beside the corpus under a name that
tells the calamity, it is replayed by every run of the tests. This module refuses to know the
targets.
"""

from __future__ import annotations

import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz import targets
from tests.fuzz.mutation import mutated
from tests.torture.rounds import Figures, Rounds

CORPUS = Path(targets.__file__).parent / "corpus"
EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
SLOWEST_S = 10
MOST_MEMORY_MB = 2048
HEAVY = 3  # whole directories get as much time as so many others


def inputs_of(name: str) -> list[bytes]:
    """Return the committed inputs of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def fuzz_by_chance(name: str, seconds: float, seed: int, found: Path, counts: Counter[str]) -> None:
    """Run a target on changed inputs, until the time is over or one fails."""
    chance = random.Random(seed)
    corpus = inputs_of(name)
    ends = time.monotonic() + seconds
    target = targets.TARGETS[name]
    while True:
        data = mutated(chance.choice(corpus), corpus, chance)[: targets.LARGEST_INPUT]
        counts["executions"] += 1
        began = time.monotonic()
        try:
            target(data)
        except Exception:
            (found / name).write_bytes(data)
            raise
        if began > ends:
            return


def fuzz_by_coverage(
    name: str, seconds: float, seed: int, found: Path, counts: Counter[str]
) -> None:
    """Run atheris on a target in a process of its own, which it ends."""
    grown = found / f"corpus-{name}"
    grown.mkdir()
    command = [sys.executable, "-m", "tests.fuzz.with_atheris", name, str(grown)]
    command += [str(CORPUS / name), f"-seed={seed % 2**32 or 1}", "-print_final_stats=1"]
    command += [f"-max_total_time={max(round(seconds), 1)}", f"-artifact_prefix={found}/{name}-"]
    command += [f"-max_len={targets.LARGEST_INPUT}", f"-timeout={SLOWEST_S}"]
    command += [f"-rss_limit_mb={MOST_MEMORY_MB}", "-verbosity=1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, errors="replace"
    )
    executed = EXECUTED.search(finished.stderr)
    counts["executions"] += int(executed[1]) if executed else 0
    if finished.returncode:
        raise AssertionError(f"{finished.stdout[-4000:]}\n{finished.stderr[-4000:]}")


def run(minutes: float, seed: int) -> Figures:
    """Fuzz every target, one after another."""
    rounds = Rounds("fuzz", 0, seed)
    has_atheris = importlib.util.find_spec("atheris") is not None
    fuzz = fuzz_by_coverage if has_atheris else fuzz_by_chance
    found = Path(tempfile.mkdtemp(prefix="minilog-fuzz-"))
    names = list(targets.TARGETS)
    shares = len(names) + HEAVY - 1
    for name in names:
        seconds = 60 * minutes / shares * (HEAVY if name == "directory" else 1)
        with rounds.judged(seed, f"{name}; the input is in {found}"):
            fuzz(name, seconds, seed, found, rounds.counts)
    return {**rounds.figures(), "targets": len(names), "with_atheris": int(has_atheris)}
