"""Time the Triton kernels on a GPU beside what others offer: one call, JSON out.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --only plstm_2d --warm 8   # one op; programs are compiled in eight processes before

1D against scaled_dot_product_attention and, where flash-linear-attention is installed, its chunk_simple_gla; 1D with
state-tracking matrices against its form in torch; 2D, four orientations, against scaled_dot_product_attention; graphs,
in float32, against the forms in torch; training steps of pLSTM-Vis-tiny against a ViT-tiny. Medians of CUDA events, all
but graphs in bfloat16. Beside each time of an op stands the share of the floor that reads and writes every tensor once,
at the copy rate that this device reaches, and for kernels the time that was predicted before any GPU had run them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import plstm_config
from plstm_config.topology import DagTopology
from plstm_torch import build
from plstm_torch.ops import plstm_1d, plstm_2d_oriented, plstm_graph

OURS = ("triton", "plstm")
LENGTHS = (2_048, 8_192, 32_768, 65_536)
HEAD_DIMENSIONS = (64, 128)
TOKENS = 1 << 19  # batch times heads times length of the 1D measurements
GRIDS = {14: 384, 28: 96, 64: 12, 128: 12}  # side: batch times heads
GRAPHS = ("small", "large", "chain")
IMAGES = 128  # in a training step
# Milliseconds forward, and forward with backward where it was predicted: from bytes moved at 3 TB/s and the work of the
# tensor cores; at a side of 14 from the dependent steps of a walk, at larger ones from products and mask.
PREDICTED: dict[tuple[str, int], tuple[float, float | None]] = {
    ("plstm_1d", 64): (0.23, 0.80),
    ("plstm_1d", 128): (0.63, 2.21),
    ("plstm_2d L", 28): (0.092, None),
    ("plstm_2d L", 64): (0.241, None),
    ("plstm_2d P", 14): (0.1, None),
    ("plstm_2d P", 28): (0.088, None),
    ("plstm_2d P", 128): (2.15, None),
}
Row = dict[str, Any]
Made = tuple[list[torch.Tensor], Callable[[], torch.Tensor]]


@dataclass(frozen=True)
class Case:
    """One line of the report.

    Attributes:
        op: what is timed.
        form: ours, or the name of a peer.
        size: sizes by name.
        make: leaves of a call and the call, on the GPU; of a training step no leaves.
        predicted: see `PREDICTED`.
    """

    op: str
    form: str
    size: dict[str, Any]
    make: Callable[[], Made]
    predicted: tuple[float, float | None] | None = None


def milliseconds(function: Callable[[], object], repeats: int = 20, budget: float = 1.0) -> float:
    """Median over calls by the clock of the device, after one to warm up; fewer calls where they take seconds."""
    function()
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < repeats and (len(times) < 3 or time.perf_counter() - begun < budget):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def copy_rate() -> float:
    """Bytes a millisecond that a copy reads and writes."""
    numbers = torch.empty(1 << 28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(numbers)
    return 2 * numbers.nbytes / milliseconds(lambda: target.copy_(numbers))


def draw(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(*shape, device="cuda", dtype=dtype)


def both_passes(leaves: list[torch.Tensor], call: Callable[[], torch.Tensor]) -> tuple[Callable[[], Any], torch.Tensor]:
    """A function that runs forward and backward, and the weight of its outputs; leaves get gradients from now on."""
    for leaf in leaves:
        leaf.requires_grad_()
    weight = torch.randn_like(call())
    return lambda: torch.autograd.grad(call(), leaves, weight), weight


def replayed(function: Callable[[], object]) -> float | None:
    """Milliseconds of a CUDA graph of a call, in which the host plays no part; None if it cannot be captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.stream(stream):
            function()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            function()
        return milliseconds(graph.replay)
    except Exception as error:  # of any library: whoever asks the GPU for a number while it is captured
        torch.cuda.synchronize()
        print(f"not captured: {error!r}"[:200], flush=True)
        return None


