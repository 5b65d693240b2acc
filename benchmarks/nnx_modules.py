"""Modules of nnx: how long blocks take to compile, held apart or as one, and a training step beside that of torch.

python benchmarks/nnx_modules.py compile          # 2 and 24 blocks, scanned
python benchmarks/nnx_modules.py step             # pLSTM-Vis-tiny at 224 x 224, float32, both frameworks in turns
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import plstm_config
import plstm_nnx


def clocks():
    """Time on the clock, and of the processors, which other work on the machine changes less."""
    return np.array([time.perf_counter(), time.process_time()])


def compiled(config, x, *, scan_blocks):
    """The gradient of a scalar of the output, compiled, with the seconds that took."""
    model = plstm_nnx.build(config, rngs=nnx.Rngs(0), scan_blocks=scan_blocks)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, x):
        return jnp.mean(nnx.merge(graph, params, nnx.clone(rest))(x, deterministic=True) ** 2)

    start = clocks()
    program = jax.jit(jax.value_and_grad(loss)).lower(params, x).compile()
    return program, params, clocks() - start


def compile_blocks():
    tokens = jnp.ones((2, 128), jnp.int32)
    for scan_blocks in (True, False):
        for count in (2, 24) if scan_blocks else (2,):
            config = plstm_config.preset("plstm_lm_small", vocab_size=256, embedding_dim=128, num_blocks=count)
            *_, seconds = compiled(config, tokens, scan_blocks=scan_blocks)
            how = "scanned" if scan_blocks else "apart"
            print(f"{count} blocks, {how}: {seconds[0]:.1f} s, of processors {seconds[1]:.1f} s", flush=True)


def steps(batch, repeats, threads):
    import torch

    import plstm_torch

    torch.set_num_threads(threads)
    config = plstm_config.preset("plstm_vis_tiny")
    pixels = np.random.default_rng(0).standard_normal((batch, 224, 224, 3)).astype(np.float32)
    program, params, seconds = compiled(config, jnp.asarray(pixels), scan_blocks=True)
    print(f"gradient compiled in {seconds[0]:.1f} s, of processors {seconds[1]:.1f} s", flush=True)
    update = jax.jit(lambda params, grads: jax.tree.map(lambda one, grad: one - 1e-4 * grad, params, grads))
    model = plstm_torch.build(config)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step_nnx():
        nonlocal params
        _, grads = program(params, pixels)
        params = jax.block_until_ready(update(params, grads))

    def step_torch():
        optimizer.zero_grad()
        model(torch.from_numpy(pixels)).square().mean().backward()
        optimizer.step()

    times = {"nnx": [], "torch": []}
    for turn in range(repeats + 1):
        for name, step in (("nnx", step_nnx), ("torch", step_torch)):
            start = clocks()
            step()
            if turn:  # the first one warms up
                times[name].append(clocks() - start)
    for name, found in times.items():
        clock, processors = np.median(found, axis=0)
        print(f"{name}: {clock:.2f} s a step of {batch} images, of processors {processors:.2f} s")
    clock, processors = np.median(np.array(times["nnx"]) / np.array(times["torch"]), axis=0)
    print(f"nnx / torch, pair by pair: {clock:.2f}, of processors {processors:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["compile", "step"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of torch; those of XLA are as many as the cores")
    options = parser.parse_args()
    compile_blocks() if options.what == "compile" else steps(options.batch, options.repeats, options.threads)


if __name__ == "__main__":
    main()
