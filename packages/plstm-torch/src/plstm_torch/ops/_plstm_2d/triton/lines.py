"""Decays along a row or column of a grid, walked either way, in device code."""

import triton
import triton.language as tl


@triton.jit
def between(transition, n, stride, P: tl.constexpr, BACK: tl.constexpr):
    """R as [i, j], zero unless i comes after j on the walk: the product of the transitions of the nodes between them.

    The transpose is R of the other direction: nothing is transposed.
    """
    i, j, k = tl.arange(0, P)[:, None], tl.arange(0, P)[None, :], tl.arange(0, P)
    if BACK:
        near = tl.load(transition + (k + 1) * stride, mask=k + 1 < n, other=1.0)
        return tl.where(i < j, tl.cumprod(tl.where(i + 1 < j, near[:, None], 1.0), 0, reverse=True), 0.0)
    else:
        near = tl.load(transition + (k - 1) * stride, mask=(k >= 1) & (k - 1 < n), other=1.0)
        return tl.where(i > j, tl.cumprod(tl.where(i - 1 > j, near[:, None], 1.0), 0), 0.0)


@triton.jit
def on_line(gate, n, stride, P: tl.constexpr):
    """[P]: a gate along a line, to whose first node the pointer leads, zero behind its end."""
    k = tl.arange(0, P)
    return tl.load(gate + k * stride, mask=k < n, other=0.0)


@triton.jit
def put_on_line(gradient, values, n, stride, P: tl.constexpr):
    """Store [P] along a line."""
    k = tl.arange(0, P)
    tl.store(gradient + k * stride, values, mask=k < n)


@triton.jit
def of_transition(decay, other_way, d_decay, ACC: tl.constexpr, EXACT: tl.constexpr):
    """dT_k = sum over j of R[k, j] (Rᵀ dR)[k, j]; `other_way` is Rᵀ, and dR is zero where R has to be."""
    shape: tl.constexpr = decay.shape
    passing = tl.dot(other_way, d_decay, tl.zeros(shape, ACC), input_precision=EXACT, out_dtype=ACC)
    return tl.sum(decay * passing, 1)
