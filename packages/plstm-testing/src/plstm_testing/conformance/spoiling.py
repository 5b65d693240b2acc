"""The mutants in another backend: their faults on top of what it computes, instead of the reference."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from .adapter import OpCall, Result
from .checks import all_checks
from .mutants import Mutant
from .numpy_adapter import NumpyAdapter

GROUPS = ("signatures", "values", "sharing", "steps", "errors", "isolation")
# Every fault shows in one of these; the names begin with a dash to be matched whole.
CASES = (
    "-odd_length",
    "-initial_state",
    "-own_scale",
    "-state_tracking",
    "-full_odd_sides",
    "-P_odd_sides",
    "-dense_states",
    "-straight",
    "-transition_ru_with_mode",
    "-spoilt_value_scalar",
    "-spoilt_value_states_scalar",
    "-spoilt_states_P",
)


def remembering(run_op: Callable[[OpCall], Result]) -> Callable[[OpCall], Result]:
    """The same, computed once for each question: most faults lie behind the same answers.

    Args:
        run_op: as in `Adapter`.

    Returns:
        A function that gives a question's first answer again.
    """
    answers: dict[bytes, Result] = {}

    def answer(call: OpCall) -> Result:
        key = pickle.dumps(call)
        if key not in answers:
            answers[key] = run_op(call)
        return answers[key]

    return answer


def find_failure(
    mutant: Mutant,
    ops: Mapping[str, Callable[..., Any]],
    run_op: Callable[[OpCall], Result],
    implementations: Mapping[str, str],
) -> str | None:
    """Break a backend as a mutant does, and look for the first check that notices.

    Args:
        mutant: the fault.
        ops: the backend's ops by name; they take numpy arrays.
        run_op: as in `Adapter`.
        implementations: the form of each op that is run, where there are several; one is enough, since the faults lie
            outside of it.

    Returns:
        The check and what it says (of the signature, for an op with a wrong one); None if nothing notices.
    """
    adapter = _spoil(mutant, ops, run_op, implementations)
    form = implementations.get(mutant.op)
    prefix = f"{mutant.op}-" if form is None else f"{mutant.op}-{form}-"
    checks = all_checks(adapter)
    for check in (check for group in GROUPS for check in checks[group]):
        if check.name != mutant.op and not (check.name.startswith(prefix) and check.name.endswith(CASES)):
            continue
        try:
            check.run()
        except AssertionError as error:
            return f"{check.name}: {error}"
    return None


def _spoil(
    mutant: Mutant,
    ops: Mapping[str, Callable[..., Any]],
    run_op: Callable[[OpCall], Result],
    implementations: Mapping[str, str],
) -> Any:
    own, forms = MappingProxyType(dict(ops)), {op: (form,) for op, form in implementations.items()}

    class Backend(NumpyAdapter):
        """The backend where the mutants expect the reference."""

        ops = own
        implementations: Mapping[str, Sequence[str]] = MappingProxyType(forms)
        dtypes: Sequence[str] = ("float64", "bfloat16")

        def forward(self, call: OpCall) -> Any:
            if self.ops[call.op] is not own[call.op]:
                return super().forward(call)  # an op with a fault of its own
            result = run_op(replace(call, cotangent=None, cotangent_state=None))
            return (result.output, result.last_state) if call.returns_state else result.output

        def gradients(self, call: OpCall) -> Any:
            return run_op(call).gradients

    fault = mutant.adapter
    found: Any = object.__new__(type(type(fault).__name__, (type(fault), Backend), {}))
    found.__dict__.update(vars(fault))
    return found
