"""The pLSTM layers on directed acyclic graphs: gates from nodes, or from nodes and edges."""

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from plstm_config import pLSTMGraphEdgeLayerConfig, pLSTMGraphLayerConfig
from plstm_config.checks import check_edge_attr, check_features, check_no_edge_attr
from plstm_torch.build import register
from plstm_torch.dtypes import accumulation_dtype, answer, full_precision, without_autocast
from plstm_torch.layers.graph_indices import Graph, GraphIndices, Topology, as_topology, graph_indices
from plstm_torch.layers.linear import Linear
from plstm_torch.module import Module
from plstm_torch.ops import plstm_graph

# Keeps the sum of |T| over the edges that share a state below one, and T finite where all are zero.
_PMODE_MARGIN = 0.5


class GraphGates(NamedTuple):
    """The gates of a layer on a graph, bounded as its mode demands.

    Attributes:
        topology: the graph in the layer's mode.
        source: of each edge [H, E].
        transition: of each line edge [H, L].
        mark: of each edge [H, E].
        direct: of each node [H, N].
    """

    topology: Topology
    source: Float[Tensor, "H E"]
    transition: Float[Tensor, "H L"]
    mark: Float[Tensor, "H E"]
    direct: Float[Tensor, "H N"]


class _GraphLayer(Module, ABC):
    """Query, key, value and direct before the recurrence; stabilisation, norm and projection around it."""

    config: pLSTMGraphLayerConfig | pLSTMGraphEdgeLayerConfig
    kind: Literal["graph"] = "graph"
    query: Linear
    key: Linear
    value_: Linear
    source: Linear
    transition: Linear
    mark: Linear
    direct: Linear
    mhnorm: nn.Module
    out: Linear | None

    def __init__(self, config: pLSTMGraphLayerConfig | pLSTMGraphEdgeLayerConfig) -> None:
        super().__init__(config)
        self.num_heads = config.num_heads

    def _gates(self, x: Tensor, graph: Graph, edge_attr: Tensor | None) -> GraphGates:
        """The gates as the op takes them; see `forward` of the layers for the arguments."""
        topology, source, transition, mark = self._unbounded(x, graph, edge_attr)
        transition = self._stabilized(transition, graph_indices(topology, x.device))
        direct = torch.sigmoid(_wide(self.direct, x))
        return GraphGates(topology, torch.sigmoid(source).mT, transition.mT, torch.sigmoid(mark).mT, direct.mT)

    @abstractmethod
    def _unbounded(self, x: Tensor, graph: Graph, edge_attr: Tensor | None) -> tuple[Topology, Tensor, Tensor, Tensor]:
        """The topology in the layer's mode, and source [E,H], transition [L,H] and mark [E,H] as linear maps."""

    def _run(self, x: Tensor, gates: GraphGates) -> Tensor:
        """From the gates to the layer's output [N,D] in the dtype of x."""
        query, key, value = (
            layer(x).unflatten(-1, (self.num_heads, -1)).movedim(-2, 0) for layer in (self.query, self.key, self.value_)
        )
        topology, source, transition, mark, direct = gates
        heads = plstm_graph(
            query,
            key,
            value,
            source,
            transition,
            mark,
            direct,
            topology,
            implementation=self.config.implementation,
        )
        output = self.mhnorm(cast(Tensor, heads)).movedim(0, -2).flatten(-2).to(self.dtype)
        return answer(output if self.out is None else self.out(output), x)

    def _stabilized(self, transition: Float[Tensor, "L H"], indices: GraphIndices) -> Float[Tensor, "L H"]:
        """Bound the transitions as the mode demands: |T| <= 1 (D), or their sum over edges that share a state (P)."""
        if self.config.mode == "D":
            return torch.tanh(transition)
        shared = indices.incoming if self.config.pmode_normalization == "outgoing" else indices.outgoing
        sizes = transition.new_zeros(indices.tail.shape[0], self.num_heads).index_add(0, shared, transition.abs())
        return transition / (_PMODE_MARGIN + sizes.index_select(0, shared))


