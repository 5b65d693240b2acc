import math

import numpy as np
import pytest

from plstm_torch.show import default_fields, impulse_response, receptive_field_figure


def test_a_p_mode_response_is_a_binomial_distribution_along_each_diagonal():
    a, node = 0.3, (2, 3)
    response = impulse_response(20, node, "P", [(a, 1 - a)])
    for x in range(20):
        for y in range(20):
            right, down = x - node[0], y - node[1]
            if min(right, down) < 0:
                expected = 0.0
            else:
                expected = math.comb(right + down, right) * a**right * (1 - a) ** down
            assert response[x, y] == pytest.approx(expected, abs=1e-12)


def test_a_p_mode_response_decays_like_one_over_the_root_of_the_length():
    response = impulse_response(65, (0, 0), "P", [(0.5, 0.5)])
    assert response[64, 64] / response[16, 16] == pytest.approx(0.5, rel=0.01)


def test_a_d_mode_response_is_one_ahead_or_a_product_of_decays():
    response = impulse_response(12, (3, 4), "D", [(1.0, 1.0)])
    expected = np.zeros((12, 12))
    expected[3:, 4:] = 1
    np.testing.assert_allclose(response, expected, atol=1e-12)
    decaying = impulse_response(12, (3, 4), "D", [(0.9, 0.5)])
    # the signal turns into the row it travels along, so it passes one node fewer on each axis
    assert decaying[8, 9] == pytest.approx(0.9**4 * 0.5**4)
    assert decaying[3, 6] == pytest.approx(0.5)


@pytest.mark.parametrize("mode", ["P", "D"])
def test_four_orientations_reach_all_sides(mode):
    response = impulse_response(11, (5, 5), mode, [(0.5, 0.5)] * 4)
    for flipped in (response.flip(0), response.flip(1), response.T):
        np.testing.assert_allclose(response, flipped, atol=1e-12)
    assert response[5, 5] == 1.0
    assert (response > 0).all()


def test_the_picture_has_a_row_per_mode_and_a_panel_per_angle(tmp_path):
    figure = receptive_field_figure(size=12, angles=(0.25, 0.5), decay=0.9)
    panels = [axes for axes in figure.axes if axes.get_xlabel().startswith("X")]
    assert [axes.get_title(loc="left") for axes in panels[:3]] == [
        "angle a = 0.25",
        "angle a = 0.5",
        "four orientations",
    ]
    assert len(panels) == 6
    assert [len(row) for row in default_fields((0.1, 0.2, 0.3, 0.4), 1.0)] == [5, 5]
    figure.savefig(tmp_path / "field.png")
    assert (tmp_path / "field.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "size: expected at least 8, got 4"),
        ({"angles": (0.5, 1.0)}, r"angle: expected one or more numbers between 0 and 1, got \(0.5, 1.0\)"),
        ({"angles": ()}, r"angle: expected one or more"),
        ({"decay": 1.5}, "decay: expected a number above 0 and up to 1, got 1.5"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        receptive_field_figure(**options)


def test_bad_responses_are_named():
    with pytest.raises(ValueError, match="mode: expected one of 'P', 'D', got 'Q'"):
        impulse_response(8, (0, 0), "Q", [(0.5, 0.5)])
    with pytest.raises(ValueError, match=r"source: expected a node of a grid with side 8, got \(8, 0\)"):
        impulse_response(8, (8, 0), "P", [(0.5, 0.5)])
    with pytest.raises(ValueError, match="expected one to four orientations, got 5"):
        impulse_response(8, (0, 0), "P", [(0.5, 0.5)] * 5)
