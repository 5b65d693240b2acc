"""Residual structure around the layers, the transformer baseline, pairs and stacks."""

import math

import numpy as np

from plstm_config import (
    BlockStackConfig,
    PostUpProjectionBlockConfig,
    PreUpProjectionBlockConfig,
    TransformerBlockConfig,
    pLSTMGraphBlockConfig,
    pLSTMGraphEdgeBlockConfig,
    pLSTMVisionBlockConfig,
)

from ._activations import activation
from ._contractions import Array
from ._modules import Cache, Context, Module, mixing


@mixing(PreUpProjectionBlockConfig)
def pre_up_projection(module: Module, x: Array, context: Context) -> tuple[Array, Cache]:
    """``x + downproj(interaction(c) * silu(g))`` with ``[c, g] = upproj(norm(x))``."""
    config = module.config
    wide = module.part("upproj")(module.part("norm")(x))
    carry = wide[..., : config.inner_dim]
    mixed, cache = module.run_part("interaction_module", carry, context)
    if config.gated:
        mixed = mixed * activation(config.gating_function, wide[..., config.inner_dim :])
    branch = module.part("downproj")(mixed)
    return (x + branch if config.skip else branch), cache


@mixing(PostUpProjectionBlockConfig)
def post_up_projection(module: Module, x: Array, context: Context) -> tuple[Array, Cache]:
    """``y = x + scale1(interaction(norm(x)))``, then the feed-forward branch."""
    mixed, cache = module.run_part("interaction_module", module.part("norm")(x), context)
    return _feed_forward(module, _add(module, x, mixed, "scale1")), cache


@mixing(TransformerBlockConfig)
def transformer(module: Module, x: Array, context: Context) -> tuple[Array, Cache]:
    """``y = x + scale(outproj(attention(norm(x))))``, then the feed-forward branch."""
    mixed = module.part("outproj")(_attention(module, module.part("norm")(x)))
    return _feed_forward(module, _add(module, x, mixed, "scale")), {}


@mixing(pLSTMVisionBlockConfig, pLSTMGraphBlockConfig, pLSTMGraphEdgeBlockConfig)
def pair(module: Module, x: Array, context: Context) -> tuple[Array, Cache]:
    """``block1(block0(x))``."""
    x, first = module.run_part("block0", x, context)
    x, second = module.run_part("block1", x, context)
    return x, first | second


@mixing(BlockStackConfig)
def stack(module: Module, x: Array, context: Context) -> tuple[Array, Cache]:
    """One block after the other. Caches are named by the block's number alone."""
    caches: Cache = {}
    for index in range(module.config.num_blocks):
        x, cache = run_block(module, index, x, context)
        caches |= cache
    return x, caches


def run_block(module: Module, index: int, x: Array, context: Context) -> tuple[Array, Cache]:
    """One block of a stack, and its cache under its number."""
    own = None if context.cache is None else {f"blocks.{name}": array for name, array in context.cache.items()}
    x, cache = module.run_part(f"blocks.{index}", x, Context(own, context.graph, context.edge_attr))
    return x, {name.removeprefix("blocks."): array for name, array in cache.items()}


def _add(module: Module, x: Array, branch: Array, scale: str) -> Array:
    """Close the residual connection; without one the branch stands alone, unscaled."""
    return x + module.apply_part(scale, branch) if module.config.skip else branch


def _feed_forward(module: Module, x: Array) -> Array:
    """``x + scale2(downproj(act(upproj(norm2(x)))))``; gated: ``c * act(g)`` with ``[c, g]`` the halves of upproj."""
    config = module.config
    wide = module.part("upproj")(module.part("norm2")(x))
    if config.gated:
        wide = wide[..., : config.inner_dim] * activation(config.gating_function, wide[..., config.inner_dim :])
    else:
        wide = activation(config.gating_function, wide)
    return _add(module, x, module.part("downproj")(wide), "scale2")


def _attention(module: Module, x: Array) -> Array:
    """Softmax attention over all positions between the first and the last axis, head by head."""
    heads = module.config.num_heads
    size = x.shape[-1] // heads
    positions = x.reshape(x.shape[0], -1, x.shape[-1])
    query, key, value = np.split(module.part("qkv")(positions), 3, axis=-1)
    mixed = np.zeros_like(query)
    for head in range(heads):
        own = np.s_[..., head * size : (head + 1) * size]
        scores = query[own] @ np.swapaxes(key[own], 1, 2) / math.sqrt(size)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed[own] = weights / weights.sum(axis=-1, keepdims=True) @ value[own]
    return mixed.reshape(x.shape)