@register(pLSTMGraphLayerConfig)
class pLSTMGraphLayer(_GraphLayer):
    """Multi-head pLSTM over a directed acyclic graph with gates from node features (paper eq. 5, 6 and 9).

    Every node makes gates for up to E = `max_edges` edges, its slots. The slot of an edge is its rank among the edges
    that leave (source) or enter (mark) the node, in the order of the topology's `edges`; the transition of node n from
    an incoming to an outgoing edge is entry [n, in slot, out slot]. With t = W_t x + b_t and so on:

        S = sigmoid(W_s x + b_s), M = sigmoid(W_m x + b_m), D = sigmoid(W_d x + b_d)
        P-mode: T = t / (1/2 + sum over the edges that leave from the same incoming edge of |t|)
        D-mode: T = tanh(t) on the line graph pruned to a multitree
        out = W_o norm(plstm_graph(W_q x, W_k x, W_v x, S, T, M, D))

    `pmode_normalization="incoming"` sums over the edges that enter the same outgoing edge instead, which does not
    bound the sum of eq. 9; `edge_slots="swapped"` takes the slot of an edge at its other end. Both are the research
    code's.

    Submodules: `query`, `key`, `value_`, `source` (output H*E, head major), `transition` (H*E*E), `mark` (H*E),
    `direct` (H), `mhnorm`, `out`.

    Raises:
        ValueError: if the config leaves `input_dim` or `max_edges` open.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> from plstm_config.topology import DagTopology
        >>> config = plstm_config.pLSTMGraphLayerConfig(input_dim=8, num_heads=2, max_edges=3, mode="D")
        >>> graph = DagTopology.from_edges(4, [(0, 1), (0, 2), (1, 3), (2, 3)])
        >>> plstm_torch.build(config)(torch.rand(8, 8), DagTopology.batch([graph, graph])).shape
        torch.Size([8, 8])
    """

    config: pLSTMGraphLayerConfig

    def forward(
        self, x: Float[Tensor, "N D"], graph: Graph, edge_attr: Float[Tensor, "E De"] | None = None
    ) -> Float[Tensor, "N D"]:
        """Process a graph, or a batch of graphs as one.

        Args:
            x: node features [N, input_dim] of any floating dtype.
            graph: a `DagTopology` of either mode, or the edges of a directed acyclic graph as an integer tensor [2, E].
            edge_attr: none; this layer reads no edge features.

        Returns:
            Output [N, output_dim] in the dtype of x.

        Raises:
            TypeError: if the graph is something else.
            ValueError: if x has another rank or number of features, the graph another number of nodes, more than
                `max_edges` edges at one end of a node, or a cycle; or if there are edge features.
        """
        return self._run(x, self._gates(x, graph, edge_attr))

    def _unbounded(self, x: Tensor, graph: Graph, edge_attr: Tensor | None) -> tuple[Topology, Tensor, Tensor, Tensor]:
        check_features(x, "N D", self.config.input_dim)
        check_no_edge_attr(edge_attr)
        topology = as_topology(graph, x.shape[0], self.config.mode)
        indices = graph_indices(topology, x.device, self.config.max_edges)
        source_slot, mark_slot = indices.out_slot, indices.in_slot
        if self.config.edge_slots == "swapped":
            source_slot, mark_slot = mark_slot, source_slot
        size = self.config.max_edges
        source = self._pick(_wide(self.source, x), indices.tail * size + source_slot)
        mark = self._pick(_wide(self.mark, x), indices.head * size + mark_slot)
        slots = mark_slot[indices.incoming] * size + source_slot[indices.outgoing]
        transition = self._pick(_wide(self.transition, x), indices.tail[indices.outgoing] * size * size + slots)
        return topology, source, transition, mark

    def _pick(self, gates: Float[Tensor, "N HS"], place: Tensor) -> Float[Tensor, "E H"]:
        """Rows `place` of the gates of all nodes and slots."""
        by_slot = gates.unflatten(-1, (self.num_heads, -1)).mT
        return by_slot.flatten(0, 1).index_select(0, place)


