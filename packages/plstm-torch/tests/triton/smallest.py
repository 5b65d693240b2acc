"""Every kernel once, forwards and backwards, on the smallest sizes that have several tiles: for compute-sanitizer."""

from __future__ import annotations

import torch

from plstm_torch.ops import plstm_1d

DEVICE = "cuda"


def draw(shape, dtype):
    return torch.randn(*shape, device=DEVICE, dtype=dtype, requires_grad=True)


def run_sequence(dtype):
    shapes = [(24, 1), (24, 1), (20, 1), (1, 1, 1), (1, 1), (1, 1, 1), (1, 1, 1, 1)]
    tensors = [draw((2, 150, *shape), dtype) for shape in shapes]
    bounds = torch.tensor([0, 70, 70, 150])
    output, last = plstm_1d(*tensors, implementation="triton", cu_seqlens=bounds, return_last_state=True)
    (output.sum() + last.sum()).backward()


if __name__ == "__main__":
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        run_sequence(dtype)
    torch.cuda.synchronize()
