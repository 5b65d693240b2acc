"""Load configs and weights of the original research project."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from plstm_config.original import convert_weights, migrate
from plstm_config.weights import array_infos, check_weights
from plstm_torch.arrays import as_array
from plstm_torch.build import build
from plstm_torch.pretrained import load_arrays


def load_original(mapping: Any, state_dict: Mapping[str, Any]) -> nn.Module:
    """Build a module from a config and weights of the original project.

    Args:
        mapping: the original config: a mapping, or whatever `plstm_config.original.migrate` reads. Any level of the
            tree is welcome: a model, a block, a layer, a gate.
        state_dict: the original torch weights by name: torch tensors or numpy arrays.

    Returns:
        The module with these weights, in evaluation mode.

    Warns:
        MigrationWarning: Options or weights were dropped, since the original's output does not depend on them.

    Raises:
        TypeError: a value of the weights is no array.
        ValueError: the config cannot be migrated, names or shapes do not fit, or a layout has no counterpart here.

    Examples:
        >>> import plstm_torch, torch
        >>> original = {"config_class": "RMSNormConfig", "input_dim": 4}
        >>> plstm_torch.load_original(original, {"scale": torch.full((4,), 2.0)}).scale.tolist()
        [2.0, 2.0, 2.0, 2.0]
    """
    config = migrate(mapping)
    arrays = {name: as_array(value) if isinstance(value, Tensor) else value for name, value in state_dict.items()}
    weights = convert_weights(config, arrays, source="state_dict")
    check_weights(config, array_infos(weights), source="state_dict")  # before anything of their size is made
    module = build(config)
    load_arrays(module, weights, source="state_dict")
    return module.eval()
