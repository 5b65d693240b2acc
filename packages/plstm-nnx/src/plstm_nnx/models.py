"""Whole models: images, tokens and graphs to logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import nnx
from jax import Array
from jax.typing import ArrayLike

import plstm_config as configs
from plstm_jax.generation import check_generation, run_generation
from plstm_nnx.module import Module


class PatchEmbed(Module, config_class=configs.PatchEmbedConfig):
    """Linear map of image patches; its kernel is `proj.weight` [dim, C, height, width]."""


class PosEmbed2D(Module, config_class=configs.PosEmbed2DConfig):
    """Positional embedding `embed` [1, X, Y, dim], which fits every grid by interpolation."""


class TokenEmbedding(Module, config_class=configs.TokenEmbeddingConfig):
    """A table with one row per token."""


class pLSTMVisionModel(Module, config_class=configs.pLSTMVisionModelConfig):
    """Images of any size to logits or features: `patch_embed`, `pos_embed`, `block_stack`, `norm`, `head`."""


class pLSTMLMModel(Module, config_class=configs.pLSTMLMModelConfig):
    """Tokens to logits of the next ones: `token_embedding`, `block_stack`, `post_blocks_norm`, `lm_head`."""

    def generate(
        self,
        token_ids: ArrayLike,
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        key: Array | None = None,
    ) -> Array:
        """Continue token sequences: the prompt in one parallel pass, then one step per new token, as one program.

        No path is dropped, whatever the mode of the model.

        Args:
            token_ids: prompt [B, T] with T >= 1.
            max_new_tokens: number of tokens to append.
            temperature: divides the logits; 0 takes the most likely token.
            top_k: keep only the k most likely tokens.
            top_p: keep only the smallest set of most likely tokens whose probability reaches p.
            key: key for the draws; needed unless the temperature is 0.

        Returns:
            Tokens [B, T + max_new_tokens], the prompt included.

        Raises:
            TypeError: the tokens are no integers.
            ValueError: an empty prompt, a negative number of tokens, an option outside its range, or a missing key.
        """
        check_generation(token_ids, max_new_tokens, temperature, top_k, top_p, key)
        graph, arrays = nnx.split(self)
        return run_generation(_bind, graph, arrays, token_ids, max_new_tokens, temperature, top_k, top_p, key)


class pLSTMGraphModel(Module, config_class=configs.pLSTMGraphModelConfig):
    """Graphs, or their nodes, to predictions: `encoder`, `degree_encoding`, `block_stack`, `norm`, `head`.

    Its blocks run along the edges and against them in turn, so they are no equal steps of a scan.
    """

    def __init__(
        self,
        config: configs.pLSTMGraphModelConfig,
        *,
        rngs: nnx.Rngs,
        params: Mapping[str, Any] | None = None,
        scan_blocks: bool | None = None,
        remat: bool = False,
    ) -> None:
        super().__init__(config, rngs=rngs, params=params, scan_blocks=False, remat=remat)


def _bind(graph: Any, arrays: Any) -> Any:
    """From the parts of a model to the functions that read a prompt and advance by a token."""
    model = nnx.merge(graph, arrays)
    return lambda tokens: model(tokens, deterministic=True, return_cache=True), model.step
