"""The study of small sets of images: its data, one epoch of its runs, its table, and its page."""

import importlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def study():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "studies"))
        yield importlib.import_module("small_images")


@pytest.mark.parametrize("name", ["shapes", "digits", "arrows"])
def test_sets_have_every_class_and_share_no_image(study, name) -> None:
    counts = (20, 10, 30)
    parts = [study.SETS[name].make(split, count) for split, count in zip(study.SPLITS, counts, strict=True)]
    again = study.SETS[name].make("train", 20)
    assert all(np.array_equal(one, other) for one, other in zip(parts[0], again, strict=True))
    assert [len(labels) for _, labels in parts] == list(counts)
    for images, labels in parts:
        assert images.dtype == np.uint8
        assert images.shape[1] == study.SETS[name].options["image_size"]
        assert len(np.unique(labels)) == (10 if name == "digits" else 3)
    assert len({image.tobytes() for images, _ in parts for image in images}) == sum(counts)


def test_one_epoch_its_file_and_its_table(study, tmp_path, monkeypatch) -> None:
    tiny = replace(study.SETS["digits"], counts=(20, 10, 10))
    monkeypatch.setattr(study, "SETS", {"digits": tiny})
    monkeypatch.setattr(study, "IMAGES_TRAINING", replace(study.IMAGES_TRAINING, epochs=1))
    monkeypatch.setattr(study, "WIDTH", 16)
    wanted = study.wanted([0], ["digits"], study.MODELS)
    run_missing = partial(study.run_missing, tmp_path, wanted, study.run, measure="test_accuracy")
    run_missing(minutes=-1)
    assert not list(tmp_path.iterdir())
    run_missing(minutes=5)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(files) == ["digits_plstm_vis_0.json", "digits_vit_0.json"]
    run_missing(minutes=5)  # what is there is not run again
    assert files == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    found = study.results(tmp_path)
    for (one,) in found.values():
        assert len(one["epochs"]) == 1
        assert 0 <= one["test_accuracy"] <= 1
    parameters = [one["parameters"] for (one,) in found.values()]
    assert max(parameters) < 1.3 * min(parameters)
    assert len(study.table(found).splitlines()) == 4
    study.draw(found, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
    monkeypatch.setattr(study, "WIDTH", 32)  # files of other settings do not count
    assert not any(study.results(tmp_path).values())


def test_the_page_shows_the_table_of_the_files(study) -> None:
    page, written = study.PAGE.read_text(encoding="utf-8"), study.table(study.results(study.RESULTS))
    assert study.pages.with_table(page, written) == page
    with pytest.raises(ValueError, match="expected one table with the header"):
        study.pages.with_table(page, written.replace("model", "none"))
