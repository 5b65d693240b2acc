"""Sums over the edges at a node, from states or from their adjoints: a program per node, so that no sum is shared.

One side of a state is contracted with a vector of its node. Both passes need the same two kernels, once for the edges
into a node (states, query, mark, gradient of the output) and once for those out of it (adjoints, key, source, value):

    sums       H[n, b]  = sum over edges, t, a of G[e, a, b, t] C[e, t]ᵀ X[n, a]        output; gradient of value
    gradients  dX[n, a] = sum over edges, t, b of G[e, a, b, t] C[e, t] Y[n, b]         gradients of query; of key
               dG[e, a, b, t] = X[n, a]ᵀ C[e, t] Y[n, b]                                and of mark; of source

X is [H,N,JA,DK], Y and H are [H,N,JB,DV], C is [H,E,JT,DK,DV]; the gates of an edge are JA * JB * JT numbers, with the
steps GA, GB and GT between them. The gradient of a gate is a sum over blocks of channels: each writes a part.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["N", "E"])
def sums(
    rows, gate, states, node_ptr, of_node, results, N, E, DK, DV,
    JA: tl.constexpr, JB: tl.constexpr, JT: tl.constexpr, GA: tl.constexpr, GB: tl.constexpr, GT: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One node, one entry b, and one block of the channels of value."""
    h, place = tl.program_id(0).to(tl.int64) // (N * JB), tl.program_id(0).to(tl.int64) % (N * JB)
    n, b = place // JB, place % JB
    rows += (h * N + n) * JA * DK
    gate += h * E * JA * JB * JT + b * GB
    states += h * E * JT * DK * DV
    iv = tl.program_id(1) * BV + tl.arange(0, BV)
    total = tl.zeros([BK, BV], ACC)
    for edge in range(tl.load(node_ptr + n), tl.load(node_ptr + n + 1)):
        e = tl.load(of_node + edge).to(tl.int64)
        for t in range(JT):
            for d in range(0, DK, BK):
                ik = d + tl.arange(0, BK)
                weight = tl.zeros([BK], ACC)
                for a in range(JA):
                    row = tl.load(rows + a * DK + ik, mask=ik < DK, other=0.0)
                    weight += tl.load(gate + e * JA * JB * JT + a * GA + t * GT) * row
                inside = (ik < DK)[:, None] & (iv < DV)[None, :]
                tile = ik[:, None] * DV + iv[None, :]
                state = tl.load(states + (e * JT + t) * DK * DV + tile, mask=inside, other=0.0)
                # a gate that is not finite makes no zero of channels that are not there
                total += tl.where(inside, weight[:, None] * state, 0.0)
    tl.store(results + ((h * N + n) * JB + b) * DV + iv, tl.sum(total, 0), mask=iv < DV)


@triton.jit(do_not_specialize=["H", "N", "E"])
def gradients(
    rows, columns, gate, states, node_ptr, of_node, d_rows, d_gate, H, N, E, DK, DV,
    JA: tl.constexpr, JB: tl.constexpr, JT: tl.constexpr, GA: tl.constexpr, GB: tl.constexpr, GT: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One node, one entry a, and one block of the channels of key; d_gate is [blocks,H,E,...] like the gate."""
    h, place = tl.program_id(0).to(tl.int64) // (N * JA), tl.program_id(0).to(tl.int64) % (N * JA)
    n, a = place // JA, place % JA
    columns += (h * N + n) * JB * DV
    gate += h * E * JA * JB * JT + a * GA
    d_gate += (tl.program_id(1) * H + h) * E * JA * JB * JT + a * GA
    states += h * E * JT * DK * DV
    ik = tl.program_id(1) * BK + tl.arange(0, BK)
    own = ((h * N + n) * JA + a) * DK + ik
    row = tl.load(rows + own, mask=ik < DK, other=0.0)
    total = tl.zeros([BK], ACC)
    for edge in range(tl.load(node_ptr + n), tl.load(node_ptr + n + 1)):
        e = tl.load(of_node + edge).to(tl.int64)
        for t in range(JT):
            for b in range(JB):
                products = tl.zeros([BK, BV], ACC)
                for d in range(0, DV, BV):
                    iv = d + tl.arange(0, BV)
                    column = tl.load(columns + b * DV + iv, mask=iv < DV, other=0.0)
                    inside = (ik < DK)[:, None] & (iv < DV)[None, :]
                    tile = ik[:, None] * DV + iv[None, :]
                    state = tl.load(states + (e * JT + t) * DK * DV + tile, mask=inside, other=0.0)
                    products += state * column[None, :]
                # zero times what is not finite is left out where there is no channel
                seen = tl.where(ik < DK, tl.sum(products, 1), 0.0)
                at = e * JA * JB * JT + b * GB + t * GT
                tl.store(d_gate + at, tl.sum(row * seen, 0))
                total += tl.load(gate + at) * seen
    tl.store(d_rows + own, total, mask=ik < DK)
