"""Folders that earlier versions wrote give the outputs that they gave then."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plstm_config as pc
from plstm_config.topology import DagTopology
from plstm_testing.tolerances import assert_close
from plstm_torch import from_pretrained, save_pretrained

FOLDERS = Path(__file__).parent / "data" / "earlier_folders"
NAMES = sorted(path.name for path in FOLDERS.iterdir())
# two graphs in one batch
GRAPH = DagTopology.batch(
    [
        DagTopology.from_edges(5, [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (1, 4)]),
        DagTopology.from_edges(3, [(0, 2), (1, 2)]),
    ]
)


def recorded(name: str) -> tuple[list[Any], np.ndarray]:
    with np.load(FOLDERS / name / "recorded.npz") as arrays:
        inputs: list[Any] = [torch.from_numpy(arrays["x"])]
        if name.startswith(("graph", "edge")):
            inputs += [GRAPH, *([torch.from_numpy(arrays["edge_attr"])] if "edge_attr" in arrays else [])]
        return inputs, arrays["output"]


def test_there_are_some() -> None:
    assert len(NAMES) >= 6


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_are_those_of_then(name: str, tmp_path: Path) -> None:
    inputs, output = recorded(name)
    module = from_pretrained(FOLDERS / name)
    with torch.no_grad():
        assert_close(module(*inputs), output, "float32")
        save_pretrained(module, tmp_path)
        assert torch.equal(from_pretrained(tmp_path)(*inputs), module(*inputs))
    assert (tmp_path / "model.safetensors").read_bytes() == (FOLDERS / name / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_they_hold_what_is_written_no_more(name: str) -> None:
    description = json.loads((FOLDERS / name / "config.json").read_text())
    assert "weights_sha256" not in description
    config = pc.from_dict(description["config"])
    assert pc.from_dict(pc.to_dict(config)) == config
