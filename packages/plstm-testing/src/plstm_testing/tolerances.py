"""One table of tolerances for every comparison, and the one error measure they belong to.

The error of an array against its reference is ``RMS(actual - reference) / RMS(reference)``. Nothing else in the
project chooses a tolerance: tests, the conformance suite and the backends' self-check all read this table.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Kind = Literal["output", "state", "gradient", "module", "derivative"]

# Full-precision entries leave room for whole models, whose rounding adds up over layers and steps; a single op stays a
# hundred times below them. Outputs and gradients in 16 bits are rounded to the dtype of their input: half a unit in the
# last place (2**-9 in bfloat16, 2**-12 in float16) is a floor that no implementation gets below, and twice that is all
# it may add. States never are: they stay in float32 or higher, so a state that went through 16 bits exceeds its entry.
# "module" is for outputs and caches of whole layers, blocks and models, in which every part rounds to the dtype: in
# bfloat16 three random blocks in a row, or a norm of a head that happens to be small, come to a tenth. "derivative" is
# for directional derivatives, whose reference is a central difference.
TOLERANCES: dict[str, dict[Kind, float]] = {
    "float64": {"output": 1e-10, "state": 1e-10, "gradient": 1e-9, "module": 1e-10, "derivative": 1e-7},
    "float32": {"output": 1e-5, "state": 1e-5, "gradient": 5e-5, "module": 5e-5},
    "bfloat16": {"output": 4e-3, "state": 1e-3, "gradient": 1e-2, "module": 0.15},
    "float16": {"output": 5e-4, "state": 1e-4, "gradient": 2e-3, "module": 5e-3},
}


def rms(values: ArrayLike) -> float:
    """Root mean square of all entries, in float64; 0 for an empty array.

    Args:
        values: any shape, any real dtype.

    Returns:
        ``sqrt(mean(values**2))``.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.tolerances import rms
        >>> rms(np.array([1.0, -1.0]))
        1.0
    """
    array = np.asarray(values, dtype=np.float64)
    return float(np.sqrt(np.mean(np.square(array)))) if array.size else 0.0


def rms_error(actual: ArrayLike, reference: ArrayLike) -> float:
    """Relative error ``RMS(actual - reference) / RMS(reference)``.

    A reference that is zero everywhere has no scale of its own: the error is then ``RMS(actual)`` itself.

    Args:
        actual: array to judge, any real dtype.
        reference: array of the same shape that counts as the truth.

    Returns:
        The error, 0 for two empty arrays; NaN where `actual` holds NaN.

    Raises:
        ValueError: if the shapes differ (nothing is broadcast).

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.tolerances import rms_error
        >>> round(rms_error(np.array([1.0, 2.1]), np.array([1.0, 2.0])), 3)
        0.045
    """
    actual = np.asarray(actual, dtype=np.float64)
    reference = np.asarray(reference, dtype=np.float64)
    if actual.shape != reference.shape:
        raise ValueError(f"actual: expected the shape of reference, {reference.shape}, got {actual.shape}")
    difference, scale = rms(actual - reference), rms(reference)
    return difference / scale if scale > 0 else difference


def tolerance(dtype: object, kind: Kind = "output") -> float:
    """The entry of the table.

    Args:
        dtype: "float64", "float32", "bfloat16" or "float16", or a dtype object whose name ends in one of these.
        kind: what is compared: an output, a state or a gradient.

    Returns:
        Largest accepted `rms_error`.

    Raises:
        ValueError: if there is no entry for `dtype` or `kind`.

    Examples:
        >>> from plstm_testing.tolerances import tolerance
        >>> tolerance("float32", "output") < tolerance("bfloat16", "output")
        True
    """
    name = str(dtype).rsplit(".", maxsplit=1)[-1]
    if name not in TOLERANCES:
        raise ValueError(f"dtype: expected one of {sorted(TOLERANCES)}, got {name!r}")
    if kind not in TOLERANCES[name]:
        raise ValueError(f"kind: expected one of {sorted(TOLERANCES[name])}, got {kind!r}")
    return TOLERANCES[name][kind]


def assert_within(actual: ArrayLike, reference: ArrayLike, limit: float, label: str = "value") -> None:
    """Fail unless `rms_error` is at most `limit`; for comparisons whose limit is data, such as golden `rtol`.

    Args:
        actual: array to judge.
        reference: the truth.
        limit: largest accepted error.
        label: what is compared, for the message.

    Raises:
        AssertionError: if the shapes differ or the error is above the limit or NaN.
    """
    actual_shape, reference_shape = np.shape(actual), np.shape(reference)
    if actual_shape != reference_shape:
        raise AssertionError(f"{label}: expected shape {reference_shape}, got {actual_shape}")
    error = rms_error(actual, reference)
    if not error <= limit:  # also catches NaN
        raise AssertionError(
            f"{label}: relative RMS error {error:.3e} exceeds {limit:.1e} "
            f"(RMS of the reference {rms(reference):.3e}, shape {reference_shape})"
        )


def assert_close(
    actual: ArrayLike, reference: ArrayLike, dtype: object = "float64", kind: Kind = "output", label: str = "value"
) -> None:
    """Fail unless `actual` agrees with `reference` to the tolerance of the table.

    Args:
        actual: array to judge, any dtype that numpy reads.
        reference: the truth, same shape.
        dtype: dtype in which `actual` was computed.
        kind: what is compared: "output", "state" or "gradient".
        label: what is compared, for the message.

    Raises:
        AssertionError: if the shapes differ or the error is above the tolerance or NaN.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.tolerances import assert_close
        >>> assert_close(np.array([1.0, 2.0 + 1e-7]), np.array([1.0, 2.0]), "float32", "output", "sum")
    """
    assert_within(actual, reference, tolerance(dtype, kind), f"{label} [{kind}, {dtype}]")
