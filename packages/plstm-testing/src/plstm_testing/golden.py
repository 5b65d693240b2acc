"""Golden data: arrays that the original research code wrote in float64, where it is right, and a few of this project's.

`cases` reads them one by one. The files are the package plstm-golden, which the extra `plstm-testing[conformance]`
installs; its ``recordings/README.md`` describes them.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import numpy as np

from plstm_config import from_dict
from plstm_config.base import Config
from plstm_config.original import MigrationWarning, convert_weights, migrate
from plstm_config.topology import DagTopology

Arrays = dict[str, np.ndarray]

DEFAULT_RTOL = 1e-9
# The comparisons of this project accept this multiple of a case's `rtol`.
MARGIN = 10.0


@dataclass(frozen=True)
class GoldenCase:
    """One recorded evaluation.

    Attributes:
        name: name of the case and of its file.
        kind: what was evaluated: "op_1d", "op_2d", "op_2d_four_orientations", "op_graph", or a kind of module.
        rtol: relative RMS error to which the recording itself can be trusted.
        config: the original project's configuration tree, or this project's where `is_original` is false; None for
            ops.
        inputs: arguments by name, among them `cotangent` and perhaps `cotangent_state`.
        parameters: the module's parameters, under the original project's names.
        outputs: `output`, and perhaps `last_state`.
        gradients: gradients of ``sum(output * cotangent) + sum(last_state * cotangent_state)`` to inputs and, as
            ``param/<name>``, to parameters; empty where the original's backward pass is only an approximation.
        about: everything else that the index says about the case.
    """

    name: str
    kind: str
    rtol: float
    config: dict[str, Any] | None
    inputs: Arrays
    parameters: Arrays
    outputs: Arrays
    gradients: Arrays
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def is_original(self) -> bool:
        """Whether the original research code wrote it; otherwise this project did, as `about["source"]` tells."""
        return "source" not in self.about

    def module(self) -> tuple[Config, Arrays]:
        """Config and parameters of the module, brought into this project's form.

        Raises:
            ValueError: if the case is one of an op.
        """
        if self.config is None:
            raise ValueError(f"case: expected one of a module, got {self.name!r} of the kind {self.kind!r}")
        if not self.is_original:
            return from_dict(self.config), self.parameters
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MigrationWarning)  # dropped options are not what a case is about
            config = migrate(self.config)
            return config, convert_weights(config, self.parameters)

    def arguments(self) -> dict[str, Any]:
        """What a module is called with, in order: arrays, and for modules on graphs an edge index or a topology."""
        found: dict[str, Any] = {name: array for name, array in self.inputs.items() if not name.startswith("cotangent")}
        if self.kind == "layer_graph_edge":
            edges = json.loads(self.about["note"])["edges_in_feature_order"]
            return {"node_features": found.pop("node_features"), "graph": np.array(edges).T, **found}
        if "node_ptr" in found:
            x, edges, bounds = found.pop("x"), found.pop("edges"), found.pop("node_ptr")
            return {"x": x, "graph": DagTopology.from_edges(len(x), edges, node_ptr=bounds), **found}
        return found

    @property
    def limit(self) -> float:
        """Largest accepted relative RMS error."""
        return MARGIN * self.rtol


def names(kind: str | None = None) -> tuple[str, ...]:
    """Names of the recorded cases.

    Args:
        kind: only cases of this kind; all if None.

    Returns:
        The names in the order of the index.

    Raises:
        ValueError: if there is no such kind.

    Examples:
        >>> from plstm_testing import golden
        >>> len(golden.names("op_1d")) > 0
        True
    """
    kinds = sorted({entry["kind"] for entry in _index().values()})
    if kind is not None and kind not in kinds:
        raise ValueError(f"kind: expected one of {kinds}, got {kind!r}")
    return tuple(name for name, entry in _index().items() if kind in (None, entry["kind"]))


def load(name: str) -> GoldenCase:
    """Read one case.

    Args:
        name: one of `names()`.

    Returns:
        The case.

    Raises:
        ValueError: if there is no such case.

    Examples:
        >>> from plstm_testing import golden
        >>> case = golden.load(golden.names("op_1d")[0])
        >>> case.kind, sorted(case.inputs)[:2]
        ('op_1d', ['cotangent', 'cotangent_state'])
    """
    if name not in _index():
        raise ValueError(f"name: expected one of {list(_index())}, got {name!r}")
    entry = json.loads(json.dumps(_index()[name]))  # callers may change what they get
    groups: dict[str, Arrays] = {"in": {}, "param": {}, "out": {}, "grad": {}}
    with resources.as_file(_folder() / f"{name}.npz") as path, np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            group, _, argument = key.partition("/")
            groups[group][argument] = arrays[key]
    return GoldenCase(
        name=entry.pop("name"),
        kind=entry.pop("kind"),
        rtol=entry.pop("rtol", DEFAULT_RTOL),
        config=entry.pop("config", None),
        inputs=groups["in"],
        parameters=groups["param"],
        outputs=groups["out"],
        gradients=groups["grad"],
        about=entry,
    )


def cases(kind: str | None = None) -> Iterator[GoldenCase]:
    """Read cases one after the other.

    Args:
        kind: only cases of this kind; all if None.

    Yields:
        Each case.
    """
    for name in names(kind):
        yield load(name)


@cache
def _index() -> Mapping[str, dict[str, Any]]:
    entries = json.loads((_folder() / "index.json").read_text(encoding="utf-8"))
    return {entry["name"]: entry for entry in entries}


@dataclass(frozen=True)
class EarlierFolder:
    """A weights folder that an earlier version of this project wrote.

    Attributes:
        name: the version and the name of the module, such as "0.1/grid_D".
        path: the folder.
        inputs: what the module was called with, in order: arrays, and for modules on graphs a `DagTopology`.
        output: what it gave then, in the dtype of its config.
    """

    name: str
    path: Path
    inputs: Mapping[str, Any]
    output: np.ndarray


def earlier_folders() -> Iterator[EarlierFolder]:
    """Read the folders of earlier versions one after the other.

    Yields:
        Each folder; its path holds while it is looked at.
    """
    for version in sorted(_recordings().earlier_folders().iterdir(), key=lambda place: place.name):
        for place in sorted(version.iterdir(), key=lambda place: place.name):
            with resources.as_file(place) as path, np.load(path / "recorded.npz", allow_pickle=False) as arrays:
                inputs: dict[str, Any] = {"x": arrays["x"]}
                if "edges" in arrays:
                    edges, bounds = arrays["edges"], arrays["node_ptr"]
                    inputs["graph"] = DagTopology.from_edges(len(arrays["x"]), edges, node_ptr=bounds)
                if "edge_attr" in arrays:
                    inputs["edge_attr"] = arrays["edge_attr"]
                yield EarlierFolder(f"{version.name}/{place.name}", path, inputs, arrays["output"])


def _folder() -> Any:
    return _recordings().folder()


def _recordings() -> Any:
    try:
        return import_module("plstm_golden")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'plstm_golden, which holds the recordings, is not installed; run: pip install "plstm-testing[conformance]"'
        ) from error
