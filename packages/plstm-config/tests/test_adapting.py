"""Configs of saved models for other classes and images, and parts that are left out."""

import pytest

import plstm_config as pc
from plstm_config.adapting import adapt, check_taken, left_out
from plstm_config.weights import ArrayInfo

VISION = pc.pLSTMVisionModelConfig(
    dim=8, num_heads=2, num_blocks=1, patch_size=4, resolution=(8, 8), output_shape=(3,), dtype="float64"
)
GRAPH = pc.pLSTMGraphModelConfig(input_dim=4, dim=32, output_dim=2)
LANGUAGE = pc.pLSTMLMModelConfig(vocab_size=7, embedding_dim=8)


def test_what_is_not_asked_for_stays():
    assert adapt(VISION) == (VISION, ())
    assert adapt(VISION, num_classes=3, img_size=8) == (VISION, ())
    assert adapt(GRAPH, num_classes=2) == (GRAPH, ())


def test_other_classes_need_another_head():
    assert adapt(VISION, num_classes=5) == (pc.change(VISION, {"output_shape": (5,)}), ("head",))
    assert adapt(GRAPH, num_classes=9) == (pc.change(GRAPH, {"output_dim": 9}), ("head",))


@pytest.mark.parametrize("channels_first", [False, True])
def test_other_images_keep_the_head(channels_first):
    config, redrawn = adapt(pc.change(VISION, {"channels_first": channels_first}), img_size=(16, 12))
    assert (config.resolution, config.seqlens, config.pos_embed.seqlens, redrawn) == ((16, 12), (4, 3), (4, 3), ())
    assert (config.dtype, config.patch_embed.dtype, config.channels_first) == ("float64", "float64", channels_first)
    bare, _ = adapt(pc.change(VISION, {"use_pos_embed": False, "pos_embed": None}), img_size=[12, 8])
    assert (bare.seqlens, bare.pos_embed) == ((3, 2), None)
    both, redrawn = adapt(VISION, img_size=12, num_classes=1)
    assert (both.seqlens, both.output_shape, redrawn) == ((3, 3), (1,), ("head",))


@pytest.mark.parametrize("number", [0, -1, 2.0, "3", True, (3,)])
def test_numbers_of_classes_that_are_none(number):
    with pytest.raises(ValueError, match=r"^num_classes: expected an integer >= 1, got "):
        adapt(VISION, num_classes=number)


@pytest.mark.parametrize("config", [LANGUAGE, pc.change(VISION, {"pooling": "features"}), pc.ZerosInitConfig()])
def test_no_head_has_no_classes(config):
    with pytest.raises(ValueError, match=r"^num_classes: expected None for a \w+ without a head for classes, got 3"):
        adapt(config, num_classes=3)


@pytest.mark.parametrize("size", [30, 0, (8, 9), (8,), (8, 8, 8), 8.0, (8.0, 8.0), "8", True])
def test_images_that_patches_do_not_tile(size):
    with pytest.raises(ValueError, match=r"^img_size: expected a size that the patches tile, got "):
        adapt(VISION, img_size=size)


def test_images_are_for_models_on_images():
    with pytest.raises(ValueError, match="img_size: expected None for pLSTMGraphModel, which is not on images, got 8"):
        adapt(GRAPH, img_size=8)


def test_parts_are_left_out_with_all_that_is_in_them():
    ignored = left_out(("head", "norm.scale"), ["head.weight", "norm.scale", "heads.weight"])
    assert [name for name in ("head", "head.weight", "norm.scale", "norm.bias", "heads.weight") if ignored(name)] == [
        "head", "head.weight", "norm.scale"
    ]  # fmt: skip


@pytest.mark.parametrize("ignore", ["head", None, 3, (3,)])
def test_what_is_left_out_is_a_sequence_of_names(ignore):
    with pytest.raises(TypeError, match=r"^ignore: expected a sequence of names of parts, got"):
        left_out(ignore, ["head.weight"])


@pytest.mark.parametrize("name", ["heads", "hea", "head.weigh", ""])
def test_names_that_nothing_has(name):
    with pytest.raises(ValueError, match=rf"^ignore: expected names of parts of the module or the .* got '{name}'"):
        left_out((name,), ["head.weight"])


def test_what_there_is_too_much_may_be_left_out():
    more = {"ignore": (), "owner": "Linear", "source": "folder", "resizable": {}}
    with pytest.raises(ValueError, match="folder: expected the weights of Linear, got others: unexpected 'a'") as found:
        check_taken({}, {"a": ArrayInfo((1,), "float32")}, **more)
    assert found.value.__notes__ == ["load_weights(..., ignore=(...)) leaves parts out"]
    with pytest.raises(ValueError, match="missing 'a'") as found:
        check_taken({"a": (1,)}, {}, **more)
    assert not hasattr(found.value, "__notes__")
