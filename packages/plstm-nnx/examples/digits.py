"""Handwritten digits: `python digits.py` trains a small pLSTM-Vis with optax, and says its accuracy on held-out images.

The data, 1,797 images of 8 x 8 pixels, come with scikit-learn: `pip install "plstm-testing[datasets]" optax`.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import plstm_config
import plstm_nnx
from plstm_testing.datasets import load_digits
from plstm_testing.datasets.digits import training_batch

BATCH = 64


def make_config():
    """The small model of `plstm-torch train digits`."""
    config = plstm_config.preset(
        "plstm_vis_tiny",
        dim=64,
        num_heads=4,
        num_blocks=1,  # a pair of blocks, one of each mode
        patch_size=2,
        resolution=(8, 8),
        output_shape=(10,),
        num_channels=1,
    )
    noise = plstm_config.NormalInitConfig(stddev=0.5)
    changes = {
        "source.weight_init": noise,
        "mark.weight_init": noise,
        "mark.bias_init": plstm_config.ConstantInitConfig(value=-1.0),
        "query.bias_init": plstm_config.NormalInitConfig(stddev=0.3),
        "additional_convolution": True,
        "convolution_inputs": "STMDQKVO",
    }
    layers = [f"block_stack.block.{name}.interaction_module" for name in ("block0", "block1")]
    return plstm_config.change(config, {f"{layer}.{name}": v for layer in layers for name, v in changes.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder for the weights, which every backend reads")
    options = parser.parse_args()
    began, data = time.perf_counter(), load_digits()
    order, steps_in_epoch = np.random.default_rng(options.seed), len(data.train_labels) // BATCH
    total = options.epochs * steps_in_epoch
    rate = optax.warmup_cosine_decay_schedule(0.0, 2e-3, min(steps_in_epoch, total - 1), total, 2e-5)
    model = plstm_nnx.build(make_config(), rngs=nnx.Rngs(options.seed))
    adamw = optax.adamw(rate, b1=0.9, b2=0.99, weight_decay=0.05, mask=plstm_nnx.weight_decay_mask(model))
    optimizer = nnx.Optimizer(model, optax.chain(optax.clip_by_global_norm(1.0), adamw), wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, images, labels):
        def loss(model):
            targets = optax.smooth_labels(jax.nn.one_hot(labels, 10), 0.1)
            return optax.softmax_cross_entropy(model(images), targets).mean()

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    @nnx.jit
    def accuracy(model):
        return jnp.mean(jnp.argmax(model(data.test_images), -1) == data.test_labels)

    for epoch in range(options.epochs):
        model.train()
        for indices in np.split(order.permutation(len(data.train_labels))[: steps_in_epoch * BATCH], steps_in_epoch):
            value = train_step(model, optimizer, *training_batch(data, indices, key=(options.seed, epoch)))
        if epoch % 5 == 4 or epoch + 1 == options.epochs:
            model.eval()
            print(f"epoch {epoch + 1} loss {value:.3f} accuracy {accuracy(model):.4f}", flush=True)
    print(f"{time.perf_counter() - began:.0f} s")
    if options.out:
        plstm_nnx.save_pretrained(model, options.out)


if __name__ == "__main__":
    main()
