"""A module as its formula sees it, the table of formulas, and how a config is applied to parameters and inputs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from plstm_config.base import Config
from plstm_config.parameters import Repeated, parameter_tree

from ._checks import check_call
from ._contractions import Array

# What sequences leave behind, by the dotted names of the layers that hold it: "blocks.0.interaction_module.state".
Cache = dict[str, Array]
Function = TypeVar("Function", bound=Callable[..., Any])

_POINTWISE: dict[type, Callable[..., Array]] = {}
_MIXING: dict[type, Callable[..., tuple[Array, Cache]]] = {}


@dataclass(frozen=True)
class Context:
    """What travels beside the input.

    Attributes:
        cache: where the sequences stood before the input, None at their start.
        graph: topology of modules on graphs.
        edge_attr: features of its edges.
    """

    cache: Mapping[str, Array] | None = None
    graph: Any = None
    edge_attr: Array | None = None


@dataclass(frozen=True)
class Module:
    """A config with the parameters of this module and of those below it, by names relative to it."""

    config: Any
    parameters: Mapping[str, Array]

    def __call__(self, x: Array) -> Array:
        """Output of a module that needs nothing but its input."""
        return _POINTWISE[type(self.config)](self, x)

    def __getitem__(self, name: str) -> Array:
        """A parameter of its own."""
        return self.parameters[name]

    def get(self, name: str) -> Array | None:
        """A parameter of its own, None where it is switched off."""
        return self.parameters.get(name)

    def run(self, x: Array, context: Context) -> tuple[Array, Cache]:
        """Output and cache of any module."""
        mixing = _MIXING.get(type(self.config))
        return (self(x), {}) if mixing is None else mixing(self, x, context)

    def run_part(self, name: str, x: Array, context: Context) -> tuple[Array, Cache]:
        """Output of a submodule, and its cache under its name."""
        own = None if context.cache is None else under(context.cache, name)
        output, cache = self.part(name).run(x, replace(context, cache=own))
        return output, {f"{name}.{entry}": array for entry, array in cache.items()}

    def has(self, name: str) -> bool:
        """Whether a submodule is switched on."""
        return self._child(name) is not None

    def part(self, name: str) -> "Module":
        """A submodule by its name, or "blocks.0" for one of several in a row."""
        child = self._child(name)
        if isinstance(child, Repeated):
            raise ValueError(f"name: expected the number of one of {child.count} submodules, got {name!r}")
        return Module(child, under(self.parameters, name))

    def apply_part(self, name: str, x: Array) -> Array:
        """Output of a submodule, or the input itself where the submodule is switched off."""
        return self.part(name)(x) if self.has(name) else x

    def _child(self, name: str) -> Any:
        first, _, number = name.partition(".")
        child = self.config.children().get(first)
        return child.config if number else child


def under(arrays: Mapping[str, Array], name: str) -> Cache:
    """The entries below a dotted name, with the rest of their names."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}


def pointwise(*config_classes: type[Config]) -> Callable[[Function], Function]:
    """Enter the formula ``f(module, x) -> output`` of modules that need nothing but their input."""

    def enter(function: Function) -> Function:
        _POINTWISE.update(dict.fromkeys(config_classes, function))
        return function

    return enter


def mixing(*config_classes: type[Config]) -> Callable[[Function], Function]:
    """Enter the formula ``f(module, x, context) -> (output, cache)`` of modules with caches or graphs below them."""

    def enter(function: Function) -> Function:
        _MIXING.update(dict.fromkeys(config_classes, function))
        return function

    return enter


def module_classes() -> tuple[type[Config], ...]:
    """Config classes of all modules that the reference knows.

    Examples:
        >>> from plstm_testing import reference
        >>> len(reference.module_classes()) > 30
        True
    """
    return tuple(sorted({*_POINTWISE, *_MIXING}, key=lambda config_class: config_class.__name__))


