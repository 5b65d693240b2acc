"""Initial values: the distributions of every initialiser config, and whole modules."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plstm_config as configs
import plstm_jax
from plstm_config.initializers import InitConfig
from plstm_config.parameters import Parameter, parameter_tree
from plstm_jax.initializers import draw
from plstm_jax.parameters import draw_parameter

SHAPE = (200, 50, 4)
RANDOM = {
    "normal": (configs.NormalInitConfig(mean=1.0, stddev=0.5), 1.0, 0.5),
    "uniform": (configs.UniformInitConfig(low=-1.0, high=2.0), 0.5, 3 / 12**0.5),
    "small": (configs.SmallInitConfig(axis=1, mup_init_scale=2.0), 0.0, 2 / (2.5 * 50) ** 0.5),
    "wang": (configs.WangInitConfig(axis=0, num_blocks=3), 0.0, 2 / 200**0.5 / 3),
    "xavier": (configs.XavierInitConfig(in_axis=0, out_axis=1), 0.0, (2 / 250) ** 0.5),
    # the half-normal distribution has mean sqrt(2/pi) and variance 1 - 2/pi
    "truncated": (
        configs.TruncatedNormalInitConfig(mean=1.0, stddev=2.0, lower=1.0, upper=50.0),
        1 + 2 * (2 / np.pi) ** 0.5,
        2 * (1 - 2 / np.pi) ** 0.5,
    ),
}


@pytest.mark.parametrize("name", RANDOM)
def test_moments(name):
    config, mean, stddev = RANDOM[name]
    values = np.asarray(draw(config, jax.random.key(0), SHAPE), dtype=np.float64)
    error = stddev / values.size**0.5  # of the mean of that many numbers
    assert abs(values.mean() - mean) < 4 * error
    assert abs(values.std() - stddev) < 4 * error


@pytest.mark.parametrize(("lower", "upper"), [(-0.5, 1.0), (3.0, 4.0), (-9.0, -8.0)])
def test_truncation_holds_wherever_the_interval_lies(lower, upper):
    config = configs.TruncatedNormalInitConfig(stddev=1.0, lower=lower, upper=upper)
    values = draw(config, jax.random.key(1), (1000,))
    assert lower <= values.min() < values.max() <= upper
    assert len(np.unique(values)) > 900


FIXED = {
    "constant": (configs.ConstantInitConfig(value=-5.0), np.full((2, 3), -5.0)),
    "zeros": (configs.ZerosInitConfig(), np.zeros((2, 3))),
    "ones": (configs.OnesInitConfig(), np.ones((2, 3))),
    "linspace": (configs.LinspaceInitConfig(low=-1, high=1), np.broadcast_to([-1.0, 0.0, 1.0], (2, 3))),
    "logspace": (configs.LogspaceInitConfig(low=0, high=2, base=3.0, axis=1), np.broadcast_to([1.0, 3, 9], (2, 3))),
    "diagonal": (
        configs.DiagonalInitConfig(value=2.0, in_axes=0, out_axes=1),
        np.array([[2.0, 0, 2], [0, 2, 0]]),
    ),
    "degenerate": (configs.TruncatedNormalInitConfig(mean=7.0), np.full((2, 3), 2.0)),
}


@pytest.mark.parametrize("name", FIXED)
def test_values(name):
    config, expected = FIXED[name]
    np.testing.assert_allclose(draw(config, jax.random.key(0), (2, 3), "float64"), expected, rtol=1e-12)


def test_every_initializer_is_tested():
    tested = {type(config) for config, *_ in (*RANDOM.values(), *FIXED.values())}
    assert tested == set(get_args(InitConfig))


def test_axes_are_counted_where_the_parameter_is_drawn():
    init = configs.LinspaceInitConfig(low=0, high=2)
    orientations = Parameter((3, 2), ("H", "O"), init, order=(1, 0))
    np.testing.assert_allclose(draw_parameter(orientations, jax.random.key(0)), [[0, 0], [1, 1], [2, 2]])
    viewed = Parameter((6,), ("H",), init, view=(2, 3))
    np.testing.assert_allclose(draw_parameter(viewed, jax.random.key(0)), [0, 1, 2, 0, 1, 2])


def test_modules_get_the_parameters_of_their_table():
    config = configs.PreUpProjectionBlockConfig(input_dim=8, projection_round=8, param_dtype="bfloat16")
    params = plstm_jax.init(config, jax.random.key(0))
    expected = {name: (item.shape, item.dtype) for name, item in parameter_tree(config).items()}
    assert {name: (x.shape, str(x.dtype)) for name, x in plstm_jax.flatten(params).items()} == expected
    assert plstm_jax.unflatten(plstm_jax.flatten(params)).keys() == params.keys()


def test_switching_a_part_leaves_the_others_as_they_were():
    key = jax.random.key(0)
    plain = plstm_jax.flatten(plstm_jax.init(configs.LinearConfig(input_dim=3, output_dim=2, bias=False), key))
    full = plstm_jax.flatten(plstm_jax.init(configs.LinearConfig(input_dim=3, output_dim=2), key))
    assert set(full) - set(plain) == {"bias"}
    assert jnp.array_equal(plain["weight"], full["weight"])


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (configs.LinearConfig(), TypeError, "config: expected an instance of one of ConstantInitConfig"),
        (configs.SmallInitConfig(axis=2), ValueError, r"axis: expected one in \[-2, 2\)"),
        (configs.DiagonalInitConfig(in_axes=0, out_axes=-2), ValueError, "out_axes: expected others than in_axes=0"),
    ],
)
def test_wrong_configs_are_refused(config, error, message):
    with pytest.raises(error, match=message):
        draw(config, jax.random.key(0), (2, 3))
