"""An actor that consumes: it joins a group, polls, commits, seeks, pauses, leaves and comes back.

What it does next its own seed says; all of it is recorded. It refuses to know what is right,
but for two things that only it can see: no record of a partition it has paused, and of callbacks
that they run within its own calls.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from minilog import (
    CommitError,
    Consumer,
    NotAssignedError,
    RebalanceError,
    Records,
    TopicPartition,
    UnknownMemberError,
)
from tests.history.operations import (
    FAILED,
    Assign,
    Commit,
    Committed,
    Join,
    Leave,
    Lost,
    Poll,
    Revoke,
    Run,
    Seek,
)

if TYPE_CHECKING:
    from tests.history.workload import Setting

REFUSED = (CommitError, RebalanceError, UnknownMemberError)


class CallbackError(Exception):
    """What a callback raises now and then."""


class Reader:
    """A thread's worth of consuming, by one consumer after another."""

    def __init__(self, setting: Setting, number: int, seed: int) -> None:
        self._setting = setting
        self._history = setting.history
        self._number = number
        self._chance = random.Random(seed)
        self.group = setting.groups[number % 2]
        self.consumer: Consumer | None = None
        self._who = -1
        self._is_auto = False
        self._is_telling = False
        self._name: str | None = None
        self._is_leaving = False
        self._inside: int | None = None  # the thread that is in a call of the consumer's
        self._paused: set[TopicPartition] = set()
        self._told: set[TopicPartition] = set()  # those of which `on_assigned` has told
        self._is_settled = False  # at the end nothing is left to chance

    # ------------------------------------------------------------ what it does

    def step(self) -> None:
        """Do one thing."""
        if self.consumer is None:
            self._join()
            return
        does = self._chance.choices(self._DOINGS, self._WEIGHTS)[0]
        try:
            does(self)
        except UnknownMemberError:  # another has taken its name
            self._close()
        except (CallbackError, NotAssignedError) as error:
            self._setting.count(type(error).__name__)

    def settle(self) -> None:
        """Have a consumer that reads everything its group reads, and nothing that hinders it."""
        self._is_settled = True
        if self.consumer is None:
            self._join()
        assert self.consumer is not None
        self._resume()
        try:
            self._subscribe(self.group.pattern)
        except UnknownMemberError:
            self._close()
            self._join()

    def poll_settled(self) -> int:
        """Poll, under another name if somebody else has taken one's own; return how many there
        were."""
        try:
            return self._poll()
        except UnknownMemberError:
            self._close()
            self._join()
            return 1

    def poll(self, timeout: float = 0, transaction: int | None = None) -> Records:
        """Poll, within a transaction or not."""
        consumer = self.consumer
        assert consumer is not None
        paused = set(self._paused)
        most = 500 if self._is_settled else self._chance.choice((None, None, 1, 3, 10))
        begin = self._history.tick()
        self._inside = threading.get_ident()
        runs: list[Run] = []
        has_raised = True
        try:
            records = consumer.poll(timeout, max_records=most)
            runs = runs_of(records)
            has_raised = False
        finally:  # whatever was raised, it may have committed
            self._inside = None
            self._history.add(Poll, begin, self._who, runs, has_raised, transaction)
        if self._is_telling:  # else a pause may have gone with its partition
            hindered = paused & self._paused & {TopicPartition(*tp) for tp, _, _ in runs}
            assert not hindered, f"records of {hindered}, which {self._who} had paused"
        return records

    # ------------------------------------------------------------ joining and leaving

    def _join(self) -> None:
        setting, chance = self._setting, self._chance
        self._who = setting.next_who()
        self._is_auto = self.group.is_auto and (self._is_settled or chance.random() < 0.7)
        self._is_telling = self._is_settled or chance.random() < 0.85
        self._paused.clear()
        self._told.clear()
        options: dict[str, Any] = {}
        if chance.random() < 0.2 and setting.has_static and not self._is_settled:
            options["member_id"] = f"static-{chance.randrange(6)}"
        self._name = options.get("member_id")
        self._record_join()
        self.consumer = Consumer(
            setting.broker,
            group=self.group.name,
            assignor=self.group.assignor,
            auto_offset_reset=self.group.reset,
            auto_commit=self._is_auto,
            max_poll_records=chance.choice((2, 7, 30, 500)),
            max_poll_interval_ms=setting.max_poll_interval_ms,
            isolation=self.group.isolation,
            **options,
        )
        self._subscribe(self._topics())

    def _record_join(self) -> None:
        begin = self._history.tick()
        self._history.add(
            Join,
            begin,
            self._who,
            self.group.name,
            is_auto=self._is_auto,
            is_committed=self.group.isolation == "read_committed",
            is_telling=self._is_telling,
            name=self._name,
            is_latest=self.group.reset == "latest",
            leaves_out=self.group.leaves_out,
        )

    def _unsubscribe(self) -> None:
        """Leave the group for good, and join it again: the same consumer is another member."""
        consumer = self.consumer
        assert consumer is not None
        begin = self._history.tick()
        self._inside, self._is_leaving = threading.get_ident(), True
        try:
            consumer.unsubscribe()
        except CallbackError:
            self._setting.count("CallbackError")
        finally:
            self._inside, self._is_leaving = None, False
            self._history.add(Leave, begin, self._who, True)
        self._who = self._setting.next_who()
        self._paused.clear()
        self._told.clear()
        self._record_join()
        self._subscribe(self._topics())

    def _topics(self) -> Any:
        if self._is_settled or self._chance.random() < 0.6:
            return self.group.pattern
        names = [n for n in sorted(self._setting.broker.topics) if n not in self.group.leaves_out]
        return self._chance.sample(names, self._chance.randint(1, len(names)))

    def _subscribe(self, topics: Any) -> None:
        assert self.consumer is not None
        callbacks: dict[str, Any] = {}
        if self._is_telling:
            callbacks = {
                "on_assigned": self._on_assigned,
                "on_revoked": self._on_revoked,
                "on_lost": self._on_lost,
            }
        self.consumer.subscribe(topics, **callbacks)

    def _resubscribe(self) -> None:
        self._subscribe(self._topics())

    def _close(self) -> None:
        self._leave(is_clean=True)

    def _fail(self) -> None:
        """Leave by an error: what was polled is not committed."""
        self._leave(is_clean=False)

    def _leave(self, *, is_clean: bool) -> None:
        consumer, self.consumer = self.consumer, None
        assert consumer is not None
        begin = self._history.tick()
        self._inside, self._is_leaving = threading.get_ident(), True
        try:
            if is_clean:
                consumer.close()
            else:
                with consumer:
                    raise CallbackError
        except CallbackError:
            self._setting.count("failed" if not is_clean else "CallbackError")
        finally:
            self._inside, self._is_leaving = None, False
            self._history.add(Leave, begin, self._who, is_clean)

    def _drop(self) -> None:
        """Forget the consumer without a word."""
        begin = self._history.tick()
        self.consumer = None
        self._history.add(Leave, begin, self._who, False)

    # ------------------------------------------------------------ reading

    def _poll(self) -> int:
        return len(self.poll())

    def _poll_waiting(self) -> None:
        self.poll(self._chance.choice((0.01, 0.1, 3.0)))

    def _iterate(self) -> None:
        """Read some records by iteration, and leave it at one of them."""
        assert self.consumer is not None
        most = self._chance.randint(1, 12)
        iteration = self.consumer.drain()
        for number in range(most + 1):
            begin = self._history.tick()
            if number == most:
                return
            record = None
            self._inside = threading.get_ident()
            try:
                record = next(iteration, None)
            finally:
                self._inside = None
                runs = [] if record is None else runs_of([record])
                self._history.add(Poll, begin, self._who, runs, is_iterated=True)
            if record is None:
                return

    def _seek(self) -> None:
        consumer, history = self.consumer, self._history
        assert consumer is not None
        chosen = self._any_assigned()
        if chosen is None:
            return
        partition = self._setting.broker.topic(chosen.topic)[chosen.partition]
        before = consumer.position(chosen)
        way = self._chance.random()
        begin = history.tick()
        if way < 0.15:
            consumer.seek_to_beginning(chosen)
        elif way < 0.25 and self.group.may_skip:
            consumer.seek_to_end(chosen)
        elif way < 0.35 and self.group.may_skip:  # out of range: the next poll finds the start
            consumer.seek(chosen, partition.end_offset + 1_000_000)
            history.add(Seek, begin, self._who, chosen, None, before)
            return
        else:
            last = partition.end_offset if self.group.may_skip else before
            consumer.seek(chosen, self._chance.randint(partition.start_offset, last))
        history.add(Seek, begin, self._who, chosen, consumer.position(chosen), before)

    def _any_assigned(self) -> TopicPartition | None:
        assert self.consumer is not None
        assigned = sorted(
            tp for tp in self.consumer.assignment() if tp in self._told or not self._is_telling
        )
        return self._chance.choice(assigned) if assigned else None

    def _pause(self) -> None:
        chosen = self._any_assigned()
        if chosen is not None and self.consumer is not None:
            self.consumer.pause(chosen)
            self._paused.add(chosen)

    def _resume(self) -> None:
        assert self.consumer is not None
        self.consumer.resume()
        self._paused.clear()

    # ------------------------------------------------------------ committing

    def _commit(self) -> None:
        """Commit everything polled, one partition's position, or something before it."""
        consumer = self.consumer
        assert consumer is not None
        chosen = self._any_assigned()
        if chosen is None:
            return
        position = consumer.position(chosen)
        way = self._chance.random()
        if way < 0.5:
            self._record_commit({chosen: position})
        elif way < 0.6:
            self._record_commit({chosen: max(position - 1, 0)})
        elif way < 0.7 and self.group.may_skip and self._is_telling:
            end = self._setting.broker.topic(chosen.topic)[chosen.partition].end_offset
            self._record_commit({chosen: self._chance.randint(position, max(position, end))})
        else:
            self._record_commit(None)

    def _record_commit(self, offsets: dict[TopicPartition, int] | None) -> None:
        consumer = self.consumer
        assert consumer is not None
        told = offsets
        if told is None:
            told = {tp: consumer.position(tp) for tp in sorted(consumer.assignment())}
        begin = self._history.tick()
        outcome = {}
        try:
            consumer.commit(offsets)
        except REFUSED as error:
            outcome = {"outcome": FAILED}
            self._setting.count(type(error).__name__)
        if offsets is None and not outcome:
            outcome = {"outcome": "unknown"}  # of those that were polled at all
        self._history.add(Commit, begin, self._who, dict(told), **outcome)

    def _look(self) -> None:
        """Ask what may be asked at any time."""
        consumer = self.consumer
        assert consumer is not None
        consumer.lag()
        consumer.subscription()
        chosen = self._any_assigned()
        if chosen is not None:
            begin = self._history.tick()
            committed = {chosen: consumer.committed(chosen)}
            self._history.add(Committed, begin, self._who, self.group.name, committed)

    def _wake_other(self) -> None:
        other = self._chance.choice(self._setting.readers).consumer
        if other is not None:
            other.wakeup()

    # ------------------------------------------------------------ callbacks

    def _check_inside(self) -> None:
        assert self._inside == threading.get_ident(), "a callback ran outside of its member's call"

    def _on_assigned(self, tps: list[TopicPartition]) -> None:
        self._check_inside()
        consumer, history = self.consumer, self._history
        assert consumer is not None
        self._paused -= set(tps)
        self._told |= set(tps)
        begin = history.tick()
        places = {tp: (consumer.committed(tp), consumer.position(tp)) for tp in tps}
        history.add(Assign, begin, self._who, places)
        may_seek = self.group.is_auto and not self._is_settled
        if tps and may_seek and self._chance.random() < 0.1:
            chosen = self._chance.choice(tps)
            begin = history.tick()
            consumer.seek_to_beginning(chosen)
            position = consumer.position(chosen)
            history.add(Seek, begin, self._who, chosen, position, places[chosen][1])
        self._raise_by_chance()

    def _on_revoked(self, tps: list[TopicPartition]) -> None:
        self._check_inside()
        begin = self._history.tick()
        consumer = self.consumer
        if consumer is not None and not self._is_settled and self._chance.random() < 0.3:
            chosen = self._chance.choice(tps)
            self._record_commit({chosen: consumer.position(chosen)})
        try:
            self._raise_by_chance()
        finally:
            self._paused -= set(tps)
            self._told -= set(tps)
            self._history.add(Revoke, begin, self._who, list(tps), is_leaving=self._is_leaving)

    def _on_lost(self, tps: list[TopicPartition]) -> None:
        self._check_inside()
        self._paused -= set(tps)
        self._told -= set(tps)
        self._history.add(Lost, self._history.tick(), self._who, list(tps))

    def _raise_by_chance(self) -> None:
        if not self._is_settled and self._chance.random() < 0.03:
            raise CallbackError

    _DOINGS = (
        _poll,
        _poll_waiting,
        _iterate,
        _commit,
        _seek,
        _pause,
        _resume,
        _close,
        _fail,
        _drop,
        _resubscribe,
        _unsubscribe,
        _look,
        _wake_other,
    )
    _WEIGHTS = (50, 8, 6, 8, 5, 3, 3, 2, 1, 2, 2, 1, 5, 3)


def runs_of(records: Iterable[Any]) -> list[Run]:
    """Return records as a history has them."""
    runs: list[tuple[Any, list[int], list[int]]] = []
    at = None
    for topic, partition, offset, _, _, value, _ in records:
        if at != (topic, partition):
            at = (topic, partition)
            runs.append((at, [], []))
        runs[-1][1].append(offset)
        runs[-1][2].append(int(value))
    return runs  # type: ignore[return-value]
