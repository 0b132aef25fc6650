"""Every workload, every operation, every legal crash: what is found keeps all promises.

A share of what the torture runner tries for as long as it is told. A failure prints the workload,
the seed, every operation and what became of it, cut down to the smallest that fails.
"""

from __future__ import annotations

import pytest
from crash_explorer import Effort, Figures, explore
from crash_workloads import WORKLOADS
from story import Told

CI_STATES = 20_000
SEED = 1
EFFORT = Effort(per_moment=22, nested_share=0.1, nested_count=3)


@pytest.fixture(scope="module")
def figures() -> Figures:
    return Figures()


@pytest.mark.parametrize("told", WORKLOADS, ids=lambda told: told.name)
def test_every_promise_holds_after_any_crash(told: Told, figures: Figures) -> None:
    before = len(figures.seen)
    explore(told, SEED, EFFORT, figures)
    assert len(figures.seen) - before > 30


@pytest.mark.parametrize("told", WORKLOADS[::3], ids=lambda told: told.name)
def test_every_promise_holds_where_nothing_can_be_reserved(told: Told, figures: Figures) -> None:
    before = len(figures.seen)
    explore(told, 4, Effort(per_moment=4, nested_share=0.1), figures)
    assert len(figures.seen) - before > 20


def test_enough_was_tried(figures: Figures) -> None:
    if figures.stories < len(WORKLOADS) * 4 // 3:
        pytest.skip("only some of the workloads were run")
    assert len(WORKLOADS) >= 30
    assert len(figures.seen) >= CI_STATES
