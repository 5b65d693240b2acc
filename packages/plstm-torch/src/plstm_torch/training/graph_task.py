"""Graph classification on one fold of a cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plstm_config import BlockStackConfig, pLSTMGraphEdgeBlockConfig, pLSTMGraphModelConfig
from plstm_config.topology import DagTopology
from plstm_testing.datasets import GraphArrays, load_tu_dataset, split_folds
from plstm_torch.optional import UserError
from plstm_torch.settings import GraphsSettings
from plstm_torch.training.distributed import World
from plstm_torch.training.model_configs import param_dtype
from plstm_torch.training.model_task import PREFIX, ModelTask, means, score_logits
from plstm_torch.training.order import Batch
from plstm_torch.training.run_folder import RunFolder
from plstm_torch.training.task import Score, Split

_EVALUATION_BATCH = 64
LARGEST_DEGREE = 16  # of nodes with a gate of their own for each edge
CONFUSION = "confusion_"  # and the true class, "_", the predicted class


@dataclass(frozen=True)
class GraphBatch:
    """Graphs side by side, on a device.

    Attributes:
        x: node features [N, Dx].
        edge_attr: edge features [E, De], in the order in which the edges were given; None without any.
        topology: of all graphs.
    """

    x: Tensor
    edge_attr: Tensor | None
    topology: DagTopology

    @classmethod
    def from_arrays(cls, graphs: GraphArrays) -> "GraphBatch":
        """Make tensors of arrays."""
        edge_attr = None if graphs.edge_attr is None else torch.from_numpy(graphs.edge_attr)
        return cls(torch.from_numpy(graphs.x), edge_attr, graphs.topology)

    def to(self, device: torch.device) -> "GraphBatch":
        """Return the batch with its tensors on a device."""
        edge_attr = None if self.edge_attr is None else self.edge_attr.to(device)
        return GraphBatch(self.x.to(device), edge_attr, self.topology)


def edge_gates(degree: int, edge_dim: int, num_heads: int) -> dict[str, Any]:
    """Choose how the gates of edges are made: a hub has none of its own for each edge, whose number grows squared.

    Args:
        degree: largest number of edges that enter or leave a node.
        edge_dim: features of an edge.
        num_heads: heads of each layer.

    Returns:
        Fields of the model's config.
    """
    if edge_dim or degree <= LARGEST_DEGREE:
        return {"max_edges": max(1, degree)}
    return {"block_stack": BlockStackConfig(block=pLSTMGraphEdgeBlockConfig(num_heads=num_heads, edge_input_dim=0))}


class GraphsTask(ModelTask):
    """One fold: trained on most graphs, one fold chooses the epoch, one is measured."""

    name = "graphs"
    predictions_per_sample = 1

    settings: GraphsSettings

    def __init__(self, settings: GraphsSettings, seed: int) -> None:
        """Load the graphs, which are downloaded for a new run if they are not there, and split them.

        Args:
            settings: data and model.
            seed: of the run; the split has its own.

        Raises:
            UserError: if the data are no longer those that the run began with.
            ValueError: if the data or a package is missing, or the model's sizes are impossible.
        """
        self.data = load_tu_dataset(settings.dataset, settings.root, download=not settings.digest)
        if settings.digest and settings.digest != self.data.digest:
            raise UserError(f"{settings.root} does not hold the data that this run began with (they have changed)")
        root = str(Path(settings.root).resolve())
        self.settings, self.seed = replace(settings, digest=self.data.digest, root=root), seed
        self.fold = split_folds(self.data.labels, settings.num_folds, settings.data_seed)[settings.fold]
        self.model_config("float32")

    @property
    def num_samples(self) -> int:
        """Graphs in an epoch."""
        return len(self.fold.train)

    def batch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """Return training graphs and labels."""
        return self._batch([self.fold.train[index] for index in indices])

    def _batch(self, indices: Sequence[int]) -> tuple[GraphBatch, Tensor]:
        graphs, labels = self.data.batch(indices)
        return GraphBatch.from_arrays(graphs), torch.from_numpy(labels)

    def model_config(self, dtype: str) -> Any:
        """Return the model's config."""
        s, degrees = self.settings, [0]
        for graph in self.data.graphs:
            degrees += [graph.topology.in_degree.max(initial=0), graph.topology.out_degree.max(initial=0)]
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype(dtype)}
        return pLSTMGraphModelConfig(
            input_dim=self.data.node_dim,
            edge_input_dim=self.data.edge_dim,
            output_dim=self.data.num_classes,
            dim=s.dim,
            num_heads=s.num_heads,
            num_blocks=s.num_blocks,
            pooling=s.pooling,
            degree_encoding=s.degree_encoding,
            **edge_gates(int(max(degrees)), self.data.edge_dim, s.num_heads),
            **types,
        )

    def score(self, model: nn.Module, batch: Batch) -> Score:
        """Run the model on a batch and measure its predictions."""
        graphs, labels = batch
        return score_logits(model(graphs.x, graphs.topology, graphs.edge_attr), labels)

    def evaluate(self, model: nn.Module, world: World, split: Split) -> dict[str, float]:
        """Return loss and accuracy, and how often each test class was taken for which; see `Task.evaluate`."""
        indices = self.fold.validation if split == "validation" else self.fold.test
        sums = {"loss": 0.0, "correct": 0.0, "count": 0.0}
        confusion = torch.zeros(self.data.num_classes, self.data.num_classes)
        own = world.share.of(indices)
        for start in range(0, len(own), _EVALUATION_BATCH):
            graphs, labels = self._batch(own[start : start + _EVALUATION_BATCH])
            graphs, labels = graphs.to(world.device), labels.to(world.device)
            logits = model(graphs.x, graphs.topology, graphs.edge_attr)
            score = score_logits(logits, labels)
            sums["loss"] += score.loss.item()
            sums["correct"] += score.correct.item()
            sums["count"] += score.count
            pairs = torch.stack([labels, logits.argmax(-1)]).cpu()
            confusion.index_put_(tuple(pairs), torch.ones(score.count), accumulate=True)
        loss, accuracy = means(sums, world)
        measured = {f"{PREFIX[split]}_loss": loss, f"{PREFIX[split]}_accuracy": accuracy}
        if split == "validation":
            return measured
        counts = {
            f"{CONFUSION}{truth}_{answer}": float(confusion[truth, answer])
            for truth in range(len(confusion))
            for answer in range(len(confusion))
        }
        return {**measured, **world.sum(counts)}

    def finish(self, model: nn.Module, device: torch.device, folder: RunFolder) -> None:
        """Draw nothing: one fold has few test graphs, and `cross_validation` draws them all; see `Task.finish`."""
