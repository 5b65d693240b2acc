"""Classify nodes whose label stands many steps away: pLSTM against GCN and GATv2 of the same width, trained alike.

python studies/distant_labels.py --json distant_labels.json     # every model, as a table and as JSON
python studies/distant_labels.py --draw distant_labels.json     # the picture of docs/graphs.md; nothing is trained
python studies/distant_labels.py --write FOLDER                 # the graph of the first seed, for `train nodes`

The graph is made of cascades, as of messages that are passed on: each node has heard from one of the two before it, and
its label is the class that the source of its cascade shows. Sources show that they are sources; a share of the other
nodes shows a class, too, which means nothing. A few edges join cascades.
Neighbours nearly always have the same label (homophily), and sources are up to some 20 steps away. Whole cascades
are held out: what is near a training node tells nothing. Convolutions get the edges in their direction, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GAT, GCN

from plstm_config import BlockStackConfig, pLSTMGraphEdgeBlockConfig, pLSTMGraphModelConfig
from plstm_config.topology import DagTopology
from plstm_torch import build

PICTURE = Path(__file__).parents[1] / "docs/distant_labels.png"
CLASSES = 4
CASCADES, LENGTH = 60, 24
FEATURES = CLASSES + 1  # the last one: it is a source
BETWEEN = 0.05  # edges between cascades, for each node
WIDTH, HEADS = 32, 4
RATES = (3e-3, 1e-2)  # pLSTM gets the first, convolutions the better one of both
NEAR, FAR = 4, 8  # steps from the source


@dataclass(frozen=True)
class Graph:
    """The nodes, what they show and are, and how far they are from their source."""

    x: Tensor
    edges: np.ndarray
    labels: Tensor
    steps: np.ndarray
    parts: dict[str, np.ndarray]

    @property
    def homophily(self) -> float:
        """Share of the edges that join nodes of the same label."""
        return float((self.labels[self.edges[:, 0]] == self.labels[self.edges[:, 1]]).float().mean())


def draw_graph(seed: int, misleading: float) -> Graph:
    """The graph of a seed, in which a share of the nodes shows a class that means nothing."""
    random = np.random.default_rng(seed)
    num_nodes, classes = CASCADES * LENGTH, np.arange(CASCADES) % CLASSES
    x = np.zeros((num_nodes, FEATURES), np.float32)
    shows = np.flatnonzero(random.random(num_nodes) < misleading)
    x[shows, random.integers(0, CLASSES, len(shows))] = 1.0
    x[np.arange(CASCADES) * LENGTH] = 0.0
    x[np.arange(CASCADES) * LENGTH, classes] = x[np.arange(CASCADES) * LENGTH, CLASSES] = 1.0
    steps = np.zeros(num_nodes, np.int64)
    edges = set()
    for node in range(num_nodes):
        place = node % LENGTH
        if place:
            heard = node - int(random.integers(1, min(place, 2) + 1))
            edges.add((heard, node))
            steps[node] = steps[heard] + 1
    for tail, head in np.sort(random.integers(0, num_nodes, (int(BETWEEN * num_nodes), 2)), 1).tolist():
        if tail // LENGTH != head // LENGTH and head % LENGTH:
            edges.add((tail, head))
    labels = torch.from_numpy(np.repeat(classes, LENGTH))
    return Graph(torch.from_numpy(x), np.array(sorted(edges)), labels, steps, draw_parts(random))


def draw_parts(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Half of the cascades to train on, a fifth that chooses, and the rest that is measured."""
    order = random.permutation(CASCADES)
    members = order[:, None] * LENGTH + np.arange(LENGTH)
    train, chooses = len(order) // 2, 7 * len(order) // 10
    parts = {"train": members[:train], "val": members[train:chooses], "test": members[chooses:]}
    return {name: nodes.ravel() for name, nodes in parts.items()}


