"""The kernels for state-tracking matrices in Triton's interpreter. Run by `nox -s triton`, by its path.

Values, gradients, states, packing and isolation are the conformance suite's; here is what it cannot ask.
"""

from __future__ import annotations

import interpreted
import pytest
import torch
from torch.func import grad, jvp, vmap

from plstm_testing.tolerances import assert_close
from plstm_torch.ops._plstm_1d.triton import matrix_call
from plstm_torch.ops._plstm_1d.triton.matrix_form import plstm_1d_matrix_kernels
from plstm_torch.ops._triton import tuning
from plstm_torch.ops._triton.tuning import Row

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning")


assert_same, loss_of, run_sequence = interpreted.assert_same, interpreted.loss_of, interpreted.run_sequence
KERNELS, LOOP = interpreted.KERNELS, interpreted.LOOP
SMALL = (1, 1, 2, 2, 1)  # JQ, JK, JV, JT, JO


def draw(j=SMALL, length=11, dim_k=3, dim_v=2, batch=1, dtype=torch.float64, sequences=()):
    """The arguments of the op and an initial state."""
    q, k, v, t, o = j
    shapes = [(dim_k, q), (dim_k, k), (dim_v, v), (t, k, v), (t, t), (o, q, t), (o, q, k, v)]
    tensors = [0.7 * torch.randn(batch, length, *shape, dtype=dtype) for shape in shapes]
    return (*tensors, torch.randn(batch, *sequences, dim_k, dim_v, t, dtype=dtype))


def gradients(function, tensors):
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    return torch.autograd.grad(loss_of(function)(*leaves), leaves)


@pytest.mark.parametrize(
    "j", [(1, 1, 4, 4, 4), (1, 2, 1, 8, 9), (2, 1, 1, 3, 1), (2, 2, 2, 1, 1), (1, 1, 1, 2, 1)], ids=str
)
def test_dimensions(j, monkeypatch):
    """Several blocks of columns and of outputs of a step, sizes that are no powers of two, ragged chunks."""
    monkeypatch.setattr(tuning, "_INTERPRETED_SCAN", Row(8, 32, 1, 1, 0))
    tensors = draw(j, dim_k=5, dim_v=7)
    assert_same(KERNELS(*tensors), LOOP(*tensors), "output")
    assert_same(gradients(KERNELS, tensors), gradients(LOOP, tensors))


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("bounds", [None, [0, 3, 3, 19, 21, 21]], ids=["one", "packed"])
def test_segments(bounds, chunks, monkeypatch):
    """Sequences that begin, end, go through, or are empty in a segment of few chunks."""
    monkeypatch.setattr(matrix_call, "_SEGMENT", 1)
    monkeypatch.setattr(matrix_call, "_LEAST_CHUNKS", chunks)
    packed = {} if bounds is None else {"cu_seqlens": torch.tensor(bounds)}
    tensors = draw(length=21, sequences=() if bounds is None else (5,))
    functions = [run_sequence(name, **packed) for name in ("triton", "recurrent")]
    assert_same(*(function(*tensors) for function in functions), "output")
    assert_same(*(gradients(function, tensors) for function in functions))


def test_derivatives_of_any_order():
    tensors, every = draw(length=5), tuple(range(8))
    second = [
        grad(lambda *x, f=function: grad(loss_of(f), 4)(*x).sum(), every)(*tensors) for function in (KERNELS, LOOP)
    ]
    assert_same(*second)
    tangents = tuple(torch.randn_like(tensor) for tensor in tensors)
    for one, other in zip(*(jvp(function, tensors, tangents) for function in (KERNELS, LOOP)), strict=True):
        assert_same(one, other)


