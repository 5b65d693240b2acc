"""How parameters start. Fans are sizes along an axis of the canonical layout, in every framework."""

from dataclasses import field
from typing import TypeAlias

from plstm_config.base import Config, frozen, require


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
        require(self.base > 0, f"base={self.base}: expected a positive number")


@frozen
class NormalInitConfig(Config):
    """A normal distribution."""

    class_name: str = field(init=False, default="NormalInit")
    mean: float = 0.0
    stddev: float = 1.0

    def _check(self) -> None:
        require(self.stddev >= 0, f"stddev={self.stddev}: expected a number >= 0")


@frozen
class UniformInitConfig(Config):
    """A uniform distribution between `low` and `high`."""

    class_name: str = field(init=False, default="UniformInit")
    low: float = 0.0
    high: float = 1.0

    def _check(self) -> None:
        require(self.low <= self.high, f"low={self.low}: expected a number <= high={self.high}")


@frozen
class TruncatedNormalInitConfig(Config):
    """A normal distribution, restricted to `lower` <= z <= `upper` (in units of the values, not of `stddev`)."""

    class_name: str = field(init=False, default="TruncatedNormalInit")
    mean: float = 0.0
    stddev: float = 0.0
    lower: float = -2.0
    upper: float = 2.0

    def _check(self) -> None:
        require(self.stddev >= 0, f"stddev={self.stddev}: expected a number >= 0")
        require(self.lower < self.upper, f"lower={self.lower}: expected less than upper={self.upper}")


@frozen
class DiagonalInitConfig(Config):
    """`value` times the identity of the smaller of in and out size, tiled to in x out, equal along the other axes."""

    class_name: str = field(init=False, default="DiagonalInit")
    value: float = 1.0
    in_axes: int | tuple[int, ...] = ()
    out_axes: int | tuple[int, ...] = ()


@frozen
class WangInitConfig(Config):
    """Normal with std = 2 * mup_init_scale / sqrt(fan) / num_blocks; fan is the size along `axis`."""

    class_name: str = field(init=False, default="WangInit")
    num_blocks: int = 1
    mup_init_scale: float = 1.0
    axis: int = -1

    def _check(self) -> None:
        require(self.num_blocks >= 1, f"num_blocks={self.num_blocks} is not positive")


@frozen
class XavierInitConfig(Config):
    """Normal with std = mup_init_scale * sqrt(2 / (fan_in + fan_out))."""

    class_name: str = field(init=False, default="XavierInit")
    in_axis: int = -2
    out_axis: int = -1
    mup_init_scale: float = 1.0


@frozen
class SmallInitConfig(Config):
    """Normal with std = mup_init_scale / sqrt(2.5 fan); fan is the size along `axis`."""

    class_name: str = field(init=False, default="SmallInit")
    axis: int = -1
    mup_init_scale: float = 1.0


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
