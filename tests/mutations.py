"""Files as bad disks and bad people make them."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VALUES = (
    None, True, -1, 0, 2, 10**18, 10**400, 0.5, -0.0, 1e308, "", "x", "\ud800", "\0", [], {}, [[]],
    [None], {"$float": "nan"}, {"$tuple": []}, {"$eval": "1"}, [1] * 1000, "9" * 5000,
)  # fmt: skip


def of_bytes(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """The content with bits flipped, pieces cut out, repeated, swapped or overwritten."""
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(content)
        for _ in range(rng.choice((1, 1, 1, 2, 5, 40))):
            at, size = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8, 30, 200))
            to = rng.randrange(len(data) + 1)
            match rng.randrange(6):
                case 0 if at < len(data):
                    data[at] ^= 1 << rng.randrange(8)
                case 1:
                    del data[at:]
                case 2:
                    del data[at : at + size]
                case 3:
                    data[to:to] = data[at : at + size]
                case 4:
                    data[to : to + size] = data[at : at + size]
                case _:
                    data[at : at + size] = bytes([rng.choice((0, 1, 127, 128, 255))]) * size
        yield bytes(data)


def of_json(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """The same data with entries replaced, removed, renamed or put elsewhere."""
    rng = random.Random(seed)
    for _ in range(count):
        data = json.loads(content)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            places = list(_places(data))
            if not places:
                break
            holder, key = rng.choice(places)
            match rng.randrange(5):
                case 0:
                    del holder[key]
                case 1 if isinstance(holder, dict):
                    holder[str(rng.choice(VALUES))] = holder.pop(key)
                case 2:
                    other, name = rng.choice(places)
                    if not isinstance(other, list) or name < len(other):
                        holder[key] = json.loads(
                            json.dumps(other.get(name) if isinstance(other, dict) else other[name])
                        )
                case _:
                    holder[key] = copy.deepcopy(rng.choice(VALUES))
        yield json.dumps(data).encode()


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    entries = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    for key, value in list(entries)[:50]:
        yield data, key
        yield from _places(value)


def refusals(path: Path, contents: Iterator[bytes], load: Callable[[], object]) -> int:
    """How many of the contents are refused; what is raised is a `ValueError` or an `OSError`."""
    refused = 0
    for content in contents:
        path.write_bytes(content)
        try:
            load()
        except (ValueError, OSError):
            refused += 1
    return refused
