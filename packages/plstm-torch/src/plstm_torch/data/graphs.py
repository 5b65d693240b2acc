"""Graph classification data: the TUDataset collection by way of PyTorch Geometric, split for cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from plstm_config.topology import DagTopology
from plstm_torch.optional import UserError, require
from plstm_torch.pyg import directed_topology


@dataclass(frozen=True)
class GraphBatch:
    """Graphs side by side.

    Attributes:
        x: node features [N, Dx].
        edge_attr: edge features [E, De], in the order in which the edges were given; None without any.
        topology: of all graphs.
    """

    x: Tensor
    edge_attr: Tensor | None
    topology: DagTopology

    def to(self, device: torch.device) -> "GraphBatch":
        """Return the batch with its tensors on a device."""
        edge_attr = None if self.edge_attr is None else self.edge_attr.to(device)
        return GraphBatch(self.x.to(device), edge_attr, self.topology)


@dataclass(frozen=True)
class GraphSet:
    """A dataset of labelled graphs.

    Attributes:
        graphs: one batch of a single graph for each.
        labels: class of each graph [G] int64.
        num_classes: number of classes.
    """

    graphs: Sequence[GraphBatch]
    labels: Int[Tensor, " G"]
    num_classes: int

    @property
    def node_dim(self) -> int:
        """Features of a node."""
        return self.graphs[0].x.shape[1]

    @property
    def edge_dim(self) -> int:
        """Features of an edge, 0 without any."""
        edge_attr = self.graphs[0].edge_attr
        return 0 if edge_attr is None else edge_attr.shape[1]

    def batch(self, indices: Sequence[int]) -> tuple[GraphBatch, Int[Tensor, " B"]]:
        """Put some of the graphs side by side.

        Args:
            indices: which graphs.

        Returns:
            The batch and its labels [B].
        """
        chosen = [self.graphs[index] for index in indices]
        topology = DagTopology.batch([graph.topology for graph in chosen])
        x = torch.cat([graph.x for graph in chosen])
        edge_attr = None if self.edge_dim == 0 else torch.cat([_features(graph.edge_attr) for graph in chosen])
        return GraphBatch(x, edge_attr, topology), self.labels[torch.as_tensor(list(indices), dtype=torch.int64)]


@dataclass(frozen=True)
class Fold:
    """One round of a cross-validation.

    Attributes:
        train: indices of the training graphs.
        validation: graphs that choose the epoch.
        test: graphs that are measured.
    """

    train: list[int]
    validation: list[int]
    test: list[int]


def load_tu_dataset(name: str, root: str | Path) -> GraphSet:
    """Load a dataset of the TUDataset collection.

    Edges are undirected there; each is directed from the lower to the higher node index, which makes a DAG. Node and
    edge features are their attributes and one-hot labels; a constant stands for nodes that have neither.

    Args:
        name: such as "MUTAG".
        root: folder that holds `name/raw`; what is missing is downloaded by PyTorch Geometric.

    Returns:
        The graphs, with P-mode topologies.

    Raises:
        UserError: if PyTorch Geometric is not installed, or the data is not there and cannot be downloaded.
    """
    datasets = require("torch_geometric.datasets", "torch_geometric", extra="pyg")
    try:
        found = datasets.TUDataset(str(root), name, use_node_attr=True, use_edge_attr=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"cannot load the dataset {name!r} from {root}, nor download it: {error}") from error
    graphs = [_as_graph(data) for data in found]
    labels = torch.tensor([int(data.y) for data in found])
    return GraphSet(graphs, labels, int(found.num_classes))


def split_folds(labels: Int[Tensor, " G"], num_folds: int, seed: int) -> list[Fold]:
    """Split graphs for a stratified cross-validation; fold i is tested, fold i + 1 chooses the epoch.

    Args:
        labels: class of each graph.
        num_folds: number of folds, at least 3.
        seed: of the shuffling.

    Returns:
        One split for each fold.

    Raises:
        UserError: if scikit-learn is not installed, or a class has too few graphs.
    """
    selection = require("sklearn.model_selection", "scikit-learn")
    classes = labels.numpy()
    fewest = int(np.bincount(classes).min())
    if not 3 <= num_folds <= fewest:
        raise UserError(f"num_folds={num_folds}: expected 3 to {fewest}, the graphs of the smallest class")
    splitter = selection.StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    tests = [held.tolist() for _, held in splitter.split(np.zeros(len(classes)), classes)]
    folds = []
    for number, test in enumerate(tests):
        validation = tests[(number + 1) % num_folds]
        held_out = {*test, *validation}
        folds.append(Fold([index for index in range(len(classes)) if index not in held_out], validation, test))
    return folds


def _as_graph(data: Any) -> GraphBatch:
    topology = directed_topology(data.edge_index, data.num_nodes)
    x = torch.ones(data.num_nodes, 1) if data.x is None else data.x.to(torch.float32)
    edge_attr = None if data.edge_attr is None else data.edge_attr.to(torch.float32)
    return GraphBatch(x, edge_attr, topology)


def _features(edge_attr: Float[Tensor, "E De"] | None) -> Float[Tensor, "E De"]:
    if edge_attr is None:
        raise ValueError("edge_attr: expected features in every graph, got one without")
    return edge_attr
