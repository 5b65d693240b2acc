"""A function in native kernels beside the same in operations of JAX."""

import jax
import jax.numpy as jnp

from plstm_jax.check import quick_compilation
from plstm_testing.tolerances import assert_close


def both(function):
    """Results and gradients, compiled to run once."""

    def results_and_gradients(arguments):
        results, pull_back = jax.vjp(function, arguments)
        return results, pull_back(jax.tree.map(jnp.cos, results))[0]

    return jax.jit(results_and_gradients, compiler_options=dict(quick_compilation()))


def assert_same(found, expected, dtype="float64", kind="gradient"):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_close(one, other, dtype, kind)


def assert_same_transforms(call, arguments, jit):
    """Transforms of transforms of a scalar function.

    Args:
        call: name of a form -> the op as a function of its arguments.
        arguments: of the op, by name, "value" among them.
        jit: the fixture.
    """
    directions = jax.tree.map(jnp.sin, arguments)

    def loss(form):
        run = call(form)
        return lambda arguments: jnp.sum(jnp.sin(run(arguments)))

    losses = [loss(form) for form in ("native", "recurrent")]

    def reverse_over_reverse(f):
        return jax.grad(lambda x: sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(f)(x))))(arguments)

    def reverse_over_forward(f):
        return jax.grad(lambda x: jax.jvp(f, (x,), (directions,))[1])(arguments)

    def twice_transposed(f):
        pull_back = jax.vjp(f, arguments)[1]
        return jax.linear_transpose(lambda weight: pull_back(weight)[0], jnp.ones(()))(directions)

    def hessian(f):
        return jax.hessian(lambda x: f(arguments | {"value": x}))(arguments["value"])

    def scanned(f):
        stacked = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), arguments)
        return jax.lax.scan(lambda carry, x: (carry, jax.grad(jax.checkpoint(f))(x)), 0, stacked)[1]

    for transform in (reverse_over_reverse, reverse_over_forward, twice_transposed, hessian, scanned):
        found, expected = (jit(lambda f=loss, t=transform: t(f))() for loss in losses)
        assert_same(found, expected)
