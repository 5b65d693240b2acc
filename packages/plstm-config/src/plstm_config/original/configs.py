"""Configs of the original research project, read as ours."""

import types
import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from plstm_config.base import Config
from plstm_config.norms import NormLayerConfig
from plstm_config.serialization import CONFIG_CLASSES, check_plain, config_class, from_dict, read_mapping, to_dict


class MigrationWarning(UserWarning):
    """Options or weights of the original were dropped, because they had no effect on the output."""


_TAGS = frozenset({"config_class", "class_name", "_shortname", "_short_name"})
_RENAMED = {
    "VitPatchEmbedConfig": "PatchEmbed",
    "VitPosEmbed2dConfig": "PosEmbed2D",
    "pLSTMVisionBlockConfig1": "pLSTMVisionBlock",
    "pLSTMVisionBlock1": "pLSTMVisionBlock",
    "EmbeddingInitConfig": "SmallInit",
}
_SHORT_NAMES = {
    "pLSTMLM": "pLSTMLMModel",
    "pLSTMVisionModel": "pLSTMVisionModel",
    "pLSTM1D": "pLSTM1DLayer",
    "pLSTM2D": "pLSTM2DLayer",
    "pLSTM2DFused": "pLSTM2DLayerFused",
}
# What a parent determines: original files carry unresolved values there, such as num_heads=3 where 4 * 3 are meant.
_J = frozenset({"JQ", "JK", "JV", "JT", "JO"})
_WIDTH = frozenset({"input_dim", "output_dim"})
_HEADS = frozenset({"num_heads"})
_STRUCTURE: dict[str, frozenset[str]] = {
    "SourceLayer": _HEADS | _WIDTH | _J,
    "MarkLayer": _HEADS | _WIDTH | _J,
    "DirectLayer": _HEADS | _WIDTH | _J,
    "QueryLayer": _HEADS | _WIDTH | _J | {"DK"},
    "KeyLayer": _HEADS | _WIDTH | _J | {"DK"},
    "ValueLayer": _HEADS | _WIDTH | _J | {"DV"},
    "LongRangeTransitionLayer": _HEADS | _WIDTH | {"transition_dim"},
    "MultiHeadRMSNorm": _HEADS | _WIDTH,
    "MultiHeadLayerNorm": _HEADS | _WIDTH,
    "Convolution1DLayer": _WIDTH | {"causal"},
    "PatchEmbed": frozenset({"dim", "num_channels", "resolution", "channels_first", "patch_size", "stride"}),
    "PosEmbed2D": frozenset({"seqlens", "dim"}),
    # pairs complete their blocks at once, so they must know their width
    **{name: frozenset({"output_dim"}) for name in ("pLSTMVisionBlock", "pLSTMGraphBlock", "pLSTMGraphEdgeBlock")},
}
# A child that the original keeps although a switch turns it off.
_SWITCHES = {
    "passthrough": ("additional_passthrough", True),
    "convolution": ("additional_convolution", True),
    "key": ("tie_query_key", False),
    "scale": ("use_scale", True),
    "pos_embed": ("use_pos_embed", True),
}
_AS_ORIGINAL: tuple[tuple[tuple[str, ...], str, Any], ...] = (
    (("pLSTM2DLayer", "pLSTM2DLayerFused"), "pmode_complement", "original"),
    (("Convolution1DLayer", "Convolution2DLayer"), "causal", True),
    (("LongRangeTransitionLayer",), "matrix_exponential", "series"),
    (("pLSTMGraphLayer", "pLSTMGraphEdgeLayer"), "pmode_normalization", "incoming"),
    (("pLSTMGraphLayer",), "edge_slots", "swapped"),
    (("pLSTMGraphEdgeLayer",), "transition_node", "tail"),
)


