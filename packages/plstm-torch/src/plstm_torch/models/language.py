"""The language model: token embedding, blocks, head."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from plstm_config import pLSTMLMModelConfig
from plstm_torch.blocks.block_stack import BlockStack
from plstm_torch.blocks.chain import Cache, child_cache, init_chain_cache, run_module, step_chain
from plstm_torch.build import build, register
from plstm_torch.dtypes import torch_dtype
from plstm_torch.generation import generate
from plstm_torch.initializers import initialize_
from plstm_torch.layers.linear import Linear
from plstm_torch.module import Module, empty_parameter


class TokenEmbedding(Module):
    """A table with one row per token.

    Args:
        config: The language model's config.
    """

    def __init__(self, config: pLSTMLMModelConfig) -> None:
        super().__init__()
        self.config = config
        self.dtype = torch_dtype(config.dtype)
        self.weight = empty_parameter((config.vocab_size, config.embedding_dim), torch_dtype(config.param_dtype))
        self._reset_own_parameters()

    def _reset_own_parameters(self) -> None:
        initialize_(self.weight, self.config.embed_init)

    def forward(self, token_ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch D"]:
        """Look the tokens up.

        Args:
            token_ids: Integers in [0, vocab_size).

        Returns:
            Their rows in the compute dtype.

        Raises:
            TypeError: the tokens are no integers.
            ValueError: a token outside the vocabulary (found on CPU; on accelerators the device reports it).
        """
        if token_ids.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
            raise TypeError(f"token_ids: expected integers, got {token_ids.dtype}")
        indices = token_ids.long()
        if torch.compiler.is_compiling():
            return functional.embedding(indices, self.weight).to(self.dtype)
        try:
            return functional.embedding(indices, self.weight).to(self.dtype)
        except IndexError:
            raise ValueError(
                f"token_ids: expected values in [0, {self.config.vocab_size}), "
                f"got values from {int(indices.min())} to {int(indices.max())}"
            ) from None


@register(pLSTMLMModelConfig)
class pLSTMLMModel(Module):
    r"""Next-token logits for token sequences.

    .. math:: \mathrm{logits} = c \tanh(W_{head}\,\mathrm{norm}(\mathrm{blocks}(E[\mathrm{tokens}])) / c)

    With `tie_weights` the head is the embedding table. The state after a sequence is a cache, so that text can be
    continued token by token at constant cost.

    Args:
        config: Vocabulary, sizes, blocks, head and soft cap.
    """

    def __init__(self, config: pLSTMLMModelConfig) -> None:
        super().__init__()
        self.config = config
        self.dtype = torch_dtype(config.dtype)
        self.token_embedding = TokenEmbedding(config)
        self.block_stack = cast(BlockStack, build(config.block_stack))
        self.post_blocks_norm = build(config.post_blocks_norm)
        self.lm_head = None
        if not config.tie_weights:
            self.lm_head = Linear(
                config.embedding_dim,
                config.vocab_size,
                weight_init=config.head_init,
                bias_init=None,
                dtype=self.dtype,
                param_dtype=torch_dtype(config.param_dtype),
            )
        self.logit_soft_cap = None if config.logit_soft_cap is None else build(config.logit_soft_cap)

    @property
    def is_sequence(self) -> bool:
        """Whether the model has a cache and a step: always, unless its blocks are attention blocks."""
        return self.block_stack.is_sequence

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
            token_ids: Tokens [B, T], integers in [0, vocab_size).
            cache: Where the sequences stood before `token_ids`.
            return_cache: Whether to return the cache after the last token.
            cu_seqlens: Borders [S+1] of sequences that are packed one after the other along T, the same for all rows.

        Returns:
            Logits [B, T, vocab_size], with `return_cache` also the new cache.

        Raises:
            TypeError: the tokens are no integers.
            ValueError: wrong rank, a token outside the vocabulary, or a cache of another model.
        """
        if token_ids.ndim != 2:
            raise ValueError(f"token_ids: expected shape [B, T], got {tuple(token_ids.shape)}")
        x, part = run_module(
            self.block_stack,
            self.token_embedding(token_ids),
            cache=child_cache(cache, "block_stack"),
            return_cache=return_cache,
            cu_seqlens=cu_seqlens,
        )
        logits = self._logits(x)
        return (logits, {"block_stack": part}) if return_cache else logits

    def init_cache(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Cache:
        """Make the cache of sequences that have not begun.

        Args:
            batch_size: Number of sequences B.
            device: Where the cache lives; default: where the parameters are.
            dtype: Dtype of cached activations; default: the compute dtype.

        Returns:
            The nested cache.
        """
        return init_chain_cache([("block_stack", self.block_stack)], batch_size, device, dtype)

    def step(self, token_ids: Int[Tensor, " B"], cache: Mapping[str, Any]) -> tuple[Float[Tensor, "B V"], Cache]:
        """Read one token per sequence.

        Args:
            token_ids: Tokens [B].
            cache: Cache of `init_cache`, `step` or a forward pass.

        Returns:
            Logits [B, vocab_size] of the next token and the new cache.

        Raises:
            TypeError: the tokens are no integers.
            ValueError: wrong rank, a token outside the vocabulary, or a cache of another model.
        """
        if token_ids.ndim != 1:
            raise ValueError(f"token_ids: expected shape [B], got {tuple(token_ids.shape)}")
        x, new_cache = step_chain([("block_stack", self.block_stack)], self.token_embedding(token_ids), cache)
        return self._logits(x), new_cache

    def generate(
        self,
        token_ids: Int[Tensor, "B T"],
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Int[Tensor, "B T2"]:
        """Continue sequences; see `plstm_torch.generation.generate`."""
        return generate(self, token_ids, max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)

    def _logits(self, x: Tensor) -> Tensor:
        x = self.post_blocks_norm(x)
        if self.lm_head is None:
            logits = functional.linear(x.to(self.dtype), self.token_embedding.weight.to(self.dtype))
        else:
            logits = self.lm_head(x)
        return logits if self.logit_soft_cap is None else self.logit_soft_cap(logits)
