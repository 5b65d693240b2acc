"""Time the 1D op: medians of forward and of forward and backward, as a table and as JSON.

python benchmarks/plstm_1d.py --json plstm_1d.json
"""

from __future__ import annotations

import argparse

import torch
from measuring import add_options, describe, machine, measure, milliseconds, write

from plstm_torch.ops import plstm_1d

__all__ = ["draw", "machine", "milliseconds"]

STATE_TRACKING = {"JT": 4, "JV": 4, "JO": 4}
CASES = {
    "scalar": {"sizes": {}, "lengths": (1024, 16384)},
    "JT=JV=JO=4": {"sizes": STATE_TRACKING, "lengths": (1024, 16384)},
}


def draw(length: int, batch: int, dim: int, sizes: dict[str, int]) -> list[torch.Tensor]:
    dim_t, dim_k, dim_v, dim_q, dim_o = (sizes.get(name, 1) for name in ("JT", "JK", "JV", "JQ", "JO"))
    shapes = [(dim, dim_q), (dim, dim_k), (dim, dim_v), (dim_t, dim_k, dim_v), (dim_t, dim_t)]
    shapes += [(dim_o, dim_q, dim_t), (dim_o, dim_q, dim_k, dim_v)]
    tensors = [torch.randn(batch, length, *shape) for shape in shapes]
    tensors[4] = 0.95 * torch.linalg.qr(tensors[4])[0]  # bounded, of either sign
    return [tensor.requires_grad_() for tensor in tensors]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--batch", type=int, default=8, help="batch times heads")
    parser.add_argument("--dim", type=int, default=32, help="DK and DV")
    parser.add_argument("--lengths", type=int, nargs="+", help="instead of the usual lengths")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--implementation", default="auto")
    parser.add_argument("--chunk-size", type=int)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    about = machine()
    print("  ".join(f"{name}: {value}" for name, value in about.items()))
    print(f"B={options.batch} DK=DV={options.dim} float32: median (best), extra peak memory")
    rows = []
    for name in options.cases:
        for length in options.lengths or CASES[name]["lengths"]:
            tensors = draw(length, options.batch, options.dim, CASES[name]["sizes"])

            def forward(tensors: list[torch.Tensor] = tensors) -> torch.Tensor:
                return plstm_1d(*tensors, implementation=options.implementation, chunk_size=options.chunk_size)

            row = {"case": name, "length": length, **measure(forward, tensors, options)}
            rows.append(row)
            print(f"{name:12} T={length:6}  {describe(row)}", flush=True)
            write(options, about, rows)


if __name__ == "__main__":
    main()
