"""`python -m tests.history.replay LEVEL SEED`: runs one schedule again and shows what happens.

LEVEL is `steps`, `locks` or `lines`; `--transactions` is for a schedule that had them. Prints the
anomalies and the last operations, with `--all` every operation. It refuses to know what a test
makes of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests.history.anomalies import summary
from tests.history.checker import check
from tests.history.drivers import CHANCES, run_scheduled


def main(arguments: Sequence[str]) -> int:
    """Replay what the command line asks for; return 1 where there is an anomaly."""
    level, seed, *more = arguments
    outcome = run_scheduled(int(seed), CHANCES[level], has_transactions="--transactions" in more)
    history = outcome.history
    print(history.tail(len(history) if "--all" in more else 40))
    anomalies = check(history.operations)
    print(f"{len(history)} operations, {len(outcome.trace)} switches, {len(anomalies)} anomalies")
    print(*outcome.workload.setting.groups, sep="\n")
    print(summary(anomalies))
    return 1 if anomalies else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
