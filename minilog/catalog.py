"""The topics of a broker by name: found in its directory, made, deleted, looked at again.

A topic that cannot be read stands among the *damaged*: its name is taken, and asking for it says
what is wrong. Whatever an error or an interrupt cuts off in the middle, a topic stands for its
files afterwards, or not, as they are.

Whoever changes anything holds the broker's guard; anybody looks. This module refuses to know
groups, what a clean close leaves, and what is in a partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from minilog.config import TopicConfig, nearest, some_of
from minilog.errors import (
    ConfigError,
    InvalidTopicError,
    MinilogError,
    StorageError,
    TopicExistsError,
    UnknownTopicError,
)
from minilog.home import RESERVED_PREFIX, Home, check_topic_name
from minilog.partition import Partition
from minilog.storage import Problem, check_codec
from minilog.topic import (
    Lockable,
    Owner,
    Topic,
    TopicState,
    check_partition_count,
    random_id,
)

if TYPE_CHECKING:
    from sortedcontainers import SortedDict


class Keeper(Protocol):
    """What a catalog needs of its broker."""

    @property
    def is_read_only(self) -> bool: ...
    @property
    def guard(self) -> Lockable: ...
    def check_open(self) -> None: ...
    def check_writable(self) -> None: ...
    def look_again(self) -> None: ...
    def topic_changed(self) -> None: ...


class Catalog:
    """The topics that are there, and those that cannot be read."""

    def __init__(
        self,
        keeper: Keeper,
        owner: Owner,
        home: Home,
        defaults: TopicConfig,
        problems: list[Problem],
    ) -> None:
        from sortedcontainers import SortedDict  # here, so that importing minilog stays quick

        self._keeper = keeper
        self._owner = owner  # of the topics
        self._home = home
        self._defaults = defaults
        self._problems = problems
        self.topics: SortedDict = SortedDict()
        self.damaged: dict[str, MinilogError] = {}

    # ------------------------------------------------------------ what is there

    def load(self, *, is_opening: bool = False) -> None:
        """Take in the topics of the directory that are not known yet.

        ConfigError when one needs a package that is not here, while it ``is_opening``; later
        another process has made that one, and it counts as damaged.
        """
        for name, found in self._home.topics():
            if not isinstance(found, StorageError):
                if name not in self.topics and self._can_decompress(found, is_opening):
                    directory = self._home.topic_directory(name)
                    self.topics[name] = Topic(self._owner, directory, found)
            elif name not in self.damaged:
                self.damaged[name] = found
                self._problems.append(problem_of(found, f"{self._home.path}/{name}"))

    def _can_decompress(self, state: TopicState, is_opening: bool) -> bool:
        try:
            check_codec(state.config.compression)
        except ConfigError as error:
            missing = ConfigError(f"topic {state.name!r}: {error}")
            if is_opening:
                raise missing from None
            self.damaged[state.name] = missing
            return False
        return True

    def find(self, name: object) -> Topic | None:
        """Return the topic of that name, unless it is one of minilog's own."""
        is_ours = not isinstance(name, str) or name.startswith(RESERVED_PREFIX)
        if is_ours:
            return None
        found: Topic | None = self.topics.get(name)
        return found

    def topic(self, name: str) -> Topic:
        """Return the topic of that name; UnknownTopicError, or what damaged it."""
        topic = self.find(name)
        if self._keeper.is_read_only and (topic is None or topic.is_gone()):
            self._keeper.look_again()
            topic = self.find(name)
        if topic is not None:
            return topic
        if isinstance(name, str) and name in self.damaged:
            raise self.damaged[name]
        raise self._unknown(name)

    def by_id(self, topic_id: bytes) -> Topic | None:
        """Return the topic of an id; None when it was deleted."""
        topics: list[Topic] = list(self.topics.values())
        return next((topic for topic in topics if topic.id.bytes == topic_id), None)

    def look_again(self) -> bool:
        """Take in the topics another process has made or deleted; True when some were made."""
        for name, topic in list(self.topics.items()):
            if topic.is_gone():
                del self.topics[name]
                topic.abandon(lambda topic=topic: self._deleted(topic))
        before = len(self.topics)
        self.load()
        return len(self.topics) != before

    def _unknown(self, name: object) -> UnknownTopicError:
        others = [other for other in self.topics if other != name]  # it may be going just now
        there = {other: None for other in others if self.find(other) is not None}
        hint = nearest(str(name), there) if there else "; there are none yet"
        return UnknownTopicError(f"no topic {name!r}{hint}")

    def _deleted(self, topic: Topic) -> UnknownTopicError:
        name = topic.name
        if self.topics.get(name) in (None, topic):
            return self._unknown(name)
        return UnknownTopicError(
            f"topic {name!r} was deleted, and the one there now is another of its name; take that "
            f"by broker.topic({name!r})"
        )

    # ------------------------------------------------------------ made and deleted

    def create(
        self, name: str, partitions: int, settings: Mapping[str, Any], *, exist_ok: bool
    ) -> Topic:
        """Make a topic, durably, and return it; see ``Broker.create_topic``."""
        check_topic_name(name)
        check_partition_count(partitions)
        config = self._defaults.override(settings)
        check_codec(config.compression)
        with self._keeper.guard:
            self._keeper.check_writable()
            if name in self.damaged:
                raise self.damaged[name]
            if name in self.topics:
                if exist_ok:
                    topic: Topic = self.topics[name]
                    return topic
                raise TopicExistsError(
                    f"topic {name!r} exists already; exist_ok=True returns it as it is"
                )
            self._check_case(name)
            if self._home.topic_directory(name).exists():
                self._find_again(name)  # made by a call that was interrupted at its end
                return self.create(name, partitions, settings, exist_ok=exist_ok)
            topic = self._make(name, partitions, config)
        self._keeper.topic_changed()
        self._owner.have_house_kept(config)
        return topic

    def _make(self, name: str, partitions: int, config: TopicConfig) -> Topic:
        self._owner.before_write()
        state = TopicState(name, random_id(), partitions, config, {})
        self._home.make_topic(state, self._owner.clock)
        topic = Topic(self._owner, self._home.topic_directory(name), state)
        self._owner.partitions_made(topic, range(partitions))
        self.topics[name] = topic
        return topic

    def only_partition(
        self, name: str, config: TopicConfig, *, is_writing: bool
    ) -> Partition | None:
        """Return the partition of a topic of minilog's own, made when it is to be written."""
        if self._keeper.is_read_only and name not in self.topics:
            self._keeper.look_again()
        with self._keeper.guard:
            topic: Topic | None = self.topics.get(name)
            if name in self.damaged:
                raise self.damaged[name]
            if topic is None and is_writing:
                self._keeper.check_writable()
                if self._home.topic_directory(name).exists():
                    self._find_again(name)  # made by a call that failed at its end
                topic = self.topics.get(name) or self._make(name, 1, config)
            return None if topic is None else topic[0]

    def _check_case(self, name: str) -> None:
        folded = name.lower()
        for other in [*self.topics, *self.damaged]:
            if other.lower() == folded:
                raise InvalidTopicError(
                    f"topic {name!r} differs from {other!r} only in letter case; not every file "
                    "system tells them apart"
                )

    def delete(self, name: str) -> None:
        """Remove a topic and its records, for good; UnknownTopicError."""
        with self._keeper.guard:
            self._keeper.check_writable()
            is_damaged = isinstance(name, str) and name in self.damaged
            if self.find(name) is None and not is_damaged:
                raise self._unknown(name)
            self._owner.before_write()
            topic: Topic | None = self.topics.get(name)
            try:
                if topic is not None:
                    topic.abandon(lambda: self._deleted(topic))  # nobody is in its files any more
                deleted = self._home.take_away(name)
                self.topics.pop(name, None)
                self.damaged.pop(name, None)
            except BaseException:
                self._find_again(name)
                raise
            try:
                self._home.remove_deleted(deleted)
            finally:
                self._keeper.topic_changed()

    def _find_again(self, name: str) -> None:
        """Have a topic stand for its files, or not, when it could not be made or deleted."""
        topic: Topic | None = self.topics.get(name)
        if topic is not None:
            topic.readmit()  # first: whether it is gone may be hard to tell, too
            if topic.is_gone():
                del self.topics[name]
                topic.abandon(lambda: self._deleted(topic))
        elif self._home.topic_directory(name).exists():
            self.load()


class Topics(Mapping[str, Topic]):
    """The topics of a broker by name: live, sorted, read-only; ours are left out."""

    def __init__(self, keeper: Keeper, catalog: Catalog) -> None:
        self._keeper = keeper
        self._catalog = catalog

    def _look(self) -> None:
        self._keeper.check_open()
        if self._keeper.is_read_only:
            self._keeper.look_again()

    def _visible(self) -> list[str]:
        self._look()
        return [name for name in self._catalog.topics if not name.startswith(RESERVED_PREFIX)]

    def __getitem__(self, name: str) -> Topic:
        self._look()
        topic = self._catalog.find(name)
        if topic is None:
            raise KeyError(name)
        return topic

    def __iter__(self) -> Iterator[str]:
        return iter(self._visible())

    def __len__(self) -> int:
        return len(self._visible())

    def __repr__(self) -> str:
        return f"<Topics {some_of(self)}>"


def problem_of(error: StorageError, path: str) -> Problem:
    """Return an error as a problem of an opening."""
    return Problem(getattr(error, "path", path), 0, None, getattr(error, "reason", str(error)))
