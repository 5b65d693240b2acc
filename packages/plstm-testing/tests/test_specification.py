"""The specification of the layers names what there is: every parameter, and every module of the reference."""

import re
from pathlib import Path

import pytest

from plstm_config import parameter_tree
from plstm_testing import reference
from plstm_testing.conformance.modules import GROUPS

PACKAGES = Path(__file__).parents[2]
TEXT = (PACKAGES / "plstm-config" / "docs" / "layers.md").read_text(encoding="utf-8")
FOLDER = Path(reference.__file__).parent
# those of the ops, whose equations stand in their own docstrings, and the machinery around the formulas
NOT_FORMULAS = {"__init__", "_activations", "_checks", "_contractions", "_modules"}
FORMULAS = sorted(
    path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_FORMULAS and not path.stem.startswith("_plstm")
)


def words(text):
    return set(re.findall(r"`([^`]+)`", text))


def test_sections_name_modules_of_the_reference():
    named = {name for heading in re.findall(r"^## .*$", TEXT, flags=re.MULTILINE) for name in words(heading)}
    assert named == set(FORMULAS)


@pytest.mark.parametrize("cases", GROUPS.values(), ids=GROUPS)
def test_every_parameter_and_module_is_named(cases):
    known = {part for word in words(TEXT) for part in re.split(r"[^\w]+", word)}
    for case in cases():
        parts = {part for name in parameter_tree(case.config) for part in name.split(".")}
        assert {part for part in parts if not part.isdigit()} <= known, case.name


def test_every_class_is_named():
    classes = {config_class.__dataclass_fields__["class_name"].default for config_class in reference.module_classes()}
    spelled = {"Linear", "SourceLayer", "MarkLayer", "DirectLayer", "QueryLayer", "KeyLayer", "ValueLayer"}
    spelled |= {"Convolution1DLayer", "Convolution2DLayer"}  # by their sections
    assert {name for name in classes - spelled if f"`{name}`" not in TEXT} == set()


def test_the_readme_leads_there():
    assert "docs/layers.md" in (PACKAGES / "plstm-config" / "README.md").read_text(encoding="utf-8")
