"""The kernels for graphs in Triton's interpreter. Run by `nox -s triton`, by its path.

Which of the two ways through the edges is taken depends on the graph; here both take every graph. The conformance suite
asks for values, gradients, states and isolation of the one that is chosen.
"""

from __future__ import annotations

from itertools import pairwise

import interpreted
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, jvp, vmap

from plstm_config.shapes import PLSTM_GRAPH, PLSTM_GRAPH_STATE_TRACKING
from plstm_config.topology import DagTopology
from plstm_testing import reference
from plstm_testing.conformance.draws import random_dag
from plstm_testing.tolerances import assert_close
from plstm_torch.ops import plstm_graph
from plstm_torch.ops._plstm_graph import compiled, op
from plstm_torch.ops._plstm_graph.plan import level_schedule
from plstm_torch.ops._plstm_graph.triton import form

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch._prims_common.check.*:FutureWarning"),
]


assert_same = interpreted.assert_same
J = pytest.mark.parametrize("j", [None, (2, 1, 2, 3, 1)], ids=["scalar", "matrices"])  # JQ, JK, JV, JT, JO


@pytest.fixture(params=["levels", "walks"])
def way(request, monkeypatch):
    """One of the ways through the edges."""
    monkeypatch.setattr(form, "walks", lambda *_: request.param == "walks")


@pytest.fixture
def poisoned():
    """Memory that nobody writes holds NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(topology, j=None, *, dims=(3, 2), heads=2, initial=True, dtype=torch.float64):
    """The arguments of the op by name."""
    sizes = {"H": heads, "N": topology.num_nodes, "E": len(topology.edges), "L": len(topology.line_edges)}
    sizes |= dict(zip(("DK", "DV"), dims, strict=True)) | dict(
        zip(("JQ", "JK", "JV", "JT", "JO"), j or (), strict=bool(j))
    )
    layouts = dict(PLSTM_GRAPH_STATE_TRACKING if j else PLSTM_GRAPH)
    if initial:
        layouts["initial_state"] = ("H", "E", "DK", "DV", "JT")[: 5 if j else 4]
    shapes = {name: [sizes[letter] for letter in layout] for name, layout in layouts.items()}
    return {name: 0.6 * torch.randn(*shape, dtype=dtype) for name, shape in shapes.items()}


def run(arguments, topology, implementation="triton", *, states=True):
    results = plstm_graph(
        **arguments, topology=topology, implementation=implementation, return_last_state=states, scale=0.7
    )
    return results if states else (results,)


def results_and_gradients(function, arguments):
    """Outputs, and gradients of a weighted sum of them, with the weights."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in arguments.items()}
    results = function(leaves)
    weights = [torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x) for x in results]
    return results, torch.autograd.grad(results, list(leaves.values()), weights), weights


def assert_as_in_torch(arguments, topology, **keywords):
    found, right = (
        results_and_gradients(lambda x, name=name: run(x, topology, name, **keywords), arguments)
        for name in ("triton", "recurrent")
    )
    assert_same(found[0], right[0], "output")
    assert_same(found[1], right[1])


@J
@pytest.mark.usefixtures("way", "poisoned")
def test_agrees_with_the_reference(j):
    """Graphs of several levels, one without edges, and a node that is alone; everything that enters and leaves."""
    parts = [random_dag(4, 1), DagTopology.from_edges(2, []), random_dag(4, 2, "D")]
    topology = DagTopology.batch([part.with_mode("P") for part in parts])
    arguments = draw(topology, j, heads=1)
    arrays = {name: tensor.numpy() for name, tensor in arguments.items()} | {"topology": topology, "scale": 0.7}
    found, gradients, weights = results_and_gradients(lambda x: run(x, topology), arguments)
    expected = reference.plstm_graph(**arrays, return_last_state=True)
    assert_same(found, [torch.from_numpy(array) for array in expected], "output")
    cotangents = {"cotangent": weights[0].numpy(), "cotangent_state": weights[1].numpy()}
    truth = reference.plstm_graph_gradients(**arrays, **cotangents)
    assert_same(gradients, [torch.from_numpy(truth[name]) for name in arguments])


