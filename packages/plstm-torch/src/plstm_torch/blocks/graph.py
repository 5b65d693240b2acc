"""The graph blocks: a P-mode and a D-mode block as one pair."""

from dataclasses import replace

from torch import Tensor, nn

from plstm_config import pLSTMGraphBlockConfig, pLSTMGraphEdgeBlockConfig
from plstm_config.checks import Kind
from plstm_torch.build import register
from plstm_torch.context import Block, Cache, Context, call
from plstm_torch.layers.graph_indices import Graph, as_topology


class _GraphPair(Block):
    config: pLSTMGraphBlockConfig | pLSTMGraphEdgeBlockConfig
    kind: Kind = "graph"
    block0: nn.Module
    block1: nn.Module

    def run(self, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """Run both blocks; see `Block.forward`. Each takes its own mode from a topology of either."""
        graph: Graph = context.graph  # type: ignore[assignment]  # checked by the caller
        context = replace(context, graph=as_topology(graph, x.shape[0]))
        for block in (self.block0, self.block1):
            x, _ = call(block, x, context)
        return x, {}


@register(pLSTMGraphBlockConfig)
class pLSTMGraphBlock(_GraphPair):
    r"""Two blocks in sequence with gates from node features, `block_mode` "PD" or "DP".

    .. math:: y = \mathrm{block}_1(\mathrm{block}_0(x))

    Directed propagation (P) runs over all paths of the graph, diffusive distribution (D) over the pruned line graph
    without decay; the pair has both.

    Submodules: `block0`, `block1`.

    Source: paper equation 9 for the modes.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> from plstm_config.topology import DagTopology
        >>> block = plstm_torch.build(plstm_config.pLSTMGraphBlockConfig(input_dim=16, num_heads=2, max_edges=2))
        >>> block(torch.rand(3, 16), DagTopology.from_edges(3, [(0, 1), (0, 2), (1, 2)])).shape
        torch.Size([3, 16])
    """


@register(pLSTMGraphEdgeBlockConfig)
class pLSTMGraphEdgeBlock(_GraphPair):
    r"""Two blocks in sequence with gates from node and edge features, `block_mode` "PD" or "DP".

    .. math:: y = \mathrm{block}_1(\mathrm{block}_0(x))

    Submodules: `block0`, `block1`.

    Source: paper equation 9 for the modes.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> from plstm_config.topology import DagTopology
        >>> config = plstm_config.pLSTMGraphEdgeBlockConfig(input_dim=16, num_heads=2, edge_input_dim=5)
        >>> topology = DagTopology.from_edges(3, [(0, 1), (0, 2), (1, 2)])
        >>> plstm_torch.build(config)(torch.rand(3, 16), topology, torch.rand(3, 5)).shape
        torch.Size([3, 16])
    """
