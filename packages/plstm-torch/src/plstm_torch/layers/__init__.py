"""Layers: modules that own parameters and call the ops."""

from plstm_torch.layers.convolution import Convolution1DLayer, Convolution2DLayer
from plstm_torch.layers.gates import DirectLayer, MarkLayer, SourceLayer
from plstm_torch.layers.linear import Linear
from plstm_torch.layers.norms import Identity, LayerNorm, MultiHeadLayerNorm, MultiHeadRMSNorm, RMSNorm
from plstm_torch.layers.plstm_1d import pLSTM1DLayer
from plstm_torch.layers.plstm_2d import pLSTM2DLayer, pLSTM2DLayerFused
from plstm_torch.layers.plstm_graph import pLSTMGraphEdgeLayer, pLSTMGraphLayer
from plstm_torch.layers.pointwise import (
    DropPath,
    ExpExpFunctionLayer,
    PassthroughLayer,
    ScaleLayer,
    SigmoidFunctionLayer,
    SoftCapFunctionLayer,
    TanhFunctionLayer,
)
from plstm_torch.layers.query_key_value import KeyLayer, QueryLayer, ValueLayer
from plstm_torch.layers.transition import LongRangeTransitionLayer

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
