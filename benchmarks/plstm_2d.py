"""Time the 2D op with four orientations next to attention: medians and extra peak memory, as a table and as JSON.

python benchmarks/plstm_2d.py --json plstm_2d.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import torch
from measuring import add_options, describe, machine, measure, write

from plstm_torch.ops import plstm_2d_oriented

GRIDS = {14: 24, 28: 6, 64: 3, 128: 3}  # side of the grid: batch times heads
MODES = ("D", "P")
IMPLEMENTATIONS = ("recurrent", "parallel", "chunkwise", "auto")
# where the gating matrices fit into memory, and where the states of all nodes do
LARGEST = {"parallel": 64, "recurrent": 14}


def draw(side: int, batch: int, dim: int, mode: str) -> dict[str, Any]:
    """Arguments of the op, `mode` among them where it is P."""

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(batch, *shape).requires_grad_()

    arguments: dict[str, Any] = {name: leaf(side, side, dim, 1) for name in ("query", "key", "value")}
    arguments |= {"direct": leaf(side, side, 1, 1, 1, 1)}
    arguments |= {name: leaf(4, side, side, 1, 1, 1) for name in ("source_r", "source_d", "mark_l")}
    decay, share = torch.rand(2, batch, 4, side, side, 1, 1)
    if mode == "P":
        right, down = (decay * share).requires_grad_(), (decay * (1 - share)).requires_grad_()
        return arguments | {"transition_rl": right, "transition_du": down, "mode": "P"}
    names = ("transition_rl", "transition_du", "transition_ru")
    gates = (2 * decay - 1, 2 * share - 1, torch.rand_like(decay))
    arguments |= {name: gate.requires_grad_() for name, gate in zip(names, gates, strict=True)}
    return arguments | {"mark_u": leaf(4, side, side, 1, 1, 1)}


def attention(side: int, batch: int, dim: int) -> tuple[Callable[[], torch.Tensor], list[torch.Tensor]]:
    leaves = [torch.randn(batch, 1, side * side, dim, requires_grad=True) for _ in range(3)]
    return (lambda: torch.nn.functional.scaled_dot_product_attention(*leaves)), leaves


def calls(
    side: int, batch: int, options: argparse.Namespace
) -> Iterator[tuple[str, str, Callable[[], torch.Tensor], list[torch.Tensor]]]:
    """Mode, implementation, function and leaves of everything to measure on a grid."""
    yield ("-", "attention", *attention(side, batch, options.dim))
    for mode in options.modes:
        arguments = draw(side, batch, options.dim, mode)
        leaves = [argument for argument in arguments.values() if isinstance(argument, torch.Tensor)]
        for name in options.implementations:
            if side <= LARGEST.get(name, side):
                yield mode, name, lambda a=arguments, n=name: plstm_2d_oriented(**a, implementation=n), leaves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--dim", type=int, default=64, help="DK and DV")
    parser.add_argument("--sides", type=int, nargs="+", default=list(GRIDS))
    parser.add_argument("--batch", type=int, help="batch times heads, instead of the usual one for the side")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--implementations", nargs="+", choices=IMPLEMENTATIONS, default=list(IMPLEMENTATIONS[:3]))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    about = machine()
    print("  ".join(f"{name}: {value}" for name, value in about.items()))
    print(f"O=4 DK=DV={options.dim} float32: median (best), extra peak memory")
    rows = []
    for side in options.sides:
        batch = options.batch or GRIDS.get(side, 3)
        for mode, name, function, leaves in calls(side, batch, options):
            row = {"side": side, "batch": batch, "mode": mode, "implementation": name}
            row |= measure(function, leaves, options)
            rows.append(row)
            print(f"{side:3}x{side:<3} n={batch:<3} {mode} {name:10} {describe(row)}", flush=True)
            write(options, about, rows)


if __name__ == "__main__":
    main()
