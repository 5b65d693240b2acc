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


def test_shapes_alone_are_not_saved(tmp_path):
    config = configs.LinearConfig(input_dim=3, output_dim=2)
    params = jax.eval_shape(lambda: plstm_jax.init(config, jax.random.key(0)))
    with pytest.raises(ValueError, match="params: expected numbers, got the shape alone of 'bias'"):
        plstm_jax.save(config, params, tmp_path / "folder")
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


VISION = configs.pLSTMVisionModelConfig(
    dim=8, num_heads=2, num_blocks=2, patch_size=4, resolution=(8, 8), output_shape=(3,), pooling="mean"
)
FEATURES = configs.change(VISION, {"pooling": "features"})


@pytest.fixture
def vision(tmp_path):
    """The parameters of a model in a folder."""
    params = plstm_jax.init(VISION, jax.random.key(0))
    plstm_jax.save(VISION, params, tmp_path)
    return plstm_jax.flatten(params)


def without_head(params):
    return {name: array for name, array in plstm_jax.flatten(params).items() if not name.startswith("head.")}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_other_classes_get_the_head_that_init_draws(tmp_path, vision):
    key = jax.random.key(5)
    config, params = plstm_jax.load(tmp_path, num_classes=5, key=key)
    assert config == configs.change(VISION, {"output_shape": (5,)})
    assert_equal(without_head(params), without_head(plstm_jax.unflatten(vision)))
    assert_equal(plstm_jax.flatten(params["head"]), plstm_jax.flatten(plstm_jax.init(config, key)["head"]))
    with pytest.raises(ValueError, match="key: expected a key for random numbers, since num_classes=5 asks for a new"):
        plstm_jax.load(tmp_path, num_classes=5)
    config, params = plstm_jax.load(tmp_path, num_classes=3)
    assert config == VISION
    assert_equal(plstm_jax.flatten(params), vision)


def test_other_images_get_their_positions_once(tmp_path, vision):
    config, params = plstm_jax.load(tmp_path, img_size=(16, 12))
    assert config.seqlens == (4, 3)
    expected = plstm_jax.models.resize_pos_embed(vision["pos_embed.embed"], (4, 3))
    assert_equal(plstm_jax.flatten(params), vision | {"pos_embed.embed": expected})
    fixed = configs.change(VISION, {"pos_embed.allow_interpolation": False})
    plstm_jax.save(fixed, plstm_jax.unflatten(vision), tmp_path)
    with pytest.raises(ValueError, match=r"pos_embed\.embed: expected shape \(1, 4, 4, 8\), got \(1, 2, 2, 8\)"):
        plstm_jax.load(tmp_path, img_size=16)


def test_a_config_of_no_module(tmp_path):
    write_folder(tmp_path, configs.ZerosInitConfig(), {}, package="p", version="1")
    with pytest.raises(
        ValueError, match="expected a config that this backend can build, got one with config: expected"
    ):
        plstm_jax.load(tmp_path)


@pytest.mark.parametrize("stacked", [False, True])
def test_parts_are_left_out(tmp_path, vision, stacked):
    own = plstm_jax.init(FEATURES, jax.random.key(1))
    own = plstm_jax.stack_blocks(own) if stacked else own
    with pytest.raises(ValueError, match=r"unexpected 'head\.bias', 'head\.weight'") as error:
        plstm_jax.load_weights(FEATURES, own, tmp_path)
    assert "ignore=(...)) leaves parts out" in error.value.__notes__[0]
    found = plstm_jax.load_weights(FEATURES, own, tmp_path, ignore=("head",))
    assert jax.tree.structure(found) == jax.tree.structure(own)
    assert_equal(plstm_jax.flatten(plstm_jax.unstack_blocks(found)), without_head(plstm_jax.unflatten(vision)))


def test_a_model_keeps_what_is_left_out(tmp_path, vision):
    config = configs.change(VISION, {"output_shape": (5,), "param_dtype": "bfloat16"})
    own = plstm_jax.init(config, jax.random.key(1))
    found = plstm_jax.load_weights(config, own, tmp_path, ignore=["head"])
    expected = {name: array.astype(jnp.bfloat16) for name, array in without_head(plstm_jax.unflatten(vision)).items()}
    assert_equal(plstm_jax.flatten(found), expected | plstm_jax.flatten({"head": own["head"]}))
    with pytest.raises(ValueError, match=r"head\.weight: expected shape \(5, 8\), got \(3, 8\)"):
        plstm_jax.load_weights(config, own, tmp_path)
    with pytest.raises(ValueError, match="ignore: expected names of parts of the module or the folder, got 'hea'"):
        plstm_jax.load_weights(config, own, tmp_path, ignore=("hea",))
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        plstm_jax.load_weights(config, own, tmp_path / "nowhere")


def test_numbers_that_a_dtype_has_no_room_for(tmp_path):
    config = configs.RMSNormConfig(input_dim=3, param_dtype="float16")
    write_folder(tmp_path, config, {"scale": np.array([1.0, np.inf, 1e30])}, package="p", version="1")
    with pytest.raises(ValueError, match=r"scale: expected numbers within the range of float16, got 1e\+30"):
        plstm_jax.load(tmp_path)
    write_folder(tmp_path, config, {"scale": np.array([1.0, np.inf, np.nan])}, package="p", version="1")
    np.testing.assert_array_equal(plstm_jax.load(tmp_path)[1]["scale"], np.array([1.0, np.inf, np.nan], np.float16))


@pytest.mark.parametrize("placed", [False, True])
def test_weights_go_where_those_before_were_put(tmp_path, placed):
    config = configs.RMSNormConfig(input_dim=3)
    own = plstm_jax.init(config, jax.random.key(0))
    plstm_jax.save(config, own, tmp_path)
    own = jax.device_put(own, jax.sharding.SingleDeviceSharding(jax.devices()[0])) if placed else own
    found = plstm_jax.load_weights(config, own, tmp_path)["scale"]
    assert (found.committed, found.sharding) == (own["scale"].committed, own["scale"].sharding)
    assert found.committed is placed
