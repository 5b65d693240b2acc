"""Cases of the small layers, and of the pLSTM layers on sequences, grids and graphs."""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from typing import Any, get_args

from plstm_config import (
    Convolution1DLayerConfig,
    Convolution2DLayerConfig,
    DirectLayerConfig,
    DropPathConfig,
    ExpExpFunctionConfig,
    IdentityConfig,
    KeyLayerConfig,
    LayerNormConfig,
    LinearConfig,
    LongRangeTransitionLayerConfig,
    MarkLayerConfig,
    MultiHeadLayerNormConfig,
    MultiHeadRMSNormConfig,
    PassthroughLayerConfig,
    QueryLayerConfig,
    RMSNormConfig,
    ScaleLayerConfig,
    SigmoidFunctionConfig,
    SoftCapFunctionConfig,
    SourceLayerConfig,
    TanhFunctionConfig,
    ValueLayerConfig,
    pLSTM1DLayerConfig,
    pLSTM2DLayerConfig,
    pLSTM2DLayerFusedConfig,
    pLSTMGraphEdgeLayerConfig,
    pLSTMGraphLayerConfig,
)
from plstm_config.topology import DagTopology
from plstm_config.transition import NormalizationMode

from .module_draws import FLOAT64, ModuleCase, case

WIDTH = 8
SCALAR: dict[str, Any] = {"JQ": 1, "JK": 1, "JV": 1, "JT": 1, "JO": 1}
MATRIX: dict[str, Any] = {"JQ": 2, "JK": 1, "JV": 2, "JT": 3, "JO": 2}
READS_INPUT: dict[str, Any] = {"weight": True, "sub_heads": 2, "input_dim": WIDTH, **FLOAT64}
# Two graphs and a node without edges; two ways from 0 to 4, which D-mode prunes, and edges out of topological order.
EDGES = [[2, 4], [0, 1], [0, 2], [1, 3], [2, 3], [3, 4], [1, 2], [6, 7], [5, 6], [5, 7]]
NUM_NODES = 9
GRAPHS = DagTopology.from_edges(NUM_NODES, EDGES, node_ptr=[0, 5, 8, 9])


@cache
def layer_cases() -> tuple[ModuleCase, ...]:
    """All cases of layers."""
    groups = (_gates, _transitions, _projections, _norms, _convolutions, _pointwise, _sequences, _grids, _graphs)
    return tuple(found for group in groups for found in group())


def _gates() -> Iterator[ModuleCase]:
    shapes = {
        SourceLayerConfig: ("JT", "JK", "JV"),
        MarkLayerConfig: ("JO", "JQ", "JT"),
        DirectLayerConfig: ("JO", "JQ", "JK", "JV"),
    }
    for config_class, letters in shapes.items():
        for activation in ("identity", "tanh", "logsigmoid"):
            sizes = {letter: MATRIX[letter] for letter in letters}
            options = {"num_heads": 4, "activation": activation, "activation_scale": 1.5, **sizes, **READS_INPUT}
            yield case(f"{config_class.__name__[:-11].lower()}_{activation}", config_class(**options), 2, 3, WIDTH)
    yield case("source_bias_only", SourceLayerConfig(num_heads=3, input_dim=WIDTH, **FLOAT64), 2, 3, WIDTH)


def _transitions() -> Iterator[ModuleCase]:
    common = {"num_heads": 4, "transition_dim": 3, **READS_INPUT}
    for mode in get_args(NormalizationMode):
        config = LongRangeTransitionLayerConfig(normalization_mode=mode, orthogonalization_order=4, **common)
        yield case(f"transition_{mode}", config, 2, WIDTH)
    options: Mapping[str, Mapping[str, Any]] = {
        "symmetric": {"symmetric": True, "normalization_mode": "qr"},
        "series": {"matrix_exponential": "series", "orthogonalization_order": 5, "orthogonalization_factor": 0.3},
        "bias_only": {"weight": False},
        "logsigmoid": {"eigenvalue_representation": "logsigmoid", "transition_dim": 1},
        "expexp": {"eigenvalue_representation": "expexp", "eigenvalue_factor": 0.3, "transition_dim": 1},
        "tanh": {"eigenvalue_factor": 0.7, "transition_dim": 1},
    }
    for name, chosen in options.items():
        yield case(f"transition_{name}", LongRangeTransitionLayerConfig(**{**common, **chosen}), 2, 3, WIDTH)


