"""Both passes of pLSTM on a grid, given where arrays lie in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plstm_native.build import library

GATES = (
    "source_r",
    "source_d",
    "transition_rl",
    "transition_du",
    "transition_dl",
    "transition_ru",
    "mark_l",
    "mark_u",
)
MODES = ("general", "P", "L", "R", "straight")  # in the order of the kernels' own enumeration
_WIDTH = 2  # vectors of a slice at most


@dataclass(frozen=True)
class GridSizes:
    """Sizes of a call; every array is contiguous, in one dtype.

    Attributes:
        dtype: "float32" or "float64".
        batch: B.
        flips: for each orientation whether X and Y are walked backwards.
        x: X.
        y: Y.
        dk: DK.
        dv: DV, a multiple of `lanes`.
        mode: "P": `mark_u`, `transition_dl` and `transition_ru` are not there, what comes from the left and from above
            is treated alike. "L" and "R" have no `transition_dl` and no `transition_ru`, "straight" neither, "general"
            all.
        threads: how many threads may work.
    """

    dtype: str
    batch: int
    flips: tuple[tuple[bool, bool], ...]
    x: int
    y: int
    dk: int
    dv: int
    mode: str
    threads: int

    @property
    def parts(self) -> int:
        """Into how many parts the orientations and slices are cut, each with results of its own, to keep threads busy.

        The results of the parts are to be added up.
        """
        orientations, slices = len(self.flips), self._slices
        for parts in (1, orientations):
            if self.batch * parts >= 2 * self.threads or self.batch * parts % self.threads == 0:
                return parts
        return orientations * slices

    @property
    def _width(self) -> int:
        vectors = self.dv // lanes(self.dtype)
        return _WIDTH if vectors % _WIDTH == 0 else 1

    @property
    def _slices(self) -> int:
        return self.dv // (lanes(self.dtype) * self._width)


def lanes(dtype: str, kernels: str = "grid") -> int:
    """How many numbers a vector of this machine holds: for grids DV has to be a multiple of it.

    Args:
        dtype: "float32" or "float64".
        kernels: those that are asked, see `library`.

    Returns:
        The number.

    Raises:
        CompilationError: if there are no kernels here.
    """
    return int(library(dtype, kernels).vector_lanes())


def gates_of(mode: str) -> tuple[str, ...]:
    """The gates of a mode, in the order of `GATES`."""
    missing = {
        "P": {"transition_dl", "transition_ru", "mark_u"},
        "L": {"transition_dl"},
        "R": {"transition_ru"},
        "straight": {"transition_dl", "transition_ru"},
        "general": set(),
    }[mode]
    return tuple(name for name in GATES if name not in missing)


def grid_forward(sizes: GridSizes, addresses: Mapping[str, int]) -> None:
    """The outputs, and the states that leave.

    Args:
        sizes: of the arrays.
        addresses: where they begin. Read are `query`, `key` [B,X,Y,DK], `value` [B,X,Y,DV], `direct` [B,X,Y], the gates
            of the mode [B,O,X,Y] and, if there, `left` [B,O,Y,DK,DV] and `top` [B,O,X,DK,DV], which are zero otherwise.
            Written are `output` [parts,B,X,Y,DV] and, if there, `right` and `bottom`, shaped as `left` and `top`.

    Raises:
        CompilationError: if there are no kernels here.
        MemoryError: if there is no memory to work with.
    """
    _run("grid_forward", sizes, addresses)


def grid_gradients(sizes: GridSizes, addresses: Mapping[str, int]) -> None:
    """The gradients of everything that `grid_forward` reads.

    Args:
        sizes: of the arrays.
        addresses: where they begin. Read is what `grid_forward` reads, `d_output` [B,X,Y,DV] and, if there, `d_right`
            and `d_bottom`, cotangents of the states that leave. Written are `d_query`, `d_key`, `d_value`, `d_direct`
            and the gates' with `d_` before their names, all with a leading axis of parts, and, if there, `d_left` and
            `d_top` without one.

    Raises:
        CompilationError: if there are no kernels here.
        MemoryError: if there is no memory to work with.
    """
    _run("grid_gradients", sizes, addresses)


def grid_mask(sizes: GridSizes, addresses: Mapping[str, int]) -> None:
    """The gating matrix of a grid: what every node hears of every other, all orientations summed.

    Args:
        sizes: of the arrays; DK and DV do not matter.
        addresses: where they begin. Read are `direct` [B,X,Y] and the gates of the mode [B,O,X,Y], written is `mask`
            [B,N,N] with N = X Y.

    Raises:
        CompilationError: if there are no kernels here.
        MemoryError: if there is no memory to work with.
    """
    _run("grid_mask", sizes, addresses)


def grid_mask_gradients(sizes: GridSizes, addresses: Mapping[str, int]) -> None:
    """The gradients of everything that `grid_mask` reads.

    Args:
        sizes: of the arrays; DK and DV do not matter.
        addresses: where they begin. Read are what `grid_mask` reads and `d_mask`, written are `d_direct` and the gates'
            with `d_` before their names, each shaped as what it is of.

    Raises:
        CompilationError: if there are no kernels here.
        MemoryError: if there is no memory to work with.
    """
    _run("grid_mask_gradients", sizes, addresses)


def grid_marks(sizes: GridSizes, addresses: Mapping[str, int]) -> None:
    """Whom something that is not finite reaches, for forms by masks, which would let it reach every node.

    Args:
        sizes: of the arrays.
        addresses: where they begin. Read are `key` [B,X,Y,DK], `value` [B,X,Y,DV], `direct` [B,X,Y] and the gates of
            the mode [B,O,X,Y], written is `marks` [B,X,Y]: NaN where a walk from all of them leads it, 1 elsewhere.

    Raises:
        CompilationError: if there are no kernels here.
        MemoryError: if there is no memory to work with.
    """
    _run("grid_marks", sizes, addresses)


_Address = ctypes.c_void_p
_Gates = _Address * len(GATES)


class _Grid(ctypes.Structure):
    """The structure of the same name in grid.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "orientations", "x", "y", "dk", "dv", "width", "slices")),
        *((name, ctypes.c_int64) for name in ("parts", "threads", "mode")),
        *((name, _Address) for name in ("flips", "query", "key", "value", "direct")),
        ("gates", _Gates),
        *((name, _Address) for name in ("left", "top", "output", "right", "bottom")),
        *((name, _Address) for name in ("d_output", "d_right", "d_bottom", "d_query", "d_key", "d_value", "d_direct")),
        ("d_gates", _Gates),
        *((name, _Address) for name in ("d_left", "d_top", "mask", "d_mask", "marks")),
    )


def _run(function: str, sizes: GridSizes, addresses: Mapping[str, int]) -> None:
    flips = _flat(sizes.flips)
    call = _Grid(
        batch=sizes.batch, orientations=len(sizes.flips), x=sizes.x, y=sizes.y, dk=sizes.dk, dv=sizes.dv,
        width=sizes._width, slices=sizes._slices, parts=sizes.parts, threads=sizes.threads,
        mode=MODES.index(sizes.mode),
        flips=ctypes.addressof(flips),
        gates=_Gates(*(addresses.get(name) for name in GATES)),
        d_gates=_Gates(*(addresses.get(f"d_{name}") for name in GATES)),
    )  # fmt: skip
    gates = {*GATES, *(f"d_{name}" for name in GATES)}
    for name, address in addresses.items():
        if name not in gates:
            setattr(call, name, address)
    if getattr(library(sizes.dtype, "grid"), function)(ctypes.byref(call)):
        raise MemoryError(f"{function}: there is no memory to work with")


def _flat(flips: Sequence[tuple[bool, bool]]) -> ctypes.Array[ctypes.c_int64]:
    numbers = [int(flip) for pair in flips for flip in pair]
    return (ctypes.c_int64 * len(numbers))(*numbers)
