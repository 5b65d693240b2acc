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
    """
    check_mesh(mesh, (1,))
    return tensor.split(even_lengths(tensor.shape[dim], mesh.size()), dim)[mesh.get_local_rank()]


def split_grid(
    tensor: Shaped[Tensor, "*whole"], mesh: DeviceMesh, dims: tuple[int, int] = (1, 2)
) -> Shaped[Tensor, "*tile"]:
    """This rank's tile of a tensor that every rank has as a whole: contiguous, sides differing by one at most.

    Args:
        tensor: of any shape, such as features [B,X,Y,D]; gates of the op [B,O,X,Y,...] with ``dims=(2, 3)``.
        mesh: of one dimension, which cuts X, or of two, of which the second one cuts Y.
        dims: the dimensions X and Y of the tensor.

    Returns:
        A view.

    Raises:
        TypeError: `mesh` is no mesh.
        ValueError: `mesh` has more than two dimensions.
    """
    check_mesh(mesh, (1, 2))
    for axis, dim in enumerate(dims[: mesh.ndim]):
        tensor = tensor.split(even_lengths(tensor.shape[dim], mesh.size(axis)), dim)[mesh.get_local_rank(axis)]
    return tensor
