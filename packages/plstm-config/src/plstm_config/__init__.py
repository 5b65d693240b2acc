"""Configurations of pLSTM, free of any framework: every backend reads the same ones.

Names are loaded on first use, so that who needs the checks of arguments only does not load the configurations.
"""

from typing import TYPE_CHECKING

from plstm_config.lazy import lazily
from plstm_config.version import __version__

if TYPE_CHECKING:
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
    from plstm_config.changing import (
        change,
    )
    from plstm_config.convolution import (
        Convolution1DLayerConfig,
        Convolution2DLayerConfig,
    )
    from plstm_config.embeddings import (
        PatchEmbedConfig,
        PosEmbed2DConfig,
        TokenEmbeddingConfig,
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
        UniformInitConfig,
        WangInitConfig,
        XavierInitConfig,
        ZerosInitConfig,
    )
    from plstm_config.linear import (
        LinearConfig,
    )
    from plstm_config.models import (
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
    from plstm_config.parameters import (
        Parameter,
        count_parameters,
        named_configs,
        parameter_tree,
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
    from plstm_config.presets import (
        preset,
        preset_names,
    )
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


_HOME = {
    "topology": ("topology",),
    "base": ("Config",),
    "blocks": (
        "BlockStackConfig",
        "PostUpProjectionBlockConfig",
        "PreUpProjectionBlockConfig",
        "TransformerBlockConfig",
        "pLSTMGraphBlockConfig",
        "pLSTMGraphEdgeBlockConfig",
        "pLSTMVisionBlockConfig",
    ),
    "changing": ("change",),
    "convolution": (
        "Convolution1DLayerConfig",
        "Convolution2DLayerConfig",
    ),
    "gates": (
        "DirectLayerConfig",
        "MarkLayerConfig",
        "SourceLayerConfig",
    ),
    "initializers": (
        "ConstantInitConfig",
        "DiagonalInitConfig",
        "LinspaceInitConfig",
        "LogspaceInitConfig",
        "NormalInitConfig",
        "OnesInitConfig",
        "SmallInitConfig",
        "TruncatedNormalInitConfig",
        "UniformInitConfig",
        "WangInitConfig",
        "XavierInitConfig",
        "ZerosInitConfig",
    ),
    "linear": ("LinearConfig",),
    "embeddings": (
        "PatchEmbedConfig",
        "PosEmbed2DConfig",
        "TokenEmbeddingConfig",
    ),
    "models": (
        "pLSTMGraphModelConfig",
        "pLSTMLMModelConfig",
        "pLSTMVisionModelConfig",
    ),
    "norms": (
        "IdentityConfig",
        "LayerNormConfig",
        "MultiHeadLayerNormConfig",
        "MultiHeadRMSNormConfig",
        "RMSNormConfig",
    ),
    "parameters": (
        "Parameter",
        "count_parameters",
        "named_configs",
        "parameter_tree",
    ),
    "plstm_1d": ("pLSTM1DLayerConfig",),
    "plstm_2d": (
        "pLSTM2DLayerConfig",
        "pLSTM2DLayerFusedConfig",
    ),
    "plstm_graph": (
        "pLSTMGraphEdgeLayerConfig",
        "pLSTMGraphLayerConfig",
    ),
    "pointwise": (
        "DropPathConfig",
        "ExpExpFunctionConfig",
        "PassthroughLayerConfig",
        "ScaleLayerConfig",
        "SigmoidFunctionConfig",
        "SoftCapFunctionConfig",
        "TanhFunctionConfig",
    ),
    "presets": (
        "preset",
        "preset_names",
    ),
    "query_key_value": (
        "KeyLayerConfig",
        "QueryLayerConfig",
        "ValueLayerConfig",
    ),
    "serialization": (
        "config_class",
        "from_dict",
        "json_schema",
        "load",
        "save",
        "to_dict",
    ),
    "transition": ("LongRangeTransitionLayerConfig",),
}
__getattr__, __dir__ = lazily(__name__, {name: f".{module}" for module, names in _HOME.items() for name in names})

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
    "LinearConfig",
    "LinspaceInitConfig",
    "LogspaceInitConfig",
    "LongRangeTransitionLayerConfig",
    "MarkLayerConfig",
    "MultiHeadLayerNormConfig",
    "MultiHeadRMSNormConfig",
    "NormalInitConfig",
    "OnesInitConfig",
    "Parameter",
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
    "TokenEmbeddingConfig",
    "TransformerBlockConfig",
    "TruncatedNormalInitConfig",
    "UniformInitConfig",
    "ValueLayerConfig",
    "WangInitConfig",
    "XavierInitConfig",
    "ZerosInitConfig",
    "__version__",
    "change",
    "config_class",
    "count_parameters",
    "from_dict",
    "json_schema",
    "load",
    "named_configs",
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
    "parameter_tree",
    "preset",
    "preset_names",
    "save",
    "to_dict",
    "topology",
]
