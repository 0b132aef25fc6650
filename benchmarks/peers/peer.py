"""What every peer offers: a log in a directory, and verbs.

The verbs are methods, and a workload names those it calls; a peer without one does not offer it.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from benchmarks.data import Dataset

Sync = Literal["never", "interval", "always"]
Put = Callable[[bytes, bytes], object]
Take = Callable[[], object]

HAND_OVER_TIMEOUT = 10.0


class Peer(ABC):
    """A log in an existing directory; `sync` is one of minilog's three levels."""

    name: ClassVar[str]
    meaning: ClassVar[str]  # of an append, printed beside the figures

    @abstractmethod
    def __init__(self, directory: Path, *, sync: Sync = "never") -> None: ...

    @classmethod
    @abstractmethod
    def version(cls) -> str | None:
        """What is installed, or None when it is not."""

    @abstractmethod
    def append_singly(self, data: Dataset) -> None: ...

    @abstractmethod
    def append_batches(self, batches: Sequence[Dataset]) -> None: ...

    @abstractmethod
    def records(self) -> Iterator[Any]:
        """Everything there is now, each record as Python objects."""

    @abstractmethod
    def flush(self) -> None:
        """Put everything on the disk."""

    @abstractmethod
    def close(self) -> None:
        """Close cleanly."""

    def count(self) -> int:
        return sum(1 for _ in self.records())

    def last(self) -> tuple[int, bytes | None]:
        """Offset and value of the last record."""
        record = deque(self.records(), maxlen=1)[0]
        return record[0], record[-1]
