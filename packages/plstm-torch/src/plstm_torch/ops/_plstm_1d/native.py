"""The recurrence in compiled kernels for CPUs, step by step, whatever the length."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

import plstm_native
from plstm_torch.ops._fast_form import FastForm, Tensors
from plstm_torch.ops._native import addresses, dtype_name, unsupported
from plstm_torch.ops._plstm_1d.chunkwise import plstm_1d_chunkwise
from plstm_torch.ops._plstm_1d.packing import host_positions

OP = "the 1D op"
_NAMES = ("query", "key", "value", "source", "transition", "mark", "direct", "starts")
_WITHOUT_PARTS = ("value", "initial")


def without_native_kernels(query: Tensor) -> str | None:
    """Why the kernels cannot take a call, None if they can."""
    return unsupported(OP, query, {})


def plstm_1d_native(inputs: Tensors, initial_states: Tensor | None, starts: Tensor) -> tuple[Tensor, Tensor | None]:
    """Output and last states.

    Args:
        inputs: query, key, value, source, transition, mark (scaled), direct (scaled), shapes as in `plstm_1d`, T >= 1,
            all in the compute dtype.
        initial_states: [B,S,DK,DV,JT]; None if no state enters or leaves.
        starts: first step of each of the S packed sequences [B,S]; an empty one starts where the next one does.

    Returns:
        [B,T,DV,JO] and [B,S,DK,DV,JT], the latter None without initial states.
    """
    if initial_states is None:
        (output,) = _OUTPUT_FORM(*inputs, starts)
        return output, None
    output, last = _STATES_FORM(*inputs, starts, initial_states)
    return output, last


def _sizes(given: dict[str, Tensor]) -> plstm_native.SequenceSizes:
    batch, length, dk, jq = given["query"].shape
    dv, jv = given["value"].shape[2:]
    return plstm_native.SequenceSizes(
        dtype=dtype_name(given["query"]), batch=batch, bounds=(*host_positions(given["starts"]), length), dk=dk, dv=dv,
        jt=given["transition"].shape[-1], jk=given["key"].shape[-1], jv=jv, jo=given["mark"].shape[2], jq=jq,
        threads=torch.get_num_threads(),
    )  # fmt: skip


def _laid_out(tensors: Tensors, names: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in zip(names, tensors, strict=True)}


def _arrays(tensors: dict[str, Tensor]) -> dict[str, int]:
    return addresses({name: tensor for name, tensor in tensors.items() if name not in ("starts", "d_starts")})


def _forward(*tensors: Tensor, names: tuple[str, ...]) -> tuple[Tensors, Tensors]:
    given = _laid_out(tensors, names)
    results = dict(zip(("output", "last"), _allocate(*tensors, names=names), strict=False))
    plstm_native.sequence_forward(_sizes(given), _arrays(given | results))
    return tuple(results.values()), ()


def _gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors, names: tuple[str, ...]) -> Tensors:
    given = _laid_out(inputs, names)
    sizes = _sizes(given)
    results = {
        name: tensor.new_empty(tensor.shape if name in _WITHOUT_PARTS else (sizes.parts, *tensor.shape))
        for name, tensor in given.items()
        if name != "starts"
    }
    arrays = given | {f"d_{name}": tensor for name, tensor in results.items()}
    arrays |= _laid_out(cotangents, ("d_output", "d_last")[: len(cotangents)])
    plstm_native.sequence_gradients(sizes, _arrays(arrays))
    results = {name: found if name in _WITHOUT_PARTS else _summed(found) for name, found in results.items()}
    results["starts"] = torch.zeros_like(given["starts"])
    return tuple(results[name] for name in names)


def _summed(parts: Tensor) -> Tensor:
    return parts[0] if len(parts) == 1 else parts.sum(0)


def _formula(*tensors: Tensor, names: tuple[str, ...]) -> Tensors:
    """The same in operations of torch, chunk by chunk, for forward mode and derivatives of derivatives."""
    inputs, starts = tensors[:7], tensors[7]
    query, value, transition = inputs[0], inputs[2], inputs[4]
    (batch, length), sequences = query.shape[:2], starts.shape[1]
    with_states = "initial" in names
    if with_states:
        states = tensors[8]
    else:
        states = query.new_zeros(batch, sequences, query.shape[2], value.shape[2], transition.shape[-1])
    bounds = None
    if sequences > 1:
        bounds = torch.cat([starts[0].detach(), starts.new_full((1,), length)]).long()
    borders = query.new_zeros(batch, 0)
    output, last = plstm_1d_chunkwise(inputs, states, None, bounds, borders, plain=True)
    return (output, last) if with_states else (output,)


def _allocate(*tensors: Tensor, names: tuple[str, ...]) -> Tensors:
    given = dict(zip(names, tensors, strict=True))
    value, mark = given["value"], given["mark"]
    output = value.new_empty(*value.shape[:3], mark.shape[2])
    return (output, value.new_empty(given["initial"].shape)) if "initial" in given else (output,)


def _form(with_states: bool) -> FastForm:
    names = (*_NAMES, "initial") if with_states else _NAMES
    return FastForm(
        name=f"sequence_native{'_states' if with_states else ''}",
        formula=partial(_formula, names=names),
        forward=partial(_forward, names=names),
        gradients=partial(_gradients, names=names),
        allocate=partial(_allocate, names=names),
        num_outputs=2 if with_states else 1,
    )


_OUTPUT_FORM, _STATES_FORM = _form(False), _form(True)
