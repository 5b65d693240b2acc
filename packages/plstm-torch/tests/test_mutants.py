"""The conformance suite notices every fault in the answers of this backend, too."""

from functools import wraps

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_map

from plstm_testing.conformance.mutants import MUTANTS
from plstm_testing.conformance.spoiling import find_failure
from plstm_torch import ops
from plstm_torch.check import IMPLEMENTATIONS, run_op


def with_numpy(op):
    """An op that takes and returns numpy arrays, since some mutants put it together themselves."""

    def convert(value):
        if isinstance(value, tuple):
            return tuple(map(convert, value))
        return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value

    @wraps(op)
    def run(*arguments, **keywords):
        found = op(*map(convert, arguments), **{name: convert(value) for name, value in keywords.items()})
        return tree_map(lambda tensor: tensor.numpy(), found)

    return run


OPS = {name: with_numpy(getattr(ops, name)) for name in IMPLEMENTATIONS}
FORMS = {name: forms[1] for name, forms in IMPLEMENTATIONS.items() if len(forms) > 1}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.op}-{mutant.name}")
def test_mutant_is_caught(mutant):
    assert find_failure(mutant, OPS, run_op, FORMS) is not None, f"no check notices: {mutant.name}"
