"""Tile sizes, warps and stages of every kernel: a table, so that nothing is tuned at run time.

No row depends on batch, length or grid: a new length never compiles anything new. `benchmarks/tune_triton.py` measures
candidates on a device and prints rows for this table. Those of sequences and grids in bfloat16 were the fastest of some
on an H100; the others come from code compiled for sm_80 and sm_90 (registers, spills, tensor-core instructions), not
from measured times. A test without a GPU compiles every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch

from plstm_torch.ops._triton.support import interpreted


@dataclass(frozen=True)
class Row:
    """How one kernel is compiled for one dtype.

    Attributes:
        tile: steps or nodes of a tile of the mask.
        block: channels that are in registers at once; larger head dimensions are looped over.
        warps: warps of a program.
        stages: stages of software pipelining.
        shared: bytes of shared memory it may need; checked against the device before a launch.
        spill: bytes of registers a thread may spill; more where three passes of tf32 or float64 meet a side of 64, and
            where kernels of grids are compiled for sm_80 or for head dimensions beyond the block.
        other: nodes of the other side of a tile, or channels of keys in a tile of states, where it is not square.
        registers: most registers of a thread, so that more programs fit on a processor; zero for the compiler's choice.
        capability: compute capability from which on it is taken, as 90 for 9.0; where older devices spill more.
    """

    tile: int
    block: int
    warps: int
    stages: int
    shared: int
    spill: int = 64
    other: int = 0
    registers: int = 0
    capability: int = 80

    @property
    def options(self) -> dict[str, int]:
        """What the compiler is told."""
        options = {"num_warps": self.warps, "num_stages": self.stages}
        return options | ({"maxnreg": self.registers} if self.registers else {})


# kernel, dtype -> rows, the best one first; the last ones need least shared memory
TABLE: Mapping[tuple[str, str], tuple[Row, ...]] = {
    ("sequence_states", "bfloat16"): (Row(64, 64, 4, 3, 53_248, registers=168),),
    ("sequence_states", "float16"): (Row(32, 32, 4, 1, 8_192),),
    ("sequence_states", "float32"): (Row(32, 32, 4, 1, 8_192),),
    ("sequence_states", "float64"): (Row(16, 16, 4, 1, 4_096),),
    ("sequence_output", "bfloat16"): (Row(64, 64, 4, 2, 53_248, spill=192, registers=168),),
    ("sequence_output", "float16"): (Row(32, 32, 4, 1, 8_192),),
    ("sequence_output", "float32"): (Row(32, 32, 4, 1, 8_192),),
    ("sequence_output", "float64"): (Row(16, 16, 4, 1, 8_192),),
    ("sequence_gradients_read", "bfloat16"): (Row(64, 64, 4, 2, 53_248, spill=256, registers=168),),
    ("sequence_gradients_read", "float16"): (Row(32, 32, 4, 1, 16_384),),
    ("sequence_gradients_read", "float32"): (Row(32, 32, 4, 1, 16_384),),
    ("sequence_gradients_read", "float64"): (Row(16, 16, 4, 1, 8_192),),
    ("sequence_gradients_write", "bfloat16"): (Row(64, 64, 4, 2, 53_248, spill=512, registers=168),),
    ("sequence_gradients_write", "float16"): (Row(32, 32, 4, 1, 16_384),),
    ("sequence_gradients_write", "float32"): (Row(32, 32, 4, 1, 16_384),),
    ("sequence_gradients_write", "float64"): (Row(16, 16, 4, 1, 8_192),),
    # products of transitions, one program a chunk, in the dtype of the gates
    ("sequence_levels", "float32"): (Row(64, 64, 1, 1, 1_024),),
    ("sequence_levels", "float64"): (Row(16, 16, 1, 1, 1_024),),
    # scans of small matrices and the recurrence between chunks run in the dtype of the gates, without tensor cores
    ("sequence_responses", "float32"): (Row(16, 64, 2, 1, 2_048),),
    ("sequence_responses", "float64"): (Row(16, 32, 2, 1, 4_096),),
    ("sequence_chain", "float32"): (Row(16, 128, 4, 2, 8_192),),
    ("sequence_chain", "float64"): (Row(16, 64, 4, 2, 8_192),),
    # states of edges are summed in the dtype of the gates, and read once: no product is worth a tensor core
    ("graph_states", "float32"): (Row(64, 64, 4, 1, 2_048),),
    ("graph_states", "float64"): (Row(32, 64, 4, 1, 2_048),),
    ("graph_sums", "float32"): (Row(64, 64, 4, 1, 2_048),),
    ("graph_sums", "float64"): (Row(32, 64, 4, 1, 2_048),),
    ("graph_gradients", "float32"): (Row(64, 64, 4, 1, 2_048),),
    ("graph_gradients", "float64"): (Row(32, 64, 4, 1, 2_048),),
    # lines of a grid: a square of the largest side; smaller ones take fewer warps
    ("grid_separable_tables", "bfloat16"): (Row(64, 64, 8, 1, 20_480),),
    ("grid_separable_tables", "float16"): (Row(64, 64, 8, 1, 20_480),),
    ("grid_separable_tables", "float32"): (Row(64, 64, 8, 1, 20_480),),
    ("grid_separable_tables", "float64"): (Row(64, 64, 8, 1, 40_960, spill=128),),
    ("grid_separable_gates", "bfloat16"): (Row(64, 64, 8, 1, 40_960),),
    ("grid_separable_gates", "float16"): (Row(64, 64, 8, 1, 40_960, spill=256),),
    ("grid_separable_gates", "float32"): (Row(64, 64, 8, 1, 40_960, spill=256),),
    ("grid_separable_gates", "float64"): (Row(64, 64, 8, 1, 81_920, spill=320),),
    ("grid_separable_output", "bfloat16"): (Row(64, 64, 4, 2, 73_728, other=32), Row(64, 64, 4, 1, 32_768, other=32)),
    ("grid_separable_output", "float16"): (Row(32, 32, 4, 1, 49_152),),
    ("grid_separable_output", "float32"): (Row(32, 32, 4, 1, 49_152),),
    ("grid_separable_output", "float64"): (Row(16, 16, 4, 1, 49_152),),
    ("grid_separable_targets", "bfloat16"): (
        Row(64, 64, 4, 2, 106_496, spill=128, other=32),
        Row(64, 64, 4, 1, 40_960, spill=256, other=32),
    ),
    ("grid_separable_targets", "float16"): (Row(32, 32, 8, 1, 49_152, spill=576),),
    ("grid_separable_targets", "float32"): (Row(32, 32, 8, 1, 49_152, spill=576),),
    ("grid_separable_targets", "float64"): (Row(16, 16, 8, 1, 49_152),),
    ("grid_separable_sources", "bfloat16"): (
        Row(64, 64, 4, 2, 106_496, spill=320, other=32),
        Row(64, 64, 4, 1, 40_960, spill=192, other=32),
    ),
    ("grid_separable_sources", "float16"): (Row(32, 32, 8, 1, 49_152, spill=768),),
    ("grid_separable_sources", "float32"): (Row(32, 32, 8, 1, 49_152, spill=768),),
    ("grid_separable_sources", "float64"): (Row(16, 16, 8, 1, 49_152),),
    ("grid_directed_table", "bfloat16"): (Row(32, 32, 2, 1, 4_096),),
    ("grid_directed_table", "float16"): (Row(32, 32, 2, 1, 4_096),),
    ("grid_directed_table", "float32"): (Row(32, 32, 2, 1, 4_096),),
    ("grid_directed_table", "float64"): (Row(32, 32, 2, 1, 8_192),),
    ("grid_directed_output", "bfloat16"): (Row(64, 64, 4, 3, 59_392), Row(64, 64, 4, 2, 43_008)),
    ("grid_directed_output", "float16"): (Row(32, 32, 4, 1, 24_576),),
    ("grid_directed_output", "float32"): (Row(32, 32, 4, 1, 24_576, spill=128),),
    ("grid_directed_output", "float64"): (Row(16, 16, 4, 1, 24_576),),
    ("grid_directed_targets", "bfloat16"): (Row(64, 64, 4, 2, 100_352, spill=1_152),),
    ("grid_directed_targets", "float16"): (Row(32, 32, 4, 1, 32_768, spill=768),),
    ("grid_directed_targets", "float32"): (Row(32, 32, 4, 1, 32_768, spill=768),),
    ("grid_directed_targets", "float64"): (Row(16, 16, 4, 1, 32_768, spill=320),),
    ("grid_directed_sources", "bfloat16"): (Row(64, 64, 4, 2, 67_584, spill=192),),
    ("grid_directed_sources", "float16"): (Row(32, 32, 4, 1, 24_576, spill=128),),
    ("grid_directed_sources", "float32"): (Row(32, 32, 4, 1, 24_576, spill=128),),
    ("grid_directed_sources", "float64"): (Row(16, 16, 4, 1, 24_576),),
    # blocks always have 64 nodes, since their 16 borders are the rows of a product
    ("grid_blocks_step", "bfloat16"): (
        Row(64, 32, 4, 1, 22_528, spill=128, other=64, capability=90),
        Row(64, 16, 4, 1, 20_480, spill=96, other=64),
    ),
    ("grid_blocks_step", "float16"): (Row(64, 16, 4, 1, 28_672, spill=288, other=32),),
    ("grid_blocks_step", "float32"): (Row(64, 16, 4, 1, 28_672, spill=288, other=32),),
    ("grid_blocks_step", "float64"): (Row(64, 16, 8, 1, 45_056, spill=448),),
    ("grid_blocks_rows", "bfloat16"): (Row(64, 64, 8, 1, 24_576),),
    ("grid_blocks_rows", "float16"): (Row(64, 32, 4, 1, 8_192),),
    ("grid_blocks_rows", "float32"): (Row(64, 32, 4, 1, 8_192),),
    ("grid_blocks_rows", "float64"): (Row(64, 16, 4, 1, 10_240),),
}
# small enough that a test of a few dozen steps has several tiles, and head dimensions several blocks; on grids larger
# than the smallest that products take, since the interpreter's time goes with the number of programs
_INTERPRETED = Row(tile=16, block=16, warps=1, stages=1, shared=0)
_INTERPRETED_GRID = Row(tile=64, block=16, warps=1, stages=1, shared=0)
# few programs, since a step of a scan takes as long for one column as for many
_INTERPRETED_SCAN = Row(tile=8, block=64, warps=1, stages=1, shared=0)


def choose(kernel: str, dtype: torch.dtype, device: torch.device) -> Row:
    """The first row of the table that is for the device, and that it has shared memory for.

    Args:
        kernel: name in the table.
        dtype: dtype of query, key and value.
        device: where it will run.

    Returns:
        The row.

    Raises:
        RuntimeError: if no row fits the device.
    """
    if interpreted():
        if kernel.startswith("grid"):
            return _INTERPRETED_GRID
        return _INTERPRETED_SCAN if kernel in ("sequence_responses", "sequence_chain") else _INTERPRETED
    name = str(dtype).removeprefix("torch.")
    available, capability = _limits(torch.cuda.current_device() if device.index is None else device.index)
    rows = TABLE[kernel, name]
    for row in rows:
        if row.shared <= available and row.capability <= capability:
            return row
    least = min(row.shared for row in rows)
    raise RuntimeError(f"{kernel} ({name}) needs {least} bytes of shared memory in a block, {device} has {available}")


@cache
def _limits(index: int) -> tuple[int, int]:
    """Shared memory that a block of this device can have, in bytes, and its compute capability, as 90 for 9.0."""
    import triton

    properties = triton.runtime.driver.active.utils.get_device_properties(index)
    major, minor = torch.cuda.get_device_capability(index)
    return int(properties["max_shared_mem"]), 10 * major + minor
