"""Weights of the original research project in the canonical layout."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from plstm_config.base import Config
from plstm_config.blocks import ResidualPairConfig
from plstm_config.gates import GateLayerConfig
from plstm_config.models import pLSTMLMModelConfig
from plstm_config.original.configs import MigrationWarning
from plstm_config.parameters import check_config, join, named_configs
from plstm_config.plstm_2d import GridLayerConfig, pLSTM2DLayerConfig, pLSTM2DLayerFusedConfig
from plstm_config.transition import LongRangeTransitionLayerConfig
from plstm_config.weights import array_infos, check_weights, count_arrays

Arrays = dict[str, np.ndarray]
_WRAPPERS = ("module.", "_orig_mod.")
_ORIENTED_GATES = frozenset(
    {
        "source", "source_r", "source_d", "transition", "transition_r", "transition_d", "transition_rd",
        "mark", "mark_l", "mark_u",
    }
)  # fmt: skip


def convert_weights(config: Config, arrays: Mapping[str, Any], *, source: str = "arrays") -> Arrays:
    """Bring original weights into the canonical layout.

    Names stay; only the layouts of grid layers differ. It is a permutation of numbers, so gradients convert alike.

    Args:
        config: the migrated config that the weights are for.
        arrays: the original weights by name, with the prefixes of wrappers or without.
        source: name of the argument that they come from, for messages.

    Returns:
        Arrays by name. Whether they fit the config is the next question, see
        `check_weights`.

    Warns:
        MigrationWarning: once, with a list of the weights that were dropped: those that the original holds although
            nothing reads them (of gates and transitions without an input, scales without a skip connection).

    Raises:
        TypeError: if `config` is no config, or a value is no array of numbers.
        ValueError: if there are fewer arrays than the config asks for, a layout has no counterpart here, or a tied
            head has other values than its table.

    Examples:
        >>> import numpy as np
        >>> from plstm_config.original import convert_weights, migrate
        >>> config = migrate({"config_class": "RMSNormConfig", "input_dim": 4})
        >>> {name: array.shape for name, array in convert_weights(config, {"scale": np.ones(4, np.float32)}).items()}
        {'scale': (4,)}
    """
    check_config(config)
    state = {name: _as_array(f"{source}[{name!r}]", value) for name, value in _without_wrappers(arrays).items()}
    if count_arrays(config) > len(state):  # before a walk through as many modules as the config names
        check_weights(config, array_infos(state), source=source)
    dropped: list[str] = []
    for name, part in named_configs(config):
        dropped += [unread for unread in _unread(name, part) if state.pop(unread, None) is not None]
        if isinstance(part, pLSTM2DLayerFusedConfig):
            _flat_orientations(state, name, part)
        elif isinstance(part, pLSTM2DLayerConfig):
            _head_major(state, name, part)
        elif isinstance(part, pLSTMLMModelConfig) and part.tie_weights:
            _drop_tied_head(state, name)
    if dropped:
        names = ", ".join(map(repr, dropped))
        warnings.warn(f"dropped weights without effect on the output: {names}", MigrationWarning, stacklevel=2)
    return state


def _without_wrappers(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the prefixes that wrappers for data parallelism and compilation put before every name."""
    state = dict(arrays)
    while True:
        prefix = next((p for p in _WRAPPERS if state and all(name.startswith(p) for name in state)), None)
        if prefix is None:
            return state
        state = {name.removeprefix(prefix): value for name, value in state.items()}


def _as_array(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    # "V": the types of ml_dtypes, such as bfloat16
    if array.dtype.kind not in "fiub" and not (array.dtype.kind == "V" and array.dtype.name == "bfloat16"):
        raise TypeError(f"{name}: expected an array of numbers, got {type(value).__name__}")
    return array


def _unread(name: str, part: Config) -> Iterator[str]:
    """Names of weights that the original makes for a module although its forward pass reads none of them."""
    if isinstance(part, GateLayerConfig) and not part.weight:
        yield join(name, "weight")
    elif isinstance(part, LongRangeTransitionLayerConfig) and not part.weight:
        yield from (join(name, f"{matrix}_weight") for matrix in ("eigenvalues", "inproj", "outproj"))
    elif isinstance(part, ResidualPairConfig) and not part.skip:
        yield from (join(name, f"{scale}.scale") for scale in ("scale", "scale1", "scale2"))


def _flat_orientations(state: Arrays, name: str, layer: GridLayerConfig) -> None:
    """Fused layer: stored as [4, H], but the flat order of the numbers is head major."""
    heads, orientations = layer.num_heads, layer.num_orientations
    for key in (join(name, "orientation_bias"), join(name, "orientation_weight")):
        stored = state.get(key)
        if stored is not None and stored.shape[:2] in ((orientations, heads), (heads, orientations)):
            state[key] = stored.reshape(heads, orientations, *stored.shape[2:])


def _head_major(state: Arrays, name: str, layer: GridLayerConfig) -> None:
    """Layer with a list of orientations: the gates' heads are orientation major in the original."""
    heads, orientations = layer.num_heads, layer.num_orientations
    for key in (join(name, "orientation_bias"), join(name, "orientation_weight")):
        stored = state.get(key)
        if stored is not None and stored.shape[:2] == (orientations, heads):
            state[key] = np.swapaxes(stored, 0, 1)  # [O, H, ...] -> [H, O, ...]
    if heads == 1 or orientations == 1:
        return
    for gate_name, gate in layer.children().items():
        if gate_name not in _ORIENTED_GATES or not isinstance(gate, GateLayerConfig | LongRangeTransitionLayerConfig):
            continue
        path = join(name, gate_name)
        if gate.weight and gate.sub_heads != 1:
            raise ValueError(
                f"{path}: expected sub_heads=1, since the original orders these heads by orientation and "
                f"sub-heads tie heads to slices of the input, got sub_heads={gate.sub_heads}"
            )
        for key in (join(path, own) for own in gate.parameters()):
            if key in state and state[key].shape[:1] == (orientations * heads,):
                by_orientation = state[key].reshape(orientations, heads, *state[key].shape[1:])
                state[key] = np.swapaxes(by_orientation, 0, 1).reshape(state[key].shape)


def _drop_tied_head(state: Arrays, name: str) -> None:
    """A tied head stands in the original's weights a second time."""
    head, table = join(name, "lm_head.weight"), join(name, "token_embedding.weight")
    if head in state and table in state:
        if not np.array_equal(state[head], state[table]):
            raise ValueError(f"{head}: expected the values of {table}, got others")
        del state[head]
