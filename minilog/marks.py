"""Where every log ended at a clean close, and until when that is so.

The marks stand in ``clean.json`` while nobody writes; the file is taken away, durably, before the
first byte changes. In memory a mark is kept of each partition that was not opened since, so that
the next close can say of all of them where they end.

A mark that is kept is true: whoever opens a log for writing takes its mark away, and so does a
close that fails. This module refuses to know what a mark says of the files, and who closes.
"""

from __future__ import annotations

import threading

from minilog.home import Home, Marks
from minilog.partition import Partition
from minilog.storage import CleanMark, Log, Problem
from minilog.topic import Topic


class CleanMarks:
    """The marks of one broker's partitions, by topic and number."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._marks: Marks = {}
        self._lock = threading.Lock()  # a leaf
        self.is_clean = False  # the file is there, and so what is in it holds of all

    def load(self, problems: list[Problem]) -> None:
        """Read what a clean close left; what cannot be read is added to the problems."""
        marks = self._home.load_marks(problems)
        self.is_clean = marks is not None
        self._marks = marks or {}

    def take_away(self) -> None:
        """Before the first byte changes: have no file say any more where the logs end."""
        if self.is_clean:
            with self._lock:
                if self.is_clean:
                    self._home.clear_marks()
                    self.is_clean = False

    def save(self) -> None:
        """Have a file say where every log ends; all of it is on the disk."""
        self._home.save_marks(self._marks)

    def of(self, topic: Topic, partition: int) -> CleanMark | None:
        """Return a partition's mark, if there is one."""
        return self._marks.get(_key(topic, partition))

    def made(self, topic: Topic, numbers: range) -> None:
        """Note that partitions are new, so that opening one need not look at its files."""
        for number in numbers:
            self._marks[_key(topic, number)] = Log.fresh_mark(0)

    def forget(self, topic: Topic, partition: int) -> None:
        """Forget a mark: from here on it says less than the files do."""
        self._marks.pop(_key(topic, partition), None)

    def closed(self, topic: Topic, partition: Partition, mark: CleanMark | None) -> None:
        """Take the mark that closing a partition has left; without one the end of a partition
        that was open is not known."""
        if mark is not None:
            self._marks[_key(topic, partition.index)] = mark
        elif partition.is_open:
            self.forget(topic, partition.index)

    def renew_lock(self) -> None:
        """In a child of fork: who holds the old lock may be gone."""
        self._lock = threading.Lock()


def _key(topic: Topic, partition: int) -> str:
    return f"{topic.id}/{partition}"
