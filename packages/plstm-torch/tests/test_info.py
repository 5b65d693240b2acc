"""`plstm-torch info`: numbers that can be counted by hand."""

import json

import pytest

import plstm_config
from plstm_config import pLSTM1DLayerConfig, pLSTMLMModelConfig, pLSTMVisionModelConfig
from plstm_torch import build, save_pretrained
from plstm_torch.cli.info import info
from plstm_torch.info import config_tree, describe
from plstm_torch.optional import UserError
from plstm_torch.settings.commands import InfoSettings

VISION = pLSTMVisionModelConfig(dim=16, num_heads=2, num_blocks=1, patch_size=4, resolution=(8, 8), output_shape=(3,))
LANGUAGE = pLSTMLMModelConfig(vocab_size=11, embedding_dim=16, num_blocks=2)


@pytest.fixture
def folder(tmp_path):
    def save(config):
        save_pretrained(build(config), tmp_path)
        return tmp_path

    return save


def test_images(folder) -> None:
    found = describe(folder(VISION))
    assert (found.class_name, found.unit, found.state_bytes) == ("pLSTMVisionModel", "image", None)
    assert found.parameters == plstm_config.count_parameters(VISION)
    assert found.bytes == 4 * found.parameters
    # patches and head alone are two operations for each weight and place
    assert found.flops > 2 * (4 * 48 * 16 + 64 * 3)


def test_tokens(folder) -> None:
    found = describe(folder(LANGUAGE))
    layer = LANGUAGE.block_stack.block.interaction_module
    state = layer.num_heads * layer.DK * layer.DV * layer.JT
    window = 0 if layer.convolution is None else (layer.convolution.kernel_size - 1) * layer.input_dim
    assert found.state_bytes == 2 * 4 * (state + window)
    assert found.flops > 2 * (11 * 16)


def test_tokens_from_both_ends(folder) -> None:
    layer = "block_stack.block.interaction_module.bidirectional"
    found = describe(folder(plstm_config.change(LANGUAGE, {layer: True})))
    assert (found.unit, found.state_bytes) == ("token", None)
    assert found.flops > describe(folder(LANGUAGE)).flops


def test_other_modules(folder) -> None:
    found = describe(folder(pLSTM1DLayerConfig(input_dim=8, num_heads=2)))
    assert (found.unit, found.flops, found.state_bytes) == (None, None, None)


def test_the_command(folder, capsys, tmp_path) -> None:
    path = str(folder(VISION))
    assert info(InfoSettings(folder=path, json=True)) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == plstm_config.count_parameters(VISION)
    assert info(InfoSettings(folder=path)) == 0
    out = capsys.readouterr().out
    assert "FLOPs per image" in out
    assert config_tree(VISION) in out
    assert "\n  block_stack: BlockStack input_dim=16" in out
    with pytest.raises(UserError, match=r"expected a folder with config.json and model.safetensors, got none"):
        info(InfoSettings(folder=str(tmp_path / "nowhere")))
