"""Models by name: pLSTM-Vis with its ablations and the ViT baselines as in the paper (appendix E), language models."""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from inspect import signature
from typing import Any

from plstm_config.base import Config, DType
from plstm_config.blocks import (
    BlockMode,
    BlockStackConfig,
    PostUpProjectionBlockConfig,
    PreUpProjectionBlockConfig,
    TransformerBlockConfig,
    pLSTMVisionBlockConfig,
)
from plstm_config.gates import DirectLayerConfig, MarkLayerConfig, SourceLayerConfig
from plstm_config.initializers import ConstantInitConfig
from plstm_config.models import Pooling, pLSTMLMModelConfig, pLSTMVisionModelConfig
from plstm_config.norms import MultiHeadRMSNormConfig, RMSNormConfig
from plstm_config.plstm_1d import pLSTM1DLayerConfig
from plstm_config.plstm_2d import pLSTM2DLayerFusedConfig
from plstm_config.query_key_value import KeyLayerConfig, QueryLayerConfig, ValueLayerConfig
from plstm_config.transition import LongRangeTransitionLayerConfig

_ORIENTATIONS = 4
_PAIRS = 6


def plstm_vis(
    *,
    dim: int,
    num_heads: int,
    num_blocks: int = _PAIRS,
    block_mode: BlockMode = "PD",
    gate_weights: bool = True,
    use_pos_embed: bool = True,
    output_shape: int | Sequence[int] = 1000,
    resolution: int | Sequence[int] = 224,
    patch_size: int = 16,
    num_channels: int = 3,
    channels_first: bool = False,
    pooling: Pooling = "corners",
    drop_path_rate: float = 0.0,
    dtype: DType = "float32",
    param_dtype: DType = "float32",
) -> pLSTMVisionModelConfig:
    """Make a pLSTM-Vis: pairs of post-up-projection blocks around fused 2D layers.

    Args:
        dim: width.
        num_heads: heads of each layer; dim / num_heads is the head dimension.
        num_blocks: pairs of blocks.
        block_mode: modes of a pair.
        gate_weights: whether source, mark and transition depend on the input.
        use_pos_embed: whether there is a positional embedding.
        output_shape: number of classes, or (number of classes,).
        resolution: (height, width) of the images, or one number for both.
        patch_size: side of a patch.
        num_channels: channels of the images.
        channels_first: images are [B, C, height, width].
        pooling: see pLSTMVisionModelConfig.
        drop_path_rate: probability to drop a pair for a sample in training.
        dtype: type to compute in.
        param_dtype: type of the parameters.

    Returns:
        The config.
    """
    types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}

    def block(mode: str) -> PostUpProjectionBlockConfig:
        layer = _vision_layer(mode, num_heads, gate_weights, types)
        return PostUpProjectionBlockConfig(input_dim=dim, interaction_module=layer, norm=RMSNormConfig(), **types)

    pair = pLSTMVisionBlockConfig(
        input_dim=dim,
        num_heads=num_heads,
        block_mode=block_mode,
        block0=block(block_mode[0]),
        block1=block(block_mode[1]),
        drop_path_rate=drop_path_rate,
        **types,
    )
    return pLSTMVisionModelConfig(
        dim=dim,
        num_heads=num_heads,
        num_blocks=num_blocks,
        block_stack=BlockStackConfig(input_dim=dim, num_blocks=num_blocks, block=pair, **types),
        norm=RMSNormConfig(),
        use_pos_embed=use_pos_embed,
        output_shape=_numbers("output_shape", output_shape, 1),
        resolution=_pair(resolution),
        patch_size=patch_size,
        num_channels=num_channels,
        channels_first=channels_first,
        pooling=pooling,
        **types,
    )


