"""Configs, weights folders, run folders and graphs as strangers may write them: what is read is right, or one line."""

import contextlib
import copy
import io
import json
import shutil
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import plstm_config
from plstm_config.serialization import CONFIG_CLASSES
from plstm_config.topology import DagTopology

ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        -5,
        2,
        3,
        7,
        10**6,
        2**62,
        10**30,
        -(10**400),
        0.5,
        1e308,
        float("nan"),
        float("inf"),
    ),
    *("", "x", "P", "float32", "\x1b[31m\n", "\ud800", [], [1], [0, 0], [-1, 2], ["a"], [[]], [None], {}, {"a": 1}),
    *({"class_name": None}, {"class_name": "SourceLayer"}, {"class_name": "MarkLayer", "num_heads": 3}),
]
NEEDED = {
    "pLSTMLMModel": {"vocab_size": 11, "embedding_dim": 32},
    "pLSTMGraphModel": {"input_dim": 7, "output_dim": 2},
    "TokenEmbedding": {"vocab_size": 11, "embedding_dim": 32},
    "BlockStack": {"num_blocks": 2},
}


def configs(random: np.random.Generator) -> None:
    """A config with wrong values anywhere, or any value at all, from a mapping or a file."""
    tree = _damaged(_trees()[random.integers(len(_trees()))], random) if random.integers(4) else _any(random, 4)
    with _one_line():
        config = plstm_config.from_dict(tree)
        repr(config), plstm_config.count_parameters(config)
        assert plstm_config.from_dict(plstm_config.to_dict(config)) == config
    with tempfile.TemporaryDirectory() as folder, _one_line(str(folder)):
        path = Path(folder) / str(random.choice(["config.json", "config.yaml"]))
        text = _written(tree, path.suffix).encode(errors="surrogatepass")
        path.write_bytes(_with_bytes(text, random) if random.integers(2) else text)
        plstm_config.load(path)


def weights(random: np.random.Generator) -> None:
    """A folder of weights with other bytes in it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        shutil.copytree(_weights_folder(), folder)
        path = folder / str(random.choice(["config.json", "model.safetensors"]))
        path.write_bytes(_with_bytes(path.read_bytes(), random))
        for load in _loaders():
            with _one_line():
                load(folder)


def runs(random: np.random.Generator) -> None:
    """A run folder with a damaged file, given to `eval` and to `train --resume`."""
    if find_spec("plstm_torch") is None:
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        shutil.copytree(_run_folder(), folder)
        path = folder / str(random.choice(["training.json", "checkpoint.pt", "metrics.jsonl", "config.json"]))
        if not path.exists():
            return
        if path.suffix == ".json" and random.integers(2):
            tree = _damaged(json.loads(path.read_text()), random)
            path.write_bytes(json.dumps(tree).encode(errors="surrogatepass"))
        else:
            path.write_bytes(_with_bytes(path.read_bytes(), random))
        code, errors = _command("eval", folder)
        assert code in (0, 1, 2), errors
        code, errors = _command(*_TRAIN, "--steps", "2", "--out", folder, "--resume")
        assert code in (0, 1, 2), errors


def graphs(random: np.random.Generator) -> None:
    """Edges of any kind: a topology whose properties hold, or a line that names what is wrong."""
    count = int(random.integers(0, 12))
    edges: Any = random.integers(-1 if random.integers(5) == 0 else 0, max(count, 1), (int(random.integers(0, 15)), 2))
    if random.integers(2):
        edges = np.sort(edges, 1)
        edges = edges[edges[:, 0] != edges[:, 1]]
    if random.integers(8) == 0:
        edges = [edges.astype(float), edges.astype(bool), edges.tolist(), edges.ravel(), None, "ab"][random.integers(6)]
    mode, undirected = str(random.choice(["P", "D", "Q"], p=[0.45, 0.45, 0.1])), bool(random.integers(2))
    with _one_line():
        topology = DagTopology.from_edges(count, edges, mode, undirected=undirected)
        place = {int(old): new for new, old in enumerate(topology.edge_order)}
        assert len(place) == len(topology.edges)
        assert (topology.edges[topology.line_edges[:, 0], 1] == topology.edges[topology.line_edges[:, 1], 0]).all()
        assert (topology.line_edges[:, 0] < topology.line_edges[:, 1]).all()
        again = topology.reverse().reverse()
        assert sorted(map(tuple, again.edges.tolist())) == sorted(map(tuple, topology.edges.tolist()))


TARGETS = {"configs": configs, "weights": weights, "runs": runs, "graphs": graphs}
_TRAIN = ("train", "digits", "--dim", 8, "--heads", 2, "--blocks", 2, "--patch-size", 4, "--device", "cpu")


@contextlib.contextmanager
def _one_line(named: str = "") -> Any:
    """Let pass what may be said of a stranger's file: an error on one printable line."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        if not str(error).isprintable() or named not in str(error):
            raise AssertionError(f"expected one line that names {named!r}") from error


