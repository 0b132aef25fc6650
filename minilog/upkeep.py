"""What is due by the clock: syncing, rolling by age, expiring, compacting, re-packing, ending
transactions.

It is done when somebody asks (``maintain``), when a clock that is turned by hand was turned, or by
a thread that is started as soon as there is anything it would ever have to do. Where nobody is
there to be told, what goes wrong is kept, the last ten of it.

Nothing runs here under a lock of the broker's. This module refuses to know which topics there are,
what is old, and how any of it is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from minilog.clock import Clock
from minilog.config import BrokerConfig, TopicConfig
from minilog.errors import ClosedError, ForkedError, MinilogError, UnknownTopicError
from minilog.housekeeping import Housekeeper
from minilog.partition import Partition


class Expiring(Protocol):
    """Whatever ends when its time is over."""

    def expire(self) -> None: ...


class House(Protocol):
    """What upkeep needs of its broker, which the thread holds weakly."""

    @property
    def is_closed(self) -> bool: ...
    def keep_house(self) -> None: ...
    def partitions(self) -> list[Partition]: ...
    @property
    def transactions(self) -> Expiring: ...


class Upkeep:
    """What one broker has to do every now and then."""

    def __init__(
        self, house: House, config: BrokerConfig, clock: Clock, *, in_memory: bool
    ) -> None:
        self._house = house
        self._config = config
        self._clock = clock
        self._is_in_memory = in_memory
        self._is_turned_by_hand = hasattr(clock, "subscribe")
        self._interval_ms = self._house_interval_ms()
        self._housekeeper = Housekeeper(house, self._interval_ms)
        self._lock = threading.Lock()  # over starting the thread; a leaf
        self._cleaned_ms = self._synced_ms = clock.now_ms()
        self.errors: list[Exception] = []

    def _house_interval_ms(self) -> int:
        if self._config.sync != "interval" or self._is_in_memory:
            return self._config.maintenance_interval_ms
        if not self._config.maintenance_interval_ms:
            return self._config.sync_interval_ms
        return min(self._config.sync_interval_ms, self._config.maintenance_interval_ms)

    # ------------------------------------------------------------ who has it done

    def begin(self) -> None:
        """Have it done whenever a clock is turned by hand."""
        if self._is_turned_by_hand:
            self._clock.subscribe(self._house.keep_house)  # type: ignore[attr-defined]

    def end(self) -> None:
        """Have it done no more by the clock."""
        unsubscribe = getattr(self._clock, "unsubscribe", None)
        if unsubscribe is not None:
            unsubscribe(self._house.keep_house)

    def stop(self) -> None:
        """End the thread, in the middle of a compaction too, and wait for it."""
        self._housekeeper.stop()

    def before_write(self) -> None:
        """Have a thread sync what will be written, and do what else is due."""
        if not self._is_in_memory and not self._is_turned_by_hand and self._interval_ms:
            self._start()

    def have_kept(self, config: TopicConfig) -> None:
        """Have a thread do what is due, if a topic with these settings will ever need it."""
        if not (config.is_expiring or config.is_compacted) or self._config.read_only:
            return
        if self._config.maintenance_interval_ms and not self._is_turned_by_hand:
            self._start()

    def _start(self) -> None:
        with self._lock:
            self._housekeeper.start()

    def renew_lock(self) -> None:
        """In a child of fork: who holds the old lock may be gone."""
        self._lock = threading.Lock()

    # ------------------------------------------------------------ doing it

    def maintain(self) -> None:
        """Do all that is due; what goes wrong with one partition is raised when the others are
        done."""
        self._house.transactions.expire()
        now_ms = self._clock.now_ms()
        failure: Exception | None = None
        for partition in self._house.partitions():
            try:
                partition.maintain(now_ms, sync=self._config.sync == "interval")
                partition.clean(now_ms, lambda: None, is_asked=True)
            except UnknownTopicError:
                continue  # it was deleted while we came
            except (OSError, MinilogError) as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def keep_house(self) -> None:
        """Do what is due, for nobody in particular; errors are kept."""
        if self._house.is_closed:
            return
        self._house.transactions.expire()
        partitions = self._house.partitions()
        for partition in partitions:
            self._keep(partition.maintain, sync=self._config.sync == "interval")
        if not self._is_cleaning_due():
            return
        for partition in partitions:
            self._keep(partition.clean, step=lambda: self._pause_cleaning(partitions))

    def _keep(self, work: Callable[..., None], **how: Any) -> None:
        """Do some work on a partition; what goes wrong is kept."""
        try:
            work(self._clock.now_ms(), **how)
        except (ClosedError, UnknownTopicError, ForkedError):
            return  # it went while we came
        except (OSError, MinilogError) as error:
            self.note(error)

    def note(self, error: Exception) -> None:
        """Keep an error, the last ten of them."""
        self.errors = [*self.errors[-9:], error]

    def _is_cleaning_due(self) -> bool:
        """Say whether to look at what may be expired and compacted: not at every sync."""
        if self._config.read_only or not self._config.maintenance_interval_ms:
            return False
        if not self._is_turned_by_hand:
            now_ms = self._clock.now_ms()
            if abs(now_ms - self._cleaned_ms) < self._config.maintenance_interval_ms:
                return False
            self._cleaned_ms = now_ms
        return True

    def _pause_cleaning(self, partitions: list[Partition]) -> None:
        """In the middle of a compaction: end it when the broker is closed, and sync in time.

        Its own partition's compaction is running, so nothing here may wait for that.
        """
        if self._housekeeper.is_stopping:
            raise ClosedError("the broker was closed; open it again to go on")
        now_ms = self._clock.now_ms()
        if self._config.sync == "interval" and (
            abs(now_ms - self._synced_ms) >= self._config.sync_interval_ms
        ):
            self._synced_ms = now_ms
            for partition in partitions:
                self._keep(partition.maintain, sync=True)
