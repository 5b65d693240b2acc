"""The 2D ops in native kernels: strips, tiles, slices and parts of any size, transforms, and what they do not take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_plstm_2d import STATE_TRACKING, assert_same, draw, gradients, leaves, run
from test_plstm_2d_transforms import draw as draw_tensors
from test_plstm_2d_transforms import loss_of, op_of
from torch.func import grad, jvp, vmap
from torch.library import opcheck

import plstm_native
from plstm_torch.ops import plstm_2d, plstm_2d_oriented
from plstm_torch.ops._plstm_2d import native

pytestmark = [
    pytest.mark.skipif(plstm_native.unavailable() is not None, reason=f"{plstm_native.unavailable()}"),
    pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.torch._prims_common.check. is deprecated:FutureWarning"),
]
MODES = pytest.mark.parametrize("mode", ["general", "P", "L", "R", "straight"])
ABSENT = {"straight": ("transition_dl", "transition_ru")}


def drawn(mode, x, y, **sizes):
    arguments = draw(x, y, "general" if mode == "straight" else mode, **sizes)
    return arguments | dict.fromkeys(ABSENT.get(mode, ()))


def assert_as_the_loop(arguments, dtype="float64", **keywords):
    tensors = leaves(arguments)
    results, expected = run(arguments, implementation="native", **keywords), run(arguments, implementation="recurrent")
    assert_same(results, expected, dtype, "output")
    assert_same(gradients(results, tensors), gradients(expected, tensors), dtype)


@MODES
@pytest.mark.parametrize("oriented", [False, True], ids=["one_corner", "four_corners"])
@pytest.mark.parametrize(
    ("x", "y", "dim_k", "dim_v"), [(1, 1, 1, 1), (3, 40, 5, 9), (37, 3, 17, 16), (18, 35, 64, 40)], ids=str
)
def test_agrees_with_the_loop(mode, oriented, x, y, dim_k, dim_v):
    assert_as_the_loop(drawn(mode, x, y, oriented=oriented, dim_k=dim_k, dim_v=dim_v))


def run_without_states(arguments, implementation):
    function = plstm_2d_oriented if arguments["source_r"].dim() == 7 else plstm_2d
    return (function(**arguments, implementation=implementation),)


FORMS_OF_KERNELS = pytest.mark.parametrize("nodes", [0, 10**6], ids=["walk", "mask"])


@MODES
@FORMS_OF_KERNELS
@pytest.mark.parametrize("oriented", [False, True], ids=["one_corner", "four_corners"])
@pytest.mark.parametrize(("x", "y"), [(1, 1), (1, 9), (9, 1), (6, 7), (17, 5)], ids=str)
def test_agrees_with_the_loop_without_states(mode, nodes, oriented, x, y, monkeypatch):
    monkeypatch.setattr(native, "MASKED_NODES", dict.fromkeys(plstm_native.MODES, nodes))
    arguments = drawn(mode, x, y, oriented=oriented, states=False, batch=3)
    tensors = leaves(arguments)
    results, expected = (run_without_states(arguments, name) for name in ("native", "recurrent"))
    assert_same(results, expected, "float64", "output")
    assert_same(gradients(results, tensors), gradients(expected, tensors))


@FORMS_OF_KERNELS
def test_parts_of_a_batch_are_put_together(nodes, monkeypatch):
    monkeypatch.setattr(native, "MASKED_NODES", dict.fromkeys(plstm_native.MODES, nodes))
    monkeypatch.setattr("plstm_torch.ops._plstm_2d.native_mask.SCORES_IN_CACHE", 1)
    arguments = drawn("general", 4, 5, oriented=True, states=False, batch=7, dtype=torch.float32)
    tensors = leaves(arguments)
    results, expected = (run_without_states(arguments, name) for name in ("native", "recurrent"))
    assert_same(results, expected, "float32", "output")
    assert_same(gradients(results, tensors), gradients(expected, tensors), "float32")


@MODES
def test_agrees_in_float32_with_states_of_several_tiles(mode):
    # a tile of 2 MB holds fewer columns than there are, and a strip is longer than 16 nodes where Y is more than 256
    arguments = drawn(mode, 24, 270, batch=1, dim_k=128, dim_v=32, dtype=torch.float32)
    assert_as_the_loop(arguments, "float32")


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_no_number_of_threads_changes_what_is_computed(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert_as_the_loop(drawn("general", 5, 6, oriented=True, batch=1, dim_v=33))


NARROW = pytest.mark.parametrize("options", ["-mno-avx512f", "-mno-avx"])


def run_compiled_with(options, folder, code):
    """Run code, which may import from the files of this folder, with kernels compiled for another machine."""
    compiler = folder / "cc"
    compiler.write_text(f'#!/bin/sh\nexec cc "$@" {options}\n')
    compiler.chmod(0o700)
    tests = str(Path(__file__).parent)
    environment = os.environ | {"CC": str(compiler), "PLSTM_NATIVE_CACHE": str(folder / "kept")}
    environment["PYTHONPATH"] = os.pathsep.join([tests, *filter(None, [environment.get("PYTHONPATH")])])
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@NARROW
def test_agrees_on_machines_with_narrower_vectors(options, tmp_path):
    code = (
        "import torch; from test_plstm_2d_native import *\n"
        "assert plstm_native.lanes('float64') < 8\n"
        "for mode in ('general', 'P'):\n"
        "    assert_as_the_loop(drawn(mode, 5, 18, oriented=True, dim_k=7, dim_v=9))\n"
        "    assert_as_the_loop(drawn(mode, 5, 6, dim_k=9, dim_v=18, dtype=torch.float32), 'float32')\n"
    )
    run_compiled_with(options, tmp_path, code)


@MODES
@pytest.mark.parametrize("states", [False, True])
def test_what_is_not_finite_reaches_what_it_reaches_in_the_loop(mode, states):
    arguments = drawn(mode, 6, 20, oriented=True, dim_k=8, dim_v=8, states=states, batch=3)
    with torch.no_grad():
        arguments["key"][0, 2, 7, 1] = torch.nan
        arguments["transition_rl"][1, 2, 3, 4] = torch.inf
    tensors, call = leaves(arguments), run if states else run_without_states
    results, expected = (call(arguments, implementation=name) for name in ("native", "recurrent"))
    every = zip((*results, *gradients(results, tensors)), (*expected, *gradients(expected, tensors)), strict=True)
    for index, (one, other) in enumerate(every):
        finite = other.isfinite()
        # a mask has no states beyond the grid, whose zero cotangents the loop multiplies with NaN
        whole = one.isfinite() if states or index < len(results) else one.isfinite() & finite
        assert torch.equal(whole, finite)
        assert_same([one[finite]], [other[finite]])


def test_auto_takes_it_where_it_can(monkeypatch):
    taken = []
    monkeypatch.setattr(
        "plstm_torch.ops._plstm_2d.op.native", lambda problem: taken.append(1) or native.native(problem)
    )
    for j, calls in ((None, 1), (STATE_TRACKING, 1)):
        arguments = draw(3, 4, "P") if j is None else draw(3, 4, "P", j=j)
        run(arguments)
        assert len(taken) == calls


def test_without_kernels_auto_takes_a_form_of_torch():
    code = (
        "import torch; from plstm_torch.ops import plstm_2d\n"
        "x, gate = torch.ones(1, 2, 3, 4, 1), torch.ones(1, 2, 3, 1, 1, 1)\n"
        "call = lambda name: plstm_2d(x, x, x, source_r=gate, source_d=gate, transition_rl=gate[..., 0] / 2,"
        " transition_du=gate[..., 0] / 2, mark_l=gate, direct=gate.unsqueeze(-1), mode='P', implementation=name)\n"
        "print(call('auto').shape)\n"
        "call('native')\n"
    )
    environment = os.environ | {"PLSTM_NATIVE": "0"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "torch.Size([1, 2, 3, 4, 1])"
    assert ran.stderr.strip().splitlines()[-1] == (
        "ValueError: implementation: expected another one for this call of the 2D op, got 'native': "
        "the environment says PLSTM_NATIVE=0"
    )


def test_what_it_does_not_take_is_refused():
    with pytest.raises(ValueError, match="'native': the 2D op has native kernels for J dimensions of 1, got JT=4"):
        run(draw(3, 4, j=(1, 1, 1, 4, 1)), implementation="native")
    drawn = draw(3, 4, "P", states=False)
    tensors = {name: value.to("meta") if isinstance(value, torch.Tensor) else value for name, value in drawn.items()}
    with pytest.raises(ValueError, match="'native': native kernels run on the CPU, got meta"):
        plstm_2d(**tensors, implementation="native")


FORMS = pytest.mark.parametrize(("mode", "oriented", "states"), [("P", True, True), ("L", False, False)], ids=str)


@FORMS
def test_transforms(mode, oriented, states):
    fast, plain = op_of("native", mode, oriented, states), op_of("recurrent", mode, oriented, states)
    tensors = draw_tensors(mode, oriented, states, x=2, y=3)
    every = tuple(range(len(tensors)))
    tangents = tuple(torch.randn_like(tensor) for tensor in tensors)
    assert_same(jvp(fast, tensors, tangents)[1], jvp(plain, tensors, tangents)[1])

    def squared_gradients(function):
        return lambda *x: sum(gradient.square().sum() for gradient in grad(loss_of(function), every)(*x))

    assert_same(*(grad(squared_gradients(function), every)(*tensors) for function in (fast, plain)))
    stacked = [torch.stack([tensor, 0.5 * tensor]) for tensor in tensors]
    assert_same(*(vmap(grad(loss_of(function), every))(*stacked) for function in (fast, plain)))


@FORMS
def test_compiles_once_for_every_size(mode, oriented, states):
    torch.compiler.reset()
    compiled = torch.compile(loss_of(op_of("auto", mode, oriented, states)), backend="aot_eager", fullgraph=True,
                             dynamic=True)  # fmt: skip
    plain = loss_of(op_of("recurrent", mode, oriented, states))
    counted = torch._dynamo.utils.counters["stats"]
    counted.clear()
    for x, y, batch in ((7, 5, 6), (5, 20, 3), (17, 9, 4)):  # sizes that are equal at first are one to the compiler
        tensors = [tensor.requires_grad_() for tensor in draw_tensors(mode, oriented, states, x=x, y=y, batch=batch)]
        found, expected = (torch.autograd.grad(function(*tensors), tensors) for function in (compiled, plain))
        assert_same(found, expected)
    assert counted["unique_graphs"] == 1


@FORMS
def test_operators(mode, oriented, states):
    names = [names for names in native._FORMS if names[1] == states]
    chosen = {"P": 5, "L": 7}[mode]
    (key,) = (key for key in names if len(key[0]) == chosen and ("transition_dl" not in key[0]))
    shapes = {"query": (3, 4, 5), "key": (3, 4, 5), "value": (3, 4, 2), "direct": (3, 4)}
    axes = (4,) if oriented else (1,)
    given = ["query", "key", "value", "direct", *key[0], *(("left", "top") if states else ())]
    shapes |= {"left": (*axes, 4, 5, 2), "top": (*axes, 3, 5, 2)}
    tensors = [0.5 * torch.randn(2, *shapes.get(name, (*axes, 3, 4)), dtype=torch.float64) for name in given]
    opcheck(native._FORMS[key].operator, ([tensor.requires_grad_() for tensor in tensors],))


def test_keeps_nothing_for_the_gradients():
    kept = []
    arguments = draw(20, 40, "P", oriented=True, states=False, batch=1)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        plstm_2d_oriented(**arguments, implementation="native")
    given = sum(tensor.numel() for tensor in leaves(arguments))
    assert sum(tensor.numel() for tensor in kept) <= 2 * given
