"""The 2D ops in native kernels: strips, tiles and slices of any size, platforms, exports, and what they do not take."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beside_the_loop import assert_same, assert_same_transforms, both
from jax import export

import plstm_native
from plstm_config.shapes import DIRECTED
from plstm_jax.ops import plstm_2d, plstm_2d_oriented
from plstm_jax.ops._plstm_2d import op
from plstm_jax.ops._plstm_2d.native import MASKED_NODES
from plstm_testing.tolerances import assert_close

pytestmark = pytest.mark.skipif(plstm_native.unavailable() is not None, reason=f"{plstm_native.unavailable()}")
ABSENT = {
    "general": (),
    "P": tuple(DIRECTED),
    "L": ("transition_dl",),
    "R": ("transition_ru",),
    "straight": ("transition_dl", "transition_ru"),
}
MODES = pytest.mark.parametrize("mode", list(ABSENT))
OPS = {"plstm_2d": plstm_2d, "plstm_2d_oriented": plstm_2d_oriented}


@pytest.fixture
def drawn(draw):
    """Arguments of an op in a mode, with states that enter."""

    def arguments(name, mode, dtype="float64", **sizes):
        found = draw(name, dtype=dtype, without=ABSENT[mode], **sizes)
        given = {name: array for name, array in found.items() if array is not None}
        random = np.random.default_rng(1)
        (b, x, y, dk, _), dv = given["query"].shape, given["value"].shape[3]
        corners = (4,) if name == "plstm_2d_oriented" else ()
        states = [random.uniform(-0.7, 0.7, (b, *corners, side, dk, dv, 1)) for side in (y, x)]
        return given | {"initial_state": tuple(jnp.asarray(state, dtype) for state in states)}

    return arguments


def call(name, mode, implementation, **keywords):
    keywords |= {"mode": "P"} if mode == "P" else {}
    return lambda arguments: OPS[name](**arguments, implementation=implementation, **keywords)


def assert_as_the_loop(name, mode, arguments, dtype="float64", **keywords):
    found, expected = (both(call(name, mode, form, **keywords))(arguments) for form in ("native", "recurrent"))
    assert_same(found, expected, dtype)


@MODES
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("plstm_2d_oriented", {"X": 1, "Y": 1, "DK": 1, "DV": 1}),
        ("plstm_2d", {"X": 3, "Y": 40, "DK": 5, "DV": 9}),
        ("plstm_2d_oriented", {"X": 18, "Y": 35, "DK": 16, "DV": 40, "B": 1}),
    ],
    ids=["one_node", "one_corner", "four_corners"],
)
def test_agrees_with_the_loop(drawn, mode, name, sizes):
    assert_as_the_loop(name, mode, drawn(name, mode, **sizes), return_last_state=True)


@MODES
@pytest.mark.parametrize(("name", "x", "y"), [("plstm_2d_oriented", 5, 9), ("plstm_2d", 4, 200)], ids=["mask", "walk"])
def test_agrees_without_states_in_float32(drawn, mode, name, x, y):
    arguments = drawn(name, mode, "float32", X=x, Y=y, DK=7, DV=33, B=3)
    del arguments["initial_state"]
    assert (x * y <= MASKED_NODES[mode]) == (y == 9)
    assert_as_the_loop(name, mode, arguments, "float32")


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_what_several_threads_find_is_added_up(drawn, batch):
    arguments = drawn("plstm_2d_oriented", "L", X=12, Y=9, DK=8, DV=72, B=batch)
    assert_as_the_loop("plstm_2d_oriented", "L", arguments)


def test_calls_may_run_at_once(drawn):
    """Calls that do not depend on each other share the threads, of which each of them could use all."""
    arguments = drawn("plstm_2d", "P", X=20, Y=30, DK=16, DV=16)
    one, scales = call("plstm_2d", "P", "native"), jnp.linspace(0.1, 1.0, 24)

    def several(arguments):
        return [one(arguments | {"value": scale * arguments["value"]}) for scale in scales]

    for found, scale in zip(jax.jit(several)(arguments), scales, strict=True):
        assert_close(found, one(arguments | {"value": scale * arguments["value"]}))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_dtypes_are_computed_in_float32(drawn, dtype):
    arguments = drawn("plstm_2d", "P", dtype, X=4, Y=5)
    output, states = call("plstm_2d", "P", "native", return_last_state=True)(arguments)
    expected, _ = call("plstm_2d", "P", "recurrent", return_last_state=True)(arguments)
    assert (output.dtype, states[0].dtype) == (dtype, "float32")
    assert_close(output, expected, dtype)


@MODES
def test_what_is_not_finite_reaches_what_it_reaches_in_the_loop(drawn, mode):
    arguments = drawn("plstm_2d_oriented", mode, X=6, Y=20, DK=8, DV=8)
    arguments["key"] = arguments["key"].at[0, 2, 7, 1].set(jnp.nan)
    arguments["transition_rl"] = arguments["transition_rl"].at[1, 2, 3, 4].set(jnp.inf)
    pair = [both(call("plstm_2d_oriented", mode, form))(arguments) for form in ("native", "recurrent")]
    for one, other in zip(*map(jax.tree.leaves, pair), strict=True):
        finite = np.isfinite(other)
        assert np.array_equal(np.isfinite(one), finite)
        assert_close(one[finite], other[finite], kind="gradient")


def test_transforms_of_transforms(drawn, jit):
    arguments = drawn("plstm_2d", "P", X=2, Y=3, DK=2, B=1)
    assert_same_transforms(lambda form: call("plstm_2d", "P", form), arguments, jit)


@pytest.mark.parametrize(("name", "mode"), [("plstm_2d", "L"), ("plstm_2d_oriented", "P")])
def test_vmap_over_some_arguments_and_any_axis(drawn, jit, name, mode):
    arguments = drawn(name, mode, X=2, Y=3, DK=2)
    several = jnp.stack([arguments["value"], -arguments["value"], jnp.cos(arguments["value"])], -1)

    def gradients(form):
        def of(value):
            return jax.grad(lambda x: jnp.sum(call(name, mode, form)(x) ** 2))(arguments | {"value": value})

        return jit(jax.vmap(of, in_axes=-1))(several)

    assert_same(gradients("native"), gradients("recurrent"))


def test_nothing_is_kept_for_the_gradients(drawn):
    arguments = drawn("plstm_2d_oriented", "P", X=20, Y=40, DK=8, DV=8, B=1)
    _, pull_back = jax.vjp(call("plstm_2d_oriented", "P", "native"), arguments)
    kept = sum(array.size for array in jax.tree.leaves(pull_back))
    assert kept <= 2 * sum(array.size for array in jax.tree.leaves(arguments))


def test_what_is_lowered_for_other_platforms_or_exported_is_made_of_operations_of_jax(drawn):
    arguments = drawn("plstm_2d", "P", X=3, Y=4)
    traced = both(call("plstm_2d", "P", "auto", return_last_state=True)).trace(arguments)
    assert "plstm_grid" in traced.lower().as_text()
    assert "plstm_grid" not in traced.lower(lowering_platforms=("cuda",)).as_text()
    exported = export.export(both(call("plstm_2d", "P", "auto")))(arguments)
    assert "plstm_grid" not in exported.mlir_module()
    assert_same(exported.call(arguments), both(call("plstm_2d", "P", "native"))(arguments))


def test_inside_of_a_shard_map(drawn, jit):
    """What differs from device to device and what does not are of different types there."""
    arguments = drawn("plstm_2d", "P", X=3, Y=4, DK=2, DV=3)
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {name: jax.sharding.PartitionSpec(None if name == "mark_l" else "batch") for name in arguments}

    def share(form):
        def loss(arguments):
            return jax.lax.psum(jnp.sum(call("plstm_2d", "P", form)(arguments) ** 2), "batch")

        return jit(jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=(specs,), out_specs=specs))(arguments)

    assert_same(share("native"), share("recurrent"))


@pytest.mark.parametrize("empty", ["B", "X", "Y"])
def test_empty_axes(drawn, empty):
    arguments = drawn("plstm_2d", "P", **{"X": 2, "Y": 3} | {empty: 0})
    found, expected = (
        both(call("plstm_2d", "P", form, return_last_state=True))(arguments) for form in ("native", "recurrent")
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.array_equal(one, other)


def test_auto_takes_it_where_it_can(draw, jit, monkeypatch):
    taken = []
    monkeypatch.setattr(op, "native", lambda problem, run=op.native: taken.append(1) or run(problem))
    for sizes, calls in (({}, 1), ({"JT": 2, "JO": 2}, 1)):
        jit(lambda x: plstm_2d(**x))(draw("plstm_2d", X=2, Y=3, **sizes))
        assert len(taken) == calls


def test_without_kernels_auto_takes_a_form_of_jax():
    code = (
        "import jax, jax.numpy as jnp; from plstm_jax.ops import plstm_2d\n"
        "x, gate = jnp.ones((1, 2, 3, 4, 1)), jnp.ones((1, 2, 3, 1, 1, 1))\n"
        "call = lambda name: plstm_2d(x, x, x, source_r=gate, source_d=gate, transition_rl=gate[..., 0] / 2,"
        " transition_du=gate[..., 0] / 2, mark_l=gate, direct=gate[..., None], mode='P', implementation=name)\n"
        "print(jax.jit(lambda: call('auto'))().shape)\n"
        "call('native')\n"
    )
    environment = os.environ | {"PLSTM_NATIVE": "0", "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "(1, 2, 3, 4, 1)"
    assert (
        "ValueError: implementation: expected another one for this call of the 2D op, got 'native': "
        "the environment says PLSTM_NATIVE=0"
    ) in ran.stderr


def test_what_it_does_not_take_is_refused(draw, monkeypatch):
    with pytest.raises(ValueError, match="'native': the 2D op has native kernels for J dimensions of 1, got JT=4"):
        plstm_2d(**draw("plstm_2d", X=2, Y=3, JT=4), implementation="native")
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(ValueError, match="'native': native kernels run on the CPU, got tpu"):
        jax.eval_shape(lambda x: plstm_2d(**x, implementation="native"), draw("plstm_2d", X=2, Y=3))