def test_batching_merges_into_the_batch(monkeypatch):
    """Also where the pullback is batched and the function is not: a larger batch has other segments."""
    tensors = tuple(torch.stack([tensor, -0.5 * tensor]) for tensor in draw(length=5))
    assert_same(*(vmap(grad(loss_of(function), (0, 4, 7)))(*tensors) for function in (KERNELS, LOOP)))
    monkeypatch.setattr(matrix_call, "_SEGMENT", 700)
    monkeypatch.setattr(matrix_call, "_LEAST_CHUNKS", 1)
    tensors, pulled = draw(length=19), []
    for function in (KERNELS, LOOP):
        results, pull = torch.func.vjp(function, *tensors)[:2]
        torch.manual_seed(0)
        pulled.append(vmap(pull)(tuple(torch.randn(3, *result.shape, dtype=result.dtype) for result in results)))
    assert_same(*pulled)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_break(dynamic):
    def packed(*tensors):
        return run_sequence("triton", cu_seqlens=torch.tensor([0, 7, 19]))(*tensors)

    tensors = [tensor.requires_grad_() for tensor in draw(length=19, sequences=(2,))]
    compiled = torch.compile(packed, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    results = [function(*tensors) for function in (compiled, packed)]
    assert_same(*results, "output")
    assert_same(*(torch.autograd.grad(sum(part.sum() for part in result), tensors) for result in results))


def test_operator_contract(monkeypatch):
    monkeypatch.setattr(matrix_call, "_SEGMENT", 1)
    monkeypatch.setattr(matrix_call, "_LEAST_CHUNKS", 1)
    bounds = torch.tensor([0.0, 6.0, 9.0], dtype=torch.float64).expand(2, -1)
    *tensors, state = draw(length=9, batch=2, sequences=(2,))
    tensors = [tensor.requires_grad_() for tensor in (*tensors, state.permute(0, 1, 4, 3, 2).contiguous())]
    torch.library.opcheck(plstm_1d_matrix_kernels.operator, ([*tensors, bounds],))


def test_operands_of_any_stride():
    tensors = list(draw(batch=2))
    for place in range(7):
        order = list(range(tensors[place].dim()))[::-1]
        tensors[place] = tensors[place].permute(order).contiguous().permute(order)
    assert_same(gradients(KERNELS, tensors), gradients(LOOP, tensors))
    # the gradient of a sum is one number seen from everywhere
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    assert_same(*(torch.autograd.grad(function(*leaves)[0].sum(), leaves) for function in (KERNELS, LOOP)))


def test_states_of_many_places(monkeypatch):
    """More than one block of a state, and of more than one row and sequence."""
    monkeypatch.setattr(tuning, "_INTERPRETED_SCAN", Row(16, 16, 1, 1, 0))
    tensors = draw((1, 1, 1, 3, 1), 17, 5, 7, batch=2)
    assert_same(KERNELS(*tensors), LOOP(*tensors), "output")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_vectors_and_wide_gates(dtype):
    """Gates and states keep the precision that vectors do not have."""
    tensors = [tensor.float() for tensor in draw()]
    tensors[:3] = [tensor.to(getattr(torch, dtype)) for tensor in tensors[:3]]
    found, right = KERNELS(*tensors), LOOP(*tensors)
    assert (found[0].dtype, found[1].dtype) == (tensors[2].dtype, torch.float32)
    assert_close(found[0].float(), right[0].float(), dtype)
    assert_close(found[1], right[1], "float32", "state")


@pytest.mark.parametrize("place", [0, 2, 3, 4], ids=["query", "value", "source", "transition"])
def test_what_is_not_finite_stays_apart(place):
    """Earlier steps and other rows of the batch are as without it."""
    tensors = draw(batch=2)
    clean = LOOP(*tensors)[0]
    spoilt = [tensor.clone() for tensor in tensors]
    spoilt[place][1, 5] = torch.nan
    output, found = KERNELS(*spoilt)[0], gradients(KERNELS, spoilt)
    kept = torch.ones(2, 11, dtype=torch.bool)
    kept[1, 5:] = False
    assert_same(output[kept], clean[kept], "output")
    assert all(gradient[0].isfinite().all() for gradient in found)


def test_a_reason():
    with pytest.raises(ValueError, match=r"^implementation: expected another one.*'triton'.*JT up to 8, got JT=9"):
        KERNELS(*draw((1, 1, 1, 9, 1), 5))
