"""Long-range propagation on large grids: what the paper promises of the two modes at |T| = 1."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from plstm_testing.tolerances import assert_close
from plstm_torch.ops import plstm_2d, plstm_2d_oriented


def impulse(x, y, at, oriented=False, dtype=torch.float64):
    """Arguments with one source of weight one at a node; every gate else is stored once and expanded."""
    axes = (1, 4) if oriented else (1,)
    one = torch.ones(1, 1, 1, 1, 1, dtype=dtype)
    source = torch.zeros(*axes, x, y, 1, 1, 1, dtype=dtype)
    source[..., at[0], at[1], :, :, :] = 1.0
    mark = torch.ones((), dtype=dtype).expand(*axes, x, y, 1, 1, 1)
    inputs = {name: one.expand(1, x, y, 1, 1) for name in ("query", "key", "value")}
    direct = torch.zeros((), dtype=dtype).expand(1, x, y, 1, 1, 1, 1)
    return inputs | {"source": source, "mark": mark, "direct": direct, "gate": mark[..., 0]}


def test_propagation_decays_with_the_root_of_the_path_length():
    # One pulse, split in halves at every node of a path of 4,096 steps: the probability that a fair walk is back on
    # the diagonal. The grid is cut into tiles, which hand on their border states.
    side, tile = 2049, 683
    parts = {name: [] for name in ("diagonal", "right", "bottom")}
    lefts = [torch.zeros(1, tile, 1, 1, 1, dtype=torch.float64) for _ in range(3)]
    largest = 0.0
    for i in range(3):
        top = torch.zeros(1, tile, 1, 1, 1, dtype=torch.float64)
        for j in range(3):
            given = impulse(tile, tile, (0, 0))
            half = 0.5 * given["gate"]
            source = 0.5 * given["source"] * (1.0 if i == j == 0 else 0.0)
            output, (lefts[j], top) = plstm_2d(
                given["query"], given["key"], given["value"], source_r=source, source_d=source, transition_rl=half,
                transition_du=half, mark_l=given["mark"], direct=given["direct"], mode="P",
                initial_state=(lefts[j], top), return_last_state=True, implementation="recurrent",
            )  # fmt: skip
            largest = max(largest, output.max().item())
            if i == j:
                parts["diagonal"].append(output[0].diagonal().flatten())
        parts["bottom"].append(top)
    diagonal = torch.cat(parts["diagonal"])
    assert side == len(diagonal)
    steps = torch.arange(1, side, dtype=torch.float64)
    logs = torch.lgamma(2 * steps + 1) - 2 * torch.lgamma(steps + 1) - 2 * steps * math.log(2.0)
    assert_close(diagonal[1:], logs.exp(), "float64", "gradient", "response on the diagonal")
    slope = np.polyfit(np.log(steps[256:].numpy()), np.log(diagonal[257:].numpy()), 1)[0]
    assert -0.51 < slope < -0.49
    assert largest <= 1.0
    # nothing is lost: all of the pulse leaves the grid on its far sides
    left_the_grid = sum(state.sum() for state in (*lefts, *parts["bottom"]))
    assert_close(left_the_grid, 1.0, "float64", "state", "what leaves the grid")


@pytest.mark.parametrize("implementation", ["recurrent", "chunkwise"])
@pytest.mark.parametrize("chirality", ["L", "R"])
def test_distribution_reaches_every_node_at_magnitude_one(chirality, implementation):
    given = impulse(160, 130, (0, 0), dtype=torch.float32)
    turn = {"L": "transition_ru", "R": "transition_dl"}[chirality]
    output = plstm_2d(
        given["query"], given["key"], given["value"], source_r=given["source"], source_d=given["source"],
        transition_rl=given["gate"], transition_du=-given["gate"], mark_l=given["mark"], mark_u=given["mark"],
        direct=given["mark"].unsqueeze(-1), implementation=implementation, **{turn: given["gate"]},
    )  # fmt: skip
    other = output.abs() - 1.0  # `direct` gives every node one: its sign tells what arrived
    assert set(other.flatten().tolist()) <= {1.0, -1.0, 0.0}
    arrived = (output - 1.0).abs()
    arrived[0, 0, 0] = 1.0
    assert torch.equal(arrived, torch.ones_like(arrived))


@pytest.mark.parametrize("implementation", ["recurrent", "chunkwise", "parallel"])
def test_four_orientations_reach_every_node(implementation):
    given = impulse(40, 33, (17, 20), oriented=True)
    output = plstm_2d_oriented(
        given["query"], given["key"], given["value"], source_r=given["source"], source_d=given["source"],
        transition_rl=given["gate"], transition_du=given["gate"], transition_ru=given["gate"], mark_l=given["mark"],
        mark_u=given["mark"], direct=given["direct"], implementation=implementation,
    )[0, :, :, 0, 0]  # fmt: skip
    expected = torch.ones_like(output)  # a quadrant is reached by one orientation, a line between two by both
    expected[17, :] = expected[:, 20] = 2.0
    expected[17, 20] = 0.0
    assert torch.equal(output, expected)


def test_gradients_stay_finite_on_a_large_grid_in_bfloat16():
    torch.manual_seed(0)
    x, y = 192, 128
    share = torch.rand(1, 4, x, y, 1, 1, dtype=torch.bfloat16)
    sign = torch.where(torch.rand_like(share) < 0.5, -1.0, 1.0).to(torch.bfloat16)
    gates = [share * sign, (1 - share) * sign]
    gates += [torch.randn(1, 4, x, y, 1, 1, 1, dtype=torch.bfloat16) for _ in range(2)]
    inputs = [torch.randn(1, x, y, 2, 1, dtype=torch.bfloat16) for _ in range(3)]
    tensors = [tensor.requires_grad_() for tensor in (*inputs, *gates)]
    query, key, value, right, down, source, mark = tensors
    output = plstm_2d_oriented(
        query, key, value, source_r=source, source_d=source, transition_rl=right, transition_du=down, mark_l=mark,
        mode="P", direct=torch.zeros(1, x, y, 1, 1, 1, 1, dtype=torch.bfloat16),
    )  # fmt: skip
    for gradient in torch.autograd.grad(output.float().square().mean(), tensors):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0
