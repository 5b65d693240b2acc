from itertools import pairwise

import pytest
import torch

from plstm_config import Convolution1DLayerConfig, Convolution2DLayerConfig
from plstm_testing import reference
from plstm_torch.build import build

DTYPES = {"dtype": "float64", "param_dtype": "float64"}


def sequence_layer(randomize, **options):
    return randomize(build(Convolution1DLayerConfig(input_dim=3, **options, **DTYPES)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 2, 4])
@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_causal_convolution_agrees_with_the_reference(length, kernel_size, bias, randomize, assert_close):
    layer = sequence_layer(randomize, kernel_size=kernel_size, bias=bias)
    x = torch.randn(2, length, 3, dtype=torch.float64)
    kernel_bias = layer._conv.bias.detach().numpy() if bias else None
    assert_close(layer(x), reference.convolution_1d(x.numpy(), layer._conv.weight.detach().numpy(), kernel_bias))


@pytest.mark.parametrize("kernel_size", [1, 3, 4])
def test_packed_sequences_do_not_see_each_other(kernel_size, randomize, assert_close):
    layer = sequence_layer(randomize, kernel_size=kernel_size)
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    borders = [0, 2, 2, 3, 9, 9]
    packed = layer(x, cu_seqlens=torch.tensor(borders, dtype=torch.int32))
    separate = [layer(x[:, start:end]) for start, end in pairwise(borders)]
    assert_close(packed, torch.cat(separate, dim=1))


def test_pieces_and_steps_equal_the_whole(randomize, assert_close):
    layer = sequence_layer(randomize, kernel_size=4)
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    whole = layer(x)
    window = layer.init_window(2)
    pieces = []
    for piece in x.split([2, 0, 1, 6], dim=1):
        output, window = layer.extend(piece, window)
        pieces.append(output)
    assert_close(torch.cat(pieces, dim=1), whole)
    window = layer.init_window(2)
    steps = []
    for step in x.unbind(1):
        output, window = layer.step(step, window)
        steps.append(output)
    assert_close(torch.stack(steps, dim=1), whole)


def test_packed_sequences_continue_from_their_own_windows(randomize, assert_close):
    layer = sequence_layer(randomize, kernel_size=4)
    x = torch.randn(2, 12, 3, dtype=torch.float64)
    pieces = [(x[:, :5], [0, 1, 5]), (x[:, 5:], [0, 4, 7])]
    window = layer.init_window(2 * 2)
    outputs = []
    for piece, borders in pieces:
        output, window = layer.extend(piece, window, cu_seqlens=torch.tensor(borders))
        outputs.append(output)
    for sequence in range(2):
        inside = [slice(borders[sequence], borders[sequence + 1]) for _, borders in pieces]
        alone = torch.cat([piece[:, part] for (piece, _), part in zip(pieces, inside, strict=True)], dim=1)
        together = torch.cat([output[:, part] for output, part in zip(outputs, inside, strict=True)], dim=1)
        assert_close(together, layer(alone))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 2), (4, 3)])
@pytest.mark.parametrize("grid", [(1, 1), (5, 2), (3, 6)])
def test_grid_convolution_agrees_with_the_reference(grid, kernel_size, causal, randomize, assert_close):
    layer = randomize(build(Convolution2DLayerConfig(input_dim=3, kernel_size=kernel_size, causal=causal, **DTYPES)))
    x = torch.randn(2, *grid, 3, dtype=torch.float64)
    weight, bias = (parameter.detach().numpy() for parameter in (layer._conv.weight, layer._conv.bias))
    assert_close(layer(x), reference.convolution_2d(x.numpy(), weight, bias, causal=causal))


def test_empty_grids_pass():
    layer = build(Convolution2DLayerConfig(input_dim=3, **DTYPES))
    assert layer(torch.zeros(0, 4, 4, 3)).shape == (0, 4, 4, 3)
    assert layer(torch.zeros(2, 0, 4, 3)).shape == (2, 0, 4, 3)


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match=r"x: expected \[B, T, D\] with D=3, got \[2, 3\]"):
        build(Convolution1DLayerConfig(input_dim=3))(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"x: expected \[B, X, Y, D\] with D=3, got \[2, 4, 4, 5\]"):
        build(Convolution2DLayerConfig(input_dim=3))(torch.zeros(2, 4, 4, 5))
