"""Layers: the shells of their configs' formulas in `plstm_jax.layers`, which say what is computed."""

from __future__ import annotations

from plstm_config import (
    Convolution1DLayerConfig,
    Convolution2DLayerConfig,
    DirectLayerConfig,
    DropPathConfig,
    ExpExpFunctionConfig,
    IdentityConfig,
    KeyLayerConfig,
    LayerNormConfig,
    LinearConfig,
    LongRangeTransitionLayerConfig,
    MarkLayerConfig,
    MultiHeadLayerNormConfig,
    MultiHeadRMSNormConfig,
    PassthroughLayerConfig,
    QueryLayerConfig,
    RMSNormConfig,
    ScaleLayerConfig,
    SigmoidFunctionConfig,
    SoftCapFunctionConfig,
    SourceLayerConfig,
    TanhFunctionConfig,
    ValueLayerConfig,
    pLSTM1DLayerConfig,
    pLSTM2DLayerConfig,
    pLSTM2DLayerFusedConfig,
    pLSTMGraphEdgeLayerConfig,
    pLSTMGraphLayerConfig,
)
from plstm_linen.build import register
from plstm_linen.module import Module

__all__ = [
    "Convolution1DLayer",
    "Convolution2DLayer",
    "DirectLayer",
    "DropPath",
    "ExpExpFunctionLayer",
    "Identity",
    "KeyLayer",
    "LayerNorm",
    "Linear",
    "LongRangeTransitionLayer",
    "MarkLayer",
    "MultiHeadLayerNorm",
    "MultiHeadRMSNorm",
    "PassthroughLayer",
    "QueryLayer",
    "RMSNorm",
    "ScaleLayer",
    "SigmoidFunctionLayer",
    "SoftCapFunctionLayer",
    "SourceLayer",
    "TanhFunctionLayer",
    "ValueLayer",
    "pLSTM1DLayer",
    "pLSTM2DLayer",
    "pLSTM2DLayerFused",
    "pLSTMGraphEdgeLayer",
    "pLSTMGraphLayer",
]


@register(Convolution1DLayerConfig)
class Convolution1DLayer(Module):
    """Causal depthwise convolution of sequences [B, T, D]."""

    config: Convolution1DLayerConfig


@register(Convolution2DLayerConfig)
class Convolution2DLayer(Module):
    """Depthwise convolution of grids [B, X, Y, D]."""

    config: Convolution2DLayerConfig


@register(SourceLayerConfig)
class SourceLayer(Module):
    """The source gate, from the input or from a bias alone."""

    config: SourceLayerConfig


@register(MarkLayerConfig)
class MarkLayer(Module):
    """The mark gate, from the input or from a bias alone."""

    config: MarkLayerConfig


@register(DirectLayerConfig)
class DirectLayer(Module):
    """The direct gate, from the input or from a bias alone."""

    config: DirectLayerConfig


@register(LongRangeTransitionLayerConfig)
class LongRangeTransitionLayer(Module):
    """The transition U diag(sigma) V with orthogonal U and V, from the input or from biases alone."""

    config: LongRangeTransitionLayerConfig


@register(LinearConfig)
class Linear(Module):
    """x W^T + b on the last axis."""

    config: LinearConfig


@register(RMSNormConfig)
class RMSNorm(Module):
    """Root mean square normalisation of the last axis."""

    config: RMSNormConfig


@register(LayerNormConfig)
class LayerNorm(Module):
    """Layer normalisation of the last axis."""

    config: LayerNormConfig


@register(MultiHeadRMSNormConfig)
class MultiHeadRMSNorm(Module):
    """Root mean square normalisation of each head."""

    config: MultiHeadRMSNormConfig


@register(MultiHeadLayerNormConfig)
class MultiHeadLayerNorm(Module):
    """Layer normalisation of each head."""

    config: MultiHeadLayerNormConfig


@register(IdentityConfig)
class Identity(Module):
    """x, where a norm may stand."""

    config: IdentityConfig


@register(QueryLayerConfig)
class QueryLayer(Module):
    """Queries of each head, from slices of the input."""

    config: QueryLayerConfig


@register(KeyLayerConfig)
class KeyLayer(Module):
    """Keys of each head, from slices of the input."""

    config: KeyLayerConfig


@register(ValueLayerConfig)
class ValueLayer(Module):
    """Values of each head, from slices of the input."""

    config: ValueLayerConfig


@register(PassthroughLayerConfig)
class PassthroughLayer(Module):
    """scale * x: the way around the recurrence inside of a pLSTM layer."""

    config: PassthroughLayerConfig


@register(ScaleLayerConfig)
class ScaleLayer(Module):
    """scale * x: the layer scale of a residual branch."""

    config: ScaleLayerConfig


@register(DropPathConfig)
class DropPath(Module):
    """Stochastic depth: in training, a sample's branch is zero with probability drop_prob."""

    config: DropPathConfig


@register(TanhFunctionConfig)
class TanhFunctionLayer(Module):
    """tanh(x)."""

    config: TanhFunctionConfig


@register(SigmoidFunctionConfig)
class SigmoidFunctionLayer(Module):
    """1 / (1 + exp(-x))."""

    config: SigmoidFunctionConfig


@register(ExpExpFunctionConfig)
class ExpExpFunctionLayer(Module):
    """exp(-c exp(-x)) with the config's scale c."""

    config: ExpExpFunctionConfig


@register(SoftCapFunctionConfig)
class SoftCapFunctionLayer(Module):
    """c tanh(x / c) with the config's scale c."""

    config: SoftCapFunctionConfig


@register(pLSTM1DLayerConfig)
class pLSTM1DLayer(Module):
    """pLSTM on sequences [B, T, D]."""

    config: pLSTM1DLayerConfig


@register(pLSTM2DLayerConfig)
class pLSTM2DLayer(Module):
    """pLSTM on grids [B, X, Y, D], from any list of corners."""

    config: pLSTM2DLayerConfig


@register(pLSTM2DLayerFusedConfig)
class pLSTM2DLayerFused(Module):
    """pLSTM on grids [B, X, Y, D], from all four corners at once."""

    config: pLSTM2DLayerFusedConfig


@register(pLSTMGraphLayerConfig)
class pLSTMGraphLayer(Module):
    """pLSTM on directed acyclic graphs, with gates from node features [N, D]."""

    config: pLSTMGraphLayerConfig


@register(pLSTMGraphEdgeLayerConfig)
class pLSTMGraphEdgeLayer(Module):
    """pLSTM on directed acyclic graphs, with gates from the features of nodes and edges."""

    config: pLSTMGraphEdgeLayerConfig
