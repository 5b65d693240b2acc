"""The 1D op: both implementations against the reference, recorded data, and each other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from plstm_testing import golden
from plstm_testing.conformance import OpCall, truth
from plstm_testing.conformance.cases import SCALAR, STATE_TRACKING, cases
from plstm_testing.selfcheck import CASES
from plstm_testing.tolerances import assert_close, assert_within
from plstm_torch.check import run_op
from plstm_torch.ops import plstm_1d
from plstm_torch.ops._native import no_kernels
from plstm_torch.ops._plstm_1d import chunkwise, matrix, op, recurrent, scalar

NATIVE = pytest.param("native", marks=pytest.mark.skipif(no_kernels() is not None, reason=f"{no_kernels()}"))
EACH = pytest.mark.parametrize("implementation", ["recurrent", "chunkwise", NATIVE])
KINDS = pytest.mark.parametrize("j", [SCALAR, STATE_TRACKING], ids=["scalar", "state_tracking"])


def draw(length, j=SCALAR, batch=2, dim_k=3, dim_v=2, dtype=torch.float64, **options):
    """Query, key, value, source, transition, mark, direct, initial state; transitions of norm about one half."""
    dim_q, dim_k_j, dim_v_j, dim_t, dim_o = j
    sizes = [(dim_k, dim_q), (dim_k, dim_k_j), (dim_v, dim_v_j), (dim_t, dim_k_j, dim_v_j), (dim_t, dim_t)]
    sizes += [(dim_o, dim_q, dim_t), (dim_o, dim_q, dim_k_j, dim_v_j)]
    tensors = [torch.randn(batch, length, *size, dtype=dtype) for size in sizes]
    tensors[4] = tensors[4] / (2 * dim_t**0.5)
    state = torch.randn(batch, dim_k, dim_v, dim_t, dtype=dtype)
    return [tensor.requires_grad_(**options) for tensor in (*tensors, state)]


def run(tensors, **keywords):
    *inputs, state = tensors
    return plstm_1d(*inputs, initial_state=state, return_last_state=True, **keywords)


def gradients(results, tensors):
    weights = [torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result) for result in results]
    return torch.autograd.grad(results, tensors, weights)


def assert_same(actual, expected, dtype="float64", kind="gradient"):
    for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert_close(one.detach().double(), other.detach().double(), dtype, kind, f"tensor {index}")


def compare(result, expected, dtype):
    assert_close(result.output, expected.output, dtype, "output", "output")
    if expected.last_state is not None:
        assert_close(result.last_state, expected.last_state, dtype, "state", "last_state")
    assert set(result.gradients) == set(expected.gradients)
    for name, gradient in expected.gradients.items():
        assert_close(result.gradients[name], gradient, dtype, "gradient", f"gradient of {name}")


@EACH
@pytest.mark.parametrize("case", cases("plstm_1d"), ids=lambda case: case.name)
def test_agrees_with_the_reference(case, implementation):
    result = run_op(truth.call(case, implementation, "float64", "cpu"))
    compare(result, truth.expected("plstm_1d", case.name, "float64"), "float64")


@EACH
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", CASES["plstm_1d"])
def test_agrees_in_other_dtypes(name, dtype, implementation):
    (case,) = (case for case in cases("plstm_1d") if case.name == name)
    result = run_op(truth.call(case, implementation, dtype, "cpu"))
    compare(result, truth.expected("plstm_1d", name, dtype), dtype)
    assert (result.output_dtype, result.state_dtype) == (dtype, "float32")


@EACH
@pytest.mark.parametrize("case", list(golden.cases("op_1d")), ids=lambda case: case.name)
def test_agrees_with_recorded_data(case, implementation):
    inputs = {name: array for name, array in case.inputs.items() if not name.startswith("cotangent")}
    keywords = {"implementation": implementation, "return_last_state": True, "chunk_size": 5}
    weights = case.inputs["cotangent"], case.inputs["cotangent_state"]
    result = run_op(OpCall("plstm_1d", inputs, {}, keywords, *weights))
    assert_within(result.output, case.outputs["output"], case.limit, "output")
    assert_within(result.last_state, case.outputs["last_state"], case.limit, "last_state")
    for name, gradient in case.gradients.items():
        assert_within(result.gradients[name], gradient, case.limit, name)


@KINDS
def test_small_pieces_and_segments_change_nothing(j, monkeypatch):
    tensors = draw(29, j, batch=3)
    expected = run(tensors, implementation="recurrent")
    monkeypatch.setattr(scalar, "_PIECE", 2 * 4**2)
    monkeypatch.setattr(matrix, "_SEGMENT", 2 * 4 * 3)
    monkeypatch.setattr(matrix, "_LEAST_CHUNKS", 1)
    assert len(scalar._pieces(24, 4)) == 12
    assert len(matrix._segments(3, 8, 4)) == 4
    results = run(tensors, implementation="chunkwise", chunk_size=4)
    assert_same(results, expected, kind="output")
    assert_same(gradients(results, tensors), gradients(expected, tensors))


@pytest.mark.parametrize(("form", "j"), [("scalar", SCALAR), ("matrix", SCALAR), ("matrix", STATE_TRACKING)])
@pytest.mark.parametrize("starts", [[0], [0, 1, 2]], ids=["plain", "packed"])
def test_the_differentiable_formula_is_the_same_function(form, j, starts):
    tensors = draw(12, j)
    bounds = torch.tensor([*(4 * start for start in starts), 12])
    tensors[7] = torch.stack([draw(0, j)[-1].detach() for _ in starts], 1).requires_grad_()
    expected = run(tensors, implementation="recurrent", scale=1.0, cu_seqlens=bounds)
    chunks, borders = [tensor.unflatten(1, (3, 4)) for tensor in tensors[:7]], torch.zeros(2, 0, dtype=torch.float64)
    states, starts = tensors[7].permute(0, 1, 4, 3, 2), torch.tensor(starts, dtype=torch.float64).expand(2, -1)
    if form == "scalar":
        chunks = [tensor.squeeze(-1) for tensor in chunks[:3]] + [tensor.flatten(3)[..., 0] for tensor in chunks[3:]]
        output, last_states = scalar.formula(*chunks, states.squeeze(2).mT, starts, borders)
        results = output.flatten(1, 2).unsqueeze(-1), last_states.unsqueeze(-1)
    else:
        output, last_states = matrix.formula(*chunks, states, starts, borders)
        results = output.flatten(1, 2), last_states.permute(0, 1, 4, 3, 2)
    assert_same(results, expected, kind="output")
    assert_same(gradients(results, tensors), gradients(expected, tensors))


@KINDS
def test_the_steps_are_differentiated_right(j):
    _, dim_k_j, _, dim_t, dim_o = j
    sizes = [(dim_o, dim_t, 3), (3, dim_k_j), (dim_t, dim_k_j, 2), (dim_t, dim_t)]
    tensors = [torch.randn(2, 7, *size, dtype=torch.float64, requires_grad=True) for size in sizes]
    tensors.append(torch.randn(2, 4, dim_t, 3, 2, dtype=torch.float64, requires_grad=True))
    starts = torch.tensor([0.0, 3.0, 3.0, 7.0], dtype=torch.float64).expand(2, -1)
    results, expected = (form(*tensors, starts) for form in (recurrent.plstm_1d_steps, recurrent.formula))
    assert_same(results, expected, kind="output")
    assert_same(gradients(results, tensors), gradients(expected, tensors))


@EACH
@KINDS
def test_gradients_match_finite_differences(j, implementation):
    tensors = draw(5, j, batch=1, dim_k=2, dim_v=2)
    assert torch.autograd.gradcheck(lambda *x: run(x, implementation=implementation, chunk_size=2), tensors)


@KINDS
def test_second_derivatives_match_finite_differences(j):
    tensors = draw(3, j if j == SCALAR else (1, 1, 1, 2, 1), batch=1, dim_k=1, dim_v=2)
    function = lambda *x: run(x, implementation="chunkwise", chunk_size=2)  # noqa: E731
    assert torch.autograd.gradgradcheck(function, tensors)


@EACH
@KINDS
def test_pieces_equal_the_whole(j, implementation):
    tensors = draw(23, j)
    expected = run(tensors, implementation=implementation)
    *inputs, state = tensors
    outputs = []
    for start, end in pairwise([0, 1, 8, 8, 20, 23]):
        output, state = run([*(x[:, start:end] for x in inputs), state], implementation=implementation, chunk_size=4)
        outputs.append(output)
    results = torch.cat(outputs, 1), state
    assert_same(results, expected, kind="output")
    assert_same(gradients(results, tensors), gradients(expected, tensors))


@EACH
@KINDS
@pytest.mark.parametrize("given", ["no_states", "initial", "last", "both"])
@pytest.mark.parametrize("bounds", [[0, 5, 5, 6, 17], [0, 0, 17, 17], [0, 8, 16, 17], [0, 17]], ids=str)
def test_packed_equals_separate(j, given, bounds, implementation):
    *inputs, _ = draw(17, j)
    state = torch.stack([draw(0, j)[-1].detach() for _ in bounds[1:]], 1).requires_grad_()
    state, last = (state if given in ("initial", "both") else None), given in ("last", "both")
    keywords = {"implementation": implementation, "chunk_size": 4, "return_last_state": last}
    packed = plstm_1d(*inputs, initial_state=state, cu_seqlens=torch.tensor(bounds), **keywords)
    separate = [
        plstm_1d(*(x[:, start:end] for x in inputs), initial_state=None if state is None else state[:, n], **keywords)
        for n, (start, end) in enumerate(pairwise(bounds))
    ]
    if last:
        expected = torch.cat([output for output, _ in separate], 1), torch.stack([last for _, last in separate], 1)
    else:
        packed, expected = (packed,), (torch.cat(separate, 1),)
    tensors = inputs if state is None else [*inputs, state]
    assert_same(packed, expected, kind="output")
    assert_same(gradients(packed, tensors), gradients(expected, tensors))


@KINDS
def test_many_packed_sequences_in_small_segments(j, monkeypatch):
    monkeypatch.setattr(matrix, "_SEGMENT", 2 * 4 * 3)
    monkeypatch.setattr(matrix, "_LEAST_CHUNKS", 1)
    lengths = torch.tensor([3, 0, 9, 1, 4, 4, 0, 0, 17, 8, 2])
    bounds = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    tensors = draw(int(bounds[-1]), j, batch=3)
    tensors[-1] = torch.randn(3, len(lengths), *tensors[-1].shape[1:], dtype=torch.float64, requires_grad=True)
    results, expected = (
        run(tensors, cu_seqlens=bounds, implementation=name, chunk_size=4) for name in ("chunkwise", "recurrent")
    )
    assert_same(results, expected, kind="output")
    assert_same(gradients(results, tensors), gradients(expected, tensors))


@EACH
@KINDS
def test_packed_sequences_do_not_see_what_is_wrong_with_their_neighbours(j, implementation):
    tensors = draw(12, j, requires_grad=False)
    tensors[-1] = torch.stack([tensors[-1]] * 3, 1)
    bounds, keywords = torch.tensor([0, 5, 7, 12]), {"implementation": implementation, "chunk_size": 3}
    expected = run(tensors, cu_seqlens=bounds, **keywords)
    for tensor in tensors[:7]:
        tensor[:, 5:7] = torch.nan
    tensors[-1][:, 1] = torch.inf
    output, states = run(tensors, cu_seqlens=bounds, **keywords)
    assert torch.equal(output[:, :5], expected[0][:, :5])
    assert torch.equal(output[:, 7:], expected[0][:, 7:])
    assert torch.equal(states[:, ::2], expected[1][:, ::2])


@pytest.mark.parametrize("length", [1, 4, 5, 31, 32, 33, 47, 48, 49, 100, 196, 200, 256, 1000, 1024, 1031])
@pytest.mark.parametrize("dims", [(1, 1), (4, 1), (2, 16)])
def test_auto_chunk_size_pads_little(length, dims):
    chunk = chunkwise.auto_chunk_size(length, *dims)
    assert 1 <= chunk <= length
    assert -length % chunk <= chunk // 2 or length < 100


def test_auto_chunk_size_divides_common_lengths():
    assert [chunkwise.auto_chunk_size(length, 1, 1) for length in (1024, 196, 200, 16384)] == [32, 28, 40, 32]


def test_auto_resolves_in_one_place():
    assert op.resolve_implementation("auto", 1) == "recurrent"
    assert op.resolve_implementation("auto", 1000) == "chunkwise"
    assert op.resolve_implementation("chunkwise", 1) == "chunkwise"
    assert op.resolve_implementation("auto", 1, native=lambda: True) == "native"
    assert op.resolve_implementation("auto", 1000, native=lambda: True) == "native"
    assert op.resolve_implementation("chunkwise", 1000, native=lambda: True) == "chunkwise"


@EACH
def test_result_dtypes(implementation):
    tensors = draw(6, dtype=torch.float32)
    keywords = {"implementation": implementation}
    low = [tensor.to(torch.bfloat16) for tensor in tensors]
    assert [x.dtype for x in run(low, **keywords)] == [torch.bfloat16, torch.float32]
    mixed = [*low[:2], tensors[2].half(), *low[3:]]
    assert [x.dtype for x in run(mixed, **keywords)] == [torch.float16, torch.float32]
    double = [*low[:4], tensors[4].double(), *low[5:]]
    assert [x.dtype for x in run(double, **keywords)] == [torch.bfloat16, torch.float64]


@EACH
@KINDS
@pytest.mark.parametrize("within", ["forward", "backward", "both"])
def test_autocast_of_the_caller_has_no_effect(j, implementation, within):
    tensors = draw(9, j, dtype=torch.float32)
    expected = run(tensors, implementation=implementation, chunk_size=4)
    expected_gradients = gradients(expected, tensors)
    with torch.autocast("cpu", torch.bfloat16, enabled=within != "backward"):
        results = run(tensors, implementation=implementation, chunk_size=4)
    assert_same(results, expected, "float32", "output")
    with torch.autocast("cpu", torch.bfloat16, enabled=within != "forward"):
        found = gradients(results, tensors)
    assert_same(found, expected_gradients, "float32")


@EACH
@KINDS
def test_one_step_has_a_gradient_for_every_input(j, implementation):
    tensors = draw(1, j)
    output = plstm_1d(*tensors[:7], initial_state=tensors[7], implementation=implementation)
    for index, gradient in enumerate(torch.autograd.grad(output.sum(), tensors)):
        assert (gradient == 0).all() == (index in (3, 4)), index  # source and transition reach later steps only


@EACH
@KINDS
def test_strides_do_not_matter(j, implementation):
    tensors, keywords = draw(13, j), {"implementation": implementation, "chunk_size": 4}
    apart = [torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0] for x in tensors]
    assert not any(x.is_contiguous() for x in apart)
    expected, results = run(tensors, **keywords), run(apart, **keywords)
    assert_same(results, expected, kind="output")
    summed = torch.autograd.grad(sum(x.sum() for x in results), tensors)  # a gradient of stride zero
    assert_same(summed, torch.autograd.grad(sum(x.sum() for x in expected), tensors))


@EACH
def test_gates_shared_over_batch_and_length(implementation):
    tensors = draw(9)
    shared = [tensor[:1, :1].detach().requires_grad_() for tensor in tensors[3:7]]
    expanded = [gate.expand(2, 9, *gate.shape[2:]) for gate in shared]
    results = run([*tensors[:3], *expanded, tensors[7]], implementation=implementation, chunk_size=4)
    assert all(gradient.isfinite().all() for gradient in gradients(results, shared))


@EACH
def test_inputs_are_left_alone(implementation):
    tensors = draw(9, requires_grad=False)
    before = [tensor.clone() for tensor in tensors]
    results = run(tensors, implementation=implementation, chunk_size=4)
    results[0].add_(1.0)
    results[1].add_(1.0)
    assert all(torch.equal(one, other) for one, other in zip(tensors, before, strict=True))


@KINDS
def test_memory_for_backward_is_linear_in_the_length(j):
    def saved_bytes(length):
        tensors = draw(length, j, batch=1, dtype=torch.float32)
        saved = {}

        def pack(tensor):
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run(tensors, implementation="chunkwise")
        return sum(saved.values())

    short, long = saved_bytes(2048), saved_bytes(8192)
    assert long <= 4.2 * short
    assert short < 4 * 2048 * 400  # not even a mask of chunks


@pytest.mark.parametrize("implementation", ["chunkwise", NATIVE])
def test_gradients_stay_finite_at_transition_one_in_bfloat16(implementation):
    length = 16384
    tensors = draw(length, batch=1, dtype=torch.bfloat16, requires_grad=False)
    tensors[4] = torch.where(torch.rand(1, length, 1, 1) < 0.5, -1.0, 1.0).to(torch.bfloat16)
    tensors = [tensor.requires_grad_() for tensor in tensors]
    output, state = run(tensors, implementation=implementation)
    for gradient in torch.autograd.grad([output.float().square().mean() + state.square().mean()], tensors):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("j", [SCALAR, (1, 1, 1, 4, 1)], ids=["scalar", "rotations"])
def test_transition_of_norm_one_preserves_the_state(j):
    length, dim_t = 16384, j[3]
    tensors = draw(length, j, batch=1, dtype=torch.float32, requires_grad=False)
    tensors[3] = torch.zeros_like(tensors[3])
    tensors[4] = torch.ones(1, length, 1, 1)
    if dim_t > 1:
        tensors[4] = torch.linalg.qr(torch.randn(1, length, dim_t, dim_t, dtype=torch.float64))[0].float()
    _, state = run(tensors, implementation="chunkwise")
    norm = lambda x: np.linalg.norm(x.double().numpy(), axis=-1)  # noqa: E731
    assert_close(norm(state), norm(tensors[7]), "float32", "state", "norm of the state")


def test_bad_arguments_are_named():
    *inputs, state = draw(6, requires_grad=False)
    _, key, value, source, transition, mark, direct = inputs

    def call(**changed):
        names = ("query", "key", "value", "source", "transition", "mark", "direct")
        return plstm_1d(**dict(zip(names, inputs, strict=True)) | changed)

    for error, message, changed in [
        (TypeError, "query: expected .*, got list", {"query": [1.0]}),
        (TypeError, "key: expected a torch.Tensor, got ndarray", {"key": key.numpy()}),
        (TypeError, "value: expected a floating-point dtype, got torch.int64", {"value": value.long()}),
        (TypeError, "mark: expected a floating-point dtype, got torch.complex128", {"mark": mark.cdouble()}),
        (ValueError, "source: expected the device of query, cpu, got meta", {"source": source.to("meta")}),
        (ValueError, r"direct: expected \[.*\], got", {"direct": direct[..., 0]}),
        (ValueError, r"transition: expected \[.*T=6.*\], got", {"transition": transition[:, :-1]}),
        (ValueError, r"initial_state: expected \[.*\], got", {"initial_state": state[:, :, :1]}),
        (TypeError, "initial_state: expected a floating-point dtype", {"initial_state": state.long()}),
        (ValueError, "implementation: expected one of 'auto', 'recurrent', 'chunkwise', 'native', 'triton', got 'fast'",
         {"implementation": "fast"}),
        (ValueError, "chunk_size: expected None or a positive integer, got 0", {"chunk_size": 0}),
        (TypeError, "chunk_size: expected None or a positive integer, got float", {"chunk_size": 2.0}),
        (ValueError, "cu_seqlens: expected boundaries that do not decrease",
         {"cu_seqlens": torch.tensor([0, 4, 2, 6])}),
        (ValueError, "cu_seqlens: expected non-negative", {"cu_seqlens": torch.tensor([0, -1, 6])}),
        (TypeError, "cu_seqlens: expected integers", {"cu_seqlens": torch.tensor([0.0, 6.0])}),
    ]:  # fmt: skip
        with pytest.raises(error, match=f"^{message}"):
            call(**changed)
