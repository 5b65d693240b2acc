"""The language model: token embedding, blocks, head."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional

from plstm_config import TokenEmbeddingConfig, pLSTMLMModelConfig
from plstm_config.checks import Kind, check_integers, check_rank, check_token_range
from plstm_torch.blocks.block_stack import BlockStack
from plstm_torch.build import register
from plstm_torch.context import Cache, Context, ContextModule, call, is_spread, kind_of
from plstm_torch.generation import generate
from plstm_torch.layers.linear import Linear
from plstm_torch.module import Module
from plstm_torch.padding import packing
from plstm_torch.streaming import stream


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


class Encoded(NamedTuple):
    """What `pLSTMLMModel.encode` returns.

    Attributes:
        hidden: normed features after the last block [B, T, D].
        cache: the cache after the last token; without meaning unless it was asked for.
        layers: embedding, outputs of all blocks but the last, and `hidden`, each [B, T, D]; None unless asked for.
    """

    hidden: Tensor
    cache: Cache
    layers: tuple[Tensor, ...] | None


def _check_inputs(token_ids: Tensor | None, inputs_embeds: Tensor | None, width: int) -> Tensor:
    """The one of both that is given."""
    if (token_ids is None) == (inputs_embeds is None):
        both = "neither" if token_ids is None else "both"
        raise ValueError(f"token_ids: expected either token_ids or inputs_embeds, got {both}")
    if token_ids is not None:
        check_rank("token_ids", token_ids, "B, T")
        return token_ids
    embeds = cast(Tensor, inputs_embeds)
    if embeds.ndim != 3 or embeds.shape[2] != width:
        raise ValueError(f"inputs_embeds: expected shape [B, T, {width}], got {tuple(embeds.shape)}")
    return embeds


@register(pLSTMLMModelConfig)
class pLSTMLMModel(ContextModule):
    r"""Logits for token sequences: of the next tokens, or with bidirectional layers of the tokens themselves.

    .. math:: \mathrm{logits} = c \tanh(W_{head}\,\mathrm{norm}(\mathrm{blocks}(E[\mathrm{tokens}])) / c)

    With `tie_weights` the head is the embedding table. The state after a sequence is a cache, so that text can be
    continued token by token at constant cost.

    Every token is read, so padding changes logits on its right, and the cache, unless `attention_mask` says where it
    is: the tokens are then packed, which is exact. Sequences may also come packed along T with their
    borders in `cu_seqlens`; `generate` does so with a list of prompts.

    With bidirectional layers it is an encoder: `forward` and `encode` take whole sequences, also packed or padded, and
    what needs a start (`step`, caches, `generate`, `stream`) is refused.

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
    token_embedding: TokenEmbedding
    block_stack: BlockStack
    post_blocks_norm: nn.Module
    lm_head: Linear | None
    logit_soft_cap: nn.Module | None

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """That of the blocks: with bidirectional ones the model is an encoder, without steps, caches and generation."""
        return kind_of(self.block_stack)

    def set_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Choose whether each block is recomputed in the backward pass instead of keeping its activations."""
        self.block_stack.gradient_checkpointing = enabled

    def forward(
        self,
        token_ids: Int[Tensor, "B T"] | None = None,
        *,
        inputs_embeds: Float[Tensor, "B T D"] | None = None,
        attention_mask: Shaped[Tensor, "B T"] | None = None,
        cache: Mapping[str, Any] | None = None,
        return_cache: bool = False,
        cu_seqlens: Int[Tensor, " S1"] | None = None,
    ) -> Float[Tensor, "B T V"] | tuple[Float[Tensor, "B T V"], Cache]:
        """Compute the logits of the token after each position, of a bidirectional model those of the position itself.

        Args:
            token_ids: tokens [B, T], integers in [0, vocab_size); in padding anything.
            inputs_embeds: in their place the rows of the embedding, or what stands for them [B, T, embedding_dim].
            attention_mask: one where there is a token, zero where there is padding [B, T], on either side. The tokens
                are packed inside: padding costs nothing, and neither outputs nor cache depend on what it holds. There
                the logits are zero.
            cache: where the sequences stood before `token_ids`.
            return_cache: whether to return the cache after the last token.
            cu_seqlens: borders [S+1] of sequences that are packed one after the other along T, the same for all rows.

        Returns:
            Logits [B, T, vocab_size], with `return_cache` also the new cache.

        Raises:
            TypeError: the tokens are no integers.
            ValueError: wrong rank, a token outside the vocabulary, a cache of another model or for a bidirectional
                one, both or neither of `token_ids` and `inputs_embeds`, or both of `attention_mask` and `cu_seqlens`.
        """
        context = Context(cache, return_cache, cu_seqlens)
        encoded = self.encode(token_ids, inputs_embeds, attention_mask, context)
        logits = self.logits(encoded.hidden)
        return (logits, encoded.cache) if return_cache else logits

    def encode(
        self,
        token_ids: Int[Tensor, "B T"] | None,
        inputs_embeds: Float[Tensor, "B T D"] | None = None,
        attention_mask: Shaped[Tensor, "B T"] | None = None,
        context: Context | None = None,
        *,
        all_layers: bool = False,
    ) -> Encoded:
        """Compute the features that the head reads.

        Args:
            token_ids: as in `forward`.
            inputs_embeds: as in `forward`.
            attention_mask: as in `forward`.
            context: cache and borders of packed sequences.
            all_layers: whether to keep the features between the blocks, too.

        Returns:
            The features, the new cache and the features between the blocks.

        Raises:
            TypeError: the tokens are no integers.
            ValueError: as in `forward`.
        """
        given = _check_inputs(token_ids, inputs_embeds, self.config.embedding_dim)
        context, packed = context or Context(), None
        context.check(self)
        if attention_mask is not None:
            if is_spread(self):
                raise ValueError(
                    "attention_mask: expected None, since sequences are spread over ranks, got a mask; "
                    "pack the whole and give its borders as cu_seqlens"
                )
            if context.cu_seqlens is not None:
                raise ValueError("cu_seqlens: expected None beside attention_mask, which is packed here, got borders")
            packed = packing(attention_mask, (given.shape[0], given.shape[1]))
        if packed is not None:
            given, context = packed.pack(given), replace(context, cu_seqlens=packed.cu_seqlens)
        x = given.to(self.dtype) if token_ids is None else self.token_embedding(given)
        layers = [x] if all_layers else None
        if layers is None:
            x, cache = call(self.block_stack, x, context.of("block_stack"))
        else:
            cache = {}
            for name, output, own in self.block_stack.iterate(x, context.of("block_stack")):
                x, cache[name] = output, own
                layers.append(x)
        x = self.post_blocks_norm(x)
        if layers is not None:
            layers[-1] = x
        if packed is not None:
            x, layers = packed.unpack(x), None if layers is None else [packed.unpack(layer) for layer in layers]
        return Encoded(x, {"block_stack": cache}, None if layers is None else tuple(layers))

    def logits(self, hidden: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch V"]:
        """Apply the head to features of `encode` [..., embedding_dim]: logits [..., vocab_size]."""
        if self.lm_head is None:
            logits = functional.linear(hidden.to(self.dtype), self.token_embedding.weight.to(self.dtype))
        else:
            logits = self.lm_head(hidden)
        return logits if self.logit_soft_cap is None else self.logit_soft_cap(logits)

    def run(self, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """From tokens to logits; see `forward` and `step`."""
        hidden, cache = call(self.block_stack, self.token_embedding(x), context.of("block_stack"))
        return self.logits(self.post_blocks_norm(hidden)), {"block_stack": cache}

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
        eos: int | None = None,
        stop: Sequence[Sequence[int]] = (),
    ) -> Int[Tensor, "B T2"] | list[Tensor]:
        """Continue prompts of one length [B, T], or a list of any lengths; see `plstm_torch.generation.generate`."""
        sampling: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        return generate(self, token_ids, max_new_tokens, eos=eos, stop=stop, **sampling)

    def stream(self, token_ids: Int[Tensor, "B T"], max_new_tokens: int, **options: Any) -> Iterator[Int[Tensor, " B"]]:
        """Continue sequences and hand out tokens as they are drawn, until `eos` or `stop`; see `plstm_torch.streaming`.

        Args:
            token_ids: prompt [B, T] with T >= 1.
            max_new_tokens: largest number of tokens.
            **options: `eos`, `stop`, `temperature`, `top_k`, `top_p` and `seed` of `plstm_torch.streaming.stream`.

        Returns:
            An iterator over the next tokens [B].

        Raises:
            ValueError: an empty prompt, a negative number of tokens, or an option outside its range.
        """
        return stream(self, token_ids, max_new_tokens, **options)
