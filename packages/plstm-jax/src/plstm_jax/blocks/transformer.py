"""The transformer block: the baseline that pLSTM blocks are compared with."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from plstm_config import TransformerBlockConfig
from plstm_jax.axes import merge_axes
from plstm_jax.blocks.gating import add_branch, feed_forward
from plstm_jax.context import Context
from plstm_jax.dtypes import answer, residual, wide
from plstm_jax.formulas import Result, Scope, register


@register(TransformerBlockConfig)
def transformer_block(config: TransformerBlockConfig, scope: Scope, x: Array, context: Context) -> Result:
    r"""Softmax attention over all positions, then a feed-forward part, each with its residual.

    .. math:: x_2 = x + s_1 W_o\,\mathrm{softmax}(Q K^\top / \sqrt{D/H})\,V, \qquad
              y = x_2 + s_2 W_{down}\,\mathrm{act}(W_{up}\,\mathrm{norm}_2(x_2))

    Positions are all axes between the first and the last; attention is not causal and knows no order of its own.

    Args:
        config: complete config.
        scope: holds `norm`, `norm2`, `qkv`, `outproj`, `upproj`, `downproj`, `scale`, `scale2`.
        x: [B, T, D] or [B, X, Y, D].
        context: whether paths are dropped.

    Returns:
        The shape and dtype of x.
    """
    inner = residual(x, config.dtype)
    mixed = scope.map("outproj", _attend(scope.map("qkv", scope.map("norm", inner)), config.num_heads))
    inner = add_branch(config, scope, inner, mixed, "scale", context)
    return answer(feed_forward(config, scope, inner, context), x), {}


def _attend(qkv: Array, num_heads: int) -> Array:
    """From queries, keys and values side by side [B, ..., 3 D] to the mixed values [B, ..., D]."""
    *positions, width = qkv.shape
    heads = merge_axes(qkv, 1, -2)
    heads = heads.reshape(*heads.shape[:2], 3, num_heads, width // 3 // num_heads)
    query, key, value = (heads[:, :, part] for part in range(3))
    scores = jnp.einsum("bnhd,bmhd->bhnm", query, key).astype(wide(qkv.dtype)) / math.sqrt(heads.shape[-1])
    weights = jax.nn.softmax(scores, axis=-1).astype(qkv.dtype)
    return jnp.einsum("bhnm,bmhd->bnhd", weights, value).reshape(*positions, width // 3)
