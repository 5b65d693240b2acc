"""What modules start from: every parameter of the table, from the distribution that its initialiser names."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

import plstm_config as configs
from plstm_config import parameter_tree
from plstm_config.base import Config
from plstm_config.parameters import Parameter
from plstm_config.topology import DagTopology

from .. import reference
from ..tolerances import assert_close
from .adapter import Adapter, Array, ModuleCall
from .files import examples
from .module_draws import ModuleCase, case
from .modules import call, case_named, is_module

SEEDS = (0, 1, 2, 3)
DTYPE = "float32"
# Five standard errors: of some ten thousand comparisons none is beyond by chance.
SIGMAS = 5.0
_SHARES = (np.arange(2000) + 0.5) / 2000


def _linear(name: str, **options: Any) -> ModuleCase:
    return case(f"init_{name}", configs.LinearConfig(input_dim=24, output_dim=40, **options), 2, 24)


def _more() -> Iterator[ModuleCase]:
    """Initialisers that no module has from the start, axes that count otherwise than they are stored, and views."""
    yield _linear("normal", weight_init=configs.NormalInitConfig(mean=0.5, stddev=0.1))
    yield _linear("uniform", weight_init=configs.UniformInitConfig(low=-0.5, high=1.0))
    yield _linear("truncated", weight_init=configs.TruncatedNormalInitConfig(stddev=1.0, lower=-0.5, upper=2.0))
    yield _linear("tail", weight_init=configs.TruncatedNormalInitConfig(stddev=1.0, lower=2.0, upper=4.0))
    yield _linear("small_of_rows", weight_init=configs.SmallInitConfig(axis=0, mup_init_scale=2.0))
    yield _linear("wang_of_blocks", weight_init=configs.WangInitConfig(axis=-1, num_blocks=3, mup_init_scale=0.5))
    yield _linear("xavier", weight_init=configs.XavierInitConfig(in_axis=1, out_axis=0))
    yield _linear("logspace", weight_init=configs.LogspaceInitConfig(low=-1.0, high=1.0, base=3.0, axis=0))
    yield _linear("linspace", bias_init=configs.LinspaceInitConfig(low=-2.0, high=2.0))
    yield _linear("diagonal", weight_init=configs.DiagonalInitConfig(value=0.5, in_axes=1, out_axes=0))
    yield _linear("constant", weight_init=configs.OnesInitConfig(), bias_init=configs.ConstantInitConfig(value=-3.0))
    angles = configs.LinspaceInitConfig(low=0.0, high=4.0)
    fused = configs.pLSTM2DLayerFusedConfig(input_dim=15, num_heads=5, DK=3, pmode_orientation_bias_init=angles)
    yield case("init_orientations", fused, 1, 3, 2, 15)
    both = configs.pLSTM1DLayerConfig(input_dim=16, num_heads=2, DV=2, bidirectional=True)
    yield case("init_bidirectional", both, 2, 5, 16)
    slots = configs.LinspaceInitConfig(low=0.0, high=2.0)
    graph = configs.pLSTMGraphLayerConfig(input_dim=16, num_heads=2, max_edges=3, transition_bias_init=slots)
    yield case("init_slots", graph, 4, 16, graph=DagTopology.from_edges(4, [(0, 1), (1, 2), (0, 2), (2, 3)]))


@cache
def asked() -> Mapping[str, ModuleCall]:
    """One call for each class of modules, and those of more initialisers."""
    cases = [case_named(group, name) for name, group in examples().items()]
    return {found.name: call(found, DTYPE) for found in (*cases, *_more())}


def checks(adapter: Adapter) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks by name."""
    for name, found in asked().items():
        if is_module(adapter, found.config):
            yield name, partial(check, adapter, name)


def check(adapter: Adapter, name: str) -> None:
    """New modules hold the parameters of the table, other ones for another seed, from the right distributions."""
    found = asked()[name]
    drawn = [adapter.init(found, seed) for seed in (*SEEDS, SEEDS[0])]
    tree = parameter_tree(found.config)
    if set(drawn[0]) != set(tree):
        raise AssertionError(f"{name}: expected the parameters {sorted(tree)}, got {sorted(drawn[0])}")
    for parameter_name, parameter in tree.items():
        check_parameter(parameter, [arrays[parameter_name] for arrays in drawn], f"{name}: {parameter_name}")


def check_parameter(parameter: Parameter, arrays: Sequence[Array], label: str) -> None:
    """Compare one parameter of several modules, the last one with the seed of the first, with the table.

    Args:
        parameter: its row of the table.
        arrays: its values.
        label: what is compared, for the message.

    Raises:
        AssertionError: if they are not from the distribution, or do not follow from the seed.
    """
    shapes = {array.shape for array in arrays}
    if shapes != {parameter.shape}:
        raise AssertionError(f"{label}: expected shape {parameter.shape}, got {sorted(shapes)}")
    if not np.array_equal(arrays[0], arrays[-1]):
        raise AssertionError(f"{label}: expected the same numbers from the same seed, got others")
    values = np.stack([as_drawn(parameter, array) for array in arrays[:-1]])
    if reference.is_drawn(parameter.init):
        check_distribution(parameter.init, parameter.drawn_shape, values, label)
        return
    expected = reference.fixed_values(parameter.init, parameter.drawn_shape)
    for one in values:
        assert_close(one, expected, DTYPE, label=label)


def as_drawn(parameter: Parameter, array: Array) -> Array:
    """An array with the axes as its initialiser counts them."""
    return array.reshape(parameter.view or parameter.shape).transpose(
        parameter.order or range(len(parameter.view or parameter.shape))
    )


def check_distribution(init: Config, shape: tuple[int, ...], values: Array, label: str) -> None:
    """Compare drawn numbers with a distribution: mean, spread, and the largest distance of the shares below a value.

    Args:
        init: the initialiser.
        shape: of the array, for its fans.
        values: [seeds, *shape].
        label: what is compared, for the message.

    Raises:
        AssertionError: if something is further off than chance allows, or numbers come again.
    """
    grid = reference.quantiles(init, shape, _SHARES)
    if np.ptp(grid) == 0.0:
        assert_close(values, np.full(values.shape, grid[0]), DTYPE, label=label)
        return
    count, mean, spread = values.size, grid.mean(), grid.std()
    error = SIGMAS / count**0.5
    found = {
        "mean": (abs(values.mean() - mean), error * spread),
        "spread": (abs(np.sqrt(np.mean((values - mean) ** 2)) - spread), error * spread),
        # the probability of a distance above x is 2 exp(-2 count x^2)
        "distance": (_distance(np.sort(values, axis=None), grid), error * 0.55),
    }
    for what, (off, allowed) in found.items():
        if not off <= allowed:
            raise AssertionError(f"{label}: {what} is off by {off:.3g}, chance allows {allowed:.3g} for {init}")
    if len(np.unique(values)) < 0.9 * count:
        raise AssertionError(f"{label}: expected {count} random numbers, got {len(np.unique(values))} different ones")


def _distance(ordered: Array, grid: Array) -> float:
    """Kolmogorov's distance between numbers and the distribution with the quantiles `grid`."""
    shares = np.interp(ordered, grid, _SHARES, left=0.0, right=1.0)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(max(np.max(steps[1:] - shares), np.max(shares - steps[:-1])))
