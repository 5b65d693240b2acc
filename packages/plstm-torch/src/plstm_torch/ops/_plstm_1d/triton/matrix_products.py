"""The dense products of chunks with state-tracking matrices, in torch, between the scans of `responses.py`.

They are those of `../matrix_segment.py`, with the steps outside of the J dimensions everywhere: what is read or written
once for every step then lies in one piece. n is the number of chunks, C their steps, each product one over all n.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Vectors(NamedTuple):
    """What the steps of chunks read and write with, or its gradients."""

    queries: Tensor  # [n,C,JQ,DK]
    keys: Tensor  # [n,C,JK,DK]
    values: Tensor  # [n,C,JV,DV]


class Responses(NamedTuple):
    """What `responses.py` computes, or its gradients."""

    gating: Tensor  # [n,C,JO,JQ,C,JK,JV]
    reach: Tensor  # of a step to what enters the chunk [n,C,JO,JQ,JT]
    arrive: Tensor  # sources at the end of the chunk [n,JT,C,JK,JV]
    total: Tensor  # [n,JT,JT]


def written_values(vectors: Vectors, responses: Responses) -> Tensor:
    """Values as they arrive at the end of the chunk [n,C*JK,JT*DV]."""
    values = vectors.values.flatten(0, 1)
    count, steps, dim_k = vectors.keys.shape[:3]
    return torch.bmm(_arriving(responses.arrive), values).view(count, steps * dim_k, -1)


def written_states(vectors: Vectors, arrived: Tensor) -> Tensor:
    """What the chunks write into the state, [n,JT*DV,DK], from `written_values`."""
    return torch.bmm(arrived.mT, vectors.keys.flatten(1, 2))


def outputs(vectors: Vectors, responses: Responses, entering: Tensor) -> Tensor:
    """Outputs of the chunks [n,C,JO,DV], given the states that enter them [n,JT*DV,DK]."""
    count, steps, dim_o = responses.reach.shape[:3]
    attention = _attention(responses.gating, _scores(vectors))
    output = torch.bmm(attention, vectors.values.flatten(1, 2)).view(count * steps, dim_o, -1)
    return output.baddbmm_(_reaching(responses.reach), _read(vectors, responses, entering)).view(
        count, steps, dim_o, -1
    )


def reading_gradients(
    vectors: Vectors, responses: Responses, entering: Tensor, d_outputs: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by what is read from the states that enter the chunks.

    Args:
        vectors: of the chunks.
        responses: of the chunks.
        entering: states that enter them [n,JT*DV,DK].
        d_outputs: [n,C,JO,DV].

    Returns:
        Those of queries [n,C*JQ,DK], of `reach`, and of the states [n,JT*DV,DK].
    """
    steps = d_outputs.flatten(0, 1)
    d_reach = torch.bmm(steps, _read(vectors, responses, entering).mT).view_as(responses.reach)
    queries = vectors.queries.flatten(1, 2)
    d_read = torch.bmm(_reaching(responses.reach).mT, steps).view(*queries.shape[:2], -1)
    return torch.bmm(d_read, entering), d_reach, torch.bmm(d_read.mT, queries)


def attention_gradients(vectors: Vectors, responses: Responses, d_outputs: Tensor) -> tuple[Vectors, Tensor]:
    """Gradients of the vectors by what steps read from steps of their own chunk, and of `gating`."""
    queries, keys, values = (vector.flatten(1, 2) for vector in vectors)
    gating, scores, d_outputs = responses.gating, _scores(vectors), d_outputs.flatten(1, 2)
    d_values = torch.bmm(_attention(gating, scores).mT, d_outputs)
    count, steps, dim_o, dim_q, _, dim_k, dim_v = gating.shape
    d_attention = torch.bmm(d_outputs, values.mT).view(count, steps, dim_o, 1, steps, 1, dim_v)
    d_scores = (d_attention * gating).sum((2, 6)).view(count, steps * dim_q, steps * dim_k)
    found = torch.bmm(d_scores, keys), torch.bmm(d_scores.mT, queries), d_values
    shaped = (part.view_as(vector) for part, vector in zip(found, vectors, strict=True))
    return Vectors(*shaped), d_attention * scores


def writing_gradients(
    vectors: Vectors, responses: Responses, arrived: Tensor, entering: Tensor, d_leaving: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients by what is written to the states that leave the chunks.

    Args:
        vectors: of the chunks.
        responses: of the chunks.
        arrived: their `written_values`.
        entering: states that enter them [n,JT*DV,DK].
        d_leaving: gradients of the states that leave them [n,JT*DV,DK].

    Returns:
        Those of keys [n,C*JK,DK], of values [n,C*JV,DV], of `arrive` and of `total`.
    """
    count, dim_t, steps, dim_k, dim_v = responses.arrive.shape
    d_keys = torch.bmm(arrived, d_leaving)
    d_written = torch.bmm(vectors.keys.flatten(1, 2), d_leaving.mT).view(count * steps, dim_k * dim_t, -1)
    d_values = torch.bmm(_arriving(responses.arrive).mT, d_written).view(count, steps * dim_v, -1)
    d_arrive = torch.bmm(d_written, vectors.values.flatten(0, 1).mT).view(count, steps, dim_k, dim_t, dim_v)
    d_total = torch.bmm(d_leaving.view(count, dim_t, -1), entering.view(count, dim_t, -1).mT)
    return d_keys, d_values, d_arrive.permute(0, 3, 1, 2, 4).contiguous(), d_total


def _scores(vectors: Vectors) -> Tensor:
    """[n,C,1,JQ,C,JK,1]."""
    count, steps, dim_q = vectors.queries.shape[:3]
    scores = torch.bmm(vectors.queries.flatten(1, 2), vectors.keys.flatten(1, 2).mT)
    return scores.view(count, steps, 1, dim_q, steps, -1, 1)


def _attention(gating: Tensor, scores: Tensor) -> Tensor:
    """Weights of the values [n,C*JO,C*JV]."""
    weights = gating * scores
    if gating.shape[3] * gating.shape[5] > 1:
        weights = weights.sum((3, 5))
    return weights.view(gating.shape[0], gating.shape[1] * gating.shape[2], -1)


def _arriving(arrive: Tensor) -> Tensor:
    """`Responses.arrive` step by step, [n*C,JK*JT,JV]."""
    return arrive.permute(0, 2, 3, 1, 4).flatten(2, 3).flatten(0, 1)


def _reaching(reach: Tensor) -> Tensor:
    """`Responses.reach` step by step, [n*C,JO,JQ*JT]."""
    return reach.flatten(3).flatten(0, 1)


def _read(vectors: Vectors, responses: Responses, entering: Tensor) -> Tensor:
    """What each query reads from each entry of the entering state, [n*C,JQ*JT,DV]."""
    count, steps, _, dim_q, dim_t = responses.reach.shape
    read = torch.bmm(vectors.queries.flatten(1, 2), entering.mT)
    return read.view(count * steps, dim_q * dim_t, -1)
