"""The pLSTM on a sequence as a loop over its steps: the definition, and the cheapest form of a few steps."""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import Tensors


def plstm_1d_recurrent(
    inputs: Tensors,
    initial_state: Tensor,
) -> tuple[Tensor, Tensor]:
    """Output and last state, step by step.

    Args:
        inputs: query, key, value, source, transition, mark (scaled), direct (scaled), shapes as in `plstm_1d`, T >= 1,
            all in the compute dtype.
        initial_state: [B,DK,DV,JT].

    Returns:
        [B,T,DV,JO] and [B,DK,DV,JT].
    """
    query, key, value, source, transition, mark, direct = inputs
    state = initial_state
    # what does not depend on the state is computed for all steps at once
    written_value = torch.einsum("btakc,btvc->btvak", source, value)
    reading_query = torch.einsum("btoqa,btdq->btoda", mark, query)
    scores = torch.einsum("btdq,btdk->btqk", query, key)
    direct_output = torch.einsum("btoqkc,btqk,btvc->btvo", direct, scores, value)

    outputs = []
    steps = zip(*(tensor.unbind(1) for tensor in (key, written_value, transition, reading_query)), strict=True)
    for key_t, value_t, transition_t, query_t in steps:
        outputs.append(torch.einsum("boda,bdva->bvo", query_t, state))
        state = torch.einsum("bac,bdvc->bdva", transition_t, state) + torch.einsum("bdk,bvak->bdva", key_t, value_t)
    return torch.stack(outputs, 1) + direct_output, state
