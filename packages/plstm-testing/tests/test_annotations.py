"""The shapes that public annotations promise are the ones that go in and come out."""

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

from plstm_testing import reference
from plstm_testing.conformance import truth
from plstm_testing.conformance.cases import OPS, cases

CASES = [case for op in OPS for case in cases(op) if case.arguments["query"].size < 500]


def checked(function):
    return jaxtyped(typechecker=beartype)(function)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{case.name}")
def test_ops(case):
    arguments = truth.with_same(case.arguments, case.same)
    keywords = {name: value for name, value in case.keywords.items() if name not in truth.TUNING}
    checked(getattr(reference, case.op))(**arguments, **keywords)
    keywords.pop("return_last_state")
    gradients = checked(getattr(reference, f"{case.op}_gradients"))
    gradients(**arguments, **keywords, cotangent=case.cotangent, cotangent_state=case.cotangent_state)


def test_layers():
    x = np.ones((2, 3, 8))
    checked(reference.gate)(x, np.ones((4, 3, 2)), np.ones((2, 2, 3, 2, 4)))
    checked(reference.projection)(x, np.ones((2, 3, 1, 2, 4)), np.ones((4, 3, 1)))
    checked(reference.transition)(x, np.ones((4, 3)), np.ones((2, 2, 3, 4)), np.ones((4, 3, 3)))
    checked(reference.rms_norm)(x, np.ones(8), np.ones(8))
    checked(reference.layer_norm)(x, np.ones(8))
    checked(reference.multi_head_norm)(x, np.ones((3, 8)), axis=1)
    checked(reference.convolution_1d)(x, np.ones((8, 1, 4)), np.ones(8))
    checked(reference.convolution_2d)(np.ones((1, 2, 3, 8)), np.ones((8, 1, 2, 2)))
    checked(reference.normalize)(np.eye(3), "qr")
    checked(reference.activation)("gelu", x)
    checked(reference.soft_cap)(x, 10.0)


def test_annotations_are_not_empty_promises():
    with pytest.raises(TypeCheckError):
        checked(reference.convolution_1d)(np.ones((1, 2, 8)), np.ones((7, 1, 4)))
