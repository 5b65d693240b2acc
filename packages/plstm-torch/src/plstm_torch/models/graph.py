"""The graph model: encoder, blocks in alternating directions, pooling, head."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from plstm_config import pLSTMGraphModelConfig
from plstm_config.options import unknown
from plstm_torch.blocks.block_stack import BlockStack
from plstm_torch.build import register
from plstm_torch.context import Context
from plstm_torch.dtypes import accumulation_dtype
from plstm_torch.layers.graph_indices import Graph, GraphIndices, Topology, as_topology, graph_indices
from plstm_torch.layers.linear import Linear
from plstm_torch.module import Module, ParameterGroup


@register(pLSTMGraphModelConfig)
class pLSTMGraphModel(Module):
    """Classifier or regressor of whole graphs, or of their nodes.

    x = encoder(features) + degree encoding; blocks 0, 2, ... run along the edges, blocks 1, 3, ... against them, so
    that a node hears of all that is connected to it by a directed path; then norm, pooling and head.

    Poolings over the nodes of a graph: "mean", "sum", "max", zero for a graph without nodes; "none" keeps the nodes.

    Submodules: `encoder`, `degree_encoding`, `block_stack`, `norm`, `head`. Parameters of `degree_encoding`:
    `in_degree`, `out_degree` [max_degree + 1, dim]; higher degrees share the last row.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> config = plstm_config.pLSTMGraphModelConfig(input_dim=4, dim=16, output_dim=2, num_blocks=2, num_heads=2)
        >>> graph = plstm_config.topology.DagTopology.from_edges(3, [(0, 1), (1, 2)])
        >>> batch = plstm_config.topology.DagTopology.batch([graph, graph])
        >>> plstm_torch.build(config)(torch.rand(6, 4), batch).shape  # one row for each graph
        torch.Size([2, 2])
    """

    config: pLSTMGraphModelConfig
    encoder: Linear
    degree_encoding: ParameterGroup | None
    block_stack: BlockStack
    norm: nn.Module
    head: Linear

    def set_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Choose whether each block is recomputed in the backward pass instead of keeping its activations."""
        self.block_stack.gradient_checkpointing = enabled

    def features(
        self, x: Float[Tensor, "N Dx"], graph: Graph, edge_attr: Float[Tensor, "E De"] | None = None
    ) -> Float[Tensor, "N D"]:
        """Compute the normed node features.

        Args:
            x: node features as in `forward`.
            graph: the graph as in `forward`.
            edge_attr: edge features as in `forward`.

        Returns:
            Features [N, dim].

        Raises:
            TypeError: if the graph is neither a topology nor an edge_index.
            ValueError: if features or sizes do not fit the config or the graph, or the edges hold a cycle.
        """
        topology = as_topology(graph, x.shape[0])
        hidden = self.encoder(x)
        if self.degree_encoding is not None:
            hidden = hidden + self._encode_degrees(self.degree_encoding, graph_indices(topology, x.device))
        directions = topology, topology.reverse()
        for position, block in enumerate(self.block_stack.blocks):
            context = Context(graph=directions[position % 2], edge_attr=edge_attr)
            hidden, _ = self.block_stack.run_block(block, hidden, context)
        return self.norm(hidden)

    def _encode_degrees(self, tables: ParameterGroup, indices: GraphIndices) -> Float[Tensor, "N D"]:
        """The sum of the embeddings of the number of edges that enter and that leave each node."""
        entering, leaving = (
            functional.embedding(getattr(indices, name).clamp(max=self.config.max_degree), getattr(tables, name))
            for name in ("in_degree", "out_degree")
        )
        return (entering + leaving).to(self.dtype)

    def forward(
        self, x: Float[Tensor, "N Dx"], graph: Graph, edge_attr: Float[Tensor, "E De"] | None = None
    ) -> Float[Tensor, "G O"]:
        """Predict one vector for each graph, or for each node.

        Args:
            x: node features [N, input_dim] of any floating dtype, graph after graph.
            graph: a `DagTopology`, made by `DagTopology.batch` for several graphs, or the edges of a single directed
                acyclic graph as an integer tensor [2, E].
            edge_attr: edge features [E, edge_input_dim] in the order in which the edges were given; None if the config
                has none.

        Returns:
            Predictions [G, output_dim], [N, output_dim] with pooling "none", in the config's dtype.

        Raises:
            TypeError: if the graph is neither a topology nor an edge_index.
            ValueError: if features or sizes do not fit the config or the graph, or the edges hold a cycle.
        """
        topology = as_topology(graph, x.shape[0])
        features = self.features(x, topology, edge_attr)
        if self.config.pooling != "none":
            features = pool_graphs(features, topology, self.config.pooling)
        return self.head(features)


def pool_graphs(features: Float[Tensor, "N D"], topology: Topology, pooling: str) -> Float[Tensor, "G D"]:
    """Reduce the nodes of each graph.

    Args:
        features: node features [N, D].
        topology: the graphs.
        pooling: "mean", "sum" or "max".

    Returns:
        Features of each graph [G, D], zero for a graph without nodes, in the dtype of `features`.

    Raises:
        ValueError: if the pooling is unknown.
    """
    indices = graph_indices(topology, features.device)
    values = features.to(accumulation_dtype(features.dtype))
    pooled = values.new_zeros(indices.graph_sizes.shape[0], values.shape[1])
    if pooling == "max":
        owner = indices.node_graph.unsqueeze(1).expand_as(values)
        pooled = pooled.scatter_reduce(0, owner, values, "amax", include_self=False)
    elif pooling in ("mean", "sum"):
        pooled = pooled.index_add(0, indices.node_graph, values)
    else:
        raise unknown("pooling", pooling, ("mean", "sum", "max"))
    if pooling == "mean":
        pooled = pooled / indices.graph_sizes.clamp(min=1).unsqueeze(1)
    return pooled.to(features.dtype)
