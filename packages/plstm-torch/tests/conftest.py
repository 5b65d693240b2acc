"""Shared fixtures of the torch package's tests."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn


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
