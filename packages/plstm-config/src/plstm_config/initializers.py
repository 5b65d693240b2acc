"""How parameters start. Fans are sizes along an axis of the canonical layout, in every framework."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from plstm_config.base import Config, frozen, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Tail(NamedTuple):
    """How uniform numbers become normal ones within bounds.

    A quantile function resolves the lower tail only, so an interval in the upper half is mirrored: with u uniform,
    `sign * stddev * clip(quantile(first_share + (last_share - first_share) * u), first, last) + mean`.

    Attributes:
        sign: -1 if the interval is mirrored, else 1.
        first: lower bound in units of the standard deviation, after mirroring.
        last: upper bound alike.
        first_share: probability below `first`.
        last_share: probability below `last`.
    """

    sign: float
    first: float
    last: float
    first_share: float
    last_share: float


def axes_of(axes: int | Sequence[int], rank: int) -> list[int]:
    """Axes counted from the front.

    Args:
        axes: one or more, from either end.
        rank: of the array.

    Returns:
        The same as numbers >= 0.

    Raises:
        ValueError: if the array has no such axis.
    """
    given = [axes] if isinstance(axes, int) else list(axes)
    for axis in given:
        require(-rank <= axis < rank, f"axis: expected one in [-{rank}, {rank}) of an array of rank {rank}, got {axis}")
    return [axis % rank for axis in given]


def _size(shape: Sequence[int], axis: int) -> int:
    return shape[axes_of(axis, len(shape))[0]]


@frozen
class ConstantInitConfig(Config):
    """All elements equal `value`."""

    class_name: str = field(init=False, default="ConstantInit")
    value: float = 0.0


@frozen
class OnesInitConfig(Config):
    """All elements are one."""

    class_name: str = field(init=False, default="OnesInit")


@frozen
class ZerosInitConfig(Config):
    """All elements are zero."""

    class_name: str = field(init=False, default="ZerosInit")


@frozen
class LinspaceInitConfig(Config):
    """Evenly spaced values from `low` to `high` along `axis`, constant along the others."""

    class_name: str = field(init=False, default="LinspaceInit")
    low: float = 0.0
    high: float = 1.0
    axis: int = -1


@frozen
class LogspaceInitConfig(Config):
    """`base` to the power of evenly spaced exponents from `low` to `high` along `axis`."""

    class_name: str = field(init=False, default="LogspaceInit")
    low: float = 0.0
    high: float = 1.0
    base: float = 10.0
    axis: int = -1

    def _check(self) -> None:
        require(self.base > 0, f"base: expected a positive number, got {self.base}")


@frozen
class NormalInitConfig(Config):
    """A normal distribution."""

    class_name: str = field(init=False, default="NormalInit")
    mean: float = 0.0
    stddev: float = 1.0

    def _check(self) -> None:
        require(self.stddev >= 0, f"stddev: expected a number >= 0, got {self.stddev}")


@frozen
class UniformInitConfig(Config):
    """A uniform distribution between `low` and `high`."""

    class_name: str = field(init=False, default="UniformInit")
    low: float = 0.0
    high: float = 1.0

    def _check(self) -> None:
        require(self.low <= self.high, f"low: expected a number <= high={self.high}, got {self.low}")


@frozen
class TruncatedNormalInitConfig(Config):
    """A normal distribution, restricted to `lower` <= z <= `upper` (in units of the values, not of `stddev`).

    Examples:
        >>> import plstm_config
        >>> init = plstm_config.TruncatedNormalInitConfig(mean=0.0, stddev=0.02, lower=-0.04, upper=0.04)
        >>> round(init.tail().last_share, 3)  # how uniform numbers become these
        0.977
    """

    class_name: str = field(init=False, default="TruncatedNormalInit")
    mean: float = 0.0
    stddev: float = 0.0
    lower: float = -2.0
    upper: float = 2.0

    def _check(self) -> None:
        require(self.stddev >= 0, f"stddev: expected a number >= 0, got {self.stddev}")
        require(self.lower < self.upper, f"lower: expected less than upper={self.upper}, got {self.lower}")

    def tail(self) -> Tail:
        """How uniform numbers are turned into these; for a `stddev` above zero."""
        low, high = ((bound - self.mean) / self.stddev for bound in (self.lower, self.upper))
        sign = -1.0 if low + high > 0.0 else 1.0
        first, last = sorted((sign * low, sign * high))
        first_share, last_share = (0.5 * math.erfc(-bound / math.sqrt(2.0)) for bound in (first, last))
        return Tail(sign, first, last, first_share, last_share)


@frozen
class DiagonalInitConfig(Config):
    """`value` times the identity of the smaller of in and out size, tiled to in x out, equal along the other axes.

    Examples:
        >>> import plstm_config
        >>> plstm_config.DiagonalInitConfig(value=0.5, in_axes=1, out_axes=0).array((2, 2)).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """

    class_name: str = field(init=False, default="DiagonalInit")
    value: float = 1.0
    in_axes: int | tuple[int, ...] = ()
    out_axes: int | tuple[int, ...] = ()

    def array(self, shape: Sequence[int]) -> NDArray[np.float64]:
        """All values of an array.

        Args:
            shape: of the array.

        Returns:
            The array.

        Raises:
            ValueError: if the shape lacks one of the axes, or one is both in and out.
        """
        import numpy as np  # only here: configs alone need no arrays

        rank = len(shape)
        in_axes, out_axes = axes_of(self.in_axes, rank), axes_of(self.out_axes, rank)
        different = not set(in_axes) & set(out_axes)
        require(different, f"out_axes: expected others than in_axes={self.in_axes}, got {self.out_axes}")
        in_size, out_size = (math.prod(shape[axis] for axis in axes) for axes in (in_axes, out_axes))
        period = max(min(in_size, out_size), 1)
        matrix = (np.arange(in_size)[:, None] % period == np.arange(out_size) % period) * float(self.value)
        # The axes in the order other, in, out: there the matrix broadcasts over the leading ones.
        order = [axis for axis in range(rank) if axis not in {*in_axes, *out_axes}] + in_axes + out_axes
        block = matrix.reshape([shape[axis] for axis in in_axes + out_axes])
        return np.array(np.broadcast_to(block, [shape[axis] for axis in order]).transpose(np.argsort(order)))


@frozen
class WangInitConfig(Config):
    """Normal with std = 2 * mup_init_scale / sqrt(fan) / num_blocks; fan is the size along `axis`.

    Examples:
        >>> import plstm_config
        >>> plstm_config.WangInitConfig(axis=-1, num_blocks=4).spread((8, 16))
        0.125
    """

    class_name: str = field(init=False, default="WangInit")
    num_blocks: int = 1
    mup_init_scale: float = 1.0
    axis: int = -1

    def spread(self, shape: Sequence[int]) -> float:
        """The standard deviation for an array of a shape, whose axes it must have (else a ValueError)."""
        return 2.0 * self.mup_init_scale / math.sqrt(_size(shape, self.axis)) / self.num_blocks

    def _check(self) -> None:
        require(self.num_blocks >= 1, f"num_blocks: expected an integer >= 1, got {self.num_blocks}")


@frozen
class XavierInitConfig(Config):
    """Normal with std = mup_init_scale * sqrt(2 / (fan_in + fan_out)).

    Examples:
        >>> import plstm_config
        >>> plstm_config.XavierInitConfig().spread((24, 8))
        0.25
    """

    class_name: str = field(init=False, default="XavierInit")
    in_axis: int = -2
    out_axis: int = -1
    mup_init_scale: float = 1.0

    def spread(self, shape: Sequence[int]) -> float:
        """The standard deviation for an array of a shape, whose axes it must have (else a ValueError)."""
        return self.mup_init_scale * math.sqrt(2.0 / (_size(shape, self.in_axis) + _size(shape, self.out_axis)))


@frozen
class SmallInitConfig(Config):
    """Normal with std = mup_init_scale / sqrt(2.5 fan); fan is the size along `axis`.

    Examples:
        >>> import plstm_config
        >>> round(plstm_config.SmallInitConfig(axis=-1).spread((8, 10)), 3)
        0.2
    """

    class_name: str = field(init=False, default="SmallInit")
    axis: int = -1
    mup_init_scale: float = 1.0

    def spread(self, shape: Sequence[int]) -> float:
        """The standard deviation for an array of a shape, whose axes it must have (else a ValueError)."""
        return self.mup_init_scale / math.sqrt(2.5 * _size(shape, self.axis))


InitConfig: TypeAlias = (
    ConstantInitConfig
    | ZerosInitConfig
    | OnesInitConfig
    | LinspaceInitConfig
    | LogspaceInitConfig
    | NormalInitConfig
    | UniformInitConfig
    | TruncatedNormalInitConfig
    | DiagonalInitConfig
    | WangInitConfig
    | XavierInitConfig
    | SmallInitConfig
)
