"""``python -m tests.torture --minutes N``: runs every share for as long as told, prints figures.

The shares run one after another and share the time evenly; what one leaves over the others get.
The exit code is 1 if any of them met a violation. This module refuses to know what the shares
do; it lists the package to find them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import platform
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import FrameType, ModuleType
from typing import Any

import tests.torture

Share = Callable[[float, int], dict[str, int | float]]


def shares_of(package: ModuleType) -> dict[str, Share]:
    """Return the ``run`` of every module of a package that has one, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    modules = {
        name: importlib.import_module(f"{package.__name__}.{name}")
        for name in names
        if not name.startswith("_")
    }
    return {name: module.run for name, module in modules.items() if hasattr(module, "run")}


def run_shares(shares: Mapping[str, Share], minutes: float, seed: int) -> dict[str, Any]:
    """Run shares one after another; return the figures of each."""
    ends = time.monotonic() + 60 * minutes
    found: dict[str, Any] = {}
    for number, (name, run) in enumerate(shares.items()):
        left = max(ends - time.monotonic(), 0) / 60
        share_minutes = left / (len(shares) - number)
        print(f"{name}: {share_minutes:.1f} minutes, seed {seed}", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            figures = dict(run(share_minutes, seed))
        except Exception:
            traceback.print_exc()
            print(
                f"again: python -m tests.torture --only {name} --seed {seed}",
                file=sys.stderr,
                flush=True,
            )
            figures = {"violations": 1}
        figures.setdefault("seconds", round(time.monotonic() - began, 1))
        found[name] = figures
    return found


def table_of(found: Mapping[str, Mapping[str, int | float]]) -> str:
    """Return the figures as lines: a share's name, its violations, then the rest."""
    width = max((len(name) for name in found), default=0)
    lines = []
    for name, figures in found.items():
        violations = figures.get("violations", 1)
        rest = [
            f"{label.replace('_', ' ')} {number:,}"
            for label, number in figures.items()
            if label != "violations"
        ]
        lines.append(f"{name:{width}}  {violations} violations  {'  '.join(rest)}")
    return "\n".join(lines)


def violations_of(found: Mapping[str, Mapping[str, int | float]]) -> int:
    """Return how many violations there were; a share that does not say has one."""
    return sum(int(figures.get("violations", 1)) for figures in found.values())


def _leave(number: int, frame: FrameType | None) -> None:
    """End by an exception, so that whatever is mounted is unmounted."""
    raise SystemExit(128 + number)


def main(arguments: Sequence[str], package: ModuleType = tests.torture) -> int:
    """Run what the command line asks for; return the exit code."""
    shares = shares_of(package)
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all shares together")
    parser.add_argument("--only", action="append", choices=sorted(shares), help="may be repeated")
    parser.add_argument("--seed", type=int, help="by default one that is drawn and printed")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    asked = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(2**31) if asked.seed is None else asked.seed
    chosen = {name: run for name, run in shares.items() if not asked.only or name in asked.only}
    began = datetime.now(UTC)
    found = run_shares(chosen, asked.minutes, seed)
    machine = f"{platform.system()} {platform.release()} {platform.machine()}"
    python = platform.python_version()
    if asked.json:
        report = {
            "began": began.isoformat(timespec="seconds"),
            "machine": machine,
            "python": python,
            "minutes": asked.minutes,
            "seed": seed,
            "shares": found,
        }
        print(json.dumps(report, indent=1))
    else:
        print(f"{began:%Y-%m-%d %H:%M} UTC  {machine}  Python {python}  seed {seed}")
        print(table_of(found))
    return 1 if violations_of(found) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    sys.exit(main(sys.argv[1:]))