@cache
def _trees() -> list[Any]:
    trees = []
    for name in sorted(CONFIG_CLASSES):
        cls = CONFIG_CLASSES[name]
        width = {"input_dim": 64} if "input_dim" in cls.__dataclass_fields__ else {}
        trees.append(plstm_config.to_dict(cls(**(width | NEEDED.get(name, {})))))
    return [*trees, plstm_config.to_dict(plstm_config.preset("plstm_vis_tiny"))]


@cache
def _weights_folder() -> Path:
    folder = Path(tempfile.mkdtemp()) / "model"
    config = plstm_config.pLSTM1DLayerConfig(input_dim=8, num_heads=2)
    if find_spec("plstm_torch") is not None:
        import plstm_torch

        plstm_torch.save_pretrained(plstm_torch.build(config), folder)
    else:
        import jax

        import plstm_jax

        plstm_jax.save(config, plstm_jax.init(config, jax.random.key(0)), folder)
    return folder


@cache
def _loaders() -> list[Any]:
    found = []
    if find_spec("plstm_torch") is not None:
        import plstm_torch

        found.append(plstm_torch.from_pretrained)
    if find_spec("plstm_jax") is not None:
        import plstm_jax

        found.append(plstm_jax.load)
    return found


@cache
def _run_folder() -> Path:
    folder = Path(tempfile.mkdtemp()) / "run"
    code, errors = _command(*_TRAIN, "--steps", "2", "--out", folder)
    assert code == 0, errors
    return folder


def _command(*words: Any) -> tuple[int, str]:
    """Exit code and error output of a command, which must be one line where there is any."""
    from plstm_torch.cli import app

    errors, output = io.StringIO(), io.TextIOWrapper(io.BytesIO())
    code: Any = None
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        try:
            app([str(word) for word in words])
        except SystemExit as exit_:
            code = exit_.code
    said = errors.getvalue()
    assert said.count("\n") <= 1, said
    return code, said


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    return [path, *(place for key in keys for place in _places(tree[key], (*path, key)))]


def _damaged(tree: Any, random: np.random.Generator) -> Any:
    """The tree with one to three places replaced or removed."""
    tree = copy.deepcopy(tree)
    for _ in range(random.integers(1, 4)):
        places = [place for place in _places(tree) if place]
        if not places:
            return _any(random, 3)
        *above, last = places[random.integers(len(places))]
        parent = tree
        for key in above:
            parent = parent[key]
        if random.integers(4):
            parent[last] = _any(random, 2)
        else:
            del parent[last]
    return tree


def _any(random: np.random.Generator, depth: int) -> Any:
    kind = random.integers(8) if depth else 0
    if kind == 6:
        return [_any(random, depth - 1) for _ in range(random.integers(4))]
    if kind == 7:
        names = ["class_name", "input_dim", "a", "", "dtype", "block"]
        return {str(random.choice(names)): _any(random, depth - 1) for _ in range(random.integers(4))}
    return copy.deepcopy(ODD[random.integers(len(ODD))])


def _written(tree: Any, suffix: str) -> str:
    return json.dumps(tree) if suffix == ".json" else yaml.safe_dump(tree)


def _with_bytes(content: bytes, random: np.random.Generator) -> bytes:
    """The content with bytes replaced, cut, doubled or put in."""
    changed = bytearray(content)
    for _ in range(random.integers(1, 5)):
        place = int(random.integers(len(changed) + 1))
        # headers stand at the beginning, and hold more than the numbers behind them
        place = min(place, int(random.integers(400))) if random.integers(2) else place
        action = random.integers(5)
        if action == 0:
            del changed[place:]
        elif action == 1:
            changed[place:place] = random.bytes(int(random.integers(1, 9)))
        elif action == 2:
            changed[place:place] = changed[place : place + 40]
        elif action == 3:
            changed[place : place + 1] = random.choice([b"\x00", b"\xff", b"[", b"{", b'"', b"9", b"-", b"e"])
        else:
            changed[place : place + 1] = random.bytes(1)
    return bytes(changed)