def _projections() -> Iterator[ModuleCase]:
    common = {"num_heads": 2, "input_dim": WIDTH, **FLOAT64}
    for slices in (1, 2, 4):
        yield case(f"query_{slices}", QueryLayerConfig(DK=6, JQ=2, sub_heads=slices, **common), 2, 3, WIDTH)
    yield case("key_l2", KeyLayerConfig(DK=4, JK=3, normalization="l2", **common), 2, 3, WIDTH)
    yield case("value_without_bias", ValueLayerConfig(DV=4, JV=2, sub_heads=2, bias=False, **common), 2, 3, WIDTH)


def _norms() -> Iterator[ModuleCase]:
    flags: tuple[dict[str, Any], ...] = ({"scale": True, "bias": True}, {"scale": False}, {"eps": 0.1})
    for config_class in (RMSNormConfig, LayerNormConfig):
        for number, chosen in enumerate(flags):
            name = f"{config_class.__name__[:-6].lower()}_{number}"
            yield case(name, config_class(input_dim=WIDTH, **chosen, **FLOAT64), 2, 3, WIDTH)
    for head_norm in (MultiHeadRMSNormConfig, MultiHeadLayerNormConfig):
        for axis, shape in ((1, (2, 4, 3, 2)), (0, (4, 3, 2)), (None, (2, 3, WIDTH))):
            config = head_norm(num_heads=4, input_dim=WIDTH, bias=True, axis=axis, **FLOAT64)
            yield case(f"{head_norm.__name__[:-6].lower()}_{axis}", config, *shape)
    yield case("identity", IdentityConfig(), 2, 3, WIDTH)


def _convolutions() -> Iterator[ModuleCase]:
    for size, length in ((1, 5), (4, 6), (4, 2), (3, 0)):
        config = Convolution1DLayerConfig(input_dim=WIDTH, kernel_size=size, bias=size != 3, **FLOAT64)
        yield case(f"convolution_1d_{size}_{length}", config, 2, length, WIDTH)
    for size, length in ((1, 3), (4, 6), (5, 3), (4, 1), (3, 0)):
        config = Convolution1DLayerConfig(input_dim=WIDTH, kernel_size=size, causal=False, **FLOAT64)
        yield case(f"convolution_1d_{size}_{length}_centred", config, 2, length, WIDTH)
    for causal in (True, False):
        for kernel in ((3, 3), (2, 4), (1, 5)):
            on_grids = Convolution2DLayerConfig(input_dim=WIDTH, kernel_size=kernel, causal=causal, **FLOAT64)
            name = f"convolution_2d_{kernel[0]}x{kernel[1]}_{'causal' if causal else 'centred'}"
            yield case(name, on_grids, 2, 4, 3, WIDTH)


def _pointwise() -> Iterator[ModuleCase]:
    yield case("linear", LinearConfig(input_dim=WIDTH, output_dim=5, **FLOAT64), 2, 3, WIDTH)
    yield case("linear_without_bias", LinearConfig(input_dim=WIDTH, output_dim=5, bias=False, **FLOAT64), 2, 3, WIDTH)
    yield case("passthrough", PassthroughLayerConfig(input_dim=WIDTH, **FLOAT64), 2, 3, WIDTH)
    yield case("scale", ScaleLayerConfig(input_dim=WIDTH, **FLOAT64), 2, 3, WIDTH)
    yield case("drop_path", DropPathConfig(drop_prob=0.5), 2, 3, WIDTH)
    yield case("tanh", TanhFunctionConfig(), 2, 3)
    yield case("sigmoid", SigmoidFunctionConfig(), 2, 3)
    yield case("expexp", ExpExpFunctionConfig(scale=0.4), 2, 3)
    yield case("soft_cap", SoftCapFunctionConfig(scale=1.5), 2, 3)


