"""Weights of the research code in the canonical layout, without any framework."""

import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import plstm_config as pc
from plstm_config.original import MigrationWarning, convert_weights
from plstm_config.weights import array_infos, check_weights

Arrays = dict[str, np.ndarray]


def draw(config: pc.Config, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=parameter.shape) for name, parameter in pc.parameter_tree(config).items()}


def layer(**arguments: Any) -> Any:
    return pc.pLSTM2DLayerFusedConfig(input_dim=12, num_heads=3, **arguments)


def convert(config: pc.Config, arrays: Arrays) -> Arrays:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return convert_weights(config, arrays)


def test_names_and_numbers_stay() -> None:
    config = pc.preset("plstm_lm_small", embedding_dim=32, num_blocks=2)
    arrays = draw(config)
    converted = convert(config, arrays)
    assert converted.keys() == arrays.keys()
    assert all((converted[name] == arrays[name]).all() for name in arrays)


@pytest.mark.parametrize("stored", [(4, 3), (3, 4)])
def test_angles_of_the_fused_layer_are_read_flat(stored: tuple[int, int]) -> None:
    arrays = draw(layer())
    flat = np.arange(12.0)
    converted = convert(layer(), arrays | {"orientation_bias": flat.reshape(stored)})
    assert (converted["orientation_bias"] == flat.reshape(3, 4)).all()
    check_weights(layer(), array_infos(converted))


def test_layers_deep_inside_are_found() -> None:
    config: Any = pc.preset("plstm_vis_tiny", dim=48, num_blocks=2)
    arrays = draw(config)
    name = "block_stack.blocks.1.block0.interaction_module.orientation_bias"
    converted = convert(config, arrays | {name: arrays[name].reshape(4, 3)})
    assert (converted[name] == arrays[name]).all()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.module."])
def test_prefixes_of_wrappers_go(prefix: str) -> None:
    config = pc.RMSNormConfig(input_dim=4)
    assert convert(config, {f"{prefix}scale": np.ones(4)}).keys() == {"scale"}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_types_stay(dtype: Any) -> None:
    config = pc.pLSTM2DLayerConfig(input_dim=12, num_heads=3, orientation_combinations=[0, 1], mode="D")
    arrays = {name: array.astype(dtype) for name, array in draw(config).items()}
    assert {array.dtype for array in convert(config, arrays).values()} == {np.dtype(dtype)}


UNREAD: dict[str, tuple[Any, tuple[str, ...]]] = {
    "gates": (pc.pLSTM1DLayerConfig(input_dim=8, num_heads=2), ("source.weight", "mark.weight", "direct.weight")),
    "a gate": (pc.MarkLayerConfig(input_dim=8, num_heads=2), ("weight",)),
    "a transition": (
        pc.LongRangeTransitionLayerConfig(input_dim=8, transition_dim=2, weight=False),
        ("eigenvalues_weight", "inproj_weight", "outproj_weight"),
    ),
    "a scalar transition": (
        pc.LongRangeTransitionLayerConfig(input_dim=8, transition_dim=1, weight=False),
        ("eigenvalues_weight",),
    ),
    "gates of a model": (
        pc.preset("plstm_vis_tiny_bias_only", dim=48, num_blocks=2),
        tuple(
            f"block_stack.blocks.{index}.block0.interaction_module.{name}"
            for index in (0, 1)
            for name in ("direct.weight", "source.weight", "transition.eigenvalues_weight", "mark.weight")
        ),
    ),
    "scales": (pc.TransformerBlockConfig(input_dim=8, skip=False), ("scale.scale", "scale2.scale")),
    "scales of a block": (
        pc.PostUpProjectionBlockConfig(input_dim=32, use_scale=True, skip=False),
        ("scale1.scale", "scale2.scale"),
    ),
}


@pytest.mark.parametrize("name", UNREAD)
def test_weights_that_nothing_reads_are_dropped_with_one_warning(name: str) -> None:
    config, unread = UNREAD[name]
    arrays = draw(config)
    with pytest.warns(MigrationWarning, match="dropped weights without effect on the output: '") as caught:
        converted = convert_weights(config, arrays | {name: np.ones(3) for name in unread})
    assert len(caught) == 1
    assert {part.strip(" '") for part in str(caught[0].message).split(":")[1].split(",")} == set(unread)
    check_weights(config, array_infos(converted))


UNEXPECTED = [
    (pc.pLSTM1DLayerConfig(input_dim=8, num_heads=2, additional_convolution=False), "convolution._conv.weight"),
    (pc.pLSTM1DLayerConfig(input_dim=8, num_heads=2, additional_passthrough=False), "passthrough.scale"),
    (pc.LongRangeTransitionLayerConfig(input_dim=8, transition_dim=2, symmetric=True), "outproj_weight"),
    (pc.LongRangeTransitionLayerConfig(input_dim=8, transition_dim=1), "inproj_bias"),
    (pc.PostUpProjectionBlockConfig(input_dim=32), "scale1.scale"),
    (pc.preset("plstm_vis_tiny_no_posemb", dim=48, num_blocks=1), "pos_embed.embed"),
    (pc.SourceLayerConfig(input_dim=8), "weights"),
]


@pytest.mark.parametrize(("config", "name"), UNEXPECTED, ids=[name for _, name in UNEXPECTED])
def test_what_the_original_does_not_hold_stays_an_error(config: Any, name: str) -> None:
    converted = convert(config, draw(config) | {name: np.ones(3)})
    with pytest.raises(ValueError, match=rf"unexpected '{name}'"):
        check_weights(config, array_infos(converted))


def test_a_tied_head_stands_there_twice() -> None:
    config = pc.preset("plstm_lm_small", embedding_dim=32, num_blocks=1, tie_weights=True, vocab_size=5)
    arrays = draw(config)
    table = arrays["token_embedding.weight"]
    assert convert(config, arrays | {"lm_head.weight": table.copy()}).keys() == arrays.keys()
    for other in (table + 1, table[:2]):
        with pytest.raises(ValueError, match=r"lm_head\.weight: expected the values of token_embedding\.weight"):
            convert_weights(config, arrays | {"lm_head.weight": other})


@pytest.mark.parametrize("value", ["text", None, object(), [object()], np.array(["a"]), np.ones(2, complex)])
def test_values_that_are_no_numbers(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^arrays\['scale'\]: expected an array of numbers, got"):
        convert_weights(pc.RMSNormConfig(input_dim=4), {"scale": value})


def test_more_blocks_than_there_are_weights_of() -> None:
    config: Any = pc.preset("plstm_lm_small", embedding_dim=32, num_blocks=1)
    with pytest.raises(
        ValueError, match=r"^arrays: expected the weights of pLSTMLMModel, got others: missing .* and at least \d+ more"
    ):
        convert_weights(pc.change(config, {"num_blocks": 10**9}), draw(config))


def test_other_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^config: expected a config of plstm_config, got dict"):
        convert_weights({}, {})  # type: ignore[arg-type]
