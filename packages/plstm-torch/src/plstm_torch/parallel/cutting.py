"""Cutting what is whole on every rank into the ranks' pieces, and putting pieces together again."""

from __future__ import annotations

from jaxtyping import Shaped
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from plstm_torch.parallel.agreement import check_mesh
from plstm_torch.parallel.pieces import even_lengths


def split_sequence(tensor: Shaped[Tensor, "*whole"], mesh: DeviceMesh, dim: int = 1) -> Shaped[Tensor, "*piece"]:
    """This rank's piece of a tensor that every rank has as a whole: contiguous, sizes differing by one at most.

    Cut inputs and targets alike, targets after they were shifted: the token after a piece's last one is on the next
    rank.

    Args:
        tensor: of any shape, such as token ids [B,T] or features [B,T,D].
        mesh: one dimension of a device mesh.
        dim: the dimension that is cut.

    Returns:
        A view.

    Raises:
        TypeError: `mesh` is no mesh.
        ValueError: `mesh` has several dimensions.

    Examples:
        >>> import torch
        >>> from torch import distributed
        >>> from plstm_torch import parallel
        >>> distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
        >>> mesh = distributed.init_device_mesh("cpu", (1,))
        >>> parallel.split_sequence(torch.rand(2, 100, 8), mesh).shape  # all of it: there is one rank
        torch.Size([2, 100, 8])
        >>> distributed.destroy_process_group()
    """
    check_mesh(mesh, (1,))
    return tensor.split(even_lengths(tensor.shape[dim], mesh.size()), dim)[mesh.get_local_rank()]


def split_grid(
    tensor: Shaped[Tensor, "*whole"],
    mesh: DeviceMesh,
    dims: tuple[int, int] = (1, 2),
    *,
    step: tuple[int, int] = (1, 1),
) -> Shaped[Tensor, "*tile"]:
    """This rank's tile of a tensor that every rank has as a whole: contiguous, sides differing by one step at most.

    Args:
        tensor: of any shape, such as features [B,X,Y,D]; gates of the op [B,O,X,Y,...] with ``dims=(2, 3)``.
        mesh: of one dimension, which cuts X, or of two, of which the second one cuts Y.
        dims: the dimensions X and Y of the tensor.
        step: what stays together along X and Y, such as the pixels of a patch.

    Returns:
        A view.

    Raises:
        TypeError: `mesh` is no mesh.
        ValueError: `mesh` has more than two dimensions, or the steps do not tile the tensor.

    Examples:
        >>> import torch
        >>> from torch import distributed
        >>> from plstm_torch import parallel
        >>> distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
        >>> mesh = distributed.init_device_mesh("cpu", (1, 1))
        >>> parallel.split_grid(torch.rand(2, 64, 32, 3), mesh, step=(16, 16)).shape  # all of it: there is one rank
        torch.Size([2, 64, 32, 3])
        >>> distributed.destroy_process_group()
    """
    check_mesh(mesh, (1, 2))
    for axis, (dim, size) in enumerate(zip(dims[: mesh.ndim], step, strict=False)):
        if size < 1 or tensor.shape[dim] % size:
            raise ValueError(f"step: expected a divisor of {tensor.shape[dim]}, got {size}")
        lengths = [size * length for length in even_lengths(tensor.shape[dim] // size, mesh.size(axis))]
        tensor = tensor.split(lengths, dim)[mesh.get_local_rank(axis)]
    return tensor
