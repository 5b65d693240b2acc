"""The 2D ops: every implementation against the reference, recorded data, and each other."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from plstm_config.shapes import DIRECTED
from plstm_testing import golden
from plstm_testing.conformance import OpCall, truth
from plstm_testing.conformance.cases import SCALAR, STATE_TRACKING, cases
from plstm_testing.selfcheck import CASES
from plstm_testing.tolerances import assert_close, assert_within
from plstm_torch.check import run_op
from plstm_torch.ops import plstm_2d, plstm_2d_oriented
from plstm_torch.ops._plstm_2d import attention, block_chain, op, separable
from plstm_torch.ops._plstm_2d.problem import Gates, Problem, exchange_axes, map_gates

IMPLEMENTATIONS = ("recurrent", "chunkwise", "parallel")
EACH = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
KINDS = pytest.mark.parametrize("j", [SCALAR, STATE_TRACKING], ids=["scalar", "state_tracking"])
MODES = pytest.mark.parametrize("mode", ["general", "P", "L", "R"])
BOTH = pytest.mark.parametrize("oriented", [False, True], ids=["one_corner", "four_corners"])
ABSENT = {"general": (), "L": ("transition_dl",), "R": ("transition_ru",), "P": tuple(DIRECTED)}
NAMED = {"op_2d": "plstm_2d", "op_2d_four_orientations": "plstm_2d_oriented"}


def draw(x, y, mode="general", j=SCALAR, oriented=False, batch=2, dim_k=3, dim_v=2, dtype=torch.float64, states=True):
    """Arguments by name; transitions of norm below one half each."""
    dim_q, dim_k_j, dim_v_j, dim_t, dim_o = j
    axes = (4,) if oriented else ()

    def leaf(*size, scale=1.0):
        return (scale * torch.randn(batch, *size, dtype=dtype)).requires_grad_()

    arguments = {"query": leaf(x, y, dim_k, dim_q), "key": leaf(x, y, dim_k, dim_k_j)}
    arguments |= {"value": leaf(x, y, dim_v, dim_v_j), "direct": leaf(x, y, dim_o, dim_q, dim_k_j, dim_v_j)}
    for name in ("source_r", "source_d"):
        arguments[name] = leaf(*axes, x, y, dim_t, dim_k_j, dim_v_j)
    for name in ("transition_rl", "transition_du", "transition_dl", "transition_ru"):
        arguments[name] = leaf(*axes, x, y, dim_t, dim_t, scale=0.4 / dim_t**0.5)
    for name in ("mark_l", "mark_u"):
        arguments[name] = leaf(*axes, x, y, dim_o, dim_q, dim_t)
    if states:
        arguments["initial_state"] = tuple(leaf(*axes, side, dim_k, dim_v, dim_t) for side in (y, x))
    return arguments | dict.fromkeys(ABSENT[mode]) | {"mode": "P" if mode == "P" else None}


def leaves(arguments):
    parts = [part for value in arguments.values() for part in (value if isinstance(value, tuple) else (value,))]
    return list({id(part): part for part in parts if isinstance(part, torch.Tensor)}.values())


def run(arguments, **keywords):
    """Output, right and bottom."""
    function = plstm_2d_oriented if arguments["source_r"].dim() == 7 else plstm_2d
    output, states = function(**arguments, return_last_state=True, **keywords)
    return (output, *states)


def gradients(results, tensors):
    weights = [torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result) for result in results]
    return torch.autograd.grad(results, tensors, weights)


def assert_same(actual, expected, dtype="float64", kind="gradient"):
    for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert_close(one.detach().double(), other.detach().double(), dtype, kind, f"tensor {index}")


def compare(result, expected, dtype):
    assert_close(result.output, expected.output, dtype, "output", "output")
    if expected.last_state is not None:
        for side, actual, state in zip(("right", "bottom"), result.last_state, expected.last_state, strict=True):
            assert_close(actual, state, dtype, "state", side)
    assert set(result.gradients) == set(expected.gradients)
    for name, gradient in expected.gradients.items():
        parts = zip(result.gradients[name], gradient, strict=True) if isinstance(gradient, tuple) else None
        for actual, exact in parts or [(result.gradients[name], gradient)]:
            assert_close(actual, exact, dtype, "gradient", f"gradient of {name}")


@EACH
@pytest.mark.parametrize("case", [*cases("plstm_2d"), *cases("plstm_2d_oriented")], ids=lambda c: f"{c.op}-{c.name}")
def test_agrees_with_the_reference(case, implementation):
    result = run_op(truth.call(case, implementation, "float64", "cpu"))
    compare(result, truth.expected(case.op, case.name, "float64"), "float64")


@EACH
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("op_name", "name"), [(name, case) for name in NAMED.values() for case in CASES[name]])
def test_agrees_in_other_dtypes(op_name, name, dtype, implementation):
    (case,) = (case for case in cases(op_name) if case.name == name)
    result = run_op(truth.call(case, implementation, dtype, "cpu"))
    compare(result, truth.expected(op_name, name, dtype), dtype)
    assert (result.output_dtype, result.state_dtype) == (dtype, "float32")


@EACH
@pytest.mark.parametrize("case", [case for kind in NAMED for case in golden.cases(kind)], ids=lambda case: case.name)
def test_agrees_with_recorded_data(case, implementation):
    inputs = {name: array for name, array in case.inputs.items() if name != "cotangent"}
    keywords = {"implementation": implementation, "block_size": 3}
    result = run_op(OpCall(NAMED[case.kind], inputs, {}, keywords, case.inputs["cotangent"]))
    assert_within(result.output, case.outputs["output"], case.limit, "output")
    assert set(case.gradients) <= set(result.gradients)
    for name, gradient in case.gradients.items():
        assert_within(result.gradients[name], gradient, case.limit, name)


@BOTH
@MODES
@KINDS
def test_implementations_agree_without_states(oriented, mode, j):
    # without states "parallel" has forms of its own; 10 columns make several strips of unequal width
    arguments = draw(10, 6, mode, j, oriented, batch=1, states=False)
    function = plstm_2d_oriented if oriented else plstm_2d
    results = [function(**arguments, implementation=name, block_size=4) for name in IMPLEMENTATIONS]
    expected = gradients(results[:1], leaves(arguments))
    for result in results[1:]:
        assert_same([result], results[:1], kind="output")
        assert_same(gradients([result], leaves(arguments)), expected)


@EACH
@BOTH
@MODES
def test_zero_negative_and_unit_transitions(oriented, mode, implementation):
    arguments = draw(6, 5, mode, oriented=oriented)
    with torch.no_grad():
        for index, name in enumerate(("transition_rl", "transition_du", "transition_dl", "transition_ru")):
            if arguments[name] is not None:
                arguments[name].copy_(torch.tensor([0.0, 1.0, -1.0, 0.0, 0.5])[torch.randint(0, 5, (60,)).roll(index)]
                                      .repeat(8)[: arguments[name].numel()].view_as(arguments[name]))  # fmt: skip
    results = run(arguments, implementation=implementation, block_size=2)
    expected = run(arguments, implementation="recurrent")
    assert_same(results, expected, kind="output")
    assert_same(gradients(results, leaves(arguments)), gradients(expected, leaves(arguments)))


def cut(arguments, columns, rows, state):
    """The arguments of one tile."""
    grid = 2 if arguments["source_r"].dim() == 7 else 1

    def part(name, tensor):
        axis = 1 if name in ("query", "key", "value", "direct") else grid
        return tensor.narrow(axis, columns[0], columns[1] - columns[0]).narrow(axis + 1, rows[0], rows[1] - rows[0])

    kept = {name: part(name, value) for name, value in arguments.items() if isinstance(value, torch.Tensor)}
    return kept | {"initial_state": state, "mode": arguments["mode"]}


@EACH
@MODES
@KINDS
def test_tiles_equal_the_whole(mode, j, implementation):
    arguments = draw(7, 6, mode, j)
    expected = run(arguments, implementation=implementation, block_size=4)
    lefts = list(arguments["initial_state"][0].split([2, 4], 1))
    tops = list(arguments["initial_state"][1].split([4, 3], 1))
    outputs = []
    for i, columns in enumerate(pairwise([0, 4, 7])):
        outputs.append([])
        for k, rows in enumerate(pairwise([0, 2, 6])):
            tile = cut(arguments, columns, rows, (lefts[k], tops[i]))
            output, lefts[k], tops[i] = run(tile, implementation=implementation, block_size=2)
            outputs[-1].append(output)
    results = torch.cat([torch.cat(row, 2) for row in outputs], 1), torch.cat(lefts, 1), torch.cat(tops, 1)
    assert_same(results, expected, kind="output")
    assert_same(gradients(results, leaves(arguments)), gradients(expected, leaves(arguments)))


@EACH
@MODES
def test_tiles_equal_the_whole_in_every_orientation(mode, implementation):
    # each orientation visits the tiles in its own order, so each is run for itself: the others' states are left out
    arguments = draw(7, 5, mode, oriented=True, batch=1)
    expected = run(arguments, implementation=implementation, block_size=4)
    columns, rows = list(pairwise([0, 4, 7])), list(pairwise([0, 2, 5]))
    lefts = [list(part.split([2, 3], 1)) for part in arguments["initial_state"][0].unbind(1)]
    tops = [list(part.split([4, 3], 1)) for part in arguments["initial_state"][1].unbind(1)]
    total = torch.zeros_like(expected[0])
    for o in range(4):
        for i in (1, 0) if o & 1 else (0, 1):
            for k in (1, 0) if o & 2 else (0, 1):
                own = [torch.zeros(1, 4, *side.shape[1:], dtype=side.dtype) for side in (lefts[o][k], tops[o][i])]
                states = tuple(
                    side.index_copy(1, torch.tensor([o]), part.unsqueeze(1))
                    for side, part in zip(own, (lefts[o][k], tops[o][i]), strict=True)
                )
                tile = cut(arguments, columns[i], rows[k], states)
                mask = torch.zeros(4, dtype=torch.float64).index_fill(0, torch.tensor([o]), 1.0)
                for name in {"source_r", "source_d", "mark_l", "mark_u"} & tile.keys():
                    tile[name] = tile[name] * mask.view(1, 4, 1, 1, 1, 1, 1)
                tile["direct"] = tile["direct"] * (1.0 if o == 0 else 0.0)
                output, right, bottom = run(tile, implementation=implementation, block_size=2)
                lefts[o][k], tops[o][i] = right[:, o], bottom[:, o]
                total = total + torch.nn.functional.pad(
                    output, (0, 0, 0, 0, rows[k][0], 5 - rows[k][1], columns[i][0], 7 - columns[i][1])
                )
    right, bottom = (torch.stack([torch.cat(part, 1) for part in side], 1) for side in (lefts, tops))
    assert_same((total, right, bottom), expected, kind="output")
    assert_same(gradients((total, right, bottom), leaves(arguments)), gradients(expected, leaves(arguments)))


@EACH
@MODES
@BOTH
def test_gradients_match_finite_differences(oriented, mode, implementation):
    arguments = draw(3, 2, mode, oriented=oriented, batch=1, dim_k=1, dim_v=2)
    tensors = leaves(arguments)
    assert torch.autograd.gradcheck(lambda *_: run(arguments, implementation=implementation, block_size=2), tensors)


@EACH
@MODES
def test_second_derivatives_match_finite_differences(mode, implementation):
    arguments = draw(2, 3, mode, batch=1, dim_k=1, dim_v=1)
    function = lambda *_: run(arguments, implementation=implementation, block_size=2)  # noqa: E731
    assert torch.autograd.gradgradcheck(function, leaves(arguments), fast_mode=True)


@pytest.mark.parametrize("mode", ["general", "L"])
def test_second_derivatives_without_states(mode):
    arguments = draw(3, 2, mode, oriented=True, batch=1, dim_k=1, dim_v=1, states=False)
    function = lambda *_: plstm_2d_oriented(**arguments, implementation="parallel")  # noqa: E731
    assert torch.autograd.gradgradcheck(function, leaves(arguments), fast_mode=True)


@EACH
@BOTH
@KINDS
def test_directed_mode_equals_the_same_gates_in_both_places(j, oriented, implementation):
    directed = draw(5, 4, "P", j, oriented)
    general = directed | {name: directed[serving] for name, serving in DIRECTED.items()} | {"mode": None}
    results, expected = (run(x, implementation=implementation, block_size=3) for x in (directed, general))
    assert_same(results, expected, kind="output")
    assert_same(gradients(results, leaves(directed)), gradients(expected, leaves(directed)))


@EACH
@BOTH
def test_one_tensor_may_enter_from_both_sides(oriented, implementation):
    arguments = draw(5, 5, oriented=oriented)
    state = arguments["initial_state"][0]
    both = arguments | {"initial_state": (state, state)}
    apart = arguments | {"initial_state": (state, state.clone())}
    results, expected = (run(x, implementation=implementation, block_size=3) for x in (both, apart))
    assert_same(results, expected, kind="output")
    assert_same(gradients(results, leaves(both)), gradients(expected, leaves(both)))


def test_the_mode_is_said_and_never_recognized():
    directed = problem(6, 5, "P", SCALAR)
    assert directed.gates.mode == "P"
    assert {name for name, gate in vars(directed.gates).items() if gate is None} == set(DIRECTED)
    assert directed.gates.with_turns().mode == "general"
    assert exchange_axes(exchange_axes(directed)).gates.mode == exchange_axes(directed).gates.mode == "P"
    assert map_gates(directed.gates, torch.clone).mode == "P"


def problem(x, y, mode, j):
    arguments = draw(x, y, mode, j, batch=1)
    gates = {name: arguments[name] for name in Gates.__dataclass_fields__}
    gates = {name: None if gate is None else gate.unsqueeze(1) for name, gate in gates.items()}
    inputs = (arguments[name] for name in ("query", "key", "value"))
    return Problem(*inputs, Gates(**gates), arguments["direct"], ((False, False),), None, False)


def test_auto_resolves_in_one_place(monkeypatch):
    monkeypatch.setattr(op, "without_native_kernels", lambda problem: "there are none")
    assert op.resolve_implementation("auto", problem(14, 14, "L", SCALAR)) == "parallel"
    assert op.resolve_implementation("auto", problem(64, 64, "L", SCALAR)) == "chunkwise"
    assert op.resolve_implementation("auto", problem(50, 50, "L", SCALAR)) == "parallel"
    assert op.resolve_implementation("auto", problem(50, 50, "general", SCALAR)) == "chunkwise"
    assert op.resolve_implementation("auto", problem(20, 20, "general", STATE_TRACKING)) == "chunkwise"
    assert op.resolve_implementation("recurrent", problem(1, 1, "L", SCALAR)) == "recurrent"
    monkeypatch.setattr(op, "without_native_kernels", lambda problem: None)
    assert op.resolve_implementation("auto", problem(14, 14, "L", SCALAR)) == "native"
    assert op.resolve_implementation("parallel", problem(14, 14, "L", SCALAR)) == "parallel"


@EACH
def test_result_dtypes(implementation):
    def dtypes(**changed):
        arguments = {name: convert(name, value, changed) for name, value in draw(3, 4, dtype=torch.float32).items()}
        return [result.dtype for result in run(arguments, implementation=implementation)]

    def convert(name, value, changed):
        dtype = changed.get(name, torch.bfloat16)
        if isinstance(value, tuple):
            return tuple(side.to(dtype) for side in value)
        return value.to(dtype) if isinstance(value, torch.Tensor) else value

    assert dtypes() == [torch.bfloat16, torch.float32, torch.float32]
    assert dtypes(value=torch.float16) == [torch.float16, torch.float32, torch.float32]
    assert dtypes(mark_u=torch.float64) == [torch.bfloat16, torch.float64, torch.float64]


@EACH
@KINDS
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("within", ["forward", "backward", "both"])
def test_autocast_of_the_caller_has_no_effect(j, states, implementation, within):
    arguments = draw(5, 4, "general", j, dtype=torch.float32, states=states)

    def function():
        if states:
            return run(arguments, implementation=implementation, block_size=3)
        return [plstm_2d(**arguments, implementation=implementation, block_size=3)]

    expected = function()
    expected_gradients = gradients(expected, leaves(arguments))
    with torch.autocast("cpu", torch.bfloat16, enabled=within != "backward"):
        results = function()
    assert_same(results, expected, "float32", "output")
    with torch.autocast("cpu", torch.bfloat16, enabled=within != "forward"):
        found = gradients(results, leaves(arguments))
    assert_same(found, expected_gradients, "float32")


@EACH
@BOTH
@MODES
@KINDS
def test_one_node_has_a_gradient_for_every_input(oriented, mode, j, implementation):
    arguments = draw(1, 1, mode, j, oriented, states=False)
    function = plstm_2d_oriented if oriented else plstm_2d
    output = function(**arguments, implementation=implementation)
    found = torch.autograd.grad(output.sum(), leaves(arguments))
    assert [bool(gradient.any()) for gradient in found] == [True] * 4 + [False] * (len(found) - 4)


@EACH
@MODES
def test_strides_do_not_matter(mode, implementation):
    arguments = draw(5, 4, mode, oriented=True)

    def apart(value):
        if isinstance(value, tuple):
            return tuple(apart(part) for part in value)
        if not isinstance(value, torch.Tensor):
            return value
        return torch.stack([value, torch.full_like(value, torch.nan)], -1)[..., 0]

    strided = {name: apart(value) for name, value in arguments.items()}
    results, expected = (run(x, implementation=implementation, block_size=3) for x in (strided, arguments))
    assert_same(results, expected, kind="output")
    # a sum hands back a gradient of stride zero
    found = torch.autograd.grad(sum(x.sum() for x in results), leaves(arguments))
    assert_same(found, torch.autograd.grad(sum(x.sum() for x in expected), leaves(arguments)))


@EACH
@pytest.mark.parametrize("states", [False, True])
def test_gates_shared_over_batch_and_grid(states, implementation):
    arguments = draw(4, 5, oriented=True, states=states)
    shared = {name: arguments[name][:1, :, :1, :1].detach().requires_grad_() for name in Gates.__dataclass_fields__}
    expanded = {name: gate.expand(2, 4, 4, 5, *gate.shape[4:]) for name, gate in shared.items()}
    results = run(arguments | expanded, implementation=implementation, block_size=3)
    assert all(gradient.isfinite().all() for gradient in gradients(results, list(shared.values())))


@EACH
@BOTH
@MODES
@pytest.mark.parametrize("size", [(0, 3, 2), (3, 0, 2), (3, 4, 0)])
def test_every_result_of_an_empty_grid_has_every_gradient(size, mode, oriented, implementation):
    x, y, batch = size
    arguments = draw(x, y, mode, oriented=oriented, batch=batch)
    for result in run(arguments, implementation=implementation):
        found = torch.autograd.grad(result.sum(), leaves(arguments), retain_graph=True)
        assert [gradient.shape for gradient in found] == [leaf.shape for leaf in leaves(arguments)]
        # what enters leaves: only a border state has a gradient that is not zero
        assert not any(gradient.any() for gradient in found[:-2])


@EACH
@pytest.mark.parametrize("size", [(3, 4), (0, 3), (3, 0)])
def test_inputs_are_left_alone(size, implementation):
    arguments = draw(*size)
    before = [tensor.clone() for tensor in leaves(arguments)]
    with torch.no_grad():
        for result in run(arguments, implementation=implementation, block_size=2):
            result.add_(1.0)
    assert all(torch.equal(one, other) for one, other in zip(leaves(arguments), before, strict=True))


@pytest.mark.parametrize("mode", ["P", "L"])
@KINDS
def test_memory_for_backward_is_linear_in_the_grid(mode, j):
    def kept(x, y):
        arguments = draw(x, y, mode, j, batch=1, dtype=torch.float32, states=False)
        return saved_bytes(lambda: plstm_2d(**arguments, implementation="chunkwise", block_size=4))[1]

    assert kept(32, 32) <= 4.2 * kept(16, 16)


def saved_bytes(run):
    """What a function returns, and the bytes of all that is kept for its backward pass."""
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        return run(), sum(saved.values())


@pytest.mark.parametrize("mode", ["P", "L", "general"])
@KINDS
def test_strips_keep_less_and_change_nothing(mode, j, monkeypatch):
    """Outputs, states, first and second derivatives of a grid whose columns of blocks are walked in three strips."""
    arguments = draw(22, 10, mode, j, oriented=True, dim_k=24, dim_v=20)
    inputs = leaves(arguments)
    found = []
    for columns in (8, 2):
        monkeypatch.setattr(block_chain, "STRIP", columns * 2 * 4 * 3 * 8 * 24 * 20 * j[3])
        run = lambda: plstm_2d_oriented(  # noqa: E731
            **arguments, implementation="chunkwise", block_size=4, return_last_state=True
        )
        (output, states), kept = saved_bytes(run)
        first = torch.autograd.grad((output.sin().sum(), *map(torch.sum, states)), inputs, create_graph=True)
        second = torch.autograd.grad(sum(one.square().sum() for one in first), inputs)
        found.append(((output, *states, *first, *second), kept))
    (whole, all_kept), (strips, kept) = found
    assert kept < 0.75 * all_kept
    assert_same(strips, whole)


@pytest.mark.parametrize("oriented", [False, True])
def test_scores_in_pieces_change_nothing(oriented, monkeypatch):
    arguments = draw(6, 4, "L", oriented=oriented, batch=5, states=False)
    function = plstm_2d_oriented if oriented else plstm_2d
    expected = function(**arguments, implementation="parallel")
    expected_gradients = gradients([expected], leaves(arguments))
    for module in (attention, separable):
        monkeypatch.setattr(module, "SCORES_IN_CACHE", 2 * 24**2)
    result = function(**arguments, implementation="parallel")
    assert_same([result], [expected], kind="output")
    assert_same(gradients([result], leaves(arguments)), expected_gradients)


@BOTH
def test_bad_arguments_are_named(oriented):
    arguments = draw(3, 4, oriented=oriented)
    left, top = arguments["initial_state"]
    for error, message, changed in [
        (TypeError, "query: expected .*, got list", {"query": [1.0]}),
        (TypeError, "key: expected a torch.Tensor, got ndarray", {"key": arguments["key"].detach().numpy()}),
        (TypeError, "value: expected a floating-point dtype, got torch.int64", {"value": arguments["value"].long()}),
        (ValueError, "source_d: expected the device of query, cpu, got meta",
         {"source_d": arguments["source_d"].to("meta")}),
        (ValueError, r"mark_u: expected \[.*\], got", {"mark_u": arguments["mark_u"][..., 0]}),
        (ValueError, r"transition_dl: expected \[.*X=3, Y=4.*\], got",
         {"transition_dl": arguments["transition_dl"].transpose(-3, -4)}),
        (TypeError, r"initial_state: expected the pair \(left, top\), got Tensor", {"initial_state": left}),
        (ValueError, r"initial_state\[0\] \(left\): expected \[.*\], got", {"initial_state": (top, left)}),
        (TypeError, r"initial_state\[1\] \(top\): expected a floating-point dtype",
         {"initial_state": (left, top.long())}),
        (ValueError, "implementation: expected one of 'auto', 'recurrent', .*, 'triton', got 'fast'",
         {"implementation": "fast"}),
        (ValueError, "block_size: expected None or a positive integer, got 0", {"block_size": 0}),
        (TypeError, "block_size: expected None or a positive integer, got float", {"block_size": 2.0}),
    ]:  # fmt: skip
        with pytest.raises(error, match=f"^{message}"):
            (plstm_2d_oriented if oriented else plstm_2d)(**arguments | changed)
