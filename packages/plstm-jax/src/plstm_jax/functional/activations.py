"""Scalar functions: activations of networks, of gates, and of the eigenvalues of a transition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from plstm_config.options import choose

_Function = TypeVar("_Function")

# exp(80) is finite in float32, and a decay of exp(-exp(80)) is exactly zero.
_EXPONENT_LIMIT = 80.0


def _identity(z: Array) -> Array:
    return z


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "identity": _identity,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "logsigmoid": jax.nn.log_sigmoid,
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}

GATE_ACTIVATIONS: Mapping[str, Callable[[Array, float], Array]] = {
    "identity": lambda z, scale: z,
    "tanh": lambda z, scale: scale * jnp.tanh(z / scale),
    "logsigmoid": lambda z, scale: jnp.exp(scale * jax.nn.log_sigmoid(z)),
}

EIGENVALUES: Mapping[str, Callable[[Array, float], Array]] = {
    "logsigmoid": lambda z, factor: jnp.exp(factor * jax.nn.log_sigmoid(z)),
    # Without the limit the gradient is zero times infinity where the eigenvalue has long vanished.
    "expexp": lambda z, factor: jnp.exp(-factor * jnp.exp(-jnp.maximum(z, -_EXPONENT_LIMIT))),
    "tanh": lambda z, factor: jnp.tanh(factor * z),
}


def activation(name: str, z: Float[Array, "..."]) -> Float[Array, "..."]:
    """Apply an activation by name.

    Args:
        name: a key of `ACTIVATIONS`; "gelu" is the exact form with erf, "gelu_tanh" its approximation.
        z: any shape.

    Returns:
        Array of the same shape and dtype.

    Raises:
        ValueError: if the name is unknown.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_jax.functional import activation
        >>> activation("gelu", jnp.array([0.0, 10.0])).tolist()
        [0.0, 10.0]
    """
    return _choose("name", name, ACTIVATIONS)(z)


def gate_activation(z: Float[Array, "..."], activation: str, scale: float = 1.0) -> Float[Array, "..."]:
    """Activation of Source, Mark and Direct.

    identity z, tanh ``a tanh(z / a)``, logsigmoid ``exp(a logsigmoid(z))``, with a the scale.

    Args:
        z: pre-activations, any shape.
        activation: "identity", "tanh" or "logsigmoid".
        scale: a, without effect on identity.

    Returns:
        The gates, of the shape and dtype of `z`.

    Raises:
        ValueError: if the activation is unknown.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_jax.functional import gate_activation
        >>> gate_activation(jnp.array([0.0, 100.0]), "tanh", scale=2.0).tolist()
        [0.0, 2.0]
    """
    return _choose("activation", activation, GATE_ACTIVATIONS)(z, scale)


def eigenvalue_activation(
    z: Float[Array, "..."], representation: str = "tanh", factor: float = 5.0
) -> Float[Array, "..."]:
    """Eigenvalues (or singular values) of a transition, at most one in magnitude.

    logsigmoid ``exp(f logsigmoid(z))``, expexp ``exp(-f exp(-z))``, tanh ``tanh(f z)``, with f the factor. Only tanh
    reaches zero and negative values.

    Args:
        z: pre-activations, any shape.
        representation: "logsigmoid", "expexp" or "tanh".
        factor: f.

    Returns:
        The eigenvalues, of the shape and dtype of `z`.

    Raises:
        ValueError: if the representation is unknown.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_jax.functional import eigenvalue_activation
        >>> eigenvalue_activation(jnp.array([-9.0, 0.0, 9.0]), "tanh").tolist()
        [-1.0, 0.0, 1.0]
    """
    return _choose("eigenvalue_representation", representation, EIGENVALUES)(z, factor)


def soft_cap(z: Float[Array, "..."], cap: float = 10.0) -> Float[Array, "..."]:
    """Limit every entry smoothly to the range of ±cap: ``cap * tanh(z / cap)``.

    Args:
        z: any shape.
        cap: the limit.

    Returns:
        Array of the same shape and dtype.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_jax.functional import soft_cap
        >>> soft_cap(jnp.array([0.0, 1e4]), cap=15.0).tolist()
        [0.0, 15.0]
    """
    return cap * jnp.tanh(z / cap)


def _choose(argument: str, name: str, table: Mapping[str, _Function]) -> _Function:
    return choose(argument, name, table)
