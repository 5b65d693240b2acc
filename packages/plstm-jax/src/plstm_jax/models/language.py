"""The language model: token embedding, blocks, head."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plstm_config import TokenEmbeddingConfig, pLSTMLMModelConfig
from plstm_config.checks import check_integers, check_rank, check_token_range
from plstm_jax.context import Context
from plstm_jax.dtypes import dtype_of
from plstm_jax.formulas import Result, Scope, register, register_map
from plstm_jax.layers.linear import affine


@register_map(TokenEmbeddingConfig)
def token_embedding(config: TokenEmbeddingConfig, scope: Scope, x: Array) -> Array:
    """Look tokens up in a table with one row per token.

    Args:
        config: sizes and dtype.
        scope: holds `weight` [vocab_size, embedding_dim].
        x: integers in [0, vocab_size). Where their values are traced, one outside gives a row of NaN.

    Returns:
        Their rows in the compute dtype.

    Raises:
        TypeError: if the tokens are no integers.
        ValueError: if a token is outside of the vocabulary.
    """
    check_integers("token_ids", x.dtype, integers=jnp.issubdtype(x.dtype, jnp.integer))
    if not isinstance(x, jax.core.Tracer) and x.size:
        # in numpy: inside of a traced function, JAX would trace what it computes of known values, too
        known = np.asarray(x)
        check_token_range(int(known.min()), int(known.max()), config.vocab_size)
    rows = jnp.take(scope.need("weight"), jnp.where(x < 0, config.vocab_size, x), axis=0, mode="fill")
    return rows.astype(dtype_of(config.dtype))


@register(pLSTMLMModelConfig)
def language_model(config: pLSTMLMModelConfig, scope: Scope, x: Array, context: Context) -> Result:
    r"""Next-token logits for token sequences.

    .. math:: \mathrm{logits} = c \tanh(W_{head}\,\mathrm{norm}(\mathrm{blocks}(E[\mathrm{tokens}])) / c)

    With `tie_weights` the head is the embedding table.

    Args:
        config: complete config.
        scope: holds `token_embedding`, `block_stack`, `post_blocks_norm`, `lm_head`.
        x: tokens [B, T], or [B] when stepping: integers in [0, vocab_size).
        context: caches, borders of packed sequences.

    Returns:
        Logits [B, T, vocab_size], or [B, vocab_size] when stepping, and the new cache.

    Raises:
        TypeError: if the tokens are no integers.
        ValueError: if they have another rank, or the cache is that of another model.
    """
    check_rank("token_ids", x, "B" if context.stepping else "B, T")
    hidden, cache = scope.call("block_stack", scope.map("token_embedding", x), context.of("block_stack"))
    hidden = scope.map("post_blocks_norm", hidden)
    if config.tie_weights:
        logits = affine(hidden, scope.need("token_embedding.weight"), None, config.dtype)
    else:
        logits = scope.map("lm_head", hidden)
    if config.logit_soft_cap is not None:
        logits = scope.map("logit_soft_cap", logits)
    return logits, {"block_stack": cache}
