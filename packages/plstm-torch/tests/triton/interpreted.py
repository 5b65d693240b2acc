"""The kernels in Triton's interpreter: transforms, layouts, refusals. Run by `nox -s triton`, by its path.

Values, gradients, states, packing and isolation are the conformance suite's; here is what it cannot ask.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from torch.func import grad, jvp, vmap

from plstm_testing.tolerances import assert_close
from plstm_torch import check
from plstm_torch.ops import plstm_1d, plstm_2d, plstm_2d_oriented
from plstm_torch.ops._plstm_1d.op import resolve_implementation
from plstm_torch.ops._plstm_1d.triton import form
from plstm_torch.ops._plstm_1d.triton.form import plstm_1d_kernels
from plstm_torch.ops._plstm_1d.triton.slots import slot_owners
from plstm_torch.ops._triton import support, tuning
from plstm_torch.ops._triton.tuning import Row

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning")


def load(path):
    """A file that is part of no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


for helper in ("emulated_dots", "guarded_memory"):
    load(Path(__file__).parents[2] / "conformance" / f"{helper}.py")


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def copy(source, target, COUNT: tl.constexpr):
    i = tl.arange(0, COUNT)
    tl.store(target + i, tl.load(source + i))


@pytest.mark.parametrize(("source", "target", "what"), [(3, 4, "load"), (4, 3, "store")])
def test_kernels_stay_within_their_arguments(source, target, what):
    """All tests of this folder, and the suite, run with this guard."""
    copy[(1,)](torch.ones(4), result := torch.zeros(4), COUNT=4)
    assert result.eq(1).all()
    with pytest.raises(Exception, match=f"a {what} of 4 bytes at .*: expected an address in the storage"):
        copy[(1,)](torch.ones(source), torch.zeros(target), COUNT=4)


def draw_sequence(length=19, dim_k=3, dim_v=2, batch=2, dtype=torch.float64):
    shapes = [(dim_k, 1), (dim_k, 1), (dim_v, 1), (1, 1, 1), (1, 1), (1, 1, 1), (1, 1, 1, 1)]
    tensors = [0.7 * torch.randn(batch, length, *shape, dtype=dtype) for shape in shapes]
    return (*tensors, torch.randn(batch, dim_k, dim_v, 1, dtype=dtype))


def run_sequence(implementation, **keywords):
    def run(*tensors):
        *inputs, state = tensors
        keywords.setdefault("return_last_state", True)
        return plstm_1d(*inputs, initial_state=state, implementation=implementation, **keywords)

    return run


def loss_of(function):
    return lambda *tensors: sum(result.square().sum() for result in function(*tensors))


def assert_same(actual, expected, kind="gradient", dtype="float64"):
    actual, expected = ([x] if isinstance(x, torch.Tensor) else list(x) for x in (actual, expected))
    for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert_close(one.detach(), other.detach(), dtype, kind, f"tensor {index}")


KERNELS, LOOP = run_sequence("triton"), run_sequence("recurrent")


def test_derivatives_of_any_order():
    tensors, every = draw_sequence(), tuple(range(8))
    assert_same(grad(loss_of(KERNELS), every)(*tensors), grad(loss_of(LOOP), every)(*tensors))
    second = [
        grad(lambda *x, f=function: grad(loss_of(f), 4)(*x).sum(), every)(*tensors) for function in (KERNELS, LOOP)
    ]
    assert_same(*second)
    tangents = tuple(torch.randn_like(tensor) for tensor in tensors)
    pushed = [jvp(function, tensors, tangents) for function in (KERNELS, LOOP)]
    for one, other in zip(*pushed, strict=True):
        assert_same(one, other)


