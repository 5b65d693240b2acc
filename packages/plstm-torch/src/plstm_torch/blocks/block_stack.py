"""Equal blocks one after the other."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from plstm_config import BlockStackConfig
from plstm_torch.blocks.chain import (
    Cache,
    init_chain_cache,
    is_graph_module,
    is_sequence_module,
    run_chain,
    step_chain,
)
from plstm_torch.build import build, register
from plstm_torch.layers.graph_indices import Graph
from plstm_torch.module import Module


@register(BlockStackConfig)
class BlockStack(Module):
    r"""`num_blocks` blocks of one config, each with its own parameters.

    .. math:: x_{i+1} = \mathrm{Block}_i(x_i)

    Set `gradient_checkpointing` to True to recompute each block in the backward pass instead of keeping its
    activations.

    Args:
        config: Sizes and the config of the repeated block.

    Raises:
        ValueError: the config leaves `num_blocks` open.
    """

    def __init__(self, config: BlockStackConfig) -> None:
        super().__init__()
        if config.num_blocks < 1:
            raise ValueError(f"num_blocks: expected an integer >= 1, got {config.num_blocks}")
        self.config = config
        self.gradient_checkpointing = False
        self.blocks = nn.ModuleList(build(config.block) for _ in range(config.num_blocks))

    @property
    def is_sequence(self) -> bool:
        """Whether every block works on sequences, so that the stack has a cache and a step."""
        return all(is_sequence_module(block) for block in self.blocks)

    @property
    def is_graph(self) -> bool:
        """Whether the blocks work on graphs, so that the stack is called with one."""
        return all(is_graph_module(block) for block in self.blocks)

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
        """Run all blocks.

        Args:
            x: Input [B, T, D], [B, X, Y, D] or [N, D].
            graph: Topology or edge_index of a graph with N nodes (blocks on graphs only).
            edge_attr: Features of its edges [E, De] (blocks on graphs only).
            cache: Where the sequence stood before x (sequence blocks only).
            return_cache: Whether to return the cache after the last step.
            cu_seqlens: Borders of packed sequences [S+1] (sequence blocks only).

        Returns:
            Output in the shape of x, with `return_cache` also the new cache.

        Raises:
            ValueError: a sequence argument is set although the blocks are no sequence blocks, a graph although they are
                not on graphs, or no graph although they are.
        """
        y, new_cache = run_chain(
            self._named_blocks(),
            x,
            cache=cache,
            return_cache=return_cache,
            cu_seqlens=cu_seqlens,
            graph=graph,
            edge_attr=edge_attr,
            recompute=self.gradient_checkpointing,
        )
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
            One entry per block.

        Raises:
            ValueError: the blocks are no sequence blocks.
        """
        return init_chain_cache(self._named_blocks(), batch_size, device, dtype)

    def step(self, x: Float[Tensor, "B D"], cache: Mapping[str, Any]) -> tuple[Float[Tensor, "B D"], Cache]:
        """Advance by one time step.

        Args:
            x: Input [B, D].
            cache: Cache of `init_cache`, `step` or a forward pass.

        Returns:
            Output [B, D] and the new cache.

        Raises:
            ValueError: the blocks are no sequence blocks, or the cache belongs to another module.
        """
        return step_chain(self._named_blocks(), x, cache)

    def _named_blocks(self) -> list[tuple[str, nn.Module]]:
        return [(str(index), block) for index, block in enumerate(self.blocks)]
