"""Sampling text from a model that has a cache and a step."""

import math
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from plstm_config.sampling import check_prompt, check_sampling

# Below, the quotient of a logit overflows; only logits that are equal to 28 digits would share their probability.
_GREEDY = 1e-30


@runtime_checkable
class Decoder(Protocol):
    """What `generate` needs of a model; pLSTMLMModel is one.

    Example:
        >>> import plstm_config, plstm_torch
        >>> from plstm_torch.generation import Decoder
        >>> config = plstm_config.pLSTMLMModelConfig(vocab_size=9, embedding_dim=16, num_blocks=1)
        >>> isinstance(plstm_torch.build(config), Decoder)
        True
    """

    training: bool

    def __call__(self, token_ids: Tensor, *, return_cache: bool) -> tuple[Tensor, Any]:
        """Map tokens [B, T] to logits [B, T, V] and the cache after them."""

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
        ValueError: an option outside its range.

    Example:
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


@torch.no_grad()
def generate(
    model: Decoder,
    token_ids: Int[Tensor, "B T"],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
) -> Int[Tensor, "B T2"]:
    """Continue token sequences: the prompt in one parallel pass, then one step per new token.

    The model runs in evaluation mode and is put back afterwards. Randomness comes from a generator of its own, so
    neither the global random state matters nor is it changed.

    Args:
        model: a model with `__call__(token_ids, return_cache=True)` and `step`.
        token_ids: prompt [B, T] with T >= 1.
        max_new_tokens: number of tokens to append.
        temperature: divides the logits; 0, or less than 1e-30, takes the most likely token.
        top_k: keep only the k most likely tokens.
        top_p: keep only the smallest set of most likely tokens whose probability reaches p.
        seed: seed of the draws; None draws a fresh one.

    Returns:
        Tokens [B, T + max_new_tokens], the prompt included.

    Raises:
        ValueError: an empty prompt, a negative number of tokens, or an option outside its range.

    Example:
        >>> import plstm_config, plstm_torch, torch
        >>> from plstm_torch.generation import generate
        >>> config = plstm_config.pLSTMLMModelConfig(vocab_size=9, embedding_dim=16, num_blocks=1)
        >>> model = plstm_torch.build(config)
        >>> generate(model, torch.tensor([[1, 2]]), max_new_tokens=4, top_k=3, seed=0).shape
        torch.Size([1, 6])
    """
    check_sampling(temperature, top_k, top_p)
    check_prompt(token_ids, max_new_tokens)
    if max_new_tokens == 0:
        return token_ids
    generator = torch.Generator(device=token_ids.device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    was_training = model.training
    if was_training:
        model.train(False)
    try:
        logits, cache = model(token_ids, return_cache=True)
        last = logits[:, -1]
        tokens = [token_ids]
        for index in range(max_new_tokens):
            drawn = sample_tokens(last, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
            tokens.append(drawn.to(token_ids.dtype).unsqueeze(1))
            if index + 1 < max_new_tokens:
                last, cache = model.step(drawn, cache)
    finally:
        if was_training:
            model.train(True)
    return torch.cat(tokens, dim=1)
