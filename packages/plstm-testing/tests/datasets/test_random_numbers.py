import numpy as np
import pytest

from plstm_testing.datasets.random_numbers import derive_seed, uniform


def test_numbers_depend_on_key_index_and_lane_only():
    index = np.arange(50)
    together = uniform((3, 1), index, 4)
    alone = np.concatenate([uniform((3, 1), index[i : i + 1], 4) for i in range(50)])
    assert np.array_equal(together, alone)
    assert np.array_equal(together[:, :2], uniform((3, 1), index, 2))


@pytest.mark.parametrize("other", [(4, 1), (3, 2), (1, 3), (3,), (3, 1, 0)])
def test_another_key_gives_other_numbers(other):
    index = np.arange(50)
    assert not np.isin(uniform((3, 1), index, 2), uniform(other, index, 2)).any()


def test_numbers_are_uniform_and_uncorrelated():
    draws = uniform((0,), np.arange(20_000), 3)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    expected = draws.size / 20
    # chi square with 19 degrees of freedom exceeds 50 once in 7,000 times
    assert ((counts - expected) ** 2 / expected).sum() < 50
    correlation = np.corrcoef(np.concatenate([draws.T, np.roll(draws, 1, axis=0).T]))
    assert np.abs(correlation - np.eye(6)).max() < 0.03


def test_seeds_differ_and_fit_63_bits():
    seeds = {derive_seed(seed, step, rank) for seed in range(8) for step in range(20) for rank in range(4)}
    assert len(seeds) == 640
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 2) != derive_seed(2, 1)
    assert derive_seed(1, -1) != derive_seed(1, 1)
