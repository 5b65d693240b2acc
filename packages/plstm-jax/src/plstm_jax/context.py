"""What travels through nested formulas beside their input: caches and borders of sequences, graphs and their edges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

from jax import Array

from plstm_config.checks import Kind, check_cache_entry, check_on_graph, check_sequence
from plstm_jax.graphs import Graph

Cache: TypeAlias = dict[str, Any]


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
        check_cache_entry(self.cache, name)
        return replace(self, cache=self.cache[name])

    def check(self, kind: Kind, name: str) -> None:
        """Refuse what a module cannot do.

        Args:
            kind: what the module works on.
            name: its class, for the message.

        Raises:
            TypeError: no graph is given to a module on graphs.
            ValueError: something for sequences is asked of a module that is not on sequences, or a graph is given to
                one that is not on graphs.
        """
        check_sequence(kind, name, self._sequence_requests())
        check_on_graph(kind, name, self.graph, self.edge_attr)

    def _sequence_requests(self) -> list[str]:
        given = {
            "step": self.stepping,
            "cache": self.cache is not None,
            "return_cache": self.return_cache,
            "cu_seqlens": self.cu_seqlens is not None,
        }
        return [name for name, used in given.items() if used][: 1 if self.stepping else None]
