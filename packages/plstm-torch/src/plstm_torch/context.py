"""What travels through nested modules beside their input: caches and borders of sequences, graphs and their edges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from plstm_config.checks import Kind, check_cache_entry, check_causal, check_on_graph, check_sequence
from plstm_torch.module import Module

if TYPE_CHECKING:
    from plstm_torch.layers.graph_indices import Graph

Cache: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """The one argument object of nested calls.

    Attributes:
        cache: where the sequences stood before the input: the module's own cache, or None.
        return_cache: whether to collect the caches after the last step.
        cu_seqlens: borders of packed sequences [S + 1].
        stepping: whether the input is the next step of every sequence, without a time axis.
        graph: topology or edge_index of modules on graphs.
        edge_attr: features of its edges [E, De].
    """

    cache: Mapping[str, Any] | None = None
    return_cache: bool = False
    cu_seqlens: Int[Tensor, " S1"] | None = None
    stepping: bool = False
    graph: Graph | None = None
    edge_attr: Float[Tensor, "E De"] | None = None

    def of(self, name: str) -> Context:
        """The context of a submodule: the same with its part of the cache.

        Raises:
            ValueError: the cache was made by another module and has no such part.
        """
        if self.cache is None:
            return self
        check_cache_entry(self.cache, name)
        return replace(self, cache=self.cache[name])

    def _sequence_requests(self) -> list[str]:
        given = {
            "step": self.stepping,
            "cache": self.cache is not None,
            "return_cache": self.return_cache,
            "cu_seqlens": self.cu_seqlens is not None,
        }
        return [name for name, used in given.items() if used][: 1 if self.stepping else None]

    def check(self, module: nn.Module) -> None:
        """Refuse what a module cannot do.

        Raises:
            TypeError: no graph is given to a module on graphs.
            ValueError: something for sequences is asked of a module that is not on sequences, a cache or a step of one
                that is not causal, or a graph is given to one that is not on graphs.
        """
        kind, name = kind_of(module), type(module).__name__
        if kind != "sequence":
            check_sequence(kind, name, self._sequence_requests())
        check_on_graph(kind, name, self.graph, self.edge_attr)


def kind_of(module: object) -> Kind:
    """What a module works on; modules of others, which do not say, are "any"."""
    return getattr(module, "kind", "any")


def require_sequence(module: nn.Module, *requests: str) -> None:
    """Refuse what only modules with one time axis can do.

    Args:
        module: layer or block.
        requests: names of the arguments or methods that were used.

    Raises:
        ValueError: `requests` is not empty although `module` does not work on sequences.
    """
    check_sequence(kind_of(module), type(module).__name__, requests)


def require_causal(module: object, *requests: str) -> None:
    """Refuse what reads or predicts a sequence from its start.

    Args:
        module: any module; of others than ours nothing is known, and nothing refused.
        requests: names of the methods or tasks.

    Raises:
        ValueError: `requests` is not empty although `module` is bidirectional.
    """
    check_causal(kind_of(module), type(module).__name__, requests)


def is_spread(module: object) -> bool:
    """Whether a module holds one whose sequences or grids are spread over processes."""
    parts = module.modules() if isinstance(module, nn.Module) else ()
    return any(isinstance(part, Module) and getattr(part, "spread", None) is not None for part in parts)


def require_whole(module: object, *requests: str) -> None:
    """Refuse what reads the end of a sequence, of which only one rank has it.

    Args:
        module: any module; of others than ours nothing is known, and nothing refused.
        requests: names of the methods.

    Raises:
        ValueError: `requests` is not empty although sequences of `module` are spread over processes.
    """
    if requests and is_spread(module):
        raise ValueError(
            f"{', '.join(requests)}: expected a model on whole sequences, got one whose sequences are spread over "
            "ranks: read the prompt with return_cache=True and then `step`, or see context_parallel(model, None)"
        )


def call(module: nn.Module, x: Float[Tensor, "*batch D"], context: Context) -> tuple[Float[Tensor, "*batch D"], Cache]:
    """Call a submodule with what it understands of the context.

    Args:
        module: layer or block.
        x: input [B, T, D], [B, X, Y, D], [N, D] with a graph, or [B, D] when stepping.
        context: the module's own context.

    Returns:
        The output, and the new cache: empty unless it is asked for.

    Raises:
        ValueError: the module cannot do what the context asks.
    """
    context.check(module)
    if isinstance(module, ContextModule) and is_bare(module):
        return module.run(x, context)
    return _call_whole(module, x, context)


def is_bare(module: nn.Module) -> bool:
    """Whether nothing stands around the call of a module that `run` would leave out: no hooks, no compiled call."""
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return module._compiled_call_impl is None and not any(hooks)


def _call_whole(module: nn.Module, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
    """Call a module as its users do: hooks, what compiles it and what is wrapped around it stand around the call.

    A wrapper that hands out the attributes of what is inside, as those of torch do, is of the same kind.
    """
    if context.stepping:
        return module.step(x, context.cache)  # type: ignore[operator, no-any-return]
    graph = () if context.graph is None else (context.graph, context.edge_attr)
    given = {name: value for name in ("cache", "cu_seqlens") if (value := getattr(context, name)) is not None}
    if context.return_cache:
        return module(x, *graph, **given, return_cache=True)  # type: ignore[no-any-return]
    return module(x, *graph, **given), {}


class ContextModule(Module, ABC):
    """A module that runs under a context. Subclasses define `run` and `kind`, and get the public methods."""

    kind: Kind

    @abstractmethod
    def run(self, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """Compute the output, and the new cache where it is asked for (otherwise the second result has no meaning)."""

    def _parts(self) -> list[tuple[str, nn.Module]]:
        """The submodules that run under the context, by their names in the cache; a layer has none."""
        return []

    def init_cache(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Cache:
        """Make the cache of sequences that have not begun.

        Args:
            batch_size: number of sequences B.
            device: where the cache lives; default: where the parameters are.
            dtype: dtype of cached activations; default: the compute dtype.

        Returns:
            The cache, nested like the modules.

        Raises:
            ValueError: the module is not on sequences.
        """
        require_sequence(self, "init_cache")
        cache: Cache = {}
        for name, module in self._parts():
            require_sequence(module, "init_cache")
            cache[name] = module.init_cache(batch_size, device, dtype)  # type: ignore[operator]
        return cache

    def step(self, x: Float[Tensor, "B D"], cache: Mapping[str, Any]) -> tuple[Float[Tensor, "B D"], Cache]:
        """Advance by one time step, in constant time.

        Args:
            x: input [B, D] of any floating dtype.
            cache: cache of `init_cache`, `step` or a forward pass. It is not modified.

        Returns:
            Output [B, D] and the new cache.

        Raises:
            ValueError: the module is not on sequences, x has another rank or number of features, or the cache belongs
                to another module or batch size.
        """
        require_sequence(self, "step")
        return self.run(x, Context(cache=cache, return_cache=True, stepping=True))


class Block(ContextModule):
    """A module around layers of any kind; its own kind is theirs."""

    def forward(
        self,
        x: Float[Tensor, "*batch D"],
        graph: Graph | None = None,
        edge_attr: Float[Tensor, "E De"] | None = None,
        *,
        cache: Mapping[str, Any] | None = None,
        return_cache: bool = False,
        cu_seqlens: Int[Tensor, " S1"] | None = None,
    ) -> Float[Tensor, "*batch D"] | tuple[Float[Tensor, "*batch D"], Cache]:
        """Run the block.

        Args:
            x: input [B, T, D], [B, X, Y, D] or [N, D], whatever the layers inside take.
            graph: topology or edge_index of a graph with N nodes (layers on graphs only).
            edge_attr: features of its edges [E, De] (layers on graphs only).
            cache: where the sequence stood before x (layers on sequences only).
            return_cache: whether to return the cache after the last step, too.
            cu_seqlens: borders of packed sequences [S + 1] (layers on sequences only).

        Returns:
            Output in the shape and dtype of x, with `return_cache` the pair of it and the new cache.

        Raises:
            ValueError: a sequence argument is set although the layers are not on sequences, a graph although they are
                not on graphs, or no graph although they are.
        """
        context = Context(cache, return_cache, cu_seqlens, graph=graph, edge_attr=edge_attr)
        context.check(self)
        output, new_cache = self.run(x, context)
        return (output, new_cache) if return_cache else output
