"""Both passes of pLSTM on a sequence, given where arrays lie in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

from plstm_native.build import library
from plstm_native.grid import lanes


@dataclass(frozen=True)
class SequenceSizes:
    """Sizes of a call; every array is contiguous, in one dtype.

    Attributes:
        dtype: "float32" or "float64".
        batch: B.
        bounds: where packed sequences begin and end along T, S + 1 numbers from 0 to T.
        dk: DK.
        dv: DV.
        jt: JT, as the other J dimensions any number.
        jk: JK.
        jv: JV.
        jo: JO.
        jq: JQ.
        threads: how many threads may work.
    """

    dtype: str
    batch: int
    bounds: tuple[int, ...]
    dk: int
    dv: int
    jt: int
    jk: int
    jv: int
    jo: int
    jq: int
    threads: int

    @property
    def parts(self) -> int:
        """Into how many parts the slices are cut, each with gradients of its own, to keep threads busy.

        The gradients of the parts are to be added up; those of `value` and `initial` have none.
        """
        return 1 if self._enough_rows else self._slices

    @property
    def _enough_rows(self) -> bool:
        rows = self.batch * (len(self.bounds) - 1)
        return rows >= 2 * self.threads or rows % self.threads == 0

    @property
    def _width(self) -> int:
        """Vectors of a slice: two, if one of the second kind would not be needed to keep threads busy."""
        scalar = self.jt * self.jk * self.jv * self.jo * self.jq == 1
        return 2 if scalar and self._enough_rows and self.dv > lanes(self.dtype, "sequence") else 1

    @property
    def _slices(self) -> int:
        return -(-self.dv // (lanes(self.dtype, "sequence") * self._width))


def sequence_forward(sizes: SequenceSizes, addresses: Mapping[str, int]) -> None:
    """The outputs, and the last states.

    Args:
        sizes: of the arrays.
        addresses: where they begin. Read are `query` [B,T,DK,JQ], `key` [B,T,DK,JK], `value` [B,T,DV,JV], `source`
            [B,T,JT,JK,JV], `transition` [B,T,JT,JT], `mark` [B,T,JO,JQ,JT], `direct` [B,T,JO,JQ,JK,JV] and, if there,
            `initial` [B,S,DK,DV,JT], which is zero otherwise. Written are `output` [B,T,DV,JO] and, if there, `last`,
            shaped as `initial`.

    Raises:
        CompilationError: if there are no kernels here.
        MemoryError: if there is no memory to work with.
    """
    _run("sequence_forward", sizes, addresses)


def sequence_gradients(sizes: SequenceSizes, addresses: Mapping[str, int]) -> None:
    """The gradients of everything that `sequence_forward` reads.

    Args:
        sizes: of the arrays.
        addresses: where they begin. Read is what `sequence_forward` reads, `d_output` [B,T,DV,JO] and, if there,
            `d_last`, the cotangent of the last states. Written are `d_value`, the gradients of query, key and gates
            with `d_` before their names and a leading axis of parts, and, if there, `d_initial`.

    Raises:
        CompilationError: if there are no kernels here.
        MemoryError: if there is no memory to work with.
    """
    _run("sequence_gradients", sizes, addresses)


_Address = ctypes.c_void_p
_DIMENSIONS = ("dk", "dv", "jt", "jk", "jv", "jo", "jq")
_SIZES = ("batch", "length", "sequences", *_DIMENSIONS, "width", "slices", "parts", "threads")
_READ = ("query", "key", "value", "source", "transition", "mark", "direct", "initial")


class _Sequence(ctypes.Structure):
    """The structure of the same name in sequence.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in _SIZES),
        *((name, _Address) for name in ("bounds", *_READ, "output", "last", "d_output", "d_last")),
        *((f"d_{name}", _Address) for name in _READ),
    )


def _run(function: str, sizes: SequenceSizes, addresses: Mapping[str, int]) -> None:
    bounds = (ctypes.c_int64 * len(sizes.bounds))(*sizes.bounds)
    call = _Sequence(
        batch=sizes.batch, length=sizes.bounds[-1], sequences=len(sizes.bounds) - 1, dk=sizes.dk, dv=sizes.dv,
        jt=sizes.jt, jk=sizes.jk, jv=sizes.jv, jo=sizes.jo, jq=sizes.jq, width=sizes._width, slices=sizes._slices,
        parts=sizes.parts, threads=sizes.threads, bounds=ctypes.addressof(bounds), **addresses,
    )  # fmt: skip
    if getattr(library(sizes.dtype, "sequence"), function)(ctypes.byref(call)):
        raise MemoryError(f"{function}: there is no memory to work with")