def _interaction_options(letters: str) -> dict[str, dict[str, Any]]:
    """Options that the layers on sequences and grids share; each letter alone, then all of them."""
    reading = {f"reads_{letter}": {"convolution_inputs": letter} for letter in letters}
    return {
        **reading,
        "reads_all": {"convolution_inputs": letters},
        "reads_none": {"convolution_inputs": ""},
        "no_convolution": {"additional_convolution": False},
        "tied": {"tie_query_key": True, "JQ": 1, "JK": 1},
        "no_outprojection": {"outprojection": False},
        "outprojection_bias": {"outprojection_bias": True},
        "no_passthrough": {"additional_passthrough": False},
        "sub_heads": {"sub_heads": 1},
        "wide_query": {"DK": 5, "JQ": 3, "JK": 2},
        "identity_norm": {"mhnorm": IdentityConfig()},
        "layer_norm": {"mhnorm": LayerNormConfig(bias=True, **FLOAT64)},
        "rms_norm": {"mhnorm": RMSNormConfig(**FLOAT64)},
        "norm_of_slices": {"mhnorm": MultiHeadRMSNormConfig(axis=None, **FLOAT64)},
        "norm_with_bias": {"mhnorm": MultiHeadLayerNormConfig(bias=True, **FLOAT64)},
    }


def sequence_layer(**options: Any) -> pLSTM1DLayerConfig:
    """A small layer on sequences; scalar and with input-dependent gates unless told."""
    gates = {"source": SourceLayerConfig, "mark": MarkLayerConfig, "direct": DirectLayerConfig}
    chosen = {name: kind(**{**READS_INPUT, "input_dim": -1}) for name, kind in gates.items()}
    return pLSTM1DLayerConfig(**{"input_dim": WIDTH, "num_heads": 2, **SCALAR, **chosen, **FLOAT64, **options})


def _sequences() -> Iterator[ModuleCase]:
    yield case("1d_scalar", sequence_layer(), 2, 7, WIDTH)
    yield case("1d_matrix", sequence_layer(**MATRIX, DV=2), 2, 6, WIDTH)
    yield case("1d_defaults", pLSTM1DLayerConfig(input_dim=WIDTH, num_heads=1, DV=2, **FLOAT64), 2, 5, WIDTH)
    for length in (0, 1, 70):
        yield case(f"1d_length_{length}", sequence_layer(), 2, length, WIDTH)
    for name, options in _interaction_options("STMDQKVP").items():
        yield case(f"1d_{name}", sequence_layer(**options), 2, 5, WIDTH)
    yield from _both_ways()


def _both_ways() -> Iterator[ModuleCase]:
    yield case("1d_bidirectional_matrix", sequence_layer(**MATRIX, DV=2, bidirectional=True), 2, 6, WIDTH)
    defaults = pLSTM1DLayerConfig(input_dim=WIDTH, num_heads=1, DV=2, bidirectional=True, **FLOAT64)
    yield case("1d_bidirectional_defaults", defaults, 2, 5, WIDTH)
    for length in (0, 1, 2, 7, 70):
        yield case(f"1d_bidirectional_length_{length}", sequence_layer(bidirectional=True), 2, length, WIDTH)
    odd = Convolution1DLayerConfig(kernel_size=3, **FLOAT64)
    yield case("1d_bidirectional_odd_kernel", sequence_layer(convolution=odd, bidirectional=True), 2, 5, WIDTH)
    shared = _interaction_options("STMDQKVP")
    for name in ("reads_all", "reads_none", "no_convolution", "tied", "no_outprojection", "sub_heads", "layer_norm"):
        yield case(f"1d_bidirectional_{name}", sequence_layer(**shared[name], bidirectional=True), 2, 5, WIDTH)


