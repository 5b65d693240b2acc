"""The vision model: patches, positional embedding, blocks, pooling, head."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from plstm_config import PatchEmbedConfig, pLSTMVisionModelConfig
from plstm_config.checks import WITH_TIME, check_pixels
from plstm_jax.context import Context
from plstm_jax.dtypes import dtype_of
from plstm_jax.formulas import Result, Scope, register, register_map
from plstm_jax.models.pooling import pool_grid


@register_map(PatchEmbedConfig)
def patch_embed(config: PatchEmbedConfig, scope: Scope, x: Array) -> Array:
    r"""Linear embedding of image patches, as a strided convolution.

    .. math:: y_{xy} = b + \sum_{c,i,j} W_{cij}\, p_{c,\,xs+i,\,ys+j}

    The image height becomes the X axis of the grid, the width its Y axis.

    Args:
        config: sizes and dtype.
        scope: holds `proj.weight` [dim, C, height, width], `proj.bias` [dim].
        x: images [B, height, width, C], or [B, C, height, width] with `channels_first`; floating point.

    Returns:
        Patch grid [B, X, Y, dim].

    Raises:
        TypeError: if the pixels are integers.
        ValueError: if rank or number of channels are wrong, or the patches do not tile the image.
    """
    check_pixels(x, config, floating=jnp.issubdtype(x.dtype, jnp.floating))
    work = dtype_of(config.dtype)
    grid = lax.conv_general_dilated(
        x.astype(work),
        scope.need("proj.weight").astype(work),
        window_strides=config.step,
        padding="VALID",
        dimension_numbers=("NCHW" if config.channels_first else "NHWC", "OIHW", "NHWC"),
    )
    return grid + scope.need("proj.bias").astype(work)


@register(pLSTMVisionModelConfig)
def vision_model(config: pLSTMVisionModelConfig, scope: Scope, x: Array, context: Context) -> Result:
    """Image classifier or feature extractor on a grid of patches.

    Images of every size that the patches tile are welcome: the positional embedding interpolates. Blocks around layers
    on sequences see the patches row by row as one sequence.

    Args:
        config: complete config.
        scope: holds `patch_embed`, `pos_embed`, `block_stack`, `norm`, `head`, and `cls_token` [dim].
        x: images [B, height, width, channels], or [B, channels, height, width] with `channels_first`.
        context: whether paths are dropped.

    Returns:
        Logits [B, classes]; for the poolings "to_image" and "features" the grid.

    Raises:
        TypeError: if the pixels are integers.
        ValueError: if rank or number of channels are wrong, or the patches do not tile the image.
    """
    x = scope.map("patch_embed", x)
    if config.use_pos_embed:
        x = scope.map("pos_embed", x)
    grid, token = _features(config, scope, x, context)
    pooled = pool_grid(grid, config.pooling) if token is None else token
    if config.has_head:
        pooled = scope.map("head", pooled)
        if config.logit_softcap is not None:
            pooled = scope.map("logit_softcap", pooled)
    return pooled, {}


def _features(config: pLSTMVisionModelConfig, scope: Scope, x: Array, context: Context) -> tuple[Array, Array | None]:
    """The normed grid [B, X, Y, dim] and, with pooling "cls", the token [B, dim]."""

    def run(x: Array) -> Array:
        return scope.map("norm", scope.call("block_stack", x, context)[0])

    stack: Any = config.block_stack
    if config.pooling != "cls" and stack.kind not in WITH_TIME:
        return run(x), None
    flat = x.reshape(x.shape[0], x.shape[1] * x.shape[2], x.shape[3])
    if config.pooling != "cls":
        return run(flat).reshape(x.shape), None
    token = jnp.broadcast_to(scope.need("cls_token").astype(x.dtype), (x.shape[0], 1, x.shape[-1]))
    flat = run(jnp.concatenate([token, flat], axis=1))
    return flat[:, 1:].reshape(x.shape), flat[:, 0]
