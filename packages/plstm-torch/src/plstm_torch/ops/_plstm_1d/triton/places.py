"""Where the chunks of packed sequences lie, in device code; `form.py` has the same in torch.

Sequence s of [first, last) has its chunks in the slots from first // C + s on. It needs no more than
last // C + (s + 1) - (first // C + s) of them, so slots of neighbours never meet, and no table of lengths is summed.
"""

import triton
import triton.language as tl


@triton.jit
def sequence(bounds, s, C: tl.constexpr):
    """First step of sequence s, the step after its last one, and its first slot."""
    first, last = tl.load(bounds + s).to(tl.int64), tl.load(bounds + s + 1).to(tl.int64)
    return first, last, first // C + s


@triton.jit
def chunk(bounds, owners, n, C: tl.constexpr):
    """First step of the chunk in slot n, and how many steps it holds: none if the slot is empty."""
    first, last, slot = sequence(bounds, tl.load(owners + n).to(tl.int64), C)
    start = first + (n - slot) * C
    return start, tl.maximum(tl.minimum(last - start, C), 0)
