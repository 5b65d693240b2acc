"""In Triton's interpreter, an error where a kernel reads or writes outside of its arguments: import it before kernels.

On a GPU such a read gives numbers of other tensors, or ends the process, depending on what lies there. The interpreter
has the addresses of every program at hand; those that a mask leaves are compared with the storages of the arguments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from triton.runtime import interpreter

_ranges: list[tuple[int, int]] = []  # first byte of each storage, and the one behind it, in ascending order


def _init_args_hst(self: Any, args: Any, kwargs: Any) -> Any:
    found = _INIT(self, args, kwargs)
    flat = [one for group in found for one in (group.values() if isinstance(group, dict) else group)]
    storages = [one.untyped_storage() for one in flat if hasattr(one, "untyped_storage")]
    _ranges[:] = sorted({(one.data_ptr(), one.data_ptr() + one.nbytes()) for one in storages})
    return found


def _check(what: str, pointers: Any, mask: Any) -> None:
    """Whether all addresses lie in a storage, the last byte too."""
    chosen = pointers.data[np.broadcast_to(mask, pointers.data.shape)]
    if not chosen.size:
        return
    size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
    firsts, behind = np.array(_ranges, np.uint64).reshape(-1, 2).T
    place = np.searchsorted(firsts, chosen, side="right") - 1
    inside = (place >= 0) & (chosen + np.uint64(size) <= behind[np.maximum(place, 0)])
    if not inside.all():
        missed = int(chosen[~inside][0])
        nearest = min(_ranges, key=lambda one: min(abs(missed - one[0]), abs(missed - one[1])))
        raise IndexError(
            f"{what} of {size} bytes at {missed}: expected an address in the storage of an argument, the nearest "
            f"holds [{nearest[0]}, {nearest[1]})"
        )


def _masked_load(self: Any, ptrs: Any, mask: Any, *rest: Any) -> Any:
    _check("a load", ptrs, mask.data)
    return _LOAD(self, ptrs, mask, *rest)


def _masked_store(self: Any, ptrs: Any, value: Any, mask: Any, *rest: Any) -> Any:
    _check("a store", ptrs, mask.data)
    return _STORE(self, ptrs, value, mask, *rest)


_INIT = interpreter.GridExecutor._init_args_hst
_LOAD = interpreter.InterpreterBuilder.create_masked_load
_STORE = interpreter.InterpreterBuilder.create_masked_store
interpreter.GridExecutor._init_args_hst = _init_args_hst
interpreter.InterpreterBuilder.create_masked_load = _masked_load
interpreter.InterpreterBuilder.create_masked_store = _masked_store