@register(pLSTMGraphEdgeLayerConfig)
class pLSTMGraphEdgeLayer(_GraphLayer):
    """Multi-head pLSTM over a directed acyclic graph with gates from node and edge features (paper eq. 5, 6 and 9).

    With tail x_t, head x_h and features a of each edge, and for a line edge the features a_i, a_o of the incoming and
    the outgoing edge and the node x_n that they share:

        S = sigmoid(W_s [x_t; a] + b_s), M = sigmoid(W_m [x_h; a] + b_m), D = sigmoid(W_d x + b_d)
        t = W_t [a_i; a_o; x_n] + b_t
        P-mode: T = t / (1/2 + sum over the edges that leave from the same incoming edge of |t|)
        D-mode: T = tanh(t) on the line graph pruned to a multitree
        out = W_o norm(plstm_graph(W_q x, W_k x, W_v x, S, T, M, D))

    `pmode_normalization="incoming"` sums over the edges that enter the same outgoing edge instead, which does not
    bound the sum of eq. 9; `transition_node="tail"` reads the tail of the incoming edge in place of x_n. Both are the
    research code's.

    Submodules: `query`, `key`, `value_`, `source`, `transition`, `mark`, `direct` (output H each), `mhnorm`, `out`.

    Raises:
        ValueError: if the config leaves `input_dim` or `edge_input_dim` open.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> config = plstm_config.pLSTMGraphEdgeLayerConfig(input_dim=8, num_heads=2, edge_input_dim=3)
        >>> edge_index = torch.tensor([[0, 0, 1], [1, 2, 2]])
        >>> plstm_torch.build(config)(torch.rand(3, 8), edge_index, torch.rand(3, 3)).shape
        torch.Size([3, 8])
    """

    config: pLSTMGraphEdgeLayerConfig

    def forward(
        self, x: Float[Tensor, "N D"], graph: Graph, edge_attr: Float[Tensor, "E De"] | None = None
    ) -> Float[Tensor, "N D"]:
        """Process a graph, or a batch of graphs as one.

        Args:
            x: node features [N, input_dim] of any floating dtype.
            graph: a `DagTopology` of either mode, or the edges of a directed acyclic graph as an integer tensor [2, E].
            edge_attr: edge features [E, edge_input_dim] of any floating dtype, in the order in which the edges were
                given; None stands for no features.

        Returns:
            Output [N, output_dim] in the dtype of x.

        Raises:
            TypeError: if the graph is something else.
            ValueError: if x or edge_attr have another rank or number of features, the graph another number of nodes or
                edges, or a cycle.
        """
        return self._run(x, self._gates(x, graph, edge_attr))

    def _unbounded(self, x: Tensor, graph: Graph, edge_attr: Tensor | None) -> tuple[Topology, Tensor, Tensor, Tensor]:
        check_features(x, "N D", self.config.input_dim)
        topology = as_topology(graph, x.shape[0], self.config.mode)
        features = self._edge_features(x, topology, edge_attr)
        indices = graph_indices(topology, x.device)
        edges = features.index_select(0, indices.edge_order)
        every = torch.arange(indices.tail.shape[0], device=x.device)
        node = indices.tail[indices.outgoing if self.config.transition_node == "shared" else indices.incoming]
        source = _apply_to_parts(self.source, (x, indices.tail), (edges, every))
        mark = _apply_to_parts(self.mark, (x, indices.head), (edges, every))
        transition = _apply_to_parts(self.transition, (edges, indices.incoming), (edges, indices.outgoing), (x, node))
        return topology, source, transition, mark

    def _edge_features(self, x: Tensor, topology: Topology, edge_attr: Tensor | None) -> Tensor:
        check_edge_attr(edge_attr, topology.num_input_edges, self.config.edge_input_dim)
        return x.new_zeros(topology.num_input_edges, 0) if edge_attr is None else edge_attr


def _apply_to_parts(linear: Linear, *parts: tuple[Tensor, Tensor]) -> Tensor:
    """The linear map of concatenated rows, each part [R,D] with the rows [M] to take from it.

    A part is mapped before its rows are taken, once for each node or edge instead of once for each of their meetings.
    """
    work = accumulation_dtype(linear.dtype)
    bias = cast(Tensor, linear.bias)
    result = bias.to(work)
    with without_autocast(bias):
        weights = linear.weight.to(linear.dtype).split([values.shape[-1] for values, _ in parts], dim=1)
        for weight, (values, rows) in zip(weights, parts, strict=True):
            mapped = functional.linear(values.to(linear.dtype), weight).to(work)
            result = result + mapped.index_select(0, rows)
    return result


def _wide(linear: Linear, x: Tensor) -> Tensor:
    """The linear map in float32 or higher, whatever autocast says: gates are multiplied along whole paths."""
    with without_autocast(x):
        return full_precision(linear(x))
