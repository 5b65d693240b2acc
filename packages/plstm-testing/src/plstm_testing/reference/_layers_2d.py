"""The pLSTM layers on grids: four orientations summed, or any list of them averaged."""

from typing import Any

import numpy as np

from plstm_config import pLSTM2DLayerConfig, pLSTM2DLayerFusedConfig

from ._activations import activation
from ._contractions import Array
from ._interaction import Reading, finish, merge, normalize_heads, split
from ._modules import Module, pointwise
from ._plstm_2d import plstm_2d
from ._plstm_2d_oriented import plstm_2d_oriented, turn

Gates = dict[str, Any]


@pointwise(pLSTM2DLayerFusedConfig)
def layer_2d_fused(module: Module, x: Array) -> Array:
    """The sum over the four orientations, then norm, projection and passthrough."""
    reading = _read(module, x)
    gates: Gates = {name: merge(gate) for name, gate in _gates(reading).items()}
    projections: Gates = {name: merge(array) for name, array in reading.projections().items()}
    output: Any = plstm_2d_oriented(**projections, **gates)
    return finish(reading, normalize_heads(module, split(output, module.config.num_heads)))


@pointwise(pLSTM2DLayerConfig)
def layer_2d(module: Module, x: Array) -> Array:
    """Every orientation with a direct term and a norm of its own, their mean, then projection and passthrough."""
    reading = _read(module, x)
    projections = {name: merge(array) for name, array in reading.projections().items()}
    normed = []
    for place, orientation in enumerate(module.config.orientation_combinations):
        gates = {name: merge(gate[:, :, place]) for name, gate in _gates(reading).items()}
        turned: Gates = {name: turn(array, orientation) for name, array in (projections | gates).items()}
        output = turn(np.asarray(plstm_2d(**turned)), orientation)
        normed.append(normalize_heads(module, split(output, module.config.num_heads)))
    return finish(reading, np.mean(normed, axis=0))


def _read(module: Module, x: Array) -> Reading:
    return Reading(module, x, module.apply_part("convolution", x))


def _gates(reading: Reading) -> Gates:
    """The gates by the op's names, [B, H, O, X, Y, ...] each."""
    return _directed_gates(reading) if reading.module.config.mode == "P" else _diffusive_gates(reading)


def _directed_gates(reading: Reading) -> Gates:
    """P-mode: the angle says which share of everything goes right; the rest goes down.

    The research code's complement is one minus the share that goes right, also for the entries of matrices.
    """
    right = _angle(reading)[..., None, None]
    source, transition, mark = (
        _oriented(reading, name, letter) for name, letter in (("source", "S"), ("transition", "T"), ("mark", "M"))
    )
    source_r, transition_r = right[..., None] * source, right * transition
    if reading.module.config.pmode_complement == "original":
        source_d, transition_d = 1.0 - source_r, 1.0 - transition_r
    else:
        source_d, transition_d = (1.0 - right)[..., None] * source, (1.0 - right) * transition
    sources = {"source_r": source_r, "source_d": source_d, "mark_l": mark, "mark_u": mark}
    to_right = dict.fromkeys(("transition_rl", "transition_ru"), transition_r)
    return sources | to_right | dict.fromkeys(("transition_du", "transition_dl"), transition_d)


def _angle(reading: Reading) -> Array:
    """``alpha = sigmoid(bias + c (weight . x) / D)``, the share to the right [B, H, O, X, Y]."""
    module, config = reading.module, reading.module.config
    z = np.einsum("bxyd,hod->bhoxy", reading.read("O"), module["orientation_weight"])
    bias = module["orientation_bias"][:, :, None, None]
    return activation("sigmoid", bias + config.pmode_orientation_scale * z / config.input_dim)


def _diffusive_gates(reading: Reading) -> Gates:
    """D-mode: gates for each direction, and one way from one direction into the other."""
    across = {"L": "transition_ru", "R": "transition_dl"}[reading.module.config.dmode_chirality]
    names = {
        "source_r": ("source_r", "S"),
        "source_d": ("source_d", "S"),
        "transition_rl": ("transition_r", "T"),
        "transition_du": ("transition_d", "T"),
        across: ("transition_rd", "T"),
        "mark_l": ("mark_l", "M"),
        "mark_u": ("mark_u", "M"),
    }
    return {argument: _oriented(reading, *part) for argument, part in names.items()}


def _oriented(reading: Reading, name: str, letter: str) -> Array:
    """A gate with heads h * O + o as [B, H, O, X, Y, ...]."""
    gate, config = reading.part(name, letter), reading.module.config
    return gate.reshape(gate.shape[0], config.num_heads, config.num_orientations, *gate.shape[2:])
