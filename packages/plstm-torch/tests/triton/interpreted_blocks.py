"""The kernels between blocks of a grid in Triton's interpreter. Run by `nox -s triton`, by its path.

The conformance suite's grids with states are of one block; here are several, and what it cannot ask.
"""

from __future__ import annotations

import interpreted
import pytest
import torch
from torch.func import grad, jvp, vmap

from plstm_testing.conformance import truth
from plstm_testing.conformance.cases import grid
from plstm_testing.conformance.checks import compare
from plstm_torch import check
from plstm_torch.ops import plstm_2d
from plstm_torch.ops._plstm_2d import op
from plstm_torch.ops._plstm_2d.triton import blocks_form
from plstm_torch.ops._triton import tuning
from plstm_torch.ops._triton.tuning import Row

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning")


assert_same, loss_of = interpreted.assert_same, interpreted.loss_of
MODES = ("full", "L", "R", "apart", "P")


@pytest.fixture(autouse=True)
def _new_memory_holds_nan():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before)


def hold_against_the_reference(case, dtype="float64"):
    """Output, last states and all gradients, against the reference in float64."""
    call = truth.call(case, "triton", dtype, "cpu")
    compare(check.run_op(call), truth.evaluate(call), call)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("special", [False, True])
def test_values(mode, special):
    x, y = (16, 24) if special else (9, 13)
    hold_against_the_reference(grid("blocks", x, y, mode, batch=1, initial=True, special=special and mode != "full"))


