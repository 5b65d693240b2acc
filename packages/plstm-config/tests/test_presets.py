"""Models by name."""

import subprocess
import sys

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


def test_import_brings_no_framework() -> None:
    check = "import plstm_config, sys; sys.exit(bool({'torch', 'jax', 'flax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
