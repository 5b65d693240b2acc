"""Between the names in linen's trees and the canonical ones of the saved files.

Linen names the entries of a list `blocks_0`, files say `blocks.0`; stacked blocks stand under `blocks`. All other names
are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flax.linen import meta
from flax.traverse_util import flatten_dict, unflatten_dict

from plstm_config.base import Config
from plstm_jax.parameters import flatten, is_scanned, stack_blocks, unflatten, unstack_blocks

_ENTRY = re.compile(r"^(blocks)_(\d+)$")


def to_canonical(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by the names and in the shapes of the saved files.

    Args:
        params: the collection "params" of a module, in boxes or bare, with blocks stacked or apart; or a tree of its
            structure, such as gradients.

    Returns:
        Bare arrays by dotted name, each block under its own.
    """
    bare = meta.unbox(params)
    paths = {tuple(part for name in path for part in _split(name)): leaf for path, leaf in flatten_dict(bare).items()}
    return flatten(unstack_blocks(unflatten_dict(paths)))


def from_canonical(config: Config, arrays: Mapping[str, Any], *, scan_blocks: bool | None = None) -> dict[str, Any]:
    """The collection "params" of a config's module from arrays by the names of the saved files.

    Args:
        config: config of the module.
        arrays: arrays by dotted name.
        scan_blocks: as the module has it.

    Returns:
        Nested dicts of the same arrays, stacked if the module scans over its blocks.
    """
    tree = unflatten(arrays)
    if is_scanned(config, scan_blocks):
        tree = stack_blocks(tree)
    return unflatten_dict({_join(path): leaf for path, leaf in flatten_dict(tree).items()})


def _split(name: str) -> tuple[str, ...]:
    entry = _ENTRY.match(name)
    return entry.groups() if entry else (name,)


def _join(path: tuple[str, ...]) -> tuple[str, ...]:
    joined: list[str] = []
    for name in path:
        if name.isdigit():
            joined[-1] = f"{joined[-1]}_{name}"
        else:
            joined.append(name)
    return tuple(joined)
