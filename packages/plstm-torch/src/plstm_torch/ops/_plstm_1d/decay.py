"""Decay of a line: products of neighbouring scalar transitions.

With transitions T_0 .. T_{L-1} along a line, ``R[i, j] = prod_{j < k < i} T_k`` for i > j (so R[j+1, j] = 1) and zero
elsewhere: what is left at step i of something written at step j. The opposite direction is the transpose.
Nothing is divided and no logarithm is taken, so transitions may be zero or negative.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from plstm_torch.ops._exporting import SEQUENCE_DOUBLINGS, doublings, is_exporting


def line_decay(transition: Float[Tensor, "*batch L"]) -> Float[Tensor, "*batch L L"]:
    """Strictly lower triangular decay of a line, ``R[i, j] = prod_{j < k < i} T_k``, differentiable at will.

    Args:
        transition: [..., L], floating point.

    Returns:
        [..., L, L].
    """
    return line_decay_and_ends(transition)[0]


def line_decay_and_ends(
    transition: Float[Tensor, "*batch L"],
) -> tuple[Float[Tensor, "*batch L L"], Float[Tensor, "*batch L"], Float[Tensor, "*batch L"], Float[Tensor, "*batch"]]:
    """`line_decay`, and the decay from the start of the line, to its end, and over all of it.

    Two halves of a line interact by an outer product: what leaves the left half (suffix) times what enters the right
    half (prefix). Doubling the length log2(L) times takes few operations, all of them pure.

    Args:
        transition: [..., L], floating point, L >= 1.

    Returns:
        decay [..., L, L]; prefix [..., L], ``prod_{k < i} T_k``; suffix [..., L], ``prod_{k > j} T_k``; total [...].
    """
    if is_exporting():
        return _decay_and_ends_of_any_length(transition)
    length = transition.shape[-1]
    padding = (1 << (length - 1).bit_length()) - length
    total = torch.nn.functional.pad(transition, (0, padding), value=1.0)
    prefix = suffix = torch.ones_like(total).unsqueeze(-1)
    decay = torch.zeros_like(prefix).unsqueeze(-1)
    while total.shape[-1] > 1:
        left, right = (prefix[..., 0::2, :], suffix[..., 0::2, :]), (prefix[..., 1::2, :], suffix[..., 1::2, :])
        total_left, total_right = total[..., 0::2], total[..., 1::2]
        across = right[0].unsqueeze(-1) * left[1].unsqueeze(-2)
        upper = torch.cat([decay[..., 0::2, :, :], torch.zeros_like(across)], -1)
        decay = torch.cat([upper, torch.cat([across, decay[..., 1::2, :, :]], -1)], -2)
        prefix = torch.cat([left[0], total_left.unsqueeze(-1) * right[0]], -1)
        suffix = torch.cat([left[1] * total_right.unsqueeze(-1), right[1]], -1)
        total = total_left * total_right
    inside = slice(0, length)  # padding is the identity: it leaves suffix and total as they are
    return decay[..., 0, inside, inside], prefix[..., 0, inside], suffix[..., 0, inside], total[..., 0]


def _decay_and_ends_of_any_length(transition: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`line_decay_and_ends` without a loop over the line: running products by doubling, of the same shape throughout.

    All results are places of one matrix, L[i, j] = prod_{j <= k < i} T_k for 0 <= j <= i <= length.
    """
    length = transition.shape[-1]
    places = torch.arange(length + 1, device=transition.device)
    # column j starts with ones and takes in T_{i-1} at row i > j
    factors = pad(transition, (1, 0), value=1.0).unsqueeze(-1)
    products = torch.where(places[:, None] > places, factors, 1.0)
    for step in range(doublings(length, SEQUENCE_DOUBLINGS) + 1):
        products = products * pad(products, (0, 0, 1 << step, 0), value=1.0)[..., : length + 1, :]
    strictly = places[:length, None] > places[:length]
    decay = torch.where(strictly, products[..., :-1, 1:], 0.0)
    return decay, products[..., :-1, 0], products[..., -1, 1:], products[..., -1, 0]


def compute_line_decay(transition: Float[Tensor, "N L"]) -> Float[Tensor, "N L L"]:
    """`line_decay` row by row into one buffer, ``R[i] = T_{i-1} R[i-1] + e_{i-1}``; the fastest form, without a graph.

    Args:
        transition: [N, L], floating point.

    Returns:
        [N, L, L].
    """
    count, length = transition.shape
    decay = transition.new_empty(count, length, length)
    units = torch.eye(length, dtype=transition.dtype, device=transition.device).unbind(0)
    rows = decay.unbind(1)
    rows[0].zero_()
    steps = transition.unsqueeze(-1).unbind(1)
    for i in range(length - 1):
        torch.addcmul(units[i], rows[i], steps[i], out=rows[i + 1])
    return decay


def compute_line_ends(transition: Float[Tensor, "N L"]) -> tuple[Tensor, Tensor, Tensor]:
    """Prefix [N,L], suffix [N,L] and total [N] of `line_decay_and_ends`, without a graph.

    The cumulative products here are only evaluated: their derivative, which divides, is never taken.
    """
    one = torch.ones_like(transition[:, :1])
    prefix = torch.cat([one, transition], 1).cumprod(1)
    suffix = torch.cat([one, transition.flip(1)[:, :-1]], 1).cumprod(1).flip(1)
    return prefix[:, :-1], suffix, prefix[:, -1]