def measured(case: Case, rate: float) -> Row:
    """Forward, and forward with backward, and the shares of the floor: every tensor once, twice as often backward."""
    leaves, call = case.make()
    row: Row = {"op": case.op, "form": case.form, **case.size}
    # the forms in torch read indices on the host, or launch too much to be captured
    captured = case.form.startswith((*OURS, "sdpa", "fla")) and case.op != "plstm_graph"
    if not leaves:
        found = {"both_ms": milliseconds(call, 10)}
        if "reduce-overhead" not in case.form:  # which is a CUDA graph already
            found["replayed_both_ms"] = replayed(call)
        return row | found | {"images_per_second": 1000 * IMAGES / min(filter(None, found.values()))}
    with torch.no_grad():
        row["forward_ms"] = milliseconds(call)
        row["replayed_forward_ms"] = replayed(call) if captured else None
    both, weight = both_passes(leaves, call)
    captured &= "JT" not in case.op  # its backward pass could not be, and a failed capture spoils what comes after
    row |= {"both_ms": milliseconds(both), "replayed_both_ms": replayed(both) if captured else None}
    floor = (sum(leaf.nbytes for leaf in leaves) + weight.nbytes) / rate
    row["share_of_floor"] = floor / (row["replayed_forward_ms"] or row["forward_ms"])
    row["share_of_floor_both"] = 3 * floor / (row["replayed_both_ms"] or row["both_ms"])
    return row | ({"predicted_ms": case.predicted} if case.predicted else {})


def attention(batch: int, length: int, dim: int, causal: bool) -> Made:
    tensors = [draw(batch, 1, length, dim) for _ in range(3)]
    return tensors, lambda: scaled_dot_product_attention(*tensors, is_causal=causal)


def gated_linear_attention(batch: int, length: int, dim: int) -> Made:
    from fla.ops.simple_gla import chunk_simple_gla

    leaves = [draw(1, length, batch, dim) for _ in range(3)] + [-torch.rand(1, length, batch, device="cuda")]
    return leaves, lambda: chunk_simple_gla(*leaves)[0]


def draw_sequence(batch: int, length: int, dim: int) -> Made:
    """Arguments of a call with gates that remember some hundred steps, and the call."""
    vectors = [draw(batch, length, dim, 1) for _ in range(3)]
    source, mark, direct = (draw(batch, length, *(1,) * count) for count in (3, 3, 4))
    leaves = [*vectors, source, torch.sigmoid(draw(batch, length, 1, 1) + 4), mark, direct]
    return leaves, lambda: plstm_1d(*leaves, implementation="triton")


