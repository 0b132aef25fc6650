"""Actors that write in transactions: one that only sends, and one that reads, transforms and
commits where it was read, all in one.

They refuse to know what is right, and who runs when.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

from minilog import (
    CommitError,
    FencedError,
    NotAssignedError,
    Producer,
    TopicPartition,
    TransactionError,
    UnknownMemberError,
)
from tests.history.operations import FAILED, OK, End, Seek, Send
from tests.history.reader import CallbackError, Reader

if TYPE_CHECKING:
    from minilog.transaction import Transaction
    from tests.history.workload import Setting

OUTPUT = "out"
REFUSED = (TransactionError, CommitError, UnknownMemberError)


class Transactor:
    """Sends in transactions, which may stay open for many steps; some are never ended at all.

    Those with a name number what they send outside of transactions and send some of it again.
    """

    def __init__(self, setting: Setting, number: int, seed: int) -> None:
        self._setting = setting
        self._chance = random.Random(seed)
        self._who = setting.next_who()
        self._values = itertools.count(number * 1_000_000_000)
        self._name = f"writer-{number}" if number % 2 else None
        self._producer = self._opened()
        self._open: Transaction | None = None
        self._number = -1
        # By partition and number, what was sent and where it is.
        self._sent: dict[tuple[str, int], dict[int, tuple[int, int]]] = {}

    def _opened(self) -> Producer:
        timeout_ms = self._setting.transaction_timeout_ms
        broker = self._setting.broker
        return Producer(broker, producer_id=self._name, transaction_timeout_ms=timeout_ms)

    def step(self) -> None:
        """Begin a transaction, go on with one, end it, or leave it to the clock."""
        way = self._chance.random()
        if self._open is None:
            if self._name is not None and way < 0.3:
                self._send_numbered()
            else:
                self._number = self._setting.next_transaction()
                self._open = self._producer.transaction()
                self._send()
        elif way < 0.4:
            self._send()
        elif way < 0.85:
            self.end()
        elif way < 0.95:
            self._abort()
        elif self._name is not None and way < 0.97:
            self._reopen()

    def end(self) -> None:
        """Commit what is open, if anything is."""
        transaction, self._open = self._open, None
        if transaction is None:
            return
        begin, outcome = self._setting.history.tick(), OK
        try:
            transaction.__exit__(None)
        except REFUSED as error:
            self._setting.count(f"transaction: {type(error).__name__}")
            outcome = FAILED
        self._setting.history.add(End, begin, self._who, self._number, outcome)
        self._setting.count(f"transaction {outcome}")

    def _abort(self) -> None:
        transaction, self._open = self._open, None
        assert transaction is not None
        begin = self._setting.history.tick()
        if self._chance.random() < 0.5:
            transaction.abort()
        else:
            transaction.__exit__(CallbackError)
        self._setting.history.add(End, begin, self._who, self._number, FAILED)
        self._setting.count("transaction aborted")

    def _reopen(self) -> None:
        """Be another producer of the name: the transaction of the one before is aborted."""
        before, transaction = self._producer, self._open
        begin = self._setting.history.tick()
        self._producer, self._open = self._opened(), None
        self._setting.history.add(End, begin, self._who, self._number, FAILED)
        for refused in (
            lambda: before.send(OUTPUT, b"0", partition=0),
            lambda: transaction is not None and transaction.send(OUTPUT, b"0", partition=0),
        ):
            try:
                refused()
            except FencedError:
                continue
            raise AssertionError("a producer whose name was taken may still send")
        self._setting.count("fenced")

    def _target(self) -> tuple[str, int]:
        broker = self._setting.broker
        topic = self._chance.choice(sorted(broker.topics))
        return topic, self._chance.randrange(len(broker.topic(topic)))

    def _send(self) -> None:
        transaction, history = self._open, self._setting.history
        assert transaction is not None
        for _ in range(self._chance.randint(1, 4)):
            tp, value = self._target(), next(self._values)
            begin = history.tick()
            try:
                metadata = transaction.send(tp[0], b"%d" % value, partition=tp[1])
            except REFUSED:
                self._setting.count("transaction refused")
                history.add(
                    Send, begin, self._who, tp, [value], None, FAILED, transaction=self._number
                )
                self.end()
                return
            history.add(
                Send,
                begin,
                self._who,
                tp,
                [value],
                (metadata.offset,),
                transaction=self._number,
            )

    def _send_numbered(self) -> None:
        """Send under the next number, or something that was sent before under its own."""
        tp = self._target()
        sent = self._sent.setdefault(tp, {})
        topic, partition = tp
        if sent and self._chance.random() < 0.5:
            number = self._chance.choice(list(sent))
            value, offset = sent[number]
            again = self._producer.send(topic, b"%d" % value, partition=partition, sequence=number)
            assert again.offset == offset, f"{again} is {offset}, sent again"
            self._setting.count("sent again")
            return
        last = self._producer.last_sequence(topic, partition)
        number = 0 if last is None else last + 1
        value = next(self._values)
        begin = self._setting.history.tick()
        metadata = self._producer.send(topic, b"%d" % value, partition=partition, sequence=number)
        self._setting.history.add(Send, begin, self._who, tp, [value], (metadata.offset,))
        assert number not in sent
        sent[number] = (value, metadata.offset)
        assert self._producer.last_sequence(topic, partition) == number


class Transformer(Reader):
    """Reads as a member of a group and writes one record for each, exactly once."""

    def __init__(self, setting: Setting, number: int, seed: int) -> None:
        super().__init__(setting, number, seed)
        self.group = setting.transforming
        self._values = itertools.count((100 + number) * 1_000_000_000)
        self._sender = setting.next_who()
        name = f"transformer-{number}" if number % 2 else None
        self._producer = Producer(
            setting.broker,
            producer_id=name,
            transaction_timeout_ms=setting.transaction_timeout_ms,
        )

    def _poll(self) -> int:
        number = self._setting.next_transaction()
        records = self.poll(transaction=number)
        if not records:
            return 0
        offsets = {
            TopicPartition(record.topic, record.partition): record.next_offset for record in records
        }
        begin, outcome = self._history.tick(), OK
        made = []
        try:
            with self._producer.transaction() as transaction:
                for record in records:
                    made.append((self._write(transaction, number), record))
                assert self.consumer is not None
                transaction.commit_offsets(self.consumer)
                if not self._is_settled and self._chance.random() < 0.15:
                    raise CallbackError
                begin = self._history.tick()
        except (CallbackError, *REFUSED) as error:
            self._setting.count(f"transforming: {type(error).__name__}")
            outcome = FAILED
        self._history.add(End, begin, self._who, number, outcome, self.group.name, offsets)
        self._setting.count(f"transformed {outcome}")
        if outcome == OK:
            for value, record in made:
                self._setting.outputs[value] = (record.topic, record.partition, record.offset)
        else:
            self._go_back(offsets)
        return len(records)

    def _write(self, transaction: Transaction, number: int) -> int:
        value = next(self._values)
        tp = (OUTPUT, self._chance.randrange(2))
        begin = self._history.tick()
        offset = transaction.send(OUTPUT, b"%d" % value, partition=tp[1]).offset
        self._history.add(Send, begin, self._sender, tp, [value], (offset,), transaction=number)
        return value

    def _go_back(self, offsets: dict[TopicPartition, int]) -> None:
        """Read again what was not committed."""
        consumer = self.consumer
        assert consumer is not None
        for tp in offsets:
            try:
                before, begin = consumer.position(tp), self._history.tick()
                consumer.seek(tp, consumer.committed(tp) or 0)
            except NotAssignedError:
                continue
            self._history.add(Seek, begin, self._who, tp, consumer.position(tp), before)

    _DOINGS = (
        _poll,
        Reader._pause,
        Reader._resume,
        Reader._close,
        Reader._drop,
        Reader._look,
        Reader._wake_other,
    )
    _WEIGHTS = (60, 3, 6, 2, 2, 4, 3)
