"""The pLSTM layers on grids: all four orientations in one operation, or any list of orientations one by one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from plstm_config import pLSTM2DLayerConfig, pLSTM2DLayerFusedConfig
from plstm_config.checks import check_features
from plstm_config.plstm_2d import GridLayerConfig
from plstm_torch.build import register
from plstm_torch.dtypes import accumulation_dtype, stack, without_autocast
from plstm_torch.layers.convolution import Convolution2DLayer
from plstm_torch.layers.gates import slice_products
from plstm_torch.layers.interaction import InteractionLayer, merge_heads, normalize_heads
from plstm_torch.layers.joint_gates import joint_gates
from plstm_torch.module import constant
from plstm_torch.ops import plstm_2d, plstm_2d_oriented

_GRID_AXES = 2
_X_AXIS, _Y_AXIS = 2, 3  # of tensors [B, H, X, Y, ...]


@dataclass(frozen=True)
class GridOperations:
    """What looks at more than one node of a grid; everything else in a layer is node by node.

    Attributes:
        convolve: from the convolution and x [B, X, Y, D] to its output.
        plstm_2d_oriented: called as the op with all its arguments by keyword.
        plstm_2d: the same, and first the orientations, whose grids follow one another in the batch, orientation
            fastest, each turned so that it runs right and down.
    """

    convolve: Callable[[Convolution2DLayer, Tensor], Tensor]
    plstm_2d_oriented: Callable[..., Any]
    plstm_2d: Callable[..., Any]


class GridSpread(Protocol):
    """How grids are spread over processes, see `plstm_torch.parallel`."""

    def operations(self, layer: "_GridLayer", x: Tensor) -> GridOperations:
        """Check the input, and say what takes the place of the operations on whole grids."""


_WHOLE = GridOperations(
    convolve=lambda convolution, x: convolution(x),
    plstm_2d_oriented=lambda **arguments: plstm_2d_oriented(**arguments),
    plstm_2d=lambda orientations, **arguments: plstm_2d(**arguments),
)


class _GridLayer(InteractionLayer):
    """Gates of several orientations, in both modes."""

    config: GridLayerConfig
    spread: GridSpread | None = None

    convolution: Convolution2DLayer | None
    orientation_bias: nn.Parameter
    orientation_weight: nn.Parameter
    source: nn.Module
    transition: nn.Module
    mark: nn.Module
    source_r: nn.Module
    source_d: nn.Module
    transition_r: nn.Module
    transition_d: nn.Module
    transition_rd: nn.Module
    mark_l: nn.Module
    mark_u: nn.Module

    def __init__(self, config: GridLayerConfig) -> None:
        super().__init__(config)
        self.orientations = config.orientations
        self._angle_scale = constant(config.pmode_orientation_scale / config.input_dim)

    def _per_orientation(self, gate: Tensor) -> Tensor:
        """From head-major gates [B, H * O, X, Y, ...] to [B, H, O, X, Y, ...]."""
        return gate.unflatten(1, (self.num_heads, len(self.orientations)))

    def _angle(self, x: Tensor) -> Tensor:
        """The share alpha in (0, 1) that goes right rather than down: [B, H, O, X, Y]."""
        work = accumulation_dtype(self.dtype)
        with without_autocast(x):
            weight = self.orientation_weight.to(self.dtype)
            z = slice_products(x.to(self.dtype), weight.flatten(0, 1).unsqueeze(0)).squeeze(0)
            z = self._per_orientation(z.to(work).unflatten(1, x.shape[:-1]).movedim(1, 0))
            bias = self.orientation_bias.to(work)[:, :, None, None]
            return torch.sigmoid(bias + z * float(self._angle_scale))

    def _gates(self, x: Tensor, convolved: Tensor, arrange: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """The gates by the op's argument names, each brought from [B, H, O, X, Y, ...] into the op's form."""
        if self.config.mode == "P":
            angle = arrange(self._angle(self._pick("O", x, convolved)))
            return self._directed_gates(angle, *self._arranged(("source", "transition", "mark"), x, convolved, arrange))
        mixed = "transition_ru" if self.config.dmode_chirality == "L" else "transition_dl"
        modules = {
            "source_r": "source_r",
            "source_d": "source_d",
            "transition_rl": "transition_r",
            "transition_du": "transition_d",
            mixed: "transition_rd",
            "mark_l": "mark_l",
            "mark_u": "mark_u",
        }
        return dict(zip(modules, self._arranged(tuple(modules.values()), x, convolved, arrange), strict=True))

    def _arranged(
        self, names: tuple[str, ...], x: Tensor, convolved: Tensor, arrange: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        """The gates of submodules in the op's form; those that read the same input are computed together."""
        found: dict[str, Tensor] = {}
        for read in (x, convolved):
            here = [name for name in names if name not in found and self._pick(name[0].upper(), x, convolved) is read]
            gates = joint_gates([getattr(self, name) for name in here], read)
            found |= dict(zip(here, (arrange(self._per_orientation(gate)) for gate in gates), strict=True))
        return [found[name] for name in names]

    def _directed_gates(self, angle: Tensor, source: Tensor, transition: Tensor, mark: Tensor) -> dict[str, Any]:
        """P-mode, in the op's form: everything splits into a share to the right and one down.

        The sum of the two incoming edges is all that a node needs to know, so the op takes one gate for both.
        """
        share = angle[..., None, None]
        source_right, right = share.unsqueeze(-1) * source, share * transition
        if self.config.pmode_complement == "scaled":
            source_down, down = (1.0 - share).unsqueeze(-1) * source, (1.0 - share) * transition
        else:
            source_down, down = 1.0 - source_right, 1.0 - right
        return {
            "mode": "P",
            "source_r": source_right,
            "source_d": source_down,
            "transition_rl": right,
            "transition_du": down,
            "mark_l": mark,
        }

    def check_grid(self, x: Tensor) -> None:
        """Check an input against the config.

        Raises:
            ValueError: if x has another rank or number of features.
        """
        check_features(x, "B X Y D", self.config.input_dim)

    def _begin(self, x: Tensor) -> tuple[GridOperations, Tensor]:
        """Check an input; what runs on it, and what the convolution makes of it."""
        if self.spread is None:
            self.check_grid(x)
        operations = _WHOLE if self.spread is None else self.spread.operations(self, x)
        return operations, x if self.convolution is None else operations.convolve(self.convolution, x)


