"""``minilog.verify``: read every byte of a directory, change none, say what is wrong.

It needs no lock and may look on while a writer works: what that writer is just storing is then
told as an unfinished end. This module refuses to know frames.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from minilog.broker import BROKER_FILE, CLEAN_FILE, OURS
from minilog.errors import CorruptionError, StorageError
from minilog.reports import VerifyReport
from minilog.storage import CleanMark, Problem
from minilog.storage.files import Directory, disk_directory
from minilog.storage.format import decode_document
from minilog.storage.inspection import inspect_log
from minilog.topic import TOPIC_FILE, TopicState, log_identity


def verify(path: str | os.PathLike[str]) -> VerifyReport:
    """Read every byte of the log at ``path`` and report what is not as it was written.

    StorageError when there is no log; what is wrong inside it is in the report, not raised.
    """
    root = disk_directory(path)
    if not root.exists():
        raise StorageError(f"{root.path} does not exist; there is no log to verify")
    problems: list[Problem] = []
    try:
        decode_document(root.read(BROKER_FILE), f"{root.path}/{BROKER_FILE}")
    except FileNotFoundError:
        raise StorageError(
            f"{root.path} is not a minilog directory: it has no {BROKER_FILE}"
        ) from None
    except StorageError as error:
        problems.append(_problem(error, f"{root.path}/{BROKER_FILE}"))
    marks = _marks(root, problems)
    count = size = 0
    for directory, state in _topics(root, problems):
        for number in range(state.partition_count):
            found = inspect_log(
                directory.child(str(number)),
                log_identity(state.id, number),
                state.start_offsets.get(number, 0),
                marks.get(f"{state.id}/{number}"),
            )
            problems += found.problems
            count += found.record_count
            size += found.size_bytes
    return VerifyReport(tuple(problems), count, size)


def _marks(root: Directory, problems: list[Problem]) -> dict[str, CleanMark]:
    path = f"{root.path}/{CLEAN_FILE}"
    try:
        content = decode_document(root.read(CLEAN_FILE), path)
        return {key: CleanMark(*mark) for key, mark in content["logs"].items()}
    except FileNotFoundError:
        return {}
    except StorageError as error:
        problems.append(_problem(error, path))
        return {}


def _topics(root: Directory, problems: list[Problem]) -> Iterator[tuple[Directory, TopicState]]:
    for name in root.names():
        directory = root.child(name)
        try:
            if name in OURS or not directory.exists():
                continue
            names = directory.names()
            if TOPIC_FILE in names or any(child.isdecimal() for child in names):
                yield directory, TopicState.load(directory)
        except StorageError as error:
            if "symbolic link" not in str(error) and "not a directory" not in str(error):
                problems.append(_problem(error, directory.path))


def _problem(error: StorageError, path: str) -> Problem:
    if isinstance(error, CorruptionError):
        return Problem(error.path, error.position, error.offset, error.reason)
    return Problem(path, 0, None, str(error))
