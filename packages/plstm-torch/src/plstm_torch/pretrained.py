"""Save and load modules as a folder with `config.json` and `model.safetensors`.

The parameters have the canonical names and shapes that all backends share, so any backend reads what another wrote.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import plstm_config
from plstm_torch.build import build
from plstm_torch.models.pos_embed import PosEmbed2D
from plstm_torch.version import __version__

SCHEMA_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def save_pretrained(module: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Write a module's config and weights into a folder.

    Each file is written beside its place and then renamed, so that a reader finds the old or the new file, never half
    of one. Parameters that share memory (tied by the caller) are written once.

    Args:
        module: Anything that `build` made, also wrapped by DistributedDataParallel or torch.compile.
        folder: Where to write; made if it does not exist, other files in it stay.

    Raises:
        TypeError: the module does not carry a config of plstm_config.
        NotADirectoryError: `folder` is a file.
    """
    module = _unwrap(module)
    config = getattr(module, "config", None)
    if not isinstance(module, nn.Module) or config is None:
        raise TypeError(f"module: expected a module made by plstm_torch.build, got {type(module).__name__}")
    description = {
        "schema_version": SCHEMA_VERSION,
        "package": "plstm-torch",
        "package_version": __version__,
        "config": plstm_config.to_dict(config),
    }
    text = json.dumps(description, indent=2) + "\n"
    tensors = {name: _for_storage(tensor) for name, tensor in unique_tensors(module).items()}
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"folder: expected a folder or a new path, got the file {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    _replace(folder / CONFIG_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def from_pretrained(folder: str | os.PathLike[str], device: torch.device | str | None = None) -> nn.Module:
    """Build the module that a folder describes and give it the folder's weights.

    Args:
        folder: A folder written by `save_pretrained` of any backend.
        device: Where the module lives; default: torch's default device.

    Returns:
        The module, in evaluation mode.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, of another schema version, or the weights do not fit the config.
    """
    config = read_config(folder)
    place = torch.device(device) if device is not None else torch.get_default_device()
    # drawing initial weights that are overwritten must not shift the caller's random numbers
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []), place:
        try:
            module = build(config)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{Path(folder) / CONFIG_FILE}: not a config that this backend can build: {error}"
            ) from error
    load_weights(module, folder)
    return module.eval()


def load_weights(module: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Copy a folder's weights into an existing module; on any error the module keeps its own.

    A positional embedding of another grid is interpolated (bicubic, no antialiasing) if the module's config has
    `allow_interpolation`, otherwise it is an error like every other shape that does not fit.

    Args:
        module: Module with the same parameters; its dtypes and device stay.
        folder: A folder written by `save_pretrained` of any backend; only its weights are read.

    Raises:
        FileNotFoundError: the weights file is missing.
        ValueError: the file is damaged, or names or shapes do not fit the module.
    """
    path = Path(folder) / WEIGHTS_FILE
    load_state(_unwrap(module), _read_weights(path), source=str(path))


def read_config(folder: str | os.PathLike[str]) -> Any:
    """Read the config of a saved module.

    Args:
        folder: A folder written by `save_pretrained` of any backend.

    Returns:
        The config.

    Raises:
        FileNotFoundError: `config.json` is missing.
        ValueError: the file is no JSON, of another schema version, or describes no valid config.
    """
    path = Path(folder) / CONFIG_FILE
    _check_file(path)
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, got a damaged file: {error}") from error
    if not isinstance(description, dict) or "schema_version" not in description or "config" not in description:
        raise ValueError(f"{path}: expected the keys 'schema_version' and 'config' as save_pretrained writes them")
    version = description["schema_version"]
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path}: expected schema_version {SCHEMA_VERSION}, got {version!r}, "
            f"written by {description.get('package')} {description.get('package_version')}"
        )
    try:
        return plstm_config.from_dict(description["config"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not a valid config: {error}") from error


def load_state(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy weights into a module after all of them were checked; on any error the module keeps its own.

    Args:
        module: The module.
        state: Tensors by name; shared parameters need to stand there once.
        source: Where the weights come from, for error messages.

    Raises:
        ValueError: names, shapes or kinds of numbers do not fit the module.
    """
    own = module.state_dict(keep_vars=True)
    aliases = _aliases(own)
    given = dict(state)
    for name, first in aliases.items():
        if name not in given and first in given:
            given[name] = given[first]
    missing, unexpected = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    problems = []
    if missing:
        problems.append(f"missing {_listing(missing)}")
    if unexpected:
        problems.append(f"unexpected {_listing(unexpected)}")
    resizable = _resizable(module)
    for name in own.keys() & given.keys():
        shape, expected = tuple(given[name].shape), tuple(own[name].shape)
        if shape != expected and not (name in resizable and resizable[name](shape)):
            problems.append(f"{name}: expected shape {expected}, got {shape}")
        elif given[name].is_floating_point() != own[name].is_floating_point():
            problems.append(f"{name}: expected dtype {own[name].dtype}, got {given[name].dtype}")
    if problems:
        raise ValueError(f"{source}: weights do not fit {type(module).__name__}: {'; '.join(sorted(problems))}")
    module.load_state_dict(given)


def unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's state with shared parameters under their first name only."""
    state = module.state_dict(keep_vars=True)
    aliases = _aliases(state)
    return {name: tensor for name, tensor in state.items() if name not in aliases}


def _aliases(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Further names of shared parameters, each with the first name."""
    first: dict[int, str] = {}
    aliases = {}
    for name, tensor in state.items():
        known = first.setdefault(id(tensor), name)
        if known != name:
            aliases[name] = known
    return aliases


def _resizable(module: nn.Module) -> dict[str, Callable[[tuple[int, ...]], bool]]:
    """Names of positional embeddings, each with the test for shapes that it can interpolate from."""
    return {
        f"{name}.embed" if name else "embed": part.accepts_shape
        for name, part in module.named_modules()
        if isinstance(part, PosEmbed2D)
    }


def _listing(names: list[str], limit: int = 8) -> str:
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _unwrap(module: Any) -> Any:
    while True:
        if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
            module = module.module
        elif hasattr(module, "_orig_mod"):
            module = module._orig_mod
        else:
            return module


def _for_storage(tensor: Tensor) -> Tensor:
    """A tensor that owns exactly its own memory, on the CPU."""
    stored = tensor.detach().to("cpu").contiguous()
    return stored.clone() if stored.untyped_storage().nbytes() != stored.nbytes else stored


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        write(unfinished)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, there is no such file"
        )


def _read_weights(path: Path) -> dict[str, Tensor]:
    _check_file(path)
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: expected a safetensors file, got a damaged or truncated one: {error}") from error
