"""Save and load modules as a folder with `config.json` and `model.safetensors`, which all backends read and write."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx

from plstm_config.base import Config
from plstm_config.parameters import parameter_tree
from plstm_jax import pretrained
from plstm_jax.parameters import flatten, unflatten, unstack_blocks
from plstm_nnx.module import Fixed, Module, build
from plstm_nnx.version import __version__

_PACKAGE = "plstm-nnx"


def get_params(module: nnx.Module) -> dict[str, Any]:
    """The parameters of a module as plstm-jax takes them, for `plstm_jax.apply` of the module's config, say.

    Args:
        module: a module, or what `nnx.state` or a gradient has of it.

    Returns:
        Arrays in nested dicts by canonical names, the blocks of a stack under "0", "1", ..., however they are held.
    """
    return unstack_blocks(unflatten(_all(module)))


def save_pretrained(module: nnx.Module, folder: str | os.PathLike[str]) -> None:
    """Write a module's config and weights into a folder; parameters tied by hand under each of their names.

    Args:
        module: anything that `build` made.
        folder: where to write; made if it does not exist.

    Raises:
        TypeError: the module does not carry a config of plstm_config.
        ValueError: the module has other parameters than its config says, since a part was replaced by hand.
        NotADirectoryError: `folder` is a file.
        OSError: the folder cannot be written, because the disk is full, say; it stays as it was.
    """
    pretrained.save_module(_config_of(module), unflatten(_all(module)), folder, package=_PACKAGE, version=__version__)


def from_pretrained(
    folder: str | os.PathLike[str],
    *,
    rngs: nnx.Rngs | None = None,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> Any:
    """Build the module that a folder describes and give it the folder's weights.

    Args:
        folder: a folder written by any backend.
        rngs: streams for dropped paths, in case that training goes on, and for a new head; None: `nnx.Rngs(0)`.
        num_classes: number of outputs of a vision or graph model; another one than the folder's gives it a new head.
        img_size: size of the images that a vision model is made for, see `plstm_jax.load`.
        options: `scan_blocks` and `remat` as in `build`.

    Returns:
        The module, in evaluation mode, with weights in the dtypes of its config (float64 only where x64 is enabled).

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or of another schema version, or weights or options do not fit the config.
    """
    rngs = nnx.Rngs(0) if rngs is None else rngs
    key = None if num_classes is None else rngs.params()
    loaded = pretrained.load(folder, num_classes=num_classes, img_size=img_size, key=key)
    return _made(*loaded, rngs=rngs, **options)


def load_weights(module: nnx.Module, folder: str | os.PathLike[str], *, ignore: Sequence[str] = ()) -> None:
    """Copy a folder's weights into an existing module, as `plstm_jax.load_weights` does.

    Args:
        module: a module that `build` made; its dtypes and places on devices stay.
        folder: a folder written by any backend.
        ignore: names of parts that are left out, such as ``("head",)``; they may have been replaced by hand.

    Raises:
        FileNotFoundError: the weights file is missing.
        TypeError: the module does not carry a config of plstm_config, or `ignore` is no sequence of names.
        ValueError: the file is damaged, or its weights do not fit the module, which keeps its own. Parameters that the
            module shares by hand must have one value in the folder.
    """
    config, (state, held) = _config_of(module), _held(module)
    loaded = flatten(pretrained.load_weights(config, unflatten(_all(module)), folder, ignore=ignore))
    loaded = pretrained.without_shared(loaded, _tied(module, held), source=str(folder))
    nnx.replace_by_pure_dict(state, unflatten(loaded))
    nnx.update(module, state)


def load_original(mapping: Any, state_dict: Mapping[str, Any], *, rngs: nnx.Rngs | None = None, **options: Any) -> Any:
    """Build a module from a config and weights of the original project, as `plstm_jax.load_original` does.

    Args:
        mapping: the original config of a model, a block, a layer or a gate.
        state_dict: the original weights by name, as arrays.
        rngs: streams for dropped paths, as in `from_pretrained`.
        options: `scan_blocks` and `remat`, as there.

    Returns:
        The module with these weights, in evaluation mode.

    Warns:
        MigrationWarning: what the original's output does not depend on was dropped.

    Raises:
        TypeError: a value of the weights is no array.
        ValueError: the config cannot be migrated, or the weights do not fit it.
    """
    return _made(*pretrained.load_original(mapping, state_dict), rngs=rngs, **options)


def _config_of(module: Any) -> Config:
    if not isinstance(module, Module) or not isinstance(module.config, Config):
        raise TypeError(f"module: expected a module made by plstm_nnx.build, got {type(module).__name__}")
    return module.config


def _held(module: Any) -> tuple[Any, dict[str, Any]]:
    """The state of a module's parameters, and their arrays by canonical names, the blocks of a stack as held."""
    state = nnx.state(module, (nnx.Param, Fixed))
    return state, {".".join(map(str, path)): variable.get_value() for path, variable in nnx.to_flat_state(state)}


def _all(module: Any) -> dict[str, Any]:
    """The same arrays, with those that the module shares by hand under each of their names."""
    _, held = _held(module)
    return held | {name: held[other] for name, other in _tied(module, held).items()}


def _tied(module: Any, held: Mapping[str, Any]) -> dict[str, str]:
    """Names of the config's parameters that flax leaves out, since it holds them under another one, which follows."""
    if not isinstance(module, Module):
        return {}
    found = {name: _variable(module, name) for name in parameter_tree(module.config)}
    names = {id(one): name for name, one in found.items() if name in held}
    return {name: names[id(one)] for name, one in found.items() if name not in held and id(one) in names}


def _variable(node: Any, name: str) -> Any:
    """The parameter of a module under a canonical name, None if it is not there."""
    for part in name.split("."):
        inside = isinstance(node, Sequence) and part.isdigit() and int(part) < len(node)
        node = node[int(part)] if inside else getattr(node, part, None)
    return node


def _made(config: Config, params: Mapping[str, Any], *, rngs: nnx.Rngs | None, **options: Any) -> Module:
    module: Module = build(config, rngs=nnx.Rngs(0) if rngs is None else rngs, params=params, **options)
    module.eval()
    return module
