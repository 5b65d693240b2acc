"""The presets in timm: made, adapted, wrapped and loaded by timm itself."""

import pytest
import timm
import timm.optim
import torch

import plstm_config
import plstm_torch
import plstm_torch.timm
from plstm_torch.models import pLSTMVisionModel

SMALL = {"num_classes": 4, "img_size": 32}


def test_every_vision_preset_is_registered() -> None:
    names = plstm_torch.timm.vision_presets()
    assert set(timm.list_models("plstm_vis_*")) == {name for name in names if name.startswith("plstm_vis")}
    assert not any(name.startswith("plstm_lm") for name in names)
    assert all(timm.is_model(name) for name in names)
    assert timm.get_pretrained_cfg("plstm_vis_tiny").num_classes == 1000
    assert not timm.list_pretrained("plstm_vis_*")


@pytest.mark.parametrize("name", ["plstm_vis_tiny", "plstm_vis_tiny_no_posemb", "vit_tiny"])
def test_create_model(name: str) -> None:
    model = timm.create_model(name, in_chans=1, drop_path_rate=0.1, **SMALL).eval()
    assert isinstance(model, pLSTMVisionModel)
    assert model.config == plstm_config.preset(
        name, channels_first=True, num_channels=1, output_shape=4, resolution=32, drop_path_rate=0.1
    )
    assert model(torch.rand(1, 1, 32, 32)).shape == (1, 4)
    assert model(torch.rand(1, 1, 48, 32)).shape == (1, 4)


def test_images_of_one_size_only() -> None:
    model = timm.create_model("plstm_vis_tiny", dynamic_img_size=False, **SMALL)
    with pytest.raises(ValueError, match="allow_interpolation is False"):
        model(torch.rand(1, 3, 48, 32))


def test_features_only() -> None:
    model = timm.create_model("plstm_vis_tiny", features_only=True, out_indices=(1, 3), img_size=32)
    assert model.feature_info.channels() == [192, 192]
    assert model.feature_info.reduction() == [16, 16]
    assert len(model.model.block_stack.blocks) == 4
    features = model(torch.rand(2, 3, 32, 48))
    assert [tuple(layer.shape) for layer in features] == [(2, 192, 2, 3)] * 2


def test_no_classes_and_a_new_head() -> None:
    model = timm.create_model("plstm_vis_tiny", num_classes=0, img_size=32, global_pool="mean").eval()
    pixels = torch.rand(1, 3, 32, 32)
    assert model(pixels).shape == (1, 192)
    model.reset_classifier(6)
    assert model(pixels).shape == (1, 6)


@pytest.mark.parametrize(("global_pool", "shape"), [("avg", (1, 192)), ("", (1, 192, 2, 2))])
def test_names_of_poolings_are_those_of_timm(global_pool: str, shape: tuple[int, ...]) -> None:
    pixels = torch.rand(1, 3, 32, 32)
    model = timm.create_model("plstm_vis_tiny", num_classes=0, img_size=32, global_pool=global_pool).eval()
    assert model(pixels).shape == shape
    model = timm.create_model("plstm_vis_tiny", img_size=32).eval()
    model.reset_classifier(0, global_pool)
    assert model(pixels).shape == shape


def test_arguments_that_scripts_of_timm_hand_to_every_model() -> None:
    assert timm.create_model("plstm_vis_tiny", drop_rate=0.0, drop_block_rate=None, scriptable=False, **SMALL)
    with pytest.raises(ValueError, match="drop_rate: expected 0, since there is no dropout"):
        timm.create_model("plstm_vis_tiny", drop_rate=0.1, **SMALL)


@pytest.mark.parametrize("changes", [{}, {"num_classes": 7}, {"img_size": 64}, {"in_chans": 1}])
def test_weights_of_a_folder(tmp_path, changes) -> None:
    model = timm.create_model("plstm_vis_tiny", **SMALL)
    plstm_torch.save_pretrained(model, tmp_path)
    overlay = {"file": str(tmp_path / "model.safetensors"), "num_classes": 4, "input_size": (3, 32, 32)}
    again = timm.create_model("plstm_vis_tiny", pretrained=True, pretrained_cfg_overlay=overlay, **{**SMALL, **changes})
    state, expected = again.state_dict(), model.state_dict()
    changed = {"num_classes": "head.", "img_size": "pos_embed.", "in_chans": "patch_embed."}
    left_out = tuple(changed[name] for name in changes)
    kept = [name for name in state if not left_out or not name.startswith(left_out)]
    assert all(torch.equal(state[name], expected[name]) for name in kept)
    assert torch.equal(state["head.weight"], expected["head.weight"]) == ("num_classes" not in changes)


def test_optimizers_of_timm_decay_by_depth() -> None:
    model = timm.create_model("plstm_vis_tiny", **SMALL)
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    scales = {group["lr_scale"] for group in optimizer.param_groups}
    assert len(scales) == 1 + model.config.num_blocks + 1  # stem, blocks, norm and head
    own = sum(parameter.numel() for parameter in model.parameters())
    assert sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"]) == own
    decays = {id(one) for group in optimizer.param_groups if group["weight_decay"] for one in group["params"]}
    without = model.no_weight_decay()
    # timm decays nothing with one axis either
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decays) == (name not in without and parameter.ndim > 1)


def test_arguments_that_there_are_not() -> None:
    with pytest.raises(TypeError, match=r"plstm_vis_tiny: expected arguments among num_classes, .*, got attn_drop"):
        timm.create_model("plstm_vis_tiny", attn_drop=0.1)
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        timm.create_model("plstm_vis_tiny", pretrained=True)