def sequences() -> list[Case]:
    """The 1D op and its peers."""
    cases = []
    for dim, length in itertools.product(HEAD_DIMENSIONS, LENGTHS):
        sizes = {"batch": TOKENS // length, "length": length, "dim": dim}
        forms: dict[str, Callable[..., Made]] = {"triton": draw_sequence, "sdpa": attention_of_all_before}
        if find_spec("fla"):
            forms["fla chunk_simple_gla"] = gated_linear_attention
        for form, make in forms.items():
            predicted = PREDICTED["plstm_1d", dim] if form == "triton" else None
            cases.append(Case("plstm_1d", form, sizes, lambda make=make, sizes=sizes: make(**sizes), predicted))
    return cases


def attention_of_all_before(batch: int, length: int, dim: int) -> Made:
    return attention(batch, length, dim, causal=True)


def matrices() -> list[Case]:
    """The 1D op with state-tracking matrices, and its torch form."""
    cases = []
    for length in LENGTHS:
        sizes = {"batch": TOKENS // length, "length": length, "dim": 64}
        for form in ("triton", "chunkwise"):

            def make(sizes: dict[str, int] = sizes, form: str = form) -> Made:
                leaves = draw_matrices(**sizes, size=4)
                return leaves, lambda: plstm_1d(*leaves, implementation=form)

            cases.append(Case("plstm_1d JT=4", form, sizes, make))
    return cases


def draw_matrices(batch: int, length: int, dim: int, size: int) -> list[torch.Tensor]:
    """Arguments with JT = JV = JO = size; transitions are rotations, a little shortened since bfloat16 rounds them."""
    vectors = [draw(batch, length, dim, 1), draw(batch, length, dim, 1), draw(batch, length, dim, size)]
    source, mark, direct = (
        draw(batch, length, *shape) for shape in ((size, 1, size), (size, 1, size), (size, 1, 1, size))
    )
    skew = draw(batch, length, size, size).float()
    transition = 0.95 * torch.linalg.matrix_exp(skew - skew.mT)
    return [*vectors, source, transition.to(source.dtype), mark, direct]


def grids() -> list[Case]:
    """The 2D op with four orientations, and attention over all nodes."""
    cases = []
    for side, batch in GRIDS.items():
        sizes = {"batch": batch, "side": side, "dim": 64}
        for mode in ("L", "P"):
            predicted = PREDICTED.get((f"plstm_2d {mode}", side))
            make = lambda side=side, batch=batch, mode=mode: draw_grid(side, batch, mode)  # noqa: E731
            cases.append(Case("plstm_2d_oriented", f"triton {mode}", sizes, make, predicted))
        peer = lambda side=side, batch=batch: attention(batch, side * side, 64, causal=False)  # noqa: E731
        cases.append(Case("plstm_2d_oriented", "sdpa", sizes, peer))
    return cases


def draw_grid(side: int, batch: int, mode: str) -> Made:
    """Arguments of a call, and the call."""
    gates = {"source_r": 3, "source_d": 3, "transition_rl": 2, "transition_du": 2, "mark_l": 3}
    gates |= {} if mode == "P" else {"transition_ru": 2, "mark_u": 3}
    tensors = {name: draw(batch, 4, side, side, *(1,) * count) for name, count in gates.items()}
    for name in tensors:
        if name.startswith("transition"):
            tensors[name] = torch.sigmoid(tensors[name]) / (2 if mode == "P" else 1)
    tensors |= {name: draw(batch, side, side, 64, 1) for name in ("query", "key", "value")}
    tensors["direct"] = draw(batch, side, side, 1, 1, 1, 1)
    keywords = {"implementation": "triton"} | ({"mode": "P"} if mode == "P" else {})
    return list(tensors.values()), lambda: plstm_2d_oriented(**tensors, **keywords)


def graphs() -> list[Case]:
    """The graph op, and its torch forms."""
    cases = []
    for kind in GRAPHS:
        for form in ("triton", "recurrent", "parallel"):
            if form == "parallel" and kind != "small":
                continue  # memory goes with the square of the edges
            make = lambda kind=kind, form=form: draw_graph(kind, 64, form)  # noqa: E731
            cases.append(Case("plstm_graph", form, {"graph": kind, "dim": 64}, make))
    return cases


def draw_graph(kind: str, dim: int, name: str = "triton") -> Made:
    """Arguments of a call with four heads, and the call; the graphs are those of `plstm_graph.py`, on the CPU."""
    topology = {
        "small": lambda: DagTopology.batch([random_graph(20, 22, seed) for seed in range(64)]),
        "large": lambda: random_graph(50_000, 55_000, 0),
        "chain": lambda: DagTopology.from_edges(10_000, list(itertools.pairwise(range(10_000)))),
    }[kind]()
    nodes, edges, lines = topology.num_nodes, len(topology.edges), len(topology.line_edges)
    shapes = [(nodes, dim), (nodes, dim), (nodes, dim), (edges,), (lines,), (edges,), (nodes,)]
    leaves = [draw(4, *shape, dtype=torch.float32) for shape in shapes]
    leaves[4] = torch.sigmoid(leaves[4])
    return leaves, lambda: plstm_graph(*leaves, topology, implementation=name)


def random_graph(nodes: int, edges: int, seed: int) -> DagTopology:
    """Edges from lower to higher numbers of nodes, none of them twice."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(nodes, (2 * edges, 2), generator=generator).sort(1).values
    pairs = dict.fromkeys((a, b) for a, b in drawn.tolist() if a < b)
    return DagTopology.from_edges(nodes, list(pairs)[:edges])


def vision() -> list[Case]:
    """A training step on images of 224 x 224 pixels, under autocast to bfloat16: as it is, and with compiled blocks."""
    sizes = {"batch": IMAGES, "side": 224}
    cases = []
    for name, mode in itertools.product(("plstm_vis_tiny", "vit_tiny"), (None, "default", "reduce-overhead")):
        make = lambda name=name, mode=mode: ([], training_step(name, mode))  # noqa: E731
        cases.append(Case("training", name if mode is None else f"{name} compiled, {mode}", sizes, make))
    return cases


def training_step(name: str, mode: str | None = None) -> Callable[[], torch.Tensor]:
    """Loss, gradients and AdamW of a preset, on images that stay the same; a mode of torch.compile for its blocks."""
    model = build(plstm_config.preset(name)).cuda().train()
    if mode is not None:
        for block in model.block_stack.blocks:
            block.compile(mode=mode, fullgraph=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True, capturable=True)
    images, labels = torch.randn(IMAGES, 224, 224, 3, device="cuda"), torch.randint(1000, (IMAGES,), device="cuda")

    def step() -> torch.Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def all_cases(only: Sequence[str] = ()) -> list[Case]:
    """The cases of the named ops, or all."""
    cases = sequences() + grids() + vision() + matrices() + graphs()
    cases.sort(key=lambda case: case.form.startswith("fla"))  # last, since it tunes itself for minutes
    return [case for case in cases if not only or any(case.op.startswith(name) for name in only)]


def run_once(number: int, only: Sequence[str]) -> str:
    """Compile what a case needs; a sentence if it fails."""
    case = all_cases(only)[number]
    try:
        leaves, call = case.make()
        (both_passes(leaves, call)[0] if leaves else call)()
        torch.cuda.synchronize()
    except Exception as error:  # of any library; that of the case itself tells more
        return f"{case.op} {case.form} {case.size}: {error!r}"
    return ""


def warm(processes: int, cases: Sequence[Case], only: Sequence[str]) -> None:
    """Compile kernels in several processes; what has none may take long, and waits for its turn."""
    numbers = [number for number, case in enumerate(cases) if case.form.startswith((*OURS, "fla"))]
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        for message in pool.starmap(run_once, [(number, only) for number in numbers], chunksize=1):
            if message:
                print(message, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--only", nargs="+", default=(), metavar="OP", help="ops whose names begin so")
    parser.add_argument("--warm", type=int, default=0, metavar="N", help="compile in N processes before")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch finds no CUDA device")
    cases = all_cases(options.only)
    if options.warm:
        warm(options.warm, cases, options.only)
    torch.manual_seed(0)
    rate = copy_rate()
    about = {"card": torch.cuda.get_device_name(), "torch": torch.__version__, "date": str(date.today())}
    about["copy_TB_per_s"] = rate / 1e9
    print(about)
    rows, failed = [], []
    for case in cases:
        try:
            rows.append(row := measured(case, rate))
        except Exception as error:  # the others are worth their time
            failed.append(f"{case.op} {case.form} {case.size}: {error!r}")
            continue
        numbers = {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}
        print("  ".join(f"{name}={value}" for name, value in numbers.items()), flush=True)
        if options.json:  # after each, so that whoever stops it has what was measured
            options.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    if failed:
        raise SystemExit("\n".join(["not measured:", *failed]))


if __name__ == "__main__":
    main()
