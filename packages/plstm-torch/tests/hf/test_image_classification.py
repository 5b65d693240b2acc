"""The vision model in transformers: folders, heads, training, pipelines."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import distributed
from transformers import AutoModelForImageClassification, Trainer, TrainingArguments, ViTImageProcessor, pipeline

import plstm_config
import plstm_torch
from plstm_torch.hf import PlstmConfig, PlstmForImageClassification
from plstm_torch.parallel import context_parallel


@pytest.mark.parametrize("channels_first", [False, True])
def test_both_libraries_read_the_folders_of_both(vision_config, randomize, tmp_path, channels_first):
    config = plstm_config.change(vision_config, {"channels_first": channels_first})
    model = randomize(PlstmForImageClassification(PlstmConfig.from_plstm(config))).eval()
    pixels = torch.rand(2, 3, 8, 12)
    expected = model(pixels).logits
    model.save_pretrained(tmp_path / "theirs")
    plain = plstm_torch.from_pretrained(tmp_path / "theirs")
    assert torch.equal(plain(pixels if channels_first else pixels.permute(0, 2, 3, 1)), expected)
    plstm_torch.save_pretrained(plain, tmp_path / "ours")
    for folder in ("theirs", "ours"):
        again = AutoModelForImageClassification.from_pretrained(tmp_path / folder)
        assert type(again) is PlstmForImageClassification
        assert torch.equal(again(pixels).logits, expected)


def test_other_labels_get_a_new_head_and_keep_the_rest(vision_config, randomize, tmp_path):
    model = randomize(PlstmForImageClassification(PlstmConfig.from_plstm(vision_config))).eval()
    model.save_pretrained(tmp_path)
    tuned = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    kept = {name: value for name, value in tuned.state_dict().items() if not name.startswith("head.")}
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in kept.items())
    assert tuned.head.weight.shape == (5, 64)
    assert 0 < tuned.head.weight.abs().max() < 1  # drawn as the config says
    assert not tuned.head.bias.any()
    tuned.save_pretrained(tmp_path / "tuned")
    assert plstm_torch.from_pretrained(tmp_path / "tuned")(torch.rand(1, 8, 12, 3)).shape == (1, 5)


def test_hidden_states_are_the_features_between_the_blocks(vision_config, randomize):
    model = randomize(PlstmForImageClassification(PlstmConfig.from_plstm(vision_config))).eval()
    pixels = torch.rand(2, 3, 8, 12)
    output = model(pixels, output_hidden_states=True)
    assert [tuple(layer.shape) for layer in output.hidden_states] == [(2, 2, 3, 16)] * 3
    assert torch.equal(output.logits, model(pixels).logits)
    assert output.logits is output.to_tuple()[0]


def test_trainer_and_pipeline(vision_config, tmp_path):
    wrapped = PlstmConfig.from_plstm(vision_config, id2label={0: "red", 1: "green", 2: "blue"})
    model = PlstmForImageClassification(wrapped)
    rows = []
    for index in range(24):
        pixels = torch.rand(3, 8, 12) * 0.2
        pixels[index % 3] += 0.8
        rows.append({"pixel_values": pixels, "labels": index % 3})
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=12, per_device_train_batch_size=12, learning_rate=1e-2, report_to=[],
        use_cpu=True, disable_tqdm=True, save_strategy="no", remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    predicted = trainer.predict(rows)
    assert (predicted.predictions.argmax(-1) == predicted.label_ids).all()
    processor = ViTImageProcessor(size={"height": 8, "width": 12}, do_normalize=False)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    run = pipeline("image-classification", str(tmp_path), device="cpu")
    image = np.full((20, 30, 3), 20, np.uint8)
    image[..., 1] = 230
    assert run(Image.fromarray(image))[0]["label"] == "green"


def test_the_model_behind_it_is_spread_with_it(vision_config):
    model = PlstmForImageClassification(PlstmConfig.from_plstm(vision_config))
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        context_parallel(model, distributed.init_device_mesh("cpu", (1,)))
        assert model.plain.spread is model.plain.pos_embed.spread
        assert model.plain.spread is not None
    finally:
        distributed.destroy_process_group()
