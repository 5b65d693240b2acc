"""How the conformance suite calls the native kernels.

pytest ... --conformance-adapter native_adapter.py --conformance-xfail native_xfail.toml -k native
"""

from collections.abc import Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from plstm_jax.check import NATIVE_CASES


def _load(name: str) -> Any:
    """A file of this folder, which is no package."""
    spec: Any = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class NativeAdapter(_load("adapter").JaxAdapter):  # type: ignore[misc]
    """The ops that have kernels."""

    name: str = "jax with native kernels"
    implementations: Mapping[str, Sequence[str]] = dict.fromkeys(NATIVE_CASES, ("native",))
    devices: Sequence[str] = ("cpu",)
    module_classes: Sequence[type] = ()
    golden_kinds: Sequence[str] = ()


adapter = NativeAdapter()
