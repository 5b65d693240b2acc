"""Shared fixtures and modules of the linen package's tests."""

import jax
import pytest

import plstm_config as configs
from plstm_config.presets import vit
from plstm_jax.check import quick_compilation
from plstm_testing.conformance.layer_cases import layer_cases
from plstm_testing.conformance.model_cases import model_cases

FLOAT64 = {"dtype": "float64", "param_dtype": "float64"}


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def jit():
    """`jax.jit` for programs that run once."""
    return lambda function, **options: jax.jit(function, compiler_options=dict(quick_compilation()), **options)


@pytest.fixture(scope="session")
def cases():
    """One case of every class of modules by its config's name, the smallest of the suite's."""
    found = {}
    for case in [*layer_cases(), *model_cases()]:
        if not any(0 in getattr(x, "shape", ()) for x in case.inputs.values()):
            found.setdefault(type(case.config).__name__, case)
    return found


@pytest.fixture
def vision():
    """A small vision model that drops paths; its blocks are those that compile fastest."""
    sizes = {"dim": 8, "num_heads": 2, "num_blocks": 2, "resolution": 8, "patch_size": 4, "num_channels": 1}
    return vit(output_shape=3, pooling="mean", drop_path_rate=0.5, **sizes, **FLOAT64)


@pytest.fixture
def language():
    """A small language model."""
    return configs.pLSTMLMModelConfig(vocab_size=11, embedding_dim=8, num_blocks=2, logit_soft_cap=None, **FLOAT64)


@pytest.fixture
def pixels():
    return jax.random.normal(jax.random.key(3), (4, 8, 8, 1), "float64")
