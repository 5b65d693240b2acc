"""A graph from two CSV files: its edges, and its nodes with their labels."""

import csv
import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from plstm_config.topology import DagTopology
from plstm_testing.datasets import GraphArrays
from plstm_torch.optional import UserError
from plstm_torch.settings.nodes import NodesSettings
from plstm_torch.training.held_out import hold_out
from plstm_torch.training.task import Split

_SPLITS = ("train", "val", "test")
Rows = list[dict[str, str]]


@dataclass(frozen=True)
class NodeGraph:
    """One graph whose nodes have classes.

    Attributes:
        graph: features and topology.
        ids: of the nodes, as the file has them.
        labels: class of each node [N]; -1 where it is not known.
        classes: names, by label.
        train: nodes to train on.
        held_out: nodes that choose the epoch, and those that are measured.
        digest: SHA-256 of the files.
    """

    graph: GraphArrays
    ids: tuple[str, ...]
    labels: Int[ndarray, " N"]
    classes: tuple[str, ...]
    train: Int[ndarray, " T"]
    held_out: dict[Split, Int[ndarray, " M"]]
    digest: str


def load_node_graph(settings: NodesSettings) -> NodeGraph:
    """Read a graph.

    Args:
        settings: files, direction of the edges, shares.

    Returns:
        The graph.

    Raises:
        UserError: if a file cannot be read, a column is missing, a value is no number or no node, the edges hold a
            cycle, or there are fewer than two classes.
    """
    edges, nodes = Path(settings.edges), Path(settings.nodes)
    digest = hashlib.sha256()
    node_rows = _rows(nodes, ("id", "label"), digest)
    edge_rows = _rows(edges, ("source", "target"), digest)
    numbers = {row["id"]: number for number, row in enumerate(node_rows)}
    if len(numbers) != len(node_rows):
        raise UserError(f"nodes: expected each id once in {nodes}, got one again")
    pairs = np.array([[_end(row, end, numbers, edges) for end in ("source", "target")] for row in edge_rows], np.int64)
    try:
        topology = DagTopology.from_edge_index(
            len(numbers), pairs.reshape(-1, 2).T, "P", undirected=settings.undirected
        )
    except ValueError as error:
        said = f"{error} (nodes count from 0 as {nodes} lists them)"
        raise UserError(f"edges: expected those of a graph in {edges}, got {said}; see --undirected") from error
    x = _features(node_rows, ("id", "label", "split"), nodes)
    x = np.ones((len(node_rows), 1), np.float32) if x is None else x
    graph = GraphArrays(x, _features(edge_rows, ("source", "target"), edges), topology)
    classes = tuple(sorted({row["label"] for row in node_rows} - {""}))
    if len(classes) < 2:
        raise UserError(f"nodes: expected labels of at least two classes in {nodes}, got {len(classes)}")
    places = {name: label for label, name in enumerate(classes)}
    labels = np.array([places.get(row["label"], -1) for row in node_rows], np.int64)
    train, held_out = _split(node_rows, labels, settings)
    return NodeGraph(graph, tuple(numbers), labels, classes, train, held_out, digest.hexdigest())


def _rows(path: Path, expected: Sequence[str], digest: "hashlib._Hash") -> Rows:
    name = "nodes" if "id" in expected else "edges"
    try:
        content = path.read_bytes()
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig")), strict=True, skipinitialspace=True)
        rows = [dict(row) for row in reader]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{name}: expected a CSV file in UTF-8, got {path}: {error}") from error
    columns = list(reader.fieldnames or ())
    if any(column not in columns for column in expected):
        raise UserError(
            f"{name}: expected the columns {', '.join(expected)} in {path}, got {', '.join(columns)[:80]!r}"
        )
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise UserError(f"{name}: expected {len(columns)} values in line {number} of {path}, got another number")
    if not rows:
        raise UserError(f"{name}: expected lines below the header of {path}, got none")
    digest.update(content)
    return rows


def _end(row: dict[str, str], end: str, numbers: dict[str, int], path: Path) -> int:
    if row[end] not in numbers:
        raise UserError(f"edges: expected ids of the nodes in {path}, got the {end} {row[end]!r:.80}")
    return numbers[row[end]]


def _features(rows: Rows, others: Sequence[str], path: Path) -> Float[ndarray, "M D"] | None:
    columns = [column for column in rows[0] if column not in others]
    if not columns:
        return None
    table = np.zeros((len(rows), len(columns)), np.float32)
    for place, column in enumerate(columns):
        for number, row in enumerate(rows):
            try:
                value = float(row[column])
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                place_in_file = f"column {column!r:.40}, line {number + 2}"
                raise UserError(f"{path}: expected a finite number in {place_in_file}, got {row[column]!r:.40}")
            table[number, place] = value
    return table


def _split(
    rows: Rows, labels: Int[ndarray, " N"], settings: NodesSettings
) -> tuple[Int[ndarray, " T"], dict[Split, Int[ndarray, " M"]]]:
    known = np.flatnonzero(labels >= 0)
    if "split" not in rows[0]:
        rest, test = hold_out(labels[known], settings.held_out)
        train, validation = hold_out(labels[known][rest], settings.validation, key=1)
        return known[rest][train], {"validation": known[rest][validation], "test": known[test]}
    said = np.array([rows[node]["split"] for node in known])
    wrong = sorted(set(said.tolist()) - set(_SPLITS))
    if wrong:
        raise UserError(f"nodes: expected train, val or test in column split, got {wrong[0]!r:.40}")
    parts = {name: known[said == name] for name in _SPLITS}
    if not len(parts["train"]) or not len(parts["test"]):
        raise UserError("nodes: expected nodes with a label for train and for test in column split, got none")
    return parts["train"], {"validation": parts["val"], "test": parts["test"]}
