"""Shared fixtures of the torch package's tests."""

from collections.abc import Callable, Generator, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

_HERE = Path(__file__).parent


def _load_helper(name: str) -> ModuleType:
    """A module beside this file; pytest's import mode puts no folder on the path."""
    spec = spec_from_file_location(name, _HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_load_helper("torchvision_operators").define_missing_operators()


_BEFORE_COLLECTION = torch.random.get_rng_state()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Refuse modules that draw while they are imported: their numbers would depend on what else is collected."""
    report = yield
    if not torch.equal(torch.random.get_rng_state(), _BEFORE_COLLECTION):
        torch.random.set_rng_state(_BEFORE_COLLECTION)
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} draws from torch's generator at import: draw in the test or a fixture"
    return report


@pytest.fixture(autouse=True)
def fixed_seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def randomize() -> Callable[[nn.Module], nn.Module]:
    """Give every parameter random values, so that gates that start constant depend on their input."""

    def fill(module: nn.Module, spread: float = 0.3) -> nn.Module:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=spread)
        return module

    return fill


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Programs of this test only, so that what compiles again is counted."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
