"""Blocks and their stack: the shells of their configs' formulas in `plstm_jax.blocks`."""

from __future__ import annotations

import plstm_config as configs
from plstm_linen.module import Module


class BlockStack(Module, config_class=configs.BlockStackConfig):
    """`num_blocks` blocks of one config, each with its own parameters; with `scan_blocks` compiled once."""


class pLSTMGraphBlock(Module, config_class=configs.pLSTMGraphBlockConfig):
    """Two blocks in sequence on graphs, with gates from node features."""


class pLSTMGraphEdgeBlock(Module, config_class=configs.pLSTMGraphEdgeBlockConfig):
    """Two blocks in sequence on graphs, with gates from nodes and edges."""


class pLSTMVisionBlock(Module, config_class=configs.pLSTMVisionBlockConfig):
    """Two blocks in sequence, one in P- and one in D-mode."""


class PostUpProjectionBlock(Module, config_class=configs.PostUpProjectionBlockConfig):
    """Mix positions at the input width, then a feed-forward part, each with its residual."""


class PreUpProjectionBlock(Module, config_class=configs.PreUpProjectionBlockConfig):
    """Widen, mix positions, gate, narrow, with a residual connection."""


class TransformerBlock(Module, config_class=configs.TransformerBlockConfig):
    """The baseline: softmax attention over all positions, then a feed-forward part."""
