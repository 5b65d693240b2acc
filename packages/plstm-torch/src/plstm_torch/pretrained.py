"""Save and load modules as a folder with `config.json` and `model.safetensors`.

The parameters have the canonical names and shapes that all backends share, so any backend reads what another wrote.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import plstm_config
from plstm_config.adapting import adapt, check_taken, left_out
from plstm_config.folder import read_folder, read_weights, write_folder
from plstm_config.weights import ArrayInfo, accepts_shape, array_infos, check_weights
from plstm_torch.arrays import as_array, as_tensor, distributed_like
from plstm_torch.build import build
from plstm_torch.models.pos_embed import PosEmbed2D
from plstm_torch.version import __version__

_PACKAGE = "plstm-torch"
_WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # names of what a wrapper holds


def save_pretrained(module: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Write a module's config and weights into a folder.

    The files replace others of their names both or not at all, whenever the process ends; other files stay. Names are
    those of the bare modules, also where parts are compiled or wrapped. Parameters that were tied by hand are written
    under each of their names, so that the config's module, in which they are apart, has the same outputs.

    Args:
        module: anything that `build` made, also wrapped by DistributedDataParallel or torch.compile, or sharded by
            `fully_shard`. Sharded modules are gathered: all processes call this, and all write the same.
        folder: where to write; made if it does not exist.

    Raises:
        TypeError: the module does not carry a config of plstm_config.
        ValueError: the module has other parameters than its config says, since a part was replaced by hand.
        NotADirectoryError: `folder` is a file.
        OSError: the folder cannot be written, because the disk is full, say; it stays as it was.

    Examples:
        >>> import os, tempfile
        >>> import plstm_config, plstm_torch
        >>> layer = plstm_torch.build(plstm_config.pLSTM1DLayerConfig(input_dim=8, num_heads=2))
        >>> folder = os.path.join(tempfile.mkdtemp(), "my_layer")
        >>> plstm_torch.save_pretrained(layer, folder)
        >>> sorted(os.listdir(folder))
        ['config.json', 'model.safetensors']
    """
    bare = _unwrap(module)
    config = getattr(bare, "config", None)
    if not isinstance(bare, nn.Module) or not isinstance(config, plstm_config.Config):
        raise TypeError(f"module: expected a module made by plstm_torch.build, got {type(bare).__name__}")
    state = {_canonical(bare, name): tensor for name, tensor in bare.state_dict(keep_vars=True).items()}
    try:
        check_weights(config, array_infos(state), source="module")
    except ValueError as error:
        error.add_note(
            "Its config does not describe this module, was a part of it replaced? Build it from a changed config "
            "(plstm_config.change) and move the weights, or keep its state_dict() with torch.save"
        )
        raise
    arrays = {name: as_array(tensor) for name, tensor in state.items()}
    write_folder(folder, config, arrays, package=_PACKAGE, version=__version__)


def from_pretrained(
    folder: str | os.PathLike[str],
    device: torch.device | str | None = None,
    *,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
) -> nn.Module:
    """Build the module that a folder describes and give it the folder's weights.

    Nothing of the size that the config asks for is allocated before the weights were found to have it. Values are not
    looked at: weights that are infinite or NaN are loaded as they are.

    Args:
        folder: a folder written by `save_pretrained` of any backend.
        device: where the module lives; default: torch's default device.
        num_classes: number of outputs of a vision or graph model. Another one than the folder's gives the model a new
            head, drawn from torch's global random state.
        img_size: size of the images that a vision model is made for, one number or (height, width). The positional
            embedding is resampled once, now; without, it is at every call with images of another size.

    Returns:
        The module, in evaluation mode.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, of another schema version, or the weights do not fit the config; or
            `num_classes` is given for a model without a head for classes, or `img_size` for one without images.

    Examples:
        >>> import tempfile
        >>> import plstm_config, plstm_torch
        >>> folder = tempfile.mkdtemp() + "/model"
        >>> config = plstm_config.preset("plstm_vis_tiny", num_classes=10, dim=48, num_blocks=1)
        >>> plstm_torch.save_pretrained(plstm_torch.build(config), folder)
        >>> plstm_torch.from_pretrained(folder, num_classes=3).head.weight.shape  # another head, drawn anew
        torch.Size([3, 192])
    """
    config, arrays = read_folder(folder)
    changed, redrawn = adapt(config, num_classes=num_classes, img_size=img_size)
    place = torch.device(device) if device is not None else torch.get_default_device()
    # drawing initial weights that are overwritten must not shift the caller's random numbers
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []), place:
        try:
            module = build(changed)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{folder}: expected a config that this backend can build, got one with {error}"
            ) from error
    load_arrays(module, arrays, source=str(folder), ignore=redrawn)
    for name in redrawn:
        module.get_submodule(name).reset_parameters()  # type: ignore[operator]
    return module.eval()


