"""MUTAG by the paper's protocol: a pLSTM and three graph networks of equal width and depth, trained by the same code.

    python studies/molecules.py run --root data/TUDataset --minutes 60   # what is missing in studies/results/molecules
    python studies/molecules.py report                                   # the table in docs/molecules.md

Ten folds, 100 epochs, the recipe of `plstm-torch train graphs` for all. Of each fold the epoch is the one with the best
validation accuracy, of several the one with the lowest loss there. Seeds draw weights and order; the folds stay.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pages
import torch
from runs import description, run_missing, stored, train_once
from torch import Tensor, nn
from torch_geometric.nn import GAT, GCN, GIN, global_mean_pool

from plstm_config.topology import DagTopology
from plstm_torch.settings import GRAPHS_TRAINING, GraphsSettings, TrainingSettings
from plstm_torch.training.graph_task import GraphsTask

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "studies/results/molecules", ROOT / "docs/molecules.md"
DATA = GraphsSettings()
SEEDS = (0, 1, 2)
TITLES = {"plstm": "pLSTM", "gcn": "GCN", "gin": "GIN", "gatv2": "GATv2"}
KEPT = ("chosen_epoch", "val_accuracy", "test_accuracy", "test_loss", "seconds", "processor_seconds")


class Convolutions(nn.Module):
    """A graph network of PyTorch Geometric over the bonds in both directions, mean over the nodes, linear head."""

    def __init__(self, kind: str, node_dim: int, edge_dim: int, classes: int, width: int, layers: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"heads": 4, "v2": True, "edge_dim": edge_dim} if kind == "gatv2" else {}
        network = {"gcn": GCN, "gin": GIN, "gatv2": GAT}[kind]
        self.reads_edges = kind == "gatv2"
        self.network = network(node_dim, width, layers, norm="batch_norm", **options)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor, topology: DagTopology, edge_attr: Tensor | None) -> Tensor:
        """From nodes [N, Dx] and bonds to logits [B, classes]."""
        bonds, features = both_ways(topology, edge_attr)
        own = {"edge_attr": features} if self.reads_edges else {}
        graph = torch.as_tensor(topology.node_graph, device=x.device)
        nodes = self.network(x, bonds.to(x.device), **own)
        return self.head(global_mean_pool(nodes, graph, topology.num_graphs))


def both_ways(topology: DagTopology, edge_attr: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Bonds [2, 2E], first all of them as the topology has them, then all turned round, and their features [2E, De]."""
    bonds = torch.as_tensor(topology.edges.T.copy())
    own = None if edge_attr is None else edge_attr[torch.as_tensor(topology.edge_order, device=edge_attr.device)]
    return torch.cat([bonds, bonds.flip(0)], 1), None if own is None else torch.cat([own, own])


class StudyTask(GraphsTask):
    """One fold of `train graphs` with another model, whose weights are thrown away."""

    model = "plstm"

    def build_model(self, dtype: str) -> nn.Module:
        """Make the model of the study's name."""
        if self.model == "plstm":
            return super().build_model(dtype)
        data, settings = self.data, self.settings
        sizes = (data.node_dim, data.edge_dim, data.num_classes, settings.dim, 2 * settings.num_blocks)
        return Convolutions(self.model, *sizes)

    def save_model(self, model: nn.Module, folder: Path) -> None:
        """Write nothing."""


def recipe(model: str, seed: int) -> dict[str, Any]:
    """Everything that defines a run: the defaults of `train graphs`."""
    data = {key: value for key, value in asdict(DATA).items() if key not in ("root", "digest", "fold")}
    return {"model": model, "data": data, "training": asdict(replace(GRAPHS_TRAINING, seed=seed))}


def run(settings: dict[str, Any], root: str) -> dict[str, Any]:
    """Train on all folds.

    Args:
        settings: see `recipe`.
        root: folder of the data.

    Returns:
        What is written: settings, machine, the mean over the folds, and a line for each fold.
    """
    training = TrainingSettings(**{key: value for key, value in settings["training"].items() if key != "extensions"})
    folds = []
    for fold in range(settings["data"]["num_folds"]):
        task = StudyTask(GraphsSettings(**settings["data"], root=root, fold=fold), training.seed)
        task.model = settings["model"]
        summary, _ = train_once(task, training)
        folds.append({"fold": fold, **{key: summary[key] for key in KEPT}})
    accuracies = [fold["test_accuracy"] for fold in folds]
    return {
        "settings": settings,
        "machine": description(),
        "seconds": sum(fold["seconds"] for fold in folds),
        "processor_seconds": sum(fold["processor_seconds"] for fold in folds),
        "parameters": summary["parameters"],
        "test_accuracy": float(np.mean(accuracies)),
        "deviation": float(np.std(accuracies, ddof=1)),
        "epochs": folds,
    }


def wanted(models: Sequence[str], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Settings of the runs by the names of their files, seed by seed."""
    return {f"{model}_{seed}": recipe(model, seed) for seed in seeds for model in models}


def results(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The runs of each model that are there and have today's settings, by seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for model in TITLES:
        runs = (stored(out / f"{model}_{seed}.json", recipe(model, seed)) for seed in SEEDS)
        found[model] = [one for one in runs if one]
    return found


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Mean over folds and seeds, deviation over the folds as the paper gives it, and each seed."""
    header = ["model", "parameters", "test accuracy: mean, deviation over folds", "each seed"]
    rows = []
    for model, runs in found.items():
        if runs:
            folds = 100 * np.array([[fold["test_accuracy"] for fold in one["epochs"]] for one in runs])
            mean = f"{folds.mean():.1f} % +- {folds.std(axis=1, ddof=1).mean():.1f}"
            each = ", ".join(f"{value:.1f}" for value in folds.mean(axis=1))
            seconds = np.mean([one["processor_seconds"] for one in runs])
            rows.append([TITLES[model], f"{runs[0]['parameters']:,}", mean, each, f"{seconds:.0f}"])
    return pages.table([*header, "processor seconds of a run"], rows)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--root", default="data/TUDataset", help="folder with MUTAG in the TU format")
    parser.add_argument("--models", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many minutes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.command == "run":
        runs = wanted(options.models, options.seeds)
        run_missing(options.out, runs, lambda one: run(one, options.root), options.minutes, measure="test_accuracy")
    else:
        pages.write_table(PAGE, table(results(options.out)))


if __name__ == "__main__":
    main()