@register(pLSTM2DLayerFusedConfig)
class pLSTM2DLayerFused(_GridLayer):
    """Multi-head pLSTM over a grid from all four corners at once (paper eq. 5, 6 and 10).

    P-mode: with the angle alpha = sigmoid(orientation_bias + c (orientation_weight . x) / D) per head and orientation,
    S_r = alpha s, S_d = (1 - alpha) s, T_rl = T_ru = alpha t, T_du = T_dl = (1 - alpha) t, and one mark.
    `pmode_complement="original"` has S_d = 1 - alpha s and T_du = T_dl = 1 - alpha t, which is not bounded.
    D-mode: gates of their own for each direction, and one mixed transition: down into right for chirality "L", right
    into down for "R".

    out = outprojection(norm(sum over orientations)) + passthrough. `convolution_inputs` says by the letters S T M D Q
    K V P and O (angle) which parts read the convolved input. Works at any resolution.

    Submodules: `convolution`, `query`, `key`, `value_`, `direct`, `mhnorm`, `outprojection`, `passthrough`; in P-mode
    `source`, `transition`, `mark`; in D-mode `source_r`, `source_d`, `transition_r`, `transition_d`, `transition_rd`,
    `mark_l`, `mark_u`. The gates have 4 H heads, index 4 h + o; o & 1 flips X, o & 2 flips Y.
    Parameters: in P-mode `orientation_bias` [H, 4], `orientation_weight` [H, 4, D].

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> layer = plstm_torch.build(plstm_config.pLSTM2DLayerFusedConfig(input_dim=16, num_heads=2))
        >>> layer(torch.rand(2, 9, 14, 16)).shape  # one pass for all four orientations
        torch.Size([2, 9, 14, 16])
    """

    config: pLSTM2DLayerFusedConfig

    def forward(self, x: Float[Tensor, "B X Y D"]) -> Float[Tensor, "B X Y D"]:
        """Process whole grids.

        Args:
            x: inputs [B, X, Y, input_dim] of any floating dtype and any size.

        Returns:
            Output [B, X, Y, output_dim] in the dtype of x.

        Raises:
            ValueError: if x has another rank or number of features.
        """
        operations, convolved = self._begin(x)
        query, key, value = self._query_key_value(x, convolved)
        direct = self.direct(self._pick("D", x, convolved))
        gates = self._gates(x, convolved, lambda gate: gate.flatten(0, 1))
        with without_autocast(x):
            output: Tensor = operations.plstm_2d_oriented(
                query=merge_heads(query, _GRID_AXES),
                key=merge_heads(key, _GRID_AXES),
                value=merge_heads(value, _GRID_AXES),
                direct=merge_heads(direct, _GRID_AXES),
                implementation=self.config.implementation,
                **gates,
            )
        heads = output.unflatten(0, (x.shape[0], self.num_heads)).flatten(-2)
        return self._project(normalize_heads(self.mhnorm, heads), x, convolved)


