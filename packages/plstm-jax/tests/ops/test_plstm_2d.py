"""The 2D ops: size of the program, precision, arguments."""

import jax
import jax.numpy as jnp
import pytest

from plstm_jax.ops import plstm_2d, plstm_2d_oriented
from plstm_jax.ops._plstm_2d import op
from plstm_jax.ops._plstm_2d.forms import LARGEST_PARALLEL


def equations(jaxpr):
    """Number of equations of a program, those of its loops' bodies counted once."""
    inner = [p for equation in jaxpr.eqns for p in equation.params.values()]
    bodies = [x for p in inner for x in (p if isinstance(p, tuple | list) else [p])]
    return len(jaxpr.eqns) + sum(equations(getattr(x, "jaxpr", x)) for x in bodies if hasattr(x, "eqns"))


@pytest.mark.parametrize("implementation", ["recurrent", "chunkwise", "parallel"])
def test_the_program_does_not_grow_with_the_grid(draw, implementation):
    def size(x, y):
        def loss(arguments):
            return jnp.sum(plstm_2d_oriented(**arguments, implementation=implementation, block_size=4))

        return equations(jax.make_jaxpr(jax.grad(loss))(draw("plstm_2d_oriented", X=x, Y=y)).jaxpr)

    assert size(24, 8) == size(32, 20) == size(40, 32)


def test_states_never_fall_below_float32(draw):
    arguments = draw("plstm_2d", dtype="bfloat16", X=2, Y=3)
    output, (right, bottom) = jax.eval_shape(lambda: plstm_2d(**arguments, return_last_state=True))
    assert (output.dtype, right.dtype, bottom.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    arguments["mark_l"] = arguments["mark_l"].astype(jnp.float64)
    output, (right, bottom) = jax.eval_shape(lambda: plstm_2d(**arguments, return_last_state=True))
    assert (output.dtype, right.dtype, bottom.dtype) == (jnp.bfloat16, jnp.float64, jnp.float64)


def test_bad_arguments_are_found_while_tracing(draw):
    arguments = draw("plstm_2d_oriented", X=2, Y=3)

    def trace(**changes):
        return jax.eval_shape(lambda: plstm_2d_oriented(**arguments | changes))

    with pytest.raises(ValueError, match=r"source_d: expected \[B=2, O=4, X=2, Y=3, JT=1, JK=1, JV=1\], got \(2, 3, "):
        trace(source_d=arguments["source_d"][:, 1:])
    with pytest.raises(TypeError, match="direct: expected a floating-point dtype, got int"):
        trace(direct=arguments["direct"].astype(int))
    with pytest.raises(TypeError, match=r"initial_state: expected the pair \(left, top\), got"):
        trace(initial_state=arguments["query"])
    states = jnp.zeros((2, 4, 3, 3, 2, 1), int), jnp.zeros((2, 4, 2, 3, 2, 1))
    with pytest.raises(TypeError, match=r"initial_state\[0\]: expected a floating-point dtype, got int"):
        trace(initial_state=states)


def test_auto_decides_in_one_place(monkeypatch):
    def resolve(name, x, y):
        return op.resolve_implementation(name, {"X": x, "Y": y}, jnp.zeros(()))

    side = int(LARGEST_PARALLEL**0.5)
    monkeypatch.setattr(op, "without_native_kernels", lambda query, sizes: "there are none")
    assert resolve("auto", side, side) == "parallel"
    assert resolve("auto", side, side + 1) == "chunkwise"
    assert resolve("recurrent", 1, 1) == "recurrent"
    with pytest.raises(
        ValueError, match="expected another one for this call of the 2D op, got 'native': there are none"
    ):
        resolve("native", 1, 1)
    monkeypatch.setattr(op, "without_native_kernels", lambda query, sizes: None)
    assert resolve("auto", side, side) == resolve("native", 1, 1) == "native"
    assert resolve("parallel", 1, 1) == "parallel"
    names = "'auto', 'recurrent', 'chunkwise', 'parallel', 'native'"
    with pytest.raises(ValueError, match=f"implementation: expected one of {names}, got 'fast'"):
        resolve("fast", 1, 1)
