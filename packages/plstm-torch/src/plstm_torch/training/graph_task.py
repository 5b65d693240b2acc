"""Graph classification on one fold of a cross-validation."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from plstm_config import pLSTMGraphModelConfig
from plstm_torch.data.graphs import load_tu_dataset, split_folds
from plstm_torch.training.distributed import World
from plstm_torch.training.model_task import ModelTask, means, score_logits
from plstm_torch.training.order import Batch
from plstm_torch.training.run_folder import RunFolder
from plstm_torch.training.settings import TrainingSettings, from_mapping
from plstm_torch.training.task import Score

_EVALUATION_BATCH = 64
CONFUSION = "confusion_"  # and the true class, "_", the predicted class


@dataclass(frozen=True, kw_only=True)
class GraphsSettings:
    """Settings of graph classification.

    Attributes:
        dataset: name in the TUDataset collection.
        root: folder of the datasets.
        num_folds: folds of the cross-validation.
        fold: which of them is the test set.
        data_seed: of the split.
        dim: width of the model.
        num_heads: heads of each layer.
        num_blocks: pairs of a P and a D block; the direction of the edges alternates from pair to pair.
        pooling: over the nodes of a graph.
        degree_encoding: whether the degrees of a node are added to its features.
    """

    dataset: str = "MUTAG"
    root: str = "data/TUDataset"
    num_folds: int = 10
    fold: int = 0
    data_seed: int = 0
    dim: int = 96
    num_heads: int = 4
    num_blocks: int = 2
    pooling: Literal["mean", "sum", "max"] = "mean"
    degree_encoding: bool = True

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: naming the field, its value and what was expected.
        """
        if not 0 <= self.fold < self.num_folds:
            raise ValueError(f"fold={self.fold}: expected 0 to num_folds-1={self.num_folds - 1}")


GRAPHS_TRAINING = TrainingSettings(epochs=100, batch_size=64, learning_rate=1e-3, warmup_epochs=5.0)


class GraphsTask(ModelTask):
    """One fold: trained on most graphs, one fold chooses the epoch, one is measured."""

    name = "graphs"
    headline = "test_accuracy"
    predictions_per_sample = 1

    def __init__(self, settings: GraphsSettings, seed: int) -> None:
        """Load the graphs and split them.

        Args:
            settings: data and model.
            seed: of the run; the split has its own.

        Raises:
            UserError: if the data or a package is missing.
            ValueError: if the model's sizes are impossible.
        """
        self.settings, self.seed = settings, seed
        self.data = load_tu_dataset(settings.dataset, settings.root)
        self.fold = split_folds(self.data.labels, settings.num_folds, settings.data_seed)[settings.fold]
        self.model_config("float32")

    @classmethod
    def from_settings(cls, data: Mapping[str, Any], seed: int) -> "GraphsTask":
        """Make the task from what stands in training.json."""
        return cls(from_mapping(GraphsSettings, data), seed)

    @property
    def data_settings(self) -> dict[str, Any]:
        """Settings of the task, as they stand in training.json."""
        return asdict(self.settings)

    @property
    def num_samples(self) -> int:
        """Graphs in an epoch."""
        return len(self.fold.train)

    def batch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """Return training graphs and labels."""
        return self.data.batch([self.fold.train[index] for index in indices])

    def model_config(self, dtype: str) -> Any:
        """Return the model's config."""
        s, degrees = self.settings, [0]
        for graph in self.data.graphs:
            degrees += [graph.topology.in_degree.max(initial=0), graph.topology.out_degree.max(initial=0)]
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": "float64" if dtype == "float64" else "float32"}
        return pLSTMGraphModelConfig(
            input_dim=self.data.node_dim,
            edge_input_dim=self.data.edge_dim,
            output_dim=self.data.num_classes,
            dim=s.dim,
            num_heads=s.num_heads,
            num_blocks=s.num_blocks,
            pooling=s.pooling,
            degree_encoding=s.degree_encoding,
            max_edges=int(max(1, *degrees)),
            **types,
        )

    def score(self, model: nn.Module, batch: Batch) -> Score:
        """Run the model on a batch and measure its predictions."""
        graphs, labels = batch
        return score_logits(model(graphs.x, graphs.topology, graphs.edge_attr), labels)

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        """Return loss and accuracy on the validation and test graphs, and how often each class was taken for which."""
        measured = {}
        for name, indices in (("val", self.fold.validation), ("test", self.fold.test)):
            sums = {"loss": 0.0, "correct": 0.0, "count": 0.0}
            confusion = torch.zeros(self.data.num_classes, self.data.num_classes)
            own = world.shard(indices)
            for start in range(0, len(own), _EVALUATION_BATCH):
                graphs, labels = self.data.batch(own[start : start + _EVALUATION_BATCH])
                graphs, labels = graphs.to(world.device), labels.to(world.device)
                logits = model(graphs.x, graphs.topology, graphs.edge_attr)
                score = score_logits(logits, labels)
                sums["loss"] += score.loss.item()
                sums["correct"] += score.correct.item()
                sums["count"] += score.count
                pairs = torch.stack([labels, logits.argmax(-1)]).cpu()
                confusion.index_put_(tuple(pairs), torch.ones(score.count), accumulate=True)
            measured[f"{name}_loss"], measured[f"{name}_accuracy"] = means(sums, world)
        counts = {
            f"{CONFUSION}{truth}_{answer}": float(confusion[truth, answer])
            for truth in range(len(confusion))
            for answer in range(len(confusion))
        }
        return {**measured, **world.sum(counts)}

    def finish(self, model: nn.Module, device: torch.device, folder: RunFolder) -> None:
        """Draw nothing: one fold has few test graphs, and `cross_validation` draws them all."""
