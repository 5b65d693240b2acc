"""Whole models, and what only they are made of: the shells of their configs' formulas in `plstm_jax.models`."""

from __future__ import annotations

from plstm_config import (
    PatchEmbedConfig,
    PosEmbed2DConfig,
    TokenEmbeddingConfig,
    pLSTMGraphModelConfig,
    pLSTMLMModelConfig,
    pLSTMVisionModelConfig,
)
from plstm_linen.build import register
from plstm_linen.module import Module

__all__ = [
    "PatchEmbed",
    "PosEmbed2D",
    "TokenEmbedding",
    "pLSTMGraphModel",
    "pLSTMLMModel",
    "pLSTMVisionModel",
]


@register(PatchEmbedConfig)
class PatchEmbed(Module):
    """From pixels [B, height, width, channels] to a grid of patches [B, X, Y, D]."""

    config: PatchEmbedConfig


@register(PosEmbed2DConfig)
class PosEmbed2D(Module):
    """A learned positional embedding of grids, interpolated to other sizes."""

    config: PosEmbed2DConfig


@register(TokenEmbeddingConfig)
class TokenEmbedding(Module):
    """A table with one row per token."""

    config: TokenEmbeddingConfig


@register(pLSTMLMModelConfig)
class pLSTMLMModel(Module):
    """Language model: from tokens [B, T] to logits [B, T, V], stepping with caches."""

    config: pLSTMLMModelConfig


@register(pLSTMVisionModelConfig)
class pLSTMVisionModel(Module):
    """Vision model: from pixels [B, height, width, channels] to logits, at any resolution."""

    config: pLSTMVisionModelConfig


@register(pLSTMGraphModelConfig)
class pLSTMGraphModel(Module):
    """Graph model: from node features [N, D] and a graph to predictions of graphs or nodes."""

    config: pLSTMGraphModelConfig
