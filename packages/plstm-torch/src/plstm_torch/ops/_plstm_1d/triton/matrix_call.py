"""What a call with state-tracking matrices consists of: segments of chunks, and the scans launched on each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import Tensors
from plstm_torch.ops._plstm_1d.triton.matrix_products import Responses, Vectors
from plstm_torch.ops._plstm_1d.triton.slots import in_slots, slot_owners, slot_steps, step_places
from plstm_torch.ops._triton import tuning

# Numbers in the states and masks of a segment, which has at least a few chunks of every row.
_SEGMENT = 1 << 27
_LEAST_CHUNKS = 8
_ROWS = 8  # outputs of a step that a program of the scans reads at once


def number_of_segments(inputs: Tensors) -> int:
    """Segments of a call; a function of sizes alone, so that a compiled program knows it."""
    query, value, source, mark, states = (inputs[place] for place in (0, 2, 3, 5, 7))
    chunk = _chunk(states)
    batch, length, dim_k = query.shape[:3]
    dim_t, sources, outputs = source.shape[2], source.shape[3] * source.shape[4], mark.shape[2] * mark.shape[3]
    numbers = 2 * dim_t * dim_k * value.shape[2] + chunk * (dim_t + 3 * outputs) * (chunk * sources + dim_t)
    largest = max(_LEAST_CHUNKS, _SEGMENT // max(1, batch * numbers))
    return -(-_slots(length, chunk, states.shape[1]) // largest)


class MatrixCall:
    """The arguments of one pass.

    Args:
        inputs: as of `matrix_form.forward`.
        segments: how many segments the chunks of every row are cut into.
    """

    def __init__(self, inputs: Tensors, segments: int) -> None:
        self.vectors = inputs[:3]
        self.gates = [gate.contiguous() for gate in inputs[3:7]]
        self.initial = inputs[7].contiguous()
        self.batch, self.length = inputs[0].shape[:2]
        source, _, mark, _ = self.gates
        self.dim_t, self.sources, self.outputs = source.shape[2], source[0, 0, 0].numel(), mark[0, 0, ..., 0].numel()
        self.chunk = _chunk(self.initial)
        self.bounds = inputs[8][0].long()
        count = self.initial.shape[1]
        self.slots = _slots(self.length, self.chunk, count)
        self.owners = slot_owners(self.bounds, self.length, self.chunk)
        # a single sequence lies in its slots as it is
        self.steps = slot_steps(self.bounds, self.length, self.chunk) if count > 1 else None
        size = -(-self.slots // segments)
        borders = [min(place * size, self.slots) for place in range(segments + 1)]
        self.segments = [
            Segment(self, number, low, high - low) for number, (low, high) in enumerate(pairwise(borders)) if high > low
        ]

    def on_device(self) -> Any:
        """The context in which kernels go to the device of the tensors."""
        return torch.cuda.device_of(self.initial)

    def new_rows(self, vector: Tensor, entries: int) -> Tensor:
        """Uninitialised rows for the steps of all slots, [B,slots*C,entries,D] for a vector [B,T,D,J]."""
        return vector.new_empty(self.batch, self.slots * self.chunk, entries, vector.shape[2])

    def in_order(self, rows: Tensor) -> Tensor:
        """Rows of the slots as a vector [B,T,D,entries]."""
        if self.steps is None:
            taken = rows[:, : self.length]
        else:
            taken = rows.index_select(1, step_places(self.bounds, self.length, self.chunk))
        return taken.mT.contiguous()

    def new_gate_gradients(self) -> Tensors:
        """Uninitialised gradients of the gates; of transition and mark a part for every block of columns."""
        source, transition, mark, direct = self.gates
        parts = -(-self.columns // self.scan_options()["BLOCK"])
        d_transition, d_mark = (gate.new_empty(parts, *gate.shape) for gate in (transition, mark))
        return torch.empty_like(source), d_transition, d_mark, torch.empty_like(direct)

    @property
    def columns(self) -> int:
        """Sources of a chunk, and the entries of its entering state."""
        return self.chunk * self.sources + self.dim_t

    def scan_options(self) -> dict[str, int]:
        """Compile-time arguments of the scans over steps."""
        row = tuning.choose("sequence_responses", self.initial.dtype, self.initial.device)
        rows = min(_ROWS, power_of_two(self.outputs))
        block = min(row.block, max(16, power_of_two(self.columns)))
        return {**self.sizes, "ROWS": rows, "BLOCK": block, **row.options}

    def chain_options(self) -> dict[str, int]:
        """Compile-time arguments of the recurrence between chunks."""
        row = tuning.choose("sequence_chain", self.initial.dtype, self.initial.device)
        return {**self.sizes, "BLOCK": row.block, **row.options}

    @property
    def sizes(self) -> dict[str, int]:
        """Compile-time sizes that all kernels share."""
        return {"C": self.chunk, "JT": self.dim_t, "JTP": power_of_two(self.dim_t)}


@dataclass(frozen=True)
class Segment:
    """Consecutive slots of every row of the batch; n = B * count chunks.

    Attributes:
        call: the pass.
        number: among the segments.
        low: first slot.
        count: number of slots.
    """

    call: MatrixCall
    number: int
    low: int
    count: int

    def take(self, vector: Tensor) -> Tensor:
        """The steps of a vector [B,T,D,J] in the dtype of the states, [n,C,J,D], zero where there is none."""
        call, chunk = self.call, self.call.chunk
        if call.steps is None:
            piece = vector[:, self.low * chunk : (self.low + self.count) * chunk]
            missing = self.count * chunk - piece.shape[1]
            if missing:
                piece = torch.nn.functional.pad(piece, (0, 0, 0, 0, 0, missing))
            piece = piece.unflatten(1, (self.count, chunk))
        else:
            steps, filled = (places[self.low : self.low + self.count] for places in call.steps)
            piece = in_slots(vector, steps, filled)
        return piece.to(call.initial.dtype).flatten(0, 1).mT

    def put(self, rows: Tensor, steps: Tensor) -> None:
        """Write the steps of the chunks [n,C,J,D] into rows of all slots."""
        chunk = self.call.chunk
        part = rows[:, self.low * chunk : (self.low + self.count) * chunk]
        part.copy_(steps.view(self.call.batch, -1, *steps.shape[2:]))

    def vectors(self) -> Vectors:
        """Query, key and value of the chunks."""
        return Vectors(*(self.take(vector) for vector in self.call.vectors))

    def respond(self, *, keep: bool) -> tuple[Responses, Tensor]:
        """The responses, and if asked for the scan's matrices before every step, [n,C,JT,C*JK*JV+JT]."""
        from plstm_torch.ops._plstm_1d.triton import responses

        call, count = self.call, self.call.batch * self.count
        source, transition, mark, direct = call.gates
        dim_o, dim_q = mark.shape[2:4]
        inner = (call.chunk, *source.shape[3:])
        gating = source.new_empty(count, call.chunk, dim_o, dim_q, *inner)
        reach = source.new_empty(count, call.chunk, dim_o, dim_q, call.dim_t)
        arrive = source.new_empty(count, call.dim_t, *inner)
        total = source.new_empty(count, call.dim_t, call.dim_t)
        states = source.new_empty(count, call.chunk, call.dim_t, call.columns) if keep else gating
        options = call.scan_options()
        responses.respond[self._scans(options)](
            source, transition, mark, direct, call.bounds, call.owners, gating, reach, arrive, total, states,
            call.length, self.count, self.low, call.outputs, call.sources, KEEP=keep, **options,
        )  # fmt: skip
        return Responses(gating, reach, arrive, total), states

    def respond_back(self, d_responses: Responses, states: Tensor, results: Tensors) -> None:
        """Writes the gradients of the gates of these steps into `results`, as of `MatrixCall.new_gate_gradients`."""
        from plstm_torch.ops._plstm_1d.triton import responses

        call = self.call
        _, transition, mark, _ = call.gates
        options = call.scan_options()
        responses.respond_gradients[self._scans(options)](
            transition, mark, call.bounds, call.owners, states, *d_responses, *results,
            call.length, self.count, self.low, call.batch * call.length, call.outputs, call.sources, **options,
        )  # fmt: skip

    def chain(self, total: Tensor, written: Tensor, carried: Tensor, passed: Tensor, last: Tensor) -> Tensor:
        """States that enter the chunks.

        Args:
            total: transitions over the chunks [n,JT,JT].
            written: what the chunks write [n,JT*DV,DK].
            carried: state that enters in the middle of a sequence [B,JT,DV,DK].
            passed: is overwritten with the state that leaves in the middle of a sequence [B,JT,DV,DK].
            last: is overwritten where sequences end here [B,S,JT,DV,DK].

        Returns:
            [n,JT*DV,DK].
        """
        from plstm_torch.ops._plstm_1d.triton import chain

        call, entering, options = self.call, torch.empty_like(written), self.call.chain_options()
        places = last[0, 0, 0].numel()
        chain.chain_forward[self._walks(options, places)](
            total, written, call.initial, carried, entering, last, passed, call.bounds,
            carried.stride(0), passed.stride(0), call.initial.shape[1], self.count, self.low, places, **options,
        )  # fmt: skip
        return entering

    def chain_back(
        self, total: Tensor, read: Tensor, carried: Tensor, passed: Tensor, d_last: Tensor, d_initial: Tensor
    ) -> Tensor:
        """Gradients of the states that leave the chunks.

        Args:
            total: transitions over the chunks [n,JT,JT].
            read: gradients of the states that enter the chunks, by what is read there [n,JT*DV,DK].
            carried: that of the state that leaves in the middle of a sequence [B,JT,DV,DK].
            passed: is overwritten with that of the state that enters in the middle of a sequence [B,JT,DV,DK].
            d_last: those of the last states [B,S,JT,DV,DK].
            d_initial: is overwritten where sequences begin here [B,S,JT,DV,DK].

        Returns:
            [n,JT*DV,DK].
        """
        from plstm_torch.ops._plstm_1d.triton import chain

        call, d_leaving, options = self.call, torch.empty_like(read), self.call.chain_options()
        places = d_last[0, 0, 0].numel()
        chain.chain_backward[self._walks(options, places)](
            total, read, d_last, carried, d_leaving, d_initial, passed, call.bounds,
            carried.stride(0), passed.stride(0), call.initial.shape[1], self.count, self.low, places, **options,
        )  # fmt: skip
        return d_leaving

    def _scans(self, options: dict[str, int]) -> tuple[int, int]:
        """A program for every chunk and block of columns; only the first axis may be long."""
        return self.call.batch * self.count, -(-self.call.columns // options["BLOCK"])

    def _walks(self, options: dict[str, int], places: int) -> tuple[int, int]:
        """A program for every sequence of the batch and block of places."""
        return self.call.batch * self.call.initial.shape[1], -(-places // options["BLOCK"])


def power_of_two(size: int) -> int:
    """The least power of two that is not smaller."""
    return 1 << (size - 1).bit_length()


def _chunk(states: Tensor) -> int:
    return tuning.choose("sequence_responses", states.dtype, states.device).tile


def _slots(length: int, chunk: int, sequences: int) -> int:
    return -(-length // chunk) if sequences == 1 else length // chunk + sequences
