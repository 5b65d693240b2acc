"""PyTorch Geometric: edges keep their direction, and a list that holds both directions of an edge has to be said so.

    dataset = TUDataset(root, "MUTAG", pre_transform=AddTopology(undirected=True))
    model = FromBatch(plstm_torch.build(pLSTMGraphModelConfig(input_dim=7, edge_input_dim=4, output_dim=2)))
    for batch in DataLoader(dataset, batch_size=64):
        logits = model(batch)

    layer = pLSTMConv(7, 96)                    # edge_index is a DAG: tails in the first row, heads in the second
    layer = pLSTMConv(7, 96, undirected=True)   # every edge leads from its lower to its higher node

    # sampled subgraphs number their nodes anew, seeds first: direct by the numbers of the whole graph
    loader = NeighborLoader(data, [10, 10], transform=AddTopology(undirected=True, order="n_id"))

A transform, batches, and layers with the signatures that PyTorch Geometric's users know. The extra `plstm-torch[pyg]`
installs it. Nothing else in this package imports it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from plstm_config import parameter_tree, pLSTMGraphEdgeLayerConfig, pLSTMGraphLayerConfig
from plstm_config.topology import DagTopology, Mode
from plstm_config.topology.edges import as_pairs, check_edges
from plstm_torch.arrays import index_array
from plstm_torch.build import build
from plstm_torch.module import Module
from plstm_torch.uninitialized import Uninitialized, is_uninitialized

_MODES: tuple[Mode, Mode] = ("P", "D")


def directed_topology(
    edge_index: Int[Tensor, "2 E"], num_nodes: int, mode: Mode = "P", *, undirected: bool = False
) -> DagTopology:
    """Make the topology of a graph of PyTorch Geometric.

    Args:
        edge_index: tails and heads [2, E].
        num_nodes: number of nodes N.
        mode: "P" or "D".
        undirected: false: the edges keep their direction and must form a DAG. True: the list is of an undirected
            graph, every edge leads from the lower to the higher node index; the two directions that PyTorch
            Geometric stores of an undirected edge become one, which takes the features of the first.

    Returns:
        The topology.

    Raises:
        TypeError: if the indices are not integers.
        ValueError: if the shape or an index is wrong, or there is a self loop, a repeated edge, both directions of an
            edge without `undirected`, or a cycle; the message says what can be done.

    Examples:
        >>> import torch
        >>> from plstm_torch.pyg import directed_topology
        >>> both_ways = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> directed_topology(both_ways, 3, undirected=True).edges.tolist()
        [[0, 1], [1, 2]]
    """
    return _topology(edge_index, num_nodes, mode, undirected, None)


class AddTopology:
    """Transform that stores the topology of a graph in its data, computed once for each graph.

    Use it as `pre_transform` or `transform` of a dataset. What it stores are tensors (`topology_edges`,
    `topology_lines`, `topology_order`, `topology_sizes`), which `Batch` collects like all others and which a processed
    dataset holds without pickled objects; `batch_topology` makes a topology of them.

    Loaders that sample subgraphs take it as their `transform`; they cut the edges and nodes of what they are given, so
    that a topology made before them no longer fits, which is an error.

    Args:
        mode: "P" or "D"; blocks take the mode they need from either.
        undirected: as in `directed_topology`.
        order: name of a node attribute [N] of different integers, by which nodes count as numbered: undirected edges
            lead from the lower to the higher, and slots of edges follow it in this mode and direction (in the other
            ones, which blocks of a model take, too, the numbers in `edge_index`). "n_id" of sampled subgraphs makes the
            directions those of the whole graph, whatever is sampled. None: the numbers in `edge_index`.

    Examples:
        >>> from torch_geometric.data import Data
        >>> import torch
        >>> from plstm_torch.pyg import AddTopology
        >>> molecule = Data(x=torch.rand(3, 4), edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> AddTopology(undirected=True)(molecule).topology_edges.tolist()
        [[0, 1], [1, 2]]
    """

    def __init__(self, mode: Mode = "P", *, undirected: bool = False, order: str | None = None) -> None:
        self.mode: Mode = mode
        self.undirected, self.order = undirected, order

    def __call__(self, data: Any) -> Any:
        """Return the graph with its topology.

        Args:
            data: a `torch_geometric.data.Data` with `edge_index`, or a `Batch` of them.

        Returns:
            The same object.

        Raises:
            TypeError: see `directed_topology`; also without `edge_index`, or if `order` names no integers.
            ValueError: see `directed_topology`; also if `order` names too few or many numbers, or one twice.
        """
        if not isinstance(getattr(data, "edge_index", None), Tensor):
            kinds = "; see HeteroData.to_homogeneous()" if hasattr(data, "edge_types") else ""
            raise TypeError(f"data: expected a graph with edge_index [2,E], got {type(data).__name__} without{kinds}")
        graphs = data.to_data_list() if hasattr(data, "to_data_list") else [data]  # a batch stays one of many graphs
        found = [self._topology(graph) for graph in graphs]
        data.topology_edges = torch.from_numpy(np.concatenate([graph.edges for graph in found]))
        data.topology_lines = torch.from_numpy(np.concatenate([graph.line_edges for graph in found]))
        data.topology_order = torch.from_numpy(np.concatenate([graph.edge_order for graph in found]))
        data.topology_sizes = torch.tensor([_sizes(graph) for graph in found])
        return data

    def _topology(self, data: Any) -> DagTopology:
        def build(edge_index: Tensor) -> DagTopology:
            return directed_topology(edge_index, data.num_nodes, self.mode, undirected=self.undirected)

        if self.order is None:
            return build(data.edge_index)
        numbers = _numbers(self.order, getattr(data, self.order, None), data.num_nodes)
        nodes = np.argsort(numbers)
        try:
            pairs = as_pairs("edge_index", index_array("edge_index", data.edge_index).T)
            check_edges(pairs, data.num_nodes)
            ranked = build(torch.from_numpy(np.argsort(nodes)[pairs].T))
        except (TypeError, ValueError):
            build(data.edge_index)  # the same fault, said with the numbers that the nodes have in the data
            raise
        return replace(ranked, edges=nodes[ranked.edges])

    def __repr__(self) -> str:
        """Name the transform with its settings; datasets compare this text with that of their stored version."""
        order = "" if self.order is None else f", order={self.order!r}"
        return f"AddTopology(mode={self.mode!r}, undirected={self.undirected}{order})"


def batch_topology(data: Any) -> DagTopology:
    """The topology of a graph or of a batch of graphs.

    Args:
        data: a `Data` that `AddTopology` has seen, or a `Batch` of them.

    Returns:
        One topology over all nodes of `data.x`.

    Raises:
        ValueError: if there is no topology, it is damaged, or nodes or edges were taken away or numbered anew after it
            was made.

    Examples:
        >>> from torch_geometric.data import Batch, Data
        >>> import torch
        >>> from plstm_torch.pyg import AddTopology, batch_topology
        >>> path = AddTopology()(Data(x=torch.rand(3, 4), edge_index=torch.tensor([[0, 1], [1, 2]])))
        >>> batch_topology(Batch.from_data_list([path, path])).edges.tolist()
        [[0, 1], [1, 2], [3, 4], [4, 5]]
    """
    parts = [getattr(data, f"topology_{name}", None) for name in ("edges", "lines", "order", "sizes")]
    if not all(isinstance(part, Tensor) for part in parts):
        raise ValueError(f"data: expected the transform AddTopology on the dataset, got none in {type(data).__name__}")
    edges, lines, order, sizes = (cast(Tensor, part).detach().cpu().numpy() for part in parts)
    _check_current(data, len(edges), len(lines), sizes)
    graphs, edge, line = [], 0, 0
    for num_nodes, num_edges, num_lines, num_input_edges, mode in sizes.tolist():
        arrays = edges[edge : edge + num_edges], lines[line : line + num_lines], order[edge : edge + num_edges]
        bounds = np.array([0, num_nodes])
        graphs.append(DagTopology(num_nodes, *arrays, _MODES[mode], num_input_edges, bounds))
        edge, line = edge + num_edges, line + num_lines
    topology = graphs[0] if len(graphs) == 1 else DagTopology.batch(graphs)
    _check_ends(getattr(data, "edge_index", None), topology)
    return topology


class FromBatch(nn.Module):
    """A graph model, block or layer that is called with a batch of PyTorch Geometric.

    Args:
        module: is called as `module(x, topology, edge_attr)`.
        use_edge_attr: whether `edge_attr` is passed on; None: where the module's config has edge features.

    Examples:
        >>> from torch_geometric.data import Batch, Data
        >>> import plstm_config, plstm_torch, torch
        >>> from plstm_torch.pyg import AddTopology, FromBatch
        >>> config = plstm_config.pLSTMGraphModelConfig(input_dim=4, dim=8, output_dim=2, num_blocks=2, num_heads=2)
        >>> path = Data(x=torch.rand(3, 4), edge_index=torch.tensor([[0, 1], [1, 2]]))
        >>> batch = Batch.from_data_list([AddTopology()(path)] * 2)
        >>> FromBatch(plstm_torch.build(config))(batch).shape
        torch.Size([2, 2])
    """

    def __init__(self, module: nn.Module, *, use_edge_attr: bool | None = None) -> None:
        super().__init__()
        self.module = module
        if use_edge_attr is None:
            use_edge_attr = getattr(getattr(module, "config", None), "edge_input_dim", 0) > 0
        self.use_edge_attr = use_edge_attr

    def forward(self, data: Any) -> Tensor:
        """Run the module on a batch.

        Args:
            data: `Data` or `Batch` with `x`, `topology` and, if the module uses them, `edge_attr`.

        Returns:
            What the module returns.

        Raises:
            ValueError: if there is no topology, or sizes do not fit.
        """
        edge_attr = data.edge_attr if self.use_edge_attr else None
        return self.module(data.x, batch_topology(data), edge_attr)


class pLSTMConv(nn.Module):
    """A pLSTM layer in place of a convolution; edges keep their direction, an undirected list has to be said so.

    Unlike in a convolution, one layer reaches along whole directed paths. It is no `MessagePassing`: a node hears of
    more than its neighbours, so `to_hetero` has nothing to repeat for each type of edges, and the layer refuses its
    tuples. A graph with types of nodes and edges serves as `HeteroData.to_homogeneous()`, the types as features.

    With `edge_dim` the gates of an edge are made from its ends and its features, and a node may have any number of
    edges; `edge_dim=0` does so without features. With None a node has a gate for each of up to `max_edges` edges, told
    apart by the numbers of the nodes at their other ends: transitions take heads * max_edges**2 * in_channels weights.

    Parameters: those of `pLSTMGraphEdge`, or of `pLSTMGraph` where `edge_dim` is None.

    Args:
        in_channels: features of a node; -1: as many as the first input has. Until then the parameters have no shape.
        out_channels: features that come out.
        heads: number of heads.
        edge_dim: features of an edge; 0: none, and nodes may have any number of edges; None: none, edges have slots.
        mode: "P" directed propagation or "D" diffusive distribution.
        max_edges: largest in- or out-degree where `edge_dim` is None.
        undirected: as in `directed_topology`.
        reverse: run against the direction of the edges.
        **options: further fields of the layer's config.

    Raises:
        TypeError: if `in_channels` is no integer.
        ValueError: if a number is out of range.

    Examples:
        >>> import torch
        >>> from plstm_torch.pyg import pLSTMConv
        >>> conv = pLSTMConv(-1, 8, heads=2, edge_dim=0)
        >>> conv(torch.rand(3, 4), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([3, 8])
        >>> conv
        pLSTMConv(4, 8, heads=2)
    """

    layer: Module | Uninitialized

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        *,
        edge_dim: int | None = None,
        mode: Mode = "P",
        max_edges: int = 16,
        undirected: bool = False,
        reverse: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        _check_channels(in_channels)
        self.in_channels, self.out_channels, self.heads, self.edge_dim = in_channels, out_channels, heads, edge_dim
        self.mode: Mode = mode
        self.undirected, self.reverse = undirected, reverse
        own = {"max_edges": max_edges} if edge_dim is None else {"edge_input_dim": edge_dim}
        self._fields = {"output_dim": out_channels, "num_heads": heads, "mode": mode, **own, **options}
        if in_channels == -1:
            self.layer = Uninitialized(self._config(heads))
        else:
            self.layer = cast(Module, build(self._config(in_channels)))
        self.register_load_state_dict_pre_hook(_take_shape)

    def _config(self, in_channels: int) -> pLSTMGraphLayerConfig | pLSTMGraphEdgeLayerConfig:
        cls = pLSTMGraphLayerConfig if self.edge_dim is None else pLSTMGraphEdgeLayerConfig
        return cls(input_dim=in_channels, **self._fields)

    def _materialize(self, in_channels: int, *, drawn: bool = True) -> None:
        if isinstance(self.layer, Uninitialized):
            self.layer = self.layer.materialize(self._config(in_channels), drawn=drawn)
            self.in_channels = in_channels

    def reset_parameters(self) -> None:
        """Draw all parameters anew; those that have no shape yet stay without."""
        if isinstance(self.layer, Module):
            self.layer.reset_parameters()

    def __repr__(self) -> str:
        """Name the layer as PyTorch Geometric's convolutions name themselves, one line each."""
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"

    def forward(
        self,
        x: Float[Tensor, "N Dx"],
        edge_index: Int[Tensor, "2 E"] | DagTopology,
        edge_attr: Float[Tensor, "E De"] | None = None,
        batch: Int[Tensor, " N"] | None = None,
    ) -> Float[Tensor, "N D"]:
        """Run the layer.

        Args:
            x: node features [N, in_channels].
            edge_index: tails and heads [2, E], read anew at every call, or a topology made once.
            edge_attr: edge features [E, edge_dim] in the order of `edge_index`.
            batch: graph of each node [N], not decreasing, as in a `Batch`; None: all are one graph. It decides how the
                op is computed, never the result.

        Returns:
            Node features [N, out_channels].

        Raises:
            TypeError: if an argument has the wrong type.
            ValueError: if sizes do not fit, `batch` decreases, a node has more edges than `max_edges`, or the edges
                hold a self loop, a cycle, or both directions of an edge without `undirected`.
        """
        _check_nodes(x)
        if isinstance(edge_index, DagTopology):
            topology = edge_index.with_mode(self.mode)
        else:
            bounds = _bounds(batch, x.shape[0])
            topology = _topology(edge_index, x.shape[0], self.mode, self.undirected, bounds)
        self._materialize(x.shape[1])
        return self.layer(x, topology.reverse() if self.reverse else topology, edge_attr)


def _check_channels(in_channels: Any) -> None:
    if isinstance(in_channels, bool) or not isinstance(in_channels, int | np.integer):
        kinds = "; source and target nodes are the same" if isinstance(in_channels, tuple) else ""
        raise TypeError(
            f"in_channels: expected an integer >= 1, or -1 for the first input's, got {in_channels!r}{kinds}"
        )
    if in_channels < 1 and in_channels != -1:
        raise ValueError(f"in_channels: expected an integer >= 1, or -1 for the first input's, got {in_channels}")


def _check_nodes(x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"x: expected a tensor [N,D] of one set of nodes, got {type(x).__name__}; a pLSTM runs along paths, not "
            "from one set of nodes to another: make a graph with types by HeteroData.to_homogeneous(), not to_hetero"
        )
    if x.ndim != 2:
        raise ValueError(f"x: expected [N,D], got {tuple(x.shape)}")


def _take_shape(conv: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give a layer that waits for its first input the width of loaded weights, and draw what is missing of them."""
    shape = _shape(state.get(f"{prefix}layer.query.weight"))
    if isinstance(conv.layer, Uninitialized) and shape is not None and len(shape) == 2:
        parameters = parameter_tree(conv._config(shape[1])).items()
        complete = all(_shape(state.get(f"{prefix}layer.{name}")) == parameter.shape for name, parameter in parameters)
        conv._materialize(shape[1], drawn=not complete)


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) and not is_uninitialized(value) else None


def _sizes(graph: DagTopology) -> tuple[int, ...]:
    edges, lines = len(graph.edges), len(graph.line_edges)
    return graph.num_nodes, edges, lines, graph.num_input_edges, _MODES.index(graph.mode)


def _check_ends(edge_index: Any, topology: DagTopology) -> None:
    """Compare the ends of edges: what takes no node and no edge away may still number them anew."""
    if edge_index is None:
        return
    now = index_array("edge_index", edge_index)[:, topology.edge_order].T
    other = (np.sort(now, 1) != np.sort(topology.edges, 1)).any(1)
    if other.any():
        place = int(np.argmax(other))
        raise ValueError(
            f"data: expected edges as AddTopology saw them, one of {tuple(topology.edges[place].tolist())}, "
            f"got {tuple(now[place].tolist())}; apply AddTopology after what changes the graph"
        )


def _check_current(data: Any, num_edges: int, num_lines: int, sizes: np.ndarray) -> None:
    """Compare what was stored with the graph as it is: samplers cut graphs and what they hold."""
    nodes, edges, lines, given, _ = sizes.sum(0).tolist() if sizes.shape[1:] == (5,) else (-1,) * 5
    given_now = given if getattr(data, "edge_index", None) is None else data.num_edges
    now = (data.num_nodes, num_edges, num_lines, given_now)
    if now != (nodes, edges, lines, given):
        raise ValueError(
            "data: expected nodes and edges as AddTopology saw them "
            f"(N={nodes}, {given} edges), got N={data.num_nodes}, {given_now} edges; "
            "apply AddTopology after what changes the graph, as the transform of a loader that samples"
        )


def _numbers(name: str, numbers: Any, num_nodes: int) -> np.ndarray:
    """The numbers by which nodes are to be ordered."""
    if not isinstance(numbers, Tensor) or numbers.is_floating_point() or numbers.dtype == torch.bool:
        got = getattr(numbers, "dtype", type(numbers).__name__)
        raise TypeError(f"{name}: expected a tensor of integers in the data, since order={name!r}, got {got}")
    found = index_array(name, numbers)
    if found.shape != (num_nodes,):
        raise ValueError(f"{name}: expected N={num_nodes} different numbers, got shape {found.shape}")
    values, counts = np.unique(found, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{name}: expected N={num_nodes} different numbers, got {values[counts > 1][0]} twice")
    return found


def _topology(edge_index: Tensor, num_nodes: int, mode: Mode, undirected: bool, bounds: Any) -> DagTopology:
    pairs = index_array("edge_index", edge_index)
    return DagTopology.from_edge_index(num_nodes, pairs, mode, undirected=undirected, node_ptr=bounds)


def _bounds(batch: Tensor | None, num_nodes: int) -> Any:
    """First node of every graph, and N."""
    if batch is None:
        return None
    if not isinstance(batch, Tensor) or batch.is_floating_point() or batch.dtype == torch.bool:
        raise TypeError(f"batch: expected a tensor of integers, got {getattr(batch, 'dtype', type(batch).__name__)}")
    if batch.shape != (num_nodes,):
        raise ValueError(f"batch: expected [N={num_nodes}], got {tuple(batch.shape)}")
    if (batch.diff() < 0).any():
        raise ValueError(f"batch: expected graph numbers that do not decrease, got {batch.tolist()[:8]}")
    sizes = batch.unique_consecutive(return_counts=True)[1]
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).cpu().numpy()
