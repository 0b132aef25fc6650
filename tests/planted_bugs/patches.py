"""Bugs to plant, one at a time, into a copy of the package: what is changed, and what it breaks.

Each is one that somebody could write, and each must be caught by the tests. The old text of an
edit occurs exactly once in its file, or the planting fails: a list that no longer fits the code
proves nothing. This module refuses to know how they are caught.
"""

from __future__ import annotations

from typing import NamedTuple


class Edit(NamedTuple):
    """One replacement in one file of the package."""

    file: str
    old: str
    new: str


class Bug(NamedTuple):
    """A bug, what it breaks, and the layer of tests that is there for its like."""

    name: str
    breaks: str
    layer: str
    edits: tuple[Edit, ...]


CRASH, FAULTS, DAMAGE, BACKENDS = "crash states", "faults", "damage", "backends"
RECOVERY, INTERRUPTS, KILLS, SYNCS = "recovery", "interrupts", "kills", "sync failures"

LOG, SEGMENT, RECOVER = "storage/log.py", "storage/segment.py", "storage/recovery.py"
INDEX, FILES, FORMAT = "storage/index.py", "storage/files.py", "storage/format.py"
SCAN, READING, OPENING = "storage/scan.py", "storage/reading.py", "storage/opening.py"
SHARED, CLEANING, BROKER, HOME = "shared_log.py", "cleaning.py", "broker.py", "home.py"
TOPIC, TOPIC_FILES = "topic.py", "topic_files.py"
GROUP_SYNC, SEAM = "group_sync.py", "storage/seam.py"
SHORT_APPEND, INDEXED = "short_append.py", "storage/indexed_segment.py"


def bug(name: str, breaks: str, layer: str, *edits: tuple[str, str, str]) -> Bug:
    """Return a bug of these edits."""
    return Bug(name, breaks, layer, tuple(Edit(*edit) for edit in edits))


