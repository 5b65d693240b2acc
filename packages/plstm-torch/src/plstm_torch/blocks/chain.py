"""How caches, packed sequences and graphs travel through nested modules."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from plstm_torch.layers.graph_indices import Graph

Cache = dict[str, Any]


class _Steppable(Protocol):
    def init_cache(self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None) -> Cache: ...

    def step(self, x: Tensor, cache: Any) -> tuple[Tensor, Cache]: ...


def is_sequence_module(module: nn.Module) -> bool:
    """Tell whether a module mixes along one time axis and so has a cache and a step."""
    return bool(getattr(module, "is_sequence", False))


def require_sequence_module(module: nn.Module, *requests: str) -> None:
    """Refuse what only modules with one time axis can do.

    Args:
        module: Layer or block.
        requests: Names of the arguments or methods that were used.

    Raises:
        ValueError: `requests` is not empty although `module` does not work on sequences.
    """
    if requests and not is_sequence_module(module):
        raise ValueError(
            f"{', '.join(requests)}: expected a module with one time axis (pLSTM1DLayer inside), "
            f"got {type(module).__name__}, which has no cache and takes no packed sequences"
        )


def is_graph_module(module: nn.Module) -> bool:
    """Tell whether a module is called with a graph: ``module(x, graph, edge_attr)``."""
    return bool(getattr(module, "is_graph", False))


def child_cache(cache: Mapping[str, Any] | None, name: str) -> Any:
    """Read the part of a nested cache that belongs to one child module.

    Raises:
        ValueError: the cache was made by another module and has no such part.
    """
    if cache is None:
        return None
    if name not in cache:
        raise ValueError(f"cache: expected an entry {name!r} as init_cache makes it, got the entries {sorted(cache)}")
    return cache[name]


def run_module(
    module: nn.Module,
    x: Float[Tensor, "*batch D"],
    *,
    cache: Mapping[str, Any] | None = None,
    return_cache: bool = False,
    cu_seqlens: Int[Tensor, " S1"] | None = None,
    graph: Graph | None = None,
    edge_attr: Float[Tensor, "E De"] | None = None,
    recompute: bool = False,
) -> tuple[Float[Tensor, "*batch D"], Any]:
    """Call a module on `x` and hand it the arguments for sequences or graphs if it understands them.

    Args:
        module: Layer or block.
        x: Input [B, T, D], [B, X, Y, D], or [N, D] with a graph.
        cache: The module's own cache, or None.
        return_cache: Whether to return the cache after the last step.
        cu_seqlens: Borders of packed sequences [S+1].
        graph: Topology or edge_index of a module on graphs.
        edge_attr: Features of its edges.
        recompute: Run under activation checkpointing.

    Returns:
        The output and the new cache (None unless `return_cache`).

    Raises:
        ValueError: a sequence argument is set for a module that is no sequence module, or a graph for a module that is
            not on graphs, or no graph for one that is.
    """
    arguments: dict[str, Any] = {}
    if is_sequence_module(module):
        arguments = {"cache": cache, "return_cache": return_cache, "cu_seqlens": cu_seqlens}
    else:
        given = {"cache": cache is not None, "return_cache": return_cache, "cu_seqlens": cu_seqlens is not None}
        require_sequence_module(module, *(name for name, used in given.items() if used))
    if is_graph_module(module):
        if graph is None:
            raise ValueError(f"graph: expected a DagTopology or an edge_index for {type(module).__name__}, got None")
        arguments = {"graph": graph, "edge_attr": edge_attr}
    elif graph is not None or edge_attr is not None:
        name = "graph" if graph is not None else "edge_attr"
        raise ValueError(f"{name}: expected None, since {type(module).__name__} is not on graphs")
    if recompute and torch.is_grad_enabled():
        result = checkpoint(module, x, use_reentrant=False, **arguments)
    else:
        result = module(x, **arguments)
    return result if return_cache else (result, None)


def run_chain(
    modules: Iterable[tuple[str, nn.Module]],
    x: Float[Tensor, "*batch D"],
    *,
    cache: Mapping[str, Any] | None = None,
    return_cache: bool = False,
    cu_seqlens: Int[Tensor, " S1"] | None = None,
    graph: Graph | None = None,
    edge_attr: Float[Tensor, "E De"] | None = None,
    recompute: bool = False,
) -> tuple[Float[Tensor, "*batch D"], Cache]:
    """Call modules one after the other, each with its own entry of the cache.

    Args:
        modules: Name in the cache and module, in order.
        x: Input [B, T, D], [B, X, Y, D], or [N, D] with a graph.
        cache: One entry per module, or None.
        return_cache: Whether to collect the caches after the last step.
        cu_seqlens: Borders of packed sequences [S+1].
        graph: Topology or edge_index of modules on graphs.
        edge_attr: Features of its edges.
        recompute: Run each module under activation checkpointing.

    Returns:
        The output and the new cache, empty unless `return_cache`.

    Raises:
        ValueError: as in `run_module`.
    """
    new_cache: Cache = {}
    for name, module in modules:
        x, part = run_module(
            module,
            x,
            cache=child_cache(cache, name) if is_sequence_module(module) else cache,
            return_cache=return_cache,
            cu_seqlens=cu_seqlens,
            graph=graph,
            edge_attr=edge_attr,
            recompute=recompute,
        )
        if return_cache:
            new_cache[name] = part
    return x, new_cache


def init_chain_cache(
    modules: Iterable[tuple[str, nn.Module]],
    batch_size: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Cache:
    """Make the empty cache of modules that run one after the other.

    Raises:
        ValueError: one of the modules is no sequence module.
    """
    cache: Cache = {}
    for name, module in modules:
        require_sequence_module(module, "init_cache")
        cache[name] = cast(_Steppable, module).init_cache(batch_size, device, dtype)
    return cache


def step_chain(
    modules: Iterable[tuple[str, nn.Module]], x: Float[Tensor, "B D"], cache: Mapping[str, Any]
) -> tuple[Float[Tensor, "B D"], Cache]:
    """Advance modules that run one after the other by one time step.

    Raises:
        ValueError: one of the modules is no sequence module, or the cache belongs to another module.
    """
    new_cache: Cache = {}
    for name, module in modules:
        require_sequence_module(module, "step")
        x, new_cache[name] = cast(_Steppable, module).step(x, child_cache(cache, name))
    return x, new_cache
