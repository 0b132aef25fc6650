"""What every peer offers: a log in a directory, and verbs.

The verbs are methods, and a workload names those it calls; a peer without one does not offer it:

- `append_singly(data)`, each visible when its call returns; `append_durably(data)`, each on the
  disk then; `append_batches(batches)`, many at a time;
- `records()` reads everything there is, `read_at(offsets)` one record at each offset and returns
  the last, `last()` the offset and value of the newest;
- `flush()` puts everything on the disk;
- `hand_over_ends()` gives what a producer and what a waiting consumer call.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, Literal

Sync = Literal["never", "interval", "always"]
Put = Callable[[bytes, bytes], object]
Take = Callable[[], object]

HAND_OVER_TIMEOUT = 10.0


class Peer(ABC):
    """A log in an existing directory; `sync` is one of minilog's three levels."""

    name: ClassVar[str]
    meaning: ClassVar[str]  # of an append, printed beside the figures
    package: ClassVar[str] = ""  # what pip installs it by; none: it is there
    most_records: ClassVar[int | None] = None  # in one log here, where more would take for ever
    is_persistent: ClassVar[bool] = True
    is_used_up: ClassVar[bool] = False  # by reading it, which is all the reading there is

    key_of: Callable[[Any], Any] = staticmethod(itemgetter(-2))  # of one of `records`
    value_of: Callable[[Any], Any] = staticmethod(itemgetter(-1))

    @abstractmethod
    def __init__(self, directory: Path, *, sync: Sync = "never") -> None: ...

    @classmethod
    def version(cls) -> str | None:
        """What is installed, or None when it is not."""
        try:
            return version(cls.package)
        except PackageNotFoundError:
            return None

    @abstractmethod
    def records(self) -> Iterator[Any]:
        """Everything there is now, each record as Python objects."""

    @abstractmethod
    def close(self) -> None:
        """Close cleanly."""
