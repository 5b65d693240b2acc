"""Folders of configs and weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plstm_config as configs
import plstm_jax
import plstm_linen
from plstm_config.folder import read_folder, write_folder
from plstm_config.parameters import parameter_tree
from plstm_testing import golden


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_was_saved_is_loaded(tmp_path, dtype):
    config = configs.PreUpProjectionBlockConfig(input_dim=8, projection_round=8, param_dtype=dtype)
    module = plstm_linen.build(config)
    variables = {"params": plstm_linen.from_canonical(config, plstm_jax.flatten(plstm_jax.init(config, key())))}
    plstm_linen.save_pretrained(module, variables, tmp_path)
    loaded, found = plstm_linen.from_pretrained(tmp_path)
    assert loaded == module
    assert_equal(found, variables)
    assert '"plstm-linen"' in (tmp_path / "config.json").read_text(encoding="utf-8")


def key():
    return jax.random.key(0)


def test_one_folder_serves_every_form(tmp_path, vision, pixels):
    """Scanned or not, boxed or bare, and plain JAX."""
    forms = [{}, {"scan_blocks": True}, {"partitioned": True}, {"scan_blocks": True, "partitioned": True}]
    params = plstm_jax.init(vision, key())
    plstm_jax.save(vision, params, tmp_path / "jax")
    for number, options in enumerate(forms):
        module, variables = plstm_linen.from_pretrained(tmp_path / "jax", **options)
        expected = jax.eval_shape(module.init, key(), pixels)
        given = [variables]
        if options.get("partitioned"):
            given.append(jax.tree.map(lambda leaf, box: box.replace_boxed(leaf), variables, expected))
        for variables in given:
            plstm_linen.save_pretrained(module, variables, tmp_path / str(number))
            config, arrays = read_folder(tmp_path / str(number))
            assert config == vision
            assert_equal(arrays, {name: np.asarray(array) for name, array in plstm_jax.flatten(params).items()})


def test_the_config_may_ask_for_the_scan(tmp_path, vision):
    config = configs.change(vision, {"block_stack.scan_blocks": True})
    plstm_jax.save(config, plstm_jax.init(config, key()), tmp_path)
    assert list(plstm_linen.from_pretrained(tmp_path)[1]["params"]["block_stack"]) == ["blocks"]
    apart = plstm_linen.from_pretrained(tmp_path, scan_blocks=False)[1]["params"]["block_stack"]
    assert sorted(apart) == ["blocks_0", "blocks_1"]


def test_numbers_get_the_dtypes_of_the_config(tmp_path):
    config = configs.LinearConfig(input_dim=3, output_dim=2, bias=False, param_dtype="bfloat16")
    write_folder(tmp_path, config, {"weight": np.ones((2, 3), np.float64)}, package="other", version="1")
    assert plstm_linen.from_pretrained(tmp_path)[1]["params"]["weight"].dtype == jnp.bfloat16


def test_wrong_calls_are_refused_and_nothing_is_written(tmp_path):
    config = configs.LinearConfig(input_dim=3, output_dim=2)
    module, place = plstm_linen.build(config), tmp_path / "folder"
    with pytest.raises(ValueError, match="module: expected the weights of Linear, got others: missing 'bias'"):
        plstm_linen.save_pretrained(module, {"params": {"weight": jnp.zeros((2, 3))}}, place)
    with pytest.raises(ValueError, match=r"variables: expected the collection 'params', got \['weight'\]"):
        plstm_linen.save_pretrained(module, {"weight": jnp.zeros((2, 3))}, place)
    with pytest.raises(TypeError, match=r"module: expected a module made by plstm_linen.build, got LinearConfig"):
        plstm_linen.save_pretrained(config, {"params": {}}, place)
    assert not place.exists()
    with pytest.raises(FileNotFoundError, match=r"expected a folder with config.json and model.safetensors"):
        plstm_linen.from_pretrained(place)


@pytest.mark.filterwarnings("ignore::plstm_config.original.MigrationWarning")
@pytest.mark.parametrize("scan_blocks", [False, True])
def test_weights_of_the_original_may_be_loaded_in_any_form(scan_blocks):
    case = golden.load("model_vision")
    module, variables = plstm_linen.load_original(case.config, case.parameters, scan_blocks=scan_blocks)
    assert module.scan_blocks is scan_blocks
    assert ("blocks" in variables["params"]["block_stack"]) is scan_blocks
    assert plstm_linen.to_canonical(variables["params"]).keys() == parameter_tree(module.config).keys()


@pytest.mark.parametrize("scan_blocks", [False, True])
def test_a_folder_serves_other_classes_and_images(tmp_path, vision, scan_blocks):
    plstm_jax.save(vision, plstm_jax.init(vision, key()), tmp_path)
    changes = {"num_classes": 5, "img_size": (16, 8), "key": key()}
    module, variables = plstm_linen.from_pretrained(tmp_path, scan_blocks=scan_blocks, **changes)
    config, expected = plstm_jax.load(tmp_path, **changes)
    assert module.config == config
    assert_equal(plstm_linen.to_canonical(variables["params"]), plstm_jax.flatten(expected))
    with pytest.raises(ValueError, match=r"^num_classes: expected an integer >= 1, got True"):
        plstm_linen.from_pretrained(tmp_path, num_classes=True)


@pytest.mark.parametrize("options", [{}, {"scan_blocks": True, "partitioned": True}])
def test_a_model_without_a_head_takes_the_rest(tmp_path, vision, pixels, options):
    stored = plstm_jax.init(vision, key())
    plstm_jax.save(vision, stored, tmp_path)
    module = plstm_linen.build(configs.change(vision, {"pooling": "features"}), **options)
    variables = {**jax.jit(module.init)(key(), pixels), "cache": {"kept": jnp.ones(())}}
    with pytest.raises(ValueError, match=r"unexpected 'head\.bias', 'head\.weight'"):
        plstm_linen.load_weights(module, variables, tmp_path)
    found = plstm_linen.load_weights(module, variables, tmp_path, ignore=("head",))
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    expected = plstm_jax.flatten({name: part for name, part in stored.items() if name != "head"})
    assert_equal(plstm_linen.to_canonical(found["params"]), expected)
    with pytest.raises(TypeError, match=r"^module: expected a module made by plstm_linen\.build, got dict"):
        plstm_linen.load_weights({}, variables, tmp_path)
