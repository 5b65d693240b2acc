"""Every row of the table of tunings, compiled for GPUs that are not there. Run by `nox -s triton`, by its path.

A row must not spill more than it says, must use tensor cores where its kernel has products for them, and must know its
need of shared memory.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from plstm_torch.ops._plstm_1d.triton import chain, chunks, gradients, levels, responses, states
from plstm_torch.ops._plstm_1d.triton.matrix_call import power_of_two
from plstm_torch.ops._plstm_2d.triton import blocks, blocks_form, directed, separable, separable_mask
from plstm_torch.ops._plstm_2d.triton.call import line_row, tile_sizes
from plstm_torch.ops._plstm_graph.triton import nodes
from plstm_torch.ops._plstm_graph.triton import states as edges
from plstm_torch.ops._triton.precision import numbers
from plstm_torch.ops._triton.tuning import TABLE, Row

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
# the shared memory that a block can have, by the compute capability of the smallest device of a generation
SHARED_MEMORY = {80: 166_912, 86: 101_376, 90: 232_448}
VECTORS = ("query", "key", "value", "grad", "output", "d_query", "d_key", "d_value", "vector", "other")
OPERANDS = ("states", "rest", "d_states")  # of sequences: states in the dtype of operands
INTEGERS = (
    *("bounds", "owners", "tail", "head", "incoming", "outgoing", "by_incoming", "lines_into", "lines_out_of"),
    *("graph_ptr", "of_graph", "node_ptr", "of_node"),
)
NUMBERS = (
    *("tiles", "shares", "low", "part", "start", "count", "graphs"),
    *("period", "diagonal", "first", "width"),
)
NAMES = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}

FUNCTIONS = {
    "sequence_levels": (levels.write_levels, levels.gate_gradients),
    "sequence_states": (states.walk_states, states.segment_states),
    "sequence_output": (chunks.chunk_output,),
    "sequence_gradients_read": (gradients.gradients_read,),
    "sequence_gradients_write": (gradients.gradients_write,),
    "sequence_responses": (responses.respond, responses.respond_gradients),
    "sequence_chain": (chain.chain_forward, chain.chain_backward),
    "graph_states": (edges.level_forward, edges.level_backward, edges.walk_forward, edges.walk_backward),
    "graph_sums": (nodes.sums,),
    "graph_gradients": (nodes.gradients,),
    "grid_separable_tables": (separable_mask.reading_table, separable_mask.turning_table),
    "grid_separable_gates": (separable_mask.reading_gates, separable_mask.turning_gates),
    "grid_separable_output": (separable.separable_output,),
    "grid_separable_targets": (separable.separable_targets,),
    "grid_separable_sources": (separable.separable_sources,),
    "grid_directed_table": (directed.decay_table,),
    "grid_directed_output": (directed.directed_output,),
    "grid_directed_targets": (directed.directed_targets,),
    "grid_directed_sources": (directed.directed_sources,),
    "grid_blocks_step": (blocks.block_step,),
    "grid_blocks_rows": (blocks.block_rows,),
}
# one block of channels, which leaves no loop, and several
HEADS = ({"DK": 64, "DV": 64}, {"DK": 128, "DV": 136})
# what one kernel is compiled for: all channels or some of them; a forward pass, with several strips, one of them again,
# its adjoint
VARIANTS = {
    "sequence_states": (
        {"BACK": False, "REST": True, **HEADS[0]},
        {"BACK": True, "REST": False, **HEADS[1]},
    ),
    **dict.fromkeys(("sequence_output", "sequence_gradients_read", "sequence_gradients_write"), HEADS),
    **{
        f"grid_{mode}_{kernel}": ({"HELD": True}, {"HELD": False})
        for mode in ("separable", "directed")
        for kernel in ("output", "targets", "sources")
    },
    "grid_blocks_step": (
        {"BACK": False, "READ": True, "KEEP": False, "CROSSING": False},
        {"BACK": False, "READ": True, "KEEP": True, "CROSSING": True},
        {"BACK": False, "READ": False, "KEEP": True, "CROSSING": False},
        {"BACK": True, "READ": True, "KEEP": True, "CROSSING": False},
    ),
}
# scans of small matrices and of lines of a grid, and sums over edges, multiply in registers
WITHOUT_TENSOR_CORES = (
    *("sequence_levels", "sequence_responses", "sequence_chain"),
    *("graph_states", "graph_sums", "graph_gradients"),
    *("grid_separable_tables", "grid_directed_table"),
)
MATRICES = ("sequence_responses", "sequence_chain")
# over whole lines of a grid
LINES = ("grid_separable_tables", "grid_separable_gates", "grid_directed_table")
# sides of grids; float16 and float64 have rows of their own but no larger tiles than float32; JT of sequences
SIDES = {
    "sequence_responses": {"float32": (1, 2, 3, 8), "float64": (3, 8)},
    "sequence_chain": {"float32": (1, 2, 3, 8), "float64": (3, 8)},
    "graph": {"float32": (1, 3), "float64": (1, 3)},
    "grid_separable_tables": {"bfloat16": (16, 32, 64), "float32": (16, 64), "float16": (16,), "float64": (16, 64)},
    "grid_separable_gates": {"bfloat16": (16, 32, 64), "float32": (16, 64), "float16": (16,), "float64": (16, 64)},
    "grid_separable": {"bfloat16": (16, 32, 64), "float32": (16, 64), "float16": (16,), "float64": (16,)},
    "grid_directed": {"bfloat16": (16, 32), "float32": (32,), "float16": (16,), "float64": (16,)},
}


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes.

    Attributes:
        registers: of a thread.
        spill: bytes of a thread's registers that went to memory.
        shared: bytes of shared memory of a block.
        tensor_cores: instructions of tensor cores in the code.
        barriers: places where the threads of a block wait for each other.
    """

    registers: int
    spill: int
    shared: int
    tensor_cores: int
    barriers: int


