"""What the original project computed, under jit, to ten times the accuracy of the recording."""

import numpy as np
import pytest

from plstm_jax.check import IMPLEMENTATIONS, run_op
from plstm_testing import golden
from plstm_testing.conformance import OpCall
from plstm_testing.tolerances import assert_within

OPS = {"op_1d": "plstm_1d", "op_2d": "plstm_2d", "op_2d_four_orientations": "plstm_2d_oriented"}
CASES = [
    (name, OPS[kind], form) for kind in OPS for name in golden.names(kind) for form in IMPLEMENTATIONS[OPS[kind]][1:]
]


@pytest.mark.parametrize(("name", "op", "implementation"), CASES)
def test_golden(name, op, implementation):
    case = golden.load(name)
    inputs = dict(case.inputs)
    cotangent, cotangent_state = inputs.pop("cotangent"), inputs.pop("cotangent_state", None)
    keywords = {"implementation": implementation, "return_last_state": cotangent_state is not None}
    result = run_op(OpCall(op, inputs, {}, keywords, cotangent, cotangent_state), quick=True)
    assert_within(result.output, case.outputs["output"], case.limit, "output")
    if "last_state" in case.outputs:
        assert_within(result.last_state, case.outputs["last_state"], case.limit, "last state")
    assert case.gradients
    for argument, gradient in case.gradients.items():
        assert_within(np.asarray(result.gradients[argument]), gradient, case.limit, f"gradient of {argument}")
