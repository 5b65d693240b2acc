"""Topologies agree with the line graphs that the golden data recorded."""

import numpy as np
import pytest

from plstm_config.topology import DagTopology
from plstm_testing import golden, reference
from plstm_testing.tolerances import assert_within


@pytest.mark.parametrize("name", golden.names("op_graph"))
def test_what_is_joined_and_what_comes_out(name):
    case = golden.load(name)
    inputs = dict(case.inputs)
    edges, lines = inputs.pop("edges"), inputs.pop("line_edges")
    inputs.pop("cotangent")
    topology = DagTopology.from_edges(
        inputs["query"].shape[1], case.about["dag_edges_in_input_order"], case.about["mode"]
    )
    place = {tuple(edge): index for index, edge in enumerate(edges.tolist())}
    same = np.array([place[tuple(edge)] for edge in topology.edges.tolist()])
    recorded = {tuple(pair): index for index, pair in enumerate(lines.tolist())}
    joined = [tuple(pair) for pair in same[topology.line_edges].tolist()]
    assert set(joined) == set(recorded)
    inputs |= {gate: inputs[gate][:, same] for gate in ("source", "mark")}
    inputs["transition"] = inputs["transition"][:, [recorded[pair] for pair in joined]]
    output = reference.plstm_graph(**inputs, topology=topology)
    assert_within(output, case.outputs["output"], case.limit)
