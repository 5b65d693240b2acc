"""What every form may rely on: kernels are compiled for the dtypes that they are given."""

from __future__ import annotations

import pytest
import torch

from plstm_testing.tolerances import assert_close
from plstm_torch.ops._fast_form import FastForm, formula_gradients


def formula(vector, gate):
    """Outputs of two dtypes, as an output in the dtype of value and states in that of the gates."""
    return vector * gate.to(vector.dtype), gate * vector.to(gate.dtype).sum(-1, keepdim=True)


SEEN: list[tuple[torch.dtype, ...]] = []


def gradients(inputs, saved, cotangents):
    SEEN.append(tuple(one.dtype for one in cotangents))
    return formula_gradients(formula)(inputs, saved, cotangents)


FORM = FastForm("of_two_dtypes", formula, lambda *inputs: (formula(*inputs), ()), gradients, formula, num_outputs=2)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("asked", [0, 1])
def test_cotangents_have_the_dtypes_of_outputs(asked, compiled):
    """Those that nobody asked for among them, which are zeros made here."""
    run = torch.compile(FORM, backend="aot_eager", fullgraph=True) if compiled else FORM
    vector = torch.randn(2, 3, dtype=torch.bfloat16).requires_grad_()
    gate = torch.randn(2, 1).requires_grad_()
    SEEN.clear()
    run(vector, gate)[asked].sum().backward()
    assert set(SEEN) == {(torch.bfloat16, torch.float32)}
    right = gate.detach() if asked == 0 else gate.detach().expand(2, 3)
    assert_close(vector.grad.double(), right.expand(2, 3).double(), "bfloat16")
