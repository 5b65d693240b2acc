"""Cases of modules: a config, parameters and inputs."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plstm_config import change
from plstm_config.base import Config

from ..parameters import random_parameters
from .adapter import Array

FLOAT64: Mapping[str, Any] = {"dtype": "float64", "param_dtype": "float64"}


@dataclass(frozen=True)
class ModuleCase:
    """One module and what it is called with.

    Attributes:
        name: name of the case, unique within its group.
        config: config in float64.
        parameters: float64 arrays by name.
        inputs: as in `ModuleCall`.
        keywords: as in `ModuleCall`.
    """

    name: str
    config: Config
    parameters: Mapping[str, Array]
    inputs: Mapping[str, Any]
    keywords: Mapping[str, Any] = field(default_factory=dict)


def case(name: str, config: Config, *shape: int, **inputs: Any) -> ModuleCase:
    """Draw the parameters of a config, and its first input `x` of a shape if there is one.

    Args:
        name: name of the case, from which the numbers follow.
        config: config in float64.
        *shape: of `x`.
        **inputs: further inputs; a tuple is the shape of an array to be drawn.

    Returns:
        The case.
    """
    random = seeded(name)
    parameters = random_parameters(config, random)
    drawn = {"x": shape, **inputs} if shape else inputs
    arrays = {key: random.standard_normal(value) if isinstance(value, tuple) else value for key, value in drawn.items()}
    return ModuleCase(name, config, parameters, arrays)


def seeded(name: str) -> np.random.Generator:
    """Random numbers that follow from a name."""
    return np.random.default_rng(zlib.crc32(f"modules/{name}".encode()))


def with_dtype(config: Config, dtype: str) -> Config:
    """The config with another dtype for parameters and outputs; functions without one stay as they are."""
    names = [name for name in FLOAT64 if name in config.__dataclass_fields__]
    return change(config, dict.fromkeys(names, dtype)) if names else config
