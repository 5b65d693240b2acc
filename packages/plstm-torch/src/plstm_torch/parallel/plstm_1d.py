"""The pLSTM on a sequence that is cut into pieces, one on each rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.nn import functional

from plstm_config.options import check_cu_seqlens, check_implementation, check_size
from plstm_config.shapes import check_plstm_1d
from plstm_torch import ops
from plstm_torch.dtypes import accumulation_dtype, without_autocast
from plstm_torch.ops._arguments import attach, check_tensors, common_dtype
from plstm_torch.ops._plstm_1d.op import IMPLEMENTATIONS
from plstm_torch.parallel import agreement
from plstm_torch.parallel.agreement import Checked, check_mesh
from plstm_torch.parallel.chain import entering_state
from plstm_torch.parallel.collectives import all_sum
from plstm_torch.parallel.pieces import Pieces, even_lengths


def plstm_1d(
    query: Float[Tensor, "B T DK JQ"],
    key: Float[Tensor, "B T DK JK"],
    value: Float[Tensor, "B T DV JV"],
    source: Float[Tensor, "B T JT JK JV"],
    transition: Float[Tensor, "B T JT JT"],
    mark: Float[Tensor, "B T JO JQ JT"],
    direct: Float[Tensor, "B T JO JQ JK JV"],
    *,
    mesh: DeviceMesh,
    initial_state: Float[Tensor, "B *S DK DV JT"] | None = None,
    return_last_state: bool = False,
    scale: float | None = None,
    implementation: str = "auto",
    chunk_size: int | None = None,
    cu_seqlens: Int[Tensor, " S1"] | None = None,
    agree: bool = True,
) -> Float[Tensor, "B T DV JO"] | tuple[Float[Tensor, "B T DV JO"], Float[Tensor, "B *S DK DV JT"]]:
    """Run pLSTM along a sequence that is spread over ranks: `plstm_torch.ops.plstm_1d` of the whole, and its gradients.

    Every rank of the mesh calls with its piece of T, in the order of the ranks. All pieces are worked on at once; what
    is exchanged is one state from each rank, in one collective, forward and backward. Every rank also has to take part
    in the backward pass. The loss is the sum over the ranks, so the gradient of what all ranks share, such as
    `initial_state` or a parameter, is the sum of what they find.

    Args:
        query: this rank's piece [B,T,DK,JQ], any T, also 0, and not the same on all ranks.
        key: [B,T,DK,JK].
        value: [B,T,DV,JV].
        source: [B,T,JT,JK,JV].
        transition: [B,T,JT,JT].
        mark: [B,T,JO,JQ,JT].
        direct: [B,T,JO,JQ,JK,JV].
        mesh: one dimension of a device mesh, such as ``mesh["context"]``.
        initial_state: state before the first step of the whole [B,DK,DV,JT], zero if None; [B,S,DK,DV,JT] with
            `cu_seqlens`. The same on all ranks.
        return_last_state: also return the state after the last step of the whole, the same on all ranks.
        scale: factor of the output; ``DK**-0.5`` if None.
        implementation: of the piece, as in `plstm_torch.ops.plstm_1d`.
        chunk_size: the same.
        cu_seqlens: [S+1] integer boundaries of sequences packed along the whole; pieces may end anywhere in them.
        agree: whether all ranks compare their arguments first, and take the sizes of the pieces from each other, for
            which the host waits. Without, pieces have to be cut as `split_sequence` cuts them (without `cu_seqlens`
            all of one size), and an error on one rank leaves the others waiting.

    Returns:
        This rank's piece of the output [B,T,DV,JO] in the dtype of `value`, or the pair of it and the last state,
        shaped as `initial_state`, float32 (float64 where that is the common dtype).

    Raises:
        TypeError: if on any rank an argument is no tensor, has no floating dtype, or `mesh` is none.
        ValueError: if on any rank a shape, a device, a boundary or a name is wrong, or something differs between ranks.

    Examples:
        >>> import torch
        >>> from torch import distributed
        >>> from plstm_torch import parallel
        >>> distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
        >>> mesh = distributed.init_device_mesh("cpu", (1,), mesh_dim_names=("context",))
        >>> whole = [torch.randn(4, 100, 16, 1), torch.randn(4, 100, 16, 1), torch.randn(4, 100, 8, 1)]
        >>> whole += [torch.rand(4, 100, *[1] * count) for count in (3, 2, 3, 4)]
        >>> pieces = [parallel.split_sequence(tensor, mesh) for tensor in whole]
        >>> parallel.plstm_1d(*pieces, mesh=mesh).shape
        torch.Size([4, 100, 8, 1])
        >>> distributed.destroy_process_group()

    Source:
        Equations 5 and 6 of the pLSTM paper on a chain; README.md beside this file derives what is exchanged.
    """
    check_mesh(mesh, (1,))
    tensors = (query, key, value, source, transition, mark, direct)

    def check() -> Checked:
        names = ("query", "key", "value", "source", "transition", "mark", "direct", "initial_state")
        given = check_tensors(dict(zip(names, (*tensors, initial_state), strict=True)))
        sizes = check_plstm_1d(*tensors, initial_state=initial_state, scale=scale, cu_seqlens=cu_seqlens)
        check_implementation(implementation, IMPLEMENTATIONS)
        check_size("chunk_size", chunk_size)
        length = sizes.pop("T")
        facts = sizes | {
            "cu_seqlens": None if cu_seqlens is None else cu_seqlens.tolist(),
            "dtype of the arguments": common_dtype(given),
            "requires_grad of the arguments": torch.is_grad_enabled() and any(one.requires_grad for one in given),
            "initial_state": initial_state is not None,
            "scale": None if isinstance(scale, Tensor) else scale,
            "return_last_state": return_last_state,
        }
        return facts, (length,)

    pieces = find_pieces(mesh, check, cu_seqlens, agree)
    options = {"scale": scale, "implementation": implementation, "chunk_size": chunk_size}
    states = initial_state if initial_state is None or cu_seqlens is not None else initial_state.unsqueeze(1)
    output, last = run_piece(tensors, states, pieces, mesh.get_group(), options, with_last=return_last_state)
    if last is None:
        return output
    return output, last if cu_seqlens is not None else last.squeeze(1)


def find_pieces(mesh: DeviceMesh, check: Callable[[], Checked], cu_seqlens: Tensor | None, agree: bool) -> Pieces:
    """Check a call, and find where the pieces of its sequence lie.

    Args:
        mesh: of one dimension.
        check: as in `agreement.agree`; its integer is the length of this rank's piece.
        cu_seqlens: borders of the packed sequences [S+1], or None.
        agree: whether the ranks are asked.

    Returns:
        The pieces.

    Raises:
        TypeError: as `check` raises, or `cu_seqlens` are no integers.
        ValueError: as `check` raises, or `cu_seqlens` are no borders of the whole.
    """
    rank, count = mesh.get_local_rank(), mesh.size()
    if agree:
        lengths = tuple(length for (length,) in agreement.agree(mesh, check))
    else:
        _, (length,) = check()
        lengths = (length,) * count if cu_seqlens is None else even_lengths(int(cu_seqlens[-1]), count)
        if lengths[rank] != length:
            raise ValueError(f"cu_seqlens: expected {count} pieces of {lengths} steps, got {length} on rank {rank}")
    total = sum(lengths)
    return Pieces(rank, lengths, (0, total) if cu_seqlens is None else check_cu_seqlens(cu_seqlens, total))


def run_piece(
    tensors: tuple[Tensor, ...],
    states: Tensor | None,
    pieces: Pieces,
    group: distributed.ProcessGroup,
    options: dict[str, Any],
    *,
    with_last: bool,
) -> tuple[Tensor, Tensor | None]:
    """Run this rank's piece, once the ranks agree.

    Args:
        tensors: query to direct, as in `plstm_1d`.
        states: initial states of all sequences [B,S,DK,DV,JT], or None.
        pieces: where the pieces lie.
        group: of the ranks.
        options: of the op.
        with_last: whether the last states are wanted.

    Returns:
        Output [B,T,DV,JO], and the last states of all sequences [B,S,DK,DV,JT] or None.
    """
    dtype = accumulation_dtype(common_dtype([*tensors, *([] if states is None else [states])]))
    with without_autocast(tensors[0]):
        states = None if states is None else states.to(dtype)
        entering = None
        if pieces.any_open:
            key, value, source, transition = (tensor.to(dtype) for tensor in tensors[1:5])
            entering = entering_state((key, value, source, transition), states, pieces, group)
        own = _own_states(entering, states, pieces)
        borders = None
        if len(pieces.held) > 1:
            borders = torch.tensor(pieces.own_borders, device=tensors[0].device)
        elif own is not None:
            own = own.squeeze(1)
        result = ops.plstm_1d(*tensors, initial_state=own, return_last_state=with_last, cu_seqlens=borders, **options)
        if isinstance(result, Tensor):
            return result, None
        output, last = result
        return output, last_states(last if borders is not None else last.unsqueeze(1), states, pieces, group)


def _own_states(entering: Tensor | None, states: Tensor | None, pieces: Pieces) -> Tensor | None:
    """The initial states of the sequences that this piece holds, or of one if of none; None if all are zero."""
    first, count = pieces.held.start, max(1, len(pieces.held))
    if states is None:
        return None if entering is None else functional.pad(entering.unsqueeze(1), (0, 0) * 3 + (0, count - 1))
    own = states[:, first : first + count]
    if entering is None:
        return own
    # what enters is zero where nothing does, but every rank has to have it in its graph
    begun = entering if pieces.continues else entering + own[:, 0]
    return torch.cat([begun.unsqueeze(1), own[:, 1:]], 1)


def last_states(own: Tensor, states: Tensor | None, pieces: Pieces, group: distributed.ProcessGroup) -> Tensor:
    """The last states of all sequences on all ranks.

    Args:
        own: those of the sequences that this piece holds [B,S',...].
        states: the initial states of all [B,S,...], which empty sequences end with; zero if None.
        pieces: where the pieces lie.
        group: of the ranks.

    Returns:
        [B,S,...].
    """
    whole = own.new_zeros(own.shape[0], pieces.count, *own.shape[2:])
    here = [sequence for sequence in pieces.finished if sequence in pieces.held]
    empty = [sequence for sequence in pieces.finished if sequence not in pieces.held]
    if here:
        places = torch.tensor(here, device=own.device)
        whole = whole.index_copy(1, places, own.index_select(1, places - pieces.held.start))
    if empty and states is not None:
        places = torch.tensor(empty, device=own.device)
        whole = whole.index_copy(1, places, states.index_select(1, places))
    return all_sum(attach(whole, own[:, :0]), group)
