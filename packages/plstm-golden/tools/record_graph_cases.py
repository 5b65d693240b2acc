"""Record the golden cases of the kinds `layer_graph` and `model_graph` from this project's torch backend.

The research code has no counterpart that is right, so these cases fix what release 0.1.0 computes. Run it from the root
of the repository only to add cases: recordings that exist are not written again.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import plstm_torch
from plstm_config import pLSTMGraphLayerConfig, pLSTMGraphModelConfig, to_dict
from plstm_config.base import Config
from plstm_config.topology import DagTopology
from plstm_testing.parameters import random_parameters

FOLDER = Path(__file__).parents[1] / "src" / "plstm_golden" / "recordings"
SOURCE = "plstm-torch 0.1.0"
FLOAT64: dict[str, Any] = {"dtype": "float64", "param_dtype": "float64"}
# Two graphs and a lone node; edges neither sorted nor in topological order.
EDGES = np.array([[2, 4], [0, 1], [0, 2], [1, 3], [2, 3], [3, 4], [1, 2], [6, 7], [5, 6], [5, 7], [7, 8]])
NODE_PTR = np.array([0, 5, 9, 10])


def layer(**options: Any) -> pLSTMGraphLayerConfig:
    """A small layer with gates from nodes."""
    return pLSTMGraphLayerConfig(input_dim=8, num_heads=2, max_edges=3, **options, **FLOAT64)


def model(**options: Any) -> pLSTMGraphModelConfig:
    """A small model with two pairs of blocks, one along the edges and one against them."""
    sizes: dict[str, Any] = {"input_dim": 4, "dim": 8, "output_dim": 3, "num_heads": 2, "num_blocks": 2}
    return pLSTMGraphModelConfig(**sizes, max_degree=2, max_edges=3, **options, **FLOAT64)


CASES: dict[str, Config] = {
    "layer_graph_P": layer(mode="P", bias=True),
    "layer_graph_D": layer(mode="D"),
    "layer_graph_P_swapped": layer(mode="P", edge_slots="swapped", pmode_normalization="incoming"),
    "layer_graph_D_swapped": layer(mode="D", edge_slots="swapped"),
    "model_graph_nodes": model(pooling="mean"),
    "model_graph_edges": model(pooling="max", edge_input_dim=2),
    "model_graph_of_nodes": model(pooling="none", degree_encoding=False),
}


def record(name: str, config: Any, seed: int) -> dict[str, np.ndarray]:
    """The arrays of a case: inputs, parameters, output and gradients."""
    random = np.random.default_rng(seed)
    parameters = random_parameters(config, random)
    inputs = {"x": random.standard_normal((NODE_PTR[-1], config.input_dim))}
    if getattr(config, "edge_input_dim", 0):
        inputs["edge_attr"] = random.standard_normal((len(EDGES), config.edge_input_dim))
    module = plstm_torch.build(config).eval()
    module.load_state_dict({key: torch.from_numpy(array) for key, array in parameters.items()})
    leaves = {key: torch.from_numpy(array).requires_grad_() for key, array in inputs.items()}
    graph = DagTopology.from_edges(int(NODE_PTR[-1]), EDGES, node_ptr=NODE_PTR)
    output = module(leaves["x"], graph, leaves.get("edge_attr"))
    cotangent = torch.from_numpy(random.standard_normal(tuple(output.shape)))
    known = leaves | {f"param/{key}": parameter for key, parameter in module.named_parameters()}
    gradients = torch.autograd.grad(output, list(known.values()), cotangent)
    arrays = {f"in/{key}": array for key, array in inputs.items()}
    arrays |= {"in/edges": EDGES, "in/node_ptr": NODE_PTR, "in/cotangent": cotangent.numpy()}
    arrays |= {f"param/{key}": array for key, array in parameters.items()}
    arrays["out/output"] = output.detach().numpy()
    return arrays | {f"grad/{key}": gradient.numpy() for key, gradient in zip(known, gradients, strict=True)}


def main() -> None:
    """Write the cases that the index does not list."""
    index = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
    known = {entry["name"] for entry in index}
    for seed, (name, config) in enumerate(CASES.items()):
        if name in known:
            continue
        np.savez_compressed(FOLDER / f"{name}.npz", **record(name, config, seed))
        kind = "layer_graph" if name.startswith("layer") else "model_graph"
        index.append({"name": name, "kind": kind, "source": SOURCE, "config": to_dict(config)})
        print(f"recorded {name}")
    (FOLDER / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
