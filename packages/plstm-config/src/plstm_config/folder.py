"""Saved modules: a folder with `config.json` and `model.safetensors`, which every backend writes and reads.

The two files belong together: the config holds the digest of the weights. A save prepares both in a folder of its own
beside them and then puts the config and the weights in their places. One that is killed between these two steps leaves
the new config, and the new weights beside: readers then take those, and the next save puts them in their place. So at
any moment a folder holds either what it held before or what is being saved.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from plstm_config.base import Config
from plstm_config.serialization import from_dict, one_line, parse_json, to_readable
from plstm_config.weights import ArrayInfo, array_infos, check_weights, count_arrays

if os.name == "posix":
    import fcntl

SCHEMA_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
DIGEST = "weights_sha256"
# by which the Auto classes of Hugging Face's transformers know the config; nothing here reads it
MODEL_TYPE = "plstm"
# A positional embedding is interpolated to at most this many times the stored positions: strangers' configs allocate
# no more than a multiple of what their files hold.
RESIZE_LIMIT = 64
_UNFINISHED = ".unfinished-"
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

PathLike = str | os.PathLike[str]
Arrays = dict[str, np.ndarray]
Check = Callable[[Mapping[str, ArrayInfo], str], None]


def write_folder(
    folder: PathLike, config: Config, arrays: Mapping[str, np.ndarray], *, package: str, version: str
) -> None:
    """Write a module's config and weights into a folder.

    The files replace others of their names both or not at all, whenever the process ends; other files stay. What
    killed saves have left is removed. Saves into one folder wait for each other (where the file system has locks).

    Args:
        folder: where to write; made if it does not exist.
        config: config of the module.
        arrays: its weights by dotted name, in the canonical layout; bfloat16 as in ml_dtypes.
        package: name of the distribution that writes.
        version: and its version.

    Raises:
        TypeError: if `config` is no config.
        ValueError: if the arrays are not the weights of the config, or the config could not be read again; nothing
            is written.
        NotADirectoryError: if `folder` is a file.
        OSError: if it cannot be written, because the disk is full, say; the folder stays as it was.
    """
    check_weights(config, array_infos(arrays), source="arrays")
    description = to_readable(config)
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"folder: expected a folder or a new path, got the file {folder}")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    head = {"schema_version": SCHEMA_VERSION, "model_type": MODEL_TYPE, "package": package, "package_version": version}
    try:
        with _locked(folder, exclusive=True):
            _clean_up(folder)
            _replace(folder, _prepare(folder, {**head, "config": description}, arrays))
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def read_folder(folder: PathLike) -> tuple[Config, Arrays]:
    """Read a module's config and weights.

    Names, shapes and types of the weights are compared with the config before anything of their size is allocated.
    Their values are not looked at: infinite ones and NaN are returned as they are.

    Args:
        folder: a folder that any backend wrote.

    Returns:
        The config, and the weights by dotted name; bfloat16 as in ml_dtypes.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, of another schema version, or the weights are not those of the config.

    Examples:
        >>> import tempfile
        >>> import numpy as np, plstm_config
        >>> from plstm_config.folder import read_folder, write_folder
        >>> config, folder = plstm_config.LinearConfig(input_dim=2, output_dim=3), tempfile.mkdtemp() + "/model"
        >>> arrays = {"weight": np.zeros((3, 2), np.float32), "bias": np.zeros(3, np.float32)}
        >>> write_folder(folder, config, arrays, package="my-backend", version="1.0")
        >>> found, weights = read_folder(folder)
        >>> found == config, sorted(weights)
        (True, ['bias', 'weight'])
    """
    folder = Path(folder)
    with _locked(folder, exclusive=False):
        config = read_config(folder)
        _check_complete(config, folder / CONFIG_FILE)

        def check(infos: Mapping[str, ArrayInfo], source: str) -> None:
            check_weights(config, infos, source=source, resize_limit=RESIZE_LIMIT)

        return config, _read_weights(folder, check)


def read_weights(folder: PathLike, check: Check) -> Arrays:
    """Read the weights only, for a module that exists already.

    Args:
        folder: a folder that any backend wrote; it may lack the config.
        check: called with shapes and types by name and with the path of the file before anything is read; raises if
            they do not fit.

    Returns:
        The weights by dotted name; bfloat16 as in ml_dtypes.

    Raises:
        FileNotFoundError: if the weights are missing.
        ValueError: if the file is damaged, holds numbers of another type than floating ones, or is not the one that
            the config was saved with.
    """
    folder = Path(folder)
    with _locked(folder, exclusive=False):
        return _read_weights(folder, check)


def read_config(folder: PathLike) -> Config:
    """Read the config of a saved module.

    Args:
        folder: a folder that any backend wrote.

    Returns:
        The config.

    Raises:
        FileNotFoundError: if `config.json` is missing.
        ValueError: if the file is no JSON, of another schema version, or describes no valid config.
    """
    path = Path(folder) / CONFIG_FILE
    description = _description(path)
    try:
        return from_dict(description["config"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected a valid config, got one with {error}") from error


def _description(path: Path) -> dict[str, Any]:
    """The content of a config file after a look at its outer level."""
    _check_file(path)
    description = parse_json(path)
    if not isinstance(description, dict) or "schema_version" not in description or "config" not in description:
        got = sorted(description)[:8] if isinstance(description, dict) else type(description).__name__
        expected = "the keys 'schema_version' and 'config' as save_pretrained writes them"
        raise ValueError(f"{path}: expected {expected}, got {got}")
    version = description["schema_version"]
    if type(version) is not int or version != SCHEMA_VERSION:
        writer = f"{description.get('package')!r} {description.get('package_version')!r}"
        raise ValueError(
            f"{path}: schema_version: expected {SCHEMA_VERSION}, got {version!r:.40}, written by {writer:.80}"
        )
    digest = description.get(DIGEST)
    if digest is not None and not (isinstance(digest, str) and len(digest) == 64):
        raise ValueError(f"{path}: {DIGEST}: expected 64 hexadecimal digits, got {digest!r:.80}")
    return description


def _check_complete(config: Config, path: Path) -> None:
    try:
        count_arrays(config)
    except ValueError as error:
        raise ValueError(f"{path}: expected the config of a whole module, got one with {error}") from error


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, got none")


def _read_weights(folder: Path, check: Check) -> Arrays:
    path, problem = _find_weights(folder)
    try:
        with safe_open(path, framework="np") as file:
            infos = {name: _info(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118
            check(infos, str(path))
            if problem is not None:
                raise ValueError(problem)
            if any(info.dtype == "bfloat16" for info in infos.values()):
                import ml_dtypes  # noqa: F401  makes the type known to numpy
            return {name: file.get_tensor(name) for name in infos}
    except (SafetensorError, OSError, EOFError, UnicodeError) as error:
        raise ValueError(
            f"{path}: expected a safetensors file, got a damaged or truncated one: {one_line(error)}"
        ) from error


def _info(part: Any) -> ArrayInfo:
    name = part.get_dtype()
    return ArrayInfo(tuple(part.get_shape()), _DTYPES.get(name, str(name)))


def _find_weights(folder: Path) -> tuple[Path, str | None]:
    """The file that the config was saved with, or the one in its place and what is wrong with it."""
    path, config = folder / WEIGHTS_FILE, folder / CONFIG_FILE
    digest = _description(config).get(DIGEST) if config.is_file() else None
    if digest is None:  # an earlier version wrote the folder, or only its weights are there
        _check_file(path)
        return path, None
    for candidate in (path, *(part / WEIGHTS_FILE for part in _unfinished(folder))):
        if candidate.is_file() and _digest(candidate) == digest:
            return candidate, None
    _check_file(path)
    return path, (
        f"{path}: expected the file that {config} was saved with, got another one (its SHA-256 is not {DIGEST}): "
        f"damaged, or changed afterwards; if that was meant, remove {DIGEST} from {CONFIG_FILE}"
    )


def _unfinished(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{_UNFINISHED}*") if path.is_dir() and not path.is_symlink())


def _clean_up(folder: Path) -> None:
    """Finish or undo saves that were killed; the lock is held, so that none is on its way."""
    leftovers = _unfinished(folder)
    if leftovers and (folder / CONFIG_FILE).is_file():
        with contextlib.suppress(ValueError, FileNotFoundError):  # a damaged folder is about to be replaced
            found, problem = _find_weights(folder)
            if problem is None and found.parent != folder:
                os.replace(found, folder / WEIGHTS_FILE)
    for path in leftovers:
        shutil.rmtree(path, ignore_errors=True)


def _prepare(folder: Path, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
    """Write both files into a new folder beside the places where they belong."""
    place = folder / f"{_UNFINISHED}{secrets.token_hex(8)}"
    try:
        place.mkdir()
        # made by an ordinary open, it has the mode that the umask asks for; safetensors makes private files
        with (place / CONFIG_FILE).open("w", encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            save_file(dict(arrays), place / WEIGHTS_FILE, metadata={"format": "pt"})
            os.chmod(place / WEIGHTS_FILE, mode)
            with (place / WEIGHTS_FILE).open("rb+") as weights:
                os.fsync(weights.fileno())
            whole = {**description, DIGEST: _digest(place / WEIGHTS_FILE)}
            file.write(json.dumps(whole, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        shutil.rmtree(place, ignore_errors=True)
        if isinstance(error, SafetensorError | OSError):
            number = (error.errno,) if isinstance(error, OSError) and error.errno is not None else ()
            raise OSError(*number, f"{folder}: could not be written and stays as it was: {error}") from error
        raise
    return place


def _replace(folder: Path, place: Path) -> None:
    """Put both files in their places. The config comes first: it says which weights belong to it."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if (folder / name).is_dir():
            shutil.rmtree(place, ignore_errors=True)
            raise IsADirectoryError(f"{folder / name}: expected a file or nothing, got a folder")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        os.replace(place / name, folder / name)
    shutil.rmtree(place, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(folder: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold the folder: alone to write, together with other readers to read. The system releases it for the killed."""
    handle = _open_for_locking(folder)
    if handle is None:
        yield
        return
    try:
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(handle, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        # said, not left to the closing: processes that were forked meanwhile hold the same lock
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _open_for_locking(folder: Path) -> int | None:
    """A handle of the folder; None where there are no locks, or the folder is missing or may not be listed."""
    if os.name != "posix":
        return None
    try:
        return os.open(folder, os.O_RDONLY)
    except OSError:
        return None
