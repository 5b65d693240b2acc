"""What a stranger, a full disk or a bad memory may make of a file."""

import copy
from typing import Any

import numpy as np

ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        -5,
        2,
        3,
        7,
        10**6,
        2**62,
        10**30,
        -(10**400),
        0.5,
        1e308,
        float("nan"),
        float("inf"),
    ),
    *("", "x", "P", "float32", "\x1b[31m\n", "\ud800", [], [1], [0, 0], [-1, 2], ["a"], [[]], [None], {}, {"a": 1}),
    *({"class_name": None}, {"class_name": "SourceLayer"}, {"class_name": "MarkLayer", "num_heads": 3}),
]


def damaged(tree: Any, random: np.random.Generator) -> Any:
    """The tree with one to three places replaced or removed."""
    tree = copy.deepcopy(tree)
    for _ in range(random.integers(1, 4)):
        places = [place for place in _places(tree) if place]
        if not places:
            return anything(random, 3)
        *above, last = places[random.integers(len(places))]
        parent = tree
        for key in above:
            parent = parent[key]
        if random.integers(4):
            parent[last] = anything(random, 2)
        else:
            del parent[last]
    return tree


def anything(random: np.random.Generator, depth: int) -> Any:
    """Any value of JSON, at most so deep."""
    kind = random.integers(8) if depth else 0
    if kind == 6:
        return [anything(random, depth - 1) for _ in range(random.integers(4))]
    if kind == 7:
        names = ["class_name", "input_dim", "a", "", "dtype", "block"]
        return {str(random.choice(names)): anything(random, depth - 1) for _ in range(random.integers(4))}
    return copy.deepcopy(ODD[random.integers(len(ODD))])


def with_bytes(content: bytes, random: np.random.Generator) -> bytes:
    """The content with bytes replaced, cut, doubled or put in."""
    changed = bytearray(content)
    for _ in range(random.integers(1, 5)):
        place = int(random.integers(len(changed) + 1))
        # headers stand at the beginning, and hold more than the numbers behind them
        place = min(place, int(random.integers(400))) if random.integers(2) else place
        action = random.integers(5)
        if action == 0:
            del changed[place:]
        elif action == 1:
            changed[place:place] = random.bytes(int(random.integers(1, 9)))
        elif action == 2:
            changed[place:place] = changed[place : place + 40]
        elif action == 3:
            changed[place : place + 1] = random.choice([b"\x00", b"\xff", b"[", b"{", b'"', b"9", b"-", b"e"])
        else:
            changed[place : place + 1] = random.bytes(1)
    return bytes(changed)


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    return [path, *(place for key in keys for place in _places(tree[key], (*path, key)))]
