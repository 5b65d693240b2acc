"""What a saved model is made into for another use: other classes, other images, parts that are left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

from plstm_config.base import Config
from plstm_config.changing import change
from plstm_config.serialization import from_dict, to_dict
from plstm_config.weights import AcceptsShape, ArrayInfo, Shape, check_shapes

HEAD = "head"
_CLASSES = {"pLSTMVisionModel": "output_shape", "pLSTMGraphModel": "output_dim"}

Belongs: TypeAlias = Callable[[str], bool]


def adapt(
    config: Any, *, num_classes: int | None = None, img_size: int | tuple[int, int] | None = None
) -> tuple[Any, tuple[str, ...]]:
    """The config of a saved model for other classes or images.

    Args:
        config: config of the saved model.
        num_classes: number of outputs of a vision or graph model; None: as it is.
        img_size: size of the images that a vision model is made for, one number or (height, width); None: as it is.

    Returns:
        The config, and the names of the parts whose saved weights do not serve, which are to be drawn anew.

    Raises:
        ValueError: `num_classes` is given for a model without a head for classes, or `img_size` for one without
            images, or the patches do not tile them.
    """
    sized = config if img_size is None else _with_images(config, img_size)
    changed = sized if num_classes is None else _with_classes(sized, num_classes)
    return changed, () if changed == sized else (HEAD,)


def left_out(ignore: Sequence[str], known: Collection[str]) -> Belongs:
    """Which names belong to parts that are left out.

    Args:
        ignore: names of parts, such as ``("head",)``.
        known: names of the parameters that there are, in the module or the folder.

    Returns:
        A function that tells it of a name.

    Raises:
        TypeError: `ignore` is no sequence of names.
        ValueError: nothing has one of its names.
    """
    is_sequence = isinstance(ignore, Sequence) and not isinstance(ignore, str)
    if not is_sequence or not all(isinstance(part, str) for part in ignore):
        raise TypeError(f"ignore: expected a sequence of names of parts, got {ignore!r}")

    def belongs(name: str, part: str) -> bool:
        return name == part or name.startswith(f"{part}.")

    for part in ignore:
        if not any(belongs(name, part) for name in known):
            raise ValueError(f"ignore: expected names of parts of the module or the folder, got {part!r}")
    return lambda name: any(belongs(name, part) for part in ignore)


def check_taken(
    expected: Mapping[str, Shape],
    weights: Mapping[str, ArrayInfo],
    *,
    ignore: Sequence[str],
    owner: str,
    source: str,
    resizable: Mapping[str, AcceptsShape],
) -> None:
    """Refuse weights that a module cannot take; arguments as of `check_shapes`, without the parts that are left out.

    Raises:
        ValueError: they do not fit; if nothing was left out, a note says how to do that.
    """
    try:
        check_shapes(expected, weights, owner=owner, source=source, resizable=resizable)
    except ValueError as error:
        if not ignore and "unexpected" in str(error):
            error.add_note("load_weights(..., ignore=(...)) leaves parts out")
        raise


def _with_classes(config: Any, num_classes: int) -> Config:
    """The config of the same model for another number of classes."""
    field = _CLASSES.get(config.class_name)
    if field is None or config.children().get(HEAD) is None:
        raise ValueError(
            f"num_classes: expected None for a {config.class_name} without a head for classes, got {num_classes}"
        )
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes: expected an integer >= 1, got {num_classes!r}")
    return change(config, {field: (num_classes,) if field == "output_shape" else num_classes})


def _with_images(config: Any, img_size: int | tuple[int, int]) -> Config:
    """The config of the same model for images of another size."""
    if config.class_name != "pLSTMVisionModel":
        raise ValueError(f"img_size: expected None for {config.class_name}, which is not on images, got {img_size}")
    plain: dict[str, Any] = dict(to_dict(config))
    try:
        sides = tuple(img_size) if isinstance(img_size, Sequence) else (img_size, img_size)
        plain |= {"resolution": sides, "seqlens": None}
        plain["patch_embed"] |= {"resolution": sides}
        if plain["pos_embed"] is not None:
            plain["pos_embed"] |= {"seqlens": None}
        return from_dict(plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"img_size: expected a size that the patches tile, got {img_size!r}: {error}") from error
