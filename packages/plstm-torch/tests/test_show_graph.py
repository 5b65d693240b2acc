import networkx as nx
import numpy as np
import pytest

from plstm_torch.show_graph import graph_figure, layered_graph, spread_signal


def test_a_d_mode_signal_keeps_its_strength_along_one_path_to_each_edge():
    topology, _ = layered_graph(6, 4, seed=3)
    pruned = topology.with_mode("D")
    spread = spread_signal(pruned, 1)
    line_graph = nx.DiGraph()
    line_graph.add_nodes_from(range(len(pruned.edges)))
    line_graph.add_edges_from(pruned.line_edges.tolist())
    emitted = [edge for edge, (tail, _) in enumerate(pruned.edges.tolist()) if tail == 1]
    carried = set(emitted).union(*(nx.descendants(line_graph, edge) for edge in emitted))
    assert spread.edges.tolist() == [float(edge in carried) for edge in range(len(pruned.edges))]
    read = np.bincount(pruned.edges[:, 1], weights=spread.edges, minlength=topology.num_nodes)
    np.testing.assert_array_equal(spread.nodes, read + (np.arange(topology.num_nodes) == 1))


def test_a_p_mode_signal_is_split_and_kept_in_sum():
    topology, _ = layered_graph(6, 4, seed=3)
    read = spread_signal(topology, 1).nodes.numpy().reshape(6, 4)
    np.testing.assert_allclose(read.sum(1), 1.0)


def test_the_picture_has_a_panel_per_mode(tmp_path):
    figure = graph_figure(num_layers=4, width=3, seed=1)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title[:6] for title in titles if title] == ["P-mode", "D-mode"]
    figure.savefig(tmp_path / "graph.png")
    assert (tmp_path / "graph.png").stat().st_size > 10_000


def test_bad_options_are_named():
    topology, _ = layered_graph(2, 1, seed=0)
    with pytest.raises(ValueError, match=r"^node: expected a node from 0 to 1, got 2"):
        spread_signal(topology, 2)
    with pytest.raises(ValueError, match=r"^layers: expected at least 2, got 1"):
        graph_figure(num_layers=1)
    with pytest.raises(ValueError, match=r"^width: expected at least 1, got 0"):
        graph_figure(width=0)
