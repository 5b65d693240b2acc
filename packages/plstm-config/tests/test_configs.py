"""Completion, checks and round trips of every config."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import plstm_config as pc
from plstm_config.serialization import CONFIG_CLASSES

DEFAULTS = json.loads((Path(__file__).parent / "data" / "defaults.json").read_text(encoding="utf-8"))
NEEDED: dict[str, dict[str, Any]] = {
    "pLSTMLMModel": {"vocab_size": 11, "embedding_dim": 32},
    "pLSTMGraphModel": {"input_dim": 7, "output_dim": 2},
    "TokenEmbedding": {"vocab_size": 11, "embedding_dim": 32},
}


def sample(class_name: str) -> pc.Config:
    """A complete config of a class: with a width wherever it has one."""
    cls = CONFIG_CLASSES[class_name]
    arguments = dict(NEEDED.get(class_name, {}))
    names = {field.name for field in dataclasses.fields(cls)}
    if "input_dim" in names:
        arguments.setdefault("input_dim", 64)
    if class_name == "BlockStack":
        arguments["num_blocks"] = 2
    return cls(**arguments)


@pytest.mark.parametrize("class_name", sorted(CONFIG_CLASSES))
def test_round_trips(class_name: str, tmp_path: Path) -> None:
    config = sample(class_name)
    assert pc.from_dict(pc.to_dict(config)) == config
    for name in ("config.json", "config.yaml"):
        pc.save(config, tmp_path / name)
        assert pc.load(tmp_path / name) == config


@pytest.mark.parametrize("class_name", sorted(CONFIG_CLASSES))
def test_schema_is_json_and_pins_the_class(class_name: str) -> None:
    schema = json.dumps(pc.json_schema(class_name))
    assert class_name in schema


# the original's vision block is the first of two classes, whose second never ran
_ORIGINAL_NAMES = {"pLSTMVisionBlockConfig": "pLSTMVisionBlockConfig1"}
_COMPARED = sorted(
    cls.__name__ for cls in CONFIG_CLASSES.values() if _ORIGINAL_NAMES.get(cls.__name__, cls.__name__) in DEFAULTS
)


@pytest.mark.parametrize("name_of_class", _COMPARED)
def test_defaults_are_those_of_the_original(name_of_class: str) -> None:
    cls, original = getattr(pc, name_of_class), _ORIGINAL_NAMES.get(name_of_class, name_of_class)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name, entry in DEFAULTS[original]["fields"].items():
        if name not in fields or name == "dtype" or (original, name) in _CHANGED:
            continue
        default = fields[name].default
        if default is dataclasses.MISSING:
            default = fields[name].default_factory()
        assert _plain(default) == _original(entry["default"]), name


# deliberate: float32, which is right everywhere and fastest on a CPU, where the original computes in bfloat16 (and
# migrated configs do); a capped head by default, where None means no cap; shapes that say "unknown" by None; pairs of
# blocks that take the width of their parent, where the original's is 32 whatever stands around them
_CHANGED = {
    ("pLSTMLMModelConfig", "logit_soft_cap"),
    ("PatchEmbedConfig", "num_channels"),
    ("PatchEmbedConfig", "resolution"),
    ("PatchEmbedConfig", "patch_size"),
    ("pLSTMVisionBlockConfig1", "input_dim"),
    ("pLSTMGraphBlockConfig", "input_dim"),
    ("pLSTMGraphEdgeBlockConfig", "input_dim"),
}


def _plain(value: Any) -> Any:
    if isinstance(value, pc.Config):
        return {k: v for k, v in pc.to_dict(value).items() if k != "class_name"}
    return list(value) if isinstance(value, tuple) else value


def _original(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: v for k, v in value.items() if k not in ("config_class", "class_name")}
    return value


def test_what_was_passed_in_is_not_changed() -> None:
    source = pc.SourceLayerConfig(weight=True)
    layer = pc.pLSTM2DLayerFusedConfig(num_heads=4, source=source)
    before = copy.deepcopy((source, layer))
    block = pc.PostUpProjectionBlockConfig(input_dim=64, interaction_module=layer)
    assert (source, layer) == before
    assert block.interaction_module.source.num_heads == 16
    assert block.interaction_module.source.input_dim == 64


def test_derived_fields_of_a_sequence_layer() -> None:
    layer = pc.pLSTM1DLayerConfig(input_dim=32, num_heads=2, dtype="float64", param_dtype="float64")
    assert (layer.output_dim, layer.sub_heads, layer.DK, layer.DV) == (32, 2, 16, 4)
    assert (layer.query.sub_heads, layer.source.sub_heads) == (2, 1)
    assert (layer.mhnorm.num_heads, layer.mhnorm.input_dim, layer.mhnorm.eps) == (2, 32, 1e-5)
    assert layer.transition.transition_dim == 4
    assert layer.convolution.kernel_size == 4
    assert {layer.query.dtype, layer.convolution.dtype, layer.mhnorm.dtype} == {"float64"}


def test_gates_of_grid_layers_have_heads_for_every_orientation() -> None:
    assert pc.pLSTM2DLayerFusedConfig(input_dim=16, num_heads=2).source.num_heads == 8
    some = pc.pLSTM2DLayerConfig(input_dim=16, num_heads=2, orientation_combinations=[0, 3, 1])
    assert (some.mark.num_heads, some.transition.num_heads, some.direct.num_heads) == (6, 6, 2)


def test_tied_key_is_left_out() -> None:
    assert pc.pLSTM1DLayerConfig(input_dim=32, num_heads=2, tie_query_key=True).key is None


def test_vision_model_fills_its_parts() -> None:
    model = pc.pLSTMVisionModelConfig(dim=64, resolution=(32, 64), num_blocks=2)
    assert model.seqlens == (2, 4) == model.pos_embed.seqlens
    assert model.patch_embed.patch_size == 16
    assert model.head_input_dim == 256
    assert model.block_stack.block.block1.interaction_module.mode == "D"


def layer(**arguments: Any) -> Callable[[], Any]:
    return lambda: pc.pLSTM1DLayerConfig(**{"input_dim": 32, "num_heads": 4} | arguments)


def vision(**arguments: Any) -> Callable[[], Any]:
    return lambda: pc.pLSTMVisionModelConfig(**{"dim": 64, "num_blocks": 1} | arguments)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (layer(input_dim=30), r"input_dim: expected a multiple of num_heads=4"),
    (layer(num_heads=0), r"num_heads: expected an integer >= 1, got 0"),
    (layer(JO=2), r"output_dim: expected num_heads\*DV\*JO=4\*2\*2=16, got 32"),
    (layer(tie_query_key=True, JQ=2), r"JQ: expected JK=1, since tie_query_key=True, got 2"),
    (layer(convolution_inputs="SX"), r"convolution_inputs: expected letters of"),
    (layer(implementation="parallel"), r"implementation: expected one of 'auto', 'recurrent', 'chunkwise', got"),
    (layer(source=pc.SourceLayerConfig(input_dim=16)), r"source.input_dim: expected 32 here"),
    (layer(additional_convolution=False, convolution=pc.Convolution1DLayerConfig()), r"convolution: expected None"),
    (layer(output_dim=64), r"output_dim: expected .*, got 64"),
    (lambda: pc.SourceLayerConfig(activation="relu"), r"activation: expected one of 'identity'"),
    (
        lambda: pc.SourceLayerConfig(weight=True, input_dim=8, num_heads=3, sub_heads=2),
        r"num_heads: expected a multiple of",
    ),
    (lambda: pc.QueryLayerConfig(input_dim=8, num_heads=2, sub_heads=4, DK=3), r"DK: expected a multiple of sub_heads"),
    (lambda: pc.MultiHeadRMSNormConfig(input_dim=9, num_heads=2), r"input_dim: expected a multiple of num_heads=2"),
    (layer(mhnorm=pc.MultiHeadRMSNormConfig(axis=2)), r"mhnorm.axis: expected 1 or None, where heads are here, got 2"),
    (
        lambda: pc.pLSTM2DLayerConfig(input_dim=32, mhnorm=pc.MultiHeadLayerNormConfig(axis=0)),
        r"mhnorm.axis: expected 1 or None, where heads are here, got 0",
    ),
    (
        lambda: pc.pLSTMGraphLayerConfig(input_dim=32, max_edges=2, mhnorm=pc.MultiHeadRMSNormConfig(axis=1)),
        r"mhnorm.axis: expected 0, where heads are here, got 1",
    ),
    (
        lambda: pc.TransformerBlockConfig(input_dim=32, norm=pc.MultiHeadRMSNormConfig(num_heads=4)),
        r"norm.axis: expected None, where heads are here, got 1",
    ),
    (vision(norm=pc.MultiHeadRMSNormConfig(num_heads=4)), r"norm.axis: expected None, where heads are here, got 1"),
    (
        lambda: pc.parameter_tree(pc.PosEmbed2DConfig(seqlens=(0, 3), dim=4)),
        r"seqlens, dim: expected a grid and a width, got \(0, 3\) and 4",
    ),
    (lambda: pc.RMSNormConfig(eps=0.0), r"eps: expected a positive number"),
    (lambda: pc.DropPathConfig(drop_prob=1.0), r"drop_prob: expected 0 <= drop_prob < 1"),
    (
        lambda: pc.from_dict({"class_name": "Convolution1DLayer", "pointwise": False}),
        r"Convolution1DLayer.pointwise: expected True",
    ),
    (lambda: pc.Convolution2DLayerConfig(kernel_size=(3, 0)), r"kernel_size: expected sizes >= 1, got \(3, 0\)"),
    (
        lambda: pc.pLSTM2DLayerConfig(input_dim=8, orientation_combinations=[4]),
        r"orientation_combinations: expected some of 0, 1, 2, 3, got \(4,\)",
    ),
    (lambda: pc.TransformerBlockConfig(input_dim=10, num_heads=3), r"input_dim: expected a multiple of num_heads=3"),
    (lambda: pc.PostUpProjectionBlockConfig(input_dim=64, scale=pc.ScaleLayerConfig()), r"scale: expected None"),
    (
        lambda: pc.pLSTMVisionBlockConfig(
            input_dim=64,
            block0=pc.PostUpProjectionBlockConfig(
                input_dim=64, interaction_module=pc.pLSTM2DLayerFusedConfig(num_heads=2, mode="D")
            ),
        ),
        r"block0.interaction_module.mode: expected 'P' by block_mode='PD'",
    ),
    (vision(resolution=(224, 230)), r"resolution: expected sides that patches of 16 tile"),
    (vision(pooling="cls"), r"pooling: expected another one than 'cls', since blocks are on grids"),
    (vision(output_shape=(2, 3)), r"output_shape: expected \(number of classes,\)"),
    (vision(num_blocks=3, block_stack=pc.BlockStackConfig(num_blocks=2)), r"num_blocks: expected block_stack"),
    (lambda: pc.pLSTMLMModelConfig(embedding_dim=32), r"vocab_size: expected an integer >= 1, got -1"),
    (lambda: pc.pLSTMGraphModelConfig(input_dim=3), r"output_dim: expected an integer >= 1, got -1"),
    (lambda: pc.from_dict({"class_name": "Nothing"}), r"class_name: expected one of BlockStack"),
    (lambda: pc.from_dict({"input_dim": 3}), r"expected a class_name"),
    (
        lambda: pc.from_dict({"class_name": "SourceLayer", "foo": 1}),
        r"SourceLayerConfig: expected some of the fields JK, .*, got 'foo'",
    ),
    (
        lambda: pc.from_dict({"class_name": "pLSTM1DLayer", "input_dim": 30, "num_heads": 4}),
        r"input_dim: expected a multiple of num_heads=4, got 30",
    ),
    (lambda: pc.config_class("x"), r"expected one of"),
    (lambda: pc.preset("x"), r"name: expected one of plstm_vis_tiny"),
    (lambda: pc.preset("plstm_vis_tiny", resolution=(1, 2, 3)), r"resolution: expected \(height, width\)"),
    (lambda: pc.load("config.toml"), r"expected a name that ends in .json, .yaml or .yml"),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_what_cannot_work_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.SourceLayerConfig(num_heads="3"), r"num_heads: expected int, got '3'"),
        (lambda: pc.SourceLayerConfig(weight=1), r"weight: expected bool, got 1"),
        (lambda: pc.pLSTM1DLayerConfig(source=pc.MarkLayerConfig()), r"expected SourceLayerConfig or None"),
        (lambda: pc.from_dict([1]), r"expected a mapping"),
        (lambda: pc.to_dict({}), r"expected a config"),
    ],
)
def test_wrong_types_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def test_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config.json: expected JSON"):
        pc.load(path)


def test_yaml_numbers_may_have_an_exponent_without_a_point(tmp_path: Path) -> None:
    path = tmp_path / "norm.yaml"
    path.write_text("class_name: RMSNorm\neps: 1e-6\n", encoding="utf-8")
    assert pc.load(path).eps == 1e-6
