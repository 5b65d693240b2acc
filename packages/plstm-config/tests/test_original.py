"""Configs of the research code, migrated."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

import plstm_config as pc
from plstm_config.original import MigrationWarning, migrate

DATA = Path(__file__).parent / "data"
CONFIGS = ["plstm_vis_t", "plstm_vis_t_conststm", "plstm_vis_t_scale", "vit_t"]


def read(name: str) -> dict[str, Any]:
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CONFIGS)
def test_one_warning_lists_what_was_dropped(name: str) -> None:
    with pytest.warns(MigrationWarning, match="input_shape, mode, norm_bias, num_patches") as caught:
        config = migrate(read(name))
    assert len(caught) == 1
    assert pc.from_dict(pc.to_dict(config)) == config


@pytest.mark.filterwarnings("ignore::plstm_config.original.MigrationWarning")
def test_departures_are_selected() -> None:
    layer = migrate(read("plstm_vis_t")).block_stack.block.block0.interaction_module
    assert layer.pmode_complement == "original"
    assert layer.transition.matrix_exponential == "series"
    assert layer.source.num_heads == 12


@pytest.mark.filterwarnings("ignore::plstm_config.original.MigrationWarning")
@pytest.mark.parametrize(
    ("name", "preset"),
    [("plstm_vis_t", "plstm_vis_tiny"), ("plstm_vis_t_conststm", "plstm_vis_tiny_bias_only"), ("vit_t", "vit_tiny")],
)
def test_presets_are_the_originals_up_to_the_departures(name: str, preset: str) -> None:
    ours, theirs = dict(leaves(pc.to_dict(pc.preset(preset)))), dict(leaves(pc.to_dict(migrate(read(name)))))
    different = {key.rsplit(".", 1)[-1] for key in ours | theirs if ours.get(key) != theirs.get(key)}
    # idle here: the types of norms (statistics are float32 anyway), sub_heads of a gate without weight, and
    # num_heads of a model whose blocks are given
    assert different <= {"pmode_complement", "matrix_exponential", "sub_heads", "dtype", "num_heads"}


def leaves(tree: Any, path: str = "") -> Any:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}")
    else:
        yield path, tree


def test_paths_and_yaml_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(read("plstm_vis_t")), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MigrationWarning)
        assert migrate(path) == migrate(DATA / "plstm_vis_t.json")


def test_short_names_tell_the_kind() -> None:
    assert isinstance(migrate({"_shortname": "pLSTM1D", "input_dim": 32, "num_heads": 2}), pc.pLSTM1DLayerConfig)


def test_switched_off_children_are_dropped() -> None:
    tree = {"config_class": "pLSTM1DLayerConfig", "input_dim": 32, "num_heads": 2, "additional_passthrough": False}
    with pytest.warns(MigrationWarning, match="passthrough"):
        config = migrate(tree | {"passthrough": {"input_dim": 32}})
    assert config.passthrough is None


def test_dead_options_of_children_are_listed_by_path() -> None:
    tree = {
        "config_class": "PostUpProjectionBlockConfig",
        "input_dim": 64,
        "use_scale": True,
        "scale": {"scale": 2.0, "scale_init": {"class_name": "OnesInit"}},
    }
    with pytest.warns(MigrationWarning, match=r"scale\.scale$"):
        assert migrate(tree).scale.input_dim == 64


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"input_dim": 3}, "expected config_class, class_name or _shortname"),
        ({"config_class": "FooConfig"}, "config_class: expected one of"),
        (
            {"config_class": "BlockStackConfig", "block": {"input_dim": 3}},
            "BlockStackConfig.block: expected a config_class",
        ),
        ({"config_class": "pLSTM1DLayerConfig", "input_dim": 30, "num_heads": 4}, "input_dim: expected a multiple of"),
    ],
)
def test_what_cannot_be_read_is_refused(source: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        migrate(source)


def test_only_mappings_and_paths_are_read() -> None:
    with pytest.raises(TypeError, match="expected a mapping or a path"):
        migrate(3)
