"""Responses of lines against the recurrence that they stand for."""

import jax
import numpy as np
import pytest

from plstm_jax.ops.lines import (
    Line,
    decay_line,
    diagonal,
    line_decay,
    line_matrix,
    line_response,
    scalar_decay,
    short_line_response,
)
from plstm_testing.tolerances import assert_close

OUTPUTS, INPUTS = 2, 3


def walk(line, inputs, state):
    """Outputs [n, R] and leaving state of one line."""
    outputs = np.zeros((len(inputs), OUTPUTS))
    for place in range(len(inputs)):
        outputs[place] = line.mark[place] @ state + line.direct[place] @ inputs[place]
        state = line.transition[place] @ state + line.source[place] @ inputs[place]
    return outputs, state


def random_line(random, places, states):
    shapes = [(OUTPUTS, INPUTS), (OUTPUTS, states), (states, INPUTS), (states, states)]
    return Line(*(random.standard_normal((places, *shape)) for shape in shapes))


@pytest.mark.parametrize("respond", [line_response, short_line_response])
@pytest.mark.parametrize("places", [1, 4, 5, 7])
@pytest.mark.parametrize("states", [1, 3])
def test_responses(states, places, respond):
    random = np.random.default_rng(states)
    line = random_line(random, places, states)
    response = respond(line)
    inputs, state = random.standard_normal((places, INPUTS)), random.standard_normal(states)
    outputs, last = walk(line, inputs, state)
    read = np.einsum("nrt,t->nr", response.read, state)
    assert_close(np.einsum("nrmc,mc->nr", response.nodes, inputs) + read, outputs, label="outputs")
    written = np.einsum("tnc,nc->t", response.write, inputs) + response.carry @ state
    assert_close(written, last, kind="state", label="leaving state")


def test_decay_is_the_product_of_what_lies_between():
    transitions = np.random.default_rng(0).standard_normal((4, 2, 2))
    found = line_decay(transitions)
    for to in range(4):
        for start in range(4):
            expected = np.eye(2) if start < to else np.zeros((2, 2))
            for between in range(start + 1, to):
                expected = transitions[between] @ expected
            assert_close(found.nodes[to, :, start], expected, label=f"{start} to {to}")
    assert_close(found.carry, transitions[3] @ transitions[2] @ transitions[1] @ transitions[0])


@pytest.mark.parametrize("places", [1, 4, 6])
def test_matrix_holds_all_states_of_a_chain(places):
    random = np.random.default_rng(places)
    transitions, written = random.standard_normal((places, 2, 2)), random.standard_normal((places, 2))
    states = [random.standard_normal(2)]
    for transition, more in zip(transitions, written, strict=True):
        states.append(transition @ states[-1] + more)
    found = line_matrix(decay_line(transitions)) @ np.concatenate([states[0], written.ravel()])
    assert_close(found, np.concatenate(states), kind="state")


def explicit_decay(transition):
    return np.array([[np.prod(transition[j:i]) if j <= i else 0.0 for j in range(6)] for i in range(6)])


def test_scalar_decay_and_its_derivatives():
    random = np.random.default_rng(0)
    transition, direction = random.standard_normal((2, 5))
    transition[2] = 0.0
    decay, tangent = jax.jvp(scalar_decay, (transition,), (direction,))
    assert_close(decay, explicit_decay(transition))
    points = np.linspace(-1, 1, 6)  # along a direction the decay is a polynomial of degree five
    values = [explicit_decay(transition + point * direction).ravel() for point in points]
    assert_close(tangent.ravel(), np.polyfit(points, values, 5)[-2], kind="gradient")


def test_diagonal():
    array = np.random.default_rng(0).standard_normal((2, 3, 2, 4))
    assert_close(diagonal(array), np.einsum("bnrc,nm->bnrmc", array, np.eye(3)))