class Plstm(nn.Module):
    """Two pairs of a P and a D layer, the second against the edges; with or without slots for the edges of a node."""

    def __init__(self, graph: Graph, slots: bool) -> None:
        super().__init__()
        self.topology = DagTopology.from_edges(len(graph.x), graph.edges)
        own: dict[str, Any] = {
            "block_stack": BlockStackConfig(block=pLSTMGraphEdgeBlockConfig(num_heads=HEADS, edge_input_dim=0))
        }
        if slots:
            own = {"max_edges": int(max(self.topology.in_degree.max(), self.topology.out_degree.max()))}
        sizes = {"input_dim": FEATURES, "dim": WIDTH, "num_heads": HEADS, "num_blocks": 2, "output_dim": CLASSES}
        self.model = build(pLSTMGraphModelConfig(pooling="none", **sizes, **own))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, self.topology)


class Convolutions(nn.Module):
    """A model of PyTorch Geometric, with normalisation and all of its layers before the last map."""

    def __init__(self, graph: Graph, kind: str, depth: int) -> None:
        super().__init__()
        self.edge_index = torch.from_numpy(graph.edges.T.copy())
        common: dict[str, Any] = {"norm": "layer_norm", "jk": "cat"}
        sizes = (FEATURES, WIDTH, depth, CLASSES)
        self.model = GCN(*sizes, **common) if kind == "GCN" else GAT(*sizes, v2=True, heads=HEADS, **common)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, self.edge_index)


def models() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The models, each with the settings among which validation chooses."""
    for slots in (True, False):
        yield f"pLSTM, gates with{'' if slots else 'out'} slots", [{"slots": slots, "rate": RATES[0]}]
    for kind in ("GCN", "GATv2"):
        for depth in (4, 16):
            yield f"{kind}, {depth} layers", [{"kind": kind, "depth": depth, "rate": rate} for rate in RATES]


def make(graph: Graph, setting: dict[str, Any]) -> nn.Module:
    """The model of a setting, without its learning rate."""
    own = {name: value for name, value in setting.items() if name != "rate"}
    return Plstm(graph, **own) if "slots" in own else Convolutions(graph, **own)


def train(graph: Graph, setting: dict[str, Any], seed: int, epochs: int) -> dict[str, Any]:
    """Train a model; what it answers at the epoch of the best validation accuracy."""
    torch.manual_seed(seed)
    model, start = make(graph, setting), time.perf_counter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting["rate"], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, setting["rate"], epochs)
    best: dict[str, Any] = {"validation": -1.0}
    for epoch in range(1, epochs + 1):
        nodes = graph.parts["train"]
        loss = functional.cross_entropy(model.train()(graph.x)[nodes], graph.labels[nodes])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            right = (model.eval()(graph.x).argmax(-1) == graph.labels).numpy()
        validation = float(right[graph.parts["val"]].mean())
        if validation > best["validation"]:
            best = {"validation": validation, "epoch": epoch, "right": right}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {**best, "seconds": round(time.perf_counter() - start, 1), "parameters": parameters, "setting": setting}


def measure(graph: Graph, tried: list[dict[str, Any]], seed: int, epochs: int) -> dict[str, Any]:
    """Train every setting, and look at the test nodes once, with the setting and epoch that validation chose."""
    runs = [train(graph, setting, seed, epochs) for setting in tried]
    chosen = max(runs, key=lambda run: run["validation"])
    right, nodes = chosen.pop("right"), graph.parts["test"]
    steps = graph.steps[nodes]
    among = {"near": steps <= NEAR, "between": (steps > NEAR) & (steps <= FAR), "far": steps > FAR}
    measured = {name: float(right[nodes][members].mean()) for name, members in among.items()}
    return {"seed": seed, "test": float(right[nodes].mean()), **measured, **chosen}


def write_tables(folder: Path, graph: Graph) -> None:
    """The two files that `plstm-torch train nodes` reads."""
    split = {int(node): name for name, nodes in graph.parts.items() for node in nodes}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "nodes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "split", *(f"shows_{name}" for name in range(CLASSES)), "source"])
        for node, shown in enumerate(graph.x.tolist()):
            writer.writerow([node, int(graph.labels[node]), split[node], *map(int, shown)])
    with (folder / "edges.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("source", "target"), *graph.edges.tolist()])


def summary(rows: list[dict[str, Any]]) -> str:
    """Medians over the seeds."""
    cells = [
        f"{name} {statistics.median(row[name] for row in rows):.3f}" for name in ("test", "near", "between", "far")
    ]
    return f"{'  '.join(cells)}  parameters {rows[0]['parameters']}  seconds {max(row['seconds'] for row in rows)}"


def joined(models: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each model by seed; of the forms of the pLSTM that which is better on validation."""
    forms = [runs for name, runs in models.items() if name.startswith("pLSTM")]
    best = [max(runs, key=lambda one: one["validation"]) for runs in zip(*forms, strict=True)]
    return {"pLSTM, 4 layers": best} | {name: runs for name, runs in models.items() if not name.startswith("pLSTM")}


