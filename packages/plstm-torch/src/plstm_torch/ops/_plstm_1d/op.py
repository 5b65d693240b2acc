"""The public op: arguments, dtypes, packed sequences, and the choice of a form."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from plstm_config.options import check_implementation, check_kernels, check_size
from plstm_config.shapes import check_plstm_1d
from plstm_torch.dtypes import accumulation_dtype, without_autocast
from plstm_torch.ops._arguments import attach, check_tensors, common_dtype, scale_factor
from plstm_torch.ops._exporting import is_exporting
from plstm_torch.ops._fast_form import Tensors
from plstm_torch.ops._plstm_1d.chunkwise import plstm_1d_chunkwise
from plstm_torch.ops._plstm_1d.exported import plstm_1d_exported
from plstm_torch.ops._plstm_1d.native import OP, plstm_1d_native, without_native_kernels
from plstm_torch.ops._plstm_1d.packing import checked_bounds, constant_positions
from plstm_torch.ops._plstm_1d.recurrent import plstm_1d_recurrent
from plstm_torch.ops._plstm_1d.triton.form import plstm_1d_triton
from plstm_torch.ops._plstm_1d.triton.matrix_form import STATES
from plstm_torch.ops._triton import support

IMPLEMENTATIONS = ("auto", "recurrent", "chunkwise", "native", "triton")
# Up to here a loop over the steps is as fast as one chunk.
_FEW_STEPS = 4


def plstm_1d(
    query: Float[Tensor, "B T DK JQ"],
    key: Float[Tensor, "B T DK JK"],
    value: Float[Tensor, "B T DV JV"],
    source: Float[Tensor, "B T JT JK JV"],
    transition: Float[Tensor, "B T JT JT"],
    mark: Float[Tensor, "B T JO JQ JT"],
    direct: Float[Tensor, "B T JO JQ JK JV"],
    *,
    initial_state: Float[Tensor, "B *S DK DV JT"] | None = None,
    return_last_state: bool = False,
    scale: float | None = None,
    implementation: str = "auto",
    chunk_size: int | None = None,
    cu_seqlens: Int[Tensor, " S1"] | None = None,
) -> Float[Tensor, "B T DV JO"] | tuple[Float[Tensor, "B T DV JO"], Float[Tensor, "B *S DK DV JT"]]:
    """Run pLSTM along a sequence.

    With C the state before step t::

        H_t = scale * Q_t (M_t C + D_t (K_t ⊗ V_t))
        C  <- T_t C + S_t (K_t ⊗ V_t)

    B is batch times heads. Any floating dtype: the inputs are promoted to a common dtype of at least float32, in which
    everything is computed ("triton" multiplies what query, key and value promote to, and adds in at least float32).
    Gates may be zero, negative or one; gradients of any order exist for every input.

    Args:
        query: [B,T,DK,JQ], any length T, also 0.
        key: [B,T,DK,JK].
        value: [B,T,DV,JV].
        source: [B,T,JT,JK,JV].
        transition: [B,T,JT,JT].
        mark: [B,T,JO,JQ,JT].
        direct: [B,T,JO,JQ,JK,JV].
        initial_state: state before the first step [B,DK,DV,JT], zero if None; [B,S,DK,DV,JT] with `cu_seqlens`.
        return_last_state: also return the state after the last step.
        scale: factor of the output; ``DK**-0.5`` if None.
        implementation: "recurrent" (a loop over the steps), "chunkwise" (quadratic inside chunks, recurrent between
            them; memory linear in T), "native" (the loop in kernels for CPUs, which keep nothing for the gradients),
            "triton" (chunks in kernels for CUDA devices, JT up to 8), or "auto".
        chunk_size: steps per chunk of "chunkwise"; chosen by length and J dimensions if None. The result does not
            depend on it.
        cu_seqlens: [S+1] integer boundaries of sequences packed along T, the same for all of B, empty ones allowed;
            each starts from its own initial state. All sequences run at once. Values cannot be checked while a graph
            is traced.

    Returns:
        Output [B,T,DV,JO] in the dtype of `value`, or the pair of it and the last state, shaped as `initial_state`,
        float32 (float64 where that is the common dtype).

    Raises:
        TypeError: if an argument is no tensor, or has no floating dtype.
        ValueError: if a shape, a device, a boundary or a name is wrong, or "native" or "triton" has no kernel for the
            call.

    Examples:
        >>> import torch
        >>> from plstm_torch.ops import plstm_1d
        >>> B, T, DK, DV = 4, 100, 16, 8
        >>> query, key, value = torch.randn(B, T, DK, 1), torch.randn(B, T, DK, 1), torch.randn(B, T, DV, 1)
        >>> source, mark, direct = (torch.rand(B, T, *[1] * count) for count in (3, 3, 4))
        >>> transition = torch.rand(B, T, 1, 1)  # the decay of the state from step to step
        >>> output, state = plstm_1d(query, key, value, source, transition, mark, direct, return_last_state=True)
        >>> output.shape, state.shape
        (torch.Size([4, 100, 8, 1]), torch.Size([4, 16, 8, 1]))

    Source:
        Equations 5 and 6 of the pLSTM paper on a chain; the chunkwise form is its section B.3.
    """
    named: dict[str, object] = {"query": query, "key": key, "value": value, "source": source, "transition": transition}
    named |= {"mark": mark, "direct": direct, "initial_state": initial_state}
    tensors = check_tensors(named)
    sizes = check_plstm_1d(
        query, key, value, source, transition, mark, direct,
        initial_state=initial_state, scale=scale, cu_seqlens=cu_seqlens,
    )  # fmt: skip
    check_implementation(implementation, IMPLEMENTATIONS)
    check_size("chunk_size", chunk_size)
    bounds = None if cu_seqlens is None else checked_bounds(cu_seqlens, sizes["T"], query.device)
    dtype = accumulation_dtype(common_dtype(tensors))
    name = resolve_implementation(
        implementation,
        sizes["T"],
        lambda: _kernels(implementation, tensors, sizes),
        lambda: _native(implementation, query),
    )
    with without_autocast(query):
        narrow = common_dtype(tensors[:3]) if name == "triton" and dtype != torch.float64 else dtype
        q, k, v = (tensor.to(narrow) for tensor in tensors[:3])
        s, t, m, d, *given = (tensor.to(dtype) for tensor in tensors[3:])
        factor = scale_factor(scale, sizes["DK"] ** -0.5, query.device)
        inputs: Tensors = (q, k, v, s, t, factor * m, factor * d)
        if is_exporting() and implementation == "auto" and bounds is None:
            name = "exported"
        borders = q.new_zeros(q.shape[0], 0)
        if name == "chunkwise" and bounds is not None and not given and not return_last_state:
            inputs, borders, bounds = _separate(inputs, bounds), constant_positions(bounds[:-1], q), None
        states: Tensor | None
        if name == "native" and not given and not return_last_state:
            states = None
        elif given:
            states = given[0] if cu_seqlens is not None else given[0].unsqueeze(1)
        else:
            sequences = 1 if bounds is None else sizes["S"]
            states = t.new_zeros(q.shape[0], sequences, q.shape[2], v.shape[2], t.shape[-1])
        output, last_state = _run(inputs, states, name, chunk_size, bounds, borders)
        output = output.to(value.dtype)
        if not return_last_state or last_state is None:
            return output
        return output, last_state if cu_seqlens is not None else last_state.squeeze(1)


def resolve_implementation(
    implementation: str,
    length: int,
    kernels: Callable[[], bool] = lambda: False,
    native: Callable[[], bool] = lambda: False,
) -> str:
    """The implementation that "auto" stands for.

    Args:
        implementation: the name asked for.
        length: T.
        kernels: whether the kernels for CUDA devices take the call; asked only where that matters, and raises where it
            must be so.
        native: the same of those for CPUs.

    Returns:
        The name itself, if it is not "auto".
    """
    if implementation == "triton":
        kernels()
    if implementation == "native":
        native()
    if implementation != "auto":
        return implementation
    if is_exporting():  # lengths may vary, and are not to be compared
        return "chunkwise"
    if native():
        return "native"
    if length <= _FEW_STEPS:
        return "recurrent"
    return "triton" if kernels() else "chunkwise"


def _kernels(implementation: str, tensors: list[Tensor], sizes: Mapping[str, int]) -> bool:
    """Whether "auto" may take the kernels, or "triton" has them.

    Raises:
        ValueError: if "triton" is asked for, and cannot take the call.
    """
    if implementation == "auto" and not support.taken_by_auto(tensors[0]):
        return False
    reason = support.unsupported(
        "plstm_1d", tensors[0].device, [tensor.dtype for tensor in tensors], sizes, states=STATES
    )
    if implementation == "triton":
        check_kernels("plstm_1d", implementation, reason)
    return reason is None


def _native(implementation: str, query: Tensor) -> bool:
    """Whether "auto" may take the native kernels, or "native" has them.

    Raises:
        ValueError: if "native" is asked for, and cannot take the call.
    """
    reason = without_native_kernels(query)
    if implementation == "native":
        check_kernels(OP, implementation, reason)
    return reason is None


def _run(
    inputs: Tensors, states: Tensor | None, name: str, chunk_size: int | None, bounds: Tensor | None, borders: Tensor
) -> tuple[Tensor, Tensor | None]:
    query, _, value, _, _, mark, _ = inputs
    if query.shape[0] == 0 or query.shape[1] == 0:  # no step to take, but gradients there are
        output = query.new_zeros(*value.shape[:3], mark.shape[2])
        if states is None:
            return attach(output, *inputs), None
        return attach(output, *inputs, states), attach(states.clone(), *inputs)
    starts = constant_positions(query.new_zeros(1) if bounds is None else bounds[:-1], query)
    if name == "native" or states is None:
        return plstm_1d_native(inputs, states, starts)
    if name == "triton":
        return plstm_1d_triton(inputs, states, bounds)
    if name == "exported":
        output, last = plstm_1d_exported(inputs, states.squeeze(1))
        return output, last.unsqueeze(1)
    if name == "recurrent":
        return plstm_1d_recurrent(inputs, states, starts)
    return plstm_1d_chunkwise(inputs, states, chunk_size, bounds, borders)


def _separate(inputs: Tensors, bounds: Tensor) -> Tensors:
    """Zero transition and mark at every start: a finite state of a neighbour is neither read nor carried on."""
    query, key, value, source, transition, mark, direct = inputs
    length = query.shape[1]
    # one slot more, because an empty last sequence starts at T
    starts = torch.zeros(length + 1, dtype=torch.bool, device=query.device).scatter(0, bounds[:-1], True)[:length]
    transition = transition.masked_fill(starts[:, None, None], 0.0)
    mark = mark.masked_fill(starts[:, None, None, None], 0.0)
    return query, key, value, source, transition, mark, direct
