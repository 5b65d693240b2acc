"""The configs of the models that the settings of a task describe."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import plstm_config
from plstm_torch.settings import TextSettings, VisionSettings

_CONVOLVED = "STMDQKVO"
_BYTES = 256


def change_at(config: Any, path: str, change: Callable[[Any], Any]) -> Any:
    """Return a config with one part of its tree replaced; everything above the part is made anew.

    Args:
        config: root of the tree, never changed.
        path: names of the fields that lead to the part, with dots between them.
        change: makes the new part from the old.

    Returns:
        The new root.
    """
    name, _, rest = path.partition(".")
    part = getattr(config, name)
    return replace(config, **{name: change_at(part, rest, change) if rest else change(part)})


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
    for block in ("block0", "block1"):
        path = f"block_stack.block.{block}.interaction_module"
        config = change_at(config, path, lambda layer: _adjusted(layer, settings))
    return config


def text_config(settings: TextSettings, dtype: str) -> plstm_config.Config:
    """Return the config of a language model over bytes.

    Args:
        settings: of the model.
        dtype: in which the model computes.

    Returns:
        The config.
    """
    config = plstm_config.preset(
        "plstm_lm_small",
        vocab_size=_BYTES,
        embedding_dim=settings.dim,
        num_heads=settings.num_heads,
        num_blocks=settings.num_blocks,
        state_size=settings.state_size,
        dtype=dtype,
        param_dtype=param_dtype(dtype),
    )
    low, high = settings.transition_bias
    bias = plstm_config.LinspaceInitConfig(low=low, high=high, axis=0)
    path = "block_stack.block.interaction_module.transition"
    return change_at(config, path, lambda transition: replace(transition, eigenvalue_bias_init=bias))


def param_dtype(dtype: str) -> str:
    """Return the type of the parameters of a model that computes in `dtype`."""
    return "float64" if dtype == "float64" else "float32"


def _adjusted(layer: Any, settings: VisionSettings) -> Any:
    """Set what the preset has no argument for, in the config of a 2D layer."""

    def gate(config: Any, bias: float) -> Any:
        constant = plstm_config.ConstantInitConfig(value=bias)
        return replace(config, bias_init=constant, weight_init=_noise(settings.gate_spread))

    changes: dict[str, Any] = {
        "source": gate(layer.source, settings.source_bias),
        "mark": gate(layer.mark, settings.mark_bias),
        "query": replace(layer.query, bias_init=_noise(settings.query_spread)),
        "pmode_orientation_weight_init": _noise(settings.angle_spread),
        "pmode_orientation_scale": settings.angle_scale,
    }
    if settings.convolution:
        types = {"dtype": layer.dtype, "param_dtype": layer.param_dtype}
        convolution = plstm_config.Convolution2DLayerConfig(input_dim=layer.input_dim, **types)
        changes |= {"additional_convolution": True, "convolution_inputs": _CONVOLVED, "convolution": convolution}
    return replace(layer, **changes)


def _noise(spread: float) -> plstm_config.NormalInitConfig | plstm_config.ZerosInitConfig:
    return plstm_config.NormalInitConfig(stddev=spread) if spread else plstm_config.ZerosInitConfig()
