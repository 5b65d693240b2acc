"""The 1D op in native kernels: sizes, packing, transforms, platforms, exports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beside_the_loop import assert_same, assert_same_transforms, both
from jax import export

import plstm_native
from plstm_jax.ops import plstm_1d
from plstm_jax.ops._plstm_1d import op
from plstm_testing.tolerances import assert_close

pytestmark = pytest.mark.skipif(plstm_native.unavailable() is not None, reason=f"{plstm_native.unavailable()}")
MATRICES = {"JQ": 2, "JK": 3, "JV": 2, "JT": 3, "JO": 4}
TRACKING = {"JV": 4, "JT": 4, "JO": 4}
SIZES = pytest.mark.parametrize("sizes", [{}, TRACKING, MATRICES], ids=["scalar", "tracking", "matrices"])
BOUNDS = pytest.mark.parametrize("bounds", [None, [0, 5, 5, 11]], ids=["one", "packed"])


@pytest.fixture
def drawn(draw):
    """Arguments of the op, with states that enter."""

    def arguments(dtype="float64", bounds=None, **sizes):
        given = draw("plstm_1d", dtype=dtype, **{"T": 11} | sizes)
        (b, _, dk, _), dv, jt = given["query"].shape, given["value"].shape[2], given["transition"].shape[-1]
        packed = () if bounds is None else (len(bounds) - 1,)
        state = np.random.default_rng(1).uniform(-0.7, 0.7, (b, *packed, dk, dv, jt))
        return given | {"initial_state": jnp.asarray(state, dtype)}

    return arguments


def call(implementation, bounds=None, **keywords):
    keywords |= {} if bounds is None else {"cu_seqlens": np.array(bounds)}
    return lambda arguments: plstm_1d(**arguments, implementation=implementation, **keywords)


@SIZES
@BOUNDS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_agrees_with_the_loop(drawn, sizes, bounds, dtype):
    arguments = drawn(dtype, bounds, DK=5, DV=19, **sizes)
    pair = (both(call(form, bounds, return_last_state=True))(arguments) for form in ("native", "recurrent"))
    assert_same(*pair, dtype)


@SIZES
@BOUNDS
def test_agrees_without_states(drawn, sizes, bounds):
    arguments = drawn(bounds=bounds, B=3, DK=4, DV=8, **sizes)
    del arguments["initial_state"]
    assert_same(*(both(call(form, bounds))(arguments) for form in ("native", "recurrent")))


@pytest.mark.parametrize("batch", [1, 3])
def test_what_several_threads_find_is_added_up(drawn, batch):
    """One sequence of several slices, over more steps than a piece has."""
    arguments = drawn("float32", T=300, B=batch, DK=8, DV=70)
    assert_same(*(both(call(form, return_last_state=True))(arguments) for form in ("native", "recurrent")), "float32")


@SIZES
@pytest.mark.parametrize("implementation", ["native", "recurrent"])
def test_what_is_not_finite_stays_in_its_sequence_and_its_future(drawn, sizes, implementation):
    bounds = [0, 4, 9, 11]
    arguments = drawn(bounds=bounds, **sizes)
    arguments["key"] = arguments["key"].at[0, 6].set(jnp.nan)
    arguments["transition"] = arguments["transition"].at[1, 10].set(jnp.inf)
    output, last = jax.jit(call(implementation, bounds, return_last_state=True))(arguments)
    clean = drawn(bounds=bounds, **sizes)
    expected, expected_last = call("recurrent", bounds, return_last_state=True)(clean)
    assert not np.isfinite(output[0, 6:9]).any()
    kept = np.ones((2, 11), bool)
    kept[0, 6:9] = False
    assert_close(output[kept], expected[kept])
    assert not np.isfinite(last[0, 1]).any()
    assert not np.isfinite(last[1, 2]).all()
    assert_close(last[0, ::2], expected_last[0, ::2])
    assert_close(last[1, :2], expected_last[1, :2])


@pytest.mark.parametrize("implementation", ["native", "auto"])
def test_boundaries_may_be_traced(drawn, jit, implementation):
    arguments = drawn(bounds=[0, 5, 5, 11])

    @jit
    def run(bounds):
        return plstm_1d(**arguments, return_last_state=True, implementation=implementation, cu_seqlens=bounds)

    for bounds in ([0, 5, 5, 11], [0, 0, 0, 11], [0, 2, 3, 11]):
        assert_same(run(jnp.array(bounds)), call("recurrent", bounds, return_last_state=True)(arguments))
    assert run._cache_size() == 1
    for bounds, message in (([0, 7, 3, 11], "do not decrease"), ([0, 2, 3, 12], "from 0 to T")):
        with pytest.raises(
            (ValueError, jax.errors.JaxRuntimeError), match=f"cu_seqlens: expected boundaries.*{message}"
        ):
            jax.block_until_ready(run(jnp.array(bounds)))


def test_traced_boundaries_beyond_int32_are_refused(drawn, jit):
    arguments = drawn(bounds=[0, 5, 11])
    run = jit(lambda bounds: call("native")(arguments | {"cu_seqlens": bounds}))
    assert run(np.array([0, 5, 11], np.uint8)).shape == run(np.array([0, 5, 11], np.int64)).shape
    for wrong in (np.array([0, 2**32 + 5, 11]), np.array([0, 5 - 2**32, 11]), np.array([0, 2**63 + 5, 11], np.uint64)):
        with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="expected boundaries that do not decrease"):
            jax.block_until_ready(run(wrong))
    with pytest.raises(TypeError, match="cu_seqlens: expected integers, got float64"):
        run(np.array([0.0, 5.0, 11.0]))


@BOUNDS
def test_transforms_of_transforms(drawn, jit, bounds):
    arguments = drawn(T=11 if bounds else 5, bounds=bounds, B=1, DK=2, JT=2, JV=2)
    assert_same_transforms(lambda form: call(form, bounds), arguments, jit)


@BOUNDS
def test_vmap_over_some_arguments_and_any_axis(drawn, jit, bounds):
    arguments = drawn(bounds=bounds, DK=2)
    several = jnp.stack([arguments["value"], -arguments["value"], jnp.cos(arguments["value"])], -1)

    def gradients(form):
        def of(value):
            return jax.grad(lambda x: jnp.sum(call(form, bounds)(x) ** 2))(arguments | {"value": value})

        return jit(jax.vmap(of, in_axes=-1))(several)

    assert_same(gradients("native"), gradients("recurrent"))


@BOUNDS
def test_vmap_over_nothing(drawn, jit, bounds):
    arguments = drawn(bounds=bounds)

    def gradients(form):
        return jit(jax.vmap(jax.value_and_grad(lambda x: jnp.sum(call(form, bounds)(x)))))(
            jax.tree.map(lambda x: jnp.zeros((0, *x.shape)), arguments)
        )

    assert_same(gradients("native"), gradients("recurrent"))


def test_without_jit(drawn):
    arguments = drawn(T=5)
    gradients = [
        jax.value_and_grad(lambda x, form=form: jnp.sum(call(form)(x) ** 2)) for form in ("native", "recurrent")
    ]
    with jax.disable_jit():
        found = gradients[0](arguments)
    assert_same(found, gradients[1](arguments))


def test_vmap_over_boundaries(drawn, jit):
    arguments = drawn(bounds=[0, 5, 5, 11])
    several = jnp.array([[0, 5, 5, 11], [0, 1, 9, 11]])

    def gradients(form):
        def of(bounds):
            run = lambda x: jnp.sum(plstm_1d(**x, cu_seqlens=bounds, implementation=form) ** 2)  # noqa: E731
            return jax.value_and_grad(run)(arguments)

        return jit(jax.vmap(of))(several)

    assert_same(gradients("native"), gradients("recurrent"))


def test_nothing_is_kept_for_the_gradients(drawn):
    arguments = drawn(T=200, DK=8, DV=8)
    _, pull_back = jax.vjp(call("native"), arguments)
    kept = sum(array.size for array in jax.tree.leaves(pull_back))
    assert kept <= 2 * sum(array.size for array in jax.tree.leaves(arguments))


@BOUNDS
def test_what_is_lowered_for_other_platforms_or_exported_is_made_of_operations_of_jax(drawn, bounds):
    arguments = drawn(bounds=bounds)
    traced = both(call("auto", bounds, return_last_state=True)).trace(arguments)
    assert "plstm_sequence" in traced.lower().as_text()
    assert "plstm_sequence" not in traced.lower(lowering_platforms=("cuda",)).as_text()
    exported = export.export(both(call("auto", bounds)))(arguments)
    assert "plstm_sequence" not in exported.mlir_module()
    assert_same(exported.call(arguments), both(call("native", bounds))(arguments))


@BOUNDS
def test_inside_of_a_shard_map(drawn, jit, bounds):
    """What differs from device to device and what does not are of different types there."""
    arguments = drawn(bounds=bounds, DK=2, DV=3)
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {name: jax.sharding.PartitionSpec(None if name == "mark" else "batch") for name in arguments}

    def share(form):
        def loss(arguments):
            return jax.lax.psum(jnp.sum(call(form, bounds)(arguments) ** 2), "batch")

        return jit(jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=(specs,), out_specs=specs))(arguments)

    assert_same(share("native"), share("recurrent"))


@pytest.mark.parametrize("empty", ["B", "T"])
def test_empty_axes(drawn, empty):
    arguments = drawn(**{empty: 0})
    found, expected = (both(call(form, return_last_state=True))(arguments) for form in ("native", "recurrent"))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.array_equal(one, other)


def test_auto_takes_it_for_more_than_one_step(draw, jit, monkeypatch):
    taken = []
    monkeypatch.setattr(op, "native", lambda *given, run=op.native: taken.append(1) or run(*given))
    for sizes, calls in (({"T": 1}, 0), ({"T": 2}, 1), ({"T": 3} | MATRICES, 2)):
        jit(lambda x: plstm_1d(**x))(draw("plstm_1d", **sizes))
        assert len(taken) == calls
