"""Configs, weights folders, graphs and data as strangers may write them: what is read is right, or one line."""

import contextlib
import copy
import json
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from damage import anything, damaged, with_bytes

import plstm_config
from plstm_config.serialization import CONFIG_CLASSES
from plstm_config.topology import DagTopology
from plstm_testing.datasets import load_tu_dataset

NEEDED = {
    "pLSTMLMModel": {"vocab_size": 11, "embedding_dim": 32},
    "pLSTMGraphModel": {"input_dim": 7, "output_dim": 2},
    "TokenEmbedding": {"vocab_size": 11, "embedding_dim": 32},
    "BlockStack": {"num_blocks": 2},
}
SMALL = {"num_heads": 2, "num_blocks": 1}
# small models of every kind; their folders are damaged
SAVED = (
    plstm_config.pLSTM1DLayerConfig(input_dim=8, num_heads=2),
    plstm_config.pLSTM2DLayerFusedConfig(input_dim=8, num_heads=2),
    plstm_config.preset("plstm_vis_tiny", **SMALL, dim=8, num_classes=3, resolution=(16, 16), patch_size=8),
    plstm_config.preset("plstm_lm_small", **SMALL, embedding_dim=8, vocab_size=11),
    plstm_config.pLSTMGraphModelConfig(**SMALL, dim=8, input_dim=3, output_dim=2),
)
TU_FILES = {
    "A": "1, 2\n2, 1\n2, 3\n3, 2\n3, 2\n1, 1\n4, 5\n5, 4\n",
    "graph_indicator": "1\n1\n1\n2\n2\n3\n",
    "graph_labels": "7\n-1\n7\n",
    "node_labels": "2\n4\n2\n3\n3\n2\n",
    "node_attributes": "0.5, 1\n1, 1\n2, 1\n3, 1\n4, 1\n5, 1\n",
    "edge_labels": "0\n0\n1\n1\n0\n1\n1\n1\n",
}


def configs(random: np.random.Generator) -> None:
    """A config with wrong values anywhere, or any value at all, from a mapping or a file."""
    tree = damaged(_trees()[random.integers(len(_trees()))], random) if random.integers(4) else anything(random, 4)
    with one_line():
        config = plstm_config.from_dict(tree)
        repr(config), plstm_config.count_parameters(config)
        assert plstm_config.from_dict(plstm_config.to_dict(config)) == config
    with tempfile.TemporaryDirectory() as folder, one_line(str(folder)):
        path = Path(folder) / str(random.choice(["config.json", "config.yaml"]))
        text = _written(tree, path.suffix).encode(errors="surrogatepass")
        path.write_bytes(with_bytes(text, random) if random.integers(2) else text)
        plstm_config.load(path)


def weights(random: np.random.Generator) -> None:
    """A folder of weights with other bytes in it, or another config; in every library that is installed."""
    with tempfile.TemporaryDirectory() as scratch:
        number = int(random.integers(len(SAVED)))
        folder = Path(scratch) / "model"
        shutil.copytree(_weights_folder(number), folder)
        path = folder / str(random.choice(["config.json", "model.safetensors"]))
        if path.suffix == ".json" and random.integers(2):  # the digest is of the weights alone
            path.write_text(json.dumps(damaged(json.loads(path.read_text()), random)))
        else:
            path.write_bytes(with_bytes(path.read_bytes(), random))
        for load in _loaders():
            with one_line():
                load(folder)
        if find_spec("plstm_torch") is not None:
            torch = import_module("plstm_torch")
            module = torch.build(SAVED[int(random.integers(len(SAVED)))])
            before, loaded = copy.deepcopy(module.state_dict()), False
            with one_line():
                torch.load_weights(module, folder)
                loaded = True
            after = module.state_dict()
            assert loaded or all(bool((after[name] == before[name]).all()) for name in before), "weights changed"