@pytest.mark.parametrize("dims", [(17, 3), (3, 18), (33, 18)], ids=str)
@pytest.mark.usefixtures("way", "poisoned")
def test_tiles(dims):
    """Several tiles of a state, ragged ones; without states that enter or leave."""
    topology = DagTopology.from_edges(4, [(0, 1), (0, 2), (1, 2), (2, 3)])
    assert_as_in_torch(draw(topology, dims=dims, heads=1, initial=False), topology, states=False)


@pytest.mark.parametrize("j", [(1, 2, 1, 1, 2), (1, 1, 1, 2, 1), (1, 1, 2, 1, 1), (2, 1, 1, 8, 1)], ids=str)
def test_entries(j):
    """Every J dimension on its own, and the largest JT."""
    topology = DagTopology.from_edges(3, [(0, 1), (1, 2)])
    assert_as_in_torch(draw(topology, j, heads=1), topology)


@pytest.mark.parametrize("edges", [[], [(0, 1)], [(0, 3), (1, 3), (2, 3)], [(0, 1), (0, 2), (0, 3)]], ids=str)
@pytest.mark.usefixtures("way", "poisoned")
def test_shapes_of_graphs(edges):
    topology = DagTopology.from_edges(4, edges)
    for heads in (0, 2):
        assert_as_in_torch(draw(topology, heads=heads), topology)
    nothing = DagTopology.from_edges(0, [])
    assert_as_in_torch(draw(nothing), nothing)


def test_derivatives_of_any_order():
    topology = random_dag(4, 1)
    arguments = draw(topology, heads=1)
    tensors, every = tuple(arguments.values()), tuple(range(len(arguments)))

    def function(name):
        return lambda *x: run(dict(zip(arguments, x, strict=True)), topology, name)

    def loss(name):
        return lambda *x: sum(result.square().sum() for result in function(name)(*x))

    def slope(name):
        return lambda *x: grad(loss(name), 4)(*x).sum()

    assert_same(*(grad(slope(name), every)(*tensors) for name in ("triton", "recurrent")))
    tangents = tuple(torch.randn_like(tensor) for tensor in tensors)
    for one, other in zip(*(jvp(function(name), tensors, tangents) for name in ("triton", "recurrent")), strict=True):
        assert_same(one, other)
    stacked = tuple(torch.stack([tensor, -0.5 * tensor]) for tensor in tensors)
    assert_same(*(vmap(function(name))(*stacked) for name in ("triton", "recurrent")), "output")
    assert_same(*(vmap(grad(loss(name), every))(*stacked) for name in ("triton", "recurrent")))


@pytest.mark.parametrize(("j", "initial", "states"), [(None, False, False), ((1, 1, 1, 2, 1), True, True)], ids=str)
def test_one_program_serves_all_graphs(j, initial, states, fresh_compiler):
    def function(arguments, topology):
        return run(arguments, topology, states=states)

    compiled_function = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    path, wide = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)], [(0, 2), (1, 2), (2, 3), (2, 4), (3, 5), (4, 5), (5, 6)]
    for edges, stance in ((path, "default"), (wide, "fail_on_recompile")):
        parts = [DagTopology.from_edges(len(edges) + 1, edges), DagTopology.from_edges(2, [(0, 1)])]
        topology = DagTopology.batch(parts)
        arguments = draw(topology, j, initial=initial)
        with torch.compiler.set_stance(stance):
            found = results_and_gradients(lambda x, of=topology: compiled_function(x, of), arguments)
        right = results_and_gradients(lambda x, of=topology: function(x, of), arguments)
        assert_same(found[0], right[0], "output")
        assert_same(found[1], right[1])


@pytest.mark.parametrize("states", [False, True])
def test_operator_contract(states):
    topology = random_dag(3, 1)
    arguments = draw(topology, (1, 1, 1, 2, 1), heads=1, initial=states)
    arguments.pop("direct")
    tensors = [tensor.movedim(-1, 2) if name == "initial_state" else tensor for name, tensor in arguments.items()]
    leaves = [tensor.contiguous().requires_grad_() for tensor in tensors]
    indices = compiled.index_tensors(topology, topology.num_nodes)
    torch.library.opcheck(compiled._by_kernels, (leaves, *indices, "triton", states))


