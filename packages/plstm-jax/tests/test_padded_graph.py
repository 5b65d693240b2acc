"""Modules on padded graphs: the numbers of the topology, one program for many graphs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plstm_config as configs
import plstm_jax
from plstm_config.parameters import parameter_tree
from plstm_config.topology import DagTopology
from plstm_jax.padded_graph import PaddedGraph
from plstm_testing.tolerances import assert_within, tolerance

TYPES = {"dtype": "float64", "param_dtype": "float64"}
DIAMOND = DagTopology.from_edges(5, [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (1, 4)])
WEDGE, NOTHING, DOT = (DagTopology.from_edges(n, edges) for n, edges in ((4, [(0, 2), (1, 2)]), (0, []), (1, [])))
BATCHES = (DagTopology.batch([DIAMOND, NOTHING, WEDGE]), DagTopology.batch([WEDGE, DIAMOND, DOT]))
MODELS = {
    "mean of nodes": configs.pLSTMGraphModelConfig(
        input_dim=4, dim=8, num_heads=2, output_dim=3, max_edges=3, max_degree=2, **TYPES
    ),
    "max of edges": configs.pLSTMGraphModelConfig(
        input_dim=4, edge_input_dim=2, dim=8, num_heads=2, output_dim=3, num_blocks=1, pooling="max", **TYPES
    ),
    "no pooling": configs.pLSTMGraphModelConfig(
        input_dim=4, dim=8, num_heads=2, output_dim=3, num_blocks=1, pooling="none", max_edges=3, **TYPES
    ),
}


def drawn(config):
    random = np.random.default_rng(0)
    tree = parameter_tree(config)
    return plstm_jax.unflatten({name: 0.5 * random.standard_normal(item.shape) for name, item in tree.items()})


def features(config, batch):
    random = np.random.default_rng(1)
    x, edge_attr = (random.standard_normal(shape) for shape in ((batch.num_nodes, 4), (batch.num_input_edges, 2)))
    return x, edge_attr if config.edge_input_dim else None


@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_no_number_and_saves_compiling(name, jit):
    config, traced = MODELS[name], []
    params = drawn(config)

    def loss(params, x, graph, edge_attr, weight):
        traced.append(graph)
        output = plstm_jax.apply(config, params, x, graph, edge_attr)
        return jnp.sum(jnp.sin(output) * weight[:, None]), output

    differentiated = jax.value_and_grad(loss, has_aux=True)
    run = jit(differentiated)
    for batch in BATCHES:
        x, edge_attr = features(config, batch)
        padded = plstm_jax.pad_graph(batch)
        size, whole = (graph.num_nodes if config.pooling == "none" else graph.num_graphs for graph in (batch, padded))
        apart = jit(lambda params, x, batch=batch, **more: differentiated(params, x, batch, **more))
        (_, expected), expected_grads = apart(params, x, edge_attr=edge_attr, weight=np.ones(size))
        edge_attr = None if edge_attr is None else padded.pad_edges(edge_attr)
        (_, output), grads = run(params, padded.pad_nodes(x), padded, edge_attr, np.arange(whole) < size)
        assert_within(output[:size], expected, tolerance("float64", "output"))
        for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
            assert_within(one, other, tolerance("float64", "gradient"))
    assert sum(isinstance(graph, PaddedGraph) for graph in traced) == 1


def test_merged_edges_have_features_of_their_own(jit):
    """More rows of features than edges: every edge was given both ways."""
    config = MODELS["max of edges"]
    both = [(1, 0), (0, 1), (1, 2), (2, 1), (2, 3), (3, 2), (0, 3), (3, 0), (0, 2), (2, 0)]
    graph = DagTopology.from_edges(4, both, undirected=True)
    padded, params = plstm_jax.pad_graph(graph), drawn(config)
    x, edge_attr = features(config, graph)
    expected = jit(lambda x, edge_attr: plstm_jax.apply(config, params, x, graph, edge_attr))(x, edge_attr)
    run = jit(lambda x, graph, edge_attr: plstm_jax.apply(config, params, x, graph, edge_attr))
    output = run(padded.pad_nodes(x), padded, padded.pad_edges(edge_attr))
    assert_within(output[:1], expected, tolerance("float64", "output"))


def test_features_of_another_graph_are_refused():
    graph = plstm_jax.pad_graph(WEDGE)
    with pytest.raises(ValueError, match="array: expected at most 4 nodes, as many as the graph has, got 5"):
        graph.pad_nodes(np.ones((5, 4)))
    with pytest.raises(ValueError, match="array: expected at most 2 edges, as many as the graph has, got 3"):
        graph.pad_edges(np.ones((3, 2)))


def test_too_many_edges_of_a_node_are_never_passed_over(jit):
    config = configs.pLSTMGraphLayerConfig(input_dim=4, num_heads=2, max_edges=1, **TYPES)
    params, graph = drawn(config), plstm_jax.pad_graph(WEDGE)
    x = graph.pad_nodes(np.ones((4, 4)))
    with pytest.raises(ValueError, match="expected at most max_edges=1 edges into a node, got 2 into node 2"):
        plstm_jax.apply(config, params, x, graph)
    output = jit(lambda x, graph: plstm_jax.apply(config, params, x, graph))(x, graph)
    assert jnp.all(jnp.isnan(output[2]))
