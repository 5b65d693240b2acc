"""The 1D op under the transforms of torch: functional derivatives, batching, compilation, checkpoints."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

from plstm_testing.tolerances import assert_close
from plstm_torch.ops import plstm_1d
from plstm_torch.ops._plstm_1d.matrix import plstm_1d_matrix
from plstm_torch.ops._plstm_1d.recurrent import plstm_1d_steps
from plstm_torch.ops._plstm_1d.scalar import plstm_1d_scalar

# torch itself scripts functions for forward mode and for its default compiler
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning")
KINDS = pytest.mark.parametrize("dim_t", [1, 2], ids=["scalar", "matrix"])


def draw(dim_t, length=7, batch=2, dim_k=3, dim_v=2):
    sizes = [(dim_k, 1), (dim_k, 1), (dim_v, dim_t), (dim_t, 1, dim_t), (dim_t, dim_t), (1, 1, dim_t), (1, 1, 1, dim_t)]
    tensors = [0.7 * torch.randn(batch, length, *size, dtype=torch.float64) for size in sizes]
    return (*tensors, torch.randn(batch, dim_k, dim_v, dim_t, dtype=torch.float64))


def chunkwise(*tensors, **keywords):
    *inputs, state = tensors
    keywords = {"chunk_size": 3, "return_last_state": True} | keywords
    return plstm_1d(*inputs, initial_state=state, implementation="chunkwise", **keywords)


def recurrent(*tensors):
    *inputs, state = tensors
    return plstm_1d(*inputs, initial_state=state, implementation="recurrent", return_last_state=True)


def loss_of(function):
    return lambda *tensors: sum(result.square().sum() for result in function(*tensors))


def assert_same(actual, expected, kind="gradient", dtype="float64"):
    actual, expected = ([x] if isinstance(x, torch.Tensor) else list(x) for x in (actual, expected))
    for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert_close(one.detach(), other.detach(), dtype, kind, f"tensor {index}")


@KINDS
def test_functional_gradients(dim_t):
    tensors, every = draw(dim_t), tuple(range(8))
    assert_same(grad(loss_of(chunkwise), every)(*tensors), grad(loss_of(recurrent), every)(*tensors))
    for of_transition in (jacrev, jacfwd, hessian):
        results = [of_transition(loss_of(function), 4)(*tensors) for function in (chunkwise, recurrent)]
        assert_same(*results)


@KINDS
def test_forward_mode(dim_t):
    tensors = draw(dim_t)
    tangents = tuple(torch.randn_like(tensor) for tensor in tensors)
    expected, expected_tangents = jvp(recurrent, tensors, tangents)
    results, result_tangents = jvp(chunkwise, tensors, tangents)
    assert_same(results, expected, "output")
    assert_same(result_tangents, expected_tangents)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(tensors, tangents, strict=True)]
        assert_same([forward_ad.unpack_dual(x).tangent for x in chunkwise(*duals)], expected_tangents)
    one_tangent = jvp(lambda key: chunkwise(tensors[0], key, *tensors[2:]), tensors[1:2], tangents[1:2])[1]
    assert_same(one_tangent, jvp(lambda key: recurrent(tensors[0], key, *tensors[2:]), tensors[1:2], tangents[1:2])[1])


@KINDS
def test_derivatives_of_derivatives(dim_t):
    tensors, every = draw(dim_t, length=4), tuple(range(8))
    tangents = tuple(torch.randn_like(tensor) for tensor in tensors)

    def squared_gradients(function):
        return lambda *x: sum(gradient.square().sum() for gradient in grad(loss_of(function), every)(*x))

    assert_same(*(grad(squared_gradients(function), every)(*tensors) for function in (chunkwise, recurrent)))
    assert_same(
        *(jvp(grad(loss_of(function), every), tensors, tangents)[1] for function in (chunkwise, recurrent))
    )  # fmt: skip


@KINDS
def test_vmap(dim_t):
    tensors = draw(dim_t)
    stacked = [torch.stack([tensor, 0.5 * tensor, tensor - 0.1]) for tensor in tensors]
    results = vmap(chunkwise)(*stacked)
    expected = [recurrent(*(tensor[i] for tensor in stacked)) for i in range(3)]
    assert_same(results, [torch.stack(parts) for parts in zip(*expected, strict=True)], "output")
    mixed = vmap(chunkwise, in_dims=(None, 1, 0, *[None] * 5))(
        tensors[0], stacked[1].movedim(0, 1), stacked[2], *tensors[3:]
    )
    expected = [recurrent(tensors[0], stacked[1][i], stacked[2][i], *tensors[3:]) for i in range(3)]
    assert_same(mixed, [torch.stack(parts) for parts in zip(*expected, strict=True)], "output")


@KINDS
def test_vmap_and_grad_commute(dim_t):
    stacked = [torch.stack([tensor, 0.5 * tensor]) for tensor in draw(dim_t)]
    every = tuple(range(8))
    expected = vmap(grad(loss_of(recurrent), every))(*stacked)
    assert_same(vmap(grad(loss_of(chunkwise), every))(*stacked), expected)
    assert_same(grad(lambda *x: vmap(loss_of(chunkwise))(*x).sum(), every)(*stacked), expected)


@KINDS
def test_a_batch_of_pullbacks(dim_t):
    """The batch of the gradients is larger than that of the function, and so are the pieces that it comes in."""
    tensors, pulled = draw(dim_t, length=600), []
    for function in (chunkwise, recurrent):
        results, pull = torch.func.vjp(function, *tensors)[:2]
        torch.manual_seed(0)
        pulled.append(vmap(pull)(tuple(torch.randn(3, *result.shape, dtype=result.dtype) for result in results)))
    assert_same(*pulled)


def packed(*tensors, implementation="chunkwise"):
    *inputs, state = tensors
    bounds, states = torch.tensor([0, 4, 4, 7]), torch.stack([state, -state, 0.5 * state], 1)
    keywords = {"implementation": implementation, "chunk_size": 3, "cu_seqlens": bounds}
    return plstm_1d(*inputs, initial_state=states, return_last_state=True, **keywords)


def packed_recurrent(*tensors):
    return packed(*tensors, implementation="recurrent")


@KINDS
def test_packed_sequences_under_transforms(dim_t):
    tensors, every = draw(dim_t), tuple(range(8))
    tangents = tuple(torch.randn_like(tensor) for tensor in tensors)
    expected, expected_tangents = jvp(packed_recurrent, tensors, tangents)
    results, result_tangents = jvp(packed, tensors, tangents)
    assert_same(results, expected, "output")
    assert_same(result_tangents, expected_tangents)
    stacked = [torch.stack([tensor, 0.5 * tensor]) for tensor in tensors]
    assert_same(
        *(vmap(grad(loss_of(function), every))(*stacked) for function in (packed, packed_recurrent))
    )  # fmt: skip

    def squared_gradients(function):
        return lambda *x: sum(gradient.square().sum() for gradient in grad(loss_of(function), every)(*x))

    assert_same(*(grad(squared_gradients(function), every)(*tensors) for function in (packed, packed_recurrent)))


def separated(*tensors):
    """Packed sequences without states."""
    return plstm_1d(
        *tensors[:7], implementation="chunkwise", chunk_size=3, cu_seqlens=torch.tensor([0, 4, 7])
    ), tensors[7]


@KINDS
@pytest.mark.parametrize("function", [chunkwise, recurrent, packed, packed_recurrent, separated])
def test_compiles_to_one_graph(dim_t, function):
    torch.compiler.reset()
    tensors = [tensor.requires_grad_() for tensor in draw(dim_t)]
    results, expected = (f(*tensors) for f in (torch.compile(function, fullgraph=True, backend="aot_eager"), function))
    assert_same(results, expected, "output")
    assert_same(
        *(torch.autograd.grad(sum(y.square().sum() for y in x), tensors) for x in (results, expected))
    )  # fmt: skip


@pytest.mark.parametrize("function", [chunkwise, packed_recurrent])
def test_autocast_around_a_compiled_call_has_no_effect(function):
    torch.compiler.reset()
    tensors = [tensor.float().requires_grad_() for tensor in draw(2)]
    expected = function(*tensors)
    with torch.autocast("cpu", torch.bfloat16):
        results = torch.compile(function, fullgraph=True, backend="aot_eager")(*tensors)
        found = torch.autograd.grad(sum(x.square().sum() for x in results), tensors)
    assert_same(results, expected, "output", "float32")
    assert_same(found, torch.autograd.grad(loss_of(function)(*tensors), tensors), dtype="float32")


def test_vmap_compiles():
    torch.compiler.reset()
    stacked = [torch.stack([tensor, 0.5 * tensor]) for tensor in draw(1)]
    results = torch.compile(vmap(chunkwise), fullgraph=True, backend="aot_eager")(*stacked)
    assert_same(results, vmap(recurrent)(*stacked), "output")


@pytest.mark.slow
def test_compiles_with_the_default_backend():
    torch.compiler.reset()
    tensors = [tensor.requires_grad_() for tensor in draw(1)]
    results = torch.compile(chunkwise, fullgraph=True)(*tensors)
    assert_same(results, chunkwise(*tensors), "output")
    expected = torch.autograd.grad(loss_of(chunkwise)(*tensors), tensors)
    assert_same(torch.autograd.grad(sum(x.square().sum() for x in results), tensors), expected)


@pytest.mark.parametrize("form", [plstm_1d_scalar, plstm_1d_matrix, plstm_1d_steps], ids=lambda form: form.name)
@pytest.mark.parametrize("starts", [[0.0], [0.0, 2.0]], ids=["plain", "packed"])
def test_operators_are_registered_correctly(form, starts):
    batch, chunks, chunk, sequences = 2, 3, 4, len(starts)
    if form is plstm_1d_scalar:
        sizes = [(batch, chunks, chunk, 3), (batch, chunks, chunk, 3), (batch, chunks, chunk, 2)]
        sizes += [(batch, chunks, chunk)] * 4 + [(batch, sequences, 3, 2)]
    elif form is plstm_1d_matrix:
        sizes = [tensor.unflatten(1, (chunks, chunk)).shape for tensor in draw(2, length=12)[:7]]
        sizes += [(batch, sequences, 2, 2, 3)]
    else:
        sizes = [
            (batch, 5, 2, 4, 3),
            (batch, 5, 3, 1),
            (batch, 5, 4, 1, 2),
            (batch, 5, 4, 4),
            (batch, sequences, 4, 3, 2),
        ]
    tensors = [torch.randn(size, requires_grad=True) for size in sizes]
    positions = [torch.tensor(starts).expand(batch, -1).contiguous()]
    if form is not plstm_1d_steps:
        positions.append(torch.zeros(batch, 0))
    torch.library.opcheck(form.operator, ([*tensors, *positions],))


@KINDS
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(dim_t, reentrant):
    tensors = [tensor.requires_grad_() for tensor in draw(dim_t)]
    results = checkpoint(chunkwise, *tensors, use_reentrant=reentrant)
    found = torch.autograd.grad if not reentrant else None
    total = sum(result.square().sum() for result in results)
    expected = torch.autograd.grad(loss_of(chunkwise)(*tensors), tensors)
    if found is None:
        total.backward()
        assert_same([tensor.grad for tensor in tensors], expected)
    else:
        assert_same(found(total, tensors), expected)
