"""Save and load modules as a folder with `config.json` and `model.safetensors`.

The parameters have the canonical names and shapes that all backends share, so any backend reads what another wrote.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from plstm_config import PosEmbed2DConfig
from plstm_config.base import Config
from plstm_config.folder import read_folder, write_folder
from plstm_config.original import convert_weights, migrate
from plstm_config.parameters import named_configs, parameter_tree
from plstm_config.weights import array_infos, check_weights
from plstm_jax.models.pos_embed import resize_pos_embed
from plstm_jax.parameters import Params, flatten, unflatten, unstack_blocks
from plstm_jax.version import __version__

_PACKAGE = "plstm-jax"


def save(
    config: Config,
    params: Mapping[str, Any],
    folder: str | os.PathLike[str],
    *,
    package: str = _PACKAGE,
    version: str = __version__,
) -> None:
    """Write a module's config and weights into a folder, from which any backend reads them.

    The files replace others of their names both or not at all, whenever the process ends; other files stay.

    Args:
        config: config of the module.
        params: its parameters, with stacked blocks or without.
        folder: where to write; made if it does not exist.
        package: name of the distribution that writes.
        version: and its version.

    Raises:
        TypeError: if `config` is no config.
        ValueError: if the parameters are not those of the config; nothing is written.
        NotADirectoryError: if `folder` is a file.
        OSError: if it cannot be written, because the disk is full, say; the folder stays as it was.

    Examples:
        >>> import os, tempfile
        >>> import jax, plstm_config, plstm_jax
        >>> config, folder = plstm_config.LinearConfig(input_dim=4, output_dim=2), tempfile.mkdtemp() + "/model"
        >>> plstm_jax.save(config, plstm_jax.init(config, jax.random.key(0)), folder)
        >>> sorted(os.listdir(folder))
        ['config.json', 'model.safetensors']
    """
    arrays = {name: np.asarray(array) for name, array in flatten(unstack_blocks(params)).items()}
    write_folder(folder, config, arrays, package=package, version=version)


def save_module(
    config: Config, params: Mapping[str, Any], folder: str | os.PathLike[str], *, package: str, version: str
) -> None:
    """What `save_pretrained` of every library of modules comes down to.

    Args:
        config: config of the module.
        params: what the module holds, nested, with stacked blocks or without.
        folder: where to write.
        package: name of the distribution that writes.
        version: and its version.

    Raises:
        ValueError: if the module has other parameters than its config says; nothing is written.
        OSError: see `save`.
    """
    try:
        check_weights(config, array_infos(flatten(unstack_blocks(params))), source="module")
    except ValueError as error:
        error.add_note(
            "Its config does not describe this module, was a part of it replaced? Build it from a changed config "
            "(plstm_config.change) and move the weights"
        )
        raise
    save(config, params, folder, package=package, version=version)


def load(folder: str | os.PathLike[str]) -> tuple[Config, Params]:
    """Read a module's config and weights.

    Values are not looked at: weights that are infinite or NaN are loaded as they are. A positional embedding of another
    grid is interpolated if its config has `allow_interpolation`.

    Args:
        folder: a folder that any backend wrote.

    Returns:
        The config, and the parameters in the dtypes that it states (float64 only where x64 is enabled).

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, of another schema version, or the weights do not fit the config.

    Examples:
        >>> import tempfile
        >>> import jax, plstm_config, plstm_jax
        >>> config, folder = plstm_config.LinearConfig(input_dim=4, output_dim=2), tempfile.mkdtemp() + "/model"
        >>> plstm_jax.save(config, plstm_jax.init(config, jax.random.key(0)), folder)
        >>> found, params = plstm_jax.load(folder)
        >>> found == config, params["weight"].shape
        (True, (2, 4))
    """
    config, arrays = read_folder(folder)
    return config, as_params(config, arrays)


def load_original(mapping: Any, state_dict: Mapping[str, Any]) -> tuple[Config, Params]:
    """Read a config and weights of the original project.

    Args:
        mapping: the original config: a mapping, or whatever `plstm_config.original.migrate` reads. Any level of the
            tree is welcome: a model, a block, a layer, a gate.
        state_dict: the original weights by name, as arrays.

    Returns:
        The config and the parameters.

    Warns:
        MigrationWarning: options or weights were dropped, since the original's output does not depend on them.

    Raises:
        TypeError: if a value of the weights is no array.
        ValueError: if the config cannot be migrated, names or shapes do not fit, or a layout has no counterpart here.

    Examples:
        >>> import numpy as np, plstm_jax
        >>> original = {"config_class": "RMSNormConfig", "input_dim": 4}
        >>> config, params = plstm_jax.load_original(original, {"scale": np.full(4, 2.0, np.float32)})
        >>> config.class_name, params["scale"].tolist()
        ('RMSNorm', [2.0, 2.0, 2.0, 2.0])
    """
    config = migrate(mapping)
    weights = convert_weights(config, state_dict, source="state_dict")
    check_weights(config, array_infos(weights), source="state_dict")
    return config, as_params(config, weights)


def as_params(config: Config, arrays: Mapping[str, Any]) -> Params:
    """Parameters of a config from arrays by dotted name.

    Args:
        config: config of the module.
        arrays: its weights, checked before.

    Returns:
        The parameters in the dtypes that the config states.
    """
    loaded = {name: jnp.asarray(arrays[name], item.dtype) for name, item in parameter_tree(config).items()}
    for name, part in named_configs(config):
        if isinstance(part, PosEmbed2DConfig) and part.seqlens is not None:
            place = f"{name}.embed" if name else "embed"
            loaded[place] = resize_pos_embed(loaded[place], part.seqlens)
    return unflatten(loaded)
