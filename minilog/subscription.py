"""What a consumer reads: topics it subscribed to, partitions it was assigned, its group's share.

Topics and partitions come and go; what is new is taken in and told to the callback, once, before
anything of it is delivered. That a topic is gone which was named is told by an error, once: what is
left is read on, and so is a topic that is made again by that name. A pattern is matched from the
start of a name, as ``re.match``.

The consumer's lock is over it: held by the caller where nothing else is said, never while a
callback runs. This module refuses to know positions, records and waiting.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Protocol

from minilog.errors import ConfigError, UnknownTopicError
from minilog.membership import Callback, Membership
from minilog.partition import Partition
from minilog.places import Places
from minilog.records import TopicPartition
from minilog.topic import Topic


class Source(Protocol):
    """What a subscription needs of a broker."""

    change_count: int

    @property
    def changes(self) -> int: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def is_read_only(self) -> bool: ...
    @property
    def topics(self) -> Mapping[str, Topic]: ...
    def topic(self, name: str) -> Topic: ...
    def topic_to_use(self, name: str) -> Topic: ...


class Subscription:
    """What one consumer reads, and whom it tells.

    It lives as long as the consumer or an iterator of its: then its group is told.
    """

    is_closed = False  # the consumer was: nothing is read any more

    def __init__(
        self,
        broker: Source,
        places: Places,
        membership: Membership | None,
        lock: threading.RLock,
    ) -> None:
        self._broker = broker
        self._places = places
        self._lock = lock
        self._membership = membership
        self._names: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None
        self._is_assigned = False
        self._named: frozenset[str] = frozenset()  # subscribed to, or partitions of them assigned
        self._missing: frozenset[str] = frozenset()  # of those, which are deleted now
        self._to_tell: frozenset[str] = frozenset()  # and nobody was told so yet
        self._callbacks: dict[str, Callback | None] = {}
        self._to_announce: list[TopicPartition] = []
        self._has_announced = False
        self._seen_changes = -1

    def is_over(self) -> bool:
        """Say whether nothing is read any more, as the consumer or its broker was closed."""
        return self.is_closed or self._broker.is_closed

    def __del__(self) -> None:
        membership: Membership | None = getattr(self, "_membership", None)
        if membership is not None and not self.is_closed:
            membership.drop()

    # ------------------------------------------------------------ what is wanted

    def subscribe(
        self,
        names: frozenset[str],
        pattern: re.Pattern[str] | None,
        callbacks: dict[str, Callback | None],
    ) -> None:
        """Read these topics, or those that match; UnknownTopicError, ConfigError."""
        if self._is_assigned:
            raise ConfigError("this consumer was assigned partitions; unsubscribe() first")
        for name in names:
            self._broker.topic_to_use(name)
        if self._membership is not None:
            self._membership.join(names, pattern, callbacks)
        self._names, self._pattern, self._callbacks = names, pattern, callbacks
        self._name(names)
        self._places.forget_error()
        self.refresh(is_first=True)

    def assign(self, wanted: list[TopicPartition]) -> None:
        """Read these partitions and no others; ConfigError beside ``subscribe``."""
        if self._names or self._pattern is not None:
            raise ConfigError("this consumer has subscribed to topics; unsubscribe() first")
        found = {tp: self._broker.topic(tp.topic)[tp.partition] for tp in wanted}
        self._is_assigned = True
        self._name(frozenset(tp.topic for tp in wanted))
        self._places.forget_error()
        membership = self._membership
        make = self._places.first_place if membership is None else membership.place_for()
        self._to_announce += self._places.replace(found, make)

    def leave(self, *, commits: bool, for_good: bool) -> None:
        """Give all partitions up; whatever the callback raises comes out, and they are gone. The
        caller does not hold the lock."""
        membership = self._membership
        with self._lock:
            gone = self._places.told()
        try:
            if membership is not None:
                membership.call_before_leaving(gone, commits)
            else:
                callback = self._callbacks.get("on_revoked")
                if callback is not None and gone:
                    callback(gone)
        finally:
            with self._lock:
                self._names, self._pattern, self._is_assigned = frozenset(), None, False
                self._callbacks, self._to_announce, self._has_announced = {}, [], False
                self._name(frozenset())
                self._places.clear()
            if membership is not None and not self._broker.is_closed:
                membership.leave(for_good=for_good)

    def topic_names(self) -> frozenset[str]:
        """Return the names subscribed to, or those that match now."""
        pattern = self._pattern
        if pattern is None:
            return self._names
        return frozenset(name for name in self._broker.topics if pattern.match(name))

    # ------------------------------------------------------------ what has come and gone

    def refresh(self, *, is_first: bool = False) -> None:
        """Take in topics and partitions that have come or gone."""
        if self._membership is not None and not self._is_assigned:
            self._to_announce += self._membership.refresh()
            return
        changes = self._broker.changes
        if self._broker.is_read_only:
            changes = -1  # partitions may come in another process: look each time
        if not is_first and changes == self._seen_changes and changes >= 0:
            return
        self._seen_changes = changes
        found: dict[TopicPartition, Partition] = {}
        if self._is_assigned:
            for tp, place in self._places.items():
                if not self._is_deleted(tp.topic):
                    found[tp] = place.partition
        else:
            for name in sorted(self.topic_names()):
                if not self._is_deleted(name):
                    for partition in self._broker.topic(name):
                        found[TopicPartition(name, partition.index)] = partition
        make = self._places.first_place if is_first else self._places.later_place
        self._to_announce += self._places.replace(found, make)
        self._note_missing(self._named - {tp.topic for tp in found})

    def _name(self, names: frozenset[str]) -> None:
        self._named, self._missing, self._to_tell = names, frozenset(), frozenset()

    def _note_missing(self, names: frozenset[str]) -> None:
        self._to_tell = (self._to_tell | (names - self._missing)) & names
        self._missing = names

    def tell_of_deleted(self) -> None:
        """Raise UnknownTopicError, once, where a topic that was named is deleted now. The caller
        does not hold the lock."""
        with self._lock:
            if self._is_assigned:
                self.refresh()
            elif self._membership is not None and self._seen_changes != self._broker.changes:
                self._seen_changes = self._broker.changes
                self._note_missing(frozenset(filter(self._is_deleted, self._named)))
            gone, self._to_tell = sorted(self._to_tell), frozenset()
        if gone:
            raise UnknownTopicError(
                f"{', '.join(map(repr, gone))} was deleted, and is read no more until a topic of "
                "that name is made; what else was named is: poll again, or unsubscribe()"
            )

    def _is_deleted(self, name: str) -> bool:
        try:
            self._broker.topic(name)
        except UnknownTopicError:
            return True
        return False

    def has_news(self) -> bool:
        """Say whether topics or partitions have come or gone since the last look."""
        return self._broker.changes != self._seen_changes and self._seen_changes >= 0

    def begin_poll(self) -> None:
        """Take in what has come and gone, and tell the callbacks, before anything is read. The
        caller does not hold the lock."""
        if (
            self._membership is None
            and self._has_announced
            and not self._to_announce
            and self._seen_changes == self._broker.change_count
        ):
            return  # most polls: nothing has
        while not self.is_closed:
            if self._membership is not None:
                taken = self._membership.begin_poll()
                with self._lock:
                    self._to_announce += taken
            else:
                with self._lock:
                    self.refresh()
            self._announce()
            if not self._to_announce:
                self.tell_of_deleted()
                return

    def _announce(self) -> None:
        """Run ``on_assigned`` for what is new, and once for who joined a group and has nothing;
        the assignment stands whatever it raises."""
        callback = self._callbacks.get("on_assigned")
        with self._lock:  # what was taken in between polls may be somebody else's since
            announced = self._places.tell(self._to_announce)
            self._to_announce = []
        is_first = self._membership is not None and not self._has_announced
        self._has_announced = True
        if callback is not None and (announced or is_first):
            callback(announced)


def check_callbacks(callbacks: Mapping[str, object]) -> None:
    """Raise ConfigError unless each is callable or None."""
    for name, given in callbacks.items():
        if given is not None and not callable(given):
            raise ConfigError(f"{name} is {given!r}; it must be a callable or None")
