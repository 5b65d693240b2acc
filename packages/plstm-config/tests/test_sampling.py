"""Checks of how text is to be continued."""

import numpy as np
import pytest

from plstm_config.sampling import check_prompt, check_sampling


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((-0.5, None, None), r"temperature: expected a finite number >= 0 \(0 is greedy\), got -0.5"),
        ((float("inf"), None, None), "temperature: expected a finite number >= 0"),
        ((1.0, 0, None), "top_k: expected None or an integer >= 1, got 0"),
        ((1.0, None, 1.5), r"top_p: expected None or a number in \(0, 1\], got 1.5"),
    ],
)
def test_options_outside_of_their_range_are_refused(options, message):
    check_sampling(0.0, 1, 1.0)
    check_sampling(1.0, None, None)
    with pytest.raises(ValueError, match=message):
        check_sampling(*options)


def test_prompts_have_tokens():
    check_prompt(np.ones((2, 1), int), 0)
    for shape in ((3,), (2, 0)):
        with pytest.raises(ValueError, match=r"token_ids: expected a prompt \[B, T\] with T >= 1"):
            check_prompt(np.ones(shape, int), 1)
    with pytest.raises(ValueError, match="max_new_tokens: expected an integer >= 0, got -1"):
        check_prompt(np.ones((2, 1), int), -1)
