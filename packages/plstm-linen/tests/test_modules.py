"""Modules as such: names, shapes, initial values, boxes, what linen's tools see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import plstm_config as configs
import plstm_jax
import plstm_linen
from plstm_config.parameters import AXES, Repeated, named_configs, parameter_tree
from plstm_linen.module import Module, ParameterGroup
from plstm_testing import reference

CLASSES = [config_class.__name__ for config_class in reference.module_classes()]


def initialized(case, **options):
    module = plstm_linen.build(case.config, **options)
    return module, jax.eval_shape(lambda key: module.init(key, *case.inputs.values()), jax.random.key(0))


@pytest.mark.parametrize("name", CLASSES)
def test_parameters_are_those_of_the_table(cases, name):
    case = cases[name]
    module, variables = initialized(case)
    assert type(module).__name__ in (name.removesuffix("Config"), name.replace("FunctionConfig", "FunctionLayer"))
    expected = {key: (item.shape, item.dtype) for key, item in parameter_tree(case.config).items()}
    found = plstm_linen.to_canonical(variables.get("params", {}))
    assert {key: (leaf.shape, leaf.dtype.name) for key, leaf in found.items()} == expected
    assert set(variables) <= {"params"}
    assert hash(module) == hash(plstm_linen.build(case.config))


@pytest.mark.parametrize("name", CLASSES)
def test_nothing_that_a_module_owns_hides_what_every_module_has(cases, name):
    for _, config in named_configs(cases[name].config):
        own = {*config.children(), *config.parameters()}
        assert own & set(dir(Module)) == set()
        lists = {child for child, kind in config.children().items() if isinstance(kind, Repeated)}
        assert lists <= {"blocks"}  # what the map of names knows


@pytest.mark.parametrize("scan_blocks", [False, True])
@pytest.mark.parametrize("name", ["pLSTMVisionModelConfig", "pLSTMGraphModelConfig", "BlockStackConfig"])
def test_names_go_both_ways(cases, name, scan_blocks):
    config = cases[name].config
    arrays = {key: np.random.default_rng(0).standard_normal(item.shape) for key, item in parameter_tree(config).items()}
    _, expected = initialized(cases[name], scan_blocks=scan_blocks)
    params = plstm_linen.from_canonical(config, arrays, scan_blocks=scan_blocks)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected["params"])
    found = plstm_linen.to_canonical(params)
    assert found.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array)


def test_initial_values_are_those_of_plstm_jax(vision):
    """Equal where nothing is drawn, of equal moments where there is."""
    config = configs.change(vision, {"dim": 64})
    module = plstm_linen.build(config)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    found = plstm_linen.to_canonical(variables["params"])
    one, other = (plstm_jax.flatten(plstm_jax.init(config, jax.random.key(seed))) for seed in (1, 2))
    fixed = {name for name in found if jnp.array_equal(one[name], other[name])}
    large = {name for name in found if found[name].size >= 1000} - fixed
    assert len(fixed) > 5
    assert len(large) > 5
    for name in fixed:
        np.testing.assert_array_equal(found[name], one[name], err_msg=name)
    for name in large:
        values, expected, count = np.asarray(found[name]), np.asarray(one[name]), found[name].size
        error = 5 * expected.std() / count**0.5  # of the mean and of the deviation of that many numbers
        assert abs(values.mean() - expected.mean()) < 2 * error, name
        assert abs(values.std() - expected.std()) < 2 * error, name
    blocks = [found[f"block_stack.blocks.{index}.upproj.weight"] for index in range(2)]
    assert not jnp.array_equal(*blocks)


@pytest.mark.parametrize("scan_blocks", [False, True])
def test_boxes_name_every_axis_once(cases, scan_blocks):
    for name, case in cases.items():
        _, variables = initialized(case, partitioned=True, scan_blocks=scan_blocks)
        boxes = jax.tree.leaves(variables, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))
        for box in boxes:
            assert isinstance(box, nn.LogicallyPartitioned), name
            known = [axis for axis in box.names if axis is not None]
            assert len(box.names) == box.value.ndim
            assert len(set(known)) == len(known)
            assert set(known) <= {*AXES, "layers"}
        rules = [(axis, None) for axis in (*AXES, "layers")]
        nn.logical_to_mesh(nn.get_partition_spec(variables), rules)
        bare, boxed = initialized(case, scan_blocks=scan_blocks)[1], nn.meta.unbox(variables)
        assert jax.tree.map(jnp.shape, bare) == jax.tree.map(jnp.shape, boxed)


def test_boxed_and_bare_parameters_compute_the_same(vision, pixels, jit):
    boxed = plstm_linen.build(vision, partitioned=True)
    variables = jit(boxed.init)(jax.random.key(0), pixels)
    outputs = [
        jit(module.apply)(given, pixels)
        for module in (boxed, plstm_linen.build(vision))
        for given in (variables, nn.meta.unbox(variables))
    ]
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])


def test_linen_sees_the_parts(vision, pixels, jit):
    module = plstm_linen.build(vision)
    table = module.tabulate(jax.random.key(0), pixels, console_kwargs={"width": 200, "force_terminal": False})
    for text in ("patch_embed", "block_stack/blocks_1/upproj", "TransformerBlock", "8,8"):
        assert text in table
    variables = jit(module.init)(jax.random.key(0), pixels)
    capture = jit(lambda v: module.apply(v, pixels, capture_intermediates=True, mutable="intermediates"))
    _, state = capture(variables)
    (norm,) = state["intermediates"]["norm"]["__call__"]
    assert norm.shape == (4, 2, 2, 8)


def test_modules_stand_in_modules_of_others(vision, pixels, jit):
    class Classifier(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(plstm_linen.models.pLSTMVisionModel(vision, name="body")(x))

    variables = jit(Classifier().init)(jax.random.key(0), pixels)
    assert jit(Classifier().apply)(variables, pixels).shape == (4, 2)
    assert plstm_linen.to_canonical(variables["params"]["body"]).keys() == parameter_tree(vision).keys()


def test_what_is_no_config_is_refused():
    with pytest.raises(TypeError, match="config: expected an instance of one of BlockStackConfig"):
        plstm_linen.build(3)
    with pytest.raises(TypeError, match=r"plstm_config\.preset"):
        plstm_linen.build("plstm_vis_tiny")


def test_every_config_class_has_one_module_class():
    registered = plstm_linen.build.__globals__["REGISTRY"].classes
    assert set(registered) == set(reference.module_classes())
    assert issubclass(ParameterGroup, Module)
