"""Configs are values: they do not change, they compare, they hash, and they show what was said."""

import copy
import dataclasses
import pickle
from typing import Any

import pytest

import plstm_config as pc
from plstm_config.serialization import CONFIG_CLASSES

NEEDED: dict[str, dict[str, Any]] = {
    "pLSTMLMModel": {"vocab_size": 11, "embedding_dim": 32},
    "pLSTMGraphModel": {"input_dim": 7, "output_dim": 2},
    "TokenEmbedding": {"vocab_size": 11, "embedding_dim": 32},
    "BlockStack": {"num_blocks": 2},
}


@pytest.fixture(params=sorted(CONFIG_CLASSES))
def config(request: pytest.FixtureRequest) -> Any:
    cls = CONFIG_CLASSES[request.param]
    names = {field.name for field in dataclasses.fields(cls)}
    return cls(**({"input_dim": 64} if "input_dim" in names else {}) | NEEDED.get(request.param, {}))


def test_nothing_can_be_assigned(config: Any) -> None:
    for field in dataclasses.fields(config):
        with pytest.raises(dataclasses.FrozenInstanceError, match=rf"^{field.name}: .*plstm_config\.change\(config, "):
            setattr(config, field.name, 3)
        with pytest.raises(dataclasses.FrozenInstanceError, match=rf"^{field.name}: expected no deletion"):
            delattr(config, field.name)
    with pytest.raises(dataclasses.FrozenInstanceError, match=r"^spam: "):
        config.spam = 3


def test_copies_are_equal_and_frozen(config: Any) -> None:
    copies = [copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config)), pc.change(config, {})]
    assert {repr(other) for other in copies} == {repr(config)}
    copies += [dataclasses.replace(config), pc.from_dict(pc.to_dict(config))]
    for other in copies:
        assert other == config
        assert hash(other) == hash(config)
        with pytest.raises(dataclasses.FrozenInstanceError):
            other.class_name = "spam"
    assert len({config, *copies}) == 1


def test_a_copy_can_be_changed_like_the_config(config: Any) -> None:
    if not hasattr(config, "dtype"):
        return
    changed = pc.change(config, {"dtype": "float64"})
    for other in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), pc.from_dict(pc.to_dict(config))):
        assert pc.change(other, {"dtype": "float64"}) == changed != config


NAMES = {name: getattr(pc, name) for name in pc.__all__ if name.endswith("Config")}


def test_what_is_shown_makes_the_config_again(config: Any) -> None:
    assert eval(repr(config), dict(NAMES)) == config


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", pc.preset_names())
def test_also_with_children_that_were_given_in_part(name: str, dtype: str) -> None:
    for config in (pc.change(pc.preset(name), {"dtype": dtype}), pc.from_dict(pc.to_dict(pc.preset(name)))):
        assert eval(repr(config), dict(NAMES)) == config


@pytest.mark.parametrize("num_heads", [2, 3])
def test_a_pair_of_blocks_gets_the_width_of_its_parent(num_heads: int) -> None:
    stack: Any = pc.BlockStackConfig(input_dim=48, num_blocks=1, block=pc.pLSTMVisionBlockConfig(num_heads=num_heads))
    assert stack.block == pc.pLSTMVisionBlockConfig(input_dim=48, num_heads=num_heads)
    with pytest.raises(ValueError, match=r"^input_dim: expected an integer >= 1, got -1"):
        pc.count_parameters(pc.pLSTMVisionBlockConfig(num_heads=num_heads))


def test_only_what_was_said_is_shown() -> None:
    assert repr(pc.pLSTM1DLayerConfig()) == "pLSTM1DLayerConfig()"
    layer = pc.pLSTM1DLayerConfig(input_dim=32, num_heads=2, source=pc.SourceLayerConfig(weight=True))
    assert repr(layer) == (
        "pLSTM1DLayerConfig(\n    input_dim=32,\n    num_heads=2,\n"
        "    source=SourceLayerConfig(\n        weight=True,\n    ),\n)"
    )
    assert repr(pc.change(layer, {"input_dim": 64})) == repr(layer).replace("32", "64")


@pytest.mark.parametrize("value", [[0, 3], (0, 3)])
def test_lists_become_tuples(value: Any) -> None:
    layer = pc.pLSTM2DLayerConfig(input_dim=8, num_heads=2, orientation_combinations=value)
    assert layer.orientation_combinations == (0, 3)
    assert hash(layer) == hash(pc.pLSTM2DLayerConfig(input_dim=8, num_heads=2, orientation_combinations=(0, 3)))
    model = pc.pLSTMVisionModelConfig(resolution=[32, 64], output_shape=[5])  # type: ignore[arg-type]
    assert (model.resolution, model.output_shape) == ((32, 64), (5,))


def test_a_list_that_was_passed_in_has_no_hold_on_the_config() -> None:
    given = [0, 3]
    layer = pc.pLSTM2DLayerConfig(input_dim=8, num_heads=2, orientation_combinations=given)  # type: ignore[arg-type]
    given.append(1)
    assert layer.orientations == (0, 3)


RETIRED = [
    ("pLSTM1DLayer", {"levels": 7}),
    ("pLSTM2DLayer", {"levels": 7}),
    ("pLSTM2DLayerFused", {"levels": 7}),
    ("Convolution1DLayer", {"pointwise": True}),
    ("Convolution2DLayer", {"pointwise": True}),
    ("DropPath", {"dtype": "bfloat16", "param_dtype": "float32"}),
]


@pytest.mark.parametrize(("class_name", "fields"), RETIRED)
def test_fields_of_earlier_files_are_read(class_name: str, fields: dict[str, Any]) -> None:
    tree = pc.to_dict(CONFIG_CLASSES[class_name]())
    assert not tree.keys() & fields.keys()
    assert pc.from_dict(tree | fields) == pc.from_dict(tree)


def test_they_are_read_in_children_and_refused_with_other_values() -> None:
    tree = pc.to_dict(pc.pLSTM1DLayerConfig(input_dim=8, num_heads=2))
    tree["convolution"] |= {"pointwise": True}
    assert pc.from_dict(tree | {"levels": 3}) == pc.from_dict(pc.to_dict(pc.from_dict(tree)))
    tree["convolution"]["pointwise"] = False
    with pytest.raises(ValueError, match=r"Convolution1DLayer\.pointwise: expected True, the only kind there is"):
        pc.from_dict(tree)
