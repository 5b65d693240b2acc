"""One block: what it reads from the states that enter it, and the states that leave it.

Both steps recompute, in their backward pass, the products of vectors and maps, which are as large as the states of all
nodes together.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import FastForm, Tensors
from plstm_torch.ops._plstm_2d.block_maps import BorderMaps

Step = tuple[Tensor, Tensor, Tensor]


def dense_step(*tensors: Tensor) -> Step:
    """A block with any gates.

    Args:
        *tensors: query [M, N, DK, JQ], key [M, N, DK, JK], value [M, N, JV, DV], the fields of `BorderMaps`, each
            [M, ...], left [M, LEFT, DK * DV] and top [M, TOP, DK * DV].

    Returns:
        Output [M, N, JO, DV], right and bottom in the shapes of left and top.
    """
    output, right, bottom = _DENSE(*tensors)
    return output, right, bottom


def separable_maps(maps: BorderMaps, bx: int, by: int) -> Tensors:
    """The maps of scalar gates of mode "L" without the zeros that they must have.

    Args:
        maps: of any number of blocks.
        bx: nodes of a block along X.
        by: nodes of a block along Y.

    Returns:
        read_left and write_bottom [*, BX, BY] (a node reads its own row and writes to its own column), read_top,
        write_right, right_of_left [*, BY], right_of_top and bottom_of_top [*, BX]; nothing turns from left to bottom.
    """
    read = maps.read_left[..., 0, 0, :].unflatten(-2, (bx, by))
    write = maps.write_bottom[..., 0, 0, :].unflatten(-2, (bx, by))
    return (
        read.diagonal(dim1=-2, dim2=-1),
        maps.read_top,
        maps.write_right,
        write.diagonal(dim1=-3, dim2=-1).transpose(-1, -2),
        maps.right_of_left.diagonal(dim1=-2, dim2=-1),
        maps.right_of_top,
        maps.bottom_of_top.diagonal(dim1=-2, dim2=-1),
    )


def separable_step(*tensors: Tensor) -> Step:
    """A block with scalar gates of mode "L".

    Args:
        *tensors: query, key and value as in `dense_step`, the tensors of `separable_maps`, left and top.

    Returns:
        As `dense_step`.
    """
    output, right, bottom = _SEPARABLE(*tensors)
    return output, right, bottom


def _spread(vectors: Tensor, weights: Tensor) -> Tensor:
    """[M, N, D, J] and [M, N, I, J, border] to [M, N * I, border * D]."""
    if vectors.shape[-1] == 1:
        spread = weights.squeeze(3).unsqueeze(-1) * vectors.squeeze(-1)[:, :, None, None]
    else:
        spread = torch.einsum("mndj,mnijb->mnibd", vectors, weights)
    return spread.flatten(1, 2).flatten(2)


def _gather(vectors: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `_spread`."""
    grad = grad.view(*weights.shape[:3], weights.shape[4], vectors.shape[2])
    if vectors.shape[-1] == 1:
        of_vectors = weights.squeeze(3).flatten(2).unsqueeze(2) @ grad.flatten(2, 3)
        return of_vectors.mT, (grad.flatten(2, 3) @ vectors).view(weights.shape)
    return torch.einsum("mnibd,mnijb->mndj", grad, weights), torch.einsum("mnibd,mndj->mnijb", grad, vectors)


def _by_component(state: Tensor, dk: int) -> Tensor:
    """[M, border, DK * DV] to [M, border * DK, DV]."""
    return state.reshape(len(state), state.shape[1] * dk, -1)


def _dense(*tensors: Tensor) -> Tensors:
    query, key, value, read_left, read_top, write_right, write_bottom, rl, rt, bl, bt, left, top = tensors
    dk, values = key.shape[2], value.flatten(1, 2)
    output = torch.bmm(_spread(query, read_left), _by_component(left, dk))
    output = output.baddbmm_(_spread(query, read_top), _by_component(top, dk))
    right = torch.bmm(_spread(key, write_right).mT, values).view(left.shape)
    bottom = torch.bmm(_spread(key, write_bottom).mT, values).view(top.shape)
    right = right.baddbmm_(rl, left).baddbmm_(rt, top)
    bottom = bottom.baddbmm_(bl, left).baddbmm_(bt, top)
    return output.unflatten(1, read_left.shape[1:3]), right, bottom


def _dense_gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    query, key, value, read_left, read_top, write_right, write_bottom, rl, rt, bl, bt, left, top = inputs
    output, right, bottom = (grad.contiguous() for grad in cotangents)
    dk, values, rows = key.shape[2], value.flatten(1, 2), output.flatten(1, 2)
    d_left = torch.bmm(_spread(query, read_left).mT, rows).view(left.shape)
    d_top = torch.bmm(_spread(query, read_top).mT, rows).view(top.shape)
    d_left = d_left.baddbmm_(rl.mT, right).baddbmm_(bl.mT, bottom)
    d_top = d_top.baddbmm_(rt.mT, right).baddbmm_(bt.mT, bottom)
    right_rows, bottom_rows = _by_component(right, dk), _by_component(bottom, dk)
    d_value = torch.bmm(_spread(key, write_right), right_rows).baddbmm_(_spread(key, write_bottom), bottom_rows)
    query_left, d_read_left = _gather(query, read_left, torch.bmm(rows, _by_component(left, dk).mT))
    query_top, d_read_top = _gather(query, read_top, torch.bmm(rows, _by_component(top, dk).mT))
    key_right, d_write_right = _gather(key, write_right, torch.bmm(values, right_rows.mT))
    key_bottom, d_write_bottom = _gather(key, write_bottom, torch.bmm(values, bottom_rows.mT))
    return (
        *(query_left + query_top, key_right + key_bottom, d_value.view(value.shape)),
        *(d_read_left, d_read_top, d_write_right, d_write_bottom),
        *(right @ left.mT, right @ top.mT, bottom @ left.mT, bottom @ top.mT),
        *(d_left, d_top),
    )


