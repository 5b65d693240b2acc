"""Layers: modules that hold parameters, and call the formulas of plstm-jax."""

from __future__ import annotations

from typing import Any

from flax import nnx

from plstm_nnx.module import Module


class Linear(Module):
    """A linear map: `weight` [out, in], as in every backend, and `bias`."""


class SourceLayer(Module):
    """How strongly a node writes into its outgoing edges."""


class MarkLayer(Module):
    """How strongly a node reads its incoming edges."""


class DirectLayer(Module):
    """How strongly a node reads its own input."""


class LongRangeTransitionLayer(Module):
    """What passes from an edge to the next: a number, or a matrix of bounded norm."""


class QueryLayer(Module):
    """Queries of all heads."""


class KeyLayer(Module):
    """Keys of all heads."""


class ValueLayer(Module):
    """Values of all heads."""


class RMSNorm(Module):
    """Features by their root mean square."""


class LayerNorm(Module):
    """Features less their mean, by their deviation."""


class MultiHeadRMSNorm(Module):
    """`RMSNorm` of each head."""


class MultiHeadLayerNorm(Module):
    """`LayerNorm` of each head."""


class Identity(Module):
    """No norm."""


class Convolution1DLayer(Module):
    """Depthwise convolution of sequences, causal or centred; its kernel is `_conv.weight` [D, 1, k]."""


class Convolution2DLayer(Module):
    """Depthwise convolution of grids; its kernel is `_conv.weight` [D, 1, kx, ky]."""


class PassthroughLayer(Module):
    """The input past a layer, scaled."""


class ScaleLayer(Module):
    """A branch, scaled."""


class DropPath(Module):
    """Stochastic depth, with a random stream of its own (`rngs`), made from the stream "dropout"."""

    rngs: nnx.RngStream | None

    def __init__(self, config: Any, *, rngs: nnx.Rngs, **options: Any) -> None:
        super().__init__(config, rngs=rngs, **options)
        self.rngs = rngs["dropout"].fork() if config.drop_prob > 0.0 else None


class TanhFunctionLayer(Module):
    """tanh(x)."""


class SigmoidFunctionLayer(Module):
    """1 / (1 + exp(-x))."""


class ExpExpFunctionLayer(Module):
    """exp(-c exp(-x))."""


class SoftCapFunctionLayer(Module):
    """c tanh(x / c)."""


class pLSTM1DLayer(Module):
    """pLSTM on sequences: causal, with cache and steps, or from both ends of whole sequences."""


class pLSTM2DLayer(Module):
    """pLSTM on grids, in any list of orientations."""


class pLSTM2DLayerFused(Module):
    """pLSTM on grids, from all four corners at once."""


class pLSTMGraphLayer(Module):
    """pLSTM on directed acyclic graphs, with gates from nodes."""


class pLSTMGraphEdgeLayer(Module):
    """pLSTM on directed acyclic graphs, with gates from nodes and edges."""