@pytest.mark.parametrize("mode", ["full", "P"])
def test_values_of_four_orientations(mode):
    hold_against_the_reference(grid("blocks", 9, 10, mode, oriented=True, batch=1, initial=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_values_of_a_dtype(dtype):
    hold_against_the_reference(grid("blocks", 17, 9, "full", batch=1, initial=True), dtype)


@pytest.mark.parametrize("oriented", [False, True])
def test_strips(oriented, monkeypatch):
    """Every column of blocks by itself: the backward pass walks it again from what the forward pass has kept."""
    monkeypatch.setattr(blocks_form, "_STRIP", 1)
    hold_against_the_reference(grid("blocks", 17, 9, "L", oriented=oriented, batch=1, initial=True))


@pytest.mark.parametrize(("block", "dim_k", "dim_v"), [(16, 35, 3), (32, 3, 35), (64, 67, 65)], ids=str)
def test_blocks_of_channels(block, dim_k, dim_v, monkeypatch):
    """The blocks that GPUs take: ragged, and several of both."""
    monkeypatch.setattr(tuning, "_INTERPRETED_GRID", Row(64, block, 1, 1, 0))
    names, tensors = draw(9, 2, dim_k=dim_k, dim_v=dim_v)
    found, right = (results_of(run(implementation, names), tensors) for implementation in ("triton", "recurrent"))
    for one, other in zip(found, right, strict=True):
        assert_same(one, other)


def draw(x=9, y=2, batch=1, **dims):
    """Arguments of the op with four transitions, and initial states: names and tensors."""
    tensors = interpreted.draw_grid("L", x, y, orientations=(), batch=batch, **dims)
    tensors["transition_dl"] = torch.tanh(torch.randn_like(tensors["transition_ru"]))
    for name in tensors:
        if name.startswith("transition"):
            tensors[name] = tensors[name] / 2
    dim_k, dim_v = tensors["key"].shape[3], tensors["value"].shape[3]
    tensors |= {"left": torch.randn(batch, y, dim_k, dim_v, 1).double()}
    tensors |= {"top": torch.randn(batch, x, dim_k, dim_v, 1).double()}
    return list(tensors), tuple(tensors.values())


def run(implementation, names):
    """The op as a function of tensors; output, right and bottom."""

    def call(*tensors):
        named = dict(zip(names, tensors, strict=True))
        state = named.pop("left"), named.pop("top")
        output, last = plstm_2d(**named, initial_state=state, return_last_state=True, implementation=implementation)
        return output, *last

    return call


def results_of(function, tensors):
    """What a function returns, and its gradients along its own results."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    results = function(*leaves)
    return results, torch.autograd.grad(results, leaves, [result.detach() for result in results])


def test_derivatives_of_any_order():
    names, tensors = draw()
    functions, every = [run(name, names) for name in ("triton", "recurrent")], tuple(range(len(tensors)))
    second = [grad(lambda *x, f=function: grad(loss_of(f), 2)(*x).sum(), every)(*tensors) for function in functions]
    assert_same(*second)
    tangents = tuple(torch.randn_like(tensor) for tensor in tensors)
    for one, other in zip(*(jvp(function, tensors, tangents) for function in functions), strict=True):
        assert_same(one, other)


def test_batching_merges_into_the_batch(monkeypatch):
    """Also where the pullback is batched and the function is not: a larger batch has other strips."""
    names, tensors = draw()
    functions = [run(name, names) for name in ("triton", "recurrent")]
    stacked = tuple(torch.stack([tensor, -0.5 * tensor]) for tensor in tensors)
    assert_same(*(vmap(grad(loss_of(function), (0, 4, 9)))(*stacked) for function in functions))
    monkeypatch.setattr(blocks_form, "_STRIP", 2 * 16 * 6)
    pulled = []
    for function in functions:
        results, pull = torch.func.vjp(function, *tensors)[:2]
        torch.manual_seed(0)
        pulled.append(vmap(pull)(tuple(torch.randn(3, *result.shape, dtype=result.dtype) for result in results)))
    assert_same(*pulled)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_break(dynamic):
    names, tensors = draw()
    compiled = torch.compile(run("triton", names), fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for one, other in zip(results_of(compiled, tensors), results_of(run("triton", names), tensors), strict=True):
        assert_same(one, other)


def test_operator_contract():
    nodes, maps = (1, 2, 1, 64), (1, 1, 2, 1, 16)
    shapes = [(*nodes, 3), (*nodes, 3), (*nodes, 2), (*maps, 64), (*maps, 64), (*maps, 16), (1, 1, 24, 3, 2)]
    tensors = [0.1 * torch.randn(shape, dtype=torch.float64) for shape in shapes]
    torch.library.opcheck(blocks_form.block_kernels.operator, ([tensor.requires_grad_() for tensor in tensors],))


@pytest.mark.parametrize("name", ["value", "source_r", "left"])
def test_what_is_not_finite_stays_in_its_row(name):
    names, tensors = draw(x=9, y=3, batch=2)
    spoilt = list(tensors)
    place = names.index(name)
    spoilt[place] = spoilt[place].clone()
    spoilt[place][1] = torch.nan
    found, clean = (results_of(run("triton", names), given) for given in (spoilt, tensors))
    for one, other in zip(found, clean, strict=True):
        assert_same([part[0] for part in one], [part[0] for part in other])
    assert found[0][0][1].isnan().any()


def test_a_grid_in_tiles():
    """States that leave one tile enter the next."""
    names, tensors = draw(x=11, y=3)
    named = dict(zip(names, tensors, strict=True))
    whole, right, bottom = run("triton", names)(*tensors)
    parts, left, bottoms = [], named["left"], []
    for columns in (slice(0, 9), slice(9, 11)):
        tile = {key: tensor if key == "left" else tensor[:, columns] for key, tensor in named.items()} | {"left": left}
        output, left, end = run("triton", names)(*tile.values())
        parts.append(output)
        bottoms.append(end)
    assert_same([torch.cat(parts, 1), left, torch.cat(bottoms, 1)], [whole, right, bottom], "output")


def test_which_kernels_take_a_call(monkeypatch):
    def kernels(implementation, mode, x, y, with_states=False, turn="transition_ru"):
        tensors = interpreted.draw_grid(mode, x, y, orientations=())
        gates = dict.fromkeys(("transition_dl", "transition_ru", "mark_u"))
        gates |= {name: tensor for name, tensor in tensors.items() if name not in ("query", "key", "value", "direct")}
        if turn is None:
            gates["transition_ru"] = None
        inputs = tuple(tensors[name] for name in ("query", "key", "value", "direct"))
        return op._kernels(implementation, inputs, gates, with_states)

    assert (
        kernels("triton", "L", 64, 1) == kernels("triton", "R", 1, 64) == kernels("triton", "P", 32, 1) == "quadratic"
    )
    assert kernels("triton", "L", 65, 1) == kernels("triton", "R", 1, 65) == kernels("triton", "P", 33, 1) == "blocks"
    assert kernels("triton", "L", 3, 2, with_states=True) == kernels("triton", "L", 3, 2, turn=None) == "blocks"
    assert kernels("auto", "P", 45, 45) is None  # never in the interpreter
    monkeypatch.setattr(op.support, "taken_by_auto", lambda tensor: True)
    assert kernels("auto", "P", 45, 45) == kernels("auto", "P", 3, 2, with_states=True) == "blocks"
    assert kernels("auto", "P", 40, 40) is kernels("auto", "L", 3, 2, turn=None) is None
    assert kernels("auto", "P", 3, 2) == "quadratic"
    assert kernels("recurrent", "P", 3, 2) is None
