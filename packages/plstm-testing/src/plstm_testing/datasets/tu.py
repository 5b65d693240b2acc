"""The TUDataset collection (Morris et al. 2020), parsed from its text files and from nothing else.

A stranger's folder may hold processed copies that other libraries would unpickle; they are never looked at.
"""

import hashlib
import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from plstm_config.topology import DagTopology
from plstm_testing.datasets.errors import DatasetError
from plstm_testing.datasets.graphs import GraphArrays, GraphSet
from plstm_testing.datasets.tu_download import download_tu_dataset

_REQUIRED = ("A", "graph_indicator", "graph_labels")
_OPTIONAL = ("node_labels", "node_attributes", "edge_labels", "edge_attributes")
_MOST_LABELS = 65_536  # each becomes a column


def load_tu_dataset(name: str, root: str | Path, *, download: bool = False) -> GraphSet:
    r"""Load a data set of the TUDataset collection.

    Edges are undirected there; each is directed from the lower to the higher node index, which makes a DAG. Node and
    edge features are their attributes and one-hot labels; a constant stands for nodes that have neither. Self loops
    are dropped, and the features of repeated edges added up.

    Args:
        name: such as "MUTAG".
        root: folder that holds `name/raw/name_A.txt` and its companions; also `name/name_A.txt` or `name_A.txt`.
        download: whether to fetch a data set that is not there from the collection's site.

    Returns:
        The graphs, with P-mode topologies.

    Raises:
        DatasetError: if the files are missing (and cannot be downloaded) or damaged; the message names the file.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from plstm_testing.datasets import load_tu_dataset
        >>> raw = Path(tempfile.mkdtemp(), "TOY", "raw")
        >>> raw.mkdir(parents=True)
        >>> files = {"A": "1, 2\n2, 1\n3, 4\n4, 3\n", "graph_indicator": "1\n1\n2\n2\n", "graph_labels": "0\n1\n"}
        >>> for part, lines in files.items():
        ...     _ = Path(raw, f"TOY_{part}.txt").write_text(lines)
        ...
        >>> len(load_tu_dataset("TOY", raw.parent.parent).graphs)
        2
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name):
        raise DatasetError(f"dataset: expected a name of letters, digits, '-' and '_', got {name!r}")
    places = (Path(root) / name / "raw", Path(root) / name, Path(root))
    folder = next((place for place in places if (place / f"{name}_A.txt").is_file()), places[0])
    if not (folder / f"{name}_A.txt").is_file():
        if not download:
            raise DatasetError(f"{folder}: expected the text files of {name}, there is no {name}_A.txt")
        download_tu_dataset(name, folder)
    texts = _read_files(folder, name)
    digest = hashlib.sha256("\0".join(f"{part}\0{text}" for part, text in sorted(texts.items())).encode())
    tables = {part: _parse(folder / f"{name}_{part}.txt", part, text) for part, text in texts.items()}
    try:
        graphs, labels = _split(tables)
    except ValueError as error:
        raise DatasetError(f"{folder}: {error}") from error
    return GraphSet(graphs, labels, int(labels.max()) + 1, digest.hexdigest())


def _read_files(folder: Path, name: str) -> dict[str, str]:
    texts = {}
    for part in (*_REQUIRED, *_OPTIONAL):
        path = folder / f"{name}_{part}.txt"
        if part in _OPTIONAL and not path.exists():
            continue
        try:
            texts[part] = path.read_text(encoding="utf-8")
        except OSError as error:
            raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path}: expected lines of numbers, got bytes that are no text") from error
    return texts


def _parse(path: Path, part: str, text: str) -> ndarray:
    """One row of numbers for each line."""
    kind = np.float64 if part.endswith("attributes") else np.int64
    try:
        table = np.loadtxt(StringIO(text), dtype=kind, delimiter=",", comments=None, ndmin=2) if text.strip() else None
    except (ValueError, OverflowError) as error:
        raise DatasetError(f"{path}: expected lines of numbers, got {error}") from error
    if table is None or not np.isfinite(table).all():
        raise DatasetError(
            f"{path}: expected lines of numbers, got {'an empty file' if table is None else 'an infinity or NaN'}"
        )
    return table


def _split(tables: Mapping[str, ndarray]) -> tuple[list[GraphArrays], Int[ndarray, " G"]]:
    """Cut the long tables into graphs."""
    owner, sizes, classes = _owners(tables)
    edges = tables["A"]
    if edges.shape[1] != 2 or edges.min() < 1 or edges.max() > len(owner):
        raise ValueError(f"A: expected pairs of nodes from 1 to {len(owner)}, got others")
    edges = edges - 1
    if (owner[edges[:, 0]] != owner[edges[:, 1]]).any():
        raise ValueError("A: expected edges within one graph, got one between two")
    x = _features(tables, "node", len(owner))
    x = np.ones((len(owner), 1), np.float32) if x is None else x
    edges, edge_attr = _merge(edges, _features(tables, "edge", len(edges)), len(owner))
    node_ptr = np.concatenate([[0], np.cumsum(sizes)])
    edge_ptr = np.concatenate([[0], np.cumsum(np.bincount(owner[edges[:, 0]], minlength=len(sizes)))])
    graphs = []
    for graph, size in enumerate(sizes.tolist()):
        own = slice(edge_ptr[graph], edge_ptr[graph + 1])
        pairs = (edges[own] - node_ptr[graph]).T
        topology = DagTopology.from_edge_index(size, pairs, "P", undirected=True)
        attr = None if edge_attr is None else edge_attr[own]
        graphs.append(GraphArrays(x[node_ptr[graph] : node_ptr[graph + 1]], attr, topology))
    return graphs, classes


def _owners(tables: Mapping[str, ndarray]) -> tuple[ndarray, ndarray, ndarray]:
    """Graph of each node, nodes of each graph, class of each graph."""
    labels = tables["graph_labels"]
    owner = tables["graph_indicator"][:, 0] - 1
    if owner.min() < 0 or owner.max() >= len(labels) or (np.diff(owner) < 0).any():
        raise ValueError(f"graph_indicator: expected graphs from 1 to {len(labels)} in order, got others")
    if labels.shape[1] != 1:
        raise ValueError(f"graph_labels: expected one class in a line, got {labels.shape[1]}")
    classes = np.unique(labels[:, 0], return_inverse=True)[1].reshape(-1).astype(np.int64)
    return owner, np.bincount(owner, minlength=len(labels)), classes


def _features(tables: Mapping[str, ndarray], of: str, number: int) -> Float[ndarray, "number D"] | None:
    """Attributes, then the one-hot labels of each column."""
    parts: list[Any] = []
    for kind in ("attributes", "labels"):
        table = tables.get(f"{of}_{kind}")
        if table is None:
            continue
        if len(table) != number:
            raise ValueError(f"{of}_{kind}: expected {number} lines, got {len(table)}")
        parts += [table] if kind == "attributes" else [_one_hot(f"{of}_{kind}", column) for column in table.T]
    return np.concatenate([part.astype(np.float32) for part in parts], axis=1) if parts else None


def _one_hot(name: str, column: Int[ndarray, " M"]) -> Float[ndarray, "M D"]:
    spread = int(column.max()) - int(column.min()) + 1
    if spread > _MOST_LABELS:
        raise ValueError(f"{name}: expected at most {_MOST_LABELS} labels, got a range of {spread}")
    hot = np.zeros((len(column), spread), np.float32)
    hot[np.arange(len(column)), column - column.min()] = 1
    return hot


def _merge(
    edges: Int[ndarray, "E 2"], features: Float[ndarray, "E De"] | None, num_nodes: int
) -> tuple[Int[ndarray, "E2 2"], Float[ndarray, "E2 De"] | None]:
    """Drop self loops, sort by tail and head, and add up the features of repeated edges."""
    proper = edges[:, 0] != edges[:, 1]
    keys = edges[proper, 0] * num_nodes + edges[proper, 1]
    unique, place = np.unique(keys, return_inverse=True)
    merged = np.stack([unique // num_nodes, unique % num_nodes], axis=1)
    if features is None:
        return merged, None
    total = np.zeros((len(unique), features.shape[1]), np.float32)
    np.add.at(total, place.reshape(-1), features[proper])
    return merged, total