def test_operands_of_any_stride():
    topology = random_dag(4, 3)
    arguments = draw(topology)
    for name, tensor in arguments.items():
        order = list(range(tensor.dim()))[::-1]
        arguments[name] = tensor.permute(order).contiguous().permute(order)
    assert_as_in_torch(arguments, topology)
    # the gradient of a sum is one number seen from everywhere
    leaves = [tensor.requires_grad_() for tensor in arguments.values()]
    sums = [run(arguments, topology, name, states=False)[0].sum() for name in ("triton", "recurrent")]
    assert_same(*(torch.autograd.grad(result, leaves[:7]) for result in sums))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_vectors_and_wide_gates(dtype):
    topology = random_dag(4, 2)
    arguments = draw(topology, dtype=torch.float32)
    for name in ("query", "key", "value"):
        arguments[name] = arguments[name].to(getattr(torch, dtype))
    found, right = (results_and_gradients(lambda x, name=name: run(x, topology, name), arguments)
                    for name in ("triton", "recurrent"))  # fmt: skip
    assert [result.dtype for result in found[0]] == [getattr(torch, dtype), torch.float32]
    assert_close(found[0][0].detach().float(), right[0][0].detach().float(), dtype)
    assert_close(found[0][1].detach(), right[0][1].detach(), "float32", "state")
    assert [gradient.dtype for gradient in found[1]] == [tensor.dtype for tensor in arguments.values()]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["query", "value", "source", "transition", "mark"])
@pytest.mark.usefixtures("way")
def test_what_is_not_finite_stays_where_it_is(name, number):
    """Where the recurrence has it: channels that are not there make no NaN of an infinity."""
    topology = DagTopology.batch([DagTopology.from_edges(3, [(0, 1), (1, 2)]), DagTopology.from_edges(2, [(0, 1)])])
    arguments = draw(topology, initial=False)
    arguments[name][1, 0] = number
    found, right = (
        results_and_gradients(lambda x, form=form: run(x, topology, form), arguments)[:2]
        for form in ("triton", "recurrent")
    )
    for ours, theirs in zip(found, right, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.isfinite(), other.isfinite())
            assert torch.equal(one.isnan(), other.isnan())
            clean = [torch.where(x.isfinite(), x, 0.0).detach() for x in (one, other)]
            assert_close(*clean, "float64", "gradient")


def test_which_way_is_taken():
    chain = DagTopology.from_edges(100, list(pairwise(range(100))))
    star = DagTopology.from_edges(30, [(n, 29) for n in range(29)])
    schedules = [level_schedule(graph, graph.num_nodes, torch.device("cpu")) for graph in (chain, star)]
    assert [form.walks(schedule, 1) for schedule in schedules] == [True, False]
    assert [form.walks(schedules[0], dim_t) for dim_t in (4, 5)] == [True, False]


def test_programs_for_other_runtimes_hold_no_kernel():
    topology = random_dag(4, 2)
    names = tuple(draw(topology))

    class Module(torch.nn.Module):
        def forward(self, *tensors):
            return run(dict(zip(names, tensors, strict=True)), topology)

    tensors = tuple(draw(topology).values())
    program = torch.export.export(Module(), tensors)
    assert not [node for node in program.graph.nodes if "plstm" in str(node.target)]
    assert_same(program.module()(*tensors), Module()(*tensors), "output")


def test_reasons(monkeypatch):
    topology = DagTopology.from_edges(2, [(0, 1)])
    refused = r"^implementation: expected another one for this call of plstm_graph, got 'triton': .*"
    with pytest.raises(ValueError, match=refused + "DK up to 256, got DK=257"):
        run(draw(topology, dims=(257, 2)), topology)
    with pytest.raises(ValueError, match=refused + "JT up to 8, got JT=9"):
        run(draw(topology, (1, 1, 1, 9, 1)), topology)
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match=refused + "kernels run on CUDA devices, got cpu"):
        run(draw(topology), topology)


def test_auto_takes_kernels_where_they_fit(monkeypatch):
    drawn = draw(DagTopology.from_edges(2, [(0, 1)])).values()
    with FakeTensorMode():  # of a GPU that need not be there
        tensors = [torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda") for tensor in drawn]
    assert not op._kernels("auto", tensors, {"DK": 3, "DV": 2})
    monkeypatch.setattr(op.support, "taken_by_auto", lambda tensor: True)
    assert op._kernels("auto", tensors, {"DK": 3, "DV": 2, "JT": 8})
    assert not op._kernels("auto", tensors, {"DK": 3, "DV": 2, "JT": 9})
    assert not op._kernels("recurrent", tensors, {"DK": 3, "DV": 2})
