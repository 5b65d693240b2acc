"""Save and load modules as a folder with `config.json` and `model.safetensors`.

The parameters have the canonical names and shapes that all backends share, so any backend reads what another wrote.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plstm_config.adapting import adapt, check_taken, left_out
from plstm_config.base import Config
from plstm_config.folder import read_folder, read_weights, write_folder
from plstm_config.original import convert_weights, migrate
from plstm_config.parameters import Parameter, parameter_tree
from plstm_config.weights import ArrayInfo, array_infos, check_weights, resizable
from plstm_jax.dtypes import dtype_of
from plstm_jax.formulas import formula_of
from plstm_jax.models.pos_embed import resize_pos_embed
from plstm_jax.parameters import Params, draw_named, flatten, stacked_like, unflatten, unstack_blocks
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
        ValueError: if the parameters are not those of the config, or have no numbers; nothing is written.
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
    named = flatten(params)
    empty = [name for name, array in named.items() if isinstance(array, jax.ShapeDtypeStruct)]
    if empty:
        raise ValueError(f"params: expected numbers, got the shape alone of {empty[0]!r}, as jax.eval_shape makes it")
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
        check_weights(config, array_infos(flatten(jax.eval_shape(unstack_blocks, params))), source="module")
    except ValueError as error:
        error.add_note(
            "Its config does not describe this module, was a part of it replaced? Build it from a changed config "
            "(plstm_config.change) and move the weights"
        )
        raise
    save(config, params, folder, package=package, version=version)


def load(
    folder: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    key: Array | None = None,
) -> tuple[Config, Params]:
    """Read a module's config and weights.

    Values are not looked at: weights that are infinite or NaN are loaded as they are. A positional embedding of another
    grid is interpolated if its config has `allow_interpolation`.

    Args:
        folder: a folder that any backend wrote.
        num_classes: number of outputs of a vision or graph model. Another one than the folder's gives the model a new
            head, drawn as `init` does.
        img_size: size of the images that a vision model is made for, one number or (height, width). The positional
            embedding is resampled once, now; without, it is at every call with images of another size.
        key: for the new head.

    Returns:
        The config, and the parameters in the dtypes that it states (float64 only where x64 is enabled).

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, of another schema version, or the weights do not fit the config; or
            `num_classes` is given for a model without a head for classes, or without the key that a new one needs, or
            `img_size` for one without images.

    Examples:
        >>> import tempfile
        >>> import jax, plstm_config, plstm_jax
        >>> folder = tempfile.mkdtemp() + "/model"
        >>> config = plstm_config.preset("plstm_vis_tiny", num_classes=10, dim=48, num_blocks=1)
        >>> plstm_jax.save(config, plstm_jax.init(config, jax.random.key(0)), folder)
        >>> found, params = plstm_jax.load(folder)
        >>> found == config, params["head"]["weight"].shape
        (True, (10, 192))
        >>> changed, params = plstm_jax.load(folder, num_classes=3, key=jax.random.key(1))
        >>> changed.output_shape, params["head"]["weight"].shape  # another head, drawn anew
        ((3,), (3, 192))
    """
    found, arrays = read_folder(folder)
    config, redrawn = adapt(found, num_classes=num_classes, img_size=img_size)
    try:
        formula_of(config)
    except TypeError as error:
        raise ValueError(f"{folder}: expected a config that this backend can build, got one with {error}") from error
    own = parameter_tree(config)
    taken = _taken(config, own, arrays, source=str(folder), ignore=redrawn)
    if len(taken) < len(own):
        taken |= _drawn_anew({name: item for name, item in own.items() if name not in taken}, num_classes, key)
    return config, unflatten({name: taken[name] for name in own})


def load_weights(
    config: Config, params: Mapping[str, Any], folder: str | os.PathLike[str], *, ignore: Sequence[str] = ()
) -> Params:
    """Take a folder's weights for a module whose parameters there are already.

    A positional embedding of another grid is interpolated (bicubic, no antialiasing) if the config has
    `allow_interpolation`, otherwise it is an error like every other shape that does not fit.

    Args:
        config: config of the module.
        params: its parameters, with stacked blocks or without; their dtypes and places on devices stay.
        folder: a folder that any backend wrote; of its config only the digest is read.
        ignore: names of parts that are left out, such as ``("head",)``: the module keeps its own, if it has them, and
            the folder's are not read. That is how a model for other classes, or without a head, loads a folder.

    Returns:
        The new parameters, of the same structure.

    Raises:
        FileNotFoundError: if the weights file is missing.
        TypeError: if `ignore` is no sequence of names.
        ValueError: if the file is damaged, names or shapes do not fit the module, numbers are too large for its dtypes,
            or neither the folder nor the module has a name that is to be ignored.

    Examples:
        >>> import tempfile
        >>> import jax, plstm_config, plstm_jax
        >>> folder = tempfile.mkdtemp() + "/model"
        >>> config = plstm_config.preset("plstm_vis_tiny", num_classes=10, dim=48, num_blocks=1)
        >>> plstm_jax.save(config, plstm_jax.init(config, jax.random.key(0)), folder)
        >>> features = plstm_config.change(config, {"pooling": "features"})
        >>> params = plstm_jax.init(features, jax.random.key(1))
        >>> params = plstm_jax.load_weights(features, params, folder, ignore=("head",))
    """
    own = flatten(unstack_blocks(params))

    def check(infos: Mapping[str, ArrayInfo], source: str) -> None:
        _check_taken(config, own, infos, source=source, ignore=ignore)

    taken = _taken(config, own, read_weights(folder, check), source=str(folder), ignore=ignore)
    return placed_like(params, stacked_like(params, unflatten(own | taken)))


def without_shared(arrays: Mapping[str, Any], shared: Mapping[str, str], *, source: str) -> dict[str, Any]:
    """Drop what a module holds under another name, if both names have the same numbers.

    Args:
        arrays: arrays by canonical name.
        shared: names that the module shares by hand, and the name under which it holds each.
        source: where the arrays come from, for messages.

    Returns:
        The other arrays.

    Raises:
        ValueError: if one parameter has two values, of which one would win in silence.
    """
    for name, held in shared.items():
        if not np.array_equal(arrays[name], arrays[held], equal_nan=True):
            raise ValueError(
                f"{source}: {name}: expected the values of {held}, since the module shares one parameter for both, "
                "got others"
            )
    return {name: array for name, array in arrays.items() if name not in shared}


def placed_like(held: Any, arrays: Any) -> Any:
    """Put arrays where others were put; those that lie where they were made may go wherever they are used.

    Args:
        held: a tree of the others.
        arrays: the arrays, a tree of the same structure.

    Returns:
        The arrays, spread over devices as the others are.
    """

    def place(own: Any, array: Any) -> Any:
        return jax.device_put(array, own.sharding) if getattr(own, "committed", False) else array

    return jax.tree.map(place, held, arrays)


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
    return config, as_params(config, weights, source="state_dict")


def as_params(config: Config, arrays: Mapping[str, Any], *, source: str = "arrays") -> Params:
    """Parameters of a config from arrays by dotted name.

    Args:
        config: config of the module.
        arrays: its weights.
        source: where they come from, for messages.

    Returns:
        The parameters in the dtypes that the config states.

    Raises:
        ValueError: if they do not fit the config.
    """
    return unflatten(_taken(config, parameter_tree(config), arrays, source=source, ignore=()))


def _check_taken(
    config: Config, own: Mapping[str, Any], infos: Mapping[str, ArrayInfo], *, source: str, ignore: Sequence[str]
) -> list[str]:
    """Check that weights fit parameters, which are rows of the table or arrays; the names of those that are taken."""
    ignored = left_out(ignore, [*own, *infos])
    given = {name: info for name, info in infos.items() if not ignored(name)}
    expected = {name: tuple(item.shape) for name, item in own.items() if not ignored(name)}
    owner = str(getattr(config, "class_name", type(config).__name__))
    check_taken(expected, given, ignore=ignore, owner=owner, source=source, resizable=resizable(config))
    return list(expected)


def _taken(
    config: Config, own: Mapping[str, Any], arrays: Mapping[str, Any], *, source: str, ignore: Sequence[str]
) -> dict[str, Array]:
    """Weights in the dtypes and shapes of the parameters that they are taken for."""
    taken = {}
    for name in _check_taken(config, own, array_infos(arrays), source=source, ignore=ignore):
        item = own[name]
        array = jnp.asarray(_within_range(arrays[name], item.dtype, f"{source}: {name}"), item.dtype)
        # of all shapes only those of positional embeddings may differ
        taken[name] = array if array.shape == item.shape else resize_pos_embed(array, item.shape[1:3])
    return taken


def _drawn_anew(parameters: Mapping[str, Parameter], num_classes: int | None, key: Array | None) -> dict[str, Array]:
    if key is None:
        raise ValueError(
            f"key: expected a key for random numbers, since num_classes={num_classes} asks for a new head, got None"
        )
    return {name: draw_named(item, name, key) for name, item in parameters.items()}


def _within_range(stored: Any, dtype: Any, name: str) -> np.ndarray:
    """Refuse numbers that a dtype has no room for; those that are infinite pass."""
    array, dtype = np.asarray(stored), dtype_of(dtype)
    if jnp.finfo(dtype).max < jnp.finfo(array.dtype).max:
        with np.errstate(over="ignore"):
            lost = np.isfinite(array) & ~np.isfinite(array.astype(dtype))
        if lost.any():
            raise ValueError(f"{name}: expected numbers within the range of {dtype}, got {array[lost][0]}")
    return array
