"""One step of the recurrence: what decoding runs, token by token."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from plstm_config.shapes import PLSTM_1D_STEP, check_plstm_1d_step
from plstm_torch.dtypes import accumulation_dtype, without_autocast
from plstm_torch.ops._arguments import check_tensors, common_dtype, scale_factor
from plstm_torch.ops._contract import contract


def plstm_1d_step(
    query: Float[Tensor, "B DK JQ"],
    key: Float[Tensor, "B DK JK"],
    value: Float[Tensor, "B DV JV"],
    source: Float[Tensor, "B JT JK JV"],
    transition: Float[Tensor, "B JT JT"],
    mark: Float[Tensor, "B JO JQ JT"],
    direct: Float[Tensor, "B JO JQ JK JV"],
    state: Float[Tensor, "B DK DV JT"],
    *,
    scale: float | None = None,
) -> tuple[Float[Tensor, "B DV JO"], Float[Tensor, "B DK DV JT"]]:
    """Run one step of `plstm_1d`.

    With C the state before the step::

        H = scale * Q (M C + D (K ⊗ V))        C <- T C + S (K ⊗ V)

    Computed in the common dtype of the arguments, at least float32.

    Args:
        query: [B,DK,JQ], any floating dtype, like all tensors here.
        key: [B,DK,JK].
        value: [B,DV,JV].
        source: [B,JT,JK,JV].
        transition: [B,JT,JT].
        mark: [B,JO,JQ,JT].
        direct: [B,JO,JQ,JK,JV].
        state: state before the step [B,DK,DV,JT].
        scale: factor of the output; ``DK**-0.5`` if None.

    Returns:
        Output [B,DV,JO] in the dtype of `value`, and the state after the step in that of the computation.

    Raises:
        TypeError: if an argument is no tensor, or has no floating dtype.
        ValueError: if a shape or a device is wrong.

    Examples:
        >>> import torch
        >>> from plstm_torch.ops import plstm_1d_step
        >>> query, key, value = torch.randn(4, 16, 1), torch.randn(4, 16, 1), torch.randn(4, 8, 1)
        >>> source, transition, mark, direct = (torch.rand(4, *[1] * count) for count in (3, 2, 3, 4))
        >>> state = torch.zeros(4, 16, 8, 1)
        >>> output, state = plstm_1d_step(query, key, value, source, transition, mark, direct, state)
        >>> output.shape, state.shape
        (torch.Size([4, 8, 1]), torch.Size([4, 16, 8, 1]))

    Source:
        Equations 5 and 6 of the pLSTM paper, on a chain.
    """
    tensors = (query, key, value, source, transition, mark, direct, state)
    dtype = accumulation_dtype(common_dtype(check_tensors(dict(zip(PLSTM_1D_STEP, tensors, strict=True)))))
    sizes = check_plstm_1d_step(*tensors, scale=scale)
    with without_autocast(query):
        q, k, v, s, t, m, d, before = (tensor.to(dtype) for tensor in tensors)
        output = contract("bkot,bkvt->bvo", contract("bkq,boqt->bkot", q, m), before)
        own = contract("bqj,boqjw->bow", contract("bkq,bkj->bqj", q, k), d)
        output = output + contract("bow,bvw->bvo", own, v)
        written = contract("bktw,bvw->bkvt", contract("bkj,btjw->bktw", k, s), v)
        after = contract("btu,bkvu->bkvt", t, before) + written
        output = output * scale_factor(scale, sizes["DK"] ** -0.5, query.device)
    return output.to(value.dtype), after
