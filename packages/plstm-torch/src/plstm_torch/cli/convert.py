"""`plstm-torch convert`: folders of this version from folders of others and from weights of the original project."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from plstm_config.folder import CONFIG_FILE, read_folder, write_folder
from plstm_torch.optional import FailedRunError, UserError
from plstm_torch.settings.commands import ConvertSettings
from plstm_torch.version import __version__

_ENTRIES = ("state_dict", "model", "model_state_dict")


def convert(settings: ConvertSettings) -> int:
    """Write a folder with config.json and model.safetensors.

    Args:
        settings: from what, and where to.

    Returns:
        The exit code.

    Raises:
        UserError: if the source cannot be read, or the folder is taken.
        FailedRunError: if the folder cannot be written.
    """
    source, out = Path(settings.source), Path(settings.out)
    if (out / CONFIG_FILE).exists() and not settings.overwrite:
        raise UserError(f"out: expected a folder without a model, got {out}; replace it with --overwrite")
    if source.is_dir() and settings.config is not None:
        raise UserError(f"config: expected none beside a folder, which has its own, got {settings.config}")
    try:
        config, arrays = read_folder(source) if source.is_dir() else _original(source, settings)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    try:
        write_folder(out, config, arrays, package="plstm-torch", version=__version__)
    except OSError as error:
        raise FailedRunError(f"cannot write {out}: {error.strerror or error}") from error
    print(f"{out}: {type(config).__name__.removesuffix('Config')} with {len(arrays)} arrays")
    return 0


def _original(source: Path, settings: ConvertSettings) -> tuple[Any, Mapping[str, Any]]:
    """Config and arrays of the original project's weights."""
    from plstm_torch.arrays import as_array
    from plstm_torch.original import load_original

    if settings.config is None:
        raise UserError("config: expected the original's config beside its weights, got none")
    if not Path(settings.config).is_file():
        raise UserError(f"config: expected a file (.json or .yaml), got {settings.config}, which is none")
    module = load_original(Path(settings.config), _weights(source, settings))
    return module.config, {name: as_array(tensor) for name, tensor in module.state_dict().items()}


def _weights(path: Path, settings: ConvertSettings) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"source: expected a folder or a file of weights, got {path}, which is neither")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:  # a stranger's file: nothing but tensors and plain values is unpickled
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise UserError(f"source: expected weights in {path}, got a file that cannot be read: {error}") from error
    except Exception as error:  # torch's reader raises whatever a damaged file happens to trip
        raise UserError(
            f"source: expected a checkpoint of tensors and plain values, got {path}, which is damaged or holds more"
        ) from error
    weights = _entry(found, path, settings.entry)
    chosen = {
        name.removeprefix(settings.prefix): one for name, one in weights.items() if name.startswith(settings.prefix)
    }
    if not chosen:
        raise UserError(f"prefix: expected the beginning of some names, got {settings.prefix!r}, {_shown(weights)}")
    return chosen


def _entry(found: Any, path: Path, name: str | None) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint, which may hold other things as well."""
    if not isinstance(found, Mapping):
        raise UserError(f"source: expected a dictionary in {path}, got {type(found).__name__}")
    if name is not None and name not in found:
        raise UserError(f"entry: expected an entry of {path}, got {name!r}, {_shown(found)}")
    inner = name or next((each for each in _ENTRIES if isinstance(found.get(each), Mapping)), None)
    weights = found if inner is None else found[inner]
    items = weights.items() if isinstance(weights, Mapping) else ()
    tensors = {str(key): value for key, value in items if isinstance(value, torch.Tensor)}
    if len(tensors) != len(items) or not tensors:
        raise UserError(f"entry: expected one that holds tensors, got {inner!r} of {path}, {_shown(found)}")
    return tensors


def _shown(names: Mapping[Any, Any]) -> str:
    return f"there are {', '.join(repr(name) for name in list(names)[:5])}"[:200]
