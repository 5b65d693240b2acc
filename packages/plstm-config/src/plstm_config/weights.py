"""Whether named arrays are the weights of a config, told from names, shapes and types alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import Any, NamedTuple

from plstm_config.base import Config
from plstm_config.embeddings import PosEmbed2DConfig
from plstm_config.parameters import Repeated, Weights, check_config, iterate_parameters, join, named_configs

FLOATING = ("float64", "float32", "float16", "bfloat16")
_LISTED = 8  # names in a message
_WALKED = 5_000  # names that are compared in any case, so that messages on ordinary models are whole

Shape = tuple[int, ...]
AcceptsShape = Callable[[Shape], bool]


class ArrayInfo(NamedTuple):
    """What is known of an array before it is read: its shape, and its type's name as numpy and ml_dtypes say it."""

    shape: Shape
    dtype: str


def array_infos(arrays: Mapping[str, Any]) -> dict[str, ArrayInfo]:
    """Shapes and types of arrays by name.

    Args:
        arrays: arrays by name, of any framework: whatever has `shape` and a `dtype` whose last name numpy shares.

    Returns:
        What `check_weights` takes.
    """
    return {name: ArrayInfo(tuple(array.shape), str(array.dtype).rpartition(".")[2]) for name, array in arrays.items()}


def check_weights(
    config: Config, weights: Mapping[str, ArrayInfo], *, source: str = "weights", resize_limit: int | None = None
) -> None:
    """Refuse arrays that are not the weights of a config.

    The time is bounded by the number of arrays: a config that asks for more than there is, however much, is refused
    without walking through all of it. Numbers of any floating type fit; values are not looked at.

    Args:
        config: config of a module.
        weights: shapes and types by dotted name.
        source: where the weights come from, for messages.
        resize_limit: how many times more positions than stored a positional embedding may be interpolated to;
            None: any number.

    Raises:
        TypeError: if `config` is no config.
        ValueError: if names or shapes do not fit, or a type is not floating; the message lists all that is wrong. A
            positional embedding of another grid fits if its config has `allow_interpolation`.

    Examples:
        >>> import numpy as np, plstm_config
        >>> from plstm_config.weights import array_infos, check_weights
        >>> config = plstm_config.LinearConfig(input_dim=2, output_dim=3, bias=False)
        >>> check_weights(config, array_infos({"weight": np.zeros((3, 2), np.float32)}), source="arrays")
    """
    check_config(config)
    owner = str(getattr(config, "class_name", type(config).__name__))
    asked = count_arrays(config)
    # of more names than there are arrays and those that a message lists, some are missing for sure
    shown = max(len(weights) + _LISTED + 1, _WALKED)
    expected = {name: parameter.shape for name, parameter in islice(iterate_parameters(config), shown)}
    if asked > len(expected):
        missing = sorted(set(expected) - set(weights))
        more = asked - len(weights) - _LISTED
        listed = ", ".join(map(repr, missing[:_LISTED]))
        raise ValueError(
            f"{source}: expected the weights of {owner}, got others: missing {listed} and at least {more} more"
        )
    check_shapes(expected, weights, owner=owner, source=source, resizable=resizable(config, resize_limit))


def check_shapes(
    expected: Mapping[str, Shape],
    weights: Mapping[str, ArrayInfo],
    *,
    owner: str,
    source: str,
    resizable: Mapping[str, AcceptsShape],
) -> None:
    """Refuse arrays that do not have the expected names, shapes and floating types.

    Args:
        expected: shapes by name.
        weights: shapes and types by name.
        owner: whose weights are expected, for messages.
        source: where the weights come from, for messages.
        resizable: tests of other shapes that fit, too, by name.

    Raises:
        ValueError: if something does not fit; the message lists it all.
    """
    missing, unexpected = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    problems = [f"missing {_listing(missing)}"] if missing else []
    problems += [f"unexpected {_listing(unexpected)}"] if unexpected else []
    for name in sorted(expected.keys() & weights.keys()):
        shape, dtype = weights[name]
        if shape != tuple(expected[name]) and not (name in resizable and resizable[name](shape)):
            problems.append(f"{name}: expected shape {tuple(expected[name])}, got {shape}")
        if dtype not in FLOATING:
            problems.append(f"{name}: expected dtype {' or '.join(FLOATING)}, got {dtype}")
    if problems:
        cut = problems[: _LISTED + 2]
        more = f" and {len(problems) - len(cut)} more" if len(problems) > len(cut) else ""
        raise ValueError(f"{source}: expected the weights of {owner}, got others: {'; '.join(cut)}{more}")


def count_arrays(config: Config | Weights) -> int:
    """How many named arrays a module holds; repeated submodules are not walked through one by one."""
    total = sum(parameter is not None for parameter in config.parameters().values())
    for child in config.children().values():
        if isinstance(child, Repeated):
            total += child.count * count_arrays(child.config)
        elif child is not None:
            total += count_arrays(child)
    return total


def accepts_shape(config: PosEmbed2DConfig, shape: Shape, resize_limit: int | None = None) -> bool:
    """Tell whether a stored positional embedding of this shape can be loaded, by interpolation if need be.

    Args:
        config: config of the positional embedding that is to be filled.
        shape: shape of the stored one.
        resize_limit: see `check_weights`.

    Returns:
        True if it can.
    """
    same_width = len(shape) == 4 and shape[0] == 1 and shape[3] == config.dim and min(shape) > 0
    if not same_width or config.seqlens is None:
        return False
    if tuple(shape[1:3]) == tuple(config.seqlens):
        return True
    small = resize_limit is None or math.prod(config.seqlens) <= resize_limit * shape[1] * shape[2]
    return config.allow_interpolation and small


def resizable(config: Config, limit: int | None = None) -> dict[str, AcceptsShape]:
    """Tests of the shapes that positional embeddings can be loaded from.

    Args:
        config: config of a module.
        limit: see `check_weights`.

    Returns:
        One for each, by the dotted name of its parameter.
    """
    return {
        join(name, "embed"): lambda shape, part=part: accepts_shape(part, shape, limit)  # type: ignore[misc]
        for name, part in named_configs(config)
        if isinstance(part, PosEmbed2DConfig)
    }


def _listing(names: Collection[str]) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"
