"""Records on their way from some producers through a group's members, for w10.

The clock starts when every member has its share of the partitions: how long a group takes to form
is another question. Refuses to know whose group it is.
"""

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Lock
from time import monotonic, sleep

PARTITIONS = 8
THREADS = 4  # that send, and as many members
BATCH_RECORDS = 500
FORMING_SECONDS = 30
STALLED_SECONDS = 10


class Passage:
    """Members that poll from now on; called, it sends everything and waits until it came.

    `send(thread)` sends the share of one thread; `receive(passage, member)` polls until it
    `is_over`, tells `take` of what came, and keeps `shares[member]` up to date: how many partitions
    it is assigned.
    """

    def __init__(
        self, count: int, send: Callable[[int], None], receive: Callable[["Passage", int], None]
    ) -> None:
        self.left = count
        self.is_over = False
        self.shares = [0] * THREADS
        self._latencies: list[float] = []
        self._guard = Lock()
        self._send = send
        self._pool = ThreadPoolExecutor(2 * THREADS)
        self._members = [self._pool.submit(receive, self, number) for number in range(THREADS)]
        self._wait_for_shares()

    def _wait_for_shares(self) -> None:
        deadline = monotonic() + FORMING_SECONDS
        try:
            while self.shares != [PARTITIONS // THREADS] * THREADS:
                for member in self._members:
                    if member.done():
                        member.result()
                if monotonic() > deadline:
                    raise TimeoutError(f"the group did not form: {self.shares} of {PARTITIONS}")
                sleep(0.001)
        except BaseException:
            self._stop()
            raise

    def take(self, records: int, latency_ms: float) -> None:
        with self._guard:
            self.left -= records
            self._latencies.append(latency_ms)
            self.is_over = self.is_over or self.left <= 0

    def __call__(self) -> list[float]:
        """How long the oldest record of each poll was on its way, in milliseconds."""
        try:
            senders = [self._pool.submit(self._send, number) for number in range(THREADS)]
            for sender in senders:
                sender.result()
            self._wait_for_members()
        finally:
            self._stop()
        if self.left:
            raise RuntimeError(f"{-self.left} records more came than were sent")
        return self._latencies

    def _wait_for_members(self) -> None:
        left = self.left + 1
        while not self.is_over and self.left < left:
            left = self.left
            wait(self._members, STALLED_SECONDS, FIRST_EXCEPTION)
        if not self.is_over:
            self.is_over = True
            for member in self._members:
                member.result()
            raise RuntimeError(f"{self.left} records did not come")
        for member in self._members:
            member.result()

    def _stop(self) -> None:
        self.is_over = True
        self._pool.shutdown()
