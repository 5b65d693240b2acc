"""Deliberately broken backends: the suite must catch every one of them.

Each mutant is the reference with one fault of the kind that fast implementations really have. A mutant that passes
means that the suite has a hole.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from plstm_config.shapes import DIRECTED, ORIENTATIONS, PLSTM_1D

from . import truth
from .adapter import OpCall, Result, Value
from .numpy_adapter import NumpyAdapter

Gradients = dict[str, Any]


@dataclass(frozen=True)
class Mutant:
    """A fault.

    Attributes:
        name: what is wrong.
        op: the op it breaks.
        adapter: the broken backend.
    """

    name: str
    op: str
    adapter: NumpyAdapter


class Rewritten(NumpyAdapter):
    """Answers another question than the one asked: forward pass and gradients of a rewritten call."""

    def __init__(self, op: str, rewrite: Callable[[OpCall], OpCall]) -> None:
        self._op = op
        self._rewrite = rewrite

    def forward(self, call: OpCall) -> Any:
        """Forward pass of the rewritten call."""
        return super().forward(self._rewrite(call) if call.op == self._op else call)

    def gradients(self, call: OpCall) -> Mapping[str, Value]:
        """Gradients of the rewritten call."""
        return super().gradients(self._rewrite(call) if call.op == self._op else call)


class WrongGradients(NumpyAdapter):
    """A right forward pass whose gradients are spoilt."""

    def __init__(self, op: str, spoil: Callable[[OpCall, Gradients], Gradients]) -> None:
        self._op = op
        self._spoil = spoil

    def gradients(self, call: OpCall) -> Mapping[str, Value]:
        """The spoilt gradients."""
        found = dict(super().gradients(call))
        return self._spoil(call, found) if call.op == self._op else found


class WrongResults(NumpyAdapter):
    """Right gradients, but the result is spoilt on its way out."""

    def __init__(self, op: str, spoil: Callable[[OpCall, Result], Result]) -> None:
        self._op = op
        self._spoil = spoil

    def run_op(self, call: OpCall) -> Result:
        """The spoilt result."""
        result = super().run_op(call)
        return self._spoil(call, result) if call.op == self._op else result


class WrongOps(NumpyAdapter):
    """An op that is missing, or has another signature or other manners."""

    def __init__(self, op: str, function: Callable[..., Any] | None) -> None:
        others = {name: present for name, present in NumpyAdapter.ops.items() if name != op}
        self.ops = others | ({op: function} if function is not None else {})


def swapped(one: str, other: str) -> Callable[[OpCall], OpCall]:
    """Exchange two arguments."""

    def rewrite(call: OpCall) -> OpCall:
        names = {one: other, other: one}
        given = truth.with_same(call.arguments, call.same)
        arguments = {name: given[names.get(name, name)] for name in given}
        return replace(call, arguments={name: arguments[name] for name in call.arguments})

    return rewrite


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[OpCall], OpCall]:
    """Replace one argument by a function of it, where it is given."""

    def rewrite(call: OpCall) -> OpCall:
        if call.arguments.get(name) is None:
            return call
        return replace(call, arguments={**call.arguments, name: change(call.arguments[name])})

    return rewrite


def without_keyword(name: str) -> Callable[[OpCall], OpCall]:
    """Forget an option."""
    return lambda call: replace(call, keywords={key: value for key, value in call.keywords.items() if key != name})


def gradients_within_chunks(call: OpCall, gradients: Gradients) -> Gradients:
    """1D: treat the state at each chunk's start as a constant, so no gradient crosses it."""
    length = call.arguments["query"].shape[1]
    if "cu_seqlens" in call.keywords or length < 2:
        return gradients
    state, parts, bounds = call.arguments.get("initial_state"), [], [0, length // 2, length]
    for start, end in pairwise(bounds):
        arguments = {name: call.arguments[name][:, start:end] for name in PLSTM_1D}
        if state is not None:
            arguments["initial_state"] = state
        last = call.cotangent_state if end == length else None
        cotangent = None if call.cotangent is None else call.cotangent[:, start:end]
        keywords = {**call.keywords, "return_last_state": True}
        answer = truth.evaluate(
            replace(call, arguments=arguments, keywords=keywords, cotangent=cotangent, cotangent_state=last)
        )
        parts.append(answer.gradients)
        state = answer.last_state
    joined: Gradients = {name: np.concatenate([np.asarray(part[name]) for part in parts], axis=1) for name in PLSTM_1D}
    if "initial_state" in call.arguments:
        joined["initial_state"] = parts[0]["initial_state"]
    return joined


def no_state_gradient(call: OpCall, gradients: Gradients) -> Gradients:
    """The state that enters counts as a constant."""
    found = dict(gradients)
    for name in {"initial_state", "state"} & gradients.keys():
        state = gradients[name]
        found[name] = tuple(map(np.zeros_like, state)) if isinstance(state, tuple) else np.zeros_like(state)
    return found


def last_state_cotangent_ignored(call: OpCall, gradients: Gradients) -> Gradients:
    """Nothing flows back from the last state."""
    return dict(truth.evaluate(replace(call, cotangent_state=None)).gradients)


def shared_gradient_halved(call: OpCall, gradients: Gradients) -> Gradients:
    """An array that is passed twice gets the gradient of one of its places only."""
    apart = dict(call.arguments) | {name: np.array(call.arguments[source]) for name, source in call.same.items()}
    found = truth.evaluate(replace(call, arguments=apart, same={})).gradients
    return {name: found[name] for name in gradients}


def what_the_mode_leaves_out(call: OpCall) -> OpCall:
    """P-mode: reads `transition_ru` and the other gates that are to be refused where they are given."""
    if call.keywords.get("mode") != "P":
        return call
    missing = {name: serving for name, serving in DIRECTED.items() if call.arguments.get(name) is None}
    return replace(
        call,
        arguments={name: value for name, value in call.arguments.items() if name not in missing},
        same={**call.same, **{name: call.same.get(serving, serving) for name, serving in missing.items()}},
        keywords=_without_mode(call),
    )


def mixed_transitions_forgotten(call: OpCall) -> OpCall:
    """P-mode: what is left out counts as zero, as it does without the mode."""
    if call.keywords.get("mode") != "P":
        return call
    marks = {"mark_u": call.arguments["mark_l"]}
    return replace(call, arguments={**call.arguments, **marks}, keywords=_without_mode(call))


def _without_mode(call: OpCall) -> dict[str, Any]:
    return {name: value for name, value in call.keywords.items() if name != "mode"}


def state_of_previous_step(call: OpCall, result: Result) -> Result:
    """The last state lacks the last step."""
    length = call.arguments["query"].shape[1]
    if result.last_state is None or length == 0 or "cu_seqlens" in call.keywords:
        return result
    arguments = {name: array[:, :-1] if name in PLSTM_1D else array for name, array in call.arguments.items()}
    shorter = truth.evaluate(replace(call, arguments=arguments, cotangent=None, cotangent_state=None))
    return replace(result, last_state=shorter.last_state)


def state_before_the_step(call: OpCall, result: Result) -> Result:
    """A step hands on the state that it was given."""
    return replace(result, last_state=call.arguments["state"])


def states_exchanged(call: OpCall, result: Result) -> Result:
    """What leaves on the right is said to leave at the bottom."""
    return replace(result, last_state=result.last_state[::-1]) if isinstance(result.last_state, tuple) else result


def state_in_low_precision(call: OpCall, result: Result) -> Result:
    """States come in the dtype of the values."""
    state = truth.rounded(result.last_state, call.dtype)
    return replace(result, last_state=state, state_dtype=None if state is None else call.dtype)


def output_in_float32(call: OpCall, result: Result) -> Result:
    """The output comes in the dtype of the computation."""
    return replace(result, output_dtype="float64" if call.dtype == "float64" else "float32")


def spread(call: OpCall, result: Result) -> Result:
    """What is not finite spoils all of its row, as products with masks let it."""
    rows = np.isfinite(result.output).reshape(len(result.output), -1).all(axis=1)
    return replace(result, output=np.where(rows.reshape(-1, *(1,) * (result.output.ndim - 1)), result.output, np.nan))


def healed(call: OpCall, result: Result) -> Result:
    """What is not finite is replaced."""
    return replace(result, output=np.nan_to_num(result.output))


class PaddedByIdentity(NumpyAdapter):
    """Grids: fills ragged sides up to whole blocks, and knows by the identity of an array which gate it is."""

    SIDE = 4

    def forward(self, call: OpCall) -> Any:
        """The padded call, cut to the sizes of the one asked for."""
        if call.op != "plstm_2d":
            return super().forward(call)
        given = truth.with_same(call.arguments, call.same)
        x, y = given["query"].shape[1:3]
        keywords = {**call.keywords, "return_last_state": True}
        padded = replace(call, arguments=self._padded(given, x, y), same={}, keywords=keywords)
        output, (right, bottom) = super().forward(padded)
        states = right[:, :y], bottom[:, :x]
        return (output[:, :x, :y], states) if call.keywords.get("return_last_state") else output[:, :x, :y]

    def _padded(self, given: Mapping[str, Any], x: int, y: int) -> dict[str, Any]:
        more_x, more_y = -x % self.SIDE, -y % self.SIDE
        beyond_x, beyond_y = np.arange(x + more_x) >= x, np.arange(y + more_y) >= y
        passing = {"r": beyond_x[:, None] & ~beyond_y, "d": ~beyond_x[:, None] & beyond_y}
        gates = {name: array for name, array in given.items() if isinstance(array, np.ndarray)}
        names = {id(array): name for name, array in gates.items()}
        done: dict[str, Any] = dict(given)
        for name, array in gates.items():
            known = names[id(array)]  # the fault: of several names the last
            widths = [(0, 0), (0, more_x), (0, more_y), *[(0, 0)] * (array.ndim - 3)]
            done[name] = np.pad(array, widths)
            if known.startswith("transition"):
                passes = passing[known.removeprefix("transition_")[0]]
                done[name] = done[name] + passes[..., None, None] * np.eye(array.shape[-1])
        if "initial_state" in given:
            sides = zip(given["initial_state"], (more_y, more_x), strict=True)
            done["initial_state"] = tuple(np.pad(state, [(0, 0), (0, more)] + [(0, 0)] * 3) for state, more in sides)
        return done


class Unflipped(NumpyAdapter):
    """Oriented grids: only the axes in `mask` ever flip, so two orientations walk the same way."""

    def __init__(self, mask: int) -> None:
        self._mask = mask

    def forward(self, call: OpCall) -> Any:
        """Each orientation on its own, in the slot of the walk it takes instead."""
        if call.op != "plstm_2d_oriented":
            return super().forward(call)
        given = truth.with_same(call.arguments, call.same)
        keywords = {**call.keywords, "return_last_state": True}
        total, rights, bottoms = np.zeros(()), [], []
        for orientation in range(ORIENTATIONS):
            walk = orientation & self._mask
            arguments = {name: self._placed(name, value, orientation, walk) for name, value in given.items()}
            output, (right, bottom) = self.ops[call.op](**arguments, **keywords)
            total = total + output
            rights.append(right[:, walk])
            bottoms.append(bottom[:, walk])
        states = np.stack(rights, axis=1), np.stack(bottoms, axis=1)
        return (total, states) if call.keywords.get("return_last_state") else total

    @staticmethod
    def _placed(name: str, value: Any, orientation: int, walk: int) -> Any:
        if isinstance(value, tuple):
            return tuple(Unflipped._placed(name, part, orientation, walk) for part in value)
        if name == "direct":
            return value if orientation == 0 else np.zeros_like(value)
        if value is None or not (is_oriented(name) or name == "initial_state"):
            return value
        placed = np.zeros_like(value)
        placed[:, walk] = value[:, orientation]
        return placed


def flip_back(axis: int) -> Callable[[OpCall], OpCall]:
    """Oriented grids: read the gates in the coordinates of the walk instead of the image's, along one axis."""
    oriented = {2: (1, 3), 3: (2, 3)}[axis]

    def flip(array: Any) -> Any:
        array = np.array(array)
        for orientation in oriented:
            array[:, orientation] = np.flip(array[:, orientation], axis - 1)
        return array

    def rewrite(call: OpCall) -> OpCall:
        gates = {name: flip(array) for name, array in call.arguments.items() if is_oriented(name) and array is not None}
        return replace(call, arguments={**call.arguments, **gates})

    return rewrite


def is_oriented(name: str) -> bool:
    """Whether an argument of the oriented op has the axis O in front of the grid."""
    return name.startswith(("source", "transition", "mark"))


def sloppy_plstm_1d(*arrays: Any, implementation: str = "auto", **keywords: Any) -> Any:
    """Falls back silently where the implementation is unknown; see `reference.plstm_1d`."""
    known = implementation if implementation == "recurrent" else "auto"
    return NumpyAdapter.ops["plstm_1d"](*arrays, implementation=known, **keywords)


def transposed(array: Any) -> Any:
    """Exchange the two state-tracking dimensions."""
    return np.swapaxes(array, -1, -2).copy()


def shifted(array: Any) -> Any:
    """Every step uses the entry of the step before."""
    return np.roll(array, 1, axis=1)


MUTANTS: tuple[Mutant, ...] = (
    Mutant("no_gradient_between_chunks", "plstm_1d", WrongGradients("plstm_1d", gradients_within_chunks)),
    Mutant("no_gradient_to_initial_state", "plstm_1d", WrongGradients("plstm_1d", no_state_gradient)),
    Mutant("no_gradient_from_last_state", "plstm_1d", WrongGradients("plstm_1d", last_state_cotangent_ignored)),
    Mutant("off_by_one_mark", "plstm_1d", Rewritten("plstm_1d", changed("mark", shifted))),
    Mutant("off_by_one_transition", "plstm_1d", Rewritten("plstm_1d", changed("transition", shifted))),
    Mutant("transposed_transition", "plstm_1d", Rewritten("plstm_1d", changed("transition", transposed))),
    Mutant("positive_transition", "plstm_1d", Rewritten("plstm_1d", changed("transition", np.abs))),
    Mutant("zero_transition_avoided", "plstm_1d", Rewritten("plstm_1d", changed("transition", lambda t: t + 1e-6))),
    Mutant("forgotten_scale", "plstm_1d", Rewritten("plstm_1d", without_keyword("scale"))),
    Mutant("no_direct_term", "plstm_1d", Rewritten("plstm_1d", changed("direct", np.zeros_like))),
    Mutant("state_of_previous_step", "plstm_1d", WrongResults("plstm_1d", state_of_previous_step)),
    Mutant("state_in_low_precision", "plstm_1d", WrongResults("plstm_1d", state_in_low_precision)),
    Mutant("output_in_float32", "plstm_1d", WrongResults("plstm_1d", output_in_float32)),
    Mutant("state_of_previous_step", "plstm_1d_step", WrongResults("plstm_1d_step", state_before_the_step)),
    Mutant("no_gradient_to_state", "plstm_1d_step", WrongGradients("plstm_1d_step", no_state_gradient)),
    Mutant("missing_op", "plstm_1d", WrongOps("plstm_1d", None)),
    Mutant("silent_fallback", "plstm_1d", WrongOps("plstm_1d", sloppy_plstm_1d)),
    Mutant("swapped_sources", "plstm_2d", Rewritten("plstm_2d", swapped("source_r", "source_d"))),
    Mutant("swapped_marks", "plstm_2d", Rewritten("plstm_2d", swapped("mark_l", "mark_u"))),
    Mutant("swapped_mixed_transitions", "plstm_2d", Rewritten("plstm_2d", swapped("transition_dl", "transition_ru"))),
    Mutant("swapped_transitions", "plstm_2d", Rewritten("plstm_2d", swapped("transition_rl", "transition_du"))),
    Mutant("no_gradient_to_borders", "plstm_2d", WrongGradients("plstm_2d", no_state_gradient)),
    Mutant("no_gradient_from_borders", "plstm_2d", WrongGradients("plstm_2d", last_state_cotangent_ignored)),
    Mutant("shared_gradient_halved", "plstm_2d", WrongGradients("plstm_2d", shared_gradient_halved)),
    Mutant("padded_by_identity", "plstm_2d", PaddedByIdentity()),
    Mutant("mixed_transitions_forgotten", "plstm_2d", Rewritten("plstm_2d", mixed_transitions_forgotten)),
    Mutant("mode_reads_too_much", "plstm_2d", Rewritten("plstm_2d", what_the_mode_leaves_out)),
    Mutant("borders_exchanged", "plstm_2d", WrongResults("plstm_2d", states_exchanged)),
    Mutant("unflipped_x", "plstm_2d_oriented", Unflipped(mask=2)),
    Mutant("unflipped_y", "plstm_2d_oriented", Unflipped(mask=1)),
    Mutant("gates_along_the_walk_in_x", "plstm_2d_oriented", Rewritten("plstm_2d_oriented", flip_back(2))),
    Mutant("gates_along_the_walk_in_y", "plstm_2d_oriented", Rewritten("plstm_2d_oriented", flip_back(3))),
    Mutant("swapped_sources", "plstm_2d_oriented", Rewritten("plstm_2d_oriented", swapped("source_r", "source_d"))),
    Mutant("no_gradient_to_borders", "plstm_2d_oriented", WrongGradients("plstm_2d_oriented", no_state_gradient)),
    Mutant("off_by_one_mark", "plstm_graph", Rewritten("plstm_graph", changed("mark", shifted))),
    Mutant("positive_transition", "plstm_graph", Rewritten("plstm_graph", changed("transition", np.abs))),
    Mutant("no_gradient_to_initial_state", "plstm_graph", WrongGradients("plstm_graph", no_state_gradient)),
    Mutant("spreads_what_is_not_finite", "plstm_1d", WrongResults("plstm_1d", spread)),
    Mutant("hides_what_is_not_finite", "plstm_1d", WrongResults("plstm_1d", healed)),
    Mutant("spreads_what_is_not_finite", "plstm_graph", WrongResults("plstm_graph", spread)),
    Mutant("spreads_what_is_not_finite", "plstm_2d", WrongResults("plstm_2d", spread)),
    Mutant("spreads_what_is_not_finite", "plstm_2d_oriented", WrongResults("plstm_2d_oriented", spread)),
)
