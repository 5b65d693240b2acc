"""Which calls the kernels take, and which of the forms takes them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from plstm_torch.ops._plstm_2d.problem import Problem, Result, exchange_axes
from plstm_torch.ops._plstm_2d.spoilt import isolated
from plstm_torch.ops._plstm_2d.triton.blockwise import blockwise
from plstm_torch.ops._plstm_2d.triton.directed_form import GATES as DIRECTED_GATES
from plstm_torch.ops._plstm_2d.triton.directed_form import directed_kernels
from plstm_torch.ops._plstm_2d.triton.separable_form import GATES as SEPARABLE_GATES
from plstm_torch.ops._plstm_2d.triton.separable_form import separable_kernels
from plstm_torch.ops._triton import support

# Largest sides of the quadratic forms: beyond them tiles of one column no longer fit the registers, which are as many
# on every device that runs the kernels.
SIDES = {"L": 64, "R": 64, "P": 32}


def without_kernels(tensors: Mapping[str, Tensor]) -> str | None:
    """Why the kernels cannot take a call, None if they can.

    Args:
        tensors: the arguments by name; sizes are read off query, value, source_r, mark_l.

    Returns:
        The reason, or None.
    """
    query, value, source, mark = (tensors[name] for name in ("query", "value", "source_r", "mark_l"))
    names = ("JT", "JK", "JV", "JO", "JQ")
    sizes = dict(zip(names, (*source.shape[-3:], *mark.shape[-3:-1]), strict=True))
    sizes |= {"DK": query.shape[3], "DV": value.shape[3]}
    dtypes = [tensor.dtype for tensor in tensors.values()]
    return support.unsupported("the 2D op", query.device, dtypes, sizes)


def is_quadratic(tensors: Mapping[str, Tensor], mode: str, with_states: bool) -> bool:
    """Whether a call goes to the kernels over all pairs of nodes, not to those over blocks.

    Args:
        tensors: the arguments by name.
        mode: mode of the gates.
        with_states: whether states enter or leave.

    Returns:
        Whether it does.
    """
    turns = mode == "P" or tensors.keys() & {"transition_ru", "transition_dl"}
    return not with_states and bool(turns) and max(tensors["query"].shape[1:3]) <= SIDES.get(mode, 0)


def plstm_2d_triton(problem: Problem) -> Tensor:
    """Output [B,X,Y,DV,1] by kernels over all pairs of nodes.

    Args:
        problem: no node is missing; query, key and value have one dtype, gates float32 or everything float64; marks and
            direct are scaled, the query is not.

    Returns:
        The output, all orientations summed.
    """
    if problem.gates.mode == "R":
        return plstm_2d_triton(exchange_axes(problem)).transpose(1, 2)
    is_directed = problem.gates.mode == "P"
    kernels = directed_kernels if is_directed else separable_kernels
    names = DIRECTED_GATES if is_directed else SEPARABLE_GATES
    gates = [getattr(problem.gates, name).flatten(4).squeeze(-1) for name in names]
    vectors = [tensor.squeeze(-1) for tensor in (problem.query, problem.key, problem.value)]
    (output,) = kernels(*vectors, *gates, problem.direct.flatten(3).squeeze(-1))
    return output.unsqueeze(-1)


def plstm_2d_triton_blocks(problem: Problem, dtype: torch.dtype) -> Result:
    """Output [B,X,Y,DV,1] and the states that leave, by kernels over blocks.

    Args:
        problem: no node is missing; one dtype; marks and direct are scaled, the query is not.
        dtype: common dtype of query, key and value as they were given.

    Returns:
        Both, the states only if the problem asks for them.
    """
    return isolated(problem, partial(blockwise, dtype=dtype))
