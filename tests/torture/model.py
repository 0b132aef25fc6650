"""Long runs of the hypothesis machine that crashes and fails (``tests/properties``).

This module refuses to know the machine's rules; it counts its steps.
"""

from __future__ import annotations

import os
import tempfile

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.properties.crash_machine import CrashMachine
from tests.torture.rounds import Figures, Rounds

IN_MEMORY = "/dev/shm"
EXAMPLES = 60


def run(minutes: float, seed_: int) -> Figures:
    """Run the machine for as long as told."""
    rounds = Rounds("model", minutes, seed_)
    before = tempfile.tempdir
    if os.access(IN_MEMORY, os.W_OK):
        tempfile.tempdir = IN_MEMORY  # a sync proves nothing here
    try:
        for round_seed, chance in rounds:
            length = chance.choice([20, 50, 100])
            machine = seed(round_seed)(type("CrashMachine", (CrashMachine,), {"steps": 0}))
            with rounds.judged(round_seed, f"{EXAMPLES} runs of {length} steps"):
                run_state_machine_as_test(
                    machine,
                    settings=settings(
                        max_examples=EXAMPLES,
                        stateful_step_count=length,
                        deadline=None,
                        database=None,
                        print_blob=True,
                        phases=[Phase.generate, Phase.shrink],
                        suppress_health_check=list(HealthCheck),
                    ),
                )
            rounds.counts["steps"] += machine.steps
    finally:
        tempfile.tempdir = before
    return rounds.figures()
