"""What layers are made of besides the ops: gates, transition normalisations, norms and scalar functions.

Pure functions of arrays with the definitions that every pLSTM backend shares. They compute in the dtype that they are
given and own no parameters; the norms, whose mean and root must not lose precision, go up to float32 inside.
"""

from plstm_jax.functional.activations import (
    ACTIVATIONS,
    EIGENVALUES,
    GATE_ACTIVATIONS,
    activation,
    eigenvalue_activation,
    gate_activation,
    soft_cap,
)
from plstm_jax.functional.norms import layer_norm, multi_head_norm, rms_norm
from plstm_jax.functional.orthogonal import (
    NORMALIZATIONS,
    eigenvalue_restriction,
    exponential_orthogonalization,
    householder_orthogonalization,
    largest_eigenvalue,
    normalize,
    qr,
    singularvalue_restriction,
)
from plstm_jax.functional.projections import gate, projection, transition

__all__ = [
    "ACTIVATIONS",
    "EIGENVALUES",
    "GATE_ACTIVATIONS",
    "NORMALIZATIONS",
    "activation",
    "eigenvalue_activation",
    "eigenvalue_restriction",
    "exponential_orthogonalization",
    "gate",
    "gate_activation",
    "householder_orthogonalization",
    "largest_eigenvalue",
    "layer_norm",
    "multi_head_norm",
    "normalize",
    "projection",
    "qr",
    "rms_norm",
    "singularvalue_restriction",
    "soft_cap",
    "transition",
]
