"""Save and load modules as a folder with `config.json` and `model.safetensors`, as every backend has them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from flax.linen import meta
from jax import Array

from plstm_config.base import Config
from plstm_jax import pretrained
from plstm_jax.parameters import flatten, unflatten
from plstm_linen.module import Module, build
from plstm_linen.names import from_canonical, to_canonical
from plstm_linen.version import __version__

_PACKAGE = "plstm-linen"
Variables = dict[str, Any]


def save_pretrained(module: Module, variables: Mapping[str, Any], folder: str | os.PathLike[str]) -> None:
    """Write a module's config and weights into a folder, from which any backend reads them, as `plstm_jax.save` does.

    Args:
        module: the module.
        variables: its variables, of which "params" are written: in boxes or bare, with blocks stacked or apart.
        folder: where to write; made if it does not exist.

    Raises:
        TypeError: if the module is none of this package.
        ValueError: if the parameters are missing or not those of the module's config; nothing is written.
        NotADirectoryError: if `folder` is a file.
        OSError: if it cannot be written, because the disk is full, say; the folder stays as it was.
    """
    params = _canonical(module, variables)
    pretrained.save_module(module.config, params, folder, package=_PACKAGE, version=__version__)


def from_pretrained(
    folder: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    key: Array | None = None,
    **options: Any,
) -> tuple[Module, Variables]:
    """Build the module that a folder describes, and read its weights, as `plstm_jax.load` does.

    Args:
        folder: a folder that any backend wrote.
        num_classes: another number of outputs, for which a vision or graph model gets a new head.
        img_size: another size of images for a vision model.
        key: for the new head.
        options: of `build`.

    Returns:
        The module, and its variables in the dtypes that the config states (float64 only where x64 is enabled), bare,
        with blocks stacked if the module scans over them.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged or of another schema version, or weights or options do not fit the config.
    """
    return _made(*pretrained.load(folder, num_classes=num_classes, img_size=img_size, key=key), options)


def load_weights(
    module: Module, variables: Mapping[str, Any], folder: str | os.PathLike[str], *, ignore: Sequence[str] = ()
) -> Variables:
    """Take a folder's weights in place of a module's own, as `plstm_jax.load_weights` does.

    Args:
        module: the module.
        variables: its variables, in boxes or bare; dtypes, boxes and places on devices stay.
        folder: a folder that any backend wrote.
        ignore: names of parts that are left out, such as ``("head",)``.

    Returns:
        The new variables, of the same structure.

    Raises:
        FileNotFoundError: if the weights file is missing.
        TypeError: if the module is none of this package, or `ignore` no sequence of names.
        ValueError: if the file is damaged, or its weights do not fit the module.
    """
    own = _canonical(module, variables)
    found = pretrained.load_weights(module.config, own, folder, ignore=ignore)
    params = from_canonical(module.config, flatten(found), scan_blocks=module.scan_blocks)
    boxed = meta.replace_boxed(variables["params"], params)
    return {**variables, "params": pretrained.placed_like(variables["params"], boxed)}


def load_original(mapping: Any, state_dict: Mapping[str, Any], **options: Any) -> tuple[Module, Variables]:
    """Build a module from a config and weights of the original project.

    Args:
        mapping: the original config of a model, a block, a layer or a gate.
        state_dict: the original weights by name, as arrays.
        options: of `build`.

    Returns:
        The module and its variables.

    Warns:
        MigrationWarning: what the original's output does not depend on was dropped.

    Raises:
        TypeError: if a value of the weights is no array.
        ValueError: if the config cannot be migrated, or the weights do not fit it.
    """
    return _made(*pretrained.load_original(mapping, state_dict), options)


def _canonical(module: Module, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters among a module's variables, as plstm-jax has them."""
    if not isinstance(module, Module):
        raise TypeError(f"module: expected a module made by plstm_linen.build, got {type(module).__name__}")
    if "params" not in variables:
        raise ValueError(f"variables: expected the collection 'params', got {sorted(variables)}")
    return unflatten(to_canonical(variables["params"]))


def _made(config: Config, params: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Module, Variables]:
    module = build(config, **options)
    return module, {"params": from_canonical(config, flatten(params), scan_blocks=module.scan_blocks)}
