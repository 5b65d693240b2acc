"""How parameters start: fixed values of an initialiser config, and quantiles of those that are drawn."""

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from plstm_config import (
    ConstantInitConfig,
    DiagonalInitConfig,
    LinspaceInitConfig,
    LogspaceInitConfig,
    NormalInitConfig,
    OnesInitConfig,
    SmallInitConfig,
    TruncatedNormalInitConfig,
    UniformInitConfig,
    WangInitConfig,
    XavierInitConfig,
    ZerosInitConfig,
    parameter_tree,
)
from plstm_config.base import Config
from plstm_config.options import of_instance
from plstm_config.parameters import Parameter

Array = np.ndarray
Shape = tuple[int, ...]


def _spaced(init: LinspaceInitConfig | LogspaceInitConfig, shape: Shape) -> Array:
    count = shape[init.axis]
    values = [init.low + (init.high - init.low) * step / max(count - 1, 1) for step in range(count)]
    if isinstance(init, LogspaceInitConfig):
        values = [init.base**value for value in values]
    return np.moveaxis(np.broadcast_to(np.array(values), (*np.delete(shape, init.axis), count)), -1, init.axis)


def _diagonal(init: DiagonalInitConfig, shape: Shape) -> Array:
    in_axes, out_axes = ([axis % len(shape) for axis in np.atleast_1d(axes)] for axes in (init.in_axes, init.out_axes))
    in_sizes, out_sizes = ([shape[axis] for axis in axes] for axes in (in_axes, out_axes))
    period = min(np.prod(in_sizes, dtype=int), np.prod(out_sizes, dtype=int))
    values = np.zeros(shape)
    for index in np.ndindex(*shape):
        row = np.ravel_multi_index([index[axis] for axis in in_axes], in_sizes)
        column = np.ravel_multi_index([index[axis] for axis in out_axes], out_sizes)
        if row % period == column % period:
            values[index] = init.value
    return values


_FIXED: Mapping[type, Callable[[Any, Shape], Array]] = {
    ConstantInitConfig: lambda init, shape: np.full(shape, init.value),
    ZerosInitConfig: lambda init, shape: np.zeros(shape),
    OnesInitConfig: lambda init, shape: np.ones(shape),
    LinspaceInitConfig: _spaced,
    LogspaceInitConfig: _spaced,
    DiagonalInitConfig: _diagonal,
}


def _normal(mean: float, stddev: float, shares: Array) -> Array:
    standard = NormalDist()
    return mean + stddev * np.array([standard.inv_cdf(share) for share in shares.ravel()]).reshape(shares.shape)


def _truncated(init: TruncatedNormalInitConfig, shape: Shape, shares: Array) -> Array:
    """With Phi of the normal distribution: z = Phi^-1(Phi(a) + u (Phi(b) - Phi(a))) between the bounds a and b."""
    if init.stddev == 0.0:
        return np.full(shares.shape, np.clip(init.mean, init.lower, init.upper))
    normal = NormalDist(init.mean, init.stddev)
    below, above = normal.cdf(init.lower), normal.cdf(init.upper)
    return np.clip(_normal(init.mean, init.stddev, below + (above - below) * shares), init.lower, init.upper)


def _wang(init: WangInitConfig, shape: Shape, shares: Array) -> Array:
    return _normal(0.0, 2.0 * init.mup_init_scale / math.sqrt(shape[init.axis]) / init.num_blocks, shares)


def _xavier(init: XavierInitConfig, shape: Shape, shares: Array) -> Array:
    fans = shape[init.in_axis] + shape[init.out_axis]
    return _normal(0.0, init.mup_init_scale * math.sqrt(2.0 / fans), shares)


def _small(init: SmallInitConfig, shape: Shape, shares: Array) -> Array:
    return _normal(0.0, init.mup_init_scale * math.sqrt(2.0 / (5.0 * shape[init.axis])), shares)


_DRAWN: Mapping[type, Callable[[Any, Shape, Array], Array]] = {
    NormalInitConfig: lambda init, shape, shares: _normal(init.mean, init.stddev, shares),
    UniformInitConfig: lambda init, shape, shares: init.low + (init.high - init.low) * shares,
    TruncatedNormalInitConfig: _truncated,
    WangInitConfig: _wang,
    XavierInitConfig: _xavier,
    SmallInitConfig: _small,
}


def is_drawn(init: Config) -> bool:
    """Whether an initialiser's values are random; a TypeError for what is no config of an initialiser.

    Examples:
        >>> import plstm_config
        >>> from plstm_testing import reference
        >>> reference.is_drawn(plstm_config.NormalInitConfig()), reference.is_drawn(plstm_config.OnesInitConfig())
        (True, False)
    """
    of_instance("init", init, {**_FIXED, **_DRAWN})
    return type(init) in _DRAWN


def fixed_values(init: Config, shape: Shape) -> Array:
    """The values of an initialiser that is not random.

    Args:
        init: its config.
        shape: of the array, with the axes that the config names.

    Returns:
        float64 array of the shape.

    Raises:
        TypeError: if `init` is no config of such an initialiser.

    Examples:
        >>> import plstm_config
        >>> from plstm_testing import reference
        >>> reference.fixed_values(plstm_config.LinspaceInitConfig(low=0.0, high=2.0), (2, 3)).tolist()
        [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
    """
    return of_instance("init", init, _FIXED)(init, shape)


def quantiles(init: Config, shape: Shape, shares: Array) -> Array:
    """The values below which the given shares of an initialiser's distribution lie; drawn values for drawn shares.

    Args:
        init: its config.
        shape: of the array whose fans the config speaks of.
        shares: numbers between 0 and 1, both excluded, in an array of any shape.

    Returns:
        float64 array of the shape of `shares`.

    Raises:
        TypeError: if `init` is no config of a random initialiser.

    Examples:
        >>> import numpy as np, plstm_config
        >>> from plstm_testing import reference
        >>> init = plstm_config.UniformInitConfig(low=-1.0, high=3.0)
        >>> reference.quantiles(init, (4, 4), np.array([0.25, 0.5])).tolist()
        [0.0, 1.0]
    """
    return of_instance("init", init, _DRAWN)(init, shape, shares)


def init(config: Config, random: np.random.Generator) -> dict[str, Array]:
    """Draw the parameters of a module as its config says.

    Args:
        config: complete config of a layer, block or model.
        random: where the numbers come from.

    Returns:
        float64 arrays by dotted name, in their canonical shapes.

    Raises:
        TypeError: if `config` is no config.
        ValueError: if it leaves a size open.

    Examples:
        >>> import numpy as np, plstm_config
        >>> from plstm_testing import reference
        >>> config = plstm_config.LinearConfig(input_dim=2, output_dim=3)
        >>> reference.init(config, np.random.default_rng(0))["bias"].tolist()
        [0.0, 0.0, 0.0]
    """
    return {name: _draw(parameter, random) for name, parameter in parameter_tree(config).items()}


def _draw(parameter: Parameter, random: np.random.Generator) -> Array:
    shape = parameter.drawn_shape
    if is_drawn(parameter.init):
        drawn = quantiles(parameter.init, shape, random.uniform(np.finfo(float).tiny, 1.0, shape))
    else:
        drawn = fixed_values(parameter.init, shape)
    return drawn.transpose(parameter.from_drawn).reshape(parameter.shape)
