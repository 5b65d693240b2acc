"""The block that mixes positions first and widens afterwards."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from plstm_config import PostUpProjectionBlockConfig
from plstm_torch.blocks.chain import Cache, init_chain_cache, is_graph_module, is_sequence_module, run_chain, step_chain
from plstm_torch.blocks.residual_pair import ResidualPair
from plstm_torch.build import build, register
from plstm_torch.layers.graph_indices import Graph, sample_of_nodes


@register(PostUpProjectionBlockConfig)
class PostUpProjectionBlock(ResidualPair):
    r"""Mix positions at the input width, then a feed-forward part, each with its residual.

    .. math:: x_2 = x + \mathrm{interaction}(\mathrm{norm}(x)), \qquad
              y = x_2 + W_{down}\,\mathrm{act}(W_{up}\,\mathrm{norm}_2(x_2))

    Gated: `upproj` is twice as wide and its first half is multiplied by act of its second half.
    `use_scale` adds a learned scale per channel to each branch, `drop_path_rate` drops branches in training.
    Without `skip` both branches run in sequence: no residual, no scale, no drop path.

    Args:
        config: Sizes, activation, norm and the interaction layer.
    """

    def __init__(self, config: PostUpProjectionBlockConfig) -> None:
        super().__init__(config, config.scale if config.use_scale else None)
        self.config = config
        self.scale1 = self._build_scale()
        self.interaction_module = build(config.interaction_module)

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
        mixed, new_cache = run_chain(
            self._interaction(),
            self.norm(x),
            cache=cache,
            return_cache=return_cache,
            cu_seqlens=cu_seqlens,
            graph=graph,
            edge_attr=edge_attr,
        )
        samples = None if graph is None else sample_of_nodes(graph, x)
        y = self._feed_forward(self._add(x, mixed, self.scale1, samples), samples)
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
        mixed, new_cache = step_chain(self._interaction(), self.norm(x), cache)
        return self._feed_forward(self._add(x, mixed, self.scale1)), new_cache

    def _interaction(self) -> list[tuple[str, nn.Module]]:
        return [("interaction_module", self.interaction_module)]
