"""What travels through nested formulas beside their input: caches and borders of sequences, graphs and their edges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

from jax import Array

from plstm_jax.graphs import Graph

Cache: TypeAlias = dict[str, Any]
# What the input of a module is laid out on. "any": positions without an order, whatever the axes between the first and
# the last; such modules have no cache and take no graph, like those on grids.
Kind: TypeAlias = Literal["sequence", "grid", "graph", "any"]


@dataclass(frozen=True, repr=False)
class Context:
    """The one argument object of nested formulas.

    Attributes:
        cache: where the sequences stood before the input: the module's own cache, or None.
        return_cache: whether to collect the caches after the last step.
        cu_seqlens: borders of packed sequences [S + 1].
        stepping: whether the input is the next step of every sequence, without a time axis.
        graph: topology, or padded graph, of modules on graphs.
        edge_attr: features of its edges [E, De].
        training: whether paths are dropped.
        remat: whether blocks of a stack are computed anew in the backward pass instead of keeping their activations.
    """

    cache: Mapping[str, Any] | None = None
    return_cache: bool = False
    cu_seqlens: Any = None
    stepping: bool = False
    graph: Graph | None = None
    edge_attr: Array | None = None
    training: bool = False
    remat: bool = False

    def __repr__(self) -> str:
        """What was said, by name."""
        said = [item.name for item in fields(self) if getattr(self, item.name) is not item.default]
        return f"Context({', '.join(said)})"

    def of(self, name: str) -> Context:
        """The context of a submodule: the same with its part of the cache.

        Raises:
            ValueError: the cache was made by another module and has no such part.
        """
        if self.cache is None:
            return self
        if name not in self.cache:
            raise ValueError(
                f"cache: expected an entry {name!r} as init_cache makes it, got the entries {sorted(self.cache)}"
            )
        return replace(self, cache=self.cache[name])

    def check(self, kind: Kind, name: str) -> None:
        """Refuse what a module cannot do.

        Args:
            kind: what the module works on.
            name: its class, for the message.

        Raises:
            ValueError: something for sequences is asked of a module that is not on sequences, a graph is given to one
                that is not on graphs, or none to one that is.
        """
        require_sequence(kind, name, *self._sequence_requests())
        if kind == "graph" and self.graph is None:
            raise ValueError(f"graph: expected a DagTopology or an edge_index for {name}, got None")
        if kind != "graph" and (self.graph is not None or self.edge_attr is not None):
            given = "graph" if self.graph is not None else "edge_attr"
            raise ValueError(f"{given}: expected None, since {name} is not on graphs")

    def _sequence_requests(self) -> list[str]:
        given = {
            "step": self.stepping,
            "cache": self.cache is not None,
            "return_cache": self.return_cache,
            "cu_seqlens": self.cu_seqlens is not None,
        }
        return [name for name, used in given.items() if used][: 1 if self.stepping else None]


def require_sequence(kind: Kind, name: str, *requests: str) -> None:
    """Refuse what only modules with one time axis can do.

    Args:
        kind: what the module works on.
        name: its class, for the message.
        requests: names of the arguments or functions that were used.

    Raises:
        ValueError: `requests` is not empty although the module does not work on sequences.
    """
    if requests and kind != "sequence":
        raise ValueError(
            f"{', '.join(requests)}: expected a module with one time axis (pLSTM1DLayer inside), "
            f"got {name}, which has no cache and takes no packed sequences"
        )
