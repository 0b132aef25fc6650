"""Children to kill, forked from a process that has imported what they need: 10 ms and not 150.

The process they are forked from, the nursery, has opened no log; a child is a process of its own
that runs ``main`` of a module and is killed like any other. Where there is no pidfd (it is
Linux's) each child is started from nothing. This module refuses to know what children do.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import traceback
from functools import cache
from pathlib import Path
from typing import IO, Any

import minilog

PACKAGE_ROOT = str(Path(minilog.__file__).parent.parent)
ENVIRONMENT = {"PYTHONPATH": PACKAGE_ROOT, "PYTHONDONTWRITEBYTECODE": "1"}
MOST_BYTES = 65_536


class Nursery:
    """The parent's side of the process that forks children."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.torture.children", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, env=ENVIRONMENT, cwd=PACKAGE_ROOT, pass_fds=[theirs.fileno()]
            )
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, request: dict[str, Any], *files: int) -> int:
        """Have something done in the nursery; return the number it answers with."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], files)
            return int(self._socket.recv(MOST_BYTES))

    def close(self) -> None:
        """End it; children that are alive stay so."""
        self._socket.close()
        self._process.wait()


@cache
def nursery() -> Nursery:
    """Return the one of this process."""
    return Nursery()


class Child:
    """A forked process, as far as it can do what a ``subprocess.Popen`` can."""

    def __init__(self, module: str, arguments: tuple[str, ...], *, is_quiet: bool) -> None:
        reading, writing = os.pipe()
        self.stdout: IO[bytes] | None = open(reading, "rb", buffering=0)  # noqa: SIM115
        request = {"module": module, "arguments": arguments, "is_quiet": is_quiet}
        try:
            self.pid = nursery().ask(request, writing)
        finally:
            os.close(writing)
        self.returncode: int | None = None
        self._pidfd = os.pidfd_open(self.pid)

    def kill(self) -> None:
        """Send signal 9, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, 9)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return how it came. ``subprocess.TimeoutExpired``."""
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired("child", timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(nursery().ask({"reaped": self.pid}))
            os.close(self._pidfd)
        return self.returncode


def start(module: str, *arguments: str, is_quiet: bool = False) -> Child | subprocess.Popen[bytes]:
    """Run ``main`` of a module in a process of its own, its standard output in a pipe."""
    if hasattr(os, "pidfd_open"):
        return Child(module, arguments, is_quiet=is_quiet)
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env=ENVIRONMENT,
        cwd=PACKAGE_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if is_quiet else None,
        bufsize=0,
    )


# ---------------------------------------------------------------- the nursery's side


def serve(own: socket.socket) -> None:
    """Fork and reap as asked, until nobody is there to ask."""
    while True:
        data, files, _, _ = socket.recv_fds(own, MOST_BYTES, 1)
        if not data:
            return
        request = json.loads(data)
        if "reaped" in request:
            _, answer = os.waitpid(request["reaped"], 0)
        else:
            module = importlib.import_module(request["module"])
            answer = os.fork()
            if not answer:
                own.close()
                be_child(module.main, request, files[0])
            os.close(files[0])
        own.send(str(answer).encode())


def be_child(main: Any, request: dict[str, Any], output: int) -> None:
    """Run and end, with the parent's pipe as standard output."""
    try:
        os.dup2(output, 1)
        os.close(output)
        if request["is_quiet"]:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        main(*request["arguments"])
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as served:
        serve(served)