def _vision_layer(mode: Any, num_heads: int, gate_weights: bool, types: dict[str, Any]) -> pLSTM2DLayerFusedConfig:
    sub_heads = _ORIENTATIONS * num_heads

    def gate(bias: float) -> dict[str, Any]:
        init = ConstantInitConfig(value=bias)
        return {"bias_init": init, "sub_heads": sub_heads, "weight": gate_weights, **types}

    direct_init = ConstantInitConfig(value=-6.0)
    return pLSTM2DLayerFusedConfig(
        mode=mode,
        num_heads=num_heads,
        source=SourceLayerConfig(**gate(-4.0)),
        mark=MarkLayerConfig(**gate(-4.0)),
        direct=DirectLayerConfig(bias_init=direct_init, weight=False, **types),
        transition=LongRangeTransitionLayerConfig(sub_heads=sub_heads, weight=gate_weights, **types),
        query=QueryLayerConfig(sub_heads=1, **types),
        key=KeyLayerConfig(sub_heads=1, **types),
        value=ValueLayerConfig(sub_heads=1, **types),
        mhnorm=MultiHeadRMSNormConfig(),
        **types,
    )


def vit(
    *,
    dim: int,
    num_heads: int,
    num_blocks: int = 12,
    output_shape: int | Sequence[int] = 1000,
    resolution: int | Sequence[int] = 224,
    patch_size: int = 16,
    num_channels: int = 3,
    channels_first: bool = False,
    pooling: Pooling = "cls",
    drop_path_rate: float = 0.0,
    dtype: DType = "float32",
    param_dtype: DType = "float32",
) -> pLSTMVisionModelConfig:
    """Make a vision transformer, the baseline; arguments as in `plstm_vis`."""
    types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
    block = TransformerBlockConfig(input_dim=dim, num_heads=num_heads, drop_path_rate=drop_path_rate, **types)
    return pLSTMVisionModelConfig(
        dim=dim,
        num_heads=num_heads,
        num_blocks=num_blocks,
        block_stack=BlockStackConfig(input_dim=dim, num_blocks=num_blocks, block=block, **types),
        output_shape=_numbers("output_shape", output_shape, 1),
        resolution=_pair(resolution),
        patch_size=patch_size,
        num_channels=num_channels,
        channels_first=channels_first,
        pooling=pooling,
        **types,
    )


def plstm_lm(
    *,
    vocab_size: int = 50_304,
    embedding_dim: int,
    num_blocks: int,
    num_heads: int = 4,
    state_size: int = 1,
    tie_weights: bool = False,
    dtype: DType = "float32",
    param_dtype: DType = "float32",
) -> pLSTMLMModelConfig:
    """Make a language model of gated pre-up-projection blocks with input-dependent gates.

    Args:
        vocab_size: number of tokens.
        embedding_dim: width.
        num_blocks: number of blocks.
        num_heads: heads of each layer.
        state_size: JT = JV = JO; one is a scalar transition, more tracks states.
        tie_weights: whether the head uses the embedding's table.
        dtype: type to compute in.
        param_dtype: type of the parameters.

    Returns:
        The config.
    """
    types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}

    def gate(bias: float) -> dict[str, Any]:
        return {"bias_init": ConstantInitConfig(value=bias), "weight": True, **types}

    layer = pLSTM1DLayerConfig(
        num_heads=num_heads,
        JT=state_size,
        JV=state_size,
        JO=state_size,
        source=SourceLayerConfig(**gate(-4.0)),
        mark=MarkLayerConfig(**gate(-4.0)),
        direct=DirectLayerConfig(**gate(-4.0)),
        outprojection=False,
        **types,
    )
    block = PreUpProjectionBlockConfig(input_dim=embedding_dim, interaction_module=layer, **types)
    return pLSTMLMModelConfig(
        vocab_size=vocab_size,
        embedding_dim=embedding_dim,
        num_blocks=num_blocks,
        tie_weights=tie_weights,
        block_stack=BlockStackConfig(input_dim=embedding_dim, num_blocks=num_blocks, block=block, **types),
        **types,
    )