def draw(models: dict[str, list[dict[str, Any]]], picture: Path) -> None:
    """Accuracy on test nodes against the distance of the source: each seed thin, their median bold."""
    from plstm_torch.training.plots import new_figure

    figure = new_figure(6.5, 3.6)
    axes = figure.subplots()
    for number, (name, runs) in enumerate(joined(models).items()):
        curves = [[100 * one[part] for part in ("near", "between", "far")] for one in runs]
        for curve in curves:
            axes.plot(range(3), curve, color=f"C{number}", alpha=0.25, linewidth=0.8)
        axes.plot(range(3), np.median(curves, axis=0), color=f"C{number}", marker="o", label=name)
    axes.axhline(100 / CLASSES, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(3), ["1 to 4", "5 to 8", "9 and more"])
    axes.set_xlabel("steps from the source of the label")
    axes.set_title("test accuracy (%)", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="JSON file to write, anew after every model")
    parser.add_argument("--draw", type=Path, help="JSON file of earlier results: draw them, train nothing")
    parser.add_argument("--write", type=Path, help="folder for nodes.csv and edges.csv; nothing is trained")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the graph, the split, the weights")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--misleading", type=float, default=0.3, help="share of the nodes")
    options = parser.parse_args()
    if options.draw:
        draw(json.loads(options.draw.read_text(encoding="utf-8"))["models"], PICTURE)
        return
    if options.write:
        write_tables(options.write, draw_graph(options.seeds[0], options.misleading))
        return
    torch.set_num_threads(1)
    about = {"machine": platform.machine(), "system": platform.platform(), "torch": torch.__version__, "threads": 1}
    about |= {
        "date": str(date.today()),
        "width": WIDTH,
        "heads": HEADS,
        "epochs": options.epochs,
        "misleading": options.misleading,
    }
    graphs, rows = [], {}
    for seed in options.seeds:
        graph = draw_graph(seed, options.misleading)
        graphs.append(describe(graph, seed))
        for name, tried in models():
            rows.setdefault(name, []).append(measure(graph, tried, seed, options.epochs))
            print(f"seed {seed}  {name:28} {summary(rows[name][-1:])}", flush=True)
            if options.json:
                options.json.write_text(json.dumps({**about, "graphs": graphs, "models": rows}, indent=1) + "\n")
    for name, measured in rows.items():
        print(f"median  {name:28} {summary(measured)}")


def describe(graph: Graph, seed: int) -> dict[str, Any]:
    """What a reader of the numbers wants to know of a graph."""
    sizes = {"nodes": len(graph.x), "edges": len(graph.edges), "steps": int(graph.steps.max())}
    return {"seed": seed, **sizes, "homophily": round(graph.homophily, 3)}


if __name__ == "__main__":
    main()
