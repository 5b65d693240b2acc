"""The configs of the models that the settings of a task describe."""

from typing import Any

import plstm_config
from plstm_torch.settings import TextSettings, VisionSettings

_CONVOLVED = "STMDQKVO"


def vision_config(
    settings: VisionSettings, *, size: int, num_classes: int, num_channels: int, dtype: str
) -> plstm_config.Config:
    """Return the config of a pLSTM-Vis for square images.

    Args:
        settings: of the model.
        size: side of the images in pixels.
        num_classes: number of classes.
        num_channels: channels of the images.
        dtype: in which the model computes.

    Returns:
        The config.
    """
    config = plstm_config.preset(
        "plstm_vis_tiny",
        dim=settings.dim,
        num_heads=settings.num_heads,
        num_blocks=settings.num_blocks // 2,
        patch_size=settings.patch_size,
        drop_path_rate=settings.drop_path_rate,
        use_pos_embed=settings.position,
        resolution=(size, size),
        output_shape=(num_classes,),
        num_channels=num_channels,
        dtype=dtype,
        param_dtype=param_dtype(dtype),
    )
    changes = {
        f"block_stack.block.{block}.interaction_module.{name}": value
        for block in ("block0", "block1")
        for name, value in _adjustments(settings).items()
    }
    return plstm_config.change(config, changes)


def text_config(settings: TextSettings, vocabulary: int, dtype: str) -> plstm_config.Config:
    """Return the config of a language model.

    Args:
        settings: of the model.
        vocabulary: number of tokens.
        dtype: in which the model computes.

    Returns:
        The config.
    """
    config = plstm_config.preset(
        "plstm_lm_small",
        vocab_size=vocabulary,
        embedding_dim=settings.dim,
        num_heads=settings.num_heads,
        num_blocks=settings.num_blocks,
        state_size=settings.state_size,
        dtype=dtype,
        param_dtype=param_dtype(dtype),
    )
    low, high = settings.transition_bias
    bias = plstm_config.LinspaceInitConfig(low=low, high=high, axis=0)
    return plstm_config.change(config, {"block_stack.block.interaction_module.transition.eigenvalue_bias_init": bias})


def param_dtype(dtype: str) -> str:
    """Return the type of the parameters of a model that computes in `dtype`."""
    return "float64" if dtype == "float64" else "float32"


def _adjustments(settings: VisionSettings) -> dict[str, Any]:
    """What the preset has no argument for, by its name in the config of a 2D layer."""
    found: dict[str, Any] = {
        "source.bias_init": plstm_config.ConstantInitConfig(value=settings.source_bias),
        "source.weight_init": _noise(settings.gate_spread),
        "mark.bias_init": plstm_config.ConstantInitConfig(value=settings.mark_bias),
        "mark.weight_init": _noise(settings.gate_spread),
        "query.bias_init": _noise(settings.query_spread),
        "pmode_orientation_weight_init": _noise(settings.angle_spread),
        "pmode_orientation_scale": settings.angle_scale,
    }
    if settings.convolution:
        found |= {"additional_convolution": True, "convolution_inputs": _CONVOLVED}
    return found


def _noise(spread: float) -> plstm_config.NormalInitConfig | plstm_config.ZerosInitConfig:
    return plstm_config.NormalInitConfig(stddev=spread) if spread else plstm_config.ZerosInitConfig()
