"""Random numbers as a function of their position: no generator state, so nothing to save or to keep in step."""

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST_MIX = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_MIX = np.uint64(0x94D049BB133111EB)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply the finaliser of splitmix64 (Steele et al. 2014), whose arithmetic wraps around on purpose."""
    with np.errstate(over="ignore"):
        state = state + _GAMMA
        state = (state ^ (state >> np.uint64(30))) * _FIRST_MIX
        state = (state ^ (state >> np.uint64(27))) * _SECOND_MIX
    return state ^ (state >> np.uint64(31))


def uniform(key: tuple[int, ...], index: NDArray[np.integer], lanes: int) -> NDArray[np.float64]:
    """Draw `lanes` numbers in [0, 1) for each index.

    Args:
        key: integers that name the stream, for instance (seed, epoch).
        index: [N] position of each sample in that stream.
        lanes: how many numbers each sample needs.

    Returns:
        [N, lanes] float64.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.datasets import uniform
        >>> uniform((0, 3), np.arange(5), lanes=2).shape
        (5, 2)
    """
    state = np.zeros(1, dtype=np.uint64)
    for part in key:
        state = _mix(state ^ np.array([part % 2**64], dtype=np.uint64))
    state = _mix(state ^ index.astype(np.uint64))[:, None]
    state = _mix(state ^ np.arange(lanes, dtype=np.uint64))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def derive_seed(*key: int) -> int:
    """Return a 63 bit seed that depends on every part of the key.

    Args:
        key: integers, for instance (seed, step, rank).

    Returns:
        The seed, which the generators of numpy and of the frameworks accept.

    Examples:
        >>> from plstm_testing.datasets import derive_seed
        >>> seed, epoch, worker = 0, 3, 1
        >>> derive_seed(seed, epoch, worker) == derive_seed(seed, epoch, worker)
        True
    """
    state = np.zeros(1, dtype=np.uint64)
    for part in key:
        state = _mix(state ^ np.array([part % 2**64], dtype=np.uint64))
    return int(state[0] >> np.uint64(1))
