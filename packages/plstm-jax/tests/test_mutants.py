"""The conformance suite notices every fault in the answers of this backend, too."""

from functools import partial

import jax
import pytest

from plstm_jax import ops
from plstm_jax.check import IMPLEMENTATIONS, run_op
from plstm_testing.conformance.mutants import MUTANTS
from plstm_testing.conformance.spoiling import find_failure

OPS = {name: getattr(ops, name) for name in IMPLEMENTATIONS}
FORMS = {name: forms[1] for name, forms in IMPLEMENTATIONS.items() if len(forms) > 1}


@pytest.fixture(autouse=True)
def compiled_once(tmp_path_factory):
    """Most mutants run the same programs."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.getbasetemp() / "programs"))
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.op}-{mutant.name}")
def test_mutant_is_caught(mutant):
    assert find_failure(mutant, OPS, partial(run_op, quick=True), FORMS) is not None, f"no check notices: {mutant.name}"
