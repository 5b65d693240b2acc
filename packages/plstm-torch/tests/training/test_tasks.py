import json
import math

import numpy as np
import pytest
import torch

import plstm_config
from plstm_torch.data.random_numbers import derive_seed
from plstm_torch.optional import UserError
from plstm_torch.training import RunFolder, open_task
from plstm_torch.training.distributed import World
from plstm_torch.training.image_tasks import ARROW_PRESETS, ArrowsTask
from plstm_torch.training.text_task import TextTask, sample_bytes, stream_losses

ALONE = World(0, 1, torch.device("cpu"))
TINY_ARROWS = {
    "image_size": 16,
    "test_sizes": [16, 32],
    "patch_size": 4,
    "dim": 8,
    "num_heads": 2,
    "num_blocks": 2,
    "train_images": 8,
    "test_images": 6,
}
TINY_TEXT = {"context_length": 8, "dim": 16, "num_heads": 2, "num_blocks": 1, "streams": 3, "sample_length": 20}


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"the quick brown fox jumps over the lazy dog. " * 12)
    return path


def text_task(path, **settings):
    return open_task("text", {"file": str(path), **TINY_TEXT, **settings}, 0)


def test_the_paper_preset_is_the_papers_model():
    data, training = ARROW_PRESETS["paper"]
    assert (data.image_size, data.test_sizes, data.train_images) == (192, (192, 384), 100_000)
    assert (training.batch_size, training.epochs, training.warmup_epochs) == (128, 50, 1.0)
    ours = data.model_config(size=224, num_classes=1000, num_channels=3, dtype=training.dtype)
    assert plstm_config.to_dict(ours) == plstm_config.to_dict(plstm_config.preset("plstm_vis_tiny"))


def test_arrows_are_measured_at_every_size(tmp_path):
    task = open_task("arrows", TINY_ARROWS, 0)
    model = task.build_model("float32").eval()
    with torch.no_grad():
        measured = task.evaluate(model, ALONE)
        for size, name in ((16, "test_accuracy"), (32, "test_accuracy_32")):
            right = 0
            for index in range(6):
                scene = task.generator.scene(0, "test", index, size)
                pixels = 1 - torch.from_numpy(task.generator.draw(scene)).float() / 255
                right += int(model(pixels[None]).argmax()) == scene.label
            assert measured[name] == pytest.approx(right / 6)
    assert task.with_test_sizes([16, 64]).settings.test_sizes == (16, 64)
    folder = RunFolder(tmp_path)
    task.finish(model, ALONE.device, folder)
    assert (tmp_path / "examples.png").stat().st_size > 1000


def test_arrow_batches_do_not_depend_on_the_seed_of_the_run():
    images = [ArrowsTask.from_settings(TINY_ARROWS, seed).batch(seed, [3, 5])[0] for seed in (0, 1)]
    assert torch.equal(*images)


def test_digits_draw_their_mistakes_first(tmp_path):
    task = open_task("digits", {"dim": 8, "num_heads": 2, "num_blocks": 2, "patch_size": 4}, 0)
    model = task.build_model("float32").eval()
    with torch.no_grad():
        measured = task.evaluate(model, ALONE)
        logits = model(task.digits.test_images)
    expected = (logits.argmax(-1) == task.digits.test_labels).double().mean()
    assert measured["test_accuracy"] == pytest.approx(float(expected))
    loss = torch.nn.functional.cross_entropy(logits, task.digits.test_labels)
    assert measured["test_loss"] == pytest.approx(float(loss), rel=1e-5)
    task.finish(model, ALONE.device, RunFolder(tmp_path))
    assert (tmp_path / "examples.png").exists()


def test_the_bits_per_byte_are_those_of_a_byte_by_byte_pass(text_file):
    task = text_task(text_file, streams=1)
    torch.manual_seed(derive_seed(3))
    model = task.build_model("float64").eval()
    everything = torch.cat([task.text.head[-8:], task.text.tail]).to(torch.int64)
    bits = []
    with torch.no_grad():
        measured = task.evaluate(model, ALONE)
        cache = model.init_cache(1)
        for position in range(len(everything) - 1):
            logits, cache = model.step(everything[position : position + 1], cache)
            bits.append(-logits.log_softmax(-1)[0, everything[position + 1]].item() / math.log(2))
    assert measured["bits_per_byte"] == pytest.approx(np.mean(bits[7:]), rel=1e-9)
    assert measured["test_loss"] == pytest.approx(measured["bits_per_byte"] * math.log(2))


