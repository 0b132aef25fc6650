"""Importers and pipelines are killed with signal 9 and started again: the share that CI runs.

``tests/torture/exactly_once.py`` does it for as long as it is told.
"""

from __future__ import annotations

import pytest

from tests.torture import exactly_once


@pytest.mark.parametrize("kind", exactly_once.CHECKS)
def test_killed_anywhere_each_counts_once(kind: str) -> None:
    seed = {"importer": 20, "pipeline": 21}[kind]
    figures = exactly_once.run(0, seed, most=4, least=1)
    assert figures["violations"] == 0
    assert figures.get(exactly_once.KILLS[kind]) == 4 or figures.get(f"{kind}_logs_done") == 1
