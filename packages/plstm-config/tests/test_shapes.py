"""Argument checks: right shapes pass, each wrong one is named with what was expected and what came."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from plstm_config import shapes

SIZES = {
    "B": 2, "H": 2, "T": 16, "X": 3, "Y": 5, "N": 6, "E": 7, "L": 4, "O": 4,
    "DK": 3, "DV": 2, "JQ": 1, "JK": 1, "JV": 2, "JT": 4, "JO": 3,
}  # fmt: skip


def arguments(layouts):
    return {name: np.zeros([SIZES[letter] for letter in layout]) for name, layout in layouts.items()}


def topology(num_edges=7, num_line_edges=4):
    return SimpleNamespace(edges=np.zeros((num_edges, 2), int), line_edges=np.zeros((num_line_edges, 2), int))


CHECKS = {
    "1d": (shapes.check_plstm_1d, shapes.PLSTM_1D, {}),
    "2d": (shapes.check_plstm_2d, shapes.PLSTM_2D, {}),
    "2d_oriented": (shapes.check_plstm_2d_oriented, shapes.PLSTM_2D_ORIENTED, {}),
    "graph": (shapes.check_plstm_graph, shapes.PLSTM_GRAPH, {"topology": topology()}),
    "graph_state_tracking": (
        shapes.check_plstm_graph, shapes.PLSTM_GRAPH_STATE_TRACKING, {"topology": topology()},
    ),
}  # fmt: skip
EVERY_ARGUMENT = [(op, name) for op, (_, layouts, _) in CHECKS.items() for name in layouts]


@pytest.mark.parametrize("op", CHECKS)
def test_right_shapes_pass_and_give_the_sizes(op):
    check, layouts, extra = CHECKS[op]
    found = check(**arguments(layouts), **extra)
    assert {letter: size for letter, size in found.items() if letter != "2"}.items() <= SIZES.items()


@pytest.mark.parametrize(("op", "name"), EVERY_ARGUMENT)
def test_missing_dimension_names_the_argument(op, name):
    check, layouts, extra = CHECKS[op]
    given = arguments(layouts)
    given[name] = given[name][..., 0]
    # a graph without its last query dimension is read as the scalar form, where the next argument is wrong
    named = "(query|key)" if op == "graph_state_tracking" and name == "query" else name
    with pytest.raises(ValueError, match=rf"^{named}: expected \[.*\], got \("):
        check(**given, **extra)


@pytest.mark.parametrize(("op", "name"), EVERY_ARGUMENT)
def test_something_without_shape_is_a_type_error(op, name):
    check, layouts, extra = CHECKS[op]
    given = arguments(layouts) | {name: [1.0]}
    with pytest.raises(TypeError, match=rf"^{name}: expected an array of shape \[.*\], got list"):
        check(**given, **extra)


@pytest.mark.parametrize(("op", "name"), [(op, name) for op, name in EVERY_ARGUMENT if name != "query"])
def test_wrong_size_names_the_argument(op, name):
    check, layouts, extra = CHECKS[op]
    given = arguments(layouts)
    given[name] = np.repeat(given[name], 2, axis=1)
    with pytest.raises(ValueError, match=rf"^{name}: expected \["):
        check(**given, **extra)


def test_a_step_has_the_shapes_of_a_sequence_without_its_length():
    assert shapes.PLSTM_1D_STEP["source"] == ("B", "JT", "JK", "JV")
    given = arguments(shapes.PLSTM_1D_STEP)
    assert shapes.check_plstm_1d_step(**given, scale=0.5)["DV"] == given["value"].shape[1]
    for name in shapes.PLSTM_1D_STEP:
        with pytest.raises(ValueError, match=rf"^{name}: expected \["):
            shapes.check_plstm_1d_step(**given | {name: given[name][..., 0]})
    with pytest.raises(TypeError, match=r"^scale: expected"):
        shapes.check_plstm_1d_step(**given, scale="half")


def test_message_shows_letters_and_sizes():
    given = arguments(shapes.PLSTM_1D)
    given["source"] = given["source"][:, :15]
    with pytest.raises(
        ValueError, match=re.escape("source: expected [B=2, T=16, JT=4, JK=1, JV=2], got (2, 15, 4, 1, 2)")
    ):
        shapes.check_plstm_1d(**given)


@pytest.mark.parametrize("name", ["transition_dl", "transition_ru"])
@pytest.mark.parametrize("op", ["2d", "2d_oriented"])
def test_mixed_transitions_may_be_left_out(op, name):
    check, layouts, _ = CHECKS[op]
    check(**(arguments(layouts) | {name: None}))


@pytest.mark.parametrize("op", ["2d", "2d_oriented"])
def test_directed_mode_leaves_out_what_it_does_not_read(op):
    check, layouts, _ = CHECKS[op]
    directed = arguments(layouts) | dict.fromkeys(shapes.DIRECTED) | {"mode": "P"}
    assert check(**directed)["JT"] == 4
    for name in shapes.DIRECTED:
        with pytest.raises(ValueError, match=f"^{name}: expected None with mode='P', got ndarray$"):
            check(**directed | {name: arguments(layouts)[name]})
    with pytest.raises(ValueError, match=r"^mark_u: expected \[B=.*\] unless mode='P', got None$"):
        check(**directed | {"mode": None})
    with pytest.raises(ValueError, match=r"^mode: expected None or 'P', got 'L'$"):
        check(**directed | {"mode": "L"})
    with pytest.raises(TypeError, match=r"^mode: expected None or 'P', got ndarray$"):
        check(**directed | {"mode": np.ones(2)})


@pytest.mark.parametrize("op", ["1d", "2d", "2d_oriented", "graph"])
def test_empty_batch_and_empty_length_pass(op):
    check, layouts, extra = CHECKS[op]
    for empty in ({"B": 0, "H": 0}, {"T": 0, "X": 0, "N": 0}):
        sizes = SIZES | empty
        given = {name: np.zeros([sizes[letter] for letter in layout]) for name, layout in layouts.items()}
        check(**given, **extra)


@pytest.mark.parametrize("letter", ["DK", "DV", "JT", "JO"])
def test_empty_inner_dimension_is_refused(letter):
    sizes = SIZES | {letter: 0}
    given = {name: np.zeros([sizes[letter] for letter in layout]) for name, layout in shapes.PLSTM_1D.items()}
    with pytest.raises(ValueError, match=f"expected {letter} >= 1"):
        shapes.check_plstm_1d(**given)


def test_initial_states():
    given = arguments(shapes.PLSTM_1D)
    shapes.check_plstm_1d(**given, initial_state=np.zeros((2, 3, 2, 4)))
    with pytest.raises(ValueError, match=re.escape("initial_state: expected [B=2, DK=3, DV=2, JT=4], got (2, 3, 2)")):
        shapes.check_plstm_1d(**given, initial_state=np.zeros((2, 3, 2)))
    bounds = np.array([0, 4, 16])
    shapes.check_plstm_1d(**given, initial_state=np.zeros((2, 2, 3, 2, 4)), cu_seqlens=bounds)
    with pytest.raises(ValueError, match=re.escape("initial_state: expected [B=2, S=2, DK=3, DV=2, JT=4], got (2, 3,")):
        shapes.check_plstm_1d(**given, initial_state=np.zeros((2, 3, 2, 4)), cu_seqlens=bounds)


@pytest.mark.parametrize(("op", "batch"), [("2d", (2,)), ("2d_oriented", (2, 4))])
def test_border_states(op, batch):
    check, layouts, _ = CHECKS[op]
    given = arguments(layouts)
    left, top = np.zeros((*batch, 5, 3, 2, 4)), np.zeros((*batch, 3, 3, 2, 4))
    check(**given, initial_state=(left, top))
    with pytest.raises(ValueError, match=r"^initial_state\[0\] \(left\): expected \[B=2, .*Y=5, DK=3, DV=2, JT=4\]"):
        check(**given, initial_state=(top, left))
    with pytest.raises(ValueError, match=r"^initial_state\[1\] \(top\): expected \[B=2, .*X=3, DK=3, DV=2, JT=4\]"):
        check(**given, initial_state=(left, left))
    with pytest.raises(TypeError, match=r"^initial_state: expected the pair \(left, top\), got ndarray"):
        check(**given, initial_state=left)


def test_orientation_axis_has_four_entries():
    given = {
        name: array[:, :3] if "_" in name else array for name, array in arguments(shapes.PLSTM_2D_ORIENTED).items()
    }
    with pytest.raises(ValueError, match=r"^source_r: expected \[B=2, O=4, X=3"):
        shapes.check_plstm_2d_oriented(**given)


def test_topology():
    given = arguments(shapes.PLSTM_GRAPH)
    with pytest.raises(ValueError, match=re.escape("source: expected [H=2, E=5], got (2, 7)")):
        shapes.check_plstm_graph(**given, topology=topology(num_edges=5))
    with pytest.raises(ValueError, match=re.escape("topology.edges: expected [E=7, 2], got (7, 3)")):
        shapes.check_plstm_graph(**given, topology=SimpleNamespace(edges=np.zeros((7, 3)), line_edges=np.zeros((4, 2))))
    with pytest.raises(TypeError, match="topology: expected the attributes edges and line_edges, got ndarray"):
        shapes.check_plstm_graph(**given, topology=np.zeros((7, 2)))
    shapes.check_plstm_graph(**given, topology=topology(), initial_state=np.zeros((2, 7, 3, 2)))
    with pytest.raises(
        ValueError, match=re.escape("initial_state: expected [H=2, E=7, DK=3, DV=2], got (2, 7, 3, 2, 4)")
    ):
        shapes.check_plstm_graph(**given, topology=topology(), initial_state=np.zeros((2, 7, 3, 2, 4)))
