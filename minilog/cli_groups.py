"""The command line's `groups`: how far behind consumer groups are, and setting them back.

Looking needs no lock and works beside a live writer; its members are in its process and cannot be
seen from here. Changing anything needs the log for itself. It stands outside the library, beside
`cli.py`: it uses the public names of `minilog` alone and refuses to know where offsets are kept.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import minilog
from minilog.cli_arguments import UsageError, add_directory, offset_or_time
from minilog.config import some_of

ACTIONS = ("list", "describe", "reset", "delete")
SHIFT = r"shift:([+-]?[0-9]{1,18})"
Row = dict[str, Any]
To = str | int | datetime | dict[str, int]


def add_groups(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `groups`."""
    text = """list every group (the default), describe one by partition (the default with --group),
        reset where it goes on from, or delete what it has committed"""
    parser.add_argument("action", metavar="ACTION", nargs="?", choices=ACTIONS, help=text)
    add_directory(parser)
    parser.add_argument("--group", metavar="NAME", help="the group")
    text = """reset to: earliest, latest, an offset, shift:N (of what is committed; N may be
        negative), or a time: ISO 8601, or an age such as 90s, 30m, 1h or 2d"""
    parser.add_argument("--to", metavar="WHERE", type=_where, help=text)
    text = "reset this topic alone; can be repeated (default: all the group has committed)"
    parser.add_argument("--topic", metavar="NAME", action="append", dest="topics", help=text)
    text = "say what reset or delete would do, and do nothing"
    parser.add_argument("--dry-run", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")


def _where(text: str) -> To:
    if text in ("earliest", "latest"):
        return text
    if shift := re.fullmatch(SHIFT, text):
        return {"shift": int(shift[1])}
    try:
        return offset_or_time(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"neither earliest, latest, an offset, shift:N nor a time: {text!r}"
        ) from None


def run_groups(arguments: argparse.Namespace) -> None:
    """Do what `groups` was asked to, and print it."""
    action = arguments.action or ("describe" if arguments.group is not None else "list")
    _check(action, arguments)
    is_changing = action in ("reset", "delete") and not arguments.dry_run
    with minilog.Broker(arguments.directory, read_only=True) as broker:  # it must be there
        if action == "list":
            return _print(arguments.json, ("group", "partitions", "lag"), _listed(broker))
        columns, rows = _done(action, arguments, broker) if not is_changing else ((), [])
    if is_changing:
        with minilog.Broker(arguments.directory) as broker:  # or it is said who has it
            columns, rows = _done(action, arguments, broker)
    _print(arguments.json, columns, rows)
    if arguments.dry_run and not arguments.json:
        print("nothing was changed (--dry-run)")
    return None


def _done(
    action: str, arguments: argparse.Namespace, broker: minilog.Broker
) -> tuple[tuple[str, ...], list[Row]]:
    """Do it, and return what to print: columns and rows."""
    group = broker.groups.get(arguments.group)
    if group is None:
        there = some_of(broker.groups) or "none"
        raise UsageError(f"no group {arguments.group!r}; there are: {there}")
    if action == "reset":
        changed = group.reset(arguments.topics, to=arguments.to, dry_run=arguments.dry_run)
        return ("topic", "partition", "before", "after"), list(_changed(group.name, changed))
    described = list(_described(broker, group))
    if action == "describe":
        return ("topic", "partition", "committed", "start", "end", "lag"), described
    if not arguments.dry_run:
        broker.delete_group(group.name)
    return ("topic", "partition", "committed"), described


def _check(action: str, arguments: argparse.Namespace) -> None:
    """Raise UsageError where what was given goes with another action."""
    if action != "list" and arguments.group is None:
        raise UsageError(f"groups {action} needs --group NAME")
    if action == "list" and arguments.group is not None:
        raise UsageError("groups list is of all groups; --group goes with the other actions")
    if action == "reset" and arguments.to is None:
        raise UsageError("groups reset needs --to WHERE")
    for option, given in (("--to", arguments.to), ("--topic", arguments.topics)):
        if action != "reset" and given is not None:
            raise UsageError(f"{option} goes with groups reset")
    if action not in ("reset", "delete") and arguments.dry_run:
        raise UsageError("--dry-run goes with groups reset and groups delete")


def _listed(broker: minilog.Broker) -> Iterator[Row]:
    for name, group in broker.groups.items():
        lag = group.lag()
        yield {"group": name, "partitions": len(lag), "lag": sum(lag.values())}


def _described(broker: minilog.Broker, group: Any) -> Iterator[Row]:
    lag = group.lag()
    for tp, committed in group.committed().items():
        partition = broker.topic(tp.topic)[tp.partition]
        ends = {"start": partition.start_offset, "end": partition.end_offset}
        row = {"group": group.name, "topic": tp.topic, "partition": tp.partition}
        yield {**row, "committed": committed, **ends, "lag": lag.get(tp, 0)}


def _changed(name: str, changed: dict[minilog.TopicPartition, Any]) -> Iterator[Row]:
    for tp, (before, after) in changed.items():
        row = {"group": name, "topic": tp.topic, "partition": tp.partition}
        yield {**row, "before": before, "after": after}


def _print(is_json: bool, columns: tuple[str, ...], rows: Any) -> None:
    """Print rows as JSON objects, whole, or as a table of these columns."""
    if is_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    print(" ".join([f"{columns[0].upper():<24}", *(f"{name.upper():>12}" for name in columns[1:])]))
    for row in rows:
        first, *rest = ("-" if row[name] is None else row[name] for name in columns)
        print(" ".join([f"{first:<24}", *(f"{cell:>12}" for cell in rest)]))
