"""What outlives or outnumbers brokers: the end of the interpreter, and children of fork.

This module refuses to know what closing is, and what may be done in a child.
"""

from __future__ import annotations

import atexit
import contextlib
import weakref
from typing import Protocol

from minilog.errors import StorageError
from minilog.storage.files import call_in_forked_child


class Living(Protocol):
    """Whoever holds a log open."""

    @property
    def is_closed(self) -> bool: ...
    def close(self) -> None: ...
    def refuse_in_child(self) -> None: ...


_living: weakref.WeakSet[Living] = weakref.WeakSet()


def enrol(living: Living) -> None:
    """Have it closed when the interpreter ends, and refuse in children of fork."""
    _living.add(living)


def dismiss(living: Living) -> None:
    """Forget one that was closed."""
    _living.discard(living)


def _refuse_all_in_child() -> None:
    for living in list(_living):
        living.refuse_in_child()


def _close_all() -> None:
    for living in list(_living):
        if not living.is_closed:
            with contextlib.suppress(OSError, StorageError):
                living.close()


call_in_forked_child(_refuse_all_in_child)
atexit.register(_close_all)
