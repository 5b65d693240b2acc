"""The four products of one node: what equations 5 and 6 do with the arrays at a single place.

Letters: b batch or head, k and v the entries of DK and DV, p q r s the state-tracking indices JQ JK JV (p, r, s),
o JO, j and i JT.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

Array = np.ndarray


@dataclass(frozen=True)
class Contraction:
    """A product of arrays summed over indices, with the gradient to each of them.

    Every index of an operand occurs in the result or in another operand, so the gradient of one operand is the same
    kind of product with that operand and the result exchanged.
    """

    indices: str

    def __call__(self, *operands: Array) -> Array:
        """Compute the product."""
        return np.einsum(self.indices, *operands)

    def gradients(self, cotangent: Array, *operands: Array) -> tuple[Array, ...]:
        """Gradient of ``sum(cotangent * self(*operands))`` to every operand."""
        given, result = self.indices.split("->")
        letters = given.split(",")
        found = []
        for position, own in enumerate(letters):
            others = [*letters[:position], *letters[position + 1 :]]
            arrays = [*operands[:position], *operands[position + 1 :]]
            found.append(np.einsum(f"{','.join([result, *others])}->{own}", cotangent, *arrays))
        return tuple(found)


# S (K ⊗ V): what a node adds to the state of an edge.
WRITE = Contraction("bjrs,bkr,bvs->bkvj")
# T C: what a state becomes from one edge to the next.
MOVE = Contraction("bij,bkvj->bkvi")
# Q M C: what a node reads from the state of an edge.
READ = Contraction("bkp,bopj,bkvj->bvo")
# Q D (K ⊗ V): the skip at one node.
SKIP = Contraction("bkp,boprs,bkr,bvs->bvo")


def default_scale(scale: object, size: int) -> float:
    """`scale`, or ``size**-0.5`` where it is None."""
    return float(size) ** -0.5 if scale is None else float(np.asarray(scale))


def double(array: ArrayLike) -> Float[Array, "..."]:
    """The array in float64."""
    return np.asarray(array, dtype=np.float64)
