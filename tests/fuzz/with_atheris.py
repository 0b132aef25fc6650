"""``python -m tests.fuzz.with_atheris TARGET CORPUS... [libFuzzer options]``: fuzz one target.

Directories after the first are only read from. This module needs atheris and refuses to know the
target.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["minilog"]):
    from tests.fuzz.targets import TARGETS


def main(arguments: list[str]) -> None:
    """Fuzz until libFuzzer's options have it end."""
    name, *rest = arguments
    target = TARGETS[name]

    def run_one(data: bytes) -> None:
        target(bytes(data))

    atheris.Setup([sys.argv[0], *rest], run_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
