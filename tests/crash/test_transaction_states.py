"""What kills and power cuts may leave of transactions, some of it: all of each, or nothing.

``tests/torture/transactions.py`` tries it for as long as it is told.
"""

from __future__ import annotations

from tests.torture import transactions
from tests.torture.transactions import Effort


def test_every_state_a_crash_may_leave_has_all_of_a_transaction_or_nothing() -> None:
    """Each sync level, with the ledger rewritten at every step and now and then."""
    effort = Effort(moments=0.1, per_moment=1, nested=0.05, nested_moments=0.05)
    figures = transactions.run(0, 3, effort, least=3)
    assert figures["violations"] == 0
    assert figures["states"] > 60
    assert figures["nested"]
