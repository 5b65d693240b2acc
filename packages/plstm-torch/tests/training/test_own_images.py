"""Images of one's own: folders, splits, augmentation, and runs from the command line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import plstm_config
from plstm_torch.build import build
from plstm_torch.cli.app import app
from plstm_torch.optional import UserError
from plstm_torch.pretrained import from_pretrained, save_pretrained
from plstm_torch.settings import IMAGES_TRAINING, ImagesSettings
from plstm_torch.training.image_folder import augmented, fitted_image, load_image_folder
from plstm_torch.training.model_configs import vision_config
from plstm_torch.training.tasks import open_task

CLASSES = ("blue", "green", "red")


def write(folder, count: int, classes=CLASSES) -> None:
    random = np.random.default_rng(0)
    for channel, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 80, (*random.integers(9, 30, 2), 3), dtype=np.uint8)
            pixels[..., channel % 3] += 150
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


def test_a_share_of_each_class_is_held_out(tmp_path) -> None:
    write(tmp_path, 10)
    found = load_image_folder(tmp_path, size=16, held_out=0.3)
    assert found.classes == CLASSES
    assert np.bincount(found.train.labels).tolist() == [7, 7, 7]
    assert np.bincount(found.test.labels).tolist() == [3, 3, 3]
    assert not len(found.validation.labels)
    again = load_image_folder(tmp_path, size=16, held_out=0.3)
    assert np.array_equal(found.test.images, again.test.images)
    assert found.digest == again.digest
    both = {image.tobytes() for part in (found.train, found.test) for image in part.images}
    assert len(both) == 30


def test_folders_that_are_split(tmp_path) -> None:
    def counts(**shares):
        found = load_image_folder(tmp_path, size=8, **shares)
        return [len(part.labels) for part in (found.train, found.validation, found.test)]

    write(tmp_path / "train", 6)
    write(tmp_path / "val", 2)
    assert counts(held_out=0.5, validation=0.5) == [9, 6, 9]  # val is what it says, the test is taken out of the rest
    assert counts(held_out=0.5) == [18, 0, 6]  # nothing chooses the epoch, so val is measured
    write(tmp_path / "test", 1)
    assert counts(held_out=0.5, validation=0.5) == [18, 6, 3]
    (tmp_path / "val").rename(tmp_path / "other")
    assert counts(held_out=0.5, validation=0.5) == [9, 9, 3]


def test_no_image_is_on_two_sides(tmp_path) -> None:
    write(tmp_path, 10)
    found = load_image_folder(tmp_path, size=16, held_out=0.3, validation=0.2)
    parts = (found.train, found.validation, found.test)
    assert [np.bincount(part.labels).tolist() for part in parts] == [[6] * 3, [1] * 3, [3] * 3]
    assert len({image.tobytes() for part in parts for image in part.images}) == 30
    without = load_image_folder(tmp_path, size=16, held_out=0.3)
    assert np.array_equal(found.test.images, without.test.images)


def test_images_keep_their_shape(tmp_path) -> None:
    for name in ("wide", "high"):
        (tmp_path / name).mkdir()
        size = (40, 10) if name == "wide" else (10, 40)
        for index in range(2):
            Image.new("L", size, 255).save(tmp_path / name / f"{index}.jpg")
    found = load_image_folder(tmp_path, size=16, held_out=0.5)
    wide, high = (found.train.images[found.train.labels == label][0] for label in (1, 0))
    assert (wide[6:10] > 200).all()
    assert not wide[:6].any()
    assert (high[:, 6:10] > 200).all()
    assert not high[:, :6].any()


def test_the_defaults_suit_few_images() -> None:
    in_training, settings = 117, ImagesSettings(root="")  # what is left of 162 images
    steps = -(-in_training // IMAGES_TRAINING.batch_size) * IMAGES_TRAINING.epochs
    assert steps >= 300
    config = vision_config(settings, size=settings.image_size, num_classes=3, num_channels=3, dtype="float32")
    gates = [name for name in plstm_config.parameter_tree(config) if name.endswith(("source.weight", "mark.weight"))]
    shapes = [plstm_config.parameter_tree(config)[name].shape for name in gates]
    assert shapes
    assert all(shape[-1] >= 8 for shape in shapes)  # features of the input that a gate sees


def test_augmentation_depends_on_index_and_key_alone() -> None:
    images = np.random.default_rng(0).integers(1, 255, (6, 16, 16, 3), dtype=np.uint8)
    whole = augmented(images, range(6), key=(0, 1))
    assert np.array_equal(augmented(images[3:], range(3, 6), key=(0, 1)), whole[3:])
    assert not np.array_equal(augmented(images, range(6), key=(0, 2)), whole)
    for image, result in zip(images, whole, strict=True):
        inside = result[2:-2, 2:-2]
        moved = [
            shown[down : down + 12, right : right + 12]
            for shown in (image, image[:, ::-1])
            for down in range(5)
            for right in range(5)
        ]
        assert any(np.array_equal(inside, one) for one in moved)


def test_what_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match=r"root: expected a folder of images, got .*nowhere"):
        load_image_folder(tmp_path / "nowhere", size=8, held_out=0.5)
    with pytest.raises(UserError, match=r"root: expected folders of at least two classes in .*, got 0"):
        load_image_folder(tmp_path, size=8, held_out=0.5)
    write(tmp_path, 1)
    with pytest.raises(UserError, match="root: expected at least two images of each class"):
        load_image_folder(tmp_path, size=8, held_out=0.5)
    (tmp_path / "blue" / "1.png").write_bytes(b"no image")
    (tmp_path / "red" / "1.png").write_bytes(b"")
    (tmp_path / "green" / "1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"root: expected an image in .*1\.png, got a file that cannot be read"):
        load_image_folder(tmp_path, size=8, held_out=0.5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"root: expected images in .*empty, got none"):
        load_image_folder(tmp_path, size=8, held_out=0.5)
    with pytest.raises(ValueError, match="image_size: expected a multiple of patch_size=8, got 12"):
        ImagesSettings(root="x", image_size=12)


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        app([str(word) for word in words])
    return stopped.value.code


def test_a_run_its_measure_and_a_second_run_from_it(tmp_path, capsys) -> None:
    write(tmp_path / "images", 6)
    sizes = ["--size", 16, "--dim", 16, "--heads", 2, "--blocks", 2, "--device", "cpu", "--batch-size", 8]
    first = tmp_path / "first"
    assert run("train", "images", tmp_path / "images", "--out", first, "--epochs", 2, *sizes) == 0
    capsys.readouterr()
    assert run("eval", first, "--root", tmp_path / "images", "--device", "cpu", "--json") == 0
    assert 0 <= json.loads(capsys.readouterr().out)["test_accuracy"] <= 1
    assert run("eval", first, "--device", "cpu") == 2
    assert "--root: expected the data to measure on" in capsys.readouterr().err

    write(tmp_path / "others", 4, classes=("a", "b"))
    second = tmp_path / "second"
    task = open_task(
        "images", {**_stored(first), "root": str(tmp_path / "others"), "init_from": str(first), "digest": ""}, 0
    )
    model, trained = task.build_model("float32"), from_pretrained(first)
    kept = {name: value for name, value in model.state_dict().items() if not name.startswith("head.")}
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in kept.items())
    assert model.head.weight.shape[0] == 2
    words = ["train", "images", tmp_path / "others", "--out", second, "--init-from", first, *sizes]
    assert run(*words, "--epochs", 1) == 0
    assert run("train", "images", tmp_path / "others", "--out", second, "--resume") == 0
    assert run(*words[:5], "--init-from", tmp_path / "nowhere", *sizes, "--overwrite") == 2
    assert "init_from: expected a folder of a model like this one" in capsys.readouterr().err


def _stored(folder) -> dict:
    return json.loads((folder / "training.json").read_text())["data"]


def test_images_are_classified(tmp_path, capsys) -> None:
    write(tmp_path / "images", 6)
    sizes = ["--size", 16, "--dim", 16, "--blocks", 2, "--epochs", 1]
    assert run("train", "images", tmp_path / "images", *sizes, "--out", tmp_path / "run") == 0
    said = "3 classes (blue, green, red): 12 images to train on, 3 choose the epoch, 3 to test\n"
    assert capsys.readouterr().out.startswith(said)
    description = json.loads((tmp_path / "run" / "config.json").read_text())
    assert description["id2label"] == {"0": "blue", "1": "green", "2": "red"}
    assert description["label2id"] == {"blue": 0, "green": 1, "red": 2}
    image = tmp_path / "images" / "red" / "0.png"
    assert run("predict", tmp_path / "run", image, "--top", 9) == 0
    path, *classes = capsys.readouterr().out.rstrip("\n").split("\t")
    assert path == str(image)
    found = {name: float(probability) for name, probability in map(str.split, classes)}
    model = from_pretrained(tmp_path / "run")
    pixels = fitted_image(image, (16, 16), name="image")[None] / np.float32(255)
    expected = model(torch.from_numpy(pixels)).softmax(-1)[0].tolist()
    assert found == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=1e-4)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert run("predict", tmp_path / "run", tmp_path / "images", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 18
    assert {line["classes"][0]["class"] for line in lines} <= set(CLASSES)


def test_classes_without_names_have_numbers(tmp_path, capsys) -> None:
    sizes = {"img_size": 16, "patch_size": 8, "dim": 16, "num_heads": 1, "num_blocks": 1}
    config = plstm_config.preset("plstm_vis_tiny", num_classes=2, in_chans=1, channels_first=True, **sizes)
    save_pretrained(build(config), tmp_path / "model")
    write(tmp_path / "images", 1)
    assert run("predict", tmp_path / "model", tmp_path / "images") == 0
    named = {line.split("\t")[1].split()[0] for line in capsys.readouterr().out.splitlines()}
    assert named <= {"0", "1"}
    (tmp_path / "images" / "blue" / "0.png").write_text("no image")
    (tmp_path / "images" / "red" / "1.png").write_text("nor this")
    assert run("predict", tmp_path / "model", tmp_path / "images") == 2
    printed, said = capsys.readouterr()
    assert len(printed.splitlines()) == 2  # all that can be read, whatever stands before them
    assert f"expected an image in {tmp_path / 'images' / 'blue' / '0.png'}, got a file that cannot be read" in said
    assert said.endswith("(and 1 more of 4)\n")
    save_pretrained(build(plstm_config.pLSTMLMModelConfig(vocab_size=9, embedding_dim=16)), tmp_path / "other")
    (tmp_path / "empty").mkdir()
    save_pretrained(build(plstm_config.change(config, {"pooling": "features"})), tmp_path / "headless")
    broken = build(config)
    torch.nn.init.constant_(broken.head.weight, float("nan"))
    save_pretrained(broken, tmp_path / "broken")
    for words, said in (
        (("other", "images"), "folder: expected one of a vision model with classes"),
        (("none", "images"), "folder: expected one of a vision model: "),
        (("headless", "images"), "holds a pLSTMVisionModel without a head"),
        (("broken", "images"), "folder: expected a model with finite outputs"),
        (("model",), "FILE: expected images, or folders of images, got none"),
        (("model", "empty"), "FILE: expected images in"),
        (("model", "none.png"), "FILE: expected an image in"),
    ):
        assert run("predict", *(tmp_path / word for word in words)) == 2
        assert said in capsys.readouterr().err
