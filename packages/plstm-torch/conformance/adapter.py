"""How the conformance suite calls the torch backend."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plstm_config import from_dict
from plstm_config.original import MigrationWarning
from plstm_testing import golden, reference
from plstm_testing.conformance import ModuleCall, OpCall, Result
from plstm_torch import build, from_pretrained, load_original, ops, save_pretrained
from plstm_torch.build import registered_configs
from plstm_torch.check import DTYPES, IMPLEMENTATIONS, available_devices, run_op


class TorchAdapter:
    """Ops run as in the self-check; modules are built, given their numbers, called and differentiated."""

    name: str = "torch"
    ops: Mapping[str, Callable[..., Any]] = {name: getattr(ops, name) for name in IMPLEMENTATIONS}
    implementations: Mapping[str, Sequence[str]] = IMPLEMENTATIONS
    dtypes: Sequence[str] = DTYPES
    devices: Sequence[str] = available_devices()
    module_classes: Sequence[type] = tuple(
        config_class for config_class in reference.module_classes() if config_class.__name__ in registered_configs()
    )
    golden_kinds: Sequence[str] = tuple(
        dict.fromkeys(case.kind for case in golden.cases() if not case.kind.startswith("op_"))
    )

    def run_op(self, call: OpCall) -> Result:
        """Run one op as the package's self-check does."""
        return run_op(call)

    def run_module(self, call: ModuleCall) -> Result:
        """Make a module with the given parameters, call it, and differentiate where a cotangent is given."""
        module = _module(call.config, call.parameters).to(call.device)
        inputs = {name: _module_input(value, call) for name, value in call.inputs.items()}
        output, cache = _call_module(module, inputs, call)
        states = [tensor for name, tensor in cache.items() if name.endswith("state")]
        return Result(
            output=_numpy(output),
            output_dtype=_dtype_name(output),
            state_dtype="+".join(sorted({_dtype_name(state) for state in states})) or None,
            cache={name: _numpy(tensor) for name, tensor in cache.items()},
            derivative=None if call.cotangent is None else _derivative(module, inputs, output, call),
        )

    def init(self, call: ModuleCall, seed: int) -> Mapping[str, np.ndarray]:
        """The parameters of a new module."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return {name: _numpy(tensor) for name, tensor in build(call.config).state_dict().items()}

    def save(self, config: Any, parameters: Mapping[str, np.ndarray], folder: Path) -> None:
        """Write a module with these parameters."""
        save_pretrained(_module(config, parameters), folder)

    def load(self, folder: Path) -> tuple[Any, Mapping[str, np.ndarray]]:
        """Config and parameters of the module in a folder."""
        module = from_pretrained(folder)
        return module.config, {name: _numpy(tensor) for name, tensor in module.state_dict().items()}

    def run_golden(self, case: golden.GoldenCase) -> Result:
        """Build the module of a golden case, run it in evaluation mode, and differentiate it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MigrationWarning)  # dropped options are the config package's own tests
            load = load_original if case.is_original else lambda tree, arrays: _module(from_dict(tree), arrays)
            module = load(case.config, case.parameters)
        inputs = {name: _golden_input(value) for name, value in case.arguments().items()}
        leaves = {name: value for name, value in inputs.items() if getattr(value, "requires_grad", False)}
        leaves |= {f"param/{name}": parameter for name, parameter in module.named_parameters()}
        output = module(*inputs.values())
        cotangent = torch.from_numpy(case.inputs["cotangent"])
        found = torch.autograd.grad(output, list(leaves.values()), cotangent, allow_unused=True, materialize_grads=True)
        gradients = {name: _numpy(gradient) for name, gradient in zip(leaves, found, strict=True)}
        for name, recorded in case.gradients.items():
            if name in gradients and gradients[name].size == recorded.size:
                # the original stores orientations before heads, but reads the numbers in our order
                gradients[name] = gradients[name].reshape(recorded.shape)
        return Result(_numpy(output), gradients=gradients, output_dtype=_dtype_name(output))


def _module(config: Any, parameters: Mapping[str, np.ndarray]) -> nn.Module:
    """A module in evaluation mode that holds these numbers."""
    module = build(config)
    module.load_state_dict({name: torch.tensor(array) for name, array in parameters.items()})
    return module.eval()


def _module_input(value: Any, call: ModuleCall) -> Any:
    if not isinstance(value, np.ndarray):
        return value  # a topology
    tensor = torch.tensor(value, device=call.device)
    if not tensor.is_floating_point():
        return tensor
    return tensor.to(getattr(torch, call.dtype)).requires_grad_(call.cotangent is not None)


def _call_module(module: Any, inputs: Mapping[str, Any], call: ModuleCall) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the cache by dotted names where the call asks for it."""
    given = call.keywords.get("cache")
    cache = None if given is None else _nested({name: _cached(name, array, call) for name, array in given.items()})
    if call.method == "step":
        (x,) = inputs.values()
        output, after = module.step(x, module.init_cache(len(x)) if cache is None else cache)
        return output, _flat(after)
    keywords = {name: _keyword(value, call.device) for name, value in call.keywords.items() if name != "cache"}
    result = module(*inputs.values(), **keywords, **({} if cache is None else {"cache": cache}))
    output, after = result if call.keywords.get("return_cache") else (result, {})
    return output, _flat(after)


def _cached(name: str, array: np.ndarray, call: ModuleCall) -> Tensor:
    dtype = "float32" if name.endswith("state") and call.dtype != "float64" else call.dtype
    return torch.tensor(array, device=call.device).to(getattr(torch, dtype))


def _nested(flat: Mapping[str, Tensor]) -> dict[str, Any]:
    """Entries with dotted names as dicts in dicts."""
    nested: dict[str, Any] = {}
    for name, tensor in flat.items():
        place = nested
        *parents, last = name.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = tensor
    return nested


def _flat(nested: Mapping[str, Any]) -> dict[str, Tensor]:
    """Dicts in dicts as entries with dotted names."""
    flat: dict[str, Tensor] = {}
    for name, value in nested.items():
        below = {f"{name}.{key}": tensor for key, tensor in _flat(value).items()} if isinstance(value, dict) else None
        flat |= {name: value} if below is None else below
    return flat


def _derivative(module: nn.Module, inputs: Mapping[str, Any], output: Tensor, call: ModuleCall) -> float:
    known = {**inputs, **{f"param/{name}": parameter for name, parameter in module.named_parameters()}}
    leaves = {name: known[name] for name in call.directions}
    cotangent = torch.tensor(call.cotangent, device=call.device).to(output.dtype)
    found = torch.autograd.grad(output, list(leaves.values()), cotangent, allow_unused=True, materialize_grads=True)
    along = zip(found, call.directions.values(), strict=True)
    return float(sum(np.sum(_numpy(gradient) * direction) for gradient, direction in along))


def _golden_input(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value  # a topology
    tensor = torch.tensor(value)
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


def _keyword(value: Any, device: str) -> Any:
    return torch.from_numpy(value).to(device) if isinstance(value, np.ndarray) else value


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


adapter = TorchAdapter()
