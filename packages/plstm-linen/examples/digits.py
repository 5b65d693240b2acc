"""Train a small pLSTM-Vis on handwritten digits with optax: `python examples/digits.py --out digits`.

Needs the extra `plstm-testing[datasets]` and optax. The model and its training are those of `plstm-torch train digits`.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

import plstm_config
import plstm_linen
from plstm_testing.datasets import load_digits
from plstm_testing.datasets.digits import training_batch

BATCH = 64


def model_config() -> plstm_config.Config:
    """The vision model in small: two blocks, 16 patches of 2 x 2 pixels, gates that start at values for small grids."""
    config = plstm_config.preset(
        "plstm_vis_tiny", dim=64, num_heads=4, num_blocks=1, patch_size=2, resolution=(8, 8), output_shape=(10,),
        num_channels=1, dtype="float32",
    )  # fmt: skip
    spread, quiet = plstm_config.NormalInitConfig(stddev=0.5), plstm_config.ConstantInitConfig(value=-1.0)
    layer = {
        "source.weight_init": spread,
        "mark.weight_init": spread,
        "mark.bias_init": quiet,
        "query.bias_init": plstm_config.NormalInitConfig(stddev=0.3),
        "additional_convolution": True,
        "convolution_inputs": "STMDQKVO",
    }
    blocks = [f"block_stack.block.{block}.interaction_module" for block in ("block0", "block1")]
    return plstm_config.change(config, {f"{block}.{name}": value for block in blocks for name, value in layer.items()})


def make_state(config: plstm_config.Config, steps: int, seed: int) -> TrainState:
    """AdamW with a warm-up and half a cosine; what decays is said by the table of parameters."""
    model = plstm_linen.build(config)
    params = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 8, 8, 1)))["params"]
    decays = {name: item.decay for name, item in plstm_config.parameter_tree(config).items()}
    rate = optax.warmup_cosine_decay_schedule(0.0, 2e-3, steps // 40, steps, 2e-5)
    adamw = optax.adamw(rate, b2=0.99, weight_decay=0.05, mask=plstm_linen.from_canonical(config, decays))
    return TrainState.create(apply_fn=model.apply, params=params, tx=optax.chain(optax.clip_by_global_norm(1.0), adamw))


@partial(jax.jit, donate_argnums=0)
def train_step(state: TrainState, images: jax.Array, labels: jax.Array) -> tuple[TrainState, jax.Array]:
    """One step; targets are smoothed a little. A model with drop path takes deterministic=False and rngs here."""

    def loss_of(params):
        logits = state.apply_fn({"params": params}, images)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, 10), 0.1)
        return optax.softmax_cross_entropy(logits, targets).mean()

    loss, grads = jax.value_and_grad(loss_of)(state.params)
    return state.apply_gradients(grads=grads), loss


def main() -> None:
    """Train, print the accuracy on the held-out images, write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder for config and weights, which every backend reads")
    options = parser.parse_args()
    digits, random, start = load_digits(), np.random.default_rng(options.seed), time.perf_counter()
    per_epoch, config = len(digits.train_labels) // BATCH, model_config()
    state = make_state(config, options.epochs * per_epoch, options.seed)
    predict = jax.jit(lambda params, images: state.apply_fn({"params": params}, images).argmax(-1))
    for epoch in range(options.epochs):
        order = random.permutation(len(digits.train_labels))[: per_epoch * BATCH]
        for indices in order.reshape(per_epoch, BATCH):
            images, labels = training_batch(digits, indices, key=(options.seed, epoch))
            state, loss = train_step(state, images, labels)
        accuracy = np.mean(predict(state.params, digits.test_images) == digits.test_labels)
        print(f"epoch {epoch + 1} loss {loss:.3f} test accuracy {accuracy:.4f}", flush=True)
    print(f"{time.perf_counter() - start:.0f} s")
    if options.out:
        plstm_linen.save_pretrained(plstm_linen.build(config), {"params": state.params}, options.out)


if __name__ == "__main__":
    main()
