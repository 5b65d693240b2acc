"""How long torch takes to compile a vision model block by block, and that one program serves all blocks and sizes.

python benchmarks/compile_time.py --preset plstm_vis_tiny --depth 12

Seconds of the processors (this process and the compilers that it starts) and of the clock. Nothing compiled is kept,
neither from before nor for later; what torch tries out and writes down once for a machine is measured by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable

import torch
import torch._dynamo
import torch._inductor.config
from measuring import machine

import plstm_config
import plstm_torch


def clocks() -> tuple[float, float, float]:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time(), children.ru_utime + children.ru_stime, time.perf_counter()


def seconds(function: Callable[[], object]) -> dict[str, float]:
    """What one call takes."""
    before = clocks()
    function()
    spent = (after - start for start, after in zip(before, clocks(), strict=True))
    return dict(zip(("python", "compilers", "wall"), (round(each, 2) for each in spent), strict=True))


def measure(options: argparse.Namespace) -> dict[str, object]:
    depth = {} if options.depth is None else {"num_blocks": options.depth}
    model = plstm_torch.build(plstm_config.preset(options.preset, **depth))
    blocks = model.block_stack.blocks

    def step(block: torch.nn.Module, height: int, width: int) -> None:
        x = torch.rand(options.batch, height // options.patch, width // options.patch, model.config.dim)
        block(x.requires_grad_()).square().mean().backward()

    def step_of_all(height: int, width: int) -> None:
        model(torch.rand(options.batch, height, width, 3)).square().mean().backward()

    def nearly_nothing() -> None:
        torch.compile(lambda x: x.exp().sum(), dynamic=True)(torch.rand(64, 64, requires_grad=True)).backward()

    side, other = options.side, options.other_side
    result: dict[str, object] = {"uncompiled block": seconds(lambda: step(blocks[0], side, side))}
    result["program of two operations"] = seconds(nearly_nothing)
    for block in blocks:
        block.compile(dynamic=True)
    result["first block"] = seconds(lambda: step(blocks[0], side, side))
    result["second block"] = seconds(lambda: step(blocks[1], side, side))
    result["other resolution"] = seconds(lambda: step(blocks[0], other, other))
    result["other sides"] = seconds(lambda: step(blocks[0], side, other))
    result["all blocks"] = seconds(lambda: step_of_all(side, side))
    return result | {"programs": torch._dynamo.utils.counters["stats"]["unique_graphs"] - 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="plstm_vis_tiny")
    parser.add_argument("--depth", type=int, help="blocks of the model; default: those of the preset")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--side", type=int, default=224, help="pixels of a side of the images")
    parser.add_argument("--other-side", type=int, default=160, help="of the second resolution")
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1, help="of the steps; compilers take all cores")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch._inductor.config.fx_graph_cache = torch._functorch.config.enable_autograd_cache = False
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        result = measure(options)
    print(json.dumps(machine() | {"options": vars(options), "seconds": result}, indent=2))


if __name__ == "__main__":
    main()
