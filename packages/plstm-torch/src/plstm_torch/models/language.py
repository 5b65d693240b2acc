"""The language model: token embedding, blocks, head."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from plstm_config import TokenEmbeddingConfig, pLSTMLMModelConfig
from plstm_config.checks import Kind, check_integers, check_rank, check_token_range
from plstm_torch.blocks.block_stack import BlockStack
from plstm_torch.build import register
from plstm_torch.context import Cache, Context, ContextModule, call
from plstm_torch.generation import generate
from plstm_torch.layers.linear import Linear
from plstm_torch.module import Module


@register(TokenEmbeddingConfig)
class TokenEmbedding(Module):
    """A table with one row per token.

    Parameters: `weight` [vocab_size, embedding_dim].
    """

    config: TokenEmbeddingConfig
    weight: nn.Parameter

    def forward(self, token_ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch D"]:
        """Look the tokens up.

        Args:
            token_ids: integers in [0, vocab_size).

        Returns:
            Their rows in the compute dtype.

        Raises:
            TypeError: the tokens are no integers.
            ValueError: a token outside the vocabulary (found on CPU; on accelerators the device reports it).
        """
        integers = token_ids.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
        check_integers("token_ids", token_ids.dtype, integers=integers)
        indices = token_ids.long()
        if torch.compiler.is_compiling():
            return functional.embedding(indices, self.weight).to(self.dtype)
        try:
            return functional.embedding(indices, self.weight).to(self.dtype)
        except IndexError:
            check_token_range(int(indices.min()), int(indices.max()), self.config.vocab_size)
            raise


@register(pLSTMLMModelConfig)
class pLSTMLMModel(ContextModule):
    r"""Next-token logits for token sequences.

    .. math:: \mathrm{logits} = c \tanh(W_{head}\,\mathrm{norm}(\mathrm{blocks}(E[\mathrm{tokens}])) / c)

    With `tie_weights` the head is the embedding table. The state after a sequence is a cache, so that text can be
    continued token by token at constant cost.

    There is no mask: every token is read, so padding changes logits on its right, and the cache.
    Sequences of different lengths are packed instead, one after the other along T with their borders in `cu_seqlens`,
    which is exact; `generate` does so with a list of prompts.

    Submodules: `token_embedding`, `block_stack`, `post_blocks_norm`, `lm_head`.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> config = plstm_config.pLSTMLMModelConfig(vocab_size=50, embedding_dim=16, num_blocks=2)
        >>> model = plstm_torch.build(config)
        >>> model(torch.randint(50, (2, 12))).shape
        torch.Size([2, 12, 50])
        >>> model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=5, seed=0).shape
        torch.Size([1, 8])
    """

    config: pLSTMLMModelConfig
    kind: Kind = "sequence"
    token_embedding: TokenEmbedding
    block_stack: BlockStack
    post_blocks_norm: nn.Module
    lm_head: Linear | None
    logit_soft_cap: nn.Module | None

    def set_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Choose whether each block is recomputed in the backward pass instead of keeping its activations."""
        self.block_stack.gradient_checkpointing = enabled

    def forward(
        self,
        token_ids: Int[Tensor, "B T"],
        *,
        cache: Mapping[str, Any] | None = None,
        return_cache: bool = False,
        cu_seqlens: Int[Tensor, " S1"] | None = None,
    ) -> Float[Tensor, "B T V"] | tuple[Float[Tensor, "B T V"], Cache]:
        """Compute the logits of the token after each position.

        Args:
            token_ids: tokens [B, T], integers in [0, vocab_size).
            cache: where the sequences stood before `token_ids`.
            return_cache: whether to return the cache after the last token.
            cu_seqlens: borders [S+1] of sequences that are packed one after the other along T, the same for all rows.

        Returns:
            Logits [B, T, vocab_size], with `return_cache` also the new cache.

        Raises:
            TypeError: the tokens are no integers.
            ValueError: wrong rank, a token outside the vocabulary, or a cache of another model.
        """
        check_rank("token_ids", token_ids, "B, T")
        logits, new_cache = self.run(token_ids, Context(cache, return_cache, cu_seqlens))
        return (logits, new_cache) if return_cache else logits

    def run(self, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """From tokens to logits; see `forward` and `step`."""
        hidden, cache = call(self.block_stack, self.token_embedding(x), context.of("block_stack"))
        return self._logits(hidden), {"block_stack": cache}

    def _parts(self) -> list[tuple[str, nn.Module]]:
        return [("block_stack", self.block_stack)]

    def step(  # type: ignore[override]  # tokens instead of features
        self, token_ids: Int[Tensor, " B"], cache: Mapping[str, Any]
    ) -> tuple[Float[Tensor, "B V"], Cache]:
        """Read one token per sequence.

        Args:
            token_ids: tokens [B].
            cache: cache of `init_cache`, `step` or a forward pass.

        Returns:
            Logits [B, vocab_size] of the next token and the new cache.

        Raises:
            TypeError: the tokens are no integers.
            ValueError: wrong rank, a token outside the vocabulary, or a cache of another model.
        """
        check_rank("token_ids", token_ids, "B")
        return super().step(token_ids, cache)

    def generate(
        self,
        token_ids: Int[Tensor, "B T"] | Sequence[Tensor],
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | Sequence[int] | None = None,
    ) -> Int[Tensor, "B T2"] | list[Tensor]:
        """Continue prompts of one length [B, T], or a list of any lengths; see `plstm_torch.generation.generate`."""
        return generate(self, token_ids, max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)

    def _logits(self, x: Tensor) -> Tensor:
        x = self.post_blocks_norm(x)
        if self.lm_head is None:
            logits = functional.linear(x.to(self.dtype), self.token_embedding.weight.to(self.dtype))
        else:
            logits = self.lm_head(x)
        return logits if self.logit_soft_cap is None else self.logit_soft_cap(logits)
