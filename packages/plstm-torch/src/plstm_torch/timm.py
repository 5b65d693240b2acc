"""The vision presets among the models of timm: `pip install "plstm-torch[timm]"`, `import plstm_torch.timm`.

    import timm, plstm_torch.timm
    model = timm.create_model("plstm_vis_tiny", num_classes=10, img_size=64)

Models made so take images [B, C, height, width], as all of timm's do. They have no pretrained weights, so
`pretrained=True` needs a `pretrained_cfg` that says where some are.
"""

from __future__ import annotations

from typing import Any

from torch import nn

import plstm_config
from plstm_config import pLSTMVisionModelConfig
from plstm_torch.build import build
from plstm_torch.models.vision import pLSTMVisionModel
from plstm_torch.models.vision_interface import pooling_name
from plstm_torch.optional import require

_models = require("timm.models", "timm", extra="timm")
_data = require("timm.data", "timm", extra="timm")

# arguments of timm's models under other names than in `plstm_config.preset`
_NAMES = {"global_pool": "pooling"}
_PASSED = ("num_classes", "img_size", "in_chans", "drop_path_rate", "global_pool", "patch_size", "dtype", "param_dtype")

__all__ = ["vision_presets"]


def vision_presets() -> tuple[str, ...]:
    """Names of the presets that are registered with timm: all vision models."""
    return tuple(
        name for name in plstm_config.preset_names() if isinstance(plstm_config.preset(name), pLSTMVisionModelConfig)
    )


def _make(name: str, **arguments: Any) -> pLSTMVisionModel:
    """A preset with timm's names of arguments; images of other sizes than `img_size` are welcome anyway."""
    dynamic = arguments.pop("dynamic_img_size", True)
    dynamic = arguments.pop("dynamic_size", dynamic)
    dropout = arguments.pop("drop_rate", 0)  # which timm's own scripts hand to every model
    if dropout:
        raise ValueError(f"drop_rate: expected 0, since there is no dropout (see drop_path_rate), got {dropout!r}")
    unknown = sorted(set(arguments) - set(_PASSED))
    if unknown:
        raise TypeError(f"{name}: expected arguments among {', '.join(_PASSED)}, got {', '.join(unknown)}")
    given = {_NAMES.get(key, key): value for key, value in arguments.items() if value is not None}
    if "pooling" in given:
        given["pooling"] = pooling_name(given["pooling"])
    config = plstm_config.preset(name, channels_first=True, **given)
    if not dynamic and getattr(config, "pos_embed", None) is not None:
        config = plstm_config.change(config, {"pos_embed.allow_interpolation": False})
    model: Any = build(config)
    return model


def _pretrained_cfg(name: str) -> dict[str, Any]:
    """What timm wants to know of a model's weights and images."""
    config: Any = plstm_config.preset(name)
    return {
        "url": "",
        "num_classes": config.output_shape[0],
        "input_size": (config.num_channels, *config.resolution),
        "pool_size": None,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": False,
        "mean": _data.IMAGENET_DEFAULT_MEAN,
        "std": _data.IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "mit",
    }


def _entrypoint(name: str) -> Any:
    def create(pretrained: bool = False, **arguments: Any) -> nn.Module:
        model: nn.Module = _models.build_model_with_cfg(
            lambda **given: _make(name, **given),
            name,
            pretrained,
            feature_cfg={"out_indices": 3, "feature_cls": "getter"},
            **arguments,
        )
        return model

    create.__name__ = create.__qualname__ = name
    create.__module__ = __name__
    create.__doc__ = f"Preset {name!r}; arguments as in `timm.create_model`."
    return create


default_cfgs = {name: _pretrained_cfg(name) for name in vision_presets()}

for _name in default_cfgs:
    if not _models.is_model(_name):
        _models.register_model(_entrypoint(_name))
del _name
