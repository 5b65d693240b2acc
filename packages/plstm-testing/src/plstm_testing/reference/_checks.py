"""What modules refuse, in the words that every backend uses."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from plstm_config import (
    Convolution1DLayerConfig,
    Convolution2DLayerConfig,
    DirectLayerConfig,
    KeyLayerConfig,
    LayerNormConfig,
    LinearConfig,
    LongRangeTransitionLayerConfig,
    MarkLayerConfig,
    MultiHeadLayerNormConfig,
    MultiHeadRMSNormConfig,
    PassthroughLayerConfig,
    PatchEmbedConfig,
    QueryLayerConfig,
    RMSNormConfig,
    ScaleLayerConfig,
    SourceLayerConfig,
    TokenEmbeddingConfig,
    ValueLayerConfig,
    pLSTM1DLayerConfig,
    pLSTM2DLayerConfig,
    pLSTM2DLayerFusedConfig,
    pLSTMGraphEdgeLayerConfig,
    pLSTMGraphLayerConfig,
    pLSTMGraphModelConfig,
    pLSTMLMModelConfig,
    pLSTMVisionModelConfig,
)
from plstm_config.base import Config
from plstm_config.checks import (
    check_features,
    check_heads,
    check_integers,
    check_on_graph,
    check_pixels,
    check_rank,
    check_sequence,
)
from plstm_config.options import check_cu_seqlens

_POSITIONS = (
    *(SourceLayerConfig, MarkLayerConfig, DirectLayerConfig, LongRangeTransitionLayerConfig),
    *(QueryLayerConfig, KeyLayerConfig, ValueLayerConfig, LinearConfig, PassthroughLayerConfig, ScaleLayerConfig),
    *(RMSNormConfig, LayerNormConfig),
)
_HEAD_NORMS = (MultiHeadRMSNormConfig, MultiHeadLayerNormConfig)
_AXES = {
    **dict.fromkeys(_POSITIONS, "... D"),
    **dict.fromkeys((Convolution1DLayerConfig, pLSTM1DLayerConfig), "B T D"),
    **dict.fromkeys((Convolution2DLayerConfig, pLSTM2DLayerConfig, pLSTM2DLayerFusedConfig), "B X Y D"),
    **dict.fromkeys((pLSTMGraphLayerConfig, pLSTMGraphEdgeLayerConfig, pLSTMGraphModelConfig), "N D"),
}


def check_call(config: Config, x: Any, graph: Any, edge_attr: Any, cu_seqlens: Any, requests: Sequence[str]) -> None:
    """Refuse what a module cannot do, and input that does not fit it.

    Args:
        config: of the module.
        x: its input.
        graph: given graph, or None.
        edge_attr: features of edges, or None.
        cu_seqlens: borders of packed sequences, or None.
        requests: names of the arguments and methods for sequences that are used.

    Raises:
        TypeError: if something has a wrong type.
        ValueError: if something has a wrong shape, or is of no use to the module.
    """
    owner = str(getattr(config, "class_name", type(config).__name__))
    check_sequence(config.kind, owner, requests)
    check_on_graph(config.kind, owner, graph, edge_attr)
    axes = "B D" if "step" in requests and _AXES.get(type(config)) else _AXES.get(type(config))
    if axes is not None:
        check_features(x, axes, config.input_dim)  # type: ignore[attr-defined]  # every module in the table has it
    elif isinstance(config, _HEAD_NORMS):
        _check_head_norm(config, x)
    elif isinstance(config, TokenEmbeddingConfig | pLSTMLMModelConfig):
        check_rank("token_ids", x, "B" if "step" in requests else "B, T")
        check_integers("token_ids", x.dtype, integers=x.dtype.kind in "iu")
    elif isinstance(config, PatchEmbedConfig | pLSTMVisionModelConfig):
        patches = config if isinstance(config, PatchEmbedConfig) else config.patch_embed
        check_pixels(x, patches, floating=x.dtype.kind == "f")
    if cu_seqlens is not None:
        check_cu_seqlens(cu_seqlens, x.shape[1])


def _check_head_norm(config: Any, x: np.ndarray) -> None:
    """Heads stand on an axis of their own, or side by side on the last one."""
    if config.axis is None:
        check_features(x, "... D", config.input_dim)
    else:
        check_heads(x, config.num_heads, config.axis)
        check_features(x, "... D", config.input_dim // config.num_heads)
