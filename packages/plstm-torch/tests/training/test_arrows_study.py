"""The study of arrows: runs of every model, the choice of the ViT's rate, and the table."""

import importlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def study():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "studies"))
        yield importlib.import_module("arrows")


@pytest.fixture
def tiny(study, monkeypatch):
    data, training = study.ARROW_PRESETS["quick"]
    data = replace(data, train_images=32, validation_images=16, dim=16)
    monkeypatch.setattr(study, "ARROW_PRESETS", {"quick": (data, replace(training, epochs=1))})
    monkeypatch.setattr(study, "TEST_IMAGES", 16)
    monkeypatch.setattr(study, "VIT_RATES", (2e-3, 5e-4))
    return study


def test_models_of_one_size_their_files_and_their_table(tiny, tmp_path) -> None:
    first = tiny.wanted(tmp_path, list(tiny.TITLES), [0])
    run_missing = partial(tiny.run_missing, tmp_path, run=tiny.run, minutes=5, measure="test_accuracy")
    run_missing(wanted=first)
    assert sorted(first) == ["D_0", "PD_0", "P_0", "vit_0.0005_0", "vit_0.002_0"]
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(first)
    second = tiny.wanted(tmp_path, ["vit"], [1])
    assert list(second) == [f"vit_{tiny.vit_rate(tmp_path)}_1"]
    found = tiny.results(tmp_path)
    assert all(len(runs) == 1 for runs in found.values())
    parameters = [runs[0]["parameters"] for runs in found.values()]
    assert max(parameters) < 1.3 * min(parameters)
    for runs in found.values():
        assert list(runs[0]["test_accuracies"]) == [str(size) for size in tiny.SIZES]
    assert len(tiny.table(found).splitlines()) == 2 + len(tiny.TITLES)
    tiny.draw(found, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_images_are_others_than_those_that_settled_the_preset(study) -> None:
    recipe, (data, _) = study.recipe("PD", 0), study.ARROW_PRESETS["quick"]
    assert recipe["data"]["data_seed"] != data.data_seed
    assert recipe["data"]["validation_images"] > 0


def test_the_page_shows_the_table_of_the_files(study) -> None:
    page, written = study.PAGE.read_text(encoding="utf-8"), study.table(study.results(study.RESULTS))
    assert study.pages.with_table(page, written) == page
    with pytest.raises(ValueError, match="expected one table with the header"):
        study.pages.with_table(page, written.replace("model", "none"))
