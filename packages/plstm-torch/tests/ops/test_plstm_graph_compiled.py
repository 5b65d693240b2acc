"""The graph op under torch.compile: one program for all graphs, the numbers of the op as it is."""

from itertools import pairwise

import pytest
import torch
from torch.func import vmap

import plstm_native
from plstm_config.shapes import PLSTM_GRAPH, PLSTM_GRAPH_STATE_TRACKING
from plstm_config.topology import DagTopology
from plstm_testing.conformance.draws import random_dag
from plstm_testing.tolerances import assert_close
from plstm_torch.ops import plstm_graph
from plstm_torch.ops._plstm_graph import compiled, forms, levels, op

STATE_TRACKING = {"JQ": 2, "JK": 1, "JV": 2, "JT": 3, "JO": 2}
# implementation, state tracking, whether states enter, whether they are asked for, mode
CASES = {
    "auto": ("auto", False, False, False, "P"),
    "walk": ("recurrent", True, False, False, "D"),
    "solve": ("parallel", True, False, False, "P"),
    "states enter": ("auto", False, True, False, "D"),
    "states leave": ("recurrent", True, True, True, "P"),
    "solve with states": ("parallel", False, True, True, "D"),
}
if plstm_native.unavailable() is None:
    CASES |= {"native": ("native", False, False, False, "P"), "native states": ("native", False, True, True, "D")}
pytestmark = [
    pytest.mark.usefixtures("fresh_compiler"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning"),  # of torch about itself
    pytest.mark.filterwarnings("ignore:.*torch._prims_common.check.*:FutureWarning"),
]


def batch(seed, mode="P", graphs=3):
    return DagTopology.batch([random_dag(5 + (seed + i) % 4, 10 * seed + i, mode) for i in range(graphs)])


def draw(topology, state_tracking=False, initial=False, dtype=torch.float64):
    sizes = {"H": 2, "N": topology.num_nodes, "E": len(topology.edges), "L": len(topology.line_edges)}
    sizes |= {"DK": 3, "DV": 4, **STATE_TRACKING}
    layouts = dict(PLSTM_GRAPH_STATE_TRACKING if state_tracking else PLSTM_GRAPH)
    if initial:
        layouts["initial_state"] = ("H", "E", "DK", "DV", "JT")[: 5 if state_tracking else 4]
    shapes = {name: [sizes[letter] for letter in layout] for name, layout in layouts.items()}
    drawn = {name: torch.randn(*shape, dtype=dtype) for name, shape in shapes.items()}
    drawn["transition"] *= 0.4
    return {name: tensor.requires_grad_() for name, tensor in drawn.items()}


def results_and_gradients(function, arguments, topology):
    results = function(arguments, topology)
    results = results if isinstance(results, tuple) else (results,)
    weights = [torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result) for result in results]
    return results, torch.autograd.grad(results, list(arguments.values()), weights)


def compare(function, other, arguments, topology, dtype="float64"):
    found, expected = (results_and_gradients(f, arguments, topology) for f in (function, other))
    for one, right in zip(found[0], expected[0], strict=True):
        assert_close(one.detach().double(), right.detach().double(), dtype)
    for one, right, name in zip(*(part[1] for part in (found, expected)), arguments, strict=True):
        assert_close(one.double(), right.double(), dtype, kind="gradient", label=name)


def run_as(case):
    implementation, _, _, states, _ = CASES[case]

    def run(arguments, topology):
        return plstm_graph(**arguments, topology=topology, implementation=implementation, return_last_state=states)

    return run


@pytest.mark.parametrize("case", CASES)
def test_one_program_serves_all_graphs(case):
    _, state_tracking, initial, _, mode = CASES[case]
    run = run_as(case)
    compiled_run = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=True)
    for seed, stance in enumerate(("default", "fail_on_recompile", "fail_on_recompile")):
        topology = batch(seed, mode, graphs=4 + seed)
        with torch.compiler.set_stance(stance):
            compare(compiled_run, run, draw(topology, state_tracking, initial), topology)


def test_sizes_become_dynamic_at_their_first_change():
    run = run_as("auto")
    compiled_run = torch.compile(run, fullgraph=True, backend="aot_eager")
    for seed, stance in enumerate(("default", "default", "fail_on_recompile", "fail_on_recompile")):
        topology = batch(seed)
        with torch.compiler.set_stance(stance):
            compare(compiled_run, run, draw(topology), topology)


def test_auto_is_decided_when_the_program_runs(monkeypatch):
    monkeypatch.setattr(op, "unsupported", lambda *given: "there are no kernels")
    chosen, walk, solve = [], compiled.LevelReadForm, compiled.dense_form
    monkeypatch.setattr(compiled, "LevelReadForm", lambda *given: chosen.append("recurrent") or walk(*given))
    monkeypatch.setattr(compiled, "dense_form", lambda *given: chosen.append("parallel") or solve(*given))
    run = run_as("auto")
    compiled_run = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=True)
    for length, name in ((20, "parallel"), (forms._FEW_EDGES + 3, "recurrent")):
        chosen.clear()
        topology = DagTopology.from_edges(length, list(pairwise(range(length))))
        compare(compiled_run, run, draw(topology), topology)
        assert set(chosen) == {name}  # forward and backward