def apply(
    config: Config,
    parameters: Mapping[str, Array],
    x: Any,
    graph: Any = None,
    edge_attr: Any = None,
    *,
    cache: Mapping[str, Array] | None = None,
    return_cache: bool = False,
    cu_seqlens: Any = None,
) -> Any:
    """What a module computes, in inference, in float64 whatever dtype the config names.

    Packed sequences are computed one by one, so none can see another.

    Args:
        config: complete config of any layer, block or model.
        parameters: arrays by dotted name, the names and shapes of `plstm_config.parameter_tree(config)`.
        x: input: features [..., D]; [B,T,D], [B,X,Y,D] or [N,D] for layers and blocks; tokens [B,T] for language
            models, pixels for vision models.
        graph: for modules on graphs: a `DagTopology`, or integers [2,E].
        edge_attr: features of the graph's edges [E,De] in the order in which they were given.
        cache: for modules on sequences: where they stood before `x`, by dotted names: of each layer `state`
            [B,H,DK,DV,JT] and, with a convolution, `window` [B,k-1,D].
        return_cache: also return the cache after the last step.
        cu_seqlens: borders [S+1] of sequences packed along T. Caches then have B*S rows, row b*S+s for sequence s of
            row b.

    Returns:
        The output, or the pair of it and the cache.

    Raises:
        TypeError: if there is no such module, or an input has a wrong type.
        ValueError: if a parameter is missing, unknown or of another shape, if inputs do not fit the config, or if the
            module cannot do what is asked.

    Examples:
        >>> import numpy as np, plstm_config
        >>> from plstm_testing import reference
        >>> from plstm_testing.parameters import random_parameters
        >>> config = plstm_config.pLSTM1DLayerConfig(input_dim=8, num_heads=2)
        >>> parameters = random_parameters(config, np.random.default_rng(0))
        >>> reference.apply(config, parameters, np.ones((2, 5, 8))).shape
        (2, 5, 8)
    """
    if type(config) not in {*_POINTWISE, *_MIXING}:
        known = ", ".join(config_class.__name__ for config_class in module_classes())
        raise TypeError(f"config: expected one of {known}, got {type(config).__name__}")
    module = Module(config, _checked(config, parameters))
    x, edge_attr = _input(x), None if edge_attr is None else _input(edge_attr)
    used = {"cache": cache is not None, "return_cache": return_cache, "cu_seqlens": cu_seqlens is not None}
    check_call(config, x, graph, edge_attr, cu_seqlens, [name for name, is_used in used.items() if is_used])
    if cu_seqlens is None:
        output, after = module.run(x, Context(cache, graph, edge_attr))
    else:
        output, after = _run_packed(module, x, cache, np.asarray(cu_seqlens))
    return (output, after) if return_cache else output


def step(
    config: Config, parameters: Mapping[str, Array], x: Any, cache: Mapping[str, Array] | None
) -> tuple[Array, Cache]:
    """One step of a module on sequences: the full pass over a sequence of length one.

    Args:
        config: as in `apply`.
        parameters: as in `apply`.
        x: next input of every sequence [B,D], or token [B].
        cache: where the sequences stand, None at their start.

    Returns:
        Output without the time axis, and the cache after the step.

    Examples:
        >>> import numpy as np, plstm_config
        >>> from plstm_testing import reference
        >>> from plstm_testing.parameters import random_parameters
        >>> config = plstm_config.pLSTM1DLayerConfig(input_dim=8, num_heads=2)
        >>> parameters = random_parameters(config, np.random.default_rng(0))
        >>> output, cache = reference.step(config, parameters, np.ones((2, 8)), None)
        >>> output.shape, sorted(cache)
        ((2, 8), ['state', 'window'])
    """
    x = np.asarray(x)
    check_call(config, x, None, None, None, ["step"])
    output, after = apply(config, parameters, x[:, None], cache=cache, return_cache=True)
    return output[:, 0], after


def _run_packed(module: Module, x: Array, cache: Mapping[str, Array] | None, borders: Array) -> tuple[Array, Cache]:
    outputs, caches = [], []
    count = len(borders) - 1
    for index, (start, end) in enumerate(pairwise(borders)):
        own = None if cache is None else {name: array[index::count] for name, array in cache.items()}
        output, after = module.run(x[:, start:end], Context(own))
        outputs.append(output)
        caches.append(after)
    stacked = {name: np.stack([after[name] for after in caches], axis=1) for name in caches[0]}
    joined = {name: array.reshape(-1, *array.shape[2:]) for name, array in stacked.items()}
    return np.concatenate(outputs, axis=1), joined


def _checked(config: Config, parameters: Mapping[str, Array]) -> dict[str, Array]:
    problems = list(_problems(config, parameters))
    if problems:
        raise ValueError(f"parameters: expected those of the config, got others: {'; '.join(problems)}")
    return {name: np.asarray(array, np.float64) for name, array in parameters.items()}


def _problems(config: Config, parameters: Mapping[str, Array]) -> Iterator[str]:
    tree = parameter_tree(config)
    for name in sorted(tree.keys() - parameters.keys()):
        yield f"missing {name!r}"
    for name in sorted(parameters.keys() - tree.keys()):
        yield f"unexpected {name!r}"
    for name in tree.keys() & parameters.keys():
        if np.shape(parameters[name]) != tree[name].shape:
            yield f"{name}: expected shape {tree[name].shape}, got {np.shape(parameters[name])}"


def _input(array: Any) -> Array:
    """Numbers in float64; tokens stay integers."""
    array = np.asarray(array)
    return array if array.dtype.kind in "iu" else array.astype(np.float64)
