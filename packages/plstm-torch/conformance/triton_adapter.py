"""How the conformance suite calls the Triton kernels: in the interpreter with TRITON_INTERPRET=1, else on the GPU.

    pytest ... --conformance-adapter triton_adapter.py --conformance-xfail triton_xfail.toml -k triton

Memory that a kernel leaves unwritten holds NaN.
"""

import os
from collections.abc import Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _load(name: str) -> Any:
    """A file of this folder, which is no package."""
    spec: Any = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if INTERPRETED:
    _load("emulated_dots")
    _load("guarded_memory")
torch.use_deterministic_algorithms(True, warn_only=True)  # fills new memory with NaN


class TritonAdapter(_load("adapter").TorchAdapter):  # type: ignore[misc]
    """The ops that have kernels."""

    name: str = "torch with Triton"
    implementations: Mapping[str, Sequence[str]] = dict.fromkeys(
        ("plstm_1d", "plstm_2d_oriented", "plstm_graph"), ("triton",)
    )
    devices: Sequence[str] = ("cpu",) if INTERPRETED else ("cuda",)
    module_classes: Sequence[type] = ()
    golden_kinds: Sequence[str] = ()


adapter = TritonAdapter()