def test_chunks_do_not_change_the_loss_of_a_stream(text_file, monkeypatch):
    task = text_task(text_file)
    model = task.build_model("float64").eval()
    rows = task.streams

    def all_losses():
        with torch.no_grad():
            parts = list(stream_losses(model, rows.values, rows.counts, ALONE.device))
        return torch.cat([losses[counted] for losses, counted in parts])

    whole = all_losses()
    monkeypatch.setattr("plstm_torch.training.text_task._EVALUATION_CHUNK", 5)
    chunked = all_losses()
    assert len(whole) == len(chunked) == len(task.text.tail)
    torch.testing.assert_close(whole.sort().values, chunked.sort().values)


def test_short_epochs_go_on_where_the_last_one_stopped(text_file):
    task = text_task(text_file, epoch_windows=10, held_out=0.2)
    assert task.num_samples == 10
    first = task.batch(0, range(10))[0]
    second = task.batch(1, range(10))[0]
    assert first.shape == (10, 8)
    # the offset of an epoch is less than a window, so windows of different epochs hardly overlap
    assert int(second[0, 0]) in task.text.head[80 : 80 + 16].tolist()


def test_a_sample_is_drawn_step_by_step_and_is_reproducible(text_file, tmp_path):
    task = text_task(text_file)
    model = task.build_model("float32").eval()
    device = torch.device("cpu")

    def sample(**options):
        return b"".join(sample_bytes(model, b"the ", 12, device=device, **options))

    assert len(sample(seed=1)) == 12
    assert sample(seed=1) == sample(seed=1) != sample(seed=2)
    assert sample(temperature=0.0) == sample(temperature=0.0)
    reference = model.generate(torch.tensor([list(b"the ")]), 12, temperature=0.0)
    assert sample(temperature=0.0) == bytes(reference[0, 4:].tolist())
    with pytest.raises(ValueError, match="prompt: expected at least one byte"):
        next(sample_bytes(model, b"", 3, device=device))
    task.finish(model, device, RunFolder(tmp_path))
    written = (tmp_path / "sample.txt").read_bytes()
    assert written.startswith(bytes(task.text.head[-64:].tolist()))
    assert (tmp_path / "examples.png").exists()


def test_a_text_that_changed_is_noticed(text_file):
    task = text_task(text_file)
    stored = json.loads(json.dumps(task.data_settings))
    assert TextTask.from_settings(stored, 0).settings == task.settings
    text_file.write_bytes(b"something else entirely. " * 12)
    with pytest.raises(UserError, match=r"text.txt is not the text that this run began with \(it has changed\)"):
        open_task("text", stored, 0)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("chess", {}, "task='chess': expected one of digits, arrows, text"),
        ("digits", {"dim": 0}, "dim=0: expected at least 1"),
        ("digits", {"num_blocks": 3}, r"num_blocks=3: expected an even number \(P and D take turns\)"),
        ("digits", {"dim": 30, "num_heads": 4}, "dim=30: expected a multiple of num_heads=4"),
        ("digits", {"patch_size": 3}, r"resolution=\(8, 8\) is not divisible by patch_size=3"),
        ("digits", {"size": 3}, "unknown setting size; DigitsSettings has "),
        ("arrows", {"test_sizes": [24, 96]}, r"test_sizes=\(24, 96\): expected image_size=48 as the first"),
        ("arrows", {"test_sizes": [48, 24]}, r"expected none below image_size=48"),
        ("arrows", {"patch_size": 5}, "image size 48: expected a multiple of patch_size=5"),
        ("arrows", {"palette": "gray"}, "palette='gray': expected one of"),
        ("arrows", {"test_images": 0}, "test_images=0: expected at least 1"),
        ("text", {"file": "x", "held_out": 1.0}, "held_out=1.0: expected a number between 0 and 1"),
        ("text", {"file": "x", "streams": 0}, "streams=0: expected at least 1"),
        ("text", {"file": "x", "sample_length": -1}, "sample_length=-1: expected 0 or more"),
        ("text", {"file": "x", "dim": 30, "num_heads": 7}, "num_heads"),
        ("text", {"file": "/no/such/file"}, "cannot read /no/such/file: No such file or directory"),
        ("text", {}, "file"),
    ],
)
def test_impossible_settings_are_one_clear_error(name, data, message):
    with pytest.raises(UserError, match=message):
        open_task(name, data, 0)
