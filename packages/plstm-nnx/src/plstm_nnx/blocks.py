"""Residual blocks around layers, the transformer baseline, and stacks of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import nnx

import plstm_config as configs
from plstm_nnx.module import Module


class PreUpProjectionBlock(Module, config_class=configs.PreUpProjectionBlockConfig):
    """A layer between an up- and a down-projection: `norm`, `upproj`, `interaction_module`, `downproj`."""


class PostUpProjectionBlock(Module, config_class=configs.PostUpProjectionBlockConfig):
    """A layer, then an MLP: `norm`, `interaction_module`, `norm2`, `upproj`, `downproj`, each branch with its scale."""


class TransformerBlock(Module, config_class=configs.TransformerBlockConfig):
    """The baseline: attention over all positions, then an MLP."""


class pLSTMVisionBlock(Module, config_class=configs.pLSTMVisionBlockConfig):
    """A directed and a diffusive block on a grid, `block0` and `block1`."""


class pLSTMGraphBlock(Module, config_class=configs.pLSTMGraphBlockConfig):
    """The same pair on a graph."""


class pLSTMGraphEdgeBlock(Module, config_class=configs.pLSTMGraphEdgeBlockConfig):
    """The pair on a graph whose edges have features."""


class BlockStack(Module, config_class=configs.BlockStackConfig):
    """Equal blocks one after the other, `blocks`: a list, or one module for all of them, see `Module`."""

    remat: bool

    def __init__(
        self,
        config: configs.BlockStackConfig,
        *,
        rngs: nnx.Rngs,
        params: Mapping[str, Any] | None = None,
        scan_blocks: bool | None = None,
        remat: bool = False,
    ) -> None:
        scan = config.scan_blocks if scan_blocks is None else scan_blocks
        super().__init__(config, rngs=rngs, params=params, scan_blocks=scan, remat=remat)
        self.remat = remat
