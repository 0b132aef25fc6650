"""Random changes of bytes, for where no fuzzer is installed; the same for the same randomness.

It refuses to know what the bytes mean.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

WORDS = [0, 1, 2, 3, 4, 7, 8, 36, 40, 64, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31]
WORDS += [2**32 - 1, 2**63 - 1, 2**64 - 1]
TEXTS = [b"null", b"-1", b"[]", b"{}", b'""', b"1e999", b"NaN", b"true", b"\xff\xfe", b"9" * 30]
VALUES = [None, True, -1, 0, 1, 2**31, 2**63, 2**70, 1.5, -1e300, "", "0", "x" * 300, "\ud800"]
VALUES += [[], {}, [[]], {"": None}, "..", "a/b", "none"]


def mutated(data: bytes, corpus: Sequence[bytes], chance: random.Random) -> bytes:
    """Return ``data`` changed in one to a few places."""
    if data[:1] in (b"{", b"[") and chance.random() < 0.7:
        return _mutated_json(data, chance)
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
        _change(changed, corpus, chance)
    return bytes(changed)


def _mutated_json(data: bytes, chance: random.Random) -> bytes:
    """Return JSON with a value, a name or an entry changed."""
    content = json.loads(data)
    holders: list[object] = [content]
    for holder in holders:  # it grows on the way
        children = holder.values() if isinstance(holder, dict) else holder
        holders += [each for each in children if isinstance(each, (dict, list))]  # type: ignore
    for _ in range(chance.choice([1, 1, 2, 3])):
        holder = chance.choice([each for each in holders if each] or [content])
        if isinstance(holder, dict) and holder:
            name = chance.choice(sorted(holder))
            value = holder.pop(name)
            if chance.random() < 0.2:
                name = str(chance.choice(VALUES))
            if chance.random() < 0.9:
                holder[name] = chance.choice([*VALUES, value])
        elif isinstance(holder, list) and holder:
            at = chance.randrange(len(holder))
            holder[at : at + chance.randrange(2)] = [chance.choice(VALUES)]
    return json.dumps(content).encode()


def _change(data: bytearray, corpus: Sequence[bytes], chance: random.Random) -> None:
    kind = chance.randrange(8)
    at = chance.randrange(len(data) + 1)
    stop = min(at + chance.choice([1, 2, 4, 8, 64]), len(data))
    if kind == 0 and at < len(data):
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = chance.randrange(256)
    elif kind == 2:
        size = chance.choice([1, 2, 4, 8])
        word = chance.choice(WORDS) % 2 ** (8 * size)
        data[at : at + size] = word.to_bytes(size, "little")
    elif kind == 3:
        del data[at:stop]
    elif kind == 4:
        data[at:at] = data[at:stop]
    elif kind == 5:
        data[at:stop] = chance.choice(TEXTS)
    elif kind == 6:
        other = chance.choice(corpus)
        begin = chance.randrange(len(other) + 1)
        data[at:stop] = other[begin : begin + stop - at]
    else:
        del data[at:]
