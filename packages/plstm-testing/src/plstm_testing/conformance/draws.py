"""Random arguments of the ops, drawn so that states stay bounded however long the path is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plstm_config.shapes import Layout
from plstm_config.topology import DagTopology, Mode

from .adapter import Array, Value


@dataclass(frozen=True)
class Case:
    """Arguments of one op, and the weights that make a scalar of its results.

    Attributes:
        name: name of the case, unique within its op.
        op: name of the op.
        arguments: as in `OpCall`, before rounding to a dtype.
        same: as in `OpCall`.
        keywords: as in `OpCall`, without `implementation`.
        cotangent: weights of the output.
        cotangent_state: weights of the last state, None where it is not asked for.
    """

    name: str
    op: str
    arguments: Mapping[str, Any]
    same: Mapping[str, str] = field(default_factory=dict)
    keywords: Mapping[str, Any] = field(default_factory=dict)
    cotangent: Array | None = None
    cotangent_state: Value | None = None


def matrices(random: np.random.Generator, shape: list[int], bound: float) -> Array:
    """Matrices of random spectral norm, of either sign.

    Args:
        random: source of numbers.
        shape: of all of them; the last two axes are those of a matrix.
        bound: the largest norm.

    Returns:
        The matrices.
    """
    drawn = random.standard_normal(shape)
    if drawn.size == 0:
        return drawn
    norms = np.linalg.norm(drawn, ord=2, axis=(-2, -1), keepdims=True)
    sizes = random.uniform(0.3, 1.0, norms.shape)
    return bound * drawn / norms * sizes


def special_matrices(random: np.random.Generator, shape: list[int]) -> Array:
    """Transitions that break divisions and logarithms: exact zeros, signed units, and ordinary ones between."""
    ordinary = matrices(random, shape, 1.0)
    kinds = random.integers(0, 4, [*shape[:-2], 1, 1])
    unit = np.broadcast_to(np.eye(shape[-1]), shape)
    return np.select([kinds == 0, kinds == 1, kinds == 2], [np.zeros(shape), unit, -unit], ordinary)


def gate(random: np.random.Generator, layout: Layout, sizes: Mapping[str, int], bound: float = 0.9) -> Array:
    """One argument: a bounded transition for [..., JT, JT] and the [H, L] of graphs, else standard normal entries.

    Args:
        random: source of numbers.
        layout: letters of its axes.
        sizes: size of each letter.
        bound: the largest norm of a transition.

    Returns:
        The argument.
    """
    shape = [sizes[letter] for letter in layout]
    if layout[-2:] == ("JT", "JT"):
        return matrices(random, shape, bound)
    if layout == ("H", "L"):
        return matrices(random, [*shape, 1, 1], bound).reshape(shape)
    return random.standard_normal(shape)


def normal(random: np.random.Generator, sizes: Mapping[str, int], *letters: str) -> Array:
    """Standard normal entries in the shape that letters spell.

    Args:
        random: source of numbers.
        sizes: size of each letter.
        *letters: one for each axis.

    Returns:
        The array.
    """
    return random.standard_normal([sizes[letter] for letter in letters])


def random_dag(num_nodes: int = 8, seed: int = 0, mode: Mode = "P") -> DagTopology:
    """Draw a graph in which half of the pairs of nodes are joined, each from the lower to the higher node.

    Args:
        num_nodes: N.
        seed: what the edges follow from.
        mode: of the topology.

    Returns:
        The graph.
    """
    random = np.random.default_rng(seed)
    pairs = [(tail, head) for head in range(num_nodes) for tail in range(head) if random.random() < 0.5]
    return DagTopology.from_edges(num_nodes, pairs, mode)
