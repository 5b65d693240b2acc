"""What a vision model attends to on an image: gradients and gates, against direct computations."""

import numpy as np
import pytest
import torch
from PIL import Image

import plstm_config
from plstm_testing.tolerances import assert_within, tolerance
from plstm_torch import build, save_pretrained
from plstm_torch.cli import app
from plstm_torch.layers import pLSTM2DLayerFused
from plstm_torch.ops import plstm_2d_oriented
from plstm_torch.show_image import gate_fields, image_figure, pixel_fields


def vision(**options):
    sizes = {"dim": 16, "num_heads": 2, "num_blocks": 1, "patch_size": 4, "img_size": (12, 20), "num_classes": 3}
    types = {"dtype": "float64", "param_dtype": "float64"}
    config = plstm_config.preset("plstm_vis_tiny", **{**sizes, **types, **options})
    return build(config).eval()


@pytest.mark.parametrize("first", [False, True])
def test_pixel_fields_are_the_gradients_of_the_features(randomize, first):
    model = randomize(vision(channels_first=first))
    pixels = torch.rand(12, 20, 3, dtype=torch.float64)
    fields = pixel_fields(model, pixels, (1, 3))
    assert list(fields) == ["block 1", "logit"]

    def logit(image):
        return model(image.movedim(-1, 0)[None] if first else image[None])[0].max()

    given = pixels.clone().requires_grad_()
    logit(given).backward()
    assert_within(fields["logit"], torch.linalg.vector_norm(given.grad, dim=-1), tolerance("float64"), "logit")
    assert fields["block 1"].shape == (12, 20)


@torch.no_grad()
def heard_directly(layer, x, node, orientation):
    """An impulse at every node, one after the other, through the op with the gates of the layer: [H, X, Y]."""
    gates = layer._gates(x, layer._begin(x)[1], lambda gate: gate.flatten(0, 1))
    marks = {name: gate.clone() for name, gate in gates.items() if name.startswith("mark")}
    for mark in marks.values():
        mark[:, [other for other in range(4) if other != orientation]] = 0
    ones = torch.ones(2, *x.shape[1:3], 1, 1, dtype=torch.float64)
    found = torch.zeros_like(ones[..., 0, 0])
    for row, column in np.ndindex(*x.shape[1:3]):
        value = torch.zeros_like(ones)
        value[:, row, column] = 1
        heard = plstm_2d_oriented(ones, ones, value, direct=0 * ones[..., None, None], **{**gates, **marks})
        found[:, row, column] = heard[:, node[0], node[1], 0, 0].abs()
    return found


def test_gate_fields_are_rows_of_the_gating_matrix(randomize):
    model = randomize(vision())
    layers = [module for module in model.modules() if isinstance(module, pLSTM2DLayerFused)]
    caught = {}
    for layer in layers:
        layer.register_forward_pre_hook(lambda module, inputs: caught.__setitem__(module, inputs[0]))
    fields = gate_fields(model, torch.rand(12, 20, 3, dtype=torch.float64), (2, 1))
    assert [field.mode for field in fields] == ["P", "D"]
    for layer, field in zip(layers, fields, strict=True):
        for orientation in range(4):
            expected = heard_directly(layer, caught[layer], (2, 1), orientation)
            assert_within(field.field[:, orientation], expected, tolerance("float64"), layer.config.mode)


def test_layers_with_a_list_of_orientations_are_shown_alike(randomize):
    config = plstm_config.pLSTM2DLayerConfig(input_dim=16, num_heads=2, mode="P")
    model = vision()
    layer = randomize(build(config))
    model.block_stack.blocks[0].block0.interaction_module = layer.double()
    fields = gate_fields(model, torch.rand(12, 20, 3, dtype=torch.float64))
    assert fields[0].layer.endswith("block0.interaction_module")
    assert fields[0].field.shape == (2, len(fields[0].orientations), 3, 5)


def test_bad_arguments_are_named():
    model, pixels = vision(), torch.rand(12, 20, 3)
    with pytest.raises(TypeError, match="model: expected a pLSTMVisionModel, got Linear"):
        gate_fields(torch.nn.Linear(2, 2), pixels)
    with pytest.raises(ValueError, match=r"node: expected a patch of a grid of 3 x 5, got \(3, 0\)"):
        pixel_fields(model, pixels, (3, 0))
    with pytest.raises(ValueError, match=r"pixels: expected one image \[height, width, channels\], got shape \(1, 12"):
        gate_fields(model, pixels[None])


def test_the_picture_and_its_command(tmp_path, capsys):
    model = vision(dtype="float32", param_dtype="float32", patch_size=16, img_size=32)
    figure = image_figure(model, torch.rand(32, 32, 3), (0, 1))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:3] == ["image", "block 1", "logit"]
    assert [title.split()[2] for title in titles[3:]] == ["P", "D"]
    save_pretrained(model, tmp_path / "model")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 50, 3), dtype=np.uint8)).save(tmp_path / "i.png")

    def run(*words):
        with pytest.raises(SystemExit) as stopped:
            app(["show", "receptive-field", "--out", str(tmp_path / "field.png"), *map(str, words)])
        return stopped.value.code, capsys.readouterr().err

    assert run("--run", tmp_path / "model", "--image", tmp_path / "i.png", "--node", 1, 1)[0] == 0
    assert (tmp_path / "field.png").read_bytes().startswith(b"\x89PNG")
    for words, message in (
        (("--run", tmp_path / "model"), "image: expected a picture, since there is a --run, got None"),
        (("--image", tmp_path / "i.png"), "run: expected a folder, since there is an --image, got None"),
        (("--run", tmp_path, "--image", tmp_path / "i.png"), "run: expected a folder of a vision model"),
        (("--run", tmp_path / "model", "--image", tmp_path / "no.png"), "image: expected an image in"),
        (("--run", tmp_path / "model", "--image", tmp_path / "i.png", "--node", 2, 0), "node: expected a patch"),
        (("--node", 2, 0), "node: expected no patch without --run"),
    ):
        code, said = run(*words)
        assert code == 2
        assert message in said
