"""What is right: pLSTM in float64 numpy, by plain loops over steps, cells and edges.

Every function follows one equation of the paper and takes plain arrays. Nothing here is meant to be fast, and nothing
is shared with a backend: a fast form that agrees with these loops agrees for a reason.

`apply` is what a module computes: any layer, block or model, from its config and its parameters by name. The formulas
stand in `_layers` (the small parts), `_layers_1d`, `_layers_2d`, `_layers_graph`, `_blocks`, `_embeddings`, `_models`.
"""

from . import _blocks, _embeddings, _layers, _layers_1d, _layers_2d, _layers_graph, _models  # noqa: F401  (their formulas enter the table)
from ._activations import ACTIVATIONS, activation, soft_cap
from ._convolutions import convolution_1d, convolution_2d
from ._gates import direct, gate, mark, projection, source
from ._initializers import fixed_values, init, is_drawn, quantiles
from ._modules import apply, module_classes, step
from ._norms import layer_norm, multi_head_norm, rms_norm
from ._orthogonal import NORMALIZATIONS, normalize
from ._plstm_1d import plstm_1d, plstm_1d_gradients, plstm_1d_step, plstm_1d_step_gradients
from ._plstm_2d import plstm_2d, plstm_2d_gradients
from ._plstm_2d_oriented import plstm_2d_oriented, plstm_2d_oriented_gradients
from ._plstm_graph import plstm_graph, plstm_graph_gradients
from ._transition import EIGENVALUES, transition

__all__ = [
    "ACTIVATIONS",
    "EIGENVALUES",
    "NORMALIZATIONS",
    "activation",
    "apply",
    "convolution_1d",
    "convolution_2d",
    "direct",
    "fixed_values",
    "gate",
    "init",
    "is_drawn",
    "layer_norm",
    "mark",
    "module_classes",
    "multi_head_norm",
    "normalize",
    "plstm_1d",
    "plstm_1d_gradients",
    "plstm_1d_step",
    "plstm_1d_step_gradients",
    "plstm_2d",
    "plstm_2d_gradients",
    "plstm_2d_oriented",
    "plstm_2d_oriented_gradients",
    "plstm_graph",
    "plstm_graph_gradients",
    "projection",
    "quantiles",
    "rms_norm",
    "soft_cap",
    "source",
    "step",
    "transition",
]
