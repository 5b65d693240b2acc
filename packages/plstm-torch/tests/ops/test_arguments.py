"""Tensors of unusual kinds, and modes under which constants are made and kept."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from plstm_config import pLSTMGraphModelConfig
from plstm_config.topology import DagTopology
from plstm_testing.tolerances import assert_close
from plstm_torch import build
from plstm_torch.layers.graph_indices import graph_indices
from plstm_torch.ops import plstm_1d, plstm_1d_step, plstm_2d, plstm_2d_oriented, plstm_graph

TOPOLOGY = DagTopology.from_edges(5, [(0, 1), (1, 2), (0, 2), (2, 4)])
SIZES = [(2, 5, 3), (2, 5, 3), (2, 5, 3), (2, 4), (2, 3), (2, 4), (2, 5)]


def sequence(device=None):
    sizes = [(3, 1), (3, 1), (2, 1), (1, 1, 1), (1, 1), (1, 1, 1), (1, 1, 1, 1)]
    return [torch.randn(2, 5, *size, device=device) for size in sizes]


def step():
    """The first step of all sequences."""
    return [*(tensor[:, 0] for tensor in sequence()), torch.randn(2, 3, 2, 1)]


def graph(device="cpu", dtype=torch.float64):
    return [torch.randn(size, device=device, dtype=dtype) for size in SIZES]


def nested(tensor):
    return torch.nested.nested_tensor([tensor[0], tensor[1, :3]], layout=torch.jagged)


def grid(orientations=()):
    sizes = {"source_r": (1, 1, 1), "source_d": (1, 1, 1), "transition_rl": (1, 1), "transition_du": (1, 1)}
    sizes |= {"mark_l": (1, 1, 1), "mark_u": (1, 1, 1)}
    gates = {name: torch.randn(2, *orientations, 3, 4, *size) for name, size in sizes.items()}
    nodes = {"query": (3, 1), "key": (3, 1), "value": (2, 1), "direct": (1, 1, 1, 1)}
    return gates | {name: torch.randn(2, 3, 4, *size) for name, size in nodes.items()}


GRIDS = {plstm_2d: grid, plstm_2d_oriented: lambda: grid((4,))}
UNUSUAL = {
    "nested in strides": (
        lambda tensor: torch.nested.nested_tensor([tensor[0], tensor[1, :3]]),
        "expected a dense tensor, got a nested tensor",
    ),
    "sparse": (lambda tensor: tensor.to_sparse(), "expected a dense tensor, got layout torch.sparse_coo"),
    "nested": (nested, "expected a dense tensor, got a nested tensor"),
    "float8": (lambda tensor: tensor.to(torch.float8_e5m2), "expected a dtype of 16 to 64 bits, got torch.float8"),
    "complex": (lambda tensor: tensor.cfloat(), "expected a floating-point dtype, got torch.complex64"),
    "flags": (lambda tensor: tensor > 0, "expected a floating-point dtype, got torch.bool"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_tensors_are_refused(kind):
    make, message = UNUSUAL[kind]
    for name, place in (("query", 0), ("value", 2), ("direct", 6)):
        tensors = sequence()
        tensors[place] = make(tensors[place])
        with pytest.raises(TypeError, match=f"^{name}: {message}"):
            plstm_1d(*tensors)
        tensors = step()
        tensors[place] = make(tensors[place])
        with pytest.raises(TypeError, match=f"^{name}: {message}"):
            plstm_1d_step(*tensors)
        tensors = graph(dtype=torch.float32)
        tensors[place] = make(tensors[place])
        with pytest.raises(TypeError, match=f"^{name}: {message}"):
            plstm_graph(*tensors, TOPOLOGY)
    for op, make_grid in GRIDS.items():
        for name in ("query", "value", "direct", "transition_du"):
            with pytest.raises(TypeError, match=f"^{name}: {message}"):
                op(**(make_grid() | {name: make(make_grid()[name])}))


@pytest.mark.parametrize("scale", [2, 10**30, np.array(0.5), np.float32(0.5), torch.tensor(0.5), torch.tensor(2)])
def test_scales_of_every_kind(scale):
    tensors = sequence()
    expected = plstm_1d(*tensors, scale=float(scale))
    assert_close(plstm_1d(*tensors, scale=scale), expected, "float32")
    tensors = step()
    assert_close(plstm_1d_step(*tensors, scale=scale)[0], plstm_1d_step(*tensors, scale=float(scale))[0], "float32")
    expected = plstm_graph(*graph(), TOPOLOGY, scale=float(scale))
    assert plstm_graph(*graph(), TOPOLOGY, scale=scale).dtype == expected.dtype
    for op, make in GRIDS.items():
        tensors = make()
        assert_close(op(**tensors, scale=scale), op(**tensors, scale=float(scale)), "float32")


def test_a_scale_elsewhere_is_refused():
    scale = torch.empty((), device="meta")
    calls = [lambda: plstm_1d(*sequence(), scale=scale), lambda: plstm_1d_step(*step(), scale=scale)]
    calls += [lambda: plstm_graph(*graph(), TOPOLOGY, scale=scale)]
    calls += [lambda op=op, make=make: op(**make(), scale=scale) for op, make in GRIDS.items()]
    for call in calls:
        with pytest.raises(ValueError, match=r"^scale: expected .* on the device of query, cpu, got meta"):
            call()


@pytest.mark.parametrize("implementation", ["recurrent", "chunkwise"])
def test_sequences_without_numbers_have_shapes(implementation):
    output, state = plstm_1d(*sequence("meta"), implementation=implementation, return_last_state=True)
    assert (output.shape, state.shape, output.device.type) == ((2, 5, 2, 1), (2, 3, 2, 1), "meta")
    with FakeTensorMode():
        output = plstm_1d(*sequence(), implementation=implementation, chunk_size=2)
    assert output.shape == (2, 5, 2, 1)


def call(topology, tensors, implementation="parallel", states=False):
    graph_indices(topology, tensors[0].device)
    results = plstm_graph(*tensors, topology, implementation=implementation, return_last_state=states)
    return results[0] if states else results


def within_inference(run):
    with torch.inference_mode():
        run(graph())


def without_gradients(run):
    with torch.no_grad():
        run(graph())


def within_fake_mode(run):
    with FakeTensorMode():
        run(graph())


def within_a_counter(run):
    with FlopCounterMode(display=False):
        run(graph())


def on_no_device(run):
    run(graph("meta"))


def with_another_default_device(run):
    with torch.device("meta"):
        run(graph())


def with_another_default_dtype(run):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        run(graph())
    finally:
        torch.set_default_dtype(before)


def within_vmap(run):
    torch.func.vmap(lambda *x: run(list(x)))(*(torch.stack([tensor, tensor]) for tensor in graph()))


def within_grad(run):
    torch.func.grad(lambda *x: run(list(x)).sum())(*graph())


def training(run):
    tensors = [tensor.requires_grad_() for tensor in graph()]
    torch.autograd.grad(run(tensors).sum(), tensors)


MODES = [
    within_inference, without_gradients, within_fake_mode, within_a_counter, on_no_device, with_another_default_device,
    with_another_default_dtype, within_vmap, within_grad, training,
]  # fmt: skip


@pytest.mark.parametrize("first", MODES)
@pytest.mark.parametrize("implementation", ["recurrent", "parallel"])
@pytest.mark.parametrize("states", [False, True])
def test_what_a_topology_keeps_belongs_to_no_mode(first, implementation, states):
    topology = DagTopology.from_edges(5, [(0, 1), (1, 2), (0, 2), (2, 4)])
    first(lambda tensors: call(topology, tensors, implementation, states))
    for same in (topology, copy.deepcopy(topology), pickle.loads(pickle.dumps(topology))):
        for then in MODES:
            then(lambda tensors, same=same: call(same, tensors, implementation, states))


def test_a_model_trains_after_inference():
    model = build(pLSTMGraphModelConfig(input_dim=4, dim=16, output_dim=3, num_heads=2, max_edges=3))
    x, topology = torch.randn(5, 4), DagTopology.from_edges(5, [(0, 1), (1, 2), (0, 2), (2, 4)])
    with torch.inference_mode():
        expected = model(x, topology)
    output = model(x, topology)
    output.sum().backward()
    assert torch.equal(output, expected)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_borders_need_values():
    with pytest.raises(ValueError, match=r"^cu_seqlens: expected boundaries with values, got a tensor"):
        plstm_1d(*sequence(), cu_seqlens=torch.tensor([0, 5], device="meta"))
