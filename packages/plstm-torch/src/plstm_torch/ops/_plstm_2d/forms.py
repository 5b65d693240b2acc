"""The forms in operations of torch, and which of them suits a grid."""

from __future__ import annotations

from functools import partial

from plstm_torch.ops._exporting import is_exporting
from plstm_torch.ops._plstm_2d.chunkwise import chunkwise
from plstm_torch.ops._plstm_2d.parallel import parallel
from plstm_torch.ops._plstm_2d.problem import Problem, Result
from plstm_torch.ops._plstm_2d.recurrent import recurrent
from plstm_torch.ops._plstm_2d.spoilt import isolated

# Largest grids for which the quadratic form is faster, measured on a CPU: nodes of a square grid
QUADRATIC_NODES = {"L": 52**2, "R": 52**2, "P": 44**2, "general": 44**2}
QUADRATIC_NODES_MATRIX = 12**2
BLOCK_SIDE = 8


def suitable_form(problem: Problem) -> str:
    """The form in operations of torch that is fastest: "parallel" or "chunkwise"."""
    if is_exporting() and problem.gates.is_scalar and problem.gates.mode != "general":
        return "parallel"  # sizes may vary, and are not to be compared
    x, y = problem.query.shape[1:3]
    limit = QUADRATIC_NODES[problem.gates.mode] if problem.gates.is_scalar else QUADRATIC_NODES_MATRIX
    return "parallel" if x * y <= limit else "chunkwise"


def run_form(problem: Problem, name: str, block_size: int | None = None) -> Result:
    """Run a form by name.

    Args:
        problem: the call; no axis is empty.
        name: "recurrent", "parallel" or "chunkwise".
        block_size: side of a block of "chunkwise".

    Returns:
        Output [B, X, Y, DV, JO], and the leaving states if the problem asks for them.
    """
    if name == "recurrent":
        return recurrent(problem)
    if name == "chunkwise":
        side = block_size or BLOCK_SIDE
        return isolated(problem, partial(chunkwise, block=(side, side)))
    if problem.initial_state is None and not problem.return_last_state:
        return isolated(problem, lambda part: (parallel(part), None))
    x, y = problem.query.shape[1:3]
    return isolated(problem, partial(chunkwise, block=(x, y)))
