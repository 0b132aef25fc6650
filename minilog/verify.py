"""``minilog.verify``: read every byte of a directory, change none, say what is wrong.

It needs no lock and may look on while a writer works: what that writer is just storing is then
told as an unfinished end. This module refuses to know frames.
"""

from __future__ import annotations

from collections.abc import Callable

from minilog.broker import Broker
from minilog.errors import CorruptionError, MinilogError, StorageError, UnsupportedFormatError
from minilog.home import BROKER_FILE, RESERVED_PREFIX, home_at
from minilog.ledger import LEDGER
from minilog.reports import VerifyReport
from minilog.storage import Problem
from minilog.storage.files import PathLike
from minilog.topic import log_identity


def verify(path: PathLike) -> VerifyReport:
    """Read every byte of the log at ``path`` and report what is not as it was written.

    Records of transactions that are open or were aborted are read, but not counted. StorageError
    when there is no log; what is wrong inside it is in the report, not raised.
    """
    from minilog.storage.inspection import inspect_log  # most programs never verify

    home = home_at(path)
    if not home.exists():
        raise StorageError(f"{home.path} does not exist; there is no log to verify")
    problems: list[Problem] = []
    try:
        home.check()
    except (CorruptionError, UnsupportedFormatError) as error:
        problems.append(_problem(error, f"{home.path}/{BROKER_FILE}"))
    marks = home.load_marks(problems) or {}
    hides = _hides(path) if home.topic_directory(LEDGER).exists() else _hides_none
    count = size = 0
    for name, state in home.topics():
        if isinstance(state, StorageError):
            problems.append(_problem(state, f"{home.path}/{name}"))
            continue
        for number in range(state.partition_count):
            found = inspect_log(
                home.topic_directory(name).child(str(number)),
                log_identity(state.id, number),
                state.start_offsets.get(number, 0),
                marks.get(f"{state.id}/{number}"),
                hides,
            )
            problems += found.problems
            if not name.startswith(RESERVED_PREFIX):  # what is our own is no record of anybody's
                count += found.record_count
            size += found.size_bytes
    return VerifyReport(tuple(problems), count, size)


def _hides(path: PathLike) -> Callable[[int], bool]:
    """Return what says which transactions are open or were aborted; where that cannot be told,
    none is."""
    try:
        with Broker(path, read_only=True) as broker:
            if broker.ledger.has_transactions:
                return broker.ledger.hides
    except (OSError, MinilogError):
        pass  # what is wrong there is a problem that is found in its own place
    return _hides_none


def _hides_none(transaction: int) -> bool:
    return False


def _problem(error: StorageError, path: str) -> Problem:
    if isinstance(error, CorruptionError):
        return Problem(error.path, error.position, error.offset, error.reason)
    return Problem(path, 0, None, str(error))
