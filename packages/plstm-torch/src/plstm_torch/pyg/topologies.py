"""Topologies of graphs of PyTorch Geometric: made with the dataset, collected by its batches, handed to models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from plstm_config.topology import DagTopology, Mode
from plstm_config.topology.edges import as_pairs, check_edges
from plstm_torch.arrays import index_array

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
    pairs = index_array("edge_index", edge_index)
    return DagTopology.from_edge_index(num_nodes, pairs, mode, undirected=undirected)


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
        _check_graph(data)
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
            data: `Data` or `Batch` that `AddTopology` has seen, with `x` and, if the module uses them, `edge_attr`.

        Returns:
            What the module returns.

        Raises:
            TypeError: if the graph has types of nodes and edges, or nodes without features.
            ValueError: if there is no topology, or sizes do not fit.
        """
        _check_one_type(data)
        x = getattr(data, "x", None)
        if x is None:
            raise TypeError(f"data: expected features of nodes, x [N,D], got {type(data).__name__} without")
        edge_attr = getattr(data, "edge_attr", None) if self.use_edge_attr else None
        return self.module(x, batch_topology(data), edge_attr)


def _check_one_type(data: Any) -> None:
    if hasattr(data, "edge_types"):
        raise TypeError(
            f"data: expected a graph of one type of nodes and edges, got {type(data).__name__}; a pLSTM runs along "
            "paths, which cross types: see HeteroData.to_homogeneous()"
        )


def _check_graph(data: Any) -> None:
    """Refuse what has no list of edges, and say how to keep or get one."""
    _check_one_type(data)
    if not isinstance(getattr(data, "edge_index", None), Tensor):
        kept = "; ToSparseTensor(remove_edge_index=False) keeps it" if hasattr(data, "adj_t") else ""
        raise TypeError(f"data: expected a graph with edge_index [2,E], got {type(data).__name__} without{kept}")


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
