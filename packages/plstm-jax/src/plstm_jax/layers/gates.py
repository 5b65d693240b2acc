"""Source, Mark, Direct and Transition: how nodes write, read, short-cut their own input, and pass the state on."""

from __future__ import annotations

from jax import Array

from plstm_config import (
    DirectLayerConfig,
    LongRangeTransitionLayerConfig,
    MarkLayerConfig,
    SourceLayerConfig,
)
from plstm_config.checks import check_features
from plstm_config.gates import GateLayerConfig
from plstm_jax import functional
from plstm_jax.dtypes import cast, dtype_of, wide
from plstm_jax.formulas import Scope, register_map


@register_map(SourceLayerConfig, MarkLayerConfig, DirectLayerConfig)
def gate(config: GateLayerConfig, scope: Scope, x: Array) -> Array:
    """The gates of all nodes, act(bias + weight x), in float32 or higher.

    Args:
        config: sizes, activation and dtype of the product.
        scope: holds `bias` [H, J...] and, with `weight`, `weight` [H / s, s, J..., D / s].
        x: [..., input_dim] of any floating dtype.

    Returns:
        [..., H, J...]; a narrower dtype would spoil their long products.

    Raises:
        ValueError: if the last axis of x has another size.
    """
    check_features(x, "... D", config.input_dim)
    weight = cast(scope.get("weight"), config.dtype)
    bias = scope.need("bias").astype(wide(config.dtype))
    return functional.gate(x.astype(dtype_of(config.dtype)), bias, weight, config.activation, config.activation_scale)


@register_map(LongRangeTransitionLayerConfig)
def transition(config: LongRangeTransitionLayerConfig, scope: Scope, x: Array) -> Array:
    """The transitions of all nodes, U diag(lam) V, in float32 or higher.

    Args:
        config: sizes, normalisation and dtype of the products.
        scope: holds `eigenvalues_bias` [H, J] and `eigenvalues_weight` [H / s, s, J, D / s]; for J > 1 also `inproj_*`
            and, unless symmetric, `outproj_*`.
        x: [..., input_dim] of any floating dtype.

    Returns:
        [..., H, J, J].

    Raises:
        ValueError: if the last axis of x has another size.
    """
    check_features(x, "... D", config.input_dim)
    parts = {
        f"{name}_{kind}": cast(scope.get(f"{name}_{kind}"), wide(config.dtype) if kind == "bias" else config.dtype)
        for name in ("eigenvalues", "inproj", "outproj")
        for kind in ("bias", "weight")
    }
    return functional.transition(
        x.astype(dtype_of(config.dtype)),
        **parts,  # type: ignore[arg-type]  # the eigenvalues always have a bias
        eigenvalue_representation=config.eigenvalue_representation,
        eigenvalue_factor=config.eigenvalue_factor,
        normalization_mode=config.normalization_mode,
        orthogonalization_order=config.orthogonalization_order,
        orthogonalization_factor=config.orthogonalization_factor,
        matrix_exponential=config.matrix_exponential,
    )
