"""The graph blocks: a P-mode and a D-mode block as one pair."""

from jaxtyping import Float
from torch import Tensor

from plstm_config import pLSTMGraphBlockConfig, pLSTMGraphEdgeBlockConfig
from plstm_torch.blocks.chain import run_module
from plstm_torch.build import build, register
from plstm_torch.layers.graph_indices import Graph, as_topology
from plstm_torch.module import Module


class _GraphPair(Module):
    is_graph = True  # is called with a graph

    def __init__(self, config: pLSTMGraphBlockConfig | pLSTMGraphEdgeBlockConfig) -> None:
        super().__init__()
        self.config = config
        self.block0 = build(config.block0)
        self.block1 = build(config.block1)

    def forward(
        self, x: Float[Tensor, "N D"], graph: Graph, edge_attr: Float[Tensor, "E De"] | None = None
    ) -> Float[Tensor, "N D"]:
        """Run both blocks.

        Args:
            x: Node features [N, D].
            graph: A `DagTopology` of either mode, from which each block takes its own, or an edge_index [2, E].
            edge_attr: Edge features [E, De] in the order in which the edges were given, or None.

        Returns:
            Output [N, D] in the blocks' dtype.

        Raises:
            TypeError: If the graph is something else.
            ValueError: If features or sizes do not fit the config or the graph, or the edges hold a cycle.
        """
        topology = as_topology(graph, x.shape[0])
        for block in (self.block0, self.block1):
            x, _ = run_module(block, x, graph=topology, edge_attr=edge_attr)
        return x


@register(pLSTMGraphBlockConfig)
class pLSTMGraphBlock(_GraphPair):
    r"""Two blocks in sequence with gates from node features, `block_mode` "PD" or "DP".

    .. math:: y = \mathrm{block}_1(\mathrm{block}_0(x))

    Directed propagation (P) runs over all paths of the graph, diffusive distribution (D) over the pruned line graph
    without decay; the pair has both.

    Args:
        config: Sizes, order of the modes and both blocks.

    Source: paper equation 9 for the modes.
    """


@register(pLSTMGraphEdgeBlockConfig)
class pLSTMGraphEdgeBlock(_GraphPair):
    r"""Two blocks in sequence with gates from node and edge features, `block_mode` "PD" or "DP".

    .. math:: y = \mathrm{block}_1(\mathrm{block}_0(x))

    Args:
        config: Sizes, order of the modes and both blocks.

    Source: paper equation 9 for the modes.
    """