def grid_layer(config_class: type[Any] = pLSTM2DLayerFusedConfig, **options: Any) -> Any:
    """A small layer on grids with input-dependent gates, a convolution and a passthrough unless told."""
    gates = {"source": SourceLayerConfig, "mark": MarkLayerConfig, "direct": DirectLayerConfig}
    chosen = {name: kind(**{**READS_INPUT, "input_dim": -1}) for name, kind in gates.items()}
    common = {"input_dim": WIDTH, "num_heads": 2, "additional_convolution": True, "additional_passthrough": True}
    return config_class(**{**common, **chosen, **FLOAT64, **options})


MODES: Mapping[str, Mapping[str, Any]] = {
    "P": {"mode": "P"},
    "P_original": {"mode": "P", "pmode_complement": "original"},
    "D_L": {"mode": "D", "dmode_chirality": "L"},
    "D_R": {"mode": "D", "dmode_chirality": "R"},
}


def _grids() -> Iterator[ModuleCase]:
    for mode, options in MODES.items():
        for name, sizes in (("scalar", SCALAR), ("matrix", {**MATRIX, "DV": 2})):
            yield case(f"2d_fused_{mode}_{name}", grid_layer(**options, **sizes), 1, 3, 2, WIDTH)
        for orientations in ((0,), (3, 1), (2, 2, 0), (0, 1, 2, 3)):
            config = grid_layer(pLSTM2DLayerConfig, orientation_combinations=orientations, **options)
            yield case(f"2d_list_{mode}_{''.join(map(str, orientations))}", config, 1, 2, 3, WIDTH)
        yield case(f"2d_fused_{mode}_one_cell", grid_layer(**options), 2, 1, 1, WIDTH)
    for name, options in _interaction_options("STMDQKVPO").items():
        yield case(f"2d_fused_P_{name}", grid_layer(mode="P", **options), 1, 2, 3, WIDTH)
        listed = grid_layer(pLSTM2DLayerConfig, orientation_combinations=(1, 2), mode="D", **options)
        yield case(f"2d_list_D_{name}", listed, 1, 3, 2, WIDTH)
    one_sided = Convolution2DLayerConfig(kernel_size=(2, 3), causal=True, **FLOAT64)
    yield case("2d_fused_D_L_causal", grid_layer(mode="D", convolution=one_sided), 1, 3, 3, WIDTH)
    yield case("2d_fused_P_large", grid_layer(mode="P", pmode_orientation_scale=2.0), 1, 17, 3, WIDTH)


def _graphs() -> Iterator[ModuleCase]:
    common: dict[str, Any] = {"input_dim": WIDTH, "num_heads": 2, **FLOAT64}
    options: dict[str, Any]
    for mode, slots, side in product("PD", ("own", "swapped"), ("outgoing", "incoming")):
        options = {"mode": mode, "edge_slots": slots, "pmode_normalization": side, "bias": side == "incoming"}
        config = pLSTMGraphLayerConfig(max_edges=4, **options, **common)
        yield case(f"graph_{mode}_{slots}_{side}", config, NUM_NODES, WIDTH, graph=GRAPHS)
    for mode, node, side in product("PD", ("shared", "tail"), ("outgoing", "incoming")):
        options = {"mode": mode, "transition_node": node, "pmode_normalization": side}
        edge = pLSTMGraphEdgeLayerConfig(edge_input_dim=3, **options, **common)
        inputs = {"graph": GRAPHS, "edge_attr": (len(EDGES), 3)}
        yield case(f"graph_edge_{mode}_{node}_{side}", edge, NUM_NODES, WIDTH, **inputs)
    norm = MultiHeadLayerNormConfig(axis=0, **FLOAT64)
    options = {"qk_head_dim": 3, "hv_head_dim": 4, "out": False, "mhnorm": norm}
    yield case("graph_P_sizes", pLSTMGraphLayerConfig(max_edges=3, **common, **options), NUM_NODES, WIDTH, graph=GRAPHS)
    none = pLSTMGraphEdgeLayerConfig(edge_input_dim=0, **common)
    yield case("graph_edge_P_without_features", none, NUM_NODES, WIDTH, graph=GRAPHS)
    lone = DagTopology.from_edges(2, [])
    yield case("graph_P_without_edges", pLSTMGraphLayerConfig(max_edges=1, **common), 2, WIDTH, graph=lone)
