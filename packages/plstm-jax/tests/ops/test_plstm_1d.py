"""The 1D op: packing, precision, arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plstm_jax.ops import plstm_1d
from plstm_jax.ops._plstm_1d import chunkwise, op
from plstm_jax.ops._plstm_1d.op import resolve_implementation
from plstm_jax.ops._plstm_1d.packing import packed_layout
from plstm_testing import reference
from plstm_testing.tolerances import assert_close


@pytest.mark.parametrize("bounds", [[0, 7], [0, 0, 7], [0, 3, 3, 7, 7], [0, 1, 2, 3, 4, 5, 6, 7]])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_every_step_has_its_place_in_a_chunk_of_its_own_sequence(bounds, size):
    layout = packed_layout(7, size, 2, jnp.array(bounds, jnp.int32))
    place, source_step, is_step = (np.asarray(x) for x in (layout.place, layout.source_step, layout.is_step))
    assert len(set(place)) == 7
    assert is_step.sum() == 7
    assert np.array_equal(source_step[place], np.arange(7))
    owner = np.searchsorted(bounds[1:], np.arange(7), side="right")
    assert np.array_equal(np.asarray(layout.sequences)[place // size], owner)


@pytest.mark.parametrize("implementation", ["recurrent", "chunkwise"])
def test_boundaries_may_be_traced(draw, jit, implementation):
    arguments = draw("plstm_1d", T=9)
    state = jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, 3, 2, 1)))

    @jit
    def run(bounds):
        return plstm_1d(
            **arguments,
            initial_state=state,
            return_last_state=True,
            implementation=implementation,
            chunk_size=2,
            cu_seqlens=bounds,
        )

    for bounds in ([0, 4, 4, 9], [0, 0, 9, 9], [0, 2, 3, 9]):
        expected = reference.plstm_1d(
            **arguments, initial_state=state, return_last_state=True, cu_seqlens=np.array(bounds)
        )
        output, last = run(jnp.array(bounds))
        assert_close(output, expected[0], label="output")
        assert_close(last, expected[1], kind="state", label="last state")
    assert run._cache_size() == 1


@pytest.mark.parametrize("sizes", [{}, {"JQ": 2, "JV": 2, "JT": 3, "JO": 2}], ids=["scalar", "matrices"])
@pytest.mark.parametrize("bounds", [None, [0, 5, 5, 23]], ids=["one", "packed"])
def test_segments_hand_on_states_and_gradients(draw, jit, monkeypatch, sizes, bounds):
    arguments = draw("plstm_1d", T=23, **sizes)
    keywords = {"cu_seqlens": None if bounds is None else np.array(bounds)}

    def loss(arguments):
        output, state = plstm_1d(**arguments, **keywords, chunk_size=2, return_last_state=True)
        return jnp.sum(output**2) + jnp.sum(state**2)

    expected = jit(jax.value_and_grad(loss))(arguments)
    monkeypatch.setattr(chunkwise, "SEGMENT", 0)
    monkeypatch.setattr(chunkwise, "LEAST_CHUNKS", 4)
    found = jit(jax.value_and_grad(loss))(arguments)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_close(one, other, kind="gradient")


def test_states_never_fall_below_float32(draw):
    arguments = draw("plstm_1d", dtype="bfloat16", T=5)
    output, state = plstm_1d(**arguments, return_last_state=True)
    assert (output.dtype, state.dtype) == (jnp.bfloat16, jnp.float32)
    arguments["transition"] = arguments["transition"].astype(jnp.float64)
    output, state = plstm_1d(**arguments, return_last_state=True)
    assert (output.dtype, state.dtype) == (jnp.bfloat16, jnp.float64)


def test_without_double_precision(draw):
    arguments = {name: np.asarray(array) for name, array in draw("plstm_1d", T=5).items()}
    with jax.enable_x64(False):
        output, state = plstm_1d(**arguments, return_last_state=True)
    assert (output.dtype, state.dtype) == (jnp.float32, jnp.float32)
    assert_close(output, reference.plstm_1d(**arguments), "float32")


def test_bad_arguments_are_found_while_tracing(draw):
    arguments = draw("plstm_1d", T=5)
    with pytest.raises(ValueError, match=r"key: expected \[B=2, T=5, DK=3, JK=1\], got \(2, 4, 3, 1\)"):
        jax.make_jaxpr(plstm_1d)(**arguments | {"key": arguments["key"][:, 1:]})
    with pytest.raises(TypeError, match="mark: expected a floating-point dtype, got int"):
        plstm_1d(**arguments | {"mark": arguments["mark"].astype(int)})
    with pytest.raises(TypeError, match=r"source: expected an array of shape .*, got list"):
        plstm_1d(**arguments | {"source": [1.0]})
    with pytest.raises(ValueError, match="cu_seqlens: expected the last boundary to be T=5, got"):
        plstm_1d(**arguments, cu_seqlens=jnp.array([0, 4]))


def test_auto_decides_in_one_place(monkeypatch):
    def resolved(name="auto"):
        return [resolve_implementation(name, {"T": length}, None) for length in (0, 1, 2, 999)]

    monkeypatch.setattr(op, "without_native_kernels", lambda query: "there are none")
    assert resolved() == ["chunkwise", "recurrent", "chunkwise", "chunkwise"]
    with pytest.raises(
        ValueError, match="expected another one for this call of the 1D op, got 'native': there are none"
    ):
        resolved("native")
    monkeypatch.setattr(op, "without_native_kernels", lambda query: None)
    assert resolved() == ["native", "recurrent", "native", "native"]
    assert resolved("native") == ["native"] * 4
    names = "'auto', 'recurrent', 'chunkwise', 'native'"
    with pytest.raises(ValueError, match=f"implementation: expected one of {names}, got 'parallel'"):
        resolved("parallel")
