"""What is not finite, or not there at all: nothing that does not depend on it may notice."""

from __future__ import annotations

import pytest
import torch

from plstm_config import Convolution1DLayerConfig
from plstm_config.topology import DagTopology
from plstm_testing.conformance.cases import SCALAR, STATE_TRACKING
from plstm_testing.tolerances import assert_close
from plstm_torch import build
from plstm_torch.ops import plstm_1d, plstm_2d, plstm_graph
from plstm_torch.ops._native import no_kernels

KINDS = pytest.mark.parametrize("j", [SCALAR, STATE_TRACKING], ids=["scalar", "state_tracking"])
NATIVE = pytest.param("native", marks=pytest.mark.skipif(no_kernels() is not None, reason=f"{no_kernels()}"))
FAST_FORMS = pytest.mark.parametrize("implementation", ["chunkwise", NATIVE])
FORMS = pytest.mark.parametrize("implementation", ["recurrent", "chunkwise", NATIVE])
GRAPH_FORMS = pytest.mark.parametrize("implementation", ["recurrent", "parallel"])
GRID_FORMS = pytest.mark.parametrize("implementation", ["chunkwise", "parallel"])
BAD = [torch.nan, torch.inf, 1e300]


def draw_sequence(length, j=SCALAR, batch=2, dtype=torch.float64):
    jq, jk, jv, jt, jo = j
    sizes = [(3, jq), (3, jk), (2, jv), (jt, jk, jv), (jt, jt), (jo, jq, jt), (jo, jq, jk, jv)]
    tensors = [torch.randn(batch, length, *size, dtype=dtype) for size in sizes]
    tensors[4] /= 2 * jt**0.5
    return tensors


def draw_graph(topology, j=None, heads=2, dtype=torch.float64, device=None):
    jq, jk, jv, jt, jo = j or SCALAR
    n, edges, lines = topology.num_nodes, len(topology.edges), len(topology.line_edges)
    places = [n, n, n, edges, lines, edges, n]
    sizes = [(3, jq), (3, jk), (2, jv), (jt, jk, jv), (jt, jt), (jo, jq, jt), (jo, jq, jk, jv)]
    if j is None:
        sizes = [size[:1] for size in sizes[:3]] + [()] * 4
    return [
        0.5 * torch.randn(heads, place, *size, dtype=dtype, device=device)
        for place, size in zip(places, sizes, strict=True)
    ]


def draw_grid(mode, j=SCALAR, sides=(5, 7), batch=3, dtype=torch.float64):
    jq, jk, jv, jt, jo = j
    sizes = {"query": (3, jq), "key": (3, jk), "value": (2, jv), "direct": (jo, jq, jk, jv)}
    sizes |= dict.fromkeys(("source_r", "source_d"), (jt, jk, jv)) | {"mark_l": (jo, jq, jt)}
    present = {"P": ("rl", "du"), "L": ("rl", "du", "ru"), "R": ("rl", "du", "dl"), "general": ("rl", "du", "ru", "dl")}
    sizes |= {f"transition_{name}": (jt, jt) for name in present[mode]}
    if mode != "P":
        sizes["mark_u"] = (jo, jq, jt)
    return {name: 0.5 * torch.randn(batch, *sides, *size, dtype=dtype) for name, size in sizes.items()}


def run_grid(tensors, mode, implementation, **keywords):
    keywords |= {"mode": "P"} if mode == "P" else {}
    return plstm_2d(**tensors, implementation=implementation, **keywords)


