"""The forms in operations of JAX, and which of them suits a grid."""

from __future__ import annotations

from plstm_jax.ops._plstm_2d.chunkwise import chunkwise
from plstm_jax.ops._plstm_2d.problem import Problem, Result
from plstm_jax.ops._plstm_2d.recurrent import recurrent
from plstm_jax.ops._plstm_2d.spoilt import marked, reached, without_spoilt

BLOCK_SIZE = 8
# Up to this many nodes the quadratic form is faster, measured on CPU.
LARGEST_PARALLEL = 48 * 48


def suitable_form(x: int, y: int) -> str:
    """The form in operations of JAX that is fastest: "parallel" or "chunkwise"."""
    return "parallel" if x * y <= LARGEST_PARALLEL else "chunkwise"


def run_form(problem: Problem, name: str, *, enters: bool, block_size: int | None = None) -> Result:
    """Run a form by name.

    Args:
        problem: the call; no axis is empty.
        name: "recurrent", "chunkwise" or "parallel".
        enters: whether states were given.
        block_size: side of a block of "chunkwise".

    Returns:
        The output, and the states that leave.
    """
    if name == "recurrent":
        return recurrent(problem)
    side = BLOCK_SIZE if block_size is None else block_size
    x, y = problem.query.shape[1:3]
    result = chunkwise(without_spoilt(problem, enters=enters), (x, y) if name == "parallel" else (side, side))
    return marked(result, reached(problem, enters=enters))
