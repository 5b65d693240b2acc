"""Checks of what the ops are given beside arrays of shapes, shared by every backend: scale, borders, sizes, names.

The values of `cu_seqlens` are the one thing that needs concrete numbers; `check_cu_seqlens` looks at them separately.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from math import isfinite
from typing import Any, TypeVar

import numpy as np

Chosen = TypeVar("Chosen")


def check_scale(scale: Any) -> None:
    """Check that `scale` is None, a finite number, or a real array without dimensions (whose value may be unknown).

    Numbers of numpy are looked at like those of Python; arrays of frameworks may be traced, or on a device.

    Raises:
        TypeError: if it is something else.
        ValueError: if it is an array with dimensions, not finite, or beyond what a float holds.
    """
    if scale is None:
        return
    if isinstance(scale, int | float) and not isinstance(scale, bool):
        try:
            finite = isfinite(scale)
        except OverflowError:
            raise ValueError("scale: expected a number that a float holds, got an integer beyond") from None
        if not finite:
            raise ValueError(f"scale: expected a finite number, got {scale}")
        return
    if not hasattr(scale, "shape"):
        raise TypeError(f"scale: expected None or a number, got {type(scale).__name__}")
    if len(scale.shape) != 0:
        raise ValueError(f"scale: expected None or a number, got an array of shape {tuple(scale.shape)}")
    dtype = str(scale.dtype)
    if not any(kind in dtype for kind in ("int", "float")):
        raise TypeError(f"scale: expected None or a real number, got an array of dtype {dtype}")
    if isinstance(scale, np.ndarray | np.generic) and not isfinite(scale):
        raise ValueError(f"scale: expected a finite number, got {scale}")


def check_cu_seqlens_shape(cu_seqlens: Any) -> int:
    """Check the shape of the boundaries of packed sequences.

    Args:
        cu_seqlens: integer array [S+1].

    Returns:
        S, the number of sequences.

    Raises:
        TypeError: if it has no shape.
        ValueError: if it is not one-dimensional or has fewer than two entries.
    """
    if not hasattr(cu_seqlens, "shape"):
        raise TypeError(f"cu_seqlens: expected an integer array of shape [S+1], got {type(cu_seqlens).__name__}")
    shape = tuple(cu_seqlens.shape)
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(f"cu_seqlens: expected [S+1] with S >= 1, got {shape}")
    return int(shape[0]) - 1


def check_cu_seqlens(cu_seqlens: Any, length: int) -> tuple[int, ...]:
    """Check the values of the boundaries of packed sequences; not for traced arrays.

    Args:
        cu_seqlens: integer array or sequence [S+1]; sequence i covers the steps from
            ``cu_seqlens[i]`` up to, not including, ``cu_seqlens[i+1]``.
        length: T, the packed length.

    Returns:
        The boundaries as Python integers.

    Raises:
        TypeError: if it is no array or sequence, or holds something else than integers.
        ValueError: if it does not start at 0, does not end at T, or decreases anywhere.
    """
    if hasattr(cu_seqlens, "tolist"):
        check_cu_seqlens_shape(cu_seqlens)
        cu_seqlens = cu_seqlens.tolist()
    if not isinstance(cu_seqlens, Sequence):
        raise TypeError(f"cu_seqlens: expected an integer array of shape [S+1], got {type(cu_seqlens).__name__}")
    bounds = tuple(cu_seqlens)
    if len(bounds) < 2:
        raise ValueError(f"cu_seqlens: expected [S+1] with S >= 1, got ({len(bounds)},)")
    for bound in bounds:
        if not isinstance(bound, int) or isinstance(bound, bool):
            raise TypeError(f"cu_seqlens: expected integers, got {bound!r} of type {type(bound).__name__}")
        if bound < 0:
            raise ValueError(f"cu_seqlens: expected non-negative boundaries, got {list(bounds)}")
    if bounds[0] != 0:
        raise ValueError(f"cu_seqlens: expected the first boundary to be 0, got {list(bounds)}")
    if any(after < before for before, after in pairwise(bounds)):
        raise ValueError(f"cu_seqlens: expected boundaries that do not decrease, got {list(bounds)}")
    if bounds[-1] != length:
        raise ValueError(f"cu_seqlens: expected the last boundary to be T={length}, got {list(bounds)}")
    return bounds


def check_implementation(implementation: str, valid: Sequence[str]) -> str:
    """Check the name of an implementation.

    Args:
        implementation: the name asked for.
        valid: the names that exist.

    Returns:
        `implementation`.

    Raises:
        ValueError: if it is unknown; the message lists the valid names.
    """
    check_choice("implementation", implementation, valid)
    return implementation


def check_kernels(op: str, implementation: str, reason: str | None) -> None:
    """Refuse a call that asks by name for kernels that cannot take it.

    Args:
        op: name of the op.
        implementation: the name asked for.
        reason: why they cannot, None if they can.

    Raises:
        ValueError: if there is a reason.
    """
    if reason is not None:
        raise ValueError(
            f"implementation: expected another one for this call of {op}, got {implementation!r}: {reason}"
        )


def check_choice(name: str, value: Any, valid: Collection[str]) -> None:
    """Check what can have a few values only.

    Args:
        name: name of the argument, for messages.
        value: what was given.
        valid: the values that exist.

    Raises:
        ValueError: if it is another one; the message lists the valid ones.
    """
    if value not in valid:
        raise unknown(name, value, valid)


def unknown(name: str, value: Any, valid: Collection[str]) -> ValueError:
    """The error for what is none of a few values.

    Args:
        name: name of the argument, for messages.
        value: what was given.
        valid: the values that exist.

    Returns:
        The error, to be raised.
    """
    return ValueError(f"{name}: expected one of {', '.join(map(repr, valid))}, got {value!r}")


def choose(name: str, value: str, table: Mapping[str, Chosen]) -> Chosen:
    """What a name stands for.

    Args:
        name: name of the argument, for messages.
        value: the key asked for.
        table: what there is, by key.

    Returns:
        The entry.

    Raises:
        ValueError: if there is none; the message lists the keys.
    """
    check_choice(name, value, table)
    return table[value]


def of_instance(name: str, value: object, table: Mapping[type, Chosen]) -> Chosen:
    """What belongs to the class of an object, exactly this one.

    Args:
        name: name of the argument, for messages.
        value: the object.
        table: what there is, by class.

    Returns:
        The entry.

    Raises:
        TypeError: if there is none; the message lists the classes.
    """
    if type(value) not in table:
        known = ", ".join(sorted(known.__name__ for known in table))
        raise TypeError(f"{name}: expected an instance of one of {known}, got {type(value).__name__}")
    return table[type(value)]


def check_size(name: str, size: Any) -> None:
    """Check an optional positive integer such as `chunk_size` or `block_size`.

    Args:
        name: name of the argument, for messages.
        size: none (the op chooses) or an integer of at least 1.

    Raises:
        TypeError: if it is neither None nor an integer.
        ValueError: if it is below 1.
    """
    if size is None:
        return
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError(f"{name}: expected None or a positive integer, got {type(size).__name__}")
    if size < 1:
        raise ValueError(f"{name}: expected None or a positive integer, got {size}")


def check_mode(mode: Any) -> None:
    """Check the mode of an op on grids.

    Args:
        mode: none or "P".

    Raises:
        TypeError: if it is no string.
        ValueError: if it is another one.
    """
    if mode is None:
        return
    if not isinstance(mode, str):
        raise TypeError(f"mode: expected None or 'P', got {type(mode).__name__}")
    if mode != "P":
        raise ValueError(f"mode: expected None or 'P', got {mode!r}")