def evaluate(function, tensors):
    """Results and gradients; every tensor must be part of the graph."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    results = function(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    found = torch.autograd.grad(results, leaves, [torch.ones_like(result) for result in results])
    return [result.detach() for result in results], list(found)


def assert_same_where_finite(actual, expected, label):
    finite = expected.isfinite() & (expected.abs() < 1e100)
    assert_close(actual[finite], expected[finite], label=label)
    assert not (actual.isfinite() & expected.isnan()).any(), label


def assert_same_places(actual, expected, leading, label):
    """Places of ordinary numbers agree; inside of transforms, a place is spoilt as a whole."""
    whole = expected.isfinite().flatten(leading).all(-1)
    assert_close(actual[whole], expected[whole], label=label)
    assert not (actual.isfinite() & expected.isnan()).any(), label


@KINDS
@FAST_FORMS
@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("argument", range(7))
def test_a_fast_form_knows_no_more_than_the_walk_does(j, implementation, argument, value):
    tensors = draw_sequence(13, j)
    tensors[argument][1, 6].view(-1)[0] = value
    expected, found = (
        evaluate(lambda *x, name=name: plstm_1d(*x, implementation=name, chunk_size=4), tensors)
        for name in ("recurrent", implementation)
    )
    for one, other in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        assert_same_where_finite(one, other, f"argument {argument}")


@KINDS
@FORMS
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("value", BAD)
def test_packed_gradients_do_not_see_a_neighbour(j, implementation, last, value):
    tensors, bounds = draw_sequence(17, j), torch.tensor([0, 5, 5, 10, 17])
    for tensor in tensors:
        tensor[:, 5:10] = value

    def packed(*x):
        results = plstm_1d(*x, implementation=implementation, chunk_size=4, cu_seqlens=bounds, return_last_state=last)
        return results if last else (results,)

    results, found = evaluate(packed, tensors)
    for start, end, number in ((0, 5, 0), (10, 17, 3)):
        parts = [tensor[:, start:end] for tensor in tensors]
        expected, gradients = evaluate(
            lambda *x: plstm_1d(*x, implementation="recurrent", return_last_state=last), parts
        )
        assert_close(results[0][:, start:end], expected[0])
        if last:
            assert_close(results[1][:, number], expected[1], kind="state")
        for one, other in zip(found, gradients, strict=True):
            assert_close(one[:, start:end], other, kind="gradient")


@FAST_FORMS
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("chunk_size", [None, 32, 512])
def test_a_neighbour_may_overflow(implementation, last, chunk_size):
    tensors = draw_sequence(400, dtype=torch.float32)
    tensors[4][:, :300] = 1.5
    keywords = {"return_last_state": last, "chunk_size": chunk_size, "implementation": implementation}
    output = plstm_1d(*tensors, cu_seqlens=torch.tensor([0, 300, 400]), **keywords)
    expected = plstm_1d(*(tensor[:, 300:] for tensor in tensors), implementation="recurrent")
    assert_close((output[0] if last else output)[:, 300:], expected, "float32")


@KINDS
@FORMS
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("value", [*BAD, "overflow"])
def test_packed_gradients_do_not_see_what_comes_back_to_a_neighbour(j, implementation, last, value):
    """A loss that is not finite, or gradients that overflow although all results are finite, concern one sequence."""
    tensors, bounds = draw_sequence(17, j), torch.tensor([0, 5, 5, 10, 17])
    weights = torch.ones(2, 17, 2, j[4], dtype=torch.float64)
    if value == "overflow":
        tensors[1][:, 5:10] = 0.0  # no state, so that nothing overflows on the way forward
        tensors[4][:, 5:10] *= 1e200
    else:
        weights[:, 7] = value

    def gradients(function, arguments, cotangent):
        leaves = [tensor.clone().requires_grad_() for tensor in arguments]
        return torch.autograd.grad(function(*leaves), leaves, cotangent)

    def packed(*x):
        options = {"implementation": implementation, "chunk_size": 4, "cu_seqlens": bounds}
        results = plstm_1d(*x, **options, return_last_state=last)
        return results[0] if last else results

    found = gradients(packed, tensors, weights)
    for start, end in ((0, 5), (10, 17)):
        parts = [tensor[:, start:end] for tensor in tensors]
        expected = gradients(lambda *x: plstm_1d(*x, implementation="recurrent"), parts, weights[:, start:end])
        for one, other in zip(found, expected, strict=True):
            assert_close(one[:, start:end], other, kind="gradient")


@KINDS
def test_products_that_overflow_are_not_what_the_walk_multiplies(j):
    tensors = draw_sequence(12, j)
    tensors[4] = torch.eye(j[3], dtype=torch.float64).expand(2, 12, -1, -1).clone()
    tensors[4][:, 2:5] *= 1e200
    tensors[3][:, :6] = 0.0  # nothing is written before, so the state stays zero
    results, found = evaluate(lambda *x: plstm_1d(*x, implementation="chunkwise", chunk_size=6), tensors)
    expected, _ = evaluate(lambda *x: plstm_1d(*x, implementation="recurrent"), tensors)
    assert_close(results[0], expected[0])
    assert found[0].isfinite().all()


@KINDS
def test_spoilt_rows_under_transforms_and_the_compiler(j):
    tensors = draw_sequence(9, j)
    tensors[2][1, 5] = torch.nan

    def function(*x):
        return plstm_1d(*x, implementation="chunkwise", chunk_size=4)

    expected = plstm_1d(*tensors, implementation="recurrent")
    stacked = [torch.stack([tensor, tensor.flip(0)]) for tensor in tensors]
    both = torch.func.vmap(function)(*stacked)
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")(*tensors)
    for found, right in ((both[0], expected), (both[1], expected.flip(0)), (compiled, expected)):
        assert_same_where_finite(found, right, "output")


@KINDS
@GRID_FORMS
@pytest.mark.parametrize("mode", ["P", "L", "R", "general"])
@pytest.mark.parametrize("states", [False, True])
def test_grids_that_overflow_are_walked(j, implementation, mode, states):
    tensors = draw_grid(mode, j)
    tensors["transition_du"][1, 2, 2:4] *= 1e200
    for name in ("source_r", "source_d"):
        tensors[name][1, :, :3] = 0.0  # what the product would multiply is zero
    names = list(tensors)

    def run(*x, form):
        return run_grid(dict(zip(names, x, strict=True)), mode, form, block_size=3, return_last_state=states)

    results = []
    for form in ("recurrent", implementation):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors.values()]
        output = run(*leaves, form=form)
        output, sides = output if states else (output, ())
        found = torch.autograd.grad([output, *sides], leaves, [torch.ones_like(r) for r in (output, *sides)])
        results.append([output.detach(), *(side.detach() for side in sides), *found])
    for number, (expected, found) in enumerate(zip(*results, strict=True)):
        if number < len(results[0]) - len(names):
            assert_same_where_finite(found, expected, mode)
        assert_close(found[::2], expected[::2], kind="gradient", label=mode)  # of the rows beside the spoilt one


@KINDS
@GRID_FORMS
@pytest.mark.parametrize("mode", ["P", "L", "general"])
def test_spoilt_grids_under_transforms_and_the_compiler(j, implementation, mode):
    tensors = draw_grid(mode, j)
    tensors["value"][1, 2, 3] = torch.nan
    options = {"block_size": 3, "return_last_state": True}
    expected, sides = run_grid(tensors, mode, "recurrent", return_last_state=True)

    def run(given):
        output, states = run_grid(given, mode, implementation, **options)
        return output, *states

    both = torch.func.vmap(run)({name: torch.stack([tensor, tensor.flip(0)]) for name, tensor in tensors.items()})
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")(tensors)
    for number, right in enumerate((expected, *sides)):
        for found, wanted in (
            (both[number][0], right), (both[number][1], right.flip(0)), (compiled[number], right)
        ):  # fmt: skip
            assert_same_places(found, wanted, right.dim() - 2 if number == 0 else 2, mode)


@GRAPH_FORMS
@pytest.mark.parametrize("j", [None, STATE_TRACKING], ids=["scalar", "state_tracking"])
@pytest.mark.parametrize("states", [False, True])
def test_a_node_reaches_what_is_downstream_only(implementation, j, states):
    topology = DagTopology.from_edges(6, [(0, 1), (1, 2), (0, 2), (2, 4), (3, 4)])
    for argument in range(7):
        tensors = draw_graph(topology, j)
        tensors[argument][1, 1] = torch.nan

        def run(*x, name):
            return plstm_graph(*x, topology, implementation=name, return_last_state=states)

        expected, found = (
            evaluate(lambda *x, name=name: run(*x, name=name), tensors) for name in ("recurrent", implementation)
        )
        for one, other in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
            assert_same_where_finite(one, other, f"argument {argument}")


@GRAPH_FORMS
@pytest.mark.parametrize("j", [None, STATE_TRACKING], ids=["scalar", "state_tracking"])
@pytest.mark.parametrize("states", [False, True])
def test_autocast_around_either_pass_of_a_graph_has_no_effect(implementation, j, states):
    topology = DagTopology.from_edges(6, [(0, 1), (1, 2), (0, 2), (2, 4), (3, 4)])
    leaves = [tensor.requires_grad_() for tensor in draw_graph(topology, j, dtype=torch.float32)]

    def run():
        results = plstm_graph(*leaves, topology, implementation=implementation, return_last_state=states)
        return results if states else (results,)

    weights = [torch.randn_like(result) for result in run()]
    expected = torch.autograd.grad(run(), leaves, weights)
    with torch.autocast("cpu", torch.bfloat16):
        results = run()
        found = torch.autograd.grad(results, leaves, weights)
    for one, other in zip((*results, *found), (*run(), *expected), strict=True):
        assert_close(one.detach(), other.detach(), "float32", "gradient")


@KINDS
@FORMS
@pytest.mark.parametrize(("batch", "length"), [(2, 0), (0, 5), (0, 0)])
@pytest.mark.parametrize("packed", [False, True])
def test_no_steps_have_gradients_too(j, implementation, batch, length, packed):
    tensors = draw_sequence(length, j, batch)
    bounds = torch.tensor([0, 0, length, length]) if packed else None
    state = torch.randn(batch, *([3] if packed else []), 3, 2, j[3], dtype=torch.float64)
    keywords = {"implementation": implementation, "cu_seqlens": bounds}
    for last in (False, True):
        _, found = evaluate(
            lambda *x, last=last: plstm_1d(*x[:7], initial_state=x[7], return_last_state=last, **keywords),
            [*tensors, state],
        )
        *zeros, of_state = found
        assert all(gradient.numel() == 0 for gradient in zeros)
        assert (of_state == float(last)).all()
    evaluate(lambda *x: plstm_1d(*x, **keywords), tensors)


@GRAPH_FORMS
@pytest.mark.parametrize("j", [None, STATE_TRACKING], ids=["scalar", "state_tracking"])
@pytest.mark.parametrize(("nodes", "edges", "heads"), [(0, [], 2), (3, [], 2), (3, [(0, 1), (1, 2)], 0)])
def test_no_nodes_or_edges_have_gradients_too(implementation, j, nodes, edges, heads):
    topology = DagTopology.from_edges(nodes, torch.tensor(edges, dtype=torch.int64).reshape(-1, 2))
    for states in (False, True):
        evaluate(
            lambda *x, states=states: plstm_graph(
                *x, topology, implementation=implementation, return_last_state=states
            ),
            draw_graph(topology, j, heads),
        )


def test_packed_windows_do_not_see_a_neighbour():
    layer = build(Convolution1DLayerConfig(input_dim=3, dtype="float64", param_dtype="float64"))
    x, bounds = torch.randn(2, 12, 3, dtype=torch.float64), torch.tensor([0, 4, 7, 12])
    x[:, 4:7] = torch.nan
    x.requires_grad_()
    window = torch.randn(2 * 3, layer.kernel_size - 1, 3, dtype=torch.float64, requires_grad=True)
    output, after = layer.extend(x, window, cu_seqlens=bounds)
    found = torch.autograd.grad([output, after], [x, window], [torch.ones_like(output), torch.ones_like(after)])
    for number, (start, end) in ((0, (0, 4)), (2, (7, 12))):
        part = x[:, start:end].detach().requires_grad_()
        own = window[number::3].detach().requires_grad_()
        alone, last = layer.extend(part, own)
        assert_close(output[:, start:end].detach(), alone.detach())
        assert torch.equal(after[number::3], last)
        expected = torch.autograd.grad([alone, last], [part, own], [torch.ones_like(alone), torch.ones_like(last)])
        assert_close(found[0][:, start:end], expected[0], kind="gradient")
        assert_close(found[1][number::3], expected[1], kind="gradient")
