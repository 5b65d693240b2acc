"""The table of parameters: names, shapes, axes, and how they are drawn."""

import math
import time
from typing import Any

import numpy as np
import pytest

import plstm_config as pc
from plstm_config.parameters import AXES, Repeated, Weights, iterate_parameters
from plstm_config.weights import ArrayInfo, check_weights, count_arrays

CONFIGS: dict[str, Any] = {
    "sequence layer": pc.pLSTM1DLayerConfig(input_dim=16, num_heads=2),
    "grid layer": pc.pLSTM2DLayerConfig(input_dim=16, num_heads=2, mode="D"),
    "fused layer": pc.pLSTM2DLayerFusedConfig(input_dim=16, num_heads=2, additional_convolution=True),
    "graph layer": pc.pLSTMGraphLayerConfig(input_dim=16, num_heads=2, max_edges=3),
    "edge layer": pc.pLSTMGraphEdgeLayerConfig(input_dim=16, num_heads=2, edge_input_dim=3),
    "stack": pc.BlockStackConfig(input_dim=16, num_blocks=3, block=pc.PreUpProjectionBlockConfig(input_dim=16)),
    "vision": pc.preset("plstm_vis_tiny"),
    "vit": pc.preset("vit_tiny"),
    "language": pc.preset("plstm_lm_small"),
    "graphs": pc.pLSTMGraphModelConfig(input_dim=4, output_dim=2, edge_input_dim=3),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_tree_is_whole(name: str) -> None:
    config = CONFIGS[name]
    tree = pc.parameter_tree(config)
    assert dict(iterate_parameters(config)) == tree
    assert count_arrays(config) == len(tree)
    assert pc.count_parameters(config) == sum(parameter.size for parameter in tree.values())
    owners = dict(pc.named_configs(config))
    assert owners[""] is config
    for path, parameter in tree.items():
        assert set(parameter.axes) <= set(AXES)
        assert len(parameter.axes) == len(parameter.shape)
        assert parameter.decay == decays_by_name(path, parameter.shape), path


def decays_by_name(path: str, shape: tuple[int, ...]) -> bool:
    """The rule of earlier versions, by which trained models were regularised."""
    last = path.rsplit(".", maxsplit=1)[-1]
    return len(shape) > 1 and not last.endswith("bias") and last != "scale" and "pos_embed" not in path


def test_only_positions_can_be_fixed() -> None:
    config = pc.pLSTMVisionModelConfig(
        dim=8, num_heads=2, resolution=(32, 32), pos_embed=pc.PosEmbed2DConfig(learnable=False)
    )
    fixed = {name for name, parameter in pc.parameter_tree(config).items() if not parameter.learned}
    assert fixed == {"pos_embed.embed"}
    assert pc.count_parameters(config) - pc.count_parameters(config, learned_only=True) == 4 * 8


def test_angles_are_drawn_by_orientation_and_stored_by_head() -> None:
    layer = pc.pLSTM2DLayerConfig(input_dim=15, num_heads=5, orientation_combinations=[0, 1, 3])
    bias = pc.parameter_tree(layer)["orientation_bias"]
    assert (bias.shape, bias.axes, bias.drawn_shape) == ((5, 3), ("H", "O"), (3, 5))
    assert restored(bias).shape == (5, 3)
    drawn = np.arange(15).reshape(bias.drawn_shape)
    assert (drawn.transpose(bias.from_drawn).reshape(bias.shape) == drawn.T).all()


def restored(parameter: pc.Parameter) -> np.ndarray:
    return np.zeros(parameter.drawn_shape).transpose(parameter.from_drawn).reshape(parameter.shape)


def test_transitions_of_nodes_are_drawn_between_slots() -> None:
    layer = pc.pLSTMGraphLayerConfig(input_dim=16, num_heads=2, max_edges=3)
    bias = pc.parameter_tree(layer)["transition.bias"]
    assert (bias.shape, bias.view) == ((2 * 3 * 3,), (2, 3, 3))
    assert restored(bias).shape == bias.shape


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_drawn_fills_the_canonical_shape(name: str) -> None:
    for parameter in pc.parameter_tree(CONFIGS[name]).values():
        assert math.prod(parameter.drawn_shape) == parameter.size
        assert restored(parameter).shape == parameter.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axes": ("D",)}, r"^axes: expected one of .* for each axis of \(2, 3\), got \('D',\)"),
        ({"axes": ("D", "Z")}, r"^axes: expected one of"),
        ({"view": (5,)}, r"^view: expected a shape of 6 numbers, got \(5,\)"),
        ({"order": (0, 0)}, r"^order: expected the axes of \(2, 3\), got \(0, 0\)"),
        ({"view": (6,), "order": (1, 0)}, r"^order: expected the axes of \(6,\)"),
    ],
)
def test_descriptions_that_contradict_themselves(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pc.Parameter(**{"shape": (2, 3), "axes": ("F", "D"), "init": pc.ZerosInitConfig()} | arguments)


def test_counting_takes_no_time_however_many_blocks() -> None:
    one = pc.BlockStackConfig(input_dim=16, num_blocks=1)
    many = pc.BlockStackConfig(input_dim=16, num_blocks=10**12)
    begin = time.process_time()
    assert pc.count_parameters(many) == 10**12 * pc.count_parameters(one)
    assert count_arrays(many) == 10**12 * count_arrays(one)
    assert next(iterate_parameters(many))[0].startswith("blocks.0.")
    assert next(pc.named_configs(many))[0] == ""
    assert time.process_time() - begin < 1.0


def test_sizes_left_open_are_named() -> None:
    for config in (pc.SourceLayerConfig(weight=True), pc.LinearConfig(), pc.PosEmbed2DConfig()):
        with pytest.raises(ValueError, match=r"input_dim: expected an integer >= 1, got -1|seqlens, dim: expected"):
            pc.parameter_tree(config)
    for function in (pc.parameter_tree, pc.count_parameters):
        with pytest.raises(TypeError, match=r"^config: expected a config of plstm_config, got dict"):
            function({})  # type: ignore[arg-type]


def test_children_are_configs_or_weights() -> None:
    kinds = {type(child) for name in CONFIGS for _, node in pc.named_configs(CONFIGS[name]) for child in values(node)}
    assert {Repeated, Weights, type(None)} <= kinds
    assert all(kind in (Repeated, Weights, type(None)) or issubclass(kind, pc.Config) for kind in kinds)


def values(node: pc.Config) -> list[Any]:
    return list(node.children().values())


GATE = pc.SourceLayerConfig(input_dim=8, num_heads=2, weight=True)
FITTING = {"bias": ArrayInfo((2, 1, 1, 1), "float32"), "weight": ArrayInfo((2, 1, 1, 1, 1, 8), "bfloat16")}


def test_weights_that_fit() -> None:
    check_weights(GATE, FITTING)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": None}, r"^file: expected the weights of SourceLayer, got others: missing 'weight'$"),
        ({"spam": ArrayInfo((1,), "float32")}, r"unexpected 'spam'$"),
        ({"bias": ArrayInfo((2,), "float32")}, r"bias: expected shape \(2, 1, 1, 1\), got \(2,\)$"),
        ({"bias": ArrayInfo((2, 1, 1, 1), "int64")}, r"bias: expected dtype float64 or .*, got int64$"),
        ({"bias": None, "spam": ArrayInfo((), "bool")}, r"missing 'bias'; unexpected 'spam'$"),
    ],
)
def test_weights_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    weights = {name: info for name, info in (FITTING | change).items() if info is not None}
    with pytest.raises(ValueError, match=message):
        check_weights(GATE, weights, source="file")