@pytest.mark.slow
@pytest.mark.parametrize("case", ["auto", "states leave"])
def test_compiles_to_machine_code(case):
    dtype = "float32"
    _, state_tracking, initial, _, mode = CASES[case]
    run = run_as(case)
    compiled_run = torch.compile(run, fullgraph=True, dynamic=True)
    for seed, stance in enumerate(("default", "fail_on_recompile")):
        topology = batch(seed, mode)
        arguments = draw(topology, state_tracking, initial, getattr(torch, dtype))
        with torch.compiler.set_stance(stance):
            compare(compiled_run, run, arguments, topology, dtype)


@pytest.mark.parametrize("implementation", ["recurrent", "parallel"])
def test_autocast_narrows_neither_pass(implementation):
    topology = batch(1)
    arguments = draw(topology, dtype=torch.float32)

    def run(arguments, topology):
        return plstm_graph(**arguments, topology=topology, implementation=implementation)

    compiled_run = torch.compile(run, fullgraph=True, backend="aot_eager")
    _, expected = results_and_gradients(run, arguments, topology)
    with torch.autocast("cpu", torch.bfloat16):
        _, found = results_and_gradients(compiled_run, arguments, topology)
    for one, right in zip(found, expected, strict=True):
        assert_close(one, right, "float32", kind="gradient")


@pytest.mark.parametrize("case", ["auto", "solve with states"])
def test_what_is_not_finite_stays_where_it_is(case):
    _, state_tracking, initial, _, mode = CASES[case]
    topology, run = batch(2, mode), run_as(case)
    arguments = draw(topology, state_tracking, initial)
    with torch.no_grad():
        arguments["source"][0, 0] = float("nan")
    compiled_run = torch.compile(run, fullgraph=True, backend="aot_eager")
    for found, expected in zip(
        *(results_and_gradients(f, arguments, topology) for f in (compiled_run, run)), strict=True
    ):
        for one, right in zip(found, expected, strict=True):
            assert torch.equal(one.isfinite(), right.isfinite())
            assert_close(one.detach().nan_to_num(), right.detach().nan_to_num(), kind="gradient")


@pytest.mark.parametrize("case", ["auto", "walk", "states leave"])
def test_maps_over_ensembles(case):
    _, state_tracking, initial, _, mode = CASES[case]
    topology, run = batch(3, mode), run_as(case)
    arguments = {name: tensor.detach() for name, tensor in draw(topology, state_tracking, initial).items()}
    stacked = {name: torch.stack([tensor, 2 * tensor]) for name, tensor in arguments.items()}

    def mapped(arguments):
        return vmap(lambda given: run(given, topology))(arguments)

    found, expected = torch.compile(mapped, fullgraph=True, backend="aot_eager")(stacked), mapped(stacked)
    for one, right in zip(found, expected, strict=True):
        assert_close(one, right)


def operator_inputs(case):
    """What the operators of a case are called with."""
    implementation, state_tracking, initial, states, mode = CASES[case]
    topology = random_dag(5, 3, mode)
    arguments = draw(topology, True, initial)
    if not state_tracking:
        arguments = draw(topology, False, initial)
        trailing = (1, 1, 1, 3, 2, 3, 4, 1)
        arguments = {
            name: tensor.detach().reshape(*tensor.shape, *[1] * count).requires_grad_()
            for (name, tensor), count in zip(arguments.items(), trailing, strict=False)
        }
    arrays = [tensor for name, tensor in arguments.items() if name not in ("direct", "initial_state")]
    indices = compiled.index_tensors(topology, topology.num_nodes)
    if implementation == "native":
        entering = [arguments["initial_state"].detach().movedim(-1, 2).contiguous().requires_grad_()] if initial else []
        return compiled._by_kernels, ([*arrays, *entering], *indices, "native", states)
    if not initial and not states:
        return compiled._read, (arrays, *indices, implementation, False)
    order = compiled.compiled_graph(indices, torch.device("cpu"))
    factors = [factor.detach().requires_grad_() for factor in levels.edge_factors(order, *arrays)]
    entering = [arguments["initial_state"].detach().movedim(-1, 2).contiguous().requires_grad_()] if initial else []
    name = forms.resolve_implementation(implementation, 0, with_states=True)
    return compiled._with_states, ([*factors, *entering], *indices, name, states)


@pytest.mark.parametrize("case", CASES)
def test_operators_keep_their_promises(case):
    operator, arguments = operator_inputs(case)
    torch.library.opcheck(operator, arguments)


def test_the_order_keeps_its_promises():
    indices = compiled.index_tensors(random_dag(5, 3), 5)
    torch.library.opcheck(compiled._order_operator, (*indices, torch.device("cpu")))


class Pairs:
    """Edges and line edges, and nothing else."""

    def __init__(self, edges, line_edges):
        self.edges, self.line_edges = edges, line_edges


def test_other_topologies_and_wrong_ones():
    run, topology = run_as("auto"), random_dag(8, 4)
    compiled_run = torch.compile(run, fullgraph=True, backend="aot_eager")
    arguments, (edges, lines) = draw(topology), (topology.edges, topology.line_edges)
    compare(compiled_run, run, arguments, Pairs(edges, lines))
    for function in (compiled_run, run):
        with pytest.raises(ValueError, match=r"^topology\.line_edges: expected pairs \(earlier, later\)"):
            function(arguments, Pairs(edges, lines[:, ::-1].copy()))
        with pytest.raises(TypeError, match=r"^topology\.edges: expected integers, got float64"):
            function(arguments, Pairs(edges * 1.0, lines))
