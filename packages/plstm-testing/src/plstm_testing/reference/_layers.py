"""The small layers: linear maps, gates, projections, transitions, norms, convolutions, and pointwise functions."""

import numpy as np

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
)

from ._activations import activation, elementwise, soft_cap
from ._contractions import Array
from ._convolutions import convolution_1d, convolution_2d
from ._gates import gate, projection
from ._modules import Module, pointwise
from ._norms import layer_norm, multi_head_norm, rms_norm
from ._transition import EIGENVALUES, transition


@pointwise(LinearConfig)
def linear(module: Module, x: Array) -> Array:
    """``y = W x + b``."""
    bias = module.get("bias")
    mapped = x @ module["weight"].T
    return mapped if bias is None else mapped + bias


@pointwise(SourceLayerConfig, MarkLayerConfig, DirectLayerConfig)
def gate_layer(module: Module, x: Array) -> Array:
    """Source, mark and direct: see `gate`."""
    config = module.config
    return gate(x, module["bias"], module.get("weight"), config.activation, config.activation_scale)


@pointwise(QueryLayerConfig, KeyLayerConfig, ValueLayerConfig)
def projection_layer(module: Module, x: Array) -> Array:
    """Query, key and value: see `projection`."""
    config, bias = module.config, module.get("bias")
    if bias is None:
        size = config.DV if isinstance(config, ValueLayerConfig) else config.DK
        bias = np.zeros((config.num_heads, size, module["weight"].shape[2]))
    return projection(x, module["weight"], bias, config.normalization)


@pointwise(LongRangeTransitionLayerConfig)
def transition_layer(module: Module, x: Array) -> Array:
    """Transitions: see `transition`."""
    config = module.config
    return transition(
        x,
        **module.parameters,
        eigenvalue_representation=config.eigenvalue_representation,
        eigenvalue_factor=config.eigenvalue_factor,
        normalization_mode=config.normalization_mode,
        orthogonalization_order=config.orthogonalization_order,
        orthogonalization_factor=config.orthogonalization_factor,
        matrix_exponential=config.matrix_exponential,
    )


@pointwise(RMSNormConfig, LayerNormConfig)
def feature_norm(module: Module, x: Array) -> Array:
    """A norm over the last axis."""
    norm = rms_norm if isinstance(module.config, RMSNormConfig) else layer_norm
    return norm(x, module.get("scale"), module.get("bias"), module.config.eps)


@pointwise(MultiHeadRMSNormConfig, MultiHeadLayerNormConfig)
def head_norm(module: Module, x: Array) -> Array:
    """A norm for each head: see `multi_head_norm`."""
    config = module.config
    kind = "rms" if isinstance(config, MultiHeadRMSNormConfig) else "layer"
    options = {"kind": kind, "axis": config.axis, "num_heads": config.num_heads, "eps": config.eps}
    return multi_head_norm(x, module.get("scale"), module.get("bias"), **options)


@pointwise(IdentityConfig, DropPathConfig)
def identity(module: Module, x: Array) -> Array:
    """The input: no norm at all; and in inference no branch is dropped."""
    return x


@pointwise(Convolution1DLayerConfig)
def sequence_convolution(module: Module, x: Array) -> Array:
    """Depthwise convolution of whole sequences."""
    kernel = module.part("_conv")
    return convolution_1d(x, kernel["weight"], kernel.get("bias"), causal=module.config.causal)


@pointwise(Convolution2DLayerConfig)
def grid_convolution(module: Module, x: Array) -> Array:
    """Depthwise convolution of grids."""
    kernel = module.part("_conv")
    return convolution_2d(x, kernel["weight"], kernel.get("bias"), causal=module.config.causal)


@pointwise(PassthroughLayerConfig, ScaleLayerConfig)
def feature_scale(module: Module, x: Array) -> Array:
    """``scale * x``."""
    return module["scale"] * x


@pointwise(TanhFunctionConfig)
def tanh(module: Module, x: Array) -> Array:
    """``tanh(x)``."""
    return activation("tanh", x)


@pointwise(SigmoidFunctionConfig)
def sigmoid(module: Module, x: Array) -> Array:
    """``1 / (1 + exp(-x))``."""
    return activation("sigmoid", x)


@pointwise(ExpExpFunctionConfig)
def exp_exp(module: Module, x: Array) -> Array:
    """``exp(-c exp(-x))``."""
    return elementwise(lambda entry: EIGENVALUES["expexp"](entry, module.config.scale), x)


@pointwise(SoftCapFunctionConfig)
def cap(module: Module, x: Array) -> Array:
    """``c tanh(x / c)``."""
    return soft_cap(x, module.config.scale)
