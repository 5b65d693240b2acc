"""The conformance suite notices every fault in the answers of this backend, too."""

from functools import partial

import pytest

from plstm_jax import ops
from plstm_jax.check import IMPLEMENTATIONS, run_op
from plstm_testing.conformance.mutants import MUTANTS
from plstm_testing.conformance.spoiling import find_failure, remembering

OPS = {name: getattr(ops, name) for name in IMPLEMENTATIONS}
FORMS = {name: forms[1] for name, forms in IMPLEMENTATIONS.items() if len(forms) > 1}


RUN = remembering(partial(run_op, quick=True))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.op}-{mutant.name}")
def test_mutant_is_caught(mutant):
    assert find_failure(mutant, OPS, RUN, FORMS) is not None, f"no check notices: {mutant.name}"
