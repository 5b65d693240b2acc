"""Time the 1D op: medians of forward and of forward and backward, as a table and as JSON.

python benchmarks/plstm_1d.py --out plstm_1d.json
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from plstm_torch.ops import plstm_1d

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


def milliseconds(function, seconds: float) -> list[float]:
    """Times of repeated calls, after two to warm up."""
    times: list[float] = []
    function()
    function()
    while sum(times) < 1000 * seconds or len(times) < 5:
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return times


def measure(length: int, sizes: dict[str, int], options: argparse.Namespace) -> dict[str, object]:
    tensors = draw(length, options.batch, options.dim, sizes)
    output = plstm_1d(*tensors, implementation=options.implementation, chunk_size=options.chunk_size)
    weight = torch.randn_like(output)

    def forward() -> torch.Tensor:
        return plstm_1d(*tensors, implementation=options.implementation, chunk_size=options.chunk_size)

    def inference() -> None:
        with torch.no_grad():
            forward()

    def training() -> None:
        torch.autograd.grad(forward(), tensors, weight)

    result: dict[str, object] = {"length": length, **sizes}
    for name, function in (("forward", inference), ("forward_backward", training)):
        gc.collect()
        times = milliseconds(function, options.seconds)
        result[name] = {"median": statistics.median(times), "best": min(times), "repeats": len(times)}
    return result


def machine() -> dict[str, object]:
    return {
        "machine": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8, help="batch times heads")
    parser.add_argument("--dim", type=int, default=32, help="DK and DV")
    parser.add_argument("--lengths", type=int, nargs="+", help="instead of the usual lengths")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--implementation", default="auto")
    parser.add_argument("--chunk-size", type=int)
    parser.add_argument("--seconds", type=float, default=3.0, help="least time per measurement")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    about = machine()
    print("  ".join(f"{name}: {value}" for name, value in about.items()))
    print(f"B={options.batch} DK=DV={options.dim} float32, milliseconds: median (best)")
    rows = []
    for name in options.cases:
        for length in options.lengths or CASES[name]["lengths"]:
            row = measure(length, CASES[name]["sizes"], options)
            rows.append({"case": name, **row})
            cells = (
                f"{key} {row[key]['median']:8.2f} ({row[key]['best']:.2f})" for key in ("forward", "forward_backward")
            )
            print(f"{name:12} T={length:6}  " + "  ".join(cells), flush=True)
    if options.out:
        chosen = {key: value for key, value in vars(options).items() if key != "out"}
        options.out.write_text(json.dumps({**about, "options": chosen, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
