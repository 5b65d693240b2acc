"""The two blocks around one layer: widened before it, or behind it."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from plstm_config import PostUpProjectionBlockConfig, PreUpProjectionBlockConfig
from plstm_jax.blocks.gating import add_branch, feed_forward
from plstm_jax.context import Context
from plstm_jax.dtypes import answer, residual
from plstm_jax.formulas import Result, Scope, register
from plstm_jax.functional import activation


@register(PreUpProjectionBlockConfig)
def pre_up_projection_block(config: PreUpProjectionBlockConfig, scope: Scope, x: Array, context: Context) -> Result:
    r"""Widen, mix positions, gate, narrow.

    .. math:: [c, g] = W_{up}\,\mathrm{norm}(x), \qquad
              y = x + W_{down}\,(\mathrm{interaction}(c) \odot \mathrm{silu}(g))

    Without `gated` there is no g; without `skip` no x is added.

    Args:
        config: complete config.
        scope: holds `norm`, `upproj`, `interaction_module`, `downproj`.
        x: [B, T, D], [B, X, Y, D] or [N, D], whatever the layer inside takes.
        context: what it takes beside.

    Returns:
        The shape and dtype of x, and the cache of the layer.
    """
    carry, gate = scope.map("upproj", scope.map("norm", x)), None
    if config.gated:
        carry, gate = jnp.split(carry, 2, axis=-1)
    mixed, cache = scope.call("interaction_module", carry, context.of("interaction_module"))
    if gate is not None:
        mixed = mixed * activation(config.gating_function, gate)
    branch = scope.map("downproj", mixed)
    output = residual(x, config.dtype) + branch if config.skip else branch
    return answer(output, x), {"interaction_module": cache}


@register(PostUpProjectionBlockConfig)
def post_up_projection_block(config: PostUpProjectionBlockConfig, scope: Scope, x: Array, context: Context) -> Result:
    r"""Mix positions at the input width, then a feed-forward part, each with its residual.

    .. math:: x_2 = x + \mathrm{interaction}(\mathrm{norm}(x)), \qquad
              y = x_2 + W_{down}\,\mathrm{act}(W_{up}\,\mathrm{norm}_2(x_2))

    Gated: `upproj` is twice as wide and its first half is multiplied by act of its second half. `use_scale` adds a
    learned scale per channel to each branch, `drop_path_rate` drops branches in training. Without `skip` both branches
    run in sequence: no residual, no scale, no drop path.

    Args:
        config: complete config.
        scope: holds `norm`, `norm2`, `upproj`, `downproj`, `interaction_module`, and with scales `scale1`, `scale2`.
        x: [B, T, D], [B, X, Y, D] or [N, D], whatever the layer inside takes.
        context: what it takes beside.

    Returns:
        The shape and dtype of x, and the cache of the layer.
    """
    inner = residual(x, config.dtype)
    mixed, cache = scope.call("interaction_module", scope.map("norm", inner), context.of("interaction_module"))
    inner = add_branch(config, scope, inner, mixed, "scale1", context)
    return answer(feed_forward(config, scope, inner, context), x), {"interaction_module": cache}
