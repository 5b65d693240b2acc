"""Whole models, and what only they are made of: the shells of their configs' formulas in `plstm_jax.models`."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

import plstm_config as configs
from plstm_linen.module import Module


class PatchEmbed(Module, config_class=configs.PatchEmbedConfig):
    """From pixels [B, height, width, channels] to a grid of patches [B, X, Y, D]."""


class PosEmbed2D(Module, config_class=configs.PosEmbed2DConfig):
    """A learned positional embedding of grids, interpolated to other sizes."""


class TokenEmbedding(Module, config_class=configs.TokenEmbeddingConfig):
    """A table with one row per token."""


class pLSTMLMModel(Module, config_class=configs.pLSTMLMModelConfig):
    """Language model: from tokens [B, T] to logits [B, T, V], stepping with caches."""


class pLSTMVisionModel(Module, config_class=configs.pLSTMVisionModelConfig):
    """Vision model: from pixels [B, height, width, channels] to logits, at any resolution."""


class pLSTMGraphModel(Module, config_class=configs.pLSTMGraphModelConfig):
    """Graph model: from node features [N, D] and a graph to predictions of graphs or nodes."""

    @nn.nowrap
    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "scan_blocks": False}  # its blocks run in alternating directions
