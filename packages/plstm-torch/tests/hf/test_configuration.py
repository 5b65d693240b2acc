"""The config around ours: round trips, one file for both, labels."""

import json

import pytest
from transformers import AutoConfig

import plstm_config
import plstm_torch
from plstm_config import pLSTM1DLayerConfig
from plstm_config.folder import read_config
from plstm_torch.hf import PlstmConfig, PlstmForImageClassification


@pytest.mark.parametrize("kind", ["language_config", "vision_config"])
def test_the_wrapped_config_survives_a_round_trip(kind, request, tmp_path):
    config = request.getfixturevalue(kind)
    wrapped = PlstmConfig.from_plstm(config)
    assert wrapped.plstm == config
    wrapped.save_pretrained(tmp_path)
    assert read_config(tmp_path) == config
    for again in (PlstmConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(again) is PlstmConfig
        assert again.plstm == config
        assert again.to_dict() == wrapped.to_dict() | {"_name_or_path": again.name_or_path}


@pytest.mark.parametrize("kind", ["language_config", "vision_config"])
def test_the_file_of_this_package_is_read_and_its_digest_is_left_out(kind, request, tmp_path):
    config = request.getfixturevalue(kind)
    plstm_torch.save_pretrained(plstm_torch.build(config), tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.plstm == config
    again.save_pretrained(tmp_path)
    assert "weights_sha256" not in json.loads((tmp_path / "config.json").read_text())
    plstm_torch.from_pretrained(tmp_path)


def test_labels_decide_the_number_of_classes(vision_config, tmp_path):
    wrapped = PlstmConfig.from_plstm(vision_config, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1})
    assert wrapped.plstm == plstm_config.change(vision_config, {"output_shape": (2,)})
    wrapped.save_pretrained(tmp_path)
    assert read_config(tmp_path).output_shape == (2,)
    assert AutoConfig.from_pretrained(tmp_path).id2label == {0: "cat", 1: "dog"}
    assert AutoConfig.from_pretrained(tmp_path, num_labels=5).plstm.output_shape == (5,)
    assert PlstmConfig.from_plstm(vision_config).num_labels == 3


def test_sizes_have_the_names_of_transformers(language_config, vision_config):
    language, vision = PlstmConfig.from_plstm(language_config), PlstmConfig.from_plstm(vision_config)
    assert (language.vocab_size, language.hidden_size, language.num_hidden_layers) == (23, 16, 2)
    assert (vision.hidden_size, vision.image_size, vision.num_channels) == (16, (8, 12), 3)
    assert PlstmConfig().vocab_size is None


def test_what_is_refused(language_config, vision_config):
    with pytest.raises(ValueError, match="config: expected a pLSTMLMModel or a pLSTMVisionModel, got a pLSTM1DLayer"):
        PlstmConfig.from_plstm(pLSTM1DLayerConfig(input_dim=8, num_heads=2))
    with pytest.raises(ValueError, match="schema_version: expected 1, got 2"):
        PlstmConfig(config=plstm_config.to_dict(language_config), schema_version=2)
    with pytest.raises(ValueError, match="config: expected a model's config"):
        PlstmForImageClassification(PlstmConfig())
    with pytest.raises(ValueError, match="expected a pLSTMVisionModel for PlstmForImageClassification, got a pLSTMLM"):
        PlstmForImageClassification(PlstmConfig.from_plstm(language_config))
    with pytest.raises(TypeError, match="config: expected a PlstmConfig, got pLSTMVisionModelConfig"):
        PlstmForImageClassification(vision_config)
    headless = PlstmConfig.from_plstm(plstm_config.change(vision_config, {"pooling": "features"}))
    with pytest.raises(ValueError, match="config: expected a model with a head, got pooling='features'"):
        PlstmForImageClassification(headless)
