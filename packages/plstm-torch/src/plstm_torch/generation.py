"""Sampling text from a model that has a cache and a step."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol, overload, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from plstm_config.sampling import check_prompt, check_prompts, check_sampling
from plstm_torch.context import require_causal, require_whole
from plstm_torch.endings import Endings

# Below, the quotient of a logit overflows; only logits that are equal to 28 digits would share their probability.
_GREEDY = 1e-30


@runtime_checkable
class Decoder(Protocol):
    """What `generate` needs of a model; pLSTMLMModel is one.

    Examples:
        >>> import plstm_config, plstm_torch
        >>> from plstm_torch.generation import Decoder
        >>> config = plstm_config.pLSTMLMModelConfig(vocab_size=9, embedding_dim=16, num_blocks=1)
        >>> isinstance(plstm_torch.build(config), Decoder)
        True
    """

    training: bool

    def __call__(
        self, token_ids: Tensor, *, return_cache: bool, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Map tokens [B, T] to logits [B, T, V] and the cache after them, of packed sequences one for each."""

    def step(self, token_ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Map tokens [B] to logits [B, V] and the new cache."""

    def train(self, mode: bool) -> Any:
        """Switch between training and evaluation."""


def sample_tokens(
    logits: Float[Tensor, "B V"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " B"]:
    """Draw one token per row.

    Args:
        logits: logits [B, V].
        temperature: divides the logits; 0, or less than 1e-30, takes the most likely token.
        top_k: keep only the k most likely tokens.
        top_p: keep only the smallest set of most likely tokens whose probability reaches p.
        generator: source of randomness on the device of `logits`; default: torch's own.

    Returns:
        Tokens [B].

    Raises:
        TypeError: an option that is no number.
        ValueError: an option outside its range.

    Examples:
        >>> import torch
        >>> from plstm_torch.generation import sample_tokens
        >>> logits = torch.tensor([[0.0, 1.0, 5.0], [7.0, 0.0, 0.0]])
        >>> sample_tokens(logits, temperature=0.0)
        tensor([2, 0])
        >>> sample_tokens(logits, top_k=1, generator=torch.Generator().manual_seed(0))
        tensor([2, 0])
    """
    check_sampling(temperature, top_k, top_p)
    if temperature < _GREEDY:
        return logits.argmax(dim=-1)
    # narrow dtypes have too few digits for a cumulative sum over a vocabulary
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    if top_k is not None and top_k < scaled.shape[-1]:
        kept = scaled.topk(top_k, dim=-1)
        scaled = torch.full_like(scaled, -math.inf).scatter(-1, kept.indices, kept.values)
    probabilities = scaled.softmax(dim=-1)
    if top_p is not None and top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        # a token stays while those before it have not reached p, so the first always does
        before = ordered.cumsum(dim=-1) - ordered
        probabilities = probabilities.scatter(-1, order, ordered.masked_fill(before >= top_p, 0.0))
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


@overload
def generate(
    model: Decoder,
    token_ids: Int[Tensor, "B T"],
    max_new_tokens: int,
    *,
    temperature: float = ...,
    top_k: int | None = ...,
    top_p: float | None = ...,
    seed: int | Sequence[int] | None = ...,
    eos: int | None = ...,
    stop: Sequence[Sequence[int]] = ...,
) -> Int[Tensor, "B T2"]: ...


@overload
def generate(
    model: Decoder,
    token_ids: Sequence[Tensor],
    max_new_tokens: int,
    *,
    temperature: float = ...,
    top_k: int | None = ...,
    top_p: float | None = ...,
    seed: int | Sequence[int] | None = ...,
    eos: int | None = ...,
    stop: Sequence[Sequence[int]] = ...,
) -> list[Tensor]: ...


@torch.no_grad()
def generate(
    model: Decoder,
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
    """Continue token sequences: the prompt in one parallel pass, then one step per new token.

    The model runs in evaluation mode and is put back afterwards. Randomness comes from generators of its own, so
    neither the global random state matters nor is it changed.

    A model reads every token it is given: padding, on whichever side, changes states and logits. Prompts of different
    lengths are therefore given as a list. They are packed one after the other without any padding, and each is
    continued as if it were alone.

    Args:
        model: a model with `__call__(token_ids, return_cache=True)` and `step`.
        token_ids: prompts [B, T] with T >= 1, or a list of prompts [T] of any lengths >= 1.
        max_new_tokens: number of tokens to append; the largest one where `eos` or `stop` end sequences.
        temperature: divides the logits; 0, or less than 1e-30, takes the most likely token.
        top_k: keep only the k most likely tokens.
        top_p: keep only the smallest set of most likely tokens whose probability reaches p.
        seed: seed of the draws; None draws a fresh one. With one seed for each prompt, what a prompt is continued with
            does not depend on the others.
        eos: token that ends a sequence; it is appended.
        stop: sequences of tokens that end a sequence; they are appended. The prompt does not count.

    Returns:
        Tokens [B, T + max_new_tokens], the prompt included, or a list of tokens [T + max_new_tokens]. With `eos` or
        `stop` there are as many as the longest continuation needs; rows of a tensor that ended before are filled with
        `eos`, or 0 without one, and the tokens of a list end where they end.

    Raises:
        TypeError: the prompts are neither a tensor nor a list of tensors, an option is no number, or `stop` no list of
            lists of tokens.
        ValueError: an empty prompt, a negative number of tokens, an option outside its range, or a model that is not
            causal or is spread over processes.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> from plstm_torch.generation import generate
        >>> config = plstm_config.pLSTMLMModelConfig(vocab_size=9, embedding_dim=16, num_blocks=1)
        >>> model = plstm_torch.build(config)
        >>> generate(model, torch.tensor([[1, 2]]), max_new_tokens=4, top_k=3, seed=0).shape
        torch.Size([1, 6])
        >>> [len(text) for text in generate(model, [torch.tensor([1, 2]), torch.tensor([3])], max_new_tokens=4)]
        [6, 5]
    """
    require_causal(model, "generate")
    require_whole(model, "generate")
    check_sampling(temperature, top_k, top_p)
    prompts = _prompts(token_ids, max_new_tokens)
    generators, endings = _generators(seed, prompts), Endings(eos, stop, len(prompts))
    new: list[Tensor] = []
    if max_new_tokens and len(prompts):
        was_training = model.training
        if was_training:
            model.train(False)
        try:
            options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
            new = _new_tokens(model, prompts, max_new_tokens, generators, endings, options)
        finally:
            if was_training:
                model.train(True)
    if isinstance(prompts, Tensor):
        return torch.cat([prompts, *(tokens.to(prompts.dtype).unsqueeze(1) for tokens in new)], dim=1)
    rows = torch.stack(new, 1) if new else [prompt[:0] for prompt in prompts]
    continued = [row[:length] for row, length in zip(rows, endings.lengths, strict=True)]
    return [torch.cat([prompt, more.to(prompt.dtype)]) for prompt, more in zip(prompts, continued, strict=True)]


def _new_tokens(
    model: Decoder,
    prompts: Tensor | list[Tensor],
    count: int,
    generators: list[torch.Generator],
    endings: Endings,
    options: dict[str, Any],
) -> list[Tensor]:
    """The tokens [B] that follow, one step after the other, until all sequences have ended."""
    last, cache = _read(model, prompts)
    tokens = []
    while True:
        parts = [last] if len(generators) == 1 else list(last.split(1))
        drawn = [sample_tokens(part, generator=g, **options) for part, g in zip(parts, generators, strict=True)]
        tokens.append(endings.take(torch.cat(drawn)))
        if len(tokens) == count or endings.all_ended:
            return tokens
        last, cache = model.step(tokens[-1], cache)


def _read(model: Decoder, prompts: Tensor | list[Tensor]) -> tuple[Tensor, Any]:
    """The logits [B, V] after the prompts, and the cache."""
    if isinstance(prompts, Tensor):
        logits, cache = model(prompts, return_cache=True)
        return logits[:, -1], cache
    bounds = torch.tensor([0, *accumulate(map(len, prompts))], device=prompts[0].device)
    logits, cache = model(torch.cat(prompts).unsqueeze(0), return_cache=True, cu_seqlens=bounds)
    return logits[0, bounds[1:] - 1], cache


def _prompts(token_ids: object, max_new_tokens: int) -> Tensor | list[Tensor]:
    if isinstance(token_ids, Tensor):
        check_prompt(token_ids, max_new_tokens)
        return token_ids
    if not isinstance(token_ids, list | tuple) or not all(isinstance(prompt, Tensor) for prompt in token_ids):
        raise TypeError(f"token_ids: expected a tensor [B, T] or a list of tensors [T], got {type(token_ids).__name__}")
    check_prompts(token_ids, max_new_tokens)
    return list(token_ids)


def _generators(seed: int | Sequence[int] | None, prompts: Tensor | list[Tensor]) -> list[torch.Generator]:
    """One generator for all prompts, or one for each."""
    for_each = isinstance(seed, list | tuple)
    seeds = list(seed) if isinstance(seed, list | tuple) else [seed]
    if for_each and len(seeds) != len(prompts):
        raise ValueError(f"seed: expected one for each of {len(prompts)} prompts, got {len(seeds)}")
    generators = []
    for one in seeds:
        generator = torch.Generator(device=prompts[0].device if len(prompts) else "cpu")
        if one is None:
            generator.seed()
        elif isinstance(one, bool) or not isinstance(one, int):
            raise TypeError(f"seed: expected an integer, got {type(one).__name__}")
        elif not -(1 << 63) <= one < 1 << 64:
            raise ValueError("seed: expected an integer of 64 bits, got one of more")
        else:
            generator.manual_seed(one)
        generators.append(generator)
    return generators
