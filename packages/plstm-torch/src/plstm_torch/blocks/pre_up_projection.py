"""The block that mixes positions at the widened inner width."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from plstm_config import PreUpProjectionBlockConfig
from plstm_torch.blocks.chain import (
    Cache,
    init_chain_cache,
    is_graph_module,
    is_sequence_module,
    run_chain,
    step_chain,
)
from plstm_torch.blocks.gating import gating_function
from plstm_torch.build import build, register
from plstm_torch.dtypes import torch_dtype
from plstm_torch.layers.graph_indices import Graph
from plstm_torch.layers.linear import Linear
from plstm_torch.module import Module


@register(PreUpProjectionBlockConfig)
class PreUpProjectionBlock(Module):
    r"""Widen, mix positions, gate, narrow.

    .. math:: [c, g] = W_{up}\,\mathrm{norm}(x), \qquad
              y = x + W_{down}\,(\mathrm{interaction}(c) \odot \mathrm{silu}(g))

    Without `gated` there is no g; without `skip` no x is added.

    Args:
        config: Sizes, gate, norm and the interaction layer.
    """

    def __init__(self, config: PreUpProjectionBlockConfig) -> None:
        super().__init__()
        self.config = config
        self.dtype = torch_dtype(config.dtype)
        inner = config.inner_dim
        dtypes = {"dtype": torch_dtype(config.dtype), "param_dtype": torch_dtype(config.param_dtype)}
        self.norm = build(config.norm)
        self.upproj = Linear(
            config.input_dim,
            2 * inner if config.gated else inner,
            weight_init=config.upproj_weight_init,
            bias_init=config.upproj_bias_init if config.bias else None,
            **dtypes,
        )
        self.interaction_module = build(config.interaction_module)
        self.downproj = Linear(
            inner,
            config.input_dim,
            weight_init=config.downproj_weight_init,
            bias_init=config.downproj_bias_init if config.bias else None,
            **dtypes,
        )
        self._gate = gating_function(config.gating_function)

    @property
    def is_sequence(self) -> bool:
        """Whether the interaction works on sequences, so that the block has a cache and a step."""
        return is_sequence_module(self.interaction_module)

    @property
    def is_graph(self) -> bool:
        """Whether the interaction works on graphs, so that the block is called with one."""
        return is_graph_module(self.interaction_module)

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
            x: Input [B, T, D], [B, X, Y, D] or [N, D], whatever the interaction layer takes.
            graph: Topology or edge_index of a graph with N nodes (interaction on graphs only).
            edge_attr: Features of its edges [E, De] (interaction on graphs only).
            cache: Where the sequence stood before x (1D interaction only).
            return_cache: Whether to return the cache after the last step.
            cu_seqlens: Borders of packed sequences [S+1] (1D interaction only).

        Returns:
            Output in the shape of x and in the block's dtype, with `return_cache` also the new cache.

        Raises:
            ValueError: a sequence argument is set although the interaction has no time axis, a graph although it is not
                on graphs, or no graph although it is.
        """
        x = x.to(self.dtype)
        carry, gate = self._widen(x)
        mixed, new_cache = run_chain(
            self._interaction(),
            carry,
            cache=cache,
            return_cache=return_cache,
            cu_seqlens=cu_seqlens,
            graph=graph,
            edge_attr=edge_attr,
        )
        y = self._narrow(x, mixed, gate)
        return (y, new_cache) if return_cache else y

    def init_cache(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Cache:
        """Make the cache of a sequence that has not begun.

        Args:
            batch_size: Number of sequences B.
            device: Where the cache lives; default: where the parameters are.
            dtype: Dtype of cached activations; default: the compute dtype.

        Returns:
            The interaction layer's cache under its name.

        Raises:
            ValueError: the interaction has no time axis.
        """
        return init_chain_cache(self._interaction(), batch_size, device, dtype)

    def step(self, x: Float[Tensor, "B D"], cache: Mapping[str, Any]) -> tuple[Float[Tensor, "B D"], Cache]:
        """Advance by one time step.

        Args:
            x: Input [B, D].
            cache: Cache of `init_cache`, `step` or a forward pass.

        Returns:
            Output [B, D] and the new cache.

        Raises:
            ValueError: the interaction has no time axis, or the cache belongs to another module.
        """
        x = x.to(self.dtype)
        carry, gate = self._widen(x)
        mixed, new_cache = step_chain(self._interaction(), carry, cache)
        return self._narrow(x, mixed, gate), new_cache

    def _interaction(self) -> list[tuple[str, nn.Module]]:
        return [("interaction_module", self.interaction_module)]

    def _widen(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        wide = self.upproj(self.norm(x))
        if not self.config.gated:
            return wide, None
        carry, gate = wide.chunk(2, dim=-1)
        return carry, gate

    def _narrow(self, x: Tensor, mixed: Tensor, gate: Tensor | None) -> Tensor:
        if gate is not None:
            mixed = mixed * self._gate(gate)
        branch = self.downproj(mixed)
        return x + branch if self.config.skip else branch
