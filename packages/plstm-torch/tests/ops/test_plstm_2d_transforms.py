"""The 2D ops under the transforms of torch: functional derivatives, batching, compilation, checkpoints."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, jacfwd, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

from plstm_config.shapes import DIRECTED
from plstm_testing.tolerances import assert_close
from plstm_torch.ops import plstm_2d, plstm_2d_oriented
from plstm_torch.ops._plstm_2d import attention, block_step, lines, recurrent, separable, strips
from plstm_torch.ops._plstm_2d.problem import Gates

# torch itself scripts functions for forward mode and for its default compiler
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.torch._prims_common.check. is deprecated:FutureWarning"),
]
NAMES = ("query", "key", "value", "direct", "source_r", "source_d", "mark_l", "mark_u", "transition_rl",
         "transition_du", "transition_ru", "transition_dl")  # fmt: skip
MISSING = {"L": ("transition_dl",), "R": ("transition_ru",), "P": tuple(DIRECTED)}
KINDS = pytest.mark.parametrize("dim_t", [1, 2], ids=["scalar", "matrix"])
FORMS = pytest.mark.parametrize(
    ("implementation", "mode", "oriented", "states"),
    [
        ("chunkwise", "general", False, True),
        ("chunkwise", "L", True, True),
        ("chunkwise", "P", True, True),
        ("parallel", "general", True, False),
        ("parallel", "R", True, False),
    ],
    ids=["blocks", "separable_blocks", "directed_blocks", "strips", "closed_form"],
)


def draw(mode="general", oriented=False, states=True, dim_t=1, x=3, y=4, batch=2):
    """Positional tensors: the names above, without what the mode leaves out, then the states."""
    axes = (4,) if oriented else ()
    grid, sizes = (x, y), {"query": (3, 1), "key": (3, 1), "value": (2, dim_t), "direct": (1, 1, 1, dim_t)}
    sizes |= dict.fromkeys(("source_r", "source_d"), (dim_t, 1, dim_t)) | dict.fromkeys(NAMES[6:8], (1, 1, dim_t))
    sizes |= dict.fromkeys(NAMES[8:], (dim_t, dim_t))
    shapes = [
        (*(() if name in NAMES[:4] else axes), *grid, *sizes[name])
        for name in NAMES
        if name not in MISSING.get(mode, ())
    ]  # fmt: skip
    if states:
        shapes += [(*axes, side, 3, 2, dim_t) for side in (y, x)]
    return tuple(0.6 * torch.randn(batch, *shape, dtype=torch.float64) for shape in shapes)


def op_of(implementation, mode, oriented, states, block_size=2):
    function = plstm_2d_oriented if oriented else plstm_2d
    names = [name for name in NAMES if name not in MISSING.get(mode, ())]

    def call(*tensors):
        arguments = dict(zip(names, tensors[: len(names)], strict=True))
        keywords = {"implementation": implementation, "block_size": block_size, "mode": "P" if mode == "P" else None}
        if not states:
            return (function(**arguments, **keywords),)
        output, borders = function(
            **arguments, **keywords, initial_state=tensors[len(names) :], return_last_state=True
        )  # fmt: skip
        return (output, *borders)

    return call


def pair(implementation, mode, oriented, states):
    return op_of(implementation, mode, oriented, states), op_of("recurrent", mode, oriented, states)


def loss_of(function):
    return lambda *tensors: sum(result.square().sum() for result in function(*tensors))


def assert_same(actual, expected, kind="gradient", dtype="float64"):
    actual, expected = ([x] if isinstance(x, torch.Tensor) else list(x) for x in (actual, expected))
    for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert_close(one.detach(), other.detach(), dtype, kind, f"tensor {index}")


@FORMS
@KINDS
def test_functional_gradients(implementation, mode, oriented, states, dim_t):
    fast, plain = pair(implementation, mode, oriented, states)
    tensors = draw(mode, oriented, states, dim_t)
    every = tuple(range(len(tensors)))
    assert_same(grad(loss_of(fast), every)(*tensors), grad(loss_of(plain), every)(*tensors))
    for of_transition in (jacrev, jacfwd):
        assert_same(*(of_transition(loss_of(function), 8)(*tensors) for function in (fast, plain)))


@FORMS
@KINDS
def test_forward_mode(implementation, mode, oriented, states, dim_t):
    fast, plain = pair(implementation, mode, oriented, states)
    tensors = draw(mode, oriented, states, dim_t)
    tangents = tuple(torch.randn_like(tensor) for tensor in tensors)
    expected, expected_tangents = jvp(plain, tensors, tangents)
    results, result_tangents = jvp(fast, tensors, tangents)
    assert_same(results, expected, "output")
    assert_same(result_tangents, expected_tangents)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*each) for each in zip(tensors, tangents, strict=True)]
        assert_same([forward_ad.unpack_dual(x).tangent for x in fast(*duals)], expected_tangents)


@FORMS
def test_derivatives_of_derivatives(implementation, mode, oriented, states):
    fast, plain = pair(implementation, mode, oriented, states)
    tensors = draw(mode, oriented, states, x=2, y=3, batch=1)
    every = tuple(range(len(tensors)))

    def squared_gradients(function):
        return lambda *x: sum(gradient.square().sum() for gradient in grad(loss_of(function), every)(*x))

    assert_same(*(grad(squared_gradients(function), every)(*tensors) for function in (fast, plain)))


@FORMS
@KINDS
def test_vmap(implementation, mode, oriented, states, dim_t):
    fast, plain = pair(implementation, mode, oriented, states)
    stacked = [torch.stack([tensor, 0.5 * tensor]) for tensor in draw(mode, oriented, states, dim_t)]
    expected = [plain(*(tensor[i] for tensor in stacked)) for i in range(2)]
    assert_same(vmap(fast)(*stacked), [torch.stack(parts) for parts in zip(*expected, strict=True)], "output")
    every = tuple(range(len(stacked)))
    assert_same(vmap(grad(loss_of(fast), every))(*stacked), vmap(grad(loss_of(plain), every))(*stacked))


@pytest.mark.parametrize("implementation", ["recurrent", "chunkwise", "parallel"])
@pytest.mark.parametrize(("mode", "oriented", "states", "dim_t"),
                         [("general", True, False, 1), ("L", True, True, 1), ("R", False, False, 2),
                          ("P", True, True, 1)])  # fmt: skip
def test_compiles_to_one_graph(implementation, mode, oriented, states, dim_t):
    torch.compiler.reset()
    function = op_of(implementation, mode, oriented, states)
    tensors = [tensor.requires_grad_() for tensor in draw(mode, oriented, states, dim_t)]
    results = torch.compile(function, fullgraph=True, backend="aot_eager")(*tensors)
    expected = function(*tensors)
    assert_same(results, expected, "output")
    assert_same(*(torch.autograd.grad(sum(y.square().sum() for y in x), tensors) for x in (results, expected)))


WRAPPERS = {
    "plain": lambda f: f,
    "vmap": vmap,
    "checkpoint": lambda f: lambda *tensors: checkpoint(f, *tensors, use_reentrant=False),
}


@pytest.mark.parametrize("wrapper", list(WRAPPERS))
def test_directed_mode_stays_itself_when_compiled(wrapper):
    torch.compiler.reset()
    called = set()

    def backend(graph, _):
        modules = [module for module in graph.modules() if isinstance(module, torch.fx.GraphModule)]
        called.update(str(node.target) for module in modules for node in module.graph.nodes)
        return graph

    wrapped = WRAPPERS[wrapper](loss_of(op_of("recurrent", "P", False, True)))
    tensors = draw("P", False, True, batch=1)
    if wrapper == "vmap":
        tensors = [torch.stack([tensor, 0.5 * tensor]) for tensor in tensors]
    result = torch.compile(wrapped, fullgraph=True, backend=backend)(*tensors)
    assert {name for name in called if "grid_walk" in name} == {"plstm_torch.grid_walk_directed.default"}
    assert_same(result, wrapped(*tensors))


def test_compiles_with_one_tensor_in_several_places():
    torch.compiler.reset()
    tensors = [tensor.requires_grad_() for tensor in draw("P", True, False, x=5, y=7)]

    def function(query, _, value, direct, source, __, mark, transition, ___):
        return plstm_2d_oriented(
            query, query, value, source_r=source, source_d=source, transition_rl=transition, transition_ru=transition,
            transition_du=transition, mark_l=mark, mark_u=mark, direct=direct, implementation="chunkwise", block_size=4,
        )  # fmt: skip

    result = torch.compile(function, fullgraph=True, backend="aot_eager")(*tensors)
    expected = function(*tensors)
    assert_same(result, expected, "output")
    used = [tensors[place] for place in (0, 2, 3, 4, 6, 7)]
    assert_same(*(torch.autograd.grad(x.square().sum(), used) for x in (result, expected)))


@pytest.mark.parametrize("implementation", ["recurrent", "chunkwise", "parallel"])
def test_autocast_around_a_compiled_call_has_no_effect(implementation):
    torch.compiler.reset()
    function = op_of(implementation, "general", False, False)
    tensors = [tensor.float().requires_grad_() for tensor in draw("general", False, False, 2, x=2, y=3)]
    expected = function(*tensors)
    with torch.autocast("cpu", torch.bfloat16):
        results = torch.compile(function, fullgraph=True, backend="aot_eager")(*tensors)
        found = torch.autograd.grad(sum(x.square().sum() for x in results), tensors)
    assert_same(results, expected, "output", "float32")
    assert_same(found, torch.autograd.grad(loss_of(function)(*tensors), tensors), dtype="float32")


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["chunkwise", "parallel"])
def test_compiles_with_the_default_backend(implementation):
    torch.compiler.reset()
    function = op_of(implementation, "L", True, implementation == "chunkwise")
    states = implementation == "chunkwise"
    tensors = [tensor.requires_grad_() for tensor in draw("L", True, states, x=2, y=3, batch=1)]
    results = torch.compile(function, fullgraph=True)(*tensors)
    assert_same(results, function(*tensors), "output")
    expected = torch.autograd.grad(loss_of(function)(*tensors), tensors)
    assert_same(torch.autograd.grad(sum(x.square().sum() for x in results), tensors), expected)


def random(*sizes):
    return [torch.randn(*size, requires_grad=True) for size in sizes]


@pytest.mark.parametrize(
    ("form", "sizes"),
    [
        (attention._ATTENTION, [(2, 3, 4), (2, 5, 4), (2, 5, 6), (2, 3, 5)]),
        (lines._LINE, [(2, 4)]),
        (separable._TURNING, [(2, 4, 3, 5, 5), (2, 4, 5, 3, 3), (2, 5, 3, 3)]),
        (strips._FORWARDS, [(2, 3, 7, 4), (2, 3, 7, 5)]),
        (strips._BACKWARDS, [(2, 3, 7, 4), (2, 3, 7, 5)]),
        (
            recurrent._FORMS[tuple(name for name in Gates.__dataclass_fields__ if name != "transition_dl")],
            [
                *((2, 3, 4, 5, 1), (2, 3, 4, 5, 1), (2, 3, 4, 6, 1), (2, 4, 5, 6, 1), (2, 3, 5, 6, 1)),
                *([(2, 3, 4, 1, 1, 1)] * 2 + [(2, 3, 4, 1, 1)] * 3 + [(2, 3, 4, 1, 1, 1)] * 2),
            ],
        ),
        (
            block_step._DENSE,
            [
                *((2, 6, 4, 2), (2, 6, 4, 1), (2, 6, 3, 5), (2, 6, 2, 2, 3), (2, 6, 2, 2, 2), (2, 6, 3, 1, 3)),
                *((2, 6, 3, 1, 2), (2, 3, 3), (2, 3, 2), (2, 2, 3), (2, 2, 2), (2, 3, 20), (2, 2, 20)),
            ],
        ),
        (
            block_step._SEPARABLE,
            [
                *((2, 6, 4, 1), (2, 6, 4, 1), (2, 6, 1, 5), (2, 2, 3), (2, 6, 1, 1, 2), (2, 6, 1, 1, 3), (2, 2, 3)),
                *((2, 3), (2, 3, 2), (2, 2), (2, 3, 20), (2, 2, 20)),
            ],
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_operators_are_registered_correctly(form, sizes):
    torch.library.opcheck(form.operator, (random(*sizes),))


@FORMS
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(implementation, mode, oriented, states, reentrant):
    function = op_of(implementation, mode, oriented, states)
    tensors = [tensor.requires_grad_() for tensor in draw(mode, oriented, states)]
    expected = torch.autograd.grad(loss_of(function)(*tensors), tensors)
    results = checkpoint(function, *tensors, use_reentrant=reentrant)
    sum(result.square().sum() for result in results).backward()
    assert_same([tensor.grad for tensor in tensors], expected)
