"""Layers: modules that hold parameters, and call the formulas of plstm-jax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import nnx

import plstm_config as configs
from plstm_nnx.module import Module


class Linear(Module, config_class=configs.LinearConfig):
    """A linear map: `weight` [out, in], as in every backend, and `bias`."""


class SourceLayer(Module, config_class=configs.SourceLayerConfig):
    """How strongly a node writes into its outgoing edges."""


class MarkLayer(Module, config_class=configs.MarkLayerConfig):
    """How strongly a node reads its incoming edges."""


class DirectLayer(Module, config_class=configs.DirectLayerConfig):
    """How strongly a node reads its own input."""


class LongRangeTransitionLayer(Module, config_class=configs.LongRangeTransitionLayerConfig):
    """What passes from an edge to the next: a number, or a matrix of bounded norm."""


class QueryLayer(Module, config_class=configs.QueryLayerConfig):
    """Queries of all heads."""


class KeyLayer(Module, config_class=configs.KeyLayerConfig):
    """Keys of all heads."""


class ValueLayer(Module, config_class=configs.ValueLayerConfig):
    """Values of all heads."""


class RMSNorm(Module, config_class=configs.RMSNormConfig):
    """Features by their root mean square."""


class LayerNorm(Module, config_class=configs.LayerNormConfig):
    """Features less their mean, by their deviation."""


class MultiHeadRMSNorm(Module, config_class=configs.MultiHeadRMSNormConfig):
    """`RMSNorm` of each head."""


class MultiHeadLayerNorm(Module, config_class=configs.MultiHeadLayerNormConfig):
    """`LayerNorm` of each head."""


class Identity(Module, config_class=configs.IdentityConfig):
    """No norm."""


class Convolution1DLayer(Module, config_class=configs.Convolution1DLayerConfig):
    """Depthwise causal convolution of sequences; its kernel is `_conv.weight` [D, 1, k]."""


class Convolution2DLayer(Module, config_class=configs.Convolution2DLayerConfig):
    """Depthwise convolution of grids; its kernel is `_conv.weight` [D, 1, kx, ky]."""


class PassthroughLayer(Module, config_class=configs.PassthroughLayerConfig):
    """The input past a layer, scaled."""


class ScaleLayer(Module, config_class=configs.ScaleLayerConfig):
    """A branch, scaled."""


class DropPath(Module, config_class=configs.DropPathConfig):
    """Stochastic depth, with a random stream of its own (`rngs`), made from the stream "dropout"."""

    rngs: nnx.RngStream | None

    def __init__(
        self, config: configs.DropPathConfig, *, rngs: nnx.Rngs, params: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(config, rngs=rngs, params=params, **options)
        self.rngs = rngs["dropout"].fork() if config.drop_prob > 0.0 else None


class TanhFunctionLayer(Module, config_class=configs.TanhFunctionConfig):
    """tanh(x)."""


class SigmoidFunctionLayer(Module, config_class=configs.SigmoidFunctionConfig):
    """1 / (1 + exp(-x))."""


class ExpExpFunctionLayer(Module, config_class=configs.ExpExpFunctionConfig):
    """exp(-c exp(-x))."""


class SoftCapFunctionLayer(Module, config_class=configs.SoftCapFunctionConfig):
    """c tanh(x / c)."""


class pLSTM1DLayer(Module, config_class=configs.pLSTM1DLayerConfig):
    """Causal pLSTM on sequences, with cache and steps."""


class pLSTM2DLayer(Module, config_class=configs.pLSTM2DLayerConfig):
    """pLSTM on grids, in any list of orientations."""


class pLSTM2DLayerFused(Module, config_class=configs.pLSTM2DLayerFusedConfig):
    """pLSTM on grids, from all four corners at once."""


class pLSTMGraphLayer(Module, config_class=configs.pLSTMGraphLayerConfig):
    """pLSTM on directed acyclic graphs, with gates from nodes."""


class pLSTMGraphEdgeLayer(Module, config_class=configs.pLSTMGraphEdgeLayerConfig):
    """pLSTM on directed acyclic graphs, with gates from nodes and edges."""
