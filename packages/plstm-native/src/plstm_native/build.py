"""From the C sources to a library in this process: compiled once for a machine and its compiler, then kept.

The compiler may use every instruction of the machine it runs on, which a wheel for all machines could not. What it
makes lies in a folder that belongs to the user and that nobody else can write to, named by everything it depends on.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

DTYPES = {"float32": (), "float64": ("-DIN_DOUBLE",)}
# What is compiled together: who works with images need not wait for the kernels of sequences.
SOURCES = {
    "graph": ("lanes.c", "graph.c"),
    "grid": ("lanes.c", "grid.c", "mask.c", "marks.c"),
    "sequence": ("lanes.c", "sequence.c"),
}
XLA_HEADER = "xla/ffi/api/c_api.h"

_logger = logging.getLogger(__name__)
_lock = threading.Lock()
_COMMON = ("-std=gnu11", "-O3", "-fPIC", "-fno-math-errno", "-ffp-contract=fast", "-fopenmp-simd", "-Wno-psabi")
# The first that a compiler knows: names of the machine's instructions differ, and not every compiler has OpenMP.
_OPTIONS = (
    ("-march=native", "-fopenmp"),
    ("-mcpu=native", "-fopenmp"),
    ("-march=native",),
    ("-mcpu=native",),
    (),
)


class CompilationError(RuntimeError):
    """No library could be made; the message holds what the compiler said."""


@functools.cache
def unavailable() -> str | None:
    """Why there are no kernels on this machine: nothing is compiled to find out.

    Returns:
        The reason as a sentence, None if there are.

    Examples:
        >>> reason = unavailable()
        >>> reason is None or isinstance(reason, str)
        True
    """
    if os.environ.get("PLSTM_NATIVE", "1") == "0":
        return "the environment says PLSTM_NATIVE=0"
    if os.name != "posix":
        return f"the kernels are built on Linux and macOS, got {platform.system()}"
    if not _compiler():
        return "there is no C compiler: install gcc or clang, or name one in the environment variable CC"
    try:
        _folder()
    except OSError as error:
        return f"there is no place to keep what is compiled: {error}"
    return None


def scalar_only(op: str, sizes: Mapping[str, int]) -> str | None:
    """Why kernels for scalar gates cannot take a call.

    Args:
        op: name of the op, for the sentence.
        sizes: the J dimensions, by letters.

    Returns:
        The reason as a sentence, None if they can.

    Examples:
        >>> scalar_only("the 2D op", {"JT": 2})
        'the 2D op has native kernels for J dimensions of 1, got JT=2'
    """
    for name, size in sizes.items():
        if size != 1:
            return f"{op} has native kernels for J dimensions of 1, got {name}={size}"
    return None


@functools.cache
def library(dtype: str, kernels: str) -> ctypes.CDLL:
    """The compiled functions for one dtype; the first call on a machine compiles them, which takes some seconds.

    Args:
        dtype: "float32" or "float64".
        kernels: "grid", "sequence" or "graph".

    Returns:
        The loaded library.

    Raises:
        CompilationError: if there is no compiler, or it fails.
        ValueError: if a name is another one.
    """
    _check(dtype, kernels)
    with _lock:
        return _load(dtype, SOURCES[kernels], _OPTIONS)


@functools.cache
def xla_library(dtype: str, kernels: str, include: str) -> ctypes.CDLL:
    """The functions of `library` and handlers of XLA that call them; compiled as those are.

    Args:
        dtype: "float32" or "float64".
        kernels: "grid", "sequence" or "graph".
        include: the folder of XLA's headers, those of the version that is to call the handlers.

    Returns:
        The loaded library.

    Raises:
        CompilationError: if there is no compiler, or it fails.
        ValueError: if a name is another one, or the folder holds no headers of XLA.
    """
    _check(dtype, kernels)
    header = Path(include) / XLA_HEADER
    if not header.is_file():
        raise ValueError(f"include: expected a folder that holds {XLA_HEADER}, got {include}")
    with _lock:
        # the handlers bring threads of their own in the place of OpenMP's
        options = dict.fromkeys(tuple(one for one in options if one != "-fopenmp") for options in _OPTIONS)
        sources = (*SOURCES[kernels], f"xla_{kernels}.c")
        return _load(dtype, sources, tuple(options), {XLA_HEADER: header.read_bytes()})


def _check(dtype: str, kernels: str) -> None:
    if kernels not in SOURCES:
        raise ValueError(f"kernels: expected one of {', '.join(SOURCES)}, got {kernels!r}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    reason = unavailable()
    if reason is not None:
        raise CompilationError(reason)


def _compiler() -> tuple[str, ...]:
    """The command of the compiler, empty if there is none."""
    named = shlex.split(os.environ.get("CC", ""))
    if named:
        return tuple(named) if shutil.which(named[0]) else ()
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    return (found,) if found else ()


def _folder() -> Path:
    """Where libraries are kept: it is the user's own, and closed to others, since what lies in it is run."""
    named = os.environ.get("PLSTM_NATIVE_CACHE")
    if named:
        return _private(Path(named))
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return _private(Path(base).expanduser() / "plstm_native")
    except (OSError, RuntimeError):  # no home, or one that cannot be written to
        return _private(Path(tempfile.gettempdir()) / f"plstm_native_{os.getuid()}")


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid():
        raise OSError(f"{folder} belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(f"others can write to {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(f"{folder} cannot be written to")
    return folder


def _load(
    dtype: str,
    sources: Sequence[str],
    choices: Sequence[Sequence[str]],
    headers: Mapping[str, bytes] = MappingProxyType({}),
) -> ctypes.CDLL:
    """Loads a library that is kept, or compiles one, by the first options that give one; headers by their paths."""
    said = []
    for options in choices:
        for linking in _linkings(options):
            try:
                flags = (*_COMMON, *options, *DTYPES[dtype])
                return ctypes.CDLL(str(_compiled(sources, headers, flags, linking)))
            except (subprocess.CalledProcessError, OSError) as error:
                said.append(getattr(error, "stderr", None) or str(error))
                _logger.debug("no kernels with %s %s: %s", options, linking, said[-1])
    command = shlex.join(_compiler())
    raise CompilationError(f"{command} could not build the kernels (PLSTM_NATIVE=0 goes without): {said[0].strip()}")


def _linkings(options: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """How to link: by a framework's own OpenMP if it is loaded, since a second pool of threads would fight with it."""
    process = ctypes.CDLL(None)
    if "-fopenmp" in options and (hasattr(process, "GOMP_parallel") or hasattr(process, "__kmpc_fork_call")):
        yield ("-shared",) if platform.system() != "Darwin" else ("-shared", "-undefined", "dynamic_lookup")
    yield ("-shared", *(option for option in options if option == "-fopenmp"))


def _compiled(
    sources: Sequence[str], headers: Mapping[str, bytes], options: Sequence[str], linking: Sequence[str]
) -> Path:
    """The library made by these options, compiled unless it is kept already."""
    own = files("plstm_native") / "sources"
    texts = {entry.name: entry.read_bytes() for entry in own.iterdir() if entry.name.endswith((".c", ".h"))}
    texts |= headers
    folder = _folder()
    kept = folder / f"plstm_{_fingerprint(texts, (*sources, *options, *linking))}.so"
    if kept.exists():
        return kept
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for name, text in texts.items():
            path = Path(scratch) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
        objects = [f"{source}.o" for source in sources]
        compiling = [(*_compiler(), *options, "-I.", "-c", source, "-o", f"{source}.o") for source in sources]
        with ThreadPoolExecutor() as pool:
            list(pool.map(functools.partial(_run, folder=scratch), compiling))
        _run((*_compiler(), *linking, *objects, "-o", "library.so", "-lm", "-lpthread"), scratch)
        os.replace(Path(scratch) / "library.so", kept)  # in one step: other processes see all of it or nothing
    return kept


def _run(command: Sequence[str], folder: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=600)


def _fingerprint(texts: dict[str, bytes], options: Sequence[str]) -> str:
    """Everything that the library depends on: sources, options, compiler and processor."""
    version = subprocess.run((*_compiler(), "--version"), capture_output=True, check=False).stdout
    parts = [*(part for item in sorted(texts.items()) for part in (item[0].encode(), item[1]))]
    parts += [*map(str.encode, options), *map(str.encode, _compiler()), version, _processor()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _processor() -> bytes:
    """What tells processors with other instructions apart: a home may be shared by several machines."""
    described = f"{platform.machine()} {platform.processor()}".encode()
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return described
    telling = (b"model name", b"flags", b"Features", b"CPU part")
    return b"\n".join([described, *sorted({line for line in lines if line.startswith(telling)})])