def load_weights(module: nn.Module, folder: str | os.PathLike[str], *, ignore: Sequence[str] = ()) -> None:
    """Copy a folder's weights into an existing module; on any error the module keeps its own.

    A positional embedding of another grid is interpolated (bicubic, no antialiasing) if the module's config has
    `allow_interpolation`, otherwise it is an error like every other shape that does not fit.

    Args:
        module: module with the same parameters, also wrapped or sharded; its dtypes and device stay. Parameters that
            are tied by hand must have one value in the folder, under one or all of their names.
        folder: a folder written by `save_pretrained` of any backend; of the config only the digest is read.
        ignore: names of parts that are left out, such as ``("head",)``: the module keeps its own, if it has them, and
            the folder's are not read. That is how a model for other classes, or without a head, loads a folder.

    Raises:
        FileNotFoundError: the weights file is missing.
        TypeError: `module` is no module, or `ignore` no sequence of names.
        ValueError: the file is damaged, names or shapes do not fit the module, numbers are too large for its dtypes,
            or neither the folder nor the module has a name that is to be ignored.

    Examples:
        >>> import tempfile
        >>> import plstm_config, plstm_torch
        >>> folder = tempfile.mkdtemp() + "/model"
        >>> config = plstm_config.preset("plstm_vis_tiny", num_classes=10, dim=48, num_blocks=1)
        >>> plstm_torch.save_pretrained(plstm_torch.build(config), folder)
        >>> model = plstm_torch.build(plstm_config.change(config, {"output_shape": (3,)}))
        >>> plstm_torch.load_weights(model, folder, ignore=("head",))
    """
    bare = _unwrap(module)
    if not isinstance(bare, nn.Module):
        raise TypeError(f"module: expected a torch module, got {type(bare).__name__}")

    def check(infos: Mapping[str, ArrayInfo], source: str) -> None:
        _fit(bare, infos, source=source, ignore=ignore)

    load_arrays(bare, read_weights(folder, check), source=str(folder), ignore=ignore)


def load_arrays(
    module: nn.Module, arrays: Mapping[str, np.ndarray], *, source: str, ignore: Sequence[str] = ()
) -> None:
    """Copy weights into a module after all of them were checked; on any error the module keeps its own.

    Args:
        module: the module, not wrapped; its parts may be.
        arrays: arrays by canonical name; parameters that the module shares need to stand there once.
        source: where the weights come from, for error messages.
        ignore: names of parts that are left out.

    Raises:
        TypeError: `ignore` is no sequence of names.
        ValueError: names, shapes, kinds or sizes of numbers do not fit the module.
    """
    names = _fit(module, array_infos(arrays), source=source, ignore=ignore)
    own = module.state_dict(keep_vars=True)
    _check_ties(own, names, arrays, source)
    state: dict[str, Tensor] = dict(own)
    for name, stored in names.items():
        state[name] = as_tensor(arrays[stored])
        _check_range(state[name], own[name], f"{source}: {stored}")
        state[name] = distributed_like(state[name], own[name])
    module.load_state_dict(state)


def _fit(module: nn.Module, infos: Mapping[str, ArrayInfo], *, source: str, ignore: Sequence[str]) -> dict[str, str]:
    """Check that weights fit a module; the names in its state dict, each with that of the stored weights for it."""
    own = module.state_dict(keep_vars=True)
    canonical = {name: _canonical(module, name) for name in own}
    ignored = left_out(ignore, [*canonical.values(), *infos])
    given = {name: info for name, info in infos.items() if not ignored(name)}
    taken = {name: canonical[name] for name in own if not ignored(canonical[name])}
    for group in _shared(own, taken):
        stored = [taken[name] for name in group if taken[name] in given]
        taken |= {name: stored[0] for name in group if taken[name] not in given and stored}
    expected = {stored: tuple(own[name].shape) for name, stored in taken.items()}
    owner = type(module).__name__
    check_taken(expected, given, ignore=ignore, owner=owner, source=source, resizable=_resizable(module))
    return taken


def _shared(state: Mapping[str, Tensor], names: Mapping[str, str]) -> list[list[str]]:
    """Names of one and the same parameter, where it has several; also of two in one place of the memory."""
    groups: dict[tuple[int, torch.Size], list[str]] = {}
    for name in names:
        tensor = state[name]
        groups.setdefault((tensor.data_ptr() or id(tensor), tensor.shape), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _check_ties(
    own: Mapping[str, Tensor], names: Mapping[str, str], arrays: Mapping[str, np.ndarray], source: str
) -> None:
    """Refuse different weights for one parameter, of which one would win in silence."""
    for group in _shared(own, names):
        first, *others = (names[name] for name in group)
        for other in others:
            if not np.array_equal(arrays[first], arrays[other], equal_nan=True):
                raise ValueError(
                    f"{source}: {other}: expected the values of {first}, since the module shares one parameter for "
                    "both, got others"
                )


def _check_range(stored: Tensor, own: Tensor, name: str) -> None:
    """Refuse numbers that the module's dtype has no room for."""
    if own.is_floating_point() and torch.finfo(own.dtype).max < torch.finfo(stored.dtype).max:
        lost = stored.isfinite() & ~stored.to(own.dtype).isfinite()
        if bool(lost.any()):
            raise ValueError(f"{name}: expected numbers within the range of {own.dtype}, got {stored[lost][0].item()}")


def _resizable(module: nn.Module) -> dict[str, Callable[[tuple[int, ...]], bool]]:
    """Names of positional embeddings, each with the test for shapes that it can interpolate from."""
    return {
        _canonical(module, f"{name}.embed" if name else "embed"): partial(accepts_shape, part.config)
        for name, part in module.named_modules()
        if isinstance(part, PosEmbed2D)
    }


def _inside(module: Any) -> tuple[str, nn.Module] | None:
    """What a wrapper holds, with its name there; None for modules that are no wrappers."""
    if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel | AveragedModel):
        return "module", module.module
    for name in _WRAPPED:
        if isinstance(getattr(module, name, None), nn.Module):
            return name, getattr(module, name)
    return None


def _unwrap(module: Any) -> Any:
    while (inside := _inside(module)) is not None:
        module = inside[1]
    return module


def _canonical(module: nn.Module, name: str) -> str:
    """A name of the state dict without what wrappers of parts add to it."""
    parts: list[str] = []
    node: Any = module
    for part in name.split("."):
        inside = _inside(node)
        if inside is None or inside[0] != part:
            parts.append(part)
        node = getattr(node, part, None)
    return ".".join(parts)
