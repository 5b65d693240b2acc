"""Blocks and models whose input is spread over ranks."""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from plstm_torch.context import ContextModule
from plstm_torch.layers.plstm_1d import pLSTM1DLayer
from plstm_torch.models.vision_interface import VisionInterface
from plstm_torch.parallel.agreement import check_mesh
from plstm_torch.parallel.spreading import SequenceSpread

Spreading = TypeVar("Spreading", bound=nn.Module)


def context_parallel(module: Spreading, mesh: DeviceMesh | None, *, agree: bool = True) -> Spreading:
    """Let a module compute with its rank's piece of each sequence, in place.

    Afterwards it is called on every rank of the mesh with that rank's piece of x [B,T,D] or of the tokens [B,T] (see
    `split_sequence`), and gives that rank's piece of the output of the whole. `cu_seqlens` are the borders in the whole
    sequence, caches those of whole sequences, all the same on every rank. `step` runs on every rank by itself. Every
    rank has to take part in the backward pass. The gradient of a parameter is the sum over the ranks: so one averages
    it, by DDP or FSDP over the same ranks, and multiplies the loss, a sum over own tokens divided by the number of all,
    by the number of ranks.

    Drop path needs generators in the same state on all ranks of the mesh.

    Args:
        module: a layer, block, stack of blocks or language model on sequences, the same on all ranks.
        mesh: one dimension of a device mesh, such as ``mesh["context"]``; None: whole sequences again.
        agree: as in `plstm_torch.parallel.plstm_1d`.

    Returns:
        The module.

    Raises:
        TypeError: if `mesh` is no mesh.
        ValueError: if the mesh has several dimensions, or the module has no pLSTM layer on sequences, or other parts
            that look at several positions.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> from torch import distributed
        >>> from plstm_torch import parallel
        >>> distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
        >>> mesh = distributed.init_device_mesh("cpu", (1,), mesh_dim_names=("context",))
        >>> config = plstm_config.pLSTMLMModelConfig(vocab_size=50, embedding_dim=16, num_blocks=2)
        >>> model = parallel.context_parallel(plstm_torch.build(config), mesh["context"])
        >>> model(parallel.split_sequence(torch.randint(50, (2, 12)), mesh["context"])).shape
        torch.Size([2, 12, 50])
        >>> distributed.destroy_process_group()
    """
    if mesh is not None:
        check_mesh(mesh, (1,))
    spread = None if mesh is None else SequenceSpread(mesh, agree)
    for layer in _layers(module):
        layer.spread = spread
    return module


def _layers(module: nn.Module) -> list[pLSTM1DLayer]:
    """The layers of a module that hand states on.

    Raises:
        ValueError: there is none, or something else looks at several positions.
    """
    for part in module.modules():
        if isinstance(part, VisionInterface) or (isinstance(part, ContextModule) and part.kind != "sequence"):
            raise ValueError(f"module: expected pLSTM on sequences, got a {type(part).__name__}, which is not")
    layers = [part for part in module.modules() if isinstance(part, pLSTM1DLayer)]
    if not layers:
        raise ValueError(f"module: expected one with a pLSTM1DLayer, got a {type(module).__name__} without")
    return layers
