"""Configurations of pLSTM, free of any framework: every backend reads the same ones."""

from plstm_config import topology
from plstm_config.base import (
    Config,
)
from plstm_config.blocks import (
    BlockStackConfig,
    PostUpProjectionBlockConfig,
    PreUpProjectionBlockConfig,
    TransformerBlockConfig,
    pLSTMGraphBlockConfig,
    pLSTMGraphEdgeBlockConfig,
    pLSTMVisionBlockConfig,
)
from plstm_config.convolution import (
    Convolution1DLayerConfig,
    Convolution2DLayerConfig,
)
from plstm_config.gates import (
    DirectLayerConfig,
    MarkLayerConfig,
    SourceLayerConfig,
)
from plstm_config.initializers import (
    ConstantInitConfig,
    DiagonalInitConfig,
    LinspaceInitConfig,
    LogspaceInitConfig,
    NormalInitConfig,
    OnesInitConfig,
    SmallInitConfig,
    TruncatedNormalInitConfig,
    WangInitConfig,
    XavierInitConfig,
    ZerosInitConfig,
)
from plstm_config.models import (
    PatchEmbedConfig,
    PosEmbed2DConfig,
    pLSTMGraphModelConfig,
    pLSTMLMModelConfig,
    pLSTMVisionModelConfig,
)
from plstm_config.norms import (
    IdentityConfig,
    LayerNormConfig,
    MultiHeadLayerNormConfig,
    MultiHeadRMSNormConfig,
    RMSNormConfig,
)
from plstm_config.plstm_1d import (
    pLSTM1DLayerConfig,
)
from plstm_config.plstm_2d import (
    pLSTM2DLayerConfig,
    pLSTM2DLayerFusedConfig,
)
from plstm_config.plstm_graph import (
    pLSTMGraphEdgeLayerConfig,
    pLSTMGraphLayerConfig,
)
from plstm_config.pointwise import (
    DropPathConfig,
    ExpExpFunctionConfig,
    PassthroughLayerConfig,
    ScaleLayerConfig,
    SigmoidFunctionConfig,
    SoftCapFunctionConfig,
    TanhFunctionConfig,
)
from plstm_config.presets import preset, preset_names
from plstm_config.query_key_value import (
    KeyLayerConfig,
    QueryLayerConfig,
    ValueLayerConfig,
)
from plstm_config.serialization import (
    config_class,
    from_dict,
    json_schema,
    load,
    save,
    to_dict,
)
from plstm_config.transition import (
    LongRangeTransitionLayerConfig,
)

__version__ = "0.1.0"

__all__ = [
    "BlockStackConfig",
    "Config",
    "ConstantInitConfig",
    "Convolution1DLayerConfig",
    "Convolution2DLayerConfig",
    "DiagonalInitConfig",
    "DirectLayerConfig",
    "DropPathConfig",
    "ExpExpFunctionConfig",
    "IdentityConfig",
    "KeyLayerConfig",
    "LayerNormConfig",
    "LinspaceInitConfig",
    "LogspaceInitConfig",
    "LongRangeTransitionLayerConfig",
    "MarkLayerConfig",
    "MultiHeadLayerNormConfig",
    "MultiHeadRMSNormConfig",
    "NormalInitConfig",
    "OnesInitConfig",
    "PassthroughLayerConfig",
    "PatchEmbedConfig",
    "PosEmbed2DConfig",
    "PostUpProjectionBlockConfig",
    "PreUpProjectionBlockConfig",
    "QueryLayerConfig",
    "RMSNormConfig",
    "ScaleLayerConfig",
    "SigmoidFunctionConfig",
    "SmallInitConfig",
    "SoftCapFunctionConfig",
    "SourceLayerConfig",
    "TanhFunctionConfig",
    "TransformerBlockConfig",
    "TruncatedNormalInitConfig",
    "ValueLayerConfig",
    "WangInitConfig",
    "XavierInitConfig",
    "ZerosInitConfig",
    "__version__",
    "config_class",
    "from_dict",
    "json_schema",
    "load",
    "pLSTM1DLayerConfig",
    "pLSTM2DLayerConfig",
    "pLSTM2DLayerFusedConfig",
    "pLSTMGraphBlockConfig",
    "pLSTMGraphEdgeBlockConfig",
    "pLSTMGraphEdgeLayerConfig",
    "pLSTMGraphLayerConfig",
    "pLSTMGraphModelConfig",
    "pLSTMLMModelConfig",
    "pLSTMVisionBlockConfig",
    "pLSTMVisionModelConfig",
    "preset",
    "preset_names",
    "save",
    "to_dict",
    "topology",
]
