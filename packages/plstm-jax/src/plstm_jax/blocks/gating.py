"""The gating and the feed-forward part of blocks."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from plstm_config.blocks import ResidualPairConfig
from plstm_jax.context import Context
from plstm_jax.formulas import Scope
from plstm_jax.functional import activation


def add_branch(
    config: ResidualPairConfig, scope: Scope, x: Array, branch: Array, scale: str, context: Context
) -> Array:
    """Close the residual connection around one branch, if there is one.

    Args:
        config: of the block.
        scope: of the block.
        x: input of the branch, of any shape [..., D].
        branch: its output, of the same shape.
        scale: name of its layer scale, which exists if the config says so.
        context: of the block.

    Returns:
        x + drop_path(scale(branch)), or the branch alone without `skip`.
    """
    if not config.skip:
        return branch
    if config.branch_scale is not None:
        branch = scope.map(scale, branch)
    return x + scope.call("drop_path", branch, context)[0]


def feed_forward(config: ResidualPairConfig, scope: Scope, x: Array, context: Context) -> Array:
    """The second branch of a block, with its residual connection.

    Args:
        config: of the block.
        scope: of the block.
        x: its input [..., D].
        context: of the block.

    Returns:
        The output, in the shape of x.
    """
    wide = scope.map("upproj", scope.map("norm2", x))
    if config.gated:
        carry, gate = jnp.split(wide, 2, axis=-1)
        wide = carry * activation(config.gating_function, gate)
    else:
        wide = activation(config.gating_function, wide)
    return add_branch(config, scope, x, scope.map("downproj", wide), "scale2", context)