def _pair(resolution: int | Sequence[int]) -> tuple[int, int]:
    sides = _numbers("resolution", resolution, 2)
    if len(sides) != 2:
        raise ValueError(f"resolution: expected (height, width), got {sides}")
    return sides[0], sides[1]


def _numbers(name: str, given: int | Sequence[int], times: int) -> tuple[int, ...]:
    """Numbers of which one may stand for all; what they are is the config's to check."""
    if isinstance(given, int):
        return (given,) * times
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{name}: expected a number or a sequence of numbers, got {given!r}")
    return tuple(given)


_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"dim": 192, "num_heads": 3},
    "small": {"dim": 384, "num_heads": 6},
    "base": {"dim": 768, "num_heads": 12},
}
_ABLATIONS: dict[str, dict[str, Any]] = {
    "": {},
    "_p_only": {"block_mode": "PP"},
    "_d_only": {"block_mode": "DD"},
    "_bias_only": {"gate_weights": False},
    "_no_posemb": {"use_pos_embed": False},
}
_PRESETS: dict[str, Callable[..., Config]] = {
    **{
        f"plstm_vis_{size}{ablation}": partial(plstm_vis, **dims, **changes)
        for size, dims in _SIZES.items()
        for ablation, changes in _ABLATIONS.items()
    },
    **{f"vit_{size}": partial(vit, **dims) for size, dims in _SIZES.items()},
    "plstm_lm_small": partial(plstm_lm, embedding_dim=768, num_blocks=12),
    "plstm_lm_medium": partial(plstm_lm, embedding_dim=1024, num_blocks=24),
    "plstm_lm_small_state_tracking": partial(plstm_lm, embedding_dim=768, num_blocks=12, state_size=4),
}


_ALIASES = {"num_classes": "output_shape", "img_size": "resolution", "in_chans": "num_channels"}


def preset_names() -> tuple[str, ...]:
    """The names that `preset` knows.

    Examples:
        >>> import plstm_config
        >>> [name for name in plstm_config.preset_names() if name.startswith("vit")]
        ['vit_tiny', 'vit_small', 'vit_base']
    """
    return tuple(_PRESETS)


def preset(name: str, **changes: Any) -> Config:
    """Make a model's config by name.

    Args:
        name: such as "plstm_vis_tiny"; see `preset_names`.
        **changes: arguments of the maker instead of the preset's, such as `output_shape`, `resolution`, `dtype`; they
            reach the whole tree. The names of the field are understood, too: `num_classes` for `output_shape`,
            `img_size` for `resolution`, `in_chans` for `num_channels`.

    Returns:
        The config.

    Raises:
        TypeError: if a value has the wrong type.
        ValueError: if the name or that of an argument is unknown; the message lists all and suggests the nearest.

    Examples:
        >>> import plstm_config
        >>> plstm_config.preset("plstm_vis_tiny", num_classes=10, img_size=64).output_shape
        (10,)
    """
    if not isinstance(name, str) or name not in _PRESETS:
        raise ValueError(f"name: expected one of {', '.join(_PRESETS)}, got {name!r}{_suggestion(name, _PRESETS)}")
    maker = _PRESETS[name]
    known = list(signature(maker).parameters)
    aliases = {alias: argument for alias, argument in _ALIASES.items() if argument in known}
    arguments: dict[str, Any] = {}
    for given, value in changes.items():
        argument = aliases.get(given, given)
        if argument not in known:
            expected = ", ".join([*known, *aliases])
            hint = _suggestion(given, [*known, *aliases])
            raise ValueError(f"changes: expected arguments of {name}, which are {expected}, got {given!r}{hint}")
        if argument in arguments:
            raise ValueError(f"changes: expected {argument} once, got it under another of its names, too, as {given!r}")
        arguments[argument] = value
    return maker(**arguments)


def _suggestion(given: Any, known: Iterable[str]) -> str:
    nearest = get_close_matches(str(given), known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