@register(pLSTM2DLayerConfig)
class pLSTM2DLayer(_GridLayer):
    """Multi-head pLSTM over a grid with any list of orientations, each normalised by itself (paper eq. 5, 6 and 10).

    The gates are those of `pLSTM2DLayerFused`, with one set of heads per entry
    of `orientation_combinations` (index h * O + o). Each orientation's output, its direct term included, goes through
    the norm; out = outprojection(mean over orientations) + passthrough.

    Submodules and parameters: as in the fused layer, with O in place of 4.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> layer = plstm_torch.build(plstm_config.pLSTM2DLayerConfig(input_dim=16, num_heads=2, mode="P"))
        >>> layer(torch.rand(2, 9, 14, 16)).shape  # grids of any sides
        torch.Size([2, 9, 14, 16])
    """

    config: pLSTM2DLayerConfig

    def _flip(self, tensor: Tensor) -> Tensor:
        """Turn [B, H, O, X, Y, ...] so that each orientation runs right and down; its own inverse."""
        flipped = []
        for grid, orientation in zip(tensor.unbind(2), self.orientations, strict=True):
            axes = [axis for bit, axis in ((1, _X_AXIS), (2, _Y_AXIS)) if orientation & bit]
            flipped.append(grid.flip(axes) if axes else grid)
        return stack(flipped, dim=2)

    def _turn(self, tensor: Tensor) -> Tensor:
        return self._flip(tensor).flatten(0, 2)

    def _repeat(self, tensor: Tensor) -> Tensor:
        """From [B, X, Y, H, ...] to turned copies for all orientations."""
        tensor = tensor.movedim(1 + _GRID_AXES, 1).unsqueeze(2)
        return self._turn(tensor.expand(-1, -1, len(self.orientations), *tensor.shape[3:]))

    def forward(self, x: Float[Tensor, "B X Y D"]) -> Float[Tensor, "B X Y D"]:
        """Process whole grids.

        Args:
            x: inputs [B, X, Y, input_dim] of any floating dtype and any size.

        Returns:
            Output [B, X, Y, output_dim] in the dtype of x.

        Raises:
            ValueError: if x has another rank or number of features.
        """
        operations, convolved = self._begin(x)
        query, key, value = self._query_key_value(x, convolved)
        direct = self.direct(self._pick("D", x, convolved))
        gates = self._gates(x, convolved, self._turn)
        with without_autocast(x):
            output: Tensor = operations.plstm_2d(
                self.orientations,
                query=self._repeat(query),
                key=self._repeat(key),
                value=self._repeat(value),
                direct=self._repeat(direct),
                implementation=self.config.implementation,
                **gates,
            )
        heads = self._flip(output.unflatten(0, (x.shape[0], self.num_heads, len(self.orientations)))).flatten(-2)
        return self._project(normalize_heads(self.mhnorm, heads).mean(2), x, convolved)
