"""The 1D op in native kernels: J dimensions, slices, pieces and parts of any size, transforms, and what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product

import pytest
import torch
from test_plstm_1d import SCALAR, STATE_TRACKING, assert_same, draw, gradients, run
from test_plstm_1d_transforms import draw as draw_tensors
from test_plstm_1d_transforms import loss_of
from test_plstm_2d_native import NARROW, run_compiled_with
from torch.func import grad, jvp, vmap
from torch.library import opcheck

import plstm_native
from plstm_torch.ops import plstm_1d
from plstm_torch.ops._plstm_1d import native, op

pytestmark = [
    pytest.mark.skipif(plstm_native.unavailable() is not None, reason=f"{plstm_native.unavailable()}"),
    pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.torch._prims_common.check. is deprecated:FutureWarning"),
]
KINDS = pytest.mark.parametrize("j", [SCALAR, STATE_TRACKING], ids=["scalar", "state_tracking"])
DIM_T = pytest.mark.parametrize("dim_t", [1, 2], ids=["scalar", "matrix"])
LENGTHS = [3, 0, 40, 1, 0, 17, 0]


def assert_as_the_loop(tensors, dtype="float64", **keywords):
    results, expected = (run(tensors, implementation=name, **keywords) for name in ("native", "recurrent"))
    assert_same(results, expected, dtype, "output")
    assert_same(gradients(results, tensors), gradients(expected, tensors), dtype)


def packed(j, **sizes):
    """Sequences of several lengths, some empty, each with its own state."""
    bounds = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)])
    tensors = draw(int(bounds[-1]), j, **sizes)
    states = torch.randn(*tensors[-1].shape[:1], len(LENGTHS), *tensors[-1].shape[1:], dtype=tensors[-1].dtype)
    return [*tensors[:7], states.requires_grad_()], bounds


@pytest.mark.parametrize("j", [*product((1, 2), (1, 2), (1, 3), (1, 2, 3, 4, 8, 9), (1, 2))], ids=str)
def test_agrees_with_the_loop_in_any_j_dimensions(j):
    assert_as_the_loop(draw(19, j, dim_k=5, dim_v=9))


@KINDS
@pytest.mark.parametrize(("length", "dim_k", "dim_v"), [(1, 1, 1), (2, 3, 8), (300, 17, 33), (67, 64, 48)], ids=str)
def test_agrees_with_the_loop_in_any_size(j, length, dim_k, dim_v):
    assert_as_the_loop(draw(length, j, dim_k=dim_k, dim_v=dim_v))


@KINDS
def test_agrees_with_the_loop_without_states(j):
    tensors = draw(21, j)[:7]
    results, expected = ([plstm_1d(*tensors, implementation=name)] for name in ("native", "recurrent"))
    assert_same(results, expected, kind="output")
    assert_same(gradients(results, tensors), gradients(expected, tensors))


@KINDS
def test_agrees_in_float32_over_many_pieces(j):
    assert_as_the_loop(draw(2000, j, batch=1, dim_k=32, dim_v=32, dtype=torch.float32), "float32")


@KINDS
def test_packed_sequences_agree_with_the_loop(j):
    tensors, bounds = packed(j, dim_v=19)
    assert_as_the_loop(tensors, cu_seqlens=bounds)
    *inputs, _ = tensors
    results, expected = (
        [plstm_1d(*inputs, cu_seqlens=bounds, implementation=name)] for name in ("native", "recurrent")
    )
    assert_same(results, expected, kind="output")
    assert_same(gradients(results, inputs), gradients(expected, inputs))


@KINDS
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_no_number_of_threads_changes_what_is_computed(j, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert_as_the_loop(draw(37, j, batch=1, dim_v=33))
    tensors, bounds = packed(j, batch=1, dim_v=17)
    assert_as_the_loop(tensors, cu_seqlens=bounds)


@NARROW
def test_agrees_on_machines_with_narrower_vectors(options, tmp_path):
    code = (
        "import torch; from test_plstm_1d_native import *\n"
        "assert plstm_native.lanes('float64') < 8\n"
        "for j in (SCALAR, STATE_TRACKING, (1, 1, 8, 8, 8), (2, 3, 2, 3, 2)):\n"
        "    assert_as_the_loop(draw(37, j, dim_k=7, dim_v=9))\n"
        "    assert_as_the_loop(draw(18, j, dim_k=9, dim_v=18, dtype=torch.float32), 'float32')\n"
    )
    run_compiled_with(options, tmp_path, code)


@KINDS
def test_what_is_not_finite_reaches_what_it_reaches_in_the_loop(j):
    tensors = draw(50, j, dim_k=8, dim_v=8, requires_grad=False)
    tensors[1][0, 20, 1] = torch.nan
    tensors[4][1, 30, 0, 0] = torch.inf
    tensors[5][1, 10, 0, 0, 0] = -torch.inf
    tensors = [tensor.requires_grad_() for tensor in tensors]
    results, expected = run(tensors, implementation="native"), run(tensors, implementation="recurrent")
    every = zip((*results, *gradients(results, tensors)), (*expected, *gradients(expected, tensors)), strict=True)
    for one, other in every:
        assert torch.equal(one.isfinite(), other.isfinite())
        assert_same([one[one.isfinite()]], [other[other.isfinite()]])


def test_auto_takes_it_where_it_can(monkeypatch):
    taken = []
    monkeypatch.setattr(op, "plstm_1d_native", lambda *arguments: taken.append(1) or native.plstm_1d_native(*arguments))
    for number, (j, length) in enumerate(product((SCALAR, STATE_TRACKING), (1, 5, 100)), start=1):
        run(draw(length, j))
        assert len(taken) == number
    tensors = draw(100)
    exported = torch.export.export(_Op(), tuple(tensors[:7]))
    assert len(taken) == number
    assert_same([exported.module()(*tensors[:7])], [plstm_1d(*tensors[:7])], kind="output")


class _Op(torch.nn.Module):
    def forward(self, *tensors):
        return plstm_1d(*tensors)


def test_without_kernels_auto_takes_a_form_of_torch():
    code = (
        "import torch; from plstm_torch.ops import plstm_1d\n"
        "x, gate = torch.ones(1, 6, 4, 1), torch.ones(1, 6, 1, 1, 1)\n"
        "call = lambda name: plstm_1d(x, x, x, gate, gate[..., 0] / 2, gate, gate[..., None], implementation=name)\n"
        "print(call('auto').shape)\n"
        "call('native')\n"
    )
    environment = os.environ | {"PLSTM_NATIVE": "0"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "torch.Size([1, 6, 4, 1])"
    assert ran.stderr.strip().splitlines()[-1] == (
        "ValueError: implementation: expected another one for this call of the 1D op, got 'native': "
        "the environment says PLSTM_NATIVE=0"
    )


def test_what_it_does_not_take_is_refused():
    tensors = [tensor.detach().to("meta") for tensor in draw(6)]
    with pytest.raises(ValueError, match="the 1D op, got 'native': native kernels run on the CPU, got meta"):
        run(tensors, implementation="native")


def of(implementation, bounds=None, states=True):
    """The op as a function of tensors alone."""

    def function(*tensors):
        *inputs, state = tensors
        keywords = {"implementation": implementation, "cu_seqlens": bounds}
        if not states:
            return (plstm_1d(*inputs, **keywords),)
        if bounds is not None:
            state = torch.stack([state, -state, 0.5 * state], 1)
        return plstm_1d(*inputs, initial_state=state, return_last_state=True, **keywords)

    return function


FORMS = pytest.mark.parametrize(
    ("bounds", "states"), [(None, True), (None, False), ([0, 4, 4, 7], True), ([0, 4, 4, 7], False)], ids=str
)


@DIM_T
@FORMS
def test_transforms(dim_t, bounds, states):
    bounds = None if bounds is None else torch.tensor(bounds)
    fast, plain = of("native", bounds, states), of("recurrent", bounds, states)
    tensors = draw_tensors(dim_t)
    every = tuple(range(len(tensors) if states else len(tensors) - 1))
    tangents = tuple(torch.randn_like(tensor) for tensor in tensors)
    assert_same(jvp(fast, tensors, tangents)[1], jvp(plain, tensors, tangents)[1])

    def squared_gradients(function):
        return lambda *x: sum(gradient.square().sum() for gradient in grad(loss_of(function), every)(*x))

    assert_same(*(grad(squared_gradients(function), every)(*tensors) for function in (fast, plain)))
    assert_same(
        *(jvp(grad(loss_of(function), every), tensors, tangents)[1] for function in (fast, plain))
    )  # fmt: skip
    stacked = [torch.stack([tensor, 0.5 * tensor]) for tensor in tensors]
    assert_same(*(vmap(grad(loss_of(function), every))(*stacked) for function in (fast, plain)))


@DIM_T
@pytest.mark.parametrize("states", [True, False])
def test_compiles_once_for_every_length(dim_t, states):
    torch.compiler.reset()
    compiled = torch.compile(loss_of(of("auto", states=states)), backend="aot_eager", fullgraph=True, dynamic=True)
    plain = loss_of(of("recurrent", states=states))
    counted = torch._dynamo.utils.counters["stats"]
    counted.clear()
    for length, batch in ((7, 5), (20, 3), (3, 4), (600, 2)):
        tensors = [tensor.requires_grad_() for tensor in draw_tensors(dim_t, length=length, batch=batch, dim_k=6)]
        leaves = tensors if states else tensors[:7]
        found, expected = (torch.autograd.grad(function(*tensors), leaves) for function in (compiled, plain))
        assert_same(found, expected)
    assert counted["unique_graphs"] == 1


@DIM_T
@pytest.mark.parametrize("states", [True, False])
def test_compiles_packed_sequences(dim_t, states):
    torch.compiler.reset()
    tensors, bounds = [tensor.requires_grad_() for tensor in draw_tensors(dim_t)], torch.tensor([0, 4, 4, 7])
    compiled = torch.compile(loss_of(of("native", bounds, states)), backend="aot_eager", fullgraph=True)
    leaves = tensors if states else tensors[:7]
    plain = loss_of(of("recurrent", bounds, states))
    assert_same(*(torch.autograd.grad(function(*tensors), leaves) for function in (compiled, plain)))


@DIM_T
@pytest.mark.parametrize("starts", [[0.0], [0.0, 2.0, 2.0]], ids=["plain", "packed"])
@pytest.mark.parametrize("states", [True, False])
def test_operators(dim_t, starts, states):
    *inputs, state = draw_tensors(dim_t)
    tensors = [*inputs, torch.tensor(starts, dtype=torch.float64).expand(2, -1).contiguous()]
    tensors += [torch.stack([state] * len(starts), 1)] if states else []
    form = native._STATES_FORM if states else native._OUTPUT_FORM
    opcheck(form.operator, ([tensor.requires_grad_() for tensor in tensors],))


def test_keeps_nothing_for_the_gradients():
    kept = []
    tensors = draw(200, STATE_TRACKING)[:7]
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        plstm_1d(*tensors, implementation="native")
    given = sum(tensor.numel() for tensor in tensors)
    assert sum(tensor.numel() for tensor in kept) <= 2 * given
