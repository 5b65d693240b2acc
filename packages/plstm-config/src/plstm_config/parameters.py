"""What the parameters of a config are: names, shapes, axes, initial values, decay; without any framework.

A config lists its own parameters (`config.parameters()`) and its submodules (`config.children()`). Both together make
the tree whose dotted names are those of the saved files. Every backend builds its modules from this table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from plstm_config.base import Config, DType
from plstm_config.initializers import InitConfig

# The letters by which a parameter names its axes: those of the ops, and those that only parameters have.
AXES: Mapping[str, str] = {
    "D": "features of the model, or of what a layer reads",
    "F": "features inside of a block, or that a linear map writes",
    "H": "heads, or groups of heads",
    "s": "slices of the input (sub_heads)",
    "O": "orientations",
    "DK": "query and key dimension of a head",
    "DV": "value dimension of a head, also the features that a norm of heads sees",
    "JQ": "state-tracking dimension of the query",
    "JK": "state-tracking dimension of the key",
    "JV": "state-tracking dimension of the value",
    "JT": "state-tracking dimension of the state",
    "JO": "state-tracking dimension of the output",
    "X": "first side of a grid, patch or kernel",
    "Y": "second side of a grid, patch or kernel",
    "T": "steps of a kernel on sequences",
    "C": "channels or classes",
    "V": "vocabulary",
    "N": "degrees of a node",
    "1": "an axis of size one",
}


@dataclass(frozen=True)
class Parameter:
    """One array of numbers that a module holds.

    Attributes:
        shape: canonical shape, that of the saved files.
        axes: a letter of `AXES` for each axis; sharding rules follow them.
        init: how it starts.
        dtype: type in which it is stored.
        decay: whether weight decay applies: to what multiplies an input, not to biases, scales and positions.
        learned: whether it is trained.
        view: shape in which its numbers are drawn, before `order`; None: the canonical one.
        order: axes of the view in the order in which the initialiser counts them; None: as they stand.

    Examples:
        >>> import plstm_config
        >>> tree = plstm_config.parameter_tree(plstm_config.pLSTM1DLayerConfig(input_dim=16, num_heads=2))
        >>> tree["transition.eigenvalues_bias"].shape, tree["transition.eigenvalues_bias"].axes
        ((2, 4), ('H', 'JT'))
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    init: InitConfig
    dtype: DType = "float32"
    decay: bool = True
    learned: bool = True
    view: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        unknown = sorted(set(self.axes) - set(AXES))
        if unknown or len(self.axes) != len(self.shape):
            raise ValueError(f"axes: expected one of {', '.join(AXES)} for each axis of {self.shape}, got {self.axes}")
        if self.view is not None and math.prod(self.view) != self.size:
            raise ValueError(f"view: expected a shape of {self.size} numbers, got {self.view}")
        if self.order is not None and sorted(self.order) != list(range(len(self.view or self.shape))):
            raise ValueError(f"order: expected the axes of {self.view or self.shape}, got {self.order}")

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def drawn_shape(self) -> tuple[int, ...]:
        """Shape of what the initialiser makes; its axes and fans count here."""
        view = self.view or self.shape
        return view if self.order is None else tuple(view[axis] for axis in self.order)

    @property
    def from_drawn(self) -> tuple[int, ...]:
        """Axes of the drawn array in the order of the view: ``drawn.transpose(from_drawn).reshape(shape)``."""
        order = self.order or tuple(range(len(self.view or self.shape)))
        return tuple(order.index(axis) for axis in range(len(order)))


@dataclass(frozen=True)
class Weights:
    """A submodule that is nothing but named parameters, such as the kernel of a convolution."""

    table: Mapping[str, Parameter | None] = field(hash=False)

    def parameters(self) -> dict[str, Parameter | None]:
        """The parameters by name; None: switched off."""
        return dict(self.table)

    def children(self) -> dict[str, Child]:
        """None."""
        return {}


@dataclass(frozen=True)
class Repeated:
    """Equal submodules in a row, named by their number."""

    config: Config
    count: int


Child: TypeAlias = Config | Weights | Repeated | None


def named_configs(config: Config, prefix: str = "") -> Iterator[tuple[str, Config]]:
    """All configs of a tree of modules with the dotted names of their modules, parents first.

    Args:
        config: where to start.
        prefix: name of this module; empty at the top.

    Yields:
        Name and config; repeated modules one by one.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.PreUpProjectionBlockConfig(input_dim=16)
        >>> [name for name, _ in plstm_config.named_configs(config)][:4]
        ['', 'norm', 'upproj', 'interaction_module']
    """
    for name, node in _nodes(config, prefix):
        if isinstance(node, Config):
            yield name, node


def parameter_tree(config: Config) -> dict[str, Parameter]:
    """The parameters of a module and of all its submodules.

    Args:
        config: any config of a module.

    Returns:
        Parameters by dotted name, the names of the saved files.

    Raises:
        TypeError: if `config` is no config.
        ValueError: if a size is left open.

    Examples:
        >>> import plstm_config
        >>> tree = plstm_config.parameter_tree(plstm_config.LinearConfig(input_dim=4, output_dim=2))
        >>> {name: (one.shape, one.decay) for name, one in tree.items()}
        {'weight': ((2, 4), True), 'bias': ((2,), False)}
    """
    check_config(config)
    return dict(iterate_parameters(config))


def iterate_parameters(config: Config) -> Iterator[tuple[str, Parameter]]:
    """The entries of `parameter_tree` one by one, so that a look at the first ones does not make all."""
    for name, node in _nodes(config, ""):
        for own, parameter in node.parameters().items():
            if parameter is not None:
                yield join(name, own), parameter


def count_parameters(config: Config, *, learned_only: bool = False) -> int:
    """How many numbers a module holds, without building it.

    Args:
        config: any config of a module.
        learned_only: leave out what is not trained.

    Returns:
        The sum of the sizes of its parameters.

    Raises:
        TypeError: if `config` is no config.
        ValueError: if a size is left open.

    Examples:
        >>> import plstm_config
        >>> plstm_config.count_parameters(plstm_config.preset("plstm_vis_tiny"))
        6314404
    """
    check_config(config)
    return _count(config, learned_only)


def join(prefix: str, name: str) -> str:
    """A dotted name."""
    return f"{prefix}.{name}" if prefix else name


def check_config(config: object) -> None:
    """Raise a TypeError if something is no config."""
    if not isinstance(config, Config):
        raise TypeError(f"config: expected a config of plstm_config, got {type(config).__name__}")


def _nodes(node: Config | Weights, prefix: str) -> Iterator[tuple[str, Config | Weights]]:
    yield prefix, node
    for name, child in node.children().items():
        here = join(prefix, name)
        if isinstance(child, Repeated):
            for index in range(child.count):
                yield from _nodes(child.config, join(here, str(index)))
        elif child is not None:
            yield from _nodes(child, here)


def _count(node: Config | Weights, learned_only: bool) -> int:
    own = (parameter for parameter in node.parameters().values() if parameter is not None)
    total = sum(parameter.size for parameter in own if parameter.learned or not learned_only)
    for child in node.children().values():
        if isinstance(child, Repeated):
            total += child.count * _count(child.config, learned_only)
        elif child is not None:
            total += _count(child, learned_only)
    return total