def graphs(random: np.random.Generator) -> None:
    """Edges of any kind: a topology whose properties hold, or a line that names what is wrong."""
    count = int(random.integers(0, 12))
    edges: Any = random.integers(-1 if random.integers(5) == 0 else 0, max(count, 1), (int(random.integers(0, 15)), 2))
    if random.integers(2):
        edges = np.sort(edges, 1)
        edges = edges[edges[:, 0] != edges[:, 1]]
    if random.integers(8) == 0:
        strange = [edges.astype(float), edges.astype(bool), edges.tolist(), edges.ravel(), None, "ab"]
        edges = [*strange, np.where(edges, np.nan, 1.0), edges[:, :1], edges.astype(object)][random.integers(9)]
    mode, undirected = str(random.choice(["P", "D", "Q"], p=[0.45, 0.45, 0.1])), bool(random.integers(2))
    with one_line():
        topology = DagTopology.from_edges(count, edges, mode, undirected=undirected)
        _check_topology(topology)
        for copied in (copy.deepcopy(topology), pickle.loads(pickle.dumps(topology))):
            assert (copied.edges == topology.edges).all()
            assert (copied.line_edges == topology.line_edges).all()
        again = topology.reverse().reverse()
        assert sorted(map(tuple, again.edges.tolist())) == sorted(map(tuple, topology.edges.tolist()))
        both = DagTopology.batch([topology, again])
        _check_topology(both)
        assert len(both.line_edges) == len(topology.line_edges) + len(again.line_edges)


def tu_data(random: np.random.Generator) -> None:
    """Raw files of graphs with other bytes in them."""
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root) / "TOY" / "raw"
        raw.mkdir(parents=True)
        chosen = str(random.choice(list(TU_FILES)))
        for part, text in TU_FILES.items():
            content = with_bytes(text.encode(), random) if part == chosen else text.encode()
            (raw / f"TOY_{part}.txt").write_bytes(content)
        with one_line():
            data = load_tu_dataset("TOY", root, download=False)
            assert all(np.isfinite(graph.x).all() for graph in data.graphs)


TARGETS = {"configs": configs, "weights": weights, "graphs": graphs, "tu_data": tu_data}


@contextlib.contextmanager
def one_line(named: str = "") -> Iterator[None]:
    """Let pass what may be said of a stranger's file: an error on one printable line."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        if not str(error).isprintable() or named not in str(error):
            raise AssertionError(f"expected one line that names {named!r}") from error


def _check_topology(topology: DagTopology) -> None:
    place = {int(old): new for new, old in enumerate(topology.edge_order)}
    assert len(place) == len(topology.edges)
    assert (topology.edges[topology.line_edges[:, 0], 1] == topology.edges[topology.line_edges[:, 1], 0]).all()
    assert (topology.line_edges[:, 0] < topology.line_edges[:, 1]).all()


@cache
def _trees() -> list[Any]:
    trees = []
    for name in sorted(CONFIG_CLASSES):
        cls = CONFIG_CLASSES[name]
        width = {"input_dim": 64} if "input_dim" in cls.__dataclass_fields__ else {}
        trees.append(plstm_config.to_dict(cls(**(width | NEEDED.get(name, {})))))
    return [*trees, plstm_config.to_dict(plstm_config.preset("plstm_vis_tiny"))]


@cache
def _weights_folder(number: int) -> Path:
    folder, config = Path(tempfile.mkdtemp()) / "model", SAVED[number]
    if find_spec("plstm_torch") is not None:
        torch = import_module("plstm_torch")
        torch.save_pretrained(torch.build(config), folder)
    else:
        jax, library = import_module("jax"), import_module("plstm_jax")
        library.save(config, library.init(config, jax.random.key(0)), folder)
    return folder


@cache
def _loaders() -> list[Any]:
    names = {"plstm_torch": "from_pretrained", "plstm_jax": "load"}
    names |= {"plstm_nnx": "from_pretrained", "plstm_linen": "from_pretrained"}
    return [getattr(import_module(library), name) for library, name in names.items() if find_spec(library) is not None]


def _written(tree: Any, suffix: str) -> str:
    return json.dumps(tree) if suffix == ".json" else yaml.safe_dump(tree)
