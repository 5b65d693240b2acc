"""Blocks and their stack: the shells of their configs' formulas in `plstm_jax.blocks`."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from plstm_config import (
    BlockStackConfig,
    PostUpProjectionBlockConfig,
    PreUpProjectionBlockConfig,
    TransformerBlockConfig,
    pLSTMGraphBlockConfig,
    pLSTMGraphEdgeBlockConfig,
    pLSTMVisionBlockConfig,
)
from plstm_config.parameters import Child, Repeated
from plstm_linen.build import build, register
from plstm_linen.module import Module

__all__ = [
    "BlockStack",
    "PostUpProjectionBlock",
    "PreUpProjectionBlock",
    "TransformerBlock",
    "pLSTMGraphBlock",
    "pLSTMGraphEdgeBlock",
    "pLSTMVisionBlock",
]


@register(PreUpProjectionBlockConfig)
class PreUpProjectionBlock(Module):
    """Widen, mix positions, gate, narrow, with a residual connection."""

    config: PreUpProjectionBlockConfig


@register(PostUpProjectionBlockConfig)
class PostUpProjectionBlock(Module):
    """Mix positions at the input width, then a feed-forward part, each with its residual."""

    config: PostUpProjectionBlockConfig


@register(TransformerBlockConfig)
class TransformerBlock(Module):
    """The baseline: softmax attention over all positions, then a feed-forward part."""

    config: TransformerBlockConfig


@register(pLSTMVisionBlockConfig)
class pLSTMVisionBlock(Module):
    """Two blocks in sequence, one in P- and one in D-mode."""

    config: pLSTMVisionBlockConfig


@register(pLSTMGraphBlockConfig)
class pLSTMGraphBlock(Module):
    """Two blocks in sequence on graphs, with gates from node features."""

    config: pLSTMGraphBlockConfig


@register(pLSTMGraphEdgeBlockConfig)
class pLSTMGraphEdgeBlock(Module):
    """Two blocks in sequence on graphs, with gates from nodes and edges."""

    config: pLSTMGraphEdgeBlockConfig


@register(BlockStackConfig)
class BlockStack(Module):
    """`num_blocks` blocks of one config, each with its own parameters.

    With `scan_blocks` they are compiled once: the parameters of all stand under `blocks`, each array with a first axis
    that counts them, in place of `blocks_0`, `blocks_1`, .... Folders know no stacks.
    """

    config: BlockStackConfig

    @nn.nowrap
    def _part(self, child: Child) -> Any:
        if isinstance(child, Repeated) and self.config.scan_blocks:
            return build(child.config, partitioned=self.partitioned)
        return super()._part(child)
