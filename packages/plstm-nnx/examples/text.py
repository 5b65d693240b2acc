"""A language model on the bytes of any text file: `python text.py FILE` trains it, then lets it write.

It says bits per byte of the tail of the file, which it never sees in training. Needs `plstm-testing` for the windows of
the text, numpy, and optax, which comes with flax.
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import plstm_config
import plstm_nnx
from plstm_testing.datasets.text import evaluation_streams, load_text, training_windows, windows_per_epoch

CONTEXT, BATCH = 256, 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder for the weights, which every backend reads")
    options = parser.parse_args()
    began, text = time.perf_counter(), load_text(options.file, context_length=CONTEXT, held_out=0.1)
    config = plstm_config.preset(
        "plstm_lm_small", vocab_size=256, embedding_dim=options.dim, num_heads=4, num_blocks=options.blocks
    )
    bias = plstm_config.LinspaceInitConfig(low=0.1, high=1.0, axis=0)  # from short to long memory, head by head
    config = plstm_config.change(config, {"block_stack.block.interaction_module.transition.eigenvalue_bias_init": bias})
    model = plstm_nnx.build(config, rngs=nnx.Rngs(options.seed), scan_blocks=True)
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, options.steps // 10 + 1, options.steps + 1, 1.5e-4)
    adamw = optax.adamw(rate, b2=0.99, weight_decay=0.1, mask=plstm_nnx.weight_decay_mask(model))
    optimizer = nnx.Optimizer(model, optax.chain(optax.clip_by_global_norm(1.0), adamw), wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, tokens, labels):
        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(tokens), labels).mean()

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    per_epoch = windows_per_epoch(len(text.head), CONTEXT)
    order = np.random.default_rng(options.seed)
    for step in range(options.steps):
        epoch = step * BATCH // per_epoch
        windows = order.integers(0, per_epoch, BATCH)
        pairs = training_windows(text.head, windows, context_length=CONTEXT, seed=options.seed, epoch=epoch)
        value = train_step(model, optimizer, *(array.astype(np.int32) for array in pairs))
        if step % 100 == 99:
            print(f"step {step + 1} loss {value / np.log(2):.3f} bits per byte", flush=True)
    model.eval()
    print(f"{bits_per_byte(model, text):.3f} bits per byte of the tail, {time.perf_counter() - began:.0f} s")
    prompt = jnp.asarray(text.tail[None, :64], jnp.int32)
    written = model.generate(prompt, 200, temperature=0.8, key=jax.random.key(options.seed))
    print(bytes(written[0].astype(jnp.uint8).tolist()).decode("utf-8", "replace"))
    if options.out:
        plstm_nnx.save_pretrained(model, options.out)


def bits_per_byte(model, text):
    """Of the tail, read from piece to piece with the cache that the last one left."""
    streams = evaluation_streams(text, streams=8, warm_up=CONTEXT)
    read = nnx.jit(lambda model, tokens, cache: model(tokens, cache=cache, return_cache=True))
    cache, total = model.init_cache(len(streams.values)), 0.0
    for start in range(0, streams.values.shape[1] - 1, CONTEXT):
        piece = slice(start, min(start + CONTEXT, streams.values.shape[1] - 1))
        logits, cache = read(model, streams.values[:, piece].astype(np.int32), cache)
        following = slice(piece.start + 1, piece.stop + 1)
        labels, counts = streams.values[:, following].astype(np.int32), streams.counts[:, following]
        total += float(jnp.sum(counts * optax.softmax_cross_entropy_with_integer_labels(logits, labels)))
    return total / streams.counts.sum() / np.log(2)


if __name__ == "__main__":
    main()
