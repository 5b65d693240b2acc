"""Blocks and models whose input is spread over ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from plstm_config.options import check_size
from plstm_torch.blocks.transformer import TransformerBlock
from plstm_torch.feature_pyramid import FeaturePyramid
from plstm_torch.layers.plstm_1d import pLSTM1DLayer
from plstm_torch.layers.plstm_2d import pLSTM2DLayer, pLSTM2DLayerFused
from plstm_torch.layers.plstm_graph import pLSTMGraphEdgeLayer, pLSTMGraphLayer
from plstm_torch.models.patch_embed import PatchEmbed
from plstm_torch.models.pos_embed import PosEmbed2D
from plstm_torch.models.vision_interface import VisionInterface
from plstm_torch.parallel.agreement import check_mesh
from plstm_torch.parallel.spreading import SequenceSpread, TileSpread

Spreading = TypeVar("Spreading", bound=nn.Module)
# What looks at positions on other ranks without a way to reach them.
_WHOLE_ONLY = (TransformerBlock, FeaturePyramid, pLSTMGraphLayer, pLSTMGraphEdgeLayer)


def context_parallel(module: Spreading, mesh: DeviceMesh | None, *, parts: int = 1, agree: bool = True) -> Spreading:
    """Let a module compute with its rank's piece of each sequence, or its tile of each grid, in place.

    Afterwards it is called on every rank of the mesh with that rank's piece of x [B,T,D] or of the tokens [B,T] (see
    `split_sequence`), or its tile of x [B,X,Y,D] (see `split_grid`), and gives that rank's part of the output of the
    whole. Vision models take a tile of the images, and give what they pool, and logits, on all ranks alike.
    `cu_seqlens` are the borders in the whole sequence, caches those of whole sequences, all the same on every rank.
    `step` runs on every rank by itself; `generate` and `stream` want whole sequences.

    Every rank has to take part in the backward pass. The gradient of a parameter is the sum over the ranks: DDP and
    FSDP, which average it, then want the loss, a sum over own tokens divided by the number of all, times the number of
    ranks; a loss of pooled features, which every rank computes, they take as it is. Drop path needs generators in the
    same state on all ranks of the mesh.

    Args:
        module: a layer, block, stack of blocks, language or vision model, the same on all ranks.
        mesh: one dimension of a device mesh, such as ``mesh["context"]``, which cuts T or X; for grids also two, of
            which the second one cuts Y. None: whole sequences and grids again.
        parts: on grids, number of parts of the batch that follow one another through the tiles, see `plstm_2d`.
        agree: as in `plstm_torch.parallel.plstm_1d`; without it tiles are of one size.

    Returns:
        The module.

    Raises:
        TypeError: if `mesh` is no mesh.
        ValueError: if the mesh has another number of dimensions, or the module has no pLSTM layer on sequences or
            grids, a bidirectional one, or other parts that look at several positions: attention, graphs, a class
            token, pyramids, patches that overlap or leave gaps.

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
    check_size("parts", parts)
    sequences, grids = _layers(module)
    if mesh is not None:
        check_mesh(mesh, (1,) if sequences else (1, 2))
    for sequence_layer in sequences:
        sequence_layer.spread = None if mesh is None else SequenceSpread(mesh, agree)
    tiles = None if mesh is None else TileSpread(mesh, agree, parts)
    for grid_layer in grids:
        grid_layer.spread = tiles
    for part in _parts(module):
        if isinstance(part, PosEmbed2D | VisionInterface):
            part.spread = tiles
    return module


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """All modules within, and the vision model behind one of transformers', which has its parts but is none of them."""
    for part in module.modules():
        yield part
        plain = vars(part).get("plain")
        if isinstance(plain, VisionInterface):
            yield plain


def _layers(module: nn.Module) -> tuple[list[pLSTM1DLayer], list[pLSTM2DLayer | pLSTM2DLayerFused]]:
    """The layers of a module that hand states on, on sequences and on grids.

    Raises:
        ValueError: there is none, or something else looks at several positions.
    """
    for part in _parts(module):
        with_token = isinstance(part, VisionInterface) and part.config.pooling == "cls"
        if with_token or isinstance(part, _WHOLE_ONLY):
            raise ValueError(f"module: expected parts that can be spread over ranks, got a {type(part).__name__}")
        if isinstance(part, PatchEmbed) and part.config.step != part.config.patch:
            raise ValueError(
                f"module: expected patches that tile the image, got patch_size={part.config.patch} and "
                f"stride={part.config.step}"
            )
    sequences = [part for part in module.modules() if isinstance(part, pLSTM1DLayer)]
    if any(layer.config.bidirectional for layer in sequences):
        raise ValueError("module: expected causal layers on sequences, got a pLSTM1DLayer with bidirectional=True")
    grids = [part for part in module.modules() if isinstance(part, pLSTM2DLayer | pLSTM2DLayerFused)]
    if not sequences and not grids:
        raise ValueError(f"module: expected pLSTM layers on sequences or grids, got a {type(module).__name__} without")
    return sequences, grids
