"""The golden data come complete and unchanged."""

import numpy as np
import pytest

from plstm_testing import golden


def test_every_case_loads():
    names = golden.names()
    assert len(names) == len(set(names)) == 68
    for case in golden.cases():
        assert case.outputs["output"].shape == case.inputs["cotangent"].shape
        assert set(case.gradients) <= {*case.inputs, *(f"param/{name}" for name in case.parameters)}
        for name, array in {**case.inputs, **case.parameters, **case.outputs, **case.gradients}.items():
            assert np.all(np.isfinite(array)), name
        assert (case.config is None) == case.kind.startswith("op_")
        assert case.limit == 10 * case.rtol


def test_selection_by_kind():
    assert golden.names("norm") == ("norm_multihead_rms", "norm_multihead_layer", "norm_rms", "norm_layer")
    assert [case.kind for case in golden.cases("model_lm")] == ["model_lm"]
    with pytest.raises(ValueError, match=r"kind: expected one of .*, got 'poem'"):
        golden.names("poem")
    with pytest.raises(ValueError, match=r"name: expected one of .*, got 'poem'"):
        golden.load("poem")


def test_a_caller_may_change_what_it_gets():
    golden.load("layer_1d").config["input_dim"] = -7
    assert golden.load("layer_1d").config["input_dim"] == 32