def compile_kernel(function: Any, dtype: torch.dtype, row: Row, sizes: Mapping[str, Any], capability: int) -> Resources:
    """Compile a kernel as a launch with aligned tensors would.

    Args:
        function: the kernel.
        dtype: of query, key and value.
        row: row of the table.
        sizes: compile-time sizes of the tiles.
        capability: 80 or 90.
    """
    known = {**numbers(dtype), **sizes}
    constants = {name: known[name] for name in function.arg_names if name in known}
    constants |= {name: 1 for name in function.arg_names if name.endswith("_channel")}
    of_sequence = "_plstm_1d" in function.__module__
    signature = {name: _type(name, dtype, of_sequence) for name in function.arg_names if name not in constants}
    signature |= dict.fromkeys(constants, "constexpr")
    free = {argument.name for argument in function.params if argument.do_not_specialize}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(function.arg_names)
        if name not in constants and name not in free
    }
    source = ASTSource(function, signature, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=row.options)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = _read("--dump-resource-usage", cubin)
        code = _read("--dump-sass", cubin)
    registers, stack, local = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL"))
    tensor_cores = len(re.findall(r"\b(?:HGMMA|HMMA|DMMA)\b", code))
    barriers = len(re.findall(r"\bBAR\.", code))
    return Resources(registers, max(stack, local), compiled.metadata.shared, tensor_cores, barriers)


def rows() -> list[tuple[str, torch.dtype, Row, int]]:
    """Every row of the table, with its kernel and dtype, and a side of a grid or a JT, zero where there is none."""
    return [
        (kernel, getattr(torch, dtype), row, side)
        for (kernel, dtype), found in TABLE.items()
        for row in found
        for side in SIDES.get(kernel, SIDES.get(kernel.rsplit("_", 1)[0], {})).get(dtype, (0,))
    ]


def _type(name: str, dtype: torch.dtype, of_sequence: bool) -> str:
    if name in VECTORS:
        return f"*{NAMES[dtype]}"
    if of_sequence and name in OPERANDS and dtype == torch.bfloat16:
        return "*bf16"
    if name in INTEGERS:
        return "*i64"
    if len(name) <= 2 or name in NUMBERS or name.endswith(("_batch", "_step", "_x", "_y")):
        return "i32"
    return "*fp64" if numbers(dtype)["ACC"] == tl.float64 else "*fp32"


def _read(what: str, cubin: Path) -> str:
    return subprocess.run([TOOLS / "cuobjdump", what, cubin], capture_output=True, text=True, check=True).stdout


def tiles(kernel: str, row: Row, side: int) -> dict[str, int]:
    """The compile-time sizes that the launcher derives from a row."""
    if kernel.startswith("graph"):
        entries = dict.fromkeys(("JT", "JA", "JB", "JQ", "JK", "JV", "JO"), side)
        steps = {"GA": side, "GB": side * side, "GT": 1}
        return {"BK": row.tile, "BV": row.block, "INITIAL": True, "GIVEN": True, **entries, **steps}
    if kernel in LINES:
        return {"WAYS": 4, "XP": side, "YP": side, "TURNED": False}
    if kernel in MATRICES:
        matrices = {"JT": side, "JTP": power_of_two(side), "ROWS": 8, "KEEP": True}
        return {"C": row.tile, "BLOCK": row.block, **matrices}
    if kernel.startswith("grid_blocks"):
        return {"WAYS": 4, **blocks_form.tile_sizes(kernel, row)}
    if side == 0:
        return {"C": row.tile, "LEVELS": row.tile.bit_length() - 1, "BLOCK": row.block}
    return {"WAYS": 4, **tile_sizes(kernel, row, side, side)}


def test_every_kernel_of_the_table_is_compiled():
    assert {kernel for kernel, _ in TABLE} == FUNCTIONS.keys()


def test_the_last_row_fits_every_device():
    assert all(found[-1].shared <= SHARED_MEMORY[86] for found in TABLE.values())
    assert all(found[-1].capability == 80 for found in TABLE.values())


COMPILED = [(*one, capability) for one in rows() for capability in (80, 90) if capability >= one[2].capability]


@pytest.mark.parametrize(
    ("kernel", "dtype", "row", "side", "capability"),
    COMPILED,
    ids=[f"{kernel}-{dtype}-{side}-{capability}" for kernel, dtype, _, side, capability in COMPILED],
)
def test_row_compiles(kernel, dtype, row, side, capability):
    row = line_row(row, side) if kernel in LINES else row
    for function, variant in itertools.product(FUNCTIONS[kernel], VARIANTS.get(kernel, ({},))):
        found = compile_kernel(function, dtype, row, tiles(kernel, row, side) | variant, capability)
        assert found.spill <= row.spill, found
        assert found.shared <= row.shared <= SHARED_MEMORY[capability], found
        assert (found.tensor_cores > 0) == (kernel not in WITHOUT_TENSOR_CORES), found


@pytest.mark.parametrize("capability", [80, 90])
def test_walks_wait_for_what_their_threads_have_written(capability):
    """Which the interpreter cannot show: without sums between threads, this barrier is the only one."""
    (row,) = TABLE["graph_states", "float32"]
    for function, barriers in ((edges.level_forward, 0), (edges.walk_forward, 1)):
        found = compile_kernel(function, torch.float32, row, tiles("graph_states", row, 1), capability)
        assert found.barriers == barriers, found