BUGS = [
    # ---------------------------------------------------------------- a sync is missing
    bug(
        "a segment is never synced",
        "acknowledged records are in the cache alone (2)",
        CRASH,
        (SEGMENT, "        self.writable_file().sync()\n", "        self.writable_file()\n"),
    ),
    bug(
        "the names of new segments are never synced",
        "a power cut takes whole segments of acknowledged records (2, 3)",
        CRASH,
        (
            LOG,
            "            try:\n                self.directory.sync()\n",
            "            try:\n                self.directory.names()\n",
        ),
    ),
    bug(
        "only the last segment is synced",
        "records before a roll are lost, those behind it are not (3)",
        CRASH,
        (
            LOG,
            "        for base in segments.irange(self._durable_base):\n"
            "            segments[base].sync()",
            "        for base in [tail.base_offset]:\n            segments[base].sync()",
        ),
    ),
    bug(
        "a roll does not note that there are new names",
        "as above, after the first sync (2, 3)",
        CRASH,
        (
            LOG,
            "        self._names_are_synced = False\n        grown = segments.copy()",
            "        grown = segments.copy()",
        ),
    ),
    bug(
        "a replaced file is renamed before it is synced",
        "a topic's settings, or all of it, are an empty file (2)",
        CRASH,
        (
            SEAM,
            "        file.write(0, data)\n        file.sync()\n",
            "        file.write(0, data)\n",
        ),
    ),
    bug(
        "a rename is not followed by a sync of its directory",
        "a start offset or a setting goes back after it was acknowledged (19)",
        CRASH,
        (SEAM, "        raise\n    directory.sync()\n", "        raise\n"),
    ),
    bug(
        "a new topic's name is not synced",
        "the topic is gone, with the synced records in it (2)",
        CRASH,
        (
            HOME,
            "            is_in_sight = True\n            self.directory.sync()\n",
            "            is_in_sight = True\n",
        ),
    ),
    bug(
        "a new partition's files are not synced by name",
        "the partition is there and its log is not (2)",
        CRASH,
        (
            TOPIC_FILES,
            "        child.sync()\n    directory.sync()\n",
            "        pass\n    directory.sync()\n",
        ),
    ),
    bug(
        "a new partition's header is not synced",
        "a clean mark vouches for a header that is not on the disk (21)",
        CRASH,
        (LOG, "        segment.sync()\n        segment.unmap()\n", "        segment.unmap()\n"),
    ),
    bug(
        "a topic is removed before its deletion is on the disk",
        "a power cut brings half a deleted topic back (19)",
        CRASH,
        (
            HOME,
            '"""Remove what was taken away, when it is durably out of sight."""\n'
            "        self.directory.sync()\n",
            '"""Remove what was taken away, when it is durably out of sight."""\n',
        ),
    ),
    bug(
        "the clean mark's removal is not synced",
        "after a power cut the mark vouches for what was written since (21)",
        CRASH,
        (
            HOME,
            "            self.directory.unlink(CLEAN_FILE)\n        self.directory.sync()\n",
            "            self.directory.unlink(CLEAN_FILE)\n",
        ),
    ),
    bug(
        "closing does not sync",
        "the clean mark vouches for records in the cache (2, 21)",
        CRASH,
        (
            SHARED,
            "                    self._group_sync.run(lambda: False, self._sync)\n",
            "",
        ),
    ),
    bug(
        "a log's own directory is made and its name not synced",
        "a power cut takes the whole log (2)",
        BACKENDS,
        (
            FILES,
            "                os.mkdir(path, DIRECTORY_MODE)\n"
            "            sync_names(os.path.dirname(path))\n",
            "                os.mkdir(path, DIRECTORY_MODE)\n",
        ),
    ),
    bug(
        "recovery does not sync the names a killed process left",
        "a record acknowledged behind them is lost with them (2)",
        CRASH,
        (
            OPENING,
            "        names_are_synced = False\n    else:\n        epoch",
            "        names_are_synced = True\n    else:\n        epoch",
        ),
    ),
    bug(
        "recovery does not sync the names of topics",
        "a partition made just before a kill is lost with synced records in it (2)",
        CRASH,
        (BROKER, "                topic.directory.sync()\n", "                topic.is_gone()\n"),
    ),
    bug(
        "the torn tail is zeroed and not synced",
        "the clean mark of the next close vouches for zeros in the cache (10, 21)",
        RECOVERY,
        (
            RECOVER,
            "used - start)])\n    file.sync()\n",
            "used - start)])\n",
        ),
    ),
    # ---------------------------------------------------------------- the wrong order
    bug(
        "partitions are counted before they are made",
        "a topic has partitions without files (19)",
        CRASH,
        (
            TOPIC,
            "            make_partitions(self._directory, self.id, range(before, total), "
            "self._owner.clock)\n"
            "            self._save(self._state._replace(partition_count=total))\n",
            "            self._save(self._state._replace(partition_count=total))\n"
            "            make_partitions(self._directory, self.id, range(before, total), "
            "self._owner.clock)\n",
        ),
    ),
    bug(
        "records are deleted before the log is synced behind them",
        "the log ends below its start, and offsets come again (9, 19)",
        CRASH,
        (
            CLEANING,
            "        self.flush()\n        self._host.raise_start_offset",
            "        self._host.raise_start_offset",
        ),
    ),
    bug(
        "records are deleted before the new start is saved",
        "a crash leaves a start whose records are gone (19)",
        CRASH,
        (
            CLEANING,
            "        self._host.raise_start_offset(self._index, offset)\n"
            "        self._drop_before_start(log)\n\n",
            "        self._start = offset\n"
            "        self._drop_before_start(log)\n"
            "        self._host.raise_start_offset(self._index, offset)\n\n",
        ),
    ),
    bug(
        "a topic gets its name before its settings",
        "a crash leaves a topic without settings, which counts as damaged (19)",
        CRASH,
        (
            HOME,
            "            state.save(child)\n"
            "            self.directory.rename(unfinished, topic_directory(state.name))\n",
            "            self.directory.rename(unfinished, topic_directory(state.name))\n"
            "            state.save(self.directory.child(topic_directory(state.name)))\n",
        ),
    ),
    bug(
        "the record is published before it is stored",
        "an interrupt in between leaves a record that is not there (16)",
        INTERRUPTS,
        (
            SHORT_APPEND,
            "                        region[position:end] = frame + crc  # type: ignore[index]\n"
            "                        tail.tail = ((end + 7) & -8, offset + 1)\n"
            "                    except BaseException as error:\n"
            "                        tail.settle(position, offset, error)\n"
            "                        raise\n"
            "                    break\n"
            "            self._make_room(size)\n"
            "        if self._is_sync_always:\n"
            "            self._sync_until(offset + 1)\n"
            "        if self._waiters:\n"
            "            self._wake()\n"
            "        return offset\n",
            "                        tail.tail = ((end + 7) & -8, offset + 1)\n"
            "                        region[position:end] = frame + crc  # type: ignore[index]\n"
            "                    except BaseException as error:\n"
            "                        tail.settle(position, offset, error)\n"
            "                        raise\n"
            "                    break\n"
            "            self._make_room(size)\n"
            "        if self._is_sync_always:\n"
            "            self._sync_until(offset + 1)\n"
            "        if self._waiters:\n"
            "            self._wake()\n"
            "        return offset\n",
        ),
    ),
    bug(
        "the record is acknowledged before it is synced",
        "with sync=always an acknowledged record is lost (2)",
        CRASH,
        (
            SHARED,
            "published is not None and published.next_offset >= next_offset",
            "published is not None",
        ),
    ),
    bug(
        "all is recovered as soon as the lock is held",
        "a kill in the middle of recovery hides the power cut before it (10)",
        CRASH,
        (
            BROKER,
            "        try:\n            home.enter()\n",
            "        try:\n            self._lock.recovered()\n            home.enter()\n",
        ),
    ),
    # ---------------------------------------------------------------- the clean mark
    bug(
        "the clean mark is not taken away before the first write",
        "a crash of a log in use passes for a clean close (21)",
        CRASH,
        (SHARED, "            self._host.before_write()\n            log =", "            log ="),
    ),
    bug(
        "the clean mark is believed though the file is shorter",
        "records that are gone are not missed (21)",
        DAMAGE,
        (
            RECOVER,
            "    if size < mark.position or mark.is_sealed:\n",
            "    if mark.is_sealed:\n",
        ),
    ),
    # ---------------------------------------------------------------- believed without looking
    bug(
        "after a power cut the last index entry is trusted",
        "records before it that were lost are corruption for ever (6)",
        CRASH,
        (
            INDEXED,
            "                if same_boot or position <= durable:\n",
            "                if same_boot or position:\n",
        ),
    ),
    bug(
        "a header says that all before it is synced when it is not",
        "lost records of the segment before are corruption for ever (6)",
        CRASH,
        (
            LOG,
            "            durable_base = self._durable_base  # the seal at least was not synced\n",
            "            tail.sync_index()\n",
        ),
    ),
    bug(
        "only the last segment is looked at after a power cut",
        "as above (6)",
        CRASH,
        (
            RECOVER,
            "    for number in range(_first_unsynced(segments), len(segments) - 1):\n",
            "    for number in range(len(segments) - 1, len(segments) - 1):\n",
        ),
    ),
    bug(
        "segments behind a gap stay",
        "records are skipped in silence (7)",
        CRASH,
        (
            RECOVER,
            "        problems += _quarantine_segments(segments[number + 1 :], directory)\n"
            "        return _finish(segments[: number + 1]",
            "        return _finish(segments",
        ),
    ),
    bug(
        "a deleted segment that comes back is a gap",
        "synced records behind it go to quarantine (2)",
        CRASH,
        (OPENING, "        if base < due or is_dropped:\n", "        if base < due:\n"),
    ),
    bug(
        "an index entry is handed out that is not below",
        "opening after a crash does not return (17)",
        BACKENDS,
        (
            INDEX,
            "            is_below = entry & 0xFFFFFFFF < position\n",
            "            is_below = True\n",
        ),
    ),
    bug(
        "an index is kept without looking at its entries",
        "a look-up by time skips records (11)",
        BACKENDS,
        (INDEX, "            if entry <= before or largest < 0:\n", "            if entry < 0:\n"),
    ),
    bug(
        "an index entry's time is believed without its checksum",
        "a look-up by time skips records (11)",
        BACKENDS,
        (
            INDEX,
            "            if times[2 * found + 1] == self._check(largest, entry) "
            "and largest < timestamp:\n",
            "            if largest < timestamp:\n",
        ),
    ),
    bug(
        "frames are not checked to follow one another",
        "stale or doubled frames are records again (1, 7)",
        BACKENDS,
        (
            SCAN,
            "        if offset is not None and prefix.offset != offset:\n            return\n"
            "        yield position, prefix",
            "        yield position, prefix",
        ),
    ),
    bug(
        "a checksum that is wrong is taken for right",
        "wrong bytes are returned (5)",
        DAMAGE,
        (
            SCAN,
            "    return region[stop : stop + f.CRC_SIZE] == expected\n",
            "    return len(region[stop : stop + f.CRC_SIZE]) == len(expected)\n",
        ),
    ),
    bug(
        "the checksum leaves its seed out",
        "frames of another segment are records of this one (5)",
        BACKENDS,
        (
            FORMAT,
            '    return crc32c(base_offset.to_bytes(8, "little"), crc32c(identity))\n',
            "    return 0\n",
        ),
    ),
    bug(
        "the header's checksum is not looked at",
        "a changed header is believed (5)",
        DAMAGE,
        (
            FORMAT,
            "    if magic != MAGIC or CRC.pack(crc32c(data[:60])) != data[60:HEADER_SIZE]:\n",
            "    if magic != MAGIC:\n",
        ),
    ),
    # ---------------------------------------------------------------- what is torn or dropped
    bug(
        "a torn tail is left where it is",
        "what is appended there ends in the rest of an older record (10)",
        CRASH,
        (
            RECOVER,
            "    if size > found.position:\n        problems += _drop(",
            "    if size < found.position:\n        problems += _drop(",
        ),
    ),
    bug(
        "a torn tail is not kept in quarantine",
        "bytes are gone that the report says are kept (6)",
        RECOVERY,
        (RECOVER, "    directory.replace(name, region[position:used])\n", ""),
    ),
    bug(
        "what was dropped is not reported",
        "a shorter log passes for whole (6, 7)",
        CRASH,
        (
            RECOVER,
            "    return [Problem(segment.path, position, offset, reason)]\n\n\n"
            "def _quarantine_segments",
            "    return []\n\n\ndef _quarantine_segments",
        ),
    ),
    bug(
        "a torn tail is cut off",
        "a mapped file shrinks: a reader of another process dies of SIGBUS (15)",
        CRASH,
        (
            RECOVER,
            "    for start in range(position, used, len(ZEROS)):\n"
            "        file.write(start, ZEROS[: min(len(ZEROS), used - start)])\n",
            "    file.trim(position)\n",
        ),
    ),
    bug(
        "the map is kept when its file is cut",
        "a store behind the end kills the process (E1)",
        FAULTS,  # a store comes there only when what follows the cut has failed
        (
            SEGMENT,
            "        self.limit = CLOSED\n        self.mapped = None\n        self._filled = 0\n"
            "        size = file.size()\n",
            "        size = file.size()\n",
        ),
    ),
    bug(
        "a roll ends without the seal",
        "a finished segment cannot be told from a torn one (6)",
        CRASH,
        (LOG, "            tail.seal()\n", "            tail.trim()\n"),
    ),
    bug(
        "a roll does not remove what an interrupted one left",
        "after a crash in a roll nothing can be appended (13)",
        FAULTS,
        (
            LOG,
            '            self.directory.unlink(f"{following.name}.log")\n',
            '            self.directory.stamp(f"{following.name}.log")\n',
        ),
    ),
    bug(
        "the writer epoch is used again",
        "an offset names another record under the same epoch (9)",
        CRASH,
        (OPENING, "epoch = min(epoch + 1, f.LARGEST_EPOCH)", "epoch = max(epoch, 1)"),
    ),
    # ---------------------------------------------------------------- errors
    bug(
        "a failed sync is tried again",
        "the kernel reports an error once: lost records count as synced (12)",
        SYNCS,
        (
            SHARED,
            "        try:\n            log.sync()\n        except OSError as error:\n"
            "            self._fail(error)\n",
            "        try:\n            try:\n                log.sync()\n"
            "            except OSError:\n                log.sync()\n"
            "        except OSError as error:\n            self._fail(error)\n",
        ),
    ),
    bug(
        "a failed sync does not stop the log",
        "what follows is acknowledged behind records of unknown fate (12)",
        SYNCS,
        (SHARED, "        self._failure = error\n", "        self._failure = None\n"),
    ),
    bug(
        "a short write passes for a whole one",
        "a full disk tears an acknowledged record (13)",
        BACKENDS,
        (
            FILES,
            "        if written == len(data):\n            return\n",
            "        if written:\n            return\n",
        ),
    ),
    bug(
        "a reservation that failed leaves its part behind",
        "the file is larger than what is mapped of it (13)",
        BACKENDS,
        (FILES, "                os.ftruncate(self._fd, before)\n", ""),
    ),
    bug(
        "the lock is not taken",
        "two processes write the same files (14)",
        BACKENDS,
        (
            FILES,
            "fcntl.LOCK_EX | fcntl.LOCK_NB",
            "fcntl.LOCK_UN",
        ),
    ),
]