def _by_row(vectors: Tensor, grid: torch.Size) -> Tensor:
    """[M, BX * BY, D] to [M * BY, BX, D]."""
    return vectors.unflatten(1, grid).transpose(1, 2).flatten(0, 1)


def _from_rows(vectors: Tensor, grid: torch.Size) -> Tensor:
    """The inverse of `_by_row`."""
    return vectors.unflatten(0, (-1, grid[1])).transpose(1, 2).flatten(1, 2)


def _separable(*tensors: Tensor) -> Tensors:
    query, key, value, read_left, read_top, write_right, write_bottom, rl, rt, bt, left, top = tensors
    grid, dk, values = read_left.shape[1:], key.shape[2], value.flatten(1, 2)
    in_rows = _by_row(query.squeeze(3) * read_left.flatten(1).unsqueeze(2), grid)
    output = _from_rows(torch.bmm(in_rows, left.reshape(len(in_rows), dk, -1)), grid)
    output = output.baddbmm_(_spread(query, read_top), _by_component(top, dk))
    right = torch.bmm(_spread(key, write_right).mT, values).view(left.shape)
    right = right.addcmul_(left, rl.unsqueeze(2)).baddbmm_(rt, top)
    in_columns = (key.squeeze(3) * write_bottom.flatten(1).unsqueeze(2)).view(-1, grid[1], dk)
    bottom = torch.bmm(in_columns.mT, values.reshape(len(in_columns), grid[1], -1)).view(top.shape)
    return output.unsqueeze(2), right, bottom.addcmul_(top, bt.unsqueeze(2))


def _separable_gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    query, key, value, read_left, read_top, write_right, write_bottom, rl, rt, bt, left, top = inputs
    output, right, bottom = (grad.contiguous() for grad in cotangents)
    grid, dk, values, rows = read_left.shape[1:], key.shape[2], value.flatten(1, 2), output.flatten(1, 2)
    q, k, read, write = query.squeeze(3), key.squeeze(3), read_left.flatten(1), write_bottom.flatten(1)

    row_outputs, in_rows = _by_row(rows, grid), _by_row(q * read.unsqueeze(2), grid)
    d_left = torch.bmm(in_rows.mT, row_outputs).view(left.shape).addcmul_(right, rl.unsqueeze(2))
    reading = _from_rows(torch.bmm(row_outputs, left.reshape(len(in_rows), dk, -1).mT), grid)
    query_top, d_read_top = _gather(query, read_top, torch.bmm(rows, _by_component(top, dk).mT))
    d_top = torch.bmm(_spread(query, read_top).mT, rows).view(top.shape).addcmul_(bottom, bt.unsqueeze(2))
    d_top = d_top.baddbmm_(rt.mT, right)

    right_rows = _by_component(right, dk)
    key_right, d_write_right = _gather(key, write_right, torch.bmm(values, right_rows.mT))
    in_columns = (k * write.unsqueeze(2)).view(-1, grid[1], dk)
    column_grads = bottom.view(len(in_columns), dk, -1)
    d_value = torch.bmm(in_columns, column_grads).view(values.shape)
    d_value = d_value.baddbmm_(_spread(key, write_right), right_rows)
    writing = torch.bmm(values.reshape(len(in_columns), grid[1], -1), column_grads.mT).view(k.shape)
    return (
        query_top.addcmul_(reading.unsqueeze(3), read[..., None, None]),
        key_right.addcmul_(writing.unsqueeze(3), write[..., None, None]),
        d_value.view(value.shape),
        (reading * q).sum(2).view(read_left.shape),
        d_read_top,
        d_write_right,
        (writing * k).sum(2).view(write_bottom.shape),
        *((right * left).sum(2), right @ top.mT, (bottom * top).sum(2)),
        *(d_left, d_top),
    )


def _allocate(*tensors: Tensor) -> Tensors:
    query, value, left, top = tensors[0], tensors[2], tensors[-2], tensors[-1]
    heads = tensors[3].shape[2] if tensors[3].dim() == 5 else 1
    output = query.new_empty(*query.shape[:2], heads, value.shape[3])
    return output, query.new_empty(left.shape), query.new_empty(top.shape)


def _form(
    name: str, step: Callable[..., Tensors], gradients: Callable[[Tensors, Tensors, Tensors], Tensors]
) -> FastForm:
    return FastForm(name, step, lambda *tensors: (step(*tensors), ()), gradients, _allocate, num_outputs=3)


_DENSE = _form("grid_dense_step", _dense, _dense_gradients)
_SEPARABLE = _form("grid_separable_step", _separable, _separable_gradients)
