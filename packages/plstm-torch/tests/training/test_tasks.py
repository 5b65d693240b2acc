import json
import math

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

import plstm_config
from plstm_testing.datasets import ArrowGenerator, derive_seed
from plstm_torch.optional import UserError
from plstm_torch.settings import ARROW_PRESETS, ArrowsSettings
from plstm_torch.training import RunFolder, open_task
from plstm_torch.training.distributed import World
from plstm_torch.training.image_tasks import arrow_generator
from plstm_torch.training.model_configs import vision_config
from plstm_torch.training.text_task import sample_stream, stream_losses

ALONE = World(Fabric(accelerator="cpu", devices=1))
TINY_ARROWS = {
    "image_size": 16,
    "test_sizes": [16, 32],
    "patch_size": 4,
    "dim": 8,
    "num_heads": 2,
    "num_blocks": 2,
    "train_images": 8,
    "test_images": 6,
    "validation_images": 4,
}
TINY_TEXT = {"context_length": 8, "dim": 16, "num_heads": 2, "num_blocks": 1, "streams": 3, "sample_length": 20}


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"the quick brown fox jumps over the lazy dog. " * 12)
    return path


def text_task(path, **settings):
    return open_task("text", {"files": [str(path)], **TINY_TEXT, **settings}, 0)


def test_the_paper_preset_is_the_papers_model():
    data, training = ARROW_PRESETS["paper"]
    assert (data.image_size, data.test_sizes, data.train_images) == (192, (192, 384), 100_000)
    assert (training.batch_size, training.epochs, training.warmup_epochs) == (128, 50, 1.0)
    ours = vision_config(data, size=224, num_classes=1000, num_channels=3, dtype=training.dtype)
    assert plstm_config.to_dict(ours) == plstm_config.to_dict(
        plstm_config.preset("plstm_vis_tiny", dtype=training.dtype)
    )


def test_arrows_are_measured_at_every_size(tmp_path):
    task = open_task("arrows", TINY_ARROWS, 0)
    model = task.build_model("float32").eval()
    with torch.no_grad():
        measured = task.evaluate(model, ALONE, "test")
        for size, name in ((16, "test_accuracy"), (32, "test_accuracy_32")):
            right = 0
            for index in range(6):
                scene = task.generator.scene(0, "test", index, size)
                pixels = 1 - torch.from_numpy(task.generator.draw(scene)).float() / 255
                right += int(model(pixels[None]).argmax()) == scene.label
            assert measured[name] == pytest.approx(right / 6)
        folder = RunFolder(tmp_path)
    task.finish(model, ALONE.device, folder)
    assert (tmp_path / "examples.png").stat().st_size > 1000


def test_arrow_batches_do_not_depend_on_the_seed_of_the_run():
    images = [open_task("arrows", TINY_ARROWS, seed).batch(seed, [3, 5])[0] for seed in (0, 1)]
    assert torch.equal(*images)


def test_mirrored_training_images_differ_between_epochs_and_keep_their_labels():
    plain, turned = (open_task("arrows", {**TINY_ARROWS, "mirror": on}, 0) for on in (False, True))
    first, again, later = (turned.batch(epoch, range(8)) for epoch in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], later[0])
    images, labels = plain.batch(0, range(8))
    assert torch.equal(labels, first[1])
    torch.testing.assert_close(first[0].sum((1, 2)), images.sum((1, 2)))
    assert torch.equal(plain.batch(1, range(8))[0], images)


def test_the_objects_sizes_reach_the_images():
    settings = ArrowsSettings(radius=(0.1, 0.2), length=(0.3, 0.4), width=(0.05, 0.06), margin=1.5, palette="color")
    expected = ArrowGenerator(
        base_size=48, radius=(0.1, 0.2), length=(0.3, 0.4), width=(0.05, 0.06), margin=1.5, palette="color"
    )
    assert arrow_generator(settings) == expected
    assert arrow_generator(ARROW_PRESETS["paper"][0]) == ArrowGenerator(base_size=192)


def test_smaller_images_come_first_and_the_last_epoch_has_the_full_size():
    task = open_task("arrows", {**TINY_ARROWS, "image_size": 24, "test_sizes": [24], "smaller_sizes": [16, 20]}, 0)
    sides = [task.batch(epoch, [1, 2])[0].shape[1] for epoch in range(6)]
    assert sides == [16, 20, 24, 16, 20, 24]


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_a_preset_trains_at_one_size_and_tests_at_twice_that(preset):
    data, _ = ARROW_PRESETS[preset]
    assert data.smaller_sizes == ()
    assert data.test_sizes == (data.image_size, 2 * data.image_size)


