"""Several devices: parameters and batches spread over them, the losses of one; runs that go on elsewhere."""

import os
import subprocess
import sys
import textwrap

PROGRAM = textwrap.dedent(
    """
    import sys
    from functools import partial
    import jax, jax.numpy as jnp, numpy as np, optax, orbax.checkpoint as ocp
    from flax import linen as nn
    from flax.training.train_state import TrainState
    from jax.sharding import AxisType, NamedSharding, PartitionSpec
    import plstm_config, plstm_linen
    from plstm_jax.check import quick_compilation
    from plstm_jax.sharding import axis_rules
    from plstm_testing.tolerances import assert_within, tolerance

    jit = partial(jax.jit, compiler_options=dict(quick_compilation()))
    config = plstm_config.pLSTMVisionModelConfig(
        dim=16, num_heads=2, num_blocks=2, resolution=(16, 16), patch_size=4, output_shape=(4,), num_channels=1
    )
    model = plstm_linen.build(config, partitioned=True, scan_blocks=True)
    pixels = jax.random.normal(jax.random.key(1), (8, 16, 16, 1))
    labels = jnp.arange(8) % 4
    optimizer = optax.adam(1e-2)

    def create(key):
        return TrainState.create(apply_fn=model.apply, params=model.init(key, pixels)["params"], tx=optimizer)

    def train(state, pixels, labels):
        def loss(params):
            logits = state.apply_fn({"params": params}, pixels)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads), value

    def shardings_of(mesh, rules):
        abstract = jax.eval_shape(create, jax.random.key(0))
        return nn.logical_to_mesh_sharding(nn.get_partition_spec(abstract), mesh, rules)

    def run(state, shardings, mesh, spec, steps):
        whole, rows = (NamedSharding(mesh, part) for part in (spec, PartitionSpec(spec[0])))
        step = jit(train, in_shardings=(shardings, whole, rows), out_shardings=(shardings, None))
        losses = []
        for _ in range(steps):
            state, loss = step(state, jax.device_put(pixels, whole), jax.device_put(labels, rows))
            losses.append(float(loss))
        return state, losses

    def mesh_of(*sizes):
        devices = jax.devices()[: np.prod(sizes)]
        return jax.make_mesh(sizes, ("data", "fsdp"), devices=devices, axis_types=(AxisType.Auto,) * 2)

    one = mesh_of(1, 1)
    start = jit(create, out_shardings=shardings_of(one, axis_rules()))(jax.random.key(0))
    _, expected = run(start, shardings_of(one, axis_rules()), one, PartitionSpec("data"), 4)
    limit = 10 * tolerance("float32", "module")  # the sums of four steps in another order
    ways = {
        "data parallel": (axis_rules(), PartitionSpec(("data", "fsdp"))),
        # with the rows of the images spread, too
        "fsdp": (axis_rules(F="fsdp", D="data"), PartitionSpec("data", "fsdp")),
    }
    for name, (rules, spec) in ways.items():
        mesh = mesh_of(2, 2)
        shardings = shardings_of(mesh, rules)
        state = jit(create, out_shardings=shardings)(jax.random.key(0))
        weight = nn.meta.unbox(state.params)["block_stack"]["blocks"]["block0"]["upproj"]["weight"]
        share = weight.sharding.shard_shape(weight.shape)
        assert np.prod(share) * {"data parallel": 1, "fsdp": 4}[name] == weight.size, name
        state, losses = run(state, shardings, mesh, spec, 2)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(f"{sys.argv[1]}/{name.replace(' ', '_')}", nn.meta.unbox(state))
        _, rest = run(state, shardings, mesh, spec, 2)
        assert_within(losses + rest, expected, limit, name)

    # what ran on four devices goes on with two
    mesh, rules = mesh_of(1, 2), axis_rules(F="fsdp")
    shardings = shardings_of(mesh, rules)
    target = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        nn.meta.unbox(jax.eval_shape(create, jax.random.key(0))),
        shardings,
    )
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore(f"{sys.argv[1]}/fsdp", target)
    assert int(state.step) == 2
    _, rest = run(state, shardings, mesh, PartitionSpec("fsdp"), 2)
    assert_within(rest, expected[2:], limit, "restored")
    print("alike")
    """
)


def test_devices_share_parameters_and_batches(tmp_path):
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "alike"
