"""Node classification on a graph of one's own."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plstm_config import pLSTMGraphModelConfig
from plstm_torch.optional import UserError
from plstm_torch.settings.nodes import NodesSettings
from plstm_torch.training.distributed import World
from plstm_torch.training.graph_task import GraphBatch, edge_gates
from plstm_torch.training.model_configs import param_dtype
from plstm_torch.training.model_task import PREFIX, ModelTask, described_split, means, score_logits
from plstm_torch.training.node_graph import load_node_graph
from plstm_torch.training.order import Batch
from plstm_torch.training.run_folder import PREDICTIONS_FILE, RunFolder
from plstm_torch.training.task import Score, Split


@dataclass(frozen=True)
class NodeBatch:
    """The whole graph, and the nodes that count.

    Attributes:
        graph: features and topology.
        nodes: numbers of the nodes [B] int64.
    """

    graph: GraphBatch
    nodes: Tensor

    def to(self, device: torch.device) -> "NodeBatch":
        """Return the batch with its tensors on a device."""
        return NodeBatch(self.graph.to(device), self.nodes.to(device))


class NodesTask(ModelTask):
    """Some nodes of a graph are trained on, some choose the epoch, and some are measured; all are seen."""

    name = "nodes"
    predictions_per_sample = 1
    settings: NodesSettings

    def __init__(self, settings: NodesSettings, seed: int) -> None:
        """Read the graph.

        Args:
            settings: data and model.
            seed: of the run.

        Raises:
            UserError: if the files cannot be read, or are no longer those that the run began with.
            ValueError: if the model's sizes are impossible.
        """
        self.data = load_node_graph(settings)
        if settings.digest and settings.digest != self.data.digest:
            raise UserError(
                f"{settings.nodes} and {settings.edges} are not those that this run began with (they changed)"
            )
        places: dict[str, Any] = {name: str(Path(getattr(settings, name)).resolve()) for name in settings.locations}
        self.settings, self.seed = replace(settings, digest=self.data.digest, **places), seed
        self.graph = GraphBatch.from_arrays(self.data.graph)
        self.model_config("float32")

    @property
    def num_samples(self) -> int:
        """Nodes in an epoch."""
        return len(self.data.train)

    def batch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """Return the graph with some training nodes, and their labels."""
        return self._batch(self.data.train[np.asarray(indices, np.int64)])

    def _batch(self, nodes: Any) -> tuple[NodeBatch, Tensor]:
        return NodeBatch(self.graph, torch.from_numpy(nodes)), torch.from_numpy(self.data.labels[nodes])

    def model_config(self, dtype: str) -> Any:
        """Return the model's config."""
        s, topology, edge_attr = self.settings, self.graph.topology, self.graph.edge_attr
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype(dtype)}
        degree = max(topology.in_degree.max(initial=0), topology.out_degree.max(initial=0))
        edge_dim = 0 if edge_attr is None else edge_attr.shape[1]
        return pLSTMGraphModelConfig(
            input_dim=self.graph.x.shape[1],
            edge_input_dim=edge_dim,
            output_dim=len(self.data.classes),
            dim=s.dim,
            num_heads=s.num_heads,
            num_blocks=s.num_blocks,
            pooling="none",
            degree_encoding=s.degree_encoding,
            **edge_gates(int(degree), edge_dim, s.num_heads),
            **types,
        )

    def describe(self) -> str:
        """What was found in the files."""
        data = self.data
        held_out = (len(data.held_out[split]) for split in ("validation", "test"))
        size = f"{len(data.ids):,} nodes, {len(self.graph.topology.edges):,} edges, {len(data.classes)} classes"
        return f"{size}: {described_split('nodes', len(data.train), *held_out)}"

    def score(self, model: nn.Module, batch: Batch) -> Score:
        """Run the model on the graph and measure its predictions for the nodes that count."""
        inputs, labels = batch
        logits = model(inputs.graph.x, inputs.graph.topology, inputs.graph.edge_attr)
        return score_logits(logits[inputs.nodes], labels)

    def evaluate(self, model: nn.Module, world: World, split: Split) -> dict[str, float]:
        """Return loss and accuracy; see `Task.evaluate`."""
        nodes = self.data.held_out[split]
        if not len(nodes):
            return {}
        inputs, labels = self._batch(nodes[np.asarray(world.share.of(range(len(nodes))), np.int64)])
        sums = {"loss": 0.0, "correct": 0.0, "count": 0.0}
        if len(labels):
            score = self.score(model, (inputs.to(world.device), labels.to(world.device)))
            sums = {"loss": score.loss.item(), "correct": score.correct.item(), "count": score.count}
        loss, accuracy = means(sums, world)
        return {f"{PREFIX[split]}_loss": loss, f"{PREFIX[split]}_accuracy": accuracy}

    def finish(self, model: nn.Module, device: torch.device, folder: RunFolder) -> None:
        """Write the class that the model gives to every node; see `Task.finish`."""
        graph = self.graph.to(device)
        with torch.no_grad():
            answers = model.eval()(graph.x, graph.topology, graph.edge_attr).argmax(-1).tolist()
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(("id", "label"))
        writer.writerows((node, self.data.classes[answer]) for node, answer in zip(self.data.ids, answers, strict=True))
        folder.save_text(PREDICTIONS_FILE, text.getvalue())
