"""Labelled graphs side by side, and their split for a cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from plstm_config.topology import DagTopology
from plstm_testing.datasets.errors import DatasetError, require


@dataclass(frozen=True)
class GraphArrays:
    """Graphs side by side.

    Attributes:
        x: node features [N, Dx] float32.
        edge_attr: edge features [E, De] float32, in the order in which the edges were given; None without any.
        topology: of all graphs.
    """

    x: Float[ndarray, "N Dx"]
    edge_attr: Float[ndarray, "E De"] | None
    topology: DagTopology


@dataclass(frozen=True)
class GraphSet:
    """A data set of labelled graphs.

    Attributes:
        graphs: one entry of a single graph for each.
        labels: class of each graph [G] int64.
        num_classes: number of classes.
        digest: SHA-256 of what was read, to notice that it changed between two runs.
    """

    graphs: Sequence[GraphArrays]
    labels: Int[ndarray, " G"]
    num_classes: int
    digest: str = ""

    @property
    def node_dim(self) -> int:
        """Features of a node."""
        return self.graphs[0].x.shape[1]

    @property
    def edge_dim(self) -> int:
        """Features of an edge, 0 without any."""
        edge_attr = self.graphs[0].edge_attr
        return 0 if edge_attr is None else edge_attr.shape[1]

    def batch(self, indices: Sequence[int]) -> tuple[GraphArrays, Int[ndarray, " B"]]:
        """Put some of the graphs side by side.

        Args:
            indices: which graphs.

        Returns:
            The graphs and their labels [B].
        """
        chosen = [self.graphs[index] for index in indices]
        topology = DagTopology.batch([graph.topology for graph in chosen])
        x = np.concatenate([graph.x for graph in chosen])
        features = [graph.edge_attr for graph in chosen if graph.edge_attr is not None]
        edge_attr = np.concatenate(features) if features else None
        return GraphArrays(x, edge_attr, topology), self.labels[np.asarray(indices, np.int64)]


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


def split_folds(labels: Int[ndarray, " G"], num_folds: int, seed: int) -> list[Fold]:
    """Split graphs for a stratified cross-validation; fold i is tested, fold i + 1 chooses the epoch.

    Args:
        labels: class of each graph.
        num_folds: number of folds, at least 3.
        seed: of the shuffling, below 2**32.

    Returns:
        One split for each fold.

    Raises:
        DatasetError: if scikit-learn is not installed, or a class has too few graphs.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.datasets import split_folds
        >>> folds = split_folds(np.arange(40) % 2, num_folds=4, seed=0)
        >>> len(folds), len(folds[0].test)
        (4, 10)
    """
    selection = require("sklearn.model_selection", "scikit-learn")
    fewest = int(np.bincount(labels).min())
    if not 3 <= num_folds <= fewest:
        raise DatasetError(f"num_folds: expected 3 to {fewest}, the graphs of the smallest class, got {num_folds}")
    splitter = selection.StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    tests = [held.tolist() for _, held in splitter.split(np.zeros(len(labels)), labels)]
    folds = []
    for number, test in enumerate(tests):
        validation = tests[(number + 1) % num_folds]
        held_out = {*test, *validation}
        folds.append(Fold([index for index in range(len(labels)) if index not in held_out], validation, test))
    return folds
