"""Folders of configs and weights, and weights of the original project."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import plstm_config as configs
import plstm_jax
import plstm_nnx
from plstm_config.folder import read_config, write_folder
from plstm_config.original import MigrationWarning
from plstm_testing import golden
from plstm_testing.tolerances import assert_within

BLOCK = configs.TransformerBlockConfig(input_dim=4, num_heads=1, projection_round=4)
STACK = configs.BlockStackConfig(input_dim=4, num_blocks=3, block=BLOCK)


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for found, expected in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert found.dtype == expected.dtype
        assert jnp.array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_what_was_saved_is_loaded(tmp_path, dtype):
    config = configs.PreUpProjectionBlockConfig(input_dim=8, projection_round=8, param_dtype=dtype)
    module = plstm_nnx.build(config, rngs=nnx.Rngs(0))
    plstm_nnx.save_pretrained(module, tmp_path)
    loaded = plstm_nnx.from_pretrained(tmp_path)
    assert type(loaded) is type(module)
    assert loaded.config == config
    assert loaded.deterministic
    assert_equal(plstm_nnx.get_params(loaded), plstm_nnx.get_params(module))


def test_files_do_not_tell_how_blocks_are_held(tmp_path):
    files = []
    for scan in (False, True):
        module = plstm_nnx.build(STACK, rngs=nnx.Rngs(0), scan_blocks=scan)
        assert isinstance(module.blocks, nnx.List) != scan
        plstm_nnx.save_pretrained(module, tmp_path / str(scan))
        files.append([(tmp_path / str(scan) / name).read_bytes() for name in ("config.json", "model.safetensors")])
        for again in (False, True):
            loaded = plstm_nnx.from_pretrained(tmp_path / str(scan), scan_blocks=again)
            assert isinstance(loaded.blocks, nnx.List) != again
            assert_equal(plstm_nnx.get_params(loaded), plstm_nnx.get_params(module))
    assert files[0] == files[1]


def test_the_config_says_how_blocks_are_held(tmp_path):
    config = configs.change(STACK, {"scan_blocks": True})
    plstm_nnx.save_pretrained(plstm_nnx.build(config, rngs=nnx.Rngs(0)), tmp_path)
    assert read_config(tmp_path) == config
    assert not isinstance(plstm_nnx.from_pretrained(tmp_path).blocks, nnx.List)
    assert isinstance(plstm_nnx.from_pretrained(tmp_path, scan_blocks=False).blocks, nnx.List)


def test_plain_jax_reads_and_writes_the_same(tmp_path):
    module = plstm_nnx.build(STACK, rngs=nnx.Rngs(0), scan_blocks=True)
    plstm_nnx.save_pretrained(module, tmp_path / "nnx")
    config, params = plstm_jax.load(tmp_path / "nnx")
    assert config == STACK
    assert_equal(params, plstm_nnx.get_params(module))
    plstm_jax.save(config, params, tmp_path / "jax")
    assert_equal(plstm_nnx.get_params(plstm_nnx.from_pretrained(tmp_path / "jax")), params)


def test_a_table_of_positions_fits_its_grid(tmp_path):
    stored = np.random.default_rng(0).standard_normal((1, 2, 3, 2)).astype(np.float32)
    config = configs.PosEmbed2DConfig(seqlens=(2, 3), dim=2)
    write_folder(tmp_path, config, {"embed": stored}, package="other", version="1")
    module = plstm_nnx.from_pretrained(tmp_path)
    assert module(jnp.zeros((1, 4, 6, 2), jnp.float32)).shape == (1, 4, 6, 2)


def test_other_parameters_than_the_configs_are_not_saved(tmp_path):
    module = plstm_nnx.build(configs.LinearConfig(input_dim=3, output_dim=2), rngs=nnx.Rngs(0))
    module.weight = nnx.Param(jnp.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"(?s)module: .*weight.*\(2, 3\).*\(3, 3\).*Its config"):
        plstm_nnx.save_pretrained(module, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def tie_head(model):
    model.lm_head.weight = model.token_embedding.weight


def use_block_twice(model):
    model.block_stack.blocks[1] = model.block_stack.blocks[0]


def share_part(model):
    first, second = model.block_stack.blocks
    second.interaction_module.query = first.interaction_module.query


@pytest.mark.parametrize("tie", [tie_head, use_block_twice, share_part])
def test_what_is_tied_by_hand_is_loaded_apart(tmp_path, tie, jit):
    config = configs.preset("plstm_lm_small", vocab_size=7, embedding_dim=8, num_blocks=2, num_heads=2)
    module = plstm_nnx.build(config, rngs=nnx.Rngs(0))
    tie(module)
    module.eval()
    plstm_nnx.save_pretrained(module, tmp_path)
    loaded = plstm_nnx.from_pretrained(tmp_path)
    tokens = jnp.arange(5)[None]
    assert jnp.array_equal(jit(lambda x: loaded(x))(tokens), jit(lambda x: module(x))(tokens))


def test_weights_that_are_apart_are_not_taken_for_shared_ones(tmp_path):
    config = configs.preset("plstm_lm_small", vocab_size=7, embedding_dim=8, num_blocks=1, num_heads=2)
    plstm_nnx.save_pretrained(plstm_nnx.build(config, rngs=nnx.Rngs(0)), tmp_path / "apart")
    module = plstm_nnx.build(config, rngs=nnx.Rngs(1))
    tie_head(module)
    before = module.token_embedding.weight.get_value()
    with pytest.raises(ValueError, match=r"expected the values of .*, since the module shares one parameter for both"):
        plstm_nnx.load_weights(module, tmp_path / "apart")
    assert jnp.array_equal(module.token_embedding.weight.get_value(), before)
    plstm_nnx.save_pretrained(module, tmp_path / "tied")
    again = plstm_nnx.build(config, rngs=nnx.Rngs(2))
    tie_head(again)
    plstm_nnx.load_weights(again, tmp_path / "tied")
    assert jnp.array_equal(again.token_embedding.weight.get_value(), before)
    assert again.lm_head.weight is again.token_embedding.weight


@pytest.mark.parametrize("scan_blocks", [False, True])
def test_shapes_alone_are_not_saved(tmp_path, scan_blocks):
    module = nnx.eval_shape(lambda: plstm_nnx.build(STACK, rngs=nnx.Rngs(0), scan_blocks=scan_blocks))
    with pytest.raises(ValueError, match="params: expected numbers, got the shape alone of 'blocks"):
        plstm_nnx.save_pretrained(module, tmp_path / "folder")


def test_dropped_paths_go_on_after_loading(tmp_path):
    config = configs.DropPathConfig(drop_prob=0.5)
    plstm_nnx.save_pretrained(plstm_nnx.build(config, rngs=nnx.Rngs(0)), tmp_path)
    first, again, other = (plstm_nnx.from_pretrained(tmp_path, rngs=nnx.Rngs(seed)) for seed in (1, 1, 2))
    for module in (first, again, other):
        module.train()
    x = jnp.ones((64, 1))
    assert jnp.array_equal(first(x), again(x))
    assert not jnp.array_equal(first(x), other(x))


def test_weights_of_the_original_make_a_module(jit):
    case = golden.load("model_vision")
    with pytest.warns(MigrationWarning):
        module = plstm_nnx.load_original(case.config, case.parameters)
    assert module.deterministic
    (pixels,) = case.arguments().values()
    assert_within(jit(lambda x: module(x))(pixels), case.outputs["output"], case.limit)
    weights = dict(case.parameters)
    name = sorted(weights)[-1]
    with pytest.warns(MigrationWarning), pytest.raises(ValueError, match=f"state_dict: .*missing '{name}'"):
        plstm_nnx.load_original(case.config, {key: array for key, array in weights.items() if key != name})


VISION = configs.pLSTMVisionModelConfig(
    dim=8, num_heads=2, num_blocks=2, patch_size=4, resolution=(8, 8), output_shape=(3,), pooling="mean"
)


@pytest.fixture
def vision(tmp_path):
    """The parameters of a model in a folder."""
    model = plstm_nnx.build(VISION, rngs=nnx.Rngs(0))
    plstm_nnx.save_pretrained(model, tmp_path)
    return plstm_nnx.get_params(model)


@pytest.mark.parametrize("scan_blocks", [False, True])
def test_a_folder_serves_other_classes_and_images(tmp_path, vision, scan_blocks):
    model = plstm_nnx.from_pretrained(
        tmp_path, rngs=nnx.Rngs(1), num_classes=5, img_size=(16, 8), scan_blocks=scan_blocks
    )
    _, expected = plstm_jax.load(tmp_path, num_classes=5, img_size=(16, 8), key=nnx.Rngs(1).params())
    assert_equal(plstm_nnx.get_params(model), expected)
    assert (model.config.output_shape, model.config.seqlens, model.deterministic) == ((5,), (4, 2), True)
    with pytest.raises(ValueError, match=r"^num_classes: expected an integer >= 1, got True"):
        plstm_nnx.from_pretrained(tmp_path, num_classes=True)


@pytest.mark.parametrize("scan_blocks", [False, True])
def test_a_model_without_a_head_takes_the_rest(tmp_path, vision, scan_blocks):
    features = plstm_nnx.build(
        configs.change(VISION, {"pooling": "features"}), rngs=nnx.Rngs(1), scan_blocks=scan_blocks
    )
    before = plstm_nnx.get_params(features)
    with pytest.raises(ValueError, match=r"unexpected 'head\.bias', 'head\.weight'"):
        plstm_nnx.load_weights(features, tmp_path)
    assert_equal(plstm_nnx.get_params(features), before)
    plstm_nnx.load_weights(features, tmp_path, ignore=("head",))
    assert_equal(plstm_nnx.get_params(features), {name: part for name, part in vision.items() if name != "head"})


def test_a_head_of_ones_own_stays(tmp_path, vision):
    model = plstm_nnx.build(VISION, rngs=nnx.Rngs(1))
    model.head = nnx.Linear(8, 9, rngs=nnx.Rngs(2))
    kernel = model.head.kernel[...]
    plstm_nnx.load_weights(model, tmp_path, ignore=("head",))
    assert jnp.array_equal(model.head.kernel[...], kernel)
    assert_equal(plstm_nnx.get_params(model)["norm"], vision["norm"])
    with pytest.raises(TypeError, match=r"^module: expected a module made by plstm_nnx\.build, got Linear"):
        plstm_nnx.load_weights(model.head, tmp_path)
