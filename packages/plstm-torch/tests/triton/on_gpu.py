"""What only a GPU can show: large sizes, alignment, the self-check. Run by `nox -s gpu`, by its path."""

from __future__ import annotations

import pytest
import torch

from plstm_config.topology import DagTopology
from plstm_testing.tolerances import assert_close
from plstm_torch import check
from plstm_torch.ops import plstm_1d, plstm_2d_oriented, plstm_graph
from plstm_torch.ops._plstm_2d.triton import blocks_form
from plstm_torch.ops._plstm_graph.triton import form

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def draw_sequence(batch, length, dim_k, dim_v, dtype, generator):
    shapes = [(dim_k, 1), (dim_k, 1), (dim_v, 1), (1, 1, 1), (1, 1), (1, 1, 1), (1, 1, 1, 1)]
    tensors = [torch.randn(batch, length, *shape, device="cuda", dtype=dtype, generator=generator) for shape in shapes]
    tensors[4] = torch.tanh(2 * tensors[4])
    return tensors


def gradients(implementation, tensors, weight, dtype):
    leaves = [tensor.to(dtype).requires_grad_() for tensor in tensors]
    output = plstm_1d(*leaves, implementation=implementation)
    return output, torch.autograd.grad(output, leaves, weight.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("dim_k", "dim_v"), [(16, 16), (24, 40), (64, 64), (100, 36), (128, 128), (192, 256), (256, 255)]
)
def test_head_dimensions(dim_k, dim_v, dtype):
    generator = torch.Generator("cuda").manual_seed(dim_k)
    tensors = draw_sequence(3, 517, dim_k, dim_v, dtype, generator)
    weight = torch.randn(3, 517, dim_v, 1, device="cuda", dtype=dtype, generator=generator)
    output, found = gradients("triton", tensors, weight, dtype)
    expected, right = gradients("chunkwise", tensors, weight, torch.float64)
    name = str(dtype).removeprefix("torch.")
    assert_close(output.detach().double().cpu(), expected.detach().cpu(), name)
    for one, other in zip(found, right, strict=True):
        assert_close(one.double().cpu(), other.cpu(), name, "gradient")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "j", [(1, 1, 2, 2, 1), (2, 1, 2, 3, 2), (1, 1, 4, 4, 4), (1, 2, 1, 8, 9), (2, 2, 2, 1, 2)], ids=str
)
def test_matrices(j, dtype):
    """State-tracking dimensions JQ, JK, JV, JT, JO in more than one segment."""
    generator = torch.Generator("cuda").manual_seed(j[3])
    q, k, v, t, o = j
    shapes = [(72, q), (72, k), (40, v), (t, k, v), (t, t), (o, q, t), (o, q, k, v)]
    tensors = [torch.randn(64, 1_037, *shape, device="cuda", generator=generator) for shape in shapes]
    tensors[4] = torch.tanh(tensors[4]) / t
    weight = torch.randn(64, 1_037, 40, o, device="cuda", generator=generator)
    tensors = [tensor.to(dtype) for tensor in tensors]
    output, found = gradients("triton", tensors, weight.to(dtype), dtype)
    expected, right = gradients("chunkwise", tensors, weight.to(dtype), torch.float64)
    name = str(dtype).removeprefix("torch.")
    assert_close(output.detach().double().cpu(), expected.detach().cpu(), name)
    for one, other in zip(found, right, strict=True):
        assert_close(one.double().cpu(), other.cpu(), name, "gradient")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("mode", "x", "y"), [("L", 14, 14), ("R", 28, 20), ("L", 64, 47), ("P", 14, 14), ("P", 32, 23)]
)
def test_grids(mode, x, y, dtype):
    """Every tile size of every row, gradients included, against float64 in torch."""
    counts = {"source_r": 3, "source_d": 3, "transition_rl": 2, "transition_du": 2, "mark_l": 3}
    counts |= {} if mode == "P" else {"mark_u": 3, "transition_ru" if mode == "L" else "transition_dl": 2}
    shapes = {name: (4, x, y, *(1,) * count) for name, count in counts.items()}
    shapes |= {"query": (x, y, 72, 1), "key": (x, y, 72, 1), "value": (x, y, 40, 1), "direct": (x, y, 1, 1, 1, 1)}
    tensors = {name: torch.randn(2, *shape, device="cuda").to(dtype) for name, shape in shapes.items()}
    for name in tensors:
        if name.startswith("transition"):
            tensors[name] = torch.tanh(tensors[name]) / (2 if mode == "P" else 1)
    weight = torch.randn(2, x, y, 40, 1, device="cuda").to(dtype)
    found, right = [], []
    for results, implementation, wide in ((found, "triton", dtype), (right, "parallel", torch.float64)):
        leaves = {name: tensor.to(wide).requires_grad_() for name, tensor in tensors.items()}
        output = plstm_2d_oriented(**leaves, implementation=implementation, mode="P" if mode == "P" else None)
        results += [output, *torch.autograd.grad(output, list(leaves.values()), weight.to(wide))]
    for number, (one, other) in enumerate(zip(found, right, strict=True)):
        kind = "gradient" if number else "output"
        assert_close(one.detach().double().cpu(), other.detach().cpu(), str(dtype).removeprefix("torch."), kind)