def test_the_mixed_preset_ends_at_its_full_size_and_tests_at_twice_that():
    data, training = ARROW_PRESETS["mixed"]
    assert training.epochs % (len(data.smaller_sizes) + 1) == 0
    assert data.test_sizes == (data.image_size, 2 * data.image_size)
    assert max(data.smaller_sizes) < data.image_size
    for size in data.smaller_sizes:
        arrow_generator(data).check_size(size)


@pytest.mark.parametrize(
    ("image_size", "patch_size", "smaller"),
    [(32, None, (24, 28)), (64, None, (48, 56)), (48, 6, (36, 42)), (16, 8, ())],
)
def test_the_sizes_of_a_preset_follow_the_training_size(image_size, patch_size, smaller):
    sizes = ARROW_PRESETS["mixed"][0].sizes_around(image_size, patch_size)
    assert sizes == {"test_sizes": (image_size, 2 * image_size), "smaller_sizes": smaller}


def test_a_vision_model_with_every_adjustment_survives_its_config():
    config = vision_config(ARROW_PRESETS["quick"][0], size=32, num_classes=2, num_channels=3, dtype="float32")
    again = plstm_config.from_dict(json.loads(json.dumps(plstm_config.to_dict(config))))
    assert plstm_config.to_dict(again) == plstm_config.to_dict(config)
    assert not again.use_pos_embed
    layer = again.block_stack.block.block0.interaction_module
    assert layer.additional_convolution
    assert layer.source.weight_init.stddev == 1.0


def test_labels_are_smoothed_in_training_only():
    task = open_task("digits", {"dim": 8, "num_heads": 2, "patch_size": 4, "label_smoothing": 0.2}, 0)
    model = task.build_model("float64")
    images, labels = task.batch(0, range(6))
    logits = model(images)
    spread = 0.8 * torch.nn.functional.one_hot(labels, 10) + 0.02
    for training, targets in ((True, spread), (False, torch.nn.functional.one_hot(labels, 10))):
        score = task.score(model.train(training), (images, labels))
        torch.testing.assert_close(score.loss, -(targets * logits.log_softmax(-1)).sum())


def test_digits_draw_their_mistakes_first(tmp_path):
    task = open_task("digits", {"dim": 8, "num_heads": 2, "num_blocks": 2, "patch_size": 4}, 0)
    model = task.build_model("float32").eval()
    with torch.no_grad():
        measured = task.evaluate(model, ALONE, "test")
        logits = model(torch.from_numpy(task.digits.test_images))
    labels = torch.from_numpy(task.digits.test_labels)
    expected = (logits.argmax(-1) == labels).double().mean()
    assert measured["test_accuracy"] == pytest.approx(float(expected))
    loss = torch.nn.functional.cross_entropy(logits, labels)
    assert measured["test_loss"] == pytest.approx(float(loss), rel=1e-5)
    task.finish(model, ALONE.device, RunFolder(tmp_path))
    assert (tmp_path / "examples.png").exists()


def test_the_bits_per_byte_are_those_of_a_byte_by_byte_pass(text_file):
    task = text_task(text_file, streams=1)
    torch.manual_seed(derive_seed(3))
    model = task.build_model("float64").eval()
    before = np.concatenate([task.corpus.train.tokens, task.corpus.validation.tokens])[-8:]
    everything = torch.from_numpy(np.concatenate([before, task.corpus.test.tokens]).astype(np.int64))
    bits = []
    with torch.no_grad():
        measured = task.evaluate(model, ALONE, "test")
        cache = model.init_cache(1)
        for position in range(len(everything) - 1):
            logits, cache = model.step(everything[position : position + 1], cache)
            bits.append(-logits.log_softmax(-1)[0, everything[position + 1]].item() / math.log(2))
    assert measured["test_bits_per_byte"] == pytest.approx(np.mean(bits[7:]), rel=1e-9)
    assert measured["test_loss"] == pytest.approx(measured["test_bits_per_byte"] * math.log(2))


@pytest.mark.parametrize("state_size", [1, 2])
def test_heads_remember_for_different_times(text_file, state_size):
    task = text_task(text_file, num_heads=4, state_size=state_size, transition_bias=[0.1, 1.0])
    biases = task.build_model("float32").block_stack.blocks[0].interaction_module.transition.eigenvalues_bias
    expected = torch.tensor([0.1, 0.4, 0.7, 1.0])[:, None].expand(4, state_size)
    torch.testing.assert_close(biases.detach(), expected)


def test_chunks_do_not_change_the_loss_of_a_stream(text_file, monkeypatch):
    task = text_task(text_file)
    model = task.build_model("float64").eval()
    rows = task.held_out["test"]

    def all_losses():
        with torch.no_grad():
            parts = list(stream_losses(model, *map(torch.from_numpy, (rows.values, rows.counts)), ALONE.device))
        return torch.cat([losses[counted] for losses, counted in parts])

    whole = all_losses()
    monkeypatch.setattr("plstm_torch.training.text_task._EVALUATION_CHUNK", 5)
    chunked = all_losses()
    assert len(whole) == len(chunked) == len(task.corpus.test.tokens)
    torch.testing.assert_close(whole.sort().values, chunked.sort().values)