def migrate(source: Mapping[str, Any] | str | Path) -> Config:
    """Read a config of the original project.

    The result keeps the original's departures from the paper (DESIGN of the layers: complement of the angle in P-mode,
    one-sided 2D convolution, truncated exponential, normalisation over incoming edges), so that its weights give the
    same output.

    Args:
        source: a config tree, or a JSON or YAML file with one. Any level is welcome: a model, a block, a layer, a gate.

    Returns:
        Our config.

    Warns:
        MigrationWarning: once, with a list of the options that were dropped, since they had no effect.

    Raises:
        TypeError: if `source` is neither a mapping nor a path.
        ValueError: if its kind cannot be told, or its values do not fit each other.

    Examples:
        >>> from plstm_config.original import migrate
        >>> migrate({"config_class": "RMSNormConfig", "input_dim": 4})
        RMSNormConfig(
            input_dim=4,
        )
    """
    tree = read_mapping(source) if isinstance(source, str | Path) else source
    if not isinstance(tree, Mapping):
        raise TypeError(f"source: expected a mapping or a path to one, got {type(tree).__name__}")
    check_plain(tree)
    dropped: list[str] = []
    config = from_dict(_convert(tree, _kind_of(tree), "", dropped))
    # children that were made on the way have to compute as the original, too
    config = from_dict(_as_original(to_dict(config)))
    if dropped:
        options = ", ".join(dropped)
        warnings.warn(f"dropped options without effect on the output: {options}", MigrationWarning, stacklevel=2)
    return config


def _kind_of(tree: Mapping[str, Any]) -> str:
    short = next((tree[name] for name in ("_shortname", "_short_name") if isinstance(tree.get(name), str)), "")
    kind = _tag(tree) or _SHORT_NAMES.get(short)
    if kind is None:
        raise ValueError(f"source: expected config_class, class_name or _shortname, got the keys {sorted(tree)[:8]}")
    return kind


def _tag(tree: Mapping[str, Any]) -> str | None:
    """Our class_name for a tree that says what it is."""
    by_class = {cls.__name__: name for name, cls in CONFIG_CLASSES.items()} | _RENAMED
    if tree.get("config_class"):
        name = tree["config_class"]
        if not isinstance(name, str) or name not in by_class:
            raise ValueError(f"config_class: expected one of {', '.join(sorted(by_class))}, got {name!r:.80}")
        return by_class[name]
    name = tree.get("class_name")
    if name and not isinstance(name, str):
        raise ValueError(f"class_name: expected a name, got {name!r:.80}")
    return _RENAMED.get(name, name) if name else None


def _convert(tree: Mapping[str, Any], kind: str, path: str, dropped: list[str]) -> dict[str, Any]:
    """Turn one level of an original tree, and all below it, into plain data of ours."""
    cls = config_class(kind)
    known = {field.name for field in fields(cls) if field.init}
    hints = get_type_hints(cls)
    is_child = bool(path)
    result: dict[str, Any] = {"class_name": kind}
    for name, value in tree.items():
        here = f"{path}.{name}" if path else name
        if name in _TAGS or (is_child and name in _structure(kind)):
            continue
        if name not in known or _switched_off(name, tree, known):
            if name in known and value is None:
                continue
            dropped.append(here)
        elif isinstance(value, Mapping):
            result[name] = _convert(value, _tag(value) or _only_option(cls, name, hints[name]), here, dropped)
        elif value is not None:
            result[name] = value
    if "dtype" in known and not issubclass(cls, NormLayerConfig):
        result.setdefault("dtype", "bfloat16")  # what the original computes in unless told
    if kind == "pLSTMLMModel" and result.get("embedding_dim", -1) < 0 and tree.get("input_dim"):
        result["embedding_dim"] = tree["input_dim"]
    return result


def _structure(kind: str) -> frozenset[str]:
    return _STRUCTURE.get(kind, _WIDTH)


def _switched_off(name: str, tree: Mapping[str, Any], known: set[str]) -> bool:
    switch, wanted = _SWITCHES.get(name, (None, None))
    if switch is None or switch not in known:
        return False
    default = {"additional_passthrough": True, "additional_convolution": True, "use_pos_embed": True}.get(switch, False)
    return bool(tree.get(switch, default)) != wanted


def _only_option(cls: type[Config], name: str, hint: Any) -> str:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    configs = [option for option in options if isinstance(option, type) and issubclass(option, Config)]
    if len(configs) != 1:
        choices = ", ".join(option.__name__ for option in configs)
        raise ValueError(f"{cls.__name__}.{name}: expected a config_class or class_name, one of {choices}, got none")
    return str(configs[0].__dataclass_fields__["class_name"].default)


def _as_original(tree: Any) -> Any:
    """Switch plain data of a config to what the original computes."""
    if not isinstance(tree, dict):
        return tree
    switched = {name: _as_original(value) for name, value in tree.items()}
    for names, option, value in _AS_ORIGINAL:
        if tree.get("class_name") in names:
            switched[option] = value
    return switched
