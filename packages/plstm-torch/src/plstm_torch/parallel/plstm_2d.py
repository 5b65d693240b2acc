"""The pLSTM on a grid that is cut into tiles, one on each rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from plstm_config.options import check_implementation, check_size
from plstm_config.shapes import check_plstm_2d, check_plstm_2d_oriented
from plstm_torch.ops._arguments import check_tensors, common_dtype
from plstm_torch.ops._plstm_2d.op import IMPLEMENTATIONS
from plstm_torch.ops._plstm_2d.problem import FOUR_ORIENTATIONS
from plstm_torch.parallel import agreement
from plstm_torch.parallel.agreement import Checked, check_mesh
from plstm_torch.parallel.walks import Way, oriented_ways, run_walks
from plstm_torch.parallel.wavefront import States, Tiles

# "triton" refuses calls by their sizes, when other ranks may already wait for what this one sends
FOR_ANY_CALL = tuple(name for name in IMPLEMENTATIONS if name != "triton")


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
    mesh: DeviceMesh,
    mode: str | None = None,
    initial_state: tuple[Float[Tensor, "B Y DK DV JT"], Float[Tensor, "B X DK DV JT"]] | None = None,
    return_last_state: bool = False,
    scale: float | None = None,
    implementation: str = "auto",
    block_size: int | None = None,
    parts: int = 1,
    agree: bool = True,
) -> (
    Float[Tensor, "B X Y DV JO"]
    | tuple[Float[Tensor, "B X Y DV JO"], tuple[Float[Tensor, "B Y DK DV JT"], Float[Tensor, "B X DK DV JT"]]]
):
    """Run pLSTM over a grid that is spread over ranks: `plstm_torch.ops.plstm_2d` of the whole, and its gradients.

    Every rank calls with its tile. What leaves a tile goes to its neighbours, one border each, forward; the gradients
    go back the same way. A tile waits for those to its left and above it, so ranks work one antidiagonal after the
    other. Every rank also has to take part in the backward pass.

    Args:
        query: this rank's tile [B,X,Y,DK,JQ], any X and Y. Tiles in a row of the mesh have one Y, in a column one X.
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
        mesh: one dimension of a device mesh, which cuts X into strips, or two, of which the second one cuts Y.
        mode: none, or "P", as in `plstm_torch.ops.plstm_2d`.
        initial_state: what enters the grid, left [B,Y,DK,DV,JT] and top [B,X,DK,DV,JT] of this tile; it counts only
            where the tile lies at that side of the grid. On all ranks or on none.
        return_last_state: also return what leaves this tile, right [B,Y,DK,DV,JT] and bottom [B,X,DK,DV,JT].
        scale: factor of the output; ``DK**-0.5`` if None.
        implementation: of the tile, as in `plstm_torch.ops.plstm_2d`.
        block_size: the same.
        parts: rows of the batch know nothing of each other; cut into so many parts they follow one another through the
            tiles, so that ranks wait less.
        agree: whether all ranks compare their arguments first, for which the host waits. Without, an error on one rank
            leaves the others waiting, and NCCL wants another collective of the mesh's groups before.

    Returns:
        This rank's tile of the output [B,X,Y,DV,JO] in the dtype of `value`, or the pair of it and (right, bottom),
        float32 (float64 where that is the common dtype).

    Raises:
        TypeError: if on any rank an argument is no tensor, has no floating dtype, or `mesh` is none.
        ValueError: if on any rank a shape, a device or a name is wrong, or something differs between ranks.

    Examples:
        >>> import torch
        >>> from torch import distributed
        >>> from plstm_torch import parallel
        >>> distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
        >>> mesh = distributed.init_device_mesh("cpu", (1, 1), mesh_dim_names=("x", "y"))
        >>> query, key, value = (torch.randn(2, 5, 7, 4, 1) for _ in range(3))
        >>> gate, transition = torch.rand(2, 5, 7, 1, 1, 1), torch.rand(2, 5, 7, 1, 1) / 2
        >>> output = parallel.plstm_2d(
        ...     query, key, value, source_r=gate, source_d=gate, transition_rl=transition, transition_du=transition,
        ...     mark_l=gate, direct=torch.rand(2, 5, 7, 1, 1, 1, 1), mode="P", mesh=mesh["x", "y"],
        ... )
        >>> output.shape
        torch.Size([2, 5, 7, 4, 1])
        >>> distributed.destroy_process_group()

    Source:
        Equations 5 and 6 of the pLSTM paper on a grid; README.md beside this file says who waits for whom.
    """
    gates = {
        "source_r": source_r, "source_d": source_d, "transition_rl": transition_rl, "transition_du": transition_du,
        "transition_dl": transition_dl, "transition_ru": transition_ru, "mark_l": mark_l, "mark_u": mark_u,
    }  # fmt: skip
    inputs = {"query": query, "key": key, "value": value, "direct": direct}
    call = _Call(inputs, gates, mode, initial_state, scale, implementation, block_size, parts)
    tiles = find_tiles(mesh, call, agree, oriented=False)
    states = None if initial_state is None else [initial_state]
    ways = [Way({**call.inputs, **gates}, FOUR_ORIENTATIONS[0])]
    ((output, state),) = run_walks(ways, tiles, states, parts, call.options)
    output = output.to(value.dtype)
    return (output, state) if return_last_state else output


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
    mesh: DeviceMesh,
    mode: str | None = None,
    initial_state: tuple[Float[Tensor, "B O Y DK DV JT"], Float[Tensor, "B O X DK DV JT"]] | None = None,
    return_last_state: bool = False,
    scale: float | None = None,
    implementation: str = "auto",
    block_size: int | None = None,
    parts: int = 1,
    agree: bool = True,
) -> (
    Float[Tensor, "B X Y DV JO"]
    | tuple[Float[Tensor, "B X Y DV JO"], tuple[Float[Tensor, "B O Y DK DV JT"], Float[Tensor, "B O X DK DV JT"]]]
):
    """Run pLSTM from all four corners over a grid that is spread over ranks.

    `plstm_torch.ops.plstm_2d_oriented` of the whole, and its gradients. The four orientations start in tiles of their
    own at once: on two strips or two by two tiles no rank ever waits.

    Args:
        query: this rank's tile [B,X,Y,DK,JQ]; `key`, `value`, `direct`, `mesh`, `scale`, `implementation`,
            `block_size`, `parts` and `agree` are as in `plstm_2d`.
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
        mesh: of one or two dimensions.
        mode: none or "P".
        initial_state: what enters the grid, left [B,O,Y,DK,DV,JT] and top [B,O,X,DK,DV,JT] of this tile, as each
            orientation sees them; it counts only where the tile lies at that side of the grid.
        return_last_state: also return what leaves this tile on the far sides, in the same shapes.
        scale: factor of the output; ``DK**-0.5`` if None.
        implementation: "recurrent", "parallel", "chunkwise" or "auto".
        block_size: side of a block of "chunkwise".
        parts: number of parts that the batch is cut into.
        agree: whether all ranks compare their arguments first.

    Returns:
        This rank's tile of the output [B,X,Y,DV,JO] in the dtype of `value`, or the pair of it and (right, bottom).

    Raises:
        TypeError: if on any rank an argument is no tensor, has no floating dtype, or `mesh` is none.
        ValueError: if on any rank a shape, a device or a name is wrong, or something differs between ranks.

    Examples:
        >>> import torch
        >>> from torch import distributed
        >>> from plstm_torch import parallel
        >>> distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
        >>> mesh = distributed.init_device_mesh("cpu", (1, 1), mesh_dim_names=("x", "y"))
        >>> query, key, value = (torch.randn(2, 5, 7, 4, 1) for _ in range(3))
        >>> gate, transition = torch.rand(2, 4, 5, 7, 1, 1, 1), torch.rand(2, 4, 5, 7, 1, 1) / 2  # one for each corner
        >>> output = parallel.plstm_2d_oriented(
        ...     query, key, value, source_r=gate, source_d=gate, transition_rl=transition, transition_du=transition,
        ...     mark_l=gate, direct=torch.rand(2, 5, 7, 1, 1, 1, 1), mode="P", mesh=mesh["x", "y"],
        ... )
        >>> output.shape
        torch.Size([2, 5, 7, 4, 1])
        >>> distributed.destroy_process_group()

    Source:
        Section 3 of the pLSTM paper (images: the sum over the four directions).
    """
    gates = {
        "source_r": source_r, "source_d": source_d, "transition_rl": transition_rl, "transition_du": transition_du,
        "transition_dl": transition_dl, "transition_ru": transition_ru, "mark_l": mark_l, "mark_u": mark_u,
    }  # fmt: skip
    inputs = {"query": query, "key": key, "value": value, "direct": direct}
    call = _Call(inputs, gates, mode, initial_state, scale, implementation, block_size, parts)
    tiles = find_tiles(mesh, call, agree, oriented=True)
    ways = oriented_ways(call.inputs, gates)
    states = None
    if initial_state is not None:
        states = [(initial_state[0][:, index], initial_state[1][:, index]) for index in range(len(ways))]
    results = run_walks(ways, tiles, states, parts, call.options)
    output = torch.stack([result for result, _ in results]).sum(0).to(value.dtype)
    if not return_last_state:
        return output
    right, bottom = (torch.stack([state[axis] for _, state in results], 1) for axis in range(2))
    return output, (right, bottom)


@dataclass(frozen=True)
class _Call:
    """The arguments of a call.

    Attributes:
        inputs: query, key, value and direct by name.
        gates: by name.
        mode: none or "P".
        initial_state: or None.
        scale: or None.
        implementation: by name.
        block_size: or None.
        parts: number of parts of the batch.
    """

    inputs: Mapping[str, Tensor]
    gates: Mapping[str, Tensor | None]
    mode: str | None
    initial_state: States | None
    scale: float | None
    implementation: str
    block_size: int | None
    parts: int

    @property
    def given(self) -> dict[str, object]:
        """All tensors by name."""
        named: dict[str, object] = {**self.inputs, **self.gates}
        if isinstance(self.initial_state, tuple | list):
            sides = ("initial_state[0] (left)", "initial_state[1] (top)")
            named |= dict(zip(sides, self.initial_state, strict=False))
        return named

    @property
    def options(self) -> dict[str, Any]:
        """What the op of a tile is called with beside tensors."""
        names = ("mode", "scale", "implementation", "block_size")
        return {name: getattr(self, name) for name in names}

    def check(self, oriented: bool) -> Checked:
        """Check what one rank can; see `agreement.agree`."""
        given = check_tensors(self.given)
        checked = check_plstm_2d_oriented if oriented else check_plstm_2d
        states: Any = self.initial_state
        sizes = checked(**self.inputs, **self.gates, mode=self.mode, initial_state=states, scale=self.scale)
        check_implementation(self.implementation, FOR_ANY_CALL)
        check_size("block_size", self.block_size)
        check_size("parts", self.parts)
        facts: dict[str, object] = {name: size for name, size in sizes.items() if name not in "XY"}
        facts |= {
            "gates": [name for name, gate in self.gates.items() if gate is not None],
            "mode": self.mode,
            "parts": self.parts,
            "scale": None if isinstance(self.scale, Tensor) else self.scale,
            "initial_state": self.initial_state is not None,
            "dtype of the arguments": common_dtype(given),
            "requires_grad of the arguments": torch.is_grad_enabled() and any(one.requires_grad for one in given),
        }
        return facts, (sizes["X"], sizes["Y"])


def find_tiles(mesh: DeviceMesh, call: _Call, agree: bool, *, oriented: bool) -> Tiles:
    """Check a call on all ranks.

    Args:
        mesh: of one or two dimensions.
        call: its arguments.
        agree: whether the ranks compare them.
        oriented: whether gates have an axis O.

    Returns:
        Where the ranks lie.

    Raises:
        TypeError: as the checks of the op raise on any rank.
        ValueError: the same, or the tiles make no grid.
    """
    tiles = Tiles(check_mesh(mesh, (1, 2)))
    if not agree:
        call.check(oriented)
        return tiles
    check_sides(agreement.agree(tiles.mesh, lambda: call.check(oriented), 2), tiles.shape)
    return tiles


def check_sides(sides: Sequence[tuple[int, ...]], shape: tuple[int, int]) -> None:
    """Check that tiles make a grid.

    Args:
        sides: X and Y of all tiles, in the order of the mesh.
        shape: number of tiles along X and Y.

    Raises:
        ValueError: if tiles beside each other have other sides.
    """
    for place, (x, y) in enumerate(sides):
        row, column = divmod(place, shape[1])
        expected = sides[row * shape[1]][0], sides[column][1]
        if (x, y) != expected:
            raise ValueError(f"query: expected a tile of X={expected[0]}, Y={expected[1]} at {row, column}, got {x, y}")
