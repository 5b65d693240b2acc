"""Training: gradients, optimizers, dropped paths, stacked and recomputed blocks, on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import plstm_config as configs
import plstm_linen
from plstm_config.parameters import parameter_tree
from plstm_testing.tolerances import assert_close

LABELS = np.array([0, 1, 2, 0])


def started(config, pixels, jit, **options):
    module = plstm_linen.build(config, **options)
    return module, jit(module.init)(jax.random.key(0), pixels)


def loss_of(module, pixels, **options):
    def loss(params):
        logits = module.apply({"params": params}, pixels, **options)
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

    return loss


def test_a_train_state_learns(vision, pixels, jit):
    module, variables = started(vision, pixels, jit)
    decays = {name: item.decay for name, item in parameter_tree(vision).items()}
    optimizer = optax.adamw(0.02, mask=plstm_linen.from_canonical(vision, decays))
    state = TrainState.create(apply_fn=module.apply, params=variables["params"], tx=optimizer)

    @jit
    def train(state, key):
        key = jax.random.fold_in(key, state.step)
        loss = loss_of(module, pixels, deterministic=False, rngs={"dropout": key})
        value, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads), value, grads

    losses = []
    for _ in range(15):
        state, value, grads = train(state, jax.random.key(1))
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]
    assert jax.tree.structure(grads) == jax.tree.structure(variables["params"])


@pytest.mark.parametrize("scan_blocks", [False, True])
def test_paths_are_dropped_by_the_dropout_key(vision, pixels, jit, scan_blocks):
    module, variables = started(vision, pixels, jit, scan_blocks=scan_blocks)
    run = jit(lambda key: module.apply(variables, pixels, deterministic=False, rngs={"dropout": key}))
    first, again, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not jnp.array_equal(first, other)
    steady = jit(lambda key: module.apply(variables, pixels, rngs={"dropout": key}))
    np.testing.assert_array_equal(steady(jax.random.key(0)), steady(jax.random.key(1)))


def test_parts_drop_their_paths_independently(jit):
    layer = configs.pLSTM1DLayerConfig(num_heads=2, JT=1, JV=1, JO=1)
    block = configs.PostUpProjectionBlockConfig(
        input_dim=8, projection_round=8, drop_path_rate=0.5, interaction_module=layer
    )
    x = jnp.tile(jax.random.normal(jax.random.key(2), (1, 2, 8)), (64, 1, 1))
    for scan_blocks in (False, True):
        stack = configs.BlockStackConfig(input_dim=8, num_blocks=2, block=block, scan_blocks=scan_blocks)
        module, variables = started(stack, x, jit)
        rngs = {"dropout": jax.random.key(0)}
        found = jit(lambda v, m=module, r=rngs: m.apply(v, x, deterministic=False, rngs=r))(variables)
        assert (
            8 < len(np.unique(np.asarray(found).reshape(64, -1).round(4), axis=0)) <= 16
        )  # ways to drop four branches


def test_a_missing_key_is_told_only_where_it_is_needed(vision, pixels, jit):
    module, variables = started(vision, pixels, jit)

    def shape(module, **options):
        return jax.eval_shape(lambda v: module.apply(v, pixels, **options), variables).shape

    with pytest.raises(ValueError, match=r'rngs: expected a PRNG key.*rngs=\{"dropout": key\}'):
        shape(module, deterministic=False)
    with pytest.raises(ValueError, match="rngs: expected a PRNG key"):
        shape(module, deterministic=False, rngs={"params": jax.random.key(0)})
    assert shape(module) == (4, 3)
    kept = configs.change(vision, {"block_stack.block.drop_path_rate": 0.0})
    assert shape(plstm_linen.build(kept), deterministic=False) == (4, 3)


@pytest.mark.parametrize("options", [{"remat": True}, {"scan_blocks": True}, {"scan_blocks": True, "remat": True}])
def test_scanning_and_recomputing_change_no_number(vision, pixels, jit, options):
    plain, variables = started(vision, pixels, jit)
    expected = jit(jax.value_and_grad(loss_of(plain, pixels)))(variables["params"])
    module = plstm_linen.build(vision, **options)
    arrays = plstm_linen.to_canonical(variables["params"])
    params = plstm_linen.from_canonical(vision, arrays, scan_blocks=module.scan_blocks)
    assert ("blocks" in params["block_stack"]) == bool(module.scan_blocks)
    value, grads = jit(jax.value_and_grad(loss_of(module, pixels)))(params)
    assert_close(value, expected[0], "float64", "module")
    found, wanted = plstm_linen.to_canonical(grads), plstm_linen.to_canonical(expected[1])
    for name, grad in wanted.items():
        assert_close(found[name], grad, "float64", "gradient", name)


def test_recomputing_keeps_less(vision, pixels):
    """With a name for every residual, those of recomputed blocks are their inputs."""
    sizes = {}
    for remat in (False, True):
        module = plstm_linen.build(vision, remat=remat)
        params = jax.eval_shape(module.init, jax.random.key(0), pixels)["params"]
        _, pull = jax.eval_shape(lambda p, m=module: jax.vjp(loss_of(m, pixels), p), params)
        sizes[remat] = sum(leaf.size for leaf in jax.tree.leaves(pull))
    assert sizes[True] < 0.5 * sizes[False]


def test_a_scan_starts_in_any_dtype(jit):
    block = configs.TransformerBlockConfig(input_dim=4, num_heads=1, projection_round=4, dtype="bfloat16")
    x = jax.random.normal(jax.random.key(0), (2, 3, 4), "float32")
    outputs = []
    for scan_blocks in (False, True):
        config = configs.BlockStackConfig(
            input_dim=4, num_blocks=2, block=block, dtype="bfloat16", scan_blocks=scan_blocks
        )
        module, variables = started(config, x, jit)
        arrays = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.3), variables)
        outputs.append(jit(module.apply)(arrays, x))
    assert outputs[1].dtype == jnp.float32  # a wide stream stays wide
    assert_close(*outputs, "bfloat16", "module")
