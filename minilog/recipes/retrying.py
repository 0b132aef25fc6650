"""Process every record, again after a while where that fails, and set aside what never goes.

    with Consumer(broker, "orders", group="billing") as consumer:
        retry(broker, consumer, charge, attempts=5, backoff_ms=1000, dead_letter="orders.failed")

A record that fails holds up its own partition, so that order is kept, and no other: the partition
is paused at it and polling goes on, which is also how its consumer stays a member of its group.
Only what was processed or set aside is committed, so an error loses nothing: whatever ends this,
a kill too, the record comes again. A record may be processed, or set aside, more than once if the
process dies between that and the commit. Attempts are counted in memory.

This module refuses to know what processing is, and what is done with the records set aside.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import minilog
from minilog import Broker, Consumer, Producer, Record, Records, TopicPartition

ERROR_CHARACTERS = 1000
HALF_MS = 0.5  # a wait this much shorter is over when the clock has come to the millisecond


class Outcome(NamedTuple):
    """How many records were processed and set aside, and how many attempts have failed."""

    processed: int
    set_aside: int
    failed_attempts: int


class Failure(NamedTuple):
    """A record that waits for its next attempt."""

    offset: int
    attempts: int
    due_ms: int


def retry(
    broker: Broker,
    consumer: Consumer,
    process: Callable[[Record], Any],
    *,
    attempts: int = 3,
    backoff_ms: int | Callable[[int], int] = 1000,
    dead_letter: str | None = None,
    drain: bool = False,
) -> Outcome:
    """Call ``process`` with every record until the consumer is closed; the consumer has a group.

    An ``Exception`` is tried again ``backoff_ms`` later by the broker's clock (a callable is given
    the number of attempts so far), up to ``attempts`` times in all. Then the record goes to the
    topic ``dead_letter`` as it was, with the headers ``cause.topic``, ``cause.partition``,
    ``cause.offset``, ``cause.error`` and ``cause.attempts``; without one, its last error comes
    out, and the record is the next to be read. ``drain=True`` returns when nothing is left to read
    now and nothing waits for another attempt.
    """
    if attempts < 1:
        raise minilog.ConfigError(f"attempts is {attempts}; it must be at least 1")
    consumer.commit({})  # or say at once that it has no group, and the next that there is no topic
    if dead_letter is not None and broker.topic(dead_letter).name in consumer.subscription():
        raise minilog.ConfigError(f"{dead_letter!r} is read here too: it would fill itself")
    backoff = backoff_ms if callable(backoff_ms) else lambda attempts: backoff_ms
    run = Run(broker, consumer, process, attempts, backoff, dead_letter)
    while True:
        try:
            records = consumer.poll(run.seconds_to_wait(drain))
        except minilog.ClosedError:
            return run.outcome()
        if records:
            run.process_all(records)
        elif drain and not run.failures:
            return run.outcome()
        run.resume_what_is_due()


class Run:
    """One call of ``retry``."""

    def __init__(
        self,
        broker: Broker,
        consumer: Consumer,
        process: Callable[[Record], Any],
        attempts: int,
        backoff: Callable[[int], int],
        dead_letter: str | None,
    ) -> None:
        self._broker = broker
        self._consumer = consumer
        self._process = process
        self._attempts = attempts
        self._backoff = backoff
        self._dead_letter = dead_letter
        self._producer = Producer(broker)
        self._processed = self._set_aside = self._failed = 0
        self.failures: dict[TopicPartition, Failure] = {}

    def outcome(self) -> Outcome:
        """Return what has come of it so far."""
        return Outcome(self._processed, self._set_aside, self._failed)

    def seconds_to_wait(self, drain: bool) -> float | None:
        """Return how long a poll may wait: until a record is due again."""
        if not self.failures:
            return 0 if drain else None
        due_ms = min(failure.due_ms for failure in self.failures.values())
        return max(due_ms - self._broker.clock.now_ms() - HALF_MS, 0) / 1000

    def resume_what_is_due(self) -> None:
        """Read on where the next attempt is due, and forget what has gone to another member."""
        with suppress(minilog.ClosedError):
            paused = self._consumer.paused()
            self.failures = {tp: f for tp, f in self.failures.items() if tp in paused}
            now_ms = self._broker.clock.now_ms()
            for tp, failure in self.failures.items():
                if failure.due_ms <= now_ms:
                    self._consumer.resume(tp)

    def process_all(self, records: Records) -> None:
        """Process what was polled, commit it, and go back to where it was not."""
        polled = [(_partition_of(record), record) for record in records]
        begun = {tp: record.offset for tp, record in reversed(polled)}
        ends = {tp: record.next_offset for tp, record in polled}
        reached = dict(begun)
        held: set[TopicPartition] = set()
        try:
            for tp, record in polled:
                if tp not in held:
                    if self._is_done(tp, record):
                        reached[tp] = record.next_offset
                    else:
                        held.add(tp)
        finally:
            for tp, offset in reached.items():
                # What has gone to another member cannot be sought or committed: it is done there.
                with suppress(minilog.NotAssignedError, minilog.ClosedError):
                    if offset < ends[tp]:
                        self._consumer.seek(tp, offset)
                with suppress(minilog.CommitError, minilog.RebalanceError, minilog.ClosedError):
                    if offset > begun[tp]:
                        self._consumer.commit({tp: offset})

    def _is_done(self, tp: TopicPartition, record: Record) -> bool:
        """Process a record or set it aside; False when its partition waits for another attempt."""
        before = self.failures.pop(tp, None)
        attempts = 1
        if before is not None and before.offset == record.offset:
            attempts = before.attempts + 1
        try:
            self._process(record)
        except Exception as error:
            self._failed += 1
            if attempts < self._attempts:
                due_ms = self._broker.clock.now_ms() + self._backoff(attempts)
                with suppress(minilog.NotAssignedError):
                    self._consumer.pause(tp)
                    self.failures[tp] = Failure(record.offset, attempts, due_ms)
                return False
            if self._dead_letter is None:
                raise
            self._put_aside(record, error, attempts)
            self._set_aside += 1
            return True
        self._processed += 1
        return True

    def _put_aside(self, record: Record, error: Exception, attempts: int) -> None:
        assert self._dead_letter is not None
        raw = record
        partition = self._broker.topic(record.topic)[record.partition]
        for stored in partition.read(record.offset, max_records=1):
            raw = stored  # a deserializer may have made something else of it
        reason = "".join(traceback.format_exception_only(error)).strip()[:ERROR_CHARACTERS]
        cause = {
            "cause.topic": record.topic,
            "cause.partition": str(record.partition),
            "cause.offset": str(record.offset),
            "cause.error": reason,
            "cause.attempts": str(attempts),
        }
        added = ((name, text.encode(errors="backslashreplace")) for name, text in cause.items())
        self._producer.send(
            self._dead_letter,
            raw.value,
            key=raw.key,
            timestamp=record.timestamp,
            headers=(*record.headers, *added),
        )


def _partition_of(record: Record) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)
