import numpy as np
import pytest
import torch

from plstm_testing import reference, tolerances


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def assert_close():
    """Compare two tensors by the project's table; the dtype is the one that was computed in."""

    def compare(actual, reference, dtype="float64", kind="output", label="value"):
        def array(value):
            return value.detach().double().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)

        tolerances.assert_close(array(actual), array(reference), dtype, kind, label)

    return compare


@pytest.fixture
def randomize():
    """Give every parameter random values, so that nothing hides behind a constant initialisation."""

    def fill(module, scale=0.5):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn_like(parameter) * scale)
        return module

    return fill


@pytest.fixture
def by_reference():
    """What the numpy reference makes of a module's config, parameters and inputs."""

    def compute(module, *inputs):
        parameters = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
        arrays = [value.detach().numpy() if isinstance(value, torch.Tensor) else value for value in inputs]
        return reference.apply(module.config, parameters, *arrays)

    return compute
