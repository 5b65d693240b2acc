"""Modules are what their configs list: classes, names, shapes, axes, first values, wrong calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import plstm_config as configs
import plstm_jax
import plstm_nnx
from plstm_config.parameters import parameter_tree
from plstm_config.topology import DagTopology
from plstm_jax.parameters import logical_axes
from plstm_jax.sharding import LAYERS, axis_rules
from plstm_nnx import blocks, layers, models
from plstm_nnx.module import REGISTRY, Fixed, Module
from plstm_testing import reference
from plstm_testing.conformance.modules import GROUPS
from plstm_testing.tolerances import assert_within, tolerance

TYPES = {"dtype": "float64", "param_dtype": "float64"}
LAYER = configs.pLSTM1DLayerConfig(input_dim=8, num_heads=2, JT=1, JV=1, JO=1, **TYPES)
BLOCK = configs.PostUpProjectionBlockConfig(
    input_dim=8,
    projection_round=8,
    drop_path_rate=0.5,
    interaction_module=configs.pLSTM1DLayerConfig(num_heads=2, JT=1, JV=1, JO=1, **TYPES),
    **TYPES,
)
STACK = configs.BlockStackConfig(input_dim=8, num_blocks=3, block=BLOCK, **TYPES)
LANGUAGE = configs.pLSTMLMModelConfig(
    vocab_size=11, embedding_dim=8, num_blocks=2, logit_soft_cap=None, tie_weights=True, **TYPES
)
VISION = configs.pLSTMVisionModelConfig(
    dim=8, num_heads=2, num_blocks=2, resolution=(8, 8), patch_size=4, output_shape=(3,), num_channels=1, **TYPES
)
GRAPH_LAYER = configs.pLSTMGraphLayerConfig(input_dim=8, num_heads=2, max_edges=2, **TYPES)
CASES = {type(case.config): case.config for cases in GROUPS.values() for case in cases()}
CONFIGS = {config.class_name: config for config in CASES.values()}


def variables(module):
    return {".".join(map(str, path)): one for path, one in nnx.to_flat_state(nnx.state(module, (nnx.Param, Fixed)))}


def test_every_config_has_its_class():
    assert set(REGISTRY.classes) == set(reference.module_classes())
    for config_class, found in REGISTRY.classes.items():
        assert found.__name__ == config_class.__dataclass_fields__["class_name"].default
        assert any(getattr(place, found.__name__, None) is found for place in (layers, blocks, models))


@pytest.mark.parametrize("name", CONFIGS)
def test_names_shapes_types_and_axes_are_those_of_the_table(name):
    config = CONFIGS[name]
    module = nnx.eval_shape(lambda: plstm_nnx.build(config, rngs=nnx.Rngs(0), scan_blocks=False))
    assert type(module).__name__ == name
    tree, found = parameter_tree(config), variables(module)
    assert found.keys() == tree.keys()
    for key, parameter in tree.items():
        variable = found[key]
        assert (variable.shape, variable.dtype) == (parameter.shape, parameter.dtype)
        assert variable.get_metadata("out_sharding") == logical_axes(parameter)
        assert variable.get_metadata("decay") == parameter.decay
        assert isinstance(variable, nnx.Param) == parameter.learned


@pytest.mark.parametrize("config", [LANGUAGE, VISION, STACK], ids=lambda config: config.class_name)
@pytest.mark.parametrize("scan", [False, True])
def test_first_values_are_those_of_plain_jax(config, scan):
    module = plstm_nnx.build(config, rngs=nnx.Rngs(3, params=4), scan_blocks=scan)
    expected = plstm_jax.init(config, nnx.Rngs(params=4).params())
    found = plstm_nnx.get_params(module)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, found, expected)))


def test_what_is_fixed_is_not_trained():
    config = configs.PosEmbed2DConfig(seqlens=(2, 2), dim=4, learnable=False)
    module = plstm_nnx.build(config, rngs=nnx.Rngs(0))
    assert not nnx.to_flat_state(nnx.state(module, nnx.Param))
    assert plstm_nnx.get_params(module)["embed"].shape == (1, 2, 2, 4)


def test_stacked_blocks_have_one_more_axis():
    module = nnx.eval_shape(lambda: plstm_nnx.build(STACK, rngs=nnx.Rngs(0), scan_blocks=True))
    single = parameter_tree(STACK.block)
    found = variables(module.blocks)
    assert found.keys() == single.keys()
    for key, parameter in single.items():
        assert found[key].shape == (3, *parameter.shape)
        assert found[key].get_metadata("out_sharding") == (LAYERS, *logical_axes(parameter))


def test_models_that_drop_no_path_need_no_stream_for_it():
    module = nnx.eval_shape(lambda: plstm_nnx.build(LANGUAGE, rngs=nnx.Rngs(params=0), scan_blocks=True))
    assert not nnx.to_flat_state(nnx.state(module, nnx.RngState))


def test_a_linen_trainer_takes_a_module_by_the_bridge_of_flax():
    config = configs.LinearConfig(input_dim=3, output_dim=2, **TYPES)
    bridged = nnx.bridge.to_linen(layers.Linear, config)
    x = jax.random.normal(jax.random.key(1), (4, 3), jnp.float64)
    variables = bridged.init(jax.random.key(0), x)
    (weight,) = (leaf for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim == 2)
    assert_within(bridged.apply(variables, x), x @ weight.T, tolerance("float64", "output"))


def test_rules_name_every_axis():
    rules = dict(axis_rules(F="fsdp", layers="pipeline"))
    assert (rules["F"], rules["layers"], rules["D"]) == ("fsdp", "pipeline", None)
    with nnx.logical_axis_rules(axis_rules(F="fsdp")):
        module = nnx.eval_shape(lambda: plstm_nnx.build(VISION, rngs=nnx.Rngs(0)))
        specs = nnx.get_partition_spec(nnx.state(module, nnx.Param))
    named = {axis for _, one in nnx.to_flat_state(specs) for axis in one.get_value() if axis is not None}
    assert named == {"fsdp"}
    with pytest.raises(ValueError, match=r"mesh_axes: expected names among D, F, .*, got 'G'"):
        axis_rules(G="fsdp")


def test_configs_of_others_get_their_modules():
    class MineConfig(configs.LinearConfig):
        pass

    class Linear(layers.Linear, config_class=MineConfig):
        """Has the name of one of ours, and is none."""

    try:
        config = MineConfig(input_dim=2, output_dim=3)
        assert type(plstm_nnx.build(config, rngs=nnx.Rngs(0))) is Linear
        assert REGISTRY.find(configs.LinearConfig(input_dim=2, output_dim=3)) is layers.Linear
    finally:
        del REGISTRY.classes[MineConfig]


def test_a_part_may_be_another_module():
    model = plstm_nnx.build(VISION, rngs=nnx.Rngs(0))
    pixels = jnp.ones((2, 8, 8, 1))
    model.head = nnx.Linear(32, 5, rngs=nnx.Rngs(1), param_dtype=jnp.float64)
    assert model(pixels).shape == (2, 5)
    with pytest.raises(
        ValueError,
        match=r"(?s)module: expected the weights of pLSTMVisionModel, got others: .*Its config does not describe",
    ):
        plstm_nnx.save_pretrained(model, "nowhere")


def test_a_module_shows_itself_without_its_arrays():
    assert "weight" in repr(plstm_nnx.build(configs.LinearConfig(input_dim=2, output_dim=3), rngs=nnx.Rngs(0)))


GRID = configs.pLSTM2DLayerFusedConfig(input_dim=8, num_heads=2, **TYPES)
PATH = DagTopology.from_edges(3, [(0, 1), (1, 2)])
WRONG = {
    "config": (lambda: built("plstm_vis_tiny"), TypeError, r"plstm_config\.preset\('plstm_vis_tiny'\)"),
    "params": (lambda: built(LAYER, params={}), ValueError, "params: expected the weights of pLSTM1DLayer"),
    "features": (lambda: run(LAYER, jnp.ones((1, 2, 7))), ValueError, r"x: expected \[B, T, D\] with D=8"),
    "no array": (lambda: built(LAYER)([[1.0]]), TypeError, "x: expected an array, got list"),
    "cache entries": (lambda: run(LAYER, jnp.ones((1, 2, 8)), cache={}), ValueError, "cache: expected the entries"),
    "borders": (lambda: run(LAYER, jnp.ones((1, 2, 8)), cu_seqlens=[0, 3]), ValueError, "cu_seqlens"),
    "cache on grids": (
        lambda: run(GRID, jnp.ones((1, 2, 2, 8)), return_cache=True),
        ValueError,
        "return_cache: expected a module with one time axis",
    ),
    "step on grids": (
        lambda: built(GRID).step(jnp.ones((1, 2, 8)), {}),
        ValueError,
        "step: expected a module with one time axis",
    ),
    "empty cache": (lambda: built(GRID).init_cache(1), ValueError, "init_cache: expected a module with one time"),
    "no graph": (lambda: run(GRAPH_LAYER, jnp.ones((3, 8))), TypeError, "graph: expected a DagTopology"),
    "graph": (lambda: run(LAYER, jnp.ones((3, 2, 8)), PATH), ValueError, "graph: expected None"),
    "nodes": (lambda: run(GRAPH_LAYER, jnp.ones((4, 8)), PATH), ValueError, "expected a graph of N=4 nodes"),
    "seed": (lambda: built(LAYER, rngs=3), TypeError, r"rngs: expected streams .* such as nnx.Rngs\(0\), got int"),
    "key": (lambda: built(LAYER, rngs=jax.random.key(0)), TypeError, r"rngs: expected streams .*, got PRNGKeyArray"),
    "tokens": (lambda: run(LANGUAGE, jnp.ones((2, 3))), TypeError, "token_ids: expected integers"),
    "vocabulary": (
        lambda: built(LANGUAGE)(np.array([[11]])),
        ValueError,
        r"token_ids: expected values in \[0, 11\), got values from 11 to 11",
    ),
}


def built(config, rngs=None, **options):
    return plstm_nnx.build(config, rngs=nnx.Rngs(0) if rngs is None else rngs, **options)


def run(config, x, *more, **options):
    return jax.eval_shape(lambda x: built(config)(x, *more, **options), x)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_are_refused_when_traced(name):
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call()


def test_modules_of_others_are_no_modules():
    assert issubclass(layers.Linear, Module)
    with pytest.raises(TypeError, match=r"module: expected a module made by plstm_nnx\.build, got Linear"):
        plstm_nnx.save_pretrained(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), "nowhere")
