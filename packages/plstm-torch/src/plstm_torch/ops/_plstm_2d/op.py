"""The two public functions: arguments, dtypes, and the choice of a form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from plstm_config.options import check_implementation, check_kernels, check_size
from plstm_config.shapes import check_plstm_2d, check_plstm_2d_oriented
from plstm_torch.dtypes import accumulation_dtype, without_autocast
from plstm_torch.ops._arguments import check_tensors, common_dtype, scale_factor
from plstm_torch.ops._plstm_2d.forms import QUADRATIC_NODES, run_form, suitable_form
from plstm_torch.ops._plstm_2d.native import OP, native, without_native_kernels
from plstm_torch.ops._plstm_2d.problem import (
    FOUR_ORIENTATIONS,
    ONE_ORIENTATION,
    Flips,
    Gates,
    Problem,
    Result,
    direct_term,
    map_gates,
)
from plstm_torch.ops._plstm_2d.triton.form import (
    is_quadratic,
    plstm_2d_triton,
    plstm_2d_triton_blocks,
    without_kernels,
)
from plstm_torch.ops._triton import support

IMPLEMENTATIONS = ("auto", "recurrent", "chunkwise", "parallel", "native", "triton")


def plstm_2d(
    query: Float[Tensor, "B X Y DK JQ"],
    key: Float[Tensor, "B X Y DK JK"],
    value: Float[Tensor, "B X Y DV JV"],
    *,
    source_r: Float[Tensor, "B X Y JT JK JV"],
    source_d: Float[Tensor, "B X Y JT JK JV"],
    transition_rl: Float[Tensor, "B X Y JT JT"],
    transition_du: Float[Tensor, "B X Y JT JT"],
    transition_dl: Float[Tensor, "B X Y JT JT"] | None = None,
    transition_ru: Float[Tensor, "B X Y JT JT"] | None = None,
    mark_l: Float[Tensor, "B X Y JO JQ JT"],
    mark_u: Float[Tensor, "B X Y JO JQ JT"] | None = None,
    direct: Float[Tensor, "B X Y JO JQ JK JV"],
    mode: str | None = None,
    initial_state: tuple[Float[Tensor, "B Y DK DV JT"], Float[Tensor, "B X DK DV JT"]] | None = None,
    return_last_state: bool = False,
    scale: float | None = None,
    implementation: str = "auto",
    block_size: int | None = None,
) -> (
    Float[Tensor, "B X Y DV JO"]
    | tuple[Float[Tensor, "B X Y DV JO"], tuple[Float[Tensor, "B Y DK DV JT"], Float[Tensor, "B X DK DV JT"]]]
):
    """Run pLSTM over a grid from one corner, to the right (X, the first axis) and down (Y).

    At node (x, y), with r arriving from (x - 1, y) and d from (x, y - 1)::

        r_out = T_rl r + T_ru d + S_r (K ⊗ V)        d_out = T_du d + T_dl r + S_d (K ⊗ V)
        H     = scale * Q (M_l r + M_u d + D (K ⊗ V))

    The letters of a transition say where it goes, then where it comes from. B is batch times heads. Any floating dtype:
    the inputs are promoted to a common dtype of at least float32, in which everything is computed. Gates may be zero,
    negative or one; gradients of any order exist for every input.

    Args:
        query: [B,X,Y,DK,JQ], any X and Y, also 0.
        key: [B,X,Y,DK,JK].
        value: [B,X,Y,DV,JV].
        source_r: [B,X,Y,JT,JK,JV].
        source_d: [B,X,Y,JT,JK,JV].
        transition_rl: [B,X,Y,JT,JT].
        transition_du: [B,X,Y,JT,JT].
        transition_dl: [B,X,Y,JT,JT]; None is zero (D-mode of chirality L).
        transition_ru: [B,X,Y,JT,JT]; None is zero (D-mode of chirality R).
        mark_l: [B,X,Y,JO,JQ,JT].
        mark_u: [B,X,Y,JO,JQ,JT]; None with mode "P" only.
        direct: [B,X,Y,JO,JQ,JK,JV].
        mode: none, or "P" for directed propagation: `transition_rl` also acts in the place of `transition_ru`,
            `transition_du` in that of `transition_dl` and `mark_l` in that of `mark_u`, which must be left out. The
            same tensors handed over twice without it give the same numbers by more work.
        initial_state: what enters the grid, left [B,Y,DK,DV,JT] and top [B,X,DK,DV,JT]; zero if None.
        return_last_state: also return what leaves it, right [B,Y,DK,DV,JT] and bottom [B,X,DK,DV,JT].
        scale: factor of the output; ``DK**-0.5`` if None.
        implementation: "recurrent" (a loop over antidiagonals), "parallel" (a gating matrix over all pairs of nodes),
            "chunkwise" (such matrices inside blocks, border states between them; memory linear in X * Y), "native"
            (kernels for CPUs: J dimensions of 1), "triton" (kernels for CUDA devices: J dimensions of 1, DK and DV up
            to 256), or "auto".
        block_size: side of a block of "chunkwise". The result does not depend on it.

    Returns:
        Output [B,X,Y,DV,JO] in the dtype of `value`, or the pair of it and (right, bottom), float32 (float64 where that
        is the common dtype). A grid cut into tiles that hand on their states gives the same as the whole grid.

    Raises:
        TypeError: if an argument is no tensor, or has no floating dtype.
        ValueError: if a shape, a device or a name is wrong, a gate does not go with the mode, or a form has no kernel
            for the call.

    Examples:
        >>> import torch
        >>> from plstm_torch.ops import plstm_2d
        >>> query, key, value = (torch.randn(2, 5, 7, 4, 1) for _ in range(3))
        >>> gate, transition = torch.rand(2, 5, 7, 1, 1, 1), torch.rand(2, 5, 7, 1, 1) / 2
        >>> output = plstm_2d(
        ...     query, key, value, source_r=gate, source_d=gate, transition_rl=transition, transition_du=transition,
        ...     mark_l=gate, direct=torch.rand(2, 5, 7, 1, 1, 1, 1), mode="P",
        ... )
        >>> output.shape
        torch.Size([2, 5, 7, 4, 1])

    Source:
        Equations 5 and 6 of the pLSTM paper on a grid, its sections 3 and B; README.md beside this file derives the
        forms.
    """
    arguments: dict[str, Any] = {
        "source_r": source_r, "source_d": source_d, "transition_rl": transition_rl, "transition_du": transition_du,
        "transition_dl": transition_dl, "transition_ru": transition_ru, "mark_l": mark_l, "mark_u": mark_u,
    }  # fmt: skip
    dtype = _compute_dtype((query, key, value, direct), arguments, initial_state)
    check_plstm_2d(query, key, value, **arguments, direct=direct, mode=mode, initial_state=initial_state, scale=scale)
    output, last_state = _run(
        (query, key, value, direct), arguments, initial_state, dtype,
        (ONE_ORIENTATION, return_last_state, scale, implementation, block_size),
    )  # fmt: skip
    if last_state is None:
        return output
    right, bottom = last_state
    return output, (right.squeeze(1), bottom.squeeze(1))


def plstm_2d_oriented(
    query: Float[Tensor, "B X Y DK JQ"],
    key: Float[Tensor, "B X Y DK JK"],
    value: Float[Tensor, "B X Y DV JV"],
    *,
    source_r: Float[Tensor, "B O X Y JT JK JV"],
    source_d: Float[Tensor, "B O X Y JT JK JV"],
    transition_rl: Float[Tensor, "B O X Y JT JT"],
    transition_du: Float[Tensor, "B O X Y JT JT"],
    transition_dl: Float[Tensor, "B O X Y JT JT"] | None = None,
    transition_ru: Float[Tensor, "B O X Y JT JT"] | None = None,
    mark_l: Float[Tensor, "B O X Y JO JQ JT"],
    mark_u: Float[Tensor, "B O X Y JO JQ JT"] | None = None,
    direct: Float[Tensor, "B X Y JO JQ JK JV"],
    mode: str | None = None,
    initial_state: tuple[Float[Tensor, "B O Y DK DV JT"], Float[Tensor, "B O X DK DV JT"]] | None = None,
    return_last_state: bool = False,
    scale: float | None = None,
    implementation: str = "auto",
    block_size: int | None = None,
) -> (
    Float[Tensor, "B X Y DV JO"]
    | tuple[Float[Tensor, "B X Y DV JO"], tuple[Float[Tensor, "B O Y DK DV JT"], Float[Tensor, "B O X DK DV JT"]]]
):
    """Run pLSTM over a grid from all four corners and sum the outputs; the node's own input (D) counts once.

    Orientation o walks X backwards where ``o & 1``, Y backwards where ``o & 2``; each follows the equations of
    `plstm_2d` with its own gates. Gates and states are indexed by the place in the grid, whatever the orientation.

    Args:
        query: [B,X,Y,DK,JQ]; `key`, `value`, `direct`, `scale`, `implementation`, `block_size` are as in `plstm_2d`.
        key: [B,X,Y,DK,JK].
        value: [B,X,Y,DV,JV].
        source_r: [B,O,X,Y,JT,JK,JV] with O = 4; like all gates but `direct` it has the orientation after B.
        source_d: [B,O,X,Y,JT,JK,JV].
        transition_rl: [B,O,X,Y,JT,JT].
        transition_du: [B,O,X,Y,JT,JT].
        transition_dl: [B,O,X,Y,JT,JT]; None is zero (D-mode of chirality L).
        transition_ru: [B,O,X,Y,JT,JT]; None is zero (D-mode of chirality R).
        mark_l: [B,O,X,Y,JO,JQ,JT].
        mark_u: [B,O,X,Y,JO,JQ,JT]; None with mode "P" only.
        direct: [B,X,Y,JO,JQ,JK,JV].
        mode: none or "P", see `plstm_2d`.
        initial_state: left [B,O,Y,DK,DV,JT] and top [B,O,X,DK,DV,JT] as each orientation sees them: where it walks X
            backwards its left side is the right side of the grid.
        return_last_state: also return what leaves on the far sides, in the same shapes.
        scale: factor of the output; ``DK**-0.5`` if None.
        implementation: "recurrent", "parallel", "chunkwise", "native", "triton" or "auto".
        block_size: side of a block of "chunkwise".

    Returns:
        Output [B,X,Y,DV,JO] in the dtype of `value`, or the pair of it and (right, bottom).

    Raises:
        TypeError: if an argument is no tensor, or has no floating dtype.
        ValueError: if a shape, a device or a name is wrong, a gate does not go with the mode, or a form has no kernel
            for the call.

    Examples:
        >>> import torch
        >>> from plstm_torch.ops import plstm_2d_oriented
        >>> query, key, value = (torch.randn(2, 5, 7, 4, 1) for _ in range(3))
        >>> gate, transition = torch.rand(2, 4, 5, 7, 1, 1, 1), torch.rand(2, 4, 5, 7, 1, 1) / 2  # one for each corner
        >>> output = plstm_2d_oriented(
        ...     query, key, value, source_r=gate, source_d=gate, transition_rl=transition, transition_du=transition,
        ...     mark_l=gate, direct=torch.rand(2, 5, 7, 1, 1, 1, 1), mode="P",
        ... )
        >>> output.shape
        torch.Size([2, 5, 7, 4, 1])

    Source:
        Section 3 of the pLSTM paper (images: the sum over the four directions).
    """
    arguments: dict[str, Any] = {
        "source_r": source_r, "source_d": source_d, "transition_rl": transition_rl, "transition_du": transition_du,
        "transition_dl": transition_dl, "transition_ru": transition_ru, "mark_l": mark_l, "mark_u": mark_u,
    }  # fmt: skip
    dtype = _compute_dtype((query, key, value, direct), arguments, initial_state)
    check_plstm_2d_oriented(
        query, key, value, **arguments, direct=direct, mode=mode, initial_state=initial_state, scale=scale
    )
    output, last_state = _run(
        (query, key, value, direct), arguments, initial_state, dtype,
        (FOUR_ORIENTATIONS, return_last_state, scale, implementation, block_size),
    )  # fmt: skip
    return output if last_state is None else (output, last_state)


def resolve_implementation(implementation: str, problem: Problem) -> str:
    """The implementation that "auto" stands for in this call; any other name is returned as it is."""
    if implementation != "auto":
        return implementation
    return "native" if without_native_kernels(problem) is None else suitable_form(problem)


def _compute_dtype(
    inputs: tuple[Tensor, ...], gates: dict[str, Any], initial_state: tuple[Tensor, Tensor] | None
) -> torch.dtype:
    """What a call is computed in, once its arguments are known to be tensors for it."""
    named = dict(zip(("query", "key", "value", "direct"), inputs, strict=True)) | gates
    if isinstance(initial_state, tuple | list):
        sides = ("initial_state[0] (left)", "initial_state[1] (top)")
        named |= dict(zip(sides, initial_state, strict=False))
    return accumulation_dtype(common_dtype(check_tensors(named)))


def _run(
    inputs: tuple[Tensor, Tensor, Tensor, Tensor],
    gates: dict[str, Any],
    initial_state: tuple[Tensor, Tensor] | None,
    dtype: torch.dtype,
    options: tuple[Flips, bool, float | None, str, int | None],
) -> Result:
    flips, return_last_state, scale, implementation, block_size = options
    check_implementation(implementation, IMPLEMENTATIONS)
    check_size("block_size", block_size)
    with_states = initial_state is not None or return_last_state
    kernels = _kernels(implementation, inputs, gates, with_states) if inputs[0].numel() else None
    narrow = common_dtype(list(inputs[:3])) if dtype != torch.float64 else dtype
    query, key, value = (tensor.to(narrow if kernels == "quadratic" else dtype) for tensor in inputs[:3])
    direct = inputs[3].to(dtype)

    def oriented(tensor: Tensor) -> Tensor:
        return tensor.to(dtype).unsqueeze(1) if len(flips) == 1 else tensor.to(dtype)

    with without_autocast(query):
        factor, wide = scale_factor(scale, query.shape[3] ** -0.5, query.device), map_gates(Gates(**gates), oriented)
        if kernels is None:
            query = query * factor
        else:  # which is not to be rounded to the operands of products once more
            upper = None if wide.mark_u is None else factor * wide.mark_u
            wide, direct = replace(wide, mark_l=factor * wide.mark_l, mark_u=upper), factor * direct
        state = None if initial_state is None else (oriented(initial_state[0]), oriented(initial_state[1]))
        problem = Problem(query, key, value, wide, direct, flips, state, return_last_state)
        if kernels == "quadratic":
            output, last_state = plstm_2d_triton(problem), None  # looks for what is not finite itself
        elif kernels == "blocks":
            output, last_state = plstm_2d_triton_blocks(problem, narrow)
        else:
            output, last_state = _dispatch(problem, implementation, block_size)
        return output.to(inputs[2].dtype), last_state


def _kernels(implementation: str, inputs: tuple[Tensor, ...], gates: dict[str, Any], with_states: bool) -> str | None:
    """The Triton kernels that a call goes to: "quadratic", "blocks" or None.

    Raises:
        ValueError: if "triton" is asked for, and cannot take the call.
    """
    if implementation != "triton" and not (implementation == "auto" and support.taken_by_auto(inputs[0])):
        return None
    named = dict(zip(("query", "key", "value", "direct"), inputs, strict=True)) | gates
    tensors = {name: tensor for name, tensor in named.items() if tensor is not None}
    reason, mode = without_kernels(tensors), Gates(**gates).mode
    if implementation == "triton":
        check_kernels(OP, implementation, reason)
    if reason is not None:
        return None
    if is_quadratic(tensors, mode, with_states):
        return "quadratic"
    # border states of small grids are more bytes than the mask of all pairs that torch makes
    is_small = inputs[0].shape[1] * inputs[0].shape[2] <= QUADRATIC_NODES[mode]
    return None if implementation == "auto" and is_small and not with_states else "blocks"


def _dispatch(problem: Problem, implementation: str, block_size: int | None) -> Result:
    batch, x, y = problem.query.shape[:3]
    if batch == 0 or x == 0 or y == 0:
        return _no_node(problem)
    name = resolve_implementation(implementation, problem)
    if name != "native":
        return run_form(problem, name, block_size)
    check_kernels(OP, name, without_native_kernels(problem))
    return native(problem)


def _no_node(problem: Problem) -> Result:
    """What enters leaves; every result depends on every argument, so that each has a gradient: zeros."""
    left, top = problem.initial_state or problem.zero_state()
    gates = problem.gates.present.values()
    arguments = (problem.query, problem.key, problem.value, *gates, problem.direct, left[..., :0], top[..., :0])
    nothing = torch.stack([argument.sum() for argument in arguments]).sum()
    output = direct_term(problem) + nothing
    return output, ((left + nothing, top + nothing) if problem.return_last_state else None)
