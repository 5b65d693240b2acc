"""Folders of configs and weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plstm_config as configs
import plstm_jax
from plstm_config.folder import read_folder, write_folder
from plstm_config.original import MigrationWarning
from plstm_testing import golden


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_was_saved_is_loaded(tmp_path, dtype):
    config = configs.PreUpProjectionBlockConfig(input_dim=8, projection_round=8, param_dtype=dtype)
    params = plstm_jax.init(config, jax.random.key(0))
    plstm_jax.save(config, params, tmp_path)
    loaded_config, loaded = plstm_jax.load(tmp_path)
    assert loaded_config == config
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for one, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        assert one.dtype == other.dtype
        assert jnp.array_equal(one, other)


def test_files_know_no_stacks(tmp_path):
    block = configs.TransformerBlockConfig(input_dim=4, num_heads=1, projection_round=4)
    config = configs.BlockStackConfig(input_dim=4, num_blocks=3, block=block, scan_blocks=True)
    params = plstm_jax.init(config, jax.random.key(0))
    stacked = plstm_jax.stack_blocks(params)
    assert stacked["blocks"]["qkv"]["weight"].shape == (3, 12, 4)
    plstm_jax.save(config, stacked, tmp_path)
    loaded = plstm_jax.load(tmp_path)[1]
    for found in (loaded, plstm_jax.unstack_blocks(stacked), plstm_jax.unstack_blocks(params)):
        assert jax.tree.structure(found) == jax.tree.structure(params)
        assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, found, params)))
    again = plstm_jax.stack_blocks(stacked)
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, again, stacked)))


def test_other_parameters_are_not_saved(tmp_path):
    config = configs.LinearConfig(input_dim=3, output_dim=2)
    with pytest.raises(ValueError, match="missing 'bias'"):
        plstm_jax.save(config, {"weight": jnp.zeros((2, 3))}, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_numbers_get_the_dtypes_of_the_config(tmp_path):
    config = configs.LinearConfig(input_dim=3, output_dim=2, bias=False, param_dtype="bfloat16")
    write_folder(tmp_path, config, {"weight": np.ones((2, 3), np.float64)}, package="other", version="1")
    assert plstm_jax.load(tmp_path)[1]["weight"].dtype == jnp.bfloat16


def test_a_table_of_positions_fits_its_grid(tmp_path):
    config = configs.PosEmbed2DConfig(seqlens=(4, 6), dim=2)
    stored = np.random.default_rng(0).standard_normal((1, 2, 3, 2)).astype(np.float32)
    write_folder(tmp_path, configs.PosEmbed2DConfig(seqlens=(2, 3), dim=2), {"embed": stored}, package="o", version="1")
    _, arrays = read_folder(tmp_path)
    params = plstm_jax.pretrained.as_params(config, arrays)
    assert params["embed"].shape == (1, 4, 6, 2)
    np.testing.assert_allclose(params["embed"], plstm_jax.models.resize_pos_embed(jnp.asarray(stored), (4, 6)))


def test_original_weights_that_are_missing_are_listed():
    config = {"class_name": "RMSNorm", "input_dim": 3}
    with pytest.raises(ValueError, match="state_dict: expected the weights of RMSNorm, got others: missing 'scale'"):
        plstm_jax.load_original(config, {})
    case = golden.load("model_vision")
    name = sorted(case.parameters)[-1]
    weights = {key: array for key, array in case.parameters.items() if key != name} | {"other": np.zeros(1)}
    with pytest.warns(MigrationWarning), pytest.raises(ValueError, match=f"state_dict: .*missing '{name}'"):
        plstm_jax.load_original(case.config, weights)
