"""Equal submodules in a row: apart in a list, or as one module whose arrays have a first axis "layers"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
from flax import nnx
from jax import Array

from plstm_jax.context import Cache, Context
from plstm_jax.parameters import block_of, stack_blocks
from plstm_jax.scope import scan_blocks
from plstm_jax.sharding import LAYERS


def hold_repeated(
    count: int, params: Mapping[str, Any], make: Callable[[Any, Mapping[str, Any]], Any], options: Mapping[str, Any]
) -> Any:
    """Make submodules.

    Args:
        count: how many.
        params: their parameters, numbered or stacked.
        make: makes one from its parameters and the options.
        options: of modules; `scan_blocks` says whether they are held as one.

    Returns:
        A list of modules, or the one that stands for all.
    """
    if not options["scan_blocks"] or count < 2:
        return nnx.List(make(block_of(params, index), options) for index in range(count))

    def make_one(keys: Mapping[str, Array], params: Any) -> Any:
        return make(params, {**options, "rngs": nnx.Rngs(**keys)})

    rngs = options["rngs"]
    draws = "dropout" in rngs or "default" in rngs  # models that drop no paths need neither
    keys = {"dropout": jax.random.split(rngs["dropout"](), count)} if draws else {}
    blocks = nnx.vmap(make_one)(keys, stack_blocks({"blocks": params})["blocks"])
    for _, variable in nnx.to_flat_state(nnx.state(blocks)):  # by hand, since nnx.vmap does it in graph mode only
        if "out_sharding" in variable.get_metadata():
            variable.set_metadata(out_sharding=(LAYERS, *variable.get_metadata("out_sharding")))
    return blocks


def run_repeated(
    blocks: Any, x: Array, contexts: Sequence[Context], *, remat: bool = False
) -> tuple[Array, list[Cache]]:
    """Run what `hold_repeated` made.

    Args:
        blocks: the submodules.
        x: input of the first [B, ..., D].
        contexts: one for each; of blocks that are held as one, they differ in their caches only.
        remat: whether each is computed anew in the backward pass.

    Returns:
        The output of the last, and the caches of all.
    """
    if not isinstance(blocks, nnx.List):
        graph, arrays = nnx.split(blocks)
        run = _as_function(graph, contexts[0], remat)
        x, caches, drawn = scan_blocks(run, x, arrays, [context.cache for context in contexts])
        nnx.update(blocks, drawn)
        return x, caches
    caches = []
    for block, context in zip(blocks, contexts, strict=True):
        if remat:
            graph, arrays = nnx.split(block)
            x, (cache, drawn) = _as_function(graph, context, remat)(x, arrays, context.cache)
            nnx.update(block, drawn)
        else:
            x, cache = block.run(x, context)
        caches.append(cache)
    return x, caches


def _as_function(graph: Any, context: Context, remat: bool) -> Callable[..., Any]:
    """A block as a function of arrays; beside its cache it returns how far its random streams have come.

    Nothing else, above all no parameter: a scan would keep one copy of them for every block.
    """

    def run(x: Array, arrays: Any, cache: Any) -> Any:
        block = nnx.merge(graph, arrays)
        x, after = block.run(x, replace(context, cache=cache))
        return x, (after, nnx.state(block, nnx.RngState))

    return jax.checkpoint(run) if remat else run
