"""States of the edges and their adjoints, either a level of all graphs at once or graph by graph.

    C[e, t]  = initial + S[e, t] (K ⊗ V) of the tail + sum over incoming lines of T[t, u] C[incoming, u]
    A[e, u]  = dC + M[e, u] (Q ⊗ dH) of the head + sum over outgoing lines of T[t, u] A[outgoing, t]
    dT[t, u] = <A[outgoing, t], C[incoming, u]>

Entries (dk, dv) of a state never meet another, so a program holds a tile of them and needs no other. A level is one
launch, a program for each of its edges and J entries. A walk is one launch for everything: a program takes a whole
graph, edge by edge, and reads again what it has written. Everybody sums over lines of its own: there is no atomic.

States, adjoints and transitions are [H,E,JT,DK,DV] and [H,L,JT,JT]; vectors [H,N,J,D]; edges and line edges stand in
the order of the schedule. The gradient of a transition is a sum over tiles: each writes a part of its own.
"""

import triton
import triton.language as tl


@triton.jit
def _tile(DK, DV, BK: tl.constexpr, BV: tl.constexpr):
    """Channels of key and value of this program's tile, its places in a state, and which of them exist."""
    blocks = tl.cdiv(DV, BV)
    ik = (tl.program_id(1) // blocks) * BK + tl.arange(0, BK)
    iv = (tl.program_id(1) % blocks) * BV + tl.arange(0, BV)
    return ik, iv, ik[:, None] * DV + iv[None, :], (ik < DK)[:, None] & (iv < DV)[None, :]


@triton.jit
def _enter(
    key, value, source, transition, initial, tail, lines_into, incoming, states, e, t, DK, DV,
    JT: tl.constexpr, JK: tl.constexpr, JV: tl.constexpr, INITIAL: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Stores the tile of C[e, t]; pointers lead to what belongs to this head."""
    ik, iv, tile, inside = _tile(DK, DV, BK, BV)
    node, own = tl.load(tail + e).to(tl.int64), e * JT + t
    state = tl.zeros([BK, BV], ACC)
    if INITIAL:
        state += tl.load(initial + own * DK * DV + tile, mask=inside, other=0.0)
    for a in range(JK):
        keys = tl.load(key + (node * JK + a) * DK + ik, mask=ik < DK, other=0.0)
        for b in range(JV):
            values = tl.load(value + (node * JV + b) * DV + iv, mask=iv < DV, other=0.0)
            state += (tl.load(source + (own * JK + a) * JV + b) * keys)[:, None] * values[None, :]
    for line in range(tl.load(lines_into + e), tl.load(lines_into + e + 1)):
        edge = tl.load(incoming + line).to(tl.int64)
        for u in range(JT):
            came = tl.load(states + (edge * JT + u) * DK * DV + tile, mask=inside, other=0.0)
            state += tl.load(transition + (line * JT + t) * JT + u) * came
    tl.store(states + own * DK * DV + tile, state, mask=inside)


@triton.jit
def _return(
    query, grad, mark, transition, d_states, states, head, lines_out_of, by_incoming, outgoing, adjoint, d_transition,
    e, u, DK, DV, JT: tl.constexpr, JQ: tl.constexpr, JO: tl.constexpr, GIVEN: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Stores the tile of A[e, u], and what it gives to the transitions of lines from there; pointers as in `_enter`."""
    ik, iv, tile, inside = _tile(DK, DV, BK, BV)
    node, own = tl.load(head + e).to(tl.int64), e * JT + u
    total = tl.zeros([BK, BV], ACC)
    if GIVEN:
        total += tl.load(d_states + own * DK * DV + tile, mask=inside, other=0.0)
    for a in range(JQ):
        queries = tl.load(query + (node * JQ + a) * DK + ik, mask=ik < DK, other=0.0)
        for b in range(JO):
            grads = tl.load(grad + (node * JO + b) * DV + iv, mask=iv < DV, other=0.0)
            weight = tl.load(mark + ((e * JO + b) * JQ + a) * JT + u)
            total += (weight * queries)[:, None] * grads[None, :]
    state = tl.load(states + own * DK * DV + tile, mask=inside, other=0.0)
    for place in range(tl.load(lines_out_of + e), tl.load(lines_out_of + e + 1)):
        line = tl.load(by_incoming + place).to(tl.int64)
        edge = tl.load(outgoing + line).to(tl.int64)
        for t in range(JT):
            later = tl.load(adjoint + (edge * JT + t) * DK * DV + tile, mask=inside, other=0.0)
            at = (line * JT + t) * JT + u
            tl.store(d_transition + at, tl.sum(tl.sum(later * state, 1), 0))
            total += tl.load(transition + at) * later
    tl.store(adjoint + own * DK * DV + tile, total, mask=inside)


@triton.jit(do_not_specialize=["start", "count", "H", "N", "E", "L"])
def level_forward(
    key, value, source, transition, initial, tail, lines_into, incoming, states, start, count, H, N, E, L, DK, DV,
    JT: tl.constexpr, JK: tl.constexpr, JV: tl.constexpr, INITIAL: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """States of the edges [start, start + count), which do not depend on each other."""
    h, place = tl.program_id(0).to(tl.int64) // (count * JT), tl.program_id(0).to(tl.int64) % (count * JT)
    _enter(
        key + h * N * JK * DK, value + h * N * JV * DV, source + h * E * JT * JK * JV, transition + h * L * JT * JT,
        initial + h * E * JT * DK * DV, tail, lines_into, incoming, states + h * E * JT * DK * DV,
        start + place // JT, place % JT, DK, DV, JT, JK, JV, INITIAL, BK, BV, ACC,
    )  # fmt: skip


@triton.jit(do_not_specialize=["start", "count", "H", "N", "E", "L"])
def level_backward(
    query, grad, mark, transition, d_states, states, head, lines_out_of, by_incoming, outgoing, adjoint, d_transition,
    start, count, H, N, E, L, DK, DV, JT: tl.constexpr, JQ: tl.constexpr, JO: tl.constexpr, GIVEN: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Adjoints of the edges [start, start + count); d_transition is [tiles,H,L,JT,JT]."""
    h, place = tl.program_id(0).to(tl.int64) // (count * JT), tl.program_id(0).to(tl.int64) % (count * JT)
    _return(
        query + h * N * JQ * DK, grad + h * N * JO * DV, mark + h * E * JO * JQ * JT, transition + h * L * JT * JT,
        d_states + h * E * JT * DK * DV, states + h * E * JT * DK * DV, head, lines_out_of, by_incoming, outgoing,
        adjoint + h * E * JT * DK * DV, d_transition + (tl.program_id(1) * H + h) * L * JT * JT,
        start + place // JT, place % JT, DK, DV, JT, JQ, JO, GIVEN, BK, BV, ACC,
    )  # fmt: skip


@triton.jit(do_not_specialize=["graphs", "H", "N", "E", "L"])
def walk_forward(
    key, value, source, transition, initial, tail, lines_into, incoming, states, graph_ptr, of_graph,
    graphs, H, N, E, L, DK, DV, JT: tl.constexpr, JK: tl.constexpr, JV: tl.constexpr, INITIAL: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """States of all edges: a program takes those of one graph in order."""
    h, g = tl.program_id(0).to(tl.int64) // graphs, tl.program_id(0).to(tl.int64) % graphs
    for place in range(tl.load(graph_ptr + g), tl.load(graph_ptr + g + 1)):
        e = tl.load(of_graph + place).to(tl.int64)
        for t in range(JT):
            _enter(
                key + h * N * JK * DK, value + h * N * JV * DV, source + h * E * JT * JK * JV,
                transition + h * L * JT * JT, initial + h * E * JT * DK * DV, tail, lines_into, incoming,
                states + h * E * JT * DK * DV, e, t, DK, DV, JT, JK, JV, INITIAL, BK, BV, ACC,
            )  # fmt: skip
        # what follows reads what threads of this program have written
        tl.debug_barrier()


@triton.jit(do_not_specialize=["graphs", "H", "N", "E", "L"])
def walk_backward(
    query, grad, mark, transition, d_states, states, head, lines_out_of, by_incoming, outgoing, adjoint, d_transition,
    graph_ptr, of_graph, graphs, H, N, E, L, DK, DV,
    JT: tl.constexpr, JQ: tl.constexpr, JO: tl.constexpr, GIVEN: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Adjoints of all edges, each graph in reverse order; d_transition is [tiles,H,L,JT,JT]."""
    h, g = tl.program_id(0).to(tl.int64) // graphs, tl.program_id(0).to(tl.int64) % graphs
    first, last = tl.load(graph_ptr + g), tl.load(graph_ptr + g + 1)
    for step in range(first, last):
        e = tl.load(of_graph + first + last - 1 - step).to(tl.int64)
        for u in range(JT):
            _return(
                query + h * N * JQ * DK, grad + h * N * JO * DV, mark + h * E * JO * JQ * JT,
                transition + h * L * JT * JT, d_states + h * E * JT * DK * DV, states + h * E * JT * DK * DV,
                head, lines_out_of, by_incoming, outgoing, adjoint + h * E * JT * DK * DV,
                d_transition + (tl.program_id(1) * H + h) * L * JT * JT,
                e, u, DK, DV, JT, JQ, JO, GIVEN, BK, BV, ACC,
            )  # fmt: skip
        tl.debug_barrier()
