"""Layers: the shells of their configs' formulas in `plstm_jax.layers`, which say what is computed."""

from __future__ import annotations

import plstm_config as configs
from plstm_linen.module import Module


class Convolution1DLayer(Module, config_class=configs.Convolution1DLayerConfig):
    """Depthwise convolution of sequences [B, T, D], causal or centred."""


class Convolution2DLayer(Module, config_class=configs.Convolution2DLayerConfig):
    """Depthwise convolution of grids [B, X, Y, D]."""


class DirectLayer(Module, config_class=configs.DirectLayerConfig):
    """The direct gate, from the input or from a bias alone."""


class DropPath(Module, config_class=configs.DropPathConfig):
    """Stochastic depth: in training, a sample's branch is zero with probability drop_prob."""


class ExpExpFunctionLayer(Module, config_class=configs.ExpExpFunctionConfig):
    """exp(-c exp(-x)) with the config's scale c."""


class Identity(Module, config_class=configs.IdentityConfig):
    """x, where a norm may stand."""


class KeyLayer(Module, config_class=configs.KeyLayerConfig):
    """Keys of each head, from slices of the input."""


class LayerNorm(Module, config_class=configs.LayerNormConfig):
    """Layer normalisation of the last axis."""


class Linear(Module, config_class=configs.LinearConfig):
    """x W^T + b on the last axis."""


class LongRangeTransitionLayer(Module, config_class=configs.LongRangeTransitionLayerConfig):
    """The transition U diag(sigma) V with orthogonal U and V, from the input or from biases alone."""


class MarkLayer(Module, config_class=configs.MarkLayerConfig):
    """The mark gate, from the input or from a bias alone."""


class MultiHeadLayerNorm(Module, config_class=configs.MultiHeadLayerNormConfig):
    """Layer normalisation of each head."""


class MultiHeadRMSNorm(Module, config_class=configs.MultiHeadRMSNormConfig):
    """Root mean square normalisation of each head."""


class PassthroughLayer(Module, config_class=configs.PassthroughLayerConfig):
    """scale * x: the way around the recurrence inside of a pLSTM layer."""


class pLSTM1DLayer(Module, config_class=configs.pLSTM1DLayerConfig):
    """pLSTM on sequences [B, T, D], causal or from both ends."""


class pLSTM2DLayer(Module, config_class=configs.pLSTM2DLayerConfig):
    """pLSTM on grids [B, X, Y, D], from any list of corners."""


class pLSTM2DLayerFused(Module, config_class=configs.pLSTM2DLayerFusedConfig):
    """pLSTM on grids [B, X, Y, D], from all four corners at once."""


class pLSTMGraphEdgeLayer(Module, config_class=configs.pLSTMGraphEdgeLayerConfig):
    """pLSTM on directed acyclic graphs, with gates from the features of nodes and edges."""


class pLSTMGraphLayer(Module, config_class=configs.pLSTMGraphLayerConfig):
    """pLSTM on directed acyclic graphs, with gates from node features [N, D]."""


class QueryLayer(Module, config_class=configs.QueryLayerConfig):
    """Queries of each head, from slices of the input."""


class RMSNorm(Module, config_class=configs.RMSNormConfig):
    """Root mean square normalisation of the last axis."""


class ScaleLayer(Module, config_class=configs.ScaleLayerConfig):
    """scale * x: the layer scale of a residual branch."""


class SigmoidFunctionLayer(Module, config_class=configs.SigmoidFunctionConfig):
    """1 / (1 + exp(-x))."""


class SoftCapFunctionLayer(Module, config_class=configs.SoftCapFunctionConfig):
    """c tanh(x / c) with the config's scale c."""


class SourceLayer(Module, config_class=configs.SourceLayerConfig):
    """The source gate, from the input or from a bias alone."""


class TanhFunctionLayer(Module, config_class=configs.TanhFunctionConfig):
    """tanh(x)."""


class ValueLayer(Module, config_class=configs.ValueLayerConfig):
    """Values of each head, from slices of the input."""
