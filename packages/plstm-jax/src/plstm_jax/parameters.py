"""Parameters of a config as nested dicts: drawing them, and their dotted names."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from plstm_config import BlockStackConfig, pLSTMGraphModelConfig
from plstm_config.base import Config
from plstm_config.parameters import Parameter, parameter_tree
from plstm_jax.initializers import draw

Params: TypeAlias = dict[str, Any]

_REPEATED = "blocks"  # the only name under which modules repeat


def init(config: Config, key: Array) -> Params:
    """Draw the parameters of a module.

    Each parameter has a key of its own, made from `key` and its dotted name, so that switching one part of a config
    leaves the numbers of the others as they were.

    Args:
        config: complete config of a layer, block or model.
        key: for random numbers.

    Returns:
        The parameters by name, those of submodules in dicts of their own; repeated ones under "0", "1", ....

    Raises:
        TypeError: if `config` is no config.
        ValueError: if a size is left open.

    Examples:
        >>> import jax, plstm_config, plstm_jax
        >>> config = plstm_config.LinearConfig(input_dim=4, output_dim=2)
        >>> jax.tree.map(jax.numpy.shape, plstm_jax.init(config, jax.random.key(0)))
        {'bias': (2,), 'weight': (2, 4)}
    """
    tree = parameter_tree(config)
    return unflatten({name: draw_named(item, name, key) for name, item in tree.items()})


def draw_parameter(parameter: Parameter, key: Array) -> Array:
    """Draw one parameter in its canonical layout.

    Args:
        parameter: what is to be drawn.
        key: for random numbers.

    Returns:
        An array of the parameter's shape and dtype.
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        drawn = draw(parameter.init, key, parameter.drawn_shape, parameter.dtype)
    return drawn.transpose(parameter.from_drawn).reshape(parameter.shape)


def draw_named(parameter: Parameter, name: str, key: Array) -> Array:
    """Draw one of a module's parameters, with the numbers that `init` gives it.

    Args:
        parameter: what is to be drawn.
        name: its dotted name in the module.
        key: of the module.

    Returns:
        An array of the parameter's shape and dtype.
    """
    return draw_parameter(parameter, jax.random.fold_in(key, zlib.crc32(name.encode())))


