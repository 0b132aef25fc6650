"""Cleaning a shared log: expiring, compacting, re-packing, deleting before an offset.

What goes by whole segments goes under the lock, a file at a time; what is written anew is written
beside it, and only the swap takes the lock, so that appends and reads go on meanwhile. Nothing at
or behind the stable offset is touched. This module refuses to know when it is time to clean, and
how a segment is written anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from minilog.config import TopicConfig
from minilog.errors import GroupError, SyncFailedError
from minilog.reports import CompactionProgress
from minilog.shared_log import EVERYTHING, Host, SharedLog
from minilog.storage import Log, retention

if TYPE_CHECKING:
    from minilog.storage.compaction import Compacted, Rules


class _BusyError(Exception):
    """Something was appended while a segment was re-packed."""


class CleanedLog(SharedLog):
    """A shared log that does not grow for ever."""

    def __init__(self, host: Host, index: int) -> None:
        super().__init__(host, index)
        self._progress: CompactionProgress | None = None
        self._seen_end = -1  # where it ended when it was last looked at

    @property
    def compaction(self) -> CompactionProgress | None:
        """How far a compaction is that runs now; None when none does."""
        return self._progress

    def clean(self, now_ms: int, step: Callable[[], None], *, is_asked: bool = False) -> None:
        """Expire, compact and re-pack what is due; ``step`` is called now and then meanwhile."""
        if self._refusal is not None or self._failure is not None or self._is_read_only:
            return
        with self._naming_what_is_missing():
            self._clean(now_ms, step, is_asked=is_asked)

    def _clean(self, now_ms: int, step: Callable[[], None], *, is_asked: bool) -> None:
        config = self._host.config
        if config.is_expiring:
            self._expire(config, now_ms)
        log = self._log
        if log is not None and self._has_written and log.has_some_to_drop(self._start):
            self._drop_before_start(log)  # a crash or an error came between, or a transaction
        if config.is_compacted:
            self._roll_if(now_ms, lambda log: log.is_older_than(config.segment_ms, now_ms))
            self.run_compaction(now_ms, step, min_dirty_ratio=config.min_cleanable_dirty_ratio)
        elif log is not None:  # one that nobody uses is not opened for it
            self._repack(log, step, is_asked=is_asked)

    def _roll_if(self, now_ms: int, is_due: Callable[[Log], bool]) -> None:
        if is_due(self._opened()):
            with self._lock:
                log = self._writable_log()
                if is_due(log):
                    log.roll(now_ms)

    def _expire(self, config: TopicConfig, now_ms: int) -> None:
        log = self._opened()
        wanted = EVERYTHING
        if config.retain_until_consumed:
            wanted = self._host.committed_floor(self._index) or 0
        rules = retention.Rules(
            now_ms, config.retention_ms, config.retention_bytes, self._settled(log), wanted
        )
        offset = retention.expired(log, rules)
        before = self._start
        if offset <= before:
            return
        self._raise_start(offset, now_ms)
        if offset > wanted:
            groups = ", ".join(map(repr, config.retain_until_consumed))
            self._host.note(
                GroupError(
                    f"retention_bytes={config.retention_bytes} of {self._host.name}-{self._index} "
                    f"has removed offsets {max(before, wanted)} to {offset} (end exclusive), which "
                    f"retain_until_consumed would have kept for {groups}"
                )
            )

    def _raise_start(self, offset: int, now_ms: int) -> None:
        """Make ``offset`` the first that is kept, durably, and drop what only holds older ones."""
        with self._lock:
            log = self._writable_log()
            log.leave_behind(offset, now_ms)
        # A crash must not bring the end below the new start, nor may what is dropped go first.
        self.flush()
        self._host.raise_start_offset(self._index, offset)
        self._drop_before_start(log)

    def _drop_before_start(self, log: Log) -> None:
        """Drop what only holds records before the start, but for those of named producers that
        nothing else tells the sequences of yet: a transaction may be open there."""
        stable = self._stable_if_named()
        if stable:
            self._flush_what_is_tied()
        with self._lock:
            self._check_writable()
            kept = self.keep_sequences(stable)
            log.drop_before(self._start if kept is None else min(self._start, kept))
        is_left = True
        while is_left:  # one at a time: ten thousand take seconds, and appends go on meanwhile
            with self._lock:
                self._check_writable()
                is_left = log.remove_dropped()

    def run_compaction(
        self, now_ms: int, step: Callable[[], None], *, min_dirty_ratio: float | None = None
    ) -> Compacted:
        """Compact the log where that is due; without a dirty ratio, roll and compact it anyway."""
        from minilog.storage import compaction, swapping  # most programs never compact

        with self._cleaning, self._naming_what_is_missing():
            if min_dirty_ratio is None:
                self._roll_if(now_ms, lambda log: log.has_records_in_tail)
            log = self._opened()
            rules = self._compaction_rules(log, now_ms)
            if min_dirty_ratio is not None and not compaction.is_due(log, rules, min_dirty_ratio):
                return compaction.Compacted()
            stable = self._stable_if_named()
            # What supersedes a record must not be lost when that is gone.
            self._flush_what_is_tied()
            with self._lock:
                self._writable_log()
                self.keep_sequences(stable)
            total = 2 * sum(segment.size_bytes for segment in compaction.cleanable(log, rules))
            self._progress = CompactionProgress(0, total)

            def stepped(size: int) -> None:
                self._check_writable()
                done = self._progress or CompactionProgress(0, total)
                read = done.bytes_read + size
                self._progress = CompactionProgress(read, max(total, read))
                step()

            try:
                host = swapping.Host(self._lock, self._check_writable, stepped)
                with self._noting_failed_syncs():
                    return compaction.compact(log, rules, host)
            finally:
                self._progress = None

    @contextlib.contextmanager
    def _noting_failed_syncs(self) -> Iterator[None]:
        try:
            yield
        except SyncFailedError as error:
            self._fail(error)
            raise

    def _repack(self, log: Log, step: Callable[[], None], *, is_asked: bool) -> None:
        """Write sealed segments of records that were appended one by one anew, as batches.

        It takes a second or two for a million records, so unless somebody asks for it, it is done
        while nothing is appended: since the last look, and until it is done.
        """
        end = log.end_offset
        is_quiet, self._seen_end = end == self._seen_end, end
        if not (is_asked or is_quiet) or len(log.segments()) < 2:
            return
        from minilog.storage import repacking, swapping  # most programs end before that

        def stepped(size: int) -> None:
            self._check_writable()
            if not is_asked and log.end_offset != end:
                raise _BusyError
            step()

        host = swapping.Host(self._lock, self._check_writable, stepped)
        with self._cleaning, contextlib.suppress(_BusyError), self._noting_failed_syncs():
            segments = repacking.loose(log, min(self._settled(log), log.end().base_offset))
            if segments:
                with self._lock:
                    self._writable_log()
                self.flush()  # a new segment vouches for those before it
            for segment in segments:
                repacking.repack(log, segment, self._host.config, host)

    def _compaction_rules(self, log: Log, now_ms: int) -> Rules:
        from minilog.storage import compaction

        config = self._host.config
        return compaction.Rules(
            limit=min(self._settled(log), log.end().base_offset),
            lowest=self._start,
            now_ms=now_ms,
            delete_retention_ms=config.delete_retention_ms,
            min_compaction_lag_ms=config.min_compaction_lag_ms,
            segment_bytes=config.segment_bytes,
            index_interval_bytes=config.index_interval_bytes,
            compression=config.compression,
            key_budget_bytes=compaction.KEY_BUDGET_BYTES,
            is_void=self._host.is_aborted,
        )