def test_batching_merges_into_the_batch():
    tensors = tuple(torch.stack([tensor, -0.5 * tensor]) for tensor in draw_sequence())
    assert_same(vmap(KERNELS)(*tensors), vmap(LOOP)(*tensors), "output")
    of_each = vmap(grad(loss_of(KERNELS), (0, 4, 7)))(*tensors)
    assert_same(of_each, vmap(grad(loss_of(LOOP), (0, 4, 7)))(*tensors))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_break(dynamic):
    def packed(*tensors):
        *inputs, state = tensors
        bounds = torch.tensor([0, 7, 19])
        return plstm_1d(
            *inputs, initial_state=state, implementation="triton", cu_seqlens=bounds, return_last_state=True
        )

    *inputs, _ = draw_sequence()
    tensors = [tensor.requires_grad_() for tensor in (*inputs, torch.randn(2, 2, 3, 2, 1, dtype=torch.float64))]
    compiled = torch.compile(packed, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    results = [function(*tensors) for function in (compiled, packed)]
    assert_same(*results, "output")
    gradients = [torch.autograd.grad(sum(part.sum() for part in result), tensors) for result in results]
    assert_same(*gradients)


def test_operator_contract():
    bounds = torch.tensor([0.0, 6.0, 9.0], dtype=torch.float64).expand(2, -1)
    shapes = [(2, 9, 3), (2, 9, 3), (2, 9, 2), (2, 9), (2, 9), (2, 9), (2, 9), (2, 2, 3, 2)]
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    torch.library.opcheck(plstm_1d_kernels.operator, ([*tensors, bounds],))


def test_operands_of_any_stride():
    tensors = list(draw_sequence(dim_k=20, dim_v=17))
    for place in range(3):
        tensors[place] = tensors[place].permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    found = [torch.autograd.grad(loss_of(function)(*leaves), leaves) for function in (KERNELS, LOOP)]
    assert_same(*found)
    # the gradient of a sum is one number seen from everywhere
    found = [torch.autograd.grad(function(*leaves)[0].sum(), leaves) for function in (KERNELS, LOOP)]
    assert_same(*found)


def test_mixed_dtypes():
    tensors = [tensor.to(torch.bfloat16) for tensor in draw_sequence(dtype=torch.float32)[:3]]
    *_, source, transition, mark, direct, state = draw_sequence(dtype=torch.float32)
    output, last = KERNELS(*tensors, source, transition, mark, direct, state)
    expected, expected_last = LOOP(*tensors, source, transition, mark, direct, state)
    assert (output.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    assert_close(output.detach().float(), expected.float(), "bfloat16")
    assert_close(last, expected_last, "bfloat16", "state")
    wide = KERNELS(*tensors, source.double(), transition, mark, direct, state)
    assert_close(wide[1], LOOP(*tensors, source.double(), transition, mark, direct, state)[1], "float64", "state")


@pytest.mark.parametrize("tile", [32, 64])
def test_tiles_of_the_table(tile, monkeypatch):
    """The tiles that GPUs take: a chunk and a block of channels that are ragged, and several of both."""
    monkeypatch.setattr(tuning, "_INTERPRETED", Row(tile, tile, 1, 1, 0))
    tensors = [tensor.requires_grad_() for tensor in draw_sequence(2 * tile + 5, tile + 3, tile + 1, batch=1)]
    results = [function(*tensors) for function in (KERNELS, LOOP)]
    assert_same(*results, "output")
    assert_same(*(torch.autograd.grad(loss_of(lambda *_, r=result: r)(), tensors) for result in results))


@pytest.mark.parametrize("segments", [1, 3, 7])
def test_sequences_in_segments(segments, monkeypatch):
    """Of several chunks, of fewer chunks than segments, of one step and of none, with states and their gradients."""
    monkeypatch.setattr(form, "count_segments", lambda *_: segments)
    *inputs, _ = draw_sequence(120)
    tensors = [tensor.requires_grad_() for tensor in (*inputs, torch.randn(2, 4, 3, 2, 1, dtype=torch.float64))]
    bounds = torch.tensor([0, 101, 101, 102, 120])
    functions = [run_sequence(name, cu_seqlens=bounds) for name in ("triton", "recurrent")]
    results = [function(*tensors) for function in functions]
    assert_same(*results, "state")
    assert_same(*(torch.autograd.grad(loss_of(lambda *_, r=result: r)(), tensors) for result in results))


def test_a_segment_may_overflow_where_nothing_is_written(monkeypatch):
    monkeypatch.setattr(form, "count_segments", lambda *_: 3)
    tensors = list(draw_sequence(90))
    tensors[3][:, :64], tensors[7] = 0.0, torch.zeros_like(tensors[7])
    tensors[4][:, :64] = 1e15
    assert_same(*(function(*tensors) for function in (KERNELS, LOOP)), "output")


NAMES = {"source_r": 3, "source_d": 3, "transition_rl": 2, "transition_du": 2, "mark_l": 3}
OF_MODE = {"L": {"transition_ru": 2, "mark_u": 3}, "R": {"transition_dl": 2, "mark_u": 3}, "P": {}}
GRID = pytest.mark.parametrize("mode", list(OF_MODE))


def draw_grid(mode, x, y, *, orientations=(4,), dim_k=3, dim_v=2, batch=1, dtype=torch.float64):
    gates = {name: (*orientations, x, y, *(1,) * count) for name, count in (NAMES | OF_MODE[mode]).items()}
    shapes = {
        "query": (x, y, dim_k, 1),
        "key": (x, y, dim_k, 1),
        "value": (x, y, dim_v, 1),
        "direct": (x, y, 1, 1, 1, 1),
    }
    tensors = {name: torch.randn(batch, *shape, dtype=dtype) for name, shape in (gates | shapes).items()}
    for name in tensors:
        if name.startswith("transition"):
            tensors[name] = torch.tanh(tensors[name])
    return tensors


def run_grid(implementation, mode):
    """The op with as many orientations as the gates have, as a function of a dictionary."""

    def run(tensors):
        op = plstm_2d if tensors["source_r"].dim() == tensors["query"].dim() + 1 else plstm_2d_oriented
        return op(**tensors, implementation=implementation, mode="P" if mode == "P" else None)

    return run


def results_of(function, tensors, weight=None):
    """Output and gradients."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    output = function(leaves)
    weight = torch.ones_like(output) if weight is None else weight
    return output, torch.autograd.grad(output, list(leaves.values()), weight)


@GRID
@pytest.mark.parametrize(
    ("orientations", "x", "y"), [((), 5, 7), ((), 1, 3), ((), 18, 2), ((4,), 5, 3)], ids=lambda value: str(value)
)
def test_grids(mode, orientations, x, y):
    tensors = draw_grid(mode, x, y, orientations=orientations, batch=1 if x > 16 else 2, dim_k=17 if x == 1 else 3)
    weight = torch.randn(*tensors["value"].shape[:4], 1, dtype=torch.float64)
    found, right = (results_of(run_grid(name, mode), tensors, weight) for name in ("triton", "recurrent"))
    assert_same(found[0], right[0], "output")
    assert_same(found[1], right[1])


@GRID
def test_grids_with_operands_of_any_stride(mode):
    tensors = draw_grid(mode, 4, 3, orientations=(), batch=2)
    for name, tensor in tensors.items():
        order = list(range(tensor.dim()))[::-1]
        tensors[name] = tensor.permute(order).contiguous().permute(order)
    found, right = (results_of(run_grid(name, mode), tensors) for name in ("triton", "recurrent"))
    assert_same(found[1], right[1])


@GRID
def test_grids_under_transforms(mode):
    tensors = draw_grid(mode, 3, 2, orientations=())
    names = list(tensors)

    def loss(implementation):
        return lambda *values: run_grid(implementation, mode)(dict(zip(names, values, strict=True))).square().sum()

    values, every = tuple(tensors.values()), tuple(range(len(names)))
    second = [
        grad(lambda *x, f=first: f(*x).sum(), every)(*values)
        for first in (grad(loss("triton"), 0), grad(loss("recurrent"), 0))
    ]
    assert_same(*second)
    stacked = tuple(torch.stack([value, -0.5 * value]) for value in values)
    assert_same(*(vmap(grad(loss(name), every))(*stacked) for name in ("triton", "recurrent")))
    leaves = [value.requires_grad_() for value in values]
    compiled = torch.compile(loss("triton"), fullgraph=True, backend="aot_eager")
    assert_same(*(torch.autograd.grad(f(*leaves), leaves) for f in (compiled, loss("recurrent"))))


@GRID
@pytest.mark.parametrize("name", ["value", "source_r", "transition_du"])
def test_a_grid_keeps_what_is_not_finite_apart(mode, name):
    """One orientation: nodes that are not downstream, and other rows of the batch, are as without it."""
    tensors = draw_grid(mode, 4, 5, orientations=(), batch=2)
    clean = run_grid("recurrent", mode)(tensors)
    tensors[name] = tensors[name].clone()
    tensors[name][1, 2, 3] = torch.nan
    output, found = results_of(run_grid("triton", mode), tensors)
    kept = torch.ones(2, 4, 5, dtype=torch.bool)
    kept[1, 2:, 3:] = False
    assert_same(output[kept], clean[kept], "output")
    assert all(gradient[0].isfinite().all() for gradient in found)


def test_reasons_of_grids():
    refused = r"implementation: expected another one for this call of the 2D op, got 'triton': .*"
    with pytest.raises(ValueError, match=refused + "DK up to 256, got DK=257"):
        run_grid("triton", "L")(draw_grid("L", 3, 4, dim_k=257))
    tensors = draw_grid("L", 3, 4)
    for name in ("transition_rl", "transition_du", "transition_ru", "source_r", "source_d", "mark_l", "mark_u"):
        axes = {"t": (-2, -1), "s": (-3,), "m": (-1,)}[name[0]]
        for axis in axes:
            tensors[name] = tensors[name].repeat_interleave(2, axis)
    with pytest.raises(ValueError, match=refused + "J dimensions of 1, got JT=2"):
        run_grid("triton", "L")(tensors)


def test_slots_of_sequences_do_not_meet():
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(0, 9, (6,), generator=generator)
        bounds = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        owners = slot_owners(bounds, int(bounds[-1]), 4)
        needed = -(-lengths // 4)
        assert (torch.bincount(owners, minlength=6) >= needed).all()


def test_reasons(monkeypatch):
    wide = draw_sequence(dim_k=257)
    with pytest.raises(ValueError, match="DK up to 256, got DK=257"):
        KERNELS(*wide)
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match="kernels run on CUDA devices, got cpu"):
        KERNELS(*draw_sequence())
    monkeypatch.setattr(support.torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in support.no_machine("cuda", 0)
    monkeypatch.setattr(support.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(support.torch.cuda, "get_device_capability", lambda index: (7, 5))
    assert support.no_machine("cuda", 0) == "kernels need compute capability 8.0, got 7.5"
    monkeypatch.setattr(support.torch.cuda, "get_device_capability", lambda index: (9, 0))
    assert support.no_machine("cuda", 0) is None


def test_auto_never_takes_the_interpreter():
    called = []
    assert resolve_implementation("auto", 3, lambda: called.append(1)) == "recurrent"
    assert not called
    assert resolve_implementation("auto", 300, lambda: True) == "triton"
    assert resolve_implementation("auto", 300, lambda: False) == "chunkwise"
    assert not support.taken_by_auto(torch.zeros(1))


def test_the_self_check_proves_the_kernels_where_they_run(monkeypatch):
    rows = list(check.check_rows(["cpu"], ["float32"]))
    kernels = [row for row in rows if row.implementation == "triton"]
    assert {row.op for row in kernels} == set(check.KERNEL_CASES)
    assert all(row.passed for row in kernels), kernels
    monkeypatch.delenv("TRITON_INTERPRET")
    for others in ("IMPLEMENTATIONS", "NATIVE_CASES"):
        monkeypatch.setattr(check, others, {})
    assert not list(check.check_rows(["cpu"], ["float32"]))


def test_rows_are_chosen_by_shared_memory_and_capability(monkeypatch):
    monkeypatch.setattr(tuning, "interpreted", lambda: False)
    device = torch.device("cuda", 0)
    for capability in (80, 90):
        monkeypatch.setattr(tuning, "_limits", lambda index, capability=capability: (200_000, capability))
        rows = [tuning.choose(kernel, torch.bfloat16, device) for kernel, name in tuning.TABLE if name == "bfloat16"]
        assert all(row.capability <= capability for row in rows)
        assert any(row.capability == capability for row in rows)
    monkeypatch.setattr(tuning, "_limits", lambda index: (1_000, 90))
    with pytest.raises(
        RuntimeError, match=r"sequence_output .*bfloat16.* bytes of shared memory in a block, cuda:0 has 1000"
    ):
        tuning.choose("sequence_output", torch.bfloat16, device)
