"""The members of groups, one after another: where each reads on, and what is whose.

It refuses to know what was sent and acknowledged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from tests.history.anomalies import Anomalies
from tests.history.logs import NEVER, Logs
from tests.history.offsets import Offsets
from tests.history.operations import (
    FAILED,
    OK,
    UNKNOWN,
    Assign,
    Commit,
    End,
    Join,
    Leave,
    Lost,
    Poll,
    Revoke,
    Seek,
    Tp,
)
from tests.history.readership import Readership
from tests.history.transactions import Endings


class Member:
    """One consumer, from its making to its end."""

    def __init__(self, join: Join) -> None:
        self.join = join
        self.owned: set[Tp] = set()
        self.expected: dict[Tp, int] = {}  # where it must read on
        self.floor: dict[Tp, int] = {}  # where it was when that became unknown
        self.done: dict[Tp, int] = {}  # what its next poll commits
        self.maybe_done: dict[Tp, list[int]] = {}  # what that may commit instead
        self.sought: dict[Tp, list[int]] = {}  # where to, since records last came from there
        self.pinned: dict[Tp, int] = {}  # where it begins, found in the poll under way
        self.reached: dict[Tp, int] = {}  # the last that it has done, committed or not
        self.astray: dict[Tp, str] = {}  # begun elsewhere than where it was committed
        self.unfinished: dict[Tp, int] = {}  # what is done when iteration goes on
        self.last_end = join.end  # of its last poll; others may be within one
        # Where a member of a group does not tell of rebalances, its polls may start anywhere.
        self.has_left = False
        self.is_contested = False  # another has had its name at the same time
        self.is_followed = join.group is None or join.is_telling
        self.must_own = join.group is not None and join.is_telling


NOBODY: tuple[None, int] = (None, 0)


class Skip:
    """A range that a poll has passed over, to be looked at when all is known."""

    __slots__ = ("kind", "poll", "start", "stop", "tp")

    def __init__(self, kind: str, poll: Poll, tp: Tp, start: int, stop: int) -> None:
        self.kind, self.poll, self.tp, self.start, self.stop = kind, poll, tp, start, stop


class Members:
    """All consumers of a history."""

    def __init__(
        self,
        found: Anomalies,
        logs: Logs,
        offsets: Offsets,
        readership: Readership,
        endings: Endings,
    ) -> None:
        self._found = found
        self._logs = logs
        self._offsets = offsets
        self._readership = readership
        self._endings = endings
        self._members: dict[int, Member] = {}
        self._owner: dict[tuple[str, Tp], tuple[Member, int]] = {}  # and since when
        self._given_up: dict[tuple[str, Tp], int] = {}  # when the one before had given it up
        self._ousted: dict[tuple[int, Tp], int] = {}  # since when it is another's
        self._named: dict[tuple[str, str], Member] = {}  # who took a name that was chosen, last
        self._skips: list[Skip] = []
        self._begun: set[tuple[str, Tp]] = set()  # by groups that begin at the end
        self.seen_committed: set[int] = set()
        self.read_within: dict[int, set[int]] = defaultdict(set)

    def take(self, operations: Iterable[Any]) -> None:
        """Go through operations, ordered by their ends."""
        takers = {
            Join: self._join,
            Assign: self._assign,
            Revoke: self._revoke,
            Lost: self._lose,
            Leave: self._leave,
            Poll: self._poll,
            Seek: self._seek,
            Commit: self._commit,
            End: self._end,
        }
        for operation in operations:
            takers[operation.__class__](operation)  # type: ignore[operator]

    def finish(self) -> None:
        """Look at what polls have passed over, now that all that was there is known."""
        for skip in self._skips:
            member = self._members[skip.poll.who]
            skipped = self._logs.first_skipped(
                skip.tp,
                skip.start,
                skip.stop,
                skip.poll.end,
                is_committed=member.join.is_committed,
            )
            if skipped is not None:
                self._found.add(
                    skip.kind, f"{skip.tp} {skipped}, from {skip.start} on, by {_short(skip.poll)}"
                )

    # ------------------------------------------------------------ what is whose

    def _join(self, operation: Join) -> None:
        self._members[operation.who] = Member(operation)
        if operation.group is not None:
            if operation.name is not None:
                self._take_name(operation.group, operation.name, operation.who)
            self._readership.isolation[operation.group].add(operation.is_committed)
            self._readership.leaves_out[operation.group] = operation.leaves_out
            if operation.is_latest:
                self._offsets.latest.add(operation.group)
                self._readership.latest.add(operation.group)

    def _take_name(self, group: str, name: str, who: int) -> None:
        """Of two that have a name at once one is replaced, at a moment that nobody can see."""
        member = self._members[who]
        other = self._named.get((group, name))
        if other is not None and not other.has_left:
            other.is_contested = member.is_contested = True
            for where, (owner, _) in list(self._owner.items()):
                if owner is other:
                    del self._owner[where]
        self._named[group, name] = member

    def _assign(self, operation: Assign) -> None:
        member = self._members[operation.who]
        group = member.join.group
        for tp, (committed, position) in operation.places.items():
            member.owned.add(tp)
            member.expected.pop(tp, None)
            self._ousted.pop((operation.who, tp), None)
            if group is not None:
                self._hand_over(group, tp, member, operation)
                self._offsets.read(group, tp, operation.begin, operation.end, committed)
                if member.join.is_latest and (group, tp) not in self._begun:
                    self._begun.add((group, tp))  # there, or behind where it was pinned
                    self._readership.excuse(group, tp, 0, committed or position or 0)
                if committed is None and position is not None:
                    self._readership.excuse(group, tp, 0, position)
                    if member.join.is_latest:  # where it begins is committed by its next poll
                        member.pinned[tp] = member.reached[tp] = position
            if position is None:
                continue
            member.expected[tp] = position
            if committed is not None and position != committed and not member.is_contested:
                member.astray[tp] = f"{tp} at {position}, committed {committed}: {operation}"

    def _hand_over(self, group: str, tp: Tp, member: Member, operation: Assign) -> None:
        if member.is_contested:
            return
        before = self._owner.get((group, tp))
        if before is not None and before[0] is not member:
            self._ousted[before[0].join.who, tp] = operation.begin
        elif self._given_up.get((group, tp), -1) > operation.begin:
            self._found.add("two-owners", f"{tp} was given up after {operation}")
        self._owner[group, tp] = (member, operation.end)

    def _revoke(self, operation: Revoke) -> None:
        member = self._members[operation.who]
        for tp in operation.tps:
            if (operation.who, tp) in self._ousted:
                self._found.add("two-owners", f"{tp} was another's already when: {operation}")
            if not operation.is_leaving:  # else it is for the leaving to say
                if tp in member.unfinished:
                    member.done[tp] = member.unfinished.pop(tp)
                self._write_done(member, tp, member.last_end, operation.end)
            self._give_up(member, tp, operation.end)

    def _lose(self, operation: Lost) -> None:
        member = self._members[operation.who]
        group = member.join.group
        for tp in operation.tps:
            # Whoever has lost it commits nothing any more.
            done = [*member.maybe_done.pop(tp, ()), member.done.pop(tp, None)]
            done.append(member.unfinished.pop(tp, None))  # it has asked for what follows
            if group is not None and member.join.name is not None:
                for offset in done:  # but it may have, in the poll in which its name was taken
                    if offset is not None:
                        begin, end = member.last_end, operation.end
                        self._offsets.write(group, tp, begin, end, offset, is_sure=False)
            member.astray.pop(tp, None)
            self._give_up(member, tp)

    def _give_up(self, member: Member, tp: Tp, tick: int = 0) -> None:
        group = member.join.group
        if tp in member.astray:  # unless it was lost by then, and another had committed
            self._found.add("wrong-resume", member.astray.pop(tp))
        member.owned.discard(tp)
        member.expected.pop(tp, None)
        member.floor.pop(tp, None)
        self._ousted.pop((member.join.who, tp), None)
        if group is not None:
            owner = self._owner.get((group, tp))
            if owner is not None and owner[0] is member:
                del self._owner[group, tp]
                self._given_up[group, tp] = tick

    def _leave(self, operation: Leave) -> None:
        member = self._members[operation.who]
        member.unfinished.clear()
        member.has_left = True
        if operation.is_clean:
            for tp in {**member.done, **member.maybe_done}:
                self._write_done(member, tp, operation.begin, operation.end)
        for tp in list(member.owned):
            self._give_up(member, tp)

    # ------------------------------------------------------------ what is read

    def _poll(self, poll: Poll) -> None:
        member = self._members[poll.who]
        if member.unfinished:
            member.done.update(member.unfinished)  # as the next record has been asked for
            member.unfinished.clear()
        if member.done or member.maybe_done:
            for tp in {**member.done, **member.maybe_done}:
                if poll.is_iterated:
                    self._write_perhaps(member, tp, poll)
                else:
                    self._write_done(member, tp, poll.begin, poll.end)
        for tp, position in member.pinned.items():
            member.maybe_done.setdefault(tp, []).append(position)
        member.pinned.clear()
        group, is_committed = member.join.group, member.join.is_committed
        owners = self._owner
        for number, (tp, offsets, values) in enumerate(poll.runs):
            first, stop = offsets[0], offsets[-1] + 1
            spans = self._readership.spans_of(group, tp)
            count = len(spans)
            self._logs.take(tp, offsets, values, spans)
            if group is not None and owners.get((group, tp), NOBODY)[0] is not member:
                self._check_owner(group, tp, member, poll)
            if (
                member.expected.get(tp) != first
                or len(spans) != count + 1
                or stop - first != len(offsets)
            ):
                self._check_order(member, poll, number)
            if is_committed:
                self._check_committed(tp, offsets, values, poll)
            if member.is_followed:
                member.expected[tp] = stop
            if group is not None:
                member.reached[tp] = stop
                member.sought.pop(tp, None)
                if not poll.is_iterated:
                    member.done[tp] = stop
                else:
                    member.unfinished[tp] = stop
                    if len(offsets) > 1:
                        member.done[tp] = offsets[-2] + 1
            if poll.transaction is not None:
                self.read_within[poll.transaction].update(values)
        member.last_end = poll.end

    def _check_owner(self, group: str, tp: Tp, member: Member, poll: Poll) -> None:
        owner = self._owner.get((group, tp))
        if member.is_contested:
            return
        if member.must_own:
            if tp not in member.owned:
                self._found.add("two-owners", f"{tp} is not this member's: {_short(poll)}")
            elif self._ousted.get((poll.who, tp), NEVER) < poll.begin:
                self._found.add("two-owners", f"{tp} is another's by now: {_short(poll)}")
        elif owner is not None and owner[1] < poll.begin:
            # This one does not tell, so that the other has lost it is seen by this alone.
            self._ousted[owner[0].join.who, tp] = poll.end
            del self._owner[group, tp]

    def _check_order(self, member: Member, poll: Poll, number: int) -> None:
        tp, offsets, _ = poll.runs[number]
        is_first = all(run[0] != tp for run in poll.runs[:number])
        due = member.expected.get(tp)
        if due is None:
            due = offsets[0]
            start = member.floor.pop(tp, due)
            self._readership.excuse(member.join.group, tp, start, due)
        for offset in offsets:
            inner = "" if is_first else "int-"
            if offset < due:
                self._found.add(f"{inner}nonmonotonic-poll", f"{tp} {offset}, not {due}: {poll}")
            elif offset > due:
                self._skips.append(Skip(f"{inner}poll-skip", poll, tp, due, offset))
            due = offset + 1
            is_first = False

    def _check_committed(self, tp: Tp, offsets: Any, values: Any, poll: Poll) -> None:
        self.seen_committed.update(values)
        visible = self._logs.visible.get(tp)
        if visible is None or max(visible[offsets[0] : offsets[-1] + 1], default=0) < poll.end:
            return
        for offset in offsets:
            since = visible[offset] if offset < len(visible) else 0
            if since == NEVER:
                self._found.add("aborted-read", f"{tp} {offset}: {_short(poll)}")
            elif since >= poll.end:
                self._found.add("precommitted-read", f"{tp} {offset}: {_short(poll)}")

    def _seek(self, seek: Seek) -> None:
        member = self._members[seek.who]
        tp = seek.tp
        before = member.expected.pop(tp, None)
        if before is None:
            before = member.floor.get(tp, seek.before)
        if seek.offset is None:
            member.floor[tp] = before
            if member.join.is_latest:  # it may be the end, wherever that is by then
                self._readership.excuse(member.join.group, tp, before, 2**63)
        else:
            self._readership.excuse(member.join.group, tp, before, seek.offset)
            if member.is_followed:
                member.expected[tp] = seek.offset
            member.floor.pop(tp, None)
        # Which of the two the next poll commits is its own affair.
        maybe = member.maybe_done.setdefault(tp, [])
        if tp in member.done:
            maybe.append(member.done.pop(tp))
        if seek.offset is not None:
            maybe.append(seek.offset)
            member.sought.setdefault(tp, []).append(seek.offset)

    # ------------------------------------------------------------ what is committed

    def _end(self, end: End) -> None:
        """A transaction that commits offsets does so for the partitions' owner."""
        member = self._members.get(end.who)
        if end.group is None or end.outcome != OK or member is None:
            return
        for tp in end.offsets:
            if self._ousted.get((end.who, tp), NEVER) < end.begin:
                self._found.add("stale-commit", f"{tp} is another's: {end}")
        for tp in {**member.sought, **member.reached}:
            self._write_any(member, end.group, tp, end)

    def _commit(self, commit: Commit) -> None:
        member = self._members[commit.who]
        group = member.join.group
        if group is None or commit.outcome == FAILED:
            return
        for tp, offset in commit.offsets.items():
            is_sure = commit.outcome == OK
            if is_sure and self._ousted.get((commit.who, tp), NEVER) < commit.begin:
                self._found.add("stale-commit", f"{tp} is another's: {commit}")
            self._offsets.write(group, tp, commit.begin, commit.end, offset, is_sure=is_sure)
            if commit.outcome == UNKNOWN:
                self._write_any(member, group, tp, commit)
            if tp in member.expected:
                self._readership.excuse(group, tp, member.expected[tp], offset)
            # Where it has been since is committed again by its next poll, if that is more.
            again = member.maybe_done.setdefault(tp, [])
            again += member.sought.get(tp, ())
            if tp in member.reached:
                again.append(member.reached[tp])

    def _write_done(self, member: Member, tp: Tp, begin: int, end: int) -> None:
        """With auto-commit a poll, a revocation and a close commit what polls have returned."""
        offset = member.done.pop(tp, None)
        maybe = member.maybe_done.pop(tp, [])
        group = member.join.group
        if group is None or not member.join.is_auto:
            return
        # Of one that does not tell nobody knows whether the partition was its own still.
        is_sure = member.join.is_telling and not maybe and (member.join.who, tp) not in self._ousted
        if offset is not None and is_sure:
            self._offsets.raise_to(group, tp, begin, end, offset)
        elif offset is not None:
            maybe.append(offset)
        for possible in maybe:
            self._offsets.write(group, tp, begin, end, possible, is_sure=False)

    def _write_any(self, member: Member, group: str, tp: Tp, commit: Commit | End) -> None:
        """Note whatever a commit that names no offsets may have taken for what is done."""
        known = (member.done, member.unfinished, member.reached)
        possible = [*member.maybe_done.get(tp, ()), *member.sought.get(tp, ())]
        possible += (each[tp] for each in known if tp in each)
        for offset in possible:
            self._offsets.write(group, tp, commit.begin, commit.end, offset, is_sure=False)

    def _write_perhaps(self, member: Member, tp: Tp, poll: Poll) -> None:
        """Iteration commits when it has nothing left to yield; when that is nobody can see."""
        group = member.join.group
        if group is not None and member.join.is_auto:
            for offset in (member.done.get(tp), *member.maybe_done.get(tp, ())):
                if offset is not None:
                    self._offsets.write(group, tp, poll.begin, poll.end, offset, is_sure=False)


def _short(poll: Poll) -> str:
    runs = ", ".join(f"{tp[0]}-{tp[1]} {run[0]}..{run[-1]}" for tp, run, _ in poll.runs)
    return f"poll {poll.begin}-{poll.end} of {poll.who}: {runs}"
