"""Layers, blocks and models against what the original project computed, with its configs and weights."""

import json

import jax
import jax.numpy as jnp
import pytest

import plstm_jax
from plstm_config.original import convert_weights
from plstm_config.topology import DagTopology
from plstm_testing import golden
from plstm_testing.tolerances import assert_within

pytestmark = pytest.mark.filterwarnings("ignore::plstm_config.original.MigrationWarning")

NAMES = [case.name for case in golden.cases() if case.config is not None and case.is_original]


def graph_of(case):
    if case.kind != "layer_graph_edge":
        return None
    return DagTopology.from_edges(
        len(case.inputs["node_features"]), json.loads(case.about["note"])["edges_in_feature_order"]
    )


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_original(name, jit):
    case = golden.load(name)
    config, params = plstm_jax.load_original(case.config, case.parameters)
    graph, (x, *edge_attr) = graph_of(case), (array for key, array in case.inputs.items() if key != "cotangent")

    @jit
    def run(params, inputs, x):
        def apply(params, inputs):
            return plstm_jax.apply(config, params, inputs[0] if x is None else x, graph, *inputs[1:])

        output, pull = jax.vjp(apply, params, inputs)
        return output, pull(jnp.asarray(case.inputs["cotangent"]))

    tokens = None if x.dtype.kind == "f" else x
    output, (param_grads, input_grads) = run(params, [x if tokens is None else jnp.zeros(()), *edge_attr], tokens)
    assert output.dtype == jnp.float64
    assert_within(output, case.outputs["output"], case.limit, "output")
    found = dict(zip([key for key in case.inputs if key != "cotangent"], input_grads, strict=True))
    recorded = {key: grad for key, grad in case.gradients.items() if not key.startswith("param/")}
    for key, gradient in recorded.items():
        assert_within(found[key], gradient, case.limit, key)
    weights = {key.removeprefix("param/"): grad for key, grad in case.gradients.items() if key not in recorded}
    if weights:
        flat = plstm_jax.flatten(param_grads)
        expected = convert_weights(config, weights)
        assert flat.keys() == expected.keys()
        for key, gradient in expected.items():
            assert_within(flat[key], gradient, case.limit, key)
