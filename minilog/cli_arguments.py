"""What the words of a command line mean: numbers, offsets, times, the directory.

It stands outside the library, beside `cli.py`. It refuses to know any command.
"""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta

DEFAULT_DIRECTORY = "./minilog-data"
WHOLE_NUMBER = r"[0-9]{1,18}"  # what an offset, and a count, can be
EPOCH = datetime.fromtimestamp(0, UTC)


class UsageError(Exception):
    """The command line, or a line of the input, asks for something that cannot be."""


def whole_number(text: str) -> int:
    """Return a number that is not negative."""
    if not re.fullmatch(WHOLE_NUMBER, text):
        raise argparse.ArgumentTypeError(f"not a whole number: {text!r}")
    return int(text)


def offset_or_time(text: str) -> int | datetime:
    """Return an offset, or the moment that an ISO 8601 time or an age such as 90s means."""
    if re.fullmatch(WHOLE_NUMBER, text):
        return int(text)
    try:
        if age := re.fullmatch(r"-?([0-9]+)([smhd])", text):
            unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[age[2]]
            moment = datetime.now(UTC) - timedelta(**{unit: int(age[1])})
        else:
            moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"neither an offset nor a time: {text!r}") from None
    return max(moment if moment.tzinfo else moment.replace(tzinfo=UTC), EPOCH)


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Add `--directory`."""
    text = "the directory of the log (default: %(default)s)"
    parser.add_argument("--directory", metavar="DIR", default=DEFAULT_DIRECTORY, help=text)
