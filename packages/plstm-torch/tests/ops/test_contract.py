"""The product that autocast leaves alone, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad, jvp, vmap

from plstm_testing.tolerances import assert_close
from plstm_torch.ops._contract import _contract_op, contract

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning")
EACH = pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("boik,bokj->boij", [(2, 3, 4, 5), (2, 3, 5, 6)]),
        ("...qmk,...oqmkv->...omv", [(2, 3, 4, 2), (2, 5, 3, 4, 2, 3)]),
    ],
    ids=["product", "ellipsis"],
)


def draw(shapes, dtype=torch.float64):
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def plain(equation):
    return lambda left, right: torch.einsum(equation, left, right)


def own(equation):
    return lambda left, right: contract(equation, left, right)


def assert_same(actual, expected, kind="gradient", dtype="float64"):
    for one, other in zip(actual, expected, strict=True):
        assert_close(one.detach(), other.detach(), dtype, kind)


@EACH
def test_is_einsum_under_every_transform(equation, shapes):
    tensors = draw(shapes)
    assert torch.autograd.gradgradcheck(own(equation), tensors, fast_mode=True)
    assert_same([own(equation)(*tensors)], [plain(equation)(*tensors)], "output")
    tangents = [torch.randn_like(tensor) for tensor in tensors]
    left, right = tensors
    for with_one in (lambda f: (lambda *x: f(*x), (0, 1)), lambda f: (lambda x: f(x, right), (0,)),
                     lambda f: (lambda x: f(left, x), (1,))):  # fmt: skip
        pushed = []
        for function in (own(equation), plain(equation)):
            chosen, some = with_one(function)
            pushed.append(jvp(chosen, tuple(tensors[i] for i in some), tuple(tangents[i] for i in some))[1])
        assert_same(pushed[:1], pushed[1:])
    stacked = [torch.stack([tensor, -tensor], 1) for tensor in tensors]
    squared = (lambda *x, f=function: f(*x).square().sum() for function in (own(equation), plain(equation)))
    assert_same(*(vmap(grad(function, (0, 1)), in_dims=1)(*stacked) for function in squared))


@EACH
def test_autocast_has_no_effect(equation, shapes):
    tensors = draw(shapes, torch.float32)
    expected = torch.autograd.grad(plain(equation)(*tensors).square().sum(), tensors)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(own(equation)(*tensors).square().sum(), tensors)
    assert_same(found, expected, dtype="float32")


@EACH
def test_operator_is_registered_correctly(equation, shapes):
    tensors = draw(shapes)
    torch.library.opcheck(_contract_op, (equation, *tensors))
    for in_dims in ((0, None), (None, 0)):
        stacked = [x if dim is None else torch.stack([x, -x]) for x, dim in zip(tensors, in_dims, strict=True)]
        results = (vmap(f, in_dims=in_dims)(*stacked) for f in (lambda *x: _contract_op(equation, *x), plain(equation)))
        assert_same(*results, "output")