def logical_axes(parameter: Parameter) -> tuple[str | None, ...]:
    """Names of a parameter's axes for rules of sharding, which know a name once.

    Args:
        parameter: a row of the table.

    Returns:
        The letter of each axis; None for one of size one, and where a letter comes again.
    """
    axes = parameter.axes
    return tuple(None if name == "1" or name in axes[:place] else name for place, name in enumerate(axes))


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Arrays by dotted name from nested mappings.

    Args:
        params: nested mappings of arrays.
        prefix: put before all names.

    Returns:
        The arrays by the names of the saved files.

    Examples:
        >>> import plstm_jax
        >>> plstm_jax.flatten({"norm": {"scale": 1.0}, "head": {"weight": 2.0, "bias": 3.0}})
        {'norm.scale': 1.0, 'head.weight': 2.0, 'head.bias': 3.0}
    """
    return dict(_leaves(params, prefix))


def unflatten(arrays: Mapping[str, Any]) -> Params:
    """Nested dicts from arrays by dotted name.

    Args:
        arrays: arrays by the names of the saved files.

    Returns:
        A dict for every part of the names.

    Examples:
        >>> import plstm_jax
        >>> plstm_jax.unflatten({"norm.scale": 1.0, "head.weight": 2.0})
        {'norm': {'scale': 1.0}, 'head': {'weight': 2.0}}
    """
    params: Params = {}
    for name, array in arrays.items():
        *parts, last = name.split(".")
        inner = params
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[last] = array
    return params


def stack_blocks(params: Mapping[str, Any]) -> Params:
    """Bring the blocks of every stack together, so that a scan over them copies nothing.

    Args:
        params: nested parameters.

    Returns:
        The same with one dict in place of those under "0", "1", ..., each array with a first axis that counts the
        blocks; what is stacked already stays.

    Examples:
        >>> import jax, plstm_config, plstm_jax
        >>> block = plstm_config.PreUpProjectionBlockConfig(input_dim=8)
        >>> config = plstm_config.BlockStackConfig(input_dim=8, num_blocks=3, block=block)
        >>> params = plstm_jax.stack_blocks(plstm_jax.init(config, jax.random.key(0)))
        >>> params["blocks"]["norm"]["scale"].shape  # one axis for all blocks
        (3, 8)
    """

    def stack(blocks: Mapping[str, Any]) -> Mapping[str, Any]:
        if is_stacked(blocks):
            return blocks
        ordered = [blocks[str(index)] for index in range(len(blocks))]
        stacked: Params = stack_trees(ordered)
        return stacked

    return _on_blocks(params, stack)


def unstack_blocks(params: Mapping[str, Any]) -> Params:
    """Take the blocks of every stack apart again, as the files have them.

    Args:
        params: nested parameters.

    Returns:
        The same with the blocks under "0", "1", ...; what is not stacked stays.

    Examples:
        >>> import jax, plstm_config, plstm_jax
        >>> block = plstm_config.PreUpProjectionBlockConfig(input_dim=8)
        >>> config = plstm_config.BlockStackConfig(input_dim=8, num_blocks=3, block=block)
        >>> params = plstm_jax.stack_blocks(plstm_jax.init(config, jax.random.key(0)))
        >>> sorted(plstm_jax.unstack_blocks(params)["blocks"])
        ['0', '1', '2']
    """

    def unstack(blocks: Mapping[str, Any]) -> Mapping[str, Any]:
        if not is_stacked(blocks):
            return blocks
        count = jax.tree.leaves(blocks)[0].shape[0]
        return {str(index): block_of(blocks, index) for index in range(count)}

    return _on_blocks(params, unstack)


def stacked_like(held: Mapping[str, Any], params: Mapping[str, Any]) -> Params:
    """Parameters with their blocks stacked where those that are held are.

    Args:
        held: nested parameters, with stacked blocks or without.
        params: others of the same module, without.

    Returns:
        The others in the structure of those that are held.
    """
    changed: Params = {}
    for name, value in params.items():
        if name == _REPEATED and is_stacked(held[name]):
            value = stack_blocks({name: value})[name]
        elif isinstance(value, Mapping):
            value = stacked_like(held[name], value)
        changed[name] = value
    return changed


def stack_trees(trees: Sequence[Any]) -> Any:
    """One tree in place of many of one structure, each array with a first axis that counts them."""
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *trees)


def split_tree(tree: Any, count: int) -> list[Any]:
    """The trees that `stack_trees` made one of."""
    return [jax.tree.map(lambda array, index=index: array[index], tree) for index in range(count)]


def is_scanned(config: Config, scan_blocks: bool | None = None) -> bool:
    """Whether a module's blocks are held as one by a module, with a first axis on each of their arrays.

    Args:
        config: config of the module.
        scan_blocks: as the module has it; None: what the config says.

    Returns:
        Whether they are; False also where there is no stack of blocks, or one that cannot be scanned.
    """
    stack = getattr(config, "block_stack", config)
    if isinstance(config, pLSTMGraphModelConfig) or not isinstance(stack, BlockStackConfig):
        return False
    return stack.scan_blocks if scan_blocks is None else scan_blocks


def is_stacked(blocks: Mapping[str, Any]) -> bool:
    """Whether the parameters of repeated parts are stacked, not numbered."""
    return not all(name.isdigit() for name in blocks)


def block_of(blocks: Mapping[str, Any], index: int) -> Any:
    """The parameters of one of repeated parts."""
    return jax.tree.map(lambda array: array[index], blocks) if is_stacked(blocks) else blocks.get(str(index), {})


def _on_blocks(params: Mapping[str, Any], function: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Params:
    changed: Params = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            value = function(value) if name == _REPEATED else _on_blocks(value, function)
        changed[name] = value
    return changed


def _leaves(params: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        here = f"{prefix}.{name}" if prefix else name
        if isinstance(value, Mapping):
            yield from _leaves(value, here)
        else:
            yield here, value