def draw_graph(dim_k, dim_v, jt, dtype, generator):
    """A batch of graphs that are mostly chains, with arguments of the op that have JT = JV = JO = jt."""
    edges = [(n, n + 1) for n in range(149)] + [(n, n + 7) for n in range(0, 140, 9)]
    topology = DagTopology.batch([DagTopology.from_edges(150, edges)] * 3)
    nodes, num_edges, lines = topology.num_nodes, len(topology.edges), len(topology.line_edges)
    shapes = [(nodes, dim_k, 1), (nodes, dim_k, 1), (nodes, dim_v, jt), (num_edges, jt, 1, jt), (lines, jt, jt)]
    shapes += [(num_edges, jt, 1, jt), (nodes, jt, 1, 1, jt)]
    tensors = [torch.randn(4, *shape, device="cuda", generator=generator) for shape in shapes]
    tensors[4] = torch.tanh(tensors[4]) / (2 * jt)
    return [tensor.to(dtype) for tensor in tensors], topology


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("by_walks", [False, True])
@pytest.mark.parametrize(
    ("dim_k", "dim_v", "jt"), [(16, 16, 1), (24, 40, 1), (128, 100, 1), (256, 255, 1), (72, 40, 3), (32, 64, 8)]
)
def test_graphs(dim_k, dim_v, jt, by_walks, dtype, monkeypatch):
    """Both ways through the edges, gradients included, the same numbers in every run."""
    monkeypatch.setattr(form, "walks", lambda *_: by_walks)
    tensors, topology = draw_graph(dim_k, dim_v, jt, dtype, torch.Generator("cuda").manual_seed(dim_k))
    runs = []
    for name, wide in (("triton", dtype), ("triton", dtype), ("recurrent", torch.float64)):
        leaves = [tensor.to(wide).requires_grad_() for tensor in tensors]
        results = plstm_graph(*leaves, topology, implementation=name, return_last_state=True)
        weights = [torch.linspace(-1, 1, x.numel(), device="cuda").view_as(x).to(x.dtype) for x in results]
        runs.append([*results, *torch.autograd.grad(results, leaves, weights)])
    name = str(dtype).removeprefix("torch.")
    for number, (one, again, right) in enumerate(zip(*runs, strict=True)):
        assert torch.equal(one, again)
        kind = ("output", "state")[number] if number < 2 else "gradient"
        assert_close(one.detach().double().cpu(), right.detach().cpu(), name, kind)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("mode", "x", "y", "dim_k", "dim_v"),
    [("P", 70, 41, 64, 64), ("L", 33, 90, 72, 40), ("R", 9, 100, 256, 200), ("general", 24, 17, 16, 128)],
)
def test_blocks(mode, x, y, dim_k, dim_v, dtype, monkeypatch):
    """States that enter and leave, ragged sides, several strips: against float64 in torch."""
    monkeypatch.setattr(blocks_form, "_STRIP", 3 * 2 * 4 * -(-y // 8) * 16 * dim_k * dim_v)
    counts = {"source_r": 3, "source_d": 3, "transition_rl": 2, "transition_du": 2, "mark_l": 3}
    counts |= {} if mode == "P" else {"mark_u": 3}
    counts |= {"transition_ru": 2} if mode in ("L", "general") else {}
    counts |= {"transition_dl": 2} if mode in ("R", "general") else {}
    shapes = {name: (4, x, y, *(1,) * count) for name, count in counts.items()}
    shapes |= {"query": (x, y, dim_k, 1), "key": (x, y, dim_k, 1), "value": (x, y, dim_v, 1)}
    shapes |= {"direct": (x, y, 1, 1, 1, 1), "left": (4, y, dim_k, dim_v, 1), "top": (4, x, dim_k, dim_v, 1)}
    tensors = {name: torch.randn(2, *shape, device="cuda").to(dtype) for name, shape in shapes.items()}
    for name in tensors:
        if name.startswith("transition"):
            tensors[name] = torch.tanh(tensors[name]) / (1 if mode in "LR" else 2)
    found, right, weights = [], [], None
    for results, implementation, wide in ((found, "triton", dtype), (right, "chunkwise", torch.float64)):
        leaves = {name: tensor.to(wide).requires_grad_() for name, tensor in tensors.items()}
        given = {name: leaf for name, leaf in leaves.items() if name not in ("left", "top")}
        output, states = plstm_2d_oriented(
            **given, initial_state=(leaves["left"], leaves["top"]), return_last_state=True,
            implementation=implementation, mode="P" if mode == "P" else None,
        )  # fmt: skip
        outputs = (output, *states)
        weights = weights or [torch.randn_like(one) for one in outputs]
        cotangents = [weight.to(one.dtype) for weight, one in zip(weights, outputs, strict=True)]
        results += [*outputs, *torch.autograd.grad(outputs, list(leaves.values()), cotangents)]
    for number, (one, other) in enumerate(zip(found, right, strict=True)):
        kind = ("output", "state", "state")[number] if number < 3 else "gradient"
        assert_close(one.detach().double().cpu(), other.detach().cpu(), str(dtype).removeprefix("torch."), kind)


def test_more_elements_than_32_bits_count():
    """The last row of a batch whose tensors hold more than 2**31 numbers is that of the row alone."""
    batch, length, channels = 2, (1 << 24) + 64, 65
    generator = torch.Generator("cuda").manual_seed(0)
    tensors = draw_sequence(batch, length, channels, 16, torch.bfloat16, generator)
    assert tensors[0].numel() > 1 << 31
    last = slice(length - 1024, length)
    with torch.no_grad():
        whole = plstm_1d(*tensors, implementation="triton")[1:, last].clone()
        alone = plstm_1d(*(tensor[1:].contiguous() for tensor in tensors), implementation="triton")[:, last]
    # a sequence is cut into segments according to how many there are, so the last bits may differ
    assert_close(whole.float().cpu(), alone.float().cpu(), "bfloat16")


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_long_sequences(dtype):
    """Which are walked in segments: packed, with states, the same numbers in every run."""
    generator = torch.Generator("cuda").manual_seed(0)
    tensors = draw_sequence(1, 9_001, 64, 72, torch.float32, generator)
    tensors.append(torch.randn(1, 3, 64, 72, 1, device="cuda", generator=generator))
    bounds = torch.tensor([0, 7_013, 7_100, 9_001], device="cuda")
    runs = []
    for name, wide in (("triton", dtype), ("triton", dtype), ("chunkwise", torch.float64)):
        leaves = [tensor.to(dtype).to(wide).requires_grad_() for tensor in tensors]
        results = plstm_1d(
            *leaves[:7], initial_state=leaves[7], implementation=name, cu_seqlens=bounds, return_last_state=True
        )
        weights = [torch.linspace(-1, 1, x.numel(), device="cuda").view_as(x).to(x.dtype) for x in results]
        runs.append([*results, *torch.autograd.grad(results, leaves, weights)])
    for number, (one, again, right) in enumerate(zip(*runs, strict=True)):
        assert torch.equal(one, again)
        kind = ("output", "state")[number] if number < 2 else "gradient"
        assert_close(one.detach().double().cpu(), right.detach().cpu(), str(dtype).removeprefix("torch."), kind)


def test_self_check_proves_the_kernels():
    rows = [row for row in check.check_rows(["cuda"]) if row.implementation == "triton"]
    assert {row.op for row in rows} == set(check.KERNEL_CASES)
    assert all(row.passed for row in rows), rows
