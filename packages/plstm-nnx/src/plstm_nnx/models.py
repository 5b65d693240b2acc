"""Whole models: images, tokens and graphs to logits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from flax import nnx
from jax import Array

from plstm_config.checks import check_causal
from plstm_jax.generation import generate_from
from plstm_nnx.module import Module


class PatchEmbed(Module):
    """Linear map of image patches; its kernel is `proj.weight` [dim, C, height, width]."""


class PosEmbed2D(Module):
    """Positional embedding `embed` [1, X, Y, dim], which fits every grid by interpolation."""


class TokenEmbedding(Module):
    """A table with one row per token."""


class pLSTMVisionModel(Module):
    """Images of any size to logits or features: `patch_embed`, `pos_embed`, `block_stack`, `norm`, `head`."""


class pLSTMLMModel(Module):
    """Tokens to logits of the next ones: `token_embedding`, `block_stack`, `post_blocks_norm`, `lm_head`."""

    def generate(self, token_ids: Array | Sequence[Array], max_new_tokens: int, **options: Any) -> Array | list[Array]:
        """Continue token sequences: the prompt in one parallel pass, then one step per new token, as one program.

        No path is dropped, whatever the mode of the model.

        Args:
            token_ids: prompts [B, T] with T >= 1, or a list of prompts [T] of any lengths >= 1.
            max_new_tokens: number of tokens to append.
            options: `temperature`, `top_k`, `top_p` and `key` as `plstm_jax.generate` has them.

        Returns:
            Tokens [B, T + max_new_tokens], the prompt included, or a list of tokens [T + max_new_tokens].

        Raises:
            TypeError: the tokens are no integers.
            ValueError: an empty prompt, a negative number of tokens, an option outside its range, a missing key, or a
                model that is not causal.
        """
        check_causal(self.config.kind, type(self).__name__, ["generate"])
        graph, arrays = nnx.split(self)
        return generate_from(_bind, graph, arrays, token_ids, max_new_tokens, **options)


class pLSTMGraphModel(Module):
    """Graphs, or their nodes, to predictions: `encoder`, `degree_encoding`, `block_stack`, `norm`, `head`.

    Its blocks run along the edges and against them in turn, so they are no equal steps of a scan.
    """

    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__(config, **options | {"scan_blocks": False})


def _bind(graph: Any, arrays: Any) -> Any:
    """From the parts of a model to the functions that read a prompt and advance by a token."""
    model = nnx.merge(graph, arrays)
    return partial(model, deterministic=True, return_cache=True), model.step
