"""What a backend says that it has not, and is not asked for.

An adapter may have the attribute `lacks`, a sequence of names. Where a call needs what is lacked, the check that makes
it is not asked for; the report counts these and lists the names, so nobody takes what was left out for what passed.
What an op lacks it must refuse: a packed sequence that is run as one sequence is a wrong result without an error.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from plstm_config import shapes

from ..golden import GoldenCase
from . import truth
from .adapter import Adapter, ModuleCall, OpCall, Result
from .cases import OPS, cases
from .draws import Case

# What calls may need, with what a reader is told about it.
FEATURES = {
    "gradients": "derivatives of any kind",
    "packing": "several sequences in one row, by `cu_seqlens`",
    "states": "initial and last states of ops, caches and steps of modules",
    "state_tracking": "J dimensions above one",
}
# Groups of checks that hold an op to more than its numbers; those of modules.
GROUPS = (
    *("signatures", "layouts", "errors", "isolation", "long_range"),
    *("module_errors", "initial_values", "files"),
)
NAMES = (*FEATURES, *OPS, "plstm_1d_step", *GROUPS)
# Parameters of an op's signature that may be missing with a feature.
PARAMETERS = {"packing": ("cu_seqlens",), "states": ("initial_state", "return_last_state")}
_LAYOUTS = {
    "plstm_1d": shapes.PLSTM_1D,
    "plstm_1d_step": shapes.PLSTM_1D_STEP,
    "plstm_2d": shapes.PLSTM_2D,
    "plstm_2d_oriented": shapes.PLSTM_2D_ORIENTED,
    "plstm_graph": shapes.PLSTM_GRAPH_STATE_TRACKING,
}


class NotAskedError(Exception):
    """A check needs what the backend says that it lacks."""


def lacks(adapter: Adapter) -> frozenset[str]:
    """What a backend says that it lacks.

    Args:
        adapter: the backend.

    Returns:
        Some of `NAMES`.

    Raises:
        TypeError: if the attribute is no sequence.
        ValueError: if a name is none of them, or an op is both there and lacked.
    """
    names: Sequence[str] = getattr(adapter, "lacks", ())
    if not isinstance(names, str | Sequence | Set):
        raise TypeError(f"lacks: expected a sequence of names, got {type(names).__name__}")
    unknown = [names] if isinstance(names, str) else sorted(set(names) - set(NAMES))
    if unknown:
        raise ValueError(f"lacks: expected a sequence of names among {list(NAMES)}, got {unknown}")
    both = sorted(set(names) & set(adapter.ops))
    if both:
        raise ValueError(f"lacks: expected ops that are not among the adapter's `ops`, got {both}")
    return frozenset(names)


class Scoped:
    """A backend that is not asked for what it lacks.

    Args:
        adapter: the backend.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._lacks = lacks(adapter)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    def run_op(self, call: OpCall) -> Result:
        """Run an op without asking for gradients that are lacked.

        Args:
            call: the question.

        Returns:
            The answer.

        Raises:
            NotAskedError: if the call needs what is lacked.
            AssertionError: if gradients that are not lacked did not come.
        """
        _refuse(self._lacks & ({call.op} | needed(call)))
        if "gradients" not in self._lacks:
            result = self._adapter.run_op(call)
            if call.cotangent is not None and not result.gradients:
                raise AssertionError(
                    "gradients: expected one for each of the call's arguments, got none; an adapter of a backend "
                    'without gradients says lacks = ("gradients",)'
                )
            return result
        result = self._adapter.run_op(replace(call, cotangent=None, cotangent_state=None))
        return replace(result, gradients={}, has_gradients=False)

    def run_module(self, call: ModuleCall) -> Result:
        """The same for modules: derivatives that are lacked are not asked for."""
        caches = call.method == "step" or "cache" in call.keywords or bool(call.keywords.get("return_cache"))
        needs = {"packing"} if call.keywords.get("cu_seqlens") is not None else set()
        _refuse(self._lacks & (needs | ({"states"} if caches else set())))
        if "gradients" in self._lacks:
            call = replace(call, cotangent=None, directions={})
        return self._adapter.run_module(call)

    def run_golden(self, case: GoldenCase) -> Result:
        """The same for modules of the original project."""
        return replace(self._adapter.run_golden(case), has_gradients="gradients" not in self._lacks)


def needed(call: OpCall) -> set[str]:
    """The features that a call of an op needs, beside gradients."""
    found = set()
    if call.keywords.get("cu_seqlens") is not None:
        found.add("packing")
    if call.keywords.get("return_last_state") or call.arguments.get("initial_state") is not None:
        found.add("states")
    if any(_tracks_states(layout, call.arguments.get(name)) for name, layout in _LAYOUTS[call.op].items()):
        found.add("state_tracking")
    return found


def _tracks_states(layout: shapes.Layout, array: Any) -> bool:
    if not isinstance(array, np.ndarray) or array.ndim != len(layout):
        return False
    return any(letter.startswith("J") and size > 1 for letter, size in zip(layout, array.shape, strict=True))


def _refuse(needs: frozenset[str]) -> None:
    if needs:
        raise NotAskedError(f"not asked for, since the adapter lacks {', '.join(sorted(needs))}")


def refusals(adapter: Adapter, implementations: Callable[[Adapter, str], Sequence[str]]) -> Iterator[tuple[str, Any]]:
    """The checks, by name, that ops refuse what the backend lacks.

    Args:
        adapter: the backend.
        implementations: the forms of an op.

    Yields:
        Each of them.
    """
    lacked = lacks(adapter)
    for op in OPS:
        for feature in FEATURES:
            if feature in lacked and op in adapter.ops:
                for case in _examples(op, feature):
                    for form in implementations(adapter, op):
                        yield f"{op}-{form}-refuses_{feature}", partial(check_refused, adapter, case, form, feature)


def check_refused(adapter: Adapter, case: Case, implementation: str, feature: str) -> None:
    """A call that needs what is lacked raises, rather than give numbers that mean something else.

    Args:
        adapter: the backend.
        case: the call.
        implementation: asked for.
        feature: that the call needs.

    Raises:
        AssertionError: if it gives a result.
    """
    backend = getattr(adapter, "_adapter", adapter)
    forward = replace(case, cotangent=None, cotangent_state=None)
    try:
        backend.run_op(truth.call(forward, implementation, adapter.dtypes[0], adapter.devices[0]))
    except (ValueError, TypeError, NotImplementedError):
        return
    raise AssertionError(
        f"expected an error, since the adapter lacks {feature} ({FEATURES[feature]}), got a result: {case.op} must be "
        "given all of the call's arguments and keywords, and refuse those that it does not serve"
    )


def _examples(op: str, feature: str) -> list[Case]:
    """The case of an op that needs this feature and as few others as can be; none if no case needs it."""
    needs = [(case, needed(truth.call(case, "auto", "float64", "cpu"))) for case in cases(op)]
    found = sorted((len(features), place) for place, (_, features) in enumerate(needs) if feature in features)
    return [needs[place][0] for _, place in found[:1]]
