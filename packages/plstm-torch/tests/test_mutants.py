"""The conformance suite notices every fault in the answers of this backend, too."""

from dataclasses import replace
from functools import wraps
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_map

from plstm_testing.conformance import all_checks
from plstm_testing.conformance.mutants import MUTANTS
from plstm_testing.conformance.numpy_adapter import NumpyAdapter
from plstm_torch import ops
from plstm_torch.check import IMPLEMENTATIONS, run_op

# every fault shows in one of these; the names begin with a dash to be matched whole
CASES = (
    "-odd_length",
    "-initial_state",
    "-own_scale",
    "-state_tracking",
    "-full_odd_sides",
    "-P_odd_sides",
    "-dense_states",
)


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


class HonestAdapter(NumpyAdapter):
    """This backend where the mutants expect the reference: they spoil what it computes instead."""

    ops = MappingProxyType({name: with_numpy(getattr(ops, name)) for name in IMPLEMENTATIONS})
    # one fast form is enough: the faults lie outside of it
    implementations = MappingProxyType({op: names[1:2] for op, names in IMPLEMENTATIONS.items()})
    dtypes = ("float64", "bfloat16")

    def forward(self, call):
        if HonestAdapter.ops[call.op] is not self.ops[call.op]:
            return super().forward(call)  # an op with a fault of its own
        result = run_op(replace(call, cotangent=None, cotangent_state=None))
        return (result.output, result.last_state) if call.keywords.get("return_last_state") else result.output

    def gradients(self, call):
        return run_op(call).gradients


def broken(mutant):
    """The mutant's fault in this backend."""
    fault = mutant.adapter
    found = object.__new__(type(type(fault).__name__, (type(fault), HonestAdapter), {}))
    found.__dict__.update(vars(fault))
    return found


def first_failure(adapter, op):
    """The first check of values that fails; for a wrong op, of its signature."""
    form = IMPLEMENTATIONS[op][1]
    for group in ("signatures", "values"):
        for check in all_checks(adapter)[group]:
            if check.name != op and not (check.name.startswith(f"{op}-{form}-") and check.name.endswith(CASES)):
                continue
            try:
                check.run()
            except AssertionError as error:
                return f"{check.name}: {error}"
    return None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.op}-{mutant.name}")
def test_mutant_is_caught(mutant):
    assert first_failure(broken(mutant), mutant.op) is not None, f"no check notices: {mutant.name}"
