"""The ops under the transforms of JAX, the fast forms against the recurrence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plstm_native
from plstm_config.shapes import DIRECTED
from plstm_jax import ops
from plstm_jax.ops._plstm_1d import chunkwise
from plstm_jax.ops._plstm_2d import parallel
from plstm_jax.ops._plstm_2d import problem as grid_problem
from plstm_testing.tolerances import assert_close

MATRICES = {"JQ": 1, "JK": 2, "JV": 1, "JT": 2, "JO": 2}
P_BLOCKS = {"mode": "P", "block_size": 2}
# op, fast form, its options, sizes, absent arguments
PROBLEMS = {
    "sequence": ("plstm_1d", "chunkwise", {"chunk_size": 3}, {"T": 7}, ()),
    "sequence-segments": ("plstm_1d", "chunkwise", {"chunk_size": 1}, {"T": 5}, ()),
    "sequence-matrices": ("plstm_1d", "chunkwise", {"chunk_size": 4}, {"T": 6} | MATRICES, ()),
    "grid-blocks": ("plstm_2d", "chunkwise", {"block_size": 2}, {"X": 3, "Y": 4, "B": 1}, ("transition_ru",)),
    "grid-oriented": ("plstm_2d_oriented", "parallel", {}, {"X": 3, "Y": 2, "B": 1}, ("transition_dl",)),
    "grid-separable": ("plstm_2d_oriented", "parallel", {}, {"X": 3, "Y": 2, "B": 1}, ("transition_ru",)),
    "grid-strips": ("plstm_2d_oriented", "parallel", {}, {"X": 5, "Y": 2, "B": 1}, ()),
    "grid-directed": ("plstm_2d_oriented", "parallel", {"mode": "P"}, {"X": 3, "Y": 2, "B": 1}, tuple(DIRECTED)),
    "grid-directed-strips": ("plstm_2d_oriented", "parallel", {"mode": "P"}, {"X": 5, "Y": 2, "B": 1}, tuple(DIRECTED)),
    "grid-directed-blocks": ("plstm_2d", "chunkwise", P_BLOCKS, {"X": 3, "Y": 4, "B": 1}, tuple(DIRECTED)),
    "grid-separable-blocks": (
        "plstm_2d_oriented",
        "chunkwise",
        {"block_size": 2},
        {"X": 3, "Y": 4, "B": 1},
        ("transition_dl",),
    ),
}
if plstm_native.unavailable() is None:
    few = {"X": 3, "Y": 2, "B": 1}
    PROBLEMS["grid-native"] = ("plstm_2d", "native", {}, {"X": 3, "Y": 4, "B": 1}, ("transition_ru",))
    PROBLEMS["sequence-native"] = ("plstm_1d", "native", {}, {"T": 7}, ())
    PROBLEMS["sequence-native-matrices"] = ("plstm_1d", "native", {}, {"T": 6} | MATRICES, ())
    PROBLEMS["grid-native-directed"] = ("plstm_2d_oriented", "native", {"mode": "P"}, few, tuple(DIRECTED))
OUTPUT_ONLY = ("grid-separable", "grid-strips", "grid-directed", "grid-directed-strips")


@pytest.fixture(params=list(PROBLEMS))
def problem(request, draw, monkeypatch):
    """A scalar function of the arguments in its fast form and as the recurrence, and the arguments."""
    op, implementation, options, sizes, without = PROBLEMS[request.param]
    arguments = draw(op, without=without, **sizes)
    given = {name: array for name, array in arguments.items() if array is not None}

    last = request.param not in OUTPUT_ONLY
    if request.param == "grid-directed-strips":
        monkeypatch.setattr(parallel, "ONE_STRIP", 0)
    if request.param == "sequence-segments":
        monkeypatch.setattr(chunkwise, "SEGMENT", 0)
        monkeypatch.setattr(chunkwise, "LEAST_CHUNKS", 2)

    def form(**keywords):
        def function(given):
            all_given = arguments | given
            if "mode" in options and "mode" not in keywords:
                all_given |= {name: all_given[serving] for name, serving in DIRECTED.items()}
            result = getattr(ops, op)(**all_given, return_last_state=last, **keywords)
            output, state = result if last else (result, ())
            return jnp.sum(jnp.sin(output)) + sum(jnp.sum(part**2) for part in jax.tree.leaves(state))

        return function

    return form(implementation=implementation, **options), form(implementation="recurrent"), given


def tangents(given, seed):
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.standard_normal(array.shape)) for name, array in given.items()}


def assert_same(actual, expected, kind="gradient"):
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_close(one, other, "float64", kind)


def test_forward_mode(problem, jit):
    fast, recurrence, given = problem
    direction = tangents(given, 1)
    results = [jit(lambda x, v, f=f: jax.jvp(f, (x,), (v,)))(given, direction) for f in (fast, recurrence)]
    assert_same(*results)


def test_hessian_vector_products(problem, jit):
    fast, recurrence, given = problem
    direction = tangents(given, 2)

    def forward_over_reverse(function):
        return jit(lambda x, v: jax.jvp(jax.grad(function), (x,), (v,))[1])(given, direction)

    assert_same(forward_over_reverse(fast), forward_over_reverse(recurrence))


def test_reverse_over_reverse_and_checkpoint(draw, jit):
    arguments = draw("plstm_1d", T=5)

    def loss(arguments, wrap):
        return jnp.sum(wrap(lambda x: ops.plstm_1d(**x, implementation="chunkwise", chunk_size=2))(arguments) ** 2)

    def squared_gradient(arguments, wrap):
        return sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(loss)(arguments, wrap)))

    plain, recomputed = (
        jit(jax.grad(lambda x, w=wrap: squared_gradient(x, w)))(arguments) for wrap in (lambda f: f, jax.checkpoint)
    )
    assert_same(recomputed, plain)


TRANSFORMS = {
    "jit": jax.jit,
    "vmap": jax.vmap,
    "grad": lambda f: jax.grad(lambda x: jnp.sum(f(x) ** 2)),
    "checkpoint": lambda f: jax.grad(lambda x: jnp.sum(jax.checkpoint(f)(x) ** 2)),
    "jit inside of grad": lambda f: jax.grad(lambda x: jnp.sum(jax.jit(f)(x) ** 2)),
}


@pytest.mark.parametrize("transform", ["plain", *TRANSFORMS])
def test_directed_mode_stays_itself_under_transforms(draw, jit, transform, monkeypatch):
    """The program of P-mode is what runs, and its numbers are those of the general one."""
    walked = []
    directed_mask = parallel.directed_mask
    monkeypatch.setattr(parallel, "directed_mask", lambda *args: walked.append(args) or directed_mask(*args))
    arguments = draw("plstm_2d_oriented", without=tuple(DIRECTED), X=4, Y=3)
    given = {name: array for name, array in arguments.items() if array is not None}
    if transform == "vmap":
        given = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), given)

    def directed(given):
        return ops.plstm_2d_oriented(**given, mode="P", implementation="parallel")

    def general(given):
        both = {name: given[serving] for name, serving in DIRECTED.items()}
        return ops.plstm_2d_oriented(**given, **both, implementation="parallel")

    # one by one, the steps of a transform take ten times as long to compile
    run = (lambda f: f) if transform == "plain" else lambda f: jit(TRANSFORMS[transform](f))
    expected = run(general)(given)
    assert not walked
    assert_same(run(directed)(given), expected)
    assert walked


def test_the_mode_is_part_of_the_tree(draw):
    arguments = draw("plstm_2d_oriented", without=tuple(DIRECTED), X=2, Y=3)
    gates = grid_problem.Gates(**{name: arguments[name] for name in grid_problem.Gates._fields})
    assert gates.mode == gates.map(lambda gate: gate + 1).mode == jax.tree.map(lambda gate: gate + 1, gates).mode == "P"
    assert gates.with_turns().mode == "general"


VMAPPED = [
    ("plstm_1d", "recurrent", {}, {"T": 5}),
    ("plstm_1d", "chunkwise", {"chunk_size": 2}, {"T": 5}),
    ("plstm_1d", "chunkwise", {"chunk_size": 2}, {"T": 5} | MATRICES),
    *(("plstm_2d", form, {"block_size": 2}, {"X": 2, "Y": 3}) for form in ("recurrent", "chunkwise", "parallel")),
]


@pytest.mark.parametrize(("op", "implementation", "options", "sizes"), VMAPPED)
def test_vmap_is_a_batch(draw, jit, op, implementation, options, sizes):
    arguments = draw(op, B=3, **sizes)

    def run(arguments):
        return getattr(ops, op)(**arguments, implementation=implementation, return_last_state=True, **options)

    def single(arguments):
        return jax.tree.map(lambda x: x[0], run(jax.tree.map(lambda x: x[None], arguments)))

    assert_same(jit(jax.vmap(single))(arguments), jit(run)(arguments), "output")


def test_vmap_of_vmap_compiles(draw, jit):
    """Optimized and not too small: there the compiler limits the number of axes of a product."""
    arguments = draw("plstm_2d_oriented", dtype="float32", X=6, Y=5, DK=4, DV=4, **MATRICES | {"JQ": 2, "JV": 2})

    def gradient(arguments):
        return jax.grad(lambda x: jnp.sum(ops.plstm_2d_oriented(**x, implementation="parallel") ** 2))(arguments)

    single = jit(gradient)(arguments)
    several = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, 2, *x.shape)), arguments)
    found = jax.jit(jax.vmap(jax.vmap(gradient)))(several)
    for name, expected in single.items():
        assert_close(found[name][0, 1], expected, "float32", "gradient", label=name)


@pytest.mark.parametrize("form", [{"implementation": "chunkwise", "chunk_size": 2}, {}], ids=["chunkwise", "auto"])
def test_inside_a_scan(draw, jit, form):
    """A long sequence as a scan over pieces that hand on the state, differentiated through."""
    arguments = draw("plstm_1d", T=12)
    pieces = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(x.shape[0], 4, 3, *x.shape[2:]), 1, 0), arguments)

    def in_pieces(pieces):
        @jax.checkpoint
        def step(state, piece):
            output, state = ops.plstm_1d(**piece, initial_state=state, return_last_state=True, **form)
            return state, output

        return jnp.sum(jax.lax.scan(step, jnp.zeros((2, 3, 2, 1)), pieces)[1] ** 2)

    def whole(arguments):
        return jnp.sum(ops.plstm_1d(**arguments) ** 2)

    actual = jax.tree.map(
        lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], 12, *x.shape[3:]), jit(jax.grad(in_pieces))(pieces)
    )
    assert_same(actual, jit(jax.grad(whole))(arguments))
