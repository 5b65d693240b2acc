"""Random parameters of any config, in float64, by the names of the saved files."""

import math

import numpy as np

from plstm_config import parameter_tree
from plstm_config.base import Config

Array = np.ndarray


def random_parameters(config: Config, random: np.random.Generator) -> dict[str, Array]:
    """Draw every parameter so that nothing hides behind a constant start, and features keep their size.

    Entries are normal: around one for scales, and of a variance that falls with the number of inputs for weights. The
    initialisers of the config have no say.

    Args:
        config: complete config of any module.
        random: where the numbers come from.

    Returns:
        float64 arrays by dotted name, shaped as `plstm_config.parameter_tree(config)` says.

    Raises:
        TypeError: if `config` is no config.
        ValueError: if it leaves a size open.

    Examples:
        >>> import numpy as np, plstm_config
        >>> from plstm_testing.parameters import random_parameters
        >>> config = plstm_config.LinearConfig(input_dim=2, output_dim=3)
        >>> {name: array.shape for name, array in random_parameters(config, np.random.default_rng(0)).items()}
        {'weight': (3, 2), 'bias': (3,)}
    """
    return {name: _draw(name, parameter.shape, random) for name, parameter in parameter_tree(config).items()}


def _draw(name: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    normal = random.standard_normal(shape)
    last = name.rpartition(".")[2]
    if last == "scale":
        return 1.0 + 0.3 * normal
    if not last.endswith("weight"):
        return 0.5 * normal
    if "conv." in name or name.endswith("patch_embed.proj.weight") or name == "proj.weight":
        return normal / math.sqrt(math.prod(shape[1:]))  # a kernel, summed over all axes but the first
    return normal / math.sqrt(max(1, shape[-1]))
