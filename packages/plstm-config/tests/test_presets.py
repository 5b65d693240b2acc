"""Models by name."""

import subprocess
import sys
from typing import Any

import pytest

import plstm_config as pc

SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}


@pytest.mark.parametrize("name", pc.preset_names())
def test_every_preset_round_trips(name: str) -> None:
    config = pc.preset(name)
    assert pc.from_dict(pc.to_dict(config)) == config


@pytest.mark.parametrize("size", SIZES)
def test_vision_sizes_are_those_of_the_paper(size: str) -> None:
    config = pc.preset(f"plstm_vis_{size}")
    layers = [block.interaction_module for block in (config.block_stack.block.block0, config.block_stack.block.block1)]
    assert (config.dim, config.num_heads, config.patch_size, config.num_blocks) == (*SIZES[size], 16, 6)
    assert [layer.mode for layer in layers] == ["P", "D"]
    assert {layer.DK for layer in layers} == {64}


def test_ablations_change_what_they_say() -> None:
    p_only, d_only = pc.preset("plstm_vis_tiny_p_only"), pc.preset("plstm_vis_tiny_d_only")
    assert p_only.block_stack.block.block1.interaction_module.mode == "P"
    assert d_only.block_stack.block.block0.interaction_module.mode == "D"
    layer = pc.preset("plstm_vis_tiny_bias_only").block_stack.block.block0.interaction_module
    assert {layer.source.weight, layer.mark.weight, layer.transition.weight} == {False}
    assert pc.preset("plstm_vis_tiny_no_posemb").pos_embed is None


def test_changes_reach_the_whole_tree() -> None:
    config = pc.preset("plstm_vis_tiny", dtype="float32", output_shape=(10,), resolution=(32, 64))
    assert "bfloat16" not in str(pc.to_dict(config))
    assert (config.output_shape, config.pos_embed.seqlens) == ((10,), (2, 4))


SPELLINGS: list[dict[str, Any]] = [
    {"output_shape": (3,), "resolution": (48, 48), "num_channels": 1},
    {"output_shape": 3, "resolution": 48, "num_channels": 1},
    {"output_shape": [3], "resolution": [48, 48], "num_channels": 1},
    {"num_classes": 3, "img_size": 48, "in_chans": 1},
    {"num_classes": (3,), "img_size": (48, 48), "in_chans": 1},
]


@pytest.mark.parametrize("changes", SPELLINGS, ids=str)
@pytest.mark.parametrize("name", ["plstm_vis_tiny", "vit_tiny"])
def test_what_the_field_writes_is_understood(name: str, changes: dict[str, Any]) -> None:
    config: Any = pc.preset(name, channels_first=True, **changes)
    assert config == pc.preset(name, channels_first=True, **SPELLINGS[0])
    assert (config.output_shape, config.resolution, config.seqlens) == ((3,), (48, 48), (3, 3))
    assert config.patch_embed.channels_first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_clases": 3}, r"^changes: .* which are dim, .*, got 'num_clases'; did you mean 'num_classes'\?$"),
        ({"image_size": 3}, r"got 'image_size'; did you mean 'img_size'\?$"),
        ({"spam": 3}, r"got 'spam'$"),
        ({"num_classes": 3, "output_shape": 3}, r"^changes: expected output_shape once"),
        ({"img_size": (3, 4, 5)}, r"^resolution: expected \(height, width\)"),
        ({"num_classes": -1}, r"^output_shape: expected \(number of classes,\)"),
    ],
)
def test_wrong_changes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pc.preset("plstm_vis_tiny", **changes)


@pytest.mark.parametrize("value", ["3", None, 3.5, True])
def test_wrong_types_are_refused(value: Any) -> None:
    for name in ("num_classes", "img_size"):
        with pytest.raises(TypeError, match=r"^(output_shape|resolution): expected"):
            pc.preset("plstm_vis_tiny", **{name: value})


@pytest.mark.parametrize("name", ["plstm_vis_tinny", "PLSTM_VIS_TINY", "vit", 3, None, ["vit_tiny"]])
def test_unknown_names_list_the_known_ones(name: Any) -> None:
    suggestion = r"; did you mean 'plstm_vis_tiny'\?$" if name == "plstm_vis_tinny" else ""
    with pytest.raises(ValueError, match=rf"^name: expected one of plstm_vis_tiny, .*{suggestion}"):
        pc.preset(name)


def test_names_of_vision_are_no_names_of_language() -> None:
    with pytest.raises(ValueError, match=r"arguments of plstm_lm_small, which are vocab_size, .*, got 'num_classes'"):
        pc.preset("plstm_lm_small", num_classes=3)


def test_import_brings_no_framework() -> None:
    check = "import plstm_config, sys; sys.exit(bool({'torch', 'jax', 'flax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
