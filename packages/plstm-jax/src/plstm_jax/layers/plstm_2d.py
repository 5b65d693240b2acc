"""The pLSTM layers on grids: all four orientations in one operation, or any list of orientations one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plstm_config import pLSTM2DLayerConfig, pLSTM2DLayerFusedConfig
from plstm_config.checks import check_features
from plstm_config.plstm_2d import GridLayerConfig
from plstm_jax.axes import merge_axes
from plstm_jax.context import Context
from plstm_jax.dtypes import dtype_of, wide
from plstm_jax.formulas import Result, Scope, register
from plstm_jax.layers.interaction import Parts, merge_heads
from plstm_jax.layers.norms import normalize_heads
from plstm_jax.ops import plstm_2d, plstm_2d_oriented

_GRID_AXES = 2
_X_AXIS, _Y_AXIS = 2, 3  # of arrays [B, H, X, Y, ...]
_Arrange = Callable[[Array], Array]


@register(pLSTM2DLayerFusedConfig)
def plstm_2d_layer_fused(config: pLSTM2DLayerFusedConfig, scope: Scope, x: Array, context: Context) -> Result:
    """Multi-head pLSTM over a grid from all four corners at once.

    P-mode: with the angle alpha = sigmoid(orientation_bias + c (orientation_weight . x) / D) per head and orientation,
    S_r = alpha s, S_d = (1 - alpha) s, T_rl = T_ru = alpha t, T_du = T_dl = (1 - alpha) t, and one mark.
    `pmode_complement="original"` has S_d = 1 - alpha s and T_du = T_dl = 1 - alpha t, which is not bounded.
    D-mode: gates of their own for each direction, and one mixed transition: down into right for chirality "L", right
    into down for "R".

    out = outprojection(norm(sum over orientations)) + passthrough.

    Args:
        config: complete config.
        scope: holds `convolution`, `query`, `key`, `value_`, `direct`, `mhnorm`, `outprojection`, `passthrough`; in
            P-mode `source`, `transition`, `mark`, `orientation_bias` [H, 4], `orientation_weight` [H, 4, D]; in D-mode
            `source_r`, `source_d`, `transition_r`, `transition_d`, `transition_rd`, `mark_l`, `mark_u`.
        x: [B, X, Y, input_dim] of any floating dtype and any size.
        context: nothing is read.

    Returns:
        [B, X, Y, output_dim] in the dtype of x.

    Raises:
        ValueError: if x has another rank or number of features.
    """
    parts = _parts(config, scope, x)
    arguments = merge_heads(parts.query_key_value() | {"direct": parts.read("direct", "D")}, _GRID_AXES)
    gates = _gates(config, scope, parts, lambda gate: merge_axes(gate, 0, 1))
    output: Any = plstm_2d_oriented(**arguments, **gates, implementation=config.implementation)
    heads = merge_axes(output, output.ndim - 2, -1)
    heads = heads.reshape(x.shape[0], config.num_heads, *heads.shape[1:])
    return parts.project(normalize_heads(scope, "mhnorm", config.mhnorm, heads)), {}


@register(pLSTM2DLayerConfig)
def plstm_2d_layer(config: pLSTM2DLayerConfig, scope: Scope, x: Array, context: Context) -> Result:
    """Multi-head pLSTM over a grid with any list of orientations, each normalised by itself.

    The gates are those of `plstm_2d_layer_fused`, with one set of heads per entry of `orientation_combinations`. Each
    orientation's output, its direct term included, goes through the norm; out = outprojection(mean over orientations)
    + passthrough.

    Args:
        config: complete config.
        scope: as in the fused layer, with O in place of 4.
        x: [B, X, Y, input_dim] of any floating dtype and any size.
        context: nothing is read.

    Returns:
        [B, X, Y, output_dim] in the dtype of x.

    Raises:
        ValueError: if x has another rank or number of features.
    """
    parts, orientations = _parts(config, scope, x), config.orientations

    def turn(array: Array) -> Array:
        """From [B, H, O, X, Y, ...] to [B * H * O, X, Y, ...] with every orientation running right and down."""
        return merge_axes(_flip(array, orientations), 0, 2)

    def repeat(array: Array) -> Array:
        """From [B, X, Y, H, ...] to turned copies for all orientations."""
        array = jnp.moveaxis(array, 1 + _GRID_AXES, 1)[:, :, None]
        return turn(jnp.broadcast_to(array, (*array.shape[:2], len(orientations), *array.shape[3:])))

    arguments = parts.query_key_value() | {"direct": parts.read("direct", "D")}
    repeated: dict[str, Any] = {name: repeat(array) for name, array in arguments.items()}
    gates = _gates(config, scope, parts, turn)
    output: Any = plstm_2d(**repeated, **gates, implementation=config.implementation)
    output = merge_axes(output, output.ndim - 2, -1)
    output = output.reshape(x.shape[0], config.num_heads, len(orientations), *output.shape[1:])
    heads = normalize_heads(scope, "mhnorm", config.mhnorm, _flip(output, orientations))
    return parts.project(jnp.mean(heads, axis=2)), {}


def _parts(config: GridLayerConfig, scope: Scope, x: Array) -> Parts:
    check_features(x, "B X Y D", config.input_dim)
    return Parts(config, scope, x, x if config.convolution is None else scope.map("convolution", x))


def _flip(array: Array, orientations: tuple[int, ...]) -> Array:
    """Turn [B, H, O, X, Y, ...] so that each orientation runs right and down; its own inverse."""
    flipped = []
    for index, orientation in enumerate(orientations):
        axes = tuple(axis for bit, axis in ((1, _X_AXIS), (2, _Y_AXIS)) if orientation & bit)
        flipped.append(jnp.flip(array[:, :, index], axes))
    return jnp.stack(flipped, axis=2)


def _gates(config: GridLayerConfig, scope: Scope, parts: Parts, arrange: _Arrange) -> dict[str, Any]:
    """The gates by the op's argument names, each brought from [B, H, O, X, Y, ...] into the op's form."""

    def read(name: str, letter: str) -> Array:
        """From head-major gates [B, X, Y, H * O, ...] to [B, H, O, X, Y, ...]."""
        gate = parts.read(name, letter)
        gate = gate.reshape(*gate.shape[:3], config.num_heads, len(config.orientations), *gate.shape[4:])
        return jnp.moveaxis(gate, (3, 4), (1, 2))

    if config.mode == "P":
        angle = _angle(config, scope, parts.pick("O"))
        gates = {**_directed(config, angle, read("source", "S"), read("transition", "T")), "mark_l": read("mark", "M")}
        return {"mode": "P", **{name: arrange(gate) for name, gate in gates.items()}}
    mixed = "transition_ru" if config.dmode_chirality == "L" else "transition_dl"
    gates = {
        "source_r": read("source_r", "S"),
        "source_d": read("source_d", "S"),
        "transition_rl": read("transition_r", "T"),
        "transition_du": read("transition_d", "T"),
        mixed: read("transition_rd", "T"),
        "mark_l": read("mark_l", "M"),
        "mark_u": read("mark_u", "M"),
    }
    return {name: arrange(gate) for name, gate in gates.items()}


def _angle(config: GridLayerConfig, scope: Scope, x: Array) -> Array:
    """The share alpha in (0, 1) that goes right rather than down: [B, H, O, X, Y]."""
    work, sums = dtype_of(config.dtype), wide(config.dtype)
    weight = scope.need("orientation_weight").astype(work)
    z = jnp.einsum("bxyd,hod->bhoxy", x.astype(work), weight).astype(sums)
    bias = scope.need("orientation_bias").astype(sums)[:, :, None, None]
    return jax.nn.sigmoid(bias + z * (config.pmode_orientation_scale / config.input_dim))


def _directed(config: GridLayerConfig, angle: Array, source: Array, transition: Array) -> dict[str, Array]:
    """P-mode: everything splits into a share to the right and one down.

    The sum of the two incoming edges is all that a node needs to know, so the op takes one gate for both.
    """
    share = angle[..., None, None]
    source_right, right = share[..., None] * source, share * transition
    if config.pmode_complement == "scaled":
        source_down, down = (1.0 - share)[..., None] * source, (1.0 - share) * transition
    else:
        source_down, down = 1.0 - source_right, 1.0 - right
    return {"source_r": source_right, "source_d": source_down, "transition_rl": right, "transition_du": down}
