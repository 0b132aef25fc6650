"""The records to be written, made before any clock starts, and how many of them a size asks for.

Knows nothing of minilog or its peers.
"""

import random
from dataclasses import dataclass, replace
from functools import lru_cache
from struct import Struct

NUMBER = Struct(">Q")
SEED = 20_240_229
NOISE_BYTES = 4_096


@dataclass(frozen=True)
class Scale:
    """How much of everything one size asks for."""

    records: int  # of kind SMALL or VARIED
    large: int  # of kind LARGE
    durable: int  # synced one by one, some 100 us each
    reads: int  # at random offsets
    opens: int  # of one log, per round
    hand_overs: int
    is_settled: bool  # the disk, before each clock: it takes seconds beside a busy neighbour
    rounds: int  # unless --rounds says otherwise

    def at_most(self, records: int | None) -> "Scale":
        """The same with fewer records in a log, for who would take for ever."""
        if records is None:
            return self
        large = max(records // 10, 1)
        return replace(self, records=min(self.records, records), large=min(self.large, large))


SIZES = {
    "tiny": Scale(1_000, 200, 32, 100, 2, 20, False, 2),
    "small": Scale(100_000, 20_000, 512, 20_000, 9, 300, True, 5),
    "full": Scale(1_000_000, 200_000, 2_048, 200_000, 15, 2_000, True, 5),
}


@dataclass(frozen=True)
class Kind:
    """What the values are like, and how many of them go into one batch."""

    shortest_bytes: int
    longest_bytes: int
    batch_records: int


SMALL = Kind(100, 100, batch_records=10_000)
VARIED = Kind(50, 150, batch_records=10_000)
LARGE = Kind(1_024, 1_024, batch_records=1_000)


@dataclass(frozen=True)
class Dataset:
    """Keys and values side by side; a key is the record's number, 8 bytes, big-endian."""

    keys: list[bytes]
    values: list[bytes]
    kind: Kind

    def __len__(self) -> int:
        return len(self.values)

    @property
    def value_bytes(self) -> int:
        return sum(map(len, self.values))

    def between(self, start: int, end: int | None = None) -> "Dataset":
        return Dataset(self.keys[start:end], self.values[start:end], self.kind)

    def batches(self) -> list["Dataset"]:
        size = self.kind.batch_records
        return [self.between(start, start + size) for start in range(0, len(self), size)]

    def dealt(self, hands: int) -> list["Dataset"]:
        """Every record to one of so many hands, in turn."""
        return [
            Dataset(self.keys[n::hands], self.values[n::hands], self.kind) for n in range(hands)
        ]


@lru_cache(maxsize=8)
def dataset(count: int, kind: Kind) -> Dataset:
    """Distinct values that do not compress, the same in every run."""
    chooser = random.Random(SEED)
    noise = chooser.randbytes(NOISE_BYTES + kind.longest_bytes)
    keys = [NUMBER.pack(number) for number in range(count)]
    values = []
    for number, key in enumerate(keys):
        start = number * 61 % NOISE_BYTES
        size = chooser.randint(kind.shortest_bytes, kind.longest_bytes) - len(key)
        values.append(key + noise[start : start + size])
    return Dataset(keys, values, kind)


@lru_cache(maxsize=4)
def random_offsets(reads: int, count: int) -> list[int]:
    chooser = random.Random(SEED)
    return [chooser.randrange(count) for _ in range(reads)]
