"""The formulas of layers, as `plstm_jax.formulas` describes them: importing this registers them."""

from plstm_jax.layers.convolution import convolution_1d, convolution_2d
from plstm_jax.layers.gates import gate, transition
from plstm_jax.layers.linear import linear
from plstm_jax.layers.norms import feature_norm, head_norm, identity
from plstm_jax.layers.plstm_1d import empty_cache, plstm_1d_layer
from plstm_jax.layers.plstm_2d import plstm_2d_layer, plstm_2d_layer_fused
from plstm_jax.layers.plstm_graph import plstm_graph_edge_layer, plstm_graph_layer
from plstm_jax.layers.pointwise import (
    drop_path,
    exp_exp_function,
    feature_scale,
    sigmoid_function,
    soft_cap_function,
    tanh_function,
)
from plstm_jax.layers.query_key_value import head_linear

__all__ = [
    "convolution_1d",
    "convolution_2d",
    "drop_path",
    "empty_cache",
    "exp_exp_function",
    "feature_norm",
    "feature_scale",
    "gate",
    "head_linear",
    "head_norm",
    "identity",
    "linear",
    "plstm_1d_layer",
    "plstm_2d_layer",
    "plstm_2d_layer_fused",
    "plstm_graph_edge_layer",
    "plstm_graph_layer",
    "sigmoid_function",
    "soft_cap_function",
    "tanh_function",
    "transition",
]
