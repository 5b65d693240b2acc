"""Train a language model on several devices: `python sharded.py --layout fsdp`.

Without accelerators, `XLA_FLAGS=--xla_force_host_platform_device_count=4` makes four devices of one CPU. The losses
are those of one device, whatever the layout:

* data: every device holds all parameters and sees a part of the batch.
* fsdp: parameters and the optimizer's state are spread over the devices, too, along their features.
* sequence: the positions of each sequence are spread.

With `--steps 3 --checkpoint FOLDER` the run is written to the folder after three steps; with `--steps 6 --checkpoint
FOLDER` it goes on from there, on as many devices as there are then, and in any layout.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import plstm_config
import plstm_nnx

# axis of the mesh by axis of the parameters; of the tokens [B, T]
LAYOUTS = {
    "data": ({}, P("devices")),
    "fsdp": ({"D": "devices"}, P("devices")),
    "sequence": ({}, P(None, "devices")),
}
CONFIG = plstm_config.preset("plstm_lm_small", vocab_size=64, embedding_dim=32, num_blocks=2)


def batch(step):
    """Sequences that count up from a random number, and what follows each of their tokens."""
    tokens = jax.random.randint(jax.random.fold_in(jax.random.key(1), step), (8, 1), 0, 64) + jnp.arange(17)
    return tokens[:, :-1] % 64, tokens[:, 1:] % 64


def build():
    return plstm_nnx.build(CONFIG, rngs=nnx.Rngs(0), scan_blocks=True)


SHAPES = nnx.eval_shape(build)  # the model without its numbers
OPTIMIZER = optax.adamw(3e-3, weight_decay=0.1, mask=plstm_nnx.weight_decay_mask(SHAPES))


def start():
    """What changes in training: parameters, what else the model holds, the optimizer's state."""
    _, params, rest = nnx.split(build(), nnx.Param, ...)
    return params, rest, OPTIMIZER.init(params)


def train_step(state, tokens, labels):
    """One update."""
    params, rest, moments = state

    def loss(params):
        model = nnx.merge(nnx.graphdef(SHAPES), params, nnx.clone(rest))
        value = optax.softmax_cross_entropy_with_integer_labels(model(tokens), labels).mean()
        return value, nnx.split(model, nnx.Param, ...)[2]

    (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, moments = OPTIMIZER.update(grads, moments, params)
    return value, (optax.apply_updates(params, updates), rest, moments)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layout", choices=LAYOUTS, default="fsdp")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--checkpoint", type=Path, help="folder of a checkpoint: read if it exists, else written")
    options = parser.parse_args()
    axes, tokens_over = LAYOUTS[options.layout]
    mesh = jax.make_mesh((len(jax.devices()),), ("devices",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh), nnx.logical_axis_rules(plstm_nnx.axis_rules(**axes)):
        abstract = jax.eval_shape(start)
        places = nnx.get_named_sharding(abstract, mesh)
        checkpointer, first = ocp.StandardCheckpointer(), 0
        if options.checkpoint and options.checkpoint.exists():
            wanted = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, places)
            state = checkpointer.restore(options.checkpoint.absolute(), wanted)
            first = int(optax.tree.get(state[2], "count"))
        else:
            state = jax.jit(start, out_shardings=places)()
        train = jax.jit(train_step, out_shardings=(None, places))
        for step in range(first, options.steps):
            value, state = train(state, *jax.device_put(batch(step), NamedSharding(mesh, tokens_over)))
            print(f"step {step} loss {value:.6f}")
        if options.checkpoint and not options.checkpoint.exists():
            checkpointer.save(options.checkpoint.absolute(), state)
            checkpointer.wait_until_finished()
    table = state[0]["token_embedding"]["weight"][...]
    print(f"{len(jax.devices())} devices, each with {table.addressable_shards[0].data.shape} of a table {table.shape}")


if __name__ == "__main__":
    main()