def test_short_epochs_go_on_where_the_last_one_stopped(text_file):
    task = text_task(text_file, epoch_windows=10, held_out=0.2)
    assert task.num_samples == 10
    first = task.batch(0, range(10))[0]
    second = task.batch(1, range(10))[0]
    assert first.shape == (10, 8)
    # the offset of an epoch is less than a window, so windows of different epochs hardly overlap
    assert int(second[0, 0]) in task.corpus.train.tokens[80 : 80 + 16].tolist()


def test_a_sample_is_drawn_step_by_step_and_is_reproducible(text_file, tmp_path):
    task = text_task(text_file)
    model = task.build_model("float32").eval()
    device = torch.device("cpu")

    def sample(**options):
        return bytes(sample_stream(model, list(b"the "), 12, device=device, **options))

    assert len(sample(seed=1)) == 12
    assert sample(seed=1) == sample(seed=1) != sample(seed=2)
    assert sample(temperature=0.0) == sample(temperature=0.0)
    reference = model.generate(torch.tensor([list(b"the ")]), 12, temperature=0.0)
    assert sample(temperature=0.0) == bytes(reference[0, 4:].tolist())
    with pytest.raises(ValueError, match="prompt: expected at least one token"):
        next(sample_stream(model, [], 3, device=device))
    task.finish(model, device, RunFolder(tmp_path))
    written = (tmp_path / "sample.txt").read_bytes()
    assert written.startswith(bytes(task.corpus.train.tokens[-64:].tolist()))
    assert (tmp_path / "examples.png").exists()


def test_a_text_that_changed_is_noticed(text_file):
    task = text_task(text_file)
    stored = json.loads(json.dumps(task.data_settings))
    assert open_task("text", stored, 0).settings == task.settings
    text_file.write_bytes(b"something else entirely. " * 12)
    with pytest.raises(
        UserError, match=r"text.txt is not the text that this run began with \(it or its tokenizer has changed\)"
    ):
        open_task("text", stored, 0)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("chess", {}, "task: expected one of digits, arrows, text, graphs, nodes, images, got 'chess'"),
        ("digits", {"dim": 0}, "dim: expected at least 1 .*, got 0"),
        ("digits", {"num_blocks": 3}, r"num_blocks: expected an even number \(P and D take turns\), got 3"),
        ("digits", {"dim": 30, "num_heads": 4}, "dim: expected a multiple of num_heads=4, got 30"),
        ("digits", {"patch_size": 3}, r"resolution: expected sides that patches of 3 tile"),
        ("digits", {"label_smoothing": 1.0}, "label_smoothing: expected at least 0 and below 1, got 1.0"),
        ("digits", {"size": 3}, "DigitsSettings: expected the settings "),
        ("arrows", {"test_sizes": [24, 96]}, r"test_sizes: expected image_size=48 as the first, got \(24, 96\)"),
        ("arrows", {"test_sizes": [48, 24]}, r"expected none below image_size=48"),
        ("arrows", {"smaller_sizes": [48]}, r"smaller_sizes: expected sizes below image_size=48, got \(48,\)"),
        (
            "arrows",
            {"smaller_sizes": [20], "radius": [0.1, 0.15]},
            "radius, length: expected sizes that fit into one image of 20 pixels",
        ),
        ("arrows", {"gate_spread": -1.0}, "gate_spread: expected at least 0, got -1.0"),
        ("arrows", {"patch_size": 5}, "image_size: expected multiples of patch_size=5, got 48"),
        ("arrows", {"palette": "gray"}, "palette: expected one of 'mono', 'color', got 'gray'"),
        ("arrows", {"test_images": 0}, "test_images: expected at least 1 .*, got 0"),
        ("text", {"files": ["x"], "held_out": 1.0}, "held_out: expected above 0 and below 1, got 1.0"),
        (
            "text",
            {"files": ["x"], "transition_bias": [1.0]},
            r"transition_bias: expected 2 times a number, got \(1.0,\)",
        ),
        ("text", {"files": ["x"], "streams": 0}, "streams: expected at least 1 .*, got 0"),
        ("text", {"files": ["x"], "sample_length": -1}, "sample_length: expected at least 0 .*, got -1"),
        ("text", {"files": ["x"], "dim": 30, "num_heads": 7}, "num_heads"),
        ("text", {"files": ["/no/such/file"]}, "cannot read /no/such/file: No such file or directory"),
        ("text", {}, "files"),
    ],
)
def test_impossible_settings_are_one_clear_error(name, data, message):
    with pytest.raises(UserError, match=message):
        open_task(name, data, 0)
