"""Deliberately broken backends with modules: the suite must catch every one of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from plstm_config import (
    ConstantInitConfig,
    MultiHeadRMSNormConfig,
    RMSNormConfig,
    SmallInitConfig,
    change,
    parameter_tree,
)
from plstm_config.parameters import Parameter

from .. import reference
from . import truth
from .adapter import Array, ModuleCall, Result
from .numpy_adapter import NumpyAdapter

Rewrite = Callable[[ModuleCall], ModuleCall]


@dataclass(frozen=True)
class ModuleMutant:
    """A fault.

    Attributes:
        name: what is wrong.
        group: the group of checks that must notice.
        adapter: the broken backend.
        cases: beginning of the names of the checks that are to be run.
    """

    name: str
    group: str
    adapter: NumpyAdapter
    cases: str = ""


class OtherCalls(NumpyAdapter):
    """Answers another question than the one asked."""

    def __init__(self, rewrite: Rewrite) -> None:
        self._rewrite = rewrite

    def run_module(self, call: ModuleCall) -> Result:
        """The answer to the other question."""
        return super().run_module(self._rewrite(call))


class OtherResults(NumpyAdapter):
    """Spoils the answer on its way out."""

    def __init__(self, spoil: Callable[[ModuleCall, Result], Result]) -> None:
        self._spoil = spoil

    def run_module(self, call: ModuleCall) -> Result:
        """The spoilt answer."""
        return self._spoil(call, super().run_module(call))


class OtherFiles(NumpyAdapter):
    """Writes or reads something else."""

    def __init__(
        self,
        written: Callable[[Any, dict[str, Array]], tuple[Any, dict[str, Array]]] | None = None,
        read: Callable[[Path], None] | None = None,
    ) -> None:
        self._written = written
        self._read = read

    def save(self, config: Any, parameters: Mapping[str, Any], folder: Path) -> None:
        """Write what is not the module; see `Adapter.save`."""
        found = dict(parameters)
        config, found = (config, found) if self._written is None else self._written(config, found)
        super().save(config, found, folder)

    def load(self, folder: Path) -> tuple[Any, Mapping[str, Any]]:
        """Read after an error was swallowed."""
        try:
            return super().load(folder)
        except ValueError as error:
            if self._read is None:
                raise
            self._read(folder)
            raise ValueError("folder: expected other weights, got these") from error


class OtherStart(NumpyAdapter):
    """Draws new parameters in another way.

    Args:
        spoil: makes other numbers of those of a parameter, given its row of the table.
        seeds: which seed is taken for which.
    """

    def __init__(
        self, spoil: Callable[[Parameter, Array], Array], seeds: Callable[[int], int] = lambda seed: seed
    ) -> None:
        self._spoil = spoil
        self._seeds = seeds

    def init(self, call: ModuleCall, seed: int) -> Mapping[str, Any]:
        """The spoilt parameters."""
        tree, drawn = parameter_tree(call.config), super().init(call, self._seeds(seed))
        return {name: self._spoil(tree[name], array) for name, array in drawn.items()}


class OtherErrors(NumpyAdapter):
    """Refuses in words of its own."""

    def run_module(self, call: ModuleCall) -> Result:
        """The answer, or an error that names nothing."""
        try:
            return super().run_module(call)
        except (TypeError, ValueError) as error:
            raise ValueError("module: expected another input, got this one") from error


def option(name: str, other: Callable[[Any], Any]) -> Rewrite:
    """A module that reads an option wrongly, where it has the option."""

    def rewrite(call: ModuleCall) -> ModuleCall:
        if not hasattr(call.config, name):
            return call
        return replace(call, config=change(call.config, {name: other(getattr(call.config, name))}))

    return rewrite


def flipped(name: str, one: str, other: str) -> Rewrite:
    """A module that takes one value of an option for the other.

    Args:
        name: of the option.
        one: a value.
        other: another.

    Returns:
        The rewrite of calls.
    """
    return option(name, lambda value: {one: other, other: one}.get(value, value))


def without_letter(letter: str) -> Rewrite:
    """A part that never reads the convolution."""
    return option("convolution_inputs", lambda letters: letters.replace(letter, ""))


def parameters(name: str, other: Callable[[ModuleCall, Array], Array]) -> Rewrite:
    """A module that reads a parameter wrongly, where it has it."""

    def rewrite(call: ModuleCall) -> ModuleCall:
        found = {key: other(call, array) if key.endswith(name) else array for key, array in call.parameters.items()}
        return replace(call, parameters=found)

    return rewrite


def inputs(name: str, other: Callable[[ModuleCall, Any], Any]) -> Rewrite:
    """A module that reads an input wrongly, where it has it."""

    def rewrite(call: ModuleCall) -> ModuleCall:
        found = {key: other(call, value) if key == name else value for key, value in call.inputs.items()}
        return replace(call, inputs=found)

    return rewrite


def orientation_major(call: ModuleCall, bias: Array) -> Array:
    """Heads of gates in the order o * H + h."""
    heads = getattr(call.config, "num_heads", 1)
    if bias.shape[0] != 4 * heads:
        return bias
    return np.swapaxes(bias.reshape(4, heads, *bias.shape[1:]), 0, 1).reshape(bias.shape)


def scaled_query(call: ModuleCall, array: Array) -> Array:
    """Query and key are scaled before the op scales them."""
    return array * getattr(call.config, "DK", 1) ** -0.5


def without_passthrough(call: ModuleCall) -> ModuleCall:
    """A layer that forgets the way around."""
    if "passthrough.scale" not in call.parameters or not getattr(call.config, "additional_passthrough", False):
        return call
    return replace(
        call, parameters={**call.parameters, "passthrough.scale": np.zeros_like(call.parameters["passthrough.scale"])}
    )


def norm_over_all_heads(call: ModuleCall) -> ModuleCall:
    """A norm that mixes the heads."""
    if not isinstance(getattr(call.config, "mhnorm", None), MultiHeadRMSNormConfig) or call.config.mhnorm.axis != 1:
        return call
    scale = call.parameters["mhnorm.scale"].reshape(-1)
    types = {"dtype": call.config.dtype, "param_dtype": call.config.param_dtype}
    config = change(call.config, {"mhnorm": RMSNormConfig(**types)})
    return replace(call, config=config, parameters={**call.parameters, "mhnorm.scale": scale})


def halves_swapped(call: ModuleCall, array: Array) -> Array:
    """Gate and carry are taken for each other."""
    return np.roll(array, len(array) // 2, axis=0)


def cache_entry(name: str, other: Callable[[Array], Array]) -> Callable[[ModuleCall, Result], Result]:
    """An entry of the cache is wrong."""

    def spoil(call: ModuleCall, result: Result) -> Result:
        cache = result.cache
        if cache is not None:
            cache = {key: other(array) if key.endswith(name) else array for key, array in cache.items()}
        return replace(result, cache=cache)

    return spoil


def low_state(call: ModuleCall, result: Result) -> Result:
    """States come in the dtype of the config."""
    return replace(result, state_dtype=call.dtype if result.cache else None)


def high_output(call: ModuleCall, result: Result) -> Result:
    """The output comes in the dtype of a norm."""
    return replace(result, output_dtype=truth.state_dtype(call.dtype))


def forgotten_cache(call: ModuleCall) -> ModuleCall:
    """Every call starts anew."""
    return replace(call, keywords={name: value for name, value in call.keywords.items() if name != "cache"})


def undirected(name: str) -> Rewrite:
    """No gradient reaches parameters of a name."""

    def rewrite(call: ModuleCall) -> ModuleCall:
        known = call.directions.items()
        return replace(call, directions={key: 0.0 * array if key.endswith(name) else array for key, array in known})

    return rewrite


def leaky(call: ModuleCall, result: Result) -> Result:
    """A mask that multiplies by zero what is not to be seen."""
    first = next(iter(call.inputs.values()))
    with np.errstate(invalid="ignore"):
        hidden = 0.0 * np.sum(first) if "cu_seqlens" in call.keywords else 0.0
    return replace(result, output=result.output + hidden)


def joined(call: ModuleCall, result: Result) -> Result:
    """The borders of packed sequences have no effect on the output."""
    if "cu_seqlens" not in call.keywords or "cache" in call.keywords:
        return result
    whole = NumpyAdapter().run_module(replace(call, keywords={}, cotangent=None))
    return replace(result, output=whole.output)


def sequence_major(array: Array) -> Array:
    """Rows of a packed cache in the order s * B + b."""
    return np.swapaxes(array.reshape(2, -1, *array.shape[1:]), 0, 1).reshape(array.shape) if len(array) > 2 else array


def transposed_head(config: Any, arrays: dict[str, Array]) -> tuple[Any, dict[str, Array]]:
    """Square linear weights are written as the framework holds them."""
    return config, {
        name: np.ascontiguousarray(a.T) if a.ndim == 2 and len(set(a.shape)) == 1 else a for name, a in arrays.items()
    }


def other_dtype(config: Any, arrays: dict[str, Array]) -> tuple[Any, dict[str, Array]]:
    """The config is written with the dtype of the computation."""
    return (change(config, {"dtype": "float64"}) if hasattr(config, "dtype") else config), arrays


def zeroed_biases(config: Any, arrays: dict[str, Array]) -> tuple[Any, dict[str, Array]]:
    """Biases are not written but drawn."""
    return config, {name: 0.0 * array if name.endswith("bias") else array for name, array in arrays.items()}


def cut_to_fit(call: ModuleCall, x: Array) -> Array:
    """Features that nothing reads are dropped in silence."""
    return x[..., : getattr(call.config, "input_dim", None)]


def untouched(parameter: Parameter, array: Array) -> Array:
    """Nothing is spoilt."""
    return array


def other_fan(parameter: Parameter, array: Array) -> Array:
    """The fan is the size along the other axis of a matrix."""
    rows, columns = array.shape if array.ndim == 2 else (1, 1)
    return array * (columns / rows) ** 0.5


def other_family(parameter: Parameter, array: Array) -> Array:
    """Uniform numbers of the right mean and spread."""
    if not isinstance(parameter.init, SmallInitConfig):
        return array
    order = np.argsort(np.argsort(array, axis=None)).reshape(array.shape)
    return (2.0 * (order + 0.5) / array.size - 1.0) * 3.0**0.5 * parameter.init.spread(parameter.drawn_shape)


def as_stored(parameter: Parameter, array: Array) -> Array:
    """Initialisers count the axes of the stored array."""
    if reference.is_drawn(parameter.init) or (parameter.order is None and parameter.view is None):
        return array
    return reference.fixed_values(parameter.init, parameter.shape)


def zero_constants(parameter: Parameter, array: Array) -> Array:
    """Biases start at zero, whatever their initialiser."""
    return 0.0 * array if isinstance(parameter.init, ConstantInitConfig) else array


def swallow(folder: Path) -> None:
    """The error loses what it named."""


_LETTERS = tuple(
    ModuleMutant(f"ignores_letter_{letter}", "layers", OtherCalls(without_letter(letter)), f"{kind}_reads_{letter}")
    for kind, letters in (("1d", "STMDQKVP"), ("2d_fused_P", "STMDQKVPO"))
    for letter in letters
)

MODULE_MUTANTS: tuple[ModuleMutant, ...] = (
    *_LETTERS,
    ModuleMutant("orientation_major_heads", "layers", OtherCalls(parameters("bias", orientation_major)), "2d_fused"),
    ModuleMutant("scaled_twice", "layers", OtherCalls(parameters("query.weight", scaled_query)), "1d"),
    ModuleMutant("no_passthrough", "layers", OtherCalls(without_passthrough), "2d"),
    ModuleMutant("norm_over_all_heads", "layers", OtherCalls(norm_over_all_heads), "1d"),
    ModuleMutant(
        "complement", "layers", OtherCalls(flipped("pmode_complement", "scaled", "original")), "2d_fused_P_scalar"
    ),
    ModuleMutant("chirality", "layers", OtherCalls(flipped("dmode_chirality", "L", "R")), "2d_list_D"),
    ModuleMutant("one_sided", "layers", OtherCalls(option("causal", lambda causal: True)), "convolution_2d"),
    ModuleMutant(
        "normalization", "layers", OtherCalls(flipped("pmode_normalization", "outgoing", "incoming")), "graph"
    ),
    ModuleMutant("slots", "layers", OtherCalls(flipped("edge_slots", "own", "swapped")), "graph"),
    ModuleMutant(
        "node_of_transition", "layers", OtherCalls(flipped("transition_node", "shared", "tail")), "graph_edge"
    ),
    ModuleMutant(
        "features_of_edges_in_topological_order",
        "layers",
        OtherCalls(inputs("edge_attr", lambda call, array: array[call.inputs["graph"].edge_order])),
        "graph_edge",
    ),
    ModuleMutant("graph_reversed", "models", OtherCalls(inputs("graph", lambda call, graph: graph.reverse())), "graph"),
    ModuleMutant("series", "layers", OtherCalls(option("matrix_exponential", lambda kind: "series")), "transition"),
    ModuleMutant("activation_scale", "layers", OtherCalls(option("activation_scale", lambda scale: 1.0)), "mark"),
    ModuleMutant("no_l2", "layers", OtherCalls(option("normalization", lambda kind: "none")), "key"),
    ModuleMutant("halves_swapped", "models", OtherCalls(parameters("upproj.weight", halves_swapped)), "pre_up"),
    ModuleMutant("gelu", "models", OtherCalls(flipped("gating_function", "gelu", "gelu_tanh")), "post_up"),
    ModuleMutant("no_scale", "models", OtherCalls(parameters("scale2.scale", lambda _, a: np.ones_like(a))), "post_up"),
    ModuleMutant("one_norm", "models", OtherCalls(parameters("norm2.scale", lambda _, a: a[::-1])), "post_up"),
    ModuleMutant("no_cap", "models", OtherCalls(option("logit_soft_cap", lambda cap: None)), "language"),
    ModuleMutant("corners", "models", OtherCalls(parameters("head.weight", lambda _, a: a[:, ::-1])), "vision_corners"),
    ModuleMutant("output_dtype", "layers", OtherResults(high_output), "linear"),
    ModuleMutant("no_gradient_of_angles", "layers", OtherCalls(undirected("orientation_weight")), "2d"),
    ModuleMutant("no_gradient_of_features_of_edges", "layers", OtherCalls(undirected("edge_attr")), "graph_edge"),
    ModuleMutant(
        "window_off_by_one", "stepped_layers", OtherResults(cache_entry("window", lambda a: np.roll(a, 1, axis=1)))
    ),
    ModuleMutant("cache_forgotten", "stepped_layers", OtherCalls(forgotten_cache)),
    ModuleMutant("state_dtype", "stepped_layers", OtherResults(low_state)),
    ModuleMutant("neighbours_seen", "packed_layers", OtherResults(joined)),
    ModuleMutant("neighbours_multiplied_by_zero", "packed_layers", OtherResults(leaky)),
    ModuleMutant("rows_by_sequence", "packed_layers", OtherResults(cache_entry("state", sequence_major))),
    ModuleMutant("words_of_its_own", "module_errors", OtherErrors()),
    ModuleMutant("features_dropped", "module_errors", OtherCalls(inputs("x", cut_to_fit))),
    ModuleMutant(
        "features_of_edges_unread",
        "module_errors",
        OtherCalls(lambda call: replace(call, inputs={n: a for n, a in call.inputs.items() if n != "edge_attr"})),
        "graph_P",
    ),
    ModuleMutant("other_fan", "initial_values", OtherStart(other_fan)),
    ModuleMutant("other_family", "initial_values", OtherStart(other_family)),
    ModuleMutant("axes_as_stored", "initial_values", OtherStart(as_stored), "init_"),
    ModuleMutant("bias_of_gates", "initial_values", OtherStart(zero_constants)),
    ModuleMutant("truncated_alike", "initial_values", OtherStart(lambda row, a: np.abs(a)), "init_truncated"),
    ModuleMutant("one_number", "initial_values", OtherStart(lambda row, a: np.full_like(a, a.flat[0])), "linear"),
    ModuleMutant("one_seed", "initial_values", OtherStart(untouched, seeds=lambda seed: 0)),
    ModuleMutant("transposed", "files", OtherFiles(transposed_head)),
    ModuleMutant("config_changed", "files", OtherFiles(other_dtype)),
    ModuleMutant("biases_lost", "files", OtherFiles(zeroed_biases)),
    ModuleMutant("nameless_errors", "files", OtherFiles(read=swallow)),
)
