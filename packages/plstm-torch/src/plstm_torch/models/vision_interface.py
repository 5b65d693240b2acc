"""What timm's models offer beside the forward pass, for libraries that are written against them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

import plstm_config
from plstm_config import pLSTMVisionModelConfig
from plstm_torch.blocks.block_stack import BlockStack
from plstm_torch.build import build
from plstm_torch.dtypes import cat
from plstm_torch.models.pooling import pool_grid
from plstm_torch.module import Module

OUTPUT_FORMATS = ("NCHW", "NHWC", "NLC")
# what timm calls the poolings
_TIMM_POOLINGS = {"avg": "mean", "token": "cls", "": "to_image"}


class PoolOfTiles(Protocol):
    """How the tiles of a grid that is spread over processes are pooled, see `plstm_torch.parallel`."""

    def pool(self, grid: Tensor, pooling: str) -> Tensor:
        """`pool_grid` of the whole, from this process's tile."""


class VisionInterface(Module, ABC):
    """The interface of timm's vision transformers on a vision model; timm itself is not needed.

    Images are as `forward` takes them: with `channels_first` [B, C, height, width], as everywhere in timm. A block, of
    which `pLSTMVisionBlock` is a pair of layers, counts as one.
    """

    config: pLSTMVisionModelConfig
    spread: PoolOfTiles | None = None
    block_stack: BlockStack
    norm: nn.Module
    head: nn.Module | None

    @abstractmethod
    def encode(self, pixels: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """See `pLSTMVisionModel`."""

    @abstractmethod
    def features(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `pLSTMVisionModel`."""

    def _pool(self, grid: Tensor, token: Tensor | None) -> Tensor:
        if token is not None:
            return token
        pool = pool_grid if self.spread is None else self.spread.pool
        return pool(grid, self.config.pooling)

    @abstractmethod
    def _classify(self, grid: Tensor, token: Tensor | None) -> Tensor:
        """See `pLSTMVisionModel`."""

    @property
    def num_features(self) -> int:
        """Width of the patch features."""
        return self.config.dim

    @property
    def embed_dim(self) -> int:
        """Width of the patch features."""
        return self.config.dim

    @property
    def head_hidden_size(self) -> int:
        """Width of what the head reads: four times `num_features` with pooling "corners"."""
        return self.config.head_input_dim

    @property
    def num_classes(self) -> int:
        """Number of outputs of the head, 0 without one."""
        return self.config.output_shape[0] if self.config.has_head else 0

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before those of the patches."""
        return 1 if self.config.pooling == "cls" else 0

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Module, width and stride of the features after each block."""
        patches: Any = self.config.patch_embed
        return [
            {"module": f"block_stack.blocks.{block}", "num_chs": self.config.dim, "reduction": patches.step[0]}
            for block in range(self.config.num_blocks)
        ]

    def set_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Choose whether each block is recomputed in the backward pass instead of keeping its activations."""
        self.block_stack.gradient_checkpointing = enabled

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Do the same under timm's name."""
        self.set_gradient_checkpointing(enable)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that sort the parameters by depth, for learning rates that fall with it."""
        stem = r"^cls_token|^pos_embed|^patch_embed"
        return {"stem": stem, "blocks": [(r"^block_stack\.blocks\.(\d+)", None), (r"^norm", (99999,))]}

    def get_classifier(self) -> nn.Module | None:
        """The head, None if there is none."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head in place of the old one, drawn from torch's global random state.

        Args:
            num_classes: its number of outputs; 0 for no head: outputs are then the pooled features.
            global_pool: another pooling, if given, under the config's or timm's name; not to or from "cls", which has a
                token.

        Raises:
            ValueError: a negative number of classes, or a pooling that the model cannot have.
        """
        pooling = self.config.pooling if global_pool is None else pooling_name(global_pool)
        if (pooling == "cls") != (self.config.pooling == "cls"):
            raise ValueError(f"global_pool: expected one beside {self.config.pooling!r}, got {pooling!r}")
        config: Any = plstm_config.change(self.config, {"output_shape": (num_classes,), "pooling": pooling})
        head = config.children()["head"]
        place = next(self.parameters())
        made: Any = None if head is None else build(head).to(place.device, place.dtype)
        if made is not None:
            made.dtype = self.dtype  # parameters may have another one
        self.head, self.config = made, config

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the normed features that `forward_head` reads.

        Args:
            x: images as in `forward`.

        Returns:
            Patch features [B, X, Y, dim]; with pooling "cls" token and patches [B, 1 + X * Y, dim].

        Raises:
            TypeError: the pixels are integers.
            ValueError: wrong rank or number of channels, or a size that the patches do not tile.
        """
        return _joined(*self.features(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool features and apply the head.

        Args:
            x: features as `forward_features` makes them.
            pre_logits: whether to leave the head out.

        Returns:
            Logits [B, classes], or what the pooling gives.
        """
        grid, token = (x, None) if x.ndim == 4 else (x[:, 1:, None], x[:, 0])
        return self._pool(grid, token) if pre_logits else self._classify(grid, token)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Compute the features after some of the blocks.

        Args:
            x: images as in `forward`.
            indices: number of last blocks, or numbers of blocks, negative ones from the end; None for all.
            return_prefix_tokens: whether to return pairs with the token of pooling "cls" [B, 1, dim].
            norm: whether the norm before the head is applied to all of them.
            stop_early: whether to leave out the blocks after the last one asked for.
            output_fmt: "NCHW" [B, dim, X, Y], "NHWC" [B, X, Y, dim] or "NLC" [B, X * Y, dim].
            intermediates_only: whether to leave out the features that `forward_features` returns.

        Returns:
            The final features and the list of those in between, or the list alone. With `stop_early` the final
            features are those of the last block that ran.

        Raises:
            TypeError: the pixels are integers.
            ValueError: an unknown format, a block that there is not, or images that do not fit.
        """
        if output_fmt not in OUTPUT_FORMATS:
            raise ValueError(f"output_fmt: expected one of {', '.join(OUTPUT_FORMATS)}, got {output_fmt!r}")
        taken = block_indices(indices, self.config.num_blocks)
        found: dict[int, Any] = {}
        grid, token = None, None
        for block, (grid, token) in enumerate(self.encode(x), start=-1):
            if block in taken:
                shown = self._normed(grid, token) if norm else (grid, token)
                patches = _formatted(shown[0], output_fmt)
                prefix = None if shown[1] is None else shown[1].unsqueeze(1)
                found[block] = (patches, prefix) if return_prefix_tokens and prefix is not None else patches
            if stop_early and block == max(taken):
                break
        intermediates = [found[block] for block in taken]
        return intermediates if intermediates_only else (_joined(*self._normed(grid, token)), intermediates)

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
    ) -> list[Any]:
        """Compute the features after the last n, or the given, blocks.

        Args:
            x: images, as the model takes them [B, height, width, C] or [B, C, height, width].
            n: how many of the last blocks, or the numbers of blocks.
            reshape: whether to return maps [B, dim, X, Y] instead of sequences [B, X * Y, dim].
            return_prefix_tokens: whether to return the class token beside each.
            norm: whether to apply the last norm to each.

        Returns:
            A list with the features of each block.
        """
        shown = "NCHW" if reshape else "NLC"
        options: dict[str, Any] = {"return_prefix_tokens": return_prefix_tokens, "norm": norm, "output_fmt": shown}
        found: list[Any] = self.forward_intermediates(x, n, intermediates_only=True, **options)
        return found

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the blocks after the last one asked for, for good.

        Args:
            indices: as in `forward_intermediates`.
            prune_norm: has no effect: the norm stays, with few parameters.
            prune_head: whether to remove the head, too.

        Returns:
            The numbers of the blocks asked for.

        Raises:
            ValueError: a block that there is not.
        """
        taken = block_indices(indices, self.config.num_blocks)
        if prune_head:
            self.reset_classifier(0)
        plain = plstm_config.to_dict(self.config)
        plain["num_blocks"] = plain["block_stack"]["num_blocks"] = max(taken) + 1
        config: Any = plstm_config.from_dict(plain)
        self.block_stack.blocks = self.block_stack.blocks[: max(taken) + 1]  # type: ignore[assignment]
        self.config, self.block_stack.config = config, config.block_stack
        return taken

    def _normed(self, grid: Any, token: Any) -> tuple[Tensor, Tensor | None]:
        return self.norm(grid), None if token is None else self.norm(token)


def pooling_name(global_pool: str) -> str:
    """The config's name of a pooling for timm's: "avg", "token" and ""; other names stay."""
    return _TIMM_POOLINGS.get(global_pool, global_pool)


def block_indices(indices: int | Iterable[int] | None, count: int) -> list[int]:
    """The numbers of the blocks that are asked for.

    Args:
        indices: number of last blocks, or numbers, negative ones from the end; None for all.
        count: number of blocks.

    Returns:
        Numbers from 0 to `count` - 1, in the order asked for.

    Raises:
        ValueError: a number out of range, or none at all.
    """
    if indices is None:
        return list(range(count))
    if isinstance(indices, int):
        if not 1 <= indices <= count:
            raise ValueError(f"indices: expected a number of blocks from 1 to {count}, got {indices}")
        return list(range(count - indices, count))
    numbers = list(indices)
    if not numbers or not all(-count <= number < count for number in numbers):
        raise ValueError(f"indices: expected numbers of blocks from {-count} to {count - 1}, got {numbers}")
    return [number % count for number in numbers]


def _joined(grid: Tensor, token: Tensor | None) -> Tensor:
    if token is None:
        return grid
    return cat([token.unsqueeze(1), grid.flatten(1, 2)], dim=1)


def _formatted(grid: Tensor, output_fmt: str) -> Tensor:
    if output_fmt == "NCHW":
        return grid.permute(0, 3, 1, 2)
    return grid if output_fmt == "NHWC" else grid.flatten(1, 2)
