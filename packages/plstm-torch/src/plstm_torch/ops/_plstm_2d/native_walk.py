"""The recurrence on a grid, node by node, in kernels for CPUs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

import plstm_native
from plstm_torch.ops._fast_form import Tensors
from plstm_torch.ops._native import addresses, dtype_name
from plstm_torch.ops._plstm_2d.problem import flips_of


class _Call:
    """The tensors of a call by name, laid out for the kernels."""

    def __init__(self, names: tuple[str, ...], mode: str, tensors: Tensors) -> None:
        self.given = {name: tensor.contiguous() for name, tensor in zip(names, tensors, strict=True)}
        query, value, orientations = self.given["query"], self.given["value"], self.given["source_r"].shape[1]
        self.dv, self.dtype = value.shape[-1], dtype_name(query)
        batch, x, y, dk = query.shape
        self.sizes = plstm_native.GridSizes(
            dtype=self.dtype, batch=batch, flips=flips_of(orientations), x=x, y=y, dk=dk,
            dv=-(-self.dv // plstm_native.lanes(self.dtype)) * plstm_native.lanes(self.dtype), mode=mode,
            threads=torch.get_num_threads(),
        )  # fmt: skip
        self.padded = {name: self.pad(name, tensor) for name, tensor in self.given.items()}

    def pad(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor whose columns of values fill whole slices."""
        if name not in ("value", "left", "top") or tensor.shape[-1] == self.sizes.dv:
            return tensor
        return pad(tensor, (0, self.sizes.dv - self.dv))

    def unpad(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.shape[-1] == self.dv else tensor[..., : self.dv].contiguous()

    def result(self, name: str) -> Tensor:
        """An empty tensor for what has the shape of an argument, with an axis of parts if it is summed over walks."""
        like = self.padded[name]
        return like.new_empty(like.shape if name in ("left", "top") else (self.sizes.parts, *like.shape))

    def finished(self, name: str, found: Tensor) -> Tensor:
        """What `result` made, as it leaves: summed over the parts, without the columns that were filled up."""
        if name not in ("left", "top"):
            found = found[0] if len(found) == 1 else found.sum(0)
        return self.unpad(found) if name in ("value", "left", "top") else found


def walk(tensors: Tensors, names: tuple[str, ...], mode: str) -> Tensors:
    """Run the op node by node.

    Args:
        tensors: query, key [B, X, Y, DK], value [B, X, Y, DV], direct [B, X, Y], gates [B, O, X, Y], left and top.
        names: theirs.
        mode: of the gates, as the kernels name it.

    Returns:
        Output [B, X, Y, DV], and right and bottom where states enter.
    """
    call = _Call(names, mode, tensors)
    leaving = {"right": "left", "bottom": "top"} if "left" in call.given else {}
    results = {"output": "value", **leaving}
    found = {name: call.result(like) for name, like in results.items()}
    plstm_native.grid_forward(call.sizes, addresses(call.padded | found))
    return tuple(call.finished(like, found[name]) for name, like in results.items())


def walk_gradients(tensors: Tensors, cotangents: Tensors, names: tuple[str, ...], mode: str) -> Tensors:
    """The gradients.

    Args:
        tensors: as `walk` takes them.
        cotangents: of what `walk` returns.
        names: as `walk` takes them.
        mode: as `walk` takes it.

    Returns:
        One for each of the tensors.
    """
    call = _Call(names, mode, tensors)
    likes = ("value", "left", "top")[: len(cotangents)]
    given = {
        f"d_{name}": call.pad(like, cotangent.contiguous())
        for name, like, cotangent in zip(("output", "right", "bottom"), likes, cotangents, strict=False)
    }
    found = {name: call.result(name) for name in names}
    plstm_native.grid_gradients(
        call.sizes, addresses(call.padded | given | {f"d_{name}": tensor for name, tensor in found.items()})
    )
    return tuple(call.finished(name, tensor) for name, tensor in found.items())
