"""Load configs and weights of the original research project."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plstm_config.original import migrate
from plstm_torch.blocks.residual_pair import ResidualPair
from plstm_torch.build import build
from plstm_torch.layers import pLSTM2DLayer, pLSTM2DLayerFused
from plstm_torch.models.language import pLSTMLMModel
from plstm_torch.pretrained import load_state

_WRAPPERS = ("module.", "_orig_mod.")
_ORIENTED_GATES = (
    "source",
    "source_r",
    "source_d",
    "transition",
    "transition_r",
    "transition_d",
    "transition_rd",
    "mark",
    "mark_l",
    "mark_u",
)


def load_original(mapping: Any, state_dict: Mapping[str, Any]) -> nn.Module:
    """Build a module from a config and weights of the original project.

    Args:
        mapping: The original config: a mapping, or whatever `plstm_config.original.migrate` reads. Any level of the
            tree is welcome: a model, a block, a layer, a gate.
        state_dict: The original torch weights by name: torch tensors or numpy arrays.

    Returns:
        The module with these weights, in evaluation mode.

    Raises:
        ValueError: the config cannot be migrated, names or shapes do not fit, or a layout has no counterpart here.
    """
    module = build(migrate(mapping))
    load_state(module, convert_state_dict(module, state_dict), source="state_dict")
    return module.eval()


def convert_state_dict(module: nn.Module, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Bring original weights into the canonical layout.

    Names stay; only the layouts of 2D layers differ. It is a permutation of numbers, so gradients convert alike.

    Args:
        module: The module that the weights are for.
        state_dict: The original weights by name: torch tensors or numpy arrays.

    Returns:
        Tensors by name.

    Raises:
        TypeError: a value is no array.
        ValueError: a layout has no counterpart here.
    """
    state = {name: _as_tensor(name, value) for name, value in _strip_wrappers(state_dict).items()}
    for name, part in module.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(part, pLSTM2DLayerFused):
            _flat_orientations(state, prefix, part)
        elif isinstance(part, pLSTM2DLayer):
            _head_major(state, prefix, part)
        elif isinstance(part, ResidualPair):
            _drop_unused_scales(state, prefix, part)
        elif isinstance(part, pLSTMLMModel) and part.lm_head is None:
            _drop_tied_head(state, prefix)
    return state


def _strip_wrappers(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the prefixes that DistributedDataParallel and torch.compile put before every name."""
    state = dict(state_dict)
    while True:
        prefix = next((p for p in _WRAPPERS if state and all(name.startswith(p) for name in state)), None)
        if prefix is None:
            return state
        state = {name.removeprefix(prefix): value for name, value in state.items()}


def _as_tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"state_dict[{name!r}]: expected a torch tensor or a numpy array of numbers, got {type(value)}")
    return torch.tensor(array)


def _flat_orientations(state: dict[str, Tensor], prefix: str, layer: pLSTM2DLayerFused) -> None:
    """Fused layer: stored as [4, H], but the flat order of the numbers is head major."""
    heads, orientations = layer.num_heads, len(layer.orientations)
    for name in ("orientation_bias", "orientation_weight"):
        stored = state.get(prefix + name)
        if stored is not None and stored.shape[:2] in ((orientations, heads), (heads, orientations)):
            state[prefix + name] = stored.reshape(heads, orientations, *stored.shape[2:])


def _head_major(state: dict[str, Tensor], prefix: str, layer: pLSTM2DLayer) -> None:
    """Layer with a list of orientations: the gates' heads are orientation major in the original."""
    heads, orientations = layer.num_heads, len(layer.orientations)
    for name in ("orientation_bias", "orientation_weight"):
        stored = state.get(prefix + name)
        if stored is not None and stored.shape[:2] == (orientations, heads):
            state[prefix + name] = stored.transpose(0, 1)
    if heads == 1 or orientations == 1:
        return
    for gate_name, gate in layer.named_children():
        if gate_name not in _ORIENTED_GATES:
            continue
        config: Any = gate.config
        if config.weight and config.sub_heads != 1:
            raise ValueError(
                f"{prefix}{gate_name}: expected sub_heads=1, since the original orders these heads by orientation and "
                f"sub-heads tie heads to slices of the input, got sub_heads={config.sub_heads}"
            )
        for name, _ in gate.named_parameters():
            key = f"{prefix}{gate_name}.{name}"
            if key in state and state[key].shape[:1] == (orientations * heads,):
                by_orientation = state[key].unflatten(0, (orientations, heads))
                state[key] = by_orientation.transpose(0, 1).flatten(0, 1)


def _drop_unused_scales(state: dict[str, Tensor], prefix: str, block: ResidualPair) -> None:
    """Without a skip connection the original holds scales that nothing reads."""
    config: Any = block.config
    if not config.skip:
        for name in ("scale", "scale1", "scale2"):
            state.pop(f"{prefix}{name}.scale", None)


def _drop_tied_head(state: dict[str, Tensor], prefix: str) -> None:
    """A tied head stands in the original's weights a second time."""
    head, table = state.get(f"{prefix}lm_head.weight"), state.get(f"{prefix}token_embedding.weight")
    if head is not None and table is not None:
        if head.shape != table.shape or not torch.equal(head, table):
            raise ValueError(
                f"{prefix}lm_head.weight: expected the values of {prefix}token_embedding.weight , got others"
            )
        del state[f"{prefix}lm_head.weight"]
