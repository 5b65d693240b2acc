"""Ours beside what a reader knows, in turns within one process: ratios, memory, and the share of the machine's speed.

    nox -s bench                                 # under ten minutes on two cores; compares with what is kept
    python benchmarks/ratios.py --json FILE      # the same by hand
    python benchmarks/ratios.py --report FILE    # its table and picture in docs/benchmarks.md

The two of a pair are called in turns, so what else runs on the machine slows both; the ratio is that of their medians.
The share is that of the rate that products of large matrices reach here, and counts products alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from measuring import Row, extra_memory, machine, write_table
from plstm_1d import STATE_TRACKING
from plstm_1d import draw as draw_sequence
from plstm_2d import draw as draw_grid
from plstm_graph import draw_topology
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

import plstm_config
from plstm_torch import build
from plstm_torch.ops import plstm_1d, plstm_2d_oriented

PAGE = Path(__file__).parents[1] / "docs/benchmarks.md"
PASSES = ("forward", "forward_backward")
MODES = ("D", "P")
GRIDS = {14: 24, 28: 6, 64: 3, 128: 3}  # side of the grid: batch times heads
LAYERS = {14: 8, 28: 2, 64: 1}  # side of the grid: batch
LENGTHS = (1024, 8192)
WIDTH, HEADS, DIM = 192, 3, 64
WORSE = 1.25  # a ratio that has grown by more than this is named


@dataclass(frozen=True)
class Side:
    """One of a pair: the call, and what it is differentiated by."""

    name: str  # of a peer
    call: Callable[[], Tensor]
    leaves: list[Tensor]

    def passes(self) -> dict[str, Callable[[], object]]:
        """The two things that are timed."""
        weight = torch.randn_like(self.call())

        def inference() -> None:
            with torch.no_grad():
                self.call()

        return {"forward": inference, "forward_backward": lambda: torch.autograd.grad(self.call(), self.leaves, weight)}


@dataclass(frozen=True)
class Pair:
    """An op or a layer at one size, its peer, and how many times slower it may be, forward and with backward."""

    op: str
    size: str
    tokens: int
    ours: Side
    peer: Side
    limits: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """What tells it apart."""
        return f"{self.op} {self.size}"


def attention(batch: int, length: int, dim: int, causal: bool = False) -> Side:
    leaves = [torch.randn(batch, 1, length, dim, requires_grad=True) for _ in range(3)]
    return Side("SDPA", lambda: scaled_dot_product_attention(*leaves, is_causal=causal), leaves)


def grids() -> Iterator[Pair]:
    """The 2D op with four orientations against attention among all nodes."""
    limits = {14: (4.0, 5.0), 28: (2.5, 3.5), 64: (1.2, 1.5), 128: (0.5, 0.5)}
    for side, batch in GRIDS.items():
        for mode in MODES:
            arguments = draw_grid(side, batch, DIM, mode)
            leaves = [argument for argument in arguments.values() if isinstance(argument, Tensor)]
            ours = Side("", lambda a=arguments: plstm_2d_oriented(**a), leaves)
            peer = attention(batch, side * side, DIM)
            yield Pair(f"plstm_2d_oriented {mode}", f"{side}x{side} n={batch}", side * side, ours, peer, limits[side])


class Attention(nn.Module):
    """Projections to queries, keys and values, attention, and a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """From [B, N, D] to [B, N, D]."""
        query, key, value = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.out(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def layers() -> Iterator[Pair]:
    """The layer of pLSTM-Vis against an attention layer of its width and heads."""
    limits = {
        ("D", 14): (2.5, 2.5),
        ("P", 14): (3.0, 3.0),
        ("D", 28): (2.0, 2.0),
        ("P", 28): (2.5, 2.5),
        ("D", 64): (1.0, 1.0),
        ("P", 64): (1.0, 1.0),
    }
    for side, batch in LAYERS.items():
        for mode in MODES:
            layer = build(plstm_config.pLSTM2DLayerFusedConfig(input_dim=WIDTH, num_heads=HEADS, mode=mode))
            other = Attention()
            x = torch.randn(batch, side, side, WIDTH, requires_grad=True)
            flat = torch.randn(batch, side * side, WIDTH, requires_grad=True)
            ours = Side("", lambda f=layer, x=x: f(x), [x, *layer.parameters()])
            peer = Side("attention layer", lambda f=other, x=flat: f(x), [flat, *other.parameters()])
            size = f"{side}x{side} B={batch}"
            yield Pair(f"pLSTM2DLayerFused {mode}", size, side * side, ours, peer, limits[mode, side])


def sequences() -> Iterator[Pair]:
    """The 1D op against causal attention."""
    for name, sizes in (("JT=1", {}), ("JT=JV=JO=4", STATE_TRACKING)):
        for length in LENGTHS:
            tensors = draw_sequence(length, 8, 32, sizes)
            ours = Side("", lambda x=tensors: plstm_1d(*x), tensors)
            yield Pair(f"plstm_1d {name}", f"T={length} n=8", length, ours, attention(8, length, 32, causal=True))


def graphs() -> Iterator[Pair]:
    """The graph layer against attention over neighbours, where PyTorch Geometric is installed."""
    if not find_spec("torch_geometric"):
        return
    import numpy as np
    from torch_geometric.nn import GATv2Conv

    for number, nodes, edges in ((64, 20, 22), (1, 10_000, 11_000)):
        topology = draw_topology(np.random.default_rng(0), number, nodes, edges)
        layer = build(plstm_config.pLSTMGraphEdgeLayerConfig(input_dim=96, num_heads=4, edge_input_dim=4))
        other = GATv2Conv(96, 24, heads=4, edge_dim=4)
        x = torch.randn(topology.num_nodes, 96, requires_grad=True)
        features = torch.randn(topology.num_input_edges, 4)
        index = torch.as_tensor(topology.edges.T.copy())
        ours = Side("", lambda f=layer, x=x, t=topology, e=features: f(x, t, e), [x, *layer.parameters()])
        peer = Side("GATv2Conv", lambda f=other, x=x, i=index, e=features: f(x, i, e), [x, *other.parameters()])
        yield Pair("pLSTMGraphEdgeLayer", f"{number} of {nodes:,}/{edges:,}", topology.num_nodes, ours, peer)


def in_turns(ours: Callable[[], object], peer: Callable[[], object], seconds: float) -> tuple[list[float], list[float]]:
    """Milliseconds of calls that take turns, after two of each to warm up; at least five."""
    times: tuple[list[float], list[float]] = ([], [])
    for call in (ours, peer, ours, peer):
        call()
    began = time.monotonic()
    while time.monotonic() - began < seconds or len(times[0]) < 5:
        for call, of in zip((ours, peer), times, strict=True):
            start = time.perf_counter()
            call()
            of.append(1000 * (time.perf_counter() - start))
    return times


def products(side: Side, backward: bool) -> int:
    """Floating-point operations of the products in a call, with those of its gradients if asked."""
    with FlopCounterMode(display=False) as counter:
        output = side.call()
        if backward:
            output.sum().backward()
    for leaf in side.leaves:
        leaf.grad = None
    return int(counter.get_total_flops())


def matmul_rate(side: int = 2048) -> float:
    """The rate of large products on this machine: operations a millisecond, the best of several."""
    a, b = torch.randn(2, side, side)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        best = min(best, 1000 * (time.perf_counter() - start))
    return 2 * side**3 / best


def measured(pair: Pair, seconds: float, rate: float) -> Iterator[Row]:
    """A row for each pass."""
    passes = zip(PASSES, pair.ours.passes().values(), pair.peer.passes().values(), strict=True)
    for index, (name, ours, peer) in enumerate(passes):
        own, other = (statistics.median(times) for times in in_turns(ours, peer, seconds))
        yield {
            "op": pair.op,
            "size": pair.size,
            "tokens": pair.tokens,
            "pass": name,
            "ours_ms": own,
            "peer": pair.peer.name,
            "peer_ms": other,
            "ratio": own / other,
            "limit": pair.limits[index] if pair.limits else None,
            "ours_extra_megabytes": extra_memory(ours),
            "peer_extra_megabytes": extra_memory(peer),
            "share_of_matmul_rate": products(pair.ours, backward=name == PASSES[1]) / own / rate,
        }


def line(row: Row) -> str:
    """A row for the terminal."""
    over = " over its limit" if row["limit"] and row["ratio"] > row["limit"] else ""
    cells = [
        f"{row['op']:20} {row['size']:14} {row['pass']:16}",
        f"{row['ours_ms']:9.2f} ms, {row['peer']} {row['peer_ms']:9.2f} ms: {row['ratio']:6.2f}{over}",
    ]
    if row["ours_extra_megabytes"] is not None:
        cells.append(f"{row['ours_extra_megabytes']:.0f} and {row['peer_extra_megabytes']:.0f} MB")
    return "; ".join([*cells, f"{100 * row['share_of_matmul_rate']:.0f} % of the rate of products"])


def worse(rows: list[Row], kept: list[Row]) -> list[str]:
    """What has become slower beside its peer than it was when the kept rows were measured."""
    then = {(row["op"], row["size"], row["pass"]): row["ratio"] for row in kept}
    found = []
    for row in rows:
        before = then.get((row["op"], row["size"], row["pass"]))
        if before is not None and row["ratio"] > WORSE * before:
            found.append(f"{row['op']} {row['size']} {row['pass']}: ratio {row['ratio']:.2f}, was {before:.2f}")
    return found


def draw(rows: list[Row], place: Path) -> None:
    """Milliseconds against tokens of a grid, forward and backward, by head: ours and attention."""
    from plstm_torch.training.plots import new_figure

    figure = new_figure(6.5, 4)
    axes = figure.subplots()
    both = [row for row in rows if row["pass"] == "forward_backward" and row["op"].startswith("plstm_2d_oriented")]
    for mode, color in zip(MODES, ("#3a8f4d", "#6a4c93"), strict=True):
        of_mode = [row for row in both if row["op"].endswith(mode)]
        heads = [int(row["size"].split("n=")[1]) for row in of_mode]
        tokens = [row["tokens"] for row in of_mode]
        ours = [row["ours_ms"] / count for row, count in zip(of_mode, heads, strict=True)]
        axes.loglog(tokens, ours, marker="o", color=color, label=f"plstm_2d_oriented, {mode}")
        if mode == MODES[0]:
            theirs = [row["peer_ms"] / count for row, count in zip(of_mode, heads, strict=True)]
            axes.loglog(tokens, theirs, marker="o", color="#c4622d", label="scaled_dot_product_attention")
    axes.set_xlabel("patches")
    axes.set_title("milliseconds of a head, forward and backward", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(place)


def table(rows: list[Row]) -> str:
    """A line for each op and size: both passes."""
    lines = [
        "| | size | ours, forward / with backward | peer | peer's | ratio | extra memory, ours / peer's "
        "| share of the rate of products |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for forward, both in zip(rows[::2], rows[1::2], strict=True):
        ours, peer = (f"{forward[name]:.1f} / {both[name]:.1f} ms" for name in ("ours_ms", "peer_ms"))
        ratio = f"{forward['ratio']:.2f} / {both['ratio']:.2f}"
        memory = f"{both['ours_extra_megabytes']:.0f} / {both['peer_extra_megabytes']:.0f} MB"
        shares = " / ".join(f"{100 * row['share_of_matmul_rate']:.0f} %" for row in (forward, both))
        cells = (f"`{both['op']}`", both["size"], ours, both["peer"], peer, ratio, memory, shares)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def report(found: Row) -> None:
    """Write the table and the picture of the page."""
    write_table(PAGE, table(found["rows"]))
    draw(found["rows"], PAGE.with_suffix(".png"))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--report", type=Path, help="earlier results: write their table and picture, measure nothing")
    parser.add_argument(
        "--compare", type=Path, help="file of earlier results: fail where a ratio has grown by a quarter"
    )
    parser.add_argument("--only", default="", help="part of the names of what is measured")
    parser.add_argument("--seconds", type=float, default=3.0, help="least time for each pass of a pair")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.report:
        report(json.loads(options.report.read_text(encoding="utf-8")))
        return
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rate = matmul_rate()
    about = {**machine(), "date": time.strftime("%Y-%m-%d"), "matmul_gigaflop_per_s": rate / 1e6}
    print("  ".join(f"{name}: {value}" for name, value in about.items()))
    rows = []
    for pairs in (grids, layers, sequences, graphs):
        for pair in pairs():
            if options.only in pair.name:
                for row in measured(pair, options.seconds, rate):
                    print(line(row), flush=True)
                    rows.append(row)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    if options.compare:
        found = worse(rows, json.loads(options.compare.read_text(encoding="utf-8"))["rows"])
        if found:
            raise SystemExit("slower than when it was measured last:\n" + "\n".join(found))


if __name__ == "__main__":
    main()
